package segment

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"ashlar"
	"ashlar/segment/format"
)

// writer owns one open segment. Three goroutines work for it, one behind the
// other, so that the device never waits for the others:
//
//	run     takes requests, lays a batch out, sums it up, and begins to write a long one  ──► out
//	drive   writes a short one, waits for a long one, flushes                              ──► landed
//	settle  changes the index, then answers                                               ──► back
//
// Batches pass each of them in order. Only run touches the fields below out; the
// three end one after the other when the log closes.
type writer struct {
	log   *Log
	id    int
	queue chan *request
	// busy is at which beat the last of the device calls that are under way began, or
	// 0: new callers do not wait for a hung device.
	busy  atomic.Int64
	ended chan struct{} // closed by settle

	out, landed, back chan *flight // with room for all flights; closed by run, drive, nobody
	aloft             atomic.Int32 // flights that have not been answered
	queued            atomic.Int64 // bytes of the requests in queue, soon after they are there
	// look has something, or will have, whenever aloft has become smaller or the queue
	// longer, as far as that matters to run.
	look chan struct{}

	idle     []*flight      // flights that are not under way
	flying   map[Key]uint64 // the last flight that holds the key and has not come back
	number   uint64         // of the flight that is planned
	coming   atomic.Bool    // counted by flushing
	open     int            // the segment, -1 none
	class    class
	life     format.Life
	pos      int64 // where the next batch starts in the segment
	batches  uint64
	entries  []format.Entry
	low      uint64
	sum      uint64    // CRC-64 of [0, pos)
	footers  []footer  // of segments that were filled, for the next flight
	upcoming *upcoming // the segment after this one, being opened; nil if none is
	batch    []*request
	reuse    reuse
}

// flightsMax is the number of batches of one writer that are laid out, written
// or settled at once: one in the making and one on the device.
const flightsMax = 2

// flight is one batch between its first byte and its answers.
type flight struct {
	number  uint64
	batch   []*request
	keys    []Key
	footers []footer // written first, and durable with its flush
	segment int
	at      int64  // on the device
	end     uint32 // of the segment, once it is durable
	buf     *buffer
	bytes   []byte // what is written, in buf
	// start begins to write a slice of a long batch, wait waits for all of them; nil for a
	// short one. The first begun bytes are begun.
	start func(p []byte, off int64)
	wait  func() error
	begun int
	err   error
	last  bool
}

// footer is the end of a segment that is full.
type footer struct {
	segment int
	at      int64 // on the device
	bytes   []byte
}

func newWriter(l *Log, id int) *writer {
	w := &writer{
		log: l, id: id, queue: make(chan *request, l.opt.QueueLen), ended: make(chan struct{}), open: -1,
		out: make(chan *flight, flightsMax), landed: make(chan *flight, flightsMax), back: make(chan *flight, flightsMax),
		look: make(chan struct{}, 1), flying: map[Key]uint64{},
	}
	for range flightsMax {
		w.idle = append(w.idle, &flight{})
	}
	return w
}

// run takes and lays out until the log closes and the queue is empty.
func (w *writer) run() {
	defer close(w.out)
	reqs := make([]*request, 0, batchRecordsMax)
	for w.waitForWork() {
		if len(reqs) > 1 && w.aloft.Load() == 0 {
			runtime.Gosched() // settle has let those callers back that run where it does
		}
		w.await(1)
		reqs = w.take(reqs[:0])
		for rest := reqs; len(rest) > 0; {
			w.await(1) // before plan: from then on a caller that gives up waits for encode
			n, batch := w.plan(rest)
			rest = rest[n:]
			w.commit(batch)
		}
		clear(reqs)
	}
	w.finish()
}

// waitForWork waits until there are requests that are to be taken, and reports false
// when the log closes and there are none. A short batch waits in the queue until the one
// before it is answered and its callers are back: laying it out takes no time that is
// worth overlapping, and the more share a flush the better.
func (w *writer) waitForWork() bool {
	for {
		closing := isClosed(w.log.closing)
		switch {
		case len(w.queue) == 0 && closing:
			return false
		case len(w.queue) > 0 && (closing || w.aloft.Load() == 0 || w.enough(w.queued.Load())):
			return true
		}
		select {
		case <-w.look:
		case <-w.log.closing:
		}
	}
}

// enough reports whether so many bytes in the queue are a batch that does not wait for more.
func (w *writer) enough(bytes int64) bool {
	return bytes >= longBytes || bytes >= int64(w.log.opt.BatchBytes) || len(w.queue) == cap(w.queue)
}

// wake makes run look at the queue.
func (w *writer) wake() { poke(w.look) }

