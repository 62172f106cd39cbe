// Package rollcall finds the pieces that should be on other disks and are not.
//
// A coordinator that is killed after its quorum forgets the pieces that were
// still on their way, and a lost repair list forgets what was on it. No scrub
// of what is there sees that. Here each host asks, for the pieces on its own
// disks, the other seats of their stripes whether they have theirs, and queues
// for repair what is missing.
//
// So that n seats do not ask n times, the first seat in stripe order that has
// its piece asks for all the others; every other seat asks the seats before it
// until one of them answers that it has its piece, and leaves the stripe to it:
// about two answers for each piece, many in one call.
//
//	stripe   seat 0   seat 1   seat 2   …
//	           has      has      —           seat 0 asks 1, 2, …: 2 is missing
//	           —        has      has         seat 1 asks 0: no; then 2, …: 0 is missing
//
// A stripe of which more pieces than the parity are missing was deleted, or
// cannot be read now: it is left alone. What is missing is asked for a second
// time after a pause, and the asker looks whether it has its own piece still: a
// delete under way is over by then. Repair looks once more before it writes.
//
// # When
//
// Nothing is forgotten while everybody lives: coordinators queue what they
// missed themselves. So stripes are asked about only when somebody came or went
// (a host's boot or state, a disk's state), and then those written since shortly
// before. Each disk of the cluster is owed a question about what was written
// from a time on, the debt; it is paid once every such stripe that is older than
// Settle was asked about, and waits while its disk is away. Debts are kept in
// DIR/state.json with the time until which nothing was owed, so that a host that
// was away asks about everything written since; without the file it is
// everything. New pieces are remembered in a ring, so that a debt that is young
// costs no walk through the index.
//
//	bound    DownAfter (the death is seen) + Settle + the pass, a few seconds for
//	         the stripes of some minutes; then repair's rate
//
// Besides, once in a Period every piece is asked about, at PiecesPerSecond: for
// what is lost in any other way, such as a disk that came back without its tail.
package rollcall

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"ashlar"
	"ashlar/daemon/stripe"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
	"ashlar/segment"
)

// Defaults of Config.
const (
	// DefaultSettle covers the deadline of a piece and its stragglers: until then
	// the coordinator may still be at work.
	DefaultSettle          = 40 * time.Second
	DefaultPeriod          = 24 * time.Hour
	DefaultPiecesPerSecond = 2000
)

const (
	// back is how far before an event its debts begin: what was under way when it
	// happened, until it was seen, with some skew of clocks.
	back = 3 * time.Minute
	// ringLen bounds the new pieces that are remembered.
	ringLen   = 1 << 16
	pollEvery = 250 * time.Millisecond
	// soonAfter an event everything that has settled is asked about. If nothing
	// that was written before it is younger, the debt is paid with that.
	soonAfter = 3 * time.Second
	saveEvery = 10 * time.Second
	// batchLen is how many pieces are asked about together.
	batchLen = 4096
	callsMax = 8 // at once
	callMax  = 15 * time.Second
	// confirmAfter lies between the two looks at what is missing.
	confirmAfter = 2 * time.Second
	// passGap is the least between two passes over the debts.
	passGap   = 2 * time.Second
	gapFactor = 4
)

// Log is what a roll call needs of the log on a disk; *segment.Log has it.
type Log interface {
	EachFrom(ctx context.Context, from ashlar.StripeID, fn func(segment.Info) bool) error
	Has(key segment.Key) bool
}

