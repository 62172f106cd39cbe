package blockdev

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// uringDepth bounds what one device has in flight; callers beyond it wait.
	uringDepth = 128
	// uringAgainMax bounds how often in a row the kernel may ask for one I/O to
	// be tried again, uringEnterMax how often it may refuse to take any.
	uringAgainMax = 64
	uringEnterMax = 1000
	uringPause    = time.Millisecond

	wakeUser = ^uint64(0) // no slot has this number
)

// uring is the engine with an io_uring. Callers queue requests; the owner, a
// goroutine on a thread of its own, submits whatever waits in one system call,
// reaps, and answers.
//
// The thread is the device's own because the kernel finishes an I/O in the
// thread that submitted it, and runs what can block in workers of that thread:
// if another device could make that thread wait, its hang would be ours.
//
// The owner ends when close was called and nothing is in flight any more.
type uring struct {
	file *os.File
	pool *Pool
	wake int // an eventfd: written to by callers when the owner sleeps

	mu struct {
		sync.Mutex
		queue   []*request
		asleep  bool // the owner waits in the kernel and nobody has woken it
		closing bool
		broken  error // why the ring takes nothing any more
	}
	ended chan struct{} // closed by the owner

	// Only the owner touches these.
	ring  *ring
	taken []*request // the queue's other array
	slots [uringDepth]*request
	free  []uint64
	armed bool    // a read of wake is in flight
	woken [8]byte // where it goes
}

// request is one I/O. The caller that made it waits on done, which has room
// for the answer, and so keeps p alive.
type request struct {
	op   uint8
	p    []byte
	off  int64
	done chan int32 // the kernel's result: a count, or minus an errno
}

var requests = sync.Pool{New: func() any { return &request{done: make(chan int32, 1)} }}

func newUring(file *os.File, pool *Pool) (*uring, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	u := &uring{file: file, pool: pool, wake: wake, ended: make(chan struct{})}
	started := make(chan error)
	go u.own(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return u, nil
}

// own is the life of the owner.
func (u *uring) own(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(u.ended)
	defer unix.Close(u.wake)
	r, err := newRing(uringDepth + 1)
	if err == nil {
		defer r.close()
		u.ring = r
		err = u.register()
	}
	started <- err
	if err != nil {
		return
	}
	for i := range uint64(uringDepth) {
		u.free = append(u.free, i)
	}
	for failures := 0; u.admit(); {
		if err := u.ring.enter(); err == nil {
			failures = 0
		} else if failures++; failures < uringEnterMax {
			time.Sleep(uringPause)
		} else {
			u.breakDown(err)
		}
		u.awake()
		u.ring.reap(u.complete)
	}
	// Closing the ring lets the file go some time later; this does so now.
	_ = u.ring.register(unregisterFiles, nil, 0)
}

func (u *uring) register() error {
	fd := int32(u.file.Fd())
	if err := u.ring.register(registerFiles, unsafe.Pointer(&fd), 1); err != nil {
		return err
	}
	if u.pool == nil {
		return nil
	}
	region := unix.Iovec{Base: unsafe.SliceData(u.pool.region)}
	region.SetLen(len(u.pool.region))
	if u.ring.register(registerBuffers, unsafe.Pointer(&region), 1) != nil {
		u.pool = nil // more memory than may be locked: the buffers work unregistered
	}
	return nil
}

// admit turns waiting requests into submissions. It returns false when the
// owner is to end.
func (u *uring) admit() bool {
	u.mu.Lock()
	n := min(len(u.mu.queue), len(u.free))
	u.taken = append(u.taken[:0], u.mu.queue[:n]...)
	rest := copy(u.mu.queue, u.mu.queue[n:])
	clear(u.mu.queue[rest:])
	u.mu.queue = u.mu.queue[:rest]
	u.mu.asleep = true
	idle := n == 0 && rest == 0 && len(u.free) == uringDepth
	end := u.mu.closing && idle
	u.mu.Unlock()
	if end {
		return false
	}
	if !u.armed {
		u.armed = true
		u.ring.push(submission{
			op: opRead, fd: int32(u.wake), user: wakeUser,
			addr: uint64(uintptr(unsafe.Pointer(&u.woken))), length: uint32(len(u.woken)),
		})
	}
	for _, r := range u.taken {
		i := u.free[len(u.free)-1]
		u.free = u.free[:len(u.free)-1]
		u.slots[i] = r
		s := submission{op: r.op, flags: sqeFixedFile, user: i}
		if r.op == opFsync {
			s.opFlags = fsyncDatasync
		} else {
			s.off, s.length = uint64(r.off), uint32(len(r.p))
			s.addr = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(r.p))))
			if u.pool.holds(r.p) {
				s.op = fixed(r.op)
			}
		}
		u.ring.push(s)
	}
	return true
}

