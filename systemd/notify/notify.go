// Package notify tells systemd how a service is doing: ready, reloading,
// stopping, alive, and one line of status for people.
//
// The protocol is sd_notify(3): one datagram of KEY=VALUE lines to the socket
// that NOTIFY_SOCKET names. Without that variable every call does nothing and
// succeeds, so that a service runs the same from a shell, in a test and under
// `ashlar dev`. Calls do not block: systemd reads the socket, and a datagram
// that it does not take within sendTimeout is an error.
//
//	n, err := notify.FromEnv(os.Getenv)
//	go n.Watch(ctx, healthy)   // ends with ctx
//	n.Status("recovering disk 3 of 12")
//	n.Ready()
//
// It imports the standard library only, not even the vocabulary: a service that
// cannot notify has nobody to tell, so its errors have no kinds.
package notify

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// sendTimeout bounds one notification.
const sendTimeout = 2 * time.Second

// Notifier sends notifications. The nil Notifier and the zero one send nothing.
// It is safe for concurrent use.
type Notifier struct {
	socket   *net.UnixAddr
	watchdog time.Duration
}

// FromEnv reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID by way of getenv,
// which is os.Getenv but in tests. If one of them makes no sense, that is an
// error, and the Notifier returned with it sends nothing.
func FromEnv(getenv func(string) string) (*Notifier, error) {
	n := &Notifier{}
	name := getenv("NOTIFY_SOCKET")
	if name == "" {
		return n, nil
	}
	if name[0] != '/' && name[0] != '@' {
		return n, invalid("NOTIFY_SOCKET", name)
	}
	// The net package writes an abstract address with @, as the variable does.
	socket := &net.UnixAddr{Name: name, Net: "unixgram"}
	if usec := getenv("WATCHDOG_USEC"); usec != "" && watchesMe(getenv("WATCHDOG_PID")) {
		v, err := strconv.ParseInt(usec, 10, 64)
		if err != nil || v <= 0 || v > int64(time.Hour*24*365/time.Microsecond) {
			return n, invalid("WATCHDOG_USEC", usec)
		}
		n.watchdog = time.Duration(v) * time.Microsecond
	}
	n.socket = socket
	return n, nil
}

func invalid(name, value string) error {
	return fmt.Errorf("notify: environment: %s=%q makes no sense", name, value)
}

// watchesMe reports whether the watchdog is meant for this process and not for
// one that it inherited the variable from.
func watchesMe(pid string) bool { return pid == "" || pid == strconv.Itoa(os.Getpid()) }

// Ready says that the service serves. systemd starts what comes after it.
func (n *Notifier) Ready() error { return n.send("READY=1") }

// Stopping says that the service is on its way down.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Status sets the line that systemctl status shows. A line break ends it.
func (n *Notifier) Status(text string) error {
	line, _, _ := strings.Cut(text, "\n")
	return n.send("STATUS=" + line)
}

// Alive feeds the watchdog once. Watch does it by itself.
func (n *Notifier) Alive() error { return n.send("WATCHDOG=1") }

// Interval is how often the watchdog wants to be fed: half of the time after
// which systemd kills. Zero means that nobody watches.
func (n *Notifier) Interval() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog / 2
}

// Watch feeds the watchdog until ctx ends, whenever healthy returns true. Healthy
// must prove that the service makes progress, within the interval: a watchdog
// that is fed by a timer alone watches the timer. It returns at once if nobody
// watches, nil when ctx ends, and the error of a failed notification.
func (n *Notifier) Watch(ctx context.Context, healthy func() bool) error {
	interval := n.Interval()
	if interval == 0 {
		return nil
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if healthy() {
			if err := n.Alive(); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Notifier) send(message string) error {
	if n == nil || n.socket == nil {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, n.socket)
	if err != nil {
		return fmt.Errorf("notify: send %s: %w", message, err)
	}
	defer conn.Close()
	err = conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	if err == nil {
		_, err = conn.Write([]byte(message))
	}
	if err != nil {
		return fmt.Errorf("notify: send %s: %w", message, err)
	}
	return nil
}
