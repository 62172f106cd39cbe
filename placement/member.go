// Package placement is one member of the placement quorum: the keeper of the
// cluster's map.
//
// A member is an embedded etcd, reached only by its own in-process client, and
// a gRPC server for heartbeats, map watches and status (package wire). On the
// member that leads etcd runs the scheduler: it feeds heartbeats and time to
// the pure state machine (package state) and writes the maps that come out.
//
//	hosts ──heartbeat──► any member ──(once)──► leader: scheduler ──► state
//	                                              │ compare-and-set
//	                                              ▼
//	hosts ◄──── watch ──── any member ◄──────── etcd, one key: the map
//
// # Who may write
//
// Leadership alone is no protection: etcd passes proposals of every member on
// to its leader, so a member that lost the lead without noticing could still
// write. The scheduler therefore puts down a claim with its term when it takes
// over, and every write of the map is one transaction that demands that this
// claim and the map's last revision still stand. A deposed scheduler's write
// fails, whatever it believes.
//
// # Without a quorum
//
// A member that has no leader still sends the map that it holds to whoever asks
// and then closes the watch, so that a client on the wrong side of a cut tries
// the next member; the status says whose view it is. Heartbeats are refused
// with kind Unavailable. Nothing changes until a majority is back.
//
// # What is on disk
//
// Dir/etcd is an ordinary etcd data directory: etcd's own tools snapshot and
// restore it. The map is one key, ashlar/map, encoded as wire.Map.
package placement

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"ashlar"
	"ashlar/placement/topology"
	"ashlar/placement/wire"
	"ashlar/systemd/notify"
)

// Bounds of the gRPC server.
const (
	requestBytesMax = 4 * ashlar.MiB
	streamsMax      = 4096
	pingMin         = 2 * time.Second // clients may ping their connections so often
	retryPause      = 100 * time.Millisecond
	reconnectMax    = 2 * time.Second
	handOverMax     = 500 * time.Millisecond
	// awayAfter is the time without a leader after which a member sends its
	// watchers to another one.
	awayAfter = 3 * time.Second
	awayEvery = 250 * time.Millisecond // how often it looks
)

// Main runs one member until ctx ends. It returns nil after a clean stop.
func Main(ctx context.Context, cfg Config) error {
	m, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	// The member's own listener answering is what the watchdog watches: without
	// a quorum a member is healthy, it waits.
	defer notify.Service(m.log, "member "+cfg.Name+" of "+cfg.Cluster, m.answers)()
	select {
	case <-ctx.Done():
		m.Stop()
		return nil
	case <-m.Done():
		return m.Err()
	}
}

// answerTimeout bounds the watchdog's look at the listener.
const answerTimeout = 2 * time.Second

