package ec

import (
	"iter"

	"ashlar"
)

// Layout says where the user bytes of one stripe lie in its pieces. It is a
// small value; make it wherever it is needed.
type Layout struct {
	k     int
	bytes int
	rows  int // rows of full cells
	last  int // height of the last, shortened row; 0 if there is none
}

// Span is a run of user bytes that lie together in one data piece.
type Span struct {
	Piece int
	// Off is where the run starts in the piece, At where it starts in the stripe.
	Off, At int
	Bytes   int
}

// Range is the half-open column range [Lo, Hi) of a piece; Hi = 0 is no range.
type Range struct{ Lo, Hi int }

// Len returns the number of columns.
func (r Range) Len() int { return r.Hi - r.Lo }

// NewLayout returns the layout of a stripe of that many user bytes.
func NewLayout(code ashlar.Code, stripeBytes int) Layout {
	k := max(1, int(code.K))
	l := Layout{k: k, bytes: stripeBytes, rows: stripeBytes / (k * Cell)}
	rest := stripeBytes - l.rows*k*Cell
	l.last = (rest + k - 1) / k
	if k > 1 {
		l.last = (l.last + align - 1) / align * align
	}
	return l
}

// PieceBytes is the length of every piece of the stripe.
func (l Layout) PieceBytes() int { return l.rows*Cell + l.last }

// Bytes is the length of the stripe's user data; Capacity adds the padding.
func (l Layout) Bytes() int { return l.bytes }

// Capacity is what the data pieces hold together: user bytes and padding.
func (l Layout) Capacity() int { return l.k * l.PieceBytes() }

// RowBytes is the number of user bytes in a full row.
func (l Layout) RowBytes() int { return l.k * Cell }

// Spans yields the runs that hold stripe bytes [off, off+n) in user order. The
// range may reach into the padding, up to Capacity.
func (l Layout) Spans(off, n int) iter.Seq[Span] {
	return func(yield func(Span) bool) {
		for end := min(off+n, l.Capacity()); off < end; {
			s := l.at(off)
			s.Bytes = min(s.Bytes, end-off)
			if !yield(s) {
				return
			}
			off += s.Bytes
		}
	}
}

// at returns the span from stripe byte off to the end of its cell.
func (l Layout) at(off int) Span {
	row, height := off/l.RowBytes(), Cell
	if row >= l.rows {
		row, height = l.rows, l.last
	}
	in := off - row*l.RowBytes()
	return Span{
		Piece: in / height,
		Off:   row*Cell + in%height,
		At:    off,
		Bytes: height - in%height,
	}
}

// Ranges returns for each data piece the one column range that holds all its
// bytes of stripe bytes [off, off+n), in dst if it has room for k entries: a
// piece's cells in neighbouring rows are neighbours in the piece.
func (l Layout) Ranges(dst []Range, off, n int) []Range {
	dst = append(dst[:0], make([]Range, l.k)...)
	for s := range l.Spans(off, n) {
		r := &dst[s.Piece]
		if r.Hi == 0 {
			r.Lo = s.Off
		}
		r.Hi = s.Off + s.Bytes
	}
	return dst
}

// Columns returns the smallest column range that covers stripe bytes
// [off, off+n) on every piece that they touch.
func (l Layout) Columns(off, n int) Range {
	var all Range
	for s := range l.Spans(off, n) {
		if all.Hi == 0 {
			all.Lo = s.Off
		}
		all.Lo = min(all.Lo, s.Off)
		all.Hi = max(all.Hi, s.Off+s.Bytes)
	}
	return all
}
