package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// Bounds of one raft group.
const (
	heartbeatTicks = 2
	electionTicks  = 10

	appendBytesMax      = 1 * ashlar.MiB  // entries in one message, beyond the first
	applyBytesMax       = 8 * ashlar.MiB  // committed, on their way to the state machine
	uncommittedBytesMax = 32 * ashlar.MiB // proposed, not committed
	inflightMax         = 256             // messages to one follower
	inflightBytesMax    = 8 * ashlar.MiB

	// The log keeps this much behind the applied index for followers that lag;
	// it is cut when it holds twice as much.
	logKeepEntries = 8192
	logKeepBytes   = 16 * ashlar.MiB

	heldMax = 64 // messages of a peer while something about it is being noted
)

type eventKind uint8

const (
	eventPropose eventKind = iota
	eventRead
	eventFollow
	eventMessages
	eventLogged  // the log writer has done a task
	eventApplied // the applier has done a task
	eventMap
	eventCall // run call on the core goroutine
)

// event is anything that the core goroutine is told.
type event struct {
	kind   eventKind
	r      *replica
	prop   proposal
	read   chan error
	follow followWaiter
	batch  *wire.RaftBatch
	log    logTask
	apply  applyTask
	tm     *topology.Map
	call   func(*core)
}

// core is the goroutine that owns all raft groups of the host. It never waits
// for a disk or a network: what has to be written, applied or sent is handed
// on, and comes back as an event.
type core struct {
	h        *Host
	replicas []*replica
	tm       *topology.Map
	dirty    []*replica
	out      map[ashlar.HostID]*wire.RaftBatch
	logs     []logTask
	applies  []applyTask
	seq      uint64
}

// run ends with ctx; whoever still waits is told by Host.wait.
func (c *core) run(ctx context.Context) {
	ticker := time.NewTicker(c.h.cfg.Tick)
	defer ticker.Stop()
	var events []event
	for {
		ticked := false
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			ticked = true
		case <-c.h.events.wake:
		}
		events = c.h.events.take(events)
		for i := range events {
			c.handle(&events[i])
		}
		if ticked {
			for _, r := range c.replicas {
				c.guard(r, func() { c.tick(r) })
			}
		}
		c.drain()
	}
}

// guard runs do for the replica. Raft panics when it meets what cannot be, for
// example a log that is shorter than what was acknowledged: that replica stops,
// the others go on.
func (c *core) guard(r *replica, do func()) {
	defer func() {
		if p := recover(); p != nil {
			r.failed.Store(true)
			r.leading.Store(false)
			r.lead.Store(0)
			r.core.node = nil
			r.log.Error("raft met something impossible; the replica is stopped", "code", "meta-replica-failed", "cause", fmt.Sprint(p))
			c.failCalls(r)
			c.failFollow(r, &wire.NoReplica{Shard: r.shard})
		}
	}()
	do()
}

func (c *core) handle(e *event) {
	switch e.kind {
	case eventMap:
		c.follow(e.tm)
	case eventCall:
		e.call(c)
	case eventMessages:
		byID := *c.h.byID.Load()
		for i := range e.batch.Messages {
			m := &e.batch.Messages[i]
			if r := byID[m.To]; r != nil && r.shard == m.Shard {
				c.guard(r, func() { c.receive(r, m) })
			}
		}
	default:
		c.guard(e.r, func() { c.handleOf(e.r, e) })
	}
}

func (c *core) handleOf(r *replica, e *event) {
	rc := &r.core
	c.mark(r)
	switch e.kind {
	case eventPropose:
		if rc.frozen.holds(time.Now()) {
			r.answer(e.prop.id, ashlar.E("meta: commit", r.String(), ashlar.Busy, errors.New("a backup begins")))
			return
		}
		rc.props = append(rc.props, e.prop)
	case eventRead:
		rc.newReads = append(rc.newReads, e.read)
	case eventFollow:
		rc.follow.next = append(rc.follow.next, e.follow)
	case eventLogged:
		c.logged(r, &e.log)
	case eventApplied:
		c.applied(r, &e.apply)
	}
}

