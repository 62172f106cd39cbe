package placement_test

import (
	"testing"
	"time"

	"ashlar/placement/layout"
	"ashlar/placement/topology"
)

func TestForm(t *testing.T) {
	for _, n := range []int{1, 3, 5} {
		t.Run(map[int]string{1: "one member", 3: "three members", 5: "five members"}[n], func(t *testing.T) {
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
