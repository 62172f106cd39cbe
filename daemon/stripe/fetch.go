package stripe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/wire"
	"ashlar/ec"
	"ashlar/placement/topology"
)

// asked is the state of one piece in a fetch.
type asked uint8

const (
	idle    asked = iota // may be asked
	flying               // being read
	good                 // read and verified
	failed               // cannot be had
	avoided              // on a disk that is late too often; the last resort
)

// answer is the outcome of one read.
type answer struct {
	piece int
	extra bool // a read of all columns, for rebuilding
	buf   *buffer.Buf
	err   error
	took  time.Duration
}

// fetch reads one unit. It belongs to one goroutine; reads report to answers.
//
// Every data piece that holds bytes of the unit is asked for its own range.
// When one of them fails or is late, pieces are asked for cols, the columns
// that cover all those ranges, until k of them are there.
type fetch struct {
	c      *Coordinator
	m      *topology.Map
	u      unit
	layout ec.Layout
	cols   ec.Range
	lease  *buffer.Lease // of the stream: pays for parts
	extra  *buffer.Lease // of the rebuild share; nil until it is needed
	ctx    context.Context
	rec    *wire.Recorder // nil if nobody watches

	need  []ec.Range // by data piece; Hi = 0: not needed
	parts []part     // results, by data piece
	own   [ashlar.PiecesMax]asked
	ownAt [ashlar.PiecesMax]*buffer.Buf // where own reads fly to
	tells [ashlar.PiecesMax]*wire.Call  // what is told of own reads
	all   [ashlar.PiecesMax]asked       // reads of cols for rebuilding
	cells [ashlar.PiecesMax]*buffer.Buf // their results

	answers chan answer
	flights int
	errs    []error
	hurt    []int // pieces that live disks have lost or changed
	stale   bool
	copyOf  int // with k = 1: the copy that was asked first
}

// fetch reads and verifies one unit, under a newer map if the first was stale.
// The window's buffers are drawn from the lease.
func (c *Coordinator) fetch(ctx context.Context, lease *buffer.Lease, u unit) (*window, error) {
	m, err := c.formed("stripe: read")
	for again := false; err == nil; again = true {
		var w *window
		var stale bool
		w, stale, err = c.fetchOnce(ctx, m, lease, u)
		if err == nil || again || !stale {
			return w, err
		}
		if m = c.newer(ctx, m.Epoch); m == nil {
			return nil, err
		}
		err = nil
	}
	return nil, err
}

func (c *Coordinator) fetchOnce(ctx context.Context, m *topology.Map, lease *buffer.Lease, u unit) (*window, bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	f := &fetch{
		c: c, m: m, u: u, lease: lease, ctx: ctx, rec: wire.RecorderOf(ctx),
		layout: ec.NewLayout(u.stripe.Code, int(u.stripe.Bytes)),
	}
	f.cols = f.layout.Columns(u.off, u.n)
	f.need = f.layout.Ranges(nil, u.off, u.n)
	f.parts = make([]part, len(f.need))
	// Each piece is asked at most twice: for its own range and for all columns.
	f.answers = make(chan answer, 2*u.stripe.Code.Pieces())
	err := f.run()
	f.end(cancel, err != nil && f.stale)
	w := &window{layout: f.layout, off: u.off, n: u.n, parts: f.parts}
	if err != nil {
		w.release()
		return nil, f.stale, err
	}
	for _, i := range f.hurt {
		c.cfg.Missed(Missed{
			PieceID: wire.PieceID{Stripe: u.stripe.ID, Index: uint8(i)}, Code: u.stripe.Code,
			StripeBytes: u.stripe.Bytes, Owner: u.owner,
		})
	}
	return w, false, nil
}

