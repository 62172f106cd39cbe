package dev

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"ashlar"
)

// TestChaosFinds does behind the back of a chaos client what a cluster must
// never do, and demands that its next read or listing finds it.
func TestChaosFinds(t *testing.T) {
	cfg := testConfig(t)
	cfg.Hosts, cfg.Disks, cfg.Members, cfg.Profile = 1, 1, 1, ashlar.Code{K: 2, M: 1}
	c := startOne(t, cfg)
	run := newChaos(t, c.place, []string{c.S3()}, cfg, 12)
	g := run.gateways[0]
	makeBucket(t, g)
	cl := run.newClient(0)

	write := func(k *chaosKey, seq int, b []byte) {
		t.Helper()
		_, err := g.PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: aws.String(bucketName), Key: &k.key, Body: bytes.NewReader(b), Metadata: seqAttributes(seq),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, plant := range []struct {
		name, want string
		do         func(k *chaosKey, first, last int)
	}{
		{"nothing", "", func(*chaosKey, int, int) {}},
		{"the object is lost", "LOST", func(k *chaosKey, _, _ int) {
			if _, err := g.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String(bucketName), Key: &k.key}); err != nil {
				t.Fatal(err)
			}
		}},
		{"the value before the last is back", "CHANGED", func(k *chaosKey, first, _ int) {
			write(k, first, content(run.seed, k.key, first, 100_000))
		}},
		{"half of the one and half of the other", "CHANGED", func(k *chaosKey, first, last int) {
			b := content(run.seed, k.key, last, 100_000)
			copy(b, content(run.seed, k.key, first, 50_000))
			write(k, last, b)
		}},
		{"one bit is wrong", "CHANGED", func(k *chaosKey, _, last int) {
			b := content(run.seed, k.key, last, 100_000)
			b[77_777] ^= 4
			write(k, last, b)
		}},
		{"the end is missing", "CHANGED", func(k *chaosKey, _, last int) {
			write(k, last, content(run.seed, k.key, last, 100_000)[:99_999])
		}},
	} {
		k := cl.newKey()
		var seqs [2]int
		for i := range seqs {
			seq, b := cl.next(k, chaosWrite{size: 100_000})
			seqs[i] = seq
			write(k, seq, b)
			cl.written("PUT", k, seq, nil)
		}
		plant.do(k, seqs[0], seqs[1])
		found := func(what string, err error) {
			t.Helper()
			var b *breach
			switch {
			case plant.want == "" && err != nil:
				t.Errorf("%s, %s: %v", plant.name, what, err)
			case plant.want != "" && (!errors.As(err, &b) || !strings.Contains(b.text, k.key)):
				t.Errorf("%s, %s: %v, want it found", plant.name, what, err)
			case plant.want == "LOST" && what == "GET" && !b.lost:
				t.Errorf("%s, %s: not counted as lost: %v", plant.name, what, err)
			}
		}
		found("LIST", cl.list(t.Context(), g, k.key, []*chaosKey{k}))
		found("GET", cl.get(context.Background(), g, k, run.began))
	}
}
