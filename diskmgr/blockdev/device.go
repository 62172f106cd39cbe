package blockdev

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ashlar"
)

const (
	// BlockBytesMin is the smallest unit of alignment, whatever the device says.
	BlockBytesMin = 4096
	// BlockBytesMax is the largest physical block that is believed.
	BlockBytesMax = 64 * ashlar.KiB
)

// Device is an open block device or regular file. It implements IO.
type Device struct {
	file   *os.File
	io     engine
	path   string
	bytes  int64
	block  int
	serve  mode
	fenced atomic.Pointer[error]
	// requestMax is how many bytes of a write that must not wait go into one request.
	requestMax int

	starting starting

	// flushing serializes flushes that go through the page cache: there the
	// kernel reports a failed write-back to one caller and tells the next one
	// that all is well.
	flushing sync.Mutex

	closeOnce sync.Once
	closeErr  error
}

type mode struct {
	regular, direct, sparse, readOnly bool
}

// Open opens a block device or a regular file for reading and writing and holds
// it exclusively until Close. Kinds: NotFound (no such path, or the device is
// gone), Denied (permissions), Busy (held by another; the error names the
// holder if it is known), Invalid (neither a block device nor a regular file,
// or a block device that refuses O_DIRECT), Internal.
func Open(path string) (*Device, error) { return OpenWith(path, Options{}) }

// OpenWith is Open with options.
func OpenWith(path string, o Options) (*Device, error) { return open(path, false, o) }

// OpenReadOnly opens without taking hold: it succeeds on a device that another
// holds and writes nothing, ever. WriteAt, Flush and Discard are Denied.
func OpenReadOnly(path string) (*Device, error) { return open(path, true, Options{}) }

// A hold that was just let go may last a moment longer: a child that another
// goroutine forked has a copy of every descriptor until its exec.
const (
	holdWaitMax  = 2 * time.Second
	holdWaitStep = 5 * time.Millisecond
	// closeWait bounds each of the two waits of Close: for the I/O and the file.
	closeWait = time.Second
)

func open(path string, readOnly bool, o Options) (*Device, error) {
	for until := time.Now().Add(holdWaitMax); ; time.Sleep(holdWaitStep) {
		d, err := openOnce(path, readOnly, o)
		if !ashlar.Is(err, ashlar.Busy) || time.Now().After(until) {
			return d, err
		}
	}
}

func openOnce(path string, readOnly bool, o Options) (*Device, error) {
	const op = "blockdev: open"
	info, err := os.Stat(path)
	if err != nil {
		return nil, ashlar.E(op, path, openKind(err), err)
	}
	regular, err := classify(info)
	if err != nil {
		return nil, ashlar.E(op, path, ashlar.Invalid, err)
	}
	file, direct, err := openFile(path, regular, readOnly)
	if err != nil {
		return nil, openError(op, path, err)
	}
	d := &Device{file: file, path: path, serve: mode{regular: regular, direct: direct, readOnly: readOnly}}
	if err := d.settle(info); err != nil {
		file.Close()
		return nil, openError(op, path, err)
	}
	d.io = newEngine(file, o)
	return d, nil
}

func classify(info fs.FileInfo) (regular bool, err error) {
	switch m := info.Mode(); {
	case m.IsRegular():
		return true, nil
	case m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0:
		return false, nil
	default:
		return false, fmt.Errorf("%s is neither a block device nor a regular file", m.Type())
	}
}

