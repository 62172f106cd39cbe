package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// followAttemptMax bounds one attempt at one replica: the next one may know more.
const followAttemptMax = time.Second

var _ meta.Followers = (*Meta)(nil)

// GetAt implements meta.Followers: it asks the replicas of the shard, each once,
// in an order that spreads the load, those on hosts that are up first.
func (m *Meta) GetAt(ctx context.Context, shard ashlar.ShardID, key []byte, at meta.At) (row meta.Row, seen meta.Seen, err error) {
	const op = "meta: get"
	if err := meta.CheckKey(op, key); err != nil {
		return row, seen, err
	}
	err = m.any(ctx, op, wire.Step{Kind: wire.StepGet, Shard: shard}, &seen, func(ctx context.Context, s wire.Shards) (err error) {
		row, seen, err = s.GetAt(ctx, shard, key, at)
		return err
	})
	return row, seen, err
}

// ScanAt implements meta.Followers.
func (m *Meta) ScanAt(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest, at meta.At) (page meta.ScanPage, seen meta.Seen, err error) {
	if err := req.Check(); err != nil {
		return page, seen, err
	}
	err = m.any(ctx, "meta: scan", wire.Step{Kind: wire.StepScan, Shard: shard}, &seen, func(ctx context.Context, s wire.Shards) (err error) {
		page, seen, err = s.ScanAt(ctx, shard, req, at)
		return err
	})
	return page, seen, err
}

// any calls the shard's replicas until one gives a final answer. What the
// answer's way took is added to its age.
func (m *Meta) any(ctx context.Context, op string, step wire.Step, seen *meta.Seen, call func(context.Context, wire.Shards) error) error {
	shard, tm := step.Shard, m.maps()
	if !tm.Formed() {
		return ashlar.E(op, "", ashlar.Unavailable, errors.New("the cluster is not formed yet"))
	}
	if int(shard) >= len(tm.Shards) {
		return ashlar.E(op, "", ashlar.Invalid, fmt.Errorf("shard %d of %d", shard, len(tm.Shards)))
	}
	replicas := tm.Shards[shard].Replicas
	var last error
	for _, up := range []bool{true, false} {
		for _, i := range rand.Perm(len(replicas)) {
			host := tm.Host(replicas[i].Host)
			if (host != nil && host.State == topology.HostUp) != up {
				continue
			}
			if err := ctx.Err(); err != nil {
				return ashlar.E(op, fmt.Sprintf("shard=%d", shard), ashlar.Unavailable, errors.Join(err, last))
			}
			begin := time.Now()
			err := m.attempt(ctx, step, replicas[i].Host, followAttemptMax, call)
			if _, again := retryable(err); !again {
				seen.Age += time.Since(begin)
				return err
			}
			last = err
		}
	}
	return ashlar.E(op, fmt.Sprintf("shard=%d", shard), ashlar.Unavailable, last)
}
