package stripe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/wire"
	"ashlar/ec"
)

var errClosed = errors.New("the stream is closed")

// ReadStripes returns a stream of verified bytes; see wire.Stripes. The stream
// is also an io.WriterTo, which copies nothing. It must not be used by two
// goroutines at once.
func (c *Coordinator) ReadStripes(ctx context.Context, req wire.ReadRequest) (io.ReadCloser, error) {
	var total uint64
	for _, e := range req.Extents {
		if e.Bytes > 0 && (e.StripeBytes == 0 || !possible(e.Large) || !possible(e.Small)) {
			return nil, ashlar.E("stripe: read", "", ashlar.Invalid, fmt.Errorf("impossible extent %+v", e))
		}
		total += e.Bytes
	}
	if req.Off > total || req.Length > total-req.Off {
		return nil, ashlar.E("stripe: read", "", ashlar.Invalid,
			fmt.Errorf("%d bytes from %d of %d", req.Length, req.Off, total))
	}
	r := &stream{c: c, left: req.Length}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ctx, r.cancel = context.WithCancel(ctx)
	if req.Length == 0 {
		return r, nil
	}
	if err := r.open(req); err != nil {
		r.free()
		return nil, err
	}
	r.handed()
	c.streams.add(r)
	return r, nil
}

// cursor walks a read request unit by unit.
type cursor struct {
	req  wire.ReadRequest
	rows int // rows of a full unit
	at   int // the extent
	off  uint64
	left uint64
}

func newCursor(req wire.ReadRequest, rows int) cursor {
	q := cursor{req: req, rows: rows, off: req.Off, left: req.Length}
	for q.at < len(req.Extents) && q.off >= req.Extents[q.at].Bytes {
		q.off -= req.Extents[q.at].Bytes
		q.at++
	}
	return q
}

// next returns the next unit. It ends at a row, so that the one after it starts
// at one and no cell is read twice.
func (q *cursor) next() (unit, bool) {
	if q.left == 0 {
		return unit{}, false
	}
	e := q.req.Extents[q.at]
	s := e.Stripe(q.req.Bucket, q.req.Key, uint32(q.off/uint64(e.StripeBytes)))
	off, row := int(q.off-s.Offset), ec.NewLayout(s.Code, int(s.Bytes)).RowBytes()
	end := min(int(s.Bytes), off/row*row+rowsFor(s.Code, q.rows)*row)
	n := int(min(uint64(end-off), q.left))
	q.left -= uint64(n)
	q.off += uint64(n)
	for q.left > 0 && q.off >= q.req.Extents[q.at].Bytes {
		q.off -= q.req.Extents[q.at].Bytes
		q.at++
	}
	owner := ashlar.Owner{Bucket: q.req.Bucket, Key: q.req.Key, Part: e.Part, Offset: s.Offset}
	return unit{stripe: s, owner: owner, off: off, n: n}, true
}

// rowsFor makes a unit of a narrow code as long as one of eight pieces.
func rowsFor(code ashlar.Code, rows int) int { return max(1, rows*8/max(1, int(code.K))) }

// weight is the most memory that any unit from here on needs.
func (q cursor) weight() (read, rebuild int64) {
	first, ok := q.next()
	if !ok {
		return 0, 0
	}
	if q.left == 0 {
		return weightOf(first), rebuildWeight(first.stripe.Code, ec.NewLayout(first.stripe.Code, int(first.stripe.Bytes)).Columns(first.off, first.n).Len())
	}
	for _, e := range q.req.Extents {
		for _, code := range [2]ashlar.Code{e.Large, e.Small} {
			height := min(rowsFor(code, q.rows)*ec.Cell, ec.NewLayout(code, int(e.StripeBytes)).PieceBytes())
			read = max(read, int64(code.K)*buffer.Size(height))
			rebuild = max(rebuild, rebuildWeight(code, height))
		}
	}
	return read, rebuild
}

// rebuildWeight is the memory to rebuild lost columns: k sources, and for each
// piece that may be late or lost one buffer more.
func rebuildWeight(code ashlar.Code, columns int) int64 {
	return int64(code.Pieces()+int(code.K)) * buffer.Size(columns)
}

// stream is one read under way. Its lease is taken before the first byte and
// kept to the end, or until others need it more: it never waits for memory while
// a consumer waits for it.
type stream struct {
	c      *Coordinator
	ctx    context.Context
	cancel context.CancelFunc
	// idle is when the consumer got its last bytes, in Unix nanoseconds, or 0
	// while it waits for some.
	idle atomic.Int64

	mu     sync.Mutex // held by the consumer's calls, but for its own writing, and by reclaim
	cursor cursor
	leases []*buffer.Lease // one, or two if there was memory for reading ahead
	turn   int             // the lease that the next fetch uses

	left  uint64 // bytes that the consumer has not got
	now   *window
	done  int          // bytes of now that were consumed
	ahead chan fetched // the fetch under way, nil if none
	err   error
}

type fetched struct {
	w   *window
	err error
}

