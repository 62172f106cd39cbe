package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

const (
	// callMax bounds a call whose context allows it more.
	callMax = 10 * time.Second
	// defaultTick is the unit of raft's clock; see raftConfig for its multiples.
	defaultTick = 100 * time.Millisecond
	// defaultCacheBytes is the size of Pebble's block cache.
	defaultCacheBytes = 32 * ashlar.MiB
	// memTableBytesMax bounds one of Pebble's memtables, of which up to
	// memTables exist.
	memTableBytesMax = 64 * ashlar.MiB
	memTables        = 4
	// baseLevelBytes is the size up to which Pebble keeps one level below its newest
	// files. A listing with a delimiter is all seeks, and a seek pays for each level.
	baseLevelBytes = 2 * ashlar.GiB
	// newestMax is how many overlapping newest files are left alone.
	newestMax = 2
	// proposingBytesMax bounds the transactions under way on this host; more are
	// refused as Busy.
	proposingBytesMax = 256 * ashlar.MiB
	// eventsMax bounds what waits for the core goroutine: calls are refused as
	// Busy and messages dropped beyond it.
	eventsMax = 64_000
)

// Config says what a Host needs.
type Config struct {
	// Host is this host's id; a directory belongs to one host forever.
	Host ashlar.HostID
	// Dir is the directory of the metadata store, made if it is not there.
	Dir string
	// Transport carries messages to other hosts. The caller closes it, after the Host.
	Transport Transport
	// Map names the shards; nil if none is known yet.
	Map *topology.Map
	// Log takes events with a code; nil drops them.
	Log *slog.Logger
	// Tick is the unit of the raft clock: a leader beats every 2, an election
	// starts after 10 to 20 without a beat. Zero means 100 ms.
	Tick time.Duration
	// CacheBytes bounds Pebble's block cache; its memtables take at most twice as
	// much again, up to 256 MiB. Zero means 32 MiB.
	CacheBytes int64

	// For tests.
	fs      vfs.FS
	logKeep uint64 // instead of logKeepEntries
}

// Host is the replicas of metadata shards on one host. It implements
// wire.Shards; all methods may be called concurrently.
type Host struct {
	cfg   Config
	log   *slog.Logger
	db    *pebble.DB
	cache *pebble.Cache
	// opened is where uptime begins.
	opened time.Time

	logQueue   *queue[logTask]
	applyQueue *queue[applyTask]
	events     *queue[event]
	// applyMu keeps applying and installing snapshots apart.
	applyMu sync.Mutex

	// shards holds the replica that answers for each shard; byID all of them. The
	// maps are replaced, never changed.
	shards atomic.Pointer[map[ashlar.ShardID]*replica]
	byID   atomic.Pointer[map[ashlar.ReplicaID]*replica]

	// restore is that of the newest map: while it is importing, only the import may
	// write and read.
	restore atomic.Pointer[topology.Restore]

	update struct {
		sync.Mutex
		epoch ashlar.Epoch
		known bool
	}

	// readers is held shared by who reads Pebble for a caller, and alone to close it.
	readers sync.RWMutex

	pins          pins
	proposing     atomic.Int64  // bytes of the transactions under way
	snapshotSends chan struct{} // semaphore
	ctx           context.Context
	cancel        context.CancelFunc
	done          sync.WaitGroup
	stopOnce      sync.Once
	failed        atomic.Pointer[error]
}

var _ wire.Shards = (*Host)(nil)

