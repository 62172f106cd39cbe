package segment

import (
	"context"
	"testing"
	"time"
	"unsafe"

	"ashlar"
	"ashlar/segment/simdev"
)

// TestBuffersOfAllLengths are long enough, aligned, and each one's own while it is out.
func TestBuffersOfAllLengths(t *testing.T) {
	var all []*buffer
	for _, n := range []int{1, 4096, 8193, heapBytesMax, heapBytesMax + 1, hugeBytes, hugeBytes + 1, 1 << bufferBitsMax, 1<<bufferBitsMax + 1} {
		for range 2 {
			b := getBuffer(n)
			if len(b.bytes) < n || uintptr(unsafe.Pointer(unsafe.SliceData(b.bytes)))%pooledAlign != 0 {
				t.Errorf("%d bytes: got %d at %p", n, len(b.bytes), b.bytes)
			}
			all = append(all, b)
			b.bytes[0], b.bytes[len(b.bytes)-1] = byte(len(all)), byte(len(all))
		}
	}
	for i, b := range all {
		if b.bytes[0] != byte(i+1) || b.bytes[len(b.bytes)-1] != byte(i+1) {
			t.Errorf("buffer %d of %d bytes shares its memory", i, len(b.bytes))
		}
		putBuffer(b)
	}
}

// TestLongBuffersThatNobodyNeedsAreUnmapped: a burst of reads does not hold memory for
// ever, and what is in use again and again is kept.
func TestLongBuffersThatNobodyNeedsAreUnmapped(t *testing.T) {
	const burst, steady, class = 40, 3, 21
	now := time.Now().Add(idleTime)
	take := func(n int) (all []*buffer) {
		for range n {
			all = append(all, getBuffer(hugeBytes))
		}
		return all
	}
	put := func(all []*buffer) {
		for _, b := range all {
			keepIdle(class, b, now)
		}
	}
	put(take(burst))
	if n := len(longBuffers.idle[class]); n < burst {
		t.Fatalf("%d buffers are kept of a burst of %d", n, burst)
	}
	for range 3 {
		put(take(steady))
		now = now.Add(idleTime)
		put(take(steady))
	}
	if n := len(longBuffers.idle[class]); n != steady {
		t.Errorf("%d buffers are kept, %d are in use", n, steady)
	}
	longBuffers.trimmed = time.Now()
}

// TestAnAbandonedReadKeepsItsBuffer until the device has answered: nobody else gets
// memory that the device may still write to, and then it is of use again.
func TestAnAbandonedReadKeepsItsBuffer(t *testing.T) {
	const bytes = 600_000
	d := newDisk(t)
	d.log.Close()
	d.dev, d.opt.SegmentBytes, d.opt.hooks.direct = simdev.New(16*ashlar.MiB, 512, 1), 2*ashlar.MiB, false
	d.loseIndex()
	d.put(1, 1, bytes)
	drain := func() (all []*buffer) { // the class of such a read
		for b := takeIdle(21, 1); b != nil; b = takeIdle(21, 1) {
			all = append(all, b)
		}
		return all
	}
	r := crashRecord(1, 1, bytes)
	if err := d.log.ReadAt(t.Context(), r.Key, make([]byte, bytes), 0); err != nil {
		t.Fatal(err)
	}
	before := drain()
	if len(before) == 0 {
		t.Fatal("the buffer of a read did not come back")
	}
	d.dev.Inject(simdev.Rule{Ops: simdev.Read, Fault: simdev.Hang})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := d.log.ReadAt(ctx, r.Key, make([]byte, bytes), 0); err == nil {
		t.Fatal("a hanging device answered")
	}
	if b := takeIdle(21, 1); b != nil {
		t.Error("the device and somebody else have one buffer")
	}
	d.dev.Clear()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if b := takeIdle(21, 1); b != nil {
			putBuffer(b)
			break
		}
		if time.Now().After(end) {
			t.Fatal("the buffer never came back")
		}
	}
	for _, b := range before {
		putBuffer(b)
	}
	if err := d.log.ReadAt(t.Context(), r.Key, make([]byte, bytes), 0); err != nil {
		t.Error(err)
	}
}
