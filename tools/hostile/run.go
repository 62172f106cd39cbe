package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"ashlar"
	"ashlar/bench/measure"
)

type options struct {
	endpoint, accessKey, secretKey string
	serverPID                      int
	idle, slow, rude               int
	duration                       time.Duration
	memoryBytes                    int64
}

const (
	region = "us-east-1"
	// largeBytes is what a slow reader asks for: more than sockets buffer.
	largeBytes = 32 * ashlar.MiB
	smallBytes = 4 * ashlar.KiB
	// mediumBytes are one stripe, too long to be read before it is coded.
	mediumBytes = ashlar.MiB
	// settle is how long the connections are given to be made.
	settle       = 30 * time.Second
	memoryLook   = 100 * time.Millisecond
	healthyLimit = 30 * time.Second // one healthy request
)

// healthyKeys are those of the healthy client: enough that every host has some.
var healthyKeys = strings.Fields("one two three four five six seven eight nine ten eleven")

// healthy is what the healthy client saw in one stretch.
type healthy struct {
	latency measure.Histogram
	failed  int
	last    error
}

// result is what a run found.
type result struct {
	quiet, siege healthy
	kinds        []*kind
	before, peak int64 // resident bytes of the server
}

// run measures a quiet stretch and one under siege.
func run(ctx context.Context, o options) (*result, error) {
	to, err := url.Parse(o.endpoint)
	if err != nil || to.Scheme != "http" {
		return nil, fmt.Errorf("-endpoint %s: want http://host:port", o.endpoint)
	}
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(o.endpoint), Region: region, UsePathStyle: true, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(o.accessKey, o.secretKey, ""),
	})
	bucket := "hostile-" + strings.ToLower(ashlar.NewID().String()[:12])
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		return nil, err
	}
	defer removeBucket(client, bucket)
	if err := put(ctx, client, bucket, "large", largeBytes); err != nil {
		return nil, err
	}
	r := &result{kinds: kinds(to.Host, bucket, o)}
	if r.before, err = resident(o.serverPID); err != nil {
		return nil, err
	}
	r.quiet = converse(ctx, client, bucket, o.duration)

	siege, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, k := range r.kinds {
		k.start(siege, &wg)
	}
	wg.Go(func() { r.watch(siege, o.serverPID) })
	await(ctx, r.kinds)
	r.siege = converse(ctx, client, bucket, o.duration)
	stop()
	wg.Wait()
	return r, ctx.Err()
}

// await returns when all connections are made, or the time for that is over.
func await(ctx context.Context, list []*kind) {
	for end := time.Now().Add(settle); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(memoryLook) {
		missing := false
		for _, k := range list {
			missing = missing || k.opened.Load() < int64(k.count)
		}
		if !missing {
			return
		}
	}
}

// converse is the healthy client: a put and a get, again and again.
func converse(ctx context.Context, client *s3.Client, bucket string, d time.Duration) (h healthy) {
	note := func(began time.Time, err error) {
		h.latency.Add(time.Since(began))
		if err != nil && ctx.Err() == nil {
			h.failed, h.last = h.failed+1, err
		}
	}
	end := time.Now().Add(d)
	for i := 0; time.Now().Before(end) && ctx.Err() == nil; i++ {
		key, bytes := healthyKeys[i%len(healthyKeys)], int64(smallBytes)
		if i%4 == 3 {
			bytes = mediumBytes
		}
		one, cancel := context.WithTimeout(ctx, healthyLimit)
		began := time.Now()
		note(began, put(one, client, bucket, key, int(bytes)))
		began = time.Now()
		out, err := client.GetObject(one, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
		if err == nil {
			var n int64
			if n, err = io.Copy(io.Discard, out.Body); err == nil && n != bytes {
				err = fmt.Errorf("%d bytes of %d came back", n, bytes)
			}
			out.Body.Close()
		}
		note(began, err)
		cancel()
	}
	return h
}

func put(ctx context.Context, client *s3.Client, bucket, key string, bytes int) error {
	_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(strings.Repeat("x", bytes))})
	return err
}

func removeBucket(client *s3.Client, bucket string) {
	ctx, cancel := context.WithTimeout(context.Background(), healthyLimit)
	defer cancel()
	for _, key := range append([]string{"large", "slow"}, healthyKeys...) {
		client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: &key}) // what stays is seen by DeleteBucket
	}
	if _, err := client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &bucket}); err != nil {
		fmt.Println("bucket", bucket, "stays behind:", err)
	}
}

// watch keeps the peak of the server's memory.
func (r *result) watch(ctx context.Context, pid int) {
	for ctx.Err() == nil {
		if now, err := resident(pid); err == nil {
			r.peak = max(r.peak, now)
		}
		time.Sleep(memoryLook)
	}
}

func resident(pid int) (int64, error) {
	if pid == 0 {
		return 0, nil
	}
	u, err := measure.ProcessUsage(pid)
	return u.ResidentBytes, err
}

// verdict lists what is wrong.
func (r *result) verdict(o options) (wrong []string) {
	for name, h := range map[string]*healthy{"quiet": &r.quiet, "siege": &r.siege} {
		if h.failed > 0 {
			wrong = append(wrong, fmt.Sprintf("%s: %d healthy requests failed, the last with: %v", name, h.failed, h.last))
		}
		if h.latency.Count() == 0 {
			wrong = append(wrong, name+": no healthy request came to an end")
		}
	}
	for _, k := range r.kinds {
		if k.opened.Load() < int64(k.count) {
			wrong = append(wrong, fmt.Sprintf("%s: %d of %d connections were made", k.name, k.opened.Load(), k.count))
		}
	}
	if grown := r.peak - r.before; grown > o.memoryBytes {
		wrong = append(wrong, fmt.Sprintf("the server's memory grew by %d MiB", grown/ashlar.MiB))
	}
	return wrong
}

func (r *result) print(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "healthy client\trequests\tfailed\tp50 ms\tp99 ms\tlongest ms")
	for _, s := range []struct {
		name string
		h    *healthy
	}{{"alone", &r.quiet}, {"under siege", &r.siege}} {
		l := &s.h.latency
		fmt.Fprintf(tw, "%s\t%d\t%d\t%.1f\t%.1f\t%.1f\n", s.name, l.Count(), s.h.failed, ms(l.Quantile(0.5)), ms(l.Quantile(0.99)), ms(l.Max()))
	}
	fmt.Fprintln(tw, "\nhostile\tconnections\tmade\tended by the server\tanswers")
	for _, k := range r.kinds {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%s\n", k.name, k.count, k.opened.Load(), k.ended.Load(), k.answers.String())
	}
	if r.before > 0 {
		fmt.Fprintf(tw, "\nserver memory\t%d MiB before, %d MiB at its peak\n", r.before/ashlar.MiB, r.peak/ashlar.MiB)
	}
	tw.Flush()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// tally counts answers by their status.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func (t *tally) add(status string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[string]int{}
	}
	t.counts[status]++
}

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var parts []string
	for status, n := range t.counts {
		parts = append(parts, fmt.Sprintf("%d × %s", n, status))
	}
	return strings.Join(parts, ", ")
}

// kind is one way to be hostile.
type kind struct {
	name  string
	count int
	// act uses one connection until it fails or ctx ends.
	act           func(ctx context.Context, c *session) error
	host          string
	opened, ended atomic.Int64
	answers       tally
}
