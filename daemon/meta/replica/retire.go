package replica

import (
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// errGone says that the rows are removed because the replica was swapped out.
var errGone = errors.New("the replica was swapped out")

// retiredBy reports whether the map says that the replica is not needed any
// more: it knows the id as given out, and no list names it. A map that is older
// than the replica does not know the id.
func retiredBy(m *topology.Map, r *replica) bool {
	if r.id >= m.NextReplica || int(r.shard) >= len(m.Shards) {
		return false
	}
	return !slices.ContainsFunc(m.Shards[r.shard].All(), func(v topology.Replica) bool { return v.ID == r.id })
}

// retire stops the replicas that the map retires, and has their data removed
// when the applier and the log writer have done what they were given.
func (c *core) retire(m *topology.Map) {
	c.replicas = slices.DeleteFunc(c.replicas, func(r *replica) bool {
		if !retiredBy(m, r) {
			return false
		}
		r.retired.Store(true)
		r.leading.Store(false)
		r.lead.Store(0)
		r.core.node, r.core.returning = nil, false
		c.failCalls(r)
		c.failFollow(r, &wire.NoReplica{Shard: r.shard})
		c.applies = append(c.applies, applyTask{r: r, retire: true})
		r.log.Info("the replica was swapped out; its data is removed", "code", "meta-replica-retired")
		return true
	})
}

// erase removes everything of a replica, in one batch.
func (h *Host) erase(r *replica) error {
	r.recv.Lock() // no chunk of a snapshot is being put aside
	defer r.recv.Unlock()
	if m := r.machine; m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.gone = true
	}
	batch := h.db.NewBatch()
	defer batch.Close()
	for _, kind := range []byte{kindBorn, kindHard, kindHeard, kindLog, kindLost, kindTrunc, kindApplied, kindMachine} {
		prefix := replicaKey(kind, r.id)
		if err := batch.DeleteRange(prefix, successor(prefix), nil); err != nil {
			return err
		}
	}
	return batch.Commit(pebble.Sync)
}

// Lost returns the replicas of the map on this host whose data is gone or
// cannot be trusted: they stay silent until new ones take their place.
func (h *Host) Lost() []ashlar.ReplicaID {
	var lost []ashlar.ReplicaID
	for id, r := range *h.byID.Load() {
		if r.lost.Load() || r.failed.Load() {
			lost = append(lost, id)
		}
	}
	slices.Sort(lost)
	return lost
}
