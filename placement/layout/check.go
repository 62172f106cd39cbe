package layout

import (
	"fmt"

	"ashlar"
	"ashlar/placement/topology"
)

// Violation is one breach of the rules of placement.
type Violation struct {
	Group ashlar.GroupID
	Rule  string // width, twice, zone, host, rack, order
	What  string
}

func (v Violation) String() string {
	return fmt.Sprintf("group %d: %s: %s", v.Group, v.Rule, v.What)
}

// Check verifies every group of the map against the zone rule and returns what
// it breaks; nothing for a map that is not formed. The caps are those of the
// disks that the table itself uses, so that disks which came later and hold
// nothing yet are no reproach.
func Check(m *topology.Map) []Violation {
	c := newChecker(m)
	for g := range m.Groups {
		c.group(ashlar.GroupID(g))
	}
	return c.found
}

type checker struct {
	m       *topology.Map
	leaf    map[topology.DiskNum]*node
	zoneCap map[*node]int
	found   []Violation
}

func newChecker(m *topology.Map) *checker {
	c := &checker{m: m, leaf: map[topology.DiskNum]*node{}, zoneCap: map[*node]int{}}
	used := map[topology.DiskNum]bool{}
	for _, g := range m.Groups {
		for _, n := range g.Disks {
			used[n] = true
		}
	}
	var disks []Disk
	for n := range used {
		if int(n) >= len(m.Disks) {
			continue
		}
		d := &m.Disks[n]
		if h := m.Host(d.Host); h != nil {
			disks = append(disks, Disk{Num: n, ID: d.ID, Zone: h.Zone, Rack: h.Rack, Host: h.ID, Weight: max(d.Bytes, 1)})
		}
	}
	root := grow(disks)
	root.walk(func(n *node) {
		if n.level == levelDisk {
			c.leaf[n.disk.Num] = n
		}
	})
	width := max(m.Settings.Large.Pieces(), m.Settings.Small.Pieces())
	for i, limit := range root.caps(width) {
		c.zoneCap[root.kids[i]] = limit
	}
	return c
}

func (n *node) walk(fn func(*node)) {
	fn(n)
	for _, k := range n.kids {
		k.walk(fn)
	}
}

func (c *checker) report(g ashlar.GroupID, rule, format string, args ...any) {
	c.found = append(c.found, Violation{Group: g, Rule: rule, What: fmt.Sprintf(format, args...)})
}

func (c *checker) group(g ashlar.GroupID) {
	disks := c.m.Groups[g].Disks
	if width := max(c.m.Settings.Large.Pieces(), c.m.Settings.Small.Pieces()); len(disks) != width {
		c.report(g, "width", "%d disks, want %d", len(disks), width)
	}
	count := map[*node]int{} // pieces below a node
	for _, n := range disks {
		leaf := c.leaf[n]
		if leaf == nil {
			c.report(g, "width", "there is no disk %d", n)
			continue
		}
		for at := leaf; at != nil; at = at.up {
			count[at]++
		}
		if count[leaf] > 1 {
			c.report(g, "twice", "disk %s", c.m.Disks[n].Name)
		}
	}
	for at, n := range count {
		if at.level == levelZone {
			c.zone(g, at, n, count)
		}
	}
	c.order(g, count)
}

// zone checks the pieces of one group in one zone.
func (c *checker) zone(g ashlar.GroupID, zone *node, pieces int, count map[*node]int) {
	if limit := c.zoneCap[zone]; pieces > limit {
		c.report(g, "zone", "%d pieces in one zone, want at most %d", pieces, limit)
	}
	var hosts []int
	for _, rack := range zone.kids {
		for _, h := range rack.kids {
			hosts = append(hosts, h.disks)
		}
	}
	perHost := evenCap(hosts, pieces)
	for i, limit := range zone.caps(pieces) {
		rack := zone.kids[i]
		if count[rack] > limit {
			c.report(g, "rack", "%d pieces in one rack, want at most %d", count[rack], limit)
		}
		for _, h := range rack.kids {
			if count[h] > perHost {
				c.report(g, "host", "%d pieces on one host, want at most %d", count[h], perHost)
			}
		}
	}
}

// order checks that no zone is used again before every zone that still has
// pieces was used as often.
func (c *checker) order(g ashlar.GroupID, count map[*node]int) {
	used := map[*node]int{}
	for i, n := range c.m.Groups[g].Disks {
		leaf := c.leaf[n]
		if leaf == nil {
			continue
		}
		zone := leaf.up.up.up
		for other, pieces := range count {
			if other.level == levelZone && used[other] < pieces && used[other] < used[zone] {
				c.report(g, "order", "position %d returns to a zone too early", i)
				return
			}
		}
		used[zone]++
	}
}
