package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ashlar/diskmgr"
	"ashlar/diskmgr/smart"
)

func diskCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "disk", Short: "Look at the devices of this host, and claim them"}
	cmd.AddCommand(diskListCommand(), diskClaimCommand(), diskUdevCommand())
	return cmd
}

func diskListCommand() *cobra.Command {
	var all, asJSON bool
	var smartDir string
	cmd := &cobra.Command{
		Use:   "list [FILE...]",
		Short: "List the devices of this host, what they are to us, and why",
		Long: `List the devices of this host, what they are to us, and why.

Without --all only our disks and blank devices are listed. Regular files that stand
for devices can be named.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := diskmgr.Discover(cmd.Context(), diskmgr.DiscoverOptions{Files: args})
			if err != nil {
				return err
			}
			rows := []diskRow{}
			for _, f := range found {
				if all || f.State == diskmgr.Blank || f.State == diskmgr.Ours {
					rows = append(rows, newDiskRow(f, smartDir))
				}
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(rows)
			}
			return printDisks(cmd.OutOrStdout(), rows)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also those that we cannot use, with the reason")
	cmd.Flags().StringVar(&smartDir, "smart-dir", smart.Dir, "`DIR` where ashlar smart leaves its answers")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}

// diskRow is one line of the list.
type diskRow struct {
	Slot   string `json:"slot"`
	Device string `json:"device"`
	Serial string `json:"serial"`
	Model  string `json:"model"`
	Bytes  int64  `json:"bytes"`
	State  string `json:"state"`
	// Disk is the name in the label of a disk that is ours.
	Disk string `json:"disk,omitempty"`
	Why  string `json:"why,omitempty"`
	// Smart is what the disk said of itself lately, if it was asked.
	Smart *smart.Facts `json:"smart,omitempty"`
}

func newDiskRow(f diskmgr.Found, smartDir string) diskRow {
	row := diskRow{
		Slot: f.Device.Slot, Device: f.Device.Path, Serial: f.Device.Serial, Model: f.Device.Model,
		Bytes: f.Device.Bytes, State: f.State.String(), Disk: f.Label.Name, Why: f.Advice(),
	}
	if facts, ok := smart.Read(smartDir, cmp.Or(f.Label.Serial, f.Device.Serial), time.Now()); ok {
		row.Smart = &facts
	}
	return row
}

func printDisks(out io.Writer, rows []diskRow) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SLOT\tDEVICE\tSERIAL\tMODEL\tSIZE\tSTATE\tDISK\tSMART\tWHY")
	for _, r := range rows {
		smart := ""
		if r.Smart != nil {
			smart = r.Smart.Summary()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.1f GB\t%s\t%s\t%s\t%s\n",
			dash(r.Slot), r.Device, dash(r.Serial), dash(r.Model), float64(r.Bytes)/1e9, r.State, dash(r.Disk), dash(smart), r.Why)
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
