package keys

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"ashlar/bench/s3"
)

const (
	// savedEvery is how many keys are filled between two notes of how far it went.
	savedEvery = 250_000
	// tryPause and triesMax bound the repetition of a PUT that found no answer.
	tryPause = 100 * time.Millisecond
	triesMax = 100
	// A cluster has settled when it takes less than settledShare of one core for
	// settleStep; settleMax bounds the wait for that.
	settledShare = 0.2
	settleStep   = 2 * time.Second
	settleMax    = 3 * time.Minute
)

func (r *run) makeBucket() error {
	c, err := r.cluster.client()
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Do("PUT", "/"+bucket, "")
	if s3.Status(err) == 409 { // it is there
		err = nil
	}
	return err
}

// fill stores the keys from Filled up to n. Each one is acknowledged when it returns.
func (r *run) fill(ctx context.Context, n int, point *Checkpoint) error {
	if r.result.Filled >= n {
		return nil
	}
	clients := make([]*s3.Client, r.Concurrent)
	for i := range clients {
		c, err := r.cluster.client()
		if err != nil {
			return err
		}
		defer c.Close()
		clients[i] = c
	}
	for r.result.Filled < n {
		end := min(n, r.result.Filled+savedEvery)
		begin, from := time.Now(), r.result.Filled
		if err := r.fillSome(ctx, clients, end, point); err != nil {
			return err
		}
		r.result.Filled = end
		if err := r.result.save(r.Dir); err != nil {
			return err
		}
		r.Progress(fmt.Sprintf("%d keys, %.0f PUT/s", end, float64(end-from)/time.Since(begin).Seconds()))
	}
	return nil
}

func (r *run) fillSome(ctx context.Context, clients []*s3.Client, end int, point *Checkpoint) error {
	var next, retries atomic.Int64
	next.Store(int64(r.result.Filled))
	failed := make([]error, len(clients))
	var all sync.WaitGroup
	for w, c := range clients {
		all.Go(func() {
			path := []byte("/" + bucket + "/")
			prefix := len(path)
			for failed[w] == nil && ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= end {
					return
				}
				path = appendKey(path[:prefix], r.Seed, i)
				failed[w] = put(ctx, c, string(path), &retries)
			}
		})
	}
	all.Wait()
	point.PutRetries += int(retries.Load())
	return errors.Join(append(failed, ctx.Err())...)
}

// put stores one empty object. It tries again where that may help: a PUT that
// was done already changes nothing.
func put(ctx context.Context, c *s3.Client, path string, retries *atomic.Int64) error {
	for try := 1; ; try++ {
		_, err := c.Do("PUT", path, "")
		if err == nil {
			return nil
		}
		if status := s3.Status(err); try == triesMax || status/100 == 4 || ctx.Err() != nil {
			return fmt.Errorf("PUT %s, try %d: %w", path, try, err)
		}
		retries.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(tryPause):
		}
	}
}

// settle waits until the cluster has done what the PUTs left it to do.
func (r *run) settle(ctx context.Context) error {
	r.Progress("waiting until the cluster has settled")
	last, err := r.cluster.usage()
	if err != nil {
		return err
	}
	for end := time.Now().Add(settleMax); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settleStep):
		}
		now, err := r.cluster.usage()
		if err != nil {
			return err
		}
		if (now.CPU - last.CPU).Seconds() < settledShare*settleStep.Seconds() {
			return nil
		}
		last = now
	}
	return nil
}
