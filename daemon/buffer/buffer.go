// Package buffer is the bounded memory that bodies pass through on one host.
//
// A Pool recycles page-aligned buffers outside the garbage collector's heap. A
// Share is a part of the pool's budget: whoever needs memory first takes a
// Lease of a Share, waiting its turn in order of arrival, and then draws
// buffers from the lease without ever waiting again. Memory is therefore
// bounded by the sum of the shares, and the only place to wait is before
// anything is held.
//
//	Pool ── Share "write" ── Lease (one stripe) ── Buf, Buf, …
//	     ── Share "read"  ── Lease (one stream) ── Buf, …
//
// Rule against deadlock: a holder of a lease of one share may wait for another
// share only if the holders of that one never wait for the first. The users of
// the package state their order.
//
// A Buf may outlive its lease (a straggling disk still reads from it): its
// weight goes back to the share when the last holder releases it.
package buffer

import (
	"context"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"ashlar"
)

const (
	// page is the smallest class, and the alignment of what is mapped.
	page = 4 * ashlar.KiB
	// mapMin is the size from which buffers are mapped: smaller ones are plain
	// slices, so that small objects do not use up the kernel's map areas.
	mapMin = 64 * ashlar.KiB
	// steps is the number of classes in each doubling of the size: an eighth is
	// the most that rounding up wastes.
	steps = 8
)

// Size returns the weight of a buffer of n bytes: n rounded up to its class.
func Size(n int) int64 {
	if n <= page {
		return page
	}
	step := max(page, 1<<(bits.Len(uint(n-1))-1)/steps)
	return int64((n + step - 1) / step * step)
}

// Pool keeps idle buffers for reuse. Idle and used bytes together never exceed
// the budgets of its shares. It is safe for concurrent use.
type Pool struct {
	mu    sync.Mutex
	idle  map[int64][][]byte // by class
	total int64              // bytes mapped or made: idle and in use
	limit int64              // sum of the shares' budgets
}

// NewPool returns an empty pool.
func NewPool() *Pool { return &Pool{idle: map[int64][][]byte{}} }

// Share adds a share of that many bytes to the pool.
func (p *Pool) Share(budgetBytes int64) *Share {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit += budgetBytes
	return &Share{pool: p, budget: budgetBytes, sem: semaphore.NewWeighted(budgetBytes)}
}

// take returns a buffer of the class, an idle one if there is one. Its bytes
// are whatever they were.
func (p *Pool) take(class int64) ([]byte, error) {
	p.mu.Lock()
	if list := p.idle[class]; len(list) > 0 {
		b := list[len(list)-1]
		p.idle[class] = list[:len(list)-1]
		p.mu.Unlock()
		return b, nil
	}
	p.evictLocked(class)
	p.total += class
	p.mu.Unlock()
	if class < mapMin {
		return make([]byte, class), nil
	}
	b, err := unix.Mmap(-1, 0, int(class), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		p.mu.Lock()
		p.total -= class
		p.mu.Unlock()
		return nil, fmt.Errorf("map %d bytes: %w", class, err)
	}
	return b, nil
}

// evictLocked gives idle buffers of other classes back to the system until
// class more bytes fit the limit.
func (p *Pool) evictLocked(class int64) {
	for size, list := range p.idle {
		for len(list) > 0 && p.total+class > p.limit {
			p.drop(list[len(list)-1])
			list = list[:len(list)-1]
			p.total -= size
		}
		p.idle[size] = list
	}
}

func (p *Pool) drop(b []byte) {
	if len(b) >= mapMin {
		_ = unix.Munmap(b) // cannot fail for a slice that Mmap returned
	}
}

func (p *Pool) put(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle[int64(len(b))] = append(p.idle[int64(len(b))], b)
}

// Close gives the idle buffers back to the system. Buffers still in use are
// kept by their holders.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for size, list := range p.idle {
		for _, b := range list {
			p.drop(b)
			p.total -= size
		}
		delete(p.idle, size)
	}
}

// Share is a part of a pool's budget.
type Share struct {
	pool   *Pool
	budget int64
	sem    *semaphore.Weighted
	used   atomic.Int64
}

