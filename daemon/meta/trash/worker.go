package trash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
)

// Bounds of the worker.
const (
	// rowsPerPage is the number of rows that are read, freed and deleted together.
	rowsPerPage = 64
	// pagesPerPass bounds the work on one shard before the next one's turn.
	pagesPerPass = 16
	// stripesPerCall bounds the stripes of one call of DeleteStripes, but for a
	// single extent that has more.
	stripesPerCall = 512
	// callsPerSecond bounds the calls of DeleteStripes of one host.
	callsPerSecond = 500
	callTimeout    = time.Minute
	metaTimeout    = 15 * time.Second
	// idle is the pause after a pass that found nothing more to do.
	idle = 5 * time.Second
	// backoffMin and backoffMax bound the pause of a shard after a failed pass.
	backoffMin = time.Second
	backoffMax = 2 * time.Minute
)

// Referee knows the rows that refer to stripes.
type Referee interface {
	// Refers reports for each extent, of which Write and Part matter, whether a
	// row other than a trash row refers to it. It is linearizable.
	Refers(ctx context.Context, bucket ashlar.BucketID, key string, extents []ashlar.Extent) ([]bool, error)
}

// Worker deletes the stripes of old trash. Fill in the exported fields before
// Run; do not change them after. The zero value of none of them but Referee,
// Clock and Log is useful.
type Worker struct {
	Store   meta.Store
	Stripes wire.Stripes
	// Led returns the shards that this host leads now. Two hosts that believe
	// to lead the same shard do no harm: every step may be repeated.
	Led func() []ashlar.ShardID
	// Referee is asked before anything is freed. Nil: the list is trusted.
	Referee Referee
	// Grace is how long an entry lies before it is freed.
	Grace time.Duration
	// Clock is time.Now if nil.
	Clock func() time.Time
	// Log discards if nil.
	Log *slog.Logger

	stats struct {
		rows, bytes, errors, held atomic.Uint64
		lagNS                     atomic.Int64
	}
	limit  *rate.Limiter
	shards map[ashlar.ShardID]*shardState // touched only by Run's goroutine
}

// Stats is what a worker has done since it was started.
type Stats struct {
	// Rows and Bytes (of user data) that were freed.
	Rows, Bytes uint64
	// Errors counts calls that failed and will be repeated.
	Errors uint64
	// Held counts the looks at entries that something refers to: they are not
	// freed, and somebody made a mistake.
	Held uint64
	// Lag is how long after its grace the last freed row was freed.
	Lag time.Duration
}

// shardState is where the worker stands in a shard's list.
type shardState struct {
	// cursor is where the next pass starts; empty is the front. It moves past
	// rows that fail, so that one dead disk does not hold up the rest.
	cursor  []byte
	backoff time.Duration
	retryAt time.Time
}

// Stats may be called at any time.
func (w *Worker) Stats() Stats {
	return Stats{
		Rows: w.stats.rows.Load(), Bytes: w.stats.bytes.Load(), Errors: w.stats.errors.Load(), Held: w.stats.held.Load(),
		Lag: time.Duration(w.stats.lagNS.Load()),
	}
}