func openFile(path string, regular, readOnly bool) (file *os.File, direct bool, err error) {
	flags := os.O_RDWR
	if readOnly {
		flags = os.O_RDONLY
	} else if !regular {
		flags |= unix.O_EXCL
	}
	file, err = os.OpenFile(path, flags|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err == nil {
		return file, true, nil
	}
	if !errors.Is(err, unix.EINVAL) {
		return nil, false, err
	}
	if !regular {
		return nil, false, fmt.Errorf("the device refuses O_DIRECT; Ashlar needs a driver that supports it: %w", err)
	}
	file, err = os.OpenFile(path, flags|unix.O_CLOEXEC, 0)
	return file, false, err
}

// settle takes the lock of a regular file, checks that the path was not
// exchanged since it was looked at, and reads size and block sizes.
func (d *Device) settle(before fs.FileInfo) error {
	info, err := d.file.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(before, info) {
		return errors.New("the path was exchanged while it was being opened")
	}
	if !d.serve.regular {
		return d.settleBlock()
	}
	if !d.serve.readOnly {
		if err := control(d.file, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
			return err
		}
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	d.serve.sparse = ok && st.Blocks*512 < info.Size()
	d.block, d.requestMax = BlockBytesMin, math.MaxInt
	d.bytes = roundDown(info.Size(), d.block)
	return nil
}

func (d *Device) settleBlock() error {
	var size uint64
	var logical int32
	var physical uint32
	var sectorsMax uint16
	for _, q := range []struct {
		request uintptr
		into    unsafe.Pointer
	}{
		{unix.BLKGETSIZE64, unsafe.Pointer(&size)},
		{unix.BLKSSZGET, unsafe.Pointer(&logical)},
		{unix.BLKPBSZGET, unsafe.Pointer(&physical)},
		{unix.BLKSECTGET, unsafe.Pointer(&sectorsMax)},
	} {
		if err := d.ioctl(q.request, q.into); err != nil {
			return err
		}
	}
	d.block = blockBytes(int(logical), int(physical))
	d.bytes = roundDown(int64(size), d.block)
	d.requestMax = max(d.block, int(roundDown(min(int64(sectorsMax)*512, requestBytesMax), d.block)))
	return nil
}

// requestBytesMax is 64 small pages, as many as any disk takes in one request.
const requestBytesMax = 256 * ashlar.KiB

// blockBytes chooses the unit of alignment from what the device says.
func blockBytes(logical, physical int) int {
	block := max(BlockBytesMin, logical)
	if physical > block && physical <= BlockBytesMax && physical&(physical-1) == 0 {
		block = physical
	}
	return block
}

func roundDown(n int64, unit int) int64 { return n - n%int64(unit) }

// Path is the path that was opened.
func (d *Device) Path() string { return d.path }

// Bytes is the size in bytes, rounded down to whole blocks.
func (d *Device) Bytes() int64 { return d.bytes }

// BlockBytes is the unit of alignment.
func (d *Device) BlockBytes() int { return d.block }

// Regular reports whether a file stands for the device.
func (d *Device) Regular() bool { return d.serve.regular }

// Direct reports whether I/O goes past the page cache.
func (d *Device) Direct() bool { return d.serve.direct }

// Engine is the way in which bytes get to the device.
func (d *Device) Engine() Engine { return d.io.name() }

// Sparse reports whether the device is a file that was not fully allocated when
// it was opened.
func (d *Device) Sparse() bool { return d.serve.sparse }

// ReadAt implements IO.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	if err := d.check("blockdev: read", p, off); err != nil {
		return 0, err
	}
	n, err := d.io.readAt(p, off)
	if err != nil {
		return n, d.fail("blockdev: read", off, len(p), err)
	}
	return n, nil
}

// WriteAt implements IO.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	const op = "blockdev: write"
	if err := d.writable(op); err != nil {
		return 0, err
	}
	if err := d.check(op, p, off); err != nil {
		return 0, err
	}
	n, err := d.io.writeAt(p, off)
	if err != nil {
		return n, d.fail(op, off, len(p), err)
	}
	return n, nil
}

// Flush implements IO.
func (d *Device) Flush() error {
	const op = "blockdev: flush"
	if err := d.writable(op); err != nil {
		return err
	}
	if !d.serve.direct {
		d.flushing.Lock()
		defer d.flushing.Unlock()
		if err := d.writable(op); err != nil {
			return err
		}
	}
	err := d.io.flush()
	if err == nil {
		return nil
	}
	if errors.Is(err, os.ErrClosed) {
		return ashlar.E(op, d.path, ashlar.Unavailable, err) // the device was not asked
	}
	failed := error(ashlar.E(op, d.path, ashlar.Unavailable, err))
	d.fenced.CompareAndSwap(nil, &failed)
	return failed
}

// Discard implements IO.
func (d *Device) Discard(off, length int64) error {
	const op = "blockdev: discard"
	if err := d.writable(op); err != nil {
		return err
	}
	if !within(off, length, d.bytes, d.block) {
		return d.outside(op, off, length)
	}
	if length == 0 {
		return nil
	}
	err := d.discard(off, length)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return d.fail(op, off, int(length), err)
	}
	return nil
}

func (d *Device) discard(off, length int64) error {
	if !d.serve.regular {
		span := [2]uint64{uint64(off), uint64(length)}
		return d.ioctl(unix.BLKDISCARD, unsafe.Pointer(&span))
	}
	if !d.serve.sparse {
		return nil
	}
	return control(d.file, func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	})
}

