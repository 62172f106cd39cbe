package replica

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

func simplePut(key, value string) *meta.Txn {
	return &meta.Txn{ID: ashlar.RequestID(ashlar.NewID()), Puts: []meta.Put{{Key: []byte(key), Value: []byte(value)}}}
}

func mustCommit(t *testing.T, s meta.Store, txn *meta.Txn) {
	t.Helper()
	if err := s.Commit(testCtx(t, 20*time.Second), 0, txn); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

func mustRead(t *testing.T, s meta.Store, key, want string) {
	t.Helper()
	row, err := s.Get(testCtx(t, 20*time.Second), 0, []byte(key))
	if err != nil || string(row.Value) != want {
		t.Fatalf("get %q: %q, %v; want %q", key, row.Value, err, want)
	}
}

// eventually waits until cond holds.
func (c *cluster) eventually(what string, cond func() bool) {
	c.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(c.tick) {
		if cond() {
			return
		}
	}
	c.t.Fatalf("it never holds that %s", what)
}

func (c *cluster) replicaOn(id ashlar.HostID, shard ashlar.ShardID) *replica {
	return (*c.host(id).shards.Load())[shard]
}

func TestLeaderCutOffAnswersNothingOld(t *testing.T) {
	c := newCluster(t, 3, 1, 3, false)
	c.cutLinks = true
	c.startAll()
	store := c.store()
	mustCommit(t, store, simplePut("k", "old"))
	old := c.leaderOf(0)
	c.isolate(old)
	// Whatever the old leader is asked from now on, it may not answer with a row:
	// ask it all the time while the others go on.
	ctx, stop := context.WithCancel(testCtx(t, 30*time.Second))
	asked := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			call, cancel := context.WithTimeout(ctx, 20*testTick)
			row, err := c.host(old).Get(call, 0, []byte("k"))
			cancel()
			if err == nil {
				t.Errorf("cut off, it answers %q", row.Value)
			} else if kind := ashlar.KindOf(err); kind != ashlar.Unavailable && kind != ashlar.Stale {
				t.Errorf("cut off, it answers %v", err)
			}
		}
		asked <- n
	}()
	mustCommit(t, store, simplePut("k", "new"))
	mustRead(t, store, "k", "new")
	c.eventually("the old leader steps down", func() bool { return !c.replicaOn(old, 0).leading.Load() })
	err := c.host(old).Commit(testCtx(t, 5*time.Second), 0, simplePut("k", "minority"))
	var leader *wire.NotLeader
	if !errors.As(err, &leader) {
		t.Errorf("commit to a deposed leader: %v", err)
	}
	stop()
	if n := <-asked; n == 0 {
		t.Error("the old leader was never asked")
	}
	c.heal()
	mustRead(t, store, "k", "new")
	waitSame(t, c, 0)
}

func TestMinorityIsUnavailableWithinTheDeadline(t *testing.T) {
	c := newCluster(t, 3, 1, 3, false)
	c.startAll()
	store := c.store()
	mustCommit(t, store, simplePut("k", "v"))
	c.kill(2)
	c.kill(3)
	begin := time.Now()
	ctx := testCtx(t, 700*time.Millisecond)
	if _, err := store.Get(ctx, 0, []byte("k")); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("get: %v", err)
	}
	if err := store.Commit(testCtx(t, 700*time.Millisecond), 0, simplePut("k", "w")); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("commit: %v", err)
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
	c.start(2)
	mustCommit(t, store, simplePut("k", "x"))
	mustRead(t, store, "k", "x")
}

func TestLaggingFollowerCatchesUpBySnapshot(t *testing.T) {
	c := newCluster(t, 3, 1, 3, false)
	c.logKeep = 50
	c.startAll()
	store := c.store()
	mustCommit(t, store, simplePut("gone", "x"))
	c.leaderOf(0)
	c.kill(3)
	mustCommit(t, store, &meta.Txn{ID: ashlar.RequestID(ashlar.NewID()), Deletes: [][]byte{[]byte("gone")}})
	// Several chunks, one of them larger than a chunk should be.
	for i := range 10 {
		mustCommit(t, store, simplePut(fmt.Sprint("large", i), string(make([]byte, 300*ashlar.KiB))))
	}
	mustCommit(t, store, simplePut("huge", string(make([]byte, 3*ashlar.MiB))))
	for i := range 150 {
		mustCommit(t, store, simplePut(fmt.Sprint("key", i), fmt.Sprint(i)))
	}
	repeated := simplePut("once", "1")
	mustCommit(t, store, repeated)
	c.start(3)
	waitSame(t, c, 0)
	r := c.replicaOn(3, 0)
	if g := generationOf(c.host(3), r); g < 2 {
		t.Fatalf("the follower is at generation %d: no snapshot was installed", g)
	}
	// The snapshot carries the remembered answers, and survives a restart.
	c.kill(3)
	c.start(3)
	c.kill(1)
	mustCommit(t, store, repeated)
	mustCommit(t, store, simplePut("after", "1"))
	mustRead(t, store, "once", "1")
	c.start(1)
	waitSame(t, c, 0)
}

