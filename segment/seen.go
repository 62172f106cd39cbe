package segment

import (
	"hash/maphash"
	"sync/atomic"
)

// seen is a Bloom filter of keys, all of whose bits for a key are in one word: one
// cache miss. Almost every key of a log comes up once, and to ask the index for each
// costs more than to write it. It is safe for concurrent use, but two calls for the
// same key must not run at once.
type seen struct {
	hash  maphash.Seed
	words []atomic.Uint64 // a power of two of them
	// complete says that every key of the index was noted: only then is a new key
	// known to be new.
	complete atomic.Bool
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
	return &seen{hash: hash, words: make([]atomic.Uint64, bits/64)}
}

// isNew notes the key and reports whether it surely is not in the index.
func (s *seen) isNew(k Key) bool {
	h := maphash.Comparable(s.hash, k)
	word := &s.words[h&uint64(len(s.words)-1)]
	var bits uint64
	for i := range seenProbes { // the word took the hash's low end
		bits |= 1 << (h >> (64 - 6*(i+1)) & 63)
	}
	if word.Load()&bits == bits {
		return false
	}
	word.Or(bits)
	return s.complete.Load()
}

// learn notes every key of an index that was there when the log was opened. It
// ends when it is done or the log closes.
func (l *Log) learn() {
	defer l.running.Done()
	err := l.index.rows(func(r *row, old bool) (bool, error) {
		if isClosed(l.closing) {
			return false, errClosed
		}
		if !old {
			l.seen.isNew(r.key())
		}
		return true, nil
	})
	if err == nil {
		l.seen.complete.Store(true)
	}
}
