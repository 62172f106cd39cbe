package store

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ashlar"
	"ashlar/daemon/meta"
)

// The plain meaning of S3, as maps. The property test runs random requests
// against it and against the store, through two gateways, over scans that
// answer short pages and commits whose answers get lost.

type plainObject struct {
	content, etag, kind string
	multi               bool
}

type plainUpload struct {
	bucket, key, kind string
	parts             map[int]string
	done              *plainObject // completed
	aborted           bool
}

type plain struct {
	buckets map[string]map[string]plainObject // bucket → key → object
	owners  map[string]string
	uploads map[string]*plainUpload // by id
	order   []string                // ids in order of creation
}

type machine struct {
	*rig
	second *Store
	m      plain
	ops    map[string]int
}

var (
	bucketNames = []string{"one", "two"}
	keyNames    = []string{"a", "a/", "a/b", "a/b/c", "a0", "b", "b/x", "b/y", "ä", "z z"}
	smallParts  = []string{"", "p", "part two", "third part"}
)

func md5hex(s string) string { sum := md5.Sum([]byte(s)); return hex.EncodeToString(sum[:]) }

// gateway is one of the two.
func (m *machine) gateway(t *rapid.T) *Store {
	return []*Store{m.Store, m.second}[rapid.IntRange(0, 1).Draw(t, "gateway")]
}

func (m *machine) bucketKey(t *rapid.T) (bucket, key string, objects map[string]plainObject) {
	bucket = rapid.SampledFrom(bucketNames).Draw(t, "bucket")
	key = rapid.SampledFrom(keyNames).Draw(t, "key")
	return bucket, key, m.m.buckets[bucket]
}

// condition draws conditions of a write, sometimes ones that fit.
func (m *machine) condition(t *rapid.T, current plainObject) (c Conditions) {
	etag := current.etag
	if etag == "" || rapid.Bool().Draw(t, "other") {
		etag = md5hex("other")
	}
	switch rapid.IntRange(0, 7).Draw(t, "condition") {
	case 0:
		c.IfNoneMatch = []string{"*"}
	case 1:
		c.IfMatch = []string{etag}
	case 2:
		c.IfMatch = []string{"*"}
	case 3:
		c.IfNoneMatch = []string{etag}
	}
	return c
}

// allowed is judgeWrite said once more, in the words of the manual.
func allowed(c Conditions, o plainObject, exists bool) error {
	if c.IfMatch != nil && !exists {
		return ErrNoSuchKey
	}
	if c.IfMatch != nil && c.IfMatch[0] != "*" && c.IfMatch[0] != o.etag {
		return ErrPreconditionFailed
	}
	if c.IfNoneMatch != nil && exists && (c.IfNoneMatch[0] == "*" || c.IfNoneMatch[0] == o.etag) {
		return ErrPreconditionFailed
	}
	return nil
}

