package daemon

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/replica"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// TestAHostEndsWhenABackupIsRestoredUnderIt gives a running host the map of a
// restore: it must not go on with the rows of before.
func TestAHostEndsWhenABackupIsRestoredUnderIt(t *testing.T) {
	m := &topology.Map{
		Epoch: 1, Hosts: []topology.Host{{ID: 1}}, Groups: make([]topology.Group, 1),
		Shards: []topology.Shard{{Replicas: []topology.Replica{{ID: 1, Host: 1}}}}, NextReplica: 2,
	}
	log := slog.New(slog.DiscardHandler)
	link := replica.NewLink(func(ashlar.HostID) (wire.Shards, error) {
		return nil, ashlar.E("dial", "", ashlar.Unavailable, nil)
	}, log)
	t.Cleanup(func() { link.Close() })
	h := &Host{cfg: Config{Name: "h", Dir: t.TempDir()}, log: log, metaDir: metaDir(m)}
	var err error
	h.shards, err = replica.Open(replica.Config{Host: 1, Dir: filepath.Join(h.cfg.Dir, h.metaDir), Transport: link, Map: m})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.shards.Close(t.Context()) })
	next := m.Clone()
	next.Epoch++
	if err := h.follow(next); err != nil {
		t.Fatal(err)
	}
	restored := m.Clone()
	restored.Epoch += 1 << 40
	restored.Restore = topology.Restore{Run: ashlar.ID{5}}
	if err := h.follow(restored); !ashlar.Is(err, ashlar.Stale) || !strings.Contains(err.Error(), metaDir(restored)) {
		t.Errorf("a restore: %v", err)
	}
	txn := &meta.Txn{ID: ashlar.RequestID(ashlar.NewID()), Puts: []meta.Put{{Key: []byte("k")}}}
	if err := h.shards.Commit(t.Context(), 0, txn); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("a commit to the old rows: %v", err)
	}
}
