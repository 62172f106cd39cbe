package dev

import (
	"context"
	"fmt"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/placement/health"
	"ashlar/tools/dev/devtest"
)

// TestForgottenPieces plants what a coordinator leaves that is killed after its
// quorum: stripes without their last pieces, and nobody who knows of them. From
// the moment that a host is seen to have come and gone the cluster does not say
// HEALTHY until every stripe is whole.
func TestForgottenPieces(t *testing.T) {
	cfg := testConfig(t)
	cfg.Members = 1
	c := startOne(t, cfg)
	g := s3Client(t, c.S3(), cfg)
	makeBucket(t, g)
	objects := samples(31, "forgotten")
	putAll(t, g, objects)
	devtest.AwaitHealthy(t, healBound, c.Status)
	in := c.inspect()
	forgotten := 0
	for _, o := range objects {
		stripes, err := in.locate(t.Context(), o.key)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range stripes {
			n := s.Code.Pieces()
			for _, lost := range []int{i % n, (i + 1) % n}[:s.Code.M] { // seat 0 among them
				in.forget(t, s, lost)
				forgotten++
			}
		}
	}
	victim := c.cfg.layout()[0].Name
	for _, verb := range []string{KillHost, ReviveHost} {
		if err := c.Fault(t.Context(), verb, victim); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	devtest.Eventually(t, healBound, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		missing := 0
		for _, o := range objects {
			missing += in.missing(t, o.key)
		}
		if st.Verdict == health.Healthy && missing > 0 {
			t.Fatalf("%s, and %d pieces are missing", st.Verdict, missing)
		}
		if missing > 0 || st.Verdict != health.Healthy {
			return fmt.Errorf("%s, %d pieces of %d are missing", st.Verdict, missing, forgotten)
		}
		return nil
	})
	t.Logf("%d forgotten pieces were back %.1f s after the host", forgotten, time.Since(began).Seconds())
	checkAll(t, g, objects, "whole again")
}

// forget deletes one piece from its disk.
func (in *inspector) forget(t *testing.T, s stripeAt, piece int) {
	t.Helper()
	m := in.place.Map()
	at := m.Seat(s.ID, piece)
	host, err := in.registry.Pieces(at.Host)
	if err == nil {
		err = host.DeletePiece(t.Context(), at.Disk, m.Epoch, wire.PieceID{Stripe: s.ID, Index: uint8(piece)})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// missing counts the pieces of an object that are not there.
func (in *inspector) missing(t *testing.T, key string) (n int) {
	t.Helper()
	stripes, err := in.locate(t.Context(), key)
	if err != nil && !ashlar.Is(err, ashlar.Unavailable) {
		t.Fatal(err)
	}
	for _, s := range stripes {
		for _, has := range s.has {
			if has != "yes" {
				n++
			}
		}
	}
	return n
}
