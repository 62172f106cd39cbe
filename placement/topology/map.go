// Package topology is the cluster map as data: the failure tree (zone › rack ›
// host › disk), the group table, the metadata shards and the settings, all
// under one epoch.
//
// It is pure: no clock, no network, no store. The placement quorum makes maps;
// everybody else caches the newest one that they saw and only reads it. A Map
// that was handed out is never changed: to change one, Clone it, edit the copy
// and give the copy a higher epoch.
//
//	Map
//	 ├─ Settings        codes, stripe size, number of groups
//	 ├─ Hosts []Host    zone, rack, addresses, up / down / out
//	 ├─ Disks []Disk    append-only; a disk's position is its DiskNum
//	 ├─ Groups []Group  position = GroupID; the disks of a group, in order
//	 └─ Shards []Shard  position = ShardID; the replicas of a metadata shard
//
// The order of the disks inside a group alternates zones, so that the first
// three are in three zones and any prefix is spread as widely as the cluster
// allows. Piece i of a stripe lives on disk i of its group.
package topology

import (
	"maps"
	"slices"
	"time"

	"ashlar"
)

// HostState is what the quorum believes of a host.
type HostState uint8

// The states of a host. The numbers travel: append only.
const (
	HostUp   HostState = iota // heartbeats arrive
	HostDown                  // heartbeats are missing; data is still counted on
	HostOut                   // given up; its groups get other disks
)

func (s HostState) String() string { return [...]string{"up", "down", "out"}[min(s, HostOut)] }

// DiskState is what the quorum believes of a disk on a host that is up.
type DiskState uint8

// The states of a disk. The numbers travel: append only.
const (
	DiskUp     DiskState = iota // reads and writes
	DiskFailed                  // fenced by its daemon: neither reads nor writes
	DiskOut                     // given up; its groups get other disks
)

func (s DiskState) String() string { return [...]string{"up", "failed", "out"}[min(s, DiskOut)] }

// DiskNum is the position of a disk in Map.Disks. It never changes.
type DiskNum uint32

// Host is one machine that runs a daemon.
type Host struct {
	ID   ashlar.HostID
	Name string // unique in the cluster, for people
	Zone string
	Rack string
	// Addr is the host:port of the HTTP/1.1 listener for bytes, RPC that of the gRPC listener.
	Addr, RPC string
	Boot      ashlar.BootID
	State     HostState
	// Since is when State was last changed.
	Since time.Time
}

// Disk is one claimed device.
type Disk struct {
	ID    ashlar.DiskID
	Host  ashlar.HostID
	Name  string // host/dNN, for people
	Bytes uint64 // capacity for records, in bytes
	State DiskState
	Since time.Time
}

// Group is a fixed set of disks; stripes of the group are laid on a prefix of it.
type Group struct {
	Disks []DiskNum
	// Moved is the epoch that last changed Disks. A host refuses a request about
	// this group that carries an older epoch.
	Moved ashlar.Epoch
}

// Replica is one member of a shard's raft group.
type Replica struct {
	ID   ashlar.ReplicaID
	Host ashlar.HostID
}

// Shard is one metadata shard.
type Shard struct {
	// Replicas are those that it should have, the preferred leader first.
	Replicas []Replica
	// Leaving are those that a change of the list took out and that may still
	// vote: they keep their data until the change is known to be done.
	Leaving []Replica
	// Moved is the epoch at which a replica was last put into the list, 0 if none
	// was since the cluster was formed. It orders the lists of a shard.
	Moved ashlar.Epoch
}

// All returns the replicas that may hold the shard's data: those of the list,
// then those that leave.
func (s *Shard) All() []Replica {
	return append(slices.Clone(s.Replicas), s.Leaving...)
}

// Changing reports whether a change of the list is not known to be done.
func (s *Shard) Changing() bool { return len(s.Leaving) > 0 }

// Settings are the cluster-wide choices that everybody must share.
type Settings struct {
	// Large codes stripes longer than SmallMax bytes, Small the others.
	Large, Small ashlar.Code
	SmallMax     uint32
	// StripeBytes is the most user data that one stripe holds.
	StripeBytes uint32
	// GroupBits is the binary logarithm of the number of groups.
	GroupBits uint8
	// BucketShards is the number of shards that a new bucket is spread over.
	BucketShards uint8
	// DownAfter is the silence after which a host is down, OutAfter after which
	// a host that is down is out.
	DownAfter, OutAfter time.Duration
}

