package stripe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/wire"
	"ashlar/ec"
	"ashlar/placement/topology"
)

var (
	errNotFormed = errors.New("the cluster is not formed yet")
	errClosing   = errors.New("the host is stopping")
	errAborted   = errors.New("the upload was given up")
	errTooLong   = errors.New("the body took longer than any may")
	errLate      = errors.New("the disk was too late for the others")
)

// WriteStripes stores the body; see wire.Stripes.
func (c *Coordinator) WriteStripes(ctx context.Context, req wire.WriteRequest, body io.Reader) (ashlar.Extent, error) {
	const op = "stripe: write"
	ctx, cancel := context.WithTimeoutCause(ctx, UploadMax, errTooLong)
	defer cancel()
	m, err := c.formed(op)
	if err != nil {
		return ashlar.Extent{}, err
	}
	u := &upload{
		c:       c,
		rec:     wire.RecorderOf(ctx),
		req:     req,
		memory:  c.cfg.Memory.Write,
		verdict: make(chan struct{}),
		ext: ashlar.Extent{
			Write:       ashlar.NewWriteID(),
			Part:        req.Part,
			StripeBytes: m.Settings.StripeBytes,
			SmallMax:    m.Settings.SmallMax,
			Large:       m.Settings.Large,
			Small:       m.Settings.Small,
		},
	}
	if req.Bytes >= 0 && req.Bytes <= wire.BriefBytesMax {
		u.memory = c.cfg.Memory.BriefWrite
	}
	u.body = &source{r: body, got: &u.receiving.bytes}
	u.interrupt, _ = body.(wire.Interrupter)
	c.uploads.add(u)
	if req.Bytes >= 0 {
		u.ext.Bytes = uint64(req.Bytes)
		err = u.known(ctx)
	} else {
		err = u.unknown(ctx)
	}
	if c.uploads.remove(u) && err != nil {
		err = errCrawls
	}
	if err == nil {
		err = u.settle(ctx, 0)
	}
	if err == nil && ctx.Err() != nil { // whoever counts on UploadMax may be at work already
		err = ashlar.E(op, fmt.Sprintf("write=%x", uint64(u.ext.Write)), ashlar.Unavailable, context.Cause(ctx))
	}
	u.finish(err == nil)
	if err != nil {
		return ashlar.Extent{}, err
	}
	return u.ext, nil
}

// upload is one WriteStripes under way. It belongs to the caller's goroutine.
type upload struct {
	c    *Coordinator
	rec  *wire.Recorder // nil if nobody watches
	req  wire.WriteRequest
	ext  ashlar.Extent
	body *source

	memory    *buffer.Share
	interrupt wire.Interrupter // of the body; nil if it has none
	receiving receiving

	flights []*flight // all that were started, in order
	settled int       // flights[:settled] have their quorum
	// verdict is closed by finish: only then do flights report what they missed.
	verdict chan struct{}
	kept    bool // written before verdict is closed
}

// known stores a body whose length was announced.
func (u *upload) known(ctx context.Context) error {
	for n := uint32(0); uint64(n)*uint64(u.ext.StripeBytes) < u.ext.Bytes; n++ {
		s := u.ext.Stripe(u.req.Bucket, u.req.Key, n)
		if err := u.stripe(ctx, s, u.body); err != nil {
			return err
		}
	}
	return u.body.end(u.ext.Bytes)
}

// unknown stores a body of unknown length: each stripe is gathered first,
// because its layout depends on its length.
func (u *upload) unknown(ctx context.Context) error {
	for n := uint32(0); ; n++ {
		full, err := u.gathered(ctx, n)
		if err != nil || !full {
			return err
		}
	}
}

// gathered stores stripe n and reports whether another one may follow.
func (u *upload) gathered(ctx context.Context, n uint32) (bool, error) {
	size := int(u.ext.StripeBytes)
	// The bytes gathered and the pieces are leased together: waiting for the
	// second while holding the first could deadlock.
	lease, err := u.lease(ctx, max(weight(u.ext.Large, size), weight(u.ext.Small, size))+buffer.Size(size))
	if err != nil {
		return false, err
	}
	defer lease.Close()
	gather, err := lease.Get(size)
	if err != nil {
		return false, err
	}
	defer gather.Release()
	got, err := u.body.fill(gather.B)
	u.receiving.end()
	if err != nil && err != io.EOF {
		return false, err
	}
	if got == 0 {
		return false, nil
	}
	u.ext.Bytes += uint64(got)
	s := u.ext.Stripe(u.req.Bucket, u.req.Key, n)
	return err == nil, u.send(ctx, s, &source{r: &sliceReader{gather.B[:got]}, got: new(atomic.Int64)}, lease)
}

