package store

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/metatest"
	"ashlar/daemon/meta/trash"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
	"ashlar/s3gw/store/row"
)

// memStripes keeps whole extents in memory, by WriteID.
type memStripes struct {
	mu         sync.Mutex
	live       map[ashlar.WriteID]memExtent
	deleteErr  error // DeleteStripes answers it if set
	deletes    int
	beforeRead func(wire.ReadRequest) error
}

type memExtent struct {
	bucket ashlar.BucketID
	key    string
	extent ashlar.Extent
	data   []byte
}

func newStripes() *memStripes { return &memStripes{live: map[ashlar.WriteID]memExtent{}} }

func (m *memStripes) WriteStripes(ctx context.Context, req wire.WriteRequest, body io.Reader) (ashlar.Extent, error) {
	var data []byte
	var err error
	if req.Bytes >= 0 { // a reader that knows the length does not look for the end
		data = make([]byte, req.Bytes)
		_, err = io.ReadFull(body, data)
	} else {
		data, err = io.ReadAll(body)
	}
	if err != nil {
		return ashlar.Extent{}, ashlar.E("test: write", req.Key, ashlar.Invalid, errors.New("hidden: "+err.Error()))
	}
	e := ashlar.Extent{
		Write: ashlar.NewWriteID(), Part: req.Part, Bytes: uint64(len(data)),
		StripeBytes: ashlar.MiB, SmallMax: 4096, Large: ashlar.Code{K: 4, M: 2}, Small: ashlar.Code{K: 1, M: 2},
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(data) > 0 {
		m.live[e.Write] = memExtent{req.Bucket, req.Key, e, data}
	}
	return e, nil
}

func (m *memStripes) ReadStripes(ctx context.Context, req wire.ReadRequest) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.beforeRead != nil {
		if err := m.beforeRead(req); err != nil {
			return nil, err
		}
	}
	var all []byte
	for _, e := range req.Extents {
		x, ok := m.live[e.Write]
		if !ok || x.bucket != req.Bucket || x.key != req.Key || x.extent != e {
			return nil, ashlar.E("test: read", req.Key, ashlar.NotFound, nil)
		}
		all = append(all, x.data...)
	}
	if req.Off+req.Length > uint64(len(all)) {
		return nil, ashlar.E("test: read", req.Key, ashlar.Invalid, nil)
	}
	return io.NopCloser(bytes.NewReader(all[req.Off : req.Off+req.Length])), nil
}

func (m *memStripes) DeleteStripes(ctx context.Context, bucket ashlar.BucketID, key string, extents []ashlar.Extent) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deletes++
	if m.deleteErr != nil {
		return m.deleteErr
	}
	for _, e := range extents {
		delete(m.live, e.Write)
	}
	return nil
}

func (m *memStripes) writes() []ashlar.WriteID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.live))
}

// hooked is a meta.Store with faults: commit may replace a commit, pages may
// be cut short.
type hooked struct {
	meta.Store
	mu     sync.Mutex
	commit func(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn, next func() error) error
	get    func(key []byte)
	scan   func(req meta.ScanRequest)
	rnd    *rand.Rand // cuts pages short if set
}

func (h *hooked) Get(ctx context.Context, shard ashlar.ShardID, key []byte) (meta.Row, error) {
	h.mu.Lock()
	hook := h.get
	h.mu.Unlock()
	if hook != nil {
		hook(key)
	}
	return h.Store.Get(ctx, shard, key)
}

func (h *hooked) Commit(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn) error {
	h.mu.Lock()
	hook := h.commit
	h.mu.Unlock()
	next := func() error { return h.Store.Commit(ctx, shard, txn) }
	if hook != nil {
		return hook(ctx, shard, txn, next)
	}
	return next()
}

func (h *hooked) Scan(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest) (meta.ScanPage, error) {
	h.mu.Lock()
	if h.rnd != nil && req.Limit > 1 {
		req.Limit = 1 + h.rnd.IntN(req.Limit)
	}
	hook := h.scan
	h.mu.Unlock()
	if hook != nil {
		hook(req)
	}
	return h.Store.Scan(ctx, shard, req)
}

func (h *hooked) onCommit(fn func(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn, next func() error) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.commit = fn
}

func (h *hooked) onScan(fn func(req meta.ScanRequest)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.scan = fn
}

func (h *hooked) onGet(fn func(key []byte)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.get = fn
}

var errLost = ashlar.E("test: lost", "", ashlar.Unavailable, nil)

// rig is a Store on doubles, with one bucket "b" of account "me".
type rig struct {
	*Store
	meta    *hooked
	stripes *memStripes
	ctx     context.Context
	clock   *fakeClock
}

