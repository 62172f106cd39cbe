package bench

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"ashlar"
	"ashlar/bench/segment"
	"ashlar/diskmgr/blockdev"
)

func rebuildCommand() *cobra.Command {
	var o segment.RebuildOptions
	var size, fileSize, engine string
	c := &cobra.Command{
		Use:   "rebuild DEVICE|FILE",
		Short: "Measure how fast a lost index is rebuilt from a device, beside the device's own sequential read",
		Long: `Fill the log on a device, then open it with its index, without it from the footers of
its segments, and from its records alone, every byte of which is then read and
verified. Each time the pieces must be the same; if not, the command fails.

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
		n, err := parseSize(size)
		if err != nil {
			return err
		}
		if n <= 0 || n > segment.RecordBytesMax {
			return fmt.Errorf("--size %s: want 1 byte to %d MiB", size, segment.RecordBytesMax/ashlar.MiB)
		}
		if o.Size = int(n); o.Percent < 1 || o.Percent > 95 {
			return fmt.Errorf("--percent %d: want 1 to 95", o.Percent)
		}
		if o.Engine, err = chooseEngine(engine); err != nil {
			return err
		}
		o.Progress = func(text string) { fmt.Fprintln(c.ErrOrStderr(), text+" …") }
		ctx, release := untilInterrupted(c.Context())
		defer release()
		res, err := segment.Rebuild(ctx, o)
		if len(res.Cases) == 0 {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s, engine %s, pieces of %s\n", o.Path, o.Engine, size)
		err = errors.Join(err, segment.PrintRebuild(c.OutOrStdout(), &res))
		for _, r := range res.Cases {
			if !r.Same {
				err = errors.Join(err, fmt.Errorf("the index from %s does not list the pieces that were there", r.From))
			}
		}
		return err
	}
	f := c.Flags()
	f.StringVar(&size, "size", "64KiB", "length of a piece")
	f.IntVar(&o.Percent, "percent", 80, "how full the log is made")
	f.IntVar(&o.Writers, "writers", 0, "open segments (default one per core)")
	f.StringVar(&engine, "engine", string(blockdev.EngineAuto), "auto, pread or uring")
	f.StringVar(&fileSize, "file-size", "1GiB", "size of the scratch file")
	f.StringVar(&o.IndexDir, "index-dir", "", "`DIR` for the index (default that for temporary files)")
	return c
}