// Map is the replicated view of the cluster at one epoch.
type Map struct {
	Cluster  ashlar.ClusterID
	Name     string
	Epoch    ashlar.Epoch
	Settings Settings
	Hosts    []Host // ascending by ID
	Disks    []Disk
	Groups   []Group // empty until the cluster is formed
	Shards   []Shard
	// NextHost and NextReplica are the ids to give out next. They only grow, so
	// that an id is never used twice.
	NextHost    ashlar.HostID
	NextReplica ashlar.ReplicaID
	// Restore is zero unless the map came from a backup.
	Restore Restore
}

// Restore says how a map that came from a backup stands.
type Restore struct {
	// Backup names the backup, Run this restore of it: metadata is kept under the
	// name of the run, apart from whatever was there before.
	Backup, Run ashlar.ID
	// Shards is the number of shards that the backup holds. They get replicas when
	// enough hosts are up.
	Shards uint32
	// Importing: the rows are not all back. Until they are, the cluster counts as
	// not formed for everybody but who brings them.
	Importing bool
	// Created is as of when the backup is, Adopted when the quorum took its map.
	// Both are zero once an operator has released what was written in between.
	Created, Adopted time.Time
}

// Unnamed reports whether what was written at a time may have had its row in the
// metadata that was lost: it is newer than the backup and older than the restore,
// by clocks that differ, and after uploads that take, no more than slack.
func (r Restore) Unnamed(written time.Time, slack time.Duration) bool {
	return !r.Created.IsZero() && written.After(r.Created.Add(-slack)) && written.Before(r.Adopted.Add(slack))
}

// Formed reports whether the group table and the shards exist, so that the
// cluster can store objects.
func (m *Map) Formed() bool { return m.Laid() && !m.Restore.Importing }

// Laid reports whether the group table and the shards exist, be they filled or not.
func (m *Map) Laid() bool { return m != nil && len(m.Groups) > 0 && len(m.Shards) > 0 }

// Host returns the host with the given id, or nil.
func (m *Map) Host(id ashlar.HostID) *Host {
	i, ok := slices.BinarySearchFunc(m.Hosts, id, func(h Host, id ashlar.HostID) int {
		return int(int64(h.ID) - int64(id))
	})
	if !ok {
		return nil
	}
	return &m.Hosts[i]
}

// DiskByID returns the disk and its number, or nil.
func (m *Map) DiskByID(id ashlar.DiskID) (*Disk, DiskNum) {
	for i := range m.Disks {
		if m.Disks[i].ID == id {
			return &m.Disks[i], DiskNum(i)
		}
	}
	return nil, 0
}

// Live reports whether the disk can be asked: its host is up and it is up itself.
func (m *Map) Live(n DiskNum) bool {
	if int(n) >= len(m.Disks) {
		return false
	}
	d := &m.Disks[n]
	h := m.Host(d.Host)
	return d.State == DiskUp && h != nil && h.State == HostUp
}

// Group returns the group that the stripe is laid on. The map must be formed.
func (m *Map) Group(s ashlar.StripeID) (ashlar.GroupID, *Group) {
	id := s.Group(m.Settings.GroupBits)
	return id, &m.Groups[id]
}

// Seat is where one piece of a stripe belongs.
type Seat struct {
	Disk ashlar.DiskID
	Host ashlar.HostID
	Live bool
}

// Seat returns the seat of piece i of a stripe. A group with too few disks has
// a dead seat there. The map must be formed.
func (m *Map) Seat(s ashlar.StripeID, i int) Seat {
	_, g := m.Group(s)
	if i >= len(g.Disks) || int(g.Disks[i]) >= len(m.Disks) {
		return Seat{}
	}
	d := &m.Disks[g.Disks[i]]
	return Seat{Disk: d.ID, Host: d.Host, Live: m.Live(g.Disks[i])}
}

// Zone returns the zone of a disk.
func (m *Map) Zone(n DiskNum) string {
	if h := m.Host(m.Disks[n].Host); h != nil {
		return h.Zone
	}
	return ""
}

// Zones returns the names of all zones, sorted.
func (m *Map) Zones() []string {
	set := map[string]bool{}
	for _, h := range m.Hosts {
		set[h.Zone] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// Clone returns a deep copy.
func (m *Map) Clone() *Map {
	c := *m
	c.Hosts = slices.Clone(m.Hosts)
	c.Disks = slices.Clone(m.Disks)
	c.Groups = slices.Clone(m.Groups)
	for i := range c.Groups {
		c.Groups[i].Disks = slices.Clone(m.Groups[i].Disks)
	}
	c.Shards = slices.Clone(m.Shards)
	for i := range c.Shards {
		c.Shards[i].Replicas = slices.Clone(m.Shards[i].Replicas)
		c.Shards[i].Leaving = slices.Clone(m.Shards[i].Leaving)
	}
	return &c
}
