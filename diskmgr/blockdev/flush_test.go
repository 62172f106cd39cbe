package blockdev_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/blockdev/looptest"
)

// liar is the one file of a FUSE file system: bytes in memory, and an fsync that
// fails as often as it is told to and then claims that all is well, as a real
// kernel does after it has dropped what it could not write.
type liar struct {
	fs.Inode
	mu      sync.Mutex
	bytes   []byte
	fail    atomic.Int32
	flushes atomic.Int32
	broken  atomic.Bool              // reads and writes fail with EIO
	hang    atomic.Pointer[chan int] // reads, writes and flushes wait for its closing
	hung    atomic.Int32             // how many have
}

// pass is in front of every operation: it waits while the device hangs.
func (f *liar) pass() syscall.Errno {
	if gate := f.hang.Load(); gate != nil {
		f.hung.Add(1)
		<-*gate
	}
	if f.broken.Load() {
		return syscall.EIO
	}
	return 0
}

func (f *liar) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blocks = 0o600, uint64(len(f.bytes)), uint64(len(f.bytes)/512)
	return 0
}

func (f *liar) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *liar) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if errno := f.pass(); errno != 0 {
		return nil, errno
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := copy(dest, f.bytes[min(off, int64(len(f.bytes))):])
	return fuse.ReadResultData(dest[:n]), 0
}

func (f *liar) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if errno := f.pass(); errno != 0 {
		return 0, errno
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return uint32(copy(f.bytes[off:], data)), 0
}

func (f *liar) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	f.flushes.Add(1)
	if gate := f.hang.Load(); gate != nil {
		f.hung.Add(1)
		<-*gate
	}
	if f.fail.Add(-1) >= 0 {
		return syscall.EIO
	}
	return 0
}

// mountLiar returns the file and its path.
func mountLiar(t *testing.T) (*liar, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: no FUSE file system can be mounted, so no real flush can be made to fail")
	}
	file := &liar{bytes: make([]byte, size)}
	root := &fs.Inode{}
	dir := t.TempDir()
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "ashlar-test"},
		OnAdd: func(ctx context.Context) {
			root.AddChild("disk", root.NewPersistentInode(ctx, file, fs.StableAttr{Mode: fuse.S_IFREG}), false)
		},
	})
	if err != nil {
		t.Skipf("this machine does not let tests mount FUSE: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return file, filepath.Join(dir, "disk")
}

// TestAFailedFlushFences is faults.md case 8 at the bottom: the kernel reports
// the lost write once and calls the next flush a success; the Device does not.
func TestAFailedFlushFences(t *testing.T) {
	for _, kind := range []string{"file", "loop", "file/uring", "loop/uring"} {
		t.Run(kind, func(t *testing.T) {
			if engine(t) == blockdev.EngineUring {
				needUring(t)
			}
			file, path := mountLiar(t)
			if strings.HasPrefix(kind, "loop") {
				path = looptest.Attach(t, path, 4096)
			}
			d := open(t, path)
			if _, err := d.WriteAt(random(4096), 0); err != nil {
				t.Fatal(err)
			}
			if err := d.Flush(); err != nil {
				t.Fatal(err)
			}
			file.fail.Store(1)
			err := d.Flush()
			wantKind(t, err, ashlar.Unavailable)
			if !errors.Is(err, syscall.EIO) {
				t.Fatalf("the cause is lost: %v", err)
			}
			flushes := file.flushes.Load()
			wantKind(t, d.Flush(), ashlar.Unavailable)
			_, err = d.WriteAt(random(4096), 0)
			wantKind(t, err, ashlar.Unavailable)
			wantKind(t, d.Discard(0, 4096), ashlar.Unavailable)
			if file.flushes.Load() != flushes {
				t.Error("a fenced device was asked to flush again")
			}
			if _, err := d.ReadAt(blockdev.Aligned(4096), 0); err != nil {
				t.Errorf("a fenced device must still be read: %v", err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if err := open(t, path).Flush(); err != nil {
				t.Errorf("opened again, the device flushes: %v", err)
			}
		})
	}
}