// end cancels the reads that are still out and lets go of everything that is
// not part of the result. Reads that come back later release their own buffers;
// wait waits for them, so that the stream's lease can be used again.
func (f *fetch) end(cancel context.CancelFunc, wait bool) {
	cancel()
	for i := range f.cells {
		for _, b := range [2]*buffer.Buf{f.cells[i], f.ownAt[i]} {
			if b != nil {
				b.Release()
			}
		}
	}
	if f.extra != nil {
		f.extra.Close()
	}
	left, answers := f.flights, f.answers
	drain := func() {
		for range left {
			(<-answers).buf.Release()
		}
	}
	switch {
	case wait:
		drain()
	case left > 0:
		go drain() // ends when the cancelled reads have returned
	}
}

func (f *fetch) run() error {
	if err := f.askOwn(); err != nil {
		return err
	}
	hedge := time.NewTimer(f.c.late.after(f.cols.Len()))
	defer hedge.Stop()
	for !f.complete() {
		if f.lost() > 0 {
			if err := f.widen(true); err != nil {
				return err
			}
		}
		if done, err := f.rebuild(); done || err != nil {
			return err
		}
		select {
		case a := <-f.answers:
			f.flights--
			f.take(a)
		case <-hedge.C:
			if err := f.widen(false); err != nil {
				return err
			}
			hedge.Reset(f.c.late.after(f.cols.Len()))
		case <-f.ctx.Done():
			return ashlar.E("stripe: read", f.u.stripe.ID.String(), ashlar.Unavailable, context.Cause(f.ctx))
		}
	}
	return nil
}

// askOwn starts the reads of the data pieces that hold the unit.
func (f *fetch) askOwn() error {
	for i, r := range f.need {
		if r.Hi == 0 {
			f.own[i] = good
			continue
		}
		piece := i
		if f.u.stripe.Code.K == 1 {
			piece = f.nearest()
			f.copyOf = piece
		}
		at := f.m.Seat(f.u.stripe.ID, piece)
		if !at.Live {
			f.own[i] = failed
			f.errs = append(f.errs, fmt.Errorf("piece %d: its disk is not up", piece))
			continue
		}
		if f.c.slow.avoid(at.Disk) {
			f.own[i] = avoided
			continue
		}
		buf, err := f.lease.Get(r.Len())
		if err != nil {
			return err
		}
		f.own[i], f.ownAt[i] = flying, buf
		f.tells[i] = f.start(piece, at, r, buf, false)
	}
	return nil
}

// nearest returns the copy to ask first: this host's own, else the first on a
// disk that is up and not known to be slow.
func (f *fetch) nearest() int {
	first := -1
	for i := range f.u.stripe.Code.Pieces() {
		at := f.m.Seat(f.u.stripe.ID, i)
		switch {
		case !at.Live || f.c.slow.avoid(at.Disk):
		case at.Host == f.c.cfg.Local:
			return i
		case first < 0:
			first = i
		}
	}
	return max(0, first)
}

// start reads columns r of a piece into buf and reports to answers.
func (f *fetch) start(piece int, at topology.Seat, r ec.Range, buf *buffer.Buf, extra bool) *wire.Call {
	f.flights++
	buf.Retain() // the read's hold; the answer passes it on
	req := wire.PieceRange{
		PieceID: wire.PieceID{Stripe: f.u.stripe.ID, Index: uint8(piece)},
		Disk:    at.Disk, Epoch: f.m.Epoch, Off: uint32(r.Lo),
	}
	ctx, cancel := context.WithTimeout(f.ctx, f.c.cfg.ReadTimeout)
	c, answers, whole := f.c, f.answers, f.ctx
	tell := f.rec.Begin(wire.Step{Kind: wire.StepRead, Host: at.Host, Disk: at.Disk})
	go func() { // ends with its call, which has a deadline
		defer cancel()
		begin := time.Now()
		host, err := c.cfg.Dial(at.Host)
		if err == nil {
			err = host.GetPiece(ctx, req, buf.B)
		}
		took := time.Since(begin)
		if err != nil && whole.Err() != nil { // nobody wants it any more
			tell.Forget()
		}
		tell.End(err)
		c.slow.seen(at.Disk, err == nil, ctx.Err() == context.DeadlineExceeded)
		answers <- answer{piece: piece, extra: extra, buf: buf, err: err, took: took}
	}()
	return tell
}

