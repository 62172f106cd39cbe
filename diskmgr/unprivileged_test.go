package diskmgr_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ashlar"
	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/blockdev/looptest"
)

// nobody is a user without any right.
const nobody = 65534

// TestHelperClaim is run in a child process as an ordinary user.
func TestHelperClaim(t *testing.T) {
	path := os.Getenv("DISKMGR_TEST_CLAIM")
	if path == "" {
		return // an ordinary run: there is nothing to claim
	}
	if os.Geteuid() == 0 {
		t.Fatal("still root")
	}
	if os.Getenv("DISKMGR_TEST_DENIED") != "" {
		_, err := diskmgr.Claim(t.Context(), path, options())
		wantKind(t, err, ashlar.Denied)
		if f := discoverFile(t, path); f.State != diskmgr.NotOurs || !strings.Contains(f.Why, "run as root, or as an owner of "+path) {
			t.Fatalf("%v: %s", f.State, f.Why)
		}
		fmt.Println("denied")
		return
	}
	if f := discoverFile(t, path); f.State != diskmgr.Blank {
		t.Fatalf("%v: %s", f.State, f.Why)
	}
	d := claim(t, path, options())
	buf := blockdev.Aligned(4096)
	if _, err := d.Device().WriteAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Device().Flush(), d.Device().Discard(0, 4096), d.Close()); err != nil {
		t.Fatal(err)
	}
	d = reopen(t, path, diskmgr.OpenOptions{Cluster: ours})
	_, err := diskmgr.Open(path, diskmgr.OpenOptions{Cluster: ours})
	wantKind(t, err, ashlar.Busy)
	fmt.Printf("claimed %v direct=%v\n", d.Label().Geometry.Segments(), d.Direct())
}

// letIn lets other users into the test's own directory that holds path.
func letIn(t *testing.T, path string) {
	t.Helper()
	dir := filepath.Dir(path)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
}

// asNobody runs TestHelperClaim as the user nobody. The test program is copied,
// because where the go command puts it only its owner may look.
func asNobody(t *testing.T, path string, env ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "test")
	letIn(t, program)
	letIn(t, path)
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(program, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Close()); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestHelperClaim$")
	cmd.Dir = "/"
	cmd.Env = append([]string{"DISKMGR_TEST_CLAIM=" + path, "PATH=/usr/bin:/bin", "TMPDIR=/tmp"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("as nobody: %v\n%s", err, out)
	}
	return string(out)
}

func TestAnOwnerWithoutRootClaims(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: this test would give a device to another user; the other tests of this run are those of an owner without root")
	}
	device, _ := looptest.Device(t, diskBytes, 4096)
	// A node of our own: the machine's /dev stays as it is.
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		t.Fatal(err)
	}
	node := filepath.Join(t.TempDir(), filepath.Base(device))
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(st.Rdev)); err != nil {
		t.Fatal(err)
	}
	if out := asNobody(t, node, "DISKMGR_TEST_DENIED=1"); !strings.Contains(out, "denied") {
		t.Errorf("somebody else's device: %s", out)
	}
	file := blankFile(t)
	for _, path := range []string{node, file} {
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		if out := asNobody(t, path); !strings.Contains(out, fmt.Sprintf("claimed %d direct=true", diskSegments)) {
			t.Errorf("%s: %s", path, out)
		}
	}
}

// TestWithoutDirectIO claims a file on a file system that refuses O_DIRECT.
func TestWithoutDirectIO(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: no ramfs can be mounted, and no other file system here refuses O_DIRECT")
	}
	dir := t.TempDir()
	if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
		t.Skipf("this machine does not let tests mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	path := filepath.Join(dir, "disk")
	if err := blockdev.Create(path, diskBytes, true); err != nil {
		t.Fatal(err)
	}
	d := claim(t, path, options())
	t.Cleanup(func() { d.Close() })
	if d.Direct() {
		t.Error("ramfs cannot do direct I/O")
	}
	_, err := d.Device().WriteAt(blockdev.Aligned(4096)[:512], 0)
	wantKind(t, err, ashlar.Invalid) // the same alignment is asked for
	if _, err := d.Device().WriteAt(blockdev.Aligned(4096), 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Device().Flush(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if err := reopen(t, path, diskmgr.OpenOptions{Cluster: ours}).Close(); err != nil {
		t.Fatal(err)
	}
}
