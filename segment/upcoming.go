package segment

import (
	"ashlar"
	"ashlar/segment/format"
)

// upcoming is the segment that a writer will want next, taken and made known to the
// index while the one before it is being filled: the index learns of a segment
// durably, and that takes as long as writing a good part of a small one.
type upcoming struct {
	segment int
	life    format.Life
	err     error
	done    chan struct{} // closed when the fields above are set
}

// openUpcoming begins to open the next segment once half of this one is full. With
// few segments left nothing is taken before it is needed.
func (w *writer) openUpcoming() {
	l := w.log
	if w.upcoming != nil || w.class != forPieces || w.pos < l.segBytes/2 || l.freeSegments() <= l.reserve()+len(l.writers) {
		return
	}
	a := &upcoming{done: make(chan struct{})}
	w.upcoming = a
	go func() { // ends with the index's word; dropUpcoming waits for it
		defer close(a.done)
		a.segment, a.life, a.err = l.openSegment(forPieces)
	}()
}

// opened returns a new segment, the one that was opened ahead if it will do, and
// what it was taken for.
func (w *writer) opened(want class) (int, format.Life, class, error) {
	if a := w.upcoming; a != nil && want != forCompaction {
		<-a.done
		w.upcoming = nil
		if a.err == nil {
			return a.segment, a.life, forPieces, nil
		}
	}
	i, life, err := w.log.openSegment(want)
	return i, life, want, err
}

// dropUpcoming gives back a segment that was opened ahead.
func (w *writer) dropUpcoming() {
	a := w.upcoming
	if a == nil {
		return
	}
	<-a.done
	w.upcoming = nil
	if a.err == nil && !w.log.fenced.Load() {
		_ = w.log.discardOpen(a.segment) // a failure fences, and is logged
	}
}

// openSegment takes a free segment. The index learns of it, durably, before the
// device does: recovery looks at the segments that the index has for open. Kinds: Full, Unavailable.
func (l *Log) openSegment(class class) (int, format.Life, error) {
	i, err := l.take(class)
	if err != nil {
		return 0, format.Life{}, l.fail("open a segment", "", ashlar.Full, err)
	}
	life := l.life(i)
	b := l.index.db.NewBatch()
	defer b.Close()
	if err = setSeg(b, i, segRow{state: segOpen, generation: life.Generation, salt: life.Salt}); err == nil {
		err = l.index.noteOpening(b)
	}
	if err != nil {
		return 0, life, l.fence("index", err)
	}
	return i, life, nil
}
