package segment

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/minio/crc64nvme"

	"ashlar"
	"ashlar/segment/format"
)

// verdict is what the fixed places of a segment say about it.
type verdict struct {
	state   segState // segFree, segOpen, segSealed; segLost if they say nothing
	life    format.Life
	trailer format.Trailer // if sealed
	blank   bool           // all of them are zero
	// unreadable counts those that could not be read.
	unreadable int
}

// segmentReader reads one segment with a deadline on each read.
func (l *Log) segmentReader(ctx context.Context, i int) readSegment {
	return func(p []byte, off int64) error {
		var err error
		for range readTries {
			buf, q, e := l.fetch(ctx, l.offset(i)+off, int64(len(p)))
			if e == nil {
				copy(p, q)
				putBuffer(buf)
				return nil
			}
			if err = e; ctx.Err() != nil {
				break
			}
		}
		return err
	}
}

// window is a view of segment i.
func (l *Log) window(ctx context.Context, i int) *window {
	w := newWindow(l.segmentReader(ctx, i), l.block, l.segBytes)
	w.trust = l.opt.hooks.trust
	return w
}

// examine reads the two headers and the trailer: the greatest generation holds.
func (r *recovery) examine(ctx context.Context, i int) (verdict, error) {
	l := r.log
	read := l.segmentReader(ctx, i)
	v := verdict{state: segLost, blank: true}
	block := int64(l.block)
	p := aligned(l.block, l.block)
	for _, off := range []int64{0, block, l.segBytes - block} {
		if err := read(p, off); err != nil {
			if ctx.Err() != nil {
				return v, l.fail("open", fmt.Sprintf("seg=%d", i), ashlar.Unavailable, err)
			}
			v.unreadable++
			v.blank = false
			continue
		}
		var err error
		if off < 2*block {
			err = v.header(p, l, i)
		} else {
			err = v.footer(p, l, i)
		}
		if errors.Is(err, format.ErrVersion) || errors.Is(err, format.ErrField) {
			return v, l.fail("open", fmt.Sprintf("seg=%d off=%#x", i, off), ashlar.Invalid, err)
		}
		v.blank = v.blank && allZero(p)
	}
	return v, nil
}

func (v *verdict) header(p []byte, l *Log, i int) error {
	h, err := format.DecodeHeader(p)
	if err != nil || h.Disk != l.opt.Disk || int(h.Segment) != i || h.SegmentBytes != uint64(l.segBytes) {
		return err
	}
	if h.Generation >= v.life.Generation {
		v.life, v.state = h.Life, segOpen
		if h.State == format.Free {
			v.state = segFree
		}
	}
	return nil
}

