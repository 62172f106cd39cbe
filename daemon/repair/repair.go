// Package repair makes missing pieces again: those that a stripe lacked when it
// was acknowledged, and those that a read found lost or changed.
//
// The queue is a small Pebble store of this host, one row for each piece, and
// the same in memory. The worker goes through it in rounds, stripes with the
// most missing pieces first. For a piece whose disk is up it
//
//	reads it     whole and verified: it may have arrived late, and a bit that
//	             flipped on the way is no reason to write
//	reads k others, rebuilds it, puts it, reads it back and compares
//	looks again  that the stripe still stands: a stripe deleted meanwhile must
//	             not leave the piece behind
//
// and only then forgets it. A piece whose disk is down waits; a stripe of which
// more pieces than the parity are gone from live disks was deleted, and its rows
// are dropped. (A delete that takes the piece's place before it is put and its
// sources after the last look leaves the piece behind: an orphan, which the
// comparison of disks with their owners finds.) Rounds follow each other with growing pauses until something new
// is queued or the map changes. Bytes read and written are bounded per second.
//
// Losing the queue loses no data and is tolerated: rows are written without
// waiting for the disk (the last moments before a power cut are lost), and a
// row beyond QueueMax is dropped and counted. A stripe that lacks a piece
// without a row is found by the roll call, and by its reads.
//
//	row     stripe id (16) | piece (1)
//	value   version (1) = 1 | k, m (1, 1) | stripe bytes (4) | bucket (16) |
//	        part (4) | offset (8) | written, Unix ns (8) | key       little-endian
package repair

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/time/rate"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/stripe"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

const (
	// QueueMax bounds the pieces that wait, in memory and on disk.
	QueueMax = 200_000
	// DefaultBytesPerSecond bounds what repair reads and writes.
	DefaultBytesPerSecond = 64 * ashlar.MiB

	workers  = 2
	pauseMin = time.Second
	pauseMax = time.Minute
	mapPoll  = 250 * time.Millisecond // how often a pause looks for a new map
	// gapMin is the least between two rounds; looking through a long queue earns
	// a gap gapFactor times as long, so that waiting pieces cost little.
	gapMin    = 50 * time.Millisecond
	gapFactor = 20
	callMax   = 30 * time.Second // one read or write of a piece
	stripeMax = 5 * time.Minute  // one stripe, waiting for its budget included
)

// Config is what the queue needs of its host.
type Config struct {
	// Dir is made if it is not there, and owned by the queue alone.
	Dir string
	// Maps and Dial are those of the coordinator.
	Maps func() *topology.Map
	Dial func(ashlar.HostID) (wire.Pieces, error)
	// Memory pays for the pieces of the stripes under repair: k + missing
	// pieces of one stripe must fit.
	Memory *buffer.Share
	// BytesPerSecond bounds reads and writes together. Zero means the default.
	BytesPerSecond int
	Log            *slog.Logger
}

// Stats counts since the queue was opened, but for Queued, which is now.
type Stats struct {
	// Queued is the number of pieces that wait.
	Queued uint64
	// Repaired pieces were made again and read back; Present ones turned out
	// to be there; Gone ones belong to stripes that were deleted.
	Repaired, Present, Gone uint64
	// Failed counts attempts; the piece stays queued. Dropped pieces did not
	// fit the queue.
	Failed, Dropped uint64
	// Bytes were written by repairs.
	Bytes uint64
}

// Queue holds missing pieces and the worker that makes them again. It is safe
// for concurrent use.
type Queue struct {
	cfg    Config
	db     *pebble.DB
	limit  *rate.Limiter
	cancel context.CancelFunc
	done   chan struct{} // closed when the worker has ended
	wake   chan struct{} // of capacity 1: something was queued

	mu struct { // guards the rows on disk as well
		sync.Mutex
		stripes map[ashlar.StripeID]*job
		pieces  int
		closed  bool
	}
	stats struct {
		repaired, present, gone, failed, dropped, bytes atomic.Uint64
	}
}

// job is what is known about a stripe that lacks pieces.
type job struct {
	missed  stripe.Missed // of any of them; Index is meaningless
	missing [ashlar.PiecesMax]bool
	count   int
	// After a failure the stripe rests until next, for longer each time.
	next time.Time
	rest time.Duration
}

// Open opens or makes the queue in Dir and starts its worker.
func Open(cfg Config) (*Queue, error) {
	if cfg.BytesPerSecond == 0 {
		cfg.BytesPerSecond = DefaultBytesPerSecond
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	db, err := pebble.Open(cfg.Dir, &pebble.Options{
		MemTableSize: ashlar.MiB, CacheSize: ashlar.MiB, MaxOpenFiles: 32, Logger: quiet{},
	})
	if err != nil {
		return nil, ashlar.E("repair: open", cfg.Dir, ashlar.Unavailable, err)
	}
	q := &Queue{
		cfg: cfg, db: db, done: make(chan struct{}), wake: make(chan struct{}, 1),
		limit: rate.NewLimiter(rate.Limit(cfg.BytesPerSecond), cfg.BytesPerSecond),
	}
	q.mu.stripes = map[ashlar.StripeID]*job{}
	if err := q.load(); err != nil {
		return nil, ashlar.E("repair: open", cfg.Dir, ashlar.Unavailable, errors.Join(err, db.Close()))
	}
	ctx, cancel := context.WithCancel(context.Background())
	q.cancel = cancel
	go q.run(ctx) // ended and awaited by Close
	return q, nil
}

// quiet keeps Pebble from logging by itself; its errors come back from calls.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic("repair: " + fmt.Sprintf(format, args...)) // Pebble cannot go on, and says so
}

