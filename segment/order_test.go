package segment

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"ashlar"
	"ashlar/segment/format"
	"ashlar/segment/simdev"
)

// gated lets each flush through when the test says so, with the result it names.
type gated struct {
	Device
	entered chan struct{}
	result  chan error
}

func (g *gated) Flush() error {
	g.entered <- struct{}{}
	if err := <-g.result; err != nil {
		return err
	}
	return g.Device.Flush()
}

// gate reopens the disk's log on a device whose flushes the test lets through.
func (d *disk) gate() (*Log, *gated) {
	d.Helper()
	d.log.Close()
	g := &gated{Device: d.dev, entered: make(chan struct{}, 1), result: make(chan error)}
	open := make(chan struct{})
	go func() { // lets the flushes of Open pass
		for {
			select {
			case <-g.entered:
				g.result <- nil
			case <-open:
				return
			}
		}
	}()
	l, err := Open(d.Context(), g, d.opt)
	open <- struct{}{}
	if err != nil {
		d.Fatal(err)
	}
	d.log = l
	d.Cleanup(func() { close(g.result) }) // before the log closes
	return l, g
}

// TestDeleteBehindAFailedFlush: a record is written whole and its flush fails.
// The caller has given up and deletes the key. Whatever the delete is told, it is
// not that the key is gone: the next Open finds the record.
func TestDeleteBehindAFailedFlush(t *testing.T) {
	d := newDisk(t)
	d.opt.BatchBytes = 1 // the delete does not wait for company while the device is busy
	l, g := d.gate()
	r := crashRecord(1, 1, 3000)
	ctx, giveUp := context.WithCancel(t.Context())
	appended := make(chan error, 1)
	go func() { appended <- l.Append(ctx, r) }()
	<-g.entered
	giveUp()
	if err := <-appended; err == nil {
		t.Fatal("acknowledged before its flush")
	}
	w := l.writers[0]
	del := newRequest(nil, r.Key, nil, format.TotalBytes(format.RecordHeadBytes(0), 0))
	if err := l.enqueue(t.Context(), "delete", del, w, new(int)); err != nil {
		t.Fatal(err)
	}
	for len(w.queue) > 0 {
		runtime.Gosched()
	}
	time.Sleep(5 * time.Millisecond) // for the writer to reach the wait; a shorter one may miss the bug, no more
	g.result <- errors.New("lost power")
	if err := <-del.answered; !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("delete: %v", err)
	}
}

// TestDeleteSeesTheLastOfSeveralFlights: a delete, an append and a delete of one key
// are under way. The last one must wait for the append, whatever became of the first.
func TestDeleteSeesTheLastOfSeveralFlights(t *testing.T) {
	d := newDisk(t)
	l, _ := d.gate()
	w := l.writers[0]
	key := crashRecord(1, 1, 1).Key
	first, second := &flight{number: 1, keys: []Key{key}}, &flight{number: 2, keys: []Key{key}}
	w.flying[key] = 2
	w.idle = w.idle[:0]
	w.back <- first
	w.await(1)
	if w.flying[key] != 2 {
		t.Errorf("after the first came back, flight %d holds the key", w.flying[key])
	}
	w.back <- second
	w.await(2)
	if len(w.flying) != 0 {
		t.Errorf("nothing flies, and %v is held", w.flying)
	}
}

// TestBatchTakesWhatWasGathered: what one batch may hold and what is gathered for
// it end at the same record, so that no record is left over for a flush of its own.
func TestBatchTakesWhatWasGathered(t *testing.T) {
	d := newDisk(t)
	d.opt.BatchBytes = 8 * int(ashlar.KiB) // four of the records below
	l, g := d.gate()
	const behind = 4 + 4 + 3
	first := make(chan error, 1)
	go func() { first <- l.Append(t.Context(), crashRecord(0, 1, 2000)) }()
	<-g.entered
	w := l.writers[0]
	reqs := make([]*request, behind)
	for i := range reqs {
		r := crashRecord(uint8(1+i), 1, 2000)
		reqs[i] = newRequest(r, r.Key, nil, format.TotalBytes(format.RecordHeadBytes(len(r.Owner.Key)), uint32(len(r.Data))))
		if err := l.enqueue(t.Context(), "append", reqs[i], w, new(int)); err != nil {
			t.Fatal(err)
		}
	}
	for len(w.queue) > behind-4 { // four are laid out
		runtime.Gosched()
	}
	g.result <- nil
	for _, r := range reqs {
		for waiting := true; waiting; {
			select {
			case <-g.entered:
				g.result <- nil
			case err := <-r.answered:
				waiting = false
				if err != nil {
					t.Error(err)
				}
			}
		}
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
	if n := l.Stats().Batches; n != 4 {
		t.Errorf("%d batches, want 4", n)
	}
}

// TestShortOnesShareTheNextFlush: what comes while a batch is on the device waits, and is
// one batch behind it. A long record does not wait.
func TestShortOnesShareTheNextFlush(t *testing.T) {
	d := &barred{Device: simdev.New(64*ashlar.MiB, 512, 1)}
	l, err := Open(t.Context(), d, Options{Disk: ashlar.DiskID{1}, IndexDir: "index", SegmentBytes: 8 * ashlar.MiB, Writers: 1,
		hooks: hooks{fs: vfs.NewMem()}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w, flushed := l.writers[0], d.flushes.Load()
	var reqs []*request
	put := func(bytes int) {
		t.Helper()
		i := len(reqs) + 1
		r := crashRecord(uint8(i), uint64(i), bytes)
		reqs = append(reqs, newRequest(r, r.Key, nil, format.TotalBytes(format.RecordHeadBytes(len(r.Owner.Key)), uint32(len(r.Data)))))
		if err := l.enqueue(t.Context(), "append", reqs[i-1], w, new(int)); err != nil {
			t.Fatal(err)
		}
	}
	d.gate.Lock()
	put(2000)
	for d.flushes.Load() == flushed {
		runtime.Gosched()
	}
	const short = 20
	for range short {
		put(2000)
	}
	time.Sleep(5 * time.Millisecond) // for the writer to take them too early; a shorter one may miss it, no more
	if n := len(w.queue); n != short {
		t.Errorf("%d short ones wait for the one on the device, want %d", n, short)
	}
	put(int(longBytes))
	for len(w.queue) > 0 { // the long one is laid out, and all that waited with it
		runtime.Gosched()
	}
	d.gate.Unlock()
	for _, r := range reqs {
		if err := <-r.answered; err != nil {
			t.Error(err)
		}
	}
	if n := l.Stats().Batches; n != 2 {
		t.Errorf("%d batches, want 2", n)
	}
}