type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Microsecond)
	return c.now
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

const testShards = 3

func testMap() *topology.Map {
	return &topology.Map{
		Epoch: 7, Groups: make([]topology.Group, 1), Shards: make([]topology.Shard, testShards),
		Settings: topology.Settings{BucketShards: 4},
	}
}

func newRig(t testing.TB) *rig {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	r := bareRig(ctx)
	t.Cleanup(r.Close)
	if err := r.CreateBucket(ctx, "me", "b", ""); err != nil {
		t.Fatal(err)
	}
	return r
}

func bareRig(ctx context.Context) *rig {
	r := &rig{
		meta: &hooked{Store: metatest.NewModel()}, stripes: newStripes(), ctx: ctx,
		clock: &fakeClock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
	}
	r.Store = r.again()
	return r
}

// again returns another Store on the same data: another gateway, or the same
// one after a restart.
func (r *rig) again() *Store {
	return New(r.meta, r.stripes, testMap, Options{Clock: r.clock.Now, Region: "eu-test-1"})
}

// testBody is a Body over bytes, with its digests.
type testBody struct {
	r       io.Reader
	n       int64
	sum     [16]byte
	check   *Checksum
	failure error // instead of io.EOF
	eof     bool
}

func body(data []byte) *testBody {
	return &testBody{r: bytes.NewReader(data), n: int64(len(data)), sum: md5.Sum(data)}
}

func (b *testBody) Bytes() int64 { return b.n }

func (b *testBody) Algorithm() string { return algorithmOf(b.check) }

func (b *testBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err == io.EOF {
		if b.failure != nil {
			return n, b.failure
		}
		b.eof = true
	}
	return n, err
}

func (b *testBody) Sums() ([16]byte, *Checksum) {
	if !b.eof {
		panic("Sums before io.EOF")
	}
	return b.sum, b.check
}

func (r *rig) put(t tester, bucket, key, content string) Object {
	t.Helper()
	o, err := r.PutObject(r.ctx, &PutRequest{Bucket: bucket, Key: key, Owner: "me"}, body([]byte(content)))
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	return o
}

// read returns the whole content of the current object.
func (r *rig) read(t tester, bucket, key string) string {
	t.Helper()
	o, err := r.HeadObject(r.ctx, bucket, key, "")
	if err != nil {
		t.Fatalf("head %q: %v", key, err)
	}
	return r.content(t, &o, 0, o.Bytes)
}

