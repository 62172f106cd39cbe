package dev

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"ashlar/placement/health"
	"ashlar/tools/dev/devtest"
)

// TestFullClusterSaysSo fills small disks until a PUT is refused. The answer and the
// status name the cause and the remedy, reads and deletes go on, and after enough was
// deleted the cluster is healthy and takes PUTs again. Fault 29.
func TestFullClusterSaysSo(t *testing.T) {
	cfg := testConfig(t)
	cfg.Disks, cfg.Members, cfg.DiskBytes, cfg.TrashGrace = 1, 1, diskBytesMin, time.Second
	c := startOne(t, cfg)
	client := s3Client(t, c.S3(), cfg)
	makeBucket(t, client)
	room := awaitStatus(t, c, func(st health.Status) bool { return st.Verdict == health.Healthy && st.Room != nil })
	promised := int(room.Room.WritableBytes)

	stored := fill(t, client, 2*promised/devStripeBytes, "first")
	if n := len(stored) * devStripeBytes; n < promised-devStripeBytes || n > promised+promised/2 {
		t.Errorf("%d bytes were promised, %d fit", promised, n)
	}
	st := awaitStatus(t, c, func(st health.Status) bool { return st.Verdict == health.IsFull })
	if !raised(st, health.Full, "") || st.Room.GroupsFull != st.Groups || st.Room.WritableBytes != 0 || st.Capacity.UsableBytes > st.Capacity.StoredBytes*3/2 {
		t.Errorf("full: %+v, %+v, %v", st.Capacity, st.Room, st.Codes)
	}
	out, err := exec.Command(devtest.Program(t), "status", "--check", "--dir", cfg.Dir).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 10 {
		t.Errorf("ashlar status --check: %v", err)
	}
	for _, word := range []string{"FULL   ", "! FULL  PUTs to", "/d01", "Next:  delete objects"} {
		if !strings.Contains(string(out), word) {
			t.Errorf("ashlar status does not say %q", word)
		}
	}
	t.Logf("\n%s", out)
	checkAll(t, client, stored, "the cluster is full")

	var kept []object
	for i, o := range stored {
		if i%2 == 0 {
			kept = append(kept, o)
			continue
		}
		ctx, done := bounded(t, requestBound, "DELETE "+o.key)
		_, err := client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String(bucketName), Key: &o.key})
		done()
		if err != nil {
			t.Fatalf("DELETE on a full cluster: %v", err)
		}
	}
	devtest.AwaitHealthy(t, healBound, c.Status)
	again := object{"again", 1, content(29, "again", 1, devStripeBytes)}
	putAll(t, client, []object{again})
	checkAll(t, client, append(kept, again), "there is room again")
}

// fill puts stripes until one is refused, which must say why, and returns what was taken.
func fill(t *testing.T, client *s3.Client, most int, prefix string) (stored []object) {
	t.Helper()
	for i := range most {
		key := fmt.Sprintf("%s/%d", prefix, i)
		o := object{key, 1, content(29, key, 1, devStripeBytes)}
		ctx, done := bounded(t, requestBound, "PUT "+key)
		err := put(ctx, client, o)
		done()
		if err == nil {
			stored = append(stored, o)
			continue
		}
		var answer smithy.APIError
		if status(err) != 503 || !errors.As(err, &answer) || answer.ErrorCode() != "SlowDown" ||
			!strings.Contains(answer.ErrorMessage(), "cluster is full") || !strings.Contains(answer.ErrorMessage(), "Delete objects") {
			t.Fatalf("after %d objects: %v; want SlowDown that says that the cluster is full, and what to do", i, err)
		}
		return stored
	}
	t.Fatalf("%d objects of %d bytes were taken, and nothing is refused", most, devStripeBytes)
	return nil
}

// awaitStatus waits until the status is as wanted, and returns it.
func awaitStatus(t *testing.T, c *Cluster, want func(health.Status) bool) (st health.Status) {
	t.Helper()
	devtest.Eventually(t, time.Minute, func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if st, err = c.Status(ctx); err == nil && !want(st) {
			err = fmt.Errorf("%s, %+v, %v", st.Verdict, st.Room, st.Codes)
		}
		return err
	})
	return st
}
