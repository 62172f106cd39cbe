package placement

import (
	"net"
	"testing"
)

// TestHoldPort: a held port is nobody else's; who shares it may listen on it,
// end, and listen again.
func TestHoldPort(t *testing.T) {
	addr, release, err := HoldPort()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if l, err := net.Listen("tcp", addr); err == nil {
		l.Close()
		t.Error("a stranger listens on a held port")
	}
	for range 2 {
		l, err := listen(addr, true)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", addr) // reaches the listener, not the holder
		if err != nil {
			t.Fatal(err)
		}
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		in.Close()
		conn.Close()
		l.Close()
	}
}
