package main

import (
	"github.com/spf13/cobra"

	"ashlar/tools/operate"
)

func notifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "notify",
		Short: "Say which events wait for whom, and which were lost",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var status askFlags
	cmd.AddCommand(status.command(&cobra.Command{
		Use:   "status",
		Short: "Events that wait, and that were lost, by target",
		Long: `Events that wait, and that were lost, by target.

Gateways keep an event until its target has taken it, for at most seven days. When too
many wait, or one waits for too long, events are lost: they are counted here, for ever.
A target that no gateway declares any more is listed as well.`,
		Args: cobra.NoArgs,
	}, operate.NotifyStatus, nil, func() rendered { return &operate.Notifications{} }))
	return cmd
}
