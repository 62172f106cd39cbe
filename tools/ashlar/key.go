package main

import (
	"context"

	"github.com/spf13/cobra"

	"ashlar/tools/identity"
)

func keyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Access keys of users: create, list, delete", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	var create, list, remove identityFlags
	cmd.AddCommand(
		create.command(&cobra.Command{Use: "create USER", Short: "Give a user an access key; its secret is shown once", Args: exactArgs(1, "a user")},
			func(ctx context.Context, c *identity.Client, args []string) (rendered, error) {
				return did(c.CreateKey(ctx, args[0]))
			}),
		list.command(&cobra.Command{Use: "list USER", Short: "List the access keys of a user", Args: exactArgs(1, "a user")},
			func(ctx context.Context, c *identity.Client, args []string) (rendered, error) {
				return did(c.ListKeys(ctx, args[0]))
			}),
		remove.command(&cobra.Command{Use: "delete USER KEY", Short: "Delete an access key of a user", Args: exactArgs(2, "a user and an access key")},
			func(ctx context.Context, c *identity.Client, args []string) (rendered, error) {
				return did(c.DeleteKey(ctx, args[0], args[1]))
			}))
	return cmd
}
