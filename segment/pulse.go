package segment

import (
	"sync/atomic"
	"time"
)

// pulse is the clock of deadlines on the way of an append, where a timer for each
// caller would cost as much as the checksums. It beats pulseBeats times in IOTimeout,
// and who has seen more beats than that has waited long enough.
type pulse struct {
	beats atomic.Int64                  // since the log was opened; the first is 1
	next  atomic.Pointer[chan struct{}] // closed with the next beat
}

const pulseBeats = 8

// wait returns what is closed with the next beat, or already if none will come.
func (p *pulse) wait() <-chan struct{} { return *p.next.Load() }

func (p *pulse) start() {
	next := make(chan struct{})
	p.next.Store(&next)
	p.beats.Store(1)
}

// run beats until all writers have ended, and once more.
func (p *pulse) run(timeout time.Duration, writers []*writer) {
	tick := time.NewTicker(max(1, timeout/pulseBeats))
	defer tick.Stop()
	for _, w := range writers {
		for ended := false; !ended; {
			select {
			case <-tick.C:
				next := make(chan struct{})
				p.beats.Add(1)
				close(*p.next.Swap(&next))
			case <-w.ended:
				ended = true
			}
		}
	}
	close(*p.next.Load())
}
