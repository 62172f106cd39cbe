package daemon

import (
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev/looptest"
	"ashlar/diskmgr/smart"
)

// TestWhatADiskSaysOfItselfIsReported, fault 31: from the file that ashlar smart
// leaves to the heartbeat. A disk is known by the serial that it had when it was
// claimed; loop devices have none, so the machine is made to name one.
func TestWhatADiskSaysOfItselfIsReported(t *testing.T) {
	d := testDisks(t, 1)
	d.cfg.SmartDir = t.TempDir()
	path, _ := looptest.Device(t, testDiskBytes, 4096)
	sys := "sys/block/" + filepath.Base(path)
	disk, err := diskmgr.Claim(t.Context(), path, diskmgr.ClaimOptions{
		OpenOptions: diskmgr.OpenOptions{Cluster: d.cluster}, ClusterName: "test", Name: "h/d02",
		Root: fstest.MapFS{sys + "/size": {Data: []byte("131072")}, sys + "/serial": {Data: []byte("ZL2A7K10")},
			sys + "/loop/backing_file": {Data: []byte("file")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	d.cfg.Disks = append(d.cfg.Disks, path)
	if err := openDisks(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	look := func() {
		t.Helper()
		for _, s := range d.slots {
			d.judge(s, s.disk, s.wal, true)
		}
		if r, known := d.slots[0].report(); !known || r.Smart.Known {
			t.Errorf("the disk without a serial: %+v", r)
		}
	}
	facts := smart.Facts{Version: smart.Version, Failing: true, Pending: 8, Reallocated: smart.Unknown, Temperature: 34}
	for what, taken := range map[string]time.Time{"now": time.Now(), "long ago": time.Now().Add(-2 * smart.MaxAge)} {
		facts.Taken = taken
		if err := smart.Write(d.cfg.SmartDir, "ZL2A7K10", facts); err != nil {
			t.Fatal(err)
		}
		look()
		r, _ := d.slots[1].report()
		if r.Failed || r.Smart.Known != (what == "now") {
			t.Fatalf("asked %s: %+v", what, r)
		}
		if got := r.Smart; what == "now" && (got.Serial != "ZL2A7K10" || !got.Failing || got.Pending != 8 || got.Reallocated != -1 ||
			got.Temperature != 34 || !strings.Contains(got.Concern, "expects to fail") || !strings.Contains(got.Concern, "8 sectors")) {
			t.Errorf("%+v", got)
		}
	}
}
