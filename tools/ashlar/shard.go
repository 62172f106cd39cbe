package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"ashlar"
	placement "ashlar/placement/client"
	"ashlar/placement/health"
	"ashlar/tools/dev"
)

func shardCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "shard", Short: "Look at the metadata shards, and move their replicas"}
	cmd.AddCommand(shardListCommand(), shardMoveCommand())
	return cmd
}

// quorumFlags find the placement quorum.
type quorumFlags struct {
	dir     string
	members []string
}

func (q *quorumFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&q.dir, "dir", dev.Defaults().Dir, "directory of a dev cluster")
	cmd.Flags().StringSliceVar(&q.members, "placement", nil, "addresses of placement members")
}

// client connects to the quorum: the members that were named, those of the dev
// cluster, or those that a service on this host is configured with.
func (q *quorumFlags) client() (*placement.Client, error) {
	if len(q.members) == 0 {
		var err, notDev error
		if q.members, notDev = dev.MembersOf(q.dir); notDev != nil {
			if q.members, err = configuredMembers(); err != nil {
				return nil, fmt.Errorf("%w; %w", notDev, err)
			}
		}
	}
	return placement.New(placement.Config{Members: q.members, Log: slog.New(slog.DiscardHandler)})
}

func shardListCommand() *cobra.Command {
	var (
		quorum quorumFlags
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the metadata shards: their state, leaders and replicas",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := quorum.client()
			if err != nil {
				return err
			}
			defer c.Close()
			shards, err := c.Shards(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(shards)
			}
			return health.RenderShards(cmd.OutOrStdout(), shards)
		},
	}
	quorum.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}

// shardMoveMax bounds --wait.
const shardMoveMax = 10 * time.Minute

func shardMoveCommand() *cobra.Command {
	var (
		quorum       quorumFlags
		from, to     string
		wait, asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "move SHARD --from HOST --to HOST",
		Short: "Move a replica of a metadata shard to another host",
		Long: `Move a replica of a metadata shard to another host.

The new replica is filled first and then takes the place of the old one at one moment;
reads and writes go on. A move that would make the shard less safe is refused with the
reason and exit code 3. Asking again for the same move is safe.`,
		Example: "  ashlar shard move 3 --from b1 --to b2 --wait",
		Args:    exactArgs(1, "the number of a shard, for example 3"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil || from == "" || to == "" {
				return withCode(exitUsage, fmt.Errorf("want the number of a shard, --from HOST and --to HOST"))
			}
			c, err := quorum.client()
			if err != nil {
				return err
			}
			defer c.Close()
			moved, err := moveReplica(cmd.Context(), c, ashlar.ShardID(n), from, to, wait)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(moved)
			}
			word := "ordered; see `ashlar shard list`"
			if moved.Done {
				word = "done"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "shard %d: replica %d on %s in the place of the one on %s: %s\n", n, moved.Replica, to, from, word)
			return err
		},
	}
	quorum.add(cmd)
	cmd.Flags().StringVar(&from, "from", "", "name of the host that gives the replica up")
	cmd.Flags().StringVar(&to, "to", "", "name of the host that gets it")
	cmd.Flags().BoolVar(&wait, "wait", false, "return when the old replica votes no more")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}

// movedReplica is the answer of `ashlar shard move --json`.
type movedReplica struct {
	Shard   ashlar.ShardID   `json:"shard"`
	Replica ashlar.ReplicaID `json:"replica"`
	Epoch   ashlar.Epoch     `json:"epoch"`
	Done    bool             `json:"done"`
}

// moveReplica orders a move and, if told so, asks again until it is done.
func moveReplica(ctx context.Context, c *placement.Client, shard ashlar.ShardID, from, to string, wait bool) (movedReplica, error) {
	ctx, cancel := context.WithTimeout(ctx, shardMoveMax)
	defer cancel()
	out := movedReplica{Shard: shard}
	for {
		var err error
		out.Replica, out.Epoch, out.Done, err = c.MoveReplica(ctx, shard, from, to)
		switch {
		case ashlar.Is(err, ashlar.Denied):
			return out, withCode(exitRefused, err)
		case ashlar.Is(err, ashlar.Invalid):
			return out, withCode(exitUsage, err)
		case err != nil && !wait:
			return out, err
		case err == nil && (out.Done || !wait):
			return out, nil
		}
		select {
		case <-ctx.Done():
			return out, withCode(exitTimedOut, fmt.Errorf("shard %d: the move is ordered and not done: see `ashlar shard list`", shard))
		case <-time.After(shardMovePoll):
		}
	}
}

const shardMovePoll = 200 * time.Millisecond