func (c *core) mark(r *replica) {
	if !r.core.dirty {
		r.core.dirty = true
		c.dirty = append(c.dirty, r)
	}
}

// logged is told that a task of the log writer is durable.
func (c *core) logged(r *replica, t *logTask) {
	rc := &r.core
	if len(t.marks) > 0 {
		c.marked(r, t.marks)
	}
	if rc.node == nil {
		return
	}
	if t.install != nil {
		s := &t.install.state
		rc.store.restored(s.index, s.term, s.conf)
		rc.confMoved = max(rc.confMoved, s.confMoved)
		r.conf.Store(&confSeen{index: s.index, conf: s.conf})
	}
	rc.store.appended(t.entries)
	c.respond(r, t.responses)
}

// applied is told that entries are applied and visible.
func (c *core) applied(r *replica, t *applyTask) {
	rc := &r.core
	if t.retire {
		c.logs = append(c.logs, logTask{r: r, erase: true})
		return
	}
	if rc.node == nil {
		return
	}
	last := t.entries[len(t.entries)-1].GetIndex()
	rc.store.applied = max(rc.store.applied, last)
	c.respond(r, t.responses)
	rc.store.trimCache()
	c.compact(r)
}

// respond delivers what a finished task releases: to our own raft, or to others.
func (c *core) respond(r *replica, responses []*raftpb.Message) {
	for _, m := range responses {
		r.core.vouch(m)
		if m.GetTo() == uint64(r.id) {
			c.step(r, m)
		} else {
			c.send(r, m)
		}
	}
}

func (c *core) step(r *replica, m *raftpb.Message) {
	if r.core.node == nil {
		return
	}
	c.mark(r)
	// The errors say that a message was of no use (from a stranger, a proposal
	// without a leader): raft has no more to say about it, nor have we.
	_ = r.core.node.Step(m)
}

// drain lets every replica that was touched act on what it was told, and
// hands on the results.
func (c *core) drain() {
	for len(c.dirty) > 0 {
		dirty := c.dirty
		c.dirty = nil
		for _, r := range dirty {
			r.core.dirty = false
			c.guard(r, func() { c.advance(r) })
		}
	}
	for host, batch := range c.out {
		c.h.cfg.Transport.Send(host, batch)
		delete(c.out, host)
	}
	c.h.logQueue.put(0, c.logs...) // bounded by raft's own limits
	c.h.applyQueue.put(0, c.applies...)
	clear(c.logs)
	clear(c.applies)
	c.logs, c.applies = c.logs[:0], c.applies[:0]
}

func (c *core) advance(r *replica) {
	rc := &r.core
	if rc.node == nil {
		c.failCalls(r)
		c.failFollow(r, &wire.NoReplica{Shard: r.shard})
		return
	}
	c.noteRole(r)
	c.teach(r)
	c.propose(r)
	c.startReads(r)
	c.startFollow(r)
	for rc.node.HasReady() {
		rd := rc.node.Ready()
		for _, m := range rd.Messages {
			c.dispatch(r, m)
		}
		for _, rs := range rd.ReadStates {
			c.confirmReads(r, rs)
		}
		c.teach(r)
	}
	if rc.staged != nil {
		// Raft had no use for the snapshot.
		c.logs = append(c.logs, logTask{r: r, discard: rc.staged.state.generation})
		rc.staged = nil
	}
	c.noteRole(r)
	c.finishReads(r)
	c.finishFollow(r)
}

func (c *core) dispatch(r *replica, m *raftpb.Message) {
	switch {
	case m.GetTo() == raft.LocalAppendThread:
		c.logs = append(c.logs, c.logTaskOf(r, m))
	case m.GetTo() == raft.LocalApplyThread:
		c.applies = append(c.applies, c.applyTaskOf(r, m))
	case m.GetType() == raftpb.MsgSnap:
		c.startSnapshot(r, m)
	default:
		c.send(r, m)
	}
}

