package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ashlar"
	"ashlar/daemon"
	"ashlar/daemon/client"
	"ashlar/daemon/meta/backup"
	placement "ashlar/placement/client"
	"ashlar/placement/topology"
)

func backupCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "backup", Short: "Save the metadata of the whole cluster as of one moment"}
	cmd.AddCommand(backupCreateCommand(), backupVerifyCommand())
	return cmd
}

// backupLine is what the commands print with --json.
type backupLine struct {
	Backup  string    `json:"backup"`
	Cluster string    `json:"cluster"`
	Created time.Time `json:"created"`
	Shards  int       `json:"shards"`
	Rows    uint64    `json:"rows"`
	// WholeUntil is when pieces of what was deleted or overwritten since may be
	// freed, by the trash grace that was given.
	WholeUntil *time.Time `json:"whole_until,omitempty"`
}

func printBackup(cmd *cobra.Command, info backup.Info, until *time.Time, asJSON bool) error {
	line := backupLine{info.ID.String(), info.Map.Name, info.Created, info.Shards, info.Rows, until}
	if asJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(line)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "backup %s of cluster %q: %d shards, %d rows, as of %s\n",
		line.Backup, line.Cluster, line.Shards, line.Rows, line.Created.Format(time.RFC3339))
	if err == nil && until != nil {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "Every object of it is whole until %s (trash grace); of what is deleted or\noverwritten since, the pieces are freed after that.\n", until.Format(time.RFC3339))
	}
	return err
}

func backupCreateCommand() *cobra.Command {
	var (
		quorum quorumFlags
		grace  time.Duration
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "create FILE",
		Short: "Write a backup of all metadata shards and of the map",
		Long: `Write a backup of all metadata shards and of the map, as of one moment.

Writes to metadata wait for some milliseconds while the moment is taken. The bytes of
objects are not in it: they stay on the disks. --trash-grace is what the daemons are
configured with; it says until when every object of the backup is whole.`,
		Args: exactArgs(1, "the file to write; it must not exist"),
		RunE: func(cmd *cobra.Command, args []string) error {
			place, hosts, err := quorum.connect(cmd)
			if err != nil {
				return err
			}
			defer place.Close()
			defer hosts.Close()
			m, err := awaitMap(cmd.Context(), place, quorum.members, (*topology.Map).Formed)
			if err != nil {
				return err
			}
			if err := checkListening(m); err != nil {
				return err
			}
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			info, err := backup.Create(cmd.Context(), backup.Cluster{Maps: place.Map, Dial: hosts.Shards}, f)
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				return errors.Join(err, os.Remove(args[0]))
			}
			until := info.Created.Add(grace)
			return printBackup(cmd, info, &until, asJSON)
		},
	}
	quorum.add(cmd)
	cmd.Flags().DurationVar(&grace, "trash-grace", daemon.TrashGraceDefault, "trash-grace of the daemons")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}

// checkListening refuses a cluster in one process: its hosts call one another
// directly and open no listener.
func checkListening(m *topology.Map) error {
	for i := range m.Hosts {
		if strings.HasSuffix(m.Hosts[i].RPC, ":0") {
			return fmt.Errorf("host %s has no listener, as all hosts of a cluster in one process: run it with `ashlar dev --processes`", m.Hosts[i].Name)
		}
	}
	return nil
}

func backupVerifyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Read a backup to its end and check every sum",
		Args:  exactArgs(1, "a backup"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := backup.Read(f, backup.Visitor{})
			if err != nil {
				return err
			}
			return printBackup(cmd, info, nil, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}

func restoreCommand() *cobra.Command {
	var (
		quorum quorumFlags
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Bring a backup back into an empty cluster over the same disks",
		Long: `Bring a backup back into an empty cluster over the same disks.

For when the metadata is lost: start a new placement quorum on empty directories, run
this, and start the daemons on their disks while it waits. Hosts are known again by
their names, disks by their labels. A quorum that knows a host already is refused with
exit code 3. If it was broken off, run it again. Metadata directories of before are
left alone, under their old names.`,
		Args: exactArgs(1, "a backup"),
		RunE: func(cmd *cobra.Command, args []string) error {
			place, hosts, err := quorum.connect(cmd)
			if err != nil {
				return err
			}
			defer place.Close()
			defer hosts.Close()
			info, err := backup.Restore(cmd.Context(), place, hosts.Shards, func() (io.ReadCloser, error) { return os.Open(args[0]) },
				func() error {
					_, err := fmt.Fprintln(cmd.ErrOrStderr(), "The quorum has the map. Start the daemons: the rest goes on when they are here.")
					return err
				})
			if ashlar.Is(err, ashlar.Denied) {
				return withCode(exitRefused, err)
			}
			if err != nil {
				return err
			}
			return printBackup(cmd, info, nil, asJSON)
		},
	}
	quorum.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}

// connect follows the quorum until the command ends, and reaches the hosts.
func (q *quorumFlags) connect(cmd *cobra.Command) (*placement.Client, *client.Hosts, error) {
	place, err := q.client()
	if err != nil {
		return nil, nil, err
	}
	go place.Run(cmd.Context()) // ends with the command, or when the client closes
	return place, client.NewHosts(place.Map), nil
}
