package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"ashlar/tools/operate"
)

func gcCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Say what garbage there is, and why space is held",
		Long: `Say what garbage there is, and why space is held.

What was deleted or replaced lies on the trash list of its metadata shard until
trash-grace is over. What nothing refers to, because an upload died in between, is
found by a walk over all pieces and freed after it was asked for twice.`,
	}
	var status, explain, release askFlags
	cmd.AddCommand(
		status.command(&cobra.Command{
			Use:   "status",
			Short: "Trash by shard, orphans by host, and the bounds",
			Args:  cobra.NoArgs,
		}, operate.GarbageStatus, nil, func() rendered { return &operate.Garbage{} }),
		explain.command(&cobra.Command{
			Use:     "explain BUCKET/KEY|STRIPE",
			Short:   "Why space is held: by a version, an upload, the trash, or nothing",
			Example: "  ashlar gc explain photos/2026/stone.jpg\n  ashlar gc explain 2fba12c403e3909a7b4e31626446c8f4",
			Args:    exactArgs(1, "BUCKET/KEY or the id of a stripe"),
		}, operate.GarbageExplain, nil, func() rendered { return &operate.Held{} }),
		release.command(&cobra.Command{
			Use:   "release",
			Short: "After a restore: let what is newer than the backup be freed",
			Long: `After a restore: let what is newer than the backup be freed.

A restore from a backup brings back the rows of the backup. Objects that were written
later have none, but their pieces are on the disks: they are kept, and ` + "`ashlar gc status`" + `
counts them, until this is run. From then on they are freed as garbage. There is no way
back.`,
			Args: cobra.NoArgs,
		}, operate.GarbageRelease, nil, func() rendered { return &operate.Restored{} }),
	)
	return cmd
}

// rendered is an answer that can be printed for people.
type rendered interface{ Render(io.Writer) error }

// askFlags are those of a command that asks one question of package operate.
type askFlags struct {
	where   whereFlags
	members []string
	asJSON  bool
}

// command makes cmd ask a question and print the answer. What arguments makes of
// those of the command goes with the question; nil takes them as they are.
func (f *askFlags) command(cmd *cobra.Command, question string, arguments func(*cobra.Command, []string) ([]string, error), into func() rendered) *cobra.Command {
	f.where.add(cmd)
	cmd.Flags().StringSliceVar(&f.members, "placement", nil, "addresses of placement members")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print one line of JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if arguments != nil {
			if args, err = arguments(cmd, args); err != nil {
				return err
			}
		}
		b, err := f.ask(cmd.Context(), question, args)
		if err != nil {
			return err
		}
		if f.asJSON {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", b)
			return err
		}
		answer := into()
		if err := json.Unmarshal(b, answer); err != nil {
			return err
		}
		return answer.Render(cmd.OutOrStdout())
	}
	return cmd
}

// ask finds the cluster as `ashlar status` does.
func (f *askFlags) ask(ctx context.Context, question string, args []string) ([]byte, error) {
	members := f.members
	if len(members) == 0 {
		remote, err := f.where.remote()
		if err == nil {
			return remote.Ask(ctx, question, args)
		}
		var notDev error = err
		if members, err = configuredMembers(); err != nil {
			return nil, errors.Join(notDev, err)
		}
	}
	c, end, err := operate.Dial(ctx, members)
	if err != nil {
		return nil, err
	}
	defer end()
	return operate.Do(ctx, c, question, args)
}
