package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/store/row"
)

// Sending events to targets. Each target has a sender in every Store that knows it;
// on each shard the one with the lease sends. Events of one key go one after the
// other in the order in which they happened; a row is deleted when the target has
// acknowledged it.

const (
	// queuePoll is how often a sender looks for what other Stores queued.
	queuePoll = 2 * time.Second
	// queueRows is how many events are taken at once, queueKeyRows up to how many of
	// one key are put in order, queueAtOnce of how many keys are under way together.
	queueRows    = 256
	queueKeyRows = 10_000
	queueAtOnce  = 16
	// queueLease is for how long a shard's queue is a sender's, queueTurn how long it
	// works on what it took: well within the lease, so that nobody sends beside it.
	queueLease = 30 * time.Second
	queueTurn  = 12 * time.Second
	// queueOthers is for how long a sender leaves a shard to another one.
	queueOthers = 5 * time.Second
	// queueRestMin and queueRestMax bound the pause after events could not be sent;
	// it doubles from time to time.
	queueRestMin, queueRestMax = time.Second, time.Minute
	// queueKeep is how long an event that cannot be sent is kept.
	queueKeep = 7 * 24 * time.Hour
	// queueSweep is how often the queues of targets that nobody sends to any more are
	// looked at.
	queueSweep = time.Hour
)

// Deliver sends an event to a target. nil says that the target has it for good.
type Deliver func(ctx context.Context, e *notify.Event) error

// QueueStats say how the events of a target are doing.
type QueueStats struct {
	// Sent by this Store, and Failed attempts of it.
	Sent, Failed int64
	// Pending are all that wait, Lost all that were not kept, in the whole cluster, as
	// of the last look.
	Pending, Lost int64
	// Behind is how old the event was that this Store sent last.
	Behind time.Duration
}

// QueueStats returns those of a target. It may be called at any time.
func (s *Store) QueueStats(target string) QueueStats {
	s.queues.mu.Lock()
	defer s.queues.mu.Unlock()
	var st QueueStats
	if s.queues.stats[target] != nil {
		st = *s.queues.stats[target]
	}
	for _, n := range s.queues.counts[target] {
		st.Pending, st.Lost = st.Pending+n.events, st.Lost+n.lost
	}
	return st
}

// RunQueues sends the events of the targets until ctx ends. Any number of Stores may
// run it.
func (s *Store) RunQueues(ctx context.Context, targets map[string]Deliver) {
	var senders sync.WaitGroup
	defer senders.Wait()
	for target, deliver := range targets {
		q := s.sender(target, deliver)
		senders.Go(func() { q.run(ctx) })
	}
	ticker := time.NewTicker(queueSweep)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := s.sweepQueues(ctx, targets); err != nil && ctx.Err() == nil {
			s.log.Warn("store: events of targets that are gone stay until they are looked at again", "err", err)
		}
	}
}

// sender sends the queue of one target.
type sender struct {
	s       *Store
	target  string
	deliver Deliver
	wake    chan struct{}
	// others are the shards that somebody else sends, and until when that is believed.
	mu     sync.Mutex
	others map[ashlar.ShardID]time.Time // guarded by mu
	failed int64                        // guarded by mu: in this round
	sent   int64                        // guarded by mu: in this round
}

func (s *Store) sender(target string, deliver Deliver) *sender {
	q := &sender{s: s, target: target, deliver: deliver, wake: make(chan struct{}, 1), others: map[ashlar.ShardID]time.Time{}}
	s.queues.mu.Lock()
	defer s.queues.mu.Unlock()
	if s.queues.awake == nil {
		s.queues.awake, s.queues.filled = map[string]chan struct{}{}, map[string]map[ashlar.ShardID]bool{}
		s.queues.stats, s.queues.counts = map[string]*QueueStats{}, map[string]map[ashlar.ShardID]queueCounts{}
	}
	s.queues.awake[target], s.queues.filled[target] = q.wake, map[ashlar.ShardID]bool{}
	s.queues.stats[target], s.queues.counts[target] = &QueueStats{}, map[ashlar.ShardID]queueCounts{}
	return q
}

// run sends at once what this Store queues, and every queuePoll what others do.
func (q *sender) run(ctx context.Context) {
	rest := time.Duration(0)
	poll := time.NewTimer(queuePoll)
	defer poll.Stop()
	for {
		var shards []ashlar.ShardID
		if rest == 0 {
			select {
			case <-ctx.Done():
				return
			case <-poll.C:
				shards = q.allShards()
				poll.Reset(queuePoll)
			case <-q.wake:
				shards = q.filledShards()
			}
		} else {
			timer := time.NewTimer(rest)
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
				shards = q.allShards()
			}
		}
		sent, failed, err := q.round(ctx, shards)
		switch {
		case ctx.Err() != nil:
			return
		case failed == 0:
			rest = 0
		case sent > 0:
			rest = queueRestMin
		default:
			rest = min(max(2*rest, queueRestMin), queueRestMax)
		}
		if err != nil {
			q.s.log.Warn("store: events wait", "target", q.target, "again_in", rest, "err", err)
		}
	}
}

