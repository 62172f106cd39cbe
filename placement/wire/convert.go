package wire

import (
	"fmt"
	"time"

	"ashlar"
	"ashlar/placement/health"
	"ashlar/placement/topology"
)

// FromMap encodes a map. The result shares nothing with m.
func FromMap(m *topology.Map) *Map {
	w := &Map{
		Cluster: bytes16(m.Cluster), Name: m.Name, Epoch: uint64(m.Epoch),
		Settings: fromSettings(m.Settings),
		NextHost: uint32(m.NextHost), NextReplica: uint64(m.NextReplica), Restore: fromRestore(m.Restore),
		Hosts:  make([]*Host, len(m.Hosts)),
		Disks:  make([]*Disk, len(m.Disks)),
		Groups: make([]*Group, len(m.Groups)),
		Shards: make([]*Shard, len(m.Shards)),
	}
	for i, h := range m.Hosts {
		w.Hosts[i] = &Host{
			Id: uint32(h.ID), Name: h.Name, Zone: h.Zone, Rack: h.Rack, Addr: h.Addr, Rpc: h.RPC,
			Boot: bytes16(h.Boot), State: uint32(h.State), SinceUnixNanos: nanos(h.Since),
		}
	}
	for i, d := range m.Disks {
		w.Disks[i] = &Disk{
			Id: bytes16(d.ID), Host: uint32(d.Host), Name: d.Name, Bytes: d.Bytes,
			State: uint32(d.State), SinceUnixNanos: nanos(d.Since),
		}
	}
	for i, g := range m.Groups {
		disks := make([]uint32, len(g.Disks))
		for j, n := range g.Disks {
			disks[j] = uint32(n)
		}
		w.Groups[i] = &Group{Disks: disks, Moved: uint64(g.Moved)}
	}
	for i, s := range m.Shards {
		w.Shards[i] = &Shard{Replicas: fromReplicas(s.Replicas), Leaving: fromReplicas(s.Leaving), Moved: uint64(s.Moved)}
	}
	return w
}

// ToMap decodes and checks a map: ids have their lengths, hosts are ascending,
// and groups and shards name only disks and hosts that exist. An error has
// kind Corrupt.
func ToMap(w *Map) (*topology.Map, error) {
	m, err := toMap(w)
	if err != nil {
		return nil, ashlar.E("placement: read map", fmt.Sprintf("epoch=%d", w.GetEpoch()), ashlar.Corrupt, err)
	}
	return m, nil
}

func toMap(w *Map) (*topology.Map, error) {
	m := &topology.Map{
		Name: w.GetName(), Epoch: ashlar.Epoch(w.GetEpoch()),
		NextHost: ashlar.HostID(w.GetNextHost()), NextReplica: ashlar.ReplicaID(w.GetNextReplica()),
	}
	var err error
	if m.Settings, err = toSettings(w.GetSettings()); err != nil {
		return nil, err
	}
	if err := into16(m.Cluster[:], w.GetCluster()); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if m.Restore, err = toRestore(w.GetRestore()); err != nil {
		return nil, err
	}
	if err := toTree(m, w); err != nil {
		return nil, err
	}
	return m, toTables(m, w)
}

