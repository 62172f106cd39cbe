package segment

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"ashlar"
	"ashlar/segment/format"
	"ashlar/segment/simdev"
)

// gate is the device as one process sees it: shut when the process is killed,
// while the device itself lives on.
type gate struct {
	*simdev.Device
	shut atomic.Bool
	left atomic.Int64 // writes and flushes until it shuts by itself; 0: it does not
}

func (g *gate) pass() bool {
	if g.left.Load() > 0 && g.left.Add(-1) == 0 {
		g.shut.Store(true)
	}
	return !g.shut.Load()
}

func (g *gate) ReadAt(p []byte, off int64) (int, error) {
	if g.shut.Load() {
		return 0, syscall.EIO
	}
	return g.Device.ReadAt(p, off)
}

func (g *gate) WriteAt(p []byte, off int64) (int, error) {
	if !g.pass() {
		return 0, syscall.EIO
	}
	return g.Device.WriteAt(p, off)
}

func (g *gate) Flush() error {
	if !g.pass() {
		return syscall.EIO
	}
	return g.Device.Flush()
}

// model is a log, its device, its index's filesystem, and a map that says what
// must be in the log: for each key the versions of which one is there, 0 for
// absence. More than one version is possible only since an unanswered call.
type model struct {
	t       *rapid.T
	dev     *simdev.Device
	gate    *gate
	fs      *vfs.MemFS
	log     *Log
	keys    map[uint8][]uint64
	version uint64
	writers int
	rng     *rand.Rand
}

const modelKeys = 16

func newModel(t *rapid.T) *model {
	seed := rapid.Uint64().Draw(t, "seed")
	m := &model{
		t: t, dev: simdev.New(crashBytes, rapid.SampledFrom([]int{512, 4096}).Draw(t, "block"), seed),
		fs: vfs.NewCrashableMem(), keys: map[uint8][]uint64{}, writers: rapid.IntRange(1, 3).Draw(t, "writers"),
		rng: rand.New(rand.NewPCG(seed, 3)),
	}
	for k := range uint8(modelKeys) {
		m.keys[k] = []uint64{0}
	}
	m.open()
	return m
}

func (m *model) options() Options {
	opt := crashOptions(m.fs, plant{})
	opt.Writers = m.writers
	return opt
}

// tryOpen opens the log on a new gate.
func (m *model) tryOpen() error {
	m.gate = &gate{Device: m.dev}
	l, err := Open(context.Background(), m.gate, m.options())
	if err == nil {
		m.log = l
	}
	return err
}

func (m *model) open() {
	if err := m.tryOpen(); err != nil {
		m.t.Fatalf("open: %v", err)
	}
}

func modelRecord(key uint8, version uint64) *Record {
	return crashRecord(key, version, int(version*2654435761%uint64(1<<(version%16)+1)))
}

// call appends or deletes and notes what may be there afterwards.
func (m *model) call(key uint8, version uint64) (error, func()) {
	var err error
	if version == 0 {
		err = m.log.Delete(context.Background(), modelRecord(key, 1).Key)
	} else {
		err = m.log.Append(context.Background(), modelRecord(key, version))
	}
	return err, func() {
		switch {
		case err == nil:
			m.keys[key] = []uint64{version}
		case ashlar.Is(err, ashlar.Full):
		case ashlar.Is(err, ashlar.Unavailable) && m.log.Err() != nil:
			m.keys[key] = append(m.keys[key], version)
		default:
			m.t.Fatalf("key %d version %d: %v", key, version, err)
		}
	}
}

func (m *model) key(t *rapid.T) uint8 { return rapid.Uint8Range(0, modelKeys-1).Draw(t, "key") }

func (m *model) next() uint64 { m.version++; return m.version }

func (m *model) Append(t *rapid.T) {
	_, note := m.call(m.key(t), m.next())
	note()
}

func (m *model) Delete(t *rapid.T) {
	_, note := m.call(m.key(t), 0)
	note()
}

// Burst calls on different keys at once, so that they share batches.
func (m *model) Burst(t *rapid.T) {
	keys := rapid.SliceOfNDistinct(rapid.Uint8Range(0, modelKeys-1), 2, 8, rapid.ID[uint8]).Draw(t, "keys")
	notes := make([]func(), len(keys))
	var wg sync.WaitGroup
	for i, k := range keys {
		v := m.next()
		if v%4 == 0 {
			v = 0
		}
		wg.Go(func() { _, notes[i] = m.call(k, v) })
	}
	wg.Wait()
	for _, note := range notes {
		note()
	}
}

// CompactUnderLoad compacts while other keys change and are read.
func (m *model) CompactUnderLoad(t *rapid.T) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { m.log.Compact(context.Background()) })
	m.Burst(t)
}

