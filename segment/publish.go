package segment

import (
	"github.com/cockroachdb/pebble/v2"
)

// publish changes the index. The lock keeps the compactor out of the same keys.
func (w *writer) publish(batch []*request) error {
	l := w.log
	b := l.index.db.NewBatch()
	defer b.Close()
	unlock := l.lockPartitions(w.id)
	defer unlock()
	changes := make([]change, 0, 2*len(batch))
	for _, r := range batch {
		var err error
		if changes, err = l.publishOne(b, r, changes); err != nil {
			return l.fence("index", err)
		}
	}
	if err := w.noteSealed(b); err != nil {
		return l.fence("index", err)
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return l.fence("index", err)
	}
	for i := range changes {
		l.account(&changes[i].row, changes[i].sign)
	}
	l.count(batch)
	return nil
}

// lockPartitions locks the writer's own keys, or all of them for the compactor.
func (l *Log) lockPartitions(id int) (unlock func()) {
	if id < len(l.partitions) {
		l.partitions[id].mu.Lock()
		return l.partitions[id].mu.Unlock
	}
	for i := range l.partitions {
		l.partitions[i].mu.Lock()
	}
	return func() {
		for i := range l.partitions {
			l.partitions[i].mu.Unlock()
		}
	}
}

type change struct {
	row  row
	sign int64
}

func (l *Log) publishOne(b *pebble.Batch, r *request, changes []change) ([]change, error) {
	cur, ok, err := get(l.index.db, r.key)
	if err != nil {
		return changes, err
	}
	if r.from != nil && (!ok || !cur.same(r.from)) {
		// The record was replaced or deleted while it was copied.
		return changes, setOld(b, &r.at)
	}
	if ok {
		if err := setOld(b, &cur); err != nil {
			return changes, err
		}
		changes = append(changes, change{cur, -1})
	}
	return append(changes, change{r.at, 1}), set(b, &r.at)
}

// noteSealed tells the index of footers that the last flush made durable.
func (w *writer) noteSealed(b *pebble.Batch) error {
	l := w.log
	for _, i := range w.sealed {
		s := &l.table[i]
		life := l.life(i)
		err := setSeg(b, i, segRow{segSealed, life.Generation, life.Salt, s.end.Load(), s.top.Load()})
		if err != nil {
			return err
		}
		s.state.Store(uint32(segSealed))
	}
	if len(w.sealed) > 0 {
		w.sealed = w.sealed[:0]
		l.compact.wake()
	}
	return nil
}

func (l *Log) count(batch []*request) {
	for _, r := range batch {
		switch {
		case r.from != nil:
			l.stats.bytesCompacted.Add(uint64(r.bytes))
		case r.rec == nil:
			l.stats.deletes.Add(1)
		default:
			l.stats.appends.Add(1)
			l.stats.bytesAppended.Add(uint64(len(r.rec.Data)))
		}
	}
}
