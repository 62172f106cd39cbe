package replica

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"

	"ashlar"
	"ashlar/daemon/client"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

const testTick = 15 * time.Millisecond

// cluster is a set of hosts in this process whose links can be cut and which
// can be killed.
type cluster struct {
	t    testing.TB
	tick time.Duration
	// inMemory hosts sit on a file system that forgets, at a kill, a random part of
	// what was not synced.
	inMemory bool
	// cutLinks makes hosts talk over links that isolate can cut, not directly.
	cutLinks bool
	// overGRPC makes everybody talk over sockets.
	overGRPC bool
	logKeep  uint64
	// cacheBytes is small, for tests open many hosts.
	cacheBytes int64
	root       string

	mu    sync.Mutex
	tm    *topology.Map
	conns map[string]wire.ShardsConn
	hosts map[ashlar.HostID]*node
	cut   map[[2]ashlar.HostID]bool
	// sieve, with cutLinks, is asked about each message of raft: what it returns arrives
	// instead, nil is lost. It may not change the message.
	sieve func(from, to ashlar.HostID, m *raftpb.Message) *raftpb.Message
}

// node is one host: what survives a kill, and what runs.
type node struct {
	id   ashlar.HostID
	fs   *vfs.MemFS
	dir  string
	host *Host // nil while down
	link *Link

	server *grpc.Server
	addr   string
}

func newCluster(t testing.TB, hosts, shards, replicas int, inMemory bool) *cluster {
	c := &cluster{
		t: t, tick: testTick, cacheBytes: 8 * ashlar.MiB, inMemory: inMemory, root: t.TempDir(),
		conns: map[string]wire.ShardsConn{},
		hosts: map[ashlar.HostID]*node{}, cut: map[[2]ashlar.HostID]bool{},
	}
	c.tm = &topology.Map{Epoch: 1, Groups: make([]topology.Group, 1), Shards: make([]topology.Shard, shards)}
	for i := range hosts {
		id := ashlar.HostID(i + 1)
		c.tm.Hosts = append(c.tm.Hosts, topology.Host{ID: id, Name: fmt.Sprint("h", id)})
		c.hosts[id] = &node{id: id, dir: filepath.Join(c.root, fmt.Sprint("h", id))}
		if inMemory {
			c.hosts[id].fs = vfs.NewCrashableMem()
		}
	}
	for s := range shards {
		for i := range replicas {
			r := topology.Replica{ID: ashlar.ReplicaID(100*(s+1) + i), Host: ashlar.HostID((s+i)%hosts + 1)}
			c.tm.Shards[s].Replicas = append(c.tm.Shards[s].Replicas, r)
		}
	}
	t.Cleanup(func() {
		for id := range c.hosts {
			c.kill(id)
		}
		for _, conn := range c.conns {
			conn.Close()
		}
	})
	return c
}

// startAll starts all hosts and waits until every replica is born: as long as
// one is not, no other of its shard may be away.
func (c *cluster) startAll() {
	for id := range c.hosts {
		c.start(id)
	}
	for shard, sh := range c.topology().Shards {
		for _, v := range sh.Replicas {
			c.eventually(fmt.Sprintf("replica %d is born", v.ID), func() bool {
				return c.replicaOn(v.Host, ashlar.ShardID(shard)).born.Load()
			})
		}
	}
}

// faultyShards is a host seen over a link that may be cut.
type faultyShards struct {
	wire.Shards
	c        *cluster
	from, to ashlar.HostID
}

func (f faultyShards) down() error {
	if f.c.isCut(f.from, f.to) {
		return ashlar.E("link", "", ashlar.Unavailable, nil)
	}
	return nil
}

func (f faultyShards) Deliver(ctx context.Context, b *wire.RaftBatch) error {
	if err := f.down(); err != nil {
		return err
	}
	f.c.mu.Lock()
	sieve := f.c.sieve
	f.c.mu.Unlock()
	if sieve != nil {
		left := wire.RaftBatch{From: b.From}
		for _, m := range b.Messages {
			if m.Raft != nil {
				if m.Raft = sieve(f.from, f.to, m.Raft); m.Raft == nil {
					continue
				}
			}
			left.Messages = append(left.Messages, m)
		}
		b = &left
	}
	return f.Shards.Deliver(ctx, b)
}

func (f faultyShards) InstallSnapshot(ctx context.Context, s *wire.SnapshotChunk) error {
	if err := f.down(); err != nil {
		return err
	}
	return f.Shards.InstallSnapshot(ctx, s)
}

// clientShards is a host as a client sees it: what a killed host would still
// have said, after the moment at which its disk was frozen, does not arrive.
type clientShards struct {
	*Host
	c  *cluster
	to ashlar.HostID
}

func (s clientShards) alive(err error) error {
	if s.c.host(s.to) != s.Host {
		return ashlar.E("dial", "", ashlar.Unavailable, nil)
	}
	return err
}

func (s clientShards) Get(ctx context.Context, shard ashlar.ShardID, key []byte) (meta.Row, error) {
	row, err := s.Host.Get(ctx, shard, key)
	return row, s.alive(err)
}

