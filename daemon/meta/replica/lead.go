package replica

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"ashlar"
	"ashlar/daemon/wire"
)

const (
	// campaignTicks is how often the preferred replica offers itself while
	// nobody leads. Pre-vote makes it harmless.
	campaignTicks = 3
	// preferTicks is how long another leader is left in peace. It is no multiple
	// of electionTicks: there raft has just forgotten who is active.
	preferTicks = 27
	// reconfTicks is how often a leader compares its voters with the map.
	reconfTicks = 10
	// handOverMax bounds handing over on a clean stop, handOverPoll its polling.
	handOverMax  = 3 * time.Second
	handOverPoll = 10 * time.Millisecond
)

func (c *core) tick(r *replica) {
	rc := &r.core
	rc.ticks++
	if rc.node == nil {
		if !r.failed.Load() {
			c.awaitBirth(r)
		}
		return
	}
	rc.node.Tick()
	c.mark(r)
	rc.follow.due = rc.follow.due || (uint64(rc.ticks)+uint64(r.id))%followTicks == 0
	preferred := len(rc.voters) > 0 && rc.voters[0].ID == r.id
	switch {
	case rc.lead == 0:
		rc.lonely++
		if preferred && rc.lonely%campaignTicks == 1 {
			// Fails only if we cannot be elected now; the next tick comes.
			_ = rc.node.Campaign()
		}
	case r.leading.Load():
		rc.leadTicks++
		if !preferred && rc.leadTicks%preferTicks == 0 {
			c.prefer(r)
		}
		if rc.leadTicks%reconfTicks == 0 {
			c.reconfigure(r)
		}
	}
	if rc.ticks%markTicks == 0 {
		c.saveMarks(r)
		c.h.pins.drop(func(_ pinKey, p *pin) bool { return time.Since(p.used) > pinIdleMax })
	}
}

// prefer gives leadership to the first replica of the map's list, if it keeps
// up: so leaders are spread as the map intends.
func (c *core) prefer(r *replica) {
	if len(r.core.voters) == 0 {
		return
	}
	first := uint64(r.core.voters[0].ID)
	last, _ := r.core.store.LastIndex()
	r.core.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == first && !pr.IsLearner && pr.RecentActive && pr.State == tracker.StateReplicate && pr.Match+inflightMax >= last {
			defer r.core.node.TransferLeader(first)
		}
	})
}

// handOver transfers the leadership of every shard that has somebody else.
func (h *Host) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, handOverMax)
	defer cancel()
	for {
		left := make(chan int, 1)
		h.events.put(0, event{kind: eventCall, call: func(c *core) { left <- c.handOverAll() }})
		select {
		case n := <-left:
			if n == 0 {
				return
			}
		case <-ctx.Done():
			return
		case <-h.ctx.Done():
			return
		}
		select {
		case <-time.After(handOverPoll):
		case <-ctx.Done():
			return
		}
	}
}

// handOverAll starts transfers and returns how many shards we still lead
// although another replica could, or nobody leads yet.
func (c *core) handOverAll() (left int) {
	for _, r := range c.replicas {
		if r.core.node == nil {
			continue
		}
		if !r.leading.Load() {
			if r.core.handedOver && r.core.lead == 0 {
				left++ // until the others have agreed on another one
			}
			continue
		}
		var best, match uint64
		r.core.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
			if id != uint64(r.id) && !pr.IsLearner && pr.RecentActive && pr.Match >= match {
				best, match = id, pr.Match
			}
		})
		if best == 0 {
			continue
		}
		left++
		c.guard(r, func() {
			if r.core.node.BasicStatus().LeadTransferee == raft.None {
				r.core.node.TransferLeader(best)
			}
		})
		r.core.handedOver = true
		c.mark(r)
	}
	return left
}

// raftLog passes raft's warnings on; its news is ours to tell.
type raftLog struct{ log *slog.Logger }

func (raftLog) Debug(...any)          {}
func (raftLog) Debugf(string, ...any) {}
func (raftLog) Info(...any)           {}
func (raftLog) Infof(string, ...any)  {}