// Open opens or makes the store in cfg.Dir and starts its replicas: those that
// the directory holds and those that the map newly gives to this host.
func Open(cfg Config) (*Host, error) {
	const op = "meta: open"
	if cfg.Host == 0 || cfg.Transport == nil {
		return nil, ashlar.E(op, cfg.Dir, ashlar.Invalid, errors.New("a host id and a transport are needed"))
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Tick == 0 {
		cfg.Tick = defaultTick
	}
	if cfg.logKeep == 0 {
		cfg.logKeep = logKeepEntries
	}
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = defaultCacheBytes
	}
	h := &Host{
		cfg: cfg, opened: time.Now(), log: cfg.Log.With("room", "meta", "host", cfg.Host),
		logQueue: newQueue[logTask](), applyQueue: newQueue[applyTask](), events: newQueue[event](),
		snapshotSends: make(chan struct{}, snapshotSendsMax),
	}
	h.shards.Store(&map[ashlar.ShardID]*replica{})
	h.byID.Store(&map[ashlar.ReplicaID]*replica{})
	h.restore.Store(&topology.Restore{})
	if err := h.openPebble(); err != nil {
		return nil, ashlar.E(op, cfg.Dir, ashlar.Internal, err)
	}
	core, err := h.load()
	if err != nil {
		h.closePebble()
		return nil, ashlar.E(op, cfg.Dir, ashlar.KindOf(err), err)
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.done.Go(func() { h.writeLogs(h.ctx) })
	h.done.Go(func() { h.applyLogs(h.ctx) })
	h.done.Go(func() { core.run(h.ctx) })
	h.Update(cfg.Map)
	return h, nil
}

func (h *Host) openPebble() error {
	memTable := min(memTableBytesMax, max(h.cfg.CacheBytes/2, ashlar.MiB))
	// Pebble takes the memory of its memtables out of the cache: without room for
	// them there would be no cache as soon as writes come.
	h.cache = pebble.NewCache(h.cfg.CacheBytes + memTables*memTable)
	opts := &pebble.Options{
		Cache: h.cache, FS: h.cfg.fs, MemTableSize: uint64(memTable),
		MemTableStopWritesThreshold: memTables, LBaseMaxBytes: baseLevelBytes, L0CompactionThreshold: newestMax,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             pebbleLog{h.log},
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(h.cfg.Dir, opts)
	if err != nil {
		h.cache.Unref()
		return err
	}
	h.db = db
	return nil
}

func (h *Host) closePebble() {
	if err := h.db.Close(); err != nil {
		h.log.Error("the metadata store did not close cleanly", "code", "meta-close", "err", err)
	}
	h.cache.Unref()
}

// load checks whose directory this is and starts the replicas that were born.
func (h *Host) load() (*core, error) {
	want := binary.LittleEndian.AppendUint32([]byte{formatVersion}, uint32(h.cfg.Host))
	raw, closer, err := h.db.Get([]byte{kindFormat})
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		if err := h.db.Set([]byte{kindFormat}, want, pebble.Sync); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		same := bytes.Equal(raw, want)
		found := fmt.Errorf("the directory is marked % x: want % x (format version, host id)", raw, want)
		closer.Close()
		if !same {
			return nil, ashlar.E("meta: open", "", ashlar.Invalid, found)
		}
	}
	c := &core{h: h, seq: uint64(time.Now().UnixNano()), out: map[ashlar.HostID]*wire.RaftBatch{}}
	byID := map[ashlar.ReplicaID]*replica{}
	prefix := []byte{kindBorn}
	it, err := h.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: successor(prefix)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		r, err := h.loadReplica(it.Key(), it.Value())
		if err != nil {
			return nil, err
		}
		byID[r.id] = r
		c.replicas = append(c.replicas, r)
	}
	h.byID.Store(&byID)
	return c, it.Error()
}

func (h *Host) newReplica(shard ashlar.ShardID, id ashlar.ReplicaID) *replica {
	r := &replica{shard: shard, id: id, log: h.log.With("shard", shard, "replica", id)}
	r.waiters.byID = map[ashlar.RequestID][]chan error{}
	r.core.peers = map[ashlar.ReplicaID]ashlar.HostID{}
	r.core.peersSeen = newPeersSeen()
	r.core.birth = map[ashlar.ReplicaID]*wire.Birth{}
	return r
}

// Update makes the host follow a newer map: replicas that the map newly gives
// to this host are started, and leaders learn about changed replicas. Older maps
// and nil are ignored.
func (h *Host) Update(m *topology.Map) {
	if m == nil {
		return
	}
	h.update.Lock()
	defer h.update.Unlock()
	if h.update.known && m.Epoch <= h.update.epoch {
		return
	}
	h.update.epoch, h.update.known = m.Epoch, true
	byID := maps.Clone(*h.byID.Load())
	maps.DeleteFunc(byID, func(_ ashlar.ReplicaID, r *replica) bool { return retiredBy(m, r) })
	shards := map[ashlar.ShardID]*replica{}
	for s := range m.Shards {
		shard := ashlar.ShardID(s)
		for _, peer := range m.Shards[s].All() {
			if peer.Host != h.cfg.Host {
				continue
			}
			if shards[shard] != nil {
				continue // the new one answers, not the one that it replaces
			}
			r := byID[peer.ID]
			if r == nil {
				r = h.newReplica(shard, peer.ID)
				byID[peer.ID] = r
			}
			if r.shard != shard {
				h.log.Error("the map names a replica of another shard", "code", "meta-map", "replica", peer.ID, "shard", shard, "is", r.shard)
				continue
			}
			shards[shard] = r
		}
	}
	h.restore.Store(&m.Restore) // before anybody can call the replicas that the map brings
	h.byID.Store(&byID)
	h.shards.Store(&shards)
	h.events.put(0, event{kind: eventMap, tm: m})
}

