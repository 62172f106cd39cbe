package segment

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/minio/crc64nvme"

	"ashlar"
	"ashlar/segment/format"
)

// writer owns one open segment. Only its goroutine touches the fields below
// queue; it ends when the log closes.
type writer struct {
	log   *Log
	id    int
	queue chan *request
	// busy is when the device call that is under way began, in Unix
	// nanoseconds, or 0: new callers do not wait for a hung device.
	busy  atomic.Int64
	ended chan struct{} // closed by run

	open    int // the segment, -1 none
	class   class
	life    format.Life
	pos     int64 // where the next batch starts in the segment
	batches uint64
	entries []format.Entry
	low     uint64
	sum     uint64 // CRC-64 of [0, pos)
	sealed  []int  // footers written and not yet flushed
	buf     []byte
	batch   []*request
	seen    map[Key]struct{}
}

func newWriter(l *Log, id int) *writer {
	return &writer{log: l, id: id, queue: make(chan *request, l.opt.QueueLen), ended: make(chan struct{}), open: -1, seen: map[Key]struct{}{}}
}

// run gathers, commits and answers until the log closes and the queue is empty.
func (w *writer) run() {
	defer w.log.running.Done()
	defer close(w.ended)
	reqs := make([]*request, 0, batchRecordsMax)
	answered := 0 // requests in the last batch
	for {
		var first *request
		select {
		case first = <-w.queue:
		case <-w.log.closing:
			select {
			case first = <-w.queue:
			default:
				w.finish()
				return
			}
		}
		if answered > 1 {
			runtime.Gosched() // the callers just answered come back: share a flush with them
		}
		reqs = w.gather(append(reqs[:0], first))
		answered = len(reqs)
		for rest := reqs; len(rest) > 0; {
			n, batch := w.plan(rest)
			rest = rest[n:]
			w.commit(batch)
		}
		clear(reqs)
	}
}

// gather takes what waits, up to the bounds of a batch.
func (w *writer) gather(reqs []*request) []*request {
	for bytes := reqs[0].bytes; len(reqs) < batchRecordsMax && bytes < int64(w.log.opt.BatchBytes); {
		select {
		case r := <-w.queue:
			reqs = append(reqs, r)
			bytes += r.bytes
		default:
			return reqs
		}
	}
	return reqs
}

// plan chooses how many of reqs are dealt with next and which of them become
// records of one batch in the open segment. The others were answered.
func (w *writer) plan(reqs []*request) (int, []*request) {
	clear(w.seen)
	batch, bytes := w.batch[:0], int64(format.BatchBytes)
	for i, r := range reqs {
		if _, dup := w.seen[r.key]; dup {
			return i, batch // its fate depends on the batch before it
		}
		if w.log.fenced.Load() {
			r.answer(w.log.Err())
			continue
		}
		if r.rec == nil {
			cur, ok, err := get(w.log.index.db, r.key)
			if err != nil || !ok || cur.Type == format.Tombstone {
				r.answer(w.log.wrapIndex("delete", r.key, err))
				continue
			}
		}
		if len(batch) > 0 && bytes+r.bytes > int64(w.log.opt.BatchBytes) {
			return i, batch
		}
		if !w.fits(len(batch)+1, bytes+r.bytes) || w.inReserve(r) {
			if len(batch) > 0 {
				return i, batch
			}
			if err := w.roll(r); err != nil {
				r.answer(err)
				continue
			}
		}
		if !r.state.CompareAndSwap(reqQueued, reqTaken) {
			continue
		}
		w.seen[r.key] = struct{}{}
		batch = append(batch, r)
		bytes += r.bytes
	}
	return len(reqs), batch
}

// fits reports whether n more records in a batch of that length leave room for the footer.
func (w *writer) fits(n int, bytes int64) bool {
	block := int64(w.log.block)
	return w.open >= 0 &&
		w.pos+format.AlignUp(bytes, block)+format.FooterBytes(len(w.entries)+n, w.log.block) <= w.log.segBytes
}

// inReserve reports whether r is a piece and the open segment was taken from
// the reserve for deletes, which pieces may not use up.
func (w *writer) inReserve(r *request) bool {
	return w.class == forDeletes && r.rec != nil && w.log.freeSegments() <= w.log.reserve()
}