func (c *core) logTaskOf(r *replica, m *raftpb.Message) logTask {
	t := logTask{r: r, entries: m.GetEntries(), responses: m.GetResponses()}
	hard := &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	if !raft.IsEmptyHardState(hard) {
		t.hard = hard
	}
	if snap := m.GetSnapshot(); !raft.IsEmptySnap(snap) {
		s := r.core.staged
		if s == nil || s.state.index != snap.GetMetadata().GetIndex() {
			panic("raft restores a snapshot that was not received")
		}
		t.install, r.core.staged = s, nil
		r.core.learn.handed = s.state.index
		t.marks = append(t.marks, r.core.introduce(r.id, s.state.conf)...)
	}
	for _, e := range t.entries {
		if e.GetType() != raftpb.EntryNormal {
			t.marks = append(t.marks, r.core.introduceAll(r.id, e)...)
		}
		r.core.learn.handed = e.GetIndex()
	}
	return t
}

// applyTaskOf also tells raft about changes of the configuration, which are
// committed by now.
func (c *core) applyTaskOf(r *replica, m *raftpb.Message) applyTask {
	t := applyTask{r: r, entries: m.GetEntries(), responses: m.GetResponses()}
	for _, e := range t.entries {
		if e.GetType() == raftpb.EntryNormal {
			r.learnt(e)
			continue
		}
		conf, moved := c.applyConf(r, e)
		r.core.confMoved = max(r.core.confMoved, moved)
		t.conf, t.confIndex, t.confMoved = conf, e.GetIndex(), r.core.confMoved
		r.core.store.conf = conf
		r.conf.Store(&confSeen{index: e.GetIndex(), conf: conf})
		r.core.learn.begin(r.conf.Load().final())
	}
	return t
}

func (c *core) send(r *replica, m *raftpb.Message) {
	to := ashlar.ReplicaID(m.GetTo())
	host := r.core.peers[to]
	if host == 0 {
		return
	}
	c.post(host, wire.RaftMessage{Shard: r.shard, From: r.id, To: to, Raft: m, Durable: r.core.vouched})
}

func (c *core) post(host ashlar.HostID, m wire.RaftMessage) {
	batch := c.out[host]
	if batch == nil {
		batch = &wire.RaftBatch{From: c.h.cfg.Host}
		c.out[host] = batch
	}
	batch.Messages = append(batch.Messages, m)
}

// noteRole publishes who leads and, when our own leadership ended or began
// anew, tells everybody who waits to ask again.
func (c *core) noteRole(r *replica) {
	rc := &r.core
	st := rc.node.BasicStatus()
	leading := st.RaftState == raft.StateLeader
	was := r.leading.Load()
	if was && (!leading || st.GetTerm() != rc.term) {
		r.leading.Store(false)
		r.lead.Store(uint32(rc.peers[ashlar.ReplicaID(st.Lead)]))
		c.failCalls(r)
	}
	if st.Lead != rc.lead || st.GetTerm() != rc.term {
		rc.leadTicks = 0
	}
	if st.Lead != 0 {
		rc.lonely = 0
	}
	if leading && (!was || st.GetTerm() != rc.term) {
		rc.learn.begin(false) // raft's own first entry of the term teaches
	}
	rc.term, rc.lead = st.GetTerm(), st.Lead
	r.lead.Store(uint32(rc.peers[ashlar.ReplicaID(st.Lead)]))
	r.leading.Store(leading)
}

// failCalls tells everybody who waits that somebody else has to answer.
func (c *core) failCalls(r *replica) {
	rc := &r.core
	err := r.notLeader()
	rounds := append(rc.readsWait, rc.reading, readRound{readers: rc.newReads})
	rc.readsWait, rc.reading, rc.newReads, rc.props = nil, readRound{}, nil, nil
	for _, round := range rounds {
		for _, ch := range round.readers {
			ch <- err
		}
	}
	r.answerAll(err)
}

// propose puts all waiting transactions into the log, many with one message.
func (c *core) propose(r *replica) {
	rc := &r.core
	for props := rc.props; len(props) > 0; {
		m := &raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(uint64(r.id))}
		n := 0
		for sum := 0; n < len(props) && sum < appendBytesMax; n++ {
			m.Entries = append(m.Entries, &raftpb.Entry{Data: props[n].data})
			sum += len(props[n].data)
		}
		if err := rc.node.Step(m); err != nil {
			c.refuse(r, props[:n], err)
		}
		props = props[n:]
	}
	clear(rc.props)
	rc.props = rc.props[:0]
}

