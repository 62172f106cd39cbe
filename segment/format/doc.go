// Package format is the log on a device, byte for byte: version 1.
//
// Everything behind a disk's label is described here, and everything that is
// described here is encoded and decoded here and nowhere else (but for
// tools/inspect, which reads the same bytes with code of its own).
//
// All integers are little-endian. Every structure starts with the same twelve
// bytes, so that any reader can tell a structure that it knows from one that
// it does not, and both from noise:
//
//	offset  size  meaning
//	     0     4  magic, four ASCII letters
//	     4     2  version, 1
//	     6     2  length of the structure in bytes, these twelve included
//	     8     4  CRC-32C of the structure without this field; its start value
//	              is given with each structure
//
// Reserved bytes are zero; a reader refuses a structure with a good checksum
// in which they are not, and one whose version it does not know. It never
// takes such a structure for absent. Times are nanoseconds since 1970 UTC.
//
// # The device
//
//	0        64 KiB                                         Bytes-64 KiB   Bytes
//	┌────────┬───────────┬───────────┬─────────────┬───────┬───────┬────────┐
//	│ anchor │ segment 0 │ segment 1 │      …      │ n - 1 │ spare │ anchor │
//	│ slots  │           │           │             │       │       │ slots  │
//	│ 0   1  │           │           │             │       │       │ 0   1  │
//	└────────┴───────────┴───────────┴─────────────┴───────┴───────┴────────┘
//
// The usable length (Bytes) is rounded down to whole blocks of the device. At
// each end 64 KiB are kept for the anchor: slot 0 at the start of those
// 64 KiB, slot 1 in the middle (+32 KiB). n = (Bytes - 128 KiB) / segment size,
// rounded down.
//
// # Anchor
//
// Written once at every opening of the log, before anything else is: into slot
// (count mod 2) at both ends, then flushed. The valid one with the greatest
// count holds. It fixes the geometry for ever and names the run of the log
// that last wrote to the device; an index that does not know that run is stale.
//
//	offset  size  meaning
//	     0    12  "ASHA", version, length 128, checksum (start value 0)
//	    12     4  bytes of a device block, a power of two from 512 to 32768
//	    16    16  disk id
//	    32     8  count of openings; the first is 1
//	    40     8  run: random, not zero
//	    48     8  bytes of a segment, a power of two from 64 KiB to 2 GiB
//	    56     4  number of segments
//	    60     4  reserved
//	    64     8  every sequence number of earlier runs is below this
//	    72     8  every generation of earlier runs is below this
//	    80     8  time of the opening
//	    88    40  reserved
//
// # Segment
//
//	0       B       2B                                      F           S-B     S
//	┌───────┬───────┬────────┬────────┬─────┬──────────────┬────────────┬───────┐
//	│header │header │ batch 0│ batch 1│  …  │ never written│ entries    │trailer│
//	│       │ copy  │        │        │     │ or torn      │            │       │
//	└───────┴───────┴────────┴────────┴─────┴──────────────┴────────────┴───────┘
//	B = device block, S = segment size                      └──── footer ───────┘
//
// Each box starts on a block boundary. Writing is strictly forward: header and
// its copy go out with the first batch, a batch after the flush of the one
// before it, the footer last. The footer ends with the segment: the trailer is
// at the start of the last block, the entries end where that block begins (they
// are padded with zeros in front, so that F is on a block boundary).
//
// # Segment header (twice: blocks 0 and 1)
//
//	offset  size  meaning
//	     0    12  "ASHS", version, length 128, checksum (start value 0)
//	    12     4  bytes of a device block
//	    16    16  disk id
//	    32     8  generation: grows with every header written to this device
//	    40     8  salt: random, drawn anew for every header
//	    48     4  number of the segment on the device
//	    52     1  state: 1 open (or sealed: see the trailer), 2 free
//	    53     3  reserved
//	    56     8  bytes of a segment
//	    64     8  time
//	    72     4  bytes of data in a cell, 32768
//	    76    52  reserved
//
// Disk id, generation and salt together are the segment's incarnation. Every
// batch and record repeats generation and salt and mixes the disk id into its
// checksum, so that what an earlier life of the segment, another segment or
// another disk left here is never taken for its own: generations can repeat
// after a header was lost to a power cut, salts do not.
//
// A segment's state is that of the greatest generation among its two headers
// and its trailer. Free is durable before a tombstone that hid a record of the
// segment may disappear.
//
// # Batch
//
// What one flush made durable. It starts on a block boundary with
//
//	offset  size  meaning
//	     0    12  "ASHB", version, length 64, checksum (start value CRC-32C of the disk id)
//	    12     4  number of records
//	    16     8  generation
//	    24     8  salt
//	    32     8  number of the batch in the segment, from 0
//	    40     4  offset of this header in the segment
//	    44     4  bytes from here to the end of the last record
//	    48    16  reserved
//
// and the records follow, packed, then zeros up to the block boundary. That
// batch n+1 exists in any part proves that batch n was flushed whole: damage
// in n is then damage, not a torn tail.
//
// # Record
//
//	┌───────────────┬─────┬─────┬────────┬─────┬────────┬─────┬───┬─────┐
//	│ record header │ key │ pad │ cell 0 │ sum │ cell 1 │ sum │ … │ pad │
//	└───────────────┴─────┴─────┴────────┴─────┴────────┴─────┴───┴─────┘
//	       112                    32768     4    32768     4
//
//	offset  size  meaning
//	     0    12  "ASHR", version, length (header, key and pad: 112 + key rounded
//	              up to 8), checksum (start value CRC-32C of the disk id)
//	    12     4  bytes of data (without sums)
//	    16     8  generation
//	    24     8  salt
//	    32     8  sequence number: grows over the life of the log; a copy made by
//	              compaction keeps that of the original
//	    40     4  offset of this header in the segment
//	    44     1  type: 1 piece, 2 tombstone
//	    45     1  piece index
//	    46     1  k of the code
//	    47     1  m of the code
//	    48    16  stripe id
//	    64     4  group
//	    68     4  bytes of user data in the stripe
//	    72     4  part
//	    76     2  bytes of the key, at most 1024
//	    78     2  reserved
//	    80     8  offset of the stripe in the object or part
//	    88     8  time written
//	    96    16  bucket id
//	   112     …  key, zeros up to a multiple of 8
//
// A tombstone has type, piece, stripe, sequence number and time; all else is
// zero and it has no data. It says that every record of its stripe and piece
// with a smaller sequence number is deleted.
//
// Data is cut into cells of 32768 bytes, the last one shorter. Each is followed
// by the CRC-32C of the cell, whose start value is the CRC-32C of
//
//	disk id (16), generation (8), salt (8), stripe id (16), sequence number (8),
//	offset of the record in the segment (4), piece (1), number of the cell (4)
//
// so that any byte range is read and verified with one contiguous read of whole
// cells, and a cell that belongs elsewhere, or is an older write of the same
// place, fails like a flipped bit does. Zeros fill the record up to a multiple of 8.
//
// # Footer
//
// One entry for each record, in the order of offsets:
//
//	offset  size  meaning
//	     0    16  stripe id
//	    16     8  sequence number
//	    24     8  time written
//	    32     4  offset of the record in the segment
//	    36     4  bytes of data
//	    40     4  group
//	    44     4  bytes of user data in the stripe
//	    48     2  length of the record's header
//	    50     1  piece index
//	    51     1  type
//	    52     1  k
//	    53     1  m
//	    54    10  reserved
//
// and the trailer:
//
//	offset  size  meaning
//	     0    12  "ASHF", version, length 128, checksum (start value 0)
//	    12     4  number of entries
//	    16    16  disk id
//	    32     8  generation
//	    40     8  salt
//	    48     4  number of the segment on the device
//	    52     4  CRC-32C of the entries (start value: CRC-32C of trailer bytes 16 to 51)
//	    56     4  offset of the first entry in the segment
//	    60     4  end of the last batch, on a block boundary
//	    64     8  smallest sequence number seen in the segment (0 if none)
//	    72     8  greatest sequence number seen in the segment (0 if none)
//	    80     8  CRC-64/NVME of the segment's bytes from 0 to the end of the last batch
//	    88     8  time of the seal
//	    96    32  reserved
//
// # Finding the end of a segment that has no footer
//
// Read forward from block 2. A batch or record header counts only if its
// checksum, generation, salt and offset are right. Behind a spot where nothing
// counts, look for the next header, at any multiple of 8. The last batch header
// found is the tail: a record at or behind it with a bad cell is torn and was
// never acknowledged, it is dropped; a bad cell in front of it is damage, the
// record stays listed and reading it is an error. The rule depends on nothing
// but the bytes, so a recovery that is cut short and starts again decides alike.
// Then the segment is sealed with what was found; nothing is appended to it, so
// what was dropped can not come back.
//
// # If the index is lost
//
// For each segment read blocks 0, 1 and the last: the greatest generation tells
// free, sealed or open. Sealed: the entries of the footer. Open, or the footer
// is damaged: find the end as above. Put all entries on one heap: for each
// (stripe, piece) the greatest sequence number wins; if that is a tombstone the
// piece is deleted; among equals (a copy by compaction) the greatest generation
// wins. Nothing else is needed.
//
// If all four anchors are lost, segment headers found at 64 KiB + i × 2^s for
// s from 16 to 31 tell the geometry; segments are first used in ascending order.
package format
