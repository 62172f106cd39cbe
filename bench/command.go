// Package bench is the door to the benchmarks: the commands under `ashlar
// bench` and nothing else.
//
//	ashlar bench s3 put|get    load an S3 endpoint (package bench/s3)
//	ashlar bench keys DIR      fill a bucket with millions of keys and list it (package bench/keys)
//	ashlar bench segment PATH  measure the log on a blank device (package bench/segment)
//	ashlar bench rebuild PATH  rebuild a lost index from a device (package bench/segment)
//	ashlar bench compare A B   compare two saved reports (package bench/report)
//
// A command turns flags into the options of a library, prints its report, saves
// it, and maps its error to the exit status. Interrupted once, a run removes what
// it stored and reports what it measured until then; interrupted twice it ends at
// once and leaves its objects. No other package imports this one but the main.
package bench

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"ashlar/bench/report"
	"ashlar/diskmgr/blockdev"
)

// Command returns `bench` with its sub-commands, to be hung under the root.
func Command() *cobra.Command {
	root := &cobra.Command{
		Use:   "bench",
		Short: "Measure an S3 endpoint or a device, and compare measurements",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	s3 := &cobra.Command{Use: "s3", Short: "Load an S3 endpoint with puts or gets", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	s3.AddCommand(s3Command("put", "Store objects and measure"), s3Command("get", "Store a set of objects, read them and measure"))
	root.AddCommand(s3, keysCommand(), segmentCommand(), rebuildCommand(), compareCommand())
	return root
}

func compareCommand() *cobra.Command {
	var anyway bool
	c := &cobra.Command{
		Use:           "compare BEFORE.json AFTER.json",
		Short:         "Compare two saved reports, metric by metric, with the noise that their rounds show",
		Args:          cobra.ExactArgs(2),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(c *cobra.Command, args []string) error {
			before, err := report.Load(args[0])
			if err != nil {
				return err
			}
			after, err := report.Load(args[1])
			if err != nil {
				return err
			}
			if err := report.Compare(c.OutOrStdout(), before, after, anyway); err != nil {
				return fmt.Errorf("compare: %w (--anyway compares them all the same)", err)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&anyway, "anyway", false, "compare reports of different setups")
	return c
}

// chooseEngine returns the engine that is asked for; a measurement does not make do
// with another.
func chooseEngine(name string) (blockdev.Engine, error) {
	use, why, err := blockdev.Choose(blockdev.Engine(name))
	if err == nil && why != nil {
		err = fmt.Errorf("--engine %s: this kernel does not give it: %w", name, why)
	}
	return use, err
}

// untilInterrupted ends with the first SIGINT or SIGTERM and from then on lets
// a second one kill the process.
func untilInterrupted(parent context.Context) (ctx context.Context, release func()) {
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	again := context.AfterFunc(ctx, stop)
	return ctx, func() { again(); stop() }
}
