// Package health judges a cluster: from the map and what the heartbeats say it
// computes one Status, the same whoever asks, and prints it for people.
//
// It is pure: no clock, no network. The scheduler calls Judge with its Facts;
// a member that has no leader calls it with the last map and says so (AsOf).
//
// The first line is the verdict, the second what the cluster survives now:
//
//	HEALTHY               nothing is missing
//	HEALTHY, repairing    every disk answers, but pieces wait to be repaired, or
//	                      hosts still ask whether any are missing
//	NEARFULL              nothing is missing, but soon PUTs will be refused
//	DEGRADED              something is missing; further losses are survivable
//	FULL                  PUTs are refused because disks are full; what is stored is
//	                      as safe as otherwise
//	AT RISK               after at least one loss, the worst group survives
//	                      none more, or after two losses only one more
//	UNAVAILABLE           some group has fewer than k disks, some shard has no
//	                      majority, or the cluster is not formed
//
// "Survives now" is computed exactly from the group table and what is alive:
// the most disks (hosts, zones) of which *any* choice may be lost with every
// group still having k disks and every shard a majority. For one group the
// worst choice of n hosts is the n that hold most of its disks, so the answer
// is the minimum over the groups of a sum over sorted counts; no search is
// needed. It speaks of where pieces belong. Pieces that a daemon still has to
// repair make the verdict "repairing" and are counted beside it.
package health

import (
	"time"

	"ashlar"
	"ashlar/placement/topology"
)

// Verdict is the first word of a status.
type Verdict string

// The verdicts, from best to worst.
const (
	Healthy     Verdict = "HEALTHY"
	Repairing   Verdict = "HEALTHY, repairing"
	IsNearFull  Verdict = "NEARFULL"
	Degraded    Verdict = "DEGRADED"
	IsFull      Verdict = "FULL"
	AtRisk      Verdict = "AT RISK"
	Unavailable Verdict = "UNAVAILABLE"
)

// Status is how a cluster is. Fields are only ever added.
type Status struct {
	Verdict Verdict      `json:"verdict"`
	Cluster string       `json:"cluster"`
	Epoch   ashlar.Epoch `json:"epoch"`
	Formed  bool         `json:"formed"`
	// Reads says how many more losses leave every stripe readable and every
	// shard with a majority; Writes how many leave every PUT its quorum.
	Reads    Survival `json:"survives_reads"`
	Writes   Survival `json:"survives_writes"`
	Code     string   `json:"code"`
	Capacity Capacity `json:"capacity"`
	// Room is nil if it is not known.
	Room      *Room     `json:"room,omitempty"`
	Hosts     Count     `json:"hosts"`
	Disks     Count     `json:"disks"`
	Zones     Count     `json:"zones"`
	Placement Placement `json:"placement"`
	// Groups and Shards are the lengths of the tables; Worst counts what stands
	// worst in them.
	Groups int   `json:"groups"`
	Shards int   `json:"shards"`
	Worst  Worst `json:"worst"`
	// RepairPieces wait on the hosts' repair lists.
	RepairPieces uint64 `json:"repair_pieces"`
	// HostsChecking still ask whether pieces are missing, after somebody came or went.
	HostsChecking int `json:"hosts_checking"`
	// Scrub is nil if no disk that answers reports a scrub.
	Scrub *Scrub `json:"scrub,omitempty"`
	Codes []Code `json:"codes"`
	// AsOf is empty when the scheduler answered; otherwise it says whose and
	// how old this view is.
	AsOf string `json:"as_of,omitempty"`
}

// Worst counts the groups and shards in the worst condition.
type Worst struct {
	// Groups that are missing a disk, that cannot lose one more, that cannot be
	// read (fewer than k), and that take no PUT (fewer than the quorum).
	Missing    int `json:"groups_missing_disks"`
	Edge       int `json:"groups_at_the_edge"`
	Unreadable int `json:"groups_unreadable"`
	Unwritable int `json:"groups_unwritable"`
	// Shards without a majority, and those that cannot lose one more replica.
	NoMajority int `json:"shards_without_majority"`
	ShardsEdge int `json:"shards_at_the_edge"`
}

// Survival is the number of further losses of one kind at a time, any of them.
// -1 means that it is not even so now.
type Survival struct {
	Disks int `json:"disks"`
	Hosts int `json:"hosts"`
	Zones int `json:"zones"`
}

// Capacity is in bytes. Stored and Usable are user bytes of the large code:
// Stored is estimated from the bytes in use on the disks, Usable is what fits
// until the first disk of the group table is full.
type Capacity struct {
	StoredBytes uint64 `json:"stored_bytes"`
	UsableBytes uint64 `json:"usable_bytes"`
	UsedBytes   uint64 `json:"used_bytes"`
	RawBytes    uint64 `json:"raw_bytes"`
}

// Count says how many there are and how many of them answer.
type Count struct {
	Up    int `json:"up"`
	Total int `json:"total"`
}

// Placement is the quorum.
type Placement struct {
	Voting  int    `json:"voting"`
	Members int    `json:"members"`
	Leader  string `json:"leader"`
}

// Code is one health code that is raised now.
type Code struct {
	Code string `json:"code"`
	// Note is true for what is worth knowing but is nothing to repair.
	Note bool `json:"note,omitempty"`
	// Subject is the name on the box: a disk, a host, a zone, a member.
	Subject string `json:"subject"`
	Summary string `json:"summary"`
	Next    string `json:"next"`
}

// Facts is what is known beyond the map.
type Facts struct {
	// Now is the time that ages are counted to; zero leaves the scrub out.
	Now time.Time
	// Heard is false if nobody listens to the hosts: there is no leader.
	Heard bool
	// Disks that were reported, by number.
	Disks map[topology.DiskNum]DiskFacts
	// RepairPieces is the sum of what the hosts say.
	RepairPieces uint64
	// Unchecked hosts still ask whether pieces are missing.
	Unchecked int
	// Suspected names the hosts that were lost together.
	Suspected []string
	// Forming says what is missing before the cluster can be formed.
	Forming string
	// Replicas is the state of those replicas of shards of which more is known
	// than that their host is up or not. NoSeat counts the shards that miss a
	// replica for which there is no host.
	Replicas map[ashlar.ReplicaID]ReplicaState
	NoSeat   int
	// Members are the placement members, Leader the name of theirs or empty.
	Members []Member
	Leader  string
}

// DiskFacts is what a host reported of a disk.
type DiskFacts struct {
	UsedBytes uint64
	Room      DiskRoom
	Reason    string // why it failed
	Scrub     DiskScrub
	Smart     DiskSmart
}

// Member is one placement member.
type Member struct {
	Name   string
	Voting bool // it follows the leader now
}
