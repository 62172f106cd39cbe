package stripe

// What happens when memory is short: streams that nobody reads and bodies that
// hardly move give theirs up. Without that a few hundred clients that do nothing
// would keep everybody else out.

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ashlar"
	"ashlar/daemon/buffer"
)

const (
	// reclaimAfter is how long a read waits for memory before it looks for
	// streams whose consumers do not come.
	reclaimAfter = 500 * time.Millisecond
	// consumerAway is how long a consumer must have left its bytes alone to lose
	// the memory that holds them.
	consumerAway = 2 * time.Second
)

// errReclaimed is Busy: the caller opens the rest anew when it wants it.
var errReclaimed = ashlar.E("stripe: read", "", ashlar.Busy, errors.New("nobody took the bytes, and others needed the memory"))

// streams are the reads under way. Clients that stop reading would otherwise
// keep all of the read share, and everybody else out.
type streams struct {
	mu  sync.Mutex
	all map[*stream]struct{}
}

func (s *streams) add(r *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*stream]struct{}{}
	}
	s.all[r] = struct{}{}
}

func (s *streams) remove(r *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, r)
}

// away lists the streams that nobody has read from for consumerAway, the
// longest first.
func (s *streams) away(now time.Time) []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	latest := now.Add(-consumerAway).UnixNano()
	since := map[*stream]int64{}
	var list []*stream
	for r := range s.all {
		if at := r.idle.Load(); at != 0 && at < latest {
			since[r] = at
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b *stream) int { return int(since[a] - since[b]) })
	return list
}

// leaseRead waits for memory, and after a while takes it from streams that
// nobody reads.
func (c *Coordinator) leaseRead(ctx context.Context, share *buffer.Share, bytes int64) (*buffer.Lease, error) {
	waiting, got := context.WithCancel(ctx)
	defer got()
	timer := time.AfterFunc(reclaimAfter, func() { c.reclaim(waiting, bytes) }) // ends with waiting
	defer timer.Stop()
	return share.Lease(ctx, bytes)
}

// reclaim frees at least that many bytes, if they can be had, now or later.
func (c *Coordinator) reclaim(ctx context.Context, bytes int64) {
	for ctx.Err() == nil {
		for _, r := range c.streams.away(time.Now()) {
			if bytes -= r.reclaim(); bytes <= 0 {
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(reclaimAfter):
		}
	}
}

// reclaim takes the memory of a stream whose consumer is away and returns how
// much that was.
func (r *stream) reclaim() (bytes int64) {
	if !r.mu.TryLock() {
		return 0 // it is being read after all
	}
	defer r.mu.Unlock()
	if at := r.idle.Load(); r.err != nil || r.left == 0 || at == 0 || time.Since(time.Unix(0, at)) < consumerAway {
		return 0
	}
	for _, l := range r.leases {
		bytes += l.Bytes()
	}
	r.err = errReclaimed
	r.free()
	return bytes
}

const (
	// crawlAfter is how long a body is given for a stripe before it may be given
	// up for others, if it then brought fewer than crawlBytesPerSecond.
	crawlAfter          = 5 * time.Second
	crawlBytesPerSecond = 64 * ashlar.KiB
)

// errCrawls is Busy: the client may send its body again, preferably faster.
var errCrawls = ashlar.E("stripe: write", "", ashlar.Busy, errors.New("the body hardly moved, and others needed the memory"))

// receiving is how the body of an upload comes in for the stripe that it holds
// memory for.
type receiving struct {
	since atomic.Int64 // Unix nanoseconds; 0 while nothing is received
	bytes atomic.Int64
}

func (r *receiving) begin(now time.Time) {
	r.bytes.Store(0)
	r.since.Store(now.UnixNano())
}

func (r *receiving) end() { r.since.Store(0) }

// crawls reports whether the body holds memory and hardly moves.
func (r *receiving) crawls(now time.Time) bool {
	since := r.since.Load()
	if since == 0 {
		return false
	}
	took := now.Sub(time.Unix(0, since))
	return took > crawlAfter && float64(r.bytes.Load()) < took.Seconds()*crawlBytesPerSecond
}

// uploads are the writes under way; true marks one that was given up.
type uploads struct {
	mu  sync.Mutex
	all map[*upload]bool
}

func (s *uploads) add(u *upload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*upload]bool{}
	}
	s.all[u] = false
}

// remove reports whether the upload was given up.
func (s *uploads) remove(u *upload) (givenUp bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	givenUp = s.all[u]
	delete(s.all, u)
	return givenUp
}

// hurry gives up the bodies that crawl, for as long as somebody waits for memory.
func (c *Coordinator) hurry(ctx context.Context) {
	for ctx.Err() == nil {
		c.uploads.mu.Lock()
		now := time.Now()
		for u, givenUp := range c.uploads.all {
			if !givenUp && u.interrupt != nil && u.receiving.crawls(now) {
				c.uploads.all[u] = true
				u.interrupt.Interrupt()
			}
		}
		c.uploads.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(reclaimAfter):
		}
	}
}
