package diskmgr

import (
	"fmt"
	"math/bits"

	"ashlar"
	"ashlar/diskmgr/label"
)

// Sizes of segments, in bytes. The smallest holds a record of 2 MiB and leaves
// room for what is packed around it; the largest is a zone of a zoned disk.
const (
	SegmentBytesMin = 4 * ashlar.MiB
	SegmentBytesMax = 256 * ashlar.MiB
)

const (
	// segmentsWanted is the number below which segments are made smaller:
	// compaction frees whole segments, and with few of them each is a large part
	// of the disk.
	segmentsWanted = 64
	// segmentsMin is the fewest that a log can work with: one open for each of
	// two writers, one to compact into, and room to choose.
	segmentsMin = 8
)

// DeviceBytesMin is the smallest device that can be claimed.
const DeviceBytesMin = segmentsMin*SegmentBytesMin + 2*label.AreaBytes

// geometryOf lays out a device. A segment size of 0 is chosen: the largest power
// of two up to SegmentBytesMax that gives the disk segmentsWanted segments, but
// at least SegmentBytesMin.
func geometryOf(deviceBytes int64, blockBytes int, segmentBytes int64) (label.Geometry, error) {
	d := deviceBytes - deviceBytes%label.AreaBytes
	room := d - 2*label.AreaBytes
	if d < DeviceBytesMin {
		return label.Geometry{}, fmt.Errorf("too small: %s, at least %s are needed", sizeText(deviceBytes), sizeText(DeviceBytesMin))
	}
	if segmentBytes == 0 {
		segmentBytes = SegmentBytesMax
		for segmentBytes > SegmentBytesMin && room/segmentBytes < segmentsWanted {
			segmentBytes /= 2
		}
	}
	if segmentBytes < SegmentBytesMin || bits.OnesCount64(uint64(segmentBytes)) != 1 || room/segmentBytes < segmentsMin {
		return label.Geometry{}, fmt.Errorf("segment size %d: want a power of two from %d that fits %d times into %s",
			segmentBytes, int64(SegmentBytesMin), segmentsMin, sizeText(room))
	}
	return label.Geometry{
		Device: d, DataOffset: label.AreaBytes, Data: room - room%segmentBytes,
		SegmentBytes: segmentBytes, BlockBytes: blockBytes,
	}, nil
}

// sizeText prints a size as disk makers do: powers of ten, three digits.
func sizeText(n int64) string {
	value, unit := float64(n), "B"
	for _, next := range []string{"kB", "MB", "GB", "TB", "PB"} {
		if value < 999.5 {
			break
		}
		value, unit = value/1000, next
	}
	switch {
	case unit == "B" || value >= 99.95:
		return fmt.Sprintf("%.0f %s", value, unit)
	default:
		return fmt.Sprintf("%.1f %s", value, unit)
	}
}
