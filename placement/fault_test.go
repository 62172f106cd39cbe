package placement_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"ashlar"
	"ashlar/placement"
	"ashlar/placement/client"
	"ashlar/placement/health"
	"ashlar/placement/topology"
)

func hostState(m *topology.Map, name string) topology.HostState {
	for _, h := range m.Hosts {
		if h.Name == name {
			return h.State
		}
	}
	return topology.HostOut
}

func status(t *testing.T, c *client.Client) health.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	st, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func raised(st health.Status, code string) bool {
	return slices.ContainsFunc(st.Codes, func(c health.Code) bool { return c.Code == code })
}

// TestHostsComeAndGo: a host that dies is down, one that returns is up under
// the same id; a disk fails and is revived; two hosts at once are a partition.
func TestHostsComeAndGo(t *testing.T) {
	t.Parallel()
	q := startQuorum(t, 3, newCluster())
	hosts := sixHosts(q)
	c := q.client()
	m := wait(t, c, "formed", (*topology.Map).Formed)
	eventually(t, "healthy", func() bool { return status(t, c).Verdict == health.Healthy })
	groups := m.Groups

	hosts[3].mu.Lock()
	hosts[3].rep.Disks[1].Failed, hosts[3].rep.Disks[1].Reason = true, "write EIO"
	hosts[3].mu.Unlock()
	wait(t, c, "b4/d02 failed", func(m *topology.Map) bool {
		d, _ := m.DiskByID(hosts[3].rep.Disks[1].ID)
		return d.State == topology.DiskFailed
	})
	eventually(t, "degraded by DISK_FAILED", func() bool {
		st := status(t, c)
		return st.Verdict == health.Degraded && raised(st, health.DiskFailed) && st.Reads == health.Survival{Disks: 1, Hosts: 1, Zones: 0}
	})
	hosts[3].mu.Lock()
	hosts[3].rep.Disks[1].Failed = false
	hosts[3].mu.Unlock()
	wait(t, c, "all disks are up", func(m *topology.Map) bool {
		return !slices.ContainsFunc(m.Disks, func(d topology.Disk) bool { return d.State != topology.DiskUp })
	})

	id := hosts[2].c.HostID()
	hosts[2].stop()
	wait(t, c, "b3 is down", func(m *topology.Map) bool { return hostState(m, "b3") == topology.HostDown })
	hosts[2].self.Boot = ashlar.BootID(ashlar.NewID())
	hosts[2].live(q)
	m = wait(t, c, "b3 is up again", func(m *topology.Map) bool { return hostState(m, "b3") == topology.HostUp })
	if h := m.Host(id); h.Name != "b3" || h.Boot != hosts[2].self.Boot {
		t.Errorf("host %v is %+v after the restart", id, h)
	}

	hosts[4].stop()
	hosts[5].stop()
	m = wait(t, c, "zone 3 is down", func(m *topology.Map) bool {
		return hostState(m, "b5") == topology.HostDown && hostState(m, "b6") == topology.HostDown
	})
	eventually(t, "a partition is suspected", func() bool {
		st := status(t, c)
		return raised(st, health.PartitionSuspected) && raised(st, health.ZoneDown) && st.Verdict == health.AtRisk
	})
	for g := range groups {
		if !slices.Equal(m.Groups[g].Disks, groups[g].Disks) || m.Groups[g].Moved != groups[g].Moved {
			t.Fatalf("group %d moved", g)
		}
	}
}

