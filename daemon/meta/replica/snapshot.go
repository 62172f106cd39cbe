package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"ashlar"
	"ashlar/daemon/wire"
)

const (
	// snapshotSendsMax bounds the snapshots that a host sends at a time.
	snapshotSendsMax = 2
	// snapshotChunkBytes is about the size of a chunk; one row may be larger.
	snapshotChunkBytes = 1 * ashlar.MiB
	// snapshotChunkTimeout bounds the sending of one chunk, snapshotTimeout of all.
	snapshotChunkTimeout = 20 * time.Second
	snapshotTimeout      = 30 * time.Minute
)

// staged is a snapshot whose rows are on disk under a generation of their own,
// waiting for raft's word.
type staged struct{ state appliedState }

// receiver collects the chunks of one snapshot.
type receiver struct {
	sync.Mutex
	id         uint64
	nextSeq    uint32
	generation uint32 // where the rows go; the highest that was ever used
	open       bool
}

// startSnapshot sends the state to a replica that needs what the log has no
// more. Raft is told how it ended; a refusal makes it try again later.
func (c *core) startSnapshot(r *replica, m *raftpb.Message) {
	to := m.GetTo()
	host := r.core.peers[ashlar.ReplicaID(to)]
	select {
	case c.h.snapshotSends <- struct{}{}:
	default:
		host = 0
	}
	if host == 0 {
		// Not from within the handling of this very message.
		c.h.events.put(0, event{kind: eventCall, call: func(c *core) { c.snapshotEnded(r, to, errors.New("busy")) }})
		return
	}
	r.core.snapsSending++
	c.h.done.Go(func() {
		err := c.h.sendSnapshot(r, host, m)
		<-c.h.snapshotSends
		if err != nil {
			r.log.Warn("a snapshot did not arrive", "code", "meta-snapshot-failed", "to", host, "err", err)
		}
		c.h.events.put(0, event{kind: eventCall, call: func(c *core) {
			r.core.snapsSending--
			c.snapshotEnded(r, to, err)
		}})
	})
}

func (c *core) snapshotEnded(r *replica, to uint64, err error) {
	if r.core.node == nil {
		return
	}
	status := raft.SnapshotFinish
	if err != nil {
		status = raft.SnapshotFailure
	}
	c.guard(r, func() { r.core.node.ReportSnapshot(to, status) })
	c.mark(r)
}

// sendSnapshot reads the state at one moment, which may be later than the one
// that raft named, and sends it in chunks. It ends with the host or its deadline.
func (h *Host) sendSnapshot(r *replica, host ashlar.HostID, m *raftpb.Message) error {
	ctx, cancel := context.WithTimeout(h.ctx, snapshotTimeout)
	defer cancel()
	snap := h.db.NewSnapshot()
	defer snap.Close()
	raw, closer, err := snap.Get(replicaKey(kindApplied, r.id))
	if err != nil {
		return err
	}
	state, err := decodeAppliedState(raw)
	closer.Close()
	if err != nil {
		return err
	}
	prefix := machinePrefix(r.id, state.generation)
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: successor(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	chunk := &wire.SnapshotChunk{Shard: r.shard, From: r.id, To: ashlar.ReplicaID(m.GetTo()), ID: rand.Uint64()}
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		chunk.Rows = appendBytes(appendBytes(chunk.Rows, it.Key()[machineBytes:]), value)
		if len(chunk.Rows) < snapshotChunkBytes {
			continue
		}
		if err := h.sendChunk(ctx, host, chunk); err != nil {
			return err
		}
		chunk.Seq++
		chunk.Rows = nil
	}
	if err := it.Error(); err != nil {
		return err
	}
	if chunk.Last, err = lastMessage(m, &state); err != nil {
		return err
	}
	return h.sendChunk(ctx, host, chunk)
}

// lastMessage is raft's message, made to fit the state that was really sent.
func lastMessage(m *raftpb.Message, state *appliedState) (*raftpb.Message, error) {
	data, err := state.encode()
	if err != nil {
		return nil, err
	}
	last := proto.Clone(m).(*raftpb.Message)
	last.Snapshot = &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{
		ConfState: state.conf, Index: new(state.index), Term: new(state.term),
	}}
	return last, nil
}