func toTree(m *topology.Map, w *Map) error {
	m.Hosts = make([]topology.Host, len(w.GetHosts()))
	for i, h := range w.GetHosts() {
		m.Hosts[i] = topology.Host{
			ID: ashlar.HostID(h.GetId()), Name: h.GetName(), Zone: h.GetZone(), Rack: h.GetRack(),
			Addr: h.GetAddr(), RPC: h.GetRpc(), State: topology.HostState(h.GetState()), Since: Time(h.GetSinceUnixNanos()),
		}
		if err := into16(m.Hosts[i].Boot[:], h.GetBoot()); err != nil {
			return fmt.Errorf("host %d: boot: %w", h.GetId(), err)
		}
		if h.GetId() == 0 || i > 0 && m.Hosts[i].ID <= m.Hosts[i-1].ID {
			return fmt.Errorf("host %d: ids are not ascending", h.GetId())
		}
	}
	m.Disks = make([]topology.Disk, len(w.GetDisks()))
	for i, d := range w.GetDisks() {
		m.Disks[i] = topology.Disk{
			Host: ashlar.HostID(d.GetHost()), Name: d.GetName(), Bytes: d.GetBytes(),
			State: topology.DiskState(d.GetState()), Since: Time(d.GetSinceUnixNanos()),
		}
		if err := into16(m.Disks[i].ID[:], d.GetId()); err != nil {
			return fmt.Errorf("disk %d: id: %w", i, err)
		}
		if m.Host(m.Disks[i].Host) == nil {
			return fmt.Errorf("disk %d: no host %d", i, d.GetHost())
		}
	}
	return nil
}

func toTables(m *topology.Map, w *Map) error {
	m.Groups = make([]topology.Group, len(w.GetGroups()))
	for i, g := range w.GetGroups() {
		disks := make([]topology.DiskNum, len(g.GetDisks()))
		for j, n := range g.GetDisks() {
			if int(n) >= len(m.Disks) {
				return fmt.Errorf("group %d: no disk %d", i, n)
			}
			disks[j] = topology.DiskNum(n)
		}
		m.Groups[i] = topology.Group{Disks: disks, Moved: ashlar.Epoch(g.GetMoved())}
	}
	if n := len(m.Groups); n != 0 && n != 1<<m.Settings.GroupBits {
		return fmt.Errorf("%d groups, want 2^%d", n, m.Settings.GroupBits)
	}
	m.Shards = make([]topology.Shard, len(w.GetShards()))
	for i, s := range w.GetShards() {
		m.Shards[i] = topology.Shard{
			Replicas: toReplicas(s.GetReplicas()), Leaving: toReplicas(s.GetLeaving()), Moved: ashlar.Epoch(s.GetMoved()),
		}
		for _, r := range m.Shards[i].All() {
			if m.Host(r.Host) == nil {
				return fmt.Errorf("shard %d: no host %d", i, r.Host)
			}
		}
	}
	return nil
}

func fromReplicas(replicas []topology.Replica) []*Replica {
	out := make([]*Replica, len(replicas))
	for i, r := range replicas {
		out[i] = &Replica{Id: uint64(r.ID), Host: uint32(r.Host)}
	}
	return out
}

func toReplicas(replicas []*Replica) []topology.Replica {
	var out []topology.Replica
	for _, r := range replicas {
		out = append(out, topology.Replica{ID: ashlar.ReplicaID(r.GetId()), Host: ashlar.HostID(r.GetHost())})
	}
	return out
}

func fromRestore(r topology.Restore) *Restore {
	if r == (topology.Restore{}) {
		return nil
	}
	return &Restore{
		Backup: bytes16(r.Backup), Run: bytes16(r.Run), Shards: r.Shards, Importing: r.Importing,
		CreatedUnixNanos: nanos(r.Created), AdoptedUnixNanos: nanos(r.Adopted),
	}
}

func toRestore(w *Restore) (r topology.Restore, err error) {
	r.Shards, r.Importing = w.GetShards(), w.GetImporting()
	r.Created, r.Adopted = Time(w.GetCreatedUnixNanos()), Time(w.GetAdoptedUnixNanos())
	if err := into16(r.Backup[:], w.GetBackup()); err != nil {
		return r, fmt.Errorf("restore: %w", err)
	}
	if err := into16(r.Run[:], w.GetRun()); err != nil {
		return r, fmt.Errorf("restore: %w", err)
	}
	return r, nil
}

func fromSettings(s topology.Settings) *Settings {
	return &Settings{
		Large: s.Large.String(), Small: s.Small.String(), SmallMax: s.SmallMax, StripeBytes: s.StripeBytes,
		GroupBits: uint32(s.GroupBits), BucketShards: uint32(s.BucketShards),
		DownAfterNanos: int64(s.DownAfter), OutAfterNanos: int64(s.OutAfter),
	}
}

