package segment

import (
	"bytes"
	"errors"

	"ashlar"
	"ashlar/segment/format"
)

// readSegment reads bytes of one segment; offset and length are multiples of
// the device's block.
type readSegment func(p []byte, off int64) error

// window is a sliding view of a segment for readers that go forward.
type window struct {
	read  readSegment
	block int64
	limit int64 // length of the segment
	buf   []byte
	view  []byte // part of buf, or of the buffer that was read ahead
	start int64  // of view in the segment
	// careful is the end of the last long read that failed. Up to there no more
	// is read at once than is needed: a long read before every block of it would
	// fail again, and look like a disk that fails everywhere.
	careful int64
	// errs counts blocks that could not be read.
	errs int
	// trust is a planted bug: data is believed without its checksums.
	trust bool
	ahead *ahead // nil if nothing is read ahead
}

const (
	windowBytes = 1 << 20
	// spanMax bounds what is looked at at once.
	spanMax = windowBytes / 2
)

// unreadableMax is the number of unreadable spots in one segment beyond which
// the device as a whole is taken to be failing.
const unreadableMax = 256

var errUnreadable = errors.New("too much of the segment cannot be read")

func newWindow(read readSegment, block int, limit int64) *window {
	return &window{read: read, block: int64(block), limit: limit, buf: aligned(int(min(windowBytes, limit)), block)}
}

// span returns the bytes [off, off+n), cut at the end of the segment. They are
// valid until the next call. n is at most spanMax. Where a long read fails it is
// tried again with no more than the blocks that are needed.
func (w *window) span(off, n int64) ([]byte, error) {
	end := min(off+n, w.limit)
	if off >= end {
		return nil, nil
	}
	if off < w.start || end > w.start+int64(len(w.view)) {
		low := off &^ (w.block - 1)
		if err := w.load(low, format.AlignUp(end, w.block)-low); err != nil {
			w.view = nil
			w.errs++
			return nil, err
		}
	}
	return w.view[off-w.start : end-w.start], nil
}

// load makes view begin at low, with n bytes at least.
func (w *window) load(low, n int64) error {
	if w.ahead != nil && w.turn(low, n) {
		return nil
	}
	w.start, w.view = low, w.buf[:min(int64(len(w.buf)), w.limit-low)]
	if low >= w.careful {
		if w.read(w.view, low) == nil {
			w.fetchAhead()
			return nil
		}
		w.careful = low + int64(len(w.view))
	}
	w.view = w.buf[:n]
	return w.read(w.view, low)
}

// ahead reads the bytes behind the view while these are looked at. There are two
// buffers; in front of each is room for the end of the view before, so that the
// next view is contiguous and no byte is read twice.
type ahead struct {
	bufs [2][]byte
	next int        // the buffer that is being read into
	at   int64      // what is being read is the bytes from here on
	n    int64      // so many; 0 if nothing is
	done chan error // capacity 1
}

// readAhead makes the window read ahead. The caller calls end when it looks at
// no more.
func (w *window) readAhead() (end func()) {
	a := &ahead{done: make(chan error, 1)}
	for i := range a.bufs {
		a.bufs[i] = aligned(spanMax+len(w.buf), int(w.block))
	}
	w.ahead = a
	return func() {
		if a.n > 0 {
			<-a.done
		}
	}
}

// fetchAhead begins to read what lies behind the view.
func (w *window) fetchAhead() {
	a := w.ahead
	if a == nil {
		return
	}
	a.at = w.start + int64(len(w.view))
	if a.n = min(int64(len(w.buf)), w.limit-a.at); a.n <= 0 || a.at < w.careful {
		a.n = 0
		return
	}
	p, at := a.bufs[a.next][spanMax:spanMax+a.n], a.at
	go func() { a.done <- w.read(p, at) }() // ends when the device answers
}

// turn makes what was read ahead the view, with the end of the view before in
// front of it, and reports whether it could.
func (w *window) turn(low, n int64) bool {
	a := w.ahead
	if a.n == 0 {
		return false
	}
	err := <-a.done
	got := a.n
	a.n = 0
	end := w.start + int64(len(w.view))
	if err != nil || a.at != end || low < w.start || low > end || end-low > spanMax || low+n > end+got {
		return false // it is read again, as carefully as it takes
	}
	buf := a.bufs[a.next]
	front := spanMax - (end - low)
	copy(buf[front:spanMax], w.view[low-w.start:])
	w.start, w.view = low, buf[front:spanMax+got]
	a.next = 1 - a.next
	w.fetchAhead()
	return true
}

// found is what a scan of a segment without a footer makes of it.
type found struct {
	entries []format.Entry
	// bad counts the entries whose data is damaged, torn the records that were
	// dropped, unreadable the spots that could not be read.
	bad, torn, unreadable int
	end                   int64 // of the last batch, on a block boundary
	low, top              uint64
}

