package segment

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/minio/crc64nvme"

	"ashlar"
	"ashlar/segment/format"
)

// Life of a request. The caller that gives up and the writer that takes it
// race for it with one compare-and-swap, so borrowed data is never read late.
const (
	reqQueued  = iota
	reqTaken   // the writer reads Record
	reqCopied  // the writer has its own copy
	reqRefused // the caller is gone
)

// request is an append, a delete or a copy by compaction.
type request struct {
	rec      *Record // nil for a delete
	key      Key
	from     *row // for a copy: what is copied; rec is the record
	bytes    int64
	headLen  int
	state    atomic.Int32
	answered chan error // capacity 1: the writer never waits
	at       row        // where it lies; set by the writer
}

func (r *request) typ() format.Type {
	if r.rec == nil {
		return format.Tombstone
	}
	return format.Piece
}

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
		reqs = w.gather(append(reqs[:0], first))
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
		err = b.Commit(pebble.Sync)
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

func (r *request) answer(err error) {
	r.state.Store(reqCopied)
	r.answered <- err
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

// publish changes the index. The lock keeps the compactor out of the same keys.
func (w *writer) publish(batch []*request) error {
	l := w.log
	b := l.index.db.NewBatch()
	defer b.Close()
	unlock := l.lockPartitions(w.id)
	defer unlock()
	changes := make([]change, 0, 2*len(batch))
	for _, r := range batch {
		var err error
		if changes, err = l.publishOne(b, r, changes); err != nil {
			return l.fence("index", err)
		}
	}
	if err := w.noteSealed(b); err != nil {
		return l.fence("index", err)
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return l.fence("index", err)
	}
	for i := range changes {
		l.account(&changes[i].row, changes[i].sign)
	}
	l.count(batch)
	return nil
}

// lockPartitions locks the writer's own keys, or all of them for the compactor.
func (l *Log) lockPartitions(id int) (unlock func()) {
	if id < len(l.partitions) {
		l.partitions[id].mu.Lock()
		return l.partitions[id].mu.Unlock
	}
	for i := range l.partitions {
		l.partitions[i].mu.Lock()
	}
	return func() {
		for i := range l.partitions {
			l.partitions[i].mu.Unlock()
		}
	}
}

type change struct {
	row  row
	sign int64
}

func (l *Log) publishOne(b *pebble.Batch, r *request, changes []change) ([]change, error) {
	cur, ok, err := get(l.index.db, r.key)
	if err != nil {
		return changes, err
	}
	if r.from != nil && (!ok || !cur.same(r.from)) {
		// The record was replaced or deleted while it was copied.
		return changes, setOld(b, &r.at)
	}
	if ok {
		if err := setOld(b, &cur); err != nil {
			return changes, err
		}
		changes = append(changes, change{cur, -1})
	}
	return append(changes, change{r.at, 1}), set(b, &r.at)
}

// noteSealed tells the index of footers that the last flush made durable.
func (w *writer) noteSealed(b *pebble.Batch) error {
	l := w.log
	for _, i := range w.sealed {
		s := &l.table[i]
		life := l.life(i)
		err := setSeg(b, i, segRow{segSealed, life.Generation, life.Salt, s.end.Load(), s.top.Load()})
		if err != nil {
			return err
		}
		s.state.Store(uint32(segSealed))
	}
	if len(w.sealed) > 0 {
		w.sealed = w.sealed[:0]
		l.compact.wake()
	}
	return nil
}

func (l *Log) count(batch []*request) {
	for _, r := range batch {
		switch {
		case r.from != nil:
			l.stats.bytesCompacted.Add(uint64(r.bytes))
		case r.rec == nil:
			l.stats.deletes.Add(1)
		default:
			l.stats.appends.Add(1)
			l.stats.bytesAppended.Add(uint64(len(r.rec.Data)))
		}
	}
}

// Append stores the record and returns nil when it is durable. A record with
// the same key takes the place of the one before it: appending again is how a
// retry and a repair look. Kinds: Full, Busy (the queue stayed full),
// Unavailable (fenced, hung, closed, or the deadline passed: the record may or
// may not be durable), Invalid (too long).
func (l *Log) Append(ctx context.Context, rec *Record) error {
	r := &request{rec: rec, key: rec.Key, answered: make(chan error, 1)}
	if len(rec.Data) > RecordDataMax || len(rec.Owner.Key) > format.KeyBytesMax {
		return l.fail("append", rec.Key, ashlar.Invalid, fmt.Errorf("data %d, key %d bytes", len(rec.Data), len(rec.Owner.Key)))
	}
	r.headLen = format.RecordHeadBytes(len(rec.Owner.Key))
	r.bytes = format.TotalBytes(r.headLen, uint32(len(rec.Data)))
	if r.bytes > l.recordMax() {
		return l.fail("append", rec.Key, ashlar.Invalid, fmt.Errorf("%d bytes do not fit a segment of %d", r.bytes, l.segBytes))
	}
	return l.submit(ctx, "append", r, l.writers[l.partitionOf(rec.Key)])
}

// recordMax is the longest record that an empty segment holds.
func (l *Log) recordMax() int64 {
	return l.segBytes - 2*int64(l.block) - format.FooterBytes(1, l.block) - format.BatchBytes - int64(l.block)
}

// Delete makes the key's absence durable; an absent key is not an error.
// Deletes go on when the log is full. Kinds: Unavailable, Busy, as of Append;
// Full only when compaction cannot keep up with the reserve either.
func (l *Log) Delete(ctx context.Context, key Key) error {
	r := &request{key: key, answered: make(chan error, 1)}
	r.bytes = format.TotalBytes(format.RecordHeadBytes(0), 0)
	return l.submit(ctx, "delete", r, l.writers[l.partitionOf(key)])
}

// submit queues the request and waits for the answer.
func (l *Log) submit(ctx context.Context, op string, r *request, w *writer) error {
	if err := l.Err(); err != nil {
		return err
	}
	if since := w.busy.Load(); since != 0 && time.Since(time.Unix(0, since)) > l.opt.IOTimeout {
		return l.fail(op, r.key, ashlar.Unavailable, errors.New("the device hangs"))
	}
	timer := time.NewTimer(l.opt.IOTimeout)
	defer timer.Stop()
	var err error
	select {
	case <-l.closing:
		return l.fail(op, r.key, ashlar.Unavailable, errClosed)
	default:
	}
	select {
	case w.queue <- r:
	case <-l.closing:
		return l.fail(op, r.key, ashlar.Unavailable, errClosed)
	case <-ctx.Done():
		return l.fail(op, r.key, ashlar.Unavailable, context.Cause(ctx))
	case <-timer.C:
		return l.fail(op, r.key, ashlar.Busy, errors.New("the queue stayed full"))
	}
	select {
	case err = <-r.answered:
		return err
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-w.ended:
		err = errClosed
	case <-timer.C:
		err = errors.New("no answer within the deadline")
	}
	return r.abandon(l.fail(op, r.key, ashlar.Unavailable, err))
}

// abandon returns when the writer can no longer be reading the caller's data.
func (r *request) abandon(err error) error {
	if r.state.CompareAndSwap(reqQueued, reqRefused) {
		return err
	}
	for r.state.Load() == reqTaken {
		time.Sleep(20 * time.Microsecond) // encoding a batch; no I/O in between
	}
	select {
	case err = <-r.answered: // it came while we gave up
	default:
	}
	return err
}

func (l *Log) wrapIndex(op string, detail any, err error) error {
	if err == nil {
		return nil
	}
	return l.fail(op, detail, ashlar.Internal, fmt.Errorf("index: %w", err))
}