func (s clientShards) Scan(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest) (meta.ScanPage, error) {
	page, err := s.Host.Scan(ctx, shard, req)
	return page, s.alive(err)
}

func (s clientShards) Commit(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn) error {
	return s.alive(s.Host.Commit(ctx, shard, txn))
}

// connect returns the connection to a host's socket, shared by all.
func (c *cluster) connect(to ashlar.HostID) (wire.Shards, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	addr := c.hosts[to].addr
	if conn := c.conns[addr]; conn != nil {
		return conn, nil
	}
	conn, err := wire.DialShards(addr)
	if err == nil {
		c.conns[addr] = conn
	}
	return conn, err
}

// serve opens a host's socket.
func (c *cluster) serve(n *node, h *Host) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	n.server = grpc.NewServer(wire.ShardsServerOptions()...)
	n.addr = listener.Addr().String()
	wire.RegisterShards(n.server, h)
	go n.server.Serve(listener) // ends with Stop, in kill
}

// dialFrom gives host from's view of the others.
func (c *cluster) dialFrom(from ashlar.HostID) func(ashlar.HostID) (wire.Shards, error) {
	return func(to ashlar.HostID) (wire.Shards, error) {
		h := c.host(to)
		if h == nil {
			return nil, ashlar.E("dial", "", ashlar.Unavailable, nil)
		}
		switch {
		case c.overGRPC:
			return c.connect(to)
		case from == 0:
			return clientShards{Host: h, c: c, to: to}, nil
		case c.host(from) == nil:
			return nil, ashlar.E("dial", "", ashlar.Unavailable, nil) // killed: nothing leaves it
		case c.cutLinks:
			return faultyShards{Shards: h, c: c, from: from, to: to}, nil
		default:
			return h, nil
		}
	}
}

func (c *cluster) isCut(a, b ashlar.HostID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut[[2]ashlar.HostID{a, b}] || c.cut[[2]ashlar.HostID{b, a}]
}

// isolate cuts a host off from all others; heal undoes all cuts.
func (c *cluster) isolate(id ashlar.HostID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for other := range c.hosts {
		if other != id {
			c.cut[[2]ashlar.HostID{id, other}] = true
		}
	}
}

func (c *cluster) setSieve(f func(from, to ashlar.HostID, m *raftpb.Message) *raftpb.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sieve = f
}

func (c *cluster) heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.cut)
}

func (c *cluster) host(id ashlar.HostID) *Host {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.hosts[id]; n != nil {
		return n.host
	}
	return nil
}

func (c *cluster) topology() *topology.Map {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tm
}

func (c *cluster) start(id ashlar.HostID) {
	n := c.hosts[id]
	cfg := Config{logKeep: c.logKeep, Host: id, Dir: n.dir, Map: c.topology(), Tick: c.tick, CacheBytes: c.cacheBytes, Log: slog.New(slog.DiscardHandler)}
	if testing.Verbose() {
		cfg.Log = slog.New(slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	if n.fs != nil {
		cfg.fs, cfg.Dir = n.fs, "/db"
	}
	n.link = NewLink(c.dialFrom(id), cfg.Log)
	cfg.Transport = n.link
	h, err := Open(cfg)
	if err != nil {
		c.t.Fatalf("host %d: %v", id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n.host = h
	if c.overGRPC {
		c.serve(n, h)
	}
}

// kill drops everything that the host has in memory. On a real directory
// nothing is flushed beyond what the store itself does when it closes; in
// memory a random part of what was not synced is lost, as in a power cut.
func (c *cluster) kill(id ashlar.HostID) {
	n := c.hosts[id]
	c.mu.Lock()
	h := n.host
	n.host = nil
	c.mu.Unlock()
	if h == nil {
		return
	}
	if n.fs != nil {
		n.fs = n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rand.IntN(101), RNG: rand.New(rand.NewPCG(rand.Uint64(), 0))})
	}
	if n.server != nil {
		n.server.Stop()
	}
	h.stop()
	n.link.Close()
}

func counterOf(row meta.Row) int64 { return int64(binary.LittleEndian.Uint64(row.Value)) }

func (c *cluster) store() meta.Store { return client.NewMeta(c.topology, c.dialFrom(0)) }

func (c *cluster) setMap(tm *topology.Map) {
	c.mu.Lock()
	c.tm = tm
	c.mu.Unlock()
	for id := range c.hosts {
		if h := c.host(id); h != nil {
			h.Update(tm)
		}
	}
}

// leaderOf waits for a leader of the shard.
func (c *cluster) leaderOf(shard ashlar.ShardID) ashlar.HostID {
	c.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(c.tick) {
		for id := range c.hosts {
			if h := c.host(id); h != nil {
				if r := (*h.shards.Load())[shard]; r != nil && r.leading.Load() {
					return id
				}
			}
		}
	}
	c.t.Fatalf("shard %d has no leader", shard)
	return 0
}

func testCtx(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}
