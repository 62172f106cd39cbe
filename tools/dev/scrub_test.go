package dev

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/ec"
	"ashlar/tools/dev/devtest"
)

// scrubLog counts what the scrubs say.
type scrubLog struct {
	slog.Handler
	found, right *atomic.Int64
}

func (l scrubLog) Enabled(context.Context, slog.Level) bool { return true }

func (l scrubLog) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l scrubLog) Handle(_ context.Context, r slog.Record) error {
	switch r.Message {
	case "scrub: a piece is not what was written":
		l.found.Add(1)
	case "scrub: a piece is right again":
		l.right.Add(1)
	}
	return nil
}

// TestScrubFindsAndRepairsRot writes rot into the files of a running cluster's
// disks, and nobody reads the objects until the scrub has had them repaired.
func TestScrubFindsAndRepairsRot(t *testing.T) {
	cfg := testConfig(t)
	cfg.DiskBytes, cfg.ScrubPeriod = 128*ashlar.MiB, 3*time.Second
	first := startOne(t, cfg)
	client := s3Client(t, first.S3(), cfg)
	makeBucket(t, client)
	objects := samples(4, "scrub")
	putAll(t, client, objects)
	devtest.AwaitHealthy(t, healBound, first.Status)
	first.Close() // which seals the segments

	log := scrubLog{slog.DiscardHandler, new(atomic.Int64), new(atomic.Int64)}
	c, err := Start(t.Context(), cfg, Options{Log: slog.New(log)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	var stripes []stripeAt
	for _, i := range []int{2, 5, 6} { // three copies of 4 KiB, and two stripes of 4+2
		all, err := c.inspect().locate(t.Context(), objects[i].key)
		if err != nil {
			t.Fatal(err)
		}
		stripes = append(stripes, all[0])
	}
	awaitPass(t, c)
	if n := log.found.Load(); n != 0 {
		t.Fatalf("%d pieces are bad before anything was spoiled", n)
	}
	spoiled := []struct {
		stripeAt
		piece, n int
	}{{stripes[0], 2, 4096}, {stripes[1], 1, 1}, {stripes[2], 3, 1}, {stripes[2], 4, ashlar.MiB}}
	for _, s := range spoiled {
		rot(t, c, s.stripeAt, s.piece, s.n)
	}
	// The repair of one piece may come upon the other one of its stripe before the
	// scrub does: at least one of each stripe is the scrub's.
	devtest.Eventually(t, time.Minute, func() error {
		if found, right := log.found.Load(), log.right.Load(); found < int64(len(stripes)) || right != found {
			return fmt.Errorf("%d pieces spoiled, %d found, %d right again", len(spoiled), found, right)
		}
		for _, s := range spoiled {
			if err := c.readPiece(t.Context(), s.stripeAt, s.piece); err != nil {
				return err
			}
		}
		return nil
	})
	awaitPass(t, c) // one that was under way may still report what it read before the repair
	found := log.found.Load()
	for range 2 { // what was repaired is not found again
		awaitPass(t, c)
	}
	if now := log.found.Load(); now != found {
		t.Errorf("%d pieces found, %d after two more passes", found, now)
	}
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d pieces spoiled, %d found and %d right again; scrub: %v", len(spoiled), found, log.right.Load(), st.Scrub)
	for _, i := range []int{0, 2} { // now the spoiled pieces are needed
		apply(t, c, KillDisk, stripes[2].disks[i])
	}
	checkAll(t, s3Client(t, c.S3(), cfg), objects, "rot was repaired and two other disks are dead")
}

// awaitPass waits until a pass ends, on every disk, that began after the call.
func awaitPass(t *testing.T, c *Cluster) {
	t.Helper()
	begin := time.Now()
	devtest.Eventually(t, time.Minute, func() error {
		st, err := c.Status(t.Context())
		if err != nil {
			return err
		}
		since := int64(time.Since(begin) / time.Second)
		if st.Scrub == nil || st.Scrub.Disks != len(c.specs)*c.cfg.Disks || st.Scrub.Never > 0 || st.Scrub.OldestSeconds >= since {
			return fmt.Errorf("%v, asked %d s ago", st.Scrub, since)
		}
		return nil
	})
}

// readPiece reads a piece, header and all, where it lies.
func (c *Cluster) readPiece(ctx context.Context, s stripeAt, piece int) error {
	m := c.place.Map()
	disk := m.Disks[m.Groups[s.group].Disks[piece]]
	host, err := c.registry.Pieces(disk.Host)
	if err != nil {
		return err
	}
	q := wire.PieceRange{PieceID: wire.PieceID{Stripe: s.ID, Index: uint8(piece)}, Disk: disk.ID, Epoch: m.Epoch}
	told, err := host.DescribePiece(ctx, q)
	if err == nil && told.Owner.Key == "" {
		err = fmt.Errorf("piece %d does not say whose it is", piece)
	}
	if err != nil {
		return err
	}
	return host.GetPiece(ctx, q, make([]byte, ec.NewLayout(s.Code, int(s.Bytes)).PieceBytes()))
}

// rot zeroes n bytes of a piece in the file of its disk, or flips a bit if n is 1.
func rot(t *testing.T, c *Cluster, s stripeAt, piece, n int) {
	t.Helper()
	m := c.place.Map()
	disk := m.Disks[m.Groups[s.group].Disks[piece]]
	host, err := c.registry.Pieces(disk.Host)
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 128)
	q := wire.PieceRange{PieceID: wire.PieceID{Stripe: s.ID, Index: uint8(piece)}, Disk: disk.ID, Epoch: m.Epoch}
	if err := host.GetPiece(t.Context(), q, head); err != nil {
		t.Fatal(err)
	}
	_, spec, err := findDisk(c.specs, disk.Name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(spec.Path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, head)
	if at < 0 || bytes.Count(b, head) != 1 {
		t.Fatalf("piece %d is %d times in %s", piece, bytes.Count(b, head), filepath.Base(spec.Path))
	}
	bad := make([]byte, n)
	if n == 1 {
		bad[0] = b[at] ^ 4
	}
	f, err := os.OpenFile(spec.Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bad, int64(at)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}
