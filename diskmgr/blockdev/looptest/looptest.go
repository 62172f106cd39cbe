// Package looptest gives tests real block devices: loop devices over files in
// the test's own directory, attached by ioctl, detached when the test ends,
// also when it fails.
//
// Each is made under a number of its own, by chance and far above those that the
// kernel hands out, and removed afterwards. A device that was somebody's before
// may still have his partitions or his read-only mark, or go away only when the
// last of those who look at all devices of the machine (Discover does, in other
// tests) has closed it; none of this can happen to a new one.
//
// It needs root and /dev/loop-control. Where either is missing the test is
// skipped with the reason printed, because nothing that stands in for a block
// device would prove what such a test is for.
package looptest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// The numbers tried: small enough for every setting of the module's max_part.
	numberMin, numberMax = 1 << 10, 1 << 15
	attachAttempts       = 100
	// detachWait bounds how long a device that somebody looks at is waited for.
	detachWait = time.Minute
	detachTry  = 5 * time.Millisecond
)

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
		n := numberMin + rand.IntN(numberMax-numberMin)
		device = fmt.Sprintf("/dev/loop%d", n)
		_, err = ioctl(control, unix.LOOP_CTL_ADD, n)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			t.Fatalf("no new loop device: %v", err)
		}
		err = configure(device, n, int(backing.Fd()), logical)
		if errors.Is(err, unix.EBUSY) { // who looked for a free one has found it, and it is his
			continue
		}
		t.Cleanup(func() { Detach(t, device) })
		if err == nil {
			return device
		}
		t.Fatalf("attach %s: %v", device, err)
	}
	t.Fatalf("no loop device could be had in %d attempts: %v", attachAttempts, err)
	return ""
}

func ioctl(f *os.File, request uintptr, value int) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(value))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func configure(device string, n, backing int, logical uint32) error {
	if err := unix.Mknod(device, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	loop, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer loop.Close()
	config := unix.LoopConfig{Fd: uint32(backing), Size: logical}
	config.Info.Flags = unix.LO_FLAGS_DIRECT_IO | unix.LO_FLAGS_PARTSCAN
	return unix.IoctlLoopConfigure(int(loop.Fd()), &config)
}

const loopMajor = 7

// Detach detaches the device and removes it, as the end of the test does: here
// for those who pull a disk. While somebody still has it open the kernel puts
// it off until the last close, which is waited for. One that is gone is no error.
func Detach(t testing.TB, device string) {
	t.Helper()
	var n int
	if _, err := fmt.Sscanf(device, "/dev/loop%d", &n); err != nil {
		t.Errorf("detach %s: %v", device, err)
		return
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Errorf("detach %s: %v", device, err)
		return
	}
	defer control.Close()
	for until := time.Now().Add(detachWait); ; time.Sleep(detachTry) {
		err = clearLoop(device)
		if err == nil {
			_, err = ioctl(control, unix.LOOP_CTL_REMOVE, n)
		}
		switch {
		case err == nil, errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV):
			if err := os.Remove(device); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("remove %s: %v", device, err) // without devtmpfs it is ours to do
			}
			return
		case !errors.Is(err, unix.EBUSY), time.Now().After(until):
			t.Errorf("detach %s: %v", device, err)
			return
		}
	}
}

// clearLoop lets go of the file, now or at the last close.
func clearLoop(device string) error {
	loop, err := os.OpenFile(device, os.O_RDWR, 0)
	if errors.Is(err, unix.ENXIO) {
		return nil // the node of one that is gone
	}
	if err != nil {
		return err
	}
	defer loop.Close()
	if _, err = ioctl(loop, unix.LOOP_CLR_FD, 0); errors.Is(err, unix.ENXIO) {
		return nil // there is none
	}
	return err
}
