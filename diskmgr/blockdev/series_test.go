package blockdev_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/blockdev/looptest"
)

const slice = 64 * ashlar.KiB

// writes begins a series, on a device that must be able to.
func writes(t *testing.T, dev blockdev.IO) (start func(p []byte, off int64), wait func() error) {
	t.Helper()
	start, wait = blockdev.Writes(dev)
	if start == nil {
		t.Fatal("no series of writes")
	}
	return start, wait
}

// TestSeriesOfWrites: more writes than the kernel takes at once, in any order, are
// there when their wait has returned; and so are those of the next series, each
// longer than one request.
func TestSeriesOfWrites(t *testing.T) {
	onAll(t, func(t *testing.T, path string) {
		d := open(t, path)
		for _, length := range []int64{slice, slice, size / 4, size} {
			want := random(size)
			start, wait := writes(t, d)
			for _, i := range rand.Perm(int(size / length)) {
				off := int64(i) * length
				start(want[off:off+length], off)
			}
			if err := errors.Join(wait(), d.Flush()); err != nil {
				t.Fatal(err)
			}
			got := blockdev.Aligned(int(size))
			if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("the bytes are not there, or %v", err)
			}
		}
		_, wait := writes(t, d)
		if err := wait(); err != nil {
			t.Errorf("an empty series: %v", err)
		}
	})
}

// TestSeriesTellsOfAFailure in any of its writes, and the next is none the worse.
func TestSeriesTellsOfAFailure(t *testing.T) {
	onEngines(t, func(t *testing.T) {
		liar, path := mountLiar(t)
		d := open(t, path)
		p := random(slice)
		series := func(offs ...int64) error {
			start, wait := writes(t, d)
			for _, off := range offs {
				start(p, off)
			}
			return wait()
		}
		wantKind(t, series(0, 1, slice), ashlar.Invalid)
		wantKind(t, series(size, 0), ashlar.Invalid)
		liar.broken.Store(true)
		err := series(0, slice, 2*slice)
		wantKind(t, err, ashlar.Unavailable)
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("the cause is lost: %v", err)
		}
		liar.broken.Store(false)
		if err := series(0, slice); err != nil {
			t.Errorf("one failure is not for ever: %v", err)
		}
		liar.fail.Store(1)
		wantKind(t, d.Flush(), ashlar.Unavailable)
		wantKind(t, series(0), ashlar.Unavailable)
	})
	onAll(t, func(t *testing.T, path string) {
		d := open(t, path)
		start, wait := writes(t, d)
		start(random(slice), 0)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		start(random(slice), slice)
		err := wait()
		wantKind(t, err, ashlar.Unavailable)
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("not closed: %v", err)
		}
		again := open(t, path) // what was begun does not hold the device any more
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestSeriesOfAPart: a Range and a Fault let a series through, and nothing else.
func TestSeriesOfAPart(t *testing.T) {
	d := open(t, file(t, false))
	var f blockdev.Fault
	r, err := blockdev.NewRange(f.Wrap(d), ashlar.MiB, 2*ashlar.MiB, 8192)
	if err != nil {
		t.Fatal(err)
	}
	before, want, got := random(size), random(slice), blockdev.Aligned(int(size))
	if _, err := d.WriteAt(before, 0); err != nil {
		t.Fatal(err)
	}
	start, wait := writes(t, r)
	start(want, slice)
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	copy(before[ashlar.MiB+slice:], want)
	for _, off := range []int64{4096, -8192, 2 * ashlar.MiB} {
		start, wait := writes(t, r)
		start(want, off)
		wantKind(t, wait(), ashlar.Invalid)
	}
	start, wait = writes(t, r)
	f.Kill()
	start(want, 0)
	if err := wait(); !errors.Is(err, syscall.EIO) {
		t.Errorf("a series on a dead disk: %v", err)
	}
	start, wait = writes(t, r)
	start(want, 0)
	f.Revive()
	if err := wait(); !errors.Is(err, syscall.EIO) {
		t.Errorf("what was not begun was said to be written: %v", err)
	}
	start, wait = writes(t, r)
	start(want, slice)
	f.Kill()
	if err := wait(); !errors.Is(err, syscall.EIO) {
		t.Errorf("the result of a write to a disk that was pulled: %v", err)
	}
	f.Revive()
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, before) {
		t.Errorf("other bytes than those of the series changed, or %v", err)
	}
}

// TestSeriesDoesNotWaitForAHungDevice: to begin more writes than the device has
// requests for does not wait, so whoever lays a batch out is not held by it.
func TestSeriesDoesNotWaitForAHungDevice(t *testing.T) {
	liar, path := mountLiar(t)
	gate := make(chan int)
	release := sync.OnceFunc(func() { close(gate) })
	d := open(t, looptest.Attach(t, path, 4096))
	t.Cleanup(release)
	liar.hang.Store(&gate)
	const serieses = 8 // a loop device takes 128 requests, each series has 32
	var waits []func() error
	want := random(size)
	begun := make(chan bool)
	go func() {
		for n := range serieses {
			start, wait := blockdev.Writes(d)
			for off := int64(n) * size / serieses; off < int64(n+1)*size/serieses; off += size / serieses / 32 {
				start(want[off:off+size/serieses/32], off)
			}
			waits = append(waits, wait)
		}
		close(begun)
	}()
	select {
	case <-begun:
	case <-time.After(patience):
		release()
		<-begun
		t.Error("a write that was to be begun waited for a hung device")
	}
	for began := time.Now(); liar.hung.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatal("nothing was begun")
		}
	}
	release()
	for _, wait := range waits {
		if err := wait(); err != nil {
			t.Error(err)
		}
	}
	got := blockdev.Aligned(int(size))
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the bytes are not there, or %v", err)
	}
}
