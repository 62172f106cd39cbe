package repair

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/piece"
	"ashlar/daemon/stripe"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
	"ashlar/segment"
	"ashlar/segment/simdev"
)

const disks = 6

// rig is six hosts of one real log each, a coordinator, and a queue behind it.
type rig struct {
	m      atomic.Pointer[topology.Map]
	devs   [disks]*simdev.Device
	logs   [disks]*segment.Log
	stores [disks]*piece.Store
	dir    string
	lives  int
	pool   *buffer.Pool
	c      *stripe.Coordinator
	queue  atomic.Pointer[Queue]
	share  *buffer.Share

	mu      sync.Mutex
	objects map[string]object
}

type object struct {
	data []byte
	ext  ashlar.Extent
}

func newRig(t *testing.T) *rig {
	r := &rig{dir: t.TempDir(), pool: buffer.NewPool(), objects: map[string]object{}}
	m := &topology.Map{
		Epoch: 1, Groups: []topology.Group{{Moved: 1}}, Shards: []topology.Shard{{}},
		Settings: topology.Settings{
			Large: ashlar.Code{K: 4, M: 2}, Small: ashlar.Code{K: 1, M: 2},
			SmallMax: 16 * ashlar.KiB, StripeBytes: 4 * ashlar.MiB,
		},
	}
	for i := range disks {
		m.Hosts = append(m.Hosts, topology.Host{ID: ashlar.HostID(i + 1)})
		m.Disks = append(m.Disks, topology.Disk{ID: ashlar.DiskID{byte(i + 1)}, Host: ashlar.HostID(i + 1)})
		m.Groups[0].Disks = append(m.Groups[0].Disks, topology.DiskNum(i))
		r.devs[i] = simdev.New(64*ashlar.MiB, 4096, uint64(i))
		r.stores[i] = piece.NewStore(r.m.Load)
		r.open(t, i)
	}
	r.m.Store(m)
	memory := stripe.NewMemory(r.pool, 64*ashlar.MiB)
	r.share = memory.Rebuild
	r.c = stripe.New(stripe.Config{
		Local: 1, Maps: r.m.Load, Memory: memory, Dial: r.dial,
		Missed:       func(m stripe.Missed) { r.queue.Load().Add(m) },
		PieceTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, DeleteTimeout: 5 * time.Second,
	})
	r.start(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		r.c.Close(ctx)
		if err := r.queue.Load().Close(); err != nil {
			t.Error(err)
		}
		if r.share.Used() != 0 {
			t.Errorf("%d bytes leaked", r.share.Used())
		}
		for _, l := range r.logs {
			l.Close()
		}
	})
	return r
}

func (r *rig) dial(h ashlar.HostID) (wire.Pieces, error) { return r.stores[h-1], nil }

// start opens the queue, as a host that starts does.
func (r *rig) start(t *testing.T) {
	t.Helper()
	q, err := Open(Config{Dir: filepath.Join(r.dir, "repair"), Maps: r.m.Load, Dial: r.dial, Memory: r.share, BytesPerSecond: ashlar.GiB})
	if err != nil {
		t.Fatal(err)
	}
	r.queue.Store(q)
}