// answers reports whether a connection to the member's own gRPC listener stands.
func (m *Member) answers() bool {
	conn, err := net.DialTimeout("tcp", m.Addr(), answerTimeout)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// Member is one running member.
type Member struct {
	cfg    Config
	log    *slog.Logger
	etcd   *embed.Etcd
	cli    *clientv3.Client
	server *grpc.Server
	lis    net.Listener
	peers  map[string]*grpc.ClientConn // the other members, by name

	ctx    context.Context // ends when the member stops
	cancel context.CancelFunc
	wg     sync.WaitGroup // follow, schedule, serve, guard
	once   sync.Once
	done   chan struct{}
	err    error // set before done is closed

	maps  cache
	away  away
	sched atomic.Pointer[scheduler] // nil unless this member leads
	ready chan struct{}
}

// Start starts a member and returns at once; Ready tells when it serves. It
// runs until Stop or Kill: ctx bounds only the start.
func Start(ctx context.Context, cfg Config) (*Member, error) {
	const op = "placement: start"
	cfg.New = cfg.New.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, ashlar.E(op, cfg.Name, ashlar.Invalid, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, ashlar.E(op, cfg.Name, ashlar.Unavailable, err)
	}
	m := &Member{cfg: cfg, log: cfg.Log, done: make(chan struct{}), ready: make(chan struct{}), peers: map[string]*grpc.ClientConn{}}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.log = m.log.With("member", cfg.Name)
	m.maps.changed = make(chan struct{})
	m.away.lost = make(chan struct{})
	m.ctx, m.cancel = context.WithCancel(context.Background())
	if err := m.open(); err != nil {
		m.close(false)
		return nil, ashlar.E(op, cfg.Name, ashlar.Unavailable, err)
	}
	for _, run := range []func(){m.follow, m.schedule, m.serve, m.guard} {
		m.wg.Go(run)
	}
	return m, nil
}

func (m *Member) open() (err error) {
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		return err
	}
	if m.lis = m.cfg.RPCListener; m.lis == nil {
		if m.lis, err = listen(orElse(m.cfg.ListenRPC, m.cfg.RPC[m.cfg.Name]), m.cfg.SharePorts); err != nil {
			return err
		}
	}
	for name, addr := range m.cfg.RPC {
		if name == m.cfg.Name {
			continue
		}
		m.peers[name], err = grpc.NewClient("passthrough:///"+addr,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: retryPause, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
				MinConnectTimeout: forwardTimeout,
			}))
		if err != nil {
			return fmt.Errorf("rpc %s: %w", addr, err)
		}
	}
	m.server = grpc.NewServer(
		grpc.MaxRecvMsgSize(requestBytesMax), grpc.MaxConcurrentStreams(streamsMax),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingMin, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}))
	wire.RegisterPlacementServer(m.server, &service{m: m})
	if m.etcd, err = startEngine(m.ctx, &m.cfg, m.log); err != nil {
		return err
	}
	m.cli = v3client.New(m.etcd.Server)
	return nil
}

// Addr returns the host:port of the gRPC listener.
func (m *Member) Addr() string { return m.lis.Addr().String() }

// Name returns the member's name.
func (m *Member) Name() string { return m.cfg.Name }

// Ready is closed when the member takes part in the quorum and holds a map.
func (m *Member) Ready() <-chan struct{} { return m.ready }

// Done is closed when the member has ended; Err then says why, nil if it was told to.
func (m *Member) Done() <-chan struct{} { return m.done }

// Err returns why the member ended.
func (m *Member) Err() error {
	select {
	case <-m.done:
		return m.err
	default:
		return nil
	}
}

// Leader returns the name of the member that this one follows, or "".
func (m *Member) Leader() string {
	id := m.etcd.Server.Leader()
	if id == 0 {
		return ""
	}
	if member := m.etcd.Server.Cluster().Member(id); member != nil {
		return member.Name
	}
	return ""
}

// Leads reports whether this member runs the scheduler now.
func (m *Member) Leads() bool { return m.sched.Load() != nil }

// Map returns the newest map that this member holds, or nil. It must not be changed.
func (m *Member) Map() *topology.Map {
	t, _, _ := m.maps.get()
	return t
}

// Stop hands the lead over if it can and ends the member.
func (m *Member) Stop() { m.stop(false, nil) }

// Kill ends the member without a word to the others, as a crash would.
func (m *Member) Kill() { m.stop(true, nil) }

func (m *Member) stop(hard bool, err error) {
	m.once.Do(func() {
		m.err = err
		m.close(hard)
		m.wg.Wait()
		close(m.done)
	})
	<-m.done
}

// handOver moves the lead to a member that follows this one, if any does.
func (m *Member) handOver() {
	sched := m.sched.Load()
	if sched == nil {
		return
	}
	ctx, cancel := context.WithTimeout(m.ctx, handOverMax)
	defer cancel()
	for _, other := range sched.members(time.Now()) {
		id, known := m.memberID(other.Name)
		if !other.Voting || other.Name == m.cfg.Name || !known {
			continue
		}
		if err := m.etcd.Server.MoveLeader(ctx, m.etcd.Server.Lead(), id); err != nil {
			m.log.Debug("lead not handed over", "to", other.Name, "err", err)
			continue
		}
		return
	}
}

