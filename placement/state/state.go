// Package state is the placement quorum's mind: which hosts and disks there
// are, which of them live, and when the cluster is formed.
//
// It is a pure state machine: no clock, no network, no store. The scheduler
// feeds it heartbeats and ticks with their times; it keeps what it hears in
// memory and holds out the next map when something changed that everybody must
// know. The scheduler writes that map to the quorum and hands it back:
//
//	heartbeat ──► Heartbeat(now, …) ──► answer (after the write)
//	timer     ──► Tick(now)
//	                  │
//	                  ▼
//	              Pending() ── map with the next epoch ──► compare-and-set
//	                  ▲                                          │
//	                  └────────────── Written() ◄────────────────┘
//
// If the write fails the machine is thrown away: somebody else decides now.
//
// # What becomes of a host
//
//	        first heartbeat
//	            │ gets the next host id
//	            ▼     silent for DownAfter
//	┌────────► up ──────────────────────────► down
//	│           ▲                               │
//	│           └──── heartbeat ────────────────┤ down for OutAfter, and not
//	│                                           │ one of many lost at once
//	└─────────────── heartbeat ◄── out ◄────────┘
//
// A host is known again by the id that it was given, else by its name if one
// of its disks is on it or the old holder of the name is silent. Ids are never
// used twice. Silence counts from the moment this machine began to listen, and
// anew after it was itself asleep: a new leader, or one that was stopped for a
// while, has no right to call the others silent.
//
// # Partition
//
// If more than PartitionShare of the hosts (and at least two) fell silent
// within PartitionWindow of one another, that is taken for a cut network: they
// are down, so that callers avoid them, but never marked out. Health says so.
// When enough of them are back the rest get the whole grace anew.
//
// # Metadata shards
//
// The replicas of a shard follow the hosts: one whose host is out, or whose data
// its host reports lost, is replaced by a new one with a new id. shards.go says
// how a change is ordered, when it is known to be done, and why it is safe.
//
// # What it does not do
//
// Groups keep their disks whatever becomes of these. A failed disk stays failed
// until its daemon says otherwise; disks that arrive after the cluster was
// formed are listed and hold nothing.
package state

import (
	"fmt"
	"slices"
	"time"

	"ashlar"
	"ashlar/placement/health"
	"ashlar/placement/topology"
)

// Bounds and shares.
const (
	// DisksPerHostMax bounds the disks that one host may report.
	DisksPerHostMax = 512
	// HostsMax bounds the hosts of a cluster.
	HostsMax = 4096
	// PartitionShare of the hosts lost within PartitionWindow is a partition.
	PartitionShare  = 0.25
	PartitionWindow = 10 * time.Second
	// sleepMax is the pause between ticks after which the machine takes itself
	// to have been asleep.
	sleepMax = time.Second
	// shardReplicas is the number of replicas of a shard where three hosts are.
	shardReplicas = 3
)

// Config is what a new cluster is made with.
type Config struct {
	// Cluster and Name are used if there is no map yet.
	Cluster  ashlar.ClusterID
	Name     string
	Settings topology.Settings
	Shards   int
	// The cluster is formed when this many hosts and disks are up.
	ExpectHosts, ExpectDisks int
}

// Heartbeat is what a host says of itself.
type Heartbeat struct {
	Cluster    ashlar.ClusterID // zero if its disks carry none yet
	Name       string
	Host       ashlar.HostID // 0 if it knows none
	Boot       ashlar.BootID
	Zone, Rack string
	Addr, RPC  string
	// Full says that Disks lists every disk; else it lists what changed.
	Full         bool
	Disks        []Disk
	RepairPieces uint64
	// Checked is the epoch up to which the host's roll call owes nothing, 0
	// without one.
	Checked ashlar.Epoch
	// Shards are the metadata shards that the host leads; Lost its replicas whose
	// data is gone or cannot be trusted.
	Shards []ShardReport
	Lost   []ashlar.ReplicaID
}

