package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
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
	time.Sleep(20 * time.Millisecond)
	for range 20 {
		if row, at, err := followers.GetAt(ctx, 0, []byte("k"), meta.At{MaxAge: 20 * time.Millisecond}); err != nil || string(row.Value) != "last" {
			t.Fatalf("%q %+v %v: 20 ms after the write no answer of at most 20 ms may miss it", row.Value, at, err)
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
