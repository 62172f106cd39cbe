package segment

import (
	"time"

	"github.com/minio/crc64nvme"

	"ashlar"
	"ashlar/segment/format"
)

// sliceBytes is how much of a long batch is laid out before the device gets it.
const sliceBytes = 256 * ashlar.KiB

// layOut finds how long the flight's batch becomes and gets it a buffer of that
// length.
func (w *writer) layOut(f *flight, start int64) int {
	l := w.log
	bytes := int64(format.BatchBytes)
	for _, r := range f.batch {
		bytes += r.bytes
	}
	total := int(w.pos - start + format.AlignUp(bytes, int64(l.block)))
	f.buf = w.reuse.buffer(total)
	f.bytes = f.buf.bytes[:total]
	return total
}

// encode fills the flight's buffer, the segment header in front of the first
// batch, and gives every record its place and number. What is laid out is summed
// while it is in the cache, and of a long batch written slice by slice.
func (w *writer) encode(f *flight, start int64) {
	l := w.log
	buf := f.bytes
	head := w.pos - start // 0, or the two header blocks
	if head > 0 {
		w.encodeHeader(buf[:head])
	}
	bytes := int64(format.BatchBytes)
	for _, r := range f.batch {
		bytes += r.bytes
	}
	b := format.Batch{
		Generation: w.life.Generation, Salt: w.life.Salt, Records: uint32(len(f.batch)), Number: w.batches,
		Offset: uint32(w.pos), Bytes: uint32(bytes),
	}
	b.Encode(buf[head:], l.opt.Disk)
	out := progress{w: w, f: f}
	at := head + format.BatchBytes
	for _, r := range f.batch {
		w.encodeRecord(r, buf[at:at+r.bytes], uint32(start+at), func(n int) { out.upTo(int(at) + n) })
		at += r.bytes
	}
	clear(buf[at:])
	out.upTo(len(buf))
}

// progress follows the laying out of a flight.
type progress struct {
	w      *writer
	f      *flight
	summed int
}

// upTo notes that the first n bytes are laid out.
func (p *progress) upTo(n int) {
	p.w.sum = crc64nvme.Update(p.w.sum, p.f.bytes[p.summed:n])
	p.summed = n
	if p.f.start != nil && p.w.mayBegin() {
		p.f.begin(n)
	}
}

func (w *writer) encodeHeader(p []byte) {
	l := w.log
	clear(p)
	h := format.Header{
		Life: w.life, BlockBytes: uint32(l.block), Segment: uint32(w.open), State: format.Open,
		SegmentBytes: uint64(l.segBytes), Created: uint64(l.opt.hooks.now().UnixNano()),
	}
	h.Encode(p)
	h.Encode(p[l.block:])
}

func (w *writer) encodeRecord(r *request, p []byte, offset uint32, done func(n int)) {
	l := w.log
	h := format.Record{
		Generation: w.life.Generation, Salt: w.life.Salt, Offset: offset,
		Type: r.typ(), Piece: r.key.Piece, Stripe: r.key.Stripe,
	}
	var data []byte
	if r.rec != nil {
		data = r.rec.Data
		h.DataBytes, h.Code, h.Group = uint32(len(data)), r.rec.Code, r.rec.Group
		h.StripeBytes, h.Owner, h.Written = r.rec.StripeBytes, r.rec.Owner, unixNano(r.rec.Written)
	} else {
		h.Written = l.opt.hooks.now().UnixNano()
	}
	if r.from != nil {
		h.Sequence = r.from.Sequence
	} else {
		h.Sequence = l.sequence.Add(1)
	}
	if r.from != nil && r.from.Type == format.Tombstone {
		h.Type, h.Written = format.Tombstone, r.from.Written
	}
	h.Encode(p, l.opt.Disk)
	coded, seed := p[h.HeadBytes():], format.Cells(w.life, h.Stripe, h.Piece, h.Sequence, offset)
	for at := 0; at < len(data); at += hotBytes {
		cell := uint32(at / format.CellBytes)
		seed.EncodeData(cell, coded[int64(cell)*codedCell:], data[at:min(at+hotBytes, len(data))])
		if at+hotBytes < len(data) {
			done(h.HeadBytes() + int(format.CodedBytes(uint32(at+hotBytes))))
		}
	}
	clear(coded[format.CodedBytes(h.DataBytes):])
	r.at = row{format.EntryOf(&h), uint32(w.open), w.life.Generation}
	r.state.Store(reqCopied)
	w.entries = append(w.entries, r.at.Entry)
	if w.low == 0 || h.Sequence < w.low {
		w.low = h.Sequence
	}
	if s := &l.table[w.open]; h.Sequence > s.top.Load() {
		s.top.Store(h.Sequence)
	}
}

// hotBytes of data are copied, and summed twice, before the next.
const hotBytes = 2 * format.CellBytes

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