// notice is called by who put a request of that many bytes into the queue. It wakes
// run only if run would take it: to wake it for each of many small ones, or to let it
// wait for the queue itself, costs more than to lay them out.
func (w *writer) notice(bytes int64) {
	if n := w.queued.Add(bytes); w.aloft.Load() == 0 || w.enough(n) {
		w.wake()
	}
}

// await waits until that many flights are idle.
func (w *writer) await(idle int) {
	for len(w.idle) < idle {
		f := <-w.back
		for _, k := range f.keys {
			if w.flying[k] == f.number {
				delete(w.flying, k)
			}
		}
		clear(f.batch)
		w.idle = append(w.idle, f)
	}
}

// longBytes is the length of a batch that does not wait for more to share its flush.
const longBytes = 512 * ashlar.KiB

// take takes what is in the queue, up to the bounds of a batch.
func (w *writer) take(reqs []*request) []*request {
	bytes := int64(0)
	for len(w.queue) > 0 && len(reqs) < batchRecordsMax && bytes < int64(w.log.opt.BatchBytes) {
		r := <-w.queue // of which nobody else takes
		reqs = append(reqs, r)
		bytes += r.bytes
	}
	w.queued.Add(-bytes)
	if bytes < longBytes && w.aloft.Load() == 0 {
		w.comes()
	}
	return reqs
}

