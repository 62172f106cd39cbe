package notify

import (
	"context"
	"log/slog"
	"os"
)

// Service tells systemd that this process is ready, with a line of status, and
// feeds the watchdog while healthy says so, until the returned function is
// called; that one says that the service is on its way down. Notifications that
// fail are logged: a service must not die of an unheard greeting.
func Service(log *slog.Logger, status string, healthy func() bool) (stopping func()) {
	warn := func(err error) {
		if err != nil {
			log.Warn("systemd was not told", "cause", err)
		}
	}
	n, err := FromEnv(os.Getenv)
	warn(err)
	warn(n.Status(status))
	warn(n.Ready())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends when stopping is called
		defer close(done)
		warn(n.Watch(ctx, healthy))
	}()
	return func() {
		cancel()
		<-done
		warn(n.Stopping())
	}
}

// Status returns what shows a line of status, for a start that takes its time.
func Status(log *slog.Logger) func(text string) {
	n, err := FromEnv(os.Getenv)
	if err != nil {
		return func(string) {} // Service says so
	}
	return func(text string) {
		if err := n.Status(text); err != nil {
			log.Warn("systemd was not told", "cause", err)
		}
	}
}
