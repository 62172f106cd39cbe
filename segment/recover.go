package segment

import (
	"context"
	"errors"
	"fmt"
	"time"

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
func (r *recovery) examine(i int) (verdict, error) {
	l := r.log
	read := l.segmentReader(r.ctx, i)
	v := verdict{state: segLost, blank: true}
	block := int64(l.block)
	p := aligned(l.block, l.block)
	for _, off := range []int64{0, block, l.segBytes - block} {
		if err := read(p, off); err != nil {
			if r.ctx.Err() != nil {
				return v, l.fail("open", fmt.Sprintf("seg=%d", i), ashlar.Unavailable, err)
			}
			r.stats.unreadable++
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
		v, err := r.examine(i)
		if err != nil {
			return err
		}
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

const progressEvery = 10 * time.Second

// collectAll rebuilds the index from the device.
func (r *recovery) collectAll() error {
	l := r.log
	if r.anchor.Count > 0 || r.anchor.Run != 0 {
		l.opt.Log.Warn("segment: rebuilding the index from the device", "disk", l.opt.Disk, "segments", len(l.table))
	}
	var silent []int
	used, told := -1, time.Now()
	for i := range l.table {
		v, err := r.examine(i)
		if err != nil {
			return err
		}
		if v.state == segLost {
			silent = append(silent, i)
			continue
		}
		used = i
		if err := r.adopt(i, v); err != nil {
			return err
		}
		if time.Since(told) > progressEvery {
			told = time.Now()
			l.opt.Log.Info("segment: rebuilding the index", "disk", l.opt.Disk, "segment", i, "of", len(l.table), "records", r.stats.records)
		}
	}
	for _, i := range silent {
		if i > used+salvageBeyond {
			break
		}
		if err := r.salvage(i); err != nil {
			return err
		}
	}
	return nil
}

// adopt enters a segment as its fixed places describe it.
func (r *recovery) adopt(i int, v verdict) error {
	l := r.log
	s := &l.table[i]
	s.generation.Store(v.life.Generation)
	s.salt.Store(v.life.Salt)
	r.noteLife(v.life.Generation, 0)
	if v.state != segFree {
		return r.replay(i, v)
	}
	s.state.Store(uint32(segFree))
	return r.sink(i, v.life, nil, &segRow{state: segFree, generation: v.life.Generation, salt: v.life.Salt})
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
	return r.adopt(i, verdict{state: segOpen, life: life})
}

// replay enters the records of a sealed or open segment into the index.
func (r *recovery) replay(i int, v verdict) error {
	l := r.log
	s := &l.table[i]
	if v.state == segSealed {
		entries, err := l.footer(r.ctx, i, &v.trailer)
		if err == nil {
			s.state.Store(uint32(segSealed))
			s.generation.Store(v.life.Generation)
			s.salt.Store(v.life.Salt)
			s.end.Store(v.trailer.End)
			s.top.Store(v.trailer.SequenceTop)
			r.noteLife(v.life.Generation, v.trailer.SequenceTop)
			return r.sink(i, v.life, entries, &segRow{segSealed, v.life.Generation, v.life.Salt, v.trailer.End, v.trailer.SequenceTop})
		}
		if r.ctx.Err() != nil {
			return l.fail("open", fmt.Sprintf("seg=%d", i), ashlar.Unavailable, err)
		}
		l.opt.Log.Warn("segment: damaged footer, scanning", "disk", l.opt.Disk, "segment", i, "error", err)
	}
	f, err := scan(l.window(r.ctx, i), v.life)
	if err != nil || r.ctx.Err() != nil {
		return l.fail("open", fmt.Sprintf("seg=%d", i), ashlar.Unavailable, errors.Join(err, r.ctx.Err()))
	}
	r.stats.scanned++
	r.stats.bad += f.bad
	r.stats.torn += f.torn
	r.stats.unreadable += f.unreadable
	r.noteLife(v.life.Generation, f.top)
	s.generation.Store(v.life.Generation)
	s.salt.Store(v.life.Salt)
	s.top.Store(f.top)
	claimed := len(f.entries) > 0
	if !claimed {
		if claimed, err = r.claimed(i, v.life.Generation); err != nil {
			return err
		}
	}
	if !claimed {
		s.state.Store(uint32(segFree))
		return r.sink(i, v.life, nil, &segRow{state: segFree, generation: v.life.Generation, salt: v.life.Salt})
	}
	s.state.Store(uint32(segSealed))
	r.seals = append(r.seals, seal{i, v.life, f})
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
			if err = supersede(b, &row{entries[j], uint32(i), life.Generation}); err != nil {
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