// Run works until ctx ends and then returns its error. It may be called once.
func (w *Worker) Run(ctx context.Context) error {
	w.init()
	for {
		more := w.round(ctx)
		pause := idle
		if more {
			pause = 0
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (w *Worker) init() {
	if w.Clock == nil {
		w.Clock = time.Now
	}
	if w.Log == nil {
		w.Log = slog.New(slog.DiscardHandler)
	}
	w.limit = rate.NewLimiter(callsPerSecond, rowsPerPage)
	w.shards = map[ashlar.ShardID]*shardState{}
}

// round gives every led shard one pass and reports whether one has more to do.
func (w *Worker) round(ctx context.Context) (more bool) {
	led := map[ashlar.ShardID]bool{}
	for _, id := range w.Led() {
		led[id] = true
		st := w.shards[id]
		if st == nil {
			st = &shardState{}
			w.shards[id] = st
		}
		if w.Clock().Before(st.retryAt) || ctx.Err() != nil {
			continue
		}
		left, failed, err := w.pass(ctx, id, st)
		if failed == 0 && err == nil {
			st.backoff, st.retryAt = 0, time.Time{}
			more = more || left
			continue
		}
		st.backoff = min(max(2*st.backoff, backoffMin), backoffMax)
		st.retryAt = w.Clock().Add(st.backoff)
		if ctx.Err() == nil {
			w.Log.Warn("trash: some entries could not be freed, will retry", "shard", uint32(id),
				"entries", failed, "after", st.backoff, "err", err)
		}
	}
	for id := range w.shards {
		if !led[id] {
			delete(w.shards, id)
		}
	}
	return more
}

// pass frees what is old enough on one shard, from the cursor on, within its
// bounds. It returns whether there is more, how many entries failed, and the
// last error.
func (w *Worker) pass(ctx context.Context, id ashlar.ShardID, st *shardState) (more bool, failed int, err error) {
	end := before(w.Clock().Add(-w.Grace))
	start := st.cursor
	if len(start) == 0 {
		start = []byte{Kind}
	}
	for range pagesPerPass {
		page, e := w.scan(ctx, id, start, end)
		if e != nil {
			w.stats.errors.Add(1)
			return false, failed, e
		}
		n, e := w.free(ctx, id, page.Rows)
		failed += n
		if e != nil {
			err = e
		}
		if page.Next == nil || ctx.Err() != nil {
			st.cursor = nil
			return false, failed, err
		}
		start = page.Next
	}
	st.cursor = start
	return true, failed, err
}

func (w *Worker) scan(ctx context.Context, id ashlar.ShardID, start, end []byte) (meta.ScanPage, error) {
	if bytes.Compare(start, end) >= 0 {
		return meta.ScanPage{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, metaTimeout)
	defer cancel()
	return w.Store.Scan(ctx, id, meta.ScanRequest{Start: start, End: end, Limit: rowsPerPage})
}

// free deletes the stripes of the rows and then, in one transaction, the rows
// whose stripes are gone.
func (w *Worker) free(ctx context.Context, id ashlar.ShardID, rows []meta.Row) (failed int, err error) {
	txn := &meta.Txn{ID: ashlar.RequestID(ashlar.NewID())}
	var done []Entry
	for _, row := range rows {
		e, rest, rowErr := w.freeRow(ctx, row)
		if rowErr != nil {
			w.stats.errors.Add(1)
			failed++
			err = rowErr
			if len(rest) == 0 || len(rest) == len(e.Extents) {
				continue
			}
			// Some of it is gone: remember that, under the same key.
			e.Extents = rest
			if put, perr := Row(e); perr == nil {
				txn.Conds = append(txn.Conds, meta.Cond{Key: row.Key, Kind: meta.CondVersion, Version: row.Version})
				txn.Puts = append(txn.Puts, meta.Put{Key: row.Key, Value: put.Value})
			}
			continue
		}
		done = append(done, e)
		txn.Deletes = append(txn.Deletes, row.Key)
	}
	if len(txn.Deletes)+len(txn.Puts) == 0 {
		return failed, err
	}
	ctx, cancel := context.WithTimeout(ctx, metaTimeout)
	defer cancel()
	if cerr := w.Store.Commit(ctx, id, txn); cerr != nil {
		w.stats.errors.Add(1)
		return len(rows), cerr
	}
	w.count(done)
	return failed, err
}

// freeRow deletes the stripes of one row, a bounded number at a time. On an
// error it returns what is left.
func (w *Worker) freeRow(ctx context.Context, row meta.Row) (e Entry, rest []ashlar.Extent, err error) {
	e, err = Decode(row)
	if err != nil {
		return e, nil, err
	}
	rest = e.Extents
	if err := w.look(ctx, e); err != nil {
		return e, rest, err
	}
	for len(rest) > 0 {
		n := batch(rest)
		if err := w.limit.Wait(ctx); err != nil {
			return e, rest, err
		}
		if err := w.deleteStripes(ctx, e, rest[:n]); err != nil {
			return e, rest, err
		}
		rest = rest[n:]
	}
	return e, nil, nil
}

// look refuses to free what something refers to.
func (w *Worker) look(ctx context.Context, e Entry) error {
	if w.Referee == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	refers, err := w.Referee.Refers(ctx, e.Bucket, e.Key, e.Extents)
	if err != nil {
		return err
	}
	for i, live := range refers {
		if live {
			w.stats.held.Add(1)
			return ashlar.E("trash: free", fmt.Sprintf("bucket=%v key=%q write=%x", e.Bucket, e.Key, uint64(e.Extents[i].Write)),
				ashlar.Exists, errors.New("it is on the trash list and something refers to it; it is kept"))
		}
	}
	return nil
}

func (w *Worker) deleteStripes(ctx context.Context, e Entry, extents []ashlar.Extent) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return w.Stripes.DeleteStripes(ctx, e.Bucket, e.Key, extents)
}

// batch returns how many of the extents go into one call.
func batch(extents []ashlar.Extent) int {
	var stripes uint64
	for i, x := range extents {
		if x.StripeBytes > 0 {
			stripes += (x.Bytes + uint64(x.StripeBytes) - 1) / uint64(x.StripeBytes)
		}
		if stripes > stripesPerCall {
			return max(i, 1)
		}
	}
	return len(extents)
}

func (w *Worker) count(done []Entry) {
	for _, e := range done {
		for _, x := range e.Extents {
			w.stats.bytes.Add(x.Bytes)
		}
		w.stats.lagNS.Store(int64(w.Clock().Sub(e.Dropped) - w.Grace))
	}
	w.stats.rows.Add(uint64(len(done)))
}
