package label

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"time"
	"unicode/utf8"

	"ashlar"
)

const (
	// Version is the format that this package writes.
	Version = 1
	// Bytes is the length of one copy.
	Bytes = 4096
	// Copies is the number of copies on a disk.
	Copies = 4
	// AreaBytes is the length of the space at each end of a device that the
	// label keeps for itself.
	AreaBytes = ashlar.MiB
	// TextBytesMax bounds the name, the cluster's name and the serial.
	TextBytesMax = 64
)

const (
	magic        = "ASHLARdk"
	flagRotating = 1 << 0
	// A change of the block size or of the segment size beyond these is damage.
	blockBytesMin   = 4096
	blockBytesMax   = 64 * ashlar.KiB
	segmentBytesMin = ashlar.MiB
	segmentBytesMax = 16 * ashlar.GiB
)

// Field offsets of version 1; the meanings are in the package comment.
const (
	atVersion      = 8
	atLength       = 12
	atChecksum     = 16
	atCopy         = 20
	atSequence     = 24
	atCluster      = 32
	atDisk         = 48
	atHost         = 64
	atFlags        = 68
	atOwnerEpoch   = 72
	atOwner        = 80
	atDeviceBytes  = 96
	atDataOffset   = 104
	atDataBytes    = 112
	atSegmentBytes = 120
	atBlockBytes   = 128
	atClaimed      = 136
	atWritten      = 144
	atName         = 152
	atClusterName  = 216
	atSerial       = 280
	atBaseline     = 344
	atEnd          = 400
)

// Label is what is known of a disk by the disk itself.
type Label struct {
	// Sequence is the number of this state of the label. Write sets it.
	Sequence uint64
	Cluster  ashlar.ClusterID
	Disk     ashlar.DiskID
	// Host is the host that last owned the disk, or 0 if it had no id yet.
	Host ashlar.HostID
	// OwnerEpoch and Owner name the opening that owns the disk.
	OwnerEpoch uint64
	Owner      ashlar.BootID
	Rotating   bool
	Geometry   Geometry
	// Claimed and Written are when the disk was claimed and when this state was
	// written, to the nanosecond, in UTC.
	Claimed, Written time.Time
	// Name, ClusterName and Serial are for people: at most TextBytesMax bytes of
	// UTF-8 without zero bytes. Nothing is found by them.
	Name, ClusterName, Serial string
	Baseline                  Baseline
}

// Geometry says where the data lies; it never changes after the claim. All
// numbers are bytes.
type Geometry struct {
	Device       int64 // size at claim, rounded down to whole MiB
	DataOffset   int64
	Data         int64 // whole segments
	SegmentBytes int64
	BlockBytes   int
}

// Segments is the number of segments in the data area.
func (g Geometry) Segments() int64 { return g.Data / g.SegmentBytes }

