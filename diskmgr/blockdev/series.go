package blockdev

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"ashlar"
)

// Starter is an IO whose writes can be begun without waiting for the device, so
// that one thread makes the next bytes while the device takes the last ones.
type Starter interface {
	// Writes returns what begins each of a series of writes, and what waits for
	// all of them; nil and nil if the IO below cannot.
	//
	// Start begins a write or puts it by, and does not wait for the device; only
	// for that of a regular file its file system may. Whole blocks, as WriteAt.
	// The device has p until wait has returned. Wait writes what was put by. It
	// returns nil if all of every write was done, else the first failure, and any
	// part of any of them may have reached the medium. It is called once, behind
	// the last start.
	Writes() (start func(p []byte, off int64), wait func() error)
}

// Writes returns the two functions of Starter for dev, or nil and nil.
func Writes(dev IO) (start func(p []byte, off int64), wait func() error) {
	if s, ok := dev.(Starter); ok {
		return s.Writes()
	}
	return nil, nil
}

// seriesDepth is how many writes of one series the device has at once; others
// are put by.
const seriesDepth = 32

// starting are the series of a device: io_submit(2), the older of the kernel's two
// asynchronous interfaces. The thread that submits can go its way, and any thread can
// wait: an io_uring would finish the I/O in the one that submitted it.
//
// A write to a block device is refused by the kernel rather than made to wait for a
// free request (RWF_NOWAIT), and is put by. So is one that needs more than one request.
type starting struct {
	refused atomic.Bool // the kernel does not do it, for this device or at all
	mu      sync.Mutex
	closed  bool
	idle    []*series
}

// aioControl is struct iocb of linux/aio_abi.h, on a little-endian machine.
type aioControl struct {
	user       uint64
	key, flags uint32
	op         uint16
	priority   int16
	fd         uint32
	addr       uint64
	length     uint64
	off        int64
	_          uint64
	_, _       uint32
}

// aioEvent is struct io_event.
type aioEvent struct {
	user, control uint64
	result, _     int64
}

const aioWrite = 1 // IOCB_CMD_PWRITE

// series is the writes between one call of Device.Writes and the end of its wait;
// then it is kept for the next.
type series struct {
	device *Device
	queue  uintptr                 // an io_context_t; 0: gone, and all is put by
	slots  [seriesDepth]seriesSlot // of what is under way
	free   []uint8
	events [seriesDepth]aioEvent
	later  []span
	err    error
}

type seriesSlot struct {
	span
	control aioControl
}

type span struct {
	p   []byte
	off int64
}

// Writes implements Starter.
func (d *Device) Writes() (start func(p []byte, off int64), wait func() error) {
	s := d.takeSeries()
	if s == nil {
		return nil, nil
	}
	return s.start, s.wait
}

func (d *Device) takeSeries() *series {
	from := &d.starting
	if !d.serve.direct || from.refused.Load() {
		return nil
	}
	from.mu.Lock()
	defer from.mu.Unlock()
	if n := len(from.idle); n > 0 {
		s := from.idle[n-1]
		from.idle = from.idle[:n-1]
		return s
	}
	s := &series{device: d}
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, seriesDepth, uintptr(unsafe.Pointer(&s.queue)), 0); errno != 0 {
		from.refused.Store(errno != unix.EAGAIN && errno != unix.ENOMEM) // EAGAIN: the machine's fs.aio-max-nr is used up
		return nil
	}
	for i := range uint8(seriesDepth) {
		s.free = append(s.free, i)
	}
	return s
}

// giveBack keeps the series for the next, if it is of any more use.
func (s *series) giveBack() {
	clear(s.later)
	s.later, s.err = s.later[:0], nil
	to := &s.device.starting
	to.mu.Lock()
	defer to.mu.Unlock()
	switch {
	case s.queue == 0:
	case to.closed:
		s.destroy()
	default:
		to.idle = append(to.idle, s)
	}
}

// close lets go of what is not in use; the others go when their wait ends.
func (s *starting) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, q := range s.idle {
		q.destroy()
	}
	s.idle = nil
}

// destroy returns when nothing of the queue is under way any more.
func (s *series) destroy() {
	_, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, s.queue, 0, 0)
	s.queue = 0
}

