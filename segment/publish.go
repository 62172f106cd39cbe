package segment

import (
	"github.com/cockroachdb/pebble/v2"
)

// publish changes the index. The lock keeps the compactor out of the same keys.
// It returns the space of changes for the next time.
func (w *writer) publish(f *flight, changes []change) ([]change, error) {
	l := w.log
	b := l.index.db.NewBatch()
	defer b.Close()
	unlock := l.lockPartitions(w.id)
	defer unlock()
	for _, r := range f.batch { // one by one the processor would wait for memory each time
		r.fresh = l.seen.isNew(r.key)
	}
	for _, r := range f.batch {
		var err error
		if changes, err = l.publishOne(b, r, changes); err != nil {
			return changes, l.fence("index", err)
		}
	}
	if err := l.noteSealed(b, f.footers); err != nil {
		return changes, l.fence("index", err)
	}
	sync := pebble.NoSync
	if f.last {
		sync = pebble.Sync // a loss here would cost the next Open one scan
	}
	if err := b.Commit(sync); err != nil {
		return changes, l.fence("index", err)
	}
	l.accountAll(changes)
	l.sealed(f.footers)
	l.count(f.batch)
	return changes, nil
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
	var cur row
	ok, err := false, error(nil)
	if !r.fresh {
		if cur, ok, err = get(l.index.db, r.key); err != nil {
			return changes, err
		}
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

// noteSealed tells the index of footers that a flush has made durable.
func (l *Log) noteSealed(b *pebble.Batch, footers []footer) error {
	for i := range footers {
		n := footers[i].segment
		s, life := &l.table[n], l.life(n)
		if err := setSeg(b, n, segRow{segSealed, life.Generation, life.Salt, s.end.Load(), s.top.Load()}); err != nil {
			return err
		}
	}
	return nil
}

// sealed hands segments over to the compactor, once the index has them so.
func (l *Log) sealed(footers []footer) {
	for i := range footers {
		l.table[footers[i].segment].state.Store(uint32(segSealed))
	}
	if len(footers) > 0 {
		l.compact.wake()
	}
}

func (l *Log) count(batch []*request) {
	var compacted, deletes, appends, bytes uint64
	for _, r := range batch {
		switch {
		case r.from != nil:
			compacted += uint64(r.bytes)
		case r.rec == nil:
			deletes++
		default:
			appends++
			bytes += uint64(len(r.rec.Data))
		}
	}
	l.stats.bytesCompacted.Add(compacted)
	l.stats.deletes.Add(deletes)
	l.stats.appends.Add(appends)
	l.stats.bytesAppended.Add(bytes)
}
