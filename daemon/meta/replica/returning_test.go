package replica

import (
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

func TestJudgeReturn(t *testing.T) {
	same, behind := &wire.Birth{Reply: true, Born: true}, &wire.Birth{Reply: true, Born: true, Behind: true}
	conf := func(outgoing []uint64, voters ...uint64) *raftpb.ConfState {
		return &raftpb.ConfState{Voters: voters, VotersOutgoing: outgoing}
	}
	list := func(ids ...ashlar.ReplicaID) (l []topology.Replica) {
		for _, id := range ids {
			l = append(l, topology.Replica{ID: id})
		}
		return l
	}
	type answers = map[ashlar.ReplicaID]*wire.Birth
	type ids = []ashlar.ReplicaID
	for _, tc := range []struct {
		name    string
		asked   ids
		conf    *raftpb.ConfState
		voters  []topology.Replica
		answers answers
		patient ids // worth to wait for
		want    returnVerdict
	}{
		{"nobody answered", ids{2, 3}, conf(nil, 1, 2, 3), list(1, 2, 3), answers{}, ids{2, 3}, returnWait},
		{"all answered", ids{2, 3}, conf(nil, 1, 2, 3), list(1, 2, 3), answers{2: same, 3: same}, ids{2, 3}, returnNow},
		{"one is worth to wait for", ids{2, 3}, conf(nil, 1, 2, 3), list(1, 2, 3), answers{2: same}, ids{3}, returnWait},
		{"one is away", ids{2, 3}, conf(nil, 1, 2, 3), list(1, 2, 3), answers{2: same}, nil, returnNow},
		{"two are away", ids{2, 3}, conf(nil, 1, 2, 3), list(1, 2, 3), answers{}, nil, returnWait},
		{"one has seen us further", ids{2, 3}, conf(nil, 1, 2, 3), list(1, 2, 3), answers{2: same, 3: behind}, nil, returnBehind},
		{"the first to answer has seen us further", ids{2, 3}, conf(nil, 1, 2, 3), list(1, 2, 3), answers{3: behind}, ids{2, 3}, returnBehind},
		{"alone", nil, conf(nil, 1), list(1), answers{}, nil, returnNow},
		{"who leaves has no majority", ids{2, 3, 4, 5}, conf([]uint64{1, 2, 3}, 1, 4, 5), list(1, 4, 5), answers{4: same, 5: same}, nil, returnWait},
		{"both lists have one", ids{2, 3, 4, 5}, conf([]uint64{1, 2, 3}, 1, 4, 5), list(1, 4, 5), answers{3: same, 4: same}, nil, returnNow},
		{"the old list on disk is gone", ids{4, 5}, nil, list(1, 4, 5), answers{4: same}, nil, returnNow},
		{"of the new one nobody answered", ids{4, 5}, nil, list(1, 4, 5), answers{2: same}, nil, returnWait},
		{"no snapshot came", ids{2, 3}, conf(nil), list(1, 2, 3), answers{2: same}, nil, returnNow},
	} {
		got := judgeReturn(1, tc.asked, tc.conf, tc.voters, tc.answers, func(id ashlar.ReplicaID) bool {
			return slices.Contains(tc.patient, id)
		})
		if got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// TestReturnAfterTheOthersWereReplaced: a replica was away while both others were
// replaced, one after the other, and they will never answer again.
func TestReturnAfterTheOthersWereReplaced(t *testing.T) {
	c := newCluster(t, 5, 1, 3, false)
	c.startAll()
	store := c.store()
	mustCommit(t, store, simplePut("k", "v"))
	c.kill(3)
	for i, next := range []uint64{200, 201} {
		c.setMap(c.replaceMap(ashlar.HostID(i+1), topology.Replica{ID: ashlar.ReplicaID(next), Host: ashlar.HostID(i + 4)}))
		c.awaitVoters(map[int][]uint64{0: {101, 102, 200}, 1: {102, 200, 201}}[i]...)
		done := c.topology().Clone()
		done.Epoch++
		done.Shards[0].Leaving = nil
		c.setMap(done)
		c.kill(ashlar.HostID(i + 1))
	}
	c.start(3)
	c.eventually("it takes part", func() bool { return c.replicaOn(3, 0).lead.Load() != 0 })
	c.kill(4)
	mustRead(t, store, "k", "v")
	mustCommit(t, store, simplePut("k", "w"))
}