func (s *series) start(p []byte, off int64) {
	const op = "blockdev: write"
	d := s.device
	if err := errors.Join(d.writable(op), d.check(op, p, off)); err != nil {
		s.fail(err)
		return
	}
	for len(p) > 0 {
		if len(s.free) == 0 && s.queue != 0 {
			s.reap(0)
		}
		if s.queue == 0 || len(s.free) == 0 || d.starting.refused.Load() {
			s.putBy(span{p, off})
			return
		}
		n, err := s.submit(p, off)
		p, off = p[n:], off+int64(n)
		switch {
		case err == nil:
		case errors.Is(err, unix.EAGAIN):
			s.putBy(span{p, off})
			return
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			d.starting.refused.Store(true)
		default:
			s.fail(d.fail(op, off, len(p), err))
			return
		}
	}
}

// submit begins to write p in one call, in requests of what the device takes at once, as
// far as there are slots, and returns how many bytes were begun.
func (s *series) submit(p []byte, off int64) (n int, err error) {
	d := s.device
	var list [seriesDepth]*aioControl
	count := 0
	for at, end := 0, 0; at < len(p) && count < len(s.free); at = end {
		end = min(at+d.requestMax, len(p))
		i := s.free[len(s.free)-1-count]
		slot := &s.slots[i]
		slot.span = span{p[at:end], off + int64(at)}
		slot.control = aioControl{user: uint64(i), op: aioWrite, addr: uint64(uintptr(unsafe.Pointer(&p[at]))), length: uint64(end - at), off: off + int64(at)}
		if !d.serve.regular {
			slot.control.flags = unix.RWF_NOWAIT
		}
		list[count] = &slot.control
		count++
	}
	err = control(d.file, func(fd int) error {
		for _, c := range list[:count] {
			c.fd = uint32(fd)
		}
		begun, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, s.queue, uintptr(count), uintptr(unsafe.Pointer(&list)))
		if errno != 0 {
			return errno
		}
		for range begun {
			n += len(s.slots[s.free[len(s.free)-1]].p)
			s.free = s.free[:len(s.free)-1]
		}
		return nil
	})
	return n, err
}

func (s *series) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// putBy keeps a write for wait, as one with that in front of it where they are neighbours.
func (s *series) putBy(next span) {
	if n := len(s.later); n > 0 {
		last := &s.later[n-1]
		length := len(last.p) + len(next.p)
		if last.off+int64(len(last.p)) == next.off && cap(last.p) >= length &&
			unsafe.SliceData(last.p[len(last.p):length]) == unsafe.SliceData(next.p) {
			last.p = last.p[:length]
			return
		}
	}
	s.later = append(s.later, next)
}

func (s *series) wait() error {
	for s.queue != 0 && len(s.free) < seriesDepth {
		s.reap(seriesDepth - len(s.free))
	}
	err := s.err
	for _, w := range s.later {
		if err == nil {
			_, err = s.device.WriteAt(w.p, w.off)
		}
	}
	s.giveBack()
	return err
}

// reap takes in what has ended, at least that many.
func (s *series) reap(atLeast int) {
	var now unix.Timespec
	var timeout *unix.Timespec
	if atLeast == 0 {
		timeout = &now
	}
	n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, s.queue, uintptr(atLeast), seriesDepth,
		uintptr(unsafe.Pointer(&s.events)), uintptr(unsafe.Pointer(timeout)), 0)
	if errno == unix.EINTR {
		return
	}
	if errno != 0 { // cannot be; the memory must stay until the device lets go of it
		s.destroy()
		s.fail(ashlar.E("blockdev: write", s.device.path, ashlar.Internal, errno))
		return
	}
	for _, e := range s.events[:n] {
		slot := &s.slots[e.user]
		switch err := unix.Errno(max(0, -e.result)); {
		case err == unix.EAGAIN:
			s.putBy(slot.span)
		case err == unix.EOPNOTSUPP || err == unix.EINVAL:
			s.device.starting.refused.Store(true)
			s.putBy(slot.span)
		case err != 0:
			s.fail(s.device.fail("blockdev: write", slot.off, len(slot.p), err))
		case e.result < int64(len(slot.p)):
			s.fail(s.device.fail("blockdev: write", slot.off, len(slot.p), io.ErrShortWrite))
		}
		slot.span = span{}
		s.free = append(s.free, uint8(e.user))
	}
}