func (r *rig) open(t *testing.T, i int) {
	t.Helper()
	r.lives++
	log, err := segment.Open(context.Background(), r.devs[i], segment.Options{
		Disk: ashlar.DiskID{byte(i + 1)}, IndexDir: filepath.Join(r.dir, fmt.Sprint(r.lives)),
		SegmentBytes: 4 * ashlar.MiB, IOTimeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.logs[i] = log
	r.stores[i].Add(ashlar.DiskID{byte(i + 1)}, log)
}

// kill and revive change a disk and, as the placement quorum would, the map.
func (r *rig) kill(i int) {
	r.devs[i].Kill()
	r.stores[i].Remove(ashlar.DiskID{byte(i + 1)})
	r.logs[i].Close()
	r.edit(func(m *topology.Map) { m.Disks[i].State = topology.DiskFailed })
}

func (r *rig) revive(t *testing.T, i int) {
	r.devs[i].Revive()
	r.open(t, i)
	r.edit(func(m *topology.Map) { m.Disks[i].State = topology.DiskUp })
}

func (r *rig) edit(f func(*topology.Map)) {
	m := r.m.Load().Clone()
	m.Epoch++
	f(m)
	r.m.Store(m)
}

func (r *rig) write(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		key := fmt.Sprint("k", len(r.objects))
		data := make([]byte, 1+i*i*123_457%5_000_000)
		rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		ext, err := r.c.WriteStripes(t.Context(), wire.WriteRequest{Key: key, Bytes: int64(len(data))}, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		r.objects[key] = object{data, ext}
	}
}

func (r *rig) read(key string) error {
	o := r.objects[key]
	body, err := r.c.ReadStripes(context.Background(), wire.ReadRequest{Key: key, Extents: []ashlar.Extent{o.ext}, Length: o.ext.Bytes})
	if err != nil {
		return err
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if err == nil && !bytes.Equal(got, o.data) {
		err = fmt.Errorf("wrong bytes")
	}
	return err
}

func (r *rig) readAll(t *testing.T) {
	t.Helper()
	for key := range r.objects {
		if err := r.read(key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// until waits for the queue to satisfy ok.
func (r *rig) until(t *testing.T, what string, ok func(Stats) bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(r.queue.Load().Stats()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s: %+v", what, r.queue.Load().Stats())
		}
	}
}

// reported waits until one piece of every stripe is queued.
func (r *rig) reported(t *testing.T) {
	t.Helper()
	stripes := uint64(0)
	for _, o := range r.objects {
		stripes += (o.ext.Bytes + uint64(o.ext.StripeBytes) - 1) / uint64(o.ext.StripeBytes)
	}
	r.until(t, "reports", func(s Stats) bool { return s.Queued == stripes })
}

func empty(s Stats) bool { return s.Queued == 0 }

// TestDiskThatWasAwayIsFilledAgain writes while a disk is away, restarts the
// host in between, and then does without two of the others.
func TestDiskThatWasAwayIsFilledAgain(t *testing.T) {
	r := newRig(t)
	r.kill(2)
	r.write(t, 8)
	r.reported(t)
	r.share = r.pool.Share(1400 * ashlar.KiB) // from here on: one piece and short columns
	before := r.queue.Load().Stats().Queued
	if err := r.queue.Load().Close(); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	if after := r.queue.Load().Stats().Queued; after != before {
		t.Fatalf("%d of %d pieces are queued after a restart", after, before)
	}
	r.revive(t, 2)
	r.until(t, "repair", empty)
	if s := r.queue.Load().Stats(); s.Repaired != before || s.Gone+s.Dropped != 0 || s.Bytes == 0 {
		t.Errorf("%d pieces were queued: %+v", before, s)
	}
	r.kill(0)
	r.kill(1)
	r.readAll(t)
}

// TestRotFoundByReadsIsRepaired destroys two disks' bytes, reads everything,
// and then does without two others.
func TestRotFoundByReadsIsRepaired(t *testing.T) {
	r := newRig(t)
	r.write(t, 8)
	for _, i := range []int{0, 3} {
		r.kill(i) // so that the records' heads are read again below
		r.devs[i].Revive()
		r.devs[i].Rot(2*ashlar.MiB, 8*ashlar.MiB, true)
		r.revive(t, i)
	}
	r.readAll(t)
	r.until(t, "repair", func(s Stats) bool { return s.Queued == 0 && s.Repaired > 0 })
	t.Logf("%+v", r.queue.Load().Stats())
	r.kill(4)
	r.kill(5)
	r.readAll(t)
}

// TestDeletedStripesAreForgotten deletes while a disk is away: the delete is
// not confirmed, but the pieces are not made again either.
func TestDeletedStripesAreForgotten(t *testing.T) {
	r := newRig(t)
	r.kill(2)
	r.write(t, 4)
	r.reported(t)
	queued := r.queue.Load().Stats().Queued
	for key, o := range r.objects {
		if err := r.c.DeleteStripes(t.Context(), ashlar.BucketID{}, key, []ashlar.Extent{o.ext}); !ashlar.Is(err, ashlar.Unavailable) {
			t.Errorf("delete with a disk away: %v", err)
		}
	}
	r.revive(t, 2)
	for key, o := range r.objects {
		if err := r.c.DeleteStripes(t.Context(), ashlar.BucketID{}, key, []ashlar.Extent{o.ext}); err != nil {
			t.Error(err)
		}
	}
	r.until(t, "the end", empty)
	if s := r.queue.Load().Stats(); s.Gone+s.Repaired != queued {
		t.Errorf("%d were queued: %+v", queued, s)
	}
	for i, l := range r.logs {
		if n := l.Usage().Records; n != 0 {
			t.Errorf("disk %d holds %d pieces", i, n)
		}
	}
}

// TestReportOfAPieceThatIsThereIsDropped: nothing is written for it.
func TestReportOfAPieceThatIsThereIsDropped(t *testing.T) {
	r := newRig(t)
	r.write(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r.c.Close(ctx) // all pieces have landed
	for key, o := range r.objects {
		for s := range o.ext.Stripes(ashlar.BucketID{}, key, 0, o.ext.Bytes) {
			for range 2 {
				r.queue.Load().Add(stripe.Missed{PieceID: wire.PieceID{Stripe: s.ID, Index: 1}, Code: s.Code, StripeBytes: s.Bytes})
			}
		}
	}
	r.until(t, "a look", empty)
	if s := r.queue.Load().Stats(); s.Present < 3 || s.Repaired != 0 {
		t.Errorf("%+v", s)
	}
}

func TestRowsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := stripe.Missed{
			Code:        ashlar.Code{K: uint8(rapid.IntRange(1, 20).Draw(t, "k")), M: uint8(rapid.IntRange(0, 12).Draw(t, "m"))},
			StripeBytes: rapid.Uint32().Draw(t, "bytes"),
			Owner: ashlar.Owner{
				Key: string(rapid.SliceOf(rapid.Byte()).Draw(t, "key")), Part: rapid.Uint32().Draw(t, "part"),
				Offset: rapid.Uint64().Draw(t, "off"),
			},
		}
		copy(m.Stripe[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "stripe"))
		m.Index = uint8(rapid.IntRange(0, m.Code.Pieces()-1).Draw(t, "index"))
		if ns := rapid.Int64().Draw(t, "ns"); ns != 0 {
			m.Written = time.Unix(0, ns)
		}
		got, ok := decode(encode(m))
		if !ok || got != m {
			t.Fatalf("%+v became %+v", m, got)
		}
	})
	if _, ok := decode(make([]byte, 17), make([]byte, 100)); ok {
		t.Error("a row of zeros was accepted")
	}
}
