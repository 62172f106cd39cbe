package inspect

import (
	"hash/crc32"
	"testing"
)

// Structures gives the tests of golden images the way to read each structure
// of the log: its magic, its length and its fields.
func Structures(t *testing.T, name string, p []byte, disk []byte) Table {
	t.Helper()
	start := crc32.Checksum(disk, crc)
	switch name {
	case "anchor":
		return structure(name, 0, p, "ASHA", 128, 0, anchorLayout)
	case "header-open", "header-free":
		return structure(name, 0, p, "ASHS", 128, 0, headerLayout)
	case "batch":
		return structure(name, 0, p, "ASHB", 64, start, batchLayout)
	case "record-piece", "record-tombstone":
		return structure(name, 0, p, "ASHR", 112, start, recordLayout)
	case "footer":
		return structure(name, 0, p[len(p)-512:], "ASHF", 128, 0, trailerLayout)
	}
	t.Fatalf("no structure %q", name)
	return Table{}
}

// SealedImage checks a trailer against the entries in front of it, in a
// segment of 64 KiB with blocks of 512 bytes.
func SealedImage(footer []byte) Table {
	const segment, block = 65536, 512
	l := &Log{BlockBytes: block, SegmentBytes: segment}
	p := make([]byte, segment)
	copy(p[segment-len(footer):], footer)
	t := structure("trailer", 0, footer[len(footer)-block:][:128], "ASHF", 128, 0, trailerLayout)
	l.checkSealed(&t, p, p[segment-block:])
	return t
}

// RecordImage reads a record where it says that it lies.
func RecordImage(t *testing.T, p []byte, disk [16]byte) *Detail {
	t.Helper()
	at := int64(u32(p[40:]))
	l := &Log{Disk: disk, BlockBytes: 512, SegmentBytes: 65536, Segments: 1, dev: image{65536 + at, p}, seed: crc32.Checksum(disk[:], crc)}
	d, err := l.Record(0, at)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

type image struct {
	at int64
	p  []byte
}

func (i image) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if skip := off - i.at; skip >= 0 && skip < int64(len(i.p)) {
		copy(p, i.p[skip:])
	}
	return len(p), nil
}
