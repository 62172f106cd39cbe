package diskmgr

import (
	"bytes"
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"ashlar"
)

// ueventBytesMax is more than the kernel puts into one message.
const ueventBytesMax = 16 * ashlar.KiB

// WatchPlugs calls changed after block devices came or went, until ctx ends. It
// listens to the kernel's own messages, so no udev is needed; messages may be
// lost under load, and in a container there may be none, so the caller looks by
// itself now and then. Kinds: Denied, Unavailable.
func WatchPlugs(ctx context.Context, changed func()) error {
	const op = "diskmgr: uevents"
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return ashlar.E(op, "", ashlar.Unavailable, err)
	}
	socket := os.NewFile(uintptr(fd), "uevents") // in the poller: closing ends a Read
	defer socket.Close()
	const kernel = 1 // the group of the kernel's messages, in contrast to udev's
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernel}); err != nil {
		kind := ashlar.Unavailable
		if errors.Is(err, os.ErrPermission) {
			kind = ashlar.Denied
		}
		return ashlar.E(op, "", kind, err)
	}
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	buf := make([]byte, ueventBytesMax)
	for {
		n, err := socket.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // some were lost
			changed()
		case err != nil:
			return ashlar.E(op, "", ashlar.Unavailable, err)
		case plugged(buf[:n]):
			changed()
		}
	}
}

// plugged reports whether the message says that a block device came, went or
// changed its size. A message is "action@path" and then KEY=value, each ended by a
// zero byte.
func plugged(message []byte) bool {
	head, rest, _ := bytes.Cut(message, []byte{0})
	action, _, ok := bytes.Cut(head, []byte("@"))
	if !ok {
		return false
	}
	switch string(action) {
	case "add", "remove", "change":
	default:
		return false
	}
	for _, field := range bytes.Split(rest, []byte{0}) {
		if string(field) == "SUBSYSTEM=block" {
			return true
		}
	}
	return false
}
