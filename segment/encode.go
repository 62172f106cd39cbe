package segment

import (
	"time"

	"ashlar"
	"ashlar/segment/format"
)

// encode lays the batch out in the writer's buffer, the segment header in
// front of the first one, and gives every record its place and number.
func (w *writer) encode(batch []*request, start int64) []byte {
	l := w.log
	bytes := int64(format.BatchBytes)
	for _, r := range batch {
		bytes += r.bytes
	}
	head := w.pos - start // 0, or the two header blocks
	total := head + format.AlignUp(bytes, int64(l.block))
	if int64(len(w.buf)) < total {
		w.buf = aligned(int(max(total, int64(min(l.opt.BatchBytes, ashlar.MiB)))), l.block)
	}
	buf := w.buf[:total]
	if head > 0 {
		w.encodeHeader(buf[:head])
	}
	b := format.Batch{
		Generation: w.life.Generation, Salt: w.life.Salt, Records: uint32(len(batch)), Number: w.batches,
		Offset: uint32(w.pos), Bytes: uint32(bytes),
	}
	b.Encode(buf[head:], l.opt.Disk)
	at := head + format.BatchBytes
	for _, r := range batch {
		w.encodeRecord(r, buf[at:at+r.bytes], uint32(start+at))
		at += r.bytes
	}
	clear(buf[at:])
	if len(w.buf) > 2*l.opt.BatchBytes {
		w.buf = nil // one very long record is no reason to keep it
	}
	return buf
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

func (w *writer) encodeRecord(r *request, p []byte, offset uint32) {
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
	coded := p[h.HeadBytes():]
	format.Cells(w.life, h.Stripe, h.Piece, h.Sequence, offset).EncodeData(coded, data)
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

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
