// Package label is the superblock of a disk: the bytes that say that a device
// is ours, whose it is, and where its data lies.
//
// This comment is the format, version 1. All integers are little-endian. All
// bytes that are called reserved are zero, and a reader refuses a label in
// which one is not. Golden images of every version are kept in testdata.
//
// # Where the copies are
//
// Let D be the size of the device rounded down to whole MiB. The first MiB and
// the last MiB of D hold two copies each; between them lies the data.
//
//	offset            size              what
//	0                 4096              copy 0
//	524288            4096              copy 1
//	1048576           data length       data area: segments, format in segment/format
//	D - 1048576       4096              copy 2
//	D - 524288        4096              copy 3
//
// The rest of the two areas is zero at claim and belongs to later versions. The
// copies are half a MiB apart so that none shares a physical block, an erase
// block or a careless tool with another: a new GPT overwrites copy 0 at most,
// a file system's first blocks copies 0 and 1, a RAID superblock at the end
// none.
//
// # One copy
//
//	offset  size  meaning
//	0       8     magic "ASHLARdk"
//	8       4     version of this format: 1
//	12      4     length of the copy in bytes: 4096
//	16      4     crc32c (Castagnoli) of bytes [0,16) followed by bytes [24,length)
//	20      1     number of the copy, 0-3; outside the checksum, so that the
//	              copies are equal but for this byte; checked against the place
//	21      3     reserved
//	24      8     sequence: grows by one with every change; the newest copy wins
//	32      16    cluster id
//	48      16    disk id
//	64      4     host id; 0 = not known yet
//	68      4     flags: bit 0 = rotating; the others are reserved
//	72      8     owner epoch: grows whenever a process opens the disk as its owner
//	80      16    owner: the random id of that opening
//	96      8     D at claim: device size in bytes, rounded down to whole MiB
//	104     8     offset of the data area in bytes: 1048576
//	112     8     length of the data area in bytes: whole segments
//	120     8     segment size in bytes: a power of two
//	128     4     block size in bytes: unit of alignment, a power of two
//	132     4     reserved
//	136     8     claimed at, nanoseconds since 1970 UTC
//	144     8     this sequence written at, nanoseconds since 1970 UTC
//	152     64    name hint, UTF-8, padded with zeros: host/dNN when it was claimed
//	216     64    name of the cluster, likewise
//	280     64    serial number of the device, likewise; empty if it has none
//	344     8     baseline: measured at, nanoseconds since 1970 UTC; 0 = never,
//	              and then the other baseline fields are 0
//	352     8     baseline: sequential write, bytes per second
//	360     8     baseline: sequential read, bytes per second
//	368     8     baseline: random 4 KiB read, median, nanoseconds
//	376     8     baseline: random 4 KiB read, 99th percentile, nanoseconds
//	384     8     baseline: 4 KiB write and flush, median, nanoseconds
//	392     8     baseline: 4 KiB write and flush, 99th percentile, nanoseconds
//	400     3696  reserved
//
// Bytes [0,20) mean the same in every version to come, and the length stays
// 4096: a reader can tell a
// newer label (magic, sound checksum, higher version) from a damaged one, and
// refuses the disk by version instead of taking it for blank.
//
// Everything that changes lies in the first 512 bytes, so that even a disk that
// tears writes between sectors writes a copy whole or not at all. Nothing
// depends on it.
//
// # Reading
//
// Each of the four places is read. A copy counts if its magic, version, length,
// checksum, number and every field are right. The one with the highest sequence
// is the label; of two with the same sequence, the lower place. Copies 2 and 3
// are looked for at the end of the device as it is now and, if a leading copy
// gives another D, at that D too, so that a device that has grown keeps them.
//
// # Writing
//
// The label is written with the next sequence: copies 0 and 2, a flush, copies
// 1 and 3, a flush. A cut at any byte, with any part of the unflushed bytes on
// the medium, leaves at least two whole copies of the old or of the new label,
// and reading gives one or the other. Until Write has returned, it may be
// either. Because all four are written every time, a copy that was damaged or
// old is repaired by the next change of the label; opening a disk is one.
//
// # Two owners
//
// O_EXCL keeps a second process of the same machine away; it does nothing for a
// disk that two machines see. Whoever opens a disk writes owner epoch + 1 and a
// random owner id, and reads the label again from time to time: if the owner is
// no longer itself, the disk was taken, and it stops writing.
//
// # If the label is lost
//
// One copy of four is enough. Without any, the data area still starts at
// 1048576, and every segment names its disk: `ashlar inspect` finds them.
package label
