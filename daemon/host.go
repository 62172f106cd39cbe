// Package daemon is one host: it owns the host's disks, keeps pieces on them,
// coordinates its share of the bodies, holds replicas of metadata shards, and
// tells the placement quorum every second how it is.
//
//	             ┌───────────── Host ─────────────┐
//	HTTP bytes ──┤ stripe (coordinator) ── piece ── segment logs ── disks
//	             │        └── repair ◄─ scrub    │
//	gRPC calls ──┤ meta/replica ── Pebble         │
//	             │        └── trash worker        │
//	placement ◄──┤ heartbeats, map watch          │
//	             └────────────────────────────────┘
//
// A Host implements wire.Pieces, wire.Stripes and wire.Shards itself; other
// processes reach the same methods over its two listeners.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/client"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/replica"
	"ashlar/daemon/meta/trash"
	"ashlar/daemon/orphan"
	"ashlar/daemon/piece"
	"ashlar/daemon/repair"
	"ashlar/daemon/rollcall"
	"ashlar/daemon/scrub"
	"ashlar/daemon/stripe"
	"ashlar/daemon/wire"
	placement "ashlar/placement/client"
	"ashlar/placement/topology"
	"ashlar/systemd/notify"
)

const (
	heartbeatEvery = time.Second
	// beatStale is the age of a heartbeat from which the host counts as stuck.
	beatStale = 20 * time.Second
	// waitLogEvery is how often a host says what it waits for: it waits for ever.
	waitLogEvery = 10 * time.Second
	// stopTimeout bounds a clean stop: handing leaderships over, settling pieces.
	stopTimeout = 20 * time.Second
)

// Options are what a process gives to the hosts that it runs.
type Options struct {
	Log *slog.Logger
	// Registry, if set, reaches the hosts of this process directly: the host
	// registers itself there and opens no listener. Nil makes one of its own.
	Registry *client.Hosts
	// Referee, if set, makes of the metadata what knows the rows that refer to
	// stripes: with it the trash is checked before it is freed, and orphans are
	// searched for.
	Referee func(meta.Store) trash.Referee
	// Status, if set, is told in a line what a start is busy with.
	Status func(string)
}

// Host is a running daemon.
type Host struct {
	wire.Pieces
	wire.Stripes
	wire.Shards

	cfg      Config
	log      *slog.Logger
	place    *placement.Client
	registry *client.Hosts
	own      bool // registry is ours to close
	id       ashlar.HostID
	rows     meta.Store    // of all shards, wherever they are
	referee  trash.Referee // nil: there is none
	disks    *disks
	scrub    *scrub.Scrubber
	roll     *rollcall.Roll
	orphans  *orphan.Search
	coord    *stripe.Coordinator
	repairs  atomic.Pointer[repair.Queue] // nil until assembled; the heartbeat reads it
	shards   *replica.Host
	metaDir  string                       // what the map called the directory of shards
	metadata atomic.Pointer[replica.Host] // shards once assembled, for the heartbeat
	link     *replica.Link
	arrivals *buffer.Share // pieces between the network and the disks
	servers  []io.Closer

	lastBeat atomic.Int64 // Unix nanoseconds

	stop context.CancelFunc
	// wg counts the goroutines that end with the host's context.
	wg     sync.WaitGroup
	failed chan error // what ended the host before it was told to, buffered
}

// Main runs a host until ctx ends.
func Main(ctx context.Context, cfg Config, opt Options) error {
	log := opt.Log
	opt.Status = notify.Status(log)
	h, err := Start(ctx, cfg, opt)
	if err != nil {
		return err
	}
	status := fmt.Sprintf("host %s (%v): %d disks", cfg.Name, h.id, len(h.disks.slots))
	defer notify.Service(log, status, h.beating)()
	select {
	case <-ctx.Done():
	case err = <-h.failed:
	}
	h.Stop()
	return err
}

// Start brings a host up: it waits for the quorum, opens the disks, gets its
// id, and starts to serve. It returns when the host answers; the cluster need
// not be formed by then. A failed start leaves nothing running.
func Start(ctx context.Context, cfg Config, opt Options) (*Host, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	h := &Host{cfg: cfg, log: opt.Log.With("host", cfg.Name), registry: opt.Registry, failed: make(chan error, 4)}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.stop = stop
	if err := h.start(ctx, run, opt); err != nil {
		h.Kill()
		return nil, err
	}
	return h, nil
}