// Disk is the report of one disk.
type Disk struct {
	ID     ashlar.DiskID
	Name   string
	Failed bool
	Reason string
	Bytes  uint64 // capacity
	Used   uint64 // bytes
	Room   health.DiskRoom
	Scrub  health.DiskScrub
	Smart  health.DiskSmart
}

// Answer is what a host is told, once the pending map is written.
type Answer struct {
	Host ashlar.HostID
	// NeedFull asks for a full list of disks: none came yet, or one disk of it
	// still belongs to another host.
	NeedFull bool
}

// Machine is the state. It belongs to one goroutine.
type Machine struct {
	cfg     Config
	written *topology.Map // as it is in the quorum; nil before the first
	next    *topology.Map // being edited; nil if there is nothing to write
	heard   map[ashlar.HostID]*heard
	reports map[ashlar.DiskID]Disk
	numbers map[ashlar.DiskID]int // position in the map's list of disks
	// listening is when silence began to count.
	listening time.Time
	ticked    time.Time
	// suspectedAt is when a host that is down was last one of many lost at once.
	suspectedAt map[ashlar.HostID]time.Time
	// stirred is the epoch in which somebody last came or went, as far as this
	// machine knows.
	stirred  ashlar.Epoch
	forming  string // what is missing before the cluster can be formed
	shards   map[ashlar.ShardID]shardHeard
	improved time.Time // when improve last looked
	// restored is the epoch of a map that came from a backup and is to be written.
	restored ashlar.Epoch
}

// heard is what this machine heard of a host.
type heard struct {
	at           time.Time
	full         bool                   // a full list arrived
	disks        map[ashlar.DiskID]bool // those of the last full list, and since
	repairPieces uint64
	checked      ashlar.Epoch
	lost         []ashlar.ReplicaID
}

// New takes over at a time, from the map that is in the quorum or from nil.
func New(cfg Config, m *topology.Map, now time.Time) *Machine {
	s := &Machine{
		cfg: cfg, written: m, heard: map[ashlar.HostID]*heard{}, reports: map[ashlar.DiskID]Disk{},
		listening: now, ticked: now, suspectedAt: map[ashlar.HostID]time.Time{},
		shards: map[ashlar.ShardID]shardHeard{}, improved: now,
	}
	if m != nil {
		s.stirred = m.Epoch
	} else {
		s.next = &topology.Map{
			Cluster: cfg.Cluster, Name: cfg.Name, Settings: cfg.Settings, NextHost: 1, NextReplica: 1,
		}
	}
	s.numbers = make(map[ashlar.DiskID]int, len(s.Map().Disks))
	for i, d := range s.Map().Disks {
		s.numbers[d.ID] = i
	}
	s.form(now)
	return s
}

// Map returns the map as it will be once what is pending is written. It must
// not be changed or kept.
func (s *Machine) Map() *topology.Map {
	if s.next != nil {
		return s.next
	}
	return s.written
}

// Pending returns the map to write, with its epoch, or nil. The caller may not
// change it; the machine must not be fed before Written is called.
func (s *Machine) Pending() *topology.Map {
	if s.next == nil {
		return nil
	}
	s.next.Epoch = s.nextEpoch()
	return s.next
}

// Written says that the pending map is in the quorum.
func (s *Machine) Written() { s.written, s.next = s.next, nil }

func (s *Machine) nextEpoch() ashlar.Epoch {
	if s.written == nil {
		return max(1, s.restored)
	}
	return max(s.written.Epoch+1, s.restored)
}

// edit returns the map to be changed.
func (s *Machine) edit() *topology.Map {
	if s.next == nil {
		s.next = s.written.Clone()
	}
	return s.next
}

// set changes one field of the map if it differs.
func set[T comparable](s *Machine, read func(*topology.Map) *T, v T) {
	if *read(s.Map()) != v {
		*read(s.edit()) = v
	}
}

