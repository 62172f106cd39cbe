package placement

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"ashlar"
)

// HoldPort reserves a free loopback port without listening on it, so that
// members that must know one another's ports beforehand (a whole cluster in one
// process) can be told them. While it is held nobody else is given the port,
// but members with Config.SharePorts may listen on it, again and again. Release
// gives the port up; call it once.
func HoldPort() (addr string, release func(), err error) {
	const op = "placement: hold port"
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", nil, ashlar.E(op, "", ashlar.Internal, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return "", nil, ashlar.E(op, "", ashlar.Internal, err)
	}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback.As4()}); err != nil {
		return "", nil, ashlar.E(op, "", ashlar.Busy, err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "", nil, ashlar.E(op, "", ashlar.Internal, err)
	}
	in4, ok := sa.(*unix.SockaddrInet4)
	if !ok {
		return "", nil, ashlar.E(op, "", ashlar.Internal, fmt.Errorf("bound to %T", sa))
	}
	return netip.AddrPortFrom(loopback, uint16(in4.Port)).String(), func() { unix.Close(fd) }, nil
}

// listen opens the gRPC listener; share lets it have a port that is held.
func listen(addr string, share bool) (net.Listener, error) {
	var lc net.ListenConfig
	if share {
		lc.Control = func(_, _ string, c syscall.RawConn) error {
			var err error
			if cerr := c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}); cerr != nil {
				return cerr
			}
			return err
		}
	}
	return lc.Listen(context.Background(), "tcp", addr)
}
