package store

import "testing"

func TestPutsLookFirstWhereKeysAreOverwritten(t *testing.T) {
	var g guess
	for n := range 200 {
		if !g.free() {
			t.Fatalf("after %d free keys it expects a taken one", n)
		}
		g.saw(true)
	}
	for range 2 * guessMax / guessMiss {
		g.saw(false)
	}
	if g.free() {
		t.Fatal("after many taken keys it expects a free one")
	}
	for range 2 * guessMax {
		g.saw(true)
	}
	if !g.free() {
		t.Fatal("it does not recover")
	}
	for n := range 1000 { // one in five is taken: a look each is cheaper
		g.saw(n%5 != 0)
	}
	if g.free() {
		t.Fatal("it guesses although one key in five is taken")
	}
}
