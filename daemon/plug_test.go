package daemon

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev/looptest"
)

// TestADiskIsPulledAndPutBackByTheKernelsWord: no schedule runs here. The device
// shrinks to nothing under the daemon, is detached, and is attached under another
// name; of each of these the daemon knows from the kernel's messages alone.
func TestADiskIsPulledAndPutBackByTheKernelsWord(t *testing.T) {
	d := testDisks(t, 0)
	d.cluster = ashlar.ClusterID(ashlar.NewID()) // all devices of the machine are looked at
	d.cfg.Disks = []string{diskmgr.Auto}
	d.cfg.FaultDir, d.cfg.ClaimBlank = "", false
	device, file := looptest.Device(t, testDiskBytes, 4096)
	disk, err := diskmgr.Claim(t.Context(), device, diskmgr.ClaimOptions{
		OpenOptions: diskmgr.OpenOptions{Cluster: d.cluster}, ClusterName: "test", Name: "h/d01",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	if err := openDisks(t.Context(), d); err != nil || len(d.slots) != 1 {
		t.Fatalf("%d disks, %v", len(d.slots), err)
	}
	listening := make(chan struct{})
	d.eventsOnly, d.listening = true, func() { close(listening) }
	var watchers sync.WaitGroup
	watchers.Go(func() { d.watchPlugs(t.Context()) })
	<-listening
	s := d.slots[0]
	watchers.Go(func() { d.watch(t.Context(), s) })
	letGo := func() { watchers.Wait(); d.close() }
	t.Cleanup(letGo)
	p := &wire.Piece{PieceID: wire.PieceID{Stripe: ashlar.StripeID{1}}, Disk: s.id, Code: ashlar.Code{K: 1, M: 2}, StripeBytes: 5, Data: []byte("hello")}
	if err := d.pieces.PutPiece(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	shrink(t, device)
	waitReport(t, d, s, true)
	looptest.Detach(t, device)
	again := looptest.Attach(t, file, 4096)
	t.Cleanup(letGo) // before it is detached
	waitReport(t, d, s, false)
	if s.path != again || again == device {
		t.Errorf("the disk was at %s, is attached at %s and was found at %s", device, again, s.path)
	}
	got := make([]byte, 5)
	if err := d.pieces.GetPiece(t.Context(), wire.PieceRange{PieceID: p.PieceID, Disk: s.id}, got); err != nil || string(got) != "hello" {
		t.Errorf("the piece on it: %q, %v", got, err)
	}
}

// shrink leaves one block of a loop device that is in use: a device in use
// cannot be detached, but all I/O to it fails from now on.
func shrink(t *testing.T, device string) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	info.Sizelimit = 4096
	if err := unix.IoctlLoopSetStatus64(int(f.Fd()), info); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "size")); err != nil || string(b) != "8\n" {
		t.Fatalf("the device has %q sectors: %v", b, err)
	}
}
