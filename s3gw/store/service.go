package store

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
	"ashlar/s3gw/lifecycle"
)

// Bounds of the store's own work.
const (
	// attemptsMax bounds how often a request decides anew because its row was
	// changed under it. Each such round means that somebody else succeeded.
	attemptsMax = 1000
	// backoffMin and backoffMax bound the pause between two attempts.
	backoffMin = 500 * time.Microsecond
	backoffMax = 50 * time.Millisecond
	// commitTimeout bounds one commit with all its repetitions when the caller
	// set no deadline.
	commitTimeout = 20 * time.Second
	// metaTimeout bounds one read of metadata when the caller set no deadline.
	metaTimeout = 15 * time.Second
	// discardTimeout bounds the removal of the stripes of a failed upload.
	discardTimeout = 30 * time.Second
	// discardsMax bounds the removals that run at one time; beyond it they are
	// left to the trash worker.
	discardsMax = 64
)

// Options are the choices of a Store; each has a default.
type Options struct {
	// Clock is time.Now if nil.
	Clock func() time.Time
	// Log discards if nil.
	Log *slog.Logger
	// Region is given to buckets that are created without one.
	Region string
	// Keys seals the data keys of SSE-S3 and SSE-KMS. Nil has none.
	Keys Keys
	// Day is how long the lifecycle worker takes a day to be; 24 hours if zero.
	Day time.Duration
	// QueueMax is how many events of a target a shard keeps; 100,000 if zero.
	QueueMax int
}

// Store carries out S3 requests. Its methods may be called from many
// goroutines. It holds no state but a short-lived cache of bucket records, so
// any number of Stores may work on the same metadata.
type Store struct {
	meta    meta.Store
	stripes wire.Stripes
	maps    func() *topology.Map
	clock   func() time.Time
	log     *slog.Logger
	region  string
	buckets bucketCache
	guess   guess
	rules   ruleCache
	limited limited
	dealing chan struct{} // holds a token while a quota is dealt out
	keys    Keys
	days    lifecycle.Clock
	id      [16]byte // names this Store in leases
	trouble trouble

	queues   queues
	queueMax int64

	stats struct {
		unknown, discarded, orphaned                 atomic.Uint64
		expired, aborted, visits, unreadable, behind atomic.Int64
	}

	// background counts the goroutines that discard stripes; discards bounds them.
	background sync.WaitGroup
	discards   chan struct{}
}

// Stats counts the uncommon ends of uploads since the Store was made.
type Stats struct {
	// Unknown commits: it could not be learnt whether they were applied, so
	// their stripes were left in place. An orphan search will settle them.
	Unknown uint64
	// Discarded uploads failed for certain, and their stripes were removed.
	Discarded uint64
	// Orphaned uploads failed for certain, but their stripes could neither be
	// removed nor put on the trash list. An orphan search will find them.
	Orphaned uint64
	// Expired versions and delete markers, Aborted uploads, and Visits of keys and
	// uploads: what this Store's lifecycle worker did.
	Expired, Aborted, Visits int64
	// Unreadable is how often it passed over a row that cannot be read.
	Unreadable int64
	// Behind is how late the entry was that the worker took last.
	Behind time.Duration
}

// New returns a Store over the given metadata and stripes. The function maps
// returns the newest map of the cluster, nil before there is one. Close the
// Store when no call is running any more.
func New(m meta.Store, stripes wire.Stripes, maps func() *topology.Map, opt Options) *Store {
	s := &Store{meta: m, stripes: stripes, maps: maps, clock: opt.Clock, log: opt.Log, region: opt.Region, days: lifecycle.Clock{Day: opt.Day}, id: ashlar.NewID(), keys: opt.Keys}
	if s.clock == nil {
		s.clock = time.Now
	}
	s.queueMax = int64(cmp.Or(opt.QueueMax, queueMaxDefault))
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.discards, s.dealing = make(chan struct{}, discardsMax), make(chan struct{}, 1)
	return s
}

// Close waits for the background removal of failed uploads, which is bounded
// in time. No method may be running or be called afterwards.
func (s *Store) Close() { s.background.Wait() }

// Stats may be called at any time.
func (s *Store) Stats() Stats {
	return Stats{
		Unknown:    s.stats.unknown.Load(),
		Unreadable: s.stats.unreadable.Load(),
		Discarded:  s.stats.discarded.Load(),
		Orphaned:   s.stats.orphaned.Load(),
		Expired:    s.stats.expired.Load(),
		Aborted:    s.stats.aborted.Load(),
		Visits:     s.stats.visits.Load(),
		Behind:     time.Duration(s.stats.behind.Load()),
	}
}

// now is the clock in UTC, without the monotonic reading.
func (s *Store) now() time.Time { return s.clock().UTC().Round(0) }

// formed returns the map, or an error of kind Unavailable while the cluster
// cannot store objects yet.
func (s *Store) formed() (*topology.Map, error) {
	m := s.maps()
	if !m.Formed() {
		return nil, ashlar.E("store: map", "", ashlar.Unavailable, errNotFormed)
	}
	return m, nil
}

// bounded gives a context without a deadline one.
func bounded(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}
