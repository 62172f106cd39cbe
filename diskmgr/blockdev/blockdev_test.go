package blockdev_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/blockdev/looptest"
)

const size = 8 * ashlar.MiB

// wantKind fails the test unless err is of the kind.
func wantKind(t *testing.T, err error, kind ashlar.Kind) {
	t.Helper()
	if !ashlar.Is(err, kind) {
		t.Fatalf("got error %v of kind %v, want kind %v", err, ashlar.KindOf(err), kind)
	}
}

func file(t *testing.T, sparse bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := blockdev.Create(path, size, sparse); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string) *blockdev.Device {
	t.Helper()
	d, err := blockdev.OpenWith(path, blockdev.Options{Engine: engine(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if d.Engine() != engine(t) {
		t.Fatalf("the engine is %s, want %s", d.Engine(), engine(t))
	}
	return d
}

// engine is the one that the name of a subtest of onEngines asks for.
func engine(t *testing.T) blockdev.Engine {
	if strings.Contains(t.Name(), "/uring") {
		return blockdev.EngineUring
	}
	return blockdev.EnginePread
}

// onEngines runs the test with both engines.
func onEngines(t *testing.T, test func(t *testing.T)) {
	t.Run("pread", test)
	t.Run("uring", func(t *testing.T) {
		needUring(t)
		test(t)
	})
}

func needUring(t testing.TB) {
	t.Helper()
	if _, why, err := blockdev.Choose(blockdev.EngineUring); why != nil || err != nil {
		t.Skipf("this kernel gives no io_uring, so that engine is not tested: %v %v", why, err)
	}
}

// random returns n aligned random bytes.
func random(n int) []byte {
	b := blockdev.Aligned(n)
	rand.Read(b)
	return b
}

// onAll runs the test with both engines on every kind of device that this user
// can have.
func onAll(t *testing.T, test func(t *testing.T, path string)) {
	onEngines(t, func(t *testing.T) { onDevices(t, test) })
}

func onDevices(t *testing.T, test func(t *testing.T, path string)) {
	t.Run("preallocated", func(t *testing.T) { test(t, file(t, false)) })
	t.Run("sparse", func(t *testing.T) { test(t, file(t, true)) })
	for _, logical := range []uint32{512, 4096} {
		t.Run(fmt.Sprintf("loop%d", logical), func(t *testing.T) {
			path, _ := looptest.Device(t, size, logical)
			test(t, path)
		})
	}
}

func TestWrittenBytesAreThereAfterReopening(t *testing.T) {
	onAll(t, func(t *testing.T, path string) {
		d := open(t, path)
		if d.Bytes() != size || d.BlockBytes() != 4096 || !d.Direct() {
			t.Fatalf("bytes %d, block %d, direct %v", d.Bytes(), d.BlockBytes(), d.Direct())
		}
		first, last := random(64*ashlar.KiB), random(4096)
		for off, p := range map[int64][]byte{4096: first, size - 4096: last} {
			if n, err := d.WriteAt(p, off); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := d.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = open(t, path)
		for off, want := range map[int64][]byte{4096: first, size - 4096: last} {
			got := blockdev.Aligned(len(want))
			if n, err := d.ReadAt(got, off); n != len(got) || err != nil {
				t.Fatal(n, err)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("bytes at %d changed", off)
			}
		}
	})
}

func TestUnalignedAndOutsideIsInvalid(t *testing.T) {
	onAll(t, func(t *testing.T, path string) {
		d := open(t, path)
		whole := blockdev.Aligned(8192)
		for name, c := range map[string]struct {
			p   []byte
			off int64
		}{
			"offset":      {whole[:4096], 512},
			"length":      {whole[:512], 0},
			"buffer":      {whole[8:4104], 0},
			"beyond":      {whole[:4096], size},
			"across end":  {whole, size - 4096},
			"negative":    {whole[:4096], -4096},
			"overflowing": {whole, 1<<63 - 4096},
		} {
			_, err := d.WriteAt(c.p, c.off)
			if !ashlar.Is(err, ashlar.Invalid) {
				t.Errorf("write, %s: %v", name, err)
			}
			if _, err = d.ReadAt(c.p, c.off); !ashlar.Is(err, ashlar.Invalid) {
				t.Errorf("read, %s: %v", name, err)
			}
		}
		wantKind(t, d.Discard(0, 100), ashlar.Invalid)
		wantKind(t, d.Discard(size, 4096), ashlar.Invalid)
	})
}

func TestSecondOpenIsBusyAndNamesTheHolder(t *testing.T) {
	onDevices(t, func(t *testing.T, path string) {
		d := open(t, path)
		_, err := blockdev.Open(path)
		wantKind(t, err, ashlar.Busy)
		if !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
			t.Errorf("the holder is not named: %v", err)
		}
		reader, err := blockdev.OpenReadOnly(path)
		if err != nil {
			t.Fatalf("a look must not need the lock: %v", err)
		}
		defer reader.Close()
		_, err = reader.WriteAt(blockdev.Aligned(4096), 0)
		wantKind(t, err, ashlar.Denied)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		open(t, path)
	})
}

// TestHelperHold is run in a child process: it holds the device until its
// standard input ends.
func TestHelperHold(t *testing.T) {
	path := os.Getenv("BLOCKDEV_TEST_HOLD")
	if path == "" {
		return // an ordinary run: there is nothing to hold
	}
	open(t, path)
	fmt.Println("held")
	os.Stdin.Read(make([]byte, 1))
}

func TestKilledHolderLetsGo(t *testing.T) {
	onDevices(t, func(t *testing.T, path string) {
		child := exec.Command(os.Args[0], "-test.run=^TestHelperHold$")
		child.Env = append(os.Environ(), "BLOCKDEV_TEST_HOLD="+path)
		stdin, err := child.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		stdout, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		ended := false
		t.Cleanup(func() {
			if !ended {
				child.Process.Kill()
				child.Wait()
			}
		})
		line := make([]byte, 4)
		if _, err := stdout.Read(line); err != nil || string(line) != "held" {
			t.Fatalf("the child said %q: %v", line, err)
		}
		_, err = blockdev.Open(path)
		wantKind(t, err, ashlar.Busy)
		if !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", child.Process.Pid)) {
			t.Errorf("the holder is not named: %v", err)
		}
		child.Process.Signal(syscall.SIGKILL)
		child.Wait()
		ended = true
		open(t, path)
	})
}

func TestMountedDeviceIsBusyAndNamesTheMount(t *testing.T) {
	path, _ := looptest.Device(t, 16*ashlar.MiB, 512)
	if out, err := exec.Command("mkfs.ext4", "-q", path).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4 is not to be had, so nothing can be mounted: %v %s", err, out)
	}
	at := t.TempDir()
	if err := unix.Mount(path, at, "ext4", 0, ""); err != nil {
		t.Skipf("this machine does not let tests mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	})
	_, err := blockdev.Open(path)
	wantKind(t, err, ashlar.Busy)
	if !strings.Contains(err.Error(), "mounted at "+at) {
		t.Errorf("the mount is not named: %v", err)
	}
}

func TestOpenRefusesWhatIsNoDevice(t *testing.T) {
	_, err := blockdev.Open(filepath.Join(t.TempDir(), "absent"))
	wantKind(t, err, ashlar.NotFound)
	_, err = blockdev.Open("/dev/null")
	wantKind(t, err, ashlar.Invalid)
	_, err = blockdev.Open(t.TempDir())
	wantKind(t, err, ashlar.Invalid)
}

func TestDiscardKeepsTheAllocationOfAFullFile(t *testing.T) {
	blocks := func(path string) int64 {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	full := file(t, false)
	if got := blocks(full); got < size {
		t.Fatalf("a preallocated file has %d of %d bytes", got, size)
	}
	if err := open(t, full).Discard(0, size); err != nil {
		t.Fatal(err)
	}
	if got := blocks(full); got < size {
		t.Errorf("discard gave away the space of a preallocated file: %d of %d bytes left", got, size)
	}

	sparse := file(t, true)
	d := open(t, sparse)
	if _, err := d.WriteAt(random(ashlar.MiB), 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(0, size); err != nil {
		t.Fatal(err)
	}
	if got := blocks(sparse); got >= ashlar.MiB {
		t.Errorf("discard left %d bytes allocated in a sparse file", got)
	}
}

func TestDiscardReachesALoopDevice(t *testing.T) {
	path, backing := looptest.Device(t, size, 4096)
	d := open(t, path)
	if _, err := d.WriteAt(random(ashlar.MiB), 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Flush(), d.Discard(0, ashlar.MiB), d.Flush()); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(backing, &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks*512 >= ashlar.MiB {
		t.Errorf("%d bytes are still allocated under the device", st.Blocks*512)
	}
}

func TestWriteAfterSetReadOnlyIsUnavailable(t *testing.T) {
	path, _ := looptest.Device(t, size, 512)
	d := open(t, path)
	control, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	if err := unix.IoctlSetPointerInt(int(control.Fd()), unix.BLKROSET, 1); err != nil {
		t.Fatal(err)
	}
	// The mark would outlive the loop device and meet its next user.
	defer unix.IoctlSetPointerInt(int(control.Fd()), unix.BLKROSET, 0)
	_, err = d.WriteAt(blockdev.Aligned(4096), 0)
	wantKind(t, err, ashlar.Unavailable)
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EROFS) {
		t.Errorf("the cause is lost: %v", err)
	}
	if _, err = d.ReadAt(blockdev.Aligned(4096), 0); err != nil {
		t.Errorf("reads must go on: %v", err)
	}
}

func TestCreateRefusesAndLeavesNothingBehind(t *testing.T) {
	path := file(t, true)
	wantKind(t, blockdev.Create(path, size, true), ashlar.Exists)
	odd := filepath.Join(t.TempDir(), "odd")
	wantKind(t, blockdev.Create(odd, 1000, true), ashlar.Invalid)
	wantKind(t, blockdev.Create(odd, 1<<62, false), ashlar.Full)
	if _, err := os.Stat(odd); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was left behind: %v", err)
	}
}

func TestRangeReachesItsOwnBytesOnly(t *testing.T) {
	d := open(t, file(t, true))
	r, err := blockdev.NewRange(d, ashlar.MiB, 2*ashlar.MiB, 8192)
	if err != nil {
		t.Fatal(err)
	}
	if r.Bytes() != 2*ashlar.MiB || r.BlockBytes() != 8192 {
		t.Fatal(r.Bytes(), r.BlockBytes())
	}
	want := random(8192)
	if _, err := r.WriteAt(want, r.Bytes()-8192); err != nil {
		t.Fatal(err)
	}
	got := blockdev.Aligned(8192)
	if _, err := d.ReadAt(got, 3*ashlar.MiB-8192); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the range lies elsewhere: %v", err)
	}
	for _, off := range []int64{-8192, r.Bytes(), 4096} {
		_, err := r.WriteAt(want, off)
		wantKind(t, err, ashlar.Invalid)
	}
	wantKind(t, r.Discard(0, r.Bytes()+8192), ashlar.Invalid)
	for _, bad := range [][3]int64{{0, size + 4096, 4096}, {4096, 4096, 8192}, {0, 4096, 512}} {
		_, err := blockdev.NewRange(d, bad[0], bad[1], int(bad[2]))
		wantKind(t, err, ashlar.Invalid)
	}
}

func TestFaultKillsAndRevives(t *testing.T) {
	var f blockdev.Fault
	d := f.Wrap(open(t, file(t, true)))
	buf := blockdev.Aligned(4096)
	use := func() []error {
		_, read := d.ReadAt(buf, 0)
		_, write := d.WriteAt(buf, 0)
		return []error{read, write, d.Flush(), d.Discard(0, 4096)}
	}
	for _, err := range use() {
		if err != nil {
			t.Fatal(err)
		}
	}
	f.Kill()
	for _, err := range use() {
		wantKind(t, err, ashlar.Unavailable)
		if !errors.Is(err, unix.EIO) {
			t.Fatalf("not EIO: %v", err)
		}
	}
	f.Revive()
	for _, err := range use() {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestPoolIsBoundedAndAligned(t *testing.T) {
	const count = 4
	p, err := blockdev.NewPool(64*ashlar.KiB, count)
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, file(t, true))
	var out [][]byte
	for range count {
		b, err := p.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.WriteAt(b, 0); err != nil {
			t.Fatalf("the device does not take a buffer of the pool: %v", err)
		}
		out = append(out, b)
	}
	if _, ok := p.TryGet(); ok {
		t.Fatal("a fifth buffer of four")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = p.Get(ctx)
	wantKind(t, err, ashlar.Busy)
	wantKind(t, p.Close(), ashlar.Busy)
	for _, b := range out {
		p.Put(b[:100])
	}
	for name, bad := range map[string][]byte{"twice": out[0], "foreign": blockdev.Aligned(4096), "inside": out[1][4096:]} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("put %s: no panic", name)
				}
			}()
			p.Put(bad)
		}()
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = p.Get(t.Context())
	wantKind(t, err, ashlar.Unavailable)
}

func TestPoolNeverGivesOneBufferToTwo(t *testing.T) {
	p, err := blockdev.NewPool(4096, 3)
	if err != nil {
		t.Fatal(err)
	}
	var users sync.WaitGroup
	for user := range byte(8) {
		users.Go(func() {
			for range 500 {
				b, err := p.Get(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				for i := range b {
					b[i] = user
				}
				if bytes.Count(b, []byte{user}) != len(b) {
					t.Errorf("another user wrote into the buffer of %d", user)
				}
				p.Put(b)
			}
		})
	}
	users.Wait()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

// A child process forked between our close and our open holds the old
// descriptor until it execs: that must not look like another owner.
func TestReopenWhileOthersFork(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := blockdev.Create(path, 1*ashlar.MiB, true); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var forks sync.WaitGroup
	for range 2 {
		forks.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					if err := exec.Command("true").Run(); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for i := range 300 {
		d, err := blockdev.Open(path)
		if err != nil {
			t.Errorf("open %d: %v", i, err)
			break
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	close(done)
	forks.Wait()
}
