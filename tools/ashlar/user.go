package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"ashlar/tools/identity"
)

// identityFlags are those of a command that speaks to the IAM API of a gateway.
type identityFlags struct {
	where  endpointFlags
	asJSON bool
}

// command makes cmd do something and print what came of it.
func (f *identityFlags) command(cmd *cobra.Command, do func(context.Context, *identity.Client, []string) (rendered, error)) *cobra.Command {
	f.where.add(cmd)
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print one line of JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		access, secret, err := f.where.keys()
		if err != nil {
			return err
		}
		c := &identity.Client{URL: f.where.url, Region: f.where.region, AccessKey: access, SecretKey: secret}
		if access == os.Getenv("AWS_ACCESS_KEY_ID") {
			c.Token = os.Getenv("AWS_SESSION_TOKEN")
		}
		answer, err := do(cmd.Context(), c, args)
		if err != nil {
			return err
		}
		if !f.asJSON {
			return answer.Render(cmd.OutOrStdout())
		}
		b, err := json.Marshal(answer)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", b)
		return err
	}
	return cmd
}

// did returns what was done as something to print; nothing is printed with an error.
func did[T rendered](answer T, err error) (rendered, error) {
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// keys finds the keys of whoever runs the command.
func (e *endpointFlags) keys() (access, secret string, err error) {
	access = cmp.Or(e.accessKey, os.Getenv("ASHLAR_ACCESS_KEY"), os.Getenv("AWS_ACCESS_KEY_ID"))
	secret = cmp.Or(e.secretKey, os.Getenv("ASHLAR_SECRET_KEY"), os.Getenv("AWS_SECRET_ACCESS_KEY"))
	if access == "" || secret == "" {
		err = withCode(exitUsage, fmt.Errorf("no keys: set ASHLAR_ACCESS_KEY and ASHLAR_SECRET_KEY, or --access-key and --secret-key"))
	}
	return access, secret, err
}

func userCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "user", Short: "Users of an account: create, list, delete", Args: cobra.NoArgs,
		Long: `Users of an account: create, list, delete.

The commands speak to the IAM API of a gateway with the keys of whoever runs them: the
root's, or those of a user with the rights. Every client of IAM can do the same, for
example aws iam create-user --endpoint-url URL.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	var create, list, remove identityFlags
	var made identity.NewUser
	creator := create.command(&cobra.Command{
		Use: "create NAME", Short: "Make a user", Args: exactArgs(1, "a name"),
		Example: "  ashlar user create ann --policy AmazonS3ReadOnlyAccess --key",
	}, func(ctx context.Context, c *identity.Client, args []string) (rendered, error) {
		made.Name = args[0]
		return did(c.CreateUser(ctx, made))
	})
	creator.Flags().StringVar(&made.Path, "path", "", "path in the ARN, for example /staff/")
	creator.Flags().StringSliceVar(&made.Policies, "policy", nil, "managed policies to attach, by name or ARN")
	creator.Flags().StringSliceVar(&made.Groups, "group", nil, "groups to join")
	creator.Flags().BoolVar(&made.Key, "key", false, "make an access key too")
	var all bool
	remover := remove.command(&cobra.Command{
		Use: "delete NAME", Short: "Delete a user", Args: exactArgs(1, "a name"),
		Long: "Delete a user. One that still has keys, policies or groups is refused, unless --all takes them first.",
	}, func(ctx context.Context, c *identity.Client, args []string) (rendered, error) {
		return did(c.DeleteUser(ctx, args[0], all))
	})
	remover.Flags().BoolVar(&all, "all", false, "with its keys, policies and memberships")
	cmd.AddCommand(creator, remover, list.command(&cobra.Command{Use: "list", Short: "List the users", Args: cobra.NoArgs},
		func(ctx context.Context, c *identity.Client, _ []string) (rendered, error) {
			return did(c.ListUsers(ctx))
		}))
	return cmd
}