// load fills the memory from the rows. A row that cannot be read is dropped.
func (q *Queue) load() error {
	it, err := q.db.NewIter(nil)
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		m, good := decode(it.Key(), it.Value())
		if !good {
			q.cfg.Log.Warn("repair: a row of the queue is damaged and dropped", "row", it.Key())
			if err := q.db.Delete(it.Key(), pebble.NoSync); err != nil {
				return errors.Join(err, it.Close())
			}
			continue
		}
		q.noteLocked(m) // nobody else is here yet
	}
	return it.Close()
}

// noteLocked files a piece in memory and reports whether it is new.
func (q *Queue) noteLocked(m stripe.Missed) bool {
	j := q.mu.stripes[m.Stripe]
	if q.mu.closed || int(m.Index) >= min(m.Code.Pieces(), ashlar.PiecesMax) || j != nil && j.missing[m.Index] {
		return false
	}
	if q.mu.pieces >= QueueMax {
		q.stats.dropped.Add(1)
		return false
	}
	if j == nil {
		j = &job{missed: m}
		q.mu.stripes[m.Stripe] = j
	}
	j.missing[m.Index] = true
	j.count++
	q.mu.pieces++
	return true
}

// Add queues a missing piece. It does not block on any disk, and a piece that
// is queued already is not queued twice. It fits stripe.Config.Missed.
func (q *Queue) Add(m stripe.Missed) { q.Take(m) }

// Take is Add that tells whether the piece is on the queue now.
func (q *Queue) Take(m stripe.Missed) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.noteLocked(m) {
		j := q.mu.stripes[m.Stripe]
		return j != nil && int(m.Index) < len(j.missing) && j.missing[m.Index]
	}
	row, value := encode(m)
	if err := q.db.Set(row, value, pebble.NoSync); err != nil {
		q.cfg.Log.Warn("repair: a piece is queued in memory only", "stripe", m.Stripe, "piece", m.Index, "err", err)
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

// forget takes a piece off the queue.
func (q *Queue) forget(id wire.PieceID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if j := q.mu.stripes[id.Stripe]; j != nil && j.missing[id.Index] {
		j.missing[id.Index] = false
		q.mu.pieces--
		if j.count--; j.count == 0 {
			delete(q.mu.stripes, id.Stripe)
		}
	}
	row, _ := encode(stripe.Missed{PieceID: id})
	if err := q.db.Delete(row, pebble.NoSync); err != nil {
		q.cfg.Log.Warn("repair: a finished piece stays on disk", "stripe", id.Stripe, "piece", id.Index, "err", err)
	}
}

// Stats returns the counters.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	queued := q.mu.pieces
	q.mu.Unlock()
	s := &q.stats
	return Stats{
		Queued: uint64(queued), Repaired: s.repaired.Load(), Present: s.present.Load(), Gone: s.gone.Load(),
		Failed: s.failed.Load(), Dropped: s.dropped.Load(), Bytes: s.bytes.Load(),
	}
}

// Close ends the worker, whose piece under way stays queued, and closes the store.
func (q *Queue) Close() error {
	q.cancel()
	<-q.done
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.closed {
		return nil
	}
	q.mu.closed = true
	if err := q.db.Close(); err != nil {
		return ashlar.E("repair: close", q.cfg.Dir, ashlar.Unavailable, err)
	}
	return nil
}

const valueBytes = 1 + 2 + 4 + 16 + 4 + 8 + 8

func encode(m stripe.Missed) (row, value []byte) {
	row = append(append(make([]byte, 0, 17), m.Stripe[:]...), m.Index)
	value = append(make([]byte, 0, valueBytes+len(m.Owner.Key)), 1, m.Code.K, m.Code.M)
	value = binary.LittleEndian.AppendUint32(value, m.StripeBytes)
	value = append(value, m.Owner.Bucket[:]...)
	value = binary.LittleEndian.AppendUint32(value, m.Owner.Part)
	value = binary.LittleEndian.AppendUint64(value, m.Owner.Offset)
	written := int64(0)
	if !m.Written.IsZero() {
		written = m.Written.UnixNano()
	}
	value = binary.LittleEndian.AppendUint64(value, uint64(written))
	return row, append(value, m.Owner.Key...)
}

func decode(row, value []byte) (m stripe.Missed, ok bool) {
	if len(row) != 17 || len(value) < valueBytes || value[0] != 1 {
		return m, false
	}
	copy(m.Stripe[:], row)
	m.Index = row[16]
	m.Code = ashlar.Code{K: value[1], M: value[2]}
	m.StripeBytes = binary.LittleEndian.Uint32(value[3:])
	copy(m.Owner.Bucket[:], value[7:])
	m.Owner.Part = binary.LittleEndian.Uint32(value[23:])
	m.Owner.Offset = binary.LittleEndian.Uint64(value[27:])
	if ns := int64(binary.LittleEndian.Uint64(value[35:])); ns != 0 {
		m.Written = time.Unix(0, ns)
	}
	m.Owner.Key = string(value[valueBytes:])
	return m, m.Code.K > 0 && m.Code.Pieces() <= ashlar.PiecesMax && int(m.Index) < m.Code.Pieces()
}
