package faultdisk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	"ashlar/tools/faultdisk"
)

// raw opens the device as a writer of one's own would: past the page cache.
func raw(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func fill(n int, with byte) []byte {
	p := blockdev.Aligned(n)
	for i := range p {
		p[i] = with
	}
	return p
}

const (
	cutWriters     = 2
	cutRegion      = 4 * ashlar.MiB
	cutRecordBytes = 12 << 10
)

// cutRecord is whole if its checksum is right and it is the one that belongs there.
func cutRecord(p []byte, rng *rand.Rand, round, writer, n uint64) {
	for i := 32; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], rng.Uint64())
	}
	for i, v := range []uint64{round, writer, n} {
		binary.LittleEndian.PutUint64(p[8+8*i:], v)
	}
	binary.LittleEndian.PutUint64(p, uint64(crc32.ChecksumIEEE(p[8:])))
}

func cutWhole(p []byte, round, writer, n uint64) bool {
	for i, v := range []uint64{uint64(crc32.ChecksumIEEE(p[8:])), round, writer, n} {
		if binary.LittleEndian.Uint64(p[8*i:]) != v {
			return false
		}
	}
	return true
}

// tally is what was found after the cuts.
type tally struct{ flushed, lost, kept, gone, torn int }

// cutRound lets writers append until the power fails, then counts what is there.
func cutRound(t *testing.T, d *faultdisk.Disk, round uint64, sum *tally) {
	f, before := raw(t, d.Path()), d.Medium(0, d.Bytes())
	var flushed, written [cutWriters]int
	var wg sync.WaitGroup
	for w := range cutWriters {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(round, uint64(w)))
			p := blockdev.Aligned(cutRecordBytes)
			for n := 0; (n+1)*cutRecordBytes <= cutRegion; n++ {
				cutRecord(p, rng, round, uint64(w), uint64(n))
				written[w] = n + 1
				if _, err := f.WriteAt(p, int64(w*cutRegion+n*cutRecordBytes)); err != nil {
					return
				}
				if rng.IntN(3) == 0 {
					if f.Sync() != nil {
						return
					}
					flushed[w] = n + 1
				}
			}
		})
	}
	time.Sleep(time.Duration(5+round%7*5) * time.Millisecond)
	d.PowerCut(512)
	wg.Wait()
	f.Close()
	d.PowerOn()
	f = raw(t, d.Path())
	defer f.Close()
	p := blockdev.Aligned(cutRecordBytes)
	for w := range cutWriters {
		for n := range written[w] {
			at := int64(w*cutRegion + n*cutRecordBytes)
			if _, err := f.ReadAt(p, at); err != nil {
				t.Fatal(err)
			}
			whole := cutWhole(p, round, uint64(w), uint64(n))
			switch {
			case n < flushed[w]:
				sum.flushed++
				if !whole {
					sum.lost++
				}
			case whole:
				sum.kept++
			case bytes.Equal(p, before[at:at+cutRecordBytes]):
				sum.gone++
			default:
				sum.torn++
			}
		}
	}
}

// TestCuts cuts the power thirty times under a writer: nothing that was flushed
// may be missing. The same writer on a disk that lies about its flushes loses
// records, so the test can fail.
func TestCuts(t *testing.T) {
	const seed, cuts = 1, 30
	for _, lying := range []bool{false, true} {
		name := map[bool]string{false: "honest", true: "lying"}[lying]
		t.Run(name, func(t *testing.T) {
			d := faultdisk.New(t, faultdisk.Options{Disks: 1, Bytes: cutWriters * cutRegion, Seed: seed}).Disk(0)
			if lying {
				d.Inject(faultdisk.Rule{Fault: faultdisk.Lie})
			}
			var sum tally
			began := time.Now()
			for round := range uint64(cuts) {
				cutRound(t, d, round+1, &sum)
			}
			t.Logf("seed %d: %d cuts in %v: %d flushed records, %d of them lost; of those not flushed %d kept, %d gone, %d torn",
				seed, cuts, time.Since(began).Round(time.Millisecond), sum.flushed, sum.lost, sum.kept, sum.gone, sum.torn)
			if (sum.lost > 0) != lying || sum.flushed < 100 {
				t.Errorf("%d of %d flushed records lost by the %s disk", sum.lost, sum.flushed, name)
			}
			if !lying && (sum.gone == 0 || sum.kept == 0) {
				t.Error("the cuts hit nothing: the test proves nothing")
			}
		})
	}
}