func (l raftLog) Warning(v ...any)                 { l.log.Warn("raft: " + fmt.Sprint(v...)) }
func (l raftLog) Warningf(format string, v ...any) { l.log.Warn("raft: " + fmt.Sprintf(format, v...)) }
func (l raftLog) Error(v ...any)                   { l.log.Error("raft: " + fmt.Sprint(v...)) }
func (l raftLog) Errorf(format string, v ...any)   { l.log.Error("raft: " + fmt.Sprintf(format, v...)) }
func (l raftLog) Fatal(v ...any)                   { panic(fmt.Sprint(v...)) }
func (l raftLog) Fatalf(format string, v ...any)   { panic(fmt.Sprintf(format, v...)) }
func (l raftLog) Panic(v ...any)                   { panic(fmt.Sprint(v...)) }
func (l raftLog) Panicf(format string, v ...any)   { panic(fmt.Sprintf(format, v...)) }

var _ raft.Logger = raftLog{}

// reconfigure makes one step from the voters that raft has to those that the
// map wants: add missing ones as learners, then, when they have caught up, swap
// them in and the superfluous ones out at once (joint consensus).
func (c *core) reconfigure(r *replica) {
	rc := &r.core
	if len(rc.voters) == 0 || rc.moved < rc.confMoved {
		return // the map is older than the list that is in force
	}
	want := map[uint64]bool{}
	for _, v := range rc.voters {
		want[uint64(v.ID)] = true
	}
	have := map[uint64]bool{}
	var change raftpb.ConfChangeV2
	add := func(t raftpb.ConfChangeType, id uint64) {
		change.Changes = append(change.Changes, &raftpb.ConfChangeSingle{Type: t.Enum(), NodeId: new(id)})
	}
	caughtUp := true
	last, _ := rc.store.LastIndex()
	rc.node.WithProgress(func(id uint64, typ raft.ProgressType, pr tracker.Progress) {
		have[id] = true
		if typ == raft.ProgressTypeLearner && want[id] {
			if pr.State != tracker.StateReplicate || pr.Match+inflightMax < last {
				caughtUp = false
			}
			add(raftpb.ConfChangeAddNode, id)
		}
	})
	for id := range have {
		if !want[id] {
			add(raftpb.ConfChangeRemoveNode, id)
		}
	}
	for id := range want {
		if !have[id] {
			change.Changes, caughtUp = nil, c.announced(r, ashlar.ReplicaID(id)) // one step at a time: learners first
			add(raftpb.ConfChangeAddLearnerNode, id)
			break
		}
	}
	if len(change.Changes) == 0 || !caughtUp {
		return
	}
	if !want[uint64(r.id)] && c.leaveLead(r, want) {
		return
	}
	change.Context = binary.LittleEndian.AppendUint64(nil, uint64(rc.moved))
	// Refused while an earlier change is not applied yet; the next round comes.
	if err := rc.node.ProposeConfChange(&change); err == nil {
		r.log.Info("changing the replicas of a shard", "code", "meta-reconfigure", "changes", len(change.Changes))
		c.mark(r)
	}
}

// announced reports whether a new replica has said that it is born. Only then
// may it become a learner: from that moment on its id is known to have taken
// part, and it is never born a second time.
func (c *core) announced(r *replica, id ashlar.ReplicaID) bool {
	if r.core.bornPeers[id] {
		return true
	}
	if host := r.core.peers[id]; host != 0 {
		c.post(host, wire.RaftMessage{Shard: r.shard, From: r.id, To: id, Birth: &wire.Birth{}})
	}
	return false
}

// leaveLead hands the leadership to a voter that stays, before we are swapped
// out. It reports whether there is one that keeps up.
func (c *core) leaveLead(r *replica, want map[uint64]bool) bool {
	last, _ := r.core.store.LastIndex()
	var to uint64
	r.core.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if want[id] && !pr.IsLearner && pr.RecentActive && pr.State == tracker.StateReplicate && pr.Match+inflightMax >= last {
			to = id
		}
	})
	if to != 0 && r.core.node.BasicStatus().LeadTransferee == raft.None {
		r.log.Info("leadership moves before the replica does", "code", "meta-hand-over", "to", to)
		r.core.node.TransferLeader(to)
	}
	return to != 0
}

// applyConf tells raft about a committed change of the configuration, and
// returns which list of the map it followed, 0 if it says nothing of that.
func (c *core) applyConf(r *replica, e *raftpb.Entry) (*raftpb.ConfState, ashlar.Epoch) {
	change, err := decodeConfChange(e)
	if err != nil {
		panic(err)
	}
	var moved ashlar.Epoch
	if b := change.AsV2().GetContext(); len(b) == 8 {
		moved = ashlar.Epoch(binary.LittleEndian.Uint64(b))
	}
	return r.core.node.ApplyConfChange(change), moved
}
