package format

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"ashlar"
)

// Version is the version of every structure that this package writes, and the
// only one that it reads.
const Version = 1

// Lengths in bytes. They are part of the format.
const (
	EndBytes     = 64 * ashlar.KiB // kept at each end of the device for anchors
	SlotBytes    = 32 * ashlar.KiB // distance of the two anchor slots
	AnchorBytes  = 128
	HeaderBytes  = 128 // segment header
	BatchBytes   = 64  // batch header
	RecordBytes  = 112 // record header without the key
	EntryBytes   = 64  // footer entry
	TrailerBytes = 128

	CellBytes   = 32 * ashlar.KiB // data under one checksum
	SumBytes    = 4               // the checksum behind a cell
	RecordAlign = 8
	KeyBytesMax = 1024

	BlockBytesMin   = 512
	BlockBytesMax   = 32 * ashlar.KiB
	SegmentBytesMin = 64 * ashlar.KiB
	SegmentBytesMax = 2 * ashlar.GiB
)

const prefixBytes = 12 // magic, version, length, checksum

// Why bytes do not decode. ErrAbsent and ErrSum mean that there is nothing to
// be trusted; ErrVersion and ErrField that something valid is there which this
// reader must not interpret.
var (
	ErrAbsent  = errors.New("no such structure here")
	ErrSum     = errors.New("checksum does not match")
	ErrVersion = errors.New("written by a version that is not known here")
	ErrField   = errors.New("a field has a value that the format does not allow")
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Life names one incarnation of a segment. No two segment headers ever written
// share a Life.
type Life struct {
	Disk             ashlar.DiskID
	Generation, Salt uint64
}

// diskSeed is the start value of the checksums that mix in the disk id.
func diskSeed(disk ashlar.DiskID) uint32 { return crc32.Checksum(disk[:], castagnoli) }

// seal writes the common twelve bytes; all else in p must be in place.
func seal(p []byte, magic string, seed uint32) {
	copy(p, magic)
	le.PutUint16(p[4:], Version)
	le.PutUint16(p[6:], uint16(len(p)))
	le.PutUint32(p[8:], sum(p, seed))
}

func sum(p []byte, seed uint32) uint32 {
	return crc32.Update(crc32.Update(seed, castagnoli, p[:8]), castagnoli, p[prefixBytes:])
}

// open checks the common twelve bytes and returns the structure cut to its length.
func open(p []byte, magic string, lenMin, lenMax int, seed uint32) ([]byte, error) {
	if len(p) < prefixBytes || string(p[:4]) != magic {
		return nil, ErrAbsent
	}
	n := int(le.Uint16(p[6:]))
	if n < prefixBytes || n > len(p) {
		return nil, ErrSum
	}
	p = p[:n]
	if le.Uint32(p[8:]) != sum(p, seed) {
		return nil, ErrSum
	}
	if v := le.Uint16(p[4:]); v != Version {
		return nil, fmt.Errorf("%s version %d: %w", magic, v, ErrVersion)
	}
	if n < lenMin || n > lenMax {
		return nil, fmt.Errorf("%s length %d: %w", magic, n, ErrField)
	}
	return p, nil
}

func zero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// fields reports ErrField unless everything holds.
func fields(magic string, holds ...bool) error {
	for i, ok := range holds {
		if !ok {
			return fmt.Errorf("%s: rule %d: %w", magic, i, ErrField)
		}
	}
	return nil
}

func powerOfTwo(n, low, high int64) bool { return n >= low && n <= high && n&(n-1) == 0 }

// AlignUp rounds n up to a multiple of unit, a power of two.
func AlignUp(n, unit int64) int64 { return (n + unit - 1) &^ (unit - 1) }

// Segments is the number of segments on a device of that length, and whether
// the geometry is allowed at all.
func Segments(deviceBytes, segmentBytes int64, blockBytes int) (int, bool) {
	if !powerOfTwo(int64(blockBytes), BlockBytesMin, BlockBytesMax) ||
		!powerOfTwo(segmentBytes, SegmentBytesMin, SegmentBytesMax) || segmentBytes < 8*int64(blockBytes) {
		return 0, false
	}
	deviceBytes &^= int64(blockBytes) - 1
	n := (deviceBytes - 2*EndBytes) / segmentBytes
	return int(n), n > 0 && n < 1<<31
}

// SegmentOffset is where segment number i starts on the device.
func SegmentOffset(i int, segmentBytes int64) int64 { return EndBytes + int64(i)*segmentBytes }

// AnchorOffsets are the two places of the slot on a device of that length.
func AnchorOffsets(slot int, deviceBytes int64, blockBytes int) [2]int64 {
	deviceBytes &^= int64(blockBytes) - 1
	at := int64(slot) * SlotBytes
	return [2]int64{at, deviceBytes - EndBytes + at}
}
