package network

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// silence is how long a cut link is listened to. Whatever the machine does, a
// link that is cut stays silent.
const silence = 300 * time.Millisecond

const patience = 20 * time.Second

func newNetwork(t *testing.T, names ...string) *Network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	n, err := New(names...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// between connects two nodes and returns the ends of the connection.
func between(t *testing.T, n *Network, from, to string) (a, b net.Conn) {
	t.Helper()
	var l net.Listener
	var err error
	enter(t, n, to, func() { l, err = net.Listen("tcp", n.IP(to)+":0") })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	enter(t, n, from, func() { a, err = net.DialTimeout("tcp", l.Addr().String(), patience) })
	if err != nil {
		t.Fatal(err)
	}
	b = <-accepted
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func enter(t *testing.T, n *Network, name string, f func()) {
	t.Helper()
	if err := n.Enter(name, f); err != nil {
		t.Fatal(err)
	}
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func arrives(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("got %q and %v, want %q", b, err, want)
	}
}

func silent(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(silence))
	if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes and %v came over a link that is cut", n, err)
	}
}

// TestCut cuts one direction of a connection that stands, then the other one,
// and mends both: nothing is lost that TCP would not lose.
func TestCut(t *testing.T) {
	n := newNetwork(t, "a", "b", "c")
	for _, ends := range [][2]string{{"a", "b"}, {Outside, "c"}} {
		t.Run(ends[0]+"-"+ends[1], func(t *testing.T) {
			a, b := between(t, n, ends[0], ends[1])
			send(t, a, "one")
			arrives(t, b, "one")
			do(t, n.Cut(ends[0], ends[1]))
			send(t, a, "two")
			silent(t, b)
			send(t, b, "back") // the other direction is whole
			arrives(t, a, "back")
			do(t, n.Cut(ends[1], ends[0]))
			send(t, b, "more")
			silent(t, a)
			do(t, n.MendAll())
			arrives(t, b, "two")
			arrives(t, a, "more")
		})
	}
}

// TestCutHangs dials over a cut: no answer comes, not even a refusal.
func TestCutHangs(t *testing.T) {
	n := newNetwork(t, "a", "b")
	do(t, n.Cut("b", "a")) // what is lost is the answer
	var err error
	enter(t, n, "a", func() { _, err = net.DialTimeout("tcp", n.IP("b")+":9", silence) })
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%v, want a time-out", err)
	}
	do(t, n.Mend("b", "a"))
	enter(t, n, "a", func() { _, err = net.DialTimeout("tcp", n.IP("b")+":9", patience) })
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v, want a refusal: nobody listens there", err)
	}
	if n.Cut("a", "nobody") == nil || n.Cut("a", "a") == nil {
		t.Error("cut what is not there")
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestCloseLeavesNothing counts this machine's interfaces.
func TestCloseLeavesNothing(t *testing.T) {
	n := newNetwork(t, "a")
	up := n.uplink
	n.Close()
	if _, err := net.InterfaceByName(up); err == nil {
		t.Error(fmt.Errorf("interface %s is left", up))
	}
}