// refuse answers transactions that raft did not take.
func (c *core) refuse(r *replica, props []proposal, cause error) {
	answer := r.notLeader()
	if r.leading.Load() {
		// Too much is uncommitted, or leadership is moving.
		answer = ashlar.E("meta: commit", r.String(), ashlar.Busy, cause)
	}
	for _, p := range props {
		r.answer(p.id, answer)
	}
}

// startReads asks the quorum, once for all waiting readers, whether we still
// lead. One round is on its way at a time; later readers share the next.
func (c *core) startReads(r *replica) {
	rc := &r.core
	if len(rc.newReads) == 0 || len(rc.reading.readers) > 0 {
		return
	}
	if !r.leading.Load() {
		c.failCalls(r)
		return
	}
	c.seq++
	rc.reading = readRound{seq: c.seq, readers: rc.newReads}
	rc.newReads = nil
	rc.node.ReadIndex(binary.LittleEndian.AppendUint64(nil, c.seq))
}

// confirmReads is told that we led when the round began, and from which
// applied index on its readers may look.
func (c *core) confirmReads(r *replica, rs raft.ReadState) {
	rc := &r.core
	if len(rs.RequestCtx) == followBytes {
		c.confirmFollow(r, rs)
		return
	}
	if len(rs.RequestCtx) != 8 || binary.LittleEndian.Uint64(rs.RequestCtx) != rc.reading.seq {
		return
	}
	round := rc.reading
	round.index = rs.Index
	rc.reading = readRound{}
	rc.readsWait = append(rc.readsWait, round)
	if len(rc.newReads) > 0 {
		c.mark(r)
	}
}

// finishReads lets readers go whose index is applied.
func (c *core) finishReads(r *replica) {
	rc := &r.core
	applied := r.machine.applied.Load()
	for len(rc.readsWait) > 0 && rc.readsWait[0].index <= applied {
		for _, ch := range rc.readsWait[0].readers {
			ch <- nil
		}
		rc.readsWait[0] = readRound{}
		rc.readsWait = rc.readsWait[1:]
	}
}

// compact cuts the log when it has grown to twice what is kept. It waits for
// snapshots that are being sent: who receives one needs what follows it.
func (c *core) compact(r *replica) {
	rc := &r.core
	s := rc.store
	count := s.last - s.truncIndex
	if rc.snapsSending > 0 || count < 2*c.h.cfg.logKeep && s.bytes < 2*logKeepBytes {
		return
	}
	keep := min(c.h.cfg.logKeep, logKeepBytes/max(1, s.bytes/count))
	if s.applied < s.truncIndex+keep {
		return
	}
	index := s.applied - keep
	term, err := s.Term(index)
	if err != nil {
		panic(err)
	}
	if index > s.truncIndex {
		s.truncated(index, term)
		c.logs = append(c.logs, logTask{r: r, truncIndex: index, truncTerm: term})
	}
}

// startRaft makes the raft node of a born replica.
func (c *core) startRaft(r *replica) error {
	store := r.core.store
	node, err := raft.NewRawNode(&raft.Config{
		ID: uint64(r.id), ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks,
		Storage: store, Applied: store.applied, AsyncStorageWrites: true,
		MaxSizePerMsg: appendBytesMax, MaxCommittedSizePerReady: applyBytesMax,
		MaxUncommittedEntriesSize: uncommittedBytesMax, MaxInflightMsgs: inflightMax,
		MaxInflightBytes: inflightBytesMax, CheckQuorum: true, PreVote: true,
		ReadOnlyOption: raft.ReadOnlySafe, DisableProposalForwarding: true,
		StepDownOnRemoval: true, Logger: raftLog{r.log},
	})
	if err != nil {
		return errors.Join(errors.New("raft does not start"), err)
	}
	r.core.node = node
	return nil
}
