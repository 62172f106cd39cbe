package faultdisk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"ashlar"
	"ashlar/diskmgr"
	"ashlar/diskmgr/health"
	"ashlar/segment"
	"ashlar/tools/faultdisk"
)

// One test for each fault of one disk, through the claimed device, the block
// layer and a real loop device. Whatever happens, wrong bytes are never served.

// Fault 6: a record at the tail is torn, by a failed write and by a cut.
func TestFault06TornTail(t *testing.T) {
	for name, rule := range map[string]faultdisk.Rule{
		"failed write": {Fault: faultdisk.Torn},
		"cut":          {Ops: faultdisk.Write, Fault: faultdisk.Cut, Count: 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, newDisk(t, 6))
			kept := []*segment.Record{s.put(1, 1, 50_000), s.put(2, 2, 50_000), s.put(3, 3, 50_000)}
			s.dev.Inject(rule)
			torn := record(2, 9, 50_000)
			if err := s.log.Append(t.Context(), torn); !ashlar.Is(err, ashlar.Unavailable) {
				t.Fatalf("torn append: %v", err)
			}
			s.blackout()
			// What was not acknowledged is whole or absent, and stays so.
			if got, err := s.read(kept[1]); err != nil || !bytes.Equal(got, kept[1].Data) {
				s.want(torn)
			}
			s.want(kept[0], kept[2])
			s.want(s.put(4, 4, 100))
			s.loseIndex()
			s.want(kept[0], kept[2])
		})
	}
}

// Fault 7: one write fails, of a short record and of one that is written in parts.
func TestFault07WriteErrorOnce(t *testing.T) {
	for _, size := range []int{50_000, 1_500_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s := newStack(t, newDisk(t, 7))
			s.dev.Inject(faultdisk.Rule{Ops: faultdisk.Write, Fault: faultdisk.EIO, Count: 1})
			r := s.put(1, 1, size)
			if hit := s.dev.Counts().Faults[faultdisk.EIO]; hit != 1 || s.log.Err() != nil {
				t.Errorf("%d faults, fenced: %v", hit, s.log.Err())
			}
			s.blackout()
			s.want(r)
		})
	}
}

// Fault 8: a flush fails. The next one would say that all is well.
func TestFault08FlushErrorFences(t *testing.T) {
	s := newStack(t, newDisk(t, 8))
	before := s.put(1, 1, 50_000)
	s.dev.Inject(faultdisk.Rule{Ops: faultdisk.Flush, Fault: faultdisk.EIO, Count: 1})
	lost := record(2, 2, 50_000)
	for range 3 {
		if err := s.log.Append(t.Context(), lost); !ashlar.Is(err, ashlar.Unavailable) {
			t.Fatalf("append: %v", err)
		}
	}
	if state, why, _ := s.disk.Health(); state < health.Fenced {
		t.Errorf("the disk is %v: %s", state, why)
	}
	c := s.dev.Counts()
	s.log.Append(t.Context(), lost)
	s.log.Delete(t.Context(), before.Key)
	s.want(before)
	s.close()
	if now := s.dev.Counts(); now.Flushes != c.Flushes || now.Writes != c.Writes {
		t.Errorf("%d writes and %d flushes after one that failed", now.Writes-c.Writes, now.Flushes-c.Flushes)
	}
	s.blackout()
	s.want(before)
	if got, err := s.read(lost); err == nil && !bytes.Equal(got, lost.Data) {
		t.Error("wrong bytes")
	}
}