// Baseline is what the disk could do when it was claimed. The zero value means
// that it was never measured.
type Baseline struct {
	Measured time.Time
	// WriteRate and ReadRate are sequential, in bytes per second.
	WriteRate, ReadRate int64
	// ReadMedian and ReadP99 are of random 4 KiB reads, FlushMedian and FlushP99
	// of a 4 KiB write with its flush.
	ReadMedian, ReadP99, FlushMedian, FlushP99 time.Duration
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errNoLabel says that the magic is absent: the bytes are not a label at all.
var errNoLabel = errors.New("no label")

// Encode returns the bytes of one copy. Kind Invalid if the label breaks a rule
// that Decode checks.
func (l *Label) Encode(copyNumber int) ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, ashlar.E("label: encode", "", ashlar.Invalid, err)
	}
	b := make([]byte, Bytes)
	le := binary.LittleEndian
	copy(b, magic)
	le.PutUint32(b[atVersion:], Version)
	le.PutUint32(b[atLength:], Bytes)
	b[atCopy] = byte(copyNumber)
	le.PutUint64(b[atSequence:], l.Sequence)
	copy(b[atCluster:], l.Cluster[:])
	copy(b[atDisk:], l.Disk[:])
	le.PutUint32(b[atHost:], uint32(l.Host))
	if l.Rotating {
		le.PutUint32(b[atFlags:], flagRotating)
	}
	le.PutUint64(b[atOwnerEpoch:], l.OwnerEpoch)
	copy(b[atOwner:], l.Owner[:])
	le.PutUint64(b[atDeviceBytes:], uint64(l.Geometry.Device))
	le.PutUint64(b[atDataOffset:], uint64(l.Geometry.DataOffset))
	le.PutUint64(b[atDataBytes:], uint64(l.Geometry.Data))
	le.PutUint64(b[atSegmentBytes:], uint64(l.Geometry.SegmentBytes))
	le.PutUint32(b[atBlockBytes:], uint32(l.Geometry.BlockBytes))
	le.PutUint64(b[atClaimed:], nanos(l.Claimed))
	le.PutUint64(b[atWritten:], nanos(l.Written))
	copy(b[atName:], l.Name)
	copy(b[atClusterName:], l.ClusterName)
	copy(b[atSerial:], l.Serial)
	for i, v := range l.Baseline.numbers() {
		le.PutUint64(b[atBaseline+8*i:], v)
	}
	le.PutUint32(b[atChecksum:], checksum(b))
	return b, nil
}

func (b *Baseline) numbers() [7]uint64 {
	return [7]uint64{nanos(b.Measured), uint64(b.WriteRate), uint64(b.ReadRate),
		uint64(b.ReadMedian), uint64(b.ReadP99), uint64(b.FlushMedian), uint64(b.FlushP99)}
}

func nanos(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

func timeOf(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n)).UTC()
}

// checksum is over the prologue and everything after the copy number.
func checksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:atChecksum], castagnoli), castagnoli, b[atSequence:])
}

// Decode reads one copy. copyNumber is the place that the bytes were read from.
// Kinds: NotFound (no magic: these bytes are no label), Corrupt (a damaged
// label), Invalid (a sound label of a version that this program does not know).
func Decode(b []byte, copyNumber int) (Label, error) {
	const op = "label: decode"
	subject := fmt.Sprintf("copy=%d", copyNumber)
	version, err := prologue(b)
	switch {
	case errors.Is(err, errNoLabel):
		return Label{}, ashlar.E(op, subject, ashlar.NotFound, err)
	case err != nil:
		return Label{}, ashlar.E(op, subject, ashlar.Corrupt, err)
	case version != Version:
		return Label{}, ashlar.E(op, subject, ashlar.Invalid,
			fmt.Errorf("label version %d; this program knows version %d: use a newer ashlar", version, Version))
	}
	if int(b[atCopy]) != copyNumber {
		return Label{}, ashlar.E(op, subject, ashlar.Corrupt, fmt.Errorf("holds copy %d: a misdirected write or read", b[atCopy]))
	}
	l := fields(b)
	if err := l.check(); err != nil {
		return Label{}, ashlar.E(op, subject, ashlar.Corrupt, err)
	}
	// The encoding is canonical: whatever is not a field must be zero.
	if again, err := l.Encode(copyNumber); err != nil || !bytes.Equal(again, b[:Bytes]) {
		return Label{}, ashlar.E(op, subject, ashlar.Corrupt, errors.New("a reserved byte is not zero"))
	}
	return l, nil
}

// prologue checks what is the same in every version.
func prologue(b []byte) (version uint32, err error) {
	if len(b) < Bytes || string(b[:len(magic)]) != magic {
		return 0, errNoLabel
	}
	le := binary.LittleEndian
	version = le.Uint32(b[atVersion:])
	length := le.Uint32(b[atLength:])
	if length != Bytes {
		return 0, fmt.Errorf("length %d, want %d", length, Bytes)
	}
	if want, got := le.Uint32(b[atChecksum:]), checksum(b[:Bytes]); want != got {
		return 0, fmt.Errorf("crc32c %#08x, want %#08x", got, want)
	}
	return version, nil
}

