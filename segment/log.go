package segment

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"ashlar"
	"ashlar/segment/format"
)

// Defaults and bounds.
const (
	defaultIOTimeout  = 10 * time.Second
	defaultQueueLen   = 256
	defaultBatchBytes = 4 * ashlar.MiB
	defaultReadsMax   = 64
	defaultCompact    = 64 * ashlar.MiB
	defaultIndexCache = 32 * ashlar.MiB

	// RecordDataMax bounds the data of one record; a segment may bound it further.
	RecordDataMax = 32 * ashlar.MiB

	// WritersMax bounds Options.Writers.
	WritersMax = 64

	batchRecordsMax = 1024
	writeTries      = 3 // in place, then the log is fenced
	readTries       = 2 // for I/O errors and bad checksums
	lookupTries     = 8 // a record may move while it is looked up
)

// hooks are what tests replace.
type hooks struct {
	now    func() time.Time
	random func() uint64
	fs     vfs.FS // of the index
	direct bool   // reads wait for the device without a deadline
	trust  bool   // plants a bug, to prove that the tests find it
}

func (o Options) withDefaults() Options {
	def := func(p *int, n int) {
		if *p == 0 {
			*p = n
		}
	}
	def(&o.Writers, 1)
	def(&o.QueueLen, defaultQueueLen)
	def(&o.BatchBytes, defaultBatchBytes)
	def(&o.ReadsMax, defaultReadsMax)
	if o.IOTimeout == 0 {
		o.IOTimeout = defaultIOTimeout
	}
	if o.CompactBytesPerSecond == 0 {
		o.CompactBytesPerSecond = defaultCompact
	}
	if o.IndexCacheBytes == 0 {
		o.IndexCacheBytes = defaultIndexCache
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.hooks.now == nil {
		o.hooks.now = time.Now
	}
	if o.hooks.random == nil {
		o.hooks.random = randomNotZero
	}
	if o.hooks.fs == nil {
		o.hooks.fs = vfs.Default
	}
	return o
}

func randomNotZero() uint64 {
	for {
		var b [8]byte
		rand.Read(b[:])
		if n := binary.LittleEndian.Uint64(b[:]); n != 0 {
			return n
		}
	}
}

// segState is what a segment is right now.
type segState uint32

// The states are stored in the index: append only.
const (
	segFree    segState = iota // may be opened
	segOpen                    // a writer appends to it, or a recovery has not looked yet
	segSealed                  // read-only
	segFreeing                 // nothing in it is current; becoming free
	segLost                    // cannot be read at all; never used again by this run
)

// segment is the state of one segment. Fields are atomic because readers look
// at them without a lock; they are changed by the writer that opened the
// segment or by the compactor that frees it, never both.
type segment struct {
	state      atomic.Uint32
	generation atomic.Uint64
	salt       atomic.Uint64
	end        atomic.Uint32 // of the last batch
	top        atomic.Uint64 // greatest sequence number in it
	live       atomic.Int64  // bytes of current records, tombstones included
	records    atomic.Int64  // number of current records, tombstones included
	pins       atomic.Int64  // readers at work in it
	stuck      atomic.Int64  // live bytes when compaction last failed on it; -1 never
}

func (s *segment) is(state segState) bool { return segState(s.state.Load()) == state }

// partition guards the read-change-write of the index rows of some keys.
type partition struct {
	mu sync.Mutex
	_  [56]byte
}

// Log is an open log. All methods may be called concurrently.
type Log struct {
	dev        Device
	opt        Options
	block      int
	segBytes   int64
	table      []segment
	index      *index
	seen       *seen
	partitions []partition
	writers    []*writer // the last one belongs to the compactor
	hash       maphash.Seed

	sequence   atomic.Uint64 // last one given out
	generation atomic.Uint64 // last one given out
	live, gone atomic.Int64  // bytes of current pieces; bytes of tombstones
	pieces     atomic.Int64
	stats      counters

	reads   chan struct{} // a slot per device read in flight
	compact compactor
	room    room

	// closing is closed first; writers then drain their queues and end.
	closing   chan struct{}
	closeOnce sync.Once
	closeErr  error
	running   sync.WaitGroup // the writers and the compactor
	flushing  flushing
	pulse     pulse
	// use is held for reading by whoever touches the index outside a writer.
	use    sync.RWMutex
	closed bool

	mu struct {
		sync.Mutex
		free  []int // segments; the next to be opened is the last
		fence error // why nothing is written any more
	}
	fenced atomic.Bool
}

type counters struct {
	appends, deletes, batches, flushes                 atomic.Uint64
	bytesAppended, bytesWritten, bytesCompacted        atomic.Uint64
	reads, bytesRead                                   atomic.Uint64
	readRetries, corruptReads, writeRetries, segsFreed atomic.Uint64
}

// Stats returns the counters.
func (l *Log) Stats() Stats {
	c := &l.stats
	return Stats{
		Appends: c.appends.Load(), Deletes: c.deletes.Load(), Batches: c.batches.Load(), Flushes: c.flushes.Load(),
		BytesAppended: c.bytesAppended.Load(), BytesWritten: c.bytesWritten.Load(), BytesCompacted: c.bytesCompacted.Load(),
		Reads: c.reads.Load(), BytesRead: c.bytesRead.Load(),
		ReadRetries: c.readRetries.Load(), CorruptReads: c.corruptReads.Load(), WriteRetries: c.writeRetries.Load(),
		SegmentsFreed: c.segsFreed.Load(),
	}
}

// Err returns nil while the log accepts writes, else why it is fenced.
func (l *Log) Err() error {
	if !l.fenced.Load() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.fence
}

// fence ends all writing. The first reason stays.
func (l *Log) fence(op string, cause error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.fence == nil {
		l.mu.fence = l.fail(op, "fenced", ashlar.Unavailable, cause)
		l.fenced.Store(true)
		l.opt.Log.Error("segment: fenced, nothing is written any more", "disk", l.opt.Disk, "op", op, "error", cause)
	}
	return l.mu.fence
}

func (l *Log) life(i int) format.Life {
	s := &l.table[i]
	return format.Life{Disk: l.opt.Disk, Generation: s.generation.Load(), Salt: s.salt.Load()}
}

func (l *Log) offset(i int) int64 { return format.SegmentOffset(i, l.segBytes) }

// partitionOf is also the number of the writer that the key belongs to.
func (l *Log) partitionOf(k Key) int {
	return int(maphash.Comparable(l.hash, k) % uint64(len(l.partitions)))
}

// Who opens a segment decides how deep into the reserve it may reach.
type class uint8

const (
	forPieces class = iota
	forDeletes
	forCompaction
)

// compactReserve segments are kept for compaction alone: the one it writes and the next.
const compactReserve = 2

// reserve is the number of free segments that pieces may not take: one for
// the tombstones of each writer, and those of compaction.
func (l *Log) reserve() int { return l.opt.Writers + compactReserve }

func (l *Log) floor(c class) int {
	return [...]int{forPieces: l.reserve(), forDeletes: compactReserve, forCompaction: 0}[c]
}

var errNoSegment = errors.New("no free segment")

// take removes a segment from the free list and gives it a new life.
func (l *Log) take(c class) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.mu.free)
	if n <= l.floor(c) {
		return 0, errNoSegment
	}
	i := l.mu.free[n-1]
	l.mu.free = l.mu.free[:n-1]
	s := &l.table[i]
	s.generation.Store(l.generation.Add(1))
	s.salt.Store(l.opt.hooks.random())
	s.end.Store(0)
	s.top.Store(0)
	s.live.Store(0)
	s.records.Store(0)
	s.stuck.Store(-1)
	s.state.Store(uint32(segOpen))
	return i, nil
}

