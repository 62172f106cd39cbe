package label

import (
	"bytes"
	"errors"
	"testing"

	"ashlar"
	"ashlar/diskmgr/blockdev"
)

// sim is a device in memory with a volatile cache: writes are logged, and become
// durable at the next flush. It has no file below it and no goroutine.
type sim struct {
	medium  []byte
	log     []write // since the last flush
	phases  [][]write
	before  [][]byte // the medium at the start of each phase
	block   int
	readErr map[int64]error
}

type write struct {
	off int64
	p   []byte
}

func newSim(bytes int64) *sim { return &sim{medium: make([]byte, bytes), block: 4096} }

func (s *sim) ReadAt(p []byte, off int64) (int, error) {
	if err := s.readErr[off]; err != nil {
		return 0, err
	}
	n := copy(p, s.medium[off:])
	for _, w := range s.log {
		if off <= w.off && w.off+int64(len(w.p)) <= off+int64(len(p)) {
			copy(p[w.off-off:], w.p)
		}
	}
	return n, nil
}

func (s *sim) WriteAt(p []byte, off int64) (int, error) {
	if off%int64(s.block) != 0 || len(p)%s.block != 0 {
		return 0, errors.New("unaligned")
	}
	s.log = append(s.log, write{off, bytes.Clone(p)})
	return len(p), nil
}

func (s *sim) Flush() error {
	s.phases = append(s.phases, s.log)
	s.before = append(s.before, bytes.Clone(s.medium))
	for _, w := range s.log {
		copy(s.medium[w.off:], w.p)
	}
	s.log = nil
	return nil
}

func (s *sim) Discard(int64, int64) error { return nil }
func (s *sim) Bytes() int64               { return int64(len(s.medium)) }
func (s *sim) BlockBytes() int            { return s.block }

var _ blockdev.IO = (*sim)(nil)

const simBytes = 34*ashlar.MiB + 12*ashlar.KiB

func written(t *testing.T, dev *sim, l Label) {
	t.Helper()
	if err := Write(dev, l); err != nil {
		t.Fatal(err)
	}
}

func next(l Label) Label {
	l.Sequence++
	l.Host++
	l.OwnerEpoch++
	return l
}

func TestWriteThenRead(t *testing.T) {
	for _, block := range []int{4096, 16384, 65536} {
		dev := newSim(34*ashlar.MiB + 64*ashlar.KiB)
		dev.block = block
		if _, _, err := Read(dev); !ashlar.Is(err, ashlar.NotFound) {
			t.Fatalf("a blank device: %v", err)
		}
		want := minimal()
		written(t, dev, want)
		got, found, err := Read(dev)
		if err != nil || got != want || found.Sound != Copies || len(found.Damaged) != 0 {
			t.Fatalf("block %d: %+v %+v %v", block, got, found, err)
		}
		if len(dev.phases) != 2 || len(dev.phases[0]) != 2 || len(dev.phases[1]) != 2 {
			t.Fatalf("not two copies, flush, two copies, flush: %d phases", len(dev.phases))
		}
	}
}

// TestEveryCutLeavesTheOldOrTheNewLabel cuts the power at every moment of a
// change. What differs between two labels lies in bytes 0 to 400 of a copy, so
// that a device which tears between sectors only has nothing to tear. The test
// supposes a worse one: between two flushes it may have put any of the pieces of
// atom bytes on the medium, and all 2^14 combinations for two copies are tried;
// and then every byte of each copy is the cut, while the other copy is old, half
// written or new.
func TestEveryCutLeavesTheOldOrTheNewLabel(t *testing.T) {
	const (
		atoms = 7
		atom  = 64 // 7 × 64 > 400
	)
	dev := newSim(simBytes)
	older := minimal()
	newer := next(older)
	newer.Name = string(bytes.Repeat([]byte("n"), TextBytesMax))
	written(t, dev, older)
	dev.phases, dev.before = nil, nil
	written(t, dev, newer)
	cut := newSim(simBytes)
	states := 0
	check := func(phase int) {
		states++
		got, found, err := Read(cut)
		if err != nil || (got != older && got != newer) {
			t.Fatalf("phase %d: read %+v: %v", phase, got, err)
		}
		if found.Sound < 1 || (got == older && found.Sound < 2) {
			t.Fatalf("phase %d: only %d sound copies", phase, found.Sound)
		}
		if phase == 1 && got != newer {
			t.Fatal("after the first flush the old label came back")
		}
	}
	for phase, writes := range dev.phases {
		copy(cut.medium, dev.before[phase])
		base := dev.before[phase]
		apply := func(w write, from, to int) { copy(cut.medium[w.off+int64(from):w.off+int64(to)], w.p[from:to]) }
		restore := func(w write) { copy(cut.medium[w.off:w.off+int64(len(w.p))], base[w.off:]) }
		for mask := range 1 << (2 * atoms) {
			for i, w := range writes {
				restore(w)
				for a := range atoms {
					if mask>>(atoms*i+a)&1 == 1 {
						apply(w, a*atom, (a+1)*atom)
					}
				}
			}
			check(phase)
		}
		for i, w := range writes {
			other := writes[1-i]
			for _, half := range []int{0, 256, atoms * atom} {
				restore(other)
				apply(other, 0, half)
				restore(w)
				for at := range atoms*atom + 1 {
					if at > 0 {
						apply(w, at-1, at)
					}
					check(phase)
				}
			}
			restore(w)
			restore(other)
		}
	}
	t.Logf("%d states after a cut, each the old or the new label", states)
}

