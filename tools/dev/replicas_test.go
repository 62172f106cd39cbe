package dev

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"ashlar"
	"ashlar/daemon/client"
	"ashlar/daemon/meta"
	"ashlar/placement/topology"
	"ashlar/tools/dev/devtest"
)

// TestMetadataHeals takes metadata away in three ways: a directory is set back
// in time, a directory is deleted, a host is lost for good. Each time the
// shards get new replicas by themselves, and what was acknowledged stays.
func TestMetadataHeals(t *testing.T) {
	cfg := testConfig(t)
	cfg.OutAfter = 6 * time.Second
	c := startOne(t, cfg)
	g := s3Client(t, c.S3(), cfg)
	makeBucket(t, g)
	objects := samples(31, "first")
	putAll(t, g, objects)

	// An old copy of a directory comes back.
	dir := filepath.Join(cfg.hostDir("a1"), "state", "meta")
	before := c.replicasOf(t, "a1")
	apply(t, c, KillHost, "a1")
	if err := os.CopyFS(dir+".old", os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	apply(t, c, ReviveHost, "a1")
	more := samples(32, "second")
	putAll(t, g, more)
	objects = append(objects, more...)
	c.awaitShards(t, "a1 is back", func(id ashlar.ReplicaID) bool { return true })
	c.touchShards(t, "a1")
	before = append(before, c.replicasOf(t, "a1")...)
	apply(t, c, KillHost, "a1")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+".old", dir); err != nil {
		t.Fatal(err)
	}
	apply(t, c, ReviveHost, "a1")
	c.awaitShards(t, "a1 was set back", func(id ashlar.ReplicaID) bool { return !slices.Contains(before, id) })

	// A directory is gone.
	before = c.replicasOf(t, "b1")
	apply(t, c, KillHost, "b1")
	if err := os.RemoveAll(filepath.Join(cfg.hostDir("b1"), "state", "meta")); err != nil {
		t.Fatal(err)
	}
	apply(t, c, ReviveHost, "b1")
	c.awaitShards(t, "b1 lost its directory", func(id ashlar.ReplicaID) bool { return !slices.Contains(before, id) })
	checkAll(t, g, objects, "after two directories")

	// A host is gone with its disks, and then another one dies.
	before = c.replicasOf(t, "c1")
	apply(t, c, KillHost, "c1")
	if err := os.RemoveAll(cfg.hostDir("c1")); err != nil {
		t.Fatal(err)
	}
	c.awaitShards(t, "c1 is lost for good", func(id ashlar.ReplicaID) bool { return !slices.Contains(before, id) })
	if left := c.replicasOf(t, "c1"); len(left) > 0 {
		t.Errorf("the lost host still has replicas %v", left)
	}
	apply(t, c, KillHost, "a2")
	checkAll(t, g, objects, "with a host lost and another one dead")
	ctx, done := bounded(t, requestBound, "PUT bucket")
	_, err := g.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("another")})
	done()
	if err != nil {
		t.Errorf("with a host lost and another one dead, no bucket can be made: %v", err)
	}
}

// touchShards writes to every shard that a host holds, until the host has it: a
// copy of before is old only where something was written since.
func (c *Cluster) touchShards(t *testing.T, host string) {
	t.Helper()
	ctx, done := bounded(t, healBound, "touching shards")
	defer done()
	m := c.place.Map()
	store := client.NewMeta(c.place.Map, c.registry.Shards)
	for i := range m.Shards {
		for _, r := range m.Shards[i].Replicas {
			if m.Host(r.Host).Name != host {
				continue
			}
			shard := ashlar.ShardID(i)
			txn := &meta.Txn{ID: ashlar.RequestID(ashlar.NewID()), Deletes: [][]byte{[]byte("nothing")}}
			if err := store.Commit(ctx, shard, txn); err != nil {
				t.Fatal(err)
			}
			there, err := c.registry.Shards(r.Host)
			if err != nil {
				t.Fatal(err)
			}
			devtest.Eventually(t, healBound, func() error {
				if _, _, err := there.GetAt(ctx, shard, []byte("nothing"), meta.At{Index: txn.Seen}); !ashlar.Is(err, ashlar.NotFound) {
					return fmt.Errorf("shard %d on %s: %v", i, host, err)
				}
				return nil
			})
		}
	}
}

// replicasOf lists the replicas that the map places on a host.
func (c *Cluster) replicasOf(t *testing.T, host string) (ids []ashlar.ReplicaID) {
	m := c.place.Map()
	for i := range m.Shards {
		for _, r := range m.Shards[i].Replicas {
			if m.Host(r.Host).Name == host {
				ids = append(ids, r.ID)
			}
		}
	}
	return ids
}

// awaitShards waits until every shard is whole, nothing changes, and all its
// replicas are good.
func (c *Cluster) awaitShards(t *testing.T, when string, good func(ashlar.ReplicaID) bool) {
	t.Helper()
	devtest.Eventually(t, 2*time.Minute, func() error {
		shards, err := c.place.Shards(t.Context())
		if err != nil {
			return err
		}
		m := c.place.Map()
		for i, s := range shards {
			if s.State != "ok" || s.Leader == "" || m.Shards[i].Changing() {
				return fmt.Errorf("%s: shard %+v", when, s)
			}
			if k := slices.IndexFunc(m.Shards[i].Replicas, func(r topology.Replica) bool { return !good(r.ID) }); k >= 0 {
				return fmt.Errorf("%s: shard %d still has replica %d", when, i, m.Shards[i].Replicas[k].ID)
			}
		}
		return nil
	})
}
