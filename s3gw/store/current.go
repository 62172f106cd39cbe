package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/trash"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/store/row"
)

// current is what lies under a key at one moment.
type current struct {
	row     *row.Object // nil if the key has no object
	version uint64      // of the row
	extents []ashlar.Extent
	sums    []byte // of the parts, one after the other
	salts   []byte // of the extents, if they are encrypted
}

// live reports whether there is an object: a delete marker is none.
func (c *current) live() bool { return c.row != nil && !c.row.DeleteMarker }

func (c *current) etag() string {
	if !c.live() {
		return ""
	}
	return etag(c.row.EtagMd5, c.row.EtagParts)
}

func checkKey(key string) error {
	if key == "" || len(key) > row.KeyBytesMax || strings.IndexByte(key, 0) >= 0 || !utf8.ValidString(key) {
		return errBadKey
	}
	return nil
}

// current reads the object under key with its extents.
func (s *Store) current(ctx context.Context, sl slot, key string) (current, error) {
	for n := range attemptsMax {
		r, err := s.get(ctx, sl.shard, sl.Object(key))
		if err != nil {
			return current{}, err
		}
		c, ok, err := s.complete(ctx, sl, r)
		if ok || err != nil {
			return c, err
		}
		if !pause(ctx, n) {
			return current{}, ashlar.E("store: read", key, ashlar.Unavailable, ctx.Err())
		}
	}
	return current{}, errContended
}

// complete decodes an object row and fetches its manifest. It reports false if
// the manifest is gone: then the row is no longer current.
func (s *Store) complete(ctx context.Context, sl slot, r *meta.Row) (c current, ok bool, err error) {
	if r == nil {
		return c, true, nil
	}
	c.version = r.Version
	if c.row, err = decodeObject(r); err != nil {
		return c, false, err
	}
	columns := c.row.Extents
	if len(c.row.Manifest) > 0 {
		mr, err := s.get(ctx, sl.shard, sl.Manifest(c.row.Manifest))
		if err != nil || mr == nil {
			return c, false, err
		}
		var m row.Manifest
		if err := row.Decode(mr.Key, mr.Value, &m); err != nil {
			return c, false, err
		}
		columns = m.Extents
	}
	if c.extents, err = columns.List(); err != nil {
		return c, false, err
	}
	c.sums, c.salts = columns.GetPartSums(), columns.GetSalts()
	return c, true, checkExtents(c.row, c.extents)
}

// decodeObject reads an object row. Ids of another length are Corrupt.
func decodeObject(r *meta.Row) (*row.Object, error) {
	m := &row.Object{}
	if err := row.Decode(r.Key, r.Value, m); err != nil {
		return nil, err
	}
	const idBytes = len(row.VersionID{})
	if len(m.Version) != idBytes || len(m.NullAt) != 0 && len(m.NullAt) != idBytes {
		return nil, ashlar.E("store: object row", fmt.Sprintf("key=%q", r.Key), ashlar.Corrupt,
			fmt.Errorf("ids of %d and %d bytes", len(m.Version), len(m.NullAt)))
	}
	return m, nil
}

// change is a transaction on one key in the making.
type change struct {
	meta.Txn
	s          *Store
	bucket     string
	sl         slot
	key        string
	cur        current
	versioning row.Bucket_Versioning
	at         time.Time      // of this attempt
	rows       []int          // conditions on versions that are not current
	counts     map[byte]int64 // what to add to the counters, by counter
	bypass     bool           // a retention in governance mode does not hold
	life       ruleSet        // the lifecycle that the transaction is planned with
	bounded    bool           // a quota holds it
	visited    bool           // next says when the key must be looked at
	next       soonest
	notes      *notify.Config // the bucket's notifications
	owner      string         // of the bucket
	byRule     bool           // a rule of the bucket wants it, and no client
	told       []string       // the targets that it queues events for
}

// The positions of the first conditions of every change.
const (
	condOpen   = 0 // the bucket's open marker
	condObject = 1 // the key's current row
	condMarks  = 2 // the versioning marks, one or two, and the lifecycle mark
)

