package placement_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"ashlar"
	"ashlar/placement"
	"ashlar/placement/layout"
	"ashlar/placement/topology"
)

func TestForm(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3, 5, 7} {
		t.Run(map[int]string{1: "one member", 3: "three members", 5: "five members", 7: "seven members"}[n], func(t *testing.T) {
			t.Parallel()
			started := time.Now()
			q := startQuorum(t, n, newCluster())
			t.Logf("%d members ready after %v", n, time.Since(started))
			started = time.Now()
			hosts := sixHosts(q)
			m := wait(t, hosts[0].c, "the cluster is formed", (*topology.Map).Formed)
			t.Logf("formed after %v at epoch %d", time.Since(started), m.Epoch)
			if len(m.Hosts) != 6 || len(m.Disks) != 24 || len(m.Groups) != 64 || len(m.Shards) != 8 {
				t.Fatalf("%d hosts, %d disks, %d groups, %d shards", len(m.Hosts), len(m.Disks), len(m.Groups), len(m.Shards))
			}
			for _, v := range layout.Check(m) {
				t.Error(v)
			}
			for _, h := range hosts {
				eventually(t, "every host knows its id", func() bool { return h.c.HostID() != 0 })
				if got := m.Host(h.c.HostID()); got == nil || got.Name != h.self.Name {
					t.Errorf("host %s was given id %v, which is %+v", h.self.Name, h.c.HostID(), got)
				}
			}
		})
	}
}

// TestConfigFile reads a member's file as an operator writes it.
func TestConfigFile(t *testing.T) {
	const file = `
name = "p1"
dir = "/var/lib/ashlar/placement"
cluster = "prod"
listen-peer = "0.0.0.0:7101"

[peers]
p1 = "http://10.0.0.1:7101"

[rpc]
p1 = "10.0.0.1:7102"

[new-cluster]
large = "8+4"
groups = 4096
expect-hosts = 6
down-after = "3s"
`
	var cfg placement.Config
	d := toml.NewDecoder(strings.NewReader(file))
	d.DisallowUnknownFields()
	if err := d.Decode(&cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.Peers["p1"] != "http://10.0.0.1:7101" || cfg.New.Large != (ashlar.Code{K: 8, M: 4}) ||
		time.Duration(cfg.New.DownAfter) != 3*time.Second || cfg.New.ExpectHosts != 6 {
		t.Errorf("read %+v", cfg)
	}
}

func TestBadConfig(t *testing.T) {
	good := func() placement.Config {
		return placement.Config{
			Name: "p1", Dir: t.TempDir(), Cluster: "c",
			Peers: map[string]string{"p1": "http://127.0.0.1:1"}, RPC: map[string]string{"p1": "127.0.0.1:0"},
		}
	}
	for name, spoil := range map[string]func(*placement.Config){
		"no dir":               func(c *placement.Config) { c.Dir = "" },
		"not among its peers":  func(c *placement.Config) { c.Name = "p2" },
		"no rpc address":       func(c *placement.Config) { c.RPC = map[string]string{"p9": "127.0.0.1:0"} },
		"groups no power of 2": func(c *placement.Config) { c.New.Groups = 100 },
		"too many shards":      func(c *placement.Config) { c.New.Shards = 1 << 20 },
		"out before down":      func(c *placement.Config) { c.New.OutAfter = placement.Duration(time.Second) },
	} {
		cfg := good()
		spoil(&cfg)
		m, err := placement.Start(context.Background(), cfg)
		if !ashlar.Is(err, ashlar.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if m != nil {
			m.Kill()
		}
	}
}

// TestPortInUse: a member that cannot listen says so and leaves nothing behind.
func TestPortInUse(t *testing.T) {
	q := startQuorum(t, 1, newCluster())
	cfg := q.configs[0]
	cfg.Dir, cfg.SharePorts = t.TempDir(), false
	if _, err := placement.Start(context.Background(), cfg); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("a second member on the same address: %v", err)
	}
}
