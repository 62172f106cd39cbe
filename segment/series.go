package segment

import "golang.org/x/sync/errgroup"

// starter is a Device on which writes can be begun without waiting for it.
// Start does not wait, and has p until wait has returned; wait is called once, behind
// the last start, and returns nil if all was written. Nil and nil if it cannot.
type starter interface {
	Writes() (start func(p []byte, off int64), wait func() error)
}

// threadsMax is how many writes of a series are under way at once on a device that
// is no starter.
const threadsMax = 4

// series returns what begins each of some writes, and what waits for all of them. They
// may reach the device in any order.
func (l *Log) series() (start func(p []byte, off int64), wait func() error) {
	if d, ok := l.dev.(starter); ok {
		if start, wait = d.Writes(); start != nil {
			return start, wait
		}
	}
	var all errgroup.Group
	room := make(chan struct{}, threadsMax)
	start = func(p []byte, off int64) {
		all.Go(func() error {
			room <- struct{}{}
			defer func() { <-room }()
			_, err := l.dev.WriteAt(p, off)
			return err
		})
	}
	return start, all.Wait
}
