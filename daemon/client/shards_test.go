package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/metatest"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// metaHosts is a cluster of three hosts over one model: who does not lead
// says so, and a host can fail in a way of its own.
type metaHosts struct {
	meta.Store
	mu     sync.Mutex
	leader ashlar.HostID
	hint   ashlar.HostID
	fails  map[ashlar.HostID]error
	mute   map[ashlar.HostID]bool // it waits until the caller gives up
	asked  []ashlar.HostID
}

type metaHost struct {
	wire.Shards
	c  *metaHosts
	id ashlar.HostID
}

func (c *metaHosts) dial(id ashlar.HostID) (wire.Shards, error) {
	if id > 3 {
		return nil, errors.New("no such host")
	}
	return metaHost{c: c, id: id}, nil
}

func (h metaHost) admit(ctx context.Context, shard ashlar.ShardID) error {
	h.c.mu.Lock()
	h.c.asked = append(h.c.asked, h.id)
	leader, hint, fail, mute := h.c.leader, h.c.hint, h.c.fails[h.id], h.c.mute[h.id]
	h.c.mu.Unlock()
	switch {
	case mute:
		<-ctx.Done()
		return ashlar.E("meta", "", ashlar.Unavailable, ctx.Err())
	case fail != nil:
		return fail
	case h.id != leader:
		return &wire.NotLeader{Shard: shard, Hint: hint}
	}
	return nil
}

func (h metaHost) Get(ctx context.Context, shard ashlar.ShardID, key []byte) (meta.Row, error) {
	if err := h.admit(ctx, shard); err != nil {
		return meta.Row{}, err
	}
	return h.c.Store.Get(ctx, shard, key)
}

func (h metaHost) Scan(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest) (meta.ScanPage, error) {
	if err := h.admit(ctx, shard); err != nil {
		return meta.ScanPage{}, err
	}
	return h.c.Store.Scan(ctx, shard, req)
}

func (h metaHost) Commit(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn) error {
	if err := h.admit(ctx, shard); err != nil {
		return err
	}
	return h.c.Store.Commit(ctx, shard, txn)
}

func metaMap() *topology.Map {
	m := &topology.Map{Epoch: 1, Groups: make([]topology.Group, 1), Shards: make([]topology.Shard, 2)}
	for id := ashlar.HostID(1); id <= 3; id++ {
		m.Hosts = append(m.Hosts, topology.Host{ID: id, Name: fmt.Sprint("h", id)})
		for s := range m.Shards {
			m.Shards[s].Replicas = append(m.Shards[s].Replicas, topology.Replica{ID: ashlar.ReplicaID(id), Host: id})
		}
	}
	return m
}

func newMetaHosts() *metaHosts {
	return &metaHosts{
		Store: metatest.NewModel(), leader: 3, fails: map[ashlar.HostID]error{}, mute: map[ashlar.HostID]bool{},
	}
}

func metaCtx(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func putOne() *meta.Txn {
	return &meta.Txn{ID: ashlar.RequestID(ashlar.NewID()), Puts: []meta.Put{{Key: []byte("k"), Value: []byte("v")}}}
}

func TestMetaIsAStore(t *testing.T) {
	metatest.Run(t, func(t *testing.T) meta.Store {
		c := newMetaHosts()
		c.hint = 3
		return NewMeta(metaMap, c.dial)
	})
}

func TestMetaFollowsHintsAndRemembers(t *testing.T) {
	c := newMetaHosts()
	c.hint = 3
	m := NewMeta(metaMap, c.dial)
	for range 3 {
		if err := m.Commit(metaCtx(t, 5*time.Second), 0, putOne()); err != nil {
			t.Fatal(err)
		}
	}
	if want := []ashlar.HostID{1, 3, 3, 3}; !slices.Equal(c.asked, want) {
		t.Errorf("asked %v, want %v", c.asked, want)
	}
	// The leader moves, and the old one does not know where to.
	c.leader, c.hint, c.asked = 2, 0, nil
	if err := m.Commit(metaCtx(t, 5*time.Second), 0, putOne()); err != nil {
		t.Fatal(err)
	}
	if want := []ashlar.HostID{3, 1, 2}; !slices.Equal(c.asked, want) {
		t.Errorf("asked %v, want %v", c.asked, want)
	}
}

func TestMetaTriesOtherHosts(t *testing.T) {
	for name, fail := range map[string]error{
		"unavailable": ashlar.E("meta", "", ashlar.Unavailable, nil),
		"busy":        ashlar.E("meta", "", ashlar.Busy, nil),
		"no replica":  &wire.NoReplica{},
	} {
		c := newMetaHosts()
		c.fails[1], c.fails[2] = fail, fail
		m := NewMeta(metaMap, c.dial)
		if err := m.Commit(metaCtx(t, 5*time.Second), 0, putOne()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMetaLeavesASilentHost(t *testing.T) {
	c := newMetaHosts()
	c.mute[1] = true
	m := NewMeta(metaMap, c.dial)
	begin := time.Now()
	if err := m.Commit(metaCtx(t, 30*time.Second), 0, putOne()); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > 3*metaAttemptMax {
		t.Errorf("it took %v", d)
	}
}

func TestMetaPassesFinalAnswersOn(t *testing.T) {
	c := newMetaHosts()
	c.leader = 1
	m := NewMeta(metaMap, c.dial)
	ctx := metaCtx(t, 10*time.Second)
	if _, err := m.Get(ctx, 0, []byte("nothing")); !ashlar.Is(err, ashlar.NotFound) {
		t.Errorf("get of nothing: %v", err)
	}
	if err := m.Commit(ctx, 2, putOne()); !ashlar.Is(err, ashlar.Invalid) {
		t.Errorf("a shard that does not exist: %v", err)
	}
	refused := putOne()
	refused.Conds = []meta.Cond{{Key: []byte("k"), Kind: meta.CondExists}}
	var cond *meta.ConditionError
	if err := m.Commit(ctx, 0, refused); !errors.As(err, &cond) {
		t.Errorf("a refused transaction: %v", err)
	}
	c.fails[1] = ashlar.E("meta", "", ashlar.Corrupt, nil)
	if _, err := m.Get(ctx, 0, []byte("k")); !ashlar.Is(err, ashlar.Corrupt) {
		t.Errorf("a corrupt row: %v", err)
	}
}

func TestMetaWithoutLeaderIsUnavailable(t *testing.T) {
	c := newMetaHosts()
	c.leader = 0
	begin := time.Now()
	err := NewMeta(metaMap, c.dial).Commit(metaCtx(t, 300*time.Millisecond), 0, putOne())
	if !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("without a leader: %v", err)
	}
	err = NewMeta(func() *topology.Map { return nil }, c.dial).Commit(metaCtx(t, 100*time.Millisecond), 0, putOne())
	if !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("without a map: %v", err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
}
