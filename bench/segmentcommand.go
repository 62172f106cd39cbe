package bench

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ashlar"
	"ashlar/bench/segment"
	"ashlar/diskmgr/blockdev"
)

func segmentCommand() *cobra.Command {
	o := segment.Options{Callers: []int{1, 4, 64}, Operations: segment.Operations}
	var sizes []string
	var fileSize, engine string
	c := &cobra.Command{
		Use:   "segment DEVICE|FILE",
		Short: "Measure appends and reads of the log on a blank device, beside the bare device",
		Long: `Measure appends and reads of the log on a device, and in the same run what the
bare device does, so that the ratio means something on a busy machine.

An append stores a record under a new key, and the log is begun anew, unmeasured,
when three quarters of it are full. A replacement stores one over an older one, of
which there is a quarter of the log, and gives its space back. Both include the index,
whose price grows with the records in it: a small device flatters it.

DEVICE must be blank: it is claimed, so whatever carries anything is refused and
not written to. Its labels are wiped afterwards. FILE must not exist: it is made,
written through once, and removed.`,
		Args:          cobra.ExactArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		o.Path = args[0]
		if o.FileBytes, err = parseSize(fileSize); err != nil {
			return err
		}
		o.Sizes = nil
		for _, text := range sizes {
			n, err := parseSize(text)
			if err != nil {
				return err
			}
			if n <= 0 || n > segment.RecordBytesMax {
				return fmt.Errorf("--size %s: want 1 byte to %d MiB", text, segment.RecordBytesMax/ashlar.MiB)
			}
			o.Sizes = append(o.Sizes, int(n))
		}
		for _, n := range o.Callers {
			if n <= 0 {
				return fmt.Errorf("--callers %d: want at least 1", n)
			}
		}
		for _, name := range o.Operations {
			if !slices.Contains(segment.Operations, name) {
				return fmt.Errorf("--operation %s: want %s", name, strings.Join(segment.Operations, ", "))
			}
		}
		if o.Duration <= 0 {
			return fmt.Errorf("--duration %v: want more than 0", o.Duration)
		}
		if o.Engine, err = chooseEngine(engine); err != nil {
			return err
		}
		o.Progress = func(text string) { fmt.Fprintln(c.ErrOrStderr(), text+" …") }
		ctx, release := untilInterrupted(c.Context())
		defer release()
		cases, err := segment.Run(ctx, o)
		if len(cases) == 0 {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s, engine %s, %v each side\n", o.Path, o.Engine, o.Duration)
		return errors.Join(err, segment.Print(c.OutOrStdout(), cases))
	}
	f := c.Flags()
	f.StringSliceVar(&sizes, "size", []string{"4KiB", "64KiB", "1MiB", "4MiB"}, "size of a record; repeatable")
	f.IntSliceVar(&o.Callers, "callers", o.Callers, "callers at once; repeatable")
	f.StringSliceVar(&o.Operations, "operation", o.Operations, "append, replace or read; repeatable")
	f.DurationVar(&o.Duration, "duration", 2*time.Second, "how long each side of each case is measured, in turns")
	f.IntVar(&o.Writers, "writers", 0, "open segments (default one per core)")
	f.StringVar(&engine, "engine", string(blockdev.EngineAuto), "auto, pread or uring")
	f.StringVar(&fileSize, "file-size", "4GiB", "size of the scratch file")
	f.StringVar(&o.IndexDir, "index-dir", "", "`DIR` for the index (default that for temporary files)")
	return c
}