// Used returns the bytes that leases of the share hold now, Budget its bound.
func (s *Share) Used() int64 { return s.used.Load() }

// Budget returns the most bytes that the share gives out.
func (s *Share) Budget() int64 { return s.budget }

// Lease waits, first come first served, until the bytes (a sum of Sizes) are
// free. It fails with Busy when the context ends first, and with Invalid when
// the share could never give that many.
func (s *Share) Lease(ctx context.Context, bytes int64) (*Lease, error) {
	const op = "buffer: lease"
	if bytes > s.budget {
		return nil, ashlar.E(op, "", ashlar.Invalid, fmt.Errorf("%d bytes of a share of %d", bytes, s.budget))
	}
	if err := s.sem.Acquire(ctx, bytes); err != nil {
		return nil, ashlar.E(op, "", ashlar.Busy, fmt.Errorf("no %d bytes of buffers free: %w", bytes, err))
	}
	s.used.Add(bytes)
	return &Lease{share: s, bytes: bytes, free: bytes}, nil
}

// TryLease is Lease without waiting; it returns nil if the bytes are not free now.
func (s *Share) TryLease(bytes int64) *Lease {
	if bytes > s.budget || !s.sem.TryAcquire(bytes) {
		return nil
	}
	s.used.Add(bytes)
	return &Lease{share: s, bytes: bytes, free: bytes}
}

func (s *Share) release(bytes int64) {
	if bytes > 0 {
		s.used.Add(-bytes)
		s.sem.Release(bytes)
	}
}

// Lease is memory that may be drawn without waiting. It is safe for concurrent use.
type Lease struct {
	share  *Share
	bytes  int64
	mu     sync.Mutex
	free   int64
	closed bool
}

// Bytes returns how many were leased.
func (l *Lease) Bytes() int64 { return l.bytes }

// Get returns a buffer of n bytes with one holder. Its contents are undefined.
// The caller must have leased Size(n) bytes; a lease that is exhausted or
// closed is Internal, a system without memory Busy.
func (l *Lease) Get(n int) (*Buf, error) {
	class := Size(n)
	if !l.charge(class) {
		return nil, ashlar.E("buffer: get", "", ashlar.Internal, fmt.Errorf("%d bytes beyond the lease", n))
	}
	b, err := l.share.pool.take(class)
	if err != nil {
		l.credit(class)
		return nil, ashlar.E("buffer: get", "", ashlar.Busy, err)
	}
	buf := &Buf{B: b[:n], lease: l}
	buf.holders.Store(1)
	return buf, nil
}

func (l *Lease) charge(n int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.free < n {
		return false
	}
	l.free -= n
	return true
}

func (l *Lease) credit(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.share.release(n)
		return
	}
	l.free += n
}

// Close returns what is not drawn to the share; what is drawn follows as its
// buffers are released. Closing twice is harmless.
func (l *Lease) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		l.share.release(l.free)
		l.free = 0
	}
}

// Buf is one buffer. B may be used by its holders until each has released it.
type Buf struct {
	B       []byte
	holders atomic.Int32
	mu      sync.Mutex // guards lease
	lease   *Lease
}

// Retain adds a holder.
func (b *Buf) Retain() *Buf { b.holders.Add(1); return b }

// Release drops a holder. The last one gives the buffer back; B must not be
// touched by anybody afterwards.
func (b *Buf) Release() {
	switch n := b.holders.Add(-1); {
	case n < 0:
		panic("buffer: released more often than held")
	case n == 0:
		raw := b.B[:cap(b.B)]
		b.B = nil
		b.mu.Lock()
		lease := b.lease
		b.mu.Unlock()
		lease.share.pool.put(raw)
		lease.credit(int64(len(raw)))
	}
}

// Move charges the buffer to another lease of the same pool and credits its
// own. It reports false, and changes nothing, if the other has too little. The
// caller must be a holder.
func (b *Buf) Move(to *Lease) bool {
	size := int64(cap(b.B))
	if !to.charge(size) {
		return false
	}
	b.mu.Lock()
	from := b.lease
	b.lease = to
	b.mu.Unlock()
	from.credit(size)
	return true
}