// footer comes after the headers: a trailer of the same life means sealed.
func (v *verdict) footer(p []byte, l *Log, i int) error {
	t, err := format.DecodeTrailer(p)
	if err != nil || t.Disk != l.opt.Disk || int(t.Segment) != i {
		return err
	}
	if t.Generation > v.life.Generation || t.Life == v.life && v.state == segOpen {
		v.life, v.state, v.trailer = t.Life, segSealed, t
	}
	return nil
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// collectOpen brings a known index up to date: only segments that it has for
// open can hold what it does not know.
func (r *recovery) collectOpen() error {
	l := r.log
	var open []int
	known := map[int]segRow{}
	err := l.index.segments(func(i int, s segRow) {
		if i >= len(l.table) {
			return
		}
		t := &l.table[i]
		t.state.Store(uint32(s.state))
		t.generation.Store(s.generation)
		t.salt.Store(s.salt)
		t.end.Store(s.end)
		t.top.Store(s.top)
		r.noteLife(s.generation, s.top)
		if s.state == segOpen {
			open = append(open, i)
			known[i] = s
		}
	})
	if err != nil {
		return l.wrapIndex("open", "", err)
	}
	for _, i := range open {
		v, err := r.examine(r.ctx, i)
		if err != nil {
			return err
		}
		r.stats.unreadable += v.unreadable
		s := known[i]
		if v.life.Generation != s.generation || v.state == segLost || v.state == segFree {
			// The header was never written or is damaged: the index knows the life.
			v = verdict{state: segOpen, life: format.Life{Disk: l.opt.Disk, Generation: s.generation, Salt: s.salt}}
		}
		if err := r.replay(i, v); err != nil {
			return err
		}
	}
	return nil
}

func (r *recovery) noteLife(generation, top uint64) {
	r.top = max(r.top, top)
	if g := r.log.generation.Load(); generation > g {
		r.log.generation.Store(generation)
	}
}

// salvageBeyond is how many segments behind the last used one are searched
// when their headers say nothing: the one that was opened last may be there.
const salvageBeyond = 4

// adopt enters a segment as its fixed places describe it.
func (r *recovery) adopt(i int, c *contents) error {
	l, life := r.log, c.verdict.life
	s := &l.table[i]
	s.generation.Store(life.Generation)
	s.salt.Store(life.Salt)
	r.noteLife(life.Generation, 0)
	if c.verdict.state != segFree {
		return r.take(i, c)
	}
	s.state.Store(uint32(segFree))
	return r.sink(i, life, nil, &segRow{state: segFree, generation: life.Generation, salt: life.Salt})
}

// salvage searches a segment that ought to have been used for batches.
func (r *recovery) salvage(i int) error {
	l := r.log
	life, ok, err := salvage(l.window(r.ctx, i), l.opt.Disk)
	if err != nil {
		if r.ctx.Err() != nil {
			return l.fail("open", fmt.Sprintf("seg=%d", i), ashlar.Unavailable, err)
		}
		l.opt.Log.Error("segment: a segment cannot be read and is left alone", "disk", l.opt.Disk, "segment", i, "error", err)
		l.table[i].state.Store(uint32(segLost))
		return nil
	}
	if !ok {
		return nil
	}
	r.stats.salvaged++
	c, err := r.load(r.ctx, i, verdict{state: segOpen, life: life}, nil)
	if err != nil {
		return err
	}
	return r.adopt(i, &c)
}

// contents is what a segment was found to hold.
type contents struct {
	verdict verdict
	// entries are those of a sealed segment; of another they are in found.
	entries []format.Entry
	scanned bool
	found   found
}

// load reads what a sealed or open segment holds. It changes nothing, so several
// segments may be loaded at once; scanners, if not nil, has room for those that may
// read a whole one.
func (r *recovery) load(ctx context.Context, i int, v verdict, scanners chan struct{}) (contents, error) {
	l := r.log
	c := contents{verdict: v}
	sealed := v.state == segSealed
	if sealed && l.opt.Rebuild != RebuildFromRecords {
		entries, err := l.footer(ctx, i, &v.trailer)
		if err == nil {
			c.entries = entries
			return c, nil
		}
		if ctx.Err() != nil {
			return c, l.fail("open", fmt.Sprintf("seg=%d", i), ashlar.Unavailable, err)
		}
		l.opt.Log.Warn("segment: damaged footer, scanning", "disk", l.opt.Disk, "segment", i, "error", err)
		sealed = false // it gets a new one
	}
	if scanners != nil {
		scanners <- struct{}{}
		defer func() { <-scanners }()
	}
	w := l.window(ctx, i)
	if !l.opt.hooks.direct {
		defer w.readAhead()()
	}
	f, err := scan(w, v.life)
	if err != nil || ctx.Err() != nil {
		return c, l.fail("open", fmt.Sprintf("seg=%d", i), ashlar.Unavailable, errors.Join(err, ctx.Err()))
	}
	c.scanned, c.found = true, f
	if sealed {
		c.entries = f.entries
	} else {
		c.verdict.state = segOpen
	}
	return c, nil
}

// replay loads a sealed or open segment and enters its records into the index.
func (r *recovery) replay(i int, v verdict) error {
	c, err := r.load(r.ctx, i, v, nil)
	if err != nil {
		return err
	}
	return r.take(i, &c)
}

// take enters the records of a segment into the index.
func (r *recovery) take(i int, c *contents) error {
	l, v, f := r.log, &c.verdict, &c.found
	s := &l.table[i]
	s.generation.Store(v.life.Generation)
	s.salt.Store(v.life.Salt)
	if c.scanned {
		r.stats.scanned++
		r.stats.bad += f.bad
		r.stats.torn += f.torn
		r.stats.unreadable += f.unreadable
	}
	if v.state == segSealed {
		s.state.Store(uint32(segSealed))
		s.end.Store(v.trailer.End)
		s.top.Store(v.trailer.SequenceTop)
		r.noteLife(v.life.Generation, max(v.trailer.SequenceTop, f.top))
		return r.sink(i, v.life, c.entries, &segRow{segSealed, v.life.Generation, v.life.Salt, v.trailer.End, v.trailer.SequenceTop})
	}
	r.noteLife(v.life.Generation, f.top)
	s.top.Store(f.top)
	claimed := len(f.entries) > 0
	if !claimed {
		var err error
		if claimed, err = r.claimed(i, v.life.Generation); err != nil {
			return err
		}
	}
	if !claimed {
		s.state.Store(uint32(segFree))
		return r.sink(i, v.life, nil, &segRow{state: segFree, generation: v.life.Generation, salt: v.life.Salt})
	}
	s.state.Store(uint32(segSealed))
	r.seals = append(r.seals, seal{i, v.life, *f, int64(l.block)})
	return r.sink(i, v.life, f.entries, nil)
}

// claimed reports whether a known index has records in that life of a segment:
// they were acknowledged, so if a scan misses them the segment is damaged, not empty.
func (r *recovery) claimed(i int, generation uint64) (bool, error) {
	if !r.known {
		return false, nil
	}
	claimed := false
	err := r.log.index.rows(func(x *row, old bool) (bool, error) {
		claimed = int(x.segment) == i && x.generation == generation
		return !claimed, nil
	})
	return claimed, r.log.wrapIndex("open", "", err)
}

// enterMax bounds the records of one index batch during recovery.
const enterMax = 2000

// enter adds records to the index; entering one again changes nothing. The
// rows stand in the order of package format, "If the index is lost".
func (r *recovery) enter(i int, life format.Life, entries []format.Entry, seg *segRow) error {
	l := r.log
	r.stats.records += len(entries)
	for first := true; first || len(entries) > 0; first = false {
		n := min(len(entries), enterMax)
		b := l.index.db.NewIndexedBatch()
		var err error
		for j := range entries[:n] {
			x := &row{entries[j], uint32(i), life.Generation}
			if r.seen != nil && r.seen.isNew(x.key()) {
				err = set(b, x)
			} else {
				err = supersede(b, x)
			}
			if err != nil {
				break
			}
		}
		if entries = entries[n:]; err == nil && len(entries) == 0 && seg != nil {
			err = setSeg(b, i, *seg)
		}
		if err == nil {
			err = b.Commit(pebble.NoSync)
		}
		b.Close()
		if err != nil {
			return l.wrapIndex("open", "", err)
		}
	}
	return nil
}

// supersede enters one record beside what b knows of its key.
func supersede(b *pebble.Batch, x *row) error {
	cur, ok, err := get(b, x.key())
	switch {
	case err != nil:
		return err
	case !ok:
		return set(b, x)
	case cur.same(x):
		return nil
	case x.newer(&cur):
		if err := setOld(b, &cur); err != nil {
			return err
		}
		return set(b, x)
	}
	return setOld(b, x)
}

// footer reads and checks the entries of a sealed segment.
func (l *Log) footer(ctx context.Context, i int, t *format.Trailer) ([]format.Entry, error) {
	n := t.ListBytes()
	if int64(t.EntriesOffset)+n+int64(l.block) != l.segBytes || int64(t.End) > int64(t.EntriesOffset) {
		return nil, format.ErrField
	}
	if n == 0 {
		return nil, nil
	}
	buf, p, err := l.fetch(ctx, l.offset(i)+int64(t.EntriesOffset), n)
	if err != nil {
		return nil, err
	}
	defer putBuffer(buf)
	return t.DecodeEntries(p)
}

// segmentSum is the checksum of the segment's bytes up to end.
func segmentSum(w *window, end int64) (uint64, error) {
	var sum uint64
	for pos := int64(0); pos < end; {
		p, err := w.span(pos, min(windowBytes/2, end-pos))
		if err != nil {
			return 0, err
		}
		sum = crc64nvme.Update(sum, p)
		pos += int64(len(p))
	}
	return sum, nil
}
