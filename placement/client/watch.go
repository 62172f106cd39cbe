package client

import (
	"context"
	"math/rand/v2"
	"time"

	"ashlar"
	"ashlar/placement/wire"
)

// Run keeps the map up to date until ctx ends, then returns nil. A member that
// is lost, or has no leader, is replaced by the next.
func (c *Client) Run(ctx context.Context) error {
	pause := pauseMin
	for i, n := rand.IntN(len(c.members)), 1; ctx.Err() == nil; i, n = i+1, n+1 {
		m := c.members[i%len(c.members)]
		started := time.Now()
		err := c.watch(ctx, m)
		if ctx.Err() != nil {
			break
		}
		if time.Since(started) > silenceTimeout {
			pause = pauseMin
		}
		c.log.Debug("placement member lost", "member", m.addr, "err", err)
		sleep(ctx, pause)
		if n%len(c.members) == 0 { // nobody serves
			pause = min(pause*2, pauseMax)
		}
	}
	return nil
}

// watch follows one member until that fails or falls silent.
func (c *Client) watch(ctx context.Context, m member) error {
	const op = "placement: watch"
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(silenceTimeout, func() {
		cancel(ashlar.E(op, m.addr, ashlar.Unavailable, context.DeadlineExceeded))
	})
	defer silence.Stop()
	stream, err := m.rpc.Watch(ctx, &wire.WatchRequest{Epoch: c.epoch()})
	if err != nil {
		return ashlar.E(op, m.addr, wire.Kind(err), err)
	}
	for {
		reply, err := stream.Recv()
		if err != nil {
			return ashlar.E(op, m.addr, wire.Kind(err), err)
		}
		silence.Reset(silenceTimeout)
		if reply.GetMap() == nil {
			continue
		}
		if _, err := c.accept(reply.GetMap()); err != nil {
			c.log.Error("placement map refused", "member", m.addr, "err", err)
			return err
		}
	}
}

// Refresh asks all members for their maps at once and takes the newest. It
// returns when a majority has answered, or all that can; the error is that of
// the last member if none did. It is for callers that were refused as stale
// and want to know at once rather than when Run hears of it.
func (c *Client) Refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel() // ends the calls that still run
	results := make(chan error, len(c.members))
	for _, m := range c.members {
		go func() { results <- c.fetch(ctx, m) }() // ends with ctx
	}
	answered := 0
	var last error
	for range c.members {
		if err := <-results; err != nil {
			last = err
		} else if answered++; answered > len(c.members)/2 {
			return nil
		}
	}
	if answered > 0 {
		return nil
	}
	return last
}

// fetch takes the map that one member holds.
func (c *Client) fetch(ctx context.Context, m member) error {
	const op = "placement: refresh"
	stream, err := m.rpc.Watch(ctx, &wire.WatchRequest{})
	if err != nil {
		return ashlar.E(op, m.addr, wire.Kind(err), err)
	}
	for {
		reply, err := stream.Recv()
		if err != nil {
			return ashlar.E(op, m.addr, wire.Kind(err), err)
		}
		if reply.GetMap() != nil {
			_, err = c.accept(reply.GetMap())
			return err
		}
	}
}

func (c *Client) epoch() uint64 {
	if m := c.Map(); m != nil {
		return uint64(m.Epoch)
	}
	return 0
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