func (h *Host) start(ctx, run context.Context, opt Options) (err error) {
	if h.place, err = placement.New(placement.Config{Members: h.cfg.Placement, Log: h.log}); err != nil {
		return err
	}
	h.wg.Go(func() { h.place.Run(run) })
	if h.registry == nil {
		h.registry, h.own = client.NewHosts(h.place.Map), true
	}
	h.rows = client.NewMeta(h.place.Map, h.registry.Shards)
	if opt.Referee != nil {
		h.referee = opt.Referee(h.rows)
	}
	m, err := h.awaitMap(ctx, "the placement quorum", func(m *topology.Map) bool { return m != nil })
	if err != nil {
		return err
	}
	pieces := piece.NewStore(h.place.Map)
	h.scrub = scrub.New(scrub.Config{
		Dir: filepath.Join(h.cfg.Dir, "scrub"), Period: time.Duration(h.cfg.ScrubPeriod), BytesPerSecond: h.cfg.ScrubBytes,
		Report: h.missed, Log: h.log,
	})
	h.roll = rollcall.New(rollcall.Config{
		Dir: filepath.Join(h.cfg.Dir, "rollcall"), Maps: h.place.Map, Heard: h.place.Heard, Dial: h.registry.Pieces, Missing: h.forgotten,
		Ours:   func(ctx context.Context, all []rollcall.Held) { h.orphans.Look(ctx, all) },
		Settle: time.Duration(h.cfg.MissingAfter), Period: time.Duration(h.cfg.MissingPeriod), Log: h.log,
	})
	pieces.Stored = h.roll.Stored
	h.orphans = h.searchOrphans(pieces)
	for {
		h.disks = &disks{cfg: &h.cfg, cluster: m.Cluster, clusterName: m.Name, pieces: pieces, scrub: h.scrub, roll: h.roll, log: h.log, status: opt.Status}
		if err = openDisks(ctx, h.disks); err == nil {
			break
		}
		if m = h.otherCluster(ctx, m.Cluster); m == nil {
			return err
		}
	}
	h.Pieces = pieces
	if err := h.join(ctx, run, m.Cluster); err != nil {
		return err
	}
	if err := h.assemble(run); err != nil {
		return err
	}
	if !h.own {
		h.registry.Direct(h.id, h)
		return nil
	}
	return h.listen()
}

// beating reports whether the loop that judges the disks made progress lately:
// that is what the watchdog watches.
func (h *Host) beating() bool {
	return time.Since(time.Unix(0, h.lastBeat.Load())) < beatStale
}

// behindMax is how long a member of the quorum may be behind the others.
const behindMax = 2 * time.Second

// otherCluster returns the map of another cluster, nil if there is none: the first that
// we got may be from before a backup was restored, of a member that was behind.
func (h *Host) otherCluster(ctx context.Context, not ashlar.ClusterID) *topology.Map {
	ctx, cancel := context.WithTimeout(ctx, behindMax)
	defer cancel()
	m, _ := h.place.Wait(ctx, func(m *topology.Map) bool { return m != nil && m.Cluster != not })
	return m
}

// awaitMap waits for a map that satisfies ok and says in the log what it waits for.
func (h *Host) awaitMap(ctx context.Context, what string, ok func(*topology.Map) bool) (*topology.Map, error) {
	for {
		wait, cancel := context.WithTimeout(ctx, waitLogEvery)
		m, err := h.place.Wait(wait, ok)
		cancel()
		if err == nil || ctx.Err() != nil {
			return m, err
		}
		h.log.Warn("still waiting", "for", what, "members", h.cfg.Placement)
	}
}

