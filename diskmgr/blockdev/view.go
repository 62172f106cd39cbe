package blockdev

import (
	"fmt"

	"ashlar"
)

// Range is a part of an IO, seen as an IO of its own: offset 0 is its first
// byte, and nothing outside it can be read or written through it. A flush is
// one of the whole device below.
type Range struct {
	under      IO
	off, bytes int64
	block      int
}

// NewRange returns the part of under that starts at off and is length bytes
// long. Block is the unit of alignment that the range asks for and reports: a
// multiple of that of the device. Kind Invalid if off or length is not made of
// whole blocks or reaches beyond the device.
func NewRange(under IO, off, length int64, block int) (*Range, error) {
	if block <= 0 || block%under.BlockBytes() != 0 || !within(off, length, under.Bytes(), block) {
		return nil, ashlar.E("blockdev: range", fmt.Sprintf("off=%#x len=%#x block=%d", off, length, block), ashlar.Invalid,
			fmt.Errorf("the device has %#x bytes in blocks of %d", under.Bytes(), under.BlockBytes()))
	}
	return &Range{under: under, off: off, bytes: length, block: block}, nil
}

// ReadAt implements IO.
func (r *Range) ReadAt(p []byte, off int64) (int, error) {
	if err := r.check("blockdev: read", off, int64(len(p))); err != nil {
		return 0, err
	}
	return r.under.ReadAt(p, r.off+off)
}

// WriteAt implements IO.
func (r *Range) WriteAt(p []byte, off int64) (int, error) {
	if err := r.check("blockdev: write", off, int64(len(p))); err != nil {
		return 0, err
	}
	return r.under.WriteAt(p, r.off+off)
}

// Writes implements Starter.
func (r *Range) Writes() (start func(p []byte, off int64), wait func() error) {
	begin, end := Writes(r.under)
	if begin == nil {
		return nil, nil
	}
	var outside error
	start = func(p []byte, off int64) {
		if err := r.check("blockdev: write", off, int64(len(p))); err != nil {
			outside = err
			return
		}
		begin(p, r.off+off)
	}
	wait = func() error {
		if err := end(); err != nil {
			return err
		}
		return outside
	}
	return start, wait
}

// Flush implements IO.
func (r *Range) Flush() error { return r.under.Flush() }

// Discard implements IO.
func (r *Range) Discard(off, length int64) error {
	if err := r.check("blockdev: discard", off, length); err != nil {
		return err
	}
	return r.under.Discard(r.off+off, length)
}

// Bytes is the length of the range.
func (r *Range) Bytes() int64 { return r.bytes }

// BlockBytes is the unit of alignment of the range.
func (r *Range) BlockBytes() int { return r.block }

func (r *Range) check(op string, off, length int64) error {
	if within(off, length, r.bytes, r.block) {
		return nil
	}
	return ashlar.E(op, fmt.Sprintf("off=%#x len=%#x", off, length), ashlar.Invalid,
		fmt.Errorf("not whole blocks of %d within the range's %#x bytes", r.block, r.bytes))
}