// open leases memory and fetches the first window.
func (r *stream) open(req wire.ReadRequest) error {
	share := r.c.cfg.Memory.Read
	if req.Length <= wire.BriefBytesMax {
		share = r.c.cfg.Memory.BriefRead
	}
	rows := max(1, r.c.cfg.WindowBytes/(8*ec.Cell))
	if share.Used() > share.Budget()/2 {
		rows = max(1, rows/4) // leave room for more streams than fit at full size
	}
	var need int64
	for ; ; rows /= 2 { // as large as the budgets and the present use allow
		r.cursor = newCursor(req, rows)
		var rebuild int64
		need, rebuild = r.cursor.weight()
		if rebuild <= r.c.cfg.Memory.Rebuild.Budget() || rows == 1 {
			if l := share.TryLease(need); l != nil {
				r.leases = append(r.leases, l)
				break
			}
		}
		if rows == 1 {
			tell := wire.RecorderOf(r.ctx).Begin(wire.Step{Kind: wire.StepMemory, Host: r.c.cfg.Local})
			l, err := r.c.leaseRead(r.ctx, share, need)
			tell.End(err)
			if err != nil {
				return err
			}
			r.leases = append(r.leases, l)
			break
		}
	}
	w, err := r.fetch()
	if err != nil {
		return err
	}
	r.now = w
	if r.cursor.left > 0 {
		if l := share.TryLease(need); l != nil {
			r.leases = append(r.leases, l)
			r.readAhead()
		}
	}
	return nil
}

func (r *stream) fetch() (*window, error) {
	u, ok := r.cursor.next()
	if !ok {
		return nil, io.EOF
	}
	lease := r.leases[r.turn%len(r.leases)]
	r.turn++
	return r.c.fetch(r.ctx, lease, u)
}

// readAhead starts the fetch of the next window, which has a lease of its own.
func (r *stream) readAhead() {
	if len(r.leases) < 2 || r.cursor.left == 0 {
		return
	}
	ahead := make(chan fetched, 1)
	r.ahead = ahead
	go func() { // ends with the fetch, which Close cancels
		w, err := r.fetch()
		ahead <- fetched{w, err}
	}()
}

// advance makes now a window with bytes to consume.
func (r *stream) advance() error {
	if r.err != nil {
		return r.err
	}
	if r.left == 0 {
		r.free() // the consumer may keep an exhausted stream open for long
		return io.EOF
	}
	if r.now != nil && r.done < r.now.n {
		return nil
	}
	if r.now != nil {
		r.now.release()
		r.now = nil
	}
	r.done = 0
	if r.ahead != nil {
		got := <-r.ahead
		r.ahead = nil
		r.now, r.err = got.w, got.err
	} else {
		r.now, r.err = r.fetch()
	}
	if r.err == nil {
		r.readAhead()
	}
	return r.err
}

// handed notes that the consumer has bytes to deal with.
func (r *stream) handed() { r.idle.Store(time.Now().UnixNano()) }

// Read copies the next bytes.
func (r *stream) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle.Store(0)
	defer r.handed()
	if err := r.advance(); err != nil {
		return 0, err
	}
	n := 0
	for s := range r.now.layout.Spans(r.now.off+r.done, min(len(p), r.now.n-r.done)) {
		n += copy(p[n:], r.now.bytes(s))
	}
	r.done += n
	r.left -= uint64(n)
	return n, nil
}

// WriteTo hands the remaining bytes to w, cell by cell, from where they were
// read to.
func (r *stream) WriteTo(w io.Writer) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var sum int64
	for {
		r.idle.Store(0)
		switch err := r.advance(); {
		case err == io.EOF:
			return sum, nil
		case err != nil:
			return sum, err
		}
		for s := range r.now.layout.Spans(r.now.off+r.done, r.now.n-r.done) {
			n, err := r.write(w, s)
			sum += int64(n)
			if err != nil {
				return sum, err
			}
		}
	}
}

// write hands one cell to w. The memory of the others may be reclaimed meanwhile.
func (r *stream) write(w io.Writer, s ec.Span) (int, error) {
	b := r.now.bytes(s)
	held := r.now.parts[s.Piece].buf.Retain()
	r.handed()
	r.mu.Unlock()
	n, err := w.Write(b)
	held.Release()
	r.mu.Lock()
	r.done += n
	r.left -= uint64(n)
	if err == nil {
		err = r.err
	}
	return n, err
}

// Close ends the stream and gives its memory back.
func (r *stream) Close() error {
	r.c.streams.remove(r)
	r.cancel() // before the lock: a read under way ends
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != errClosed {
		r.err = errClosed
		r.free()
	}
	return nil
}

// free ends the reads and returns the memory.
func (r *stream) free() {
	r.cancel()
	if r.ahead != nil {
		got := <-r.ahead
		r.ahead = nil
		if got.w != nil {
			got.w.release()
		}
	}
	if r.now != nil {
		r.now.release()
		r.now = nil
	}
	for _, l := range r.leases {
		l.Close()
	}
}

func possible(code ashlar.Code) bool { return code.K > 0 && code.Pieces() <= ashlar.PiecesMax }
