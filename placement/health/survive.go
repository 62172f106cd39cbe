package health

import (
	"slices"

	"ashlar"
	"ashlar/placement/topology"
)

// census is what the tables say of the cluster, counted once.
type census struct {
	reads, writes Survival
	worst         Worst
	// atRisk: a group lost a disk and can lose none more, or lost two and can
	// lose at most one more.
	atRisk bool
}

// count walks the group table and the shards of a formed map.
func count(m *topology.Map, f Facts) census {
	all := int(^uint(0) >> 1)
	c := census{reads: Survival{all, all, all}, writes: Survival{all, all, all}}
	codes := []ashlar.Code{m.Settings.Large}
	if m.Settings.Small != m.Settings.Large {
		codes = append(codes, m.Settings.Small)
	}
	for i := range m.Groups {
		c.group(m, &m.Groups[i], codes)
	}
	for i := range m.Shards {
		c.shard(m, f, &m.Shards[i])
	}
	return c
}

// spread is how many live pieces stand and fall together.
type spread struct {
	live         int
	hosts, zones []int // pieces on each, most first
}

// group judges one group for every code that stripes on it may have.
func (c *census) group(m *topology.Map, g *topology.Group, codes []ashlar.Code) {
	missing, edge, unreadable, unwritable := false, false, false, false
	for _, code := range codes {
		pieces := g.Disks[:min(code.Pieces(), len(g.Disks))]
		s := spreadOf(m, pieces)
		lost, left := len(pieces)-s.live, s.live-int(code.K)
		c.reads = c.reads.worst(s.survives(left))
		c.writes = c.writes.worst(s.survives(s.live - code.Quorum()))
		missing = missing || lost > 0
		edge = edge || lost > 0 && left == 0
		unreadable = unreadable || left < 0
		unwritable = unwritable || s.live < code.Quorum()
		c.atRisk = c.atRisk || lost >= 1 && left <= 0 || lost >= 2 && left <= 1
	}
	c.worst.Missing += one(missing)
	c.worst.Edge += one(edge)
	c.worst.Unreadable += one(unreadable)
	c.worst.Unwritable += one(unwritable)
}

// shard judges one metadata shard: it lives while a majority of its replicas
// does. Its rows are on the hosts, not on the claimed disks.
func (c *census) shard(m *topology.Map, f Facts, sh *topology.Shard) {
	hosts, zones := map[ashlar.HostID]int{}, map[string]int{}
	voters := votersOf(f, sh)
	live := 0
	for _, r := range voters {
		if h := m.Host(r.Host); h != nil && h.State == topology.HostUp && f.Replicas[r.ID] != ReplicaLost {
			live++
			hosts[h.ID]++
			zones[h.Zone]++
		}
	}
	left := live - (len(voters)/2 + 1)
	s := spread{live: live, hosts: sorted(hosts), zones: sorted(zones)}.survives(left)
	if left >= 0 {
		s.Disks = c.reads.Disks // no disk holds it
	}
	c.reads = c.reads.worst(s)
	if left >= 0 {
		s.Disks = c.writes.Disks
	}
	c.writes = c.writes.worst(s)
	c.worst.NoMajority += one(left < 0)
	c.worst.ShardsEdge += one(left == 0 && live < len(voters))
}

func spreadOf(m *topology.Map, pieces []topology.DiskNum) spread {
	hosts, zones := map[ashlar.HostID]int{}, map[string]int{}
	live := 0
	for _, n := range pieces {
		if !m.Live(n) {
			continue
		}
		h := m.Host(m.Disks[n].Host)
		live++
		hosts[h.ID]++
		zones[h.Zone]++
	}
	return spread{live: live, hosts: sorted(hosts), zones: sorted(zones)}
}

// survives tells how many disks, hosts or zones may go when left pieces may.
func (s spread) survives(left int) Survival {
	if left < 0 {
		return Survival{-1, -1, -1}
	}
	return Survival{Disks: left, Hosts: most(s.hosts, left), Zones: most(s.zones, left)}
}

// most returns the greatest n for which the n largest counts sum up to at most
// left: then any n do.
func most(counts []int, left int) int {
	for n, c := range counts {
		if left -= c; left < 0 {
			return n
		}
	}
	return len(counts)
}

func (s Survival) worst(o Survival) Survival {
	return Survival{Disks: min(s.Disks, o.Disks), Hosts: min(s.Hosts, o.Hosts), Zones: min(s.Zones, o.Zones)}
}

func sorted[K comparable](counts map[K]int) []int {
	out := make([]int, 0, len(counts))
	for _, n := range counts {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b int) int { return b - a })
	return out
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
