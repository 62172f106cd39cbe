package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"ashlar"
	"ashlar/diskmgr"
	"ashlar/diskmgr/smart"
)

func smartCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "smart",
		Short: "Ask the claimed disks how they feel (SMART), for the daemon and `ashlar disk list`",
		Long: `Ask every claimed disk of this host how it feels, with smartctl, and leave the answers
where the daemon and ` + "`ashlar disk list`" + ` find them.

It needs the capabilities CAP_SYS_RAWIO and, for NVMe, CAP_SYS_ADMIN, which the daemon
does not have; ashlar-smart.timer runs it. That smartctl (package smartmontools) is not
installed, or that a disk has no SMART, is no error: nothing is known of it then.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tool, err := smart.Tool()
			if ashlar.Is(err, ashlar.NotFound) {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "nothing is asked:", err)
				return err
			}
			found, err := diskmgr.Discover(cmd.Context(), diskmgr.DiscoverOptions{})
			if err != nil {
				return err
			}
			return askAll(cmd.Context(), cmd.OutOrStdout(), tool, dir, found)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", smart.Dir, "`DIR` for the answers")
	return cmd
}

// askAll asks the disks that are ours, one after the other, and leaves one file
// for each. A disk that does not answer keeps its last file, which grows old.
func askAll(ctx context.Context, out io.Writer, tool, dir string, found []diskmgr.Found) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var errs []error
	for _, f := range found {
		if f.State != diskmgr.Ours {
			continue
		}
		// The daemon looks for the serial that the label has.
		serial := f.Label.Serial
		switch facts, err := smart.Ask(ctx, tool, f.Device.Path); {
		case serial == "":
			fmt.Fprintf(out, "%s  %s: has no serial\n", f.Device.Path, f.Label.Name)
		case err != nil:
			fmt.Fprintf(out, "%s  %s: %v\n", f.Device.Path, f.Label.Name, err)
		default:
			fmt.Fprintf(out, "%s  %s %s: %s\n", f.Device.Path, f.Label.Name, serial, facts.Summary())
			errs = append(errs, smart.Write(dir, serial, facts))
		}
	}
	return errors.Join(errs...)
}
