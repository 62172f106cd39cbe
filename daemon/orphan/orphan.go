// Package orphan finds the stripes that nothing refers to, and frees them.
//
// An upload whose coordinator or gateway died before the commit, a commit whose
// outcome stayed unknown, a delete that a crash cut short: each leaves stripes
// that no object, part or trash row names. Every record on a disk says whose it
// is, so the owner can be asked: the metadata shard of the key.
//
// The roll call walks through all pieces once in its period and hands over the
// stripes that are this host's to look after. Of those that are older than Grace
//
//	the record is read for its owner
//	the Referee is asked whether a version or a part refers to the write
//	what nothing refers to is a candidate, and is asked for again after Confirm
//	then the trash of all shards is read: what lies there has its own worker
//	and what is still nobody's is deleted, piece by piece, wherever it lies
//
// The order matters: a reference moves from parts to objects to the trash and
// never back, so whoever looks in that order sees it at least once. All reads
// are linearizable; whatever cannot be read is taken for referred to.
//
// Why an upload under way is safe: no coordinator works on one for longer than
// stripe.UploadMax, and a gateway does not commit what it received longer than
// an hour ago. Confirm is longer than both together, and passes by this host's
// monotonic clock: whatever age the clock of the coordinator gave to a stripe that
// the first look found, at the second one it has been committed, or never will be.
// Grace only keeps the search from looking at what is young.
//
//	bound    Grace + the period of the roll call + Confirm
//
// After a restore from a backup, what was written since the backup has its row
// nowhere, and may be all that is left of what was lost. It is spared and counted
// (Kept) until an operator says `ashlar gc release`.
//
// Candidates are kept in memory: a restart forgets them, and the next walk finds
// them again. What was done is told in a row for each host (Report), which
// `ashlar gc status` prints.
package orphan

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/trash"
	"ashlar/daemon/rollcall"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// Defaults of Config.
const (
	DefaultGrace   = 24 * time.Hour
	DefaultConfirm = 14 * time.Hour
)

const (
	// candidatesMax bounds what waits for its second look; the next walk finds
	// what did not fit.
	candidatesMax = 100_000
	// rememberMax bounds the writes that are known to be referred to: an upload
	// has many stripes.
	rememberMax = 1 << 16
	// keptMax bounds the stripes that are counted as newer than the backup.
	keptMax = 100_000
	// triesMax bounds the attempts to delete an orphan, which need all its disks:
	// then it is left to the next walk.
	triesMax   = 5
	lookersMax = 8 // looks at once
	callMax    = 30 * time.Second
	lookEvery  = time.Minute
)

// Stripe is a stripe to look at: a piece of it lies on a local disk.
type Stripe = rollcall.Held

// Config is what the search needs of its host.
type Config struct {
	Store meta.Store
	// Shards is how many metadata shards there are now.
	Shards func() int
	// Referee knows who refers to stripes. Nil: there is no search.
	Referee trash.Referee
	// Describe reads a record on a local disk.
	Describe func(context.Context, ashlar.DiskID, wire.PieceID) (wire.Piece, error)
	// Delete deletes all pieces of a stripe; nil means that every disk confirmed.
	Delete func(context.Context, ashlar.StripeID, ashlar.Code) error
	// Restored says how the cluster was restored, if it was. Nil: never.
	Restored func() topology.Restore
	// Grace is the age from which a stripe may be an orphan, Confirm the time
	// between the two looks. Zero means the default.
	Grace, Confirm time.Duration
	Log            *slog.Logger

	clock func() time.Time // nil: time.Now
}

// Stats counts since the start, but for Candidates and Kept, which are now.
type Stats struct {
	// Looked stripes were asked for. Candidates wait for their second look.
	Looked, Candidates uint64
	// Freed stripes were orphans, of Bytes user bytes. Spared ones were
	// candidates that turned out to be referred to.
	Freed, Bytes, Spared uint64
	// Kept stripes, of KeptBytes user bytes, have no row and are newer than the
	// backup that the cluster was restored from; at most keptMax are counted.
	Kept, KeptBytes uint64
	// Failed counts looks and deletes that could not be made; they are repeated.
	Failed uint64
}

