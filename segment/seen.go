package segment

import "hash/maphash"

// seen is a Bloom filter of keys. Almost every key of a log that is rebuilt comes
// up once, and to ask the index for each costs more than to write it.
type seen struct {
	hash  maphash.Seed
	words []uint64
}

// A filter has a bit for so many bytes of the device, up to 16 MiB of them. What
// does not fit any more is asked of the index.
const (
	seenBytesPerBit = 512
	seenBitsMin     = 1 << 16
	seenBitsMax     = 1 << 27
	seenProbes      = 4
)

func newSeen(hash maphash.Seed, deviceBytes int64) *seen {
	bits := uint64(seenBitsMin)
	for bits < seenBitsMax && bits < uint64(deviceBytes/seenBytesPerBit) {
		bits *= 2
	}
	return &seen{hash, make([]uint64, bits/64)}
}

// isNew notes the key and reports whether it was surely not noted before. The nil
// filter knows nothing.
func (s *seen) isNew(k Key) bool {
	if s == nil {
		return false
	}
	h := maphash.Comparable(s.hash, k)
	step := h>>32 | 1
	fresh := false
	for range seenProbes {
		word, bit := &s.words[h/64%uint64(len(s.words))], uint64(1)<<(h%64)
		fresh = fresh || *word&bit == 0
		*word |= bit
		h += step
	}
	return fresh
}
