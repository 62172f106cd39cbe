package segment

import (
	"bytes"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"

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