// Config is what a roll call needs of its host.
type Config struct {
	// Dir is made if it is not there, and owned by the roll call alone.
	Dir string
	// Maps returns the newest map seen, nil if there is none yet.
	Maps func() *topology.Map
	// Heard is when the quorum last answered this host: what happened since may
	// not be in the map. Nil: always now.
	Heard func() time.Time
	// Dial returns the disks of a host, of this one too. It must not block.
	Dial func(ashlar.HostID) (wire.Pieces, error)
	// Missing is told of every piece that is missing, perhaps again and again,
	// with an Owner that is not known. It must not block. False means that it
	// could not be taken: the question is asked again.
	Missing func(stripe.Missed) bool
	// Ours, if set, is given the stripes that are this host's to look after, all of
	// them once in a Period. It may take its time, and may not keep the slice.
	Ours func(context.Context, []Held)
	// Settle is the age from which a stripe is asked about, Period the time in
	// which every piece is. Zero means the default.
	Settle, Period time.Duration
	// PiecesPerSecond bounds the walk through everything. Zero means the default.
	PiecesPerSecond int
	Log             *slog.Logger

	// For tests; zero: confirmAfter, time.Now.
	confirm time.Duration
	now     func() time.Time
}

// Stats counts since the start, but for Owed and LastFull, which are now.
type Stats struct {
	// Asked counts the pieces asked for, Missing those that were not there.
	Asked, Missing uint64
	// Owed disks that answer are still owed a question.
	Owed int
	// LastFull is when the last walk through everything ended; zero: never.
	LastFull time.Time
}

// Roll is the roll call of one host. It is safe for concurrent use.
type Roll struct {
	cfg Config

	mu struct {
		sync.Mutex
		logs  map[ashlar.DiskID]Log
		ring  ring
		state state
		seen  *topology.Map // the newest map that debts were made of
	}
	checked        atomic.Uint64 // epoch
	asked, missing atomic.Uint64
}

// New returns a roll call without disks. Debts are read from Dir.
func New(cfg Config) *Roll {
	if cfg.Settle == 0 {
		cfg.Settle = DefaultSettle
	}
	if cfg.Period == 0 {
		cfg.Period = DefaultPeriod
	}
	if cfg.PiecesPerSecond == 0 {
		cfg.PiecesPerSecond = DefaultPiecesPerSecond
	}
	if cfg.confirm == 0 {
		cfg.confirm = confirmAfter
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Roll{cfg: cfg}
	r.mu.logs = map[ashlar.DiskID]Log{}
	r.mu.ring.since = cfg.now()
	r.mu.state = load(cfg.Dir, cfg.Log)
	return r
}

// Add makes the pieces of a local disk part of the roll call.
func (r *Roll) Add(id ashlar.DiskID, log Log) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.logs[id] = log
}

// Remove takes a disk out. A question about its pieces may still be under way.
func (r *Roll) Remove(id ashlar.DiskID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.logs, id)
}

// Stored is told of every piece that a local disk took.
func (r *Roll) Stored(p *wire.Piece) {
	now := r.cfg.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.ring.add(now, held{
		disk: p.Disk, key: segment.Key{Stripe: p.Stripe, Piece: p.Index}, code: p.Code, bytes: p.StripeBytes, written: p.Written,
	})
}

// Checked is the newest epoch of which nothing is owed to a disk that answers:
// no stripe lacks a piece that was forgotten by whoever went before it.
func (r *Roll) Checked() ashlar.Epoch { return ashlar.Epoch(r.checked.Load()) }

// Stats returns the counters.
func (r *Roll) Stats() Stats {
	m := r.cfg.Maps()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Stats{Asked: r.asked.Load(), Missing: r.missing.Load(), LastFull: r.mu.state.LastFull}
	if m != nil {
		s.Owed = len(r.owedLocked(m))
	}
	return s
}

// Run asks until ctx ends.
func (r *Roll) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { r.full(ctx) })
	defer wg.Wait()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var saved, next time.Time
	for {
		select {
		case <-ctx.Done():
			r.save()
			return
		case <-tick.C:
		}
		m := r.cfg.Maps()
		if !m.Formed() {
			continue
		}
		now := time.Now()
		changed := r.follow(m, now)
		if now.After(next) && r.due(m, now) {
			r.pay(ctx, m, now)
			// A pass that could not pay everything is not repeated at once.
			next, changed = time.Now().Add(max(passGap, gapFactor*time.Since(now))), true
		}
		if changed || now.Sub(saved) >= saveEvery {
			r.save()
			saved = now
		}
	}
}

