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
)

// patience bounds what must happen; it is no part of what is tested.
const patience = 10 * time.Second

func TestChooseKnowsItsEngines(t *testing.T) {
	for _, want := range []blockdev.Engine{"", blockdev.EngineAuto, blockdev.EnginePread} {
		if use, why, err := blockdev.Choose(want); use != blockdev.EnginePread || why != nil || err != nil {
			t.Errorf("%q: %s %v %v", want, use, why, err)
		}
	}
	use, why, err := blockdev.Choose(blockdev.EngineUring)
	if err != nil || (use == blockdev.EngineUring) != (why == nil) {
		t.Errorf("uring: %s %v %v", use, why, err)
	}
	_, _, err = blockdev.Choose("mmap")
	wantKind(t, err, ashlar.Invalid)
}

// TestManyAtOnce writes and reads from more callers than a ring has room for.
func TestManyAtOnce(t *testing.T) {
	onAll(t, func(t *testing.T, path string) {
		d := open(t, path)
		const callers, each = 300, 16 * ashlar.KiB
		var all sync.WaitGroup
		for c := range int64(callers) {
			all.Go(func() {
				want, got := random(each), blockdev.Aligned(each)
				for range 2 {
					rand.Shuffle(len(want), func(i, j int) { want[i], want[j] = want[j], want[i] })
					_, write := d.WriteAt(want, c*each)
					flush := d.Flush()
					_, read := d.ReadAt(got, c*each)
					if err := errors.Join(write, flush, read); err != nil || !bytes.Equal(got, want) {
						t.Errorf("caller %d: its bytes changed, or %v", c, err)
						return
					}
				}
			})
		}
		all.Wait()
	})
}

func TestBuffersOfAPoolAndOthers(t *testing.T) {
	onEngines(t, func(t *testing.T) {
		pool, err := blockdev.NewPool(64*ashlar.KiB, 2)
		if err != nil {
			t.Fatal(err)
		}
		d, err := blockdev.OpenWith(file(t, false), blockdev.Options{Engine: engine(t), Pool: pool})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		mine, err := pool.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		other := random(64 * ashlar.KiB)
		copy(mine, other)
		if _, err := d.WriteAt(mine[4096:], 4096); err != nil {
			t.Fatal(err)
		}
		clear(mine)
		if _, err := d.ReadAt(mine, 0); err != nil || !bytes.Equal(mine[4096:], other[4096:]) {
			t.Fatalf("registered memory: its bytes changed, or %v", err)
		}
		if _, err := d.WriteAt(other, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := d.ReadAt(mine, 0); err != nil || !bytes.Equal(mine, other) {
			t.Fatalf("other memory: its bytes changed, or %v", err)
		}
	})
}

func TestFailuresHaveTheSameKinds(t *testing.T) {
	onEngines(t, func(t *testing.T) {
		liar, path := mountLiar(t)
		d := open(t, path)
		buf := blockdev.Aligned(4096)
		liar.broken.Store(true)
		_, write := d.WriteAt(buf, 0)
		_, read := d.ReadAt(buf, 0)
		for _, err := range []error{write, read} {
			wantKind(t, err, ashlar.Unavailable)
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("the cause is lost: %v", err)
			}
		}
		liar.broken.Store(false)
		if _, err := d.ReadAt(buf, 0); err != nil {
			t.Errorf("one error is not for ever: %v", err)
		}
	})
	onEngines(t, func(t *testing.T) {
		path := file(t, true)
		d := open(t, path)
		if err := os.Truncate(path, 4096); err != nil {
			t.Fatal(err)
		}
		if n, err := d.ReadAt(blockdev.Aligned(8192), 0); n != 4096 || !ashlar.Is(err, ashlar.Unavailable) {
			t.Errorf("a device that was cut off: %d bytes, %v", n, err)
		}
	})
}

func TestAfterCloseNothingIsDone(t *testing.T) {
	onAll(t, func(t *testing.T, path string) {
		d := open(t, path)
		if err := errors.Join(d.Close(), d.Close()); err != nil {
			t.Fatal(err)
		}
		buf := blockdev.Aligned(4096)
		_, write := d.WriteAt(buf, 0)
		_, read := d.ReadAt(buf, 0)
		for _, err := range []error{write, read, d.Flush()} {
			wantKind(t, err, ashlar.Unavailable)
			if !errors.Is(err, os.ErrClosed) {
				t.Errorf("not closed: %v", err)
			}
		}
	})
}

// TestCloseDuringIO: what is under way ends with its own result or as closed,
// and the device is free afterwards.
func TestCloseDuringIO(t *testing.T) {
	onAll(t, func(t *testing.T, path string) {
		for range 5 {
			d := open(t, path)
			var all sync.WaitGroup
			begun := make(chan int, 64)
			for c := range int64(8) {
				all.Go(func() {
					buf := blockdev.Aligned(4096)
					for i := int64(0); ; i++ {
						_, err := d.WriteAt(buf, (8*i+c)%1024*4096)
						if i%16 == 0 {
							err = errors.Join(err, d.Flush())
						}
						if err != nil {
							if !errors.Is(err, os.ErrClosed) {
								t.Error(err)
							}
							return
						}
						select {
						case begun <- 0:
						default:
						}
					}
				})
			}
			<-begun
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			all.Wait()
		}
	})
}

// TestAHungDeviceHurtsNobodyElse: I/O of every kind hangs; another device serves, and closing the hung one does not wait for it.
func TestAHungDeviceHurtsNobodyElse(t *testing.T) {
	onEngines(t, func(t *testing.T) {
		liar, path := mountLiar(t)
		hung, sound := open(t, path), open(t, file(t, false))
		gate := make(chan int)
		release := sync.OnceFunc(func() { close(gate) })
		t.Cleanup(release)
		liar.hang.Store(&gate)
		var waiting sync.WaitGroup
		const callers = 60
		for c := range callers {
			waiting.Go(func() {
				buf := blockdev.Aligned(4096)
				switch c % 3 {
				case 0:
					hung.ReadAt(buf, 0)
				case 1:
					hung.WriteAt(buf, 4096)
				default:
					hung.Flush()
				}
			})
		}
		for start := time.Now(); liar.hung.Load() == 0; time.Sleep(time.Millisecond) {
			if time.Since(start) > patience {
				t.Fatal("nothing hangs")
			}
		}
		done := make(chan error, 1)
		go func() {
			buf := random(4096)
			for i := range int64(20) {
				_, write := sound.WriteAt(buf, i*4096)
				_, read := sound.ReadAt(buf, i*4096)
				if err := errors.Join(write, read, sound.Flush()); err != nil {
					done <- err
					return
				}
			}
			done <- hung.Close()
		}()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("a hung device made another one wait, or its own closing")
		}
		release()
		waiting.Wait()
	})
}
