package replica

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"ashlar"
	"ashlar/placement/topology"
)

// secret is a sieve that keeps from some hosts that the end of a joint change is
// committed. All else that raft says gets through, so that whoever leads goes on leading.
type secret struct {
	mu   sync.Mutex
	from map[ashlar.HostID]bool
	end  uint64 // index of the entry that ends the change; 0: not seen yet
}

func (s *secret) keepFrom(hosts ...ashlar.HostID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from = map[ashlar.HostID]bool{}
	for _, id := range hosts {
		s.from[id] = true
	}
}

func (s *secret) sieve(_, to ashlar.HostID, m *raftpb.Message) *raftpb.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range m.GetEntries() {
		if e.GetType() != raftpb.EntryNormal {
			if change, err := decodeConfChange(e); err == nil && change.AsV2().LeaveJoint() {
				s.end = e.GetIndex()
			}
		}
	}
	switch {
	case s.end == 0 || len(s.from) == 0 || m.GetCommit() < s.end:
		return m
	case m.GetType() == raftpb.MsgHeartbeat: // as in a beat from before: nobody learns it so
		m = proto.CloneOf(m)
		m.Commit = new(s.end - 1)
		return m
	case s.from[to]:
		return nil
	}
	return m
}

// changed reports whether the replica knows that these vote and that the change is over.
func (c *cluster) changed(on ashlar.HostID, want ...uint64) bool {
	seen := c.replicaOn(on, 0).conf.Load()
	return seen != nil && seen.final() && slices.Equal(slices.Sorted(slices.Values(seen.conf.GetVoters())), want)
}

// told reports whether a host tells that these vote and that nobody leaves.
func (c *cluster) told(want ...uint64) bool {
	for id := range c.hosts {
		h := c.host(id)
		if h == nil {
			continue
		}
		for _, conf := range h.Configs() {
			if slices.Equal(slices.Sorted(slices.Values(conf.Voters)), want) && len(conf.Outgoing)+len(conf.Learners) == 0 {
				return true
			}
		}
	}
	return false
}

// secretMove moves the replica of host 3 to host 4, and keeps from all but the leader,
// on host 1, that it is over.
func secretMove(t *testing.T) (*cluster, *secret, *topology.Map) {
	c := newCluster(t, 4, 1, 3, true)
	c.cutLinks = true
	c.startAll()
	mustCommit(t, c.store(), simplePut("k", "v"))
	c.eventually("the first of the list leads", func() bool { return c.replicaOn(1, 0).leading.Load() })
	s := &secret{}
	s.keepFrom(2, 3, 4)
	c.setSieve(s.sieve)
	moving := c.replaceMap(3, topology.Replica{ID: 200, Host: 4})
	c.setMap(moving)
	c.eventually("the leader knows that the change is over", func() bool { return c.changed(1, 100, 101, 200) })
	return c, s, moving
}

// TestNobodyIsGivenUpBeforeAMajorityKnows: what the leader tells lets the old replica
// be erased. Then the leader is lost, and who knows has just been cut off from power:
// those who are left must be able to agree without the old one.
func TestNobodyIsGivenUpBeforeAMajorityKnows(t *testing.T) {
	c, s, moving := secretMove(t)
	if c.told(100, 101, 200) {
		t.Fatal("the leader tells of voters of whom only it knows")
	}
	unapplied := c.host(2)
	unapplied.applyMu.Lock() // what host 2 learns is in its log only
	s.keepFrom(3, 4)
	c.eventually("the leader tells who votes", func() bool { return c.told(100, 101, 200) })
	synced := c.hosts[2].fs.CrashClone(crashAll)
	unapplied.applyMu.Unlock()
	c.kill(2)
	c.hosts[2].fs = synced
	if c.changed(4, 100, 101, 200) {
		t.Fatal("host 4 knows too: the test proves nothing")
	}
	done := moving.Clone()
	done.Epoch++
	done.Shards[0].Leaving = nil
	c.setMap(done)
	c.eventually("the old replica's data is removed", func() bool { return c.keysOf(3, 102) == 0 })
	c.kill(1)
	s.keepFrom()
	c.start(2)
	mustCommit(t, c.store(), simplePut("k", "w"))
	mustRead(t, c.store(), "k", "w")
}

// TestANewLeaderLearnsAgainWhoKnows: the only one that knows is lost before it could
// tell. The next leader finds out that the change is over, and must not tell either
// before others know.
func TestANewLeaderLearnsAgainWhoKnows(t *testing.T) {
	c, s, _ := secretMove(t)
	c.kill(1)
	leader := ashlar.HostID(0)
	c.eventually("a new leader knows that the change is over", func() bool {
		leader = c.leaderOf(0)
		return c.changed(leader, 100, 101, 200)
	})
	if c.told(100, 101, 200) {
		t.Fatal("the new leader tells of voters of whom only it knows")
	}
	s.keepFrom()
	c.eventually("the new leader tells who votes", func() bool { return c.told(100, 101, 200) })
	for _, id := range []ashlar.HostID{2, 4} { // the majority, as host 1 is down
		if !c.changed(id, 100, 101, 200) {
			t.Errorf("host %d does not know", id)
		}
	}
	mustCommit(t, c.store(), simplePut("k", "w"))
}

// TestACommittedChangeIsNotForgotten: the commit index of a change of the configuration
// is on disk with the next entry, and no other costs a write.
func TestACommittedChangeIsNotForgotten(t *testing.T) {
	db, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem(), Logger: pebbleLog{slog.New(slog.DiscardHandler)}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	h, r := &Host{db: db}, &replica{id: 7}
	r.disk.term, r.disk.vote = 1, 1
	entry := func(index uint64, typ raftpb.EntryType) []*raftpb.Entry {
		return []*raftpb.Entry{{Index: new(index), Term: new(uint64(1)), Type: typ.Enum()}}
	}
	hard := func(commit uint64) *raftpb.HardState {
		return &raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(1)), Commit: new(commit)}
	}
	for _, step := range []struct {
		task logTask
		want uint64 // the commit index on disk
	}{
		{logTask{entries: entry(5, raftpb.EntryConfChangeV2)}, 0},
		{logTask{hard: hard(4), entries: entry(6, raftpb.EntryNormal)}, 0},
		{logTask{hard: hard(5)}, 0},
		{logTask{entries: entry(7, raftpb.EntryNormal)}, 5},
		{logTask{hard: hard(7), entries: entry(8, raftpb.EntryNormal)}, 5},
		{logTask{hard: hard(9), entries: append(entry(9, raftpb.EntryConfChangeV2), entry(10, raftpb.EntryNormal)...)}, 9},
	} {
		step.task.r = r
		batch := db.NewBatch()
		if _, err := h.writeTask(batch, &step.task); err != nil {
			t.Fatal(err)
		}
		if err := batch.Commit(pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		on, err := getUint64s(db, replicaKey(kindHard, r.id), 3)
		if errors.Is(err, pebble.ErrNotFound) {
			on, err = make([]uint64, 3), nil
		}
		if err != nil || on[2] != step.want {
			t.Errorf("after %+v the disk says %v, %v; want %d committed", step.task, on, err, step.want)
		}
	}
}