func (l *Log) release(i int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.table[i].state.Store(uint32(segFree))
	l.mu.free = append(l.mu.free, i)
}

func (l *Log) freeSegments() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.mu.free)
}

// overhead is what a segment needs besides records: headers and the trailer.
func (l *Log) overhead() int64 { return 3 * int64(l.block) }

// Usage returns how full the log is. It reads counters only.
func (l *Log) Usage() Usage {
	free := l.freeSegments()
	u := Usage{
		Capacity: int64(len(l.table)-l.reserve()) * (l.segBytes - l.overhead()),
		Used:     l.live.Load(), Records: l.pieces.Load(),
		SegmentsTotal: len(l.table), SegmentsFree: free, SegmentsWritable: max(0, free-l.reserve()),
		SegmentBytes: l.segBytes, SegmentRoom: l.segBytes - l.overhead(), RecordDataMax: l.dataMax(),
	}
	for i := range l.table {
		if s := &l.table[i]; s.is(segSealed) || s.is(segFreeing) {
			u.Dead += l.segBytes - l.overhead() - s.live.Load()
		}
	}
	return u
}

// dataMax is the data that fits an empty segment beside the longest key.
func (l *Log) dataMax() int64 {
	room := l.recordMax() - int64(format.RecordHeadBytes(format.KeyBytesMax)) - format.RecordAlign
	return min(room-(room/codedCell+1)*format.SumBytes, RecordDataMax)
}

