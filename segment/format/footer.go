package format

import (
	"hash/crc32"

	"ashlar"
)

// Entry is a record as the footer lists it.
type Entry struct {
	Stripe      ashlar.StripeID
	Piece       uint8
	Type        Type
	Code        ashlar.Code
	HeadBytes   uint16
	Offset      uint32
	DataBytes   uint32
	Sequence    uint64
	Group       ashlar.GroupID
	StripeBytes uint32
	Written     int64
}

// EntryOf lists the record.
func EntryOf(r *Record) Entry {
	return Entry{
		Stripe: r.Stripe, Piece: r.Piece, Type: r.Type, Code: r.Code, HeadBytes: uint16(r.HeadBytes()),
		Offset: r.Offset, DataBytes: r.DataBytes, Sequence: r.Sequence, Group: r.Group,
		StripeBytes: r.StripeBytes, Written: r.Written,
	}
}

// TotalBytes is what the record occupies on the device.
func (e *Entry) TotalBytes() int64 { return TotalBytes(int(e.HeadBytes), e.DataBytes) }

func (e *Entry) encode(p []byte) {
	p = p[:EntryBytes]
	clear(p)
	copy(p, e.Stripe[:])
	le.PutUint64(p[16:], e.Sequence)
	le.PutUint64(p[24:], uint64(e.Written))
	le.PutUint32(p[32:], e.Offset)
	le.PutUint32(p[36:], e.DataBytes)
	le.PutUint32(p[40:], uint32(e.Group))
	le.PutUint32(p[44:], e.StripeBytes)
	le.PutUint16(p[48:], e.HeadBytes)
	p[50], p[51], p[52], p[53] = e.Piece, byte(e.Type), e.Code.K, e.Code.M
}

func decodeEntry(p []byte) Entry {
	return Entry{
		Stripe: ashlar.StripeID(p[:16]), Sequence: le.Uint64(p[16:]), Written: int64(le.Uint64(p[24:])),
		Offset: le.Uint32(p[32:]), DataBytes: le.Uint32(p[36:]), Group: ashlar.GroupID(le.Uint32(p[40:])),
		StripeBytes: le.Uint32(p[44:]), HeadBytes: le.Uint16(p[48:]), Piece: p[50], Type: Type(p[51]),
		Code: ashlar.Code{K: p[52], M: p[53]},
	}
}

// Trailer ends a sealed segment.
type Trailer struct {
	Life
	Segment                  uint32
	Entries                  uint32
	EntriesSum               uint32
	EntriesOffset            uint32 // in the segment
	End                      uint32 // of the last batch
	SequenceLow, SequenceTop uint64
	SegmentSum               uint64
	Sealed                   uint64
}

// FooterBytes is what a footer with n entries occupies.
func FooterBytes(n, blockBytes int) int64 {
	return AlignUp(int64(n)*EntryBytes, int64(blockBytes)) + int64(blockBytes)
}

// EncodeFooter writes entries and trailer to p, whose length is FooterBytes
// and which ends where the segment ends. It sets the trailer's fields that
// follow from the entries.
func EncodeFooter(p []byte, t *Trailer, entries []Entry, segmentBytes int64, blockBytes int) {
	clear(p)
	listEnd := len(p) - blockBytes
	list := p[listEnd-len(entries)*EntryBytes : listEnd]
	for i := range entries {
		entries[i].encode(list[i*EntryBytes:])
	}
	t.Entries = uint32(len(entries))
	t.EntriesOffset = uint32(segmentBytes - int64(blockBytes) - int64(len(list)))
	t.EntriesSum = t.listSum(list)
	t.encode(p[listEnd:])
}

func (t *Trailer) encode(p []byte) {
	p = p[:TrailerBytes]
	clear(p)
	le.PutUint32(p[12:], t.Entries)
	putLife(p[16:], t.Life)
	le.PutUint32(p[48:], t.Segment)
	le.PutUint32(p[52:], t.EntriesSum)
	le.PutUint32(p[56:], t.EntriesOffset)
	le.PutUint32(p[60:], t.End)
	le.PutUint64(p[64:], t.SequenceLow)
	le.PutUint64(p[72:], t.SequenceTop)
	le.PutUint64(p[80:], t.SegmentSum)
	le.PutUint64(p[88:], t.Sealed)
	seal(p, trailerMagic, 0)
}

// DecodeTrailer reads the trailer at the start of p, the segment's last block.
func DecodeTrailer(p []byte) (Trailer, error) {
	p, err := open(p, trailerMagic, TrailerBytes, TrailerBytes, 0)
	if err != nil {
		return Trailer{}, err
	}
	t := Trailer{
		Life: life(p[16:]), Segment: le.Uint32(p[48:]), Entries: le.Uint32(p[12:]),
		EntriesSum: le.Uint32(p[52:]), EntriesOffset: le.Uint32(p[56:]), End: le.Uint32(p[60:]),
		SequenceLow: le.Uint64(p[64:]), SequenceTop: le.Uint64(p[72:]),
		SegmentSum: le.Uint64(p[80:]), Sealed: le.Uint64(p[88:]),
	}
	return t, fields(trailerMagic,
		t.Generation > 0, t.End <= t.EntriesOffset, t.SequenceLow <= t.SequenceTop,
		uint64(t.Entries)*EntryBytes <= SegmentBytesMax, zero(p[96:]))
}

// ListBytes is the length of the entries.
func (t *Trailer) ListBytes() int64 { return int64(t.Entries) * EntryBytes }

func (t *Trailer) listSum(list []byte) uint32 {
	var b [36]byte
	putLife(b[:], t.Life)
	le.PutUint32(b[32:], t.Segment)
	return crc32.Update(crc32.Checksum(b[:], castagnoli), castagnoli, list)
}

// DecodeEntries reads the entries from list, whose length is ListBytes.
func (t *Trailer) DecodeEntries(list []byte) ([]Entry, error) {
	if int64(len(list)) != t.ListBytes() || t.listSum(list) != t.EntriesSum {
		return nil, ErrSum
	}
	entries := make([]Entry, t.Entries)
	for i := range entries {
		p := list[i*EntryBytes : (i+1)*EntryBytes]
		e := decodeEntry(p)
		ok := (e.Type == Piece || e.Type == Tombstone) && e.HeadBytes >= RecordBytes && zero(p[54:]) &&
			int64(e.Offset)+e.TotalBytes() <= int64(t.End)
		if !ok {
			return nil, fields(trailerMagic, false)
		}
		entries[i] = e
	}
	return entries, nil
}