// Tick lets time pass: silence becomes down, down becomes out, and a complete
// cluster is formed.
func (s *Machine) Tick(now time.Time) {
	if now.Sub(s.ticked) > max(sleepMax, s.Map().Settings.DownAfter/2) {
		s.listening = now
	}
	s.ticked = now
	for i := range s.Map().Hosts {
		h := s.Map().Hosts[i]
		if h.State == topology.HostUp && now.Sub(s.lastHeard(h.ID)) > s.Map().Settings.DownAfter {
			s.setHostState(i, topology.HostDown, now)
		}
	}
	for i := range s.Map().Hosts {
		h := s.Map().Hosts[i]
		if s.suspected(h) {
			s.suspectedAt[h.ID] = now
		} else if h.State == topology.HostDown && now.Sub(s.graceFrom(h)) > s.Map().Settings.OutAfter {
			s.setHostState(i, topology.HostOut, now)
		}
	}
	s.form(now)
	s.tendShards(now)
}

// graceFrom is when the grace of a host that is down began: when it went down,
// when this machine began to listen, or when it ceased to be one of many,
// whichever is last. So nobody is given up the moment a partition heals.
func (s *Machine) graceFrom(h topology.Host) time.Time {
	from := h.Since
	for _, t := range []time.Time{s.listening, s.suspectedAt[h.ID]} {
		if t.After(from) {
			from = t
		}
	}
	return from
}

// lastHeard is when the host was last known to live, as far as we may judge.
func (s *Machine) lastHeard(id ashlar.HostID) time.Time {
	if h := s.heard[id]; h != nil && h.at.After(s.listening) {
		return h.at
	}
	return s.listening
}

func (s *Machine) setHostState(i int, to topology.HostState, now time.Time) {
	s.stirred = s.nextEpoch()
	h := &s.edit().Hosts[i]
	h.State, h.Since = to, now.Round(0)
}

// suspected reports whether the host went down together with so many others
// that the network is the likelier cause.
func (s *Machine) suspected(h topology.Host) bool {
	lost, all := 0, 0
	for _, other := range s.Map().Hosts {
		if other.State == topology.HostOut {
			continue
		}
		all++
		if gap := other.Since.Sub(h.Since); other.State == topology.HostDown && gap.Abs() <= PartitionWindow {
			lost++
		}
	}
	return h.State == topology.HostDown && lost >= 2 && float64(lost) > PartitionShare*float64(all)
}

// Facts returns what health needs beyond the map.
func (s *Machine) Facts() health.Facts {
	f := health.Facts{Heard: true, Forming: s.forming, Disks: map[topology.DiskNum]health.DiskFacts{}}
	m := s.Map()
	for i, d := range m.Disks {
		if r, ok := s.reports[d.ID]; ok {
			f.Disks[topology.DiskNum(i)] = health.DiskFacts{UsedBytes: r.Used, Room: r.Room, Reason: r.Reason, Scrub: r.Scrub, Smart: r.Smart}
		}
	}
	for _, h := range s.heard {
		f.RepairPieces += h.repairPieces
	}
	for _, h := range m.Hosts {
		if h.State == topology.HostUp && m.Formed() && s.unchecked(h.ID) {
			f.Unchecked++
		}
	}
	for _, h := range m.Hosts {
		if s.suspected(h) {
			f.Suspected = append(f.Suspected, h.Name)
		}
	}
	slices.Sort(f.Suspected)
	s.shardFacts(&f)
	return f
}

// unchecked reports whether the roll call of a host may still find what was lost
// when somebody came or went. One that was not heard yet may.
func (s *Machine) unchecked(id ashlar.HostID) bool {
	h := s.heard[id]
	return h == nil || h.checked != 0 && h.checked < s.stirred
}

func refuse(name string, kind ashlar.Kind, format string, args ...any) error {
	return ashlar.E("placement: heartbeat", name, kind, fmt.Errorf(format, args...))
}
