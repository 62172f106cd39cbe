package health

import (
	"ashlar/placement/topology"
)

// Judge computes the status. It keeps neither m nor f.
func Judge(m *topology.Map, f Facts) Status {
	st := Status{
		Cluster: m.Name, Epoch: m.Epoch, Formed: m.Formed(), Code: m.Settings.Large.String(),
		Groups: len(m.Groups), Shards: len(m.Shards), RepairPieces: f.RepairPieces, HostsChecking: f.Unchecked,
		Placement: Placement{Members: len(f.Members), Leader: f.Leader},
	}
	st.Capacity, st.Room = capacity(m, f)
	for _, member := range f.Members {
		st.Placement.Voting += one(member.Voting)
	}
	countTree(m, &st)
	st.Scrub = scrub(m, f)
	if !st.Formed {
		st.Verdict = Unavailable
		st.Reads, st.Writes = Survival{-1, -1, -1}, Survival{-1, -1, -1}
	} else {
		c := count(m, f)
		st.Reads, st.Writes, st.Worst = c.reads, c.writes, c.worst
		st.Verdict = verdict(&st, c.atRisk)
	}
	st.Codes = raise(m, f, &st)
	return st
}

func verdict(st *Status, atRisk bool) Verdict {
	whole := st.Hosts.Up == st.Hosts.Total && st.Disks.Up == st.Disks.Total &&
		st.Placement.Voting == st.Placement.Members && st.Worst == Worst{}
	switch {
	case st.Worst.Unreadable > 0 || st.Worst.NoMajority > 0:
		return Unavailable
	case atRisk:
		return AtRisk
	case st.Room != nil && st.Room.GroupsFull > 0:
		return IsFull
	case !whole:
		return Degraded
	case st.Room.near():
		return IsNearFull
	case st.RepairPieces > 0 || st.HostsChecking > 0:
		return Repairing
	}
	return Healthy
}

func countTree(m *topology.Map, st *Status) {
	st.Hosts.Total, st.Disks.Total = len(m.Hosts), len(m.Disks)
	zones := map[string]bool{}
	for _, h := range m.Hosts {
		up := h.State == topology.HostUp
		st.Hosts.Up += one(up)
		zones[h.Zone] = zones[h.Zone] || up
	}
	for i := range m.Disks {
		st.Disks.Up += one(m.Live(topology.DiskNum(i)))
	}
	st.Zones.Total = len(zones)
	for _, up := range zones {
		st.Zones.Up += one(up)
	}
}

// capacity adds up what the disks say. The room is nil if it is not known.
func capacity(m *topology.Map, f Facts) (Capacity, *Room) {
	var c Capacity
	for i, d := range m.Disks {
		c.RawBytes += d.Bytes
		c.UsedBytes += f.Disks[topology.DiskNum(i)].UsedBytes
	}
	large := m.Settings.Large
	if large.K == 0 {
		return c, nil
	}
	c.StoredBytes = c.UsedBytes * uint64(large.K) / uint64(large.Pieces())
	if !m.Formed() {
		c.UsableBytes = c.RawBytes / uint64(large.Pieces()) * uint64(large.K)
		return c, nil
	}
	r := newRooms(m, f)
	c.UsableBytes = r.usable()
	room := r.room(c.UsableBytes)
	if room != nil {
		// Short objects lie closer than whole stripes.
		c.UsableBytes = max(c.UsableBytes, c.StoredBytes+room.WritableBytes)
	}
	return c, room
}