// rereadWait bounds how long those are waited for who look at a partition just
// now, as udev does and every Discover on the machine.
const (
	rereadWait = 5 * time.Second
	rereadTry  = 10 * time.Millisecond
)

// RereadPartitions asks the kernel to forget partitions that are no longer on
// the device; it refuses as long as one of them is open. On a regular file it
// does nothing.
func (d *Device) RereadPartitions() error {
	if d.serve.regular {
		return nil
	}
	err := d.ioctl(unix.BLKRRPART, nil)
	for until := time.Now().Add(rereadWait); errors.Is(err, unix.EBUSY) && time.Now().Before(until); {
		time.Sleep(rereadTry)
		err = d.ioctl(unix.BLKRRPART, nil)
	}
	if err == nil || errors.Is(err, unix.EINVAL) { // EINVAL: a device without partitions
		return nil
	}
	return ashlar.E("blockdev: reread partitions", d.path, ashlar.Busy, err)
}

// Close lets the device go; I/O that comes later is Unavailable. Unflushed writes
// may or may not be durable. I/O under way is not cut off: while a hung device
// keeps it, the device stays held, and Close gives up waiting after closeWait. Closing again returns the first result.
func (d *Device) Close() error {
	d.closeOnce.Do(func() {
		d.io.close()
		d.starting.close()
		closed := make(chan error, 1)
		go func() { closed <- d.letGo() }() // ends when a hung device answers
		timer := time.NewTimer(closeWait)
		defer timer.Stop()
		select {
		case err := <-closed:
			if err != nil {
				d.closeErr = ashlar.E("blockdev: close", d.path, ashlar.Internal, err)
			}
		case <-timer.C:
		}
	})
	return d.closeErr
}

// letGo closes the file. The lock of a regular file is dropped by itself: a
// child that is being forked has a copy of the descriptor until its exec, and
// the lock would live as long as that.
func (d *Device) letGo() error {
	if d.serve.regular && !d.serve.readOnly {
		if err := control(d.file, func(fd int) error { return unix.Flock(fd, unix.LOCK_UN) }); err != nil {
			return errors.Join(err, d.file.Close())
		}
	}
	return d.file.Close()
}

func (d *Device) writable(op string) error {
	if d.serve.readOnly {
		return ashlar.E(op, d.path, ashlar.Denied, errors.New("opened read-only"))
	}
	if first := d.fenced.Load(); first != nil {
		return ashlar.E(op, d.path, ashlar.Unavailable, fmt.Errorf("fenced: %w", *first))
	}
	return nil
}

func (d *Device) check(op string, p []byte, off int64) error {
	if !within(off, int64(len(p)), d.bytes, d.block) {
		return d.outside(op, off, int64(len(p)))
	}
	if len(p) > 0 && uintptr(unsafe.Pointer(unsafe.SliceData(p)))%uintptr(BlockBytesMin) != 0 {
		return ashlar.E(op, d.path, ashlar.Invalid, fmt.Errorf("the buffer is not aligned to %d bytes; take it from a Pool or from Aligned", BlockBytesMin))
	}
	return nil
}

func (d *Device) outside(op string, off, length int64) error {
	return ashlar.E(op, d.path, ashlar.Invalid,
		fmt.Errorf("offset %#x length %#x: not whole blocks of %d within %#x bytes", off, length, d.block, d.bytes))
}

func (d *Device) fail(op string, off int64, length int, err error) error {
	return ashlar.E(op, fmt.Sprintf("%s off=%#x len=%#x", d.path, off, length), ioKind(err), err)
}

// within reports whether the range is made of whole blocks inside size bytes.
func within(off, length, size int64, block int) bool {
	unit := int64(block)
	return off >= 0 && length >= 0 && off%unit == 0 && length%unit == 0 && length <= size && off <= size-length
}

// control runs a system call on the open file, again when a signal interrupts
// it. The file cannot be closed, nor its number reused, while the call runs.
func control(file *os.File, call func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = conn.Control(func(fd uintptr) {
		for {
			if result = call(int(fd)); !errors.Is(result, unix.EINTR) {
				return
			}
		}
	})
	if err != nil { // the one reason that it has
		return os.ErrClosed
	}
	return result
}

func (d *Device) ioctl(request uintptr, arg unsafe.Pointer) error {
	return control(d.file, func(fd int) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
			return errno
		}
		return nil
	})
}