// pay asks about everything that is owed and old enough.
func (r *Roll) pay(ctx context.Context, m *topology.Map, now time.Time) {
	r.mu.Lock()
	owed := r.owedLocked(m)
	r.mu.Unlock()
	from, cut, event := now, now.Add(-r.cfg.Settle), time.Time{}
	for _, d := range owed {
		if d.Event.After(event) {
			event = d.Event
		}
		if d.From.Before(from) {
			from = d.From
		}
	}
	q := &question{r: r, m: m, owed: owed, cut: cut, event: event, failed: map[ashlar.DiskID]bool{}}
	r.young(ctx, q, from)
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, was := range owed {
		if q.failed[id] || q.broken {
			continue
		}
		d := r.mu.state.Debts[id]
		if d.From != was.From {
			continue // a new event made it longer
		}
		if !cut.Before(d.Event) || d.Event == was.Event && !q.unsettled {
			delete(r.mu.state.Debts, id)
		} else {
			d.From, d.tried = cut, d.Event == was.Event
			r.mu.state.Debts[id] = d
		}
	}
	r.noteLocked(m)
}

// young asks about the settled pieces that were written from a time on.
func (r *Roll) young(ctx context.Context, q *question, from time.Time) {
	r.mu.Lock()
	recent, ok := r.mu.ring.after(from)
	r.mu.Unlock()
	if !ok {
		r.walk(ctx, q, from, nil)
		return
	}
	var batch []held
	for _, h := range recent {
		if !q.settled(h.written) {
			continue
		}
		if batch = append(batch, h); len(batch) == batchLen {
			q.ask(ctx, batch)
			batch = batch[:0]
		}
	}
	q.ask(ctx, batch)
}

// walk asks about the settled pieces on the local disks that were written from
// a time on. Pace is called after each batch with the pieces that it went by.
func (r *Roll) walk(ctx context.Context, q *question, from time.Time, pace func(pieces int)) {
	r.mu.Lock()
	logs := make(map[ashlar.DiskID]Log, len(r.mu.logs))
	for id, log := range r.mu.logs {
		logs[id] = log
	}
	r.mu.Unlock()
	for id, log := range logs {
		next, more := ashlar.StripeID{}, true
		for more && ctx.Err() == nil {
			var batch []held
			looked := 0
			more = false
			err := log.EachFrom(ctx, next, func(i segment.Info) bool {
				if looked == batchLen {
					next, more = i.Stripe, true
					return false
				}
				looked++
				if !i.Written.Before(from) && q.settled(i.Written) {
					batch = append(batch, held{disk: id, key: i.Key, code: i.Code, bytes: i.StripeBytes, written: i.Written})
				}
				return true
			})
			if err != nil {
				q.broken = true // this disk went; what it holds is asked about again
				break
			}
			q.ask(ctx, batch)
			if pace != nil {
				pace(looked)
			}
		}
	}
}

// full walks through everything once in a period.
func (r *Roll) full(ctx context.Context) {
	for ctx.Err() == nil {
		r.mu.Lock()
		due := r.mu.state.LastFull.Add(r.cfg.Period)
		if r.mu.state.LastFull.IsZero() {
			due = r.mu.state.Began.Add(min(r.cfg.Period, time.Hour)) // let a new host come to rest
		}
		r.mu.Unlock()
		m := r.cfg.Maps()
		if !m.Formed() || time.Now().Before(due) {
			pause(ctx, min(time.Minute, max(r.cfg.Period/16, 10*time.Millisecond)))
			continue
		}
		q := &question{r: r, m: m, ours: r.cfg.Ours, cut: time.Now().Add(-r.cfg.Settle), failed: map[ashlar.DiskID]bool{}}
		r.walk(ctx, q, time.Time{}, func(pieces int) {
			pause(ctx, time.Duration(pieces)*time.Second/time.Duration(r.cfg.PiecesPerSecond))
			q.m = r.cfg.Maps()
		})
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		r.mu.state.LastFull = time.Now()
		r.mu.Unlock()
		r.cfg.Log.Info("rollcall: every piece was asked for", "missing", q.found, "disks that did not answer", len(q.failed))
		r.save()
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
