package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"ashlar/tools/identity"
)

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Managed policies: create, list, show, delete, attach, detach", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	var create, list, show, remove identityFlags
	cmd.AddCommand(
		create.command(&cobra.Command{Use: "create NAME FILE", Short: "Make a policy of a file with AWS's JSON", Args: exactArgs(2, "a name and a file"),
			Example: "  ashlar policy create photos-only photos.json"},
			func(ctx context.Context, c *identity.Client, args []string) (rendered, error) {
				text, err := os.ReadFile(args[1])
				if err != nil {
					return nil, err
				}
				return did(c.CreatePolicy(ctx, args[0], string(text)))
			}),
		list.command(&cobra.Command{Use: "list", Short: "List the policies, also those that every account has", Args: cobra.NoArgs},
			func(ctx context.Context, c *identity.Client, _ []string) (rendered, error) {
				return did(c.ListPolicies(ctx))
			}),
		show.command(&cobra.Command{Use: "show NAME", Short: "Print the text of a policy", Args: exactArgs(1, "a name or an ARN")},
			func(ctx context.Context, c *identity.Client, args []string) (rendered, error) {
				return did(c.ShowPolicy(ctx, args[0]))
			}),
		remove.command(&cobra.Command{Use: "delete NAME", Short: "Delete a policy that is attached to nothing", Args: exactArgs(1, "a name or an ARN")},
			func(ctx context.Context, c *identity.Client, args []string) (rendered, error) {
				return did(c.DeletePolicy(ctx, args[0]))
			}),
		attachCommand("attach", "Give a policy to a user, group or role", false), attachCommand("detach", "Take a policy from a user, group or role", true))
	return cmd
}

func attachCommand(verb, short string, away bool) *cobra.Command {
	var flags identityFlags
	var to identity.Whom
	cmd := flags.command(&cobra.Command{Use: verb + " NAME --user|--group|--role WHOM", Short: short, Args: exactArgs(1, "a name or an ARN")},
		func(ctx context.Context, c *identity.Client, args []string) (rendered, error) {
			return did(c.Attach(ctx, args[0], to, away))
		})
	cmd.Flags().StringVar(&to.User, "user", "", "a user")
	cmd.Flags().StringVar(&to.Group, "group", "", "a group")
	cmd.Flags().StringVar(&to.Role, "role", "", "a role")
	return cmd
}
