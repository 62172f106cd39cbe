package dev

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"ashlar"
	"ashlar/daemon/meta/backup"
	"ashlar/tools/dev/devtest"
	"ashlar/tools/operate"
)

// TestRestoreFromBackup takes a backup while clients write, loses every metadata
// directory and the whole placement quorum, and brings all back over the disks.
func TestRestoreFromBackup(t *testing.T) {
	cfg := testConfig(t)
	cfg.MissingPeriod, cfg.OrphanGrace = time.Second, 4*time.Second
	c := startOne(t, cfg)
	client := s3Client(t, c.S3(), cfg)
	makeBucket(t, client)
	objects := samples(41, "saved")
	putAll(t, client, objects)
	heads := headAll(t, client, objects)

	putAll(t, client, []object{{"noise", 0, []byte("first")}})
	// Somebody writes all the time: whatever was answered before the backup began
	// must be in it.
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_ = put(ctx, client, object{"noise", i, []byte{byte(i)}})
		}
	})
	path := filepath.Join(t.TempDir(), "backup")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := backup.Create(t.Context(), backup.Cluster{Maps: c.place.Map, Dial: c.registry.Shards}, file)
	stop()
	wg.Wait()
	if err != nil || info.Rows == 0 {
		t.Fatal(err, info.Rows)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.place.Restore(t.Context(), info.ID, ashlar.NewID(), info.Created, info.Map); !ashlar.Is(err, ashlar.Denied) {
		t.Errorf("restored into a cluster that is not empty: %v", err)
	}
	putAll(t, client, samples(43, "newer"))
	before := c.place.Map()
	c.Close()
	damaged(t, path)

	if err := os.RemoveAll(filepath.Join(cfg.Dir, "placement")); err != nil {
		t.Fatal(err)
	}
	for _, h := range c.specs {
		if err := os.RemoveAll(filepath.Join(cfg.hostDir(h.Name), "state", "meta")); err != nil {
			t.Fatal(err)
		}
	}
	c, err = Start(t.Context(), cfg, Options{Restore: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	after := c.place.Map()
	if after.Cluster != before.Cluster || len(after.Disks) != len(before.Disks) || len(after.Hosts) != len(before.Hosts) || after.Epoch <= before.Epoch {
		t.Errorf("restored as cluster %v, %d disks, epoch %d; was %v, %d, %d",
			after.Cluster, len(after.Disks), after.Epoch, before.Cluster, len(before.Disks), before.Epoch)
	}
	client = s3Client(t, c.S3(), cfg)
	checkAll(t, client, objects, "after the restore")
	for key, head := range headAll(t, client, objects) {
		if was := heads[key]; aws.ToString(head.ETag) != aws.ToString(was.ETag) || !head.LastModified.Equal(*was.LastModified) ||
			aws.ToInt64(head.ContentLength) != aws.ToInt64(was.ContentLength) {
			t.Errorf("%s: %v, was %v", key, head, was)
		}
	}
	if _, err := get(t.Context(), client, "noise", ""); err != nil {
		t.Errorf("what was written during the backup: %v", err)
	}
	putAll(t, client, samples(42, "later"))
	devtest.AwaitHealthy(t, healBound, c.Status)
	// What was written after the backup has no row: it stays until it is released.
	sums := func() (kept, freed uint64) {
		for _, h := range garbageOf(t, c).Hosts {
			kept, freed = kept+h.Kept, freed+h.Freed
		}
		return kept, freed
	}
	devtest.Eventually(t, healBound, func() error {
		if kept, freed := sums(); kept == 0 || freed != 0 {
			return fmt.Errorf("%d stripes newer than the backup are kept, %d freed", kept, freed)
		}
		return nil
	})
	if _, err := c.Ask(t.Context(), operate.GarbageRelease, nil); err != nil {
		t.Fatal(err)
	}
	devtest.Eventually(t, healBound, func() error {
		if kept, freed := sums(); kept != 0 || freed == 0 {
			return fmt.Errorf("%d stripes are kept after the release, %d freed", kept, freed)
		}
		return nil
	})
	checkAll(t, client, objects, "after the release")
}

// damaged demands that a backup with one bit changed anywhere, or cut short, is
// refused.
func damaged(t *testing.T, path string) {
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Read(bytes.NewReader(whole), backup.Visitor{}); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(whole); at += 1 + len(whole)/300 {
		bad := bytes.Clone(whole)
		bad[at] ^= 0x10
		if _, err := backup.Read(bytes.NewReader(bad), backup.Visitor{}); err == nil {
			t.Errorf("a bit at %d of %d is changed and nobody notices", at, len(whole))
		}
		if _, err := backup.Read(bytes.NewReader(whole[:at]), backup.Visitor{}); err == nil {
			t.Errorf("%d of %d bytes are taken for a backup", at, len(whole))
		}
	}
}

func headAll(t *testing.T, c *s3.Client, objects []object) map[string]*s3.HeadObjectOutput {
	t.Helper()
	heads := map[string]*s3.HeadObjectOutput{}
	for _, o := range objects {
		out, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String(bucketName), Key: &o.key})
		if err != nil {
			t.Fatal(err)
		}
		heads[o.key] = out
	}
	return heads
}
