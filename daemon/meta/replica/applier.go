package replica

import (
	"context"

	"go.etcd.io/raft/v3/raftpb"

	"ashlar"
)

// applyBatchBytesMax is the size at which the applier commits a batch although
// more is waiting.
const applyBatchBytesMax = 4 * ashlar.MiB

// applyTask is a run of committed entries of one replica, in order.
type applyTask struct {
	r         *replica
	entries   []*raftpb.Entry
	responses []*raftpb.Message
	// conf is the configuration after entry confIndex, if that is not zero.
	conf      *raftpb.ConfState
	confIndex uint64
	confMoved ashlar.Epoch
	// retire says that this is the replica's last task.
	retire bool
}

// answered is a waiter with its answer, told once the effects are in Pebble.
type answered struct {
	r   *replica
	id  ashlar.RequestID
	out outcome
}

// applyLogs is the applier: one goroutine that applies what is committed. The
// batches are not synced: what a crash takes is applied again from the log,
// starting behind the applied index that each batch carries. It ends with ctx.
func (h *Host) applyLogs(ctx context.Context) {
	var tasks []applyTask
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.applyQueue.wake:
		}
		tasks = h.applyQueue.take(tasks)
		if len(tasks) == 0 {
			continue
		}
		if err := h.applyTasks(tasks); err != nil {
			h.fail(err)
			return
		}
	}
}

func (h *Host) applyTasks(tasks []applyTask) error {
	h.applyMu.Lock()
	defer h.applyMu.Unlock()
	for len(tasks) > 0 {
		n, err := h.applySome(tasks)
		if err != nil {
			return err
		}
		tasks = tasks[n:]
	}
	return nil
}

// applySome applies tasks in one batch and returns how many.
func (h *Host) applySome(tasks []applyTask) (n int, err error) {
	b := newApplyBatch(h.db)
	defer b.batch.Close()
	var told []answered
	done := make([]event, 0, len(tasks))
	for n < len(tasks) && b.batch.Len() < applyBatchBytesMax {
		t := &tasks[n]
		n++
		if t.retire {
			done = append(done, event{kind: eventApplied, r: t.r, apply: *t})
			continue
		}
		if told, err = t.r.apply(b, t, told); err != nil {
			return n, err
		}
		if err = t.r.machine.saveState(b.batch); err != nil {
			return n, err
		}
		done = append(done, event{kind: eventApplied, r: t.r, apply: *t})
	}
	for _, t := range tasks[:n] {
		if t.retire { // it may have no machine, never having been born
			continue
		}
		t.r.machine.applying.Store(t.r.machine.state.index)
	}
	if err := b.commit(); err != nil {
		return n, err
	}
	for _, t := range tasks[:n] {
		if t.retire {
			continue
		}
		t.r.machine.applied.Store(t.r.machine.state.index)
	}
	for _, a := range told {
		a.r.answer(a.id, a.out.err())
	}
	h.events.put(0, done...) // bounded: each comes from a task that the core gave
	return n, nil
}

func (r *replica) apply(b *applyBatch, t *applyTask, told []answered) ([]answered, error) {
	for _, e := range t.entries {
		if e.GetIndex() == t.confIndex && r.machine.state.index < t.confIndex {
			r.machine.state.conf, r.machine.state.confMoved = t.conf, t.confMoved
		}
		id, out, ok, err := r.machine.applyEntry(b, e, r.awaited)
		if err != nil {
			return told, ashlar.E("meta: apply", r.String(), ashlar.Internal, err)
		}
		if ok && r.awaited(id) {
			told = append(told, answered{r: r, id: id, out: out})
		}
	}
	return told, nil
}
