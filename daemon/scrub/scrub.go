// Package scrub reads every byte that a host keeps on its disks once in a
// period, and has made again what it finds changed.
//
// Each disk has a goroutine of its own that goes over the segments of the
// disk's log, one after another; of those that are still open it reads what is
// stored by then. Segment n of N is due when n/N of the
// period has gone by since the pass was due to begin, so the reading is spread
// evenly and a host that was away catches up; it never reads faster than its
// budget. Nothing is read while the disk is not well: what a failing disk has
// left belongs to its readers and to repair.
//
//	          ┌──────────────── due? well? ◄──────────────┐
//	          ▼                                           │
//	segment.VerifyPaced ──► bad pieces ──► read again ────┤ right now: a flip on the way
//	                                          │           │
//	                                     still bad        │
//	                                          ▼           │
//	                              Report (repair queue) ──┤
//	                                          ▼           │
//	                           waiting: looked at again ──┘ right: repaired · absent: deleted
//
// A piece that was reported is looked at again from time to time until it reads
// right, header and all, or is gone; each look at one that is still bad reports
// it anew, so a repair queue that was lost is filled again. It is counted once.
//
// A segment that nobody can list, or that could not be read, is counted and
// logged, and its part of the disk stays as old as it was: in the end
// SCRUB_OVERDUE says so. A segment whose sum is wrong though all its pieces are
// right is damaged where nothing lives: it is logged and that is all.
//
// # Position
//
// DIR/<disk id>.json says how far the pass has come, when the last one ended,
// when each 1/256 of the disk was last read to its end, and what waits. It is
// replaced atomically, at most once a second while segments pass. Lost, damaged
// or of another number of segments, it is begun anew.
package scrub

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon/stripe"
	"ashlar/segment"
)

// Defaults of Config.
const (
	DefaultPeriod = 14 * 24 * time.Hour
	// DefaultBytesPerSecond is twice what 14 days need for a disk of 20 TB of
	// which each byte is read twice, less what is idle or dead.
	DefaultBytesPerSecond = 64 * ashlar.MiB
)

const (
	// waitingMax bounds the pieces of a disk that are remembered until they are
	// right again; those beyond are reported, and found again by the next pass.
	waitingMax = 4096
	// looksMax bounds the waiting pieces that are looked at in one go.
	looksMax = 64
	// restMax is the longest time between two looks at a disk that is not well
	// or at the pieces that wait; a short period has shorter ones.
	restMax = time.Minute
	restMin = 50 * time.Millisecond
	// triesMax bounds how often a segment is tried that cannot be read.
	triesMax = 3
	saveGap  = time.Second
)

// Log is what the scrubber needs of the log on a disk; *segment.Log has it.
type Log interface {
	Usage() segment.Usage
	VerifyPaced(ctx context.Context, i int, pace func(bytes int)) (segment.Report, error)
	Describe(ctx context.Context, key segment.Key) (segment.Record, error)
	Stat(key segment.Key) (segment.Info, error)
	ReadAt(ctx context.Context, key segment.Key, dst []byte, off int64) error
}

// Disk is one disk to look after.
type Disk struct {
	ID ashlar.DiskID
	// Name is host/dNN, for the log.
	Name string
	Log  Log
	// Well is false while the disk should be left alone; nil means always well.
	// It must not block.
	Well func() bool
}

// Config is what a scrubber needs of its host.
type Config struct {
	// Dir holds the positions. It is made if it is not there.
	Dir string
	// Period is the time for one pass. Zero means DefaultPeriod.
	Period time.Duration
	// BytesPerSecond bounds what is read of each disk. Zero means DefaultBytesPerSecond.
	BytesPerSecond int64
	// Report is told of every piece that is not what was written, and may be
	// told of one again. It must not block. An Owner that nobody could read is zero.
	Report func(stripe.Missed)
	Log    *slog.Logger

	clock clock // nil: the real one
}

// Status is how the scrub of a disk stands. It is a value: equal ones say the same.
type Status struct {
	Period time.Duration
	// Last is when the last full pass ended, zero if there was none; Due is when
	// the pass under way should end.
	Last, Due time.Time
	// Oldest: every byte that was stored then was read after it.
	Oldest time.Time
	// Bytes of good records were read since the disk was first scrubbed.
	Bytes uint64
	// Waiting pieces were found bad and are not right again yet. Repaired ones
	// are right again; they count from the beginning of the last full pass.
	Waiting, Repaired uint64
	// Unread counts, over the same time, the segments that could not be read.
	Unread uint64
}

// Scrubber looks after the disks of one host. It is safe for concurrent use.
type Scrubber struct {
	cfg Config

	mu struct {
		sync.Mutex
		disks  map[ashlar.DiskID]*runner
		closed bool
	}
}

// runner is the goroutine of one disk.
type runner struct {
	d    *disk
	stop context.CancelFunc
	done chan struct{} // closed when the goroutine has ended
}

// New returns a scrubber without disks.
func New(cfg Config) *Scrubber {
	if cfg.Period <= 0 {
		cfg.Period = DefaultPeriod
	}
	if cfg.BytesPerSecond <= 0 {
		cfg.BytesPerSecond = DefaultBytesPerSecond
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.clock == nil {
		cfg.clock = wall{}
	}
	s := &Scrubber{cfg: cfg}
	s.mu.disks = map[ashlar.DiskID]*runner{}
	return s
}

// Add begins to scrub a disk, in place of what was known under its id. Call
// Remove before the disk's log is closed.
func (s *Scrubber) Add(d Disk) {
	s.Remove(d.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &runner{d: newDisk(&s.cfg, d), stop: stop, done: make(chan struct{})}
	s.mu.disks[d.ID] = r
	go func() { // ended and awaited by Remove or Close
		defer close(r.done)
		r.d.run(ctx)
	}()
}

// Remove ends the scrub of a disk and waits until nothing of it is read any more.
func (s *Scrubber) Remove(id ashlar.DiskID) {
	s.mu.Lock()
	r := s.mu.disks[id]
	delete(s.mu.disks, id)
	s.mu.Unlock()
	if r != nil {
		r.end()
	}
}

func (r *runner) end() {
	r.stop()
	<-r.done
}

// Status says how the scrub of a disk stands; false if it is not scrubbed.
func (s *Scrubber) Status(id ashlar.DiskID) (Status, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.mu.disks[id]
	if r == nil {
		return Status{}, false
	}
	return *r.d.status.Load(), true
}

// Close ends the scrub of all disks.
func (s *Scrubber) Close() {
	s.mu.Lock()
	s.mu.closed = true
	all := s.mu.disks
	s.mu.disks = map[ashlar.DiskID]*runner{}
	s.mu.Unlock()
	for _, r := range all {
		r.stop()
	}
	for _, r := range all {
		r.end()
	}
}

// clock is what tests replace.
type clock interface {
	now() time.Time
	// wait returns at t, or when ctx ends.
	wait(ctx context.Context, t time.Time)
}

type wall struct{}

func (wall) now() time.Time { return time.Now() }

func (wall) wait(ctx context.Context, t time.Time) {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
