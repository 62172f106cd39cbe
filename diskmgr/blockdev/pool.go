package blockdev

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"ashlar"
)

// Aligned returns n zero bytes whose address is aligned for any device. It
// allocates on the Go heap: for labels and tests; the data path uses a Pool.
func Aligned(n int) []byte {
	b := make([]byte, n+BlockBytesMax)
	skip := 0
	if rest := uintptr(unsafe.Pointer(unsafe.SliceData(b))) % BlockBytesMax; rest != 0 {
		skip = BlockBytesMax - int(rest)
	}
	return b[skip : skip+n : skip+n]
}

// Pool holds a fixed number of aligned buffers of one size, in one anonymous
// mapping outside the Go heap. Memory is touched, and so counted, only when a
// buffer is first used. When all are out, Get waits: the pool is the bound on
// memory that the data path pushes back with.
type Pool struct {
	bufBytes int
	region   []byte
	// free holds the indexes of the buffers that are in the pool; it is made
	// with room for all and never closed.
	free chan int

	mu struct {
		sync.Mutex
		out    []bool
		closed bool
	}
}

// NewPool makes a pool of count buffers of bufBytes bytes each; bufBytes is a
// multiple of BlockBytesMin. Kinds: Invalid, Full (the mapping was refused).
func NewPool(bufBytes, count int) (*Pool, error) {
	const op = "blockdev: pool"
	if bufBytes <= 0 || bufBytes%BlockBytesMin != 0 || count <= 0 {
		return nil, ashlar.E(op, "", ashlar.Invalid, fmt.Errorf("%d buffers of %d bytes: want a positive count and a multiple of %d", count, bufBytes, BlockBytesMin))
	}
	region, err := unix.Mmap(-1, 0, bufBytes*count, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, ashlar.E(op, "", ashlar.Full, err)
	}
	// Fewer pages in a request make fewer, larger commands to the disk. A kernel
	// without huge pages says no, and nothing depends on it.
	_ = unix.Madvise(region, unix.MADV_HUGEPAGE)
	p := &Pool{bufBytes: bufBytes, region: region, free: make(chan int, count)}
	p.mu.out = make([]bool, count)
	for i := range count {
		p.free <- i
	}
	return p, nil
}

// BufBytes is the size of one buffer.
func (p *Pool) BufBytes() int { return p.bufBytes }

// Free is the number of buffers that are in the pool now.
func (p *Pool) Free() int { return len(p.free) }

// Get takes a buffer; its contents are undefined. It waits for one until the
// context ends, which is kind Busy. The caller owns the buffer until Put.
func (p *Pool) Get(ctx context.Context) ([]byte, error) {
	select {
	case i := <-p.free:
		return p.take(i)
	default:
	}
	select {
	case i := <-p.free:
		return p.take(i)
	case <-ctx.Done():
		return nil, ashlar.E("blockdev: get buffer", "", ashlar.Busy, fmt.Errorf("all %d buffers are in use: %w", cap(p.free), context.Cause(ctx)))
	}
}

// TryGet takes a buffer if one is free.
func (p *Pool) TryGet() ([]byte, bool) {
	select {
	case i := <-p.free:
		b, err := p.take(i)
		return b, err == nil
	default:
		return nil, false
	}
}

func (p *Pool) take(i int) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return nil, ashlar.E("blockdev: get buffer", "", ashlar.Unavailable, errors.New("the pool is closed"))
	}
	p.mu.out[i] = true
	return p.region[i*p.bufBytes : (i+1)*p.bufBytes : (i+1)*p.bufBytes], nil
}

// Put gives a buffer back. It takes the slice that Get returned, or any prefix
// of it. Putting a foreign slice, or one twice, is a broken invariant: it would
// give one buffer to two owners, so it panics.
func (p *Pool) Put(b []byte) {
	off := uintptr(unsafe.Pointer(unsafe.SliceData(b))) - uintptr(unsafe.Pointer(unsafe.SliceData(p.region)))
	i := int(off / uintptr(p.bufBytes))
	if off >= uintptr(len(p.region)) || off%uintptr(p.bufBytes) != 0 {
		panic("blockdev: a buffer was put that is not of this pool")
	}
	p.mu.Lock()
	wasOut := p.mu.out[i]
	p.mu.out[i] = false
	p.mu.Unlock()
	if !wasOut {
		panic("blockdev: a buffer was put twice")
	}
	p.free <- i
}

// holds reports whether b lies in the pool's memory. A nil pool holds nothing.
func (p *Pool) holds(b []byte) bool {
	if p == nil {
		return false
	}
	off := uintptr(unsafe.Pointer(unsafe.SliceData(b))) - uintptr(unsafe.Pointer(unsafe.SliceData(p.region)))
	return off < uintptr(len(p.region)) && uintptr(len(b)) <= uintptr(len(p.region))-off
}

// Close gives the memory back to the system. Every buffer must have been put;
// kind Busy, and nothing happens, if one is still out.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return nil
	}
	for i, out := range p.mu.out {
		if out {
			return ashlar.E("blockdev: close pool", "", ashlar.Busy, fmt.Errorf("buffer %d is still in use", i))
		}
	}
	p.mu.closed = true
	return unix.Munmap(p.region)
}
