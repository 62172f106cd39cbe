package segmenttest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"ashlar/segment"
)

// File is a Device over a file or a block device, opened with O_DIRECT.
type File struct {
	f     *os.File
	bytes int64
	block int
}

// TempFile makes a file of that length, written through once, in a directory
// that the test removes.
func TempFile(t testing.TB, bytes int64) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, bytes); err != nil {
		t.Fatal(err)
	}
	return OpenFile(t, path, bytes)
}

// OpenFile opens path as a device of that length. The test closes it.
func OpenFile(t testing.TB, path string, bytes int64) *File {
	t.Helper()
	d, err := NewFile(path, bytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.f.Close() })
	return d
}

// NewFile is OpenFile outside a test; the process's end closes it.
func NewFile(path string, bytes int64) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	return &File{f: f, bytes: bytes, block: 4096}, nil
}

// ReadAt is part of segment.Device.
func (d *File) ReadAt(p []byte, off int64) (int, error) {
	if err := d.check(p, off); err != nil {
		return 0, err
	}
	n, err := d.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// WriteAt is part of segment.Device.
func (d *File) WriteAt(p []byte, off int64) (int, error) {
	if err := d.check(p, off); err != nil {
		return 0, err
	}
	return d.f.WriteAt(p, off)
}

func (d *File) check(p []byte, off int64) error {
	if off < 0 || off+int64(len(p)) > d.bytes {
		return fmt.Errorf("range [%d, %d) beyond the device", off, off+int64(len(p)))
	}
	return nil
}

// Flush is part of segment.Device.
func (d *File) Flush() error { return unix.Fdatasync(int(d.f.Fd())) }

// Discard is part of segment.Device. It does nothing.
func (d *File) Discard(off, length int64) error { return nil }

// Bytes is part of segment.Device.
func (d *File) Bytes() int64 { return d.bytes }

// BlockBytes is part of segment.Device.
func (d *File) BlockBytes() int { return d.block }

var _ segment.Device = (*File)(nil)

// Loop makes a file of that length, written through once, and a loop device
// over it by attach, which is looptest.Attach.
func Loop(t testing.TB, bytes int64, attach func(t testing.TB, file string, logical uint32) string) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "backing")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zeros := make([]byte, 1<<20) // written once: unwritten extents make every flush a journal commit
	for off := int64(0); off < bytes; off += int64(len(zeros)) {
		if _, err := f.Write(zeros[:min(int64(len(zeros)), bytes-off)]); err != nil {
			t.Fatal(err)
		}
	}
	return OpenFile(t, attach(t, path, 4096), bytes)
}

// Misalignment is how far the first multiple of block in memory lies behind
// the start of p: what must be cut off in front of a device's buffer.
func Misalignment(p []byte, block int) int {
	return -int(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) & (block - 1)
}
