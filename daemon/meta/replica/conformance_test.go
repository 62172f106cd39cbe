package replica

import (
	"context"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/metatest"
)

// fresh gives each subtest two shards of one cluster that nobody used before.
type fresh struct {
	meta.Store
	base ashlar.ShardID
}

func (f fresh) Get(ctx context.Context, shard ashlar.ShardID, key []byte) (meta.Row, error) {
	return f.Store.Get(ctx, f.base+shard, key)
}

func (f fresh) Scan(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest) (meta.ScanPage, error) {
	return f.Store.Scan(ctx, f.base+shard, req)
}

func (f fresh) Commit(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn) error {
	return f.Store.Commit(ctx, f.base+shard, txn)
}

func conform(t *testing.T, hosts, replicas int, overGRPC bool) {
	const shards = 50
	c := newCluster(t, hosts, shards, replicas, false)
	c.overGRPC, c.tick, c.cacheBytes = overGRPC, 30*time.Millisecond, defaultCacheBytes
	c.startAll()
	store, next := c.store(), ashlar.ShardID(0)
	metatest.Run(t, func(t *testing.T) meta.Store {
		next += 2
		if next > shards {
			t.Fatal("too few shards for the suite")
		}
		return fresh{Store: store, base: next - 2}
	})
}

func TestConformanceOneReplica(t *testing.T) { conform(t, 1, 1, false) }
func TestConformanceThreeHosts(t *testing.T) { conform(t, 3, 3, false) }
func TestConformanceOverGRPC(t *testing.T)   { conform(t, 3, 3, true) }
