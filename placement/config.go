package placement

import (
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"ashlar"
	"ashlar/placement/topology"
)

// Config is one member of the placement quorum. All members of a cluster have
// the same Cluster, Peers, RPC and New.
type Config struct {
	// Name of this member; a key of Peers and RPC.
	Name string `toml:"name"`
	// Dir holds the member's log and state. It is made if it is missing.
	Dir string `toml:"dir"`
	// Cluster is the cluster's name, for people.
	Cluster string `toml:"cluster"`
	// ListenPeer is the host:port for the other members' raft traffic; empty
	// means that of Peers[Name].
	ListenPeer string `toml:"listen-peer"`
	// ListenRPC is the host:port for heartbeats, watches and status; empty means RPC[Name].
	ListenRPC string `toml:"listen-rpc"`
	// Peers maps the members' names to the URLs under which they reach one
	// another, for example http://10.0.0.1:7101. They are kept in Dir: a member
	// restarts on its Dir with the same ones.
	Peers map[string]string `toml:"peers"`
	// RPC maps the members' names to the host:port of their gRPC listeners.
	RPC map[string]string `toml:"rpc"`
	// New is used once, when the cluster's first map is made.
	New NewCluster `toml:"new-cluster"`

	// Log receives the member's own messages and those of its engine; nil discards them.
	Log *slog.Logger `toml:"-"`
	// RPCListener is used instead of ListenRPC if it is not nil; the member closes it.
	RPCListener net.Listener `toml:"-"`
	// SharePorts lets the member listen on ports that HoldPort holds. Any process
	// of the same user could then listen on them too: not for servers.
	SharePorts bool `toml:"-"`
}

// NewCluster holds the settings of a cluster that is made. A zero field means
// its default.
type NewCluster struct {
	Large      ashlar.Code `toml:"large"`           // 8+4
	Small      ashlar.Code `toml:"small"`           // 1+2
	SmallMax   uint32      `toml:"small-max-bytes"` // 1 MiB
	StripeSize uint32      `toml:"stripe-bytes"`    // 16 MiB
	// Groups is a power of two, 4096 by default.
	Groups int `toml:"groups"`
	// Shards is the number of metadata shards of the cluster, 16 by default.
	Shards int `toml:"shards"`
	// BucketShards is the number of them that a new bucket is spread over, 4 by default.
	BucketShards int `toml:"bucket-shards"`
	// The cluster is formed when this many hosts and disks are there (3, and
	// as many disks as the wider code has pieces).
	ExpectHosts int `toml:"expect-hosts"`
	ExpectDisks int `toml:"expect-disks"`
	// DownAfter is 3 s, OutAfter 10 min by default.
	DownAfter Duration `toml:"down-after"`
	OutAfter  Duration `toml:"out-after"`
}

// Duration is a time.Duration that is written "3s" in a configuration file.
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// MarshalText prints the duration as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Bounds of a configuration.
const (
	membersMax = 9
	shardsMax  = 4096
	groupsMax  = 1 << 20
)

func orElse[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func (c NewCluster) withDefaults() NewCluster {
	c.Large = orElse(c.Large, ashlar.Code{K: 8, M: 4})
	c.Small = orElse(c.Small, ashlar.Code{K: 1, M: 2})
	c.SmallMax = orElse(c.SmallMax, ashlar.MiB)
	c.StripeSize = orElse(c.StripeSize, 16*ashlar.MiB)
	c.Groups = orElse(c.Groups, 4096)
	c.Shards = orElse(c.Shards, 16)
	c.BucketShards = orElse(c.BucketShards, min(4, c.Shards))
	c.ExpectHosts = orElse(c.ExpectHosts, 3)
	c.ExpectDisks = max(c.ExpectDisks, c.Large.Pieces(), c.Small.Pieces())
	c.DownAfter = orElse(c.DownAfter, Duration(3*time.Second))
	c.OutAfter = orElse(c.OutAfter, Duration(10*time.Minute))
	return c
}

func (c NewCluster) settings() topology.Settings {
	bits := uint8(0)
	for 1<<bits < c.Groups {
		bits++
	}
	return topology.Settings{
		Large: c.Large, Small: c.Small, SmallMax: c.SmallMax, StripeBytes: c.StripeSize,
		GroupBits: bits, BucketShards: uint8(c.BucketShards),
		DownAfter: time.Duration(c.DownAfter), OutAfter: time.Duration(c.OutAfter),
	}
}

func (c NewCluster) check() error {
	switch {
	case c.Groups < 1 || c.Groups > groupsMax || c.Groups&(c.Groups-1) != 0:
		return fmt.Errorf("groups = %d: want a power of two up to %d", c.Groups, groupsMax)
	case c.Shards < 1 || c.Shards > shardsMax:
		return fmt.Errorf("shards = %d: want 1 to %d", c.Shards, shardsMax)
	case c.BucketShards < 1 || c.BucketShards > min(64, c.Shards):
		return fmt.Errorf("bucket-shards = %d: want 1 to %d", c.BucketShards, min(64, c.Shards))
	case c.Large.K < 1 || c.Small.K < 1:
		return fmt.Errorf("large = %v, small = %v: want k ≥ 1", c.Large, c.Small)
	case c.StripeSize < 4*ashlar.KiB:
		return fmt.Errorf("stripe-bytes = %d: want at least %d", c.StripeSize, 4*ashlar.KiB)
	case c.DownAfter < 0 || c.OutAfter < c.DownAfter:
		return fmt.Errorf("out-after = %v is shorter than down-after = %v", time.Duration(c.OutAfter), time.Duration(c.DownAfter))
	}
	return nil
}

func (c *Config) check() error {
	switch {
	case c.Name == "" || c.Dir == "" || c.Cluster == "":
		return fmt.Errorf("name, dir and cluster must be set")
	case len(c.Peers) < 1 || len(c.Peers) > membersMax:
		return fmt.Errorf("%d peers: want 1 to %d, best 5", len(c.Peers), membersMax)
	case c.Peers[c.Name] == "":
		return fmt.Errorf("peers has no %q", c.Name)
	case len(c.RPC) != len(c.Peers):
		return fmt.Errorf("rpc has %d members, peers %d", len(c.RPC), len(c.Peers))
	}
	for name := range c.Peers {
		if c.RPC[name] == "" {
			return fmt.Errorf("rpc has no %q", name)
		}
	}
	return c.New.check()
}

// names returns the members' names, sorted.
func (c *Config) names() []string {
	names := make([]string, 0, len(c.Peers))
	for n := range c.Peers {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
