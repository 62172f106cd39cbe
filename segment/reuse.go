package segment

import (
	"time"

	"ashlar"
)

// reuse chooses the memory that a writer lays its next long batch out in. The buffer that was
// used last is in the cache, and cheaper to write anew than others, or dearer than any if the cache is
// a distant one: it seems, of the thread of a host that copied it to a virtual disk. That changes every
// second or so. 1 MiB, laid out and on its way, took 160 us, 580 and, rested, 200 (2026-11-30).
type reuse struct {
	cost  [2]float64 // of filling one, in nanoseconds per byte, lately; 0 if that is not known
	way   way        // of the buffer that is being filled
	tried bool       // it is of the other way than is right now
	count int
}

type way int

const (
	warm   way = iota // the buffer that was used last
	rested            // one that has not been used for long
)

const (
	// restBytes are written between two uses of a rested buffer: as much as a cache holds.
	restBytes = int(16 * ashlar.MiB)
	// Of tryEvery buffers one is of the other way, to see what that costs now.
	tryEvery = 32
	// A warm buffer is right unless it costs warmMax of a rested one, which take more memory.
	warmMax = 1.5
	// A cost goes by costStep of itself towards what is measured, however far that is, and so to
	// the median: now and then the processor is somebody else's meanwhile.
	costStep = 1. / 16
)

func (r *reuse) right() way {
	if c := r.cost; c[rested] > 0 && c[warm] > warmMax*c[rested] {
		return rested
	}
	return warm
}

// buffer returns one of at least n bytes.
func (r *reuse) buffer(n int) *buffer {
	if n <= heapBytesMax {
		return getBuffer(n)
	}
	r.way = r.right()
	r.count++
	if r.tried = r.count%tryEvery == 0; r.tried {
		r.way = 1 - r.way
	}
	switch {
	case r.way == warm:
		return getLong(n, 1)
	case r.tried: // tryEvery uses of the other one are a rest
		return getLong(n, 2)
	}
	return getLong(n, restBytes/n+2)
}

// filled notes how long it took to fill n bytes of the buffer that r returned last.
func (r *reuse) filled(b *buffer, n int, took time.Duration) {
	if n <= heapBytesMax || !b.used { // its pages were made meanwhile
		return
	}
	cost := &r.cost[r.way]
	now := float64(took) / float64(n)
	switch {
	case r.tried || *cost == 0:
		*cost = now
	case now > *cost:
		*cost *= 1 + costStep
	default:
		*cost *= 1 - costStep
	}
}