func (r *rig) content(t tester, o *Object, off, n uint64) string {
	t.Helper()
	rc, err := r.OpenObject(r.ctx, o, off, n)
	if err != nil {
		t.Fatalf("open %q: %v", o.Key, err)
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	if err != nil {
		t.Fatalf("read %q: %v", o.Key, err)
	}
	return string(data)
}

func want(t tester, err, target error) {
	t.Helper()
	if !errors.Is(err, target) || (target == nil && err != nil) {
		t.Fatalf("error is %v, want %v", err, target)
	}
}

// audit scans every row of every shard and checks what must always hold: each
// stored extent is referred to exactly once, by a row or by the trash, none is
// referred to that is not stored, the counters are a full scan's, and References,
// which is asked before anything is freed, says the same as the scan.
func (r *rig) audit(t tester) {
	t.Helper()
	r.background.Wait()
	refs, thrown := map[ashlar.WriteID]int{}, map[ashlar.WriteID]bool{}
	got, wantCount := map[string]int64{}, map[string]int64{}
	queued, queuedSays := map[string]int64{}, map[string]int64{}
	manifests, manifestRefs := 0, 0
	add := func(k []byte, what byte, n int64) {
		wantCount[string(k[1:row.HeaderBytes])+string(what)] += n
	}
	for shard := range ashlar.ShardID(testShards) {
		for _, rw := range r.rows(t, shard) {
			var list []ashlar.Extent
			var err error
			switch rw.Key[0] {
			case row.KindObject:
				var m row.Object
				err = errors.Join(err, row.Decode(rw.Key, rw.Value, &m))
				list, _ = m.Extents.List()
				objects, size := byte(row.CountOthers), byte(row.CountOtherBytes)
				if _, suffix, _ := row.UserKey(rw.Key); suffix[0] == 0 && !m.DeleteMarker {
					objects, size = row.CountObjects, row.CountBytes
				}
				add(rw.Key, objects, 1)
				add(rw.Key, size, int64(m.Bytes))
				if len(m.Manifest) > 0 {
					manifestRefs++
				}
			case row.KindManifest:
				var m row.Manifest
				err = row.Decode(rw.Key, rw.Value, &m)
				list, _ = m.Extents.List()
				manifests++
			case row.KindPart:
				var m row.Part
				err = row.Decode(rw.Key, rw.Value, &m)
				list, _ = m.Extents.List()
				add(rw.Key, row.CountPartBytes, int64(m.Bytes))
			case row.KindUpload:
				add(rw.Key, row.CountUploads, 1)
			case row.KindCounter:
				if rw.Key[row.HeaderBytes] == row.CountLimit {
					continue
				}
				n := int64(rw.Value[0]) | int64(rw.Value[1])<<8 | int64(rw.Value[2])<<16 | int64(rw.Value[3])<<24 |
					int64(rw.Value[4])<<32 | int64(rw.Value[5])<<40 | int64(rw.Value[6])<<48 | int64(rw.Value[7])<<56
				got[string(rw.Key[1:row.HeaderBytes])+string(rw.Key[row.HeaderBytes])] += n
			case row.KindEvent:
				at, ok := row.ParseEvent(rw.Key)
				if !ok {
					t.Fatalf("key of an event %x", rw.Key)
				}
				_, err = event(&rw)
				queued[string(row.Queued(at.Target, row.CountEvents))+numbered(int(shard))]++
			case row.KindQueued:
				n, bad := counter(&rw)
				err = bad
				if rw.Key[len(rw.Key)-1] == row.CountEvents && n != 0 {
					queuedSays[string(rw.Key)+numbered(int(shard))] = n
				}
			case trash.Kind:
				var e trash.Entry
				e, err = trash.Decode(rw)
				list = e.Extents
				for _, x := range list {
					thrown[x.Write] = true
				}
			}
			if err != nil {
				t.Fatalf("row %q: %v", rw.Key, err)
			}
			for _, x := range list {
				if x.Bytes > 0 {
					refs[x.Write]++
				}
			}
		}
	}
	if !maps.Equal(queued, queuedSays) {
		t.Fatalf("queues hold %v, their counters say %v", queued, queuedSays)
	}
	if manifests != manifestRefs {
		t.Fatalf("%d manifests, %d objects that refer to one", manifests, manifestRefs)
	}
	live, referee := r.stripes.writes(), NewReferences(r.meta.Store)
	for _, w := range live {
		x := r.stripes.live[w]
		if refs[w] != 1 {
			t.Fatalf("extent of %q part %d is referred to %d times", x.key, x.extent.Part, refs[w])
		}
		// As the search for orphans asks: of a record it knows write and part.
		says, err := referee.Refers(context.Background(), x.bucket, x.key, []ashlar.Extent{{Write: w, Part: x.extent.Part}})
		if err != nil || says[0] == thrown[w] {
			t.Fatalf("extent of %q part %d: on the trash list %v, referred to %v, %v", x.key, x.extent.Part, thrown[w], says, err)
		}
	}
	if len(refs) != len(live) {
		t.Fatalf("%d extents are referred to, %d are stored", len(refs), len(live))
	}
	for k, n := range wantCount {
		if got[k] != n {
			t.Fatalf("counter %q is %d, a scan says %d", k[len(k)-1:], got[k], n)
		}
	}
	for k, n := range got {
		if wantCount[k] != n {
			t.Fatalf("counter %q is %d, a scan says %d", k[len(k)-1:], n, wantCount[k])
		}
	}
}

func (r *rig) rows(t tester, shard ashlar.ShardID) (all []meta.Row) {
	t.Helper()
	var start []byte
	for {
		page, err := r.meta.Store.Scan(context.Background(), shard, meta.ScanRequest{Start: start})
		if err != nil {
			t.Fatalf("scan: %v", err)
		}
		all = append(all, page.Rows...)
		if page.Next == nil {
			return all
		}
		start = page.Next
	}
}

// census counts the rows of all shards by kind.
func (r *rig) census(t tester) map[byte]int {
	t.Helper()
	out := map[byte]int{}
	for shard := range ashlar.ShardID(testShards) {
		for _, rw := range r.rows(t, shard) {
			out[rw.Key[0]]++
		}
	}
	return out
}

func keysOf(list []Object) (keys []string) {
	for _, o := range list {
		keys = append(keys, o.Key)
	}
	return keys
}

func numbered(n int) string { return fmt.Sprintf("%04d", n) }

// unput deletes an object the way most tests want it: without a version.
func (s *Store) unput(ctx context.Context, bucket, key string, c Conditions) error {
	_, err := s.DeleteObject(ctx, bucket, key, "", "me", c)
	return err
}
