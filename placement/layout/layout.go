// Package layout decides which disks a group lives on: it builds the group
// table, checks it, and spreads the replicas of metadata shards.
//
// It is pure and deterministic: the same disks give the same table on every
// machine, in whatever order they are listed.
//
// # The zone rule
//
// The failure tree is cut from the top. At every level a group's pieces are
// divided among the children of a node in proportion to their weight, and each
// child gets the whole number below or above its share:
//
//	12 pieces ──► zone a 4 ──► rack a1 2 ──► host 1 ──► disk 1
//	          │            └─► rack a2 2     host 1 ──► disk 1
//	          ├─► zone b 4
//	          └─► zone c 4
//
// Shares are capped, so that weight never beats safety. The caps are the
// smallest ones with which all pieces find a place, judged in this order:
//
//	disk    1, always: too few disks for the pieces is an error
//	zone    ⌈width / zones⌉, more only where another zone has too few disks
//	host    1 in its zone, more only if the zone has fewer hosts than pieces
//	rack    as even as the hosts in it allow
//
// So with three zones 8+4 puts four pieces in each, whatever the zones' sizes:
// the smallest zone sets the limit. With two zones or one the rule relaxes one
// level and racks, then hosts, do what they can. Check recomputes the caps from
// the table's own disks and reports every breach.
//
// # The order
//
// Positions alternate zones, then racks, then hosts, so that any prefix of a
// group is spread as widely as the whole: the first three disks of a group are
// in three zones, and small objects (1+2) use just these. Which disk comes
// first is balanced too, because the host of the first disk coordinates.
//
// # Balance
//
// Who gets the odd piece is drawn by weighted rendezvous hashing of (group,
// node) and then levelled at every node, so that each child ends within one
// slot of its target there. A disk is therefore within two slots of its share;
// from a hundred slots a disk the fullest is ≤ 1.02 × the mean of its zone. In
// a small table (say 7 slots a disk) the whole number above the mean is the
// limit, whatever the method.
package layout

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"ashlar"
	"ashlar/placement/topology"
)

// Disk is a leaf of the failure tree: a place for pieces.
type Disk struct {
	Num        topology.DiskNum
	ID         ashlar.DiskID // seeds the draw; a disk keeps its groups' luck wherever it stands
	Zone, Rack string
	Host       ashlar.HostID
	Weight     uint64 // capacity in bytes; not zero
}

// Disks returns the leaves of a map: every disk that is not given up, on a
// host that is not.
func Disks(m *topology.Map) []Disk {
	var all []Disk
	for i, d := range m.Disks {
		h := m.Host(d.Host)
		if d.State == topology.DiskOut || h == nil || h.State == topology.HostOut {
			continue
		}
		all = append(all, Disk{
			Num: topology.DiskNum(i), ID: d.ID, Zone: h.Zone, Rack: h.Rack, Host: h.ID, Weight: max(d.Bytes, 1),
		})
	}
	return all
}

// Build makes a table of groups with width disks each. Prefix is the number of
// leading disks that small stripes use. It fails with kind Invalid if there are
// fewer disks than pieces.
func Build(disks []Disk, groups, width, prefix int) ([][]topology.DiskNum, error) {
	const op = "placement: layout"
	if groups < 1 || width < 1 || width > ashlar.PiecesMax {
		return nil, ashlar.E(op, "", ashlar.Invalid, fmt.Errorf("%d groups of width %d", groups, width))
	}
	if len(disks) < width {
		return nil, ashlar.E(op, "", ashlar.Invalid, fmt.Errorf(
			"a group has %d pieces on as many disks, but there are %d disks (%s): add %d disks or choose a narrower code",
			width, len(disks), census(disks), width-len(disks)))
	}
	root := grow(disks)
	counts := make([]uint8, groups)
	for g := range counts {
		counts[g] = uint8(width)
	}
	chosen := make([][]*node, groups)
	root.descend(counts, chosen)
	return arrange(root, chosen, prefix), nil
}

// Replicas spreads n replicas of each shard over hosts: three zones first, and
// as many shards and first replicas on one host as on another. With fewer than
// n hosts every shard gets one replica.
func Replicas(hosts []topology.Host, shards, n int) ([][]ashlar.HostID, error) {
	leaves := make([]Disk, 0, len(hosts))
	for i, h := range hosts {
		leaf := Disk{Num: topology.DiskNum(i), Zone: h.Zone, Rack: h.Rack, Host: h.ID, Weight: 1}
		binary.BigEndian.PutUint32(leaf.ID[:], uint32(h.ID))
		leaves = append(leaves, leaf)
	}
	if len(hosts) < n {
		n = 1
	}
	table, err := Build(leaves, shards, n, 1)
	if err != nil {
		return nil, err
	}
	out := make([][]ashlar.HostID, shards)
	for s, row := range table {
		for _, i := range row {
			out[s] = append(out[s], hosts[i].ID)
		}
	}
	return out, nil
}

// census says how many disks each zone has.
func census(disks []Disk) string {
	per := map[string]int{}
	for _, d := range disks {
		per[d.Zone]++
	}
	var words []string
	for z, n := range per {
		words = append(words, fmt.Sprintf("%d in zone %s", n, z))
	}
	slices.Sort(words)
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}