// Compact must not change anything that can be seen.
func (m *model) Compact(*rapid.T) {
	if err := m.log.Compact(context.Background()); err != nil && !ashlar.Is(err, ashlar.Full) && m.log.Err() == nil {
		m.t.Fatalf("compact: %v", err)
	}
}

// Read checks one key against the model.
func (m *model) Read(t *rapid.T) { m.look(m.key(t)) }

// look returns the version that is there.
func (m *model) look(key uint8) uint64 {
	k := modelRecord(key, 1).Key
	version := uint64(0)
	info, err := m.log.Stat(k)
	if err == nil {
		version = uint64(info.Written.UnixNano())
		want := modelRecord(key, version).Data
		got := make([]byte, info.Bytes)
		if err := m.log.ReadAt(context.Background(), k, got, 0); err != nil && m.isDead() {
			return version
		} else if m.gate.shut.Load() {
			return version
		} else if err != nil || !bytes.Equal(got, want) {
			m.t.Fatalf("key %d version %d: wrong bytes or %v", key, version, err)
		}
	} else if !ashlar.Is(err, ashlar.NotFound) {
		m.t.Fatalf("key %d: %v", key, err)
	}
	if !slices.Contains(m.keys[key], version) {
		m.t.Fatalf("key %d: version %d is there, want one of %v", key, version, m.keys[key])
	}
	return version
}

func (m *model) isDead() bool {
	_, err := m.dev.ReadAt(aligned(m.dev.BlockBytes(), m.dev.BlockBytes()), 0)
	return err != nil
}

// Die lets the device die in the middle of one of the next calls.
func (m *model) Die(t *rapid.T) { m.dev.DieAfter(rapid.IntRange(0, 8).Draw(t, "calls")) }

// KillSoon lets the process die between two of its next writes and flushes,
// so that the device's cache holds what nobody was told of.
func (m *model) KillSoon(t *rapid.T) {
	m.gate.left.Store(int64(rapid.IntRange(1, 6).Draw(t, "calls")))
	m.Append(t)
	m.Burst(t)
	m.Killed(t)
}

// OneError lets one write fail, or one read fail or flip a bit: nobody notices.
func (m *model) OneError(t *rapid.T) {
	m.dev.Inject(rapid.SampledFrom([]simdev.Rule{
		{Ops: simdev.Write, Fault: simdev.EIO, Count: 1},
		{Ops: simdev.Write, Fault: simdev.NoSpace, Count: 1},
		{Ops: simdev.Read, Fault: simdev.EIO, Count: 1},
		{Ops: simdev.Read, Fault: simdev.Flip, Count: 1},
	}).Draw(t, "rule"))
	m.look(m.key(t))
	_, note := m.call(m.key(t), m.next())
	note()
	m.dev.Clear()
}

// FlushFails: nothing since the last good flush counts, and nothing is written any more.
func (m *model) FlushFails(t *rapid.T) {
	m.dev.Inject(simdev.Rule{Ops: simdev.Flush, Fault: simdev.EIO, Count: 1})
	key := m.key(t)
	err, note := m.call(key, m.next())
	note()
	m.dev.Clear()
	if err == nil {
		m.t.Fatalf("an append was acknowledged over a failed flush")
	}
	if err, _ := m.call(key, m.next()); m.log.Err() != nil && err == nil {
		m.t.Fatalf("a fenced log took an append")
	}
	m.look(m.key(t))
}

// Restart closes the log and opens it again.
func (m *model) Restart(*rapid.T) {
	if err := m.log.Close(); err != nil {
		m.t.Fatalf("close: %v", err)
	}
	m.reopen()
}

// Killed is SIGKILL: the device keeps its cache, the filesystem its pages.
func (m *model) Killed(t *rapid.T) {
	m.gate.shut.Store(true)
	m.fs = m.crashedFS(100)
	m.log.Close()
	if rapid.Bool().Draw(t, "and power") { // while the log is opened again
		m.dev.DieAfter(rapid.IntRange(0, 8).Draw(t, "calls"))
		if m.tryOpen() == nil {
			m.log.Close()
		}
		keep := rapid.IntRange(0, 100).Draw(t, "keep")
		m.fs = m.crashedFS(keep)
		m.dev = m.dev.Reboot(keep)
	}
	m.reopen()
}

// PowerCut tears what no flush had covered, on the device and below the index.
func (m *model) PowerCut(t *rapid.T) {
	keep := rapid.IntRange(0, 100).Draw(t, "keep")
	m.fs = m.crashedFS(keep)
	m.dev = m.dev.Reboot(keep)
	m.log.Close()
	// Recovery is cut too, up to twice.
	for range rapid.IntRange(0, 2).Draw(t, "again") {
		m.dev.DieAfter(rapid.IntRange(0, 5).Draw(t, "calls"))
		if err := m.tryOpen(); err == nil {
			m.log.Close()
		}
		m.fs = m.crashedFS(keep)
		m.dev = m.dev.Reboot(keep)
	}
	m.reopen()
}

