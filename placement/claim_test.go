package placement

import (
	"context"
	"net"
	"testing"
	"time"

	"ashlar"
	"ashlar/placement/topology"
)

// TestDeposedWriterIsFenced lets two schedulers believe in their leadership:
// the one with the older claim writes nothing, and may not claim again.
func TestDeposedWriterIsFenced(t *testing.T) {
	peer, release, err := HoldPort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Start(context.Background(), Config{
		Name: "p1", Dir: t.TempDir(), Cluster: "test", RPCListener: l, SharePorts: true,
		Peers: map[string]string{"p1": "http://" + peer}, RPC: map[string]string{"p1": l.Addr().String()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	select {
	case <-m.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("not ready")
	}
	ctx := context.Background()
	term := m.etcd.Server.Term()

	older, have, err := takeClaim(ctx, m.cli, "old", term+1)
	if err != nil {
		t.Fatal(err)
	}
	next := func(m *topology.Map) *topology.Map {
		c := m.Clone()
		c.Epoch++
		return c
	}
	first := next(have)
	if err := older.write(ctx, first); err != nil {
		t.Fatal(err)
	}
	newer, have, err := takeClaim(ctx, m.cli, "new", term+2)
	if err != nil {
		t.Fatal(err)
	}
	if have.Epoch != first.Epoch {
		t.Fatalf("the new claim sees epoch %d, the old one wrote %d", have.Epoch, first.Epoch)
	}
	if err := older.write(ctx, next(first)); !ashlar.Is(err, ashlar.Stale) {
		t.Errorf("the deposed scheduler wrote: %v", err)
	}
	if _, _, err := takeClaim(ctx, m.cli, "old", term+1); !ashlar.Is(err, ashlar.Stale) {
		t.Errorf("the deposed scheduler claimed again: %v", err)
	}
	second := next(have)
	second.Name = "renamed"
	if err := newer.write(ctx, second); err != nil {
		t.Fatal(err)
	}
	// The same claim with an outdated view of the map.
	newer.mapRev--
	if err := newer.write(ctx, next(second)); !ashlar.Is(err, ashlar.Stale) {
		t.Errorf("a write over a map that changed: %v", err)
	}
	_, have, err = takeClaim(ctx, m.cli, "reader", term+3)
	if err != nil || have.Epoch != second.Epoch || have.Name != "renamed" {
		t.Errorf("the quorum holds %+v, %v; want epoch %d", have, err, second.Epoch)
	}
}
