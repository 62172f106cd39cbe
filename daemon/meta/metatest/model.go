// Package metatest holds what every meta.Store is measured by: a reference
// Store that is too simple to be wrong, and the suite that a Store must pass.
//
//	NewModel   an ordered map under a mutex: the meaning of the seam, executable
//	Run        the conformance suite
//
// To be a Store is to pass Run. The model passes it too, so rooms above the
// seam may be tested on the model and run on the real thing.
package metatest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"ashlar"
	"ashlar/daemon/meta"
)

// NewModel returns an empty Store in memory. It holds every shard that it is
// asked for and remembers every transaction id.
func NewModel() meta.Store { return &model{shards: map[ashlar.ShardID]*shard{}} }

type model struct {
	mu     sync.Mutex
	shards map[ashlar.ShardID]*shard
}

type shard struct {
	index   uint64
	rows    map[string]meta.Row
	answers map[ashlar.RequestID]answer
}

// answer is what a transaction was told: a failed condition, an error, or nil.
type answer struct {
	cond *meta.Cond
	at   int
	err  error
}

func (m *model) shardLocked(id ashlar.ShardID) *shard {
	s := m.shards[id]
	if s == nil {
		s = &shard{rows: map[string]meta.Row{}, answers: map[ashlar.RequestID]answer{}}
		m.shards[id] = s
	}
	return s
}

func late(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return ashlar.E(op, "", ashlar.Unavailable, err)
	}
	return nil
}

func (m *model) Get(ctx context.Context, id ashlar.ShardID, key []byte) (meta.Row, error) {
	const op = "meta: get"
	if err := meta.CheckKey(op, key); err != nil {
		return meta.Row{}, err
	}
	if err := late(ctx, op); err != nil {
		return meta.Row{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	row, ok := m.shardLocked(id).rows[string(key)]
	if !ok {
		return meta.Row{}, ashlar.E(op, fmt.Sprintf("key=%q", key), ashlar.NotFound, nil)
	}
	return copyRow(row), nil
}

func (m *model) Scan(ctx context.Context, id ashlar.ShardID, req meta.ScanRequest) (meta.ScanPage, error) {
	if err := req.Check(); err != nil {
		return meta.ScanPage{}, err
	}
	if err := late(ctx, "meta: scan"); err != nil {
		return meta.ScanPage{}, err
	}
	limit := req.Limit
	if limit == 0 {
		limit = meta.ScanRowsMax
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shardLocked(id)
	var page meta.ScanPage
	var skip string // a prefix whose first row was returned
	for _, key := range slices.Sorted(maps.Keys(s.rows)) {
		if key < string(req.Start) || len(req.End) > 0 && key >= string(req.End) {
			continue
		}
		if skip != "" && strings.HasPrefix(key, skip) {
			continue
		}
		if len(page.Rows) == limit {
			page.Next = []byte(key)
			break
		}
		row := copyRow(s.rows[key])
		if req.KeysOnly {
			row.Value = nil
		}
		page.Rows = append(page.Rows, row)
		skip = collapsed(key, req.Collapse)
	}
	return page, nil
}

// collapsed returns the shortest prefix of key that a rule names, or "".
func collapsed(key string, rules []meta.Collapse) string {
	shortest := ""
	for _, r := range rules {
		if r.From > len(key) {
			continue
		}
		i := strings.Index(key[r.From:], string(r.Delim))
		if i < 0 {
			continue
		}
		prefix := key[:r.From+i+len(r.Delim)]
		if shortest == "" || len(prefix) < len(shortest) {
			shortest = prefix
		}
	}
	return shortest
}

func (m *model) Commit(ctx context.Context, id ashlar.ShardID, txn *meta.Txn) error {
	if err := txn.Check(); err != nil {
		return err
	}
	if err := late(ctx, "meta: commit"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shardLocked(id)
	a, known := s.answers[txn.ID]
	if !known {
		a = s.apply(txn)
		s.answers[txn.ID] = a
	}
	if a.cond == nil {
		return a.err
	}
	e := &meta.ConditionError{Index: a.at}
	if row, ok := s.rows[string(a.cond.Key)]; ok {
		row = copyRow(row)
		e.Row = &row
	}
	return e
}

func (s *shard) apply(txn *meta.Txn) answer {
	for i, c := range txn.Conds {
		if !s.holds(c, txn.Adds) {
			c.Key = bytes.Clone(c.Key)
			return answer{cond: &c, at: i}
		}
	}
	s.index++
	writes := map[string]*meta.Row{} // nil means deleted
	for _, key := range txn.Deletes {
		writes[string(key)] = nil
	}
	for _, p := range txn.Puts {
		writes[string(p.Key)] = &meta.Row{Key: p.Key, Value: p.Value, Version: s.index}
	}
	for _, a := range txn.Adds {
		row, written := writes[string(a.Key)]
		if old, ok := s.rows[string(a.Key)]; ok && !written {
			row = &old
		}
		if row == nil {
			row = &meta.Row{Value: make([]byte, 8)}
		}
		if len(row.Value) != 8 {
			err := fmt.Errorf("add to key %q, which is no counter", a.Key)
			return answer{err: ashlar.E("meta: commit", "", ashlar.Invalid, err)}
		}
		n := int64(binary.LittleEndian.Uint64(row.Value)) + a.Delta
		value := binary.LittleEndian.AppendUint64(nil, uint64(n))
		writes[string(a.Key)] = &meta.Row{Key: a.Key, Value: value, Version: s.index}
	}
	for key, row := range writes {
		if row == nil {
			delete(s.rows, key)
		} else {
			s.rows[key] = copyRow(*row)
		}
	}
	return answer{}
}

// holds judges a condition of a transaction with these adds.
func (s *shard) holds(c meta.Cond, adds []meta.Add) bool {
	row, ok := s.rows[string(c.Key)]
	switch c.Kind {
	case meta.CondExists:
		return ok
	case meta.CondAbsent:
		return !ok
	case meta.CondVersion:
		return ok && row.Version == c.Version
	case meta.CondZero:
		return !ok || bytes.Equal(row.Value, make([]byte, 8))
	default: // meta.CondWithin
		for i := 0; ok && i < min(len(c.Sums), len(row.Value)/8); i++ {
			var sum int64
			for _, key := range c.Sums[i] {
				if counter := s.rows[string(key)].Value; len(counter) == 8 {
					sum += int64(binary.LittleEndian.Uint64(counter))
				}
				for _, a := range adds {
					if bytes.Equal(a.Key, key) {
						sum += a.Delta
					}
				}
			}
			if sum > int64(binary.LittleEndian.Uint64(row.Value[8*i:])) {
				return false
			}
		}
		return true
	}
}

// copyRow returns a row that shares no memory with r; the value is never nil.
func copyRow(r meta.Row) meta.Row {
	return meta.Row{Key: bytes.Clone(r.Key), Value: append([]byte{}, r.Value...), Version: r.Version}
}
