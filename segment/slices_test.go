package segment

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"ashlar"
	"ashlar/segment/simdev"
)

// holding is a device on which the first long write ends when it is told how.
type holding struct {
	Device
	armed   atomic.Bool
	begun   chan struct{}
	outcome chan error
	others  atomic.Int64 // long writes since
	flushes atomic.Int64
	broken  atomic.Bool // the block where the first long write begins
	at      atomic.Int64
}

func (d *holding) WriteAt(p []byte, off int64) (int, error) {
	switch {
	case len(p) < sliceBytes:
	case d.armed.CompareAndSwap(true, false):
		d.at.Store(off)
		close(d.begun)
		if err := <-d.outcome; err != nil {
			return 0, err
		}
	case d.broken.Load() && off <= d.at.Load() && d.at.Load() < off+int64(len(p)):
		return 0, errBroken
	default:
		d.others.Add(1)
	}
	return d.Device.WriteAt(p, off)
}

func (d *holding) Flush() error {
	d.flushes.Add(1)
	return d.Device.Flush()
}

var errBroken = errors.New("bad block")

// TestLongRecordIsFlushedBehindAllItsSlices: the device has several slices of a long
// record at once, in any order, and the record is acknowledged if and only if each of
// them was written before the flush, if need be again.
func TestLongRecordIsFlushedBehindAllItsSlices(t *testing.T) {
	const size = 2 * int(ashlar.MiB)
	for _, c := range []struct {
		name   string
		err    error
		broken bool
	}{{"the first comes last", nil, false}, {"the first fails", errBroken, true}, {"the first fails once", errBroken, false}} {
		t.Run(c.name, func(t *testing.T) {
			sim := simdev.New(64*ashlar.MiB, 512, 1)
			d := &holding{Device: sim, begun: make(chan struct{}), outcome: make(chan error)}
			opt := Options{Disk: ashlar.DiskID{1}, IndexDir: "index", SegmentBytes: 8 * ashlar.MiB, Writers: 1, hooks: hooks{fs: vfs.NewMem()}}
			l, err := Open(t.Context(), d, opt)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			small := crashRecord(1, 1, 100)
			if err := l.Append(t.Context(), small); err != nil {
				t.Fatal(err)
			}
			flushed := d.flushes.Load()
			d.armed.Store(true)
			r := crashRecord(2, 2, size)
			answer := make(chan error, 1)
			go func() { answer <- l.Append(t.Context(), r) }()
			<-d.begun
			for d.others.Load() == 0 { // until a slice behind it was written: they do not wait for each other
				select {
				case err := <-answer:
					t.Fatalf("answered with %v while a slice was under way", err)
				default:
					runtime.Gosched()
				}
			}
			if n := d.flushes.Load(); n != flushed {
				t.Errorf("flushed %d times while a slice was under way", n-flushed)
			}
			d.broken.Store(c.broken)
			d.outcome <- c.err
			err = <-answer
			if c.broken {
				if !ashlar.Is(err, ashlar.Unavailable) || l.Err() == nil || d.flushes.Load() != flushed {
					t.Errorf("a slice that cannot be written: %v, fence %v, %d flushes", err, l.Err(), d.flushes.Load()-flushed)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			d.Device = sim.Reboot(0)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if l, err = Open(t.Context(), d, opt); err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			for _, want := range []*Record{small, r} {
				got := make([]byte, len(want.Data))
				if err := l.ReadAt(t.Context(), want.Key, got, 0); err != nil || !bytes.Equal(got, want.Data) {
					t.Errorf("%d bytes are not what was acknowledged: %v", len(want.Data), err)
				}
			}
		})
	}
}

// barred is a device whose flushes wait while the gate is closed.
type barred struct {
	Device
	gate    sync.RWMutex
	flushes atomic.Int64 // that were asked for
	written atomic.Int64 // bytes
}

func (d *barred) WriteAt(p []byte, off int64) (int, error) {
	d.written.Add(int64(len(p)))
	return d.Device.WriteAt(p, off)
}

func (d *barred) Flush() error {
	d.flushes.Add(1)
	d.gate.RLock()
	defer d.gate.RUnlock()
	return d.Device.Flush()
}

// TestNoSliceBeforeTheFlushInFront: that any part of a batch is on the medium proves
// that those in front of it were flushed, or a torn record counts as damage and hides
// the one that it was to replace. So a long batch that is laid out while the one in front
// is being flushed waits, all of it.
func TestNoSliceBeforeTheFlushInFront(t *testing.T) {
	const size = int(ashlar.MiB)
	d := &barred{Device: simdev.New(64*ashlar.MiB, 512, 1)}
	l, err := Open(t.Context(), d, Options{Disk: ashlar.DiskID{1}, IndexDir: "index", SegmentBytes: 8 * ashlar.MiB, Writers: 1,
		BatchBytes: size, hooks: hooks{fs: vfs.NewMem()}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Append(t.Context(), crashRecord(1, 1, 100)); err != nil { // the segment is open
		t.Fatal(err)
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for began := time.Now(); !ok(); time.Sleep(time.Millisecond) {
			if time.Since(began) > 10*time.Second {
				d.gate.Unlock()
				t.Fatalf("never: %s", what)
			}
		}
	}
	flushed := d.flushes.Load()
	d.gate.Lock()
	answers := make(chan error, 2)
	appendOne := func(key uint8) { answers <- l.Append(t.Context(), crashRecord(key, uint64(key), size)) }
	go appendOne(2)
	until("the first is flushed", func() bool { return d.flushes.Load() > flushed })
	written := d.written.Load()
	go appendOne(3)
	until("the second is laid out", func() bool { return l.writers[0].aloft.Load() == 2 })
	if n := d.written.Load() - written; n != 0 {
		t.Errorf("%d bytes went to the device before the flush in front of them", n)
	}
	d.gate.Unlock()
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if n := d.written.Load() - written; n < int64(size) {
		t.Errorf("%d bytes were written of a record of %d", n, size)
	}
}
