package metatest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
)

// callTimeout bounds every call of the suite. It is generous: a Store under
// test may still be electing its leaders.
const callTimeout = 30 * time.Second

// Run runs the conformance suite. Each subtest calls open for a Store whose
// shards 0 and 1 exist and are empty; open registers its own clean-up with t.
func Run(t *testing.T, open func(t *testing.T) meta.Store) {
	tests := []struct {
		name string
		run  func(*suite)
	}{
		{"GetPutDelete", (*suite).getPutDelete},
		{"Conditions", (*suite).conditions},
		{"ConditionsAreAtomic", (*suite).conditionsAreAtomic},
		{"LimitsHoldWithWhatIsAdded", (*suite).limitsHoldWithWhatIsAdded},
		{"VersionsGrow", (*suite).versionsGrow},
		{"Counters", (*suite).counters},
		{"OrderWithinTxn", (*suite).orderWithinTxn},
		{"Idempotence", (*suite).idempotence},
		{"ShardsAreApart", (*suite).shardsAreApart},
		{"ScanOrderAndPages", (*suite).scanOrderAndPages},
		{"ScanLargeRows", (*suite).scanLargeRows},
		{"Collapse", (*suite).collapse},
		{"CollapseRandom", (*suite).collapseRandom},
		{"Bounds", (*suite).bounds},
		{"LargestTxn", (*suite).largestTxn},
		{"Deadline", (*suite).deadline},
		{"SlicesBelongToCaller", (*suite).slicesBelongToCaller},
		{"RacingConditions", (*suite).racingConditions},
		{"RandomAgainstModel", (*suite).randomAgainstModel},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) { tc.run(&suite{T: t, store: open(t)}) })
	}
}

type suite struct {
	*testing.T
	store meta.Store
}

func (s *suite) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	s.Cleanup(cancel)
	return ctx
}

func newID() ashlar.RequestID { return ashlar.RequestID(ashlar.NewID()) }

func put(key, value string) meta.Put { return meta.Put{Key: []byte(key), Value: []byte(value)} }

func cond(kind meta.CondKind, key string) meta.Cond { return meta.Cond{Kind: kind, Key: []byte(key)} }

// commit gives the transaction an id if it has none, and commits it to shard 0.
func (s *suite) commit(txn meta.Txn) error {
	if txn.ID == (ashlar.RequestID{}) {
		txn.ID = newID()
	}
	return s.store.Commit(s.ctx(), 0, &txn)
}

func (s *suite) mustCommit(txn meta.Txn) {
	s.Helper()
	if err := s.commit(txn); err != nil {
		s.Fatalf("commit: %v", err)
	}
}

func (s *suite) mustGet(key string) meta.Row {
	s.Helper()
	row, err := s.store.Get(s.ctx(), 0, []byte(key))
	if err != nil {
		s.Fatalf("get %q: %v", key, err)
	}
	if string(row.Key) != key || row.Version == 0 || row.Value == nil {
		s.Fatalf("get %q: row %q value %v version %d", key, row.Key, row.Value, row.Version)
	}
	return row
}

func (s *suite) wantValue(key, want string) {
	s.Helper()
	if row := s.mustGet(key); string(row.Value) != want {
		s.Fatalf("get %q: %q, want %q", key, row.Value, want)
	}
}

func (s *suite) wantAbsent(key string) {
	s.Helper()
	if _, err := s.store.Get(s.ctx(), 0, []byte(key)); !ashlar.Is(err, ashlar.NotFound) {
		s.Fatalf("get %q: %v, want not found", key, err)
	}
}

func (s *suite) wantCounter(key string, want int64) {
	s.Helper()
	row := s.mustGet(key)
	if len(row.Value) != 8 || int64(binary.LittleEndian.Uint64(row.Value)) != want {
		s.Fatalf("counter %q: % x, want %d", key, row.Value, want)
	}
}

func (s *suite) wantInvalid(what string, err error) {
	s.Helper()
	if !ashlar.Is(err, ashlar.Invalid) {
		s.Fatalf("%s: %v, want invalid", what, err)
	}
}

// wantCondition checks that err is the failure of condition index.
func (s *suite) wantCondition(err error, index int, row *meta.Row) {
	s.Helper()
	var ce *meta.ConditionError
	if !errors.As(err, &ce) || !ashlar.Is(err, ashlar.Stale) {
		s.Fatalf("%v, want a ConditionError of kind stale", err)
	}
	if ce.Index != index {
		s.Fatalf("condition %d failed, want %d", ce.Index, index)
	}
	if (ce.Row == nil) != (row == nil) || row != nil && !sameRow(*ce.Row, *row) {
		s.Fatalf("condition error carries row %v, want %v", ce.Row, row)
	}
}

func sameRow(a, b meta.Row) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && a.Version == b.Version
}

// scanAll follows Next to the end and checks what holds for every page.
func (s *suite) scanAll(req meta.ScanRequest) []meta.Row {
	s.Helper()
	var rows []meta.Row
	for {
		page, err := s.store.Scan(s.ctx(), 0, req)
		if err != nil {
			s.Fatalf("scan: %v", err)
		}
		if req.Limit > 0 && len(page.Rows) > req.Limit {
			s.Fatalf("scan: %d rows, limit %d", len(page.Rows), req.Limit)
		}
		for _, row := range page.Rows {
			if len(rows) > 0 && bytes.Compare(rows[len(rows)-1].Key, row.Key) >= 0 {
				s.Fatalf("scan: key %q after %q", row.Key, rows[len(rows)-1].Key)
			}
			if req.KeysOnly && row.Value != nil {
				s.Fatalf("scan: keys only, yet key %q has a value", row.Key)
			}
			rows = append(rows, row)
		}
		if page.Next == nil {
			return rows
		}
		if len(page.Rows) == 0 {
			s.Fatalf("scan: Next %q after an empty page", page.Next)
		}
		if bytes.Compare(page.Next, page.Rows[len(page.Rows)-1].Key) <= 0 {
			s.Fatalf("scan: Next %q does not move on", page.Next)
		}
		req.Start = page.Next
	}
}

func keysOf(rows []meta.Row) []string {
	keys := make([]string, len(rows))
	for i, r := range rows {
		keys[i] = string(r.Key)
	}
	return keys
}

func (s *suite) wantKeys(req meta.ScanRequest, want ...string) {
	s.Helper()
	if got := keysOf(s.scanAll(req)); !slices.Equal(got, want) {
		s.Fatalf("scan %+v:\n got %q\nwant %q", req, got, want)
	}
}

// randomKey draws short keys from few bytes, so that prefixes are often shared.
func randomKey(r *rand.Rand) string {
	const alphabet = "a/b\x00\xff"
	key := make([]byte, 1+r.IntN(6))
	for i := range key {
		key[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(key)
}

func newRand(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

func describe(err error) string {
	var ce *meta.ConditionError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &ce):
		if ce.Row == nil {
			return fmt.Sprintf("condition %d, no row", ce.Index)
		}
		return fmt.Sprintf("condition %d, row %q=%q", ce.Index, ce.Row.Key, ce.Row.Value)
	default:
		return ashlar.KindOf(err).String()
	}
}
