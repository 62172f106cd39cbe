package replica

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"ashlar"
)

// Led returns the shards that this host leads now, in order. It is a hint: a
// leader may be deposed at any moment.
func (h *Host) Led() []ashlar.ShardID {
	var led []ashlar.ShardID
	for id, r := range *h.shards.Load() {
		if r.leading.Load() {
			led = append(led, id)
		}
	}
	slices.Sort(led)
	return led
}

// confSeen is the newest committed configuration and the index of its entry.
type confSeen struct {
	index uint64
	conf  *raftpb.ConfState
}

// Config is the committed configuration of a shard that this host leads.
type ShardConfig struct {
	Shard  ashlar.ShardID
	Leader ashlar.ReplicaID
	// Index orders the configurations of a shard, whoever tells them.
	Index                      uint64
	Voters, Learners, Outgoing []uint64
}

// Configs returns the configurations of the shards that this host leads.
func (h *Host) Configs() []ShardConfig {
	var all []ShardConfig
	for shard, r := range *h.shards.Load() {
		if !r.leading.Load() {
			continue
		}
		applied := r.machine.applied.Load() // before conf: an index must not lend its place to an older one
		seen := r.conf.Load()
		all = append(all, ShardConfig{
			Shard: shard, Leader: r.id, Index: max(seen.index, applied),
			Voters: seen.conf.GetVoters(), Learners: slices.Concat(seen.conf.GetLearners(), seen.conf.GetLearnersNext()),
			Outgoing: seen.conf.GetVotersOutgoing(),
		})
	}
	return all
}
