package blockdev

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"ashlar"
)

// Fault is a switch that kills devices: while it is on, all I/O of every IO that
// it wraps fails with EIO, as if the disk had been pulled. It exists for tests
// and for `ashlar dev kill-disk`; a production daemon makes none. The zero value
// is alive.
//
// One Fault outlives the devices that it wraps: a disk that is closed and
// opened again while the switch is on is still dead.
type Fault struct {
	dead atomic.Bool
}

// Kill makes all I/O fail from now on, I/O that is under way included.
func (f *Fault) Kill() { f.dead.Store(true) }

// Revive lets I/O through again. What was fenced above stays fenced until it is
// opened again.
func (f *Fault) Revive() { f.dead.Store(false) }

// Dead reports whether the switch is on.
func (f *Fault) Dead() bool { return f.dead.Load() }

// Wrap returns under behind the switch.
func (f *Fault) Wrap(under IO) IO { return &faulty{IO: under, fault: f} }

type faulty struct {
	IO
	fault *Fault
}

// through runs one I/O. A kill during the I/O hides its result: the caller of a
// pulled disk does not learn what reached the platter.
func (d *faulty) through(op string, off int64, call func() (int, error)) (int, error) {
	if d.fault.Dead() {
		return 0, dead(op, off)
	}
	n, err := call()
	if d.fault.Dead() {
		return 0, dead(op, off)
	}
	return n, err
}

func dead(op string, off int64) error {
	return ashlar.E(op, fmt.Sprintf("off=%#x", off), ashlar.Unavailable, fmt.Errorf("killed by a fault switch: %w", unix.EIO))
}

func (d *faulty) ReadAt(p []byte, off int64) (int, error) {
	return d.through("blockdev: read", off, func() (int, error) { return d.IO.ReadAt(p, off) })
}

func (d *faulty) WriteAt(p []byte, off int64) (int, error) {
	return d.through("blockdev: write", off, func() (int, error) { return d.IO.WriteAt(p, off) })
}

// Writes implements Starter.
func (d *faulty) Writes() (start func(p []byte, off int64), wait func() error) {
	begin, end := Writes(d.IO)
	if begin == nil {
		return nil, nil
	}
	var killed bool
	var at int64
	start = func(p []byte, off int64) {
		if at = off; d.fault.Dead() {
			killed = true
		}
		if !killed {
			begin(p, off)
		}
	}
	wait = func() error {
		if err := end(); !killed && !d.fault.Dead() {
			return err
		}
		return dead("blockdev: write", at)
	}
	return start, wait
}

func (d *faulty) Flush() error {
	_, err := d.through("blockdev: flush", 0, func() (int, error) { return 0, d.IO.Flush() })
	return err
}

func (d *faulty) Discard(off, length int64) error {
	_, err := d.through("blockdev: discard", off, func() (int, error) { return 0, d.IO.Discard(off, length) })
	return err
}
