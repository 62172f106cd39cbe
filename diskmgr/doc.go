// Package diskmgr knows which devices are ours and how they feel.
//
// Discover lists the devices of the machine, each blank, ours, foreign or not
// ours, with the reason in words. Claim makes a blank device ours: it opens it
// exclusively, refuses anything that somebody may miss without having written a
// byte, and writes the label. Open takes hold of a disk that is ours, wherever
// it is plugged in and whatever the kernel calls it. Both return a Disk, which
// holds the device until Close and gives out its data area as raw I/O; what is
// laid out there is the segment room's business.
//
//	blockdev   raw I/O            label    the superblock
//	probe      sysfs, signatures  health   the state machine
//
// Between the data area and the device stands the accounting of health: it
// counts and times every I/O, and once a flush has failed, the disk was taken
// by another owner, or the device fails for good, it refuses with kind
// Unavailable at once, without asking the device. A disk that was refused that
// way serves again only after Close and Open and the recovery of its log.
//
// Nothing here needs root: whoever may open the device or the file may claim it.
// The package keeps no goroutine; the daemon calls Tick with its heartbeat and
// CheckOwner every few seconds.
package diskmgr
