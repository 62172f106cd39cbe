package replica

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"go.etcd.io/raft/v3"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/placement/topology"
)

// putAs commits one row and returns what a session has seen then.
func putAs(t *testing.T, store meta.Store, key, value string) uint64 {
	t.Helper()
	txn := &meta.Txn{ID: ashlar.RequestID(ashlar.NewID()), Puts: []meta.Put{{Key: []byte(key), Value: []byte(value)}}}
	if err := store.Commit(testCtx(t, 20*time.Second), 0, txn); err != nil {
		t.Fatal(err)
	}
	if txn.Seen == 0 {
		t.Fatal("a commit says no index")
	}
	return txn.Seen
}

func TestFollowersShowWhatASessionSaw(t *testing.T) {
	c := newCluster(t, 3, 1, 3, false)
	c.startAll()
	c.leaderOf(0)
	store := c.store()
	ctx := testCtx(t, 60*time.Second)
	for id := range c.hosts { // until all have heard who leads
		for ctx.Err() == nil {
			if _, _, err := c.host(id).GetAt(ctx, 0, []byte("k"), meta.At{}); err == nil || ashlar.Is(err, ashlar.NotFound) {
				break
			}
			time.Sleep(c.tick)
		}
	}
	for n := range 200 {
		value := fmt.Sprint(n)
		seen := putAs(t, store, "k", value)
		host := c.host(ashlar.HostID(rand.IntN(3) + 1))
		row, at, err := host.GetAt(ctx, 0, []byte("k"), meta.At{Index: seen, MaxAge: time.Minute})
		if err != nil || string(row.Value) != value || at.Index < seen || at.Age > time.Minute {
			t.Fatalf("write %s at %d: host %d has %q, %+v, %v", value, seen, host.cfg.Host, row.Value, at, err)
		}
		page, at, err := host.ScanAt(ctx, 0, meta.ScanRequest{}, meta.At{Index: seen})
		if err != nil || len(page.Rows) != 1 || string(page.Rows[0].Value) != value || at.Index < seen {
			t.Fatalf("scan: %+v %+v %v", page.Rows, at, err)
		}
		if _, at, err := host.GetAt(ctx, 0, []byte("none"), meta.At{Index: seen}); !ashlar.Is(err, ashlar.NotFound) || at.Index < seen {
			t.Fatalf("a row that is not there: %+v %v", at, err)
		}
	}
	// Through the client, any replica, without a session: at most so old.
	followers := store.(meta.Followers)
	putAs(t, store, "k", "last")
	written := time.Now()
	for n := 0; n < 20; {
		since := time.Since(written) // grows until a slow machine can keep to it
		row, at, err := followers.GetAt(ctx, 0, []byte("k"), meta.At{MaxAge: since})
		switch {
		case err == nil && string(row.Value) == "last":
			n++
		case err == nil || !ashlar.Is(err, ashlar.Unavailable) || ctx.Err() != nil:
			t.Fatalf("%q %+v %v: %v after the write no answer of at most that age may miss it", row.Value, at, err, since)
		}
	}
}

// TestAgeIsNeverLessThanItIs cuts a follower off: it may give what it has, but
// must not say that it is newer, and must not give it where more was seen.
func TestAgeIsNeverLessThanItIs(t *testing.T) {
	c := newCluster(t, 3, 1, 3, false)
	c.cutLinks = true
	c.startAll()
	leader := c.leaderOf(0)
	store := c.store()
	lagging := leader%3 + 1
	h := c.host(lagging)
	ctx := testCtx(t, 60*time.Second)
	first := putAs(t, store, "k", "old")
	for { // until it has heard who leads
		_, _, err := h.GetAt(ctx, 0, []byte("k"), meta.At{Index: first, MaxAge: time.Second})
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(c.tick)
	}
	c.isolate(lagging)
	seen := putAs(t, store, "k", "new")
	written := time.Now()
	short := func() context.Context { return testCtx(t, 300*time.Millisecond) }
	for range 5 {
		time.Sleep(20 * time.Millisecond)
		atLeast := time.Since(written)
		row, at, err := h.GetAt(ctx, 0, []byte("k"), meta.At{})
		if err != nil || string(row.Value) != "old" || at.Age < atLeast {
			t.Fatalf("%q %+v %v: it misses a write of %v ago", row.Value, at, err, atLeast)
		}
	}
	if row, at, err := h.GetAt(short(), 0, []byte("k"), meta.At{Index: seen}); !ashlar.Is(err, ashlar.Unavailable) {
		t.Fatalf("what the session saw is not there: %q %+v %v", row.Value, at, err)
	}
	if row, at, err := h.GetAt(short(), 0, []byte("k"), meta.At{MaxAge: time.Millisecond}); !ashlar.Is(err, ashlar.Unavailable) {
		t.Fatalf("nothing so new is there: %q %+v %v", row.Value, at, err)
	}
	// The client goes past it to somebody who has it.
	if row, _, err := store.(meta.Followers).GetAt(ctx, 0, []byte("k"), meta.At{Index: seen, MaxAge: time.Second}); err != nil || string(row.Value) != "new" {
		t.Fatalf("%q %v", row.Value, err)
	}
	c.heal()
	if row, _, err := store.(meta.Followers).GetAt(ctx, 0, []byte("k"), meta.At{Index: seen}); err != nil || string(row.Value) != "new" {
		t.Fatalf("%q %v", row.Value, err)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		row, _, err := h.GetAt(testCtx(t, 5*time.Second), 0, []byte("k"), meta.At{Index: seen, MaxAge: time.Second})
		if err == nil && string(row.Value) == "new" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after healing: %q %v", row.Value, err)
		}
	}
	// An index that nobody came to is not waited for for ever.
	if _, _, err := h.GetAt(ctx, 0, []byte("k"), meta.At{Index: 1 << 60}); !ashlar.Is(err, ashlar.Unavailable) {
		t.Fatal(err)
	}
}

