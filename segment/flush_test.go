package segment

import (
	"errors"
	"testing"

	"ashlar"
)

// onceFailing fails its first flush, after another one waits behind it, and
// answers every later one with success, as real devices do.
type onceFailing struct {
	Device
	flushes int
	begun   chan struct{}
	waiting chan struct{}
}

func (d *onceFailing) Flush() error {
	if d.flushes++; d.flushes > 1 {
		return nil
	}
	close(d.begun)
	<-d.waiting
	return errors.New("lost power")
}

// TestNobodyFlushesAfterAFailedFlush proves that a writer that waited behind a
// failed flush does not believe the next one.
func TestNobodyFlushesAfterAFailedFlush(t *testing.T) {
	d := &onceFailing{begun: make(chan struct{}), waiting: make(chan struct{})}
	l := &Log{dev: d, opt: Options{}.withDefaults()}
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- l.flushing.flush(l) }()
	<-d.begun
	go func() { second <- l.flushing.flush(l) }()
	for { // until the second leads the next round
		l.flushing.mu.Lock()
		queued := l.flushing.next != nil
		l.flushing.mu.Unlock()
		if queued {
			break
		}
	}
	close(d.waiting)
	for _, got := range []chan error{first, second} {
		if err := <-got; !ashlar.Is(err, ashlar.Unavailable) {
			t.Errorf("got %v", err)
		}
	}
	if d.flushes != 1 {
		t.Errorf("the device was flushed %d times", d.flushes)
	}
}