// TestFaults does each fault once, through the loop device, and looks at what
// the caller sees and what is left.
func TestFaults(t *testing.T) {
	const bytesOfDisk = 8 * ashlar.MiB
	rig := faultdisk.New(t, faultdisk.Options{Disks: 2, Bytes: bytesOfDisk, Seed: 2})
	d, other := rig.Disk(0), rig.Disk(1)
	f := raw(t, d.Path())
	at := int64(0)
	old, fresh, got := fill(64<<10, 'o'), fill(64<<10, 'n'), blockdev.Aligned(64<<10)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(p []byte) error { _, err := f.WriteAt(p, at); return err }
	read := func() error { _, err := f.ReadAt(got, at); return err }
	// step starts on a fresh place that holds old bytes, flushed.
	step := func(name string, r faultdisk.Rule, fn func(t *testing.T)) {
		t.Helper()
		at += 256 << 10
		must(write(old))
		must(f.Sync())
		t.Run(name, func(t *testing.T) {
			defer d.Clear()
			before := d.Counts().Faults[r.Fault]
			if r.Fault != 0 {
				d.Inject(r)
			}
			fn(t)
			if hits := d.Counts().Faults[r.Fault] - before; r.Fault != 0 && hits != max(r.Count, 1) {
				t.Errorf("fired %d times", hits)
			}
		})
	}
	is := func(t *testing.T, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	holds := func(t *testing.T, want []byte) {
		t.Helper()
		must(read())
		if !bytes.Equal(got, want) {
			t.Errorf("read %q… of %q…", got[0], want[0])
		}
	}
	R := func(f faultdisk.Fault) faultdisk.Rule { return faultdisk.Rule{Fault: f, Count: 1} }

	step("EIO on write", faultdisk.Rule{Ops: faultdisk.Write, Fault: faultdisk.EIO, Count: 1}, func(t *testing.T) {
		is(t, write(fresh), syscall.EIO)
		holds(t, old)
	})
	step("EIO on read of a place", faultdisk.Rule{Ops: faultdisk.Read, Fault: faultdisk.EIO, From: at + 256<<10 + 4096, To: at + 256<<10 + 4097, Count: 1}, func(t *testing.T) {
		is(t, read(), syscall.EIO)
		holds(t, old)
	})
	step("ENOSPC", R(faultdisk.ENOSPC), func(t *testing.T) { is(t, write(fresh), syscall.ENOSPC) })
	step("flush EIO, then a flush that believes itself", faultdisk.Rule{Ops: faultdisk.Flush, Fault: faultdisk.EIO, Count: 1}, func(t *testing.T) {
		must(write(fresh))
		is(t, f.Sync(), syscall.EIO)
		is(t, f.Sync(), nil)
		holds(t, fresh)
		if !bytes.Equal(d.Medium(at, int64(len(old))), old) {
			t.Error("the failed flush wrote")
		}
	})
	step("lost", R(faultdisk.Lost), func(t *testing.T) { must(write(fresh)); holds(t, old) })
	step("misdirected", faultdisk.Rule{Fault: faultdisk.Misdirected, Shift: 128 << 10, Count: 1}, func(t *testing.T) {
		must(write(fresh))
		holds(t, old)
		at += 128 << 10
		holds(t, fresh)
	})
	step("short", R(faultdisk.Short), func(t *testing.T) {
		must(write(fresh))
		must(read())
		if n := bytes.Count(got, []byte{'n'}); n == len(got) || n%512 != 0 || !bytes.Equal(got[n:], old[n:]) {
			t.Errorf("%d bytes written", n)
		}
	})
	step("torn", R(faultdisk.Torn), func(t *testing.T) {
		is(t, write(fresh), syscall.EIO)
		must(read())
		if n := bytes.Count(got, []byte{'n'}); n == len(got) || n == 0 {
			t.Errorf("%d bytes written", n)
		}
	})
	step("flip", R(faultdisk.Flip), func(t *testing.T) {
		must(read())
		if bytes.Equal(got, old) {
			t.Error("no bit was flipped")
		}
		holds(t, old)
	})
	step("lie", R(faultdisk.Lie), func(t *testing.T) {
		must(write(fresh))
		must(f.Sync())
		if !bytes.Equal(d.Medium(at, int64(len(old))), old) {
			t.Error("the lying flush wrote")
		}
	})
	step("rot", faultdisk.Rule{}, func(t *testing.T) {
		d.Rot(at, 4096, true)
		must(read())
		if !bytes.Equal(got[:4096], make([]byte, 4096)) || !bytes.Equal(got[4096:], old[4096:]) {
			t.Error("not the range that was to rot")
		}
	})
	step("delay", faultdisk.Rule{Ops: faultdisk.Read, Fault: faultdisk.Delay, Delay: 50 * time.Millisecond, Count: 1}, func(t *testing.T) {
		began := time.Now()
		holds(t, old)
		if took := time.Since(began); took < 50*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
	step("hang", faultdisk.Rule{Ops: faultdisk.Write, Fault: faultdisk.Hang, Count: 1}, func(t *testing.T) {
		ended := make(chan error)
		go func() { ended <- write(fresh) }()
		g := raw(t, other.Path())
		if _, err := g.WriteAt(old, 0); err != nil {
			t.Errorf("the other disk: %v", err)
		}
		select {
		case err := <-ended:
			t.Errorf("it came back: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		d.Clear()
		must(<-ended)
		holds(t, fresh)
	})
	step("read-only", faultdisk.Rule{}, func(t *testing.T) {
		must(d.SetReadOnly(true))
		defer d.SetReadOnly(false)
		if err := write(fresh); err == nil {
			t.Error("written")
		}
		holds(t, old)
	})
	step("dead", faultdisk.Rule{}, func(t *testing.T) {
		d.Kill()
		is(t, read(), syscall.EIO)
		is(t, write(fresh), syscall.EIO)
		is(t, f.Sync(), syscall.EIO)
		d.Revive()
		holds(t, old)
	})
	step("skip and count", faultdisk.Rule{Ops: faultdisk.Read, Fault: faultdisk.EIO, Skip: 2, Count: 2}, func(t *testing.T) {
		for _, want := range []error{nil, nil, syscall.EIO, syscall.EIO, nil} {
			is(t, read(), want)
		}
	})
	step("discard", faultdisk.Rule{}, func(t *testing.T) {
		dev, err := blockdev.Open(other.Path())
		must(err)
		defer dev.Close()
		p := fill(64<<10, 'x')
		if _, err := dev.WriteAt(p, 0); err != nil {
			t.Error(err)
		}
		must(dev.Discard(0, 48<<10))
		want := append(make([]byte, 48<<10), p[48<<10:]...)
		if _, err := dev.ReadAt(p, 0); err != nil || !bytes.Equal(p, want) || other.Counts().Discards == 0 {
			t.Errorf("after the discard: %v, %q…, %d discards", err, p[0], other.Counts().Discards)
		}
	})
	if len(d.Events()) < 15 {
		t.Errorf("only %d events were logged", len(d.Events()))
	}
}
