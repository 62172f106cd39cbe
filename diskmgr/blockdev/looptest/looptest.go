// Package looptest gives tests real block devices: loop devices over files in
// the test's own directory, attached by ioctl, detached when the test ends,
// also when it fails.
//
// It needs root and /dev/loop-control. Where either is missing the test is
// skipped with the reason printed, because nothing that stands in for a block
// device would prove what such a test is for.
package looptest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// attachAttempts bounds the race for a free loop device with other users of the
// machine.
const attachAttempts = 20

// Device makes a sparse file of the given size and returns the path of a loop
// device over it (/dev/loopN) and of the file. Logical is the logical block
// size in bytes: 512 or 4096.
func Device(t testing.TB, bytes int64, logical uint32) (device, file string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: loop devices cannot be attached, so the real block device is not tested")
	}
	file = filepath.Join(t.TempDir(), "backing")
	backing, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer backing.Close()
	if err := backing.Truncate(bytes); err != nil {
		t.Fatal(err)
	}
	return Attach(t, file, logical), file
}

// Attach returns the path of a loop device over an existing file.
func Attach(t testing.TB, file string, logical uint32) (device string) {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no loop devices on this machine: %v", err)
	}
	defer control.Close()
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer backing.Close()
	for range attachAttempts {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatalf("no free loop device: %v", err)
		}
		device = fmt.Sprintf("/dev/loop%d", n)
		err = configure(device, n, int(backing.Fd()), logical)
		if errors.Is(err, unix.EBUSY) {
			continue // somebody else was faster
		}
		if err != nil {
			t.Fatalf("attach %s: %v", device, err)
		}
		t.Cleanup(func() { detach(t, device) })
		return device
	}
	t.Fatalf("no loop device could be had in %d attempts", attachAttempts)
	return ""
}

func configure(device string, n, backing int, logical uint32) error {
	if err := unix.Mknod(device, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	loop, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer loop.Close()
	config := unix.LoopConfig{Fd: uint32(backing), Size: logical}
	config.Info.Flags = unix.LO_FLAGS_DIRECT_IO | unix.LO_FLAGS_PARTSCAN
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &config); err != nil {
		return err
	}
	// A read-only mark survives from the user before.
	return unix.IoctlSetPointerInt(int(loop.Fd()), unix.BLKROSET, 0)
}

// detach lets the device go; while something still has it open the kernel says
// busy or waits for the last close, so it is asked a few times.
func detach(t testing.TB, device string) {
	loop, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Errorf("detach %s: %v", device, err)
		return
	}
	defer loop.Close()
	for range 50 {
		_, err = unix.IoctlRetInt(int(loop.Fd()), unix.LOOP_CLR_FD)
		if err == nil || errors.Is(err, unix.ENXIO) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("detach %s: %v", device, err)
}