// awake saves callers the waking until the next admit.
func (u *uring) awake() {
	u.mu.Lock()
	u.mu.asleep = false
	u.mu.Unlock()
}

// fixed is the operation on a registered buffer.
func fixed(op uint8) uint8 {
	if op == opRead {
		return opReadFixed
	}
	return opWriteFixed
}

// complete answers one request.
func (u *uring) complete(user uint64, res int32) {
	if user == wakeUser {
		u.armed = false
		return
	}
	r := u.slots[user]
	u.slots[user] = nil
	u.free = append(u.free, user)
	r.done <- res
}

// breakDown refuses what waits and what will come. What the kernel has already
// taken it may still answer.
func (u *uring) breakDown(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mu.broken = err
	for i, r := range u.mu.queue {
		r.done <- -int32(unix.EIO)
		u.mu.queue[i] = nil
	}
	u.mu.queue = u.mu.queue[:0]
}

// submit queues the request and wakes the owner if it sleeps.
func (u *uring) submit(r *request) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.mu.broken != nil {
		return u.mu.broken
	}
	if u.mu.closing {
		return os.ErrClosed
	}
	u.mu.queue = append(u.mu.queue, r)
	return u.wakeLocked()
}

// wakeLocked is called with mu held: the owner cannot end and close wake then.
func (u *uring) wakeLocked() error {
	if !u.mu.asleep {
		return nil
	}
	u.mu.asleep = false
	one := [8]byte{1} // the eventfd counts; any value but 0 wakes
	if _, err := unix.Write(u.wake, one[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return err
	}
	return nil
}

// once is one I/O, as short or interrupted as the kernel makes it.
func (u *uring) once(op uint8, p []byte, off int64) (int, error) {
	r := requests.Get().(*request)
	r.op, r.p, r.off = op, p, off
	if err := u.submit(r); err != nil {
		return 0, err
	}
	res := <-r.done
	r.p = nil
	requests.Put(r)
	if res < 0 {
		return 0, unix.Errno(-res)
	}
	return int(res), nil
}

// insist repeats once while the kernel asks for it.
func (u *uring) insist(op uint8, p []byte, off int64) (n int, err error) {
	for range uringAgainMax {
		n, err = u.once(op, p, off)
		if err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	return n, err
}

func (u *uring) transfer(op uint8, p []byte, off int64) (done int, err error) {
	for done < len(p) {
		n, err := u.insist(op, p[done:], off+int64(done))
		done += n
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, io.ErrUnexpectedEOF
		}
	}
	return done, nil
}

func (u *uring) readAt(p []byte, off int64) (int, error)  { return u.transfer(opRead, p, off) }
func (u *uring) writeAt(p []byte, off int64) (int, error) { return u.transfer(opWrite, p, off) }

func (u *uring) flush() error {
	_, err := u.insist(opFsync, nil, 0)
	return err
}

func (u *uring) close() {
	u.mu.Lock()
	u.mu.closing = true
	_ = u.wakeLocked()
	u.mu.Unlock()
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-u.ended:
	case <-timer.C: // a hung device: the owner ends when it answers
	}
}

func (u *uring) name() Engine { return EngineUring }
