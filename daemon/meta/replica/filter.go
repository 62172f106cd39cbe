package replica

import (
	"encoding/binary"

	"ashlar"
)

const (
	filterFirstKeys  = 4096
	filterBitsPerKey = 16
	filterProbes     = 6
	// filterLoadMax is the most answers that a start reads to fill a filter.
	// Above it the answers are looked up on disk until their generation ends.
	filterLoadMax = 64_000
)

// idFilter is a Bloom filter of request ids that grows by doubling: it spares
// the look-up of ids that were never seen, which are nearly all. It takes 2 to
// 4 bytes an id.
type idFilter struct{ blocks []idBlock }

type idBlock struct {
	bits []uint64 // a power of two
	room int      // ids that still fit
}

// hashes splits an id, which is random as it comes.
func hashes(id ashlar.RequestID) (h, step uint64) {
	return binary.LittleEndian.Uint64(id[:8]), binary.LittleEndian.Uint64(id[8:]) | 1
}

func (f *idFilter) add(id ashlar.RequestID) {
	n := len(f.blocks)
	if n == 0 || f.blocks[n-1].room == 0 {
		keys := filterFirstKeys << n
		f.blocks = append(f.blocks, idBlock{bits: make([]uint64, keys*filterBitsPerKey/64), room: keys})
		n++
	}
	b := &f.blocks[n-1]
	b.room--
	h, step := hashes(id)
	mask := uint64(len(b.bits))*64 - 1
	for range filterProbes {
		b.bits[h&mask/64] |= 1 << (h & 63)
		h += step
	}
}

// maybe reports whether the id may have been added; false is certain.
func (f *idFilter) maybe(id ashlar.RequestID) bool {
	for i := range f.blocks {
		if f.blocks[i].maybe(id) {
			return true
		}
	}
	return false
}

func (b *idBlock) maybe(id ashlar.RequestID) bool {
	h, step := hashes(id)
	mask := uint64(len(b.bits))*64 - 1
	for range filterProbes {
		if b.bits[h&mask/64]&(1<<(h&63)) == 0 {
			return false
		}
		h += step
	}
	return true
}