type candidate struct {
	entry format.Entry
	bad   bool
}

// scan finds the records of one life of a segment by the rule in package
// format, "Finding the end of a segment that has no footer". It is a function
// of the bytes alone. The error is errUnreadable or nil.
func scan(w *window, life format.Life) (found, error) {
	pos, tail := 2*w.block, int64(-1)
	var list []candidate
	f := found{end: 2 * w.block}
	for pos+format.BatchBytes <= w.limit {
		if w.errs > unreadableMax {
			return f, errUnreadable
		}
		if pos%w.block == 0 && batchAt(w, pos, life) {
			tail = pos
			pos += format.BatchBytes
			continue
		}
		if c, ok := recordAt(w, pos, life); ok {
			list = append(list, c)
			pos += c.entry.TotalBytes()
			continue
		}
		pos = nextMagic(w, pos+format.RecordAlign)
	}
	for _, c := range list {
		f.note(c, tail, w.block)
	}
	f.unreadable = w.errs
	return f, nil
}

// note keeps or drops one record.
func (f *found) note(c candidate, tail, block int64) {
	f.top = max(f.top, c.entry.Sequence)
	if c.bad && int64(c.entry.Offset) >= tail {
		f.torn++
		return
	}
	if c.bad {
		f.bad++
	}
	if f.low == 0 || c.entry.Sequence < f.low {
		f.low = c.entry.Sequence
	}
	f.entries = append(f.entries, c.entry)
	f.end = max(f.end, format.AlignUp(int64(c.entry.Offset)+c.entry.TotalBytes(), block))
}

func batchAt(w *window, pos int64, life format.Life) bool {
	p, err := w.span(pos, format.BatchBytes)
	if err != nil {
		return false
	}
	b, err := format.DecodeBatch(p, life.Disk)
	return err == nil && b.Generation == life.Generation && b.Salt == life.Salt && int64(b.Offset) == pos
}

func recordAt(w *window, pos int64, life format.Life) (candidate, bool) {
	p, err := w.span(pos, format.RecordBytes+format.KeyBytesMax)
	if err != nil {
		return candidate{}, false
	}
	h, err := format.DecodeRecord(p, life.Disk)
	if err != nil || h.Generation != life.Generation || h.Salt != life.Salt || int64(h.Offset) != pos {
		return candidate{}, false
	}
	c := candidate{entry: format.EntryOf(&h)}
	if pos+c.entry.TotalBytes() > w.limit {
		return candidate{}, false
	}
	c.bad = !w.trust && !soundData(w, &c.entry, life)
	return c, true
}

// soundData verifies every cell of the record.
func soundData(w *window, e *format.Entry, life format.Life) bool {
	seed := format.Cells(life, e.Stripe, e.Piece, e.Sequence, e.Offset)
	at := int64(e.Offset) + int64(e.HeadBytes)
	end := at + format.CodedBytes(e.DataBytes)
	for i := uint32(0); at < end; i++ {
		n := min(codedCell, end-at)
		p, err := w.span(at, n)
		if err != nil || int64(len(p)) != n {
			return false
		}
		if _, want, got := seed.CheckCell(i, p); want != got {
			return false
		}
		at += n
	}
	return true
}

var magicStart = []byte("ASH")

// nextMagic returns the next multiple of 8 from pos on at which a header may
// start, or the end of the segment.
func nextMagic(w *window, pos int64) int64 {
	for pos < w.limit {
		n := int64(windowBytes / 4)
		if pos < w.careful {
			n = w.block - pos%w.block
		}
		p, err := w.span(pos, n)
		if err != nil {
			if w.errs > unreadableMax {
				return w.limit
			}
			if n <= w.block {
				pos = format.AlignUp(pos+1, w.block)
			}
			continue
		}
		i := bytes.Index(p, magicStart)
		switch {
		case i < 0:
			pos = format.AlignUp(pos+int64(len(p))-format.RecordAlign+1, format.RecordAlign)
		case (pos+int64(i))%format.RecordAlign == 0:
			return pos + int64(i)
		default:
			pos = format.AlignUp(pos+int64(i)+1, format.RecordAlign)
		}
	}
	return w.limit
}

// salvage looks for the newest life of a segment whose headers and trailer are
// all lost, by its batch headers.
func salvage(w *window, disk ashlar.DiskID) (life format.Life, ok bool, err error) {
	for pos := 2 * w.block; pos+format.BatchBytes <= w.limit; pos += w.block {
		if w.errs > unreadableMax {
			return life, ok, errUnreadable
		}
		p, err := w.span(pos, format.BatchBytes)
		if err != nil {
			continue
		}
		b, err := format.DecodeBatch(p, disk)
		if err == nil && int64(b.Offset) == pos && b.Generation > life.Generation {
			life, ok = format.Life{Disk: disk, Generation: b.Generation, Salt: b.Salt}, true
		}
	}
	return life, ok, nil
}