// IndexLost is a restart on an empty index directory.
func (m *model) IndexLost(*rapid.T) {
	m.log.Close()
	m.fs = vfs.NewCrashableMem()
	m.reopen()
}

func (m *model) crashedFS(percent int) *vfs.MemFS {
	return m.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: m.rng})
}

// reopen opens the log and settles what was open: what is there now stays.
func (m *model) reopen() {
	if m.isDead() {
		m.dev = m.dev.Reboot(50)
	} else {
		m.dev.DieAfter(-1)
	}
	m.open()
	present := int64(0)
	for k := range uint8(modelKeys) {
		v := m.look(k)
		m.keys[k] = []uint64{v}
		if v != 0 {
			present++
		}
	}
	if u := m.log.Usage(); u.Records != present {
		m.t.Fatalf("%d records are counted, %d are there", u.Records, present)
	}
}

// Rot damages one record on the medium: reading it is an error and stays one
// across a restart, the others are not touched, and appending repairs it.
func (m *model) Rot(t *rapid.T) {
	key := m.key(t)
	k := modelRecord(key, 1).Key
	if m.log.Err() != nil || m.isDead() || m.gate.shut.Load() {
		return
	}
	m.dev.DieAfter(-1)
	r, err := m.log.lookup("test", k)
	if err != nil || r.DataBytes == 0 {
		return
	}
	data := m.log.offset(int(r.segment)) + int64(r.Offset) + int64(r.HeadBytes)
	m.dev.Rot(data, format.CodedBytes(r.DataBytes), false)
	for round := range 2 {
		got := make([]byte, r.DataBytes)
		if err := m.log.ReadAt(context.Background(), k, got, 0); !ashlar.Is(err, ashlar.Corrupt) {
			m.t.Fatalf("key %d is rotten on the medium: %v", key, err)
		}
		m.Compact(t)                        // must not launder it
		if round > 0 && !m.verifyFinds(k) { // now its segment is sealed
			m.t.Fatalf("key %d is rotten and Verify does not tell", key)
		}
		if err := m.log.Close(); err != nil {
			m.t.Fatal(err)
		}
		m.open()
	}
	_, note := m.call(key, m.next())
	note()
	if m.log.Err() == nil {
		if u := m.keys[key]; len(u) == 1 && m.log.Has(k) && u[0] == m.version {
			m.look(key)
			return
		}
		// Full: the rotten record is still there; absence is as good for the model.
		err, note := m.call(key, 0)
		note()
		if err != nil {
			m.t.Fatalf("delete: %v", err)
		}
	}
}

func (m *model) verifyFinds(k Key) bool {
	for i := range m.log.Usage().SegmentsTotal {
		rep, err := m.log.Verify(context.Background(), i)
		if err != nil {
			m.t.Fatal(err)
		}
		if slices.Contains(rep.Bad, k) {
			return true
		}
	}
	return false
}

// finish checks everything, with the index and without.
func (m *model) finish() {
	m.dev.Clear()
	m.Restart(nil)
	m.IndexLost(nil)
	for i := range m.log.Usage().SegmentsTotal {
		if rep, err := m.log.Verify(context.Background(), i); err != nil || len(rep.Bad) > 0 {
			m.t.Fatalf("verify segment %d: %+v, %v", i, rep, err)
		}
	}
	m.log.Close()
}

// TestModel drives the log and the map with the same random calls, crashes and faults.
func TestModel(t *testing.T) {
	var ops atomic.Int64
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		defer func() { m.log.Close() }()
		actions := map[string]func(*rapid.T){
			"Append": m.Append, "Append2": m.Append, "Append3": m.Append, "Delete": m.Delete, "Delete2": m.Delete,
			"Burst": m.Burst, "Burst2": m.Burst, "Compact": m.Compact, "Read": m.Read, "Die": m.Die, "OneError": m.OneError,
			"FlushFails": m.FlushFails, "Restart": m.Restart, "Killed": m.Killed, "PowerCut": m.PowerCut,
			"IndexLost": m.IndexLost, "Rot": m.Rot, "KillSoon": m.KillSoon, "CompactUnderLoad": m.CompactUnderLoad,
		}
		for _, name := range slices.Collect(maps.Keys(actions)) {
			act := actions[name]
			actions[name] = func(t *rapid.T) { m.t = t; ops.Add(1); act(t) }
		}
		t.Repeat(actions)
		m.t = t
		m.finish()
	})
	t.Log(fmt.Sprint(ops.Load(), " actions, 0 differences"))
}
