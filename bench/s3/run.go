package s3

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"ashlar"
	"ashlar/bench/measure"
	"ashlar/bench/report"
)

// Read-back after a Put run is a sample: enough to notice, bounded in time.
const (
	readBackMax      = 512
	readBackBytesMax = 1 * ashlar.GiB
	errorSamplesMax  = 5
)

// errTooManyErrors ends a run that measures nothing but failures.
var errTooManyErrors = fmt.Errorf("more than %d errors", errorsMax)

// run is the state of one Run; workers share it read-only but for errors.
type run struct {
	Options
	endpoints []endpoint
	prefix    string // of every object of this run
	workers   []*worker
	hashes    []uint64 // of the objects of the set that a Get run reads
	report    *report.Report

	errors struct {
		sync.Mutex
		count   int
		samples []string
	}
}

// Run does one benchmark run. It returns a report whenever something was
// measured; an error besides it says why the run is not complete: the context
// ended (the report is then marked interrupted), too many errors, wrong bytes.
// What the run stored is removed before it returns, for which it takes up to
// Options.CleanupTimeout even when the context has ended.
func Run(ctx context.Context, options Options) (rep *report.Report, err error) {
	r, err := newRun(options)
	if err != nil {
		return nil, fmt.Errorf("bench s3: %w", err)
	}
	c := r.connection(0)
	defer c.drop()
	stop := context.AfterFunc(ctx, c.interrupt)
	made, err := c.makeBucket(ctx, r.Bucket, r.Region)
	stop()
	if err != nil {
		return nil, fmt.Errorf("bench s3: bucket %s: %w", r.Bucket, err)
	}
	err = r.measure(ctx)
	r.report.ErrorSamples = r.errors.samples
	if left := r.cleanup(ctx, made); left != nil {
		r.report.Leftover = fmt.Sprintf("objects under %s in bucket %s: %v", r.prefix, r.Bucket, left)
		err = errors.Join(err, errors.New(r.report.Leftover))
	}
	if err != nil {
		err = fmt.Errorf("bench s3: %w", err)
	}
	if len(r.report.Rounds) == 0 {
		return nil, err
	}
	return r.report, err
}

func newRun(options Options) (*run, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &run{Options: options}
	for _, text := range options.Endpoints {
		e, err := parseEndpoint(text, options.TLS)
		if err != nil {
			return nil, err
		}
		r.endpoints = append(r.endpoints, e)
	}
	if _, err := measure.ProcessesUsage(options.ServerPIDs); err != nil {
		return nil, err
	}
	id := ashlar.NewID().String()[:12]
	setDefault(&r.Bucket, "ashlar-bench-"+id)
	r.prefix = strings.TrimSuffix(r.Prefix, "/") + "/" + id + "/"
	r.report = &report.Report{Format: report.FormatVersion, Label: r.Label, Started: time.Now().UTC().Truncate(time.Second), Setup: r.setup()}
	for i := range r.Concurrent {
		r.workers = append(r.workers, newWorker(r, i))
	}
	return r, nil
}

func (r *run) setup() report.Setup {
	return report.Setup{Operation: r.Operation, ObjectBytes: r.Bytes, Objects: r.Objects, Concurrent: r.Concurrent,
		Duration: r.Duration, Count: r.Count, Warmup: r.Warmup, Repeats: r.Repeats, SignedPayload: r.SignedPayload,
		Verify: r.Verify, TLS: r.endpoints[0].tls != nil, Endpoints: len(r.endpoints), CPUs: runtime.NumCPU(), Machine: machine()}
}

// machine names the processor and the kernel of the client.
func machine() string {
	var model string
	info, _ := os.ReadFile("/proc/cpuinfo") // without it the name is shorter
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(model + ", " + runtime.GOOS + " " + strings.TrimSpace(string(kernel)))
}

// connection makes a connection to the endpoint that is worker i's.
func (r *run) connection(i int) *conn {
	return &conn{to: r.endpoints[i%len(r.endpoints)], sign: newSigner(r.AccessKey, r.SecretKey, r.Region),
		signAll: r.SignedPayload, timeout: r.Timeout}
}

