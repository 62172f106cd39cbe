package segment

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// flushing lets writers share flushes: one that comes while another runs waits
// for the next, and whoever else comes until that begins is served by it too.
//
// Where a flush takes long, it also waits a moment for those who are on their way. Without
// that two writers take turns: each flush serves the callers of one, and those of
// the other, who have just missed it, wait for two.
type flushing struct {
	device sync.Mutex // held while the device flushes
	mu     sync.Mutex
	next   *flushRound   // that has not begun
	took   time.Duration // by a flush, lately, up to flushLong
	// coming counts the writers that have a batch, and no other one before it, and have
	// not asked for its flush.
	coming atomic.Int32
}

type flushRound struct {
	all  chan struct{} // capacity 1; has something when nobody was coming any more
	done chan struct{} // closed when err is set
	err  error
}

// How long is waited, as a part of a flush, and which flush is worth it. A device that
// hung for a while does not make everybody wait for long afterwards.
const (
	lingerPart = 8  // by a flush, for all writers
	gatherPart = 32 // by a batch, for the callers of one
	flushSlow  = time.Millisecond
	flushLong  = 50 * time.Millisecond
)

// flush makes what was written durable. Who was announced to come has come with it.
func (g *flushing) flush(l *Log, announced bool) error {
	g.mu.Lock()
	r := g.next
	leads := r == nil
	if leads {
		r = &flushRound{all: make(chan struct{}, 1), done: make(chan struct{})}
		g.next = r
	}
	g.mu.Unlock()
	if announced {
		g.came()
	}
	if !leads {
		<-r.done
		return r.err
	}
	if !g.device.TryLock() {
		g.device.Lock()
		g.letCallersBack() // those that the flush before has just answered
	}
	g.linger(r)
	g.mu.Lock()
	g.next = nil // whoever comes now has perhaps written too late
	g.mu.Unlock()
	began := time.Now()
	r.err = l.flushOnce()
	g.mu.Lock()
	g.took += (min(time.Since(began), flushLong) - g.took) / 4
	g.mu.Unlock()
	g.device.Unlock()
	close(r.done)
	return r.err
}

func (g *flushing) linger(r *flushRound) {
	d := g.slow() / lingerPart
	if d == 0 || g.coming.Load() == 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for g.coming.Load() > 0 {
		select {
		case <-r.all:
		case <-timer.C:
			return
		}
	}
}

// came is called once for each that was coming, when it has joined a round or will not.
func (g *flushing) came() {
	if g.coming.Add(-1) > 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.next != nil {
		poke(g.next.all)
	}
}

// slow is how long a flush takes, or 0 if that is not worth a wait.
func (g *flushing) slow() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.took < flushSlow {
		return 0
	}
	return g.took
}

// letCallersBack gives those who were just answered the time to come with their next record.
func (g *flushing) letCallersBack() {
	if d := g.slow() / gatherPart; d > 0 {
		time.Sleep(d)
		return
	}
	runtime.Gosched()
}

// flushOnce is not tried again, by nobody: a device that failed a flush may have
// dropped what it held and answer the next with success.
func (l *Log) flushOnce() error {
	if err := l.Err(); err != nil {
		return err
	}
	l.stats.flushes.Add(1)
	if err := l.dev.Flush(); err != nil {
		return l.fence("flush", err)
	}
	return nil
}
