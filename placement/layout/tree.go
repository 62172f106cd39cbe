package layout

import (
	"cmp"
	"fmt"
	"slices"

	"ashlar"
)

// level is the height of a node in the failure tree.
type level uint8

const (
	levelRoot level = iota
	levelZone
	levelRack
	levelHost
	levelDisk
)

// node is one node of the failure tree.
type node struct {
	level  level
	key    uint64 // hash of its identity: its luck in the draw
	weight float64
	kids   []*node
	disks  int   // leaves below it
	disk   *Disk // for a leaf
	up     *node
	shares [ashlar.PiecesMax + 1][]float64 // by number of pieces: what each kid may expect
}

// grow builds the tree. Kids are in a fixed order, whatever the order of disks.
func grow(disks []Disk) *node {
	sorted := slices.Clone(disks)
	slices.SortFunc(sorted, func(a, b Disk) int {
		return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Rack, b.Rack),
			cmp.Compare(a.Host, b.Host), slices.Compare(a.ID[:], b.ID[:]))
	})
	root := &node{level: levelRoot}
	for i := range sorted {
		d := &sorted[i]
		at := root
		for _, key := range []uint64{
			hashString("zone " + d.Zone),
			hashString("rack " + d.Zone + "\x00" + d.Rack),
			hashString(fmt.Sprint("host ", d.Host)),
			hashString("disk " + string(d.ID[:])),
		} {
			at = at.kid(key)
		}
		at.disk, at.weight, at.disks = d, float64(d.Weight), 1
		for p := at.up; p != nil; p = p.up {
			p.weight += at.weight
			p.disks++
		}
	}
	return root
}

// kid returns the last kid if it has the key, else a new one: the disks come sorted.
func (n *node) kid(key uint64) *node {
	if len(n.kids) > 0 && n.kids[len(n.kids)-1].key == key {
		return n.kids[len(n.kids)-1]
	}
	k := &node{level: n.level + 1, key: key, up: n}
	n.kids = append(n.kids, k)
	return k
}

// caps returns the most pieces that each kid may get of n.
func (n *node) caps(pieces int) []int {
	caps := make([]int, len(n.kids))
	switch n.level {
	case levelZone:
		var hosts []int
		for _, rack := range n.kids {
			for _, h := range rack.kids {
				hosts = append(hosts, h.disks)
			}
		}
		perHost := evenCap(hosts, pieces)
		for i, rack := range n.kids {
			for _, h := range rack.kids {
				caps[i] += min(perHost, h.disks)
			}
		}
	default:
		for i, k := range n.kids {
			caps[i] = k.disks
		}
	}
	even := evenCap(caps, pieces)
	for i := range caps {
		caps[i] = min(caps[i], even)
	}
	return caps
}

// evenCap returns the smallest c with Σ min(c, sizes) ≥ n, or n if there is none.
func evenCap(sizes []int, n int) int {
	for c := 1; c < n; c++ {
		sum := 0
		for _, s := range sizes {
			sum += min(c, s)
		}
		if sum >= n {
			return c
		}
	}
	return n
}

// share divides pieces among the kids in proportion to their weight, each
// capped; what a cap cuts off goes to the others.
func (n *node) share(pieces uint8) []float64 {
	if s := n.shares[pieces]; s != nil {
		return s
	}
	caps := n.caps(int(pieces))
	out := make([]float64, len(n.kids))
	full := make([]bool, len(n.kids))
	left, weight := float64(pieces), n.weight
	for again := true; again; {
		again = false
		for i, k := range n.kids {
			if !full[i] && left*k.weight >= float64(caps[i])*weight*(1-tiny) {
				full[i], again = true, true
				out[i] = float64(caps[i])
				left -= out[i]
				weight -= k.weight
			}
		}
	}
	for i, k := range n.kids {
		if !full[i] {
			out[i] = left * k.weight / weight
		}
	}
	n.shares[pieces] = out
	return out
}

// tiny is the rounding error that is taken for a whole number.
const tiny = 1e-9

// mix is the finalizer of splitmix64: every bit of x moves every bit of the result.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// hashString is FNV-1a, mixed.
func hashString(s string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return mix(h)
}

// luck is the draw of a node for a group, evenly spread over (0, 1).
func (n *node) luck(group int) float64 {
	h := mix(n.key ^ mix(uint64(group)+0x9e3779b97f4a7c15))
	return (float64(h>>11) + 0.5) / (1 << 53)
}