// roll opens a new segment for r and writes the footer of the old one. The
// index learns of the new segment, durably, before the device does: recovery
// looks at the segments that the index has for open.
func (w *writer) roll(r *request) error {
	l := w.log
	class := forPieces
	switch {
	case w.id == len(l.partitions):
		class = forCompaction
	case r.rec == nil:
		class = forDeletes
	}
	i, err := l.take(class)
	if err != nil {
		l.compact.wake()
		return l.fail("open a segment", r.key, ashlar.Full, err)
	}
	life := l.life(i)
	b := l.index.db.NewBatch()
	defer b.Close()
	if err = setSeg(b, i, segRow{state: segOpen, generation: life.Generation, salt: life.Salt}); err == nil {
		err = l.index.noteOpening(b)
	}
	if err != nil {
		return l.fence("index", err)
	}
	if err := w.seal(); err != nil {
		return err
	}
	w.open, w.class, w.life = i, class, life
	w.pos, w.batches, w.low, w.sum = 0, 0, 0, 0
	w.entries = w.entries[:0]
	// The header goes out with the first batch; until then it only takes space.
	w.pos = 2 * int64(l.block)
	return nil
}

// seal writes the footer of the open segment. It is flushed with the next batch.
func (w *writer) seal() error {
	if w.open < 0 {
		return nil
	}
	l, i := w.log, w.open
	w.open = -1
	if w.batches == 0 {
		return l.discardOpen(i)
	}
	t := format.Trailer{
		Life: w.life, Segment: uint32(i), End: uint32(w.pos), SequenceLow: w.low, SequenceTop: l.table[i].top.Load(),
		SegmentSum: w.sum, Sealed: uint64(l.opt.hooks.now().UnixNano()),
	}
	footer := aligned(int(format.FooterBytes(len(w.entries), l.block)), l.block)
	format.EncodeFooter(footer, &t, w.entries, l.segBytes, l.block)
	if err := w.write(footer, l.offset(i)+l.segBytes-int64(len(footer))); err != nil {
		return err
	}
	w.sealed = append(w.sealed, i)
	return nil
}

// discardOpen gives back a segment that was taken and never written.
func (l *Log) discardOpen(i int) error {
	b := l.index.db.NewBatch()
	defer b.Close()
	life := l.life(i)
	if err := setSeg(b, i, segRow{state: segFree, generation: life.Generation, salt: life.Salt}); err != nil {
		return l.fence("index", err)
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return l.fence("index", err)
	}
	l.release(i)
	return nil
}

// finish seals and flushes when the log closes.
func (w *writer) finish() {
	if w.open < 0 || w.log.fenced.Load() {
		return
	}
	if w.seal() != nil || len(w.sealed) == 0 || w.flush() != nil {
		return // fenced and logged; the next Open recovers
	}
	b := w.log.index.db.NewBatch()
	defer b.Close()
	if w.noteSealed(b) == nil {
		b.Commit(pebble.Sync) // a loss here costs the next Open one scan
	}
}

// commit makes the batch durable, then visible, then answers.
func (w *writer) commit(batch []*request) {
	w.batch = batch
	if len(batch) == 0 {
		return
	}
	err := w.store(batch)
	if err == nil {
		err = w.publish(batch)
	}
	for i, r := range batch {
		r.answer(err)
		batch[i] = nil
	}
}

// store encodes the batch, writes it and flushes.
func (w *writer) store(batch []*request) error {
	l := w.log
	start := w.pos
	if w.batches == 0 {
		start = 0
	}
	buf := w.encode(batch, start)
	if err := w.write(buf, l.offset(w.open)+start); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.sum = crc64nvme.Update(w.sum, buf)
	w.batches++
	w.pos = start + int64(len(buf))
	l.table[w.open].end.Store(uint32(w.pos))
	l.stats.batches.Add(1)
	return nil
}

// write tries a few times in place: the bytes are the same, so whatever a
// failed try left is overwritten or completed. Then it fences.
func (w *writer) write(p []byte, off int64) error {
	var err error
	for try := range writeTries {
		if try > 0 {
			w.log.stats.writeRetries.Add(1)
		}
		w.busy.Store(time.Now().UnixNano())
		_, err = w.log.dev.WriteAt(p, off)
		w.busy.Store(0)
		if err == nil {
			w.log.stats.bytesWritten.Add(uint64(len(p)))
			return nil
		}
	}
	return w.log.fence("write", fmt.Errorf("off=%#x length=%d: %w", off, len(p), err))
}

// flush is never tried again: a device that failed one may have dropped what
// it held and answer the next with success.
func (w *writer) flush() error {
	w.busy.Store(time.Now().UnixNano())
	err := w.log.dev.Flush()
	w.busy.Store(0)
	w.log.stats.flushes.Add(1)
	if err != nil {
		return w.log.fence("flush", err)
	}
	return nil
}
