package health

import (
	"math/bits"
	"time"
)

// Buckets are spaced four to an octave of microseconds, so that a quantile is at
// most 25 % above the truth.
const (
	perOctave   = 4
	bucketCount = 28 * perOctave // up to 2^28 µs, four minutes
)

// histogram counts durations.
type histogram struct {
	count   uint64
	buckets [bucketCount]uint32
}

func (h *histogram) add(d time.Duration) {
	h.count++
	h.buckets[bucketOf(d)]++
}

func bucketOf(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	if us < perOctave {
		return int(us)
	}
	octave := bits.Len64(us) - 1
	rest := us >> (octave - 2) & (perOctave - 1)
	return min((octave-1)*perOctave+int(rest), bucketCount-1)
}

// upper is the end of the bucket.
func upper(i int) time.Duration {
	if i < perOctave {
		return time.Duration(i+1) * time.Microsecond
	}
	octave, rest := i/perOctave+1, i%perOctave
	return time.Duration(uint64(perOctave+rest+1)<<(octave-2)) * time.Microsecond
}

// quantile returns the end of the bucket that holds the percentile, or 0 if
// nothing was counted.
func (h *histogram) quantile(percent uint64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := (h.count*percent + 99) / 100
	var seen uint64
	for i, n := range h.buckets {
		if seen += uint64(n); seen >= rank {
			return upper(i)
		}
	}
	return upper(bucketCount - 1)
}
