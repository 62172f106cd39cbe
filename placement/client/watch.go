package client

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"ashlar"
	"ashlar/placement/wire"
)

// Run keeps the map up to date until ctx ends, then returns nil. A member that
// is lost is replaced by the next.
func (c *Client) Run(ctx context.Context) error {
	pause := pauseMin
	for i := rand.IntN(len(c.members)); ctx.Err() == nil; i++ {
		m := c.members[i%len(c.members)]
		got, err := c.watch(ctx, m)
		if ctx.Err() != nil {
			break
		}
		if got {
			pause = pauseMin
		}
		c.log.Debug("placement member lost", "member", m.addr, "err", err)
		sleep(ctx, pause)
		if i%len(c.members) == len(c.members)-1 {
			pause = min(pause*2, pauseMax)
		}
	}
	return nil
}

// watch follows one member and reports whether it sent anything at all.
func (c *Client) watch(ctx context.Context, m member) (got bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Only the first answer has a deadline here: later silence is normal, and a
	// dead connection is found by keepalive pings.
	first := time.AfterFunc(callTimeout, func() {
		cancel(ashlar.E("placement: watch", m.addr, ashlar.Unavailable, context.DeadlineExceeded))
	})
	defer first.Stop()
	stream, err := m.rpc.Watch(ctx, &wire.WatchRequest{Epoch: c.epoch()})
	if err != nil {
		return false, err
	}
	if _, err := stream.Header(); err != nil {
		return false, err
	}
	first.Stop()
	for {
		w, err := stream.Recv()
		if errors.Is(err, io.EOF) || err != nil {
			return got, err
		}
		got = true
		if _, err := c.accept(w); err != nil {
			c.log.Error("placement map refused", "member", m.addr, "err", err)
			return got, err
		}
	}
}

// Refresh returns when a map is held that is at least as new as the newest
// that any reachable member held when it was called.
func (c *Client) Refresh(ctx context.Context) error {
	return c.each(ctx, "placement: refresh", callTimeout, func(ctx context.Context, m member) error {
		stream, err := m.rpc.Watch(ctx, &wire.WatchRequest{})
		if err != nil {
			return err
		}
		w, err := stream.Recv()
		if err != nil {
			return err
		}
		_, err = c.accept(w)
		return err
	})
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