// stripe leases memory for one stripe and sends it.
func (u *upload) stripe(ctx context.Context, s ashlar.Stripe, from *source) error {
	lease, err := u.lease(ctx, weight(s.Code, int(s.Bytes)))
	if err != nil {
		return err
	}
	defer lease.Close()
	return u.send(ctx, s, from, lease)
}

// lease waits for a place among the stripes under way, then for memory.
func (u *upload) lease(ctx context.Context, bytes int64) (*buffer.Lease, error) {
	if err := u.settle(ctx, flightsMax-1); err != nil {
		return nil, err
	}
	waiting, got := context.WithCancel(ctx)
	defer got()
	timer := time.AfterFunc(reclaimAfter, func() { u.c.hurry(waiting) }) // ends with waiting
	defer timer.Stop()
	tell := u.rec.Begin(wire.Step{Kind: wire.StepMemory, Host: u.c.cfg.Local})
	lease, err := u.memory.Lease(ctx, bytes)
	tell.End(err)
	if err == nil {
		u.receiving.begin(time.Now())
	}
	return lease, err
}

// weight is the memory that a stripe's pieces need.
func weight(code ashlar.Code, bytes int) int64 {
	n := code.Pieces()
	if code.K == 1 {
		n = 1 // all copies are sent from the same bytes
	}
	return int64(n) * buffer.Size(ec.NewLayout(code, bytes).PieceBytes())
}

// send reads one stripe from the body into its pieces and starts their flight.
func (u *upload) send(ctx context.Context, s ashlar.Stripe, from *source, lease *buffer.Lease) error {
	m, err := u.c.formed("stripe: write")
	if err != nil {
		return err
	}
	if err := canReachQuorum(m, s); err != nil {
		return err
	}
	p, err := newPieces(s, lease)
	if err != nil {
		return err
	}
	defer p.release()
	err = p.read(from)
	u.receiving.end()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return ashlar.E("stripe: write", s.ID.String(), ashlar.Unavailable, context.Cause(ctx))
	}
	f, err := u.c.launch(m, s, ashlar.Owner{Bucket: u.req.Bucket, Key: u.req.Key, Part: u.req.Part, Offset: s.Offset}, p, u)
	if err != nil {
		return err
	}
	u.flights = append(u.flights, f)
	return nil
}

// canReachQuorum refuses a stripe before its body is touched, if the map
// already says that too few disks are there.
func canReachQuorum(m *topology.Map, s ashlar.Stripe) error {
	live := 0
	for i := range s.Code.Pieces() {
		if m.Seat(s.ID, i).Live {
			live++
		}
	}
	if live < s.Code.Quorum() {
		return ashlar.E("stripe: write", s.ID.String(), ashlar.Unavailable,
			fmt.Errorf("%d disks of the group are up, %d needed", live, s.Code.Quorum()))
	}
	return nil
}

// settle waits until at most open flights still await their quorum.
func (u *upload) settle(ctx context.Context, open int) error {
	for len(u.flights)-u.settled > open {
		f := u.flights[u.settled]
		select {
		case err := <-f.quorum:
			if err != nil {
				return err
			}
			u.settled++
		case <-ctx.Done():
			return ashlar.E("stripe: write", f.stripe.ID.String(), ashlar.Unavailable, context.Cause(ctx))
		}
	}
	return nil
}

// finish tells the flights whether the upload stands. If it does not, what they
// stored is taken away once they have settled.
func (u *upload) finish(kept bool) {
	u.kept = kept
	close(u.verdict)
	if kept || len(u.flights) == 0 {
		return
	}
	for _, f := range u.flights {
		f.cancel(errAborted)
	}
	started := u.c.background(func() {
		for _, f := range u.flights {
			<-f.done
		}
		for _, f := range u.flights {
			// What cannot be deleted now is an orphan: its owner record names the
			// upload, which no object refers to.
			if err := u.c.deleteStripe(u.c.ctx, f.stripe); err != nil {
				u.c.cfg.Log.Warn("stripe: pieces of a failed upload are left over", "stripe", f.stripe.ID, "err", err)
			}
		}
	})
	if !started {
		u.c.cfg.Log.Warn("stripe: pieces of a failed upload are left over", "write", u.ext.Write, "err", errClosing)
	}
}

