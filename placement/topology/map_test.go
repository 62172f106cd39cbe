package topology

import (
	"slices"
	"testing"

	"ashlar"
)

// small is a map of three hosts in two zones with one disk each, and one group.
func small() *Map {
	m := &Map{Epoch: 3, Groups: []Group{{Disks: []DiskNum{2, 0, 1}}}, Shards: []Shard{{Replicas: []Replica{{1, 2}}}}}
	for i, zone := range []string{"b", "a", "a"} {
		id := ashlar.HostID(2 * (i + 1))
		m.Hosts = append(m.Hosts, Host{ID: id, Zone: zone})
		m.Disks = append(m.Disks, Disk{ID: ashlar.DiskID{byte(i + 1)}, Host: id})
	}
	return m
}

func TestLookups(t *testing.T) {
	m := small()
	if h := m.Host(4); h == nil || h.ID != 4 || m.Host(3) != nil || m.Host(99) != nil {
		t.Errorf("host 4: %v, 3: %v, 99: %v", h, m.Host(3), m.Host(99))
	}
	if d, n := m.DiskByID(ashlar.DiskID{2}); d == nil || n != 1 {
		t.Errorf("disk 2: %v at %d", d, n)
	}
	if d, _ := m.DiskByID(ashlar.DiskID{9}); d != nil {
		t.Errorf("disk 9: %v", d)
	}
	if z := m.Zones(); !slices.Equal(z, []string{"a", "b"}) || m.Zone(0) != "b" || m.Zone(2) != "a" {
		t.Errorf("zones %v, of disk 0 %q, of disk 2 %q", z, m.Zone(0), m.Zone(2))
	}
	if !m.Formed() || (*Map)(nil).Formed() || (&Map{Groups: m.Groups}).Formed() {
		t.Error("formed means groups and shards")
	}
}

func TestSeatFollowsDiskAndHost(t *testing.T) {
	m := small()
	var id ashlar.StripeID
	if s := m.Seat(id, 1); s != (Seat{Disk: ashlar.DiskID{1}, Host: 2, Live: true}) {
		t.Errorf("piece 1: %+v", s)
	}
	if s := m.Seat(id, 3); s != (Seat{}) {
		t.Errorf("piece 3 of a group of three: %+v", s)
	}
	m.Host(2).State = HostDown
	m.Disks[1].State = DiskFailed
	for i, live := range []bool{true, false, false} {
		if s := m.Seat(id, i); s.Live != live {
			t.Errorf("piece %d: %+v", i, s)
		}
	}
	if m.Live(7) {
		t.Error("a disk that does not exist is live")
	}
}

func TestCloneSharesNothing(t *testing.T) {
	original := small()
	clone := original.Clone()
	clone.Groups[0].Disks[0], clone.Shards[0].Replicas[0].Host = 9, 9
	clone.Hosts[0].State, clone.Disks[0].State = HostOut, DiskOut
	if original.Groups[0].Disks[0] == 9 || original.Shards[0].Replicas[0].Host == 9 || original.Hosts[0].State == HostOut || original.Disks[0].State == DiskOut {
		t.Error("a change of the clone is seen in the original")
	}
}
