package main

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"ashlar/daemon"
	"ashlar/placement"
	"ashlar/s3gw"
)

func daemonCommand() *cobra.Command {
	return serviceCommand("daemon", "Run a host: its disks, its share of the bytes and of the metadata", daemon.Main)
}

func placementCommand() *cobra.Command {
	return serviceCommand("placement", "Run a member of the placement quorum", runPlacement)
}

func gatewayCommand() *cobra.Command {
	return serviceCommand("gateway", "Run an S3 gateway", s3gw.Main)
}

// runPlacement gives the member its log the way its Config takes it.
func runPlacement(ctx context.Context, cfg placement.Config, log *slog.Logger) error {
	cfg.Log = log
	return placement.Main(ctx, cfg)
}

// serviceCommand runs a service from its file until it is told to stop.
func serviceCommand[T any](name, short string, run func(context.Context, T, *slog.Logger) error) *cobra.Command {
	var flags serviceFlags
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := flags.logger()
			if err != nil {
				return err
			}
			cfg, err := loadConfig[T](flags.config)
			if err != nil {
				return err
			}
			return run(cmd.Context(), cfg, log)
		},
	}
	flags.add(cmd, "/etc/ashlar/"+name+".toml")
	return cmd
}
