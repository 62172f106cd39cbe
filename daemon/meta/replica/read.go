package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"ashlar"
	"ashlar/daemon/meta"
)

const (
	// scanBytesMax is the size at which a page ends although Limit is not reached.
	scanBytesMax = 4 * ashlar.MiB
	// scanCheckRows is how often a scan looks at its deadline.
	scanCheckRows = 256
)

// readable waits until a read here sees everything that was acknowledged
// before it began.
func (h *Host) readable(ctx context.Context, op string, shard ashlar.ShardID) (*replica, error) {
	r, err := h.leader(ctx, op, shard)
	if err != nil {
		return nil, err
	}
	ch := make(chan error, 1)
	if !h.events.put(eventsMax, event{kind: eventRead, r: r, read: ch}) {
		return nil, ashlar.E(op, r.String(), ashlar.Busy, nil)
	}
	return r, h.wait(ctx, op, r, ch)
}

// Get implements wire.Shards.
func (h *Host) Get(ctx context.Context, shard ashlar.ShardID, key []byte) (meta.Row, error) {
	const op = "meta: get"
	if err := meta.CheckKey(op, key); err != nil {
		return meta.Row{}, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	r, err := h.readable(ctx, op, shard)
	if err != nil {
		return meta.Row{}, err
	}
	return h.row(op, r, key)
}

// row reads what the replica has applied.
func (h *Host) row(op string, r *replica, key []byte) (meta.Row, error) {
	if err := h.pin(op); err != nil {
		return meta.Row{}, err
	}
	defer h.readers.RUnlock()
	m := r.machine
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.gone {
		return meta.Row{}, r.notLeader()
	}
	full := append(append(machinePrefix(r.id, m.state.generation), partRows), key...)
	raw, closer, err := h.db.Get(full)
	if errors.Is(err, pebble.ErrNotFound) {
		return meta.Row{}, ashlar.E(op, fmt.Sprintf("%v key=%q", r, key), ashlar.NotFound, nil)
	}
	if err != nil {
		return meta.Row{}, ashlar.E(op, r.String(), ashlar.Internal, err)
	}
	defer closer.Close()
	return decodeRow(r, key, raw)
}

// pin keeps the store open until readers.RUnlock.
func (h *Host) pin(op string) error {
	h.readers.RLock()
	if h.ctx.Err() != nil {
		h.readers.RUnlock()
		return ashlar.E(op, "", ashlar.Unavailable, errStopped)
	}
	return nil
}

func decodeRow(r *replica, key, raw []byte) (meta.Row, error) {
	if len(raw) < 8 {
		return meta.Row{}, errCorrupt("row", r.id)
	}
	return meta.Row{
		Key: bytes.Clone(key), Value: append([]byte{}, raw[8:]...), Version: binary.LittleEndian.Uint64(raw),
	}, nil
}

// Scan implements wire.Shards.
func (h *Host) Scan(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest) (meta.ScanPage, error) {
	const op = "meta: scan"
	if err := req.Check(); err != nil {
		return meta.ScanPage{}, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	r, err := h.readable(ctx, op, shard)
	if err != nil {
		return meta.ScanPage{}, err
	}
	return h.rows(ctx, op, r, &req)
}

// rows scans what the replica has applied.
func (h *Host) rows(ctx context.Context, op string, r *replica, req *meta.ScanRequest) (meta.ScanPage, error) {
	if len(req.End) > 0 && bytes.Compare(req.Start, req.End) >= 0 {
		return meta.ScanPage{}, nil
	}
	if err := h.pin(op); err != nil {
		return meta.ScanPage{}, err
	}
	defer h.readers.RUnlock()
	it, prefix, err := r.machine.newScan(h.db, req)
	if errors.Is(err, errGone) {
		return meta.ScanPage{}, r.notLeader()
	}
	if err != nil {
		return meta.ScanPage{}, ashlar.E(op, r.String(), ashlar.Internal, err)
	}
	defer it.Close()
	s := scan{it: it, req: req, prefix: prefix}
	if err := s.run(ctx); err != nil {
		if kind := ashlar.KindOf(err); kind != ashlar.Internal {
			return meta.ScanPage{}, ashlar.E(op, r.String(), kind, err)
		}
		return meta.ScanPage{}, ashlar.E(op, r.String(), ashlar.Internal, err)
	}
	return s.page, nil
}

// newScan opens an iterator over the rows that the request bounds. It sees one
// moment of the store.
func (m *machine) newScan(db *pebble.DB, req *meta.ScanRequest) (*pebble.Iterator, []byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.gone {
		return nil, nil, errGone
	}
	prefix := append(machinePrefix(m.id, m.state.generation), partRows)
	upper := successor(prefix)
	if len(req.End) > 0 {
		upper = append(bytes.Clone(prefix), req.End...)
	}
	lower := append(bytes.Clone(prefix), req.Start...)
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	return it, prefix, err
}

// scan is one page in the making.
type scan struct {
	it     *pebble.Iterator
	req    *meta.ScanRequest
	prefix []byte
	page   meta.ScanPage
	shared []byte // scratch: the collapsed prefix of the current row
	seek   []byte // scratch
}

func (s *scan) run(ctx context.Context) error {
	limit := s.req.Limit
	if limit == 0 {
		limit = meta.ScanRowsMax
	}
	bytesSum := 0
	for ok := s.it.First(); ok; ok = s.next() {
		key := s.it.Key()[len(s.prefix):]
		if len(s.page.Rows) == limit || bytesSum >= scanBytesMax {
			s.page.Next = bytes.Clone(key)
			break
		}
		raw, err := s.it.ValueAndErr()
		if err != nil {
			return err
		}
		if len(raw) < 8 {
			return ashlar.E("meta: decode", "row", ashlar.Corrupt, nil)
		}
		row := meta.Row{Key: bytes.Clone(key), Version: binary.LittleEndian.Uint64(raw)}
		if !s.req.KeysOnly {
			row.Value = append([]byte{}, raw[8:]...)
		}
		bytesSum += len(row.Key) + len(row.Value)
		s.page.Rows = append(s.page.Rows, row)
		if len(s.page.Rows)%scanCheckRows == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return s.it.Error()
}

// next moves to the next row, past all that share the collapsed prefix of the
// current one. Most runs are of one row, and a step costs a fraction of a seek.
func (s *scan) next() bool {
	key := s.it.Key()[len(s.prefix):]
	n := collapsedBytes(key, s.req.Collapse)
	if n == 0 {
		return s.it.Next()
	}
	s.shared = append(s.shared[:0], key[:n]...)
	if !s.it.Next() {
		return false
	}
	if !bytes.HasPrefix(s.it.Key()[len(s.prefix):], s.shared) {
		return true
	}
	past := successor(s.shared)
	if past == nil {
		return false
	}
	s.seek = append(append(s.seek[:0], s.prefix...), past...)
	return s.it.SeekGE(s.seek)
}

// collapsedBytes returns the length of the shortest prefix of key that a rule
// names, or zero.
func collapsedBytes(key []byte, rules []meta.Collapse) int {
	shortest := 0
	for _, rule := range rules {
		if rule.From > len(key) {
			continue
		}
		i := bytes.Index(key[rule.From:], rule.Delim)
		if i < 0 {
			continue
		}
		if n := rule.From + i + len(rule.Delim); shortest == 0 || n < shortest {
			shortest = n
		}
	}
	return shortest
}