func (m *machine) expect(t *rapid.T, what string, err, want error) {
	m.ops[what]++
	if want == nil && err == nil {
		return
	}
	m.ops[what+" refused"]++
	if !errors.Is(err, want) || want == nil {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

func (m *machine) put(t *rapid.T) {
	bucket, key, objects := m.bucketKey(t)
	old, exists := objects[key]
	cond := m.condition(t, old)
	content := rapid.SampledFrom([]string{"", "x", "content", "other content"}).Draw(t, "content")
	kind := rapid.SampledFrom([]string{"", "text/plain"}).Draw(t, "type")
	b := body([]byte(content))
	if rapid.Bool().Draw(t, "unknown length") {
		b.n = -1
	}
	_, err := m.gateway(t).PutObject(m.ctx, &PutRequest{
		Bucket: bucket, Key: key, Owner: "me", Conditions: cond, Attributes: Attributes{ContentType: kind}}, b)
	if objects == nil {
		m.expect(t, "put", err, ErrNoSuchBucket)
		return
	}
	if errors.Is(err, ErrConflict) {
		return // a cached record of a bucket that was made again: nothing stored
	}
	want := allowed(cond, old, exists)
	m.expect(t, "put", err, want)
	if want == nil {
		objects[key] = plainObject{content: content, etag: md5hex(content), kind: kind}
	}
}

func (m *machine) del(t *rapid.T) {
	bucket, key, objects := m.bucketKey(t)
	old, exists := objects[key]
	cond := m.condition(t, old)
	cond.IfNoneMatch = nil
	err := m.gateway(t).unput(m.ctx, bucket, key, cond)
	want := allowed(cond, old, exists)
	if objects == nil {
		want = ErrNoSuchBucket
	}
	m.expect(t, "delete", err, want)
	if want == nil {
		delete(objects, key)
	}
}

func (m *machine) get(t *rapid.T) {
	bucket, key, objects := m.bucketKey(t)
	o, err := m.gateway(t).HeadObject(m.ctx, bucket, key, "")
	m.sameObject(t, bucket, key, objects, o, err)
}

func (m *machine) sameObject(t *rapid.T, bucket, key string, objects map[string]plainObject, o Object, err error) {
	old, exists := objects[key]
	switch {
	case objects == nil:
		m.expect(t, "get", err, ErrNoSuchBucket)
	case !exists:
		m.expect(t, "get", err, ErrNoSuchKey)
	default:
		m.expect(t, "get", err, nil)
		if o.ETag != old.etag || o.ContentType != old.kind || int(o.Bytes) != len(old.content) || (len(o.PartBytes) > 0) != old.multi {
			t.Fatalf("get %s/%s: %+v, want etag %s of %d bytes", bucket, key, o, old.etag, len(old.content))
		}
		if m.content(t, &o, 0, o.Bytes) != old.content {
			t.Fatalf("get %s/%s: wrong content", bucket, key)
		}
	}
}

func (m *machine) copyObject(t *rapid.T) {
	bucket, key, objects := m.bucketKey(t)
	from, fromKey, sources := m.bucketKey(t)
	old, exists := objects[key]
	source, found := sources[fromKey]
	req := &CopyRequest{Put: PutRequest{Bucket: bucket, Key: key, Owner: "me", Conditions: m.condition(t, old)}}
	req.Source.Bucket, req.Source.Key = from, fromKey
	req.Replace = rapid.Bool().Draw(t, "replace")
	req.Put.ContentType = "copied"
	_, err := m.gateway(t).CopyObject(m.ctx, req)
	if errors.Is(err, ErrConflict) {
		return
	}
	same := bucket == from && key == fromKey
	var want error
	switch {
	case sources == nil:
		want = ErrNoSuchBucket
	case !found:
		want = ErrNoSuchKey
	case same && !req.Replace:
		want = ErrCopyUnchanged
	case objects == nil:
		want = ErrNoSuchBucket
	default:
		want = allowed(req.Put.Conditions, old, exists)
	}
	m.expect(t, "copy", err, want)
	if want != nil {
		return
	}
	if !same {
		source.etag, source.multi = md5hex(source.content), false
	}
	if req.Replace {
		source.kind = "copied"
	}
	objects[key] = source
}

func (m *machine) list(t *rapid.T) {
	bucket, _, objects := m.bucketKey(t)
	req := ListRequest{
		Bucket:    bucket,
		Prefix:    rapid.SampledFrom([]string{"", "a", "a/", "b/", "nope"}).Draw(t, "prefix"),
		Delimiter: rapid.SampledFrom([]string{"", "/", "b", "a/"}).Draw(t, "delimiter"),
		After:     rapid.SampledFrom(append([]string{""}, keyNames...)).Draw(t, "after"),
		Max:       rapid.IntRange(1, 12).Draw(t, "max"),
	}
	if objects == nil {
		_, err := m.gateway(t).ListObjects(m.ctx, req)
		m.expect(t, "list", err, ErrNoSuchBucket)
		return
	}
	model := listing(slices.Collect(maps.Keys(objects)), req.Prefix, req.Delimiter, req.After)
	if got := m.listAll(t, req); !slices.Equal(got, model) {
		t.Fatalf("list %+v:\n got %q\nwant %q", req, got, model)
	}
	m.ops["list"]++
}

func (m *machine) createBucket(t *rapid.T) {
	bucket := rapid.SampledFrom(bucketNames).Draw(t, "bucket")
	owner := rapid.SampledFrom([]string{"me", "you"}).Draw(t, "owner")
	err := m.gateway(t).CreateBucket(m.ctx, owner, bucket, "")
	switch {
	case m.m.buckets[bucket] == nil:
		m.expect(t, "create bucket", err, nil)
		m.m.buckets[bucket] = map[string]plainObject{}
		m.m.owners[bucket] = owner
	case m.m.owners[bucket] == owner:
		m.expect(t, "create bucket", err, ErrBucketOwned)
	default:
		m.expect(t, "create bucket", err, ErrBucketExists)
	}
}

func (m *machine) deleteBucket(t *rapid.T) {
	bucket := rapid.SampledFrom(bucketNames).Draw(t, "bucket")
	if rapid.Bool().Draw(t, "empty it first") {
		m.empty(t, bucket)
	}
	var want error
	switch {
	case m.m.buckets[bucket] == nil:
		want = ErrNoSuchBucket
	case len(m.m.buckets[bucket]) > 0:
		want = ErrBucketNotEmpty
	}
	m.expect(t, "delete bucket", m.gateway(t).DeleteBucket(m.ctx, bucket), want)
	if want == nil {
		delete(m.m.buckets, bucket)
		m.m.order = slices.DeleteFunc(m.m.order, func(id string) bool { return m.m.uploads[id].bucket == bucket })
	}
}

func (m *machine) empty(t *rapid.T, bucket string) {
	for key := range m.m.buckets[bucket] {
		m.expect(t, "delete", m.unput(m.ctx, bucket, key, Conditions{}), nil)
		delete(m.m.buckets[bucket], key)
	}
	for _, id := range m.open(bucket) {
		m.expect(t, "abort", m.AbortUpload(m.ctx, bucket, m.m.uploads[id].key, id), nil)
		m.m.uploads[id].aborted = true
	}
}

func (m *machine) listBuckets(t *rapid.T) {
	owner := rapid.SampledFrom([]string{"me", "you"}).Draw(t, "owner")
	page, more, err := m.gateway(t).ListBuckets(m.ctx, owner, "", "", 0)
	m.expect(t, "list buckets", err, nil)
	var got, want []string
	for _, b := range page {
		got = append(got, b.Name)
	}
	for name := range m.m.buckets {
		if m.m.owners[name] == owner {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	if more || !slices.Equal(got, want) {
		t.Fatalf("buckets of %s: %v, want %v", owner, got, want)
	}
}

// open lists the ids of uploads of a bucket that were not ended, oldest first.
func (m *machine) open(bucket string) (ids []string) {
	for _, id := range m.m.order {
		if u := m.m.uploads[id]; u.bucket == bucket && u.done == nil && !u.aborted {
			ids = append(ids, id)
		}
	}
	return ids
}

func (m *machine) createUpload(t *rapid.T) {
	bucket, key, objects := m.bucketKey(t)
	id, err := m.gateway(t).CreateUpload(m.ctx, &Upload{Bucket: bucket, Key: key, Owner: "me", Attributes: Attributes{ContentType: "multi"}})
	if objects == nil {
		m.expect(t, "create upload", err, ErrNoSuchBucket)
		return
	}
	m.expect(t, "create upload", err, nil)
	m.m.uploads[id] = &plainUpload{bucket: bucket, key: key, kind: "multi", parts: map[int]string{}}
	m.m.order = append(m.m.order, id)
}

func (m *machine) drawUpload(t *rapid.T) (string, *plainUpload) {
	if len(m.m.order) == 0 {
		t.Skip("no upload")
	}
	choice := m.m.order
	if live := append(m.open("one"), m.open("two")...); len(live) > 0 && rapid.IntRange(0, 4).Draw(t, "ended too") > 0 {
		choice = live
	}
	id := rapid.SampledFrom(choice).Draw(t, "upload")
	return id, m.m.uploads[id]
}

func (u *plainUpload) live() bool { return u.done == nil && !u.aborted }

func (m *machine) putPart(t *rapid.T) {
	id, u := m.drawUpload(t)
	number := rapid.IntRange(1, 3).Draw(t, "number")
	content := rapid.SampledFrom(smallParts).Draw(t, "content")
	b := body([]byte(content))
	if number < 3 && rapid.IntRange(0, 3).Draw(t, "big") == 0 {
		content = string(big)
		b = &testBody{r: bytes.NewReader(big), n: int64(len(big)), sum: bigSum}
	}
	_, err := m.gateway(t).PutPart(m.ctx, u.bucket, u.key, id, number, b)
	if !u.live() {
		m.expect(t, "put part", err, ErrNoSuchUpload)
		return
	}
	m.expect(t, "put part", err, nil)
	u.parts[number] = content
}

func (m *machine) completeUpload(t *rapid.T) {
	id, u := m.drawUpload(t)
	old, exists := m.m.buckets[u.bucket][u.key]
	cond := m.condition(t, old)
	chosen := rapid.SliceOfNDistinct(rapid.IntRange(1, 3), 1, 3, rapid.ID).Draw(t, "parts")
	if have := slices.Sorted(maps.Keys(u.parts)); len(have) > 0 && rapid.IntRange(0, 3).Draw(t, "other parts") > 0 {
		chosen = have
		if len(u.parts[have[0]]) < PartBytesMin {
			chosen = have[:1]
		}
	}
	if rapid.IntRange(0, 9).Draw(t, "unsorted") > 0 {
		slices.Sort(chosen)
	}
	var list []CompletePart
	var want error
	content, sums := "", []byte(nil)
	for i, n := range chosen {
		part, ok := u.parts[n]
		list = append(list, CompletePart{Number: n, ETag: md5hex(part)})
		sum := md5.Sum([]byte(part))
		sums = append(sums, sum[:]...)
		content += part
		if !ok && want == nil {
			want = ErrInvalidPart
		}
		if len(part) < PartBytesMin && i < len(chosen)-1 && want == nil {
			want = ErrEntityTooSmall
		}
	}
	if want == nil {
		want = allowed(cond, old, exists)
	}
	if !slices.IsSorted(chosen) {
		want = ErrInvalidPartOrder
	} else if u.aborted {
		want = ErrNoSuchUpload
	} else if u.done != nil {
		want = nil
	}
	o, err := m.gateway(t).CompleteUpload(m.ctx, u.bucket, u.key, id, list, nil, cond)
	m.expect(t, "complete", err, want)
	if want != nil {
		return
	}
	if u.done == nil {
		u.done = &plainObject{content: content, etag: fmt.Sprintf("%s-%d", md5hex(string(sums)), len(chosen)), kind: u.kind, multi: true}
		m.m.buckets[u.bucket][u.key] = *u.done
	}
	if o.ETag != u.done.etag {
		t.Fatalf("complete: etag %s, want %s", o.ETag, u.done.etag)
	}
}

func (m *machine) abort(t *rapid.T) {
	id, u := m.drawUpload(t)
	err := m.gateway(t).AbortUpload(m.ctx, u.bucket, u.key, id)
	if !u.live() {
		m.expect(t, "abort", err, ErrNoSuchUpload)
		return
	}
	m.expect(t, "abort", err, nil)
	u.aborted = true
}

func (m *machine) listUploads(t *rapid.T) {
	bucket, _, objects := m.bucketKey(t)
	ups, _, truncated, err := m.gateway(t).ListUploads(m.ctx, bucket, "", "", "", "", ListMax)
	if objects == nil {
		m.expect(t, "list uploads", err, ErrNoSuchBucket)
		return
	}
	m.expect(t, "list uploads", err, nil)
	var got []string
	for _, u := range ups {
		got = append(got, u.ID)
	}
	want := m.open(bucket)
	slices.SortStableFunc(want, func(a, b string) int { return strings.Compare(m.m.uploads[a].key, m.m.uploads[b].key) })
	if truncated || !slices.Equal(got, want) {
		t.Fatalf("uploads %v, want %v", got, want)
	}
}

// check runs after every action.
func (m *machine) check(t *rapid.T) {
	m.second.background.Wait()
	m.audit(t)
	for bucket, objects := range m.m.buckets {
		model := listing(slices.Collect(maps.Keys(objects)), "", "", "")
		if got := m.listAll(t, ListRequest{Bucket: bucket, Max: 7}); !slices.Equal(got, model) {
			t.Fatalf("bucket %s holds %q, want %q", bucket, got, model)
		}
		for _, key := range model {
			o, err := m.HeadObject(m.ctx, bucket, key, "")
			m.sameObject(t, bucket, key, objects, o, err)
		}
	}
}

func TestStoreEqualsPlainModel(t *testing.T) {
	ops := map[string]int{}
	t.Cleanup(func() {
		for _, what := range slices.Sorted(maps.Keys(ops)) {
			t.Logf("%6d %s", ops[what], what)
		}
	})
	for range 2 {
		rapid.Check(t, func(t *rapid.T) { runMachine(t, ops) })
	}
}

func runMachine(t *rapid.T, ops map[string]int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m := &machine{rig: bareRig(ctx), ops: ops, m: plain{
		buckets: map[string]map[string]plainObject{}, owners: map[string]string{}, uploads: map[string]*plainUpload{},
	}}
	defer m.Close()
	m.second = m.again()
	defer m.second.Close()
	seed := rapid.Uint64().Draw(t, "seed")
	m.meta.rnd = rand.New(rand.NewPCG(seed, 2))
	m.loseAnswers(rand.New(rand.NewPCG(seed, 3)))
	m.want(t, m.CreateBucket(ctx, "me", "one", ""))
	m.m.buckets["one"], m.m.owners["one"] = map[string]plainObject{}, "me"
	t.Repeat(map[string]func(*rapid.T){
		"":              m.check,
		"put":           m.put,
		"put2":          m.put,
		"delete":        m.del,
		"get":           m.get,
		"copy":          m.copyObject,
		"list":          m.list,
		"create bucket": m.createBucket,
		"delete bucket": m.deleteBucket,
		"list buckets":  m.listBuckets,
		"create upload": m.createUpload,
		"put part":      m.putPart,
		"put part 2":    m.putPart,
		"complete":      m.completeUpload,
		"abort":         m.abort,
		"list uploads":  m.listUploads,
	})
}

// loseAnswers makes every tenth commit lose its answer, before or after it was
// applied.
func (m *machine) loseAnswers(rnd *rand.Rand) {
	m.meta.onCommit(func(_ context.Context, _ ashlar.ShardID, _ *meta.Txn, next func() error) error {
		m.meta.mu.Lock()
		fate := rnd.IntN(20)
		m.meta.mu.Unlock()
		switch fate {
		case 0:
			return errLost
		case 1:
			_ = next()
			return errLost
		}
		return next()
	})
}

func (m *machine) want(t *rapid.T, err error) {
	if err != nil {
		t.Fatalf("%v", err)
	}
}