// Fault 9: a sector cannot be read.
func TestFault09LatentSectorError(t *testing.T) {
	s := newStack(t, newDisk(t, 9))
	good1, bad, good2 := s.put(1, 1, 100_000), s.put(2, 2, 100_000), s.put(3, 3, 100_000)
	at := s.place(bad) + 50_000
	s.dev.Inject(faultdisk.Rule{Ops: faultdisk.Read, Fault: faultdisk.EIO, From: at, To: at + 1})
	refused := func() {
		t.Helper()
		defer func() {
			if t.Failed() {
				for _, e := range s.dev.Events() {
					t.Log(e)
				}
			}
		}()
		if err := s.wantKind(ashlar.Unavailable, bad); !errors.Is(err, syscall.EIO) {
			t.Errorf("the cause is hidden: %v", err)
		}
		s.want(good1, good2)
		part := make([]byte, 1000)
		if err := s.log.ReadAt(t.Context(), bad.Key, part, 99_000); err != nil || !bytes.Equal(part, bad.Data[99_000:]) {
			t.Errorf("the rest of the piece: %v", err)
		}
	}
	refused()
	s.reopen()
	refused()
	s.loseIndex()
	refused()
	s.put(4, 4, 100_000)
	s.dev.PowerCut(512) // no footers now: the scan steps over the spot
	s.loseIndex()
	refused()
	s.want(s.put(2, 2, 100_000)) // what repair does
}

// Fault 9, where the sector held a batch and its record in a segment that has
// no footer yet: the scan steps over it, and the disk is not condemned for it.
func TestFault09LatentSectorErrorInTheTail(t *testing.T) {
	s := newStack(t, newDisk(t, 9))
	var good []*segment.Record
	var bad *segment.Record
	for n := range uint64(40) {
		r := s.put(n, 1, 3000)
		if n == 20 {
			bad = r
		} else {
			good = append(good, r)
		}
	}
	at := s.place(bad) &^ 4095
	s.dev.Inject(faultdisk.Rule{Ops: faultdisk.Read, Fault: faultdisk.EIO, From: at, To: at + 4096})
	for _, lost := range []bool{false, true} {
		s.dev.PowerCut(512)
		s.close()
		s.dev.PowerOn()
		if lost {
			s.loseIndex()
		} else {
			s.reopen()
		}
		s.want(good...)
		if state, why, _ := s.disk.Health(); state != health.Good {
			t.Errorf("index lost %v: one bad sector made the disk %v: %s", lost, state, why)
		}
		if _, err := s.read(bad); !ashlar.Is(err, ashlar.Unavailable) && !(lost && ashlar.Is(err, ashlar.NotFound)) {
			t.Errorf("index lost %v: %v", lost, err)
		}
		s.put(100, 1, 3000)
	}
}

// Fault 10: the medium rots: a bit, a block, a MiB of zeros.
func TestFault10Rot(t *testing.T) {
	for _, c := range []struct {
		name   string
		length int64
		zero   bool
	}{{"bit", 1, false}, {"4 KiB", 4096, true}, {"1 MiB", ashlar.MiB, true}} {
		t.Run(c.name, func(t *testing.T) {
			s := newStack(t, newDisk(t, 10))
			good1, bad, good2 := s.put(1, 1, 100_000), s.put(2, 2, 1_500_000), s.put(3, 3, 100_000)
			s.dev.Rot(s.place(bad)+200_000, c.length, c.zero)
			check := func() {
				t.Helper()
				var where *segment.CorruptError
				if err := s.wantKind(ashlar.Corrupt, bad); !errors.As(err, &where) || where.Key != bad.Key {
					t.Errorf("it is not said where: %v", err)
				}
				s.want(good1, good2)
			}
			check()
			s.reopen()
			check()
			if found := scrub(s); len(found) != 1 || found[0] != bad.Key {
				t.Errorf("the scrub found %v", found)
			}
			s.loseIndex()
			check()
			s.want(s.put(2, 3, 100_000)) // what repair does
		})
	}
}

// scrub verifies every segment and returns the bad pieces.
func scrub(s *stack) (bad []segment.Key) {
	s.Helper()
	for i := range s.log.Usage().SegmentsTotal {
		r, err := s.log.Verify(s.Context(), i)
		if err != nil {
			s.Fatal(err)
		}
		bad = append(bad, r.Bad...)
	}
	return bad
}

