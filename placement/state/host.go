package state

import (
	"time"

	"ashlar"
	"ashlar/placement/topology"
)

// Heartbeat takes in what a host says. The answer holds once what is pending
// is written. Errors: Denied (another cluster), Exists (the name is in use),
// Invalid (what it says makes no sense), Full (too many hosts).
func (s *Machine) Heartbeat(now time.Time, hb Heartbeat) (Answer, error) {
	if err := s.judge(hb); err != nil {
		return Answer{}, err
	}
	i, err := s.recognize(now, hb)
	if err != nil {
		return Answer{}, err
	}
	if i < 0 {
		i = s.admit(now, hb)
	}
	h := s.Map().Hosts[i]
	if h.State != topology.HostUp {
		s.setHostState(i, topology.HostUp, now)
	}
	set(s, func(m *topology.Map) *string { return &m.Hosts[i].Name }, hb.Name)
	set(s, func(m *topology.Map) *string { return &m.Hosts[i].Zone }, hb.Zone)
	set(s, func(m *topology.Map) *string { return &m.Hosts[i].Rack }, hb.Rack)
	set(s, func(m *topology.Map) *string { return &m.Hosts[i].Addr }, hb.Addr)
	set(s, func(m *topology.Map) *string { return &m.Hosts[i].RPC }, hb.RPC)
	if h.Boot != hb.Boot {
		s.stirred = s.nextEpoch()
	}
	set(s, func(m *topology.Map) *ashlar.BootID { return &m.Hosts[i].Boot }, hb.Boot)

	mem := s.heard[h.ID]
	if mem == nil {
		mem = &heard{disks: map[ashlar.DiskID]bool{}}
		s.heard[h.ID] = mem
	}
	mem.at, mem.repairPieces, mem.checked = now, hb.RepairPieces, hb.Checked
	s.hearShards(now, h.ID, mem, hb)
	all := s.takeDisks(now, h.ID, mem, hb)
	s.form(now)
	return Answer{Host: h.ID, NeedFull: !mem.full || !all}, nil
}

// judge refuses what no host of this cluster would say.
func (s *Machine) judge(hb Heartbeat) error {
	switch {
	case hb.Name == "" || hb.Zone == "":
		return refuse(hb.Name, ashlar.Invalid, "a host must say its name and its zone")
	case len(hb.Disks) > DisksPerHostMax:
		return refuse(hb.Name, ashlar.Invalid, "%d disks, at most %d are allowed", len(hb.Disks), DisksPerHostMax)
	case hb.Cluster != (ashlar.ClusterID{}) && hb.Cluster != s.Map().Cluster:
		return refuse(hb.Name, ashlar.Denied, "the host's disks belong to cluster %v, this is %v", hb.Cluster, s.Map().Cluster)
	}
	for _, d := range hb.Disks {
		if d.ID == (ashlar.DiskID{}) || d.Name == "" {
			return refuse(hb.Name, ashlar.Invalid, "a disk without id or name")
		}
	}
	return nil
}

// recognize returns the position of the host in the map, or -1 for a new one.
func (s *Machine) recognize(now time.Time, hb Heartbeat) (int, error) {
	byName, byID := -1, -1
	for i, h := range s.Map().Hosts {
		if h.Name == hb.Name {
			byName = i
		}
		if hb.Host != 0 && h.ID == hb.Host {
			byID = i
		}
	}
	switch {
	case hb.Host != 0 && byID < 0:
		return 0, refuse(hb.Name, ashlar.Denied, "this cluster has given no host id %v", hb.Host)
	case byID >= 0 && byName >= 0 && byName != byID:
		return 0, refuse(hb.Name, ashlar.Exists, "the name belongs to host %v, this is host %v",
			s.Map().Hosts[byName].ID, hb.Host)
	case byID >= 0:
		return byID, nil
	case byName >= 0 && !s.sharesDisk(s.Map().Hosts[byName].ID, hb) && s.alive(now, byName, hb.Boot):
		return 0, refuse(hb.Name, ashlar.Exists, "another host of that name is alive")
	case byName < 0 && len(s.Map().Hosts) >= HostsMax:
		return 0, refuse(hb.Name, ashlar.Full, "the cluster has %d hosts", HostsMax)
	}
	return byName, nil
}