func TestAnyThreeCopiesMayBeLostAndTheNextWriteRepairsThem(t *testing.T) {
	for kept := range Copies {
		dev := newSim(simBytes)
		l := minimal()
		written(t, dev, l)
		for i, off := range places(deviceBytes(dev)) {
			if i != kept {
				dev.medium[off+100] ^= 1
			}
		}
		got, found, err := Read(dev)
		if err != nil || got != l || found.Sound != 1 || len(found.Damaged) != 3 {
			t.Fatalf("only copy %d kept: %+v, %v", kept, found, err)
		}
		written(t, dev, next(got))
		if got, found, err = Read(dev); err != nil || got != next(l) || found.Sound != Copies {
			t.Fatalf("after the repair: %+v %v", found, err)
		}
	}
}

func TestAllCopiesDamagedIsCorruptNotBlank(t *testing.T) {
	dev := newSim(simBytes)
	written(t, dev, minimal())
	for _, off := range places(deviceBytes(dev)) {
		dev.medium[off+100] ^= 1
	}
	if _, _, err := Read(dev); !ashlar.Is(err, ashlar.Corrupt) {
		t.Fatalf("four damaged copies: %v", err)
	}
}

func TestANewerVersionIsRefusedByOneCopy(t *testing.T) {
	dev := newSim(simBytes)
	written(t, dev, minimal())
	last := places(deviceBytes(dev))[3]
	b := dev.medium[last : last+Bytes]
	b[atVersion] = 9
	reseal(b)
	_, _, err := Read(dev)
	if !ashlar.Is(err, ashlar.Invalid) {
		t.Fatalf("got %v", err)
	}
}

func TestUnreadablePlacesAreNotBlank(t *testing.T) {
	dead := errors.New("EIO")
	dev := newSim(simBytes)
	at := places(deviceBytes(dev))
	dev.readErr = map[int64]error{at[0]: dead}
	if _, _, err := Read(dev); !errors.Is(err, dead) {
		t.Fatalf("an unreadable place and no label elsewhere: %v", err)
	}
	written(t, dev, minimal())
	if _, found, err := Read(dev); err != nil || found.Sound != 3 {
		t.Fatalf("one unreadable place of four: %+v %v", found, err)
	}
}

func TestAGrownDeviceKeepsItsTrailingCopies(t *testing.T) {
	dev := newSim(simBytes)
	l := minimal()
	written(t, dev, l)
	dev.medium = append(dev.medium, make([]byte, 10*ashlar.MiB)...)
	if _, found, err := Read(dev); err != nil || found.Sound != Copies {
		t.Fatalf("%+v %v", found, err)
	}
	written(t, dev, next(l))
	if got, found, err := Read(dev); err != nil || got != next(l) || found.Sound != Copies {
		t.Fatalf("%+v %v", found, err)
	}
	dev.medium = dev.medium[:20*ashlar.MiB]
	if got, found, err := Read(dev); err != nil || got != next(l) || found.Sound != 2 {
		t.Fatalf("cut off: %+v %v", found, err)
	}
	if err := Write(dev, next(next(l))); !ashlar.Is(err, ashlar.Invalid) {
		t.Fatalf("a label was written to a device that was cut off: %v", err)
	}
}

func TestWipeLeavesZerosAtBothEnds(t *testing.T) {
	dev := newSim(simBytes)
	for i := range dev.medium {
		dev.medium[i] = 0xee
	}
	written(t, dev, minimal())
	if err := Wipe(dev); err != nil {
		t.Fatal(err)
	}
	d := deviceBytes(dev)
	if bytes.Count(dev.medium[:AreaBytes], []byte{0}) != AreaBytes || bytes.Count(dev.medium[d-AreaBytes:], []byte{0}) != int(simBytes-d+AreaBytes) {
		t.Error("something is left at the ends")
	}
	if dev.medium[AreaBytes] != 0xee || dev.medium[d-AreaBytes-1] != 0xee {
		t.Error("the data area was touched")
	}
	if _, _, err := Read(dev); !ashlar.Is(err, ashlar.NotFound) {
		t.Error(err)
	}
}
