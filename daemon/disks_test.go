package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/piece"
	"ashlar/daemon/rollcall"
	"ashlar/daemon/scrub"
	"ashlar/daemon/wire"
	"ashlar/diskmgr/blockdev"
	"ashlar/placement/topology"
)

const testDiskBytes = 64 * ashlar.MiB

// testDisks returns the disks of a host with n files, not yet opened.
func testDisks(t *testing.T, n int) *disks {
	t.Helper()
	dir := t.TempDir()
	cfg := &Config{Name: "h", Dir: filepath.Join(dir, "state"), ClaimBlank: true, FaultDir: filepath.Join(dir, "faults")}
	if err := os.Mkdir(cfg.FaultDir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		path := filepath.Join(dir, string(rune('0'+i))+".disk")
		if err := blockdev.Create(path, testDiskBytes, true); err != nil {
			t.Fatal(err)
		}
		cfg.Disks = append(cfg.Disks, path)
	}
	m := &topology.Map{
		Settings: topology.Settings{}, Groups: []topology.Group{{}}, Shards: []topology.Shard{{}},
	}
	return &disks{
		cfg: cfg, cluster: ashlar.ClusterID{1}, clusterName: "test", log: slog.New(slog.DiscardHandler),
		pieces: piece.NewStore(func() *topology.Map { return m }), scrub: scrub.New(scrub.Config{Dir: filepath.Join(dir, "scrub")}),
		roll: rollcall.New(rollcall.Config{Dir: filepath.Join(dir, "rollcall"), Maps: func() *topology.Map { return m }}),
	}
}

// again is the same host after a restart.
func (d *disks) again(t *testing.T) *disks {
	d.close()
	next := *d
	next.slots = nil
	t.Cleanup(next.close)
	return &next
}

// Fault 20: a blank disk in the slot is used by command only.
func TestBlankDisksAreClaimedOnlyWhenAsked(t *testing.T) {
	d := testDisks(t, 1)
	d.cfg.ClaimBlank = false
	before, err := os.ReadFile(d.cfg.Disks[0])
	if err != nil {
		t.Fatal(err)
	}
	err = openDisks(t.Context(), d)
	if err == nil || !strings.Contains(err.Error(), "ashlar disk claim") {
		t.Fatalf("a blank disk without consent: %v", err)
	}
	after, err := os.ReadFile(d.cfg.Disks[0])
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("the refused disk was changed, %v", err)
	}
	d = d.again(t)
	d.cfg.ClaimBlank = true
	if err := openDisks(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	d = d.again(t)
	d.cfg.ClaimBlank = false // labelled now
	if err := openDisks(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

// Fault 21, of the daemon.
func TestForeignDiskStopsTheStartUntouched(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		mkfs = "/sbin/mkfs.ext4"
	}
	d := testDisks(t, 2)
	if out, err := exec.Command(mkfs, "-q", "-F", d.cfg.Disks[1]).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4 (package e2fsprogs): %v\n%s", err, out)
	}
	before, err := os.ReadFile(d.cfg.Disks[1])
	if err != nil {
		t.Fatal(err)
	}
	err = openDisks(t.Context(), d)
	if err == nil || !strings.Contains(err.Error(), "ext4") || !strings.Contains(err.Error(), "h/d02") {
		t.Fatalf("%v", err)
	}
	after, err := os.ReadFile(d.cfg.Disks[1])
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("the foreign disk was changed, %v", err)
	}
}

func TestSwitchKillsAndRevivesADiskWithItsPieces(t *testing.T) {
	d := testDisks(t, 2)
	if err := openDisks(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	var watchers sync.WaitGroup
	for _, s := range d.slots {
		watchers.Go(func() { d.watch(t.Context(), s) })
	}
	t.Cleanup(func() { watchers.Wait(); d.close() })
	s := d.slots[0]
	p := &wire.Piece{PieceID: wire.PieceID{Stripe: ashlar.StripeID{1}}, Disk: s.id, Code: ashlar.Code{K: 1, M: 2}, StripeBytes: 5, Data: []byte("hello")}
	if err := d.pieces.PutPiece(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	file := FaultSwitch(d.cfg.FaultDir, s.name)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	waitReport(t, d, s, true)
	got := make([]byte, 5)
	r := wire.PieceRange{PieceID: p.PieceID, Disk: s.id}
	if err := d.pieces.GetPiece(t.Context(), r, got); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("reading a dead disk: %v", err)
	}
	if r, _ := d.slots[1].report(); r.Failed {
		t.Error("the other disk failed, too")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	waitReport(t, d, s, false)
	if err := d.pieces.GetPiece(t.Context(), r, got); err != nil || string(got) != "hello" {
		t.Errorf("after revival: %q, %v", got, err)
	}
}

// waitReport waits until the heartbeat would say so of the disk.
func waitReport(t *testing.T, d *disks, s *slot, failed bool) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		if r, known := s.report(); known && r.Failed == failed {
			return
		}
	}
	t.Fatalf("%s is not reported with failed=%v", s.name, failed)
}

func TestOneDeadDiskDoesNotStopTheStart(t *testing.T) {
	d := testDisks(t, 2)
	if err := openDisks(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	dead := d.slots[0].id
	d = d.again(t)
	if err := os.Remove(d.cfg.Disks[0]); err != nil {
		t.Fatal(err)
	}
	if err := openDisks(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if s := d.slots[0]; s.disk != nil || s.reason == "" {
		t.Errorf("the missing disk %v: %+v", dead, s.reason)
	}
	d = d.again(t)
	if err := os.Remove(d.cfg.Disks[1]); err != nil {
		t.Fatal(err)
	}
	if err := openDisks(t.Context(), d); err == nil {
		t.Error("a host without any disk started")
	}
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	good := Config{Name: "a1", Zone: "a", Dir: "/d", Listen: "10.0.0.1:1", ListenRPC: "10.0.0.1:2", Placement: []string{"p"}, Disks: []string{"/dev/x"}}
	if err := good.Check(); err != nil || good.Rack != "a1" || good.BufferBytes != BufferBytesDefault || time.Duration(good.OrphanConfirm) < orphanMin {
		t.Fatalf("%v %+v", err, good)
	}
	for key, spoil := range map[string]func(*Config){
		"name":       func(c *Config) { c.Name = "" },
		"zone":       func(c *Config) { c.Zone = "" },
		"listen":     func(c *Config) { c.Listen = "0.0.0.0:1" },
		"listen-rpc": func(c *Config) { c.ListenRPC = "nowhere" },
		"placement":  func(c *Config) { c.Placement = nil },
		"disks":      func(c *Config) { c.Disks = nil },
		"writers":    func(c *Config) { c.Writers = 65 },
		// The second look must outlast every upload.
		"orphan-grace":   func(c *Config) { c.OrphanGrace = duration(13 * time.Hour) },
		"orphan-confirm": func(c *Config) { c.OrphanConfirm = duration(13 * time.Hour) },
	} {
		bad := good
		spoil(&bad)
		var e *ashlar.Error
		if err := bad.Check(); !errors.As(err, &e) || e.Kind != ashlar.Invalid || e.Subject != key {
			t.Errorf("%s: %v", key, err)
		}
	}
}
