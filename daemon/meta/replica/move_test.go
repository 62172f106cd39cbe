package replica

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"ashlar"
	"ashlar/placement/topology"
)

// replaceMap is the next map: the replica on a host leaves for a new one.
func (c *cluster) replaceMap(from ashlar.HostID, to topology.Replica) *topology.Map {
	tm := c.topology().Clone()
	tm.Epoch++
	sh := &tm.Shards[0]
	at := slices.IndexFunc(sh.Replicas, func(r topology.Replica) bool { return r.Host == from })
	sh.Leaving, sh.Moved = append(sh.Leaving, sh.Replicas[at]), tm.Epoch
	sh.Replicas[at] = to
	tm.NextReplica = max(tm.NextReplica, to.ID+1)
	return tm
}

// awaitVoters waits until these vote and no others, as each of them that is up
// knows it. One that does not know yet that a change is over would need those who
// left when it wants to lead.
func (c *cluster) awaitVoters(want ...uint64) {
	c.t.Helper()
	knows := func(v topology.Replica) bool {
		h := c.host(v.Host)
		if h == nil {
			return true
		}
		r := (*h.byID.Load())[v.ID]
		if r == nil || r.conf.Load() == nil {
			return false
		}
		conf := r.conf.Load().conf
		got := slices.Sorted(slices.Values(conf.GetVoters()))
		return slices.Equal(got, want) && len(conf.GetLearners())+len(conf.GetVotersOutgoing()) == 0
	}
	c.eventually(fmt.Sprintf("%v vote", want), func() bool {
		return !slices.ContainsFunc(c.topology().Shards[0].Replicas, func(v topology.Replica) bool { return !knows(v) })
	})
}

func (c *cluster) keysOf(host ashlar.HostID, id ashlar.ReplicaID) (n int) {
	for _, kind := range []byte{kindBorn, kindHard, kindHeard, kindLog, kindLost, kindTrunc, kindApplied, kindMachine} {
		prefix := replicaKey(kind, id)
		it, err := c.host(host).db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: successor(prefix)})
		if err != nil {
			c.t.Fatal(err)
		}
		for ok := it.First(); ok; ok = it.Next() {
			n++
		}
		if err := it.Close(); err != nil {
			c.t.Fatal(err)
		}
	}
	return n
}

// TestMove moves the leading replica to a fourth host: another one leads before
// the swap, the old one keeps its data until the map says that it may go, and
// a leader with the map from before does not undo it.
func TestMove(t *testing.T) {
	c := newCluster(t, 4, 1, 3, false)
	c.startAll()
	store := c.store()
	for i := range 20 {
		mustCommit(t, store, simplePut(fmt.Sprint("k", i), "v"))
	}
	c.eventually("the first of the list leads", func() bool { return c.replicaOn(1, 0).leading.Load() })
	before := c.topology()
	moving := c.replaceMap(1, topology.Replica{ID: 200, Host: 4})
	c.setMap(moving)
	c.awaitVoters(101, 102, 200)
	if c.keysOf(1, 100) == 0 {
		t.Error("the old replica lost its data before the map took it off the list")
	}
	done := moving.Clone()
	done.Epoch++
	done.Shards[0].Leaving = nil
	// Host 2 keeps the map from before the move for now.
	c.mu.Lock()
	c.tm = done
	c.mu.Unlock()
	for _, id := range []ashlar.HostID{1, 3, 4} {
		c.host(id).Update(done)
	}
	c.eventually("the old replica's data is removed", func() bool { return c.keysOf(1, 100) == 0 })
	mustRead(t, store, "k7", "v")

	c.kill(2)
	c.mu.Lock()
	c.tm = before
	c.mu.Unlock()
	c.start(2)
	c.mu.Lock()
	c.tm = done
	c.mu.Unlock()
	c.kill(4) // of which that map does not know: 2 and 3 are the majority
	c.eventually("host 2 takes part", func() bool { return c.replicaOn(2, 0).lead.Load() != 0 })
	c.host(c.leaderOf(0)).events.put(0, event{kind: eventCall, call: func(k *core) {
		for _, r := range k.replicas {
			r.core.node.TransferLeader(101)
		}
	}})
	c.eventually("the one with the old map leads", func() bool { return c.replicaOn(2, 0).leading.Load() })
	mustCommit(t, store, simplePut("with the old map", "v"))
	asked := make(chan bool, 1)
	c.host(2).events.put(0, event{kind: eventCall, call: func(k *core) {
		r := k.replicas[0]
		last, _ := r.core.store.LastIndex()
		k.reconfigure(r)
		k.advance(r)
		now, _ := r.core.store.LastIndex()
		asked <- r.leading.Load() && r.core.moved == 0 && r.core.confMoved == moving.Epoch && now == last
	}})
	if !<-asked {
		t.Error("a leader with an older map began to undo the change")
	}
	c.awaitVoters(101, 102, 200)
	c.start(4)
	for i := range 20 {
		mustRead(t, store, fmt.Sprint("k", i), "v")
	}
}

// TestNewReplicaThatForgetsIsNotBornTwice loses the directory of a replica that
// has just become a member: it may not come back under its id, although only
// the log of the others names it.
func TestNewReplicaThatForgetsIsNotBornTwice(t *testing.T) {
	c := newCluster(t, 4, 1, 3, true)
	c.startAll()
	store := c.store()
	mustCommit(t, store, simplePut("k", "v"))
	c.setMap(c.replaceMap(3, topology.Replica{ID: 200, Host: 4}))
	c.awaitVoters(100, 101, 200)
	c.kill(4)
	c.hosts[4].fs = newMemFS()
	c.start(4)
	c.eventually("it is refused", func() bool { return c.replicaOn(4, 0).lost.Load() })
	c.eventually("it is reported", func() bool { return slices.Equal(c.host(4).Lost(), []ashlar.ReplicaID{200}) })
	// Another one takes its place, while the first change is not confirmed.
	c.setMap(c.replaceMap(4, topology.Replica{ID: 201, Host: 3}))
	c.awaitVoters(100, 101, 201)
	c.kill(2)
	mustRead(t, store, "k", "v")
	mustCommit(t, store, simplePut("k", "w"))
}

// TestMoveWhileAnotherIsAway: the one that is to go is still needed for a
// majority, and vouches for the new one in the place of the one that is away.
func TestMoveWhileAnotherIsAway(t *testing.T) {
	c := newCluster(t, 4, 1, 3, false)
	c.startAll()
	store := c.store()
	mustCommit(t, store, simplePut("k", "v"))
	c.kill(3)
	c.setMap(c.replaceMap(1, topology.Replica{ID: 200, Host: 4}))
	c.awaitVoters(101, 102, 200)
	mustRead(t, store, "k", "v")
}

// TestMoveOfTheOnlyReplica: the new one must not begin the shard anew.
func TestMoveOfTheOnlyReplica(t *testing.T) {
	c := newCluster(t, 2, 1, 1, false)
	c.startAll()
	store := c.store()
	mustCommit(t, store, simplePut("k", "v"))
	c.setMap(c.replaceMap(1, topology.Replica{ID: 200, Host: 2}))
	c.awaitVoters(200)
	mustRead(t, store, "k", "v")
	row, closer, err := c.host(2).db.Get(replicaKey(kindBorn, 200))
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	if len(row) != len(encodeBorn(0, nil)) {
		t.Errorf("it was born as a voter: % x", row)
	}
}
