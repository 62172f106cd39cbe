package segment

import (
	"context"
	"fmt"
	"slices"

	"ashlar"
	"ashlar/segment/format"
)

// Report is what Verify found in one segment.
type Report struct {
	// Sealed is false for a segment that is still open, of which the records that
	// are stored now were checked, and for one that holds none.
	Sealed bool
	// Records and Bytes were read and match their checksums.
	Records int
	Bytes   int64
	// Bad lists the stored pieces that do not: reading them is Corrupt. They
	// should be appended again from their stripe.
	Bad []Key
	// SumMatches says whether the checksum of the whole segment matches; if not
	// and nothing is bad, the damage lies in dead records or padding. An open
	// segment has none.
	SumMatches bool
}

// Verify reads segment number i, from 0 to Usage().SegmentsTotal-1, and checks
// every record in it. Kinds: Invalid (no such segment), Unavailable.
func (l *Log) Verify(ctx context.Context, i int) (Report, error) {
	return l.VerifyPaced(ctx, i, func(int) {})
}

// VerifyPaced is Verify for those who must not take the device from others: it
// calls pace before each device read of the segment with the number of bytes,
// about one window at a time. Each byte is read twice, for the records and for
// the sum. A segment that compaction wants to free meanwhile is left, with an
// empty report.
func (l *Log) VerifyPaced(ctx context.Context, i int, pace func(bytes int)) (Report, error) {
	if i < 0 || i >= len(l.table) {
		return Report{}, l.fail("verify", fmt.Sprintf("seg=%d", i), ashlar.Invalid, nil)
	}
	s := &l.table[i]
	s.pins.Add(1)
	defer s.pins.Add(-1)
	rep := Report{Sealed: s.is(segSealed)}
	if !rep.Sealed && !s.is(segOpen) {
		return Report{}, nil
	}
	entries, err := l.listed(ctx, i, rep.Sealed)
	if err != nil {
		return rep, l.fail("verify", fmt.Sprintf("seg=%d", i), ashlar.Unavailable, err)
	}
	life := l.life(i)
	w := l.window(ctx, i)
	read := w.read
	w.read = func(p []byte, off int64) error {
		pace(len(p))
		return read(p, off)
	}
	for _, e := range entries {
		if !s.is(segSealed) && !s.is(segOpen) {
			return Report{}, nil
		}
		if c, ok := recordAt(w, int64(e.Offset), life); ok && !c.bad && c.entry == e {
			rep.Records++
			rep.Bytes += e.TotalBytes()
			continue
		}
		if ctx.Err() != nil {
			return rep, l.fail("verify", fmt.Sprintf("seg=%d", i), ashlar.Unavailable, context.Cause(ctx))
		}
		x := row{e, uint32(i), life.Generation}
		if cur, err := l.lookup("verify", x.key()); err == nil && e.Type == format.Piece && cur.same(&x) {
			rep.Bad = append(rep.Bad, x.key())
		}
	}
	if !rep.Sealed {
		return rep, nil
	}
	if t, err := l.trailer(ctx, i); err == nil && t.Life == life && s.is(segSealed) {
		sum, err := segmentSum(w, int64(t.End))
		rep.SumMatches = err == nil && sum == t.SegmentSum
	}
	return rep, nil
}

// listed is the records that a segment should hold: those of its footer or, if
// it is open or its footer damaged, those that the index knows of. A scan would
// pass over the records whose headers are damaged as well.
func (l *Log) listed(ctx context.Context, i int, sealed bool) ([]format.Entry, error) {
	life := l.life(i)
	if sealed {
		if t, err := l.trailer(ctx, i); err == nil && t.Life == life {
			if entries, err := l.footer(ctx, i, &t); err == nil {
				return entries, nil
			}
		}
	}
	l.use.RLock()
	defer l.use.RUnlock()
	if l.closed {
		return nil, errClosed
	}
	var list []format.Entry
	err := l.index.rows(func(r *row, _ bool) (bool, error) {
		if r.segment == uint32(i) && r.generation == life.Generation {
			list = append(list, r.Entry)
		}
		return true, ctx.Err()
	})
	slices.SortFunc(list, func(a, b format.Entry) int { return int(a.Offset) - int(b.Offset) })
	return list, err
}