func fields(b []byte) Label {
	le := binary.LittleEndian
	number := func(at int) int64 { return int64(le.Uint64(b[at:])) }
	var l Label
	l.Sequence = le.Uint64(b[atSequence:])
	copy(l.Cluster[:], b[atCluster:])
	copy(l.Disk[:], b[atDisk:])
	l.Host = ashlar.HostID(le.Uint32(b[atHost:]))
	l.Rotating = le.Uint32(b[atFlags:])&flagRotating != 0
	l.OwnerEpoch = le.Uint64(b[atOwnerEpoch:])
	copy(l.Owner[:], b[atOwner:])
	l.Geometry = Geometry{
		Device: number(atDeviceBytes), DataOffset: number(atDataOffset), Data: number(atDataBytes),
		SegmentBytes: number(atSegmentBytes), BlockBytes: int(le.Uint32(b[atBlockBytes:])),
	}
	l.Claimed = timeOf(le.Uint64(b[atClaimed:]))
	l.Written = timeOf(le.Uint64(b[atWritten:]))
	l.Name, l.ClusterName, l.Serial = text(b[atName:]), text(b[atClusterName:]), text(b[atSerial:])
	l.Baseline = Baseline{
		Measured:  timeOf(le.Uint64(b[atBaseline:])),
		WriteRate: number(atBaseline + 8), ReadRate: number(atBaseline + 16),
		ReadMedian: time.Duration(number(atBaseline + 24)), ReadP99: time.Duration(number(atBaseline + 32)),
		FlushMedian: time.Duration(number(atBaseline + 40)), FlushP99: time.Duration(number(atBaseline + 48)),
	}
	return l
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b[:TextBytesMax], []byte{0})
	return string(s)
}

// check holds for every label that is written and for every one that is read.
func (l *Label) check() error {
	switch {
	case l.Sequence == 0:
		return errors.New("sequence 0")
	case ashlar.ID(l.Cluster).IsZero():
		return errors.New("no cluster id")
	case ashlar.ID(l.Disk).IsZero():
		return errors.New("no disk id")
	}
	for _, s := range []string{l.Name, l.ClusterName, l.Serial} {
		if len(s) > TextBytesMax || !utf8.ValidString(s) || bytes.IndexByte([]byte(s), 0) >= 0 {
			return fmt.Errorf("text %q: want at most %d bytes of UTF-8 without zero bytes", s, TextBytesMax)
		}
	}
	if int64(nanos(l.Claimed)) < 0 || int64(nanos(l.Written)) < 0 {
		return errors.New("a time before 1970 or after 2262")
	}
	for _, v := range l.Baseline.numbers() {
		if int64(v) < 0 || (v != 0 && l.Baseline.Measured.IsZero()) {
			return errors.New("the baseline has a number below zero or no time of measurement")
		}
	}
	return l.Geometry.check()
}

func (g Geometry) check() error {
	switch {
	case g.BlockBytes < blockBytesMin || g.BlockBytes > blockBytesMax || bits.OnesCount(uint(g.BlockBytes)) != 1:
		return fmt.Errorf("block size %d", g.BlockBytes)
	case g.SegmentBytes < segmentBytesMin || g.SegmentBytes > segmentBytesMax || bits.OnesCount64(uint64(g.SegmentBytes)) != 1:
		return fmt.Errorf("segment size %d", g.SegmentBytes)
	case g.Device <= 0 || g.Device%AreaBytes != 0:
		return fmt.Errorf("device size %d", g.Device)
	case g.DataOffset != AreaBytes:
		return fmt.Errorf("data offset %d", g.DataOffset)
	case g.Data <= 0 || g.Data%g.SegmentBytes != 0 || g.Data > g.Device-2*AreaBytes:
		return fmt.Errorf("data length %d on a device of %d", g.Data, g.Device)
	}
	return nil
}
