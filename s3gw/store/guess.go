package store

import "sync/atomic"

// guess foretells whether a PUT meets an object under its key. Most do not, and
// they need no look before their commit: its condition is that the key is free,
// and if it is not, that is found out there and the round is repeated. That
// costs a commit more, so where objects are overwritten every PUT looks first.
type guess struct{ score atomic.Int32 }

const (
	guessMax = 64
	// guessMiss is how many keys that were free make up for one that was not: a
	// commit costs several times a look.
	guessMiss = 8
)

// free reports whether the next key is likely to be free.
func (g *guess) free() bool { return g.score.Load() >= 0 }

// saw is told what a key turned out to be. The score may miss some of what
// goroutines tell at once; it is a guess all the same.
func (g *guess) saw(free bool) {
	next := g.score.Load() + 1
	if !free {
		next -= guessMiss + 1
	}
	g.score.Store(max(-guessMax, min(guessMax, next)))
}