// stands waits for the verdict on the upload, or for the coordinator's end.
func (u *upload) stands() bool {
	select {
	case <-u.verdict:
	case <-u.c.ctx.Done():
		select {
		case <-u.verdict:
		default:
			return false
		}
	}
	return u.kept
}

// pieces are the buffers of one stripe on its way to the disks.
type pieces struct {
	stripe ashlar.Stripe
	layout ec.Layout
	coder  *ec.Coder
	bufs   []*buffer.Buf // one for each piece; the same one for all copies
	views  [][]byte      // the pieces' bytes: data, then parity
	sums   []uint32      // CRC-32C of each view
}

func newPieces(s ashlar.Stripe, lease *buffer.Lease) (*pieces, error) {
	coder, err := ec.For(s.Code)
	if err != nil {
		return nil, err
	}
	n := s.Code.Pieces()
	p := &pieces{
		stripe: s, coder: coder, layout: ec.NewLayout(s.Code, int(s.Bytes)),
		bufs: make([]*buffer.Buf, 0, n), views: make([][]byte, n), sums: make([]uint32, n),
	}
	for i := range n {
		if i > 0 && s.Code.K == 1 {
			p.bufs = append(p.bufs, p.bufs[0].Retain())
		} else {
			b, err := lease.Get(p.layout.PieceBytes())
			if err != nil {
				p.release()
				return nil, err
			}
			p.bufs = append(p.bufs, b)
		}
		p.views[i] = p.bufs[i].B
	}
	return p, nil
}

// release drops one holder of every buffer.
func (p *pieces) release() {
	for _, b := range p.bufs {
		b.Release()
	}
}

// read fills the data pieces from the body, and encodes and sums each row while
// it is hot. The body's own errors are returned as they are.
func (p *pieces) read(from *source) error {
	row := p.layout.RowBytes()
	for off := 0; off < p.layout.Bytes(); off += row {
		n := min(row, p.layout.Bytes()-off)
		for s := range p.layout.Spans(off, n) {
			if got, err := from.fill(p.views[s.Piece][s.Off : s.Off+s.Bytes]); err != nil {
				return short(err, p.stripe.Offset+uint64(s.At+got))
			}
		}
		lo := off / row * ec.Cell
		if err := p.encode(lo, min(lo+ec.Cell, p.layout.PieceBytes())); err != nil {
			return err
		}
	}
	return nil
}

func (p *pieces) encode(lo, hi int) error {
	if hi == p.layout.PieceBytes() {
		for s := range p.layout.Spans(p.layout.Bytes(), p.layout.Capacity()-p.layout.Bytes()) {
			clear(p.views[s.Piece][s.Off : s.Off+s.Bytes])
		}
	}
	if p.stripe.Code.K == 1 {
		p.sums[0] = ec.Sum(p.sums[0], p.views[0][lo:hi])
		for i := range p.sums[1:] {
			p.sums[1+i] = p.sums[0]
		}
		return nil
	}
	if err := p.coder.Encode(p.views, lo, hi); err != nil {
		return err
	}
	for i, v := range p.views {
		p.sums[i] = ec.Sum(p.sums[i], v[lo:hi])
	}
	return nil
}

// flight is one stripe between the first byte sent and the last disk's answer.
type flight struct {
	stripe ashlar.Stripe
	quorum chan error // one value: nil at quorum, or why there is none
	done   chan struct{}
	cancel context.CancelCauseFunc
}

// landing is the outcome of one piece.
type landing struct {
	index int
	err   error
}

