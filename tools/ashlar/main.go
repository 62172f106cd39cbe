// Command ashlar is the one binary of the object store: the services, the
// development cluster, and the tools of whoever runs them.
//
// It is wiring. Each command has its file; the services are functions in their
// rooms. Exit codes: 0 ok, 1 failed, 2 usage, 3 refused for safety, 5 timed out waiting,
// 10 degraded and 11 data at risk (status --check), 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"ashlar/bench"
	"ashlar/tools/inspect"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	os.Exit(exitCode(err))
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "ashlar",
		Short:         "S3-compatible object storage that owns its disks and can be checked",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(daemonCommand(), placementCommand(), gatewayCommand(), devCommand(), statusCommand(),
		diskCommand(), bucketCommand(), userCommand(), keyCommand(), policyCommand(), shardCommand(), backupCommand(), restoreCommand(), smartCommand(), gcCommand(), notifyCommand(), traceCommand(), inspect.Command(), bench.Command(), versionCommand())
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return withCode(exitUsage, err) })
	return cmd
}

const (
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 3
	exitTimedOut    = 5
	exitDegraded    = 10
	exitAtRisk      = 11
	exitInterrupted = 130
)

// codedError carries the exit code that a failure ends with.
type codedError struct {
	code int
	err  error
}

func withCode(code int, err error) error { return &codedError{code, err} }

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// exitCode prints the error and says how the process ends.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	if msg := err.Error(); msg != "" {
		fmt.Fprintln(os.Stderr, "ashlar:", msg)
	}
	var coded *codedError
	if errors.As(err, &coded) {
		return coded.code
	}
	return exitFailed
}
