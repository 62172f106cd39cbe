package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"ashlar"
	"ashlar/daemon"
	"ashlar/diskmgr"
	placement "ashlar/placement/client"
	"ashlar/placement/topology"
)

// mapTimeout bounds the wait for the placement quorum, which knows the
// cluster's id.
const mapTimeout = 15 * time.Second

func diskClaimCommand() *cobra.Command {
	var (
		config, accept string
		measure        time.Duration
		allBlank       bool
	)
	cmd := &cobra.Command{
		Use:   "claim DEVICE...",
		Short: "Make devices disks of this host's cluster",
		Long: `Make devices disks of this host's cluster: label them, so that the daemon takes them.

The devices must stand in "disks" of the daemon's configuration; their position there
is their name. A device that carries anything is refused with the reason, and not one
byte of it is written, unless --accept-data-loss names its serial.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig[daemon.Config](config)
			if err != nil {
				return err
			}
			if err := cfg.Check(); err != nil {
				return withCode(exitUsage, err)
			}
			switch {
			case allBlank && len(args) == 0:
				args = cfg.Disks
			case allBlank || len(args) == 0:
				return withCode(exitUsage, errors.New("name devices, or give --all-blank"))
			case accept != "" && len(args) != 1:
				return withCode(exitUsage, errors.New("--accept-data-loss goes with one device"))
			}
			m, err := clusterMap(cmd.Context(), cfg.Placement)
			if err != nil {
				return err
			}
			return claimAll(cmd.Context(), cmd.OutOrStdout(), &cfg, m, args, accept, measure, allBlank)
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "/etc/ashlar/daemon.toml", "configuration of the daemon on this host")
	f.StringVar(&accept, "accept-data-loss", "", "serial (or name) of the device whose content may be destroyed")
	f.DurationVar(&measure, "measure", 20*time.Second, "how long the disk is measured for its baseline; 0 does not")
	f.BoolVar(&allBlank, "all-blank", false, "all devices of the configuration that are blank")
	return cmd
}

func clusterMap(ctx context.Context, members []string) (*topology.Map, error) {
	c, err := placement.New(placement.Config{Members: members})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go c.Run(ctx) // ends with ctx
	return awaitMap(ctx, c, members, func(m *topology.Map) bool { return m != nil })
}

// awaitMap waits until the quorum has said a map that will do.
func awaitMap(ctx context.Context, c *placement.Client, members []string, will func(*topology.Map) bool) (*topology.Map, error) {
	ctx, cancel := context.WithTimeout(ctx, mapTimeout)
	defer cancel()
	m, err := c.Wait(ctx, will)
	if err != nil {
		return nil, fmt.Errorf("the placement quorum at %v does not answer, or too few hosts have joined: %w", members, err)
	}
	return m, nil
}

// claimAll claims one device after the other and says how each went. With
// allBlank, devices that are not blank are passed over.
func claimAll(ctx context.Context, out io.Writer, cfg *daemon.Config, m *topology.Map, paths []string, accept string, measure time.Duration, allBlank bool) error {
	refused := 0
	for _, path := range paths {
		i := slices.Index(cfg.Disks, path)
		if i < 0 {
			return withCode(exitUsage, fmt.Errorf("%s is not in \"disks\" of the configuration: add it there first", path))
		}
		name := fmt.Sprintf("%s/d%02d", cfg.Name, i+1)
		disk, err := diskmgr.Claim(ctx, path, diskmgr.ClaimOptions{
			OpenOptions: diskmgr.OpenOptions{Cluster: m.Cluster}, ClusterName: m.Name, Name: name,
			AcceptDataLoss: accept, Measure: measure,
		})
		var refusal *diskmgr.Refusal
		switch {
		case err == nil:
			fmt.Fprintf(out, "claimed  %s as %s\n", path, name)
			err = disk.Close()
		case errors.As(err, &refusal) && allBlank:
			fmt.Fprintf(out, "left     %s: %s\n", path, refusal.Why)
			err = nil
		case errors.As(err, &refusal), ashlar.Is(err, ashlar.Denied):
			fmt.Fprintf(out, "refused  %s: %v\n", path, err)
			refused++
			err = nil
		}
		if err != nil {
			return err
		}
	}
	if refused > 0 {
		return withCode(exitRefused, fmt.Errorf("%d of %d devices were refused; nothing was written to them", refused, len(paths)))
	}
	fmt.Fprintln(out, "Next:  systemctl restart ashlar-daemon")
	return nil
}

func diskUdevCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "udev DEVICE",
		Short:  "Print what udev should know of a device (called by the udev rule)",
		Hidden: true,
		Args:   exactArgs(1, "a device"),
		RunE: func(cmd *cobra.Command, args []string) error {
			lines, err := diskmgr.UdevProperties(args[0])
			if err != nil {
				return err
			}
			for _, line := range lines {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), line); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
