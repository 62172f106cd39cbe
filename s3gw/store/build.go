package store

import (
	"bytes"
	"context"
	"fmt"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/store/row"
)

// The build of an agenda: when rules are set, what was there before is entered.

// build takes one step over the keys of a slot, and when they are done over its
// uploads, and writes down how far it came.
func (s *Store) build(ctx context.Context, b *bucket, sl slot, r *meta.Row) error {
	var m row.Agenda
	if err := row.Decode(r.Key, r.Value, &m); err != nil {
		return err
	}
	start := m.After
	if len(start) == 0 {
		start = sl.Header(row.KindObject)
	}
	next, err := s.buildStep(ctx, b, sl, start)
	if err != nil {
		return err
	}
	if next == nil && start[0] == row.KindObject {
		next = sl.Header(row.KindUpload)
	}
	if next == nil {
		return s.dropEntry(ctx, sl.shard, r)
	}
	value, err := row.Encode(&row.Agenda{Format: row.Format, After: next})
	if err != nil {
		return err
	}
	err = s.commit(ctx, sl.shard, &meta.Txn{
		Conds: []meta.Cond{{Key: r.Key, Kind: meta.CondVersion, Version: r.Version}},
		Puts:  []meta.Put{{Key: r.Key, Value: value}},
	})
	if _, _, changed := conditionAt(err); changed {
		return nil // another worker took the step as well
	}
	return err
}

// buildStep visits the next keys or uploads, and returns where to go on, nil
// behind the last of the kind.
func (s *Store) buildStep(ctx context.Context, b *bucket, sl slot, start []byte) ([]byte, error) {
	req := meta.ScanRequest{Start: start, End: row.Successor(sl.Header(start[0])), Limit: buildRows}
	if start[0] == row.KindObject {
		req.Collapse = []meta.Collapse{{Delim: []byte{0}, From: row.HeaderBytes}}
	}
	page, err := s.scan(ctx, sl.shard, req)
	if err != nil {
		return nil, err
	}
	for i := range page.Rows {
		err := s.enter(ctx, b, sl, &page.Rows[i])
		if err != nil && err != errNothing && err != errIdle && !s.passesOver(b.Name, err) {
			return nil, err
		}
	}
	return bytes.Clone(page.Next), nil
}

// enter visits one key or upload of a build, if a rule could want it or did.
func (s *Store) enter(ctx context.Context, b *bucket, sl slot, r *meta.Row) error {
	key, suffix, ok := row.UserKey(r.Key)
	if !ok {
		return ashlar.E("store: agenda", "", ashlar.Corrupt, fmt.Errorf("row key %x has no terminator", r.Key))
	}
	if r.Key[0] == row.KindUpload {
		if len(suffix) != len(row.VersionID{}) {
			return ashlar.E("store: agenda", "", ashlar.Corrupt, fmt.Errorf("row key %x is not that of an upload", r.Key))
		}
		return s.replanUpload(ctx, b, sl, key, row.VersionID(suffix), anyDue)
	}
	m, err := decodeObject(r)
	if err != nil {
		return err
	}
	rules, err := s.rulesOf(ctx, b, sl)
	if err != nil || m.DueNs == 0 && !rules.Touches(key) {
		return err
	}
	return s.visitKey(ctx, b, key, anyDue)
}
