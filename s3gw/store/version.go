package store

import (
	"bytes"
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/store/row"
)

var versionings = map[row.Bucket_Versioning]Versioning{
	row.Bucket_ENABLED: VersioningEnabled, row.Bucket_SUSPENDED: VersioningSuspended, row.Bucket_LOCKED: VersioningEnabled,
}

// MarkerError is the answer where a read meets a delete marker. It is
// ErrNoSuchKey if the marker is current, ErrDeleteMarker if it was asked for by
// its id.
type MarkerError struct {
	Version  string
	Modified time.Time
	Named    bool // the request named the version
}

func (e *MarkerError) Error() string { return e.Unwrap().Error() + ": version " + e.Version }

// Unwrap returns the sentinel that applies.
func (e *MarkerError) Unwrap() error {
	if e.Named {
		return ErrDeleteMarker
	}
	return ErrNoSuchKey
}

// versionOf prints the version of a row as clients name it.
func versionOf(m *row.Object) string {
	if m.NullVersion {
		return NullVersion
	}
	return row.VersionID(m.Version).String()
}

// versionIn is versionOf for answers: a bucket that never had versioning has no
// versions to speak of.
func versionIn(state row.Bucket_Versioning, m *row.Object) string {
	if state == row.Bucket_NEVER && m.NullVersion {
		return ""
	}
	return versionOf(m)
}

// otherKey returns the row key under which a version lies if it is not the
// current one, nil if there cannot be any. cur must not be nil.
func otherKey(sl slot, key string, cur *row.Object, version string) []byte {
	if version == NullVersion {
		if len(cur.NullAt) != len(row.VersionID{}) {
			return nil
		}
		return sl.OldObject(key, row.VersionID(cur.NullAt))
	}
	id, ok := row.ParseVersionID(version)
	if !ok || bytes.Equal(cur.NullAt, id[:]) {
		return nil
	}
	return sl.OldObject(key, id)
}

// find reads the version of a key; an empty version is the current one. The
// result has no row if there is none.
func (s *Store) find(ctx context.Context, sl slot, key, version string) (current, error) {
	for n := range attemptsMax {
		cur, err := s.current(ctx, sl, key)
		if err != nil || cur.row == nil || version == "" || versionOf(cur.row) == version {
			return cur, err
		}
		at := otherKey(sl, key, cur.row, version)
		if at == nil {
			return current{}, nil
		}
		r, err := s.get(ctx, sl.shard, at)
		if err != nil {
			return current{}, err
		}
		if r != nil {
			found, ok, err := s.complete(ctx, sl, r)
			if ok || err != nil {
				return found, err
			}
		} else if same, err := s.get(ctx, sl.shard, sl.Object(key)); err != nil || same != nil && same.Version == cur.version {
			return current{}, err // it did not move meanwhile: it is not there
		}
		if !pause(ctx, n) {
			return current{}, ashlar.E("store: read", key, ashlar.Unavailable, ctx.Err())
		}
	}
	return current{}, errContended
}

// enabled reports whether every write makes a version of its own.
func enabled(state row.Bucket_Versioning) bool {
	return state == row.Bucket_ENABLED || state == row.Bucket_LOCKED
}

// SetVersioning enables or suspends versioning. When it returns, every later
// write follows it, whatever gateway it goes through. Errors: ErrNoSuchBucket,
// ErrBucketState (object lock keeps versioning enabled).
func (s *Store) SetVersioning(ctx context.Context, name string, v Versioning) error {
	state := row.Bucket_ENABLED
	if v == VersioningSuspended {
		state = row.Bucket_SUSPENDED
	}
	return fail("set versioning", name, s.changeBucket(ctx, name, func(b *bucket, rec *row.Bucket) error {
		switch {
		case rec.Versioning == row.Bucket_LOCKED && state == row.Bucket_SUSPENDED:
			return ErrBucketState
		case rec.Versioning == row.Bucket_LOCKED:
			return nil
		}
		if err := s.markSlots(ctx, b, state); err != nil {
			return err
		}
		rec.Versioning = state
		return nil
	}))
}