// join starts the heartbeats and waits for the host's id.
func (h *Host) join(ctx, run context.Context, cluster ashlar.ClusterID) error {
	learned := make(chan ashlar.HostID, 1)
	self := placement.Self{
		Cluster: cluster, Name: h.cfg.Name, Zone: h.cfg.Zone, Rack: h.cfg.Rack, Boot: ashlar.BootID(ashlar.NewID()),
		Addr: h.cfg.Listen, RPC: h.cfg.ListenRPC,
		Learned: func(id ashlar.HostID, _ ashlar.ClusterID) { learned <- id },
	}
	h.wg.Go(func() {
		err := h.place.Heartbeat(run, self, heartbeatEvery, func() placement.Report {
			h.lastBeat.Store(time.Now().UnixNano())
			r := placement.Report{Disks: h.disks.report(), Checked: max(h.roll.Checked(), 1)}
			if q := h.repairs.Load(); q != nil {
				r.RepairPieces = q.Stats().Queued
			}
			if shards := h.metadata.Load(); shards != nil {
				reportShards(&r, shards)
			}
			return r
		})
		if err != nil {
			h.failed <- err
		}
	})
	select {
	case h.id = <-learned:
	case err := <-h.failed:
		return err
	case <-ctx.Done():
		return ashlar.E("daemon: join", h.cfg.Name, ashlar.Unavailable, context.Cause(ctx))
	}
	h.disks.setHost(h.id)
	h.wg.Go(func() { h.disks.watchPlugs(run) })
	for _, s := range h.disks.slots {
		h.wg.Go(func() { h.disks.watch(run, s) })
	}
	return nil
}

// Backup implements wire.Backups.
func (h *Host) Backup(ctx context.Context, req wire.BackupRequest) (wire.BackupReply, error) {
	return h.shards.Backup(ctx, req)
}

// metaDir is where a host keeps its metadata replicas. After a restore from a
// backup it is another one: what was there before is left alone.
func metaDir(m *topology.Map) string {
	if m.Restore.Run.IsZero() {
		return "meta"
	}
	return "meta-" + m.Restore.Run.String()
}

// reportShards says what the host leads and which of its replicas are lost.
func reportShards(r *placement.Report, shards *replica.Host) {
	for _, c := range shards.Configs() {
		r.Shards = append(r.Shards, placement.Shard{
			Shard: c.Shard, Index: c.Index, Leader: c.Leader, Voters: c.Voters, Learners: c.Learners, Outgoing: c.Outgoing,
		})
	}
	r.Lost = shards.Lost()
}

// assemble puts the rooms together, from the disks upwards.
func (h *Host) assemble(run context.Context) (err error) {
	pool := buffer.NewPool()
	memory := stripe.NewMemory(pool, h.cfg.BufferBytes/2)
	h.arrivals = pool.Share(h.cfg.BufferBytes / 4)
	repairs, err := repair.Open(repair.Config{
		Dir: filepath.Join(h.cfg.Dir, "repair"), Maps: h.place.Map, Dial: h.registry.Pieces,
		Memory: pool.Share(h.cfg.BufferBytes / 4), Log: h.log,
	})
	if err != nil {
		return err
	}
	h.repairs.Store(repairs)
	h.coord = stripe.New(stripe.Config{
		Local: h.id, Maps: h.place.Map, Dial: h.registry.Pieces, Missed: repairs.Add, Memory: memory, Log: h.log,
	})
	h.Stripes = h.coord
	h.wg.Go(func() { h.roll.Run(run) })
	h.link = replica.NewLink(h.registry.Shards, h.log)
	m := h.place.Map()
	h.metaDir = metaDir(m)
	h.shards, err = replica.Open(replica.Config{
		Host: h.id, Dir: filepath.Join(h.cfg.Dir, h.metaDir), Transport: h.link, Map: m, Log: h.log,
		CacheBytes: h.cfg.MetadataCache,
	})
	if err != nil {
		return err
	}
	h.Shards = h.shards
	h.metadata.Store(h.shards)
	h.wg.Go(func() { h.followMap(run) })
	worker := &trash.Worker{
		Store: h.rows, Stripes: h.coord, Referee: h.referee, Led: h.shards.Led, Grace: time.Duration(h.cfg.TrashGrace), Log: h.log,
	}
	h.wg.Go(func() { h.orphans.Run(run) })
	h.wg.Go(func() { h.reportGarbage(run, worker) })
	h.wg.Go(func() { worker.Run(run) })
	return nil
}

// missed queues a piece for repair. What comes before there is a queue is
// dropped: the scrub reports it again.
func (h *Host) missed(m stripe.Missed) {
	if q := h.repairs.Load(); q != nil {
		q.Add(m)
	}
}