// mutate runs a read-decide-write round on a key until it is not disturbed:
// fn fills the transaction from what is there now and may refuse with an error.
// If a condition that fn added does not hold, the *meta.ConditionError is returned.
// A *unknownError leaves the outcome open; any other error means that nothing
// was changed. An unconditional fn wins in the end: whoever disturbs a round
// has won his own.
func (s *Store) mutate(ctx context.Context, b *bucket, key string, fn func(*change) error) error {
	cur, err := s.current(ctx, b.slotOf(key), key)
	if err != nil {
		return err
	}
	return s.mutateFrom(ctx, b, key, cur, fn)
}

// mutateNew is mutate for an fn that does not refuse where there is nothing. It
// does not look first if the key is likely to be free.
func (s *Store) mutateNew(ctx context.Context, b *bucket, key string, fn func(*change) error) error {
	if !s.guess.free() {
		cur, err := s.current(ctx, b.slotOf(key), key)
		if err != nil {
			return err
		}
		s.guess.saw(cur.row == nil)
		return s.mutateFrom(ctx, b, key, cur, fn)
	}
	rounds := 0
	err := s.mutateFrom(ctx, b, key, current{}, func(ch *change) error {
		rounds++
		return fn(ch)
	})
	s.guess.saw(rounds == 1)
	return err
}

// mutateFrom is mutate behind the first look, which may have seen what is not so.
func (s *Store) mutateFrom(ctx context.Context, b *bucket, key string, cur current, fn func(*change) error) error {
	sl := b.slotOf(key)
	state := b.rec.Versioning
	life, err := s.rulesOf(ctx, b, sl)
	if err != nil {
		return err
	}
	for n := range attemptsMax {
		ch := &change{s: s, bucket: b.Name, sl: sl, key: key, cur: cur, versioning: state, life: life, at: s.now(), notes: b.notes, owner: b.Owner}
		cond := meta.Cond{Key: sl.Object(key), Kind: meta.CondAbsent}
		if cur.row != nil {
			cond.Kind, cond.Version = meta.CondVersion, cur.version
		}
		marks := versioningConds(sl, state)
		marks = append(marks, life.cond(sl))
		ch.Conds = append([]meta.Cond{{Key: sl.Header(row.KindOpen), Kind: meta.CondExists}, cond}, marks...)
		err, quota := fn(ch), -1
		if err == nil {
			ch.addCounts()
			if ch.bounded {
				quota = s.limited.hold(&ch.Txn, sl)
			}
			if err = s.commit(ctx, sl.shard, &ch.Txn); err == nil {
				s.woken(sl.shard, ch.told)
			}
		}
		at, _, refused := conditionAt(err)
		switch {
		case err == errMoved:
			err = nil
		case refused && at == quota:
			err = s.refused(ctx, b, sl, &ch.Txn)
		case !refused:
			return err
		case at == condOpen:
			err = s.revive(ctx, b)
		case at == condObject || slices.Contains(ch.rows, at):
			err = nil
		case at == condMarks+len(marks)-1:
			life, err = s.readRules(ctx, sl)
		case at < condMarks+len(marks):
			s.buckets.drop(b.Name)
			state, err = s.slotVersioning(ctx, sl)
		}
		if err != nil {
			return err
		}
		if n > 0 && !pause(ctx, n) {
			return ashlar.E("store: change", key, ashlar.Busy, errContended)
		}
		if cur, err = s.current(ctx, sl, key); err != nil {
			return err
		}
	}
	return ErrConflict
}

// put writes a new current version on top of what is there. The versioning of
// the bucket says whether what is there stays: a version with an id does, the
// null version only where the new one has an id.
//
// sums are the checksums of the parts of a multipart object, salts those of
// encrypted extents; both may be nil.
func (ch *change) put(ctx context.Context, m *row.Object, extents []ashlar.Extent, sums, salts []byte) error {
	ch.stamp(m)
	if err := ch.lock(ctx, m); err != nil {
		return err
	}
	if err := ch.displace(ctx, m); err != nil {
		return err
	}
	columns := row.FromExtents(extents)
	if columns != nil {
		columns.PartSums, columns.Salts = sums, salts
	}
	m.Extents, m.Manifest = columns, nil
	if len(extents) > row.InlineExtentsMax {
		m.Extents, m.Manifest = nil, m.Version
		if err := ch.store(ch.sl.Manifest(m.Manifest), &row.Manifest{Format: row.Format, Extents: columns}); err != nil {
			return err
		}
	}
	if err := checkExtents(m, extents); err != nil {
		return err
	}
	ch.tally(m, true, 1)
	ch.bounded = !m.DeleteMarker
	return ch.storeCurrent(m)
}

