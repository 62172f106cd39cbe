package format

import (
	"hash/crc32"

	"ashlar"
)

// Type of a record.
type Type uint8

// The types. They are part of the format.
const (
	Piece     Type = 1
	Tombstone Type = 2
)

// Record is the header of a record.
type Record struct {
	Generation, Salt uint64
	Sequence         uint64
	Offset           uint32 // of the record in the segment
	DataBytes        uint32
	Type             Type
	Piece            uint8
	Code             ashlar.Code
	Stripe           ashlar.StripeID
	Group            ashlar.GroupID
	StripeBytes      uint32
	Owner            ashlar.Owner
	Written          int64
}

// HeadBytes is the length of the encoded header: fixed part, key and pad.
func (r *Record) HeadBytes() int { return RecordHeadBytes(len(r.Owner.Key)) }

// RecordHeadBytes is the length of a record header with a key of that length.
func RecordHeadBytes(keyBytes int) int {
	return int(AlignUp(int64(RecordBytes+keyBytes), RecordAlign))
}

// CodedBytes is what n bytes of data occupy with their sums, without the pad.
func CodedBytes(n uint32) int64 {
	cells := (int64(n) + CellBytes - 1) / CellBytes
	return int64(n) + cells*SumBytes
}

// TotalBytes is what a record occupies on the device.
func TotalBytes(headBytes int, dataBytes uint32) int64 {
	return AlignUp(int64(headBytes)+CodedBytes(dataBytes), RecordAlign)
}

// Encode writes the header to p[:HeadBytes()].
func (r *Record) Encode(p []byte, disk ashlar.DiskID) {
	p = p[:r.HeadBytes()]
	clear(p)
	le.PutUint32(p[12:], r.DataBytes)
	le.PutUint64(p[16:], r.Generation)
	le.PutUint64(p[24:], r.Salt)
	le.PutUint64(p[32:], r.Sequence)
	le.PutUint32(p[40:], r.Offset)
	p[44], p[45], p[46], p[47] = byte(r.Type), r.Piece, r.Code.K, r.Code.M
	copy(p[48:], r.Stripe[:])
	le.PutUint32(p[64:], uint32(r.Group))
	le.PutUint32(p[68:], r.StripeBytes)
	le.PutUint32(p[72:], r.Owner.Part)
	le.PutUint16(p[76:], uint16(len(r.Owner.Key)))
	le.PutUint64(p[80:], r.Owner.Offset)
	le.PutUint64(p[88:], uint64(r.Written))
	copy(p[96:], r.Owner.Bucket[:])
	copy(p[RecordBytes:], r.Owner.Key)
	seal(p, recordMagic, diskSeed(disk))
}

// DecodeRecord reads the record header at the start of p. The caller compares
// generation, salt and offset with where it found p.
func DecodeRecord(p []byte, disk ashlar.DiskID) (Record, error) {
	p, err := open(p, recordMagic, RecordBytes, RecordHeadBytes(KeyBytesMax), diskSeed(disk))
	if err != nil {
		return Record{}, err
	}
	keyBytes := int(le.Uint16(p[76:]))
	if keyBytes > KeyBytesMax || RecordHeadBytes(keyBytes) != len(p) {
		return Record{}, fields(recordMagic, false)
	}
	r := Record{
		DataBytes: le.Uint32(p[12:]), Generation: le.Uint64(p[16:]), Salt: le.Uint64(p[24:]),
		Sequence: le.Uint64(p[32:]), Offset: le.Uint32(p[40:]),
		Type: Type(p[44]), Piece: p[45], Code: ashlar.Code{K: p[46], M: p[47]},
		Stripe: ashlar.StripeID(p[48:64]), Group: ashlar.GroupID(le.Uint32(p[64:])),
		StripeBytes: le.Uint32(p[68:]), Written: int64(le.Uint64(p[88:])),
		Owner: ashlar.Owner{
			Bucket: ashlar.BucketID(p[96:112]), Key: string(p[RecordBytes : RecordBytes+keyBytes]),
			Part: le.Uint32(p[72:]), Offset: le.Uint64(p[80:]),
		},
	}
	return r, fields(recordMagic,
		r.Type == Piece || r.Type == Tombstone && r.DataBytes == 0 && keyBytes == 0,
		r.Sequence > 0, r.DataBytes <= SegmentBytesMax, r.Offset%RecordAlign == 0,
		zero(p[78:80]), zero(p[RecordBytes+keyBytes:]))
}

// CellSeed starts the checksums of the cells of one record.
type CellSeed struct{ seed uint32 }

// Cells returns the seed for the record at that place. It needs nothing but
// what an index keeps, so that a range is verified without the header.
func Cells(l Life, stripe ashlar.StripeID, piece uint8, sequence uint64, offset uint32) CellSeed {
	var b [61]byte
	putLife(b[:], l)
	copy(b[32:], stripe[:])
	le.PutUint64(b[48:], sequence)
	le.PutUint32(b[56:], offset)
	b[60] = piece
	return CellSeed{crc32.Checksum(b[:], castagnoli)}
}

// Sum is the checksum of cell number i.
func (s CellSeed) Sum(i uint32, cell []byte) uint32 {
	sum := ^s.seed
	for range 4 { // i, little-endian; crc32.Update would have its four bytes on the heap
		sum = castagnoli[byte(sum)^byte(i)] ^ sum>>8
		i >>= 8
	}
	return crc32.Update(^sum, castagnoli, cell)
}

// EncodeData writes data, which begins with cell number first, with its sums to
// p[:CodedBytes(len(data))], one pass over each cell while it is in the cache.
func (s CellSeed) EncodeData(first uint32, p, data []byte) {
	for i := first; len(data) > 0; i++ {
		n := copy(p, data[:min(CellBytes, len(data))])
		le.PutUint32(p[n:], s.Sum(i, p[:n]))
		p, data = p[n+SumBytes:], data[n:]
	}
}

// CheckCell verifies one cell with the sum behind it and returns its data.
func (s CellSeed) CheckCell(i uint32, coded []byte) (data []byte, want, got uint32) {
	n := len(coded) - SumBytes
	return coded[:n], le.Uint32(coded[n:]), s.Sum(i, coded[:n])
}
