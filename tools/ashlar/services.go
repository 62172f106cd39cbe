package main

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"ashlar/daemon"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/trash"
	"ashlar/placement"
	"ashlar/s3gw"
	"ashlar/s3gw/store"
)

func daemonCommand() *cobra.Command {
	return serviceCommand("daemon", "Run a host: its disks, its share of the bytes and of the metadata", runDaemon)
}

// runDaemon tells the daemon, which knows no objects, who refers to stripes.
func runDaemon(ctx context.Context, cfg daemon.Config, log *slog.Logger) error {
	return daemon.Main(ctx, cfg, daemon.Options{Log: log, Referee: func(m meta.Store) trash.Referee { return store.NewReferences(m) }})
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