// Commit implements wire.Shards.
func (h *Host) Commit(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn) error {
	const op = "meta: commit"
	if err := txn.Check(); err != nil {
		return err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	r, err := h.leader(ctx, op, shard)
	if err != nil {
		return err
	}
	data := encodeCommand(time.Now().UnixMilli(), txn)
	defer h.proposing.Add(-int64(len(data)))
	if h.proposing.Add(int64(len(data))) > proposingBytesMax {
		return ashlar.E(op, r.String(), ashlar.Busy, nil)
	}
	ch := r.await(txn.ID)
	if !h.events.put(eventsMax, event{kind: eventPropose, r: r, prop: proposal{id: txn.ID, data: data}}) {
		r.forget(txn.ID, ch)
		return ashlar.E(op, r.String(), ashlar.Busy, nil)
	}
	err = h.wait(ctx, op, r, ch)
	if ctx.Err() != nil {
		r.forget(txn.ID, ch)
	}
	if err == nil {
		txn.Seen = r.machine.applying.Load()
	}
	return err
}

// bounded gives the context a deadline, unless it has one that is near enough.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= callMax {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, callMax)
}

// leader returns the replica if it leads its shard here and now, as far as it knows.
func (h *Host) leader(ctx context.Context, op string, shard ashlar.ShardID) (*replica, error) {
	if err := h.usable(ctx, op); err != nil {
		return nil, err
	}
	r := (*h.shards.Load())[shard]
	if r == nil {
		return nil, &wire.NoReplica{Shard: shard}
	}
	if err := h.mayCall(ctx, op, r); err != nil {
		return nil, err
	}
	if !r.leading.Load() {
		return nil, r.notLeader()
	}
	return r, nil
}

// mayCall keeps ordinary calls off shards whose rows are not all back, and an
// import that came too late off those that serve.
func (h *Host) mayCall(ctx context.Context, op string, r *replica) error {
	unavailable := func(why string) error { return ashlar.E(op, r.String(), ashlar.Unavailable, errors.New(why)) }
	run, now := wire.ImportOf(ctx), h.restore.Load()
	switch {
	case !run.IsZero() && run != now.Run:
		return unavailable("this host does not know of that restore")
	case run.IsZero() == !now.Importing:
		return nil
	case now.Importing:
		return unavailable("a backup is being restored")
	default:
		return ashlar.E(op, r.String(), ashlar.Denied, errors.New("the restore from the backup is over"))
	}
}

func (h *Host) usable(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return ashlar.E(op, "", ashlar.Unavailable, err)
	}
	if err := h.failed.Load(); err != nil {
		return ashlar.E(op, "", ashlar.Unavailable, *err)
	}
	if h.ctx.Err() != nil {
		return ashlar.E(op, "", ashlar.Unavailable, errStopped)
	}
	return nil
}

var errStopped = errors.New("the host has stopped")

// wait returns what arrives on ch, or why nothing will.
func (h *Host) wait(ctx context.Context, op string, r *replica, ch <-chan error) error {
	select {
	case err := <-ch:
		return err
	case <-ctx.Done():
		return ashlar.E(op, r.String(), ashlar.Unavailable, ctx.Err())
	case <-h.ctx.Done():
		return ashlar.E(op, r.String(), ashlar.Unavailable, errStopped)
	}
}

// fail stops everything after an error of the store: like a disk whose flush
// failed, it cannot be trusted from then on.
func (h *Host) fail(err error) {
	if h.failed.CompareAndSwap(nil, &err) {
		h.log.Error("the metadata store failed; its replicas here are stopped", "code", "meta-store-failed", "err", err)
		h.cancel()
	}
}

// Close hands leadership to other hosts, as far as ctx gives time for it, and
// stops. It always releases everything.
func (h *Host) Close(ctx context.Context) error {
	h.handOver(ctx)
	h.stop()
	return nil
}

func (h *Host) stop() {
	h.stopOnce.Do(func() {
		h.cancel()
		h.done.Wait()
		h.readers.Lock()
		defer h.readers.Unlock()
		h.pins.close()
		h.closePebble()
	})
}

// pebbleLog passes on what Pebble says that an operator should know.
type pebbleLog struct{ log *slog.Logger }

func (pebbleLog) Infof(string, ...any) {}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.log.Error("pebble: "+fmt.Sprintf(format, args...), "code", "meta-store")
}

// Fatalf is called when the write-ahead log cannot be written: what was
// acknowledged is safe, nothing more can be.
func (l pebbleLog) Fatalf(format string, args ...any) {
	panic("meta: pebble: " + fmt.Sprintf(format, args...))
}
