package segment

import (
	"errors"
	"runtime"
	"testing"
	"time"

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
	go func() { first <- l.flushing.flush(l, false) }()
	<-d.begun
	go func() { second <- l.flushing.flush(l, false) }()
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

// counting counts flushes.
type counting struct {
	Device
	flushes int
}

func (d *counting) Flush() error {
	d.flushes++ // flushing has one at a time
	return nil
}

// TestASlowFlushWaitsForWhoIsComing, and serves them; for nobody else, and not for ever.
func TestASlowFlushWaitsForWhoIsComing(t *testing.T) {
	d := &counting{}
	l := &Log{dev: d, opt: Options{}.withDefaults()}
	g := &l.flushing
	soon := func(what string, done <-chan error) {
		t.Helper()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal(what + " still waits")
		}
	}
	start := func(announced bool) <-chan error {
		done := make(chan error, 1)
		go func() { done <- g.flush(l, announced) }()
		return done
	}
	took := func(d time.Duration) {
		g.mu.Lock()
		g.took = d
		g.mu.Unlock()
	}

	took(time.Hour)
	soon("nobody is coming, and the flush", start(false))

	took(time.Hour)
	g.coming.Store(2)
	first := start(false)
	for { // until it leads a round
		g.mu.Lock()
		leads := g.next != nil
		g.mu.Unlock()
		if leads {
			break
		}
		runtime.Gosched()
	}
	g.came() // one stays away
	second := start(true)
	soon("all have come, and the first", first)
	soon("all have come, and the second", second)
	if d.flushes != 2 {
		t.Errorf("%d flushes, want one for nobody and one for two", d.flushes)
	}

	took(flushSlow)
	g.coming.Store(1)
	soon("who was announced does not come, and the flush", start(false))
}
