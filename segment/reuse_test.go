package segment

import (
	"math/rand/v2"
	"testing"
	"time"

	"ashlar"
)

// TestReuseTakesTheCheaperWay: warm buffers while they are cheap, rested ones while the
// others are somewhere else, and warm ones again, whatever else delays some of them.
func TestReuseTakesTheCheaperWay(t *testing.T) {
	const n, soon, long = int(ashlar.MiB), 4 * tryEvery, 4000
	for _, seed := range []uint64{1, 2, 3} {
		rng := rand.New(rand.NewPCG(seed, 0))
		var r reuse
		last, at := map[*buffer]int{}, 0
		// share fills count buffers and returns what part of them was not the one that was used before.
		share := func(warm, rested time.Duration, count int) float64 {
			others := 0
			for range count {
				b := r.buffer(n)
				used, ok := last[b]
				took := warm
				if at++; ok && used != at-1 {
					others++
				}
				if !ok || (at-used)*n > restBytes {
					took = rested
				}
				last[b] = at
				if rng.IntN(4) == 0 {
					took *= 10 // somebody else had the processor
				}
				r.filled(b, n, took)
				putBuffer(b)
			}
			return float64(others) / float64(count)
		}
		for round := range 2 {
			share(150*time.Microsecond, 200*time.Microsecond, soon)
			if s := share(150*time.Microsecond, 200*time.Microsecond, long); s > 0.1 {
				t.Errorf("seed %d, round %d: %.0f %% are not warm, and those are cheap", seed, round, 100*s)
			}
			share(550*time.Microsecond, 200*time.Microsecond, soon)
			if s := share(550*time.Microsecond, 200*time.Microsecond, long); s < 0.9 {
				t.Errorf("seed %d, round %d: %.0f %% are not warm, and those are dear", seed, round, 100*s)
			}
		}
	}
}

// TestRestedBuffersAreRested: while others are dear, so much is written between two uses of one.
func TestRestedBuffersAreRested(t *testing.T) {
	const n = int(2 * ashlar.MiB)
	r := reuse{cost: [2]float64{warm: 3, rested: 1}}
	last := map[*buffer]int{}
	for i := range 3 * tryEvery {
		b := r.buffer(n)
		if used, ok := last[b]; ok && !r.tried && (i-used)*n < restBytes {
			t.Errorf("number %d was used %d bytes ago", i, (i-used)*n)
		}
		last[b] = i
		putBuffer(b)
	}
	if len(last) < restBytes/n {
		t.Errorf("%d buffers", len(last))
	}
}
