package notify_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ashlar/systemd/notify"
)

// listen stands for systemd: it returns an environment and a way to take the
// next message.
func listen(t *testing.T, name string, more map[string]string) (getenv func(string) string, next func() string) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	env := map[string]string{"NOTIFY_SOCKET": name}
	for k, v := range more {
		env[k] = v
	}
	buf := make([]byte, 4096)
	return func(k string) string { return env[k] }, func() string {
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestEveryMessage(t *testing.T) {
	for name, socket := range map[string]string{
		"path": filepath.Join(t.TempDir(), "notify"), "abstract": "@ashlar-notify-test-" + strconv.Itoa(os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			getenv, next := listen(t, socket, nil)
			n, err := notify.FromEnv(getenv)
			if err != nil {
				t.Fatal(err)
			}
			for want, send := range map[string]func() error{
				"READY=1":                   n.Ready,
				"STOPPING=1":                n.Stopping,
				"WATCHDOG=1":                n.Alive,
				"STATUS=recovering 3 of 12": func() error { return n.Status("recovering 3 of 12\nREADY=1") },
			} {
				if err := send(); err != nil {
					t.Fatal(err)
				}
				if got := next(); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			if n.Interval() != 0 {
				t.Errorf("a watchdog out of nowhere: %v", n.Interval())
			}
		})
	}
}

func TestWithoutSystemdNothingHappens(t *testing.T) {
	n, err := notify.FromEnv(func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*notify.Notifier{n, nil} {
		for _, send := range []func() error{n.Ready, n.Stopping, n.Alive, func() error { return n.Status("x") },
			func() error { return n.Watch(t.Context(), func() bool { panic("nobody watches") }) }} {
			if err := send(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestWatchFeedsOnlyAHealthyService(t *testing.T) {
	getenv, next := listen(t, filepath.Join(t.TempDir(), "notify"), map[string]string{
		"WATCHDOG_USEC": "20000", "WATCHDOG_PID": strconv.Itoa(os.Getpid())})
	n, err := notify.FromEnv(getenv)
	if err != nil || n.Interval() != 10*time.Millisecond {
		t.Fatal(n.Interval(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	ended := make(chan error, 1)
	go func() {
		ended <- n.Watch(ctx, func() bool {
			asked++
			if asked == 5 {
				cancel()
			}
			return asked == 2 || asked == 4
		})
	}()
	for range 2 {
		if got := next(); got != "WATCHDOG=1" {
			t.Errorf("got %q", got)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	// Everything that Watch sent was in the socket before it ended; a sentinel
	// shows that nothing else was.
	if err := n.Stopping(); err != nil {
		t.Fatal(err)
	}
	if got := next(); got != "STOPPING=1" {
		t.Errorf("an unhealthy service fed the watchdog: %q", got)
	}
}

func TestWatchdogOfAnotherProcess(t *testing.T) {
	getenv, _ := listen(t, filepath.Join(t.TempDir(), "notify"), map[string]string{"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"})
	if n, err := notify.FromEnv(getenv); err != nil || n.Interval() != 0 {
		t.Errorf("%v %v", n.Interval(), err)
	}
}

func TestBadEnvironment(t *testing.T) {
	for _, env := range []map[string]string{
		{"NOTIFY_SOCKET": "relative/path"},
		{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"},
		{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "-1"},
	} {
		n, err := notify.FromEnv(func(k string) string { return env[k] })
		if err == nil || !strings.Contains(err.Error(), "makes no sense") {
			t.Errorf("%v: %v", env, err)
		}
		if err := n.Ready(); err != nil {
			t.Errorf("%v: a useless notifier must be silent: %v", env, err)
		}
	}
	n, err := notify.FromEnv(func(k string) string {
		return map[string]string{"NOTIFY_SOCKET": filepath.Join(t.TempDir(), "absent")}[k]
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Ready(); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("nobody listens: %v", err)
	}
}