// memberID returns the engine's id of a member.
func (m *Member) memberID(name string) (uint64, bool) {
	for _, member := range m.etcd.Server.Cluster().Members() {
		if member.Name == name {
			return uint64(member.ID), true
		}
	}
	return 0, false
}

// close ends everything that runs. The engine's own gentle stop would wait for
// seconds when all members stop at once, so it is always stopped hard: its log
// is flushed before anything is acknowledged.
func (m *Member) close(hard bool) {
	if m.etcd != nil {
		if !hard {
			m.handOver()
		}
		m.cancel()
		m.etcd.Server.HardStop()
	}
	m.cancel()
	if m.server != nil {
		m.server.Stop()
	}
	if m.lis != nil {
		m.lis.Close()
	}
	for _, conn := range m.peers {
		if conn != nil {
			conn.Close()
		}
	}
	if m.cli != nil {
		m.cli.Close()
	}
	if m.etcd != nil {
		m.etcd.Close()
	}
}

// serve answers calls until the member stops.
func (m *Member) serve() {
	if err := m.server.Serve(m.lis); err != nil && m.ctx.Err() == nil {
		m.fail(fmt.Errorf("rpc listener: %w", err))
	}
}

// guard ends the member if its engine ends by itself, says when it is ready,
// and notices when the leader is away.
func (m *Member) guard() {
	ready := m.etcd.Server.ReadyNotify()
	held := m.maps.held()
	look := time.NewTicker(awayEvery)
	defer look.Stop()
	for {
		select {
		case now := <-look.C:
			m.away.look(now, m.etcd.Server.Leader() != 0)
		case <-m.ctx.Done():
			return
		case <-ready:
			ready = nil
		case <-held:
			held = nil
		case err := <-m.etcd.Err():
			m.fail(err)
			return
		case <-m.etcd.Server.StopNotify():
			m.fail(fmt.Errorf("the engine stopped"))
			return
		}
		if ready == nil && held == nil {
			select {
			case <-m.ready:
			default:
				close(m.ready)
			}
		}
	}
}

// fail ends the member with an error, unless it ends already. It may be called
// by the member's own goroutines.
func (m *Member) fail(err error) {
	if m.ctx.Err() == nil {
		go m.stop(true, ashlar.E("placement: run", m.cfg.Name, ashlar.Internal, err)) // ends with done
	}
}

// follow keeps the cache up to date with this member's copy of the state.
func (m *Member) follow() {
	for m.ctx.Err() == nil {
		err := follow(m.ctx, m.cli, m.maps.put)
		if m.ctx.Err() != nil {
			return
		}
		m.log.Debug("map watch restarted", "err", err)
		pause(m.ctx, retryPause)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// cache is the newest map of this member, decoded and as it is sent.
type cache struct {
	mu      sync.Mutex
	m       *topology.Map
	w       *wire.Map
	changed chan struct{} // closed when m changes
}

func (c *cache) put(m *topology.Map, w *wire.Map) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m != nil && m.Epoch <= c.m.Epoch {
		return
	}
	c.m, c.w = m, w
	close(c.changed)
	c.changed = make(chan struct{})
}

// get returns the map in both forms, nil if there is none, and a channel that
// is closed when it changes.
func (c *cache) get() (*topology.Map, *wire.Map, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m, c.w, c.changed
}

// held is closed when there is a map.
func (c *cache) held() <-chan struct{} {
	m, _, changed := c.get()
	if m == nil {
		return changed
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}

// away knows whether the quorum is.
type away struct {
	mu    sync.Mutex
	since time.Time     // without a leader, zero if there is one
	lost  chan struct{} // closed while there is none for awayAfter
}

func (a *away) look(now time.Time, led bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	closed := false
	select {
	case <-a.lost:
		closed = true
	default:
	}
	switch {
	case led && closed:
		a.since, a.lost = time.Time{}, make(chan struct{})
	case led:
		a.since = time.Time{}
	case a.since.IsZero():
		a.since = now
	case now.Sub(a.since) >= awayAfter && !closed:
		close(a.lost)
	}
}

// notice returns a channel that is closed when the quorum is away.
func (a *away) notice() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lost
}
