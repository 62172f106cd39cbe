package layout

import (
	"cmp"
	"slices"

	"ashlar/placement/topology"
)

// arranger orders the disks of groups, one group after the other, and remembers
// how often a disk came early, so that nobody always does.
type arranger struct {
	prefix int
	first  map[*node]int // times at position 0
	early  map[*node]int // times within the prefix
}

// arrange orders each group: positions alternate zones; inside a zone they
// alternate racks, then hosts.
func arrange(root *node, chosen [][]*node, prefix int) [][]topology.DiskNum {
	a := &arranger{prefix: prefix, first: map[*node]int{}, early: map[*node]int{}}
	table := make([][]topology.DiskNum, len(chosen))
	for g, leaves := range chosen {
		table[g] = a.order(g, leaves)
	}
	return table
}

// queue is the disks of one zone, in the order in which they are to be used.
type queue []*node

func (a *arranger) order(g int, leaves []*node) []topology.DiskNum {
	queues := a.queues(g, leaves)
	out := make([]*node, 0, len(leaves))
	for round := 0; len(out) < len(leaves); round++ {
		for _, q := range queues {
			if round < len(q) {
				out = append(out, q[round])
			}
		}
	}
	nums := make([]topology.DiskNum, len(out))
	for i, n := range out {
		nums[i] = n.disk.Num
		if i < a.prefix {
			a.early[n]++
		}
	}
	a.first[out[0]]++
	return nums
}

// queues orders each zone's disks, then the zones: the zones whose heads were
// early least often make up the prefix, and of these the one that was first
// least often leads.
func (a *arranger) queues(g int, leaves []*node) []queue {
	byZone := map[*node]queue{}
	for _, n := range leaves {
		z := n.up.up.up
		byZone[z] = append(byZone[z], n)
	}
	var queues []queue
	for _, q := range byZone {
		queues = append(queues, a.inZone(g, q))
	}
	slices.SortFunc(queues, func(p, q queue) int {
		return cmp.Or(a.compare(a.early, g, p[0], q[0]), cmp.Compare(p[0].key, q[0].key))
	})
	head := queues[:min(max(a.prefix, 1), len(queues))]
	lead := slices.MinFunc(head, func(p, q queue) int {
		return cmp.Or(a.compare(a.first, g, p[0], q[0]), cmp.Compare(p[0].key, q[0].key))
	})
	i := slices.IndexFunc(head, func(q queue) bool { return q[0] == lead[0] })
	head[0], head[i] = head[i], head[0]
	return queues
}

// inZone orders the disks of one zone so that any prefix uses as many racks,
// then hosts, as it can; among equals the one that was early least often.
func (a *arranger) inZone(g int, left queue) queue {
	out := make(queue, 0, len(left))
	used := map[*node]int{} // racks and hosts
	for len(left) > 0 {
		next := slices.MinFunc(left, func(m, n *node) int {
			return cmp.Or(
				cmp.Compare(used[m.up.up], used[n.up.up]), cmp.Compare(used[m.up], used[n.up]),
				a.compare(a.early, g, m, n), a.compare(a.first, g, m, n), cmp.Compare(m.key, n.key))
		})
		used[next.up]++
		used[next.up.up]++
		out = append(out, next)
		left = slices.DeleteFunc(left, func(n *node) bool { return n == next })
	}
	return out
}

// compare says which of two disks had its turn less often for its weight; the
// draw decides between equals.
func (a *arranger) compare(turns map[*node]int, g int, m, n *node) int {
	return cmp.Or(
		cmp.Compare(float64(turns[m])/m.weight, float64(turns[n])/n.weight),
		cmp.Compare(m.luck(g), n.luck(g)))
}
