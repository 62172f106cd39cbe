// Package segment is the log on one device: it appends pieces, reads any byte
// range of them back verified, deletes them, and gives their space back.
//
// The device is cut into segments of equal size. A segment is written once,
// strictly forward, by one writer; when it is full it is sealed with a footer
// and only read from then on; when nothing in it is needed any more it is
// freed and may be opened again under a new generation. The bytes are
// described in package format, and nothing else in the system knows them.
//
//	Append, Delete ──► queue ──► writer 0 ──► open segment ─┐
//	   (by key)    ├─► queue ──► writer 1 ──► open segment ─┼─► Device
//	               └─► …                                    │
//	compactor ─────────────────► writer C ──► open segment ─┘
//	                                │ after the flush
//	                                ▼
//	ReadAt, Stat, Each ────────► index (Pebble, never synced on the way of an append)
//
// Durable means flushed. A writer gathers what waits in its queue into one
// batch: one aligned write, one Flush, then the index, then the callers are
// answered. Records of one batch are packed; only the end of a batch is padded
// to the device's block. After a failed write (tried again in place) or a
// failed flush (never tried again: the next one would lie) the log is fenced:
// appends and deletes answer Unavailable until it is opened anew, reads go on.
//
// The log is the truth, the index a cache. Every record carries a number that
// grows over the life of the log; the newest record of a key, a piece or a
// tombstone, is what the key is. Whatever order segments are read in, the same
// index comes out, and Open rebuilds it when it is lost, foreign or stale.
//
// What an Append that did not return nil left behind is decided once, by the
// next Open: the piece is then whole or absent, and stays so.
//
// # Locks
//
// A key belongs to one writer (by hash), so operations on a key are in the
// order of that writer's queue. partition.mu of that writer guards the
// read-change-write of the key's index rows; the compactor takes all of them
// in ascending order. Log.mu guards the list of free segments and nests inside.
package segment

import (
	"log/slog"
	"time"

	"ashlar"
)

// Device is what a log is written on: the bytes behind the label of a claimed
// disk. All methods may be called concurrently.
type Device interface {
	// ReadAt and WriteAt transfer all of p or return an error. p starts at a
	// multiple of BlockBytes in memory; its length and off are multiples of
	// BlockBytes. The device does not keep p.
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Flush returns nil when every write that returned before it was called is
	// on the medium.
	Flush() error
	// Discard says that the range will not be read before it is written again.
	// It may do nothing.
	Discard(off, length int64) error
	// Bytes is the usable length; offset 0 is the first byte after the label.
	Bytes() int64
	// BlockBytes is a power of two between 512 and 32768.
	BlockBytes() int
}

// Key names a record: one piece of one stripe.
type Key struct {
	Stripe ashlar.StripeID
	Piece  uint8
}

// Record is a piece with everything that the disk keeps about it.
type Record struct {
	Key
	Group ashlar.GroupID
	Code  ashlar.Code
	// StripeBytes is the length of the stripe's user data.
	StripeBytes uint32
	Owner       ashlar.Owner
	// Written has nanosecond resolution; the zero time is stored as Unix 0.
	Written time.Time
	// Data is borrowed: it is not touched after Append returned.
	Data []byte
}

// Info is what the index knows of a record, without reading the device.
type Info struct {
	Key
	Group       ashlar.GroupID
	Code        ashlar.Code
	StripeBytes uint32
	// Bytes is the length of the piece.
	Bytes   uint32
	Written time.Time
}

// Usage is how full a log is. All but the counts are in bytes.
type Usage struct {
	// Capacity is what records, with their headers and checksums, may occupy.
	// It leaves out the segments kept in reserve for deletes and compaction.
	Capacity int64
	// Used is the length of the live records on the device, headers included.
	Used int64
	// Dead is what compaction could give back: deleted and replaced records
	// and the unwritten ends of sealed segments.
	Dead int64
	// Records is the number of live pieces.
	Records       int64
	SegmentsTotal int
	// SegmentsFree counts the free segments, the reserve included.
	SegmentsFree int
	// SegmentsWritable of them may be taken by pieces; without one, Append is Full as
	// soon as an open segment is. SegmentRoom is what records may occupy in one.
	SegmentsWritable int
	SegmentBytes     int64
	SegmentRoom      int64
	// RecordDataMax is the longest Record.Data that is not Invalid, whatever its key.
	RecordDataMax int64
}

// Stats counts what a log did since it was opened.
type Stats struct {
	Appends, Deletes, Batches, Flushes uint64
	// BytesAppended is piece data accepted; BytesWritten is what went to the
	// device for any reason; BytesCompacted is record bytes copied by compaction.
	BytesAppended, BytesWritten, BytesCompacted uint64
	Reads, BytesRead                            uint64
	// ReadRetries counts device reads that were repeated; CorruptReads those
	// that ended in an error of kind Corrupt.
	ReadRetries, CorruptReads, WriteRetries uint64
	SegmentsFreed                           uint64
}

// Options say how to open a log. Only Disk and IndexDir are required.
type Options struct {
	// Disk is the id in the disk's label. A log written under another id is refused.
	Disk ashlar.DiskID
	// IndexDir is a directory on a filesystem, owned by this log alone.
	// Everything in it may be deleted while the log is closed.
	IndexDir string
	// SegmentBytes is the size of a segment, a power of two. It is chosen when
	// the device is opened for the first time and ignored later. Zero chooses
	// by the size of the device (DefaultSegmentBytes).
	SegmentBytes int64
	// Writers is the number of writer goroutines, each with its own open
	// segment. Zero means 1.
	Writers int
	// Log receives what callers do not see: recovery, compaction, fencing.
	// Nil discards it.
	Log *slog.Logger
	// IOTimeout bounds every call, waiting included, besides the caller's
	// context; appends and deletes wait half as long besides for a full log's
	// compaction. Zero means 10 s.
	IOTimeout time.Duration
	// QueueLen bounds the requests waiting for one writer. Zero means 256.
	QueueLen int
	// BatchBytes bounds one group commit; a single longer record still goes.
	// Zero means 4 MiB; more than RecordDataMax is refused.
	BatchBytes int
	// ReadsMax bounds the device reads in flight. Zero means 64.
	ReadsMax int
	// CompactBytesPerSecond bounds what compaction writes while space is not
	// short. Zero means 64 MiB/s; negative disables background compaction
	// (Compact still works).
	CompactBytesPerSecond int64
	// IndexCacheBytes is the index's block cache, beside 16 MiB for what is being written.
	// Zero means 32 MiB.
	IndexCacheBytes int64

	// Rebuild says what Open believes. Zero believes an index that fits the device.
	Rebuild Rebuild
	// Progress, if set, is told now and then how far a rebuild of the index has
	// come, in segments, and once when it is over. It must not block.
	Progress func(done, total int)

	hooks hooks
}

// Rebuild says from what Open makes the index.
type Rebuild uint8

const (
	// RebuildIfLost reads open segments only, if the index fits the device.
	RebuildIfLost Rebuild = iota
	// RebuildFromFooters believes no index.
	RebuildFromFooters
	// RebuildFromRecords believes no footer either: every byte is read.
	RebuildFromRecords
)

func (r Rebuild) String() string {
	return [...]string{"index", "footers", "records"}[min(r, RebuildFromRecords)]
}
