package segment

import (
	"context"
	"sync"
	"time"

	"ashlar"
)

// room is what an append waits for when the log is full of what compaction has not given
// back yet. Whoever writes and deletes faster than it copies waits and is not refused.
type room struct {
	mu   sync.Mutex
	next *round // nil while nobody waits
}

// round ends with the next segment that is given back, or when none is to be had.
type round struct {
	over  chan struct{}
	freed bool // set before over is closed
}

func (r *room) join() *round {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = &round{over: make(chan struct{})}
	}
	return r.next
}

// asked returns the round that somebody waits for, nil if nobody does.
func (r *room) asked() *round {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}

// end ends that round, and no later one: what was looked for before it was asked for says
// nothing of it.
func (r *room) end(which *round, freed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if which != nil && r.next == which {
		which.freed = freed
		close(which.over)
		r.next = nil
	}
}

// whenFreed calls store again, which has said that the log is full, with each segment
// that compaction gives back, for half of IOTimeout.
func (l *Log) whenFreed(ctx context.Context, full error, store func() error) error {
	if l.opt.CompactBytesPerSecond < 0 {
		return full // nobody compacts
	}
	timer := time.NewTimer(l.opt.IOTimeout / 2)
	defer timer.Stop()
	for {
		round := l.room.join() // before the try: what is given back behind it is not missed
		l.compact.wake()
		if err := store(); !ashlar.Is(err, ashlar.Full) {
			return err
		}
		select {
		case <-round.over:
			if !round.freed {
				return full
			}
		case <-l.closing: // store says so
		case <-ctx.Done():
			return full
		case <-timer.C:
			return full
		}
	}
}