func toSettings(w *Settings) (topology.Settings, error) {
	large, err := ashlar.ParseCode(w.GetLarge())
	if err != nil {
		return topology.Settings{}, err
	}
	small, err := ashlar.ParseCode(w.GetSmall())
	if err != nil {
		return topology.Settings{}, err
	}
	if w.GetGroupBits() > groupBitsMax || w.GetBucketShards() > 255 {
		return topology.Settings{}, fmt.Errorf("settings: %d group bits, %d bucket shards", w.GetGroupBits(), w.GetBucketShards())
	}
	return topology.Settings{
		Large: large, Small: small, SmallMax: w.GetSmallMax(), StripeBytes: w.GetStripeBytes(),
		GroupBits: uint8(w.GetGroupBits()), BucketShards: uint8(w.GetBucketShards()),
		DownAfter: time.Duration(w.GetDownAfterNanos()), OutAfter: time.Duration(w.GetOutAfterNanos()),
	}, nil
}

// FromScrub encodes how the scrub of a disk stands; nil for a disk without one.
func FromScrub(s health.DiskScrub) *ScrubReport {
	if s.Period == 0 {
		return nil
	}
	return &ScrubReport{
		PeriodNanos: int64(s.Period), LastUnixNanos: nanos(s.Last), DueUnixNanos: nanos(s.Due), OldestUnixNanos: nanos(s.Oldest),
		Bytes: s.Bytes, Waiting: s.Waiting, Repaired: s.Repaired, Unread: s.Unread,
	}
}

// ToScrub is the inverse of FromScrub.
func ToScrub(w *ScrubReport) health.DiskScrub {
	return health.DiskScrub{
		Period: time.Duration(w.GetPeriodNanos()), Last: Time(w.GetLastUnixNanos()), Due: Time(w.GetDueUnixNanos()),
		Oldest: Time(w.GetOldestUnixNanos()), Bytes: w.GetBytes(), Waiting: w.GetWaiting(), Repaired: w.GetRepaired(),
		Unread: w.GetUnread(),
	}
}

// FromSmart encodes what a disk says of itself; nil for one that was not asked.
func FromSmart(s health.DiskSmart) *SmartReport {
	if !s.Known {
		return nil
	}
	return &SmartReport{
		Serial: s.Serial, Failing: s.Failing, Concern: s.Concern, Reallocated: s.Reallocated, Pending: s.Pending,
		Uncorrectable: s.Uncorrectable, LinkCrc: s.LinkCRC, WearPercent: s.Wear, Temperature: s.Temperature,
	}
}

// ToSmart is the inverse of FromSmart.
func ToSmart(w *SmartReport) health.DiskSmart {
	return health.DiskSmart{
		Known: w != nil, Serial: w.GetSerial(), Failing: w.GetFailing(), Concern: w.GetConcern(), Reallocated: w.GetReallocated(),
		Pending: w.GetPending(), Uncorrectable: w.GetUncorrectable(), LinkCRC: w.GetLinkCrc(), Wear: w.GetWearPercent(),
		Temperature: w.GetTemperature(),
	}
}

// groupBitsMax bounds the group table at a million groups.
const groupBitsMax = 20

func bytes16[T ~[16]byte](id T) []byte { b := [16]byte(id); return b[:] }

// ID reads an id of 16 bytes off the wire. Nothing is read as the zero id.
func ID(b []byte) (ashlar.ID, error) {
	var id ashlar.ID
	return id, into16(id[:], b)
}

func into16(dst, src []byte) error {
	if len(src) != 0 && len(src) != len(dst) {
		return fmt.Errorf("%d bytes, want %d", len(src), len(dst))
	}
	copy(dst, src)
	return nil
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Time reads nanoseconds since 1970 off the wire. 0 is read as the zero time.
func Time(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}
