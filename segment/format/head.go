package format

import "ashlar"

const (
	anchorMagic  = "ASHA"
	headerMagic  = "ASHS"
	batchMagic   = "ASHB"
	recordMagic  = "ASHR"
	trailerMagic = "ASHF"
)

// Anchor says what the device is to a log.
type Anchor struct {
	BlockBytes   uint32
	Disk         ashlar.DiskID
	Count, Run   uint64
	SegmentBytes uint64
	Segments     uint32
	SequenceMin  uint64 // earlier runs used smaller ones only
	GenerationMin,
	Opened uint64
}

// Encode writes the anchor to p[:AnchorBytes].
func (a *Anchor) Encode(p []byte) {
	p = p[:AnchorBytes]
	clear(p)
	le.PutUint32(p[12:], a.BlockBytes)
	copy(p[16:], a.Disk[:])
	le.PutUint64(p[32:], a.Count)
	le.PutUint64(p[40:], a.Run)
	le.PutUint64(p[48:], a.SegmentBytes)
	le.PutUint32(p[56:], a.Segments)
	le.PutUint64(p[64:], a.SequenceMin)
	le.PutUint64(p[72:], a.GenerationMin)
	le.PutUint64(p[80:], a.Opened)
	seal(p, anchorMagic, 0)
}

// DecodeAnchor reads the anchor at the start of p.
func DecodeAnchor(p []byte) (Anchor, error) {
	p, err := open(p, anchorMagic, AnchorBytes, AnchorBytes, 0)
	if err != nil {
		return Anchor{}, err
	}
	a := Anchor{
		BlockBytes: le.Uint32(p[12:]), Disk: ashlar.DiskID(p[16:32]),
		Count: le.Uint64(p[32:]), Run: le.Uint64(p[40:]),
		SegmentBytes: le.Uint64(p[48:]), Segments: le.Uint32(p[56:]),
		SequenceMin: le.Uint64(p[64:]), GenerationMin: le.Uint64(p[72:]), Opened: le.Uint64(p[80:]),
	}
	return a, fields(anchorMagic,
		powerOfTwo(int64(a.BlockBytes), BlockBytesMin, BlockBytesMax),
		a.SegmentBytes <= SegmentBytesMax && powerOfTwo(int64(a.SegmentBytes), SegmentBytesMin, SegmentBytesMax),
		a.Count > 0, a.Run != 0, a.Segments > 0 && a.Segments < 1<<31,
		zero(p[60:64]), zero(p[88:]))
}

// State of a segment according to its header.
type State uint8

// The states. They are part of the format.
const (
	Open State = 1 // being written, or sealed if a trailer of the same life is there
	Free State = 2
)

// Header starts a segment.
type Header struct {
	Life
	BlockBytes   uint32
	Segment      uint32
	State        State
	SegmentBytes uint64
	Created      uint64
}

// Encode writes one copy of the header to p[:HeaderBytes].
func (h *Header) Encode(p []byte) {
	p = p[:HeaderBytes]
	clear(p)
	le.PutUint32(p[12:], h.BlockBytes)
	putLife(p[16:], h.Life)
	le.PutUint32(p[48:], h.Segment)
	p[52] = byte(h.State)
	le.PutUint64(p[56:], h.SegmentBytes)
	le.PutUint64(p[64:], h.Created)
	le.PutUint32(p[72:], CellBytes)
	seal(p, headerMagic, 0)
}

// DecodeHeader reads the segment header at the start of p.
func DecodeHeader(p []byte) (Header, error) {
	p, err := open(p, headerMagic, HeaderBytes, HeaderBytes, 0)
	if err != nil {
		return Header{}, err
	}
	h := Header{
		Life: life(p[16:]), BlockBytes: le.Uint32(p[12:]), Segment: le.Uint32(p[48:]),
		State: State(p[52]), SegmentBytes: le.Uint64(p[56:]), Created: le.Uint64(p[64:]),
	}
	return h, fields(headerMagic,
		powerOfTwo(int64(h.BlockBytes), BlockBytesMin, BlockBytesMax),
		h.SegmentBytes <= SegmentBytesMax && powerOfTwo(int64(h.SegmentBytes), SegmentBytesMin, SegmentBytesMax),
		h.State == Open || h.State == Free, h.Generation > 0,
		le.Uint32(p[72:]) == CellBytes, zero(p[53:56]), zero(p[76:]))
}

func putLife(p []byte, l Life) {
	copy(p, l.Disk[:])
	le.PutUint64(p[16:], l.Generation)
	le.PutUint64(p[24:], l.Salt)
}

func life(p []byte) Life {
	return Life{Disk: ashlar.DiskID(p[:16]), Generation: le.Uint64(p[16:]), Salt: le.Uint64(p[24:])}
}

// Batch starts what one flush made durable.
type Batch struct {
	Generation, Salt uint64
	Records          uint32
	Number           uint64
	Offset           uint32 // of the batch header in the segment
	Bytes            uint32 // from there to the end of the last record
}

// Encode writes the header to p[:BatchBytes].
func (b *Batch) Encode(p []byte, disk ashlar.DiskID) {
	p = p[:BatchBytes]
	clear(p)
	le.PutUint32(p[12:], b.Records)
	le.PutUint64(p[16:], b.Generation)
	le.PutUint64(p[24:], b.Salt)
	le.PutUint64(p[32:], b.Number)
	le.PutUint32(p[40:], b.Offset)
	le.PutUint32(p[44:], b.Bytes)
	seal(p, batchMagic, diskSeed(disk))
}

// DecodeBatch reads the batch header at the start of p. The caller compares
// generation, salt and offset with where it found p.
func DecodeBatch(p []byte, disk ashlar.DiskID) (Batch, error) {
	p, err := open(p, batchMagic, BatchBytes, BatchBytes, diskSeed(disk))
	if err != nil {
		return Batch{}, err
	}
	b := Batch{
		Generation: le.Uint64(p[16:]), Salt: le.Uint64(p[24:]), Records: le.Uint32(p[12:]),
		Number: le.Uint64(p[32:]), Offset: le.Uint32(p[40:]), Bytes: le.Uint32(p[44:]),
	}
	return b, fields(batchMagic, b.Records > 0, b.Bytes > BatchBytes, zero(p[48:]))
}
