package replica

import (
	"context"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3/raftpb"

	"ashlar"
)

// logTask is one replica's wish to the log writer. Tasks of a replica are
// done in order.
type logTask struct {
	r *replica
	// entries and hard, if any, become durable before responses are delivered.
	entries   []*raftpb.Entry
	hard      *raftpb.HardState
	responses []*raftpb.Message
	// install is a received snapshot that replaces log and state.
	install *staged
	// truncIndex, if not zero, says that the log up to it is not needed.
	truncIndex, truncTerm uint64
	// marks note on disk how far peers are; hasty ones need not be durable at once.
	marks []markOf
	hasty bool
	// lost notes on disk that the replica is behind itself; erase removes it.
	lost, erase bool
	// discard, if not zero, is a generation of rows that nobody will use.
	discard uint32
}

// writeLogs is the log writer: one goroutine, one Pebble batch and one sync
// for everything that waits. It ends with ctx.
func (h *Host) writeLogs(ctx context.Context) {
	var tasks []logTask
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.logQueue.wake:
		}
		tasks = h.logQueue.take(tasks)
		if len(tasks) == 0 {
			continue
		}
		if err := h.writeTasks(tasks); err != nil {
			h.fail(err)
			return
		}
	}
}

func (h *Host) writeTasks(tasks []logTask) error {
	batch := h.db.NewBatch()
	defer func() { batch.Close() }()
	sync := false
	done := make([]event, 0, len(tasks))
	for i := range tasks {
		t := &tasks[i]
		if t.install != nil {
			if err := commit(batch, sync); err != nil {
				return err
			}
			batch.Close()
			batch, sync = h.db.NewBatch(), false
			if err := h.install(t); err != nil {
				return err
			}
		}
		if t.erase {
			if err := commit(batch, sync); err != nil {
				return err
			}
			batch.Close()
			batch, sync = h.db.NewBatch(), false
			if err := h.erase(t.r); err != nil {
				return err
			}
			continue
		}
		durable, err := h.writeTask(batch, t)
		if err != nil {
			return err
		}
		sync = sync || durable
		done = append(done, event{kind: eventLogged, r: t.r, log: *t})
	}
	if err := commit(batch, sync); err != nil {
		return err
	}
	h.events.put(0, done...) // bounded: each comes from a task that the core gave
	return nil
}

func commit(batch *pebble.Batch, sync bool) error {
	if sync {
		return batch.Commit(pebble.Sync)
	}
	return batch.Commit(pebble.NoSync)
}

// writeTask adds the task to the batch and reports whether it must be synced.
func (h *Host) writeTask(batch *pebble.Batch, t *logTask) (durable bool, err error) {
	r := t.r
	if n := len(t.entries); n > 0 {
		durable = true
		last := t.entries[n-1].GetIndex()
		if old := r.disk.last; old > last {
			if err := batch.DeleteRange(logKey(r.id, last+1), logKey(r.id, old+1), nil); err != nil {
				return false, err
			}
		}
		for _, e := range t.entries {
			setEntry(batch, r.id, e)
			if e.GetType() != raftpb.EntryNormal {
				r.disk.change = e.GetIndex()
			}
		}
		r.disk.last = last
	}
	// A new commit index alone is not written: it is at least the applied
	// index, and raft learns the rest again. But who acknowledges an entry behind a
	// change of the configuration must not forget that the change is committed (led.go).
	news := false
	if t.hard != nil {
		news = t.hard.GetTerm() != r.disk.term || t.hard.GetVote() != r.disk.vote
		r.disk.term, r.disk.vote, r.disk.commit = t.hard.GetTerm(), t.hard.GetVote(), t.hard.GetCommit()
	}
	if news || len(t.entries) > 0 && r.disk.change != 0 && r.disk.commit >= r.disk.change {
		durable = true
		if err := putUint64s(batch, replicaKey(kindHard, r.id), r.disk.term, r.disk.vote, r.disk.commit); err != nil {
			return false, err
		}
		if r.disk.commit >= r.disk.change {
			r.disk.change = 0
		}
	}
	for _, m := range t.marks {
		durable = durable || !t.hasty
		if err := putUint64s(batch, heardKey(r.id, m.peer), m.Term, m.Index); err != nil {
			return false, err
		}
	}
	if t.lost {
		durable = true
		if err := batch.Set(replicaKey(kindLost, r.id), nil, nil); err != nil {
			return false, err
		}
	}
	if t.truncIndex != 0 {
		if err := truncateLog(batch, r.id, t.truncIndex, t.truncTerm); err != nil {
			return false, err
		}
	}
	if t.discard != 0 {
		prefix := machinePrefix(r.id, t.discard)
		if err := batch.DeleteRange(prefix, successor(prefix), nil); err != nil {
			return false, err
		}
	}
	return durable, nil
}

// truncateLog needs no sync: if it is lost, the log is just longer. It cannot
// outlive the effects of the entries, which were written before it.
func truncateLog(batch *pebble.Batch, id ashlar.ReplicaID, index, term uint64) error {
	if err := putUint64s(batch, replicaKey(kindTrunc, id), index, term); err != nil {
		return err
	}
	return batch.DeleteRange(replicaKey(kindLog, id), logKey(id, index+1), nil)
}

// install makes a received snapshot the state of the replica, in one batch:
// after a crash either the old state is there or the new one.
func (h *Host) install(t *logTask) error {
	h.applyMu.Lock()
	defer h.applyMu.Unlock()
	r, m := t.r, t.r.machine
	old := m.state.generation
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = t.install.state
	m.applying.Store(m.state.index)
	batch := h.db.NewBatch()
	defer batch.Close()
	prefix := machinePrefix(r.id, old)
	if err := batch.DeleteRange(prefix, successor(prefix), nil); err != nil {
		return err
	}
	if err := m.saveState(batch); err != nil {
		return err
	}
	logPrefix := replicaKey(kindLog, r.id)
	if err := batch.DeleteRange(logPrefix, successor(logPrefix), nil); err != nil {
		return err
	}
	if err := putUint64s(batch, replicaKey(kindTrunc, r.id), m.state.index, m.state.term); err != nil {
		return err
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return err
	}
	r.disk.last, r.disk.change = m.state.index, 0
	if err := m.loadSeen(h.db); err != nil {
		return err
	}
	m.applied.Store(m.state.index)
	return nil
}
