package s3

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"ashlar/bench/measure"
	"ashlar/bench/report"
)

// errorPause keeps a worker from spinning on a server that is away.
const errorPause = 20 * time.Millisecond

// samplePerWorker bounds the keys that a worker keeps for reading back.
const samplePerWorker = 64

// worker owns one connection and sends one request at a time.
type worker struct {
	run     *run
	number  int
	conn    *conn
	rng     *rand.Rand
	tooMany func()
	server  string
	stored  int      // objects stored so far
	sample  []string // keys of some of them, each equally likely
	wrong   error    // the first answer with wrong bytes
	scratch []byte
}

func newWorker(r *run, number int) *worker {
	return &worker{run: r, number: number, conn: r.connection(number), rng: rand.New(rand.NewPCG(r.Seed, uint64(number)))}
}

// buffer is 256 KiB that the worker may overwrite at any time.
func (w *worker) buffer() []byte {
	if w.scratch == nil {
		w.scratch = make([]byte, ioBytes)
	}
	return w.scratch
}

func (w *worker) pathOf(key string) string {
	return "/" + escape(w.run.Bucket, false) + "/" + escape(key, true)
}

func (w *worker) put(key string, now time.Time) error {
	r := request{method: "PUT", path: w.pathOf(key), content: contentOf(w.run.Seed, key), bytes: w.run.Bytes}
	a, err := w.conn.send(&r, now)
	if err == nil {
		w.server = a.server
		_, err = w.conn.finish(a, 0)
	}
	if err != nil {
		return fmt.Errorf("PUT %s: %w", key, err)
	}
	return nil
}

// get reads the object; with Options.Verify its bytes must have the hash want.
func (w *worker) get(key string, want uint64, now time.Time) error {
	a, err := w.conn.send(&request{method: "GET", path: w.pathOf(key)}, now)
	if err == nil && a.status != 200 {
		_, err = w.conn.finish(a, 0)
		if err == nil {
			err = &statusError{status: a.status}
		}
	}
	if err != nil {
		return fmt.Errorf("GET %s: %w", key, err)
	}
	w.server = a.server
	h := &w.conn.hash
	h.Reset()
	each := func(p []byte) { h.Write(p) }
	if !w.run.Verify {
		each = func([]byte) {}
	}
	n, err := w.conn.body(a, each)
	if err != nil {
		return fmt.Errorf("GET %s after %d bytes: %w", key, n, err)
	}
	if n != w.run.Bytes || w.run.Verify && h.Sum64() != want {
		err = fmt.Errorf("GET %s: WRONG BYTES: got %d of %d, or the hash differs", key, n, w.run.Bytes)
		if w.wrong == nil {
			w.wrong = err
		}
		return err
	}
	return nil
}

// next does one operation of the workload.
func (w *worker) next(now time.Time) error {
	if w.run.Operation == Get {
		n := w.rng.IntN(w.run.Objects)
		return w.get(w.run.setKey(n), w.run.hashes[n], now)
	}
	key := fmt.Sprintf("%sput/%04d/%09d", w.run.prefix, w.number, w.stored)
	if err := w.put(key, now); err != nil {
		return err
	}
	// Reservoir sampling: after n objects each is kept with the same chance.
	if len(w.sample) < samplePerWorker {
		w.sample = append(w.sample, key)
	} else if at := w.rng.IntN(w.stored + 1); at < samplePerWorker {
		w.sample[at] = key
	}
	w.stored++
	return nil
}

// tally is what one worker saw in one stretch.
type tally struct {
	latency  measure.Histogram
	timeline measure.Timeline
	errors   int
	bytes    int64
}

// stretch lets all workers work for a duration, or for a count of operations if
// that is not zero, and returns the figures. Operations that the end cuts are
// finished; their latency counts whole, their bytes for the part inside.
func (r *run) stretch(ctx context.Context, duration time.Duration, count int) report.Round {
	var left atomic.Int64
	left.Store(int64(count))
	before, start := r.usage(), time.Now()
	var end time.Time
	if count == 0 {
		end = start.Add(duration)
	}
	// The figures of the processes must be of the same stretch of time as the
	// bytes, so they are read at the end and not when the last worker is done.
	atEnd := make(chan usage, 1)
	done, finish := context.WithCancel(ctx)
	go func() { // ends at the end of the stretch
		if count > 0 {
			<-done.Done()
		} else {
			sleep(done, duration)
		}
		atEnd <- r.usage()
	}()
	tallies := make([]*tally, len(r.workers))
	r.everyWorker(func(w *worker) {
		t := &tally{timeline: measure.Timeline{Start: start, End: end}}
		tallies[w.number] = t
		for ctx.Err() == nil {
			now := time.Now()
			if count > 0 && left.Add(-1) < 0 || count == 0 && !now.Before(end) {
				return
			}
			w.one(ctx, now, t)
		}
	})
	finish()
	after := <-atEnd
	if count > 0 || after.at.Before(end) {
		end = after.at
	}
	return r.round(end.Sub(start), tallies, before, after)
}

func (w *worker) one(ctx context.Context, now time.Time, t *tally) {
	err := w.next(now)
	done := time.Now()
	switch {
	case err == nil:
		t.latency.Add(done.Sub(now))
		t.timeline.Add(now, done, w.run.Bytes)
		t.bytes += w.run.Bytes
	case ctx.Err() != nil:
		// the run was stopped, the operation did not fail
	default:
		t.errors++
		w.run.failed(err, w.tooMany)
		sleep(ctx, errorPause)
	}
}

// failed counts an error and keeps the words of the first few.
func (r *run) failed(err error, tooMany func()) {
	r.errors.Lock()
	defer r.errors.Unlock()
	if r.errors.count++; r.errors.count > errorsMax {
		tooMany()
	}
	if len(r.errors.samples) < errorSamplesMax {
		r.errors.samples = append(r.errors.samples, err.Error())
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// usage is what the processes have used, and when.
type usage struct {
	at             time.Time
	server, client measure.Usage
	err            error
}

func (r *run) usage() usage {
	u := usage{at: time.Now()}
	var errClient error
	u.server, u.err = measure.ProcessesUsage(r.ServerPIDs)
	u.client, errClient = measure.ProcessUsage(os.Getpid())
	u.err = errors.Join(u.err, errClient)
	return u
}

func (r *run) round(length time.Duration, tallies []*tally, before, after usage) report.Round {
	var all tally
	for _, t := range tallies {
		all.latency.Merge(&t.latency)
		all.timeline.Merge(&t.timeline)
		all.errors += t.errors
		all.bytes += t.bytes
	}
	total := all.timeline.Total()
	d := report.Round{Seconds: length.Seconds(), Bytes: total.Bytes, Operations: total.Operations, Errors: all.errors,
		Latency: report.LatencyOf(&all.latency), Windows: all.timeline.Windows}
	slowest, median, fastest := all.timeline.Spread(length)
	d.Slowest, d.Median, d.Fastest = slowest.Bytes, median.Bytes, fastest.Bytes
	if r.Operation == Get && r.Verify {
		d.VerifiedBytes = all.bytes
	}
	if before.err == nil && after.err == nil {
		d.ServerCPU = (after.server.CPU - before.server.CPU).Seconds()
		d.ServerResident = after.server.ResidentBytes
		d.ClientCPU = (after.client.CPU - before.client.CPU).Seconds()
	} else {
		r.failed(fmt.Errorf("cpu time is unknown: %w", errors.Join(before.err, after.err)), func() {})
	}
	return d
}
