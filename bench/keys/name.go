package keys

import "strconv"

// The tree that the keys lie in. A directory of each level is about as full as
// the others.
const (
	teams    = 20
	projects = 50
	months   = 12
	days     = 28
)

// mix is the finalizer of splitmix64: a permutation of the 64-bit numbers.
func mix(x uint64) uint64 {
	x += 0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// appendKey appends the name of key number i, which differs from that of every
// other number:
//
//	team-07/project-031/2026/03/17/9f3c52e11d0a44b7.json
//
// Consecutive numbers lie anywhere in the tree.
func appendKey(b []byte, seed uint64, i int) []byte {
	h := mix(seed<<40 ^ uint64(i))
	b = appendProject(b, int(h%teams), int(h/teams%projects))
	b = appendTwo(append(b, "2026/"...), int(h/(teams*projects)%months)+1)
	b = appendTwo(append(b, '/'), int(h/(teams*projects*months)%days)+1)
	b = append(b, '/')
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, "0123456789abcdef"[h>>shift&15])
	}
	return append(b, ".json"...)
}

func appendTeam(b []byte, team int) []byte {
	return append(appendTwo(append(b, "team-"...), team), '/')
}

func appendProject(b []byte, team, project int) []byte {
	b = append(appendTeam(b, team), "project-0"...)
	return append(appendTwo(b, project), '/')
}

func appendTwo(b []byte, n int) []byte {
	if n < 10 {
		b = append(b, '0')
	}
	return strconv.AppendInt(b, int64(n), 10)
}