// take files one answer.
func (f *fetch) take(a answer) {
	i := a.piece
	if a.err != nil {
		a.buf.Release()
		f.errs = append(f.errs, fmt.Errorf("piece %d: %w", i, a.err))
		f.stale = f.stale || ashlar.Is(a.err, ashlar.Stale)
		if ashlar.Is(a.err, ashlar.NotFound) || ashlar.Is(a.err, ashlar.Corrupt) {
			f.hurt = append(f.hurt, i)
		}
	} else {
		f.c.late.seen(len(a.buf.B), a.took)
	}
	if a.extra {
		f.takeExtra(a)
		return
	}
	if f.u.stripe.Code.K == 1 {
		i = 0 // any copy is the data piece
	}
	f.ownAt[i].Release() // one hold is left: the answer's
	f.ownAt[i] = nil
	if a.err != nil {
		f.own[i] = failed
		return
	}
	f.own[i] = good
	f.parts[i] = part{buf: a.buf, lo: f.need[i].Lo}
}

func (f *fetch) takeExtra(a answer) {
	f.cells[a.piece].Release()
	f.cells[a.piece] = nil
	f.all[a.piece] = failed
	if a.err == nil {
		f.all[a.piece], f.cells[a.piece] = good, a.buf
	}
}

func (f *fetch) complete() bool {
	for i := range f.need {
		if f.own[i] != good {
			return false
		}
	}
	return true
}

// lost is the number of needed pieces that will not come by themselves.
func (f *fetch) lost() (n int) {
	for i := range f.need {
		if f.own[i] == failed || f.own[i] == avoided {
			n++
		}
	}
	return n
}

// whole reports whether a data piece's own range is all of the columns.
func (f *fetch) whole(i int) bool { return i < len(f.need) && f.need[i] == f.cols }

// sources counts the pieces whose columns are here, and those that are here or
// on their way.
func (f *fetch) sources() (here, coming int) {
	striped := f.u.stripe.Code.K > 1
	for i := range f.u.stripe.Code.Pieces() {
		switch own := striped && f.whole(i); {
		case f.all[i] == good || own && f.own[i] == good:
			here++
		case f.all[i] == flying || own && f.own[i] == flying:
			coming++
		}
	}
	return here, here + coming
}

// widen asks more pieces for all columns. After a failure (must) it asks for as
// many as are needed and fails if they are not to be had. For late pieces it
// asks for as many as would do without them, as far as hedges may be spent.
func (f *fetch) widen(must bool) error {
	if f.extra == nil {
		if ok, err := f.leaseExtra(must); !ok || err != nil {
			return err
		}
	}
	n, k := f.u.stripe.Code.Pieces(), int(f.u.stripe.Code.K)
	asked := 0
	for i := range 2 * n { // the slow disks only in the second round
		here, coming := f.sources()
		if !must {
			coming = here + asked
		}
		if coming >= k {
			return nil
		}
		if !must && !f.c.late.spend() {
			return nil
		}
		ok, err := f.askExtra(i%n, i >= n)
		if err != nil {
			return err
		}
		if ok {
			asked++
		} else if !must {
			f.c.late.refund()
		}
	}
	if _, coming := f.sources(); must && coming < k {
		return f.tooFew()
	}
	return nil
}

// leaseExtra takes the memory for rebuilding: k sources at most, and room for
// the late reads whose buffers must be replaced. Nothing is waited for to hedge.
func (f *fetch) leaseExtra(must bool) (bool, error) {
	bytes := rebuildWeight(f.u.stripe.Code, f.cols.Len())
	if !must {
		f.extra = f.c.cfg.Memory.Rebuild.TryLease(bytes)
		return f.extra != nil, nil
	}
	lease, err := f.c.cfg.Memory.Rebuild.Lease(f.ctx, bytes)
	f.extra = lease
	return err == nil, err
}