func (q *sender) allShards() (shards []ashlar.ShardID) {
	m, err := q.s.formed()
	if err != nil {
		return nil // nothing can have happened
	}
	for shard := range m.Shards {
		shards = append(shards, ashlar.ShardID(shard))
	}
	return shards
}

func (q *sender) filledShards() (shards []ashlar.ShardID) {
	q.s.queues.mu.Lock()
	defer q.s.queues.mu.Unlock()
	for shard := range q.s.queues.filled[q.target] {
		shards = append(shards, shard)
	}
	clear(q.s.queues.filled[q.target])
	return shards
}

// round sends what is in the queues of some shards. It goes on with others where one
// fails; err is the last reason why an event could not be sent, or a shard not read.
func (q *sender) round(ctx context.Context, shards []ashlar.ShardID) (sent, failed int64, err error) {
	q.mu.Lock()
	q.sent, q.failed = 0, 0
	q.mu.Unlock()
	var group errgroup.Group
	group.SetLimit(queueAtOnce)
	errs := make([]error, len(shards))
	for i, shard := range shards {
		group.Go(func() error {
			errs[i] = q.shard(ctx, shard)
			return nil
		})
	}
	_ = group.Wait() // each error is in errs
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sent, q.failed, errors.Join(errs...)
}

// shard sends the queue of one shard, if nobody else does.
func (q *sender) shard(ctx context.Context, shard ashlar.ShardID) error {
	q.mu.Lock()
	until := q.others[shard]
	q.mu.Unlock()
	if q.s.clock().Before(until) {
		return nil
	}
	n, err := q.s.readQueueCounts(ctx, shard, q.target)
	if err != nil {
		return err
	}
	q.s.queues.mu.Lock()
	q.s.queues.counts[q.target][shard] = n
	q.s.queues.mu.Unlock()
	if n.events == 0 {
		return nil
	}
	prefix := row.Queue(q.target)
	for start := prefix; start != nil && ctx.Err() == nil; {
		mine, err := q.s.takeLease(ctx, shard, "events "+q.target, queueLease)
		if err != nil || !mine {
			q.mu.Lock()
			q.others[shard] = q.s.clock().Add(queueOthers)
			q.mu.Unlock()
			return err
		}
		keys, next, err := q.s.queued(ctx, shard, start, row.Successor(prefix))
		if err != nil {
			return err
		}
		if err := q.send(ctx, shard, keys); err != nil {
			return err
		}
		start = next
	}
	return ctx.Err()
}

// queued reads events from start on, key by key, each key's in the order in which
// they happened; next is where to go on.
func (s *Store) queued(ctx context.Context, shard ashlar.ShardID, start, end []byte) (keys [][]meta.Row, next []byte, err error) {
	limit := queueRows
	for {
		page, err := s.scan(ctx, shard, meta.ScanRequest{Start: start, End: end, Limit: limit})
		if err != nil {
			return nil, nil, err
		}
		keys = slices.Collect(byKey(page.Rows))
		next = bytes.Clone(page.Next)
		if next != nil && len(keys) == 1 && limit < queueKeyRows {
			limit = queueKeyRows // there may be more of the one key
			continue
		}
		if next != nil && len(keys) > 1 {
			next = keys[len(keys)-1][0].Key
			keys = keys[:len(keys)-1]
		}
		break
	}
	for _, rows := range keys {
		slices.SortFunc(rows, func(a, b meta.Row) int {
			return cmp.Or(cmp.Compare(a.Version, b.Version), bytes.Compare(a.Key, b.Key))
		})
	}
	return keys, next, nil
}

// byKey yields runs of queue rows that are about one key of one bucket.
func byKey(rows []meta.Row) func(yield func([]meta.Row) bool) {
	about := func(r *meta.Row) []byte { return r.Key[:max(0, len(r.Key)-len(row.VersionID{}))] }
	return func(yield func([]meta.Row) bool) {
		for len(rows) > 0 {
			n := 1
			for n < len(rows) && bytes.Equal(about(&rows[n]), about(&rows[0])) {
				n++
			}
			if !yield(rows[:n:n]) {
				return
			}
			rows = rows[n:]
		}
	}
}