func generationOf(h *Host, r *replica) uint32 {
	h.applyMu.Lock()
	defer h.applyMu.Unlock()
	return r.machine.state.generation
}

// A replica whose directory is gone stays silent under its old id; the shard
// lives, and takes in a replica with a new id in its place.
func TestLostReplicaIsReplaced(t *testing.T) {
	c := newCluster(t, 3, 1, 3, true)
	c.startAll()
	store := c.store()
	for i := range 20 {
		mustCommit(t, store, simplePut(fmt.Sprint("k", i), "v"))
	}
	waitSame(t, c, 0) // so that each has spoken to each leader
	c.kill(2)
	c.hosts[2].fs = newMemFS()
	c.start(2)
	c.eventually("the empty replica is refused", func() bool { return c.replicaOn(2, 0).lost.Load() })
	mustCommit(t, store, simplePut("without", "2"))
	if c.replicaOn(2, 0).born.Load() {
		t.Fatal("it was born although it had taken part before")
	}
	tm := c.topology().Clone()
	tm.Epoch++
	replicas := tm.Shards[0].Replicas
	at := slices.IndexFunc(replicas, func(r topology.Replica) bool { return r.Host == 2 })
	replicas[at].ID = 777
	c.setMap(tm)
	waitSame(t, c, 0)
	c.awaitVoters(100, 102, 777)
	// Now the new one is needed for a majority.
	c.kill(3)
	mustCommit(t, store, simplePut("with", "777"))
	c.start(3)
	mustRead(t, store, "k7", "v")
	waitSame(t, c, 0)
}

func TestFirstStartNeedsAllAndRestartAMajority(t *testing.T) {
	c := newCluster(t, 3, 1, 3, false)
	c.start(1)
	c.start(2)
	store := c.store()
	if err := store.Commit(testCtx(t, 30*testTick), 0, simplePut("k", "v")); !ashlar.Is(err, ashlar.Unavailable) {
		t.Fatalf("commit before the third is up: %v", err)
	}
	if c.replicaOn(1, 0).born.Load() || c.replicaOn(2, 0).born.Load() {
		t.Fatal("born before all were asked")
	}
	c.start(3)
	mustCommit(t, store, simplePut("k", "v"))
	for id := range c.hosts {
		c.kill(id)
	}
	c.start(3)
	c.start(1)
	mustRead(t, store, "k", "v")
}

// A disk that is set back in time is worse than one that is lost: the replica
// must notice and stop, and the process must live.
func TestReplicaSetBackInTimeStops(t *testing.T) {
	c := newCluster(t, 3, 1, 3, true)
	c.startAll()
	store := c.store()
	mustCommit(t, store, simplePut("k", "1"))
	waitSame(t, c, 0)
	leader := c.leaderOf(0)
	victim := leader%3 + 1
	c.kill(victim)
	past := c.hosts[victim].fs
	c.hosts[victim].fs = past.CrashClone(crashAll)
	c.start(victim)
	for i := range 30 {
		mustCommit(t, store, simplePut("k", fmt.Sprint(i)))
	}
	waitSame(t, c, 0)
	c.kill(victim)
	c.hosts[victim].fs = past
	c.start(victim)
	c.eventually("the replica is told that it was further once", func() bool { return c.replicaOn(victim, 0).lost.Load() })
	if got := c.host(victim).Lost(); len(got) != 1 {
		t.Errorf("reported as lost: %v", got)
	}
	mustCommit(t, store, simplePut("k", "end"))
	// It stays silent, also after another start that finds it alone with a follower
	// that knows nothing of it.
	c.kill(victim)
	c.start(victim)
	if !c.replicaOn(victim, 0).lost.Load() {
		t.Error("what it was told is forgotten")
	}
	mustRead(t, store, "k", "end")
}