// Fault 11: a bit is flipped on the way. The medium is sound.
func TestFault11FlipOnTheWay(t *testing.T) {
	s := newStack(t, newDisk(t, 11))
	r := s.put(1, 1, 200_000)
	for range 20 {
		s.dev.Inject(faultdisk.Rule{Fault: faultdisk.Flip, Count: 1})
		s.want(r) // the second try is right
		s.dev.Clear()
	}
	s.dev.Inject(faultdisk.Rule{Fault: faultdisk.Flip, Chance: 0.5})
	bad := 0
	for range 200 {
		got, err := s.read(r)
		switch {
		case err == nil && !bytes.Equal(got, r.Data):
			t.Fatal("wrong bytes")
		case err != nil && !ashlar.Is(err, ashlar.Corrupt):
			t.Fatal(err)
		case err != nil:
			bad++
		}
	}
	s.dev.Clear()
	s.want(r)
	t.Logf("%d flips on 200 reads: 0 gave wrong bytes, %d an error", s.dev.Counts().Faults[faultdisk.Flip], bad)
	if bad == 0 || bad == 200 {
		t.Errorf("%d errors at one flip in two", bad)
	}
}

// Lost, misdirected and short writes: acknowledged by the disk, and not there.
func TestFaultsThatTheDiskAcknowledges(t *testing.T) {
	for name, rule := range map[string]faultdisk.Rule{
		"lost": {Fault: faultdisk.Lost, Count: 1}, "short": {Fault: faultdisk.Short, Count: 1},
		"misdirected": {Fault: faultdisk.Misdirected, Shift: -106_496, Count: 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t, newDisk(t, 12))
			all := []*segment.Record{s.put(1, 1, 100_000), s.put(3, 3, 100_000)}
			s.dev.Inject(rule)
			all = append(all, s.put(1, 4, 100_000))
			all = append(all, s.put(5, 5, 100_000))
			bad := 0
			check := func() {
				t.Helper()
				bad = 0
				for _, r := range all[1:] {
					got, err := s.read(r)
					switch {
					case err == nil && !bytes.Equal(got, r.Data):
						// The version before is no lie after the index is gone; anything else is.
						if old := all[0]; r.Key != old.Key || !bytes.Equal(got, old.Data) {
							t.Errorf("%v: wrong bytes", r.Key)
						}
						bad++
					case err != nil && !ashlar.Is(err, ashlar.Corrupt) && !ashlar.Is(err, ashlar.NotFound):
						t.Errorf("%v: %v", r.Key, err)
					case err != nil:
						bad++
					}
				}
				if bad > 2 {
					t.Errorf("%d of 3 are gone", bad)
				}
			}
			check()
			if bad == 0 {
				t.Error("nothing is missed: the test proves nothing")
			}
			s.reopen()
			check()
			s.loseIndex()
			check()
			s.want(all[3])
		})
	}
}

// Fault 15, on one disk: it lies about its flushes, and its power fails. What is
// lost is listed, by its keys; the rest is served; and the disk opens, twice, and
// takes more.
func TestFault15FlushLies(t *testing.T) {
	s := newStack(t, newDisk(t, 15))
	kept := []*segment.Record{s.put(100, 1, 50_000), s.put(101, 1, 50_000)}
	s.dev.Inject(faultdisk.Rule{Fault: faultdisk.Lie})
	var all []*segment.Record
	for n := range uint64(30) {
		all = append(all, s.put(n, 1, 50_000))
	}
	s.blackout()
	for range 2 {
		lost := map[segment.Key]bool{}
		for _, r := range all {
			got, err := s.read(r)
			switch {
			case err == nil && !bytes.Equal(got, r.Data):
				t.Fatalf("%v: wrong bytes", r.Key)
			case ashlar.Is(err, ashlar.Corrupt):
				lost[r.Key] = true
			case err != nil:
				t.Errorf("%v: %v, want corrupt: it was acknowledged", r.Key, err)
			}
		}
		if len(lost) == 0 {
			t.Fatal("nothing is lost by a disk that lies: the test proves nothing")
		}
		listed := scrub(s)
		for _, k := range listed {
			if !lost[k] {
				t.Errorf("%v is listed and can be read", k)
			}
			delete(lost, k)
		}
		if len(lost) > 0 {
			t.Errorf("%d lost pieces are not listed", len(lost))
		}
		t.Logf("%d of %d pieces are lost and listed", len(listed), len(all))
		s.want(kept...)
		kept = append(kept, s.put(uint64(102+len(kept)), 1, 50_000))
		s.reopen()
	}
	s.want(kept...)
}

