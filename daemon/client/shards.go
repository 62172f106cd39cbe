package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

const (
	// metaCallMax bounds a call whose context allows it more.
	metaCallMax = 30 * time.Second
	// metaAttemptMax bounds one attempt at one replica in the first round, so
	// that a silent host does not eat the whole deadline. It doubles with each
	// round: a cluster that is just slow must come to an end, too.
	metaAttemptMax = 2 * time.Second
	// metaBackoffMin and metaBackoffMax bound the pause between rounds.
	metaBackoffMin = 5 * time.Millisecond
	metaBackoffMax = 200 * time.Millisecond
)

// Meta is the meta.Store that everybody uses: it finds the replicas of a shard
// in the map, remembers who led it, follows hints, and tries again within the
// caller's deadline. Trying again is safe: reads change nothing and a
// transaction is idempotent by its id. When the deadline passes, the error is of
// kind Unavailable. It holds no connections and starts no goroutines.
type Meta struct {
	maps func() *topology.Map
	dial func(ashlar.HostID) (wire.Shards, error)

	mu struct {
		sync.Mutex
		leaders map[ashlar.ShardID]ashlar.HostID
	}
}

var _ meta.Store = (*Meta)(nil)

// NewMeta returns a Store over the shards of the newest map, which maps
// returns (nil while there is none). Dial returns the Shards of a host: the
// host's own value within one process, else a connection that dial keeps and
// shares. It is called for every attempt.
func NewMeta(maps func() *topology.Map, dial func(ashlar.HostID) (wire.Shards, error)) *Meta {
	m := &Meta{maps: maps, dial: dial}
	m.mu.leaders = map[ashlar.ShardID]ashlar.HostID{}
	return m
}

// Get implements meta.Store.
func (m *Meta) Get(ctx context.Context, shard ashlar.ShardID, key []byte) (row meta.Row, err error) {
	const op = "meta: get"
	if err := meta.CheckKey(op, key); err != nil {
		return row, err
	}
	err = m.do(ctx, op, wire.Step{Kind: wire.StepGet, Shard: shard}, func(ctx context.Context, s wire.Shards) (err error) {
		row, err = s.Get(ctx, shard, key)
		return err
	})
	return row, err
}

// Scan implements meta.Store.
func (m *Meta) Scan(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest) (page meta.ScanPage, err error) {
	if err := req.Check(); err != nil {
		return page, err
	}
	err = m.do(ctx, "meta: scan", wire.Step{Kind: wire.StepScan, Shard: shard}, func(ctx context.Context, s wire.Shards) (err error) {
		page, err = s.Scan(ctx, shard, req)
		return err
	})
	return page, err
}

// Commit implements meta.Store.
func (m *Meta) Commit(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn) error {
	if err := txn.Check(); err != nil {
		return err
	}
	return m.do(ctx, "meta: commit", wire.Step{Kind: wire.StepCommit, Shard: shard}, func(ctx context.Context, s wire.Shards) error {
		return s.Commit(ctx, shard, txn)
	})
}

// do calls the leader of the shard that the step names until it gives a final answer.
func (m *Meta) do(ctx context.Context, op string, step wire.Step, call func(context.Context, wire.Shards) error) error {
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > metaCallMax {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, metaCallMax)
		defer cancel()
	}
	var last error
	patience := metaAttemptMax
	for pause := metaBackoffMin; ctx.Err() == nil; pause = min(2*pause, metaBackoffMax) {
		hosts, err := m.candidates(op, step.Shard)
		if ashlar.Is(err, ashlar.Invalid) {
			return err
		}
		if err == nil {
			var final bool
			begin := time.Now()
			if final, err = m.round(ctx, step, hosts, patience, call); final {
				return err
			}
			if time.Since(begin) >= patience {
				patience *= 2
			}
		}
		if err != nil {
			last = err
		}
		sleep(ctx, pause/2+rand.N(pause))
	}
	if last == nil || errors.Is(last, context.DeadlineExceeded) {
		last = ctx.Err()
	}
	return ashlar.E(op, fmt.Sprintf("shard=%d", step.Shard), ashlar.Unavailable, last)
}

// round asks each candidate once, and whom they hint at first. It reports
// whether the answer is final.
func (m *Meta) round(ctx context.Context, step wire.Step, hosts []ashlar.HostID, patience time.Duration, call func(context.Context, wire.Shards) error) (final bool, last error) {
	asked := map[ashlar.HostID]bool{}
	for len(hosts) > 0 && ctx.Err() == nil {
		host := hosts[0]
		hosts = hosts[1:]
		if asked[host] {
			continue
		}
		asked[host] = true
		err := m.attempt(ctx, step, host, patience, call)
		hint, again := retryable(err)
		if !again {
			m.remember(step.Shard, host)
			return true, err
		}
		last = err
		if hint != 0 {
			hosts = append([]ashlar.HostID{hint}, hosts...)
		}
	}
	m.forget(step.Shard)
	return false, last
}

func (m *Meta) attempt(ctx context.Context, step wire.Step, host ashlar.HostID, patience time.Duration, call func(context.Context, wire.Shards) error) error {
	s, err := m.dial(host)
	if err != nil {
		return ashlar.E("meta: dial", "host="+host.String(), ashlar.Unavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	step.Host = host
	tell := wire.RecorderOf(ctx).Begin(step)
	err = call(ctx, s)
	if _, again := retryable(err); again {
		tell.End(err)
	} else { // an answer, if not always the one that was hoped for
		tell.End(nil)
	}
	return err
}

// retryable reports whether another attempt may help, and who is said to lead.
func retryable(err error) (hint ashlar.HostID, again bool) {
	if err == nil {
		return 0, false
	}
	var leader *wire.NotLeader
	if errors.As(err, &leader) {
		return leader.Hint, true
	}
	var none *wire.NoReplica
	if errors.As(err, &none) {
		return 0, true
	}
	kind := ashlar.KindOf(err)
	return 0, kind == ashlar.Unavailable || kind == ashlar.Busy
}

// candidates lists the hosts to ask: who led last, then the replicas on hosts
// that are up in the map's order, then the others.
func (m *Meta) candidates(op string, shard ashlar.ShardID) ([]ashlar.HostID, error) {
	tm := m.maps()
	if !tm.Formed() {
		return nil, ashlar.E(op, "", ashlar.Unavailable, errors.New("the cluster is not formed yet"))
	}
	if int(shard) >= len(tm.Shards) {
		return nil, ashlar.E(op, "", ashlar.Invalid, fmt.Errorf("shard %d of %d", shard, len(tm.Shards)))
	}
	var first, up, rest []ashlar.HostID
	m.mu.Lock()
	if leader, ok := m.mu.leaders[shard]; ok {
		first = append(first, leader)
	}
	m.mu.Unlock()
	for _, r := range tm.Shards[shard].All() {
		if h := tm.Host(r.Host); h != nil && h.State == topology.HostUp {
			up = append(up, r.Host)
		} else {
			rest = append(rest, r.Host)
		}
	}
	return append(append(first, up...), rest...), nil
}

func (m *Meta) remember(shard ashlar.ShardID, host ashlar.HostID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.leaders[shard] = host
}

func (m *Meta) forget(shard ashlar.ShardID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.mu.leaders, shard)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
