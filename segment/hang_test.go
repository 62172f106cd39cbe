package segment

import (
	"runtime"
	"testing"
	"time"

	"ashlar"
	"ashlar/segment/simdev"
)

// TestHangingDeviceWithBatchesBehind has several batches wait behind the one that
// a device hangs on: every caller comes back at its deadline, and its data is its
// own again, whatever the writer has laid out meanwhile.
func TestHangingDeviceWithBatchesBehind(t *testing.T) {
	const behind = 6
	d := newDisk(t)
	d.log.Close()
	d.opt.IOTimeout = 200 * time.Millisecond
	d.opt.BatchBytes = 8 * int(ashlar.KiB) // one record of those below, not two
	d.reopen()
	before := d.put(1, 1, 5000)
	d.dev.Inject(simdev.Rule{Ops: simdev.Write | simdev.Flush, Fault: simdev.Hang})
	answers := make(chan error, behind+1)
	appendOne := func(key uint8) {
		r := crashRecord(key, uint64(key), 5000)
		answers <- d.log.Append(t.Context(), r)
		clear(r.Data) // the race detector sees a writer that still looks at it
	}
	go appendOne(2)
	for d.log.writers[0].busy.Load() == 0 {
		runtime.Gosched()
	}
	for i := range behind {
		go appendOne(uint8(3 + i))
	}
	late := time.After(20 * time.Second)
	for i := range behind + 1 {
		select {
		case err := <-answers:
			if !ashlar.Is(err, ashlar.Unavailable) {
				t.Errorf("append: %v", err)
			}
		case <-late:
			d.dev.Clear() // the callers end
			t.Fatalf("%d of %d callers still wait for a hung device", behind+1-i, behind+1)
		}
	}
	d.dev.Clear()
	d.want(before)
}

// TestFullQueueOfAHangingDevice: who finds no room in the queue is told so, at the same deadline.
func TestFullQueueOfAHangingDevice(t *testing.T) {
	const callers = 8 // one on the device, two laid out or gathered behind it, one in the queue, and more
	d := newDisk(t)
	d.log.Close()
	d.opt.IOTimeout, d.opt.QueueLen, d.opt.BatchBytes = time.Second, 1, 1
	d.reopen()
	d.dev.Inject(simdev.Rule{Ops: simdev.Write | simdev.Flush, Fault: simdev.Hang})
	answers := make(chan error, callers)
	for i := range callers {
		go func() { answers <- d.log.Append(t.Context(), crashRecord(uint8(1+i), 1, 5000)) }()
	}
	busy := 0
	late := time.After(20 * time.Second)
	for range callers {
		select {
		case err := <-answers:
			if ashlar.Is(err, ashlar.Busy) {
				busy++
			} else if !ashlar.Is(err, ashlar.Unavailable) {
				t.Errorf("append: %v", err)
			}
		case <-late:
			d.dev.Clear() // the callers end
			t.Fatal("callers still wait for a hung device")
		}
	}
	d.dev.Clear()
	if busy == 0 || busy == callers {
		t.Errorf("%d of %d callers found the queue full", busy, callers)
	}
}