func TestARestartedReplicaAloneDoesNotKnowItsAge(t *testing.T) {
	c := newCluster(t, 3, 1, 3, false)
	c.startAll()
	putAs(t, c.store(), "k", "v")
	for id := range c.hosts {
		c.kill(id)
	}
	c.start(1)
	ctx := testCtx(t, 500*time.Millisecond)
	if row, at, err := c.host(1).GetAt(ctx, 0, []byte("k"), meta.At{}); !ashlar.Is(err, ashlar.Unavailable) && !ashlar.Is(err, ashlar.Stale) {
		t.Fatalf("%q %+v %v", row.Value, at, err)
	}
}

// onCore runs do on the core goroutine of a host and waits for it.
func onCore(h *Host, do func(*core)) {
	done := make(chan struct{})
	h.events.put(0, event{kind: eventCall, call: func(c *core) { defer close(done); do(c) }})
	<-done
}

// TestASlowAnswerOfTheLeaderCounts lets answers take longer than a question waits
// before it is asked again.
func TestASlowAnswerOfTheLeaderCounts(t *testing.T) {
	c := newCluster(t, 3, 1, 3, false)
	c.startAll()
	putAs(t, c.store(), "k", "v")
	id := c.leaderOf(0)%3 + 1
	h, r := c.host(id), c.replicaOn(id, 0)
	c.eventually("the follower knows the leader", func() bool { return r.lead.Load() != 0 })
	left := make(chan struct{})
	close(left)
	stays, gone, later := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	onCore(h, func(k *core) {
		f := &r.core.follow
		*f = follow{next: []followWaiter{{gone, left}, {stays, nil}}}
		k.startFollow(r)
		asked, began := f.round.seq, f.round.began
		f.next = append(f.next, followWaiter{later, nil})
		r.core.ticks += followRetryTicks
		k.startFollow(r)
		if f.round.seq != asked || f.round.began != began || len(f.round.waiting) != 1 || len(f.next) != 1 {
			t.Errorf("asked again as %+v, was number %d of %v; %d wait for the next", f.round, asked, began, len(f.next))
		}
		question := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, asked), uint64(r.id))
		k.confirmFollow(r, raft.ReadState{RequestCtx: question})
		k.finishFollow(r)
		if len(stays) != 1 || len(gone) != 0 || len(later) != 0 || r.newestAt.Load() != int64(began) {
			t.Errorf("answered %d, %d gone, %d that came later", len(stays), len(gone), len(later))
		}
		k.mark(r)
	})
	if err := <-later; err != nil {
		t.Error(err)
	}
}

// TestAFailedReplicaLetsItsFollowersGo, and so does one that is swapped out.
func TestAFailedReplicaLetsItsFollowersGo(t *testing.T) {
	c := newCluster(t, 1, 1, 1, false)
	c.startAll()
	putAs(t, c.store(), "k", "v")
	r := c.replicaOn(1, 0)
	for what, end := range map[string]func(*core){
		"fails":          func(k *core) { k.guard(r, func() { panic("planted") }) },
		"is swapped out": func(k *core) { k.retire(&topology.Map{Shards: make([]topology.Shard, 1), NextReplica: r.id + 1}) },
	} {
		waiting := make(chan error, 1)
		onCore(c.host(1), func(k *core) {
			r.core.follow = follow{next: []followWaiter{{waiting, nil}}}
			end(k)
			if len(waiting) != 1 {
				t.Errorf("a replica that %s leaves its followers waiting", what)
			}
		})
	}
}

// TestTheAgeOfAReadIsThatOfWhatWasRead: the state may become newer before the
// answer is put together.
func TestTheAgeOfAReadIsThatOfWhatWasRead(t *testing.T) {
	h, r := &Host{opened: time.Now().Add(-time.Hour)}, &replica{machine: &machine{}}
	r.newestAt.Store(int64(30 * time.Minute))
	read := r.newestAt.Load()
	r.newestAt.Store(int64(59 * time.Minute))
	if seen := h.seen(r, read); seen.Age < 30*time.Minute {
		t.Errorf("%+v", seen)
	}
}