// send sends events of several keys side by side, and takes those off the queue that
// the target has, or that were kept for long enough. It returns an error if none
// could be sent, or a queue could not be changed.
func (q *sender) send(ctx context.Context, shard ashlar.ShardID, keys [][]meta.Row) error {
	turn, cancel := context.WithTimeout(ctx, queueTurn)
	defer cancel()
	var mu sync.Mutex
	var done, lost []meta.Row
	var failure error
	var group errgroup.Group
	group.SetLimit(queueAtOnce)
	for _, rows := range keys {
		group.Go(func() error {
			for i := range rows {
				stale, err := q.sendOne(turn, &rows[i])
				mu.Lock()
				switch {
				case err == nil:
					done = append(done, rows[i])
				case stale:
					lost = append(lost, rows[i])
				default:
					failure = err
				}
				mu.Unlock()
				if err != nil && !stale {
					return nil
				}
			}
			return nil
		})
	}
	_ = group.Wait() // the reason is in failure
	q.mu.Lock()
	q.sent += int64(len(done))
	if failure != nil {
		q.failed++
	}
	q.mu.Unlock()
	if len(lost) > 0 {
		q.s.log.Error("store: events were given up that could not be sent", "target", q.target, "events", len(lost), "after", queueKeep)
	}
	if err := q.s.dequeue(ctx, shard, q.target, done, lost); err != nil {
		return err
	}
	if len(done)+len(lost) == 0 {
		return failure
	}
	return nil
}

// sendOne sends one event. stale says that one which cannot be sent is not worth
// keeping any more.
func (q *sender) sendOne(ctx context.Context, r *meta.Row) (stale bool, err error) {
	if ctx.Err() != nil {
		return false, ctx.Err() // the turn is over
	}
	e, err := event(r)
	if err == nil {
		err = q.deliver(ctx, e)
	}
	q.s.queues.mu.Lock()
	defer q.s.queues.mu.Unlock()
	st := q.s.queues.stats[q.target]
	now := q.s.clock()
	if err != nil {
		st.Failed++
		return ashlar.Is(err, ashlar.Corrupt) || now.Sub(e.At) > queueKeep, err
	}
	st.Sent++
	st.Behind = max(0, now.Sub(e.At))
	return false, nil
}

// dequeue takes rows off a queue, and counts those that are lost.
func (s *Store) dequeue(ctx context.Context, shard ashlar.ShardID, target string, done, lost []meta.Row) error {
	if len(done)+len(lost) == 0 {
		return nil
	}
	txn := &meta.Txn{Adds: []meta.Add{{Key: row.Queued(target, row.CountEvents), Delta: -int64(len(done) + len(lost))}}}
	for _, r := range slices.Concat(done, lost) {
		txn.Conds = append(txn.Conds, meta.Cond{Key: r.Key, Kind: meta.CondVersion, Version: r.Version})
		txn.Deletes = append(txn.Deletes, r.Key)
	}
	if len(lost) > 0 {
		txn.Adds = append(txn.Adds, meta.Add{Key: row.Queued(target, row.CountLost), Delta: int64(len(lost))})
	}
	err := s.commit(ctx, shard, txn)
	if _, _, gone := conditionAt(err); !gone {
		return err
	}
	if len(done)+len(lost) == 1 {
		return nil // somebody else took it off
	}
	for i := range done {
		if err := s.dequeue(ctx, shard, target, done[i:i+1], nil); err != nil {
			return err
		}
	}
	for i := range lost {
		if err := s.dequeue(ctx, shard, target, nil, lost[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// sweepQueues gives up what lies for longer than queueKeep in queues that have no
// sender here.
func (s *Store) sweepQueues(ctx context.Context, targets map[string]Deliver) error {
	m, err := s.formed()
	if err != nil {
		return nil // there are none
	}
	var errs []error
	for shard := range m.Shards {
		errs = append(errs, s.sweepShardQueues(ctx, ashlar.ShardID(shard), targets))
	}
	return errors.Join(errs...)
}

func (s *Store) sweepShardQueues(ctx context.Context, shard ashlar.ShardID, targets map[string]Deliver) error {
	start, end := []byte{row.KindEvent}, []byte{row.KindEvent + 1}
	for start != nil {
		page, err := s.scan(ctx, shard, meta.ScanRequest{Start: start, End: end, Limit: queueRows})
		if err != nil || len(page.Rows) == 0 {
			return err
		}
		start = page.Next
		byTarget := map[string][]meta.Row{}
		for _, r := range page.Rows {
			at, ok := row.ParseEvent(r.Key)
			if !ok {
				continue
			}
			if targets[at.Target] != nil { // its sender does it: on behind its queue
				start = row.Successor(row.Queue(at.Target))
				break
			}
			if e, err := event(&r); err != nil || s.clock().Sub(e.At) > queueKeep {
				byTarget[at.Target] = append(byTarget[at.Target], r)
			}
		}
		for target, lost := range byTarget {
			s.log.Error("store: events were given up that nobody sends", "target", target, "events", len(lost), "after", queueKeep)
			if err := s.dequeue(ctx, shard, target, nil, lost); err != nil {
				return err
			}
		}
	}
	return nil
}