// stamp gives a new version its id and its time.
func (ch *change) stamp(m *row.Object) {
	id := row.NewVersionID(ch.at)
	if ch.cur.row != nil {
		id = id.Above(ch.cur.row.Version)
	}
	m.Format, m.NullVersion = row.Format, !enabled(ch.versioning)
	m.Version = id[:]
	m.ModifiedNs = ch.at.UnixNano()
}

// displace makes room for a new current version.
func (ch *change) displace(ctx context.Context, m *row.Object) error {
	cur := ch.cur.row
	m.NullAt = nil
	if cur == nil {
		return nil
	}
	if cur.NullVersion && m.NullVersion {
		ch.tally(cur, true, -1)
		return ch.drop(ch.cur)
	}
	nullAt, err := ch.cover()
	if err != nil || !m.NullVersion {
		m.NullAt = nullAt
		return err
	}
	at := otherKey(ch.sl, ch.key, cur, NullVersion)
	if at == nil {
		return nil
	}
	old, err := ch.other(ctx, at)
	if err != nil {
		return err
	}
	return ch.dropOther(old, at)
}

// rewrite writes the current version again with other attributes and the same
// content. It must be the null version of a bucket without versioning enabled.
func (ch *change) rewrite(m *row.Object) error {
	ch.stamp(m)
	m.Extents, m.Manifest = ch.cur.row.Extents, ch.cur.row.Manifest
	return ch.storeCurrent(m)
}

// remove deletes the current version, which must be there; the newest of the
// older ones takes its place.
func (ch *change) remove(ctx context.Context) error {
	if err := ch.drop(ch.cur); err != nil {
		return err
	}
	ch.Deletes = append(ch.Deletes, ch.sl.Object(ch.key))
	ch.tally(ch.cur.row, true, -1)
	if ch.versioning != row.Bucket_NEVER {
		if next, err := ch.promote(ctx); next || err != nil {
			return err
		}
	}
	ch.unplan()
	return nil
}

// tally counts a version in or out: what is a current object, and what is not.
func (ch *change) tally(m *row.Object, current bool, n int64) {
	if ch.counts == nil {
		ch.counts = make(map[byte]int64, 4)
	}
	objects, size := byte(row.CountOthers), byte(row.CountOtherBytes)
	if current && !m.DeleteMarker {
		objects, size = row.CountObjects, row.CountBytes
	}
	ch.counts[objects] += n
	ch.counts[size] += n * int64(m.Bytes)
}

// addCounts puts the counters' changes into the transaction.
func (ch *change) addCounts() {
	for _, counter := range []byte{row.CountObjects, row.CountBytes, row.CountOthers, row.CountOtherBytes} {
		ch.add(counter, ch.counts[counter])
	}
}

func (ch *change) add(counter byte, delta int64) {
	if delta != 0 {
		ch.Adds = append(ch.Adds, meta.Add{Key: ch.sl.Counter(counter), Delta: delta})
	}
}

func (ch *change) store(key []byte, m row.Message) error {
	value, err := row.Encode(m)
	ch.Puts = append(ch.Puts, meta.Put{Key: key, Value: value})
	return err
}

// drop puts the extents of a version on the trash list and deletes its
// manifest. Whatever deletes or replaces a version passes here, so here it is
// judged whether a lock forbids it.
func (ch *change) drop(c current) error {
	if err := ch.judgeLock(c.row.GetLock()); err != nil {
		return err
	}
	if c.row != nil && len(c.row.Manifest) > 0 {
		ch.Deletes = append(ch.Deletes, ch.sl.Manifest(c.row.Manifest))
	}
	return throwAway(&ch.Txn, ch.sl, ch.key, c.extents, ch.at)
}

// throwAway adds a trash row for the extents that hold bytes, if any do.
func throwAway(txn *meta.Txn, sl slot, key string, extents []ashlar.Extent, at time.Time) error {
	var full []ashlar.Extent
	for _, x := range extents {
		if x.Bytes > 0 {
			full = append(full, x)
		}
	}
	if len(full) == 0 {
		return nil
	}
	put, err := trash.Row(trash.Entry{Bucket: sl.Bucket, Key: key, Extents: full, Dropped: at})
	txn.Puts = append(txn.Puts, put)
	return err
}
