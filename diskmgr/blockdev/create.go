package blockdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ashlar"
)

// Create makes a regular file of the given size that stands for a device, with
// mode 0600, and makes its name durable. A file that is not sparse is allocated
// in full, so that no later write can meet a full file system; it reads as
// zeros. Kinds: Exists, Full, Denied, Invalid (size), Internal. On failure no
// file is left behind.
func Create(path string, bytes int64, sparse bool) error {
	const op = "blockdev: create"
	if bytes <= 0 || bytes%BlockBytesMin != 0 {
		return ashlar.E(op, path, ashlar.Invalid, fmt.Errorf("size %d: want a positive multiple of %d", bytes, BlockBytesMin))
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return ashlar.E(op, path, ashlar.Exists, err)
	}
	if err != nil {
		return ashlar.E(op, path, openKind(err), err)
	}
	err = file.Truncate(bytes)
	if err == nil && !sparse {
		err = allocate(file, bytes)
	}
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = syncParent(path)
	}
	if err != nil {
		os.Remove(path)
		kind := openKind(err)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EFBIG) || errors.Is(err, unix.EDQUOT) {
			kind = ashlar.Full
		}
		return ashlar.E(op, path, kind, err)
	}
	return nil
}

func allocate(file *os.File, bytes int64) error {
	for {
		if err := unix.Fallocate(int(file.Fd()), 0, 0, bytes); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func syncParent(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