// launch sends the pieces to their disks, owned by the coordinator. It keeps
// its own hold on the buffers.
func (c *Coordinator) launch(m *topology.Map, s ashlar.Stripe, owner ashlar.Owner, p *pieces, u *upload) (*flight, error) {
	deadline, stop := context.WithTimeout(c.ctx, c.cfg.PieceTimeout)
	ctx, cancel := context.WithCancelCause(deadline)
	f := &flight{stripe: s, quorum: make(chan error, 1), done: make(chan struct{}), cancel: cancel}
	written := time.Now()
	for _, b := range p.bufs {
		b.Retain()
	}
	started := c.background(func() {
		defer stop()
		defer close(f.done)
		results := make(chan landing, len(p.bufs))
		for i := range p.bufs {
			group, _ := m.Group(s.ID)
			piece := &wire.Piece{
				PieceID: wire.PieceID{Stripe: s.ID, Index: uint8(i)}, Group: group, Code: s.Code,
				StripeBytes: s.Bytes, Owner: owner, Written: written, Data: p.views[i], Sum: p.sums[i],
			}
			go func() { // ends with its call, which has the flight's deadline
				err := c.put(ctx, m, piece, u.rec)
				p.bufs[i].Release()
				results <- landing{i, err}
			}()
		}
		missed := f.collect(results, c.cfg.StragglerTimeout)
		if len(missed) == 0 {
			return
		}
		if !u.stands() {
			return
		}
		for _, i := range missed {
			c.cfg.Missed(Missed{
				PieceID: wire.PieceID{Stripe: s.ID, Index: uint8(i)}, Code: s.Code,
				StripeBytes: s.Bytes, Owner: owner, Written: written,
			})
		}
	})
	if !started {
		stop()
		p.release()
		return nil, ashlar.E("stripe: write", s.ID.String(), ashlar.Unavailable, errClosing)
	}
	return f, nil
}

// collect awaits every piece, announces the quorum as soon as it is reached or
// out of reach, and returns the pieces that failed.
// The stragglers then have grace left: they hold memory that others wait for.
func (f *flight) collect(results <-chan landing, grace time.Duration) (missed []int) {
	n, need := f.stripe.Code.Pieces(), f.stripe.Code.Quorum()
	durable, full, told := 0, 0, false
	var errs []error
	for range n {
		r := <-results
		if r.err == nil {
			durable++
		} else {
			missed = append(missed, r.index)
			errs = append(errs, r.err)
			if ashlar.Is(r.err, ashlar.Full) {
				full++
			}
		}
		switch {
		case told:
		case durable == need:
			f.quorum <- nil
			told = true
			late := time.AfterFunc(grace, func() { f.cancel(errLate) })
			defer late.Stop()
		case len(missed) > n-need:
			f.quorum <- ashlar.E("stripe: write", f.stripe.ID.String(), lossKind(len(missed)-full, n-need),
				fmt.Errorf("%d of %d pieces cannot be stored, %d needed: %w", len(missed), n, need, errors.Join(errs...)))
			told = true
		}
	}
	return missed
}

// lossKind is Full if the disks that are not full would have sufficed.
func lossKind(notFull, allowed int) ashlar.Kind {
	if notFull <= allowed {
		return ashlar.Full
	}
	return ashlar.Unavailable
}

// put stores one piece at its seat. It tries once more under a newer map if the
// first proves stale, and under the same if the bytes changed on the way.
func (c *Coordinator) put(ctx context.Context, m *topology.Map, p *wire.Piece, rec *wire.Recorder) error {
	for again := false; ; again = true {
		err := c.putOnce(ctx, m, p, rec)
		switch {
		case again || !ashlar.Is(err, ashlar.Stale) && !ashlar.Is(err, ashlar.Corrupt):
			return err
		case ashlar.Is(err, ashlar.Corrupt):
			continue
		}
		if m = c.newer(ctx, m.Epoch); m == nil {
			return err
		}
	}
}

func (c *Coordinator) putOnce(ctx context.Context, m *topology.Map, p *wire.Piece, rec *wire.Recorder) error {
	at := m.Seat(p.Stripe, int(p.Index))
	tell := rec.Begin(wire.Step{Kind: wire.StepWrite, Host: at.Host, Disk: at.Disk})
	p.Disk, p.Epoch = at.Disk, m.Epoch
	err := c.putAt(ctx, at, p)
	if context.Cause(ctx) == errAborted {
		tell.Forget()
	}
	tell.End(err)
	return err
}

func (c *Coordinator) putAt(ctx context.Context, at topology.Seat, p *wire.Piece) error {
	if !at.Live {
		return ashlar.E("stripe: put", at.Disk.String(), ashlar.Unavailable, errors.New("the disk is not up"))
	}
	host, err := c.cfg.Dial(at.Host)
	if err != nil {
		return ashlar.E("stripe: put", "host="+at.Host.String(), ashlar.Unavailable, err)
	}
	return host.PutPiece(ctx, p)
}