// plan chooses how many of reqs are dealt with next and which of them become
// records of one batch in the open segment. The others were answered.
func (w *writer) plan(reqs []*request) (int, []*request) {
	w.number++
	batch, bytes := w.batch[:0], int64(format.BatchBytes)
	for i, r := range reqs {
		flight := w.flying[r.key]
		if flight == w.number {
			return i, batch // its fate depends on the batch before it
		}
		if flight > 0 && r.rec == nil {
			if len(batch) > 0 {
				return i, batch
			}
			w.await(flightsMax) // the index does not know yet what there is to delete
		}
		if w.log.fenced.Load() { // behind the wait: what failed there may be on the medium
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
		if len(batch) > 0 && bytes >= int64(w.log.opt.BatchBytes) {
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
		w.flying[r.key] = w.number
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
	i, life, class, err := w.opened(class)
	if ashlar.Is(err, ashlar.Full) {
		l.compact.wake()
	}
	if err != nil {
		return err
	}
	if err := w.seal(); err != nil {
		return err
	}
	w.open, w.class, w.life = i, class, life
	w.batches, w.low, w.sum = 0, 0, 0
	w.entries = w.entries[:0]
	// The header goes out with the first batch; until then it only takes space.
	w.pos = 2 * int64(l.block)
	return nil
}

// seal lays out the footer of the open segment. It is written behind the
// segment's last batch and flushed with the next one.
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
	p := aligned(int(format.FooterBytes(len(w.entries), l.block)), l.block)
	format.EncodeFooter(p, &t, w.entries, l.segBytes, l.block)
	w.footers = append(w.footers, footer{i, l.offset(i) + l.segBytes - int64(len(p)), p})
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
	w.dropUpcoming()
	if w.log.fenced.Load() || w.seal() != nil || len(w.footers) == 0 {
		return // a fence was logged; the next Open recovers
	}
	w.await(1)
	f := w.takeFlight(nil)
	f.last = true
	w.send(f)
}

// takeFlight makes the next idle flight one of the batch and of all footers that wait.
func (w *writer) takeFlight(batch []*request) *flight {
	f := w.idle[len(w.idle)-1]
	w.idle = w.idle[:len(w.idle)-1]
	f.number, f.batch, f.keys = w.number, append(f.batch[:0], batch...), f.keys[:0]
	f.footers, w.footers = append(f.footers[:0], w.footers...), w.footers[:0]
	f.segment, f.bytes, f.err, f.last = w.open, nil, nil, false
	f.start, f.wait, f.begun = nil, nil, 0
	for _, r := range batch {
		f.keys = append(f.keys, r.key)
	}
	return f
}

// commit lays the batch out and sends it off. A long one is on its way to the device
// while it is still being laid out, if there is none before it.
func (w *writer) commit(batch []*request) {
	w.batch = batch
	if len(batch) == 0 {
		w.stays()
		return
	}
	f := w.takeFlight(batch)
	clear(batch)
	start := w.pos
	if w.batches == 0 {
		start = 0
	}
	total := w.layOut(f, start)
	f.at, f.end = w.log.offset(w.open)+start, uint32(start+int64(total))
	if total >= longBytes {
		f.start, f.wait = w.log.series()
	}
	began := time.Now()
	w.encode(f, start)
	w.reuse.filled(f.buf, total, time.Since(began))
	w.send(f)
	w.batches++
	w.pos = start + int64(total)
	w.openUpcoming()
}

func (w *writer) send(f *flight) {
	w.aloft.Add(1)
	w.out <- f
}

// drive writes and flushes until run has ended.
func (w *writer) drive() {
	defer close(w.landed)
	for f := range w.out {
		f.err = w.store(f)
		w.stays() // if it failed before the flush
		w.landed <- f
	}
}

// settle publishes and answers until drive has ended.
func (w *writer) settle() {
	defer w.log.running.Done()
	defer close(w.ended)
	var changes []change
	for f := range w.landed {
		if f.err == nil {
			changes, f.err = w.publish(f, changes[:0])
		}
		f.release()
		for _, r := range f.batch {
			r.answer(f.err)
		}
		if f.wait == nil && (len(f.batch) > 1 || len(w.queue) > 0) {
			w.log.flushing.letCallersBack()
		}
		w.aloft.Add(-1)
		w.wake()
		w.back <- f
	}
}

// release gives the buffer back. The device does not have it any more.
func (f *flight) release() {
	if f.buf != nil {
		putBuffer(f.buf)
	}
	f.buf, f.bytes = nil, nil
}

// begin begins to write what is laid out up to there, as far as it is whole slices. What
// would be a short last slice is part of the one before it: each is a request of its own.
func (f *flight) begin(upTo int) {
	for f.begun < len(f.bytes) {
		end := f.begun + sliceBytes
		if len(f.bytes)-end < sliceBytes/2 {
			end = len(f.bytes)
		}
		if end > upTo {
			return
		}
		f.start(f.bytes[f.begun:end], f.at+int64(f.begun))
		f.begun = end
	}
}

// mayBegin reports whether the flight that is laid out may go to the device: once
// the one before it is durable. That any part of a batch is on the medium proves
// to recovery that those in front of it in the segment were flushed whole.
func (w *writer) mayBegin() bool { return w.aloft.Load() == 0 && !w.log.fenced.Load() }

// store writes what is not written yet, and flushes.
func (w *writer) store(f *flight) error {
	l := w.log
	err := l.Err()
	for _, t := range f.footers {
		if err == nil {
			err = w.write(t.bytes, t.at)
		}
	}
	written := w.writeSlices(f, err == nil)
	if err == nil && !written {
		err = w.write(f.bytes, f.at)
	}
	w.busy.Store(0)
	if err == nil {
		err = w.flush()
	}
	if err != nil || len(f.batch) == 0 {
		return err
	}
	l.table[f.segment].end.Store(f.end)
	l.stats.batches.Add(1)
	return nil
}

// writeSlices begins what is missing of a long batch, if it may, waits, and reports
// whether all of it was written. A failure counts as the first try of write.
func (w *writer) writeSlices(f *flight, may bool) bool {
	if f.wait == nil {
		return len(f.bytes) == 0
	}
	w.busy.Store(w.log.pulse.beats.Load())
	if may {
		f.begin(len(f.bytes))
	}
	switch err := f.wait(); {
	case err != nil:
		w.log.stats.writeRetries.Add(1)
		return false
	case f.begun < len(f.bytes):
		return false
	}
	w.log.stats.bytesWritten.Add(uint64(len(f.bytes)))
	return true
}

// write tries a few times in place: the bytes are the same, so whatever a
// failed try left is overwritten or completed. Then it fences.
func (w *writer) write(p []byte, off int64) error {
	var err error
	for try := range writeTries {
		if try > 0 {
			w.log.stats.writeRetries.Add(1)
		}
		w.busy.Store(w.log.pulse.beats.Load())
		_, err = w.log.dev.WriteAt(p, off)
		if err == nil {
			w.log.stats.bytesWritten.Add(uint64(len(p)))
			return nil
		}
	}
	return w.log.fence("write", fmt.Errorf("off=%#x length=%d: %w", off, len(p), err))
}

func (w *writer) flush() error {
	w.busy.Store(w.log.pulse.beats.Load())
	err := w.log.flushing.flush(w.log, w.coming.CompareAndSwap(true, false))
	w.busy.Store(0)
	return err
}

// comes says that a batch will ask for a flush soon.
func (w *writer) comes() {
	if w.coming.CompareAndSwap(false, true) {
		w.log.flushing.coming.Add(1)
	}
}

// stays says that it will not.
func (w *writer) stays() {
	if w.coming.CompareAndSwap(true, false) {
		w.log.flushing.came()
	}
}
