package rollcall

import (
	"context"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon/stripe"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
	"ashlar/segment"
)

// question is one pass. It belongs to one goroutine.
type question struct {
	r *Roll
	m *topology.Map
	// cut: stripes that were written later may still be under way. Unsettled is
	// set by one that was before the last event.
	cut, event time.Time
	unsettled  bool
	// owed is what each disk is to be asked about; nil: everything.
	owed map[ashlar.DiskID]debt
	// failed disks did not answer. Broken: this host could not look itself, or
	// repair could not take what was found.
	failed map[ashlar.DiskID]bool
	broken bool
	found  int
	ours   func(context.Context, []Held)
}

// settled reports whether a stripe may be asked about.
func (q *question) settled(written time.Time) bool {
	if !written.After(q.cut) {
		return true
	}
	q.unsettled = q.unsettled || !written.After(q.event)
	return false
}

// entry is one stripe of a question.
type entry struct {
	held
	seats   []topology.Seat
	next    int // the seat before ours that is asked next
	left    bool
	missing []int
}

// asking is one piece to ask a disk for. Answer is set if has is known.
type asking struct {
	e         *entry
	seat      int
	has, told bool
}

// ask goes through a batch of local pieces.
func (q *question) ask(ctx context.Context, batch []held) {
	if len(batch) == 0 || ctx.Err() != nil {
		return
	}
	entries := make([]*entry, 0, len(batch))
	for _, h := range batch {
		if e := q.enter(h); e != nil {
			entries = append(entries, e)
		}
	}
	q.before(ctx, entries)
	q.give(ctx, entries)
	q.behind(ctx, entries)
	q.confirm(ctx, entries)
}

// enter returns the entry of a piece, nil if it does not belong on its disk.
func (q *question) enter(h held) *entry {
	n := h.code.Pieces()
	if int(h.key.Piece) >= n {
		return nil
	}
	e := &entry{held: h, seats: make([]topology.Seat, n)}
	for i := range n {
		e.seats[i] = q.m.Seat(h.key.Stripe, i)
	}
	if e.seats[h.key.Piece].Disk != h.disk {
		return nil
	}
	return e
}

// before asks the seats before ours until one has its piece: the stripe is its.
func (q *question) before(ctx context.Context, entries []*entry) {
	for ctx.Err() == nil {
		var all []*asking
		for _, e := range entries {
			for e.next < int(e.key.Piece) && !e.seats[e.next].Live {
				e.next++
			}
			if !e.left && e.next < int(e.key.Piece) {
				all = append(all, &asking{e: e, seat: e.next})
			}
		}
		if len(all) == 0 {
			return
		}
		q.call(ctx, all)
		for _, a := range all {
			a.e.next++
			switch {
			case a.told && a.has:
				a.e.left = true
			case a.told:
				a.e.missing = append(a.e.missing, a.seat)
			}
		}
	}
}

// give hands over the stripes that are ours.
func (q *question) give(ctx context.Context, entries []*entry) {
	if q.ours == nil || ctx.Err() != nil {
		return
	}
	var ours []Held
	for _, e := range entries {
		if !e.left {
			ours = append(ours, Held{
				PieceID: wire.PieceID{Stripe: e.key.Stripe, Index: e.key.Piece}, Disk: e.disk, Code: e.code, Bytes: e.bytes, Written: e.written,
			})
		}
	}
	q.ours(ctx, ours)
}

// behind asks the seats after ours about the stripes that are ours.
func (q *question) behind(ctx context.Context, entries []*entry) {
	var all []*asking
	for _, e := range entries {
		for i := int(e.key.Piece) + 1; !e.left && i < len(e.seats); i++ {
			if e.seats[i].Live && q.owes(e, i) {
				all = append(all, &asking{e: e, seat: i})
			}
		}
	}
	q.call(ctx, all)
	for _, a := range all {
		if a.told && !a.has {
			a.e.missing = append(a.e.missing, a.seat)
		}
	}
}

// owes reports whether the disk of seat i is to be asked about the stripe.
func (q *question) owes(e *entry, i int) bool {
	if q.owed == nil {
		return true
	}
	d, ok := q.owed[e.seats[i].Disk]
	return ok && !e.written.Before(d.From.Add(-back))
}

// confirm looks a second time at what is missing and reports what still is.
func (q *question) confirm(ctx context.Context, entries []*entry) {
	var all []*asking
	for _, e := range entries {
		if e.left || len(e.missing) == 0 || len(e.missing) > int(e.code.M) {
			continue // complete, another's, or deleted
		}
		for _, i := range e.missing {
			all = append(all, &asking{e: e, seat: i})
		}
	}
	if len(all) == 0 {
		return
	}
	pause(ctx, q.r.cfg.confirm)
	q.call(ctx, all)
	for _, a := range all {
		if !a.told || a.has || !q.r.has(a.e.disk, a.e.key) {
			continue
		}
		q.found++
		q.r.missing.Add(1)
		taken := q.r.cfg.Missing(stripe.Missed{
			PieceID: wire.PieceID{Stripe: a.e.key.Stripe, Index: uint8(a.seat)}, Code: a.e.code,
			StripeBytes: a.e.bytes, Written: a.e.written,
		})
		if !taken {
			q.broken = true
		}
	}
}

// has reports whether a local disk still holds a piece.
func (r *Roll) has(disk ashlar.DiskID, key segment.Key) bool {
	r.mu.Lock()
	log := r.mu.logs[disk]
	r.mu.Unlock()
	return log != nil && log.Has(key)
}

// call asks every disk about its pieces, in one call each.
func (q *question) call(ctx context.Context, all []*asking) {
	by := map[topology.Seat][]*asking{}
	for _, a := range all {
		by[a.e.seats[a.seat]] = append(by[a.e.seats[a.seat]], a)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards q.failed
	tokens := make(chan struct{}, callsMax)
	for at, list := range by {
		tokens <- struct{}{}
		wg.Go(func() {
			defer func() { <-tokens }()
			for len(list) > 0 {
				n := min(len(list), batchLen)
				if err := q.one(ctx, at, list[:n]); err != nil {
					mu.Lock()
					q.failed[at.Disk] = true
					mu.Unlock()
					return
				}
				list = list[n:]
			}
		})
	}
	wg.Wait()
}

func (q *question) one(ctx context.Context, at topology.Seat, list []*asking) error {
	host, err := q.r.cfg.Dial(at.Host)
	if err != nil {
		return err
	}
	ids := make([]wire.PieceID, len(list))
	for i, a := range list {
		ids[i] = wire.PieceID{Stripe: a.e.key.Stripe, Index: uint8(a.seat)}
	}
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	has, err := host.HasPieces(ctx, at.Disk, ids)
	if err != nil {
		return err
	}
	q.r.asked.Add(uint64(len(ids)))
	for i, a := range list {
		a.has, a.told = has[i], true
	}
	return nil
}
