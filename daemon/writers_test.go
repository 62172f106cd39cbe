package daemon

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"ashlar"
	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev/looptest"
)

// TestWritersFollowTheKindOfDisk goes from the kernel's word on a device, through
// its label, to the segments that its log keeps open: what a log leaves of the
// device to pieces shrinks by a segment for each writer.
func TestWritersFollowTheKindOfDisk(t *testing.T) {
	d := testDisks(t, 0)
	for _, rotational := range []string{"0", "1"} {
		path, _ := looptest.Device(t, testDiskBytes, 4096)
		queue := filepath.Join("/sys/block", filepath.Base(path), "queue/rotational")
		if err := os.WriteFile(queue, []byte(rotational), 0); err != nil {
			t.Fatal(err)
		}
		disk, err := diskmgr.Claim(t.Context(), path, diskmgr.ClaimOptions{
			OpenOptions: diskmgr.OpenOptions{Cluster: d.cluster}, ClusterName: "test", Name: "h/d0" + rotational,
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := disk.Label().Rotating; got != (rotational == "1") {
			t.Errorf("rotational %s: the label says %v", rotational, got)
		}
		if err := disk.Close(); err != nil {
			t.Fatal(err)
		}
		d.cfg.Disks = append(d.cfg.Disks, path)
	}
	// writers are counted by what is left to pieces, against a log with one.
	capacity := func(configured int) (solid, rotating int64) {
		t.Helper()
		d = d.again(t)
		d.cfg.Writers = configured
		if err := openDisks(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		return d.slots[0].wal.Usage().Capacity, d.slots[1].wal.Usage().Capacity
	}
	solid1, one := capacity(1)
	if solid1 != one {
		t.Fatalf("disks of one size hold %d and %d", solid1, one)
	}
	_, two := capacity(2)
	perWriter := one - two
	if perWriter <= 0 || perWriter > 8*ashlar.MiB {
		t.Fatalf("a second writer costs %d bytes", perWriter)
	}
	solid, rotating := capacity(0)
	if n := 1 + (one-solid)/perWriter; n != int64(runtime.GOMAXPROCS(0)) {
		t.Errorf("%d writers on a disk that does not rotate, want one per core", n)
	}
	if rotating != one {
		t.Errorf("%d writers on a disk that rotates, want 1", 1+(one-rotating)/perWriter)
	}
}