// Search is the search of one host. It is safe for concurrent use.
type Search struct {
	cfg Config

	mu struct {
		sync.Mutex
		candidates map[ashlar.StripeID]candidate
		kept       map[ashlar.StripeID]Stripe
		referred   map[ashlar.WriteID]bool
		stats      Stats
	}
}

type candidate struct {
	Stripe
	owner ashlar.Owner
	found time.Time
	tries int // at deleting it
}

// New returns a search.
func New(cfg Config) *Search {
	if cfg.Grace == 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.Confirm == 0 {
		cfg.Confirm = DefaultConfirm
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Restored == nil {
		cfg.Restored = func() topology.Restore { return topology.Restore{} }
	}
	if cfg.clock == nil {
		cfg.clock = time.Now
	}
	s := &Search{cfg: cfg}
	s.mu.candidates = map[ashlar.StripeID]candidate{}
	s.mu.kept = map[ashlar.StripeID]Stripe{}
	s.mu.referred = map[ashlar.WriteID]bool{}
	return s
}

// Stats returns the counters.
func (s *Search) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.mu.stats
	st.Candidates, st.Kept = uint64(len(s.mu.candidates)), uint64(len(s.mu.kept))
	for _, k := range s.mu.kept {
		st.KeptBytes += uint64(k.Bytes)
	}
	return st
}

// Look takes the first look at stripes. It is called by the roll call's walk.
func (s *Search) Look(ctx context.Context, stripes []Stripe) {
	if s.cfg.Referee == nil {
		return
	}
	cut := s.cfg.clock().Add(-s.cfg.Grace)
	looks := errgroup.Group{}
	looks.SetLimit(lookersMax)
	for _, st := range stripes {
		if ctx.Err() != nil {
			break
		}
		if !st.Written.Before(cut) || s.known(st) {
			continue
		}
		looks.Go(func() error { s.look(ctx, st); return nil })
	}
	_ = looks.Wait() // looks count their errors
}

// known reports whether a stripe needs no look now.
func (s *Search) known(st Stripe) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, waits := s.mu.candidates[st.PieceID.Stripe]
	_, kept := s.mu.kept[st.PieceID.Stripe]
	return waits || kept || s.mu.referred[st.PieceID.Stripe.Write()] || len(s.mu.candidates) >= candidatesMax
}

func (s *Search) look(ctx context.Context, st Stripe) {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	rec, err := s.cfg.Describe(ctx, st.Disk, st.PieceID)
	var refers bool
	if err == nil {
		refers, err = s.refers(ctx, st.PieceID.Stripe, rec.Owner)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if !ashlar.Is(err, ashlar.NotFound) { // deleted since
			s.mu.stats.Failed++
		}
		return
	}
	s.mu.stats.Looked++
	if !refers && s.unnamed(st) {
		if len(s.mu.kept) < keptMax {
			s.mu.kept[st.PieceID.Stripe] = st
		}
		return
	}
	if !refers {
		s.mu.candidates[st.PieceID.Stripe] = candidate{Stripe: st, owner: rec.Owner, found: s.cfg.clock()}
		return
	}
	if len(s.mu.referred) >= rememberMax {
		clear(s.mu.referred)
	}
	s.mu.referred[st.PieceID.Stripe.Write()] = true
}

// unnamed reports whether the row of a stripe may have been lost with the metadata
// before a restore.
func (s *Search) unnamed(st Stripe) bool { return s.cfg.Restored().Unnamed(st.Written, s.cfg.Grace) }

func (s *Search) refers(ctx context.Context, id ashlar.StripeID, owner ashlar.Owner) (bool, error) {
	refers, err := s.cfg.Referee.Refers(ctx, owner.Bucket, owner.Key, []ashlar.Extent{{Write: id.Write(), Part: owner.Part}})
	return err != nil || refers[0], err
}

