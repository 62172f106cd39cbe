package diskmgr_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ashlar"
	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/blockdev/looptest"
	"ashlar/diskmgr/health"
)

// A disk just large enough: eight segments and half of one that does not count.
const (
	diskBytes    = 36 * ashlar.MiB
	diskSegments = 8
	dataBytes    = diskSegments * 4 * ashlar.MiB
)

var ours = ashlar.ClusterID{0xaa, 1}

func wantKind(t *testing.T, err error, kind ashlar.Kind) {
	t.Helper()
	if !ashlar.Is(err, kind) {
		t.Fatalf("got error %v of kind %v, want kind %v", err, ashlar.KindOf(err), kind)
	}
}

func options() diskmgr.ClaimOptions {
	return diskmgr.ClaimOptions{
		OpenOptions: diskmgr.OpenOptions{Cluster: ours}, ClusterName: "prod", Name: "b1/d02",
	}
}

func blankFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := blockdev.Create(path, diskBytes, true); err != nil {
		t.Fatal(err)
	}
	return path
}

// onAll runs the test on a blank file and, as root, on a blank loop device. It
// hands out the path of the device and that of the file whose bytes it has.
func onAll(t *testing.T, test func(t *testing.T, path, file string)) {
	t.Run("file", func(t *testing.T) { path := blankFile(t); test(t, path, path) })
	t.Run("loop", func(t *testing.T) {
		path, file := looptest.Device(t, diskBytes, 4096)
		test(t, path, file)
	})
}

