package segment

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"ashlar"
	"ashlar/segment/format"
	"ashlar/segment/simdev"
)

// The explorer of crash states runs a real log on a simulated device, keeps
// the order of all writes, flushes, calls and acknowledgements, and then cuts
// the power at every point of it, several times, each time with other atoms of
// the cache surviving. In each state it runs the recovery without an index and
// compares what it finds with what had been acknowledged. To explore a million:
//
//	go test ./segment -run TestCrashStates -states 1000000 -timeout 30m
var (
	flagStates = flag.Int("states", 6_000, "crash states to explore")
	flagSeed   = flag.Uint64("seed", 1, "first seed of the explorer")
)

const (
	crashSegments = 14
	crashBytes    = 2*format.EndBytes + crashSegments*format.SegmentBytesMin
)

// workload is what a run does.
type workload struct {
	segments     int
	segmentBytes int64
	ops, keys    int
	burst        int // the longest record of a burst, in bytes
	least, most  int // the longest of one call is 2^n bytes, n between these
	batch        int // that much does not wait while the device is busy; 0 is the default
	flush        time.Duration
}

// slowFlush is a device whose flushes take a while, so that the next batch is laid out by then.
type slowFlush struct {
	Device
	takes time.Duration
}

func (d slowFlush) Flush() error {
	time.Sleep(d.takes)
	return d.Device.Flush()
}

// Short records share batches. Long ones are on the device in slices, all at once, and
// each makes a batch that does not wait for others: a writer that puts a batch header on
// the device before the flush in front of it is caught.
var (
	shortRecords = workload{segments: crashSegments, segmentBytes: format.SegmentBytesMin, ops: 120, keys: 12, burst: 3_000, most: 14}
	longRecords  = workload{segments: 9, segmentBytes: 2 * ashlar.MiB, ops: 24, keys: 5, burst: 900_000, least: 18, most: 20, batch: 300_000, flush: time.Millisecond}
)

func (w *workload) bytes() int64 { return 2*format.EndBytes + int64(w.segments)*w.segmentBytes }

func (w *workload) options(fs vfs.FS, p plant) Options {
	opt := crashOptions(fs, p)
	opt.SegmentBytes, opt.BatchBytes = w.segmentBytes, w.batch
	return opt
}

var crashDisk = ashlar.DiskID{0xc4}

// event is one line of a run's history.
type event struct {
	kind    string // write, flush, begin, ack
	off     int64
	data    []byte
	key     Key
	version uint64 // begin and ack; 0 is a delete
}

// history is what one run did, in order.
type history struct {
	mu     sync.Mutex
	events []event
}

