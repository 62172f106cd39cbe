package replica

import (
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// TestOnlyTheImportIsServedWhileRowsAreMissing restores a shard: ordinary calls
// have to wait for the end of the import, and the import has to stop there. The
// clients call hosts themselves, as one would whose map is of before.
func TestOnlyTheImportIsServedWhileRowsAreMissing(t *testing.T) {
	c := newCluster(t, 1, 1, 1, false)
	c.overGRPC = true
	run := ashlar.ID{7}
	c.tm.Restore = topology.Restore{Run: run, Importing: true}
	c.startAll()
	c.leaderOf(0)
	direct, remote := c.host(1), func() wire.Shards {
		s, err := c.connect(1)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}()
	ctx := testCtx(t, 60*time.Second)
	importing := wire.WithImport(ctx, run)
	for _, s := range []wire.Shards{direct, remote} {
		demand := func(what string, want ashlar.Kind, err error) {
			t.Helper()
			if err == nil || !ashlar.Is(err, want) {
				t.Errorf("%s, %T: %v, want %v", what, s, err, want)
			}
		}
		c.setMap(restoring(c.topology(), true))
		demand("a commit", ashlar.Unavailable, s.Commit(ctx, 0, simplePut("k", "stale")))
		_, err := s.Get(ctx, 0, []byte("k"))
		demand("a read", ashlar.Unavailable, err)
		_, _, err = s.ScanAt(ctx, 0, meta.ScanRequest{}, meta.At{})
		demand("a read of any age", ashlar.Unavailable, err)
		demand("another import", ashlar.Unavailable, s.Commit(wire.WithImport(ctx, ashlar.ID{8}), 0, simplePut("k", "other")))
		if err := s.Commit(importing, 0, simplePut("k", "saved")); err != nil {
			t.Fatal(err)
		}
		if page, err := s.Scan(importing, 0, meta.ScanRequest{}); err != nil || len(page.Rows) != 1 {
			t.Fatal(page, err)
		}
		c.setMap(restoring(c.topology(), false))
		demand("an import that is late", ashlar.Denied, s.Commit(importing, 0, simplePut("k", "late")))
		if row, err := s.Get(ctx, 0, []byte("k")); err != nil || string(row.Value) != "saved" {
			t.Errorf("%q %v", row.Value, err)
		}
	}
}

func restoring(m *topology.Map, importing bool) *topology.Map {
	next := m.Clone()
	next.Epoch++
	next.Restore.Importing = importing
	return next
}
