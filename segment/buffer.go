package segment

import (
	"math/bits"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

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

// buffer is memory that the device writes from or reads into. Long ones are huge
// pages, outside the Go heap: each page of a request is an element of the command to
// the device, and 1 MiB in small pages is 256 of them.
type buffer struct {
	bytes   []byte // of the whole size class, aligned
	mapping []byte // in which they lie; nil on the heap
	used    bool   // before, and so its pages are there
}

// The size classes of buffers: powers of two. Longer ones than the last are not kept.
const (
	bufferBitsMin = 13
	bufferBitsMax = 24
	// heapBytesMax is the longest on the heap, and hugeBytes the least of the others.
	heapBytesMax = 1 << 19
	hugeBytes    = 1 << 21
	// idleTime is how long a long buffer stays with the process that nobody needs.
	idleTime = 5 * time.Second
)

var (
	heapBuffers [bufferBitsMax + 1]sync.Pool
	longBuffers struct {
		sync.Mutex
		idle    [bufferBitsMax + 1][]*buffer // the one that was put last is the last
		spare   [bufferBitsMax + 1]int       // how many of them, the first ones, nobody took since trimmed
		trimmed time.Time
	}
)

// getBuffer returns a buffer of at least n bytes with any content.
func getBuffer(n int) *buffer {
	if n > heapBytesMax {
		return getLong(n, 1)
	}
	class := max(bits.Len(uint(n-1)), bufferBitsMin)
	if b, ok := heapBuffers[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{bytes: aligned(1<<class, pooledAlign)}
}

// getLong returns a buffer of at least n bytes, more than heapBytesMax: if of is 1, the one
// that was put last, else the one that has been idle for longest, of at least so many.
func getLong(n, of int) *buffer {
	if class := bits.Len(uint(max(n, hugeBytes) - 1)); class <= bufferBitsMax {
		n = 1 << class
		if b := takeIdle(class, of); b != nil {
			return b
		}
	}
	p, err := unix.Mmap(-1, 0, n+hugeBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil { // too many mappings, or no memory: the heap says which
		return &buffer{bytes: aligned(n, pooledAlign)}
	}
	shift := -int(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) & (hugeBytes - 1)
	b := &buffer{bytes: p[shift : shift+n : shift+n], mapping: p}
	_ = unix.Madvise(b.bytes, unix.MADV_HUGEPAGE) // a kernel without them has small ones
	return b
}

// takeIdle returns nil if so many are not idle.
func takeIdle(class, of int) *buffer {
	l := &longBuffers
	l.Lock()
	defer l.Unlock()
	spare := len(l.idle[class]) - of
	if spare < 0 {
		return nil
	}
	at := spare
	if of > 1 {
		at = 0
	}
	b := l.idle[class][at]
	l.idle[class] = slices.Delete(l.idle[class], at, at+1)
	l.spare[class] = min(l.spare[class], spare)
	return b
}

// putBuffer gives the buffer back; neither the caller nor the device may have it
// afterwards.
func putBuffer(b *buffer) {
	class := bits.Len(uint(len(b.bytes) - 1))
	b.used = true
	switch {
	case b.mapping == nil && len(b.bytes) <= heapBytesMax:
		heapBuffers[class].Put(b)
	case b.mapping == nil: // left to the collector
	case class > bufferBitsMax:
		_ = unix.Munmap(b.mapping)
	default:
		keepIdle(class, b, time.Now())
	}
}

// keepIdle keeps the buffer, and from time to time unmaps those that nobody needed.
func keepIdle(class int, b *buffer, now time.Time) {
	l := &longBuffers
	l.Lock()
	defer l.Unlock()
	l.idle[class] = append(l.idle[class], b)
	if now.Sub(l.trimmed) < idleTime {
		return
	}
	l.trimmed = now
	for i, idle := range l.idle {
		for _, b := range idle[:l.spare[i]] {
			_ = unix.Munmap(b.mapping)
		}
		l.idle[i] = slices.Delete(idle, 0, l.spare[i])
		l.spare[i] = len(l.idle[i])
	}
}
