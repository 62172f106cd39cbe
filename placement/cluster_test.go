package placement_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"ashlar"
	"ashlar/placement"
	"ashlar/placement/client"
	"ashlar/placement/topology"
)

// quorum is a set of members in this process, on loopback.
type quorum struct {
	t       *testing.T
	configs []placement.Config
	members []*placement.Member // nil while stopped
}

// hold returns a port that nobody else is given until the test has ended.
func hold(t *testing.T) string {
	t.Helper()
	addr, release, err := placement.HoldPort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return addr
}

func newCluster() placement.NewCluster {
	return placement.NewCluster{
		Large: ashlar.Code{K: 4, M: 2}, Groups: 64, Shards: 8, ExpectHosts: 6, ExpectDisks: 24,
		DownAfter: placement.Duration(time.Second),
	}
}

// startQuorum starts n members and waits until they are ready.
func startQuorum(t *testing.T, n int, settings placement.NewCluster) *quorum {
	t.Helper()
	q := &quorum{t: t, members: make([]*placement.Member, n)}
	peers, rpc := map[string]string{}, map[string]string{}
	for i := range n {
		name := fmt.Sprint("p", i+1)
		peers[name], rpc[name] = "http://"+hold(t), hold(t)
	}
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(testWriter{t: t, end: ending(t)}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	for i := range n {
		name := fmt.Sprint("p", i+1)
		q.configs = append(q.configs, placement.Config{
			Name: name, Dir: filepath.Join(dir, name), Cluster: "test", Peers: peers, RPC: rpc, New: settings,
			Log: log, SharePorts: true,
		})
	}
	t.Cleanup(q.stop)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { q.members[i], errs[i] = placement.Start(context.Background(), q.configs[i]) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for _, m := range q.members {
		await(t, m.Ready(), m.Name()+" is ready")
	}
	return q
}

func (q *quorum) start(i int) {
	q.t.Helper()
	m, err := placement.Start(context.Background(), q.configs[i])
	if err != nil {
		q.t.Fatal(err)
	}
	q.members[i] = m
}

// kill ends members as a crash would, all at once.
func (q *quorum) kill(which ...int) {
	var wg sync.WaitGroup
	for _, i := range which {
		wg.Go(q.members[i].Kill)
	}
	wg.Wait()
	for _, i := range which {
		q.members[i] = nil
	}
}

func (q *quorum) stop() {
	var wg sync.WaitGroup
	for _, m := range q.members {
		if m != nil {
			wg.Go(m.Stop)
		}
	}
	wg.Wait()
}

// leader waits for the one member that schedules.
func (q *quorum) leader() int {
	q.t.Helper()
	at := -1
	eventually(q.t, "a member schedules", func() bool {
		at = -1
		for i, m := range q.members {
			if m != nil && m.Leads() {
				at = i
			}
		}
		return at >= 0
	})
	return at
}

func (q *quorum) addrs() []string {
	var all []string
	for _, c := range q.configs {
		all = append(all, c.RPC[c.Name])
	}
	return all
}

// client follows the quorum (or the members given) until the test ends.
func (q *quorum) client(addrs ...string) *client.Client {
	q.t.Helper()
	if len(addrs) == 0 {
		addrs = q.addrs()
	}
	c, err := client.New(client.Config{Members: addrs})
	if err != nil {
		q.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	q.t.Cleanup(func() { cancel(); wg.Wait(); c.Close() })
	return c
}

// host is a daemon as far as the quorum can see.
type host struct {
	self client.Self
	c    *client.Client
	mu   sync.Mutex
	rep  client.Report
	stop func()
}

const beatEvery = 100 * time.Millisecond

func newHost(zone, n, disks int) *host {
	h := &host{self: client.Self{
		Name: fmt.Sprintf("b%d", n), Zone: fmt.Sprint("z", zone), Boot: ashlar.BootID(ashlar.NewID()),
		Addr: fmt.Sprint("127.0.0.1:", 7000+n), RPC: fmt.Sprint("127.0.0.1:", 8000+n),
	}}
	for d := range disks {
		h.rep.Disks = append(h.rep.Disks, client.Disk{
			ID: ashlar.DiskID(ashlar.NewID()), Name: fmt.Sprintf("b%d/d%02d", n, d+1), CapacityBytes: 4 << 30, UsedBytes: 512,
		})
	}
	return h
}

func (h *host) report() client.Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rep
	r.Disks = append([]client.Disk(nil), r.Disks...)
	return r
}

// live sends heartbeats until die is called or the test ends.
func (h *host) live(q *quorum) {
	h.c = q.client()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { h.c.Heartbeat(ctx, h.self, beatEvery, h.report) })
	h.stop = func() { cancel(); wg.Wait() }
	q.t.Cleanup(h.stop)
}

// sixHosts lets six hosts in three zones with four disks each live.
func sixHosts(q *quorum) []*host {
	var all []*host
	for n := range 6 {
		h := newHost(n/2+1, n+1, 4)
		h.live(q)
		all = append(all, h)
	}
	return all
}

// wait waits for a map.
func wait(t *testing.T, c *client.Client, what string, ok func(*topology.Map) bool) *topology.Map {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := c.Wait(ctx, func(m *topology.Map) bool { return m != nil && ok(m) })
	if err != nil {
		t.Fatalf("no map in which %s; have %+v", what, c.Map())
	}
	return m
}

// patience is how long a test waits for what must come; nothing passes because
// of it.
const patience = 20 * time.Second

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("timed out: %s", what)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

// testWriter logs to the test until it ends.
type testWriter struct {
	t   *testing.T
	end func() bool
}

func (w testWriter) Write(b []byte) (int, error) {
	if !w.end() {
		w.t.Log(string(bytes.TrimRight(b, "\n")))
	}
	return len(b), nil
}

// ending returns a function that tells whether the test's cleanup has begun.
func ending(t *testing.T) func() bool {
	ctx := t.Context()
	return func() bool { return ctx.Err() != nil }
}