// Run takes second looks until ctx ends.
func (s *Search) Run(ctx context.Context) {
	if s.cfg.Referee == nil {
		return
	}
	tick := time.NewTicker(min(lookEvery, max(s.cfg.Confirm/4, time.Millisecond)))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.settle(ctx)
		}
	}
}

// settle decides about the candidates that have waited.
func (s *Search) settle(ctx context.Context) {
	s.mu.Lock()
	clear(s.mu.referred) // what was true at the last look may not be for ever
	maps.DeleteFunc(s.mu.kept, func(_ ashlar.StripeID, st Stripe) bool { return !s.unnamed(st) })
	var due []candidate
	for _, c := range s.mu.candidates {
		if s.cfg.clock().Sub(c.found) >= s.cfg.Confirm {
			due = append(due, c)
		}
	}
	s.mu.Unlock()
	nobodys := map[ashlar.WriteID][]candidate{}
	for _, c := range due {
		ctx, cancel := context.WithTimeout(ctx, callMax)
		refers, err := s.refers(ctx, c.PieceID.Stripe, c.owner)
		cancel()
		switch {
		case err != nil:
			s.note(func(st *Stats) { st.Failed++ })
		case refers:
			s.forget(c, func(st *Stats) { st.Spared++ })
		default:
			write := c.PieceID.Stripe.Write()
			nobodys[write] = append(nobodys[write], c)
		}
	}
	if len(nobodys) == 0 {
		return
	}
	if err := s.spareTrash(ctx, nobodys); err != nil {
		s.note(func(st *Stats) { st.Failed++ })
		s.cfg.Log.Warn("orphan: the trash cannot be read, nothing is freed", "candidates", len(nobodys), "err", err)
		return
	}
	for _, stripes := range nobodys {
		for _, c := range stripes {
			s.free(ctx, c)
		}
	}
}

// spareTrash takes out what is on the trash list of a shard. Lists may be long:
// only what is asked for is kept of them.
func (s *Search) spareTrash(ctx context.Context, nobodys map[ashlar.WriteID][]candidate) error {
	for shard := range s.cfg.Shards() {
		err := trash.Each(ctx, s.cfg.Store, ashlar.ShardID(shard), func(e trash.Entry) {
			for _, x := range e.Extents {
				for _, c := range nobodys[x.Write] {
					s.forget(c, func(st *Stats) { st.Spared++ })
				}
				delete(nobodys, x.Write)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Search) free(ctx context.Context, c candidate) {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	if err := s.cfg.Delete(ctx, c.PieceID.Stripe, c.Code); err != nil {
		s.retry(c)
		s.cfg.Log.Warn("orphan: not freed, will retry", "stripe", c.PieceID.Stripe, "tries", c.tries+1, "err", err)
		return
	}
	s.cfg.Log.Info("orphan: a stripe that nothing refers to was freed", "stripe", c.PieceID.Stripe, "bucket", c.owner.Bucket,
		"key", c.owner.Key, "part", c.owner.Part, "offset", c.owner.Offset, "written", c.Written, "bytes", c.Bytes)
	s.forget(c, func(st *Stats) { st.Freed++; st.Bytes += uint64(c.Bytes) })
}

// retry lets an orphan that was not deleted wait for another try, or for the next
// walk: while its disk is away it would keep others from being looked at.
func (s *Search) retry(c candidate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.stats.Failed++
	if c.tries++; c.tries < triesMax {
		s.mu.candidates[c.PieceID.Stripe] = c
	} else {
		delete(s.mu.candidates, c.PieceID.Stripe)
	}
}

func (s *Search) note(f func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.mu.stats)
}

func (s *Search) forget(c candidate, f func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.candidates, c.PieceID.Stripe)
	f(&s.mu.stats)
}
