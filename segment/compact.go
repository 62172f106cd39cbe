package segment

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"ashlar"
	"ashlar/segment/format"
)

// When compaction works. Utilization is the share of a sealed segment that
// current records occupy.
const (
	compactEvery = 5 * time.Second // and whenever something is sealed or missing
	// A segment at or below this is always worth copying.
	utilizationCheap = 0.5
	// Above this nothing is gained by copying.
	utilizationMax = 0.98
	// More dead space than this share of the log is not tolerated.
	deadShareMax = 0.10
	// With fewer free segments than the reserve and this share, space is
	// short: compaction is not paced and takes the emptiest segment first.
	freeShareShort = 0.05

	copyBytes = ashlar.MiB // read at once, unless one record is longer
)

// compactor gives dead space back: it copies what is current in a mostly dead
// segment to its own writer and frees the segment. It moves one segment at a
// time. Its goroutine ends when the log closes.
type compactor struct {
	log  *Log
	kick chan struct{}
	work sync.Mutex // held by whoever compacts
}

func (c *compactor) init(l *Log) { c.log, c.kick = l, make(chan struct{}, 1) }

func (c *compactor) wake() { poke(c.kick) }

func (c *compactor) run() {
	l := c.log
	defer l.running.Done()
	if l.opt.CompactBytesPerSecond < 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with run
		select {
		case <-l.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	tick := time.NewTicker(compactEvery)
	defer tick.Stop()
	for {
		for {
			asked := l.room.asked()
			worked, err := c.step(ctx, true)
			if err != nil && ctx.Err() == nil && l.Err() == nil {
				l.opt.Log.Warn("segment: compaction", "disk", l.opt.Disk, "error", err)
			}
			if !worked || err != nil {
				l.room.end(asked, false)
				break
			}
		}
		select {
		case <-c.kick:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Compact gives back all space that the rules above want back, unpaced, and
// returns when nothing is left to do. Kinds: Unavailable (fenced, closed,
// deadline), Full (not one segment is left to copy to).
func (l *Log) Compact(ctx context.Context) error {
	for {
		worked, err := l.compact.step(ctx, false)
		if err != nil || !worked {
			return err
		}
	}
}

// step frees or compacts one segment. It reports whether there may be more.
func (c *compactor) step(ctx context.Context, paced bool) (bool, error) {
	c.work.Lock()
	defer c.work.Unlock()
	l := c.log
	if isClosed(l.closing) {
		return false, l.fail("compact", "", ashlar.Unavailable, errClosed)
	}
	if err := l.Err(); err != nil {
		return false, err
	}
	if ctx.Err() != nil {
		return false, l.fail("compact", "", ashlar.Unavailable, context.Cause(ctx))
	}
	i, empty := c.pick()
	switch {
	case i < 0:
		return false, nil
	case empty:
		return true, c.free(ctx, i)
	}
	return true, c.move(ctx, i, paced)
}

func (c *compactor) short() bool {
	l := c.log
	return l.freeSegments() <= l.reserve()+int(freeShareShort*float64(len(l.table)))+1
}

// pick chooses a segment: an empty one at once, else the one with the best
// ratio of benefit to cost, (1-u)·age/(1+u), or the emptiest when space is short.
func (c *compactor) pick() (segment int, empty bool) {
	l := c.log
	short, room := c.short(), l.segBytes-l.overhead()
	newest := l.generation.Load()
	var dead, sealed int64
	best, bestScore, bestUtil := -1, 0.0, 0.0
	for i := range l.table {
		s := &l.table[i]
		if !s.is(segSealed) && !s.is(segFreeing) {
			continue
		}
		live := s.live.Load()
		if s.records.Load() == 0 {
			return i, true
		}
		sealed += room
		dead += room - live
		util := float64(live) / float64(room)
		if util > utilizationMax || s.stuck.Load() == live {
			continue
		}
		// What is missing may be its unwritten end: for the records of a segment that is
		// more than half full of them another one is no better.
		if gone := int64(s.end.Load()) - 2*int64(l.block) - live; util > utilizationCheap && float64(gone) < (1-utilizationMax)*float64(room) {
			continue
		}
		score := (1 - util) / (1 + util)
		if !short {
			score *= float64(newest - s.generation.Load() + 1)
		}
		if score > bestScore {
			best, bestScore, bestUtil = i, score, util
		}
	}
	wanted := bestUtil <= utilizationCheap || short && dead > room ||
		float64(dead) > deadShareMax*float64(int64(len(l.table))*room)
	if best < 0 || !wanted {
		return -1, false
	}
	return best, false
}

// move copies what is current in segment i and frees it.
func (c *compactor) move(ctx context.Context, i int, paced bool) error {
	l := c.log
	s := &l.table[i]
	entries, err := l.entries(ctx, i)
	if err != nil {
		s.stuck.Store(s.live.Load())
		return l.fail("compact", fmt.Sprintf("seg=%d", i), ashlar.Unavailable, err)
	}
	life := l.life(i)
	for len(entries) > 0 {
		var group []row
		group, entries, err = c.gather(i, life, entries)
		if err != nil {
			return l.wrapIndex("compact", fmt.Sprintf("seg=%d", i), err)
		}
		if len(group) == 0 {
			continue
		}
		bytes, err := c.copy(ctx, group)
		if err != nil {
			s.stuck.Store(s.live.Load())
			return err
		}
		if paced && !c.short() {
			pause(ctx, time.Duration(float64(bytes)/float64(l.opt.CompactBytesPerSecond)*float64(time.Second)))
		}
	}
	if s.records.Load() != 0 {
		// What is left is damaged. It stays, so that reading it is Corrupt and
		// not NotFound, until it is appended again or deleted.
		s.stuck.Store(s.live.Load())
		return nil
	}
	return c.free(ctx, i)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// gather takes entries from the front as long as one read covers them and
// returns those that must be copied.
func (c *compactor) gather(i int, life format.Life, entries []format.Entry) (group []row, rest []format.Entry, err error) {
	start := int64(entries[0].Offset)
	for len(entries) > 0 {
		e := entries[0]
		if end := int64(e.Offset) + e.TotalBytes(); end-start > copyBytes && len(group) > 0 {
			break
		}
		entries = entries[1:]
		keep, err := c.needed(&row{e, uint32(i), life.Generation})
		if err != nil {
			return nil, nil, err
		}
		if keep {
			if len(group) == 0 {
				start = int64(e.Offset)
			}
			group = append(group, row{e, uint32(i), life.Generation})
		}
	}
	return group, entries, nil
}

// needed reports whether the record must outlive its segment. A tombstone need
// not when all that it hides lies in the same segment; it is forgotten here.
func (c *compactor) needed(x *row) (bool, error) {
	l := c.log
	p := &l.partitions[l.partitionOf(x.key())]
	p.mu.Lock()
	defer p.mu.Unlock()
	cur, ok, err := get(l.index.db, x.key())
	if err != nil || !ok || !cur.same(x) {
		return false, err
	}
	if x.Type == format.Piece {
		return true, nil
	}
	if hides, err := hasOld(l.index.db, x.key(), x.generation); err != nil || hides {
		return true, err
	}
	var key [keyRowBytes]byte
	if err := l.index.db.Delete(x.key().row(key[:]), pebble.NoSync); err != nil {
		return false, err
	}
	l.account(&cur, -1)
	return false, nil
}

// copy reads a group with one device read and appends it with the old sequence
// numbers. Records that do not verify are left where they are.
func (c *compactor) copy(ctx context.Context, group []row) (bytes int64, err error) {
	l := c.log
	first, last := &group[0], &group[len(group)-1]
	start := int64(first.Offset)
	base := l.offset(int(first.segment)) + start
	buf, p, err := l.fetch(ctx, base, int64(last.Offset)+last.TotalBytes()-start)
	if err != nil {
		return 0, l.fail("compact", fmt.Sprintf("seg=%d", first.segment), ashlar.Unavailable, err)
	}
	defer putBuffer(buf)
	w := l.writers[len(l.writers)-1]
	var reqs []*request
	for i := range group {
		x := &group[i]
		at := int64(x.Offset) - start
		rec, err := l.decodeWhole(x, p[at:at+x.TotalBytes()], base+at)
		if err != nil {
			l.stats.corruptReads.Add(1)
			l.opt.Log.Warn("segment: compaction leaves a damaged record", "error", err)
			continue
		}
		reqs = append(reqs, newRequest(rec, x.key(), x, x.TotalBytes()))
	}
	errs := make(chan error, len(reqs))
	for _, r := range reqs {
		bytes += r.bytes
		go func() { errs <- l.submit(ctx, "compact", r, w) }() // ends with IOTimeout at the latest
	}
	for range reqs {
		err = errors.Join(err, <-errs)
	}
	return bytes, err
}

// decodeWhole verifies a record as it lies on the device, header and all.
func (l *Log) decodeWhole(x *row, p []byte, at int64) (*Record, error) {
	h, err := format.DecodeRecord(p[:x.HeadBytes], l.opt.Disk)
	if err != nil {
		return nil, l.fail("compact", x.key(), ashlar.Corrupt, err)
	}
	if !l.isAt(&h, x) {
		return nil, l.fail("compact", x.key(), ashlar.Corrupt, format.ErrAbsent)
	}
	rec := &Record{Key: x.key(), Group: h.Group, Code: h.Code, StripeBytes: h.StripeBytes, Owner: h.Owner,
		Written: time.Unix(0, h.Written), Data: make([]byte, h.DataBytes)}
	head := int64(x.HeadBytes)
	coded := p[head : head+format.CodedBytes(x.DataBytes)]
	if err := l.decode(x, coded, 0, at+head, rec.Data, 0); err != nil {
		return nil, l.fail("compact", x.key(), ashlar.Corrupt, err)
	}
	return rec, nil
}

// entries lists the records of a sealed segment, from its footer or, if that
// is damaged, by a scan.
func (l *Log) entries(ctx context.Context, i int) ([]format.Entry, error) {
	life := l.life(i)
	if t, err := l.trailer(ctx, i); err == nil && t.Life == life {
		if entries, err := l.footer(ctx, i, &t); err == nil {
			return entries, nil
		}
	}
	f, err := scan(l.window(ctx, i), life)
	return f.entries, err
}

func (l *Log) trailer(ctx context.Context, i int) (format.Trailer, error) {
	buf, p, err := l.fetch(ctx, l.offset(i)+l.segBytes-int64(l.block), int64(l.block))
	if err != nil {
		return format.Trailer{}, err
	}
	defer putBuffer(buf)
	return format.DecodeTrailer(p)
}

// free makes segment i free, on the device first. Every step may be repeated
// after a cut: until the last one the segment is known as "freeing", and its
// footer stays readable.
func (c *compactor) free(ctx context.Context, i int) error {
	l := c.log
	s := &l.table[i]
	s.state.Store(uint32(segFreeing))
	if err := l.unpinned(ctx, i); err != nil {
		return err
	}
	life := l.life(i)
	entries, err := l.entries(ctx, i)
	if err != nil {
		return l.fail("free", fmt.Sprintf("seg=%d", i), ashlar.Unavailable, err)
	}
	if err := l.noteSegment(i, segRow{segFreeing, life.Generation, life.Salt, s.end.Load(), s.top.Load()}); err != nil {
		return err
	}
	next := format.Life{Disk: l.opt.Disk, Generation: l.generation.Add(1), Salt: l.opt.hooks.random()}
	if err := l.writeFree(ctx, i, next); err != nil {
		return err
	}
	if err := c.forget(i, life, entries); err != nil {
		return l.fence("index", err)
	}
	if err := l.noteSegment(i, segRow{state: segFree, generation: next.Generation, salt: next.Salt}); err != nil {
		return err
	}
	s.generation.Store(next.Generation)
	s.salt.Store(next.Salt)
	if err := l.erase(ctx, i); err != nil {
		return err
	}
	l.stats.segsFreed.Add(1)
	l.release(i)
	l.room.end(l.room.asked(), true)
	return nil
}

// unpinned waits until the readers have left; no new ones can come.
func (l *Log) unpinned(ctx context.Context, i int) error {
	ctx, cancel := l.limit(ctx)
	defer cancel()
	for l.table[i].pins.Load() != 0 {
		pause(ctx, time.Millisecond)
		if ctx.Err() != nil {
			return l.fail("free", fmt.Sprintf("seg=%d", i), ashlar.Unavailable, errors.New("readers do not leave"))
		}
	}
	return nil
}

func (l *Log) noteSegment(i int, s segRow) error {
	b := l.index.db.NewBatch()
	defer b.Close()
	err := setSeg(b, i, s)
	if err == nil {
		err = b.Commit(pebble.Sync)
	}
	if err != nil {
		return l.fence("index", err)
	}
	return nil
}

// writeFree writes both headers of the segment's free life and flushes.
func (l *Log) writeFree(ctx context.Context, i int, life format.Life) error {
	h := format.Header{Life: life, BlockBytes: uint32(l.block), Segment: uint32(i), State: format.Free,
		SegmentBytes: uint64(l.segBytes), Created: uint64(l.opt.hooks.now().UnixNano())}
	p := aligned(2*l.block, l.block)
	h.Encode(p)
	h.Encode(p[l.block:])
	err := l.timed(ctx, func() error {
		if _, err := l.dev.WriteAt(p, l.offset(i)); err != nil {
			return err
		}
		return l.flushing.flush(l, false)
	})
	if err != nil {
		return l.fence("free", err)
	}
	l.stats.bytesWritten.Add(uint64(len(p)))
	return nil
}

// forget removes the rows of a segment that is free on the device, and the
// tombstones elsewhere that hid nothing but its records.
func (c *compactor) forget(i int, life format.Life, entries []format.Entry) error {
	for j := range entries {
		x := &row{entries[j], uint32(i), life.Generation}
		if err := c.forgetOne(x); err != nil {
			return err
		}
	}
	return nil
}

func (c *compactor) forgetOne(x *row) error {
	l := c.log
	if x.Type != format.Piece {
		return nil
	}
	p := &l.partitions[l.partitionOf(x.key())]
	p.mu.Lock()
	defer p.mu.Unlock()
	var buf [oldRowBytes]byte
	if err := l.index.db.Delete(x.oldRow(buf[:]), pebble.NoSync); err != nil {
		return err
	}
	cur, ok, err := get(l.index.db, x.key())
	if err != nil || !ok || cur.Type != format.Tombstone {
		return err
	}
	if hides, err := hasOld(l.index.db, x.key(), x.generation); err != nil || hides {
		return err
	}
	if err := l.index.db.Delete(x.key().row(buf[:]), pebble.NoSync); err != nil {
		return err
	}
	l.account(&cur, -1)
	return nil
}

// erase tells the device that nothing behind the free header matters and
// removes the trailer, so that no later damage to the header revives it. The
// flush of the segment's next life covers this.
func (l *Log) erase(ctx context.Context, i int) error {
	off, block := l.offset(i), int64(l.block)
	zero := aligned(l.block, l.block)
	err := l.timed(ctx, func() error {
		if err := l.dev.Discard(off+2*block, l.segBytes-2*block); err != nil {
			l.opt.Log.Debug("segment: discard", "disk", l.opt.Disk, "segment", i, "error", err)
		}
		_, err := l.dev.WriteAt(zero, off+l.segBytes-block)
		return err
	})
	if err != nil {
		return l.fence("erase", err)
	}
	return nil
}