// Fault 16: the disk is dead.
func TestFault16Dead(t *testing.T) {
	s := newStack(t, newDisk(t, 16))
	r := s.put(1, 1, 50_000)
	s.dev.Kill()
	began := time.Now()
	for range 5 {
		if err := s.log.Append(t.Context(), record(2, 2, 100)); !ashlar.Is(err, ashlar.Unavailable) {
			t.Fatalf("append: %v", err)
		}
		s.wantKind(ashlar.Unavailable, r)
	}
	if state, why, _ := s.disk.Health(); state < health.Fenced {
		t.Errorf("the disk is %v: %s", state, why)
	}
	s.close()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := s.open(); err == nil {
		t.Fatal("a dead disk was opened")
	}
	s.dev.Revive()
	s.reopen()
	s.want(r)
}

// Fault 17: a disk hangs for ever. Calls end by their deadline, the other disk
// does not notice, and closing does not wait for it.
func TestFault17Hang(t *testing.T) {
	rig := faultdisk.New(t, faultdisk.Options{Disks: 2, Bytes: stackBytes, Seed: 17})
	s, other := newStack(t, rig.Disk(0)), newStack(t, rig.Disk(1))
	s.ioTimeout = 300 * time.Millisecond
	s.reopen()
	r := s.put(1, 1, 50_000)
	const bound = 10 * time.Second // of a loaded machine; each call has 300 ms
	s.dev.Inject(faultdisk.Rule{Fault: faultdisk.Hang})
	began := time.Now()
	var wg sync.WaitGroup
	for n := range uint64(8) {
		wg.Go(func() {
			if err := s.log.Append(t.Context(), record(10+n, 1, []int{1000, 800_000}[n%2])); !ashlar.Is(err, ashlar.Unavailable) {
				t.Errorf("append: %v", err)
			}
			if _, err := s.read(r); !ashlar.Is(err, ashlar.Unavailable) {
				t.Errorf("read: %v", err)
			}
		})
	}
	for n := range uint64(50) {
		other.want(other.put(n, 1, 10_000))
	}
	wg.Wait()
	if err := s.log.Close(); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("close: %v", err)
	}
	if took := time.Since(began); took > bound {
		t.Errorf("calls and close took %v", took)
	}
	began = time.Now()
	closed := make(chan error, 1)
	go func() { closed <- s.disk.Close() }()
	select {
	case <-closed:
	case <-time.After(bound):
		t.Errorf("the disk is not closed after %v", time.Since(began))
	}
	s.log, s.disk = nil, nil
	other.want(other.put(99, 1, 10_000))
	s.dev.Clear() // the commands that hung are carried out now
	s.index += "2"
	if err := openSoon(s); err != nil {
		t.Fatal(err)
	}
	s.want(r)
}

