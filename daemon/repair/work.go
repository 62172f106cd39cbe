package repair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/stripe"
	"ashlar/daemon/wire"
	"ashlar/ec"
	"ashlar/placement/topology"
)

// run goes through the queue until ctx ends.
func (q *Queue) run(ctx context.Context) {
	defer close(q.done)
	pause := pauseMin
	for ctx.Err() == nil {
		m := q.cfg.Maps()
		if m.Formed() {
			begin := time.Now()
			jobs := q.snapshot(m)
			gap := max(gapMin, gapFactor*time.Since(begin))
			if q.round(ctx, m, jobs) > 0 {
				pause = pauseMin
			}
			select {
			case <-time.After(gap):
			case <-ctx.Done():
			}
		}
		if q.rest(ctx, m, pause) {
			pause = pauseMin
		} else {
			pause = min(2*pause, pauseMax)
		}
	}
}

// rest pauses. It reports true if something new ended the pause.
func (q *Queue) rest(ctx context.Context, m *topology.Map, pause time.Duration) bool {
	end := time.NewTimer(pause)
	defer end.Stop()
	poll := time.NewTicker(mapPoll)
	defer poll.Stop()
	for {
		select {
		case <-q.wake:
			return true
		case <-poll.C:
			if now := q.cfg.Maps(); now.Formed() && (m == nil || now.Epoch != m.Epoch) {
				return true
			}
		case <-end.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// round tries every stripe once, in order, and returns the number of pieces that
// left the queue.
func (q *Queue) round(ctx context.Context, m *topology.Map, jobs []job) int {
	before := q.Stats()
	next := make(chan job)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for j := range next {
				q.attempt(ctx, m, j)
			}
		})
	}
feed:
	for _, j := range jobs {
		select {
		case next <- j:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	after := q.Stats()
	return int(after.Repaired + after.Present + after.Gone - before.Repaired - before.Present - before.Gone)
}

// snapshot returns the stripes that can be worked on, the ones most at risk first.
func (q *Queue) snapshot(m *topology.Map) []job {
	var jobs []job
	now := time.Now()
	q.mu.Lock()
	for _, j := range q.mu.stripes {
		if !now.Before(j.next) && j.possible(m) {
			jobs = append(jobs, *j)
		}
	}
	q.mu.Unlock()
	slices.SortFunc(jobs, func(a, b job) int {
		// What is left above the minimum decides, not what was there.
		if d := (int(a.missed.Code.M) - a.count) - (int(b.missed.Code.M) - b.count); d != 0 {
			return d
		}
		return a.missed.Written.Compare(b.missed.Written)
	})
	return jobs
}

// possible reports whether any of the missing pieces has a disk to go to.
func (j *job) possible(m *topology.Map) bool {
	for i := range j.missed.Code.Pieces() {
		if j.missing[i] && m.Seat(j.missed.Stripe, i).Live {
			return true
		}
	}
	return false
}

// attempt repairs what can be repaired of a stripe.
func (q *Queue) attempt(ctx context.Context, m *topology.Map, j job) {
	ctx, cancel := context.WithTimeout(ctx, stripeMax)
	defer cancel()
	w := &work{q: q, m: m, job: j, ctx: ctx, layout: ec.NewLayout(j.missed.Code, int(j.missed.StripeBytes))}
	defer w.release()
	if err := w.run(); err != nil && ctx.Err() == nil {
		q.stats.failed.Add(1)
		q.putOff(j.missed.Stripe)
		q.cfg.Log.Warn("repair: try again later", "stripe", j.missed.Stripe, "missing", j.count, "err", err)
	}
}

// putOff lets a stripe rest that failed.
func (q *Queue) putOff(id ashlar.StripeID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if j := q.mu.stripes[id]; j != nil {
		j.rest = min(max(2*j.rest, pauseMin), pauseMax)
		j.next = time.Now().Add(j.rest)
	}
}

// columnBytes is how much of each piece is read at once, if there is memory.
const columnBytes = 512 * ashlar.KiB

// errGone says that the stripe was deleted.
var errGone = errors.New("the stripe was deleted")

// work is the repair of one stripe. It belongs to one goroutine.
type work struct {
	q      *Queue
	m      *topology.Map
	job    job
	ctx    context.Context
	layout ec.Layout
	lease  *buffer.Lease
	held   []*buffer.Buf

	column  int   // bytes of each piece that are read at once
	room    int   // the most pieces that there is memory to make
	todo    []int // the missing pieces that are made now
	scratch [][]byte
	gone    [ashlar.PiecesMax]bool // a live disk does not have it
	bad     [ashlar.PiecesMax]bool // not to be asked again
	used    [ashlar.PiecesMax]bool // served as a source
	errs    []error
}

func (w *work) release() {
	for _, b := range w.held {
		b.Release()
	}
	if w.lease != nil {
		w.lease.Close()
	}
}

func (w *work) id(i int) wire.PieceID {
	return wire.PieceID{Stripe: w.job.missed.Stripe, Index: uint8(i)}
}

func (w *work) seat(i int) topology.Seat { return w.m.Seat(w.job.missed.Stripe, i) }

func (w *work) run() error {
	if err := w.space(); err != nil {
		return err
	}
	for i := range w.job.missed.Code.Pieces() {
		if !w.job.missing[i] || !w.seat(i).Live || len(w.todo) == w.room {
			continue
		}
		if err := w.look(i); err != nil {
			return err
		}
	}
	if len(w.todo) == 0 {
		return nil
	}
	made, err := w.rebuild()
	if err == errGone {
		w.forgetStripe()
		return nil
	}
	for n := 0; n < len(w.todo) && err == nil; n++ {
		err = w.store(w.todo[n], made[n])
	}
	return err
}

// space leases what the stripe needs at most: a column of k sources and one to
// compare with, and the pieces to make.
func (w *work) space() (err error) {
	k, size, budget := int(w.job.missed.Code.K), w.layout.PieceBytes(), w.q.cfg.Memory.Budget()
	weight := func() int64 {
		return int64(k+1)*buffer.Size(min(w.column, size)) + int64(w.room)*buffer.Size(size)
	}
	w.column, w.room = columnBytes, w.job.count
	for weight() > budget && w.column > ec.Cell { // a small host reads less at once
		w.column /= 2
	}
	for weight() > budget && w.room > 1 { // and makes the other pieces in the next round
		w.room--
	}
	if w.lease, err = w.q.cfg.Memory.Lease(w.ctx, weight()); err != nil {
		return err
	}
	for range k + 1 {
		b, err := w.get(min(w.column, size))
		if err != nil {
			return err
		}
		w.scratch = append(w.scratch, b)
	}
	return nil
}

func (w *work) get(n int) ([]byte, error) {
	b, err := w.lease.Get(n)
	if err != nil {
		return nil, err
	}
	w.held = append(w.held, b)
	return b.B, nil
}

// unreadableRest is the rest after which a piece that its disk has, but cannot
// read, is made again.
const unreadableRest = 2 * pauseMin

// look reads a missing piece, header and all: it is to be made if it is not
// there, not right, or was not to be read several times.
func (w *work) look(i int) error {
	err := w.columns(func(lo, hi int) error { return w.read(i, lo, w.scratch[0][:hi-lo]) })
	if err == nil {
		_, err = w.describe(i)
		if !ashlar.Is(err, ashlar.Corrupt) {
			err = nil // its header is right, or it is as good as its host can tell
		}
	}
	switch {
	case err == nil:
		w.q.stats.present.Add(1)
		w.q.forget(w.id(i))
		return nil
	case ashlar.Is(err, ashlar.Unavailable) && w.job.rest >= unreadableRest && w.has(i):
		w.todo = append(w.todo, i) // a place that cannot be read, on a disk that serves
		return nil
	case ashlar.Is(err, ashlar.NotFound), ashlar.Is(err, ashlar.Corrupt), ashlar.Is(err, ashlar.Invalid):
		w.gone[i] = ashlar.Is(err, ashlar.NotFound)
		w.todo = append(w.todo, i)
		return nil
	}
	return err
}

// columns calls f for one column range after another.
func (w *work) columns(f func(lo, hi int) error) error {
	for lo := 0; lo < w.layout.PieceBytes(); lo += w.column {
		if err := f(lo, min(lo+w.column, w.layout.PieceBytes())); err != nil {
			return err
		}
	}
	return nil
}

// read fills dst with verified bytes of a piece, within the rate.
func (w *work) read(i, off int, dst []byte) error {
	if err := w.q.limit.WaitN(w.ctx, min(len(dst), w.q.limit.Burst())); err != nil {
		return ashlar.E("repair: read", "", ashlar.Unavailable, err)
	}
	at := w.seat(i)
	host, err := w.q.cfg.Dial(at.Host)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(w.ctx, callMax)
	defer cancel()
	return host.GetPiece(ctx, wire.PieceRange{PieceID: w.id(i), Disk: at.Disk, Epoch: w.m.Epoch, Off: uint32(off)}, dst)
}

// rebuild makes the missing pieces, column by column.
func (w *work) rebuild() ([][]byte, error) {
	code := w.job.missed.Code
	coder, err := ec.For(code)
	if err != nil {
		return nil, err
	}
	made := make([][]byte, len(w.todo))
	for n := range made {
		if made[n], err = w.get(w.layout.PieceBytes()); err != nil {
			return nil, err
		}
	}
	err = w.columns(func(lo, hi int) error {
		good, err := w.sources(lo, hi)
		if err != nil {
			return err
		}
		var want [ashlar.PiecesMax][]byte
		for n, i := range w.todo {
			want[i] = made[n][lo:hi]
		}
		return coder.Reconstruct(good, want[:code.Pieces()])
	})
	return made, err
}

// sources reads one column range of k good pieces. A source that is gone or
// changed is queued itself, unless the stripe proves to be deleted.
func (w *work) sources(lo, hi int) ([][]byte, error) {
	code, have := w.job.missed.Code, 0
	good := make([][]byte, code.Pieces())
	var hurt []int
	for i := 0; i < code.Pieces() && have < int(code.K); i++ {
		if w.job.missing[i] || w.bad[i] || !w.seat(i).Live {
			continue
		}
		dst := w.scratch[have][:hi-lo]
		if err := w.read(i, lo, dst); err != nil {
			w.bad[i], w.gone[i] = true, ashlar.Is(err, ashlar.NotFound)
			w.errs = append(w.errs, err)
			if w.gone[i] || ashlar.Is(err, ashlar.Corrupt) {
				hurt = append(hurt, i)
			}
			continue
		}
		good[i], w.used[i] = dst, true
		have++
	}
	gone := 0
	for _, g := range w.gone {
		if g {
			gone++
		}
	}
	if gone > int(code.M) {
		return nil, errGone
	}
	for _, i := range hurt {
		miss := w.job.missed
		miss.PieceID = w.id(i)
		w.q.Add(miss)
	}
	if have < int(code.K) {
		return nil, ashlar.E("repair: read", w.job.missed.Stripe.String(), ashlar.Unavailable,
			fmt.Errorf("%d good pieces, %d needed: %v", have, code.K, errors.Join(w.errs...)))
	}
	return good, nil
}

// forgetStripe takes all pieces of a deleted stripe off the queue.
func (w *work) forgetStripe() {
	for i, missing := range w.job.missing {
		if missing {
			w.q.stats.gone.Add(1)
			w.q.forget(w.id(i))
		}
	}
}

// store puts a piece that was made again, reads it back, and makes sure that
// its stripe still stands.
func (w *work) store(i int, data []byte) error {
	at, id, miss := w.seat(i), w.id(i), w.owned()
	host, err := w.q.cfg.Dial(at.Host)
	if err != nil {
		return err
	}
	if err := w.q.limit.WaitN(w.ctx, min(len(data), w.q.limit.Burst())); err != nil {
		return ashlar.E("repair: put", "", ashlar.Unavailable, err)
	}
	ctx, cancel := context.WithTimeout(w.ctx, callMax)
	defer cancel()
	group, _ := w.m.Group(id.Stripe)
	err = host.PutPiece(ctx, &wire.Piece{
		PieceID: id, Disk: at.Disk, Epoch: w.m.Epoch, Group: group, Code: miss.Code, StripeBytes: miss.StripeBytes,
		Owner: miss.Owner, Written: miss.Written, Data: data, Sum: ec.Sum(0, data),
	})
	if err != nil {
		return err
	}
	err = w.columns(func(lo, hi int) error {
		back := w.scratch[0][:hi-lo]
		if err := w.read(i, lo, back); err != nil {
			return err
		}
		if !bytes.Equal(back, data[lo:hi]) {
			return ashlar.E("repair: read back", id.Stripe.String(), ashlar.Corrupt, fmt.Errorf("piece %d is not what was written", i))
		}
		return nil
	})
	if err == nil {
		err = w.stands()
	}
	switch {
	case err == nil:
		w.q.stats.repaired.Add(1)
		w.q.stats.bytes.Add(uint64(len(data)))
		w.q.forget(id)
		return nil
	case errors.Is(err, errGone):
		// Deleted while we worked: the piece must not outlive its stripe. It stays
		// queued, and the next look at it decides.
		return errors.Join(err, host.DeletePiece(ctx, at.Disk, w.m.Epoch, id))
	}
	return err
}

// owned is what is known of the stripe. Where the report did not know whose it
// is, because the header that said so is damaged, the sources are asked.
func (w *work) owned() stripe.Missed {
	miss := w.job.missed
	for i, used := range w.used {
		if miss.Owner != (ashlar.Owner{}) {
			break
		}
		if !used {
			continue
		}
		if told, err := w.describe(i); err == nil {
			miss.Owner, miss.Written = told.Owner, told.Written
		}
	}
	return miss
}

// describe asks what a disk keeps about a piece.
func (w *work) describe(i int) (wire.Piece, error) {
	at := w.seat(i)
	host, err := w.q.cfg.Dial(at.Host)
	if err != nil {
		return wire.Piece{}, err
	}
	ctx, cancel := context.WithTimeout(w.ctx, callMax)
	defer cancel()
	return host.DescribePiece(ctx, wire.PieceRange{PieceID: w.id(i), Disk: at.Disk, Epoch: w.m.Epoch})
}

// has reports whether the disk answers that it holds the piece.
func (w *work) has(i int) bool {
	at := w.seat(i)
	host, err := w.q.cfg.Dial(at.Host)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(w.ctx, callMax)
	defer cancel()
	has, err := host.HasPieces(ctx, at.Disk, []wire.PieceID{w.id(i)})
	return err == nil && has[0]
}

// stands looks whether all the sources are still there. A delete takes every
// piece of a stripe at about the same time, so one that is gone is sign enough.
func (w *work) stands() error {
	for i, used := range w.used {
		if !used {
			continue
		}
		at := w.seat(i)
		host, err := w.q.cfg.Dial(at.Host)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(w.ctx, callMax)
		has, err := host.HasPieces(ctx, at.Disk, []wire.PieceID{w.id(i)})
		cancel()
		if err != nil {
			return err
		}
		if !has[0] {
			return errGone
		}
	}
	return nil
}