// measure prepares, warms up and runs the rounds.
func (r *run) measure(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, w := range r.workers {
		defer context.AfterFunc(ctx, w.conn.interrupt)()
		defer w.conn.drop()
		w.tooMany = func() { cancel(errTooManyErrors) }
	}
	if r.Operation == Get {
		if err := r.prepare(ctx); err != nil {
			return err
		}
	}
	if r.Warmup > 0 {
		r.Progress(fmt.Sprintf("warming up for %s", r.Warmup))
		r.stretch(ctx, r.Warmup, 0)
	}
	for n := range r.Repeats {
		if ctx.Err() != nil {
			break
		}
		r.Progress(fmt.Sprintf("measuring, round %d of %d", n+1, r.Repeats))
		r.report.Rounds = append(r.report.Rounds, r.stretch(ctx, r.Duration, r.Count))
	}
	r.report.Server = r.workers[0].server
	if ctx.Err() != nil {
		r.report.Interrupted = true
		return context.Cause(ctx)
	}
	if r.Operation == Put && r.Verify {
		return r.readBack(ctx)
	}
	return r.wrongBytes()
}

// prepare stores the set that a Get run reads; every object must succeed.
func (r *run) prepare(ctx context.Context) error {
	r.Progress(fmt.Sprintf("storing %d objects of %s to read", r.Objects, report.Size(r.Bytes)))
	r.hashes = make([]uint64, r.Objects)
	failed := make([]error, len(r.workers))
	r.everyWorker(func(w *worker) {
		for n := w.number; n < r.Objects && ctx.Err() == nil; n += r.Concurrent {
			key := r.setKey(n)
			if failed[w.number] = w.put(key, time.Now()); failed[w.number] != nil {
				return
			}
			r.hashes[n] = contentOf(r.Seed, key).hash(r.Bytes, w.buffer())
		}
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("storing the objects to read: %w", err)
	}
	return nil
}

func (r *run) setKey(n int) string { return fmt.Sprintf("%sset/%07d", r.prefix, n) }

// everyWorker runs f on every worker at once and waits for all.
func (r *run) everyWorker(f func(*worker)) {
	var all sync.WaitGroup
	for _, w := range r.workers {
		all.Go(func() { f(w) })
	}
	all.Wait()
}

// readBack compares a sample of what a Put run stored, byte by byte.
func (r *run) readBack(ctx context.Context) error {
	var keys []string
	for _, w := range r.workers {
		keys = append(keys, w.sample...)
	}
	rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	fit := int(max(1, readBackBytesMax/max(r.Bytes, 1)))
	keys = keys[:min(len(keys), readBackMax, fit)]
	r.Progress(fmt.Sprintf("reading %d objects back", len(keys)))
	failed := make([]error, len(r.workers))
	r.everyWorker(func(w *worker) {
		for n := w.number; n < len(keys) && ctx.Err() == nil; n += r.Concurrent {
			want := contentOf(r.Seed, keys[n]).hash(r.Bytes, w.buffer())
			if err := w.get(keys[n], want, time.Now()); err != nil {
				failed[w.number] = errors.Join(failed[w.number], err)
			}
		}
	})
	r.report.ReadBack = len(keys)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(append(failed, r.wrongBytes())...)
}

// wrongBytes is an error if any answer had other bytes than were stored.
func (r *run) wrongBytes() error {
	for _, w := range r.workers {
		if w.wrong != nil {
			return w.wrong
		}
	}
	return nil
}

// cleanup removes what the run stored; it outlives the run's context.
func (r *run) cleanup(ctx context.Context, removeBucket bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.CleanupTimeout)
	defer cancel()
	r.Progress("removing the objects of this run")
	if err := r.clean(ctx, r.Bucket, r.prefix); err != nil || !removeBucket {
		return err
	}
	c := r.connection(0)
	defer c.drop()
	defer context.AfterFunc(ctx, c.interrupt)()
	return c.removeBucket(ctx, r.Bucket)
}