func (h *Host) sendChunk(ctx context.Context, host ashlar.HostID, chunk *wire.SnapshotChunk) error {
	ctx, cancel := context.WithTimeout(ctx, snapshotChunkTimeout)
	defer cancel()
	return h.cfg.Transport.SendSnapshot(ctx, host, chunk)
}

// InstallSnapshot implements wire.Shards: it puts the rows aside on disk and,
// with the last chunk, hands the snapshot to raft.
func (h *Host) InstallSnapshot(ctx context.Context, chunk *wire.SnapshotChunk) error {
	const op = "meta: install snapshot"
	if err := h.usable(ctx, op); err != nil {
		return err
	}
	if err := h.pin(op); err != nil {
		return err
	}
	defer h.readers.RUnlock()
	r := (*h.byID.Load())[chunk.To]
	if r == nil || r.shard != chunk.Shard || !r.born.Load() {
		return &wire.NoReplica{Shard: chunk.Shard}
	}
	r.recv.Lock()
	defer r.recv.Unlock()
	if r.retired.Load() {
		return &wire.NoReplica{Shard: chunk.Shard}
	}
	if err := h.stage(r, chunk); err != nil {
		r.recv.open = false
		return ashlar.E(op, r.String(), ashlar.KindOf(err), err)
	}
	if chunk.Last == nil {
		return nil
	}
	r.recv.open = false
	state, err := decodeAppliedState(chunk.Last.GetSnapshot().GetData())
	if err != nil || state.index != chunk.Last.GetSnapshot().GetMetadata().GetIndex() {
		return ashlar.E(op, r.String(), ashlar.Invalid, errors.New("the snapshot's state does not decode"))
	}
	state.generation = r.recv.generation
	last := proto.Clone(chunk.Last).(*raftpb.Message)
	last.Snapshot.Data = nil // it is in state; raft need not carry it
	h.events.put(0, event{kind: eventCall, call: func(c *core) {
		c.guard(r, func() { c.takeSnapshot(r, &staged{state: state}, last) })
	}})
	return nil
}

func (c *core) takeSnapshot(r *replica, s *staged, m *raftpb.Message) {
	if r.core.node == nil || m.GetFrom() == 0 {
		return
	}
	// What raft was told before must be handled first: it may hold an older one.
	c.advance(r)
	r.core.staged = s
	c.step(r, m)
	c.advance(r)
}

// stage writes the chunk's rows under the generation of the transfer.
func (h *Host) stage(r *replica, chunk *wire.SnapshotChunk) error {
	rv := &r.recv
	batch := h.db.NewBatch()
	defer batch.Close()
	switch {
	case chunk.Seq == 0:
		h.applyMu.Lock()
		current := r.machine.state.generation
		h.applyMu.Unlock()
		if rv.open {
			// The transfer before was given up.
			prefix := machinePrefix(r.id, rv.generation)
			if err := batch.DeleteRange(prefix, successor(prefix), nil); err != nil {
				return err
			}
		}
		rv.id, rv.nextSeq, rv.open = chunk.ID, 0, true
		rv.generation = max(rv.generation, current) + 1
	case !rv.open || rv.id != chunk.ID || rv.nextSeq != chunk.Seq:
		return ashlar.E("meta", "", ashlar.Stale, fmt.Errorf("chunk %d of transfer %x is out of order", chunk.Seq, chunk.ID))
	}
	rv.nextSeq++
	d := decoder{rest: chunk.Rows}
	for len(d.rest) > 0 {
		key, value := d.bytes(), d.bytes()
		if d.bad {
			return ashlar.E("meta", "", ashlar.Invalid, errors.New("a chunk that does not decode"))
		}
		full := append(machinePrefix(r.id, rv.generation), key...)
		if err := batch.Set(full, value, nil); err != nil {
			return err
		}
	}
	return batch.Commit(pebble.NoSync)
}

// decodeConfChange reads a configuration change from its log entry.
func decodeConfChange(e *raftpb.Entry) (raftpb.ConfChangeI, error) {
	switch e.GetType() {
	case raftpb.EntryConfChange:
		cc := new(raftpb.ConfChange)
		return cc, proto.Unmarshal(e.GetData(), cc)
	case raftpb.EntryConfChangeV2:
		cc := new(raftpb.ConfChangeV2)
		return cc, proto.Unmarshal(e.GetData(), cc)
	default:
		return nil, fmt.Errorf("log entry %d of unknown type %d", e.GetIndex(), e.GetType())
	}
}