// alive reports whether another run of the host than boot may still live.
func (s *Machine) alive(now time.Time, i int, boot ashlar.BootID) bool {
	h := s.Map().Hosts[i]
	return h.State == topology.HostUp && h.Boot != boot &&
		now.Sub(s.lastHeard(h.ID)) <= s.Map().Settings.DownAfter
}

// sharesDisk reports whether the heartbeat lists a disk of the host, or the
// host has none.
func (s *Machine) sharesDisk(id ashlar.HostID, hb Heartbeat) bool {
	has := false
	for _, d := range s.Map().Disks {
		if d.Host != id {
			continue
		}
		has = true
		for _, r := range hb.Disks {
			if r.ID == d.ID {
				return true
			}
		}
	}
	return !has
}

// admit adds a host and returns its position.
func (s *Machine) admit(now time.Time, hb Heartbeat) int {
	m := s.edit()
	m.Hosts = append(m.Hosts, topology.Host{ID: m.NextHost, Name: hb.Name, State: topology.HostUp, Since: now.Round(0)})
	m.NextHost++
	return len(m.Hosts) - 1
}

// takeDisks takes in the reports of a host's disks. It is false if it left one
// out: the host must report that one again, for its owner may let it go.
func (s *Machine) takeDisks(now time.Time, host ashlar.HostID, mem *heard, hb Heartbeat) (all bool) {
	all = true
	if hb.Full {
		mem.full = true
		clear(mem.disks)
	}
	for _, r := range hb.Disks {
		if s.takeDisk(now, host, r) {
			mem.disks[r.ID] = true
			s.reports[r.ID] = r
		} else {
			all = false
		}
	}
	if !hb.Full {
		return all
	}
	for i, d := range s.Map().Disks {
		if d.Host == host && !mem.disks[d.ID] {
			s.setDiskState(now, i, topology.DiskFailed)
			s.reports[d.ID] = Disk{ID: d.ID, Name: d.Name, Failed: true, Reason: "its host does not see it any more"}
		}
	}
	return all
}

// takeDisk takes in one report. It is false if the disk belongs to another
// host that still has it.
func (s *Machine) takeDisk(now time.Time, host ashlar.HostID, r Disk) bool {
	i, known := s.numbers[r.ID]
	if !known {
		m := s.edit()
		i = len(m.Disks)
		s.numbers[r.ID] = i
		m.Disks = append(m.Disks, topology.Disk{ID: r.ID, Host: host, Name: r.Name, Bytes: r.Bytes, Since: now.Round(0)})
	}
	if owner := s.Map().Disks[i].Host; owner != host && s.holds(owner, r.ID) {
		return false
	}
	if s.Map().Disks[i].Host != host {
		s.stirred = s.nextEpoch()
	}
	set(s, func(m *topology.Map) *ashlar.HostID { return &m.Disks[i].Host }, host)
	set(s, func(m *topology.Map) *string { return &m.Disks[i].Name }, r.Name)
	set(s, func(m *topology.Map) *uint64 { return &m.Disks[i].Bytes }, r.Bytes)
	state := topology.DiskUp
	if r.Failed {
		state = topology.DiskFailed
	}
	s.setDiskState(now, i, state)
	return true
}

// holds reports whether a host that is up says that it has the disk, or has
// not yet said what it has.
func (s *Machine) holds(host ashlar.HostID, id ashlar.DiskID) bool {
	h := s.Map().Host(host)
	if h == nil || h.State != topology.HostUp {
		return false
	}
	mem := s.heard[host]
	if mem == nil || !mem.full {
		return true
	}
	return mem.disks[id] && !s.reports[id].Failed
}

func (s *Machine) setDiskState(now time.Time, i int, to topology.DiskState) {
	if d := s.Map().Disks[i]; d.State != to {
		s.stirred = s.nextEpoch()
		d := &s.edit().Disks[i]
		d.State, d.Since = to, now.Round(0)
	}
}
