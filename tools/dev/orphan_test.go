package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/trash"
	"ashlar/daemon/wire"
	"ashlar/tools/dev/devtest"
	"ashlar/tools/operate"
)

// TestGarbage plants what may be freed and what may not: uploads that were never
// committed beside objects, versions, an open upload, and a trash row that names
// what lives. The first go, everything else stays, and `ashlar gc` says why.
func TestGarbage(t *testing.T) {
	cfg := testConfig(t)
	cfg.Members, cfg.TrashGrace = 1, 2*time.Second
	cfg.MissingPeriod, cfg.OrphanGrace = time.Second, 4*time.Second
	c := startOne(t, cfg)
	g := s3Client(t, c.S3(), cfg)
	in := c.inspect()
	makeBucket(t, g)
	objects := samples(41, "live")
	putAll(t, g, objects)
	old := versionsOf(t, g)
	part := openUpload(t, g)
	var planted []stripeAt
	for i, size := range []int{4097, 3 << 20, devStripeBytes + 77} {
		planted = append(planted, in.plant(t, fmt.Sprint("nobody/", i), size)...)
	}
	planted = append(planted, in.plant(t, objects[5].key, 100_000)...) // under the key of an object that lives
	in.throwLive(t, objects[6].key)

	explained := in.explain(t, c, planted[0].ID.String())
	if len(explained.Why) != 1 || !strings.HasPrefix(explained.Why[0].What, "nothing refers") || explained.Key != "nobody/0" {
		t.Errorf("an orphan is explained by %+v", explained)
	}
	devtest.Eventually(t, healBound, func() error {
		left := 0
		for _, s := range planted {
			for _, has := range in.ask(t.Context(), s.Stripe).has {
				if has != "no" {
					left++
				}
			}
		}
		status := garbageOf(t, c)
		freed, held := uint64(0), uint64(0)
		for _, h := range status.Hosts {
			freed, held = freed+h.Freed, held+h.TrashHeld
		}
		if left > 0 || freed != uint64(len(planted)) || held == 0 {
			return fmt.Errorf("%d pieces of orphans are left, %d of %d stripes freed, %d trash rows held", left, freed, len(planted), held)
		}
		return nil
	})
	checkAll(t, g, objects, "after the orphans went")
	checkVersions(t, g, old)
	part(t)
	for _, k := range []string{objects[5].key, "versioned", "parts"} {
		if h := in.explain(t, c, bucketName+"/"+k); len(h.Why) == 0 {
			t.Errorf("%s: nothing holds it", k)
		}
	}
	if h := in.explain(t, c, bucketName+"/"+objects[6].key); len(h.Why) != 2 {
		t.Errorf("a key with a version and a trash row: %+v", h)
	}
	out, err := exec.Command(devtest.Program(t), "gc", "status", "--dir", cfg.Dir).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "ORPHANS FREED") {
		t.Errorf("ashlar gc status: %v\n%s", err, out)
	}
	t.Logf("\n%s", out)
	out, err = exec.Command(devtest.Program(t), "gc", "explain", "--dir", cfg.Dir, bucketName+"/versioned").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "older version") {
		t.Errorf("ashlar gc explain: %v\n%s", err, out)
	}
	t.Logf("\n%s", out)
}

// plant stores a body as a coordinator would and commits nothing.
func (in *inspector) plant(t *testing.T, key string, size int) (all []stripeAt) {
	t.Helper()
	bucket, _, err := in.extents(t.Context(), "live/0")
	if err != nil {
		t.Fatal(err)
	}
	m := in.place.Map()
	host, err := in.registry.Stripes(m.Hosts[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	b := content(41, key, 1, size)
	ext, err := host.WriteStripes(t.Context(), wire.WriteRequest{Bucket: bucket, Key: key, Bytes: int64(size), Epoch: m.Epoch}, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for s := range ext.Stripes(bucket, key, 0, ext.Bytes) {
		all = append(all, in.ask(t.Context(), s))
	}
	return all
}

// throwLive puts the extents of an object that lives on the trash.
func (in *inspector) throwLive(t *testing.T, key string) {
	t.Helper()
	bucket, extents, err := in.extents(t.Context(), key)
	if err != nil || len(extents) == 0 {
		t.Fatal(extents, err)
	}
	put, err := trash.Row(trash.Entry{Bucket: bucket, Key: key, Extents: extents, Dropped: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	txn := &meta.Txn{ID: ashlar.RequestID(ashlar.NewID()), Puts: []meta.Put{put}}
	if err := in.meta.Commit(t.Context(), 0, txn); err != nil {
		t.Fatal(err)
	}
}

func (in *inspector) explain(t *testing.T, c *Cluster, what string) (h operate.Held) {
	t.Helper()
	b, err := c.Ask(t.Context(), operate.GarbageExplain, []string{what})
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func garbageOf(t *testing.T, c *Cluster) (g operate.Garbage) {
	t.Helper()
	b, err := c.Ask(t.Context(), operate.GarbageStatus, nil)
	if err == nil {
		err = json.Unmarshal(b, &g)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// versionsOf writes three versions of a key and returns them.
func versionsOf(t *testing.T, g *s3.Client) map[string][]byte {
	t.Helper()
	_, err := g.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
		Bucket: aws.String(bucketName), VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
	})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for seq := range 3 {
		b := content(41, "versioned", seq, 300_000)
		out, err := g.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(bucketName), Key: aws.String("versioned"), Body: bytes.NewReader(b)})
		if err != nil {
			t.Fatal(err)
		}
		all[aws.ToString(out.VersionId)] = b
	}
	return all
}

func checkVersions(t *testing.T, g *s3.Client, want map[string][]byte) {
	t.Helper()
	for id, b := range want {
		out, err := g.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(bucketName), Key: aws.String("versioned"), VersionId: &id})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(out.Body)
		out.Body.Close()
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("version %s: %v", id, err)
		}
	}
}

// openUpload uploads a part, and returns what completes the upload and reads it.
func openUpload(t *testing.T, g *s3.Client) func(*testing.T) {
	t.Helper()
	key, b := aws.String("parts"), content(41, "parts", 1, 5<<20)
	up, err := g.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String(bucketName), Key: key})
	if err != nil {
		t.Fatal(err)
	}
	p, err := g.UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: aws.String(bucketName), Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(7), Body: bytes.NewReader(b),
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T) {
		_, err := g.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
			Bucket: aws.String(bucketName), Key: key, UploadId: up.UploadId,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{PartNumber: aws.Int32(7), ETag: p.ETag}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), requestBound)
		defer cancel()
		if got, err := get(ctx, g, *key, ""); err != nil || !bytes.Equal(got, b) {
			t.Errorf("an upload that was open while orphans went: %v", err)
		}
	}
}
