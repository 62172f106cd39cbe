package measure

import (
	"math/bits"
	"time"
)

// A bucket is 1/64 of its power of two wide: its middle is at most 0.8 % off.
const (
	subBits    = 6
	subBuckets = 1 << subBits
	// exponents: durations of up to 2^47 ns (39 hours) are told apart.
	exponentMax = 47
	bucketCount = (exponentMax - subBits + 2) * subBuckets
)

// Histogram counts durations. The zero value is empty and ready. It is not safe
// for concurrent use.
type Histogram struct {
	buckets  [bucketCount]uint64
	count    uint64
	max, sum time.Duration
}

// Add counts one duration; a negative one counts as zero.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.buckets[bucketOf(uint64(d))]++
	h.count++
	h.sum += d
	h.max = max(h.max, d)
}

// Merge adds everything that other counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
	h.sum += other.sum
	h.max = max(h.max, other.max)
}

// Count returns the number of durations counted.
func (h *Histogram) Count() uint64 { return h.count }

// Max returns the longest duration exactly, zero if there was none.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean returns the exact mean, zero if there was none.
func (h *Histogram) Mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return h.sum / time.Duration(h.count)
}

// Quantile returns the smallest duration that at least the share q (0…1) of all
// durations do not exceed, to within 0.8 %. It never exceeds Max.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := uint64(q * float64(h.count))
	if float64(rank) < q*float64(h.count) || rank == 0 {
		rank++
	}
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; seen >= rank {
			return min(middleOf(i), h.max)
		}
	}
	return h.max
}

// bucketOf: values below 2·subBuckets have a bucket each; above, the exponent
// picks a row and the subBits bits after the leading one pick the bucket.
func bucketOf(v uint64) int {
	length := bits.Len64(v)
	if length <= subBits+1 {
		return int(v)
	}
	if length > exponentMax {
		return bucketCount - 1
	}
	shift := length - subBits - 1
	return shift*subBuckets + int(v>>shift)
}

func middleOf(bucket int) time.Duration {
	if bucket < 2*subBuckets {
		return time.Duration(bucket)
	}
	shift := bucket/subBuckets - 1
	low := uint64(bucket-shift*subBuckets) << shift
	return time.Duration(low + uint64(1)<<shift/2)
}