func (s *Store) markSlots(ctx context.Context, b *bucket, state row.Bucket_Versioning) error {
	mark, err := row.Encode(&row.Mark{Format: row.Format})
	if err != nil {
		return err
	}
	for _, sl := range b.slots() {
		txn := &meta.Txn{
			Conds: []meta.Cond{{Key: sl.Header(row.KindOpen), Kind: meta.CondExists}},
			Puts:  marksOf(sl, state, mark),
		}
		if state == row.Bucket_SUSPENDED {
			txn.Conds = append(txn.Conds, meta.Cond{Key: sl.Mark(row.MarkLocked), Kind: meta.CondAbsent})
			txn.Deletes = [][]byte{sl.Mark(row.MarkEnabled)}
		}
		err := s.commit(ctx, sl.shard, txn)
		if at, _, refused := conditionAt(err); refused && at > 0 {
			return ErrBucketState // somebody is about to set object lock
		} else if refused {
			return s.revive(ctx, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// marksOf returns the marks that a state puts into a slot.
func marksOf(sl slot, state row.Bucket_Versioning, mark []byte) []meta.Put {
	puts := []meta.Put{{Key: sl.Mark(row.MarkVersioned), Value: mark}}
	if enabled(state) {
		puts = append(puts, meta.Put{Key: sl.Mark(row.MarkEnabled), Value: mark})
	}
	if state == row.Bucket_LOCKED {
		puts = append(puts, meta.Put{Key: sl.Mark(row.MarkLocked), Value: mark})
	}
	return puts
}

// changeBucket changes a bucket's directory row by compare-and-set; fn gets a
// copy of it and may run again.
func (s *Store) changeBucket(ctx context.Context, name string, fn func(b *bucket, rec *row.Bucket) error) error {
	return s.changeBucketAnd(ctx, name, func(b *bucket, rec *row.Bucket, _ *meta.Txn) error { return fn(b, rec) })
}

// changeBucketAnd is changeBucket with a transaction of the directory's shard to which fn
// may add.
func (s *Store) changeBucketAnd(ctx context.Context, name string, fn func(b *bucket, rec *row.Bucket, txn *meta.Txn) error) error {
	for n := range attemptsMax {
		b, err := s.directory(ctx, name)
		switch {
		case err != nil:
			return err
		case !b.exists():
			return ErrNoSuchBucket
		case b.rec.State != row.Bucket_ACTIVE:
			if err := s.settle(ctx, name); err != nil {
				return err
			}
			continue
		}
		rec, key := proto.CloneOf(b.rec), row.BucketKey(name)
		txn := &meta.Txn{Conds: []meta.Cond{{Key: key, Kind: meta.CondVersion, Version: b.version}}}
		if err := fn(b, rec, txn); err != nil {
			return err
		}
		value, err := row.Encode(rec)
		if err != nil {
			return err
		}
		txn.Puts = append(txn.Puts, meta.Put{Key: key, Value: value})
		err = s.commit(ctx, directoryShard, txn)
		s.buckets.drop(name)
		if _, _, changed := conditionAt(err); !changed {
			return err
		}
		if !pause(ctx, n) {
			break
		}
	}
	return errContended
}

// versioningConds are the conditions that hold a transaction to what it
// believes about versioning.
func versioningConds(sl slot, state row.Bucket_Versioning) []meta.Cond {
	switch state {
	case row.Bucket_ENABLED:
		return []meta.Cond{
			{Key: sl.Mark(row.MarkEnabled), Kind: meta.CondExists}, {Key: sl.Mark(row.MarkLocked), Kind: meta.CondAbsent},
		}
	case row.Bucket_LOCKED:
		return []meta.Cond{{Key: sl.Mark(row.MarkLocked), Kind: meta.CondExists}}
	case row.Bucket_SUSPENDED:
		return []meta.Cond{
			{Key: sl.Mark(row.MarkVersioned), Kind: meta.CondExists}, {Key: sl.Mark(row.MarkEnabled), Kind: meta.CondAbsent},
		}
	}
	return []meta.Cond{{Key: sl.Mark(row.MarkVersioned), Kind: meta.CondAbsent}}
}

// slotVersioning reads what the slot's marks say.
func (s *Store) slotVersioning(ctx context.Context, sl slot) (row.Bucket_Versioning, error) {
	locked, err := s.get(ctx, sl.shard, sl.Mark(row.MarkLocked))
	if err != nil || locked != nil {
		return row.Bucket_LOCKED, err
	}
	enabled, err := s.get(ctx, sl.shard, sl.Mark(row.MarkEnabled))
	if err != nil || enabled != nil {
		return row.Bucket_ENABLED, err
	}
	once, err := s.get(ctx, sl.shard, sl.Mark(row.MarkVersioned))
	if err != nil || once != nil {
		return row.Bucket_SUSPENDED, err
	}
	return row.Bucket_NEVER, nil
}

// deleteCurrent is DELETE without a version: it removes the object of a bucket
// that never had versions, and puts a delete marker on top otherwise.
func (ch *change) deleteCurrent(ctx context.Context, owner string) (Deleted, error) {
	if ch.versioning == row.Bucket_NEVER && (ch.cur.row == nil || ch.cur.row.NullVersion) {
		if ch.cur.row != nil {
			if err := ch.remove(ctx); err != nil {
				return Deleted{}, err
			}
			return Deleted{}, ch.tellRemoved(ctx, ch.cur.row, false)
		}
		// Nothing will be committed, so nothing else would judge the belief.
		state, err := ch.s.slotVersioning(ctx, ch.sl)
		if err == nil && state == row.Bucket_NEVER {
			err = errNothing
		}
		if err != nil {
			return Deleted{}, err
		}
	}
	m := &row.Object{DeleteMarker: true, Owner: owner}
	err := ch.put(ctx, m, nil, nil, nil)
	if err == nil {
		err = ch.tellRemoved(ctx, m, true)
	}
	return Deleted{Version: versionOf(m), Marker: true}, err
}

// deleteVersion removes one version. errNothing says that there is none.
func (ch *change) deleteVersion(ctx context.Context, version string, cond Conditions) (Deleted, error) {
	cur := ch.cur.row
	if cur == nil {
		return Deleted{}, errNothing
	}
	if versionOf(cur) == version {
		if err := judgeVersion(cond, cur); err != nil {
			return Deleted{}, err
		}
		if err := ch.remove(ctx); err != nil {
			return Deleted{}, err
		}
		return Deleted{Version: versionIn(ch.versioning, cur), Marker: cur.DeleteMarker}, ch.tellRemoved(ctx, cur, false)
	}
	at := otherKey(ch.sl, ch.key, cur, version)
	if at == nil {
		return Deleted{}, errNothing
	}
	old, err := ch.other(ctx, at)
	if err != nil {
		return Deleted{}, err
	}
	if err := judgeVersion(cond, old.row); err != nil {
		return Deleted{}, err
	}
	if err := ch.dropOther(old, at); err != nil {
		return Deleted{}, err
	}
	next := proto.CloneOf(cur)
	if old.row.NullVersion {
		next.NullAt = nil
	}
	// A delete marker that is alone now may be due.
	if old.row.NullVersion || cur.DeleteMarker && ch.life.Touches(ch.key) {
		err = ch.storeCurrent(next)
	}
	if err == nil {
		err = ch.tellRemoved(ctx, old.row, false)
	}
	return Deleted{Version: version, Marker: old.row.DeleteMarker}, err
}

// judgeVersion judges the conditions of a DELETE of one version. A delete
// marker has no ETag; only "*" means it.
func judgeVersion(c Conditions, m *row.Object) error {
	if err := judgeDelete(c, m); err != nil {
		return err
	}
	if len(c.IfMatch) == 0 {
		return nil
	}
	tag := etag(m.EtagMd5, m.EtagParts)
	if m.DeleteMarker {
		tag = "*"
	}
	if !matches(c.IfMatch, tag) {
		return ErrPreconditionFailed
	}
	return nil
}

// other reads a version that is not current, and makes the transaction depend
// on it. errNothing says that it is not there, errMoved that the key changed
// between the two reads: the version may have become current.
func (ch *change) other(ctx context.Context, at []byte) (current, error) {
	r, err := ch.s.get(ctx, ch.sl.shard, at)
	if err != nil {
		return current{}, err
	}
	if r == nil {
		same, err := ch.s.get(ctx, ch.sl.shard, ch.sl.Object(ch.key))
		switch {
		case err != nil:
			return current{}, err
		case same == nil || same.Version != ch.cur.version:
			return current{}, errMoved
		}
		return current{}, errNothing
	}
	old, ok, err := ch.s.complete(ctx, ch.sl, r)
	if err == nil && !ok {
		err = errMoved // its manifest went with it between the two reads
	}
	ch.expect(r)
	return old, err
}

// expect makes the transaction depend on a row as it was read. If it changed,
// the change is decided again.
func (ch *change) expect(r *meta.Row) {
	ch.rows = append(ch.rows, len(ch.Conds))
	ch.Conds = append(ch.Conds, meta.Cond{Key: r.Key, Kind: meta.CondVersion, Version: r.Version})
}

// dropOther deletes a version that is not current, with its content.
func (ch *change) dropOther(old current, at []byte) error {
	ch.Deletes = append(ch.Deletes, at)
	ch.tally(old.row, false, -1)
	return ch.drop(old)
}

// cover moves the current version to the older ones, and returns under which
// id the null version lies afterwards.
func (ch *change) cover() (nullAt []byte, err error) {
	cur := ch.cur.row
	nullAt = cur.NullAt
	if cur.NullVersion {
		nullAt = cur.Version
	}
	old := proto.CloneOf(cur)
	old.NullAt, old.DueNs = nil, 0
	ch.tally(cur, true, -1)
	ch.tally(cur, false, 1)
	return nullAt, ch.store(ch.sl.OldObject(ch.key, row.VersionID(cur.Version)), old)
}

// promote makes the newest of the older versions current, if there is one.
func (ch *change) promote(ctx context.Context) (found bool, err error) {
	start := ch.sl.OldObjects(ch.key)
	page, err := ch.s.scan(ctx, ch.sl.shard, meta.ScanRequest{Start: start, End: row.Successor(start), Limit: 1})
	if err != nil || len(page.Rows) == 0 {
		return false, err
	}
	r := &page.Rows[0]
	m, err := decodeObject(r)
	if err != nil {
		return false, err
	}
	if at := ch.cur.row.NullAt; !bytes.Equal(at, m.Version) {
		m.NullAt = at
	}
	ch.expect(r)
	ch.Deletes = append(ch.Deletes, r.Key)
	ch.tally(m, false, -1)
	ch.tally(m, true, 1)
	return true, ch.storeCurrent(m)
}
