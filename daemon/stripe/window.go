package stripe

import (
	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/ec"
)

// unit is a range of one stripe that is fetched at once.
type unit struct {
	stripe ashlar.Stripe
	owner  ashlar.Owner
	off, n int // in the stripe
}

// window is a fetched unit: verified bytes, in the buffers of the data pieces.
type window struct {
	layout ec.Layout
	off, n int
	parts  []part // by data piece
}

// part holds columns [lo, lo+len(buf.B)) of one data piece.
type part struct {
	buf *buffer.Buf
	lo  int
}

func (w *window) bytes(s ec.Span) []byte {
	p := w.parts[s.Piece]
	return p.buf.B[s.Off-p.lo : s.Off-p.lo+s.Bytes]
}

func (w *window) release() {
	for i := range w.parts {
		if w.parts[i].buf != nil {
			w.parts[i].buf.Release()
			w.parts[i].buf = nil
		}
	}
}

// weightOf is the memory that a unit's parts need.
func weightOf(u unit) int64 {
	layout, sum := ec.NewLayout(u.stripe.Code, int(u.stripe.Bytes)), int64(0)
	var space [ashlar.PiecesMax]ec.Range
	for _, r := range layout.Ranges(space[:0], u.off, u.n) {
		if r.Hi > 0 {
			sum += buffer.Size(r.Len())
		}
	}
	return sum
}
