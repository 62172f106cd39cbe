package segment_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/diskmgr/blockdev/looptest"
	"ashlar/segment"
	"ashlar/segment/segmenttest"
)

const (
	fullBytes        = 256 * ashlar.MiB
	fullSegmentBytes = 4 * ashlar.MiB
	fullWriters      = 2
	fullCallers      = 8
	fullReaders      = 2
	// The longest pieces are to a segment what they are on a large disk.
	fullPieceMax = fullSegmentBytes / 32
	// Segments that pieces may not take, and those that are being written.
	fullReserve, fullOpen = fullWriters + 2, fullWriters + 1
	// What compaction leaves lying, of all segments, while space is not short.
	fullDeadPercent = 10
)

// full is a log that is filled up. What lies under each key is known.
type full struct {
	*testing.T
	log *segment.Log
	// mu is held while a key changes, so that readers know what they must see.
	mu     sync.RWMutex
	pieces map[uint64]int // length by number
	next   atomic.Uint64
	served atomic.Int64
}

func fullKey(n uint64) (k segment.Key) {
	binary.BigEndian.PutUint64(k.Stripe[:], n*0x9e3779b97f4a7c15)
	return k
}

func fullData(n uint64, length int) []byte {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], n)
	data := make([]byte, length)
	rand.NewChaCha8(seed).Read(data)
	return data
}

// fill appends until the log says that it is full and, if it may compact, is full
// still when all has been given back that can be: pieces of many lengths, and
// then short ones until these find no room either.
func (f *full) fill(compact bool) (accepted int64) {
	f.Helper()
	for _, longest := range []int{fullPieceMax, 4096} {
		for {
			n := f.fillOnce(longest)
			accepted += n
			if !compact || n == 0 {
				break
			}
			if err := f.log.Compact(f.Context()); err != nil {
				f.Fatalf("compaction on a full disk: %v", err)
			}
		}
	}
	return accepted
}

func (f *full) fillOnce(longest int) int64 {
	var accepted atomic.Int64
	var callers sync.WaitGroup
	for range fullCallers {
		callers.Go(func() {
			for {
				n := f.next.Add(1)
				length := 1 + int(n*0x9e3779b97f4a7c15>>16%uint64(longest))
				err := f.log.Append(f.Context(), &segment.Record{Key: fullKey(n), Data: fullData(n, length)})
				if ashlar.Is(err, ashlar.Full) {
					return
				}
				if err != nil {
					f.Errorf("append to a log with %+v: %v", f.log.Usage(), err)
					return
				}
				f.mu.Lock()
				f.pieces[n] = length
				f.mu.Unlock()
				accepted.Add(int64(length))
			}
		})
	}
	callers.Wait()
	return accepted.Load()
}

// read reads random pieces whole and compares them until ctx ends.
func (f *full) read(ctx context.Context) {
	for ctx.Err() == nil {
		f.mu.RLock()
		for n, length := range f.pieces { // some one of them
			f.holds(n, length)
			f.served.Add(1)
			break
		}
		f.mu.RUnlock()
		time.Sleep(time.Millisecond) // the callers want the lock, and the processor
	}
}

func (f *full) holds(n uint64, length int) {
	got := make([]byte, length)
	if err := f.log.ReadAt(f.Context(), fullKey(n), got, 0); err != nil || !bytes.Equal(got, fullData(n, length)) {
		f.Errorf("piece %d: %v", n, err)
	}
}

// deleteHalf deletes every other piece.
func (f *full) deleteHalf() {
	f.Helper()
	for n := range f.pieces {
		if n%2 == 0 {
			continue
		}
		f.mu.Lock()
		delete(f.pieces, n)
		f.mu.Unlock()
		if err := f.log.Delete(f.Context(), fullKey(n)); err != nil {
			f.Fatalf("delete on a full disk: %v", err)
		}
	}
}

