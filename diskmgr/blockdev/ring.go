package blockdev

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What io_uring(7) and linux/io_uring.h define and golang.org/x/sys does not.
const (
	setupClamp        = 1 << 4
	setupSingleIssuer = 1 << 12 // one thread enters the ring; Linux 6.0
	setupDeferTaskrun = 1 << 13 // completions are worked off in enter only; 6.1

	featureSingleMmap = 1 << 0
	featureNoDrop     = 1 << 1 // completions that do not fit are kept

	mapRing = 0
	mapSQEs = 0x10000000

	enterGetEvents = 1

	opFsync      = 3
	opReadFixed  = 4
	opWriteFixed = 5
	opRead       = 22
	opWrite      = 23

	sqeFixedFile  = 1 << 0
	fsyncDatasync = 1 << 0

	registerBuffers = 0
	registerFiles   = 2
	unregisterFiles = 3
)

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// submission is struct io_uring_sqe.
type submission struct {
	op, flags   uint8
	ioprio      uint16
	fd          int32
	off         uint64
	addr        uint64
	length      uint32
	opFlags     uint32
	user        uint64
	buffer      uint16
	personality uint16
	splice      int32
	_           [2]uint64
}

// completion is struct io_uring_cqe.
type completion struct {
	user  uint64
	res   int32
	flags uint32
}

// The sizes are the kernel's.
var (
	_ [120]byte = [unsafe.Sizeof(ringParams{})]byte{}
	_ [64]byte  = [unsafe.Sizeof(submission{})]byte{}
	_ [16]byte  = [unsafe.Sizeof(completion{})]byte{}
)

// ring is one io_uring. Only the thread that made it touches it.
type ring struct {
	fd             int
	queues, memory []byte // mappings: both queues, and the submissions

	sqTail, cqHead, cqTail *uint32
	sqArray                []uint32
	sqes                   []submission
	cqes                   []completion

	tail    uint32 // of what was pushed, in step with *sqTail
	pending uint32 // pushed and not yet taken by the kernel
}

// newRing makes a ring for the calling thread, which must be locked.
func newRing(entries uint32) (*ring, error) {
	var err error
	for _, flags := range []uint32{setupClamp | setupSingleIssuer | setupDeferTaskrun, setupClamp} {
		p := ringParams{flags: flags}
		fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
		if errno == unix.EINVAL {
			err = errno
			continue // a kernel that does not know the flags
		}
		if errno != 0 {
			return nil, fmt.Errorf("io_uring_setup: %w", errno)
		}
		r := &ring{fd: int(fd)}
		if err := r.mapQueues(&p); err != nil {
			r.close()
			return nil, err
		}
		return r, nil
	}
	return nil, fmt.Errorf("io_uring_setup: %w", err)
}

func (r *ring) mapQueues(p *ringParams) error {
	if need := uint32(featureSingleMmap | featureNoDrop); p.features&need != need {
		return errors.New("io_uring: the kernel's is older than Linux 5.5")
	}
	bytes := max(p.sq.array+4*p.sqEntries, p.cq.cqes+uint32(unsafe.Sizeof(completion{}))*p.cqEntries)
	var err error
	const prot, how = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.queues, err = unix.Mmap(r.fd, mapRing, int(bytes), prot, how); err != nil {
		return fmt.Errorf("io_uring: map the queues: %w", err)
	}
	if r.memory, err = unix.Mmap(r.fd, mapSQEs, int(p.sqEntries)*int(unsafe.Sizeof(submission{})), prot, how); err != nil {
		return fmt.Errorf("io_uring: map the submissions: %w", err)
	}
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.queues[off])) }
	r.sqTail, r.cqHead, r.cqTail = word(p.sq.tail), word(p.cq.head), word(p.cq.tail)
	r.sqArray = unsafe.Slice(word(p.sq.array), p.sqEntries)
	r.sqes = unsafe.Slice((*submission)(unsafe.Pointer(unsafe.SliceData(r.memory))), p.sqEntries)
	r.cqes = unsafe.Slice((*completion)(unsafe.Pointer(&r.queues[p.cq.cqes])), p.cqEntries)
	r.tail = atomic.LoadUint32(r.sqTail)
	return nil
}

// push adds a submission, which the kernel takes at the next enter. No
// more may be pending than the ring has entries.
func (r *ring) push(s submission) {
	i := r.tail & uint32(len(r.sqes)-1)
	r.sqes[i] = s
	r.sqArray[i] = i
	r.tail++
	r.pending++
	atomic.StoreUint32(r.sqTail, r.tail)
}

// enter hands over what was pushed and waits for one completion, which must be
// outstanding. It returns early, without an error, when a signal interrupts it:
// Go's preemption sends such signals.
func (r *ring) enter() error {
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.pending), 1, enterGetEvents, 0, 0)
	switch errno {
	case 0:
		r.pending -= uint32(n)
		return nil
	case unix.EINTR, unix.EBUSY: // EBUSY: reap first
		return nil
	default:
		return fmt.Errorf("io_uring_enter: %w", errno)
	}
}

// reap calls fn for every completion that is there.
func (r *ring) reap(fn func(user uint64, res int32)) {
	head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
	for ; head != tail; head++ {
		c := r.cqes[head&uint32(len(r.cqes)-1)]
		atomic.StoreUint32(r.cqHead, head+1)
		fn(c.user, c.res)
	}
}

func (r *ring) register(what uintptr, arg unsafe.Pointer, n int) error {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), what, uintptr(arg), uintptr(n), 0, 0)
	if errno != 0 {
		return fmt.Errorf("io_uring_register %d: %w", what, errno)
	}
	return nil
}

func (r *ring) close() {
	for _, m := range [][]byte{r.queues, r.memory} {
		if m != nil {
			unix.Munmap(m)
		}
	}
	unix.Close(r.fd)
}

// probeUring makes a ring and registers a file with it, as a device will.
func probeUring() error {
	result := make(chan error, 1)
	go func() { // ends with the answer
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		r, err := newRing(1)
		if err != nil {
			result <- err
			return
		}
		defer r.close()
		null, err := os.Open(os.DevNull)
		if err != nil {
			result <- err
			return
		}
		defer null.Close()
		fd := int32(null.Fd())
		result <- r.register(registerFiles, unsafe.Pointer(&fd), 1)
	}()
	return <-result
}