func claim(t *testing.T, path string, o diskmgr.ClaimOptions) *diskmgr.Disk {
	t.Helper()
	d, err := diskmgr.Claim(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func reopen(t *testing.T, path string, o diskmgr.OpenOptions) *diskmgr.Disk {
	t.Helper()
	d, err := diskmgr.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestClaimedDiskIsOpenedAgainWithItsBytes(t *testing.T) {
	onAll(t, func(t *testing.T, path, _ string) {
		d := claim(t, path, options())
		l := d.Label()
		if l.Cluster != ours || l.Name != "b1/d02" || l.Sequence != 1 || l.OwnerEpoch != 1 {
			t.Fatalf("%+v", l)
		}
		dev := d.Device()
		if dev.Bytes() != dataBytes || l.Geometry.SegmentBytes != 4*ashlar.MiB {
			t.Fatalf("data area of %d bytes in segments of %d", dev.Bytes(), l.Geometry.SegmentBytes)
		}
		want := blockdev.Aligned(8192)
		copy(want, "the first byte of the data area")
		if _, err := dev.WriteAt(want, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := dev.WriteAt(want, dev.Bytes()-8192); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(dev.Flush(), d.Close()); err != nil {
			t.Fatal(err)
		}

		d = reopen(t, path, diskmgr.OpenOptions{Cluster: ours, Host: 7})
		again := d.Label()
		if again.Disk != l.Disk || again.Host != 7 || again.OwnerEpoch != 2 || again.Sequence != 2 {
			t.Fatalf("%+v", again)
		}
		for _, off := range []int64{0, dev.Bytes() - 8192} {
			got := blockdev.Aligned(8192)
			if _, err := d.Device().ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("bytes at %d: %v", off, err)
			}
		}
		if _, err := d.Device().WriteAt(want, dev.Bytes()); !ashlar.Is(err, ashlar.Invalid) {
			t.Fatalf("the trailing copies can be overwritten: %v", err)
		}
	})
}

func TestAHeldDiskIsBusy(t *testing.T) {
	onAll(t, func(t *testing.T, path, _ string) {
		d := claim(t, path, options())
		_, err := diskmgr.Open(path, diskmgr.OpenOptions{Cluster: ours})
		wantKind(t, err, ashlar.Busy)
		_, err = diskmgr.Claim(t.Context(), path, options())
		wantKind(t, err, ashlar.Busy)
		d.Close()
		_, err = diskmgr.Claim(t.Context(), path, options())
		wantKind(t, err, ashlar.Exists)
		reopen(t, path, diskmgr.OpenOptions{Cluster: ours})
	})
}

func TestOpenRefusesAnotherClustersDisk(t *testing.T) {
	onAll(t, func(t *testing.T, path, file string) {
		claim(t, path, options()).Close()
		before := contents(t, file)
		_, err := diskmgr.Open(path, diskmgr.OpenOptions{Cluster: ashlar.ClusterID{0xbb}})
		wantKind(t, err, ashlar.Denied)
		if !strings.Contains(err.Error(), `belongs to another ashlar cluster, "prod" (aa01…)`) {
			t.Error(err)
		}
		if !bytes.Equal(before, contents(t, file)) {
			t.Error("a refused open changed the device")
		}
		if d := reopen(t, path, diskmgr.OpenOptions{}); d.Label().Cluster != ours {
			t.Error(d.Label().Cluster)
		}
	})
}

func TestOpenOfABlankOrCutOffDevice(t *testing.T) {
	path := blankFile(t)
	_, err := diskmgr.Open(path, diskmgr.OpenOptions{Cluster: ours})
	wantKind(t, err, ashlar.NotFound)
	claim(t, path, options()).Close()
	if err := os.Truncate(path, diskBytes/2-diskBytes/2%4096); err != nil {
		t.Fatal(err)
	}
	_, err = diskmgr.Open(path, diskmgr.OpenOptions{Cluster: ours})
	wantKind(t, err, ashlar.Invalid)
	if !strings.Contains(err.Error(), "cut off") {
		t.Error(err)
	}
	if err := os.Truncate(path, 2*diskBytes); err != nil {
		t.Fatal(err)
	}
	d := reopen(t, path, diskmgr.OpenOptions{Cluster: ours})
	if got := d.Device().Bytes(); got != dataBytes {
		t.Errorf("a disk that grew has a data area of %d bytes", got)
	}
}

// TestSeriesIsOneWriteOfTheDisk: it is counted, its failure is held against the disk,
// and a fenced disk begins none.
func TestSeriesIsOneWriteOfTheDisk(t *testing.T) {
	var fault blockdev.Fault
	o := options()
	o.Wrap = fault.Wrap
	d := claim(t, blankFile(t), o)
	p := blockdev.Aligned(8192)
	counters := func() (writes, errors, bytes uint64, flying int) {
		c := d.Tick(health.Latency{}).Counters
		return c.Ops[health.Write], c.Errors[health.Write], c.Bytes[health.Write], c.InFlight
	}
	series := func() error {
		start, wait := blockdev.Writes(d.Device())
		start(p, 0)
		start(p, 8192)
		if _, _, _, flying := counters(); flying != 1 && !fault.Dead() {
			t.Errorf("%d in flight", flying)
		}
		return wait()
	}
	writes, failures, bytes, _ := counters()
	if err := series(); err != nil {
		t.Fatal(err)
	}
	fault.Kill()
	if err := series(); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	fault.Revive()
	if w, f, b, flying := counters(); w != writes+2 || f != failures+1 || b != bytes+16384 || flying != 0 {
		t.Errorf("counted %d writes, %d failures, %d bytes, %d in flight", w-writes, f-failures, b-bytes, flying)
	}
	d.Fence("for the test")
	start, wait := blockdev.Writes(d.Device())
	start(p, 0)
	wantKind(t, wait(), ashlar.Unavailable)
	if w, _, _, _ := counters(); w != writes+2 {
		t.Error("a fenced disk began a write")
	}
}

func TestADeadDiskFailsAndComesBackByReopening(t *testing.T) {
	var fault blockdev.Fault
	var told []health.State
	o := options()
	o.Wrap = fault.Wrap
	o.Changed = func(s health.State, why string) { told = append(told, s) }
	path := blankFile(t)
	d := claim(t, path, o)
	buf := blockdev.Aligned(4096)
	fault.Kill()
	_, err := d.Device().WriteAt(buf, 0)
	if !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	wantKind(t, d.Device().Flush(), ashlar.Unavailable)
	if state, why, _ := d.Health(); state != health.Fenced {
		t.Fatalf("after a failed flush the disk is %v: %s", state, why)
	}
	fault.Revive()
	_, err = d.Device().WriteAt(buf, 0)
	wantKind(t, err, ashlar.Unavailable)
	wantKind(t, d.Device().Flush(), ashlar.Unavailable)
	if _, err := d.Device().ReadAt(buf, 0); err != nil {
		t.Fatalf("a fenced disk must still be read: %v", err)
	}
	if len(told) != 1 || told[0] != health.Fenced {
		t.Errorf("told of %v", told)
	}

	fault.Kill()
	if err := d.CheckOwner(); err == nil {
		t.Error("the label of a dead disk was read")
	}
	if state, why, _ := d.Health(); state != health.Failed {
		t.Errorf("four unreadable copies leave the disk %v: %s", state, why)
	}
	d.Close()
	if _, err := diskmgr.Open(path, o.OpenOptions); err == nil {
		t.Error("a dead disk was opened")
	}
	fault.Revive()
	d = reopen(t, path, o.OpenOptions)
	if _, err := d.Device().WriteAt(buf, 0); err != nil {
		t.Error(err)
	}
	if err := d.Device().Flush(); err != nil {
		t.Error(err)
	}
}

func TestAnotherOwnerFences(t *testing.T) {
	// Two loop devices over one file: two machines that see one disk.
	first, file := looptest.Device(t, diskBytes, 4096)
	second := looptest.Attach(t, file, 4096)
	o := options()
	o.Host = 3
	mine := claim(t, first, o)
	if err := mine.CheckOwner(); err != nil {
		t.Fatal(err)
	}
	theirs := reopen(t, second, diskmgr.OpenOptions{Cluster: ours, Host: 4})
	err := mine.CheckOwner()
	wantKind(t, err, ashlar.Stale)
	if !strings.Contains(err.Error(), "host 4") {
		t.Error(err)
	}
	_, err = mine.Device().WriteAt(blockdev.Aligned(4096), 0)
	wantKind(t, err, ashlar.Unavailable)
	if err := theirs.CheckOwner(); err != nil {
		t.Fatal(err)
	}
}

func TestSetHostIsInTheLabelOfTheNextOpening(t *testing.T) {
	path := blankFile(t)
	d := claim(t, path, options())
	sequence := d.Label().Sequence
	if err := errors.Join(d.SetHost(5), d.SetHost(5)); err != nil {
		t.Fatal(err)
	}
	if l := d.Label(); l.Host != 5 || l.Sequence != sequence+1 {
		t.Fatalf("%+v", l)
	}
	d.Close()
	if l := reopen(t, path, diskmgr.OpenOptions{Cluster: ours}).Label(); l.Host != 5 {
		t.Fatalf("%+v", l)
	}
}

func TestTickReportsTheFactsOfTheHeartbeat(t *testing.T) {
	d := claim(t, blankFile(t), options())
	buf := blockdev.Aligned(8192)
	for i := range int64(10) {
		if _, err := d.Device().WriteAt(buf, i*8192); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Device().Flush(); err != nil {
		t.Fatal(err)
	}
	f := d.Tick(health.Latency{})
	c := f.Counters
	// The label's four writes and two flushes are counted as well.
	if c.Ops[health.Write] != 14 || c.Bytes[health.Write] != 10*8192+4*4096 || c.Ops[health.Flush] != 3 || c.InFlight != 0 {
		t.Errorf("%+v", c)
	}
	if f.State != health.Good || f.Disk != d.Label().Disk || f.Segments != diskSegments || f.Bytes != f.Segments*f.SegmentBytes || c.P99[health.Write] <= 0 {
		t.Errorf("%+v", f)
	}
}

func TestMeasureIsStoredInTheLabel(t *testing.T) {
	path := blankFile(t)
	o := options()
	o.Measure = 80e6 // 80 ms: 20 ms a phase
	before := claim(t, path, o)
	b := before.Label().Baseline
	if b.Measured.IsZero() || b.WriteRate <= 0 || b.ReadRate <= 0 || b.ReadMedian <= 0 || b.ReadP99 < b.ReadMedian || b.FlushMedian <= 0 || b.FlushP99 < b.FlushMedian {
		t.Fatalf("%+v", b)
	}
	before.Close()
	if after := reopen(t, path, o.OpenOptions).Label().Baseline; after != before.Label().Baseline {
		t.Fatalf("read back %+v, measured %+v", after, b)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := diskmgr.Claim(ctx, blankFile(t), o)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled measurement: %v", err)
	}
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The segment room's Device, as it declares it.
var _ interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Flush() error
	Discard(off, length int64) error
	Bytes() int64
	BlockBytes() int
} = blockdev.IO(nil)