// forgotten queues a piece that the roll call did not find where it belongs.
func (h *Host) forgotten(m stripe.Missed) bool {
	q := h.repairs.Load()
	return q != nil && q.Take(m)
}

// followMap gives every new map to the metadata replicas. A map that keeps
// metadata elsewhere ends the host.
func (h *Host) followMap(run context.Context) {
	for run.Err() == nil {
		changed := h.place.Changed()
		if err := h.follow(h.place.Map()); err != nil {
			h.fail(err)
			return
		}
		select {
		case <-changed:
		case <-run.Done():
		}
	}
}

// follow stops the replicas if a backup was restored under them: what they hold
// is of the cluster as it was before.
func (h *Host) follow(m *topology.Map) error {
	dir := metaDir(m)
	if dir == h.metaDir {
		h.shards.Update(m)
		return nil
	}
	at, cancel := context.WithCancel(context.Background())
	cancel() // there is nobody to hand over to
	h.shards.Close(at)
	return ashlar.E("daemon: metadata", h.cfg.Name, ashlar.Stale, fmt.Errorf(
		"a backup was restored while this daemon ran: metadata is in %s now, not in %s; the daemon ends, start it again",
		filepath.Join(h.cfg.Dir, dir), filepath.Join(h.cfg.Dir, h.metaDir)))
}

// listen opens the two listeners of a host that others reach over the network.
func (h *Host) listen() error {
	bytes, err := net.Listen("tcp", h.cfg.Listen)
	if err != nil {
		return ashlar.E("daemon: listen", h.cfg.Listen, ashlar.Unavailable, err)
	}
	rpc, err := net.Listen("tcp", h.cfg.ListenRPC)
	if err != nil {
		bytes.Close()
		return ashlar.E("daemon: listen-rpc", h.cfg.ListenRPC, ashlar.Unavailable, err)
	}
	httpServer := wire.NewBytesServer(wire.BytesConfig{Pieces: h, Stripes: h, Memory: h.arrivals})
	grpcServer := grpc.NewServer(wire.ShardsServerOptions()...)
	wire.RegisterShards(grpcServer, h)
	h.servers = []io.Closer{httpServer, stopper(grpcServer.Stop)}
	h.wg.Go(func() { h.served(httpServer.Serve(bytes)) })
	h.wg.Go(func() { h.served(grpcServer.Serve(rpc)) })
	return nil
}

type stopper func()

func (s stopper) Close() error { s(); return nil }

// served takes the end of a server that was not closed as the end of the host.
func (h *Host) served(err error) {
	if err == nil || errors.Is(err, http.ErrServerClosed) {
		return
	}
	h.fail(ashlar.E("daemon: serve", h.cfg.Name, ashlar.Unavailable, err))
}

// fail ends the host, unless something else did before.
func (h *Host) fail(err error) {
	select {
	case h.failed <- err:
	default:
	}
}

// ID is the host's id.
func (h *Host) ID() ashlar.HostID { return h.id }

// Stop ends the host cleanly: it stops taking calls, hands leaderships over,
// waits for pieces on their way, and lets the disks go.
func (h *Host) Stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if h.shards != nil {
		h.shards.Close(ctx) // while the others still reach us
	}
	h.end(ctx)
}

// Kill ends the host at once, as near to kill -9 as one process can come:
// nothing is handed over and nothing is waited for.
func (h *Host) Kill() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	h.end(ctx)
}

func (h *Host) end(ctx context.Context) {
	if !h.own && h.id != 0 {
		h.registry.Direct(h.id, nil)
	}
	for _, s := range h.servers {
		s.Close()
	}
	h.stop()
	if h.scrub != nil {
		h.scrub.Close()
	}
	if h.coord != nil {
		h.coord.Close(ctx)
	}
	if q := h.repairs.Load(); q != nil {
		if err := q.Close(); err != nil {
			h.log.Warn("repair queue", "cause", err)
		}
	}
	if h.shards != nil {
		h.shards.Close(ctx)
		h.link.Close()
	}
	h.wg.Wait()
	if h.disks != nil {
		h.disks.close()
	}
	if h.own {
		h.registry.Close()
	}
	if h.place != nil {
		h.place.Close()
	}
}
