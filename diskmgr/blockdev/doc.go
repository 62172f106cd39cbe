// Package blockdev does raw I/O: a block device, or a regular file that stands
// for one, opened so that nobody else can hold it, read and written past the
// page cache, flushed, discarded, and given back.
//
// What is durable. A write is durable when a Flush that began after the write
// returned has returned nil. Flush is fdatasync; on a block device O_DSYNC
// would cost two flushes and BLKFLSBUF none, so neither is used. After a failed
// flush the kernel forgets what it could not write and calls the next flush a
// success. So a Device whose flush failed is fenced for the rest of its life:
// every later write and flush is refused with kind Unavailable. To use the
// device again it is closed, opened, and its log recovered from what is really
// there.
//
// Who holds it. Block devices are opened with O_EXCL, which the kernel honours
// against mounts, swap, RAID, device-mapper and other O_EXCL holders, and which
// ends with the process. Regular files take an exclusive flock instead; it
// belongs to the open file, so a second open is refused also within one
// process. A refused open has kind Busy and names the holder where it can be
// found out. Both locks bind only one machine: against a disk that two machines
// see, the label carries an owner epoch.
//
// Past the page cache. O_DIRECT is required of block devices. A regular file on
// a file system that refuses it (tmpfs before Linux 6.6, some FUSE file
// systems) is opened without; the same alignment is asked for, Flush is still
// fdatasync, and Direct tells the difference. What is lost is speed and honest
// memory accounting, not durability.
//
// Engines. Bytes move by one of two engines, which keep one conformance suite:
// pread, one system call by the caller's thread, and uring, an io_uring for each
// device with a thread of its own that submits what waits in one call. The
// kernel finishes an I/O in the thread that submitted it, so a thread shared
// between devices would let a hung one stop the others. Handing an I/O to that
// thread and back costs more than a system call unless many share the way. Process
// CPU on a loop device over ext4, in µs (2026-11-21, two cores under heavy load,
// so only the ratios mean something), pread/uring by the number of callers:
//
//	                     1         4         16
//	write and flush 4K   33/283    53/91     29/74
//	write and flush 1M   122/185   154/217   216/176
//	read 4K              31/123    14/14     12/3.1
//	read 64K             49/50     25/16     21/8.2
//
// A daemon has one write or flush for each writer under way, two on a disk here,
// so EngineAuto is pread; uring is for hosts that read from many callers. A
// flush through the ring goes to one of the kernel's worker threads.
//
// Writes that are begun and waited for later go another way with both engines, since
// neither can begin one for less than it costs to wake a thread: Linux AIO, by which the
// caller's own thread queues the write and goes on. See Starter; package segment has a
// long batch written while it is still laid out. It needs O_DIRECT. Where the kernel gives
// none, Writes says so.
//
// Blocks. BlockBytes is the unit of offset, length and memory alignment: 4096,
// or the device's logical or physical block where that is larger (a physical
// block above 64 KiB is ignored). One rule for all devices costs at most 3.5
// KiB of padding a flush on a 512-byte disk and saves a read-modify-write on
// every 512e one.
//
// Discard and allocation. On a block device Discard is BLKDISCARD, and bytes
// read from the range afterwards are undefined. On a regular file that is fully
// allocated Discard does nothing: a hole would give the space to others, and a
// later write could fail with ENOSPC on a disk that reported room. On a sparse
// file, which promises nothing, it punches a hole.
//
//	IO       what a device does; Device, Range, Fault wrappers and tests provide it
//	Starter  an IO whose writes can be begun now and waited for later
//	Device   an open block device or file
//	Range    part of an IO, seen as an IO of its own
//	Engine   how the bytes move
//	Fault    a switch that makes an IO dead, for tests and for `ashlar dev`
//	Pool     aligned buffers, as many as it was made with and not one more
package blockdev

// IO is raw, aligned access to a device. Offsets, lengths and the addresses of
// buffers are multiples of BlockBytes; anything else is kind Invalid. ReadAt
// and WriteAt do not keep p. All methods may be called at the same time.
//
// It has six methods where five are the house limit: each is one verb of the
// hardware and every consumer needs all of them.
type IO interface {
	// ReadAt fills p from off. A short read is an error.
	ReadAt(p []byte, off int64) (int, error)
	// WriteAt writes p at off. When it fails, any part of p may have reached
	// the medium.
	WriteAt(p []byte, off int64) (int, error)
	// Flush makes every write that returned before it was called durable. Once
	// it failed, every later Flush and WriteAt fails with kind Unavailable.
	Flush() error
	// Discard says that the bytes of the range are of no more use. They may
	// read as anything afterwards. It needs no Flush and may do nothing.
	Discard(off, length int64) error
	// Bytes is the size of the device, a multiple of BlockBytes.
	Bytes() int64
	// BlockBytes is the unit of alignment, a power of two.
	BlockBytes() int
}
