package replica

import (
	"encoding/binary"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3/raftpb"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// The first start of a replica; "First start" in the package comment says why
// it is done so.

// Every replica that is born a voter begins with the same empty log, cut
// behind this entry: a raft node with an empty log at zero could not be told
// from one that was added later and needs a snapshot.
const (
	firstIndex = 1
	firstTerm  = 1
)

const (
	birthTicks  = 2  // between two questions
	healthTicks = 50 // between two complaints
)

// follow takes over what a newer map says about our replicas.
func (c *core) follow(m *topology.Map) {
	c.tm = m
	byID := *c.h.byID.Load()
	known := map[ashlar.ReplicaID]bool{}
	for _, r := range c.replicas {
		known[r.id] = true
	}
	for _, r := range byID {
		if !known[r.id] {
			c.replicas = append(c.replicas, r)
		}
	}
	for _, r := range c.replicas {
		if int(r.shard) >= len(m.Shards) {
			continue
		}
		if retiredBy(m, r) {
			continue // below
		}
		rc := &r.core
		sh := &m.Shards[r.shard]
		voters := sh.Replicas
		if !slices.Equal(voters, rc.voters) || !slices.Equal(sh.Leaving, rc.leaving) {
			clear(rc.birth) // what was answered was about another list
		}
		rc.voters, rc.leaving, rc.moved = slices.Clone(voters), slices.Clone(sh.Leaving), sh.Moved
		for _, v := range sh.All() {
			rc.peers[v.ID] = v.Host
		}
		if !r.born.Load() || rc.returning {
			c.askBirth(r)
		}
		c.guard(r, func() { c.tryBirth(r) })
		c.mark(r)
	}
	c.retire(m)
}

// receive handles a message from another replica.
func (c *core) receive(r *replica, m *wire.RaftMessage) {
	rc := &r.core
	switch {
	case m.Birth != nil && !m.Birth.Reply:
		c.answerBirth(r, m)
	case m.Birth != nil && rc.node != nil:
		rc.bornPeers[m.From] = rc.bornPeers[m.From] || m.Birth.Born
	case m.Birth != nil:
		if !r.failed.Load() && !r.lost.Load() || !r.born.Load() {
			rc.birth[m.From] = m.Birth
			c.tryBirth(r)
		}
	case m.Raft == nil || rc.node == nil:
	case m.Raft.GetFrom() != uint64(m.From) || m.Raft.GetTo() != uint64(r.id) || rc.peers[m.From] == 0:
	case m.Raft.GetType() == raftpb.MsgSnap: // comes by InstallSnapshot, with its rows
	default:
		c.hear(r, m)
	}
}

func (c *core) answerBirth(r *replica, m *wire.RaftMessage) {
	rc := &r.core
	asker := m.From
	if m.Birth.Born && r.lost.Load() || !m.Birth.Born && r.born.Load() && rc.node == nil {
		return // its word is worth nothing, or not yet
	}
	answer := &wire.Birth{
		Reply: true, Born: r.born.Load(), Heard: rc.knows(asker),
		Behind: m.Birth.Born && m.Birth.Position.Before(rc.seen[asker]),
	}
	if answer.Born {
		answer.Voters = slices.Clone(rc.bornWith)
	} else {
		answer.Voters = idsOf(rc.voters)
	}
	if host := rc.peers[asker]; host != 0 {
		c.post(host, wire.RaftMessage{Shard: r.shard, From: r.id, To: asker, Birth: answer})
	}
}

func idsOf(replicas []topology.Replica) []ashlar.ReplicaID {
	ids := make([]ashlar.ReplicaID, len(replicas))
	for i, r := range replicas {
		ids[i] = r.ID
	}
	return ids
}

// awaitBirth asks all others at every few ticks while we are unborn.
func (c *core) awaitBirth(r *replica) {
	rc := &r.core
	if rc.ticks%healthTicks == 0 {
		if rc.returning {
			r.log.Warn("a replica waits until others of its shard have confirmed that its data is the newest",
				"code", "meta-replica-waits", "answers", len(rc.birth), "replicas", len(rc.voters))
		} else if r.lost.Load() {
			r.log.Error("this replica took part before and its data is gone: it must not vote again; give the shard a new replica",
				"code", "meta-replica-lost")
		} else {
			r.log.Warn("a new replica waits until every other one of its shard has answered",
				"code", "meta-replica-waits", "answers", len(rc.birth), "replicas", len(rc.voters))
		}
	}
	if r.born.Load() && !rc.returning {
		return // behind: nothing more to ask
	}
	if rc.ticks%birthTicks == 1 {
		c.askBirth(r)
		c.tryBirth(r)
	}
}

func (c *core) askBirth(r *replica) {
	if r.core.returning {
		c.askReturn(r)
		return
	}
	for _, v := range slices.Concat(r.core.voters, r.core.leaving) {
		if v.ID != r.id {
			c.post(v.Host, wire.RaftMessage{Shard: r.shard, From: r.id, To: v.ID, Birth: &wire.Birth{}})
		}
	}
}

// tryBirth decides whether the replica may start, and as what.
func (c *core) tryBirth(r *replica) {
	rc := &r.core
	if rc.returning {
		c.tryReturn(r)
		return
	}
	if r.born.Load() || r.failed.Load() || !slices.ContainsFunc(rc.voters, func(v topology.Replica) bool { return v.ID == r.id }) {
		return
	}
	voters, verdict := judgeBirth(r.id, birthList{idsOf(rc.voters), idsOf(rc.leaving), rc.moved > 0}, rc.birth)
	r.lost.Store(verdict == birthLost)
	if verdict != birthNow {
		return
	}
	if err := c.bear(r, voters); err != nil {
		c.h.fail(err)
		return
	}
	r.log.Info("replica started for the first time", "code", "meta-replica-born", "voters", len(voters))
	c.mark(r)
}

type birthVerdict uint8

const (
	birthWait birthVerdict = iota
	birthNow
	birthLost
)

// birthList is what the map says of the shard of a replica that is to be born.
type birthList struct {
	all, leaving []ashlar.ReplicaID
	// moved: the list was changed since the shard was made.
	moved bool
}

// judgeBirth is the rule. Answers are those to our questions since the map
// last changed the list of replicas.
func judgeBirth(self ashlar.ReplicaID, list birthList, answers map[ashlar.ReplicaID]*wire.Birth) (voters []ashlar.ReplicaID, verdict birthVerdict) {
	var first *wire.Birth // with whose first voters we are
	elder, missing, differs := false, false, false
	for i, id := range slices.Concat(list.all, list.leaving) {
		a := answers[id]
		switch {
		case id == self:
		case a == nil:
			missing = missing || i < len(list.all)
		case a.Heard:
			return nil, birthLost
		case a.Born:
			elder = true
			if slices.Contains(a.Voters, self) {
				first = a
			}
		default:
			differs = differs || !slices.Equal(a.Voters, list.all)
		}
	}
	switch {
	case first != nil && !missing:
		return first.Voters, birthNow
	case first != nil:
		return nil, birthWait
	case elder && (!missing && len(list.all) > 1 || list.addedLater(self, answers)):
		return nil, birthNow // the leader sends a snapshot
	case elder || missing || differs || list.moved: // somebody was born before a list moves
		return nil, birthWait
	default:
		return list.all, birthNow
	}
}

// addedLater reports whether the answers show that a replica of a list that is
// changing never voted: before it could, a majority of the voters that it joined
// had noted it, so a majority of them that has not is enough. These are the others
// of the list with one of those that leave; with which is not known.
func (l birthList) addedLater(self ashlar.ReplicaID, answers map[ashlar.ReplicaID]*wire.Birth) bool {
	born := func(ids ...ashlar.ReplicaID) (n int) {
		for _, id := range ids {
			if a := answers[id]; id != self && a != nil && a.Born {
				n++
			}
		}
		return n
	}
	for _, id := range l.leaving {
		if born(l.all...)+born(id) <= len(l.all)/2 {
			return false
		}
	}
	return len(l.leaving) > 0
}

// bear makes the replica's first state durable and starts it. Without voters
// it knows nobody and waits for a snapshot.
func (c *core) bear(r *replica, voters []ashlar.ReplicaID) error {
	state := appliedState{generation: 1, conf: raftpb.EnsureConfState(nil)}
	var index, term uint64
	if len(voters) > 0 {
		index, term = firstIndex, firstTerm
		state.index, state.term = index, term
		for _, v := range voters {
			state.conf.Voters = append(state.conf.Voters, uint64(v))
		}
	}
	batch := c.h.db.NewBatch()
	defer batch.Close()
	r.machine = &machine{id: r.id, state: state}
	if err := r.machine.saveState(batch); err != nil {
		return err
	}
	if err := putUint64s(batch, replicaKey(kindHard, r.id), term, 0, index); err != nil {
		return err
	}
	if err := putUint64s(batch, replicaKey(kindTrunc, r.id), index, term); err != nil {
		return err
	}
	if err := batch.Set(replicaKey(kindBorn, r.id), encodeBorn(r.shard, voters), nil); err != nil {
		return err
	}
	// Once in a replica's life the core waits for a disk.
	if err := batch.Commit(pebble.Sync); err != nil {
		return err
	}
	if err := c.h.loadState(r, voters); err != nil {
		return err
	}
	return c.startRaft(r)
}

// loadState reads what a born replica has on disk; r.machine is set.
func (h *Host) loadState(r *replica, voters []ashlar.ReplicaID) error {
	store, err := loadLogStore(h.db, r.id, &r.machine.state)
	if err != nil {
		return err
	}
	if err := r.machine.loadSeen(h.db); err != nil {
		return err
	}
	r.machine.applied.Store(store.applied)
	r.machine.applying.Store(store.applied)
	r.disk.last, r.disk.term, r.disk.vote, r.disk.commit = store.last, store.hard.GetTerm(), store.hard.GetVote(), store.hard.GetCommit()
	if r.disk.commit < r.disk.last {
		r.disk.change = r.disk.last // there may be one
	}
	r.core.learn.handed = store.last
	r.core.store, r.core.bornWith = store, voters
	r.core.confMoved = r.machine.state.confMoved
	r.conf.Store(&confSeen{index: r.machine.state.index, conf: store.conf})
	r.born.Store(true)
	return nil
}

// The row under kindBorn: shard (4, little-endian), then the voters (8 each).
func encodeBorn(shard ashlar.ShardID, voters []ashlar.ReplicaID) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(shard))
	for _, v := range voters {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return b
}