// TestFullDiskComesBackByCompactionAlone fills a loop device to 100 %, deletes
// half of what is on it, and lets compaction give the space back, with readers
// at work all the time. Full is a clean answer, and reads, deletes and
// compaction go on; what comes back can be filled again. Fault 29.
func TestFullDiskComesBackByCompactionAlone(t *testing.T) {
	dev := segmenttest.Loop(t, fullBytes, looptest.Attach)
	log, err := segment.Open(t.Context(), dev, segment.Options{
		Disk: ashlar.DiskID{1}, IndexDir: t.TempDir(), SegmentBytes: fullSegmentBytes, Writers: fullWriters,
		CompactBytesPerSecond: -1, // when this test says so
	})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	f := &full{T: t, log: log, pieces: map[uint64]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range fullReaders {
		readers.Go(func() { f.read(ctx) })
	}
	defer readers.Wait()
	defer cancel()

	accepted := f.fill(false)
	atFull := log.Usage()
	room := atFull.Capacity / int64(atFull.SegmentsTotal-fullReserve)
	t.Logf("full with %d bytes of pieces, %d %% of the capacity of %d; then every other one was deleted",
		accepted, 100*atFull.Used/atFull.Capacity, atFull.Capacity)
	if atFull.Used < atFull.Capacity*95/100 {
		t.Errorf("full too soon: %+v", atFull)
	}
	f.deleteHalf()
	deleted, before := log.Usage(), log.Stats()
	if err := log.Compact(t.Context()); err != nil {
		t.Fatalf("compaction on a full disk: %v", err)
	}
	after, done := log.Usage(), log.Stats()
	expected := deleted.Capacity - deleted.Used
	reached := int64(after.SegmentsFree-fullReserve) * room
	copied := done.BytesCompacted - before.BytesCompacted
	t.Logf("free space: %d expected, %d in free segments, %.1f %%; %d reads so far, all of them right", expected, reached,
		100*float64(reached)/float64(expected), f.served.Load())
	t.Logf("write amplification: %d bytes copied to free %d segments, %.2f for each byte that came back; %.2f of the pieces' bytes written in all",
		copied, done.SegmentsFreed-before.SegmentsFreed, float64(copied)/float64(reached), float64(done.BytesWritten)/float64(done.BytesAppended))
	if slack := int64(atFull.SegmentsTotal)*room*fullDeadPercent/100 + fullOpen*room; reached < expected-slack {
		t.Errorf("%d bytes came back, want %d and at most %d less", reached, expected, slack)
	}
	if deleted.SegmentsFree >= after.SegmentsFree || copied == 0 {
		t.Error("there was nothing to give back: the test proves nothing")
	}
	again := f.fill(true)
	t.Logf("and %d bytes of pieces were taken again, %.1f %% of what was expected", again, 100*float64(again)/float64(expected))
	if again < expected*9/10 {
		t.Errorf("%d bytes of pieces were taken again, want %d", again, expected)
	}
	cancel()
	readers.Wait()
	for n, length := range f.pieces {
		f.holds(n, length)
	}
}

// TestCompactionOfWhatDoesNotPack fills a log with pieces of which one takes more than
// half of a segment. Copying them gains nothing: compaction leaves them alone, ends, and
// still gives back what is deleted.
func TestCompactionOfWhatDoesNotPack(t *testing.T) {
	dev := segmenttest.Loop(t, 64*ashlar.MiB, looptest.Attach)
	log, err := segment.Open(t.Context(), dev, segment.Options{
		Disk: ashlar.DiskID{1}, IndexDir: t.TempDir(), SegmentBytes: fullSegmentBytes, Writers: fullWriters, CompactBytesPerSecond: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	fill := func(from uint64) (n uint64) {
		for {
			err := log.Append(t.Context(), &segment.Record{Key: fullKey(from + n), Data: fullData(from+n, 2*ashlar.MiB)})
			if ashlar.Is(err, ashlar.Full) {
				return n
			}
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	compact := func() (copied uint64) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		before := log.Stats().BytesCompacted
		if err := log.Compact(ctx); err != nil {
			t.Fatalf("compaction: %v", err)
		}
		return log.Stats().BytesCompacted - before
	}
	n := fill(0)
	if u := log.Usage(); u.SegmentsWritable != 0 || n < uint64(u.SegmentsTotal-fullReserve-1) {
		t.Fatalf("%d pieces fit: %+v", n, u)
	}
	if copied := compact(); copied != 0 {
		t.Errorf("%d bytes were copied, for nothing", copied)
	}
	for i := range n / 2 {
		if err := log.Delete(t.Context(), fullKey(2*i)); err != nil {
			t.Fatal(err)
		}
	}
	compact()
	if u := log.Usage(); u.SegmentsWritable < int(n/2)-1 {
		t.Errorf("%d of %d pieces were deleted: %+v", n/2, n, u)
	}
	if again := fill(n); again < n/2-1 {
		t.Errorf("%d of %d pieces were deleted, %d fit again", n/2, n, again)
	}
}

// TestAFullLogWaitsForItsCompaction: callers that write and delete faster than compaction
// gives space back are slowed down to its speed, and never told that the log is full.
func TestAFullLogWaitsForItsCompaction(t *testing.T) {
	const writes, callers, length, percent = 5_000, 8, 100_000, 80
	log, err := segment.Open(t.Context(), segmenttest.Loop(t, fullBytes, looptest.Attach), segment.Options{
		Disk: ashlar.DiskID{1}, IndexDir: t.TempDir(), SegmentBytes: fullSegmentBytes, Writers: fullWriters,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	room := int(log.Usage().Capacity * percent / 100 / length)
	data := fullData(1, length)
	var mu sync.Mutex
	var there []uint64
	var next atomic.Uint64
	// one deletes some piece if there are enough, so that no segment becomes empty by
	// itself, and writes another.
	one := func(n uint64) error {
		var old uint64
		mu.Lock()
		if len(there) >= room-callers {
			i := int(n * 0x9e3779b97f4a7c15 >> 32 % uint64(len(there)))
			old, there[i] = there[i], there[len(there)-1]
			there = there[:len(there)-1]
		}
		mu.Unlock()
		if old > 0 {
			if err := log.Delete(t.Context(), fullKey(old)); err != nil {
				return err
			}
		}
		err := log.Append(t.Context(), &segment.Record{Key: fullKey(n), Data: data})
		mu.Lock()
		defer mu.Unlock()
		there = append(there, n)
		return err
	}
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for n := next.Add(1); n <= writes; n = next.Add(1) {
				if err := one(n); err != nil {
					t.Errorf("write %d: %v, %+v", n, err, log.Usage())
					return
				}
			}
		})
	}
	all.Wait()
	for _, n := range there {
		got := make([]byte, length)
		if err := log.ReadAt(t.Context(), fullKey(n), got, 0); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("piece %d: %v", n, err)
		}
	}
	s := log.Stats()
	t.Logf("%d MB written and %d MB copied in a log of %d MB, of which %d %% are in use, with %d segments given back",
		s.BytesAppended/1e6, s.BytesCompacted/1e6, log.Usage().Capacity/1e6, percent, s.SegmentsFreed)
}
