package stripe

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"ashlar"
	"ashlar/daemon/wire"
)

// deletesMax is the number of stripes of one call that are deleted at once.
const deletesMax = 8

// DeleteStripes deletes every piece of the extents; see wire.Stripes.
func (c *Coordinator) DeleteStripes(ctx context.Context, bucket ashlar.BucketID, key string, extents []ashlar.Extent) error {
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(deletesMax)
	for _, e := range extents {
		for s := range e.Stripes(bucket, key, 0, e.Bytes) {
			all.Go(func() error {
				if err := ctx.Err(); err != nil { // another stripe failed
					return ashlar.E("stripe: delete", s.ID.String(), ashlar.Unavailable, context.Cause(ctx))
				}
				return c.deleteStripe(ctx, s)
			})
		}
	}
	return all.Wait()
}

// DeleteStripe deletes every piece of one stripe, whatever extent it belongs to.
// It returns nil only when every disk of its group has confirmed.
func (c *Coordinator) DeleteStripe(ctx context.Context, id ashlar.StripeID, code ashlar.Code) error {
	return c.deleteStripe(ctx, ashlar.Stripe{ID: id, Code: code})
}

// deleteStripe deletes the pieces of one stripe in parallel. All must confirm.
func (c *Coordinator) deleteStripe(ctx context.Context, s ashlar.Stripe) error {
	errs := make([]error, s.Code.Pieces())
	var wg sync.WaitGroup
	for i := range errs {
		select {
		case c.sweep <- struct{}{}:
		case <-ctx.Done():
			wg.Wait()
			return ashlar.E("stripe: delete", s.ID.String(), ashlar.Unavailable, context.Cause(ctx))
		}
		wg.Go(func() {
			defer func() { <-c.sweep }()
			errs[i] = c.deletePiece(ctx, wire.PieceID{Stripe: s.ID, Index: uint8(i)})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return ashlar.E("stripe: delete", s.ID.String(), ashlar.Unavailable, err)
	}
	return nil
}

func (c *Coordinator) deletePiece(ctx context.Context, id wire.PieceID) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DeleteTimeout)
	defer cancel()
	m, err := c.formed("stripe: delete")
	for again := false; err == nil; again = true {
		at := m.Seat(id.Stripe, int(id.Index))
		if !at.Live {
			return ashlar.E("stripe: delete", at.Disk.String(), ashlar.Unavailable, errors.New("the disk is not up"))
		}
		host, errDial := c.cfg.Dial(at.Host)
		if errDial != nil {
			return ashlar.E("stripe: delete", "host="+at.Host.String(), ashlar.Unavailable, errDial)
		}
		err := host.DeletePiece(ctx, at.Disk, m.Epoch, id)
		if again || !ashlar.Is(err, ashlar.Stale) {
			return err
		}
		if m = c.newer(ctx, m.Epoch); m == nil {
			return err
		}
	}
	return err
}
