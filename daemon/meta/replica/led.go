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
	// learnt: a majority of the voters has it on disk that it is committed. It never
	// ceases to be so, and only a leader finds it out.
	learnt bool
}

// final reports whether the change that led here is over: nobody joins or leaves.
func (s *confSeen) final() bool {
	return len(s.conf.GetVotersOutgoing())+len(s.conf.GetLearners())+len(s.conf.GetLearnersNext()) == 0
}

// learning is how a leader knows that a majority has learnt of a configuration.
//
// Who has not learnt that the end of a change is committed counts those who left
// when it wants to lead. If they are erased and the leader is lost, the shard has
// no leader, although a majority lives. So the leader tells of a configuration
// without them only when an entry is committed that it appended after it had
// applied that end: the messages that carried it carried the commit index too, and
// both are on disk before they are acknowledged (writer.go). For this it appends
// an empty entry, one for each such configuration. A new leader does not know what
// the others have learnt; the first entry of its term tells it of what it had
// applied by then.
type learning struct {
	handed uint64 // the last entry of the log, as the log writer was given it
	after  uint64 // entries behind this one teach the newest configuration
	due    bool   // none may come by itself
}

// begin waits for an entry that is appended from now on.
func (l *learning) begin(due bool) { l.after, l.due = l.handed, due }

// learnt is told that an entry is committed.
func (r *replica) learnt(e *raftpb.Entry) {
	l, seen := &r.core.learn, r.conf.Load()
	if r.leading.Load() && e.GetTerm() == r.core.term && e.GetIndex() > l.after && !seen.learnt {
		r.conf.Store(&confSeen{index: seen.index, conf: seen.conf, learnt: true})
	}
}

// teach appends the entry that is due. Raft does not take it while the leadership
// moves; a leader is here again with the next tick.
func (c *core) teach(r *replica) {
	l := &r.core.learn
	if !l.due || !r.leading.Load() {
		return
	}
	m := &raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(uint64(r.id)), Entries: []*raftpb.Entry{{}}}
	l.due = r.core.node.Step(m) != nil
}

// Config is the committed configuration of a shard that this host leads.
type ShardConfig struct {
	Shard  ashlar.ShardID
	Leader ashlar.ReplicaID
	// Index orders the configurations of a shard, whoever tells them.
	Index                      uint64
	Voters, Learners, Outgoing []uint64
}

// Configs returns the configurations of the shards that this host leads. A shard is
// left out as long as a majority of its voters may not know that the last change is over.
func (h *Host) Configs() []ShardConfig {
	var all []ShardConfig
	for shard, r := range *h.shards.Load() {
		if !r.leading.Load() {
			continue
		}
		applied := r.machine.applied.Load() // before conf: an index must not lend its place to an older one
		seen := r.conf.Load()
		if seen.final() && !seen.learnt {
			continue
		}
		all = append(all, ShardConfig{
			Shard: shard, Leader: r.id, Index: max(seen.index, applied),
			Voters: seen.conf.GetVoters(), Learners: slices.Concat(seen.conf.GetLearners(), seen.conf.GetLearnersNext()),
			Outgoing: seen.conf.GetVotersOutgoing(),
		})
	}
	return all
}
