// Package faultdisk is a rig of real block devices that fail on request.
//
// One FUSE mount shows N files; behind each stands a Disk, a model of a disk
// with a volatile write cache. Over each file a real loop device is attached,
// 4096-byte blocks, direct I/O, so that what is tested goes through the real
// block layer with the real open flags, and the faults come from below it.
//
//	program under test ── O_DIRECT ──► /dev/loopN ──► FUSE file ──► Disk
//	                                                                 │
//	       test ── Inject, PowerCut, Kill, Rot, SetReadOnly ─────────┘
//
//	cache: block → versions, oldest first ──flush──► medium
//	           │
//	       PowerCut: each atom becomes old │ any version since │ the newest
//
// A flush makes durable what was written before it. PowerCut resolves the cache
// by the rig's own random source, in atoms of 512 or 4096 bytes, and leaves the
// disk without power: every I/O is EIO until PowerOn. Discard zeroes at once,
// medium included, because it may.
//
// Faults are rules, tried in the order in which they were added; the first that
// fires decides:
//
//	EIO          the call fails; a flush that fails never writes what was cached
//	             then, and the next flush says OK, as kernels and disks do
//	ENOSPC       the write fails with that
//	Delay        the call takes longer
//	Hang         the call does not return until Clear; then it is carried out
//	Lost         the write is acknowledged and forgotten
//	Misdirected  the write lands elsewhere
//	Short        the write is acknowledged whole and carried out in part
//	Torn         some atoms of the write are taken, then it fails with EIO
//	Flip         one bit of what is read is wrong, on the way only
//	Lie          the flush answers success and flushes nothing
//	Cut          the power fails in the middle of the call, torn in atoms of 512
//
// Every fault that fires is counted by kind and kept in a log with the time,
// the place and the rule. With the same seed the same order of calls gives the
// same bytes; under concurrency the order is the kernel's.
//
// Cleaning up goes from the top down: rules are cleared (an I/O that hangs
// cannot be killed, nor the process that waits for it), loop devices are
// detached, the file system is unmounted. Should the test process itself die
// with an I/O in flight, a guard process does the same in its place.
//
// It needs root, /dev/fuse and /dev/loop-control; without them the test is
// skipped with the reason.
package faultdisk
