package inspect

import (
	"fmt"
	"hash/crc32"
	"io"
)

const mebi = 1 << 20

var labelLayout = []column{
	{0, 8, text, "magic"}, {8, 4, number, "version of the format"}, {12, 4, number, "length of the copy"}, {16, 4, sum, "checksum, CRC-32C"},
	{20, 1, number, "number of the copy"}, {21, 3, reserved, "reserved"}, {24, 8, number, "sequence"}, {32, 16, id, "cluster id"},
	{48, 16, id, "disk id"}, {64, 4, number, "host id"}, {68, 4, number, "flags: 1 rotating"}, {72, 8, number, "owner epoch"},
	{80, 16, id, "owner"}, {96, 8, number, "device size at claim, whole MiB"}, {104, 8, number, "offset of the data area"},
	{112, 8, number, "length of the data area"}, {120, 8, number, "bytes of a segment"}, {128, 4, number, "bytes of a block"},
	{132, 4, reserved, "reserved"}, {136, 8, when, "claimed"}, {144, 8, when, "written"}, {152, 64, text, "name"},
	{216, 64, text, "name of the cluster"}, {280, 64, text, "serial number"}, {344, 8, when, "baseline measured"},
	{352, 8, number, "baseline: sequential write, bytes per second"}, {360, 8, number, "baseline: sequential read, bytes per second"},
	{368, 8, number, "baseline: 4 KiB read, median, ns"}, {376, 8, number, "baseline: 4 KiB read, p99, ns"},
	{384, 8, number, "baseline: 4 KiB write and flush, median, ns"}, {392, 8, number, "baseline: 4 KiB write and flush, p99, ns"},
	{400, 3696, reserved, "reserved"},
}

// Label reads the four copies of the label of a device of that size. Holds is
// the place of the one that counts, -1 if none does. After the package comment
// of diskmgr/label, version 1.
func Label(dev io.ReaderAt, bytes int64) (copies []Table, holds int, err error) {
	d := bytes / mebi * mebi
	holds = -1
	if d < 2*mebi {
		return nil, holds, fmt.Errorf("inspect: a device of %d bytes has no room for a label", bytes)
	}
	var best uint64
	ends := d
	for n := range 4 {
		t, p, err := labelCopy(dev, n, d)
		if err != nil {
			return nil, -1, err
		}
		if n >= 2 && !t.Sound() && ends != d { // the device has grown since it was claimed
			if grown, q, err := labelCopy(dev, n, ends); err == nil && grown.Sound() {
				t, p = grown, q
			}
		}
		if t.Sound() {
			if sequence := u64(p[24:]); holds < 0 || sequence > best {
				best, holds = sequence, n
			}
			if claimed := int64(u64(p[96:])); n < 2 && claimed >= 2*mebi && claimed < d {
				ends = claimed
			}
		}
		copies = append(copies, t)
	}
	return copies, holds, nil
}

func labelCopy(dev io.ReaderAt, n int, d int64) (Table, []byte, error) {
	at := []int64{0, mebi / 2, d - mebi, d - mebi/2}[n]
	p := make([]byte, 4096)
	if _, err := dev.ReadAt(p, at); err != nil {
		return Table{}, nil, fmt.Errorf("inspect: copy %d of the label at %d: %w", n, at, err)
	}
	t := read(fmt.Sprintf("label, copy %d", n), at, p, labelLayout)
	t.checkLabel(p, n)
	return t, p, nil
}

func (t *Table) checkLabel(p []byte, n int) {
	switch {
	case string(p[:8]) != "ASHLARdk":
		t.Problems = []string{"no label here"}
		return
	case u32(p[8:]) != 1:
		t.Problems = []string{fmt.Sprintf("version %d is not known here", u32(p[8:]))}
	case u32(p[12:]) != 4096:
		t.problem("length is %d", u32(p[12:]))
	}
	if got := crc32.Update(crc32.Checksum(p[:16], crc), crc, p[24:]); got != u32(p[16:]) {
		t.problem("checksum is %08x, the bytes have %08x", u32(p[16:]), got)
	}
	if int(p[20]) != n {
		t.problem("it says that it is copy %d", p[20])
	}
	if u32(p[68:])&^1 != 0 {
		t.problem("unknown flags %x", u32(p[68:]))
	}
	size, from, length := u64(p[96:]), u64(p[104:]), u64(p[112:])
	segment, block := u64(p[120:]), uint64(u32(p[128:]))
	if segment&(segment-1) != 0 || segment == 0 || block&(block-1) != 0 || block == 0 {
		t.problem("segments of %d and blocks of %d bytes: not powers of two", segment, block)
	} else if length%segment != 0 || from != mebi || size < 2*mebi || length > size-2*mebi {
		t.problem("a data area of %d bytes at %d on a device of %d in segments of %d", length, from, size, segment)
	}
}

// DataArea returns the part of a device that holds the log: by its label or, if
// no copy is left, all between the places of the copies.
func DataArea(dev io.ReaderAt, bytes int64) (area *io.SectionReader, from int64, err error) {
	copies, holds, err := Label(dev, bytes)
	if err != nil {
		return nil, 0, err
	}
	from, length := int64(mebi), bytes/mebi*mebi-2*mebi
	if holds >= 0 {
		p := make([]byte, 4096)
		if _, err := dev.ReadAt(p, copies[holds].At); err != nil {
			return nil, 0, fmt.Errorf("inspect: label: %w", err)
		}
		from, length = int64(u64(p[104:])), int64(u64(p[112:]))
	}
	return io.NewSectionReader(dev, from, length), from, nil
}
