package bench

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"ashlar/bench/keys"
)

func keysCommand() *cobra.Command {
	o := keys.Options{Checkpoints: []int{100_000, 1_000_000, 10_000_000}}
	c := &cobra.Command{
		Use:   "keys DIR",
		Short: "Fill one bucket with very many keys, and measure listings, a kill and a full count",
		Long: `Start a cluster of three hosts in DIR, fill one bucket with keys by PUTs of empty
objects over HTTP, and at each checkpoint measure listings through the gateway:
pages of 1,000 behind random keys, and delimiter listings. At the end every
process gets SIGKILL, the cluster is started again, and a full listing must find
every key that was acknowledged.

10,000,000 keys need about 10 GB in DIR and 20 to 40 minutes on two cores. A run
that was interrupted goes on when it is started again. DIR is left as it is.`,
		Args:          cobra.ExactArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		o.Dir = args[0]
		if o.Program == "" {
			if o.Program, err = os.Executable(); err != nil {
				return err
			}
		}
		o.Progress = func(text string) { fmt.Fprintln(c.ErrOrStderr(), text+" …") }
		ctx, release := untilInterrupted(c.Context())
		defer release()
		result, err := keys.Run(ctx, o)
		if result != nil {
			err = errors.Join(err, result.Print(c.OutOrStdout()))
		}
		if errors.Is(err, context.Canceled) {
			return fmt.Errorf("%w: start it again to go on", ErrIncomplete)
		}
		return err
	}
	f := c.Flags()
	f.IntSliceVar(&o.Checkpoints, "keys", o.Checkpoints, "numbers of keys at which listings are measured, ascending; the last is the size of the bucket")
	f.IntVar(&o.Listings, "listings", 300, "listings of each kind at a checkpoint")
	f.IntVar(&o.Concurrent, "concurrent", 1024, "PUTs in flight")
	f.BoolVar(&o.Processes, "processes", false, "run every service as a process of its own, over sockets")
	f.StringVar(&o.Profile, "cpu-profile", "", "write a CPU profile of the cluster to this `FILE`, from its last start on")
	f.Uint64Var(&o.Seed, "seed", 1, "seed of the keys' names")
	f.StringVar(&o.Program, "program", "", "ashlar binary to run the cluster with (default this one)")
	return c
}