func TestCleanStopHandsOverAndThePreferredTakesBack(t *testing.T) {
	c := newCluster(t, 3, 1, 3, false)
	c.startAll()
	store := c.store()
	mustCommit(t, store, simplePut("k", "v"))
	preferred := c.topology().Shards[0].Replicas[0].Host
	c.eventually("the first of the list leads", func() bool { return c.replicaOn(preferred, 0).leading.Load() })
	if err := c.host(preferred).Close(testCtx(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	others := slices.DeleteFunc(slices.Sorted(maps.Keys(c.hosts)), func(id ashlar.HostID) bool { return id == preferred })
	if !slices.ContainsFunc(others, func(id ashlar.HostID) bool { return c.replicaOn(id, 0).leading.Load() }) {
		t.Error("nobody leads right after a clean stop")
	}
	c.kill(preferred)
	mustCommit(t, store, simplePut("k", "w"))
	c.start(preferred)
	c.eventually("the first of the list leads again", func() bool { return c.replicaOn(preferred, 0).leading.Load() })
	mustRead(t, store, "k", "w")
}

func TestWrongDirectoryIsRefused(t *testing.T) {
	c := newCluster(t, 2, 1, 1, false)
	c.start(1)
	c.kill(1)
	c.hosts[2].dir = c.hosts[1].dir
	_, err := Open(Config{Host: 2, Dir: c.hosts[2].dir, Transport: NewLink(nil, nil)})
	if !ashlar.Is(err, ashlar.Invalid) {
		t.Fatalf("the directory of another host: %v", err)
	}
}

func TestJudgeBirth(t *testing.T) {
	all := []ashlar.ReplicaID{1, 2, 3}
	unborn := &wire.Birth{Reply: true, Voters: all}
	elder := &wire.Birth{Reply: true, Born: true, Voters: all}
	other := &wire.Birth{Reply: true, Born: true, Voters: []ashlar.ReplicaID{2, 3, 4}}
	heard := &wire.Birth{Reply: true, Born: true, Heard: true, Voters: all}
	later := &wire.Birth{Reply: true, Born: true}
	moving := birthList{all, []ashlar.ReplicaID{4}, true}
	twice := birthList{all, []ashlar.ReplicaID{4, 5}, true}
	type answers = map[ashlar.ReplicaID]*wire.Birth
	for _, tc := range []struct {
		name    string
		answers answers
		voters  []ashlar.ReplicaID
		want    birthVerdict
		list    birthList // if there is more to it than all
	}{
		{"nobody answered", answers{}, nil, birthWait, birthList{}},
		{"one answered", answers{2: unborn}, nil, birthWait, birthList{}},
		{"all are new", answers{2: unborn, 3: unborn}, all, birthNow, birthList{}},
		{"one was faster", answers{2: elder, 3: unborn}, all, birthNow, birthList{}},
		{"one was faster, one is silent", answers{2: elder}, nil, birthWait, birthList{}},
		{"added later", answers{2: other, 3: other}, nil, birthNow, birthList{}},
		{"heard before", answers{2: heard, 3: elder}, nil, birthLost, birthList{}},
		{"heard before, one is silent", answers{3: heard}, nil, birthLost, birthList{}},
		{"another list", answers{2: unborn, 3: {Reply: true, Voters: []ashlar.ReplicaID{1, 3}}}, nil, birthWait, birthList{}},
		// It takes the place of 4, or of 4 and then of 5, which did not come to vote.
		{"added, one is silent and who leaves is not", answers{2: other, 4: other}, nil, birthNow, moving},
		{"added, one and who leaves are silent", answers{2: other}, nil, birthWait, moving},
		{"added, who leaves is silent", answers{2: other, 3: other}, nil, birthNow, moving},
		{"added, one has forgotten all", answers{2: other, 4: unborn}, nil, birthWait, moving},
		{"added, who leaves heard it before", answers{2: other, 3: other, 4: heard}, nil, birthLost, moving},
		{"added again, one leaves and answers", answers{2: other, 4: other}, nil, birthWait, twice},
		{"added again, two leave and answer", answers{2: other, 4: other, 5: later}, nil, birthNow, twice},
		{"first, one is silent and who leaves is not", answers{2: elder, 4: later}, nil, birthWait, moving},
		{"first, an elder was added later", answers{2: elder, 3: later}, all, birthNow, moving},
		{"alone in the place of another", answers{}, nil, birthWait, birthList{all[:1], []ashlar.ReplicaID{4}, true}},
		{"alone in the place of another that answers", answers{4: other}, nil, birthNow, birthList{all[:1], []ashlar.ReplicaID{4}, true}},
		{"alone, the second in that place", answers{5: later}, nil, birthWait, birthList{all[:1], []ashlar.ReplicaID{4, 5}, true}},
		{"alone, forgotten after a change", answers{}, nil, birthWait, birthList{all[:1], nil, true}},
	} {
		if tc.list.all == nil {
			tc.list.all = all
		}
		voters, got := judgeBirth(1, tc.list, tc.answers)
		if got != tc.want || !slices.Equal(voters, tc.voters) {
			t.Errorf("%s: %v %d, want %v %d", tc.name, voters, got, tc.voters, tc.want)
		}
	}
}