// openSoon opens a disk that the kernel may still be letting go.
func openSoon(s *stack) error {
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	for {
		err := s.open()
		if !ashlar.Is(err, ashlar.Busy) || ctx.Err() != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Fault 18: one call in ten takes half a second.
func TestFault18Slow(t *testing.T) {
	s := newStack(t, newDisk(t, 18))
	s.close()
	limits := health.DefaultLimits()
	limits.WindowLength = time.Millisecond // a window is judged at the next tick
	var err error
	s.disk, err = diskmgr.Open(s.dev.Path(), diskmgr.OpenOptions{Cluster: stackCluster, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.openLog(); err != nil {
		t.Fatal(err)
	}
	r := s.put(1, 1, 20_000)
	peers := health.Latency{5 * time.Millisecond, 5 * time.Millisecond, 5 * time.Millisecond}
	s.disk.Tick(peers)
	s.dev.Inject(faultdisk.Rule{Fault: faultdisk.Delay, Delay: 500 * time.Millisecond, Chance: 0.1})
	for window := 0; ; window++ {
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 3 {
					if got, err := s.read(r); err != nil || !bytes.Equal(got, r.Data) {
						t.Errorf("a slow read: %v", err)
					}
				}
			})
		}
		wg.Wait()
		s.disk.Tick(peers)
		state, why, _ := s.disk.Health()
		if state == health.Suspect {
			t.Logf("suspect after %d windows: %s", window+1, why)
			break
		}
		if state != health.Good || window == 2*limits.SlowWindowsMax {
			t.Fatalf("after %d windows the disk is %v: %s", window+1, state, why)
		}
	}
	s.want(s.put(2, 2, 1000)) // suspect disks serve
}

// Fault 29: the disk is full; and a thin device below it is.
func TestFault29Full(t *testing.T) {
	dev := faultdisk.New(t, faultdisk.Options{Disks: 1, Bytes: 64 * ashlar.MiB, Seed: 29}).Disk(0)
	s := newStack(t, dev)
	var all []*segment.Record
	for n := uint64(0); ; n++ {
		r := record(n, 1, 900_000)
		err := s.log.Append(t.Context(), r)
		if ashlar.Is(err, ashlar.Full) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	full := s.log.Usage()
	s.want(all...)
	var kept []*segment.Record
	for i, r := range all {
		if i%2 == 0 {
			kept = append(kept, r)
		} else if err := s.log.Delete(t.Context(), r.Key); err != nil {
			t.Fatalf("delete on a full disk: %v", err)
		}
	}
	if err := s.log.Compact(t.Context()); err != nil {
		t.Fatalf("compaction on a full disk: %v", err)
	}
	for n := range uint64(len(all) / 3) {
		r := record(1000+n, 1, 900_000)
		err := s.log.Append(t.Context(), r)
		for try := 0; ashlar.Is(err, ashlar.Full) && try < 5; try++ { // compaction had not got there yet
			if err = s.log.Compact(t.Context()); err == nil {
				err = s.log.Append(t.Context(), r)
			}
		}
		if err != nil {
			t.Fatalf("after deletes and compaction: %v, %+v", err, s.log.Usage())
		}
		kept = append(kept, r)
	}
	s.want(kept...)
	s.blackout()
	s.want(kept...)
	for i, r := range all {
		if i%2 == 1 {
			s.wantKind(ashlar.NotFound, r)
		}
	}
	t.Logf("full with %d records (%d of %d bytes), %d deleted, then %d more written", len(all), full.Used, full.Capacity, len(all)/2, len(all)/3)
}

// Fault 29, of a device that is itself thin.
func TestFault29NoSpaceBelow(t *testing.T) {
	s := newStack(t, newDisk(t, 29))
	r := s.put(1, 1, 50_000)
	s.dev.Inject(faultdisk.Rule{Fault: faultdisk.ENOSPC})
	err := s.log.Append(t.Context(), record(2, 2, 50_000))
	if !ashlar.Is(err, ashlar.Unavailable) && !ashlar.Is(err, ashlar.Full) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("append: %v", err)
	}
	s.want(r)
	s.blackout()
	s.want(r, s.put(2, 3, 50_000))
}

// Fault 30: the disk refuses writes.
func TestFault30ReadOnly(t *testing.T) {
	s := newStack(t, newDisk(t, 30))
	r := s.put(1, 1, 50_000)
	if err := s.dev.SetReadOnly(true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.dev.SetReadOnly(false) })
	if err := s.log.Append(t.Context(), record(2, 2, 100)); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("append: %v", err)
	}
	if err := s.log.Delete(t.Context(), r.Key); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("delete: %v", err)
	}
	s.want(r)
	if state, why, _ := s.disk.Health(); state != health.Fenced {
		t.Errorf("the disk is %v: %s", state, why)
	}
	s.close()
	if err := s.dev.SetReadOnly(false); err != nil {
		t.Fatal(err)
	}
	s.reopen()
	s.want(r, s.put(2, 3, 100))
}
