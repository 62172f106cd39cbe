package blockdev

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"ashlar"
)

// openKind maps the cause of a failed open to a kind.
func openKind(err error) ashlar.Kind {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOMEDIUM):
		return ashlar.NotFound
	case errors.Is(err, os.ErrPermission), errors.Is(err, unix.EROFS):
		return ashlar.Denied
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EWOULDBLOCK):
		return ashlar.Busy
	case errors.Is(err, unix.EINVAL):
		return ashlar.Invalid
	default:
		return ashlar.Internal
	}
}

func openError(op, path string, err error) error {
	kind := openKind(err)
	if kind == ashlar.Busy {
		err = fmt.Errorf("in use by %s: %w", Holder(path), err)
	}
	return ashlar.E(op, path, kind, err)
}

// ioKind maps the cause of failed I/O to a kind: a full file system under a
// sparse file is Full, everything else means that the device does not serve.
func ioKind(err error) ashlar.Kind {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return ashlar.Full
	case errors.Is(err, unix.EINVAL):
		return ashlar.Invalid
	default:
		return ashlar.Unavailable
	}
}