// TestLeaderDies: the next leader goes on with the same map, calls nobody
// silent for the change, and notices who is.
func TestLeaderDies(t *testing.T) {
	t.Parallel()
	q := startQuorum(t, 3, newCluster())
	hosts := sixHosts(q)
	c := q.client()
	before := wait(t, c, "formed", (*topology.Map).Formed)
	old := q.leader()
	started := time.Now()
	q.kill(old)
	now := q.leader()
	t.Logf("%v schedules %v after %v was killed", q.members[now].Name(), time.Since(started), q.configs[old].Name)
	eventually(t, "the status counts two of three", func() bool {
		st := status(t, c)
		return st.Placement == health.Placement{Voting: 2, Members: 3, Leader: q.members[now].Name()} && raised(st, health.QuorumDegraded)
	})
	hosts[1].stop()
	m := wait(t, c, "b2 is down", func(m *topology.Map) bool { return hostState(m, "b2") == topology.HostDown })
	if m.Epoch != before.Epoch+1 {
		t.Errorf("epoch %d, want %d: the change of leaders itself changed the map", m.Epoch, before.Epoch+1)
	}
	q.start(old)
	await(t, q.members[old].Ready(), "the killed member is back")
	eventually(t, "it holds the newest map", func() bool {
		m := q.members[old].Map()
		return m != nil && hostState(m, "b2") == topology.HostDown
	})
	eventually(t, "three of three vote", func() bool { return status(t, c).Placement.Voting == 3 })
}

// TestMinorityCut cuts two of five members off, the leader among them. The
// majority goes on; the minority keeps the old map, says so, and adopts the new
// one when the cut is mended.
func TestMinorityCut(t *testing.T) {
	t.Parallel()
	q := startQuorum(t, 5, newCluster())
	hosts := sixHosts(q)
	wait(t, hosts[0].c, "formed", (*topology.Map).Formed)
	lead := q.leader()
	minority := []int{lead, (lead + 1) % 5}
	var few, many []string
	for i, m := range q.members {
		if slices.Contains(minority, i) {
			few = append(few, m.Name())
		} else {
			many = append(many, m.Name())
		}
	}
	each := func(do func(i int, others []string)) {
		for i := range q.members {
			if slices.Contains(minority, i) {
				do(i, many)
			} else {
				do(i, few)
			}
		}
	}
	started := time.Now()
	each(func(i int, others []string) { q.members[i].Cut(others...) })
	eventually(t, "a member of the majority schedules, the old leader does not", func() bool {
		return !q.members[lead].Leads() && slices.ContainsFunc(many, func(name string) bool {
			return slices.ContainsFunc(q.members, func(m *placement.Member) bool { return m.Name() == name && m.Leads() })
		})
	})
	t.Logf("the majority has a leader %v after the cut", time.Since(started))
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}

	epoch := q.members[lead].Map().Epoch // a map that was on its way when the links were cut is in it
	hosts[5].stop()
	wait(t, hosts[0].c, "b6 is down", func(m *topology.Map) bool { return hostState(m, "b6") == topology.HostDown })
	alone := q.client(q.configs[minority[0]].RPC[few[0]], q.configs[minority[1]].RPC[few[1]])
	m := wait(t, alone, "the minority serves its last map", func(*topology.Map) bool { return true })
	if m.Epoch != epoch || hostState(m, "b6") != topology.HostUp {
		t.Errorf("the minority has epoch %d, want the %d from before b6 went", m.Epoch, epoch)
	}
	st := status(t, alone)
	if !strings.Contains(st.AsOf, "no leader answers it") || !raised(st, health.QuorumLost) || st.Epoch != epoch {
		t.Errorf("the minority says %+v", st)
	}

	each(func(i int, others []string) { q.members[i].Mend(others...) })
	wait(t, alone, "the minority adopts the map", func(m *topology.Map) bool { return hostState(m, "b6") == topology.HostDown })
	eventually(t, "five of five vote", func() bool { return status(t, alone).Placement.Voting == 5 })
}