// askExtra starts a read of all columns of a piece, unless that was tried, the
// piece has them already, or its disk is slow and slow ones are not asked yet.
func (f *fetch) askExtra(i int, slowToo bool) (bool, error) {
	if f.all[i] != idle || f.tried(i) {
		return false, nil
	}
	at := f.m.Seat(f.u.stripe.ID, i)
	if !at.Live {
		f.all[i] = failed
		f.errs = append(f.errs, fmt.Errorf("piece %d: its disk is not up", i))
		return false, nil
	}
	if !slowToo && f.c.slow.avoid(at.Disk) {
		return false, nil
	}
	buf, err := f.extra.Get(f.cols.Len())
	if err != nil {
		return false, err
	}
	f.all[i], f.cells[i] = flying, buf
	f.start(i, at, f.cols, buf, true)
	return true, nil
}

// tried reports whether the read of a piece's own range makes another one
// pointless: it failed, or it covers all the columns.
func (f *fetch) tried(i int) bool {
	if f.u.stripe.Code.K == 1 {
		return i == f.copyOf && f.own[0] != avoided
	}
	if i >= len(f.need) || f.need[i].Hi == 0 || f.own[i] == avoided {
		return false
	}
	return f.own[i] == failed || f.whole(i)
}

// rebuild reconstructs the needed pieces that are not there, if k sources are.
func (f *fetch) rebuild() (bool, error) {
	if here, _ := f.sources(); f.extra == nil || here < int(f.u.stripe.Code.K) {
		return false, nil
	}
	n := f.u.stripe.Code.Pieces()
	have, want := make([][]byte, n), make([][]byte, n)
	for i := range n {
		switch {
		case f.all[i] == good:
			have[i] = f.cells[i].B
		case f.whole(i) && f.own[i] == good && f.parts[i].buf != nil:
			have[i] = f.parts[i].buf.B
		}
	}
	for i := range f.need {
		if f.own[i] == good {
			continue
		}
		if err := f.place(i); err != nil {
			return false, err
		}
		want[i] = f.parts[i].buf.B
		if f.need[i] != f.cols { // only part of the columns is kept
			b, err := f.extra.Get(f.cols.Len())
			if err != nil {
				return false, err
			}
			defer b.Release()
			want[i] = b.B
		}
	}
	coder, err := ec.For(f.u.stripe.Code)
	if err == nil {
		err = coder.Reconstruct(have, want)
	}
	if err != nil {
		return false, err
	}
	for i := range f.need {
		if want[i] != nil && f.need[i] != f.cols {
			copy(f.parts[i].buf.B, want[i][f.need[i].Lo-f.cols.Lo:])
		}
	}
	return true, nil
}

// place gives a piece that is to be rebuilt a buffer of the stream's lease. If
// a late read still flies to the first one, that one is paid for by the rebuild
// share from now on: it must not be touched until the read has returned.
func (f *fetch) place(i int) error {
	if late := f.ownAt[i]; late != nil {
		f.c.slow.late(f.m.Seat(f.u.stripe.ID, f.asked(i)).Disk)
		f.tells[i].Late()
		moved := late.Move(f.extra)
		late.Release()
		f.ownAt[i] = nil
		if !moved {
			return ashlar.E("stripe: read", f.u.stripe.ID.String(), ashlar.Internal, errors.New("the rebuild lease is too small"))
		}
	}
	b, err := f.lease.Get(f.need[i].Len())
	if err != nil {
		return err
	}
	f.parts[i] = part{buf: b, lo: f.need[i].Lo}
	return nil
}

// asked is the piece whose read serves data piece i.
func (f *fetch) asked(i int) int {
	if f.u.stripe.Code.K == 1 {
		return f.copyOf
	}
	return i
}

// tooFew is the error of a unit with fewer than k good pieces. What the disks
// said is kept as text only: a missing piece is not a missing object.
func (f *fetch) tooFew() error {
	return ashlar.E("stripe: read", f.u.stripe.ID.String(), ashlar.Unavailable,
		fmt.Errorf("fewer than %d good pieces: %v", f.u.stripe.Code.K, errors.Join(f.errs...)))
}
