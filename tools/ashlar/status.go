package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	placement "ashlar/placement/client"
	"ashlar/placement/health"
)

func statusCommand() *cobra.Command {
	var (
		where         whereFlags
		members       []string
		asJSON, check bool
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say how the cluster is and what it survives now",
		Long: `Say how the cluster is and what it survives now.

The placement quorum answers, so the answer is the same from any host. It is found
through --placement, the dev cluster of --dir or --admin, or the configuration of a
service on this host (/etc/ashlar/daemon.toml, gateway.toml or placement.toml).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := askStatus(cmd.Context(), &where, members)
			if err != nil {
				return err
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(s)
			} else {
				err = s.Render(cmd.OutOrStdout())
			}
			if err != nil || !check {
				return err
			}
			return verdict(s.Verdict)
		},
	}
	where.add(cmd)
	cmd.Flags().StringSliceVar(&members, "placement", nil, "addresses of placement members")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	cmd.Flags().BoolVar(&check, "check", false, "end with 10 if the cluster is degraded or full, or soon will be full, and 11 if data is at risk")
	return cmd
}

// verdict is the exit code of `status --check`; it prints nothing more.
func verdict(v health.Verdict) error {
	switch v {
	case health.Healthy, health.Repairing:
		return nil
	case health.Degraded, health.IsNearFull, health.IsFull:
		return withCode(exitDegraded, errors.New(""))
	default:
		return withCode(exitAtRisk, errors.New(""))
	}
}

func askStatus(ctx context.Context, where *whereFlags, members []string) (health.Status, error) {
	if len(members) == 0 {
		remote, err := where.remote()
		if err == nil {
			return remote.Status(ctx)
		}
		var notDev error = err
		if members, err = configuredMembers(); err != nil {
			return health.Status{}, errors.Join(notDev, err)
		}
	}
	c, err := placement.New(placement.Config{Members: members, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return health.Status{}, err
	}
	defer c.Close()
	return c.Status(ctx)
}

// configuredMembers finds the quorum in the configuration of a service.
func configuredMembers() ([]string, error) {
	for _, name := range []string{"daemon", "gateway", "placement"} {
		path := "/etc/ashlar/" + name + ".toml"
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var cfg struct {
			Placement []string          `toml:"placement"`
			RPC       map[string]string `toml:"rpc"`
		}
		if err := toml.Unmarshal(b, &cfg); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for _, addr := range cfg.RPC {
			cfg.Placement = append(cfg.Placement, addr)
		}
		return cfg.Placement, nil
	}
	return nil, fmt.Errorf("and no service is configured in /etc/ashlar: name members of the quorum with --placement")
}
