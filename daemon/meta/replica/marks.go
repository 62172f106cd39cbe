package replica

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3/raftpb"

	"ashlar"
	"ashlar/daemon/wire"
)

// What a replica remembers of the others, so that one whose disk was lost or set
// back in time cannot take part as if nothing had happened; "First start" and
// "Coming back" in the package comment say how it is used.

// markTicks is how often what was heard of peers is saved, if it has changed.
const markTicks = 50

// peersSeen is what a replica knows of the lives of the others.
type peersSeen struct {
	// marks are the positions that are noted on disk, marking those on their way
	// there: an entry, even of zero, says that the peer is known to have taken part.
	marks, marking map[ashlar.ReplicaID]wire.Position
	// seen is the last position that a peer vouched for; at least marks.
	seen map[ashlar.ReplicaID]wire.Position
	// held keeps messages of a peer until what they say of it is noted.
	held map[ashlar.ReplicaID][]wire.RaftMessage
	// bornPeers have told us that they are born.
	bornPeers map[ashlar.ReplicaID]bool
	// vouched is our own position, as our messages carry it.
	vouched wire.Position
}

func newPeersSeen() peersSeen {
	return peersSeen{
		marks: map[ashlar.ReplicaID]wire.Position{}, marking: map[ashlar.ReplicaID]wire.Position{},
		seen: map[ashlar.ReplicaID]wire.Position{}, held: map[ashlar.ReplicaID][]wire.RaftMessage{},
		bornPeers: map[ashlar.ReplicaID]bool{},
	}
}

// markOf is a position to be noted.
type markOf struct {
	peer ashlar.ReplicaID
	wire.Position
}

// knows reports whether the peer is known, or just becoming known, to have
// taken part.
func (p *peersSeen) knows(peer ashlar.ReplicaID) bool {
	_, noted := p.marks[peer]
	_, noting := p.marking[peer]
	return noted || noting
}

// hear handles raft's message of another replica. Its first word is noted on
// disk before it counts; a new term of its life is noted at once, but nobody
// waits for it: elections must not wait for another sync.
func (c *core) hear(r *replica, m *wire.RaftMessage) {
	p := &r.core.peersSeen
	_, known := p.marks[m.From]
	if p.seen[m.From].Before(m.Durable) {
		p.seen[m.From] = m.Durable
	}
	noting, under := p.marking[m.From]
	if !known && !under || max(noting.Term, p.marks[m.From].Term) < m.Durable.Term {
		c.logs = append(c.logs, logTask{r: r, marks: []markOf{p.note(m.From)}})
	}
	if known {
		c.step(r, m.Raft)
	} else if len(p.held[m.From]) < heldMax {
		p.held[m.From] = append(p.held[m.From], *m)
	}
}

// note takes what was seen of a peer as what is to be noted.
func (p *peersSeen) note(peer ashlar.ReplicaID) markOf {
	p.marking[peer] = p.seen[peer]
	return markOf{peer, p.seen[peer]}
}

// marked is told that positions are noted on disk.
func (c *core) marked(r *replica, marks []markOf) {
	p := &r.core.peersSeen
	for _, m := range marks {
		p.marks[m.peer] = m.Position
		if p.marking[m.peer] == m.Position {
			delete(p.marking, m.peer)
		}
		held := p.held[m.peer]
		delete(p.held, m.peer)
		for i := range held {
			c.hear(r, &held[i])
		}
	}
}

// saveMarks notes how far the peers have come since the last time. A power cut
// may take it: it only makes the marks sharper.
func (c *core) saveMarks(r *replica) {
	p := &r.core.peersSeen
	t := logTask{r: r, hasty: true}
	for peer, noted := range p.marks {
		if _, noting := p.marking[peer]; !noting && noted.Before(p.seen[peer]) {
			t.marks = append(t.marks, p.note(peer))
		}
	}
	if len(t.marks) > 0 {
		c.logs = append(c.logs, t)
	}
}

// introduce notes everybody that a configuration names, with the entry or
// snapshot that brings it: whoever is part of one was born.
func (p *peersSeen) introduce(self ashlar.ReplicaID, conf *raftpb.ConfState, more ...uint64) (marks []markOf) {
	for _, list := range [][]uint64{conf.GetVoters(), conf.GetLearners(), conf.GetVotersOutgoing(), more} {
		for _, id := range list {
			if peer := ashlar.ReplicaID(id); peer != self && !p.knows(peer) {
				marks = append(marks, p.note(peer))
			}
		}
	}
	return marks
}

// introduceAll notes everybody in the present configuration and in the change
// that the entry brings.
func (c *replicaCore) introduceAll(self ashlar.ReplicaID, e *raftpb.Entry) []markOf {
	change, err := decodeConfChange(e)
	if err != nil {
		panic(err)
	}
	var added []uint64
	for _, one := range change.AsV2().GetChanges() {
		added = append(added, one.GetNodeId())
	}
	return c.introduce(self, c.store.conf, added...)
}

// vouch takes over what a message says that waited for the disk: an
// acknowledgement names a log index, a vote a term.
func (p *peersSeen) vouch(m *raftpb.Message) {
	at := wire.Position{Term: m.GetTerm()}
	switch m.GetType() {
	case raftpb.MsgAppResp:
		if !m.GetReject() {
			at.Index = m.GetIndex()
		}
	case raftpb.MsgVoteResp:
	default:
		return
	}
	if p.vouched.Before(at) {
		p.vouched = at
	}
}

// loadMarks reads what is noted of peers.
func (h *Host) loadMarks(r *replica) error {
	p := &r.core.peersSeen
	prefix := replicaKey(kindHeard, r.id)
	it, err := h.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: successor(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		peer := ashlar.ReplicaID(binary.BigEndian.Uint64(it.Key()[prefixBytes:]))
		at := wire.Position{}
		if v := it.Value(); len(v) == 16 { // else of a time when only the first word was noted
			at = wire.Position{Term: binary.LittleEndian.Uint64(v), Index: binary.LittleEndian.Uint64(v[8:])}
		}
		p.marks[peer], p.seen[peer] = at, at
	}
	return it.Error()
}
