package diskmgr

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"ashlar"
)

// ueventBytesMax is more than the kernel puts into one message.
const ueventBytesMax = 16 * ashlar.KiB

// Plug is a message of the kernel: a block device came, went or changed.
type Plug struct {
	Action string // add, remove or change
	Name   string // of the kernel: sdb, sdb1
}

// WatchPlugs calls changed after each message about a block device, until ctx
// ends, and listening, if not nil, once before the first: nothing that happens
// from then on is missed. It listens to the kernel's own messages, so no udev is
// needed; under load some may be lost, of which a Plug without a name tells, and
// in a container there may be none, so the caller looks by itself now and then.
// Kinds: Denied, Unavailable.
func WatchPlugs(ctx context.Context, listening func(), changed func(Plug)) error {
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
	if listening != nil {
		listening()
	}
	buf := make([]byte, ueventBytesMax)
	for {
		n, err := socket.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // some were lost
			changed(Plug{})
		case err != nil:
			return ashlar.E(op, "", ashlar.Unavailable, err)
		default:
			if p, ok := plugged(buf[:n]); ok {
				changed(p)
			}
		}
	}
}

// plugged reads a message about a block device that came, went or changed, its
// size for example. A message is "action@path" and then KEY=value, each ended by
// a zero byte.
func plugged(message []byte) (p Plug, ok bool) {
	head, rest, _ := bytes.Cut(message, []byte{0})
	action, where, found := bytes.Cut(head, []byte("@"))
	switch p.Action = string(action); p.Action {
	case "add", "remove", "change":
	default:
		return Plug{}, false
	}
	p.Name = path.Base(string(where))
	for _, field := range bytes.Split(rest, []byte{0}) {
		ok = ok || found && string(field) == "SUBSYSTEM=block"
	}
	return p, ok
}
