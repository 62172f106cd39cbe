package segment_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ashlar"
	"ashlar/bench/segment"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/blockdev/looptest"
)

func options(path string) segment.Options {
	return segment.Options{Path: path, FileBytes: 512 * ashlar.MiB, Duration: 50 * time.Millisecond,
		Sizes: []int{4096, int(ashlar.MiB)}, Callers: []int{1, 16}, Operations: segment.Operations}
}

func check(t *testing.T, cases []segment.Case) {
	t.Helper()
	if len(cases) != 12 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		for _, s := range []segment.Side{c.Log, c.Raw} {
			if s.Operations < int64(c.Callers) || s.Seconds < 0.05 || s.CPU <= 0 || (s.Flushes == 0) != (c.Operation == segment.Read) {
				t.Errorf("%s of %d bytes, %d callers: %+v", c.Operation, c.Bytes, c.Callers, s)
			}
		}
		if c.Records < int64(c.Callers) || c.Operation == segment.Append && c.Records > c.Log.Operations {
			t.Errorf("%s of %d bytes, %d callers: %d records, %d operations", c.Operation, c.Bytes, c.Callers, c.Records, c.Log.Operations)
		}
		if c.Operation == segment.Append && c.Callers == 1 && c.Log.PerFlush() > 1 {
			t.Errorf("one caller cannot share a flush with anybody: %+v", c.Log)
		}
		if c.Operation == segment.Append && c.Callers == 16 && c.Bytes == 4096 && c.Log.PerFlush() <= 1 {
			t.Errorf("16 callers share no flush: %+v", c.Log)
		}
	}
}

func TestAScratchFileIsMeasuredAndRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	cases, err := segment.Run(t.Context(), options(path))
	if err != nil {
		t.Fatal(err)
	}
	check(t, cases)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file was left behind: %v", err)
	}
	var out bytes.Buffer
	if err := segment.Print(&out, cases); err != nil || strings.Count(out.String(), "\n") != 14 {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestADeviceIsBlankAfterwards(t *testing.T) {
	path, _ := looptest.Device(t, 128*ashlar.MiB, 4096)
	o := options(path)
	o.Sizes, o.Callers = o.Sizes[:1], o.Callers[:1]
	for range 2 { // the second run is refused unless the first left it blank
		if _, err := segment.Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecordsThatAreTooLong for the device, or for its segments: the error says what would do, and nothing is left behind.
func TestRecordsThatAreTooLong(t *testing.T) {
	for size, bytes := range map[int64]int64{16 * ashlar.MiB: 48 * ashlar.MiB, 8 * ashlar.MiB: 64 * ashlar.MiB} {
		path := filepath.Join(t.TempDir(), "disk")
		o := options(path)
		o.FileBytes, o.Sizes = bytes, []int{int(size)}
		if _, err := segment.Run(t.Context(), o); !ashlar.Is(err, ashlar.Invalid) || !strings.Contains(err.Error(), "--size") {
			t.Errorf("%d bytes: got %v", size, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file was left behind: %v", err)
		}
	}
}

// TestAMistypedDeviceIsNoScratchFile: /dev is memory, and whoever names it means a device.
func TestAMistypedDeviceIsNoScratchFile(t *testing.T) {
	const path = "/dev/ashlar-test-no-such-device"
	o := options(path)
	o.FileBytes = 48 * ashlar.MiB
	if _, err := segment.Run(t.Context(), o); !ashlar.Is(err, ashlar.NotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
}

// TestWhatCarriesAnythingIsRefused: not one byte of it changes.
func TestWhatCarriesAnythingIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	precious := bytes.Repeat([]byte("all there is "), 1000)
	if err := os.WriteFile(path, precious, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := segment.Run(t.Context(), options(path)); !ashlar.Is(err, ashlar.Exists) {
		t.Errorf("a file: %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, precious) {
		t.Errorf("the file changed: %v", err)
	}
	device, _ := looptest.Device(t, 128*ashlar.MiB, 4096)
	d, err := blockdev.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	mark := blockdev.Aligned(4096)
	copy(mark[1024+56:], "\x53\xef") // an ext4 superblock begins so
	mark[1024+4] = 1                 // with blocks,
	mark[1024] = 1                   // and inodes,
	mark[1024+76] = 1                // of revision 1
	if _, err := d.WriteAt(mark, 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Flush(), d.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = segment.Run(t.Context(), options(device))
	if !ashlar.Is(err, ashlar.Denied) || !strings.Contains(err.Error(), "ext2") || strings.Contains(err.Error(), "accept-data-loss") {
		t.Errorf("a device with a file system: %v", err)
	}
	if d, err = blockdev.Open(device); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	now := blockdev.Aligned(4096)
	if _, err := d.ReadAt(now, 0); err != nil || !bytes.Equal(now, mark) {
		t.Errorf("the device was written to: %v", err)
	}
}
