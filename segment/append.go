package segment

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"ashlar"
	"ashlar/segment/format"
)

// Life of a request. The caller that gives up and the writer that takes it
// race for it with one compare-and-swap, so borrowed data is never read late.
const (
	reqQueued  = iota
	reqTaken   // the writer reads Record
	reqCopied  // the writer has its own copy
	reqRefused // the caller is gone
)

// request is an append, a delete or a copy by compaction.
type request struct {
	rec      *Record // nil for a delete
	key      Key
	from     *row // for a copy: what is copied; rec is the record
	bytes    int64
	state    atomic.Int32
	answered chan error // capacity 1: the writer never waits
	at       row        // where it lies; set by the writer
	fresh    bool       // the index surely has no row of the key; set by the writer
}

// requests recycles those that were answered.
var requests = sync.Pool{New: func() any { return &request{answered: make(chan error, 1)} }}

func newRequest(rec *Record, key Key, from *row, bytes int64) *request {
	r := requests.Get().(*request)
	r.rec, r.key, r.from, r.bytes = rec, key, from, bytes
	r.state.Store(reqQueued)
	return r
}

// done gives back a request that its writer has answered, or never got.
func (r *request) done() {
	r.rec, r.from = nil, nil
	requests.Put(r)
}

func (r *request) typ() format.Type {
	if r.rec == nil {
		return format.Tombstone
	}
	return format.Piece
}

func (r *request) answer(err error) {
	r.state.Store(reqCopied)
	r.answered <- err
}

// Append stores the record and returns nil when it is durable. A record with
// the same key takes the place of the one before it: appending again is how a
// retry and a repair look. On a full log it waits as long as compaction gives
// space back. Kinds: Full, Busy (the queue stayed full), Unavailable (fenced, hung,
// closed, or the deadline passed: the record may or may not be durable), Invalid (too long).
func (l *Log) Append(ctx context.Context, rec *Record) error {
	if len(rec.Data) > RecordDataMax || len(rec.Owner.Key) > format.KeyBytesMax {
		return l.fail("append", rec.Key, ashlar.Invalid, fmt.Errorf("data %d, key %d bytes", len(rec.Data), len(rec.Owner.Key)))
	}
	bytes := format.TotalBytes(format.RecordHeadBytes(len(rec.Owner.Key)), uint32(len(rec.Data)))
	if bytes > l.recordMax() {
		return l.fail("append", rec.Key, ashlar.Invalid, fmt.Errorf("%d bytes do not fit a segment of %d", bytes, l.segBytes))
	}
	return l.store(ctx, "append", rec, rec.Key, bytes)
}

// recordMax is the longest record that an empty segment holds.
func (l *Log) recordMax() int64 {
	return l.segBytes - 2*int64(l.block) - format.FooterBytes(1, l.block) - format.BatchBytes - int64(l.block)
}

// Delete makes the key's absence durable; an absent key is not an error.
// Deletes go on when the log is full. Kinds: Unavailable, Busy, as of Append;
// Full only when compaction cannot keep up with the reserve either.
func (l *Log) Delete(ctx context.Context, key Key) error {
	bytes := format.TotalBytes(format.RecordHeadBytes(0), 0)
	return l.store(ctx, "delete", nil, key, bytes)
}

// store submits what a caller wants, and waits for room if that is to be had.
func (l *Log) store(ctx context.Context, op string, rec *Record, key Key, bytes int64) error {
	w := l.writers[l.partitionOf(key)]
	err := l.submit(ctx, op, newRequest(rec, key, nil, bytes), w)
	if ashlar.Is(err, ashlar.Full) {
		return l.whenFreed(ctx, err, func() error { return l.submit(ctx, op, newRequest(rec, key, nil, bytes), w) })
	}
	return err
}

// submit queues the request and waits for the answer. The request is not the
// caller's any more.
func (l *Log) submit(ctx context.Context, op string, r *request, w *writer) error {
	if err := l.Err(); err != nil {
		r.done()
		return err
	}
	key := r.key
	if since := w.busy.Load(); since != 0 && l.pulse.beats.Load()-since > pulseBeats {
		r.done()
		return l.fail(op, key, ashlar.Unavailable, errors.New("the device hangs"))
	}
	beats := 0
	if err := l.enqueue(ctx, op, r, w, &beats); err != nil {
		r.done()
		return err
	}
	var err error
	for err == nil {
		beat := l.pulse.wait()
		select {
		case err = <-r.answered:
			r.done()
			return err
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-beat:
			if beats++; beats > pulseBeats {
				err = errors.New("no answer within the deadline")
			}
			select {
			case <-w.ended:
				err = errClosed
			default:
			}
		}
	}
	return r.abandon(l.fail(op, key, ashlar.Unavailable, err))
}

// enqueue counts the beats that pass meanwhile.
func (l *Log) enqueue(ctx context.Context, op string, r *request, w *writer, beats *int) error {
	if isClosed(l.closing) {
		return l.fail(op, r.key, ashlar.Unavailable, errClosed)
	}
	select {
	case w.queue <- r:
		w.notice(r.bytes)
		return nil
	default:
	}
	for {
		beat := l.pulse.wait()
		select {
		case w.queue <- r:
			w.notice(r.bytes)
			return nil
		case <-l.closing:
			return l.fail(op, r.key, ashlar.Unavailable, errClosed)
		case <-ctx.Done():
			return l.fail(op, r.key, ashlar.Unavailable, context.Cause(ctx))
		case <-beat:
			if *beats++; *beats > pulseBeats {
				return l.fail(op, r.key, ashlar.Busy, errors.New("the queue stayed full"))
			}
		}
	}
}

// abandon returns when the writer can no longer be reading the caller's data.
func (r *request) abandon(err error) error {
	if r.state.CompareAndSwap(reqQueued, reqRefused) {
		return err
	}
	for r.state.Load() == reqTaken {
		time.Sleep(20 * time.Microsecond) // encoding a batch; no I/O in between
	}
	select {
	case err = <-r.answered: // it came while we gave up
	default:
	}
	return err
}
