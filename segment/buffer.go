package segment

import (
	"math/bits"
	"sync"
	"unsafe"

	"ashlar/segment/format"
)

// aligned returns n zero bytes that start at a multiple of block in memory.
func aligned(n, block int) []byte {
	b := make([]byte, n+block)
	shift := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (block - 1)
	return b[shift : shift+n : shift+n]
}

// pooledAlign satisfies O_DIRECT for every block size that the format allows.
const pooledAlign = format.BlockBytesMax

// The size classes of pooled read buffers: powers of two. Longer ones are
// left to the collector.
const (
	bufferBitsMin = 13
	bufferBitsMax = 24
)

var bufferPools [bufferBitsMax + 1]sync.Pool

// getBuffer returns an aligned buffer of at least n bytes with any content.
func getBuffer(n int) *[]byte {
	class := max(bits.Len(uint(n-1)), bufferBitsMin)
	if class > bufferBitsMax {
		b := aligned(n, pooledAlign)
		return &b
	}
	if b, ok := bufferPools[class].Get().(*[]byte); ok {
		return b
	}
	b := aligned(1<<class, pooledAlign)
	return &b
}

// putBuffer gives the buffer back; nobody may look at it afterwards.
func putBuffer(b *[]byte) {
	class := bits.Len(uint(len(*b) - 1))
	if class >= bufferBitsMin && class <= bufferBitsMax && len(*b) == 1<<class {
		bufferPools[class].Put(b)
	}
}
