package replica

import (
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3/raftpb"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// returnTicks is how long a replica that comes back waits for those that the
// map does not show as down, once a majority has answered.
const returnTicks = 100

// loadReturn makes a replica that has state ask before it takes part, unless it
// was told before that it is behind.
func (h *Host) loadReturn(r *replica) error {
	_, closer, err := h.db.Get(replicaKey(kindLost, r.id))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		r.core.returning = true
		return nil
	case err != nil:
		return err
	}
	r.lost.Store(true)
	return closer.Close()
}

// asked are all others of the configuration on disk and of the map whose host
// is known.
func (rc *replicaCore) asked(self ashlar.ReplicaID) []ashlar.ReplicaID {
	var ids []ashlar.ReplicaID
	add := func(id ashlar.ReplicaID) {
		if id != self && rc.peers[id] != 0 && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for _, list := range [][]uint64{rc.store.conf.GetVoters(), rc.store.conf.GetVotersOutgoing()} {
		for _, id := range list {
			add(ashlar.ReplicaID(id))
		}
	}
	for _, list := range [][]topology.Replica{rc.voters, rc.leaving} {
		for _, v := range list {
			add(v.ID)
		}
	}
	return ids
}

// askReturn asks the others whether they have seen us further than we are.
func (c *core) askReturn(r *replica) {
	rc := &r.core
	at := wire.Position{Term: rc.store.hard.GetTerm(), Index: rc.store.last}
	for _, id := range rc.asked(r.id) {
		c.post(rc.peers[id], wire.RaftMessage{
			Shard: r.shard, From: r.id, To: id, Birth: &wire.Birth{Born: true, Position: at},
		})
	}
}

// tryReturn decides whether a replica that has state may take part again.
func (c *core) tryReturn(r *replica) {
	rc := &r.core
	if len(rc.voters) == 0 {
		return // the map is not known yet
	}
	conf := rc.store.conf
	if rc.moved >= rc.confMoved && len(rc.leaving) == 0 {
		conf = nil // what is applied on disk may be from before the change was over
	}
	waited := rc.ticks >= returnTicks
	switch judgeReturn(r.id, rc.asked(r.id), conf, rc.voters, rc.birth, func(id ashlar.ReplicaID) bool {
		h := c.tm.Host(rc.peers[id])
		return !waited && h != nil && h.State == topology.HostUp
	}) {
	case returnBehind:
		c.behind(r)
	case returnNow:
		rc.returning = false
		if err := c.startRaft(r); err != nil {
			c.h.fail(err)
			return
		}
		c.mark(r)
	}
}

type returnVerdict uint8

const (
	returnWait returnVerdict = iota
	returnNow
	returnBehind
)

// judgeReturn is the rule. Conf is the configuration on disk, or nil if the map
// says that its own list has come into force: then those that it named may be
// gone for good. Patient says for whom it is still worth to wait.
func judgeReturn(self ashlar.ReplicaID, asked []ashlar.ReplicaID, conf *raftpb.ConfState, voters []topology.Replica,
	answers map[ashlar.ReplicaID]*wire.Birth, patient func(ashlar.ReplicaID) bool) returnVerdict {
	all := true
	for _, id := range asked {
		a := answers[id]
		if a != nil && a.Behind {
			return returnBehind
		}
		all = all && (a != nil || !patient(id))
	}
	if !all || !majorityAnswered(self, conf, voters, answers) {
		return returnWait
	}
	return returnNow
}

// majorityAnswered reports whether those that answered and we are a majority of
// every list of voters that may be in force.
func majorityAnswered(self ashlar.ReplicaID, conf *raftpb.ConfState, voters []topology.Replica, answers map[ashlar.ReplicaID]*wire.Birth) bool {
	lists := [][]uint64{conf.GetVoters(), conf.GetVotersOutgoing()}
	if len(lists[0]) == 0 { // superseded, or born knowing nobody and no snapshot came
		for _, v := range voters {
			lists[0] = append(lists[0], uint64(v.ID))
		}
	}
	for _, list := range lists {
		n := 0
		for _, id := range list {
			if ashlar.ReplicaID(id) == self || answers[ashlar.ReplicaID(id)] != nil {
				n++
			}
		}
		if len(list) > 0 && n <= len(list)/2 {
			return false
		}
	}
	return true
}

// behind is told that we were further once: our disk was set back in time.
func (c *core) behind(r *replica) {
	r.core.returning = false
	r.lost.Store(true)
	r.log.Error("this replica was further once: its data was set back in time, it must not vote again",
		"code", "meta-replica-lost", "term", r.core.store.hard.GetTerm(), "last", r.core.store.last)
	c.logs = append(c.logs, logTask{r: r, lost: true})
}