func (h *history) add(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// plant breaks the log on purpose, to prove that the explorer can fail.
type plant struct {
	lie   bool // appends are acknowledged before the flush
	trust bool // recovery believes data without its checksums
}

func crashRecord(key uint8, version uint64, bytes int) *Record {
	r := &Record{Key: Key{Stripe: ashlar.StripeID{key}, Piece: key}, Written: time.Unix(0, int64(version)), Data: make([]byte, bytes)}
	r.Owner.Key = strings.Repeat("k", int(version%40))
	for i := range r.Data {
		r.Data[i] = byte(uint64(i)*31 + version)
	}
	return r
}

func crashOptions(fs vfs.FS, p plant) Options {
	return Options{Disk: crashDisk, IndexDir: "index", SegmentBytes: format.SegmentBytesMin, Writers: 2,
		CompactBytesPerSecond: -1, IndexCacheBytes: ashlar.MiB, hooks: hooks{fs: fs, trust: p.trust}}
}

// record runs a workload: single calls, bursts that share batches, compaction,
// and a clean restart in the middle.
func record(t *testing.T, w *workload, seed uint64, p plant) *history {
	t.Helper()
	h := &history{}
	dev := simdev.New(w.bytes(), 512, seed)
	dev.Trace(func(op simdev.Op, off int64, data []byte) {
		e := event{kind: "flush"}
		if op == simdev.Write {
			e = event{kind: "write", off: off, data: append([]byte(nil), data...)}
		}
		h.add(e)
	})
	if p.lie {
		dev.Inject(simdev.Rule{Ops: simdev.Flush, Fault: simdev.Lie})
	}
	rng := rand.New(rand.NewPCG(seed, 7))
	fs := vfs.NewMem()
	open := func() *Log {
		l, err := Open(t.Context(), slowFlush{dev, w.flush}, w.options(fs, p))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		return l
	}
	l := open()
	for op := range w.ops {
		switch n := rng.IntN(20); {
		case n == 0:
			if err := l.Compact(t.Context()); err != nil && !ashlar.Is(err, ashlar.Full) {
				t.Fatalf("seed %d: %v", seed, err)
			}
		case n == 1 && op > w.ops/3:
			l.Close()
			l = open()
		case n < 6: // a burst on different keys
			var wg sync.WaitGroup
			for _, key := range rng.Perm(w.keys)[:min(2+rng.IntN(5), w.keys)] {
				version, bytes := 1+uint64(op)*16+uint64(key), rng.IntN(w.burst)
				wg.Go(func() { h.call(t, l, uint8(key), version, bytes) })
			}
			wg.Wait()
		case n < 10:
			h.call(t, l, uint8(rng.IntN(w.keys)), 0, 0)
		default:
			key := uint8(rng.IntN(w.keys))
			longest := 1 << (w.least + rng.IntN(w.most-w.least+1))
			h.call(t, l, key, 1+uint64(op)*16+uint64(key), rng.IntN(longest+1))
		}
	}
	l.Close()
	return h
}

func (h *history) call(t *testing.T, l *Log, key uint8, version uint64, bytes int) {
	r := crashRecord(key, version, bytes)
	h.add(event{kind: "begin", key: r.Key, version: version})
	var err error
	if version == 0 {
		err = l.Delete(t.Context(), r.Key)
	} else {
		err = l.Append(t.Context(), r)
	}
	if err == nil {
		h.add(event{kind: "ack", key: r.Key, version: version})
	} else if !ashlar.Is(err, ashlar.Full) {
		t.Errorf("call: %v", err)
	}
}

// keyState is what may be found of a key after a cut.
type keyState struct {
	acked uint64
	begun []uint64 // not acknowledged, since the last acknowledgement
}

func (s *keyState) allows(version uint64) bool {
	if version == s.acked {
		return true
	}
	for _, v := range s.begun {
		if v == version {
			return true
		}
	}
	return false
}

// explorer replays a history and cuts it. It is the device that recovery reads.
type explorer struct {
	work   *workload
	medium []byte
	cache  map[int64][][]byte
	torn   map[int64][]byte // what this cut left of the cache
	keys   map[Key]*keyState
	rng    *rand.Rand
	states int
}

func (x *explorer) Bytes() int64             { return int64(len(x.medium)) }
func (x *explorer) BlockBytes() int          { return 512 }
func (x *explorer) Flush() error             { return nil }
func (x *explorer) Discard(_, _ int64) error { return nil }
func (x *explorer) WriteAt([]byte, int64) (int, error) {
	panic("recovery wrote while it was only to read")
}

func (x *explorer) ReadAt(p []byte, off int64) (int, error) {
	copy(p, x.medium[off:])
	for i := 0; i < len(p) && len(x.torn) > 0; i += simdev.Atom {
		if v, ok := x.torn[off+int64(i)]; ok {
			copy(p[i:i+simdev.Atom], v)
		}
	}
	return len(p), nil
}

// apply moves one event on.
func (x *explorer) apply(e event) {
	switch e.kind {
	case "write":
		for i := 0; i < len(e.data); i += simdev.Atom {
			at := e.off + int64(i)
			x.cache[at] = append(x.cache[at], e.data[i:i+simdev.Atom])
		}
	case "flush":
		for at, v := range x.cache {
			copy(x.medium[at:], v[len(v)-1])
		}
		clear(x.cache)
	default:
		s := x.keys[e.key]
		if s == nil {
			s = &keyState{}
			x.keys[e.key] = s
		}
		if e.kind == "begin" {
			s.begun = append(s.begun, e.version)
		} else {
			s.acked, s.begun = e.version, nil // calls on one key are sequential
		}
	}
}

// cut chooses what survives: nothing, everything, a prefix of the order, or chance.
func (x *explorer) cut(variant int) {
	clear(x.torn)
	keep := []int{0, 100, 50, 90, 10}[variant%5]
	for at, v := range x.cache {
		if x.rng.IntN(100) < keep {
			x.torn[at] = v[x.rng.IntN(len(v))]
		}
	}
}

// recovered is the outcome of recovery without an index.
type recovered map[Key]row

// recoverFrom runs the steps of Open that read the device, into a map.
func recoverFrom(dev Device, w *workload, trust bool) (*Log, recovered, error) {
	opt := w.options(nil, plant{trust: trust}).withDefaults()
	opt.hooks.direct = true
	l := &Log{dev: dev, opt: opt, block: dev.BlockBytes(), reads: make(chan struct{}, opt.ReadsMax)}
	found := recovered{}
	r := recovery{log: l, ctx: context.Background()}
	r.sink = func(i int, life format.Life, entries []format.Entry, _ *segRow) error {
		for _, e := range entries {
			n := row{e, uint32(i), life.Generation}
			if cur, ok := found[n.key()]; !ok || n.newer(&cur) {
				found[n.key()] = n
			}
		}
		return nil
	}
	if err := r.findAnchor(); err != nil {
		return l, nil, err
	}
	r.reset()
	return l, found, r.collectAll()
}

// check compares one crash state with what may be there.
func (x *explorer) check(trust bool) error {
	x.states++
	l, found, err := recoverFrom(x, x.work, trust)
	if err != nil {
		return err
	}
	for k, s := range x.keys {
		version := uint64(0)
		cur, ok := found[k]
		if ok && cur.Type == format.Piece {
			version = uint64(cur.Written)
			if _, err := l.readWhole(&cur); err != nil {
				return fmt.Errorf("%v: version %d is listed and torn", k, version)
			}
		}
		if !s.allows(version) {
			return fmt.Errorf("%v: version %d found, %d acknowledged, %v begun", k, version, s.acked, s.begun)
		}
	}
	for k := range found {
		if x.keys[k] == nil {
			return fmt.Errorf("%v: found, never written", k)
		}
	}
	return nil
}

// explore cuts the history after every event, variants times.
func explore(w *workload, h *history, seed uint64, variants, limit int, trust bool) (states int, err error) {
	x := &explorer{
		work: w, medium: make([]byte, w.bytes()), cache: map[int64][][]byte{}, torn: map[int64][]byte{},
		keys: map[Key]*keyState{}, rng: rand.New(rand.NewPCG(seed, 11)),
	}
	for n, e := range h.events {
		x.apply(e)
		tries := variants
		if len(x.cache) == 0 || e.kind != "write" {
			tries = min(1, len(x.cache)) // flushed: one state; else the write before was cut already
		}
		for variant := range tries {
			x.cut(variant)
			if err := x.check(trust); err != nil {
				return x.states, fmt.Errorf("seed %d, cut after event %d of %d (%s), variant %d: %w", seed, n, len(h.events), e.kind, variant, err)
			}
			if x.states >= limit {
				return x.states, nil
			}
		}
	}
	return x.states, nil
}

func TestCrashStates(t *testing.T) { crashStates(t, &shortRecords, *flagStates, 40) }

// TestCrashStatesOfLongRecords cuts the power between the slices of long records, too.
// There are a twentieth as many states, for each is looked at in a larger device.
func TestCrashStatesOfLongRecords(t *testing.T) { crashStates(t, &longRecords, *flagStates/20, 8) }

func crashStates(t *testing.T, w *workload, wanted, variants int) {
	var states atomic.Int64
	var next atomic.Uint64
	next.Store(*flagSeed)
	began := time.Now()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for left := wanted - int(states.Load()); left > 0 && !t.Failed(); left = wanted - int(states.Load()) {
				seed := next.Add(1) - 1
				n, err := explore(w, record(t, w, seed, plant{}), seed, variants, left, false)
				states.Add(int64(n))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d crash states of %d runs (seeds %d to %d) in %v", states.Load(), next.Load()-*flagSeed, *flagSeed, next.Load()-1, time.Since(began).Round(time.Millisecond))
}

// TestCrashStatesCanFail plants bugs that the explorer must find.
func TestCrashStatesCanFail(t *testing.T) {
	for name, p := range map[string]plant{
		"acknowledged before the flush": {lie: true},
		"checksums skipped":             {trust: true},
	} {
		caught := false
		for seed := uint64(1); seed <= 20 && !caught; seed++ {
			_, err := explore(&shortRecords, record(t, &shortRecords, seed, p), seed, 10, 100_000, p.trust)
			if caught = err != nil; caught {
				t.Logf("%s: found: %v", name, err)
			}
		}
		if !caught {
			t.Errorf("%s: not found", name)
		}
	}
}

// readWhole reads the record as ReadAt does, past the index.
func (l *Log) readWhole(r *row) ([]byte, error) {
	data := make([]byte, r.DataBytes)
	if len(data) == 0 {
		return nil, nil
	}
	return data, l.readRange(context.Background(), r, data, 0)
}