// TestQuorumAway kills two of three: the map stays in force, a new client still
// gets it, and what happened is noticed when the quorum returns.
func TestQuorumAway(t *testing.T) {
	t.Parallel()
	q := startQuorum(t, 3, newCluster())
	hosts := sixHosts(q)
	before := wait(t, hosts[0].c, "formed", (*topology.Map).Formed)
	rest := q.leader()
	q.kill((rest+1)%3, (rest+2)%3)
	eventually(t, "the last member stops scheduling", func() bool { return !q.members[rest].Leads() })
	late := q.client()
	m := wait(t, late, "a late client gets the last map", func(*topology.Map) bool { return true })
	if m.Epoch != before.Epoch {
		t.Errorf("epoch %d, want %d", m.Epoch, before.Epoch)
	}
	hosts[0].stop()
	if st := status(t, late); st.AsOf == "" || !raised(st, health.QuorumLost) {
		t.Errorf("without a quorum the status is %+v", st)
	}
	q.start((rest + 1) % 3)
	wait(t, late, "b1 is found down", func(m *topology.Map) bool { return hostState(m, "b1") == topology.HostDown })
	for _, h := range hosts[1:] {
		if got := hostState(late.Map(), h.self.Name); got != topology.HostUp {
			t.Errorf("%s is %v, it never stopped", h.self.Name, got)
		}
	}
}

// TestAllRestart kills every member at once; cluster, hosts and tables are the
// same afterwards, and ids go on where they were.
func TestAllRestart(t *testing.T) {
	t.Parallel()
	q := startQuorum(t, 3, newCluster())
	hosts := sixHosts(q)
	before := wait(t, hosts[0].c, "formed", (*topology.Map).Formed)
	q.kill(0, 1, 2)
	for i := range q.members {
		q.start(i)
	}
	for _, m := range q.members {
		await(t, m.Ready(), m.Name()+" is ready again")
	}
	extra := newHost(1, 7, 1)
	extra.live(q)
	m := wait(t, extra.c, "b7 is in the map", func(m *topology.Map) bool { return len(m.Hosts) == 7 })
	if m.Cluster != before.Cluster || m.Hosts[6].Name != "b7" || m.Hosts[6].ID != 7 {
		t.Errorf("cluster %v, host %+v; want cluster %v and host 7", m.Cluster, m.Hosts[6], before.Cluster)
	}
	for i := range before.Hosts {
		if a, b := before.Hosts[i], m.Hosts[i]; a.ID != b.ID || a.Name != b.Name {
			t.Errorf("host %+v became %+v", a, b)
		}
	}
	for g := range before.Groups {
		if !slices.Equal(before.Groups[g].Disks, m.Groups[g].Disks) {
			t.Fatalf("group %d changed", g)
		}
	}
}

// TestSameAnswer asks every member: heartbeats are passed on, and the status
// is the same wherever one asks.
func TestSameAnswer(t *testing.T) {
	t.Parallel()
	q := startQuorum(t, 3, newCluster())
	hosts := sixHosts(q)
	wait(t, hosts[0].c, "formed", (*topology.Map).Formed)
	var first string
	for i, addr := range q.addrs() {
		c := q.client(addr)
		eventually(t, "healthy", func() bool { return status(t, c).Verdict == health.Healthy })
		var b strings.Builder
		if err := status(t, c).Render(&b); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = b.String()
			t.Log("\n" + first)
		} else if b.String() != first {
			t.Errorf("%s says\n%s", q.configs[i].Name, b.String())
		}
	}
	// A host whose daemon knows but one member, which does not lead.
	follower := (q.leader() + 1) % 3
	h := newHost(2, 9, 1)
	h.c = q.client(q.addrs()[follower])
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	learned := make(chan ashlar.HostID, 1)
	h.self.Learned = func(id ashlar.HostID, _ ashlar.ClusterID) { learned <- id }
	go func() { done <- h.c.Heartbeat(ctx, h.self, beatEvery, h.report) }()
	if id := <-learned; id != 7 {
		t.Errorf("the host was given id %v, want 7", id)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("heartbeats ended with %v", err)
	}
}

// TestRefused: a host of another cluster is told so, and told to stop.
func TestRefused(t *testing.T) {
	t.Parallel()
	q := startQuorum(t, 1, newCluster())
	h := newHost(1, 1, 1)
	h.self.Cluster = ashlar.ClusterID(ashlar.NewID())
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := q.client().Heartbeat(ctx, h.self, beatEvery, h.report); !ashlar.Is(err, ashlar.Denied) {
		t.Errorf("the heartbeat of another cluster's host: %v", err)
	}
}
