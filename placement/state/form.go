package state

import (
	"errors"
	"fmt"
	"time"

	"ashlar"
	"ashlar/placement/layout"
	"ashlar/placement/topology"
)

// form makes the group table and the shards once the expected hosts and disks
// are up. Until then it says what is missing.
func (s *Machine) form(now time.Time) {
	m := s.Map()
	if s.layRestored() {
		return
	}
	if m.Formed() {
		s.forming = ""
		return
	}
	hosts, disks := 0, 0
	for _, h := range m.Hosts {
		if h.State == topology.HostUp {
			hosts++
		}
	}
	for i := range m.Disks {
		if m.Live(topology.DiskNum(i)) {
			disks++
		}
	}
	s.forming = fmt.Sprintf("%d of %d hosts and %d of %d disks are here", hosts, s.cfg.ExpectHosts, disks, s.cfg.ExpectDisks)
	if hosts < s.cfg.ExpectHosts || disks < s.cfg.ExpectDisks {
		return
	}
	if err := s.lay(); err != nil {
		s.forming = reason(err)
		return
	}
	s.forming = ""
}

// reason is the innermost cause: what people need to know.
func reason(err error) string {
	var e *ashlar.Error
	if errors.As(err, &e) && e.Err != nil {
		return reason(e.Err)
	}
	return err.Error()
}

// lay writes the tables into the pending map.
func (s *Machine) lay() error {
	m := s.Map()
	set := m.Settings
	width := max(set.Large.Pieces(), set.Small.Pieces())
	var leaves []layout.Disk
	for _, d := range layout.Disks(m) {
		if m.Live(d.Num) {
			leaves = append(leaves, d)
		}
	}
	table, err := layout.Build(leaves, 1<<set.GroupBits, width, set.Small.Pieces())
	if err != nil {
		return err
	}
	if err := s.layShards(s.cfg.Shards); err != nil {
		return err
	}
	m = s.edit()
	m.Groups = make([]topology.Group, len(table))
	for g, disks := range table {
		m.Groups[g] = topology.Group{Disks: disks, Moved: s.nextEpoch()}
	}
	return nil
}

// layShards writes shards with new replicas on the hosts that are up.
func (s *Machine) layShards(n int) error {
	var hosts []topology.Host
	for _, h := range s.Map().Hosts {
		if h.State == topology.HostUp {
			hosts = append(hosts, h)
		}
	}
	rows, err := layout.Replicas(hosts, n, shardReplicas)
	if err != nil {
		return err
	}
	m := s.edit()
	m.Shards = make([]topology.Shard, len(rows))
	for i, row := range rows {
		for _, host := range row {
			m.Shards[i].Replicas = append(m.Shards[i].Replicas, topology.Replica{ID: m.NextReplica, Host: host})
			m.NextReplica++
		}
	}
	return nil
}