// loadReplica makes the replica that a kindBorn row names.
func (h *Host) loadReplica(key, value []byte) (*replica, error) {
	if len(key) != prefixBytes || len(value) < 4 || len(value)%8 != 4 {
		return nil, errCorrupt("birth", 0)
	}
	id := ashlar.ReplicaID(binary.BigEndian.Uint64(key[1:]))
	r := h.newReplica(ashlar.ShardID(binary.LittleEndian.Uint32(value)), id)
	var voters []ashlar.ReplicaID
	for rest := value[4:]; len(rest) > 0; rest = rest[8:] {
		voters = append(voters, ashlar.ReplicaID(binary.LittleEndian.Uint64(rest)))
	}
	raw, closer, err := h.db.Get(replicaKey(kindApplied, id))
	if err != nil {
		return nil, err
	}
	state, err := decodeAppliedState(raw)
	closer.Close()
	if err != nil {
		return nil, ashlar.E("meta: open", r.String(), ashlar.Corrupt, err)
	}
	r.machine = &machine{id: id, state: state}
	if err := h.loadMarks(r); err != nil {
		return nil, err
	}
	if err := h.dropOtherGenerations(r); err != nil {
		return nil, err
	}
	if err := h.loadState(r, voters); err != nil {
		return nil, err
	}
	return r, h.loadReturn(r)
}

// dropOtherGenerations removes what is left of snapshots that were never installed.
func (h *Host) dropOtherGenerations(r *replica) error {
	all := replicaKey(kindMachine, r.id)
	current := machinePrefix(r.id, r.machine.state.generation)
	for _, span := range [][2][]byte{{all, current}, {successor(current), successor(all)}} {
		if err := h.db.DeleteRange(span[0], span[1], pebble.NoSync); err != nil {
			return err
		}
	}
	return nil
}
