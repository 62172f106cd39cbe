package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"go.etcd.io/raft/v3"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
)

// Reads from any replica. A replica learns how new its state is by asking the
// shard's leader for its commit index, which the leader gives only after it has
// heard from a quorum. Once that index is applied, the state holds all that was
// committed when the question began: its age is the time since then, by the clock
// of the host that asked. Time that a message or a paused process loses makes the
// age larger, never smaller.

const (
	// followRetryTicks is how long an answer of the leader is waited for.
	followRetryTicks = 3
	// followTicks is how often a replica asks although nobody waits, so that it
	// knows its age when it is cut off.
	followTicks = 50
)

// follow is the part of a replica's core that keeps its state's age known.
type follow struct {
	next      []followWaiter // they want a round that begins now or later
	round     followRound    // under way; seq is zero if there is none
	confirmed []followRound  // waiting for the applied index
	due       bool           // a round is wanted although nobody waits
}

// followRound is one question to the leader and who waits for its answer.
type followRound struct {
	seq, index uint64
	began      time.Duration // since the host was opened
	ticks      int
	waiting    []followWaiter
}

// followWaiter is a caller; gone is closed when it does not wait any more.
type followWaiter struct {
	ch   chan error // room for one, and answered once
	gone <-chan struct{}
}

func stillThere(all []followWaiter) []followWaiter {
	return slices.DeleteFunc(all, func(w followWaiter) bool {
		select {
		case <-w.gone:
			return true
		default:
			return false
		}
	})
}

var errNoLeader = errors.New("no leader is known")

// startFollow asks the leader, once for all that wait. A question that got no
// answer is asked again: the answer to either counts, however slow the way is. Who
// comes later waits for the next one.
func (c *core) startFollow(r *replica) {
	rc := &r.core
	f := &rc.follow
	if len(f.next) == 0 && f.round.seq == 0 && !f.due {
		return
	}
	if rc.lead == raft.None {
		c.failFollow(r, ashlar.E("meta: follow", r.String(), ashlar.Unavailable, errNoLeader))
		return
	}
	if f.round.seq != 0 && rc.ticks-f.round.ticks < followRetryTicks {
		return
	}
	if f.round.seq == 0 {
		c.seq++
		f.round = followRound{seq: c.seq, began: c.h.uptime(), waiting: f.next}
		f.next, f.due = nil, false
	}
	f.round.ticks = rc.ticks
	f.round.waiting, f.next = stillThere(f.round.waiting), stillThere(f.next)
	question := binary.LittleEndian.AppendUint64(nil, f.round.seq)
	rc.node.ReadIndex(binary.LittleEndian.AppendUint64(question, uint64(r.id)))
}

// followBytes is the length of the context of our questions, which tells them
// from those of a leader's readers.
const followBytes = 16

// confirmFollow is told what was committed when the round began.
func (c *core) confirmFollow(r *replica, rs raft.ReadState) {
	f := &r.core.follow
	if binary.LittleEndian.Uint64(rs.RequestCtx) != f.round.seq || f.round.seq == 0 {
		return
	}
	f.round.index = rs.Index
	f.confirmed = append(f.confirmed, f.round)
	f.round = followRound{}
	if len(f.next) > 0 {
		c.mark(r)
	}
}

// finishFollow publishes how new the state is, and lets those go who wait for it.
func (c *core) finishFollow(r *replica) {
	f := &r.core.follow
	applied := r.machine.applied.Load()
	for len(f.confirmed) > 0 && f.confirmed[0].index <= applied {
		round := f.confirmed[0]
		f.confirmed[0] = followRound{}
		f.confirmed = f.confirmed[1:]
		r.newestAt.Store(int64(round.began))
		for _, w := range round.waiting {
			w.ch <- nil
		}
	}
}

// failFollow tells all who wait that nothing new can be had.
func (c *core) failFollow(r *replica, err error) {
	f := &r.core.follow
	for _, round := range append(f.confirmed, f.round, followRound{waiting: f.next}) {
		for _, w := range round.waiting {
			w.ch <- err
		}
	}
	*f = follow{}
}

// uptime is the time since the host was opened; it is never zero.
func (h *Host) uptime() time.Duration { return max(1, time.Since(h.opened)) }

// age is at least the time since the replica's state was the newest of its
// shard; false if that is not known, as after a restart without a leader.
func (r *replica) age(h *Host) (time.Duration, bool) {
	at := r.newestAt.Load()
	return h.uptime() - time.Duration(at), at != 0
}

// follows waits until the replica's state is as new as at demands.
func (h *Host) follows(ctx context.Context, op string, shard ashlar.ShardID, at meta.At) (*replica, error) {
	if err := h.usable(ctx, op); err != nil {
		return nil, err
	}
	r := (*h.shards.Load())[shard]
	if r == nil || !r.born.Load() || r.failed.Load() || r.retired.Load() {
		return nil, &wire.NoReplica{Shard: shard}
	}
	if err := h.mayCall(ctx, op, r); err != nil {
		return nil, err
	}
	for {
		age, known := r.age(h)
		seen := r.machine.applied.Load() >= at.Index
		if known && seen && (at.MaxAge == 0 || age <= at.MaxAge) {
			return r, nil
		}
		ch := make(chan error, 1)
		if !h.events.put(eventsMax, event{kind: eventFollow, r: r, follow: followWaiter{ch, ctx.Done()}}) {
			return nil, ashlar.E(op, r.String(), ashlar.Busy, nil)
		}
		if err := h.wait(ctx, op, r, ch); err != nil {
			return nil, err
		}
		if r.machine.applied.Load() < at.Index {
			// All that was committed is here, and it is less: the index is of
			// another life of the shard, or was made up.
			return nil, ashlar.E(op, r.String(), ashlar.Unavailable, errors.New("the shard has not come to the index that was asked for"))
		}
	}
}

// seen is what an answer shows that was read when the state was as new as
// newestAt: it may have become newer since.
func (h *Host) seen(r *replica, newestAt int64) meta.Seen {
	return meta.Seen{Index: r.machine.applying.Load(), Age: h.uptime() - time.Duration(newestAt)}
}

// GetAt implements wire.Shards.
func (h *Host) GetAt(ctx context.Context, shard ashlar.ShardID, key []byte, at meta.At) (meta.Row, meta.Seen, error) {
	const op = "meta: get"
	if err := meta.CheckKey(op, key); err != nil {
		return meta.Row{}, meta.Seen{}, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	r, err := h.follows(ctx, op, shard, at)
	if err != nil {
		return meta.Row{}, meta.Seen{}, err
	}
	newestAt := r.newestAt.Load()
	row, err := h.row(op, r, key)
	return row, h.seen(r, newestAt), err
}

// ScanAt implements wire.Shards.
func (h *Host) ScanAt(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest, at meta.At) (meta.ScanPage, meta.Seen, error) {
	const op = "meta: scan"
	if err := req.Check(); err != nil {
		return meta.ScanPage{}, meta.Seen{}, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	r, err := h.follows(ctx, op, shard, at)
	if err != nil {
		return meta.ScanPage{}, meta.Seen{}, err
	}
	newestAt := r.newestAt.Load()
	page, err := h.rows(ctx, op, r, &req)
	return page, h.seen(r, newestAt), err
}