// account notes that r became current (sign 1) or ceased to be (sign -1).
func (l *Log) account(r *row, sign int64) { l.accountAll([]change{{*r, sign}}) }

// accountAll is account for many, most of which lie in one segment: writers share the
// counters, and changing one costs as much as finding out by what.
func (l *Log) accountAll(changes []change) {
	var live, gone, pieces int64
	for len(changes) > 0 {
		segment := changes[0].row.segment
		var bytes, records int64
		n := 0
		for ; n < len(changes) && changes[n].row.segment == segment; n++ {
			c := &changes[n]
			total := c.sign * c.row.TotalBytes()
			bytes += total
			records += c.sign
			if c.row.Type == format.Piece {
				live += total
				pieces += c.sign
			} else {
				gone += total
			}
		}
		l.table[segment].live.Add(bytes)
		l.table[segment].records.Add(records)
		changes = changes[n:]
	}
	l.live.Add(live)
	l.gone.Add(gone)
	l.pieces.Add(pieces)
}

// limit returns a context that ends at IOTimeout at the latest.
func (l *Log) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, l.opt.IOTimeout)
}

// timed runs one device call and gives up waiting for it when ctx ends or
// after IOTimeout. The call itself cannot be stopped: its goroutine ends when
// the device answers, so fn may touch nothing that the caller reuses.
func (l *Log) timed(ctx context.Context, fn func() error) error {
	ctx, cancel := l.limit(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close lets the writers finish what waits, seals their segments and closes
// the index. It is not needed for safety. If the device hangs, it returns an
// error of kind Unavailable after IOTimeout and leaves the stuck goroutines to
// the device; once they end, the index is closed and may be opened again.
func (l *Log) Close() error {
	l.closeOnce.Do(func() { l.closeErr = l.shutdown() })
	return l.closeErr
}

func (l *Log) shutdown() error {
	close(l.closing)
	ended := make(chan struct{})
	go func() { // ends when the writers and the compactor have, and a Compact under way
		l.running.Wait()
		l.compact.work.Lock()
		defer l.compact.work.Unlock()
		close(ended)
	}()
	timer := time.NewTimer(l.opt.IOTimeout)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		go func() { // ends when the device has answered
			<-ended
			l.closeIndex()
		}()
		return l.fail("close", "", ashlar.Unavailable, errors.New("the device did not answer"))
	}
	return l.closeIndex()
}

func (l *Log) closeIndex() error {
	l.use.Lock()
	defer l.use.Unlock()
	l.closed = true
	if err := l.index.close(); err != nil {
		return l.fail("close", "", ashlar.Internal, fmt.Errorf("index: %w", err))
	}
	return nil
}

var errClosed = errors.New("the log is closed")

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// poke puts something into a channel of capacity 1 unless there is something.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
