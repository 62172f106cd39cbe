package segment

import (
	"context"
	"fmt"
	"time"

	"ashlar"
)

// How many segments are read ahead of the one that is entered into the index.
// Footers are small and far apart, and a disk orders many such reads by itself;
// where whole segments are read a rotating disk would seek between them.
const (
	aheadMax    = 16
	scannersMax = 4
)

// How often a rebuild says how far it has come.
const (
	tellEvery     = time.Second
	progressEvery = 10 * time.Second
)

// collectAll rebuilds the index from the device.
func (r *recovery) collectAll() error {
	l := r.log
	if r.anchor.Count > 0 || r.anchor.Run != 0 {
		l.opt.Log.Warn("segment: rebuilding the index from the device", "disk", l.opt.Disk, "segments", len(l.table))
	}
	var silent []int
	used := -1
	tell := r.teller()
	err := r.inOrder(func(i int, c *contents) error {
		defer tell(i + 1)
		r.stats.unreadable += c.verdict.unreadable
		if c.verdict.state == segLost {
			silent = append(silent, i)
			return nil
		}
		used = i
		return r.adopt(i, c)
	})
	if err != nil {
		return err
	}
	for _, i := range silent {
		if i > used+salvageBeyond {
			break
		}
		if err := r.salvage(i); err != nil {
			return err
		}
	}
	return nil
}

// teller returns what says in the log, and to the owner, how far a rebuild has come.
func (r *recovery) teller() func(done int) {
	l := r.log
	told, logged := time.Now(), time.Now()
	return func(done int) {
		now := time.Now()
		if l.opt.Progress != nil && (done == len(l.table) || now.Sub(told) > tellEvery) {
			told = now
			l.opt.Progress(done, len(l.table))
		}
		if now.Sub(logged) > progressEvery {
			logged = now
			l.opt.Log.Info("segment: rebuilding the index", "disk", l.opt.Disk, "segment", done, "of", len(l.table), "records", r.stats.records)
		}
	}
}

// loaded is a segment on its way into the index, or why it could not be read.
type loaded struct {
	contents
	err error
}

// inOrder calls fn with the contents of every segment in ascending order, while
// the next ones are being read.
func (r *recovery) inOrder(fn func(i int, c *contents) error) error {
	l := r.log
	if l.opt.hooks.direct {
		for i := range l.table {
			c := r.loadAny(r.ctx, i, nil)
			if c.err != nil {
				return c.err
			}
			if err := fn(i, &c.contents); err != nil {
				return err
			}
		}
		return nil
	}
	ctx, cancel := context.WithCancel(r.ctx)
	queue := make(chan chan loaded, aheadMax) // bounds what is read ahead; closed by produce
	go r.produce(ctx, queue)                  // ends with ctx, or when all are read
	defer func() {
		cancel()
		for c := range queue {
			<-c // nobody reads any more when this returns
		}
	}()
	for i := range l.table {
		next, ok := <-queue
		if !ok {
			return l.fail("open", fmt.Sprintf("seg=%d", i), ashlar.Unavailable, context.Cause(ctx))
		}
		c := <-next
		if c.err != nil {
			return c.err
		}
		if err := fn(i, &c.contents); err != nil {
			return err
		}
	}
	return nil
}

// produce puts one channel for each segment into the queue, which gets its contents.
func (r *recovery) produce(ctx context.Context, queue chan<- chan loaded) {
	defer close(queue)
	scanners := scannersMax
	if r.log.opt.Writers == 1 { // the disk rotates, or is to be treated so
		scanners = 1
	}
	scan := make(chan struct{}, scanners)
	for i := range r.log.table {
		c := make(chan loaded, 1)
		select {
		case queue <- c:
		case <-ctx.Done():
			return
		}
		go func() { c <- r.loadAny(ctx, i, scan) }() // ends when the device answers or ctx ends
	}
}

// loadAny examines a segment and loads what it holds. Scan has room for those
// that may read a whole one at the same time.
func (r *recovery) loadAny(ctx context.Context, i int, scan chan struct{}) (c loaded) {
	v, err := r.examine(ctx, i)
	if err != nil || v.state == segLost || v.state == segFree {
		return loaded{contents{verdict: v}, err}
	}
	c.contents, c.err = r.load(ctx, i, v, scan)
	return c
}
