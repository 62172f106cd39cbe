package client

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"ashlar"
	"ashlar/placement/topology"
	"ashlar/placement/wire"
)

// fake is a member that says what it is told to. It stands in for nothing: the
// tests of package placement run this client against real members.
type fake struct {
	wire.UnimplementedPlacementServer
	mu    sync.Mutex
	epoch uint64
	mute  bool // accepts calls and never answers
	beats []*wire.HeartbeatRequest
	full  bool // ask for a full list

	refuse error // what heartbeats are answered with
}

func (f *fake) Watch(req *wire.WatchRequest, s wire.Placement_WatchServer) error {
	f.mu.Lock()
	epoch, mute := f.epoch, f.mute
	f.mu.Unlock()
	if !mute {
		if err := s.SendHeader(metadata.MD{}); err != nil {
			return err
		}
		if epoch > req.GetEpoch() {
			if err := s.Send(&wire.WatchReply{Map: mapOf(epoch)}); err != nil {
				return err
			}
		}
	}
	<-s.Context().Done()
	return nil
}

func (f *fake) Heartbeat(ctx context.Context, req *wire.HeartbeatRequest) (*wire.HeartbeatReply, error) {
	f.mu.Lock()
	if f.mute {
		f.mu.Unlock()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	defer f.mu.Unlock()
	if f.refuse != nil {
		return nil, wire.Status(f.refuse)
	}
	f.beats = append(f.beats, req)
	return &wire.HeartbeatReply{Host: 3, Cluster: make([]byte, 16), NeedFull: f.full}, nil
}

func mapOf(epoch uint64) *wire.Map {
	return wire.FromMap(&topology.Map{Epoch: ashlar.Epoch(epoch), Settings: topology.Settings{
		Large: ashlar.Code{K: 4, M: 2}, Small: ashlar.Code{K: 1, M: 2},
	}})
}

// serve starts a fake and returns its address.
func (f *fake) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	wire.RegisterPlacementServer(s, f)
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String()
}

func newClient(t *testing.T, addrs ...string) *Client {
	t.Helper()
	c, err := New(Config{Members: addrs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestNeverBackwards(t *testing.T) {
	c := newClient(t, "127.0.0.1:1")
	if c.Map() != nil {
		t.Fatal("a map out of nothing")
	}
	changed := c.Changed()
	for _, tt := range []struct{ give, want uint64 }{{5, 5}, {3, 5}, {5, 5}, {6, 6}} {
		if _, err := c.accept(mapOf(tt.give)); err != nil {
			t.Fatal(err)
		}
		if got := uint64(c.Map().Epoch); got != tt.want {
			t.Errorf("after epoch %d the client has %d, want %d", tt.give, got, tt.want)
		}
	}
	select {
	case <-changed:
	default:
		t.Error("the change was not told")
	}
	mine := mapOf(7)
	mine.Hosts = []*wire.Host{{Id: 1, Name: "a1", Zone: "a"}}
	if ok, err := c.accept(mine); !ok || err != nil {
		t.Fatal(ok, err)
	}
	other := mapOf(9)
	other.Cluster = []byte("another cluster!")
	if ok, err := c.accept(other); ok || err != nil || c.Map().Epoch != 7 {
		t.Errorf("another cluster's map was taken: %v, %v", ok, err)
	}
}

// TestMuteMemberIsLeft: a member that accepts and never answers holds nobody up.
func TestMuteMemberIsLeft(t *testing.T) {
	mute, good := &fake{mute: true}, &fake{epoch: 4}
	c := newClient(t, mute.serve(t), good.serve(t))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.Refresh(ctx); err != nil || c.Map().Epoch != 4 {
		t.Fatalf("refresh: %v", err)
	}
	good.mu.Lock()
	good.epoch = 5
	good.mu.Unlock()
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	if _, err := c.Wait(ctx, func(m *topology.Map) bool { return m != nil && m.Epoch == 5 }); err != nil {
		t.Error(err)
	}
	cancel()
	<-done
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // refuses from now on
	c := newClient(t, l.Addr().String())
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := c.Refresh(ctx); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("refresh: %v", err)
	}
	if _, err := c.Status(ctx); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("status: %v", err)
	}
	if _, err := c.Wait(ctx, (*topology.Map).Formed); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("wait: %v", err)
	}
	if err := c.Heartbeat(ctx, Self{Name: "b1"}, time.Hour, func() Report { return Report{} }); err != nil {
		t.Errorf("heartbeats end with ctx and without error, not with %v", err)
	}
	if _, err := New(Config{}); !ashlar.Is(err, ashlar.Invalid) {
		t.Errorf("no members: %v", err)
	}
}

// TestDeltas: the first heartbeat lists all disks, the next ones what changed,
// and all again when a disk came, or the scheduler asks.
func TestDeltas(t *testing.T) {
	f := &fake{}
	c := newClient(t, f.serve(t))
	b := &beat{c: c, self: Self{Name: "b1"}, needFull: true}
	disks := []Disk{{ID: ashlar.DiskID{1}, UsedBytes: 1}, {ID: ashlar.DiskID{2}}}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for i, tt := range []struct {
		change func()
		full   bool
		disks  int
	}{
		{func() {}, true, 2},
		{func() {}, false, 0},
		{func() { disks[0].UsedBytes = 2 }, false, 1},
		{func() { disks = append(disks, Disk{ID: ashlar.DiskID{3}}) }, true, 3},
		{func() { disks = disks[:2] }, true, 2},
		{func() { f.full = true }, false, 0},
		{func() { f.full = false }, true, 2},
		{func() {}, false, 0},
	} {
		f.mu.Lock()
		tt.change()
		f.mu.Unlock()
		if err := b.send(ctx, Report{Disks: disks}, false); err != nil {
			t.Fatal(err)
		}
		got := f.beats[len(f.beats)-1]
		if got.GetFull() != tt.full || len(got.GetDisks()) != tt.disks {
			t.Errorf("heartbeat %d: full %v with %d disks, want %v with %d", i, got.GetFull(), len(got.GetDisks()), tt.full, tt.disks)
		}
	}
	if c.HostID() != 3 || b.self.Host != 3 {
		t.Errorf("learned host %v", c.HostID())
	}
}

// TestHeartbeatFindsTheLiving: two of three members accept calls and never
// answer, as when a zone is cut; every heartbeat arrives all the same.
func TestHeartbeatFindsTheLiving(t *testing.T) {
	good := &fake{}
	c := newClient(t, (&fake{mute: true}).serve(t), (&fake{mute: true}).serve(t), good.serve(t))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	b := &beat{c: c, self: Self{Name: "b1"}, needFull: true}
	for range 3 {
		if err := b.send(ctx, Report{}, false); err != nil {
			t.Fatal(err)
		}
	}
	if b.at != 2 || len(good.beats) != 3 {
		t.Errorf("%d heartbeats arrived, the next goes to member %d; want 3, and 2", len(good.beats), b.at)
	}
}

// TestRefusalEndsTheSearch: a member that says no is not outvoted by one that
// says nothing.
func TestRefusalEndsTheSearch(t *testing.T) {
	no := &fake{refuse: ashlar.E("test", "b1", ashlar.Denied, nil)}
	c := newClient(t, no.serve(t), (&fake{mute: true}).serve(t))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.Heartbeat(ctx, Self{Name: "b1"}, time.Second, func() Report { return Report{} }); !ashlar.Is(err, ashlar.Denied) {
		t.Errorf("a refused host's heartbeats: %v", err)
	}
}
