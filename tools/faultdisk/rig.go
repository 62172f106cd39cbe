package faultdisk

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"ashlar"
	"ashlar/diskmgr/blockdev/looptest"
)

// Options say what a rig is made of.
type Options struct {
	Disks int
	// Bytes is the size of every disk, a multiple of 4096.
	Bytes int64
	// Seed makes the rig's choices; it should be printed by the test.
	Seed uint64
	// NoLoops leaves the loop devices out: Path is then the FUSE file itself.
	NoLoops bool
}

// Rig is a set of faulty disks.
type Rig struct {
	dir    string
	disks  []*Disk
	server *fuse.Server
}

const (
	maxWriteBytes = ashlar.MiB
	// backgroundMax is how many requests the kernel sends before it waits for
	// an answer. Its default of 12 would let one hung disk stop the others.
	backgroundMax = 4096
	unmountWait   = time.Minute
	unmountTry    = 20 * time.Millisecond
)

// New makes a rig. All of it is gone when the test ends, however it ends.
func New(t testing.TB, o Options) *Rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: the faulty block devices need mount(2) and loop devices")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no FUSE on this machine: %v", err)
	}
	r := &Rig{dir: t.TempDir()}
	for i := range o.Disks {
		d, err := newDisk(i, o.Bytes, o.Seed)
		if err != nil {
			t.Fatal(err)
		}
		d.file = filepath.Join(r.dir, strconv.Itoa(i))
		d.path = d.file
		r.disks = append(r.disks, d)
	}
	r.guard(t)
	var err error
	r.server, err = fuse.NewServer(&filesystem{fuse.NewDefaultRawFileSystem(), r.disks}, r.dir, &fuse.MountOptions{
		DirectMountStrict: true, MaxWrite: maxWriteBytes, MaxBackground: backgroundMax, DisableXAttrs: true, DisableSplice: true,
		ExtraCapabilities: fuse.CAP_ASYNC_DIO, // else a loop device has one I/O under way at a time

		FsName: "faultdisk", Name: "faultdisk",
	})
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	go r.server.Serve() // ends with the unmount
	t.Cleanup(func() { r.unmount(t) })
	if err := r.server.WaitMount(); err != nil {
		t.Fatalf("mount: %v", err)
	}
	for _, d := range r.disks {
		if !o.NoLoops {
			d.path = looptest.Attach(t, d.file, blockBytes)
		}
	}
	t.Cleanup(r.clear)
	return r
}

// Disk returns disk number i, from 0.
func (r *Rig) Disk(i int) *Disk { return r.disks[i] }

func (r *Rig) clear() {
	for _, d := range r.disks {
		d.Clear()
	}
}

// unmount waits for the loop devices, whose end the kernel may put off until
// the last close; what is then still in use is cut off by force.
func (r *Rig) unmount(t testing.TB) {
	r.clear()
	var err error
	for until := time.Now().Add(unmountWait); ; time.Sleep(unmountTry) {
		if err = r.server.Unmount(); err == nil || time.Now().After(until) {
			break
		}
	}
	if err != nil {
		t.Errorf("unmount %s: %v; something still has a disk open", r.dir, err)
		unix.Unmount(r.dir, unix.MNT_FORCE|unix.MNT_DETACH)
		return // who is still inside may touch the medium
	}
	for _, d := range r.disks {
		unix.Munmap(d.mu.medium)
	}
}

// guardScript is told the mount point. It gets SIGTERM when the test process
// died: then it aborts the file system, which fails every I/O that still waits
// for it, and takes the rig apart.
const guardScript = `trap 'umount -f "$0"; for l in $(losetup -n -O NAME,BACK-FILE | grep -F "$0/" | cut -d" " -f1); do losetup -d $l; done; umount -l "$0"; exit' TERM
while :; do sleep 0.2; done`

// guard starts the process that cleans up after a test process that was killed
// while one of its threads waits for a disk: such a thread cannot die, and the
// FUSE connection would live as long.
func (r *Rig) guard(t testing.TB) {
	cmd := exec.Command("/bin/sh", "-c", guardScript, r.dir)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGTERM, Setpgid: true}
	started, stop, ended := make(chan error), make(chan struct{}), make(chan struct{})
	go func() { // ends with the test
		defer close(ended)
		runtime.LockOSThread() // the signal comes when this thread ends
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		<-stop
		cmd.Process.Kill()
		cmd.Wait()
	}()
	if err := <-started; err != nil {
		t.Fatalf("guard: %v", err)
	}
	t.Cleanup(func() { close(stop); <-ended })
}

// SetReadOnly marks the loop device read-only, also for those who have it open.
func (d *Disk) SetReadOnly(readOnly bool) error {
	f, err := os.Open(d.path)
	if err != nil {
		return fmt.Errorf("faultdisk: %w", err)
	}
	defer f.Close()
	value := 0
	if readOnly {
		value = 1
	}
	return os.NewSyscallError("BLKROSET", unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, value))
}
