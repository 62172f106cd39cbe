package label

import (
	"errors"
	"fmt"

	"ashlar"
	"ashlar/diskmgr/blockdev"
)

// Found is what Read found beside the label itself.
type Found struct {
	// Sound counts the places that hold the newest label; below Copies the next
	// Write repairs the others.
	Sound int
	// Damaged holds what is wrong with the other places that hold a label's
	// magic, in the order of the places.
	Damaged []error
}

// deviceBytes is D of the format.
func deviceBytes(dev blockdev.IO) int64 { return dev.Bytes() - dev.Bytes()%AreaBytes }

// places are the offsets of the copies on a device of size d.
func places(d int64) [Copies]int64 {
	return [Copies]int64{0, AreaBytes / 2, d - AreaBytes, d - AreaBytes/2}
}

// Read finds the newest label. Kinds: NotFound (no place holds a label),
// Corrupt (labels, but none sound), Invalid (one is of a newer version, or the
// device is too small to hold a label), and what the device's ReadAt returns if
// no sound copy was found and a place could not be read.
func Read(dev blockdev.IO) (Label, Found, error) {
	const op = "label: read"
	d := deviceBytes(dev)
	if d < 2*AreaBytes {
		return Label{}, Found{}, ashlar.E(op, "", ashlar.Invalid, fmt.Errorf("%d bytes are too few for a label", dev.Bytes()))
	}
	s := scan{dev: dev, buf: blockdev.Aligned(dev.BlockBytes())}
	for i, off := range places(d) {
		s.look(i, off)
	}
	if was := s.best.Geometry.Device; s.Sound > 0 && was != d && was <= d {
		for i, off := range places(was) {
			if i >= Copies/2 {
				s.look(i, off)
			}
		}
	}
	switch {
	case s.newer != nil:
		return Label{}, s.Found, ashlar.E(op, "", ashlar.Invalid, s.newer)
	case s.Sound > 0:
		return s.best, s.Found, nil
	case s.unread != nil:
		return Label{}, s.Found, ashlar.E(op, "", ashlar.KindOf(s.unread), s.unread)
	case len(s.Damaged) > 0:
		return Label{}, s.Found, ashlar.E(op, "", ashlar.Corrupt, errors.Join(s.Damaged...))
	default:
		return Label{}, s.Found, ashlar.E(op, "", ashlar.NotFound, errNoLabel)
	}
}

// scan gathers what the places hold.
type scan struct {
	Found
	dev  blockdev.IO
	buf  []byte
	best Label
	// newer is the refusal of a sound label of an unknown version.
	newer error
	// unread is the first error of the device.
	unread error
}

func (s *scan) look(i int, off int64) {
	if _, err := s.dev.ReadAt(s.buf, off); err != nil {
		if s.unread == nil {
			s.unread = err
		}
		return
	}
	l, err := Decode(s.buf[:Bytes], i)
	switch {
	case ashlar.Is(err, ashlar.NotFound):
	case ashlar.Is(err, ashlar.Invalid):
		s.newer = err
	case err != nil:
		s.Damaged = append(s.Damaged, err)
	case s.Sound == 0 || l.Sequence > s.best.Sequence:
		s.best, s.Sound = l, 1
	case l == s.best:
		s.Sound++
	}
}

// Write makes l the label of the device, as the format says: it returns nil
// when all four copies are durable. The caller has set l.Sequence above that of
// every label on the device. On an error the label on the device is the old or
// the new one.
func Write(dev blockdev.IO, l Label) error {
	const op = "label: write"
	d := deviceBytes(dev)
	if d < l.Geometry.Device {
		return ashlar.E(op, "", ashlar.Invalid, fmt.Errorf("the device has %d bytes, the label says %d", d, l.Geometry.Device))
	}
	l.Claimed, l.Written = timeOf(nanos(l.Claimed)), timeOf(nanos(l.Written))
	l.Baseline.Measured = timeOf(nanos(l.Baseline.Measured))
	buf := blockdev.Aligned(dev.BlockBytes())
	at := places(l.Geometry.Device)
	for _, pair := range [][2]int{{0, 2}, {1, 3}} {
		for _, i := range pair {
			if err := put(dev, &l, i, at[i], buf); err != nil {
				return ashlar.E(op, fmt.Sprintf("copy=%d", i), ashlar.KindOf(err), err)
			}
		}
		if err := dev.Flush(); err != nil {
			return ashlar.E(op, "", ashlar.KindOf(err), err)
		}
	}
	return nil
}

// put writes one copy. What is about to be written is decoded first: a label
// that cannot be read back must never replace one that can.
func put(dev blockdev.IO, l *Label, i int, off int64, buf []byte) error {
	b, err := l.Encode(i)
	if err != nil {
		return err
	}
	if again, err := Decode(b, i); err != nil || again != *l {
		return ashlar.E("label: write", "", ashlar.Internal, errors.Join(errors.New("the encoded label does not decode to itself"), err))
	}
	copy(buf, b)
	_, err = dev.WriteAt(buf, off)
	return err
}

// Wipe writes zeros over the label space at both ends of the device, and over
// what lies behind it up to the very end, and flushes: no label, and no
// signature that an operating system looks for at the ends of a device, is left.
func Wipe(dev blockdev.IO) error {
	const op = "label: wipe"
	d := deviceBytes(dev)
	if d < 2*AreaBytes {
		return ashlar.E(op, "", ashlar.Invalid, fmt.Errorf("%d bytes are too few for a label", dev.Bytes()))
	}
	zeros := blockdev.Aligned(2 * AreaBytes)
	for _, area := range [][2]int64{{0, AreaBytes}, {d - AreaBytes, dev.Bytes()}} {
		if _, err := dev.WriteAt(zeros[:area[1]-area[0]], area[0]); err != nil {
			return ashlar.E(op, "", ashlar.KindOf(err), err)
		}
	}
	if err := dev.Flush(); err != nil {
		return ashlar.E(op, "", ashlar.KindOf(err), err)
	}
	return nil
}
