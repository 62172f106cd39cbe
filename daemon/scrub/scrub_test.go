package scrub

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/piece"
	"ashlar/daemon/repair"
	"ashlar/daemon/stripe"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
	"ashlar/segment"
	"ashlar/segment/simdev"
)

const (
	disks        = 6
	segmentBytes = 4 * ashlar.MiB
)

// hands is a clock that a test moves: waiting is arriving.
type hands struct{ t time.Time }

func (h *hands) now() time.Time { return h.t }

func (h *hands) wait(_ context.Context, t time.Time) {
	if t.After(h.t) {
		h.t = t
	}
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// rig is six hosts of one real log each, a coordinator, one repair queue, and
// the scrub of each disk, which the test steps.
type rig struct {
	m      atomic.Pointer[topology.Map]
	dir    string
	lives  int
	devs   [disks]*simdev.Device
	logs   [disks]*segment.Log
	stores [disks]*piece.Store
	scrubs [disks]*disk
	clock  *hands
	cfg    Config
	c      *stripe.Coordinator
	queue  *repair.Queue

	reports []stripe.Missed
	objects map[string]object
}

type object struct {
	data []byte
	ext  ashlar.Extent
}

func newRig(t *testing.T) *rig {
	r := &rig{dir: t.TempDir(), objects: map[string]object{}, clock: &hands{noon}}
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
	memory := stripe.NewMemory(buffer.NewPool(), 64*ashlar.MiB)
	dial := func(h ashlar.HostID) (wire.Pieces, error) { return r.stores[h-1], nil }
	var err error
	r.queue, err = repair.Open(repair.Config{
		Dir: filepath.Join(r.dir, "repair"), Maps: r.m.Load, Dial: dial, Memory: memory.Rebuild, BytesPerSecond: ashlar.GiB,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.c = stripe.New(stripe.Config{
		Local: 1, Maps: r.m.Load, Memory: memory, Dial: dial, Missed: r.queue.Add,
		PieceTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, DeleteTimeout: 5 * time.Second,
	})
	r.cfg = New(Config{
		Dir: filepath.Join(r.dir, "scrub"), Period: 160 * time.Hour, clock: r.clock,
		Report: func(m stripe.Missed) { r.reports = append(r.reports, m) },
	}).cfg
	t.Cleanup(func() {
		for i := range disks {
			r.devs[i].Clear()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		r.c.Close(ctx)
		if err := r.queue.Close(); err != nil {
			t.Error(err)
		}
		for _, l := range r.logs {
			l.Close()
		}
	})
	return r
}

func (r *rig) open(t *testing.T, i int) {
	t.Helper()
	r.lives++
	log, err := segment.Open(context.Background(), r.devs[i], segment.Options{
		Disk: ashlar.DiskID{byte(i + 1)}, IndexDir: filepath.Join(r.dir, fmt.Sprint(r.lives)),
		SegmentBytes: segmentBytes, IOTimeout: 5 * time.Second, CompactBytesPerSecond: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.logs[i] = log
	r.stores[i].Add(ashlar.DiskID{byte(i + 1)}, log)
}

// begin starts to scrub disk i, from where it was left.
func (r *rig) begin(i int) *disk {
	r.scrubs[i] = newDisk(&r.cfg, Disk{ID: ashlar.DiskID{byte(i + 1)}, Name: fmt.Sprint("h/d", i), Log: r.logs[i]})
	return r.scrubs[i]
}

// write stores n objects and seals all segments.
func (r *rig) write(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		key := fmt.Sprint("k", len(r.objects))
		data := make([]byte, 100+i*700_001%5_000_000)
		rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		ext, err := r.c.WriteStripes(t.Context(), wire.WriteRequest{Bucket: ashlar.BucketID{7}, Key: key, Bytes: int64(len(data))}, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		r.objects[key] = object{data, ext}
	}
	r.landed(t)
	for i := range disks {
		r.stores[i].Remove(ashlar.DiskID{byte(i + 1)})
		if err := r.logs[i].Close(); err != nil {
			t.Fatal(err)
		}
		r.open(t, i)
	}
}

// stripes calls f for every stripe of every object.
func (r *rig) stripes(f func(s ashlar.Stripe, key string)) {
	for n := range len(r.objects) {
		key := fmt.Sprint("k", n)
		for s := range r.objects[key].ext.Stripes(ashlar.BucketID{7}, key, 0, r.objects[key].ext.Bytes) {
			f(s, key)
		}
	}
}

// landed waits until every piece of every stripe is stored.
func (r *rig) landed(t *testing.T) {
	t.Helper()
	r.stripes(func(s ashlar.Stripe, _ string) {
		for p := range s.Code.Pieces() {
			await(t, "all pieces", func() bool { return r.logs[p].Has(segment.Key{Stripe: s.ID, Piece: uint8(p)}) })
		}
	})
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waiting for " + what)
		}
	}
}

// pass goes on with disk i to the end of the pass under way.
func (r *rig) pass(t *testing.T, i int) {
	t.Helper()
	d := r.scrubs[i]
	for last, n := d.pos.Last, 0; d.pos.Last.Equal(last); n++ {
		if n > 100_000 {
			t.Fatalf("the pass does not end: %+v", d.pos)
		}
		r.clock.wait(t.Context(), d.step(t.Context()))
	}
}

// repair makes again what was reported. Before that nothing is, so that no
// repair comes upon a bad piece before the scrub does.
func (r *rig) repair(t *testing.T) {
	t.Helper()
	for _, m := range r.reports {
		r.queue.Add(m)
	}
	await(t, "repair", func() bool { return r.queue.Stats().Queued == 0 })
}

// place finds where on disk p the data of the stripe's piece p begins.
func (r *rig) place(t *testing.T, s ashlar.Stripe, p int) int64 {
	t.Helper()
	head := make([]byte, 64)
	if err := r.logs[p].ReadAt(t.Context(), segment.Key{Stripe: s.ID, Piece: uint8(p)}, head, 0); err != nil {
		t.Fatal(err)
	}
	off := bytes.LastIndex(r.devs[p].Medium(), head)
	if off < 0 {
		t.Fatal("the piece is not on the medium")
	}
	return int64(off)
}

// sound checks every piece of every stripe: its bytes, its header, its owner.
func (r *rig) sound(t *testing.T) {
	t.Helper()
	pieces := 0
	r.stripes(func(s ashlar.Stripe, key string) {
		for p := range s.Code.Pieces() {
			k := segment.Key{Stripe: s.ID, Piece: uint8(p)}
			info, err := r.logs[p].Stat(k)
			if err == nil {
				err = r.logs[p].ReadAt(t.Context(), k, make([]byte, info.Bytes), 0)
			}
			if err != nil {
				t.Errorf("%s: piece %d: %v", key, p, err)
			}
			rec, err := r.logs[p].Describe(t.Context(), k)
			if want := (ashlar.Owner{Bucket: ashlar.BucketID{7}, Key: key, Offset: s.Offset}); err != nil || rec.Owner != want {
				t.Errorf("%s: piece %d: owner %+v, %v", key, p, rec.Owner, err)
			}
			pieces++
		}
	})
	for key, o := range r.objects {
		body, err := r.c.ReadStripes(t.Context(), wire.ReadRequest{
			Bucket: ashlar.BucketID{7}, Key: key, Extents: []ashlar.Extent{o.ext}, Length: o.ext.Bytes,
		})
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		got, err := io.ReadAll(body)
		if body.Close(); err != nil || !bytes.Equal(got, o.data) {
			t.Errorf("%s: %v, %d bytes", key, err, len(got))
		}
	}
	t.Logf("%d pieces are right", pieces)
}

// TestFault10RotIsFoundAndRepaired spoils one piece of each stripe of an object
// and m of each of another on the medium, scrubs, repairs, and scrubs again.
func TestFault10RotIsFoundAndRepaired(t *testing.T) {
	for name, spoil := range map[string]func(d *simdev.Device, off int64){
		"bit":    func(d *simdev.Device, off int64) { d.Rot(off+100_000, 1, false) },
		"4KiB":   func(d *simdev.Device, off int64) { d.Rot(off+70_000, 4096, true) },
		"MiB":    func(d *simdev.Device, off int64) { d.Rot(off+4096, ashlar.MiB, true) },
		"header": func(d *simdev.Device, off int64) { d.Rot(off-60, 40, true) },
		"across": func(d *simdev.Device, off int64) { d.Rot(off-4096, ashlar.MiB, true) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.write(t, 6)
			bad := 0
			r.stripes(func(s ashlar.Stripe, key string) {
				for p := range map[string]int{"k3": 1, "k5": 2}[key] { // of 4+2
					spoil(r.devs[2*p], r.place(t, s, 2*p))
					bad++
				}
			})
			for i := range disks {
				r.begin(i)
				r.pass(t, i)
			}
			found, repaired := 0, uint64(0)
			for _, d := range r.scrubs {
				found += len(d.pos.Waiting)
			}
			if found < bad {
				t.Fatalf("%d pieces were found, %d were spoiled", found, bad)
			}
			r.repair(t)
			for i, d := range r.scrubs {
				r.pass(t, i)
				if repaired += d.pos.Before.Repaired; d.status.Load().Waiting != 0 {
					t.Errorf("disk %d: %+v", i, d.status.Load())
				}
			}
			q := r.queue.Stats()
			t.Logf("%d pieces spoiled, %d found by scrub, %d made again, %d confirmed", bad, found, q.Repaired, repaired)
			if repaired != uint64(found) || q.Repaired != uint64(found) {
				t.Errorf("%d found, %d confirmed, %+v", found, repaired, q)
			}
			r.reports = nil
			for i := range disks {
				r.pass(t, i)
			}
			if len(r.reports) != 0 {
				t.Errorf("the next pass reported %v", r.reports)
			}
			r.sound(t)
		})
	}
}

// TestFault11FlipOnTheWayIsNotRewritten: the medium is right.
func TestFault11FlipOnTheWayIsNotRewritten(t *testing.T) {
	r := newRig(t)
	r.write(t, 8)
	d := r.begin(0)
	appends, flips := r.logs[0].Stats().Appends, uint64(0)
	for range 8 {
		r.devs[0].Inject(simdev.Rule{Ops: simdev.Read, Fault: simdev.Flip, From: 2 * ashlar.MiB, Skip: 2, Count: 1})
		r.pass(t, 0)
		flips += d.pos.Before.Flips
	}
	t.Logf("8 flips, %d hit a piece", flips)
	if flips == 0 || len(r.reports) != 0 || r.logs[0].Stats().Appends != appends {
		t.Errorf("%d flips seen, %d reports, %d appends", flips, len(r.reports), r.logs[0].Stats().Appends-appends)
	}
}

// TestFault09LatentSectorErrorIsRepaired: a sector that cannot be read stays so.
func TestFault09LatentSectorErrorIsRepaired(t *testing.T) {
	r := newRig(t)
	r.write(t, 6)
	r.stripes(func(s ashlar.Stripe, key string) {
		if key == "k5" && s.Offset == 0 {
			at := r.place(t, s, 1)&^4095 + 128*ashlar.KiB
			r.devs[1].Inject(simdev.Rule{Ops: simdev.Read, Fault: simdev.EIO, From: at, To: at + 4096})
		}
	})
	d := r.begin(1)
	r.pass(t, 1)
	if len(d.pos.Waiting) != 1 {
		t.Fatalf("%+v", d.status.Load())
	}
	r.repair(t)
	r.pass(t, 1)
	if st := d.status.Load(); st.Repaired != 1 || st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
	r.sound(t)
}

// TestPassIsSpreadAndBounded looks at when segments are read.
func TestPassIsSpreadAndBounded(t *testing.T) {
	r := newRig(t)
	r.write(t, 8)
	d := r.begin(0)
	n := r.logs[0].Usage().SegmentsTotal
	for i := range n {
		if want := noon.Add(r.cfg.Period * time.Duration(i) / time.Duration(n)); r.clock.t.Before(want) || r.clock.t.Sub(want) > time.Second {
			t.Errorf("segment %d of %d at %v, due at %v", i, n, r.clock.t, want)
		}
		r.clock.wait(t.Context(), d.step(t.Context()))
	}
	r.clock.wait(t.Context(), d.step(t.Context()))
	if d.pos.Last.IsZero() || d.pos.Bytes == 0 {
		t.Fatalf("%+v", d.status.Load())
	}
	// Three periods later everything is due at once: now the budget bounds it.
	r.cfg.BytesPerSecond = 256 * ashlar.KiB
	r.clock.t = r.clock.t.Add(3 * r.cfg.Period)
	begin, before, good := r.clock.t, r.devs[0].Counts().BytesRead, d.pos.Bytes
	if age := begin.Sub(d.status.Load().Oldest); age < 3*r.cfg.Period {
		t.Errorf("the oldest byte is %v old", age)
	}
	r.pass(t, 0)
	read, took := r.devs[0].Counts().BytesRead-before, r.clock.t.Sub(begin)
	t.Logf("%d bytes read for %d of good records in %v", read, d.pos.Bytes-good, took)
	if rate := float64(read) / took.Seconds(); rate > 1.3*float64(r.cfg.BytesPerSecond) || rate < 0.7*float64(r.cfg.BytesPerSecond) {
		t.Errorf("%.0f bytes a second, the budget is %d", rate, r.cfg.BytesPerSecond)
	}
	if age := r.clock.t.Sub(d.status.Load().Oldest); age > took {
		t.Errorf("after a pass of %v the oldest byte is %v old", took, age)
	}
}

// TestRestartGoesOn stops in the middle of a pass with a bad piece known.
func TestRestartGoesOn(t *testing.T) {
	r := newRig(t)
	r.write(t, 8)
	r.stripes(func(s ashlar.Stripe, key string) {
		if key == "k1" {
			r.devs[0].Rot(r.place(t, s, 0)+10, 1, false)
		}
	})
	r.cfg.Report = nil // nobody repairs
	d := r.begin(0)
	for d.pos.Next < 8 {
		r.clock.wait(t.Context(), d.step(t.Context()))
	}
	d.save()
	again := r.begin(0)
	if again.pos.Next != 8 || len(again.pos.Waiting) != 1 || *again.status.Load() != *d.status.Load() {
		t.Fatalf("%+v\n%+v", *again.status.Load(), *d.status.Load())
	}
	before := r.devs[0].Counts().BytesRead
	r.pass(t, 0)
	if len(again.pos.Waiting) != 1 {
		t.Errorf("%v waits", again.pos.Waiting)
	}
	rest := r.devs[0].Counts().BytesRead - before
	r.pass(t, 0)
	if all := r.devs[0].Counts().BytesRead - before - rest; rest*2 > all {
		t.Errorf("the rest of a pass read %d bytes, a whole one %d", rest, all)
	}
	for name, b := range map[string][]byte{"cut": []byte(`{"version":1,`), "foreign": []byte(`{"version":1,"disk":"09000000000000000000000000000000"}`), "gone": nil} {
		if err := os.WriteFile(again.path(), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if p := r.begin(0).pos; p.Next != 0 || !p.Since.Equal(r.clock.t) || p.Segments == 0 {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// TestUnwellDiskIsLeftAlone, whenever it begins to be unwell.
func TestUnwellDiskIsLeftAlone(t *testing.T) {
	r := newRig(t)
	r.write(t, 4)
	d := r.begin(0)
	looks := 0
	d.disk.Well = func() bool { looks++; return looks%4 != 0 } // never for a whole segment
	for range 50 {
		r.clock.wait(t.Context(), d.step(t.Context()))
	}
	d.disk.Well = func() bool { return false }
	n := 0
	for range 2 { // a read that was given up may reach the device behind the first steps
		before := r.devs[0].Counts().Reads
		for range 50 {
			r.clock.wait(t.Context(), d.step(t.Context()))
		}
		n = r.devs[0].Counts().Reads - before
	}
	if n != 0 || d.pos.Now != (tally{}) || len(d.pos.Waiting) != 0 {
		t.Errorf("%d reads, %+v", n, d.pos)
	}
}

// TestRemoveDoesNotWaitForAHungDisk runs the real goroutine on the real clock.
func TestRemoveDoesNotWaitForAHungDisk(t *testing.T) {
	r := newRig(t)
	r.write(t, 4)
	s := New(Config{Dir: r.cfg.Dir, Period: time.Millisecond, BytesPerSecond: ashlar.GiB})
	t.Cleanup(s.Close)
	id := ashlar.DiskID{1}
	s.Add(Disk{ID: id, Name: "h/d0", Log: r.logs[0]})
	await(t, "a full pass", func() bool { st, ok := s.Status(id); return ok && !st.Last.IsZero() && st.Bytes > 0 })
	r.devs[0].Inject(simdev.Rule{Ops: simdev.Read, Fault: simdev.Hang})
	faults := r.devs[0].Counts().Faults
	await(t, "a hung read", func() bool { return r.devs[0].Counts().Faults > faults })
	begin := time.Now()
	s.Remove(id)
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, ok := s.Status(id); ok {
		t.Error("it still has a status")
	}
}
