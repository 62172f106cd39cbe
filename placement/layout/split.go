package layout

import (
	"math"
	"slices"
)

// descend divides the groups' pieces among the kids of n, and those among
// theirs, and appends the leaves that are reached to chosen.
func (n *node) descend(counts []uint8, chosen [][]*node) {
	if n.level == levelDisk {
		for g, c := range counts {
			if c > 0 {
				chosen[g] = append(chosen[g], n)
			}
		}
		return
	}
	s := newSplit(n, counts)
	s.draw()
	s.level()
	for i, kid := range n.kids {
		if s.total[i] > 0 {
			kid.descend(s.counts(i), chosen)
		}
	}
}

// split is the division of pieces at one node: group g gives kid i the whole
// part of its share, and one more where odd is set.
type split struct {
	n      *node
	pieces []uint8 // by group
	groups []int   // those with any pieces
	odd    []bool  // group × kid
	total  []int   // by kid
	target []float64
}

func newSplit(n *node, pieces []uint8) *split {
	s := &split{
		n: n, pieces: pieces, odd: make([]bool, len(pieces)*len(n.kids)),
		total: make([]int, len(n.kids)), target: make([]float64, len(n.kids)),
	}
	for g, p := range pieces {
		if p == 0 {
			continue
		}
		s.groups = append(s.groups, g)
		for i, x := range n.share(p) {
			s.target[i] += x
			s.total[i] += whole(x)
		}
	}
	return s
}

func whole(x float64) int    { return int(x + tiny) }
func part(x float64) float64 { return x - math.Floor(x+tiny) }

func (s *split) at(g, kid int) *bool { return &s.odd[g*len(s.n.kids)+kid] }

// draw gives each group's odd pieces to kids by weighted rendezvous: kid i wins
// with a chance that grows with the broken part of its share.
func (s *split) draw() {
	type ticket struct {
		kid   int
		score float64
	}
	var tickets []ticket
	for _, g := range s.groups {
		tickets = tickets[:0]
		left := int(s.pieces[g])
		for i, x := range s.n.share(s.pieces[g]) {
			left -= whole(x)
			if p := part(x); p > tiny {
				tickets = append(tickets, ticket{i, math.Log(s.n.kids[i].luck(g)) / p})
			}
		}
		slices.SortFunc(tickets, func(a, b ticket) int {
			if a.score != b.score {
				if a.score > b.score {
					return -1
				}
				return 1
			}
			return a.kid - b.kid
		})
		for _, t := range tickets[:left] {
			*s.at(g, t.kid) = true
			s.total[t.kid]++
		}
	}
}

// level moves odd pieces from kids above their target to kids below it until
// no move makes the table more even.
func (s *split) level() {
	byNeed := make([]int, len(s.n.kids))
	for i := range byNeed {
		byNeed[i] = i
	}
	over := func(i int) float64 { return float64(s.total[i]) - s.target[i] }
	for {
		slices.SortStableFunc(byNeed, func(a, b int) int {
			switch d := over(a) - over(b); {
			case d < 0:
				return -1
			case d > 0:
				return 1
			}
			return a - b
		})
		if !s.improve(byNeed, over) {
			return
		}
	}
}

// improve makes the best single move there is: from the fullest kid that can
// give to the emptiest that can take. It reports whether it found one.
func (s *split) improve(byNeed []int, over func(int) float64) bool {
	for hi := len(byNeed) - 1; hi > 0; hi-- {
		for lo := 0; lo < hi; lo++ {
			from, to := byNeed[hi], byNeed[lo]
			if over(from)-over(to) <= 1+tiny {
				break
			}
			if s.move(from, to) {
				return true
			}
		}
	}
	return false
}

// move gives one odd piece of kid from to kid to, in the group where to has
// the best draw.
func (s *split) move(from, to int) bool {
	best, score := -1, 0.0
	for _, g := range s.groups {
		if !*s.at(g, from) || *s.at(g, to) || part(s.n.share(s.pieces[g])[to]) <= tiny {
			continue
		}
		if l := s.n.kids[to].luck(g); best < 0 || l > score {
			best, score = g, l
		}
	}
	if best < 0 {
		return false
	}
	*s.at(best, from), *s.at(best, to) = false, true
	s.total[from]--
	s.total[to]++
	return true
}

// counts returns what kid i got of each group.
func (s *split) counts(kid int) []uint8 {
	out := make([]uint8, len(s.pieces))
	for _, g := range s.groups {
		out[g] = uint8(whole(s.n.share(s.pieces[g])[kid]))
		if *s.at(g, kid) {
			out[g]++
		}
	}
	return out
}
