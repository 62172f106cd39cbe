package store

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/trash"
	"ashlar/s3gw/store/row"
)

// current is what lies under a key at one moment.
type current struct {
	row     *row.Object // nil if the key has no object
	version uint64      // of the row
	extents []ashlar.Extent
}

func (c *current) etag() string {
	if c.row == nil {
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
	c.row, c.version = &row.Object{}, r.Version
	if err := row.Decode(r.Key, r.Value, c.row); err != nil {
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
	return c, true, checkExtents(c.row, c.extents)
}

// change is a transaction on one key in the making.
type change struct {
	meta.Txn
	sl  slot
	key string
	cur current
	at  time.Time // of this attempt
}

// The positions of the first conditions of every change.
const (
	condOpen   = 0 // the bucket's open marker
	condObject = 1 // the key's current row
)

// mutate runs a read-decide-write round on a key until it is not disturbed:
// fn fills the transaction from what is there now and may refuse with an error.
// If a condition that fn added does not hold, the *meta.ConditionError is returned.
// A *unknownError leaves the outcome open; any other error means that nothing
// was changed. An unconditional fn wins in the end: whoever disturbs a round
// has won his own.
func (s *Store) mutate(ctx context.Context, b *bucket, key string, fn func(*change) error) error {
	sl := b.slotOf(key)
	cur, err := s.current(ctx, sl, key)
	if err != nil {
		return err
	}
	for n := range attemptsMax {
		ch := &change{sl: sl, key: key, cur: cur, at: s.now()}
		cond := meta.Cond{Key: sl.Object(key), Kind: meta.CondAbsent}
		if cur.row != nil {
			cond.Kind, cond.Version = meta.CondVersion, cur.version
		}
		ch.Conds = []meta.Cond{{Key: sl.Header(row.KindOpen), Kind: meta.CondExists}, cond}
		if err := fn(ch); err != nil {
			return err
		}
		err := s.commit(ctx, sl.shard, &ch.Txn)
		at, _, refused := conditionAt(err)
		if !refused || at > condObject {
			return err
		}
		if at == condOpen {
			if err := s.revive(ctx, b); err != nil {
				return err
			}
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

// put writes a new current version in place of what is there.
func (ch *change) put(m *row.Object, extents []ashlar.Extent) error {
	id := row.NewVersionID(ch.at)
	m.Format, m.NullVersion = row.Format, true
	m.Version = id[:]
	m.ModifiedNs = ch.at.UnixNano()
	if err := ch.drop(ch.cur.extents); err != nil {
		return err
	}
	m.Extents, m.Manifest = nil, nil
	if len(extents) <= row.InlineExtentsMax {
		m.Extents = row.FromExtents(extents)
	} else {
		m.Manifest = id[:]
		if err := ch.store(ch.sl.Manifest(id[:]), &row.Manifest{Format: row.Format, Extents: row.FromExtents(extents)}); err != nil {
			return err
		}
	}
	if err := checkExtents(m, extents); err != nil {
		return err
	}
	ch.count(1, int64(m.Bytes))
	return ch.store(ch.sl.Object(ch.key), m)
}

// rewrite writes the current version again with other attributes and the same
// content.
func (ch *change) rewrite(m *row.Object) error {
	id := row.NewVersionID(ch.at)
	m.Format, m.NullVersion = row.Format, true
	m.Version = id[:]
	m.ModifiedNs = ch.at.UnixNano()
	m.Extents, m.Manifest = ch.cur.row.Extents, ch.cur.row.Manifest
	return ch.store(ch.sl.Object(ch.key), m)
}

// remove deletes the current version, which must be there.
func (ch *change) remove() error {
	if err := ch.drop(ch.cur.extents); err != nil {
		return err
	}
	ch.Deletes = append(ch.Deletes, ch.sl.Object(ch.key))
	ch.count(0, 0)
	return nil
}

// count changes the counters from the current object to n objects of the
// given size.
func (ch *change) count(n, bytes int64) {
	if ch.cur.row != nil {
		n--
		bytes -= int64(ch.cur.row.Bytes)
	}
	ch.add(row.CountObjects, n)
	ch.add(row.CountBytes, bytes)
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

// drop puts the extents of the current version on the trash list and deletes
// its manifest.
func (ch *change) drop(extents []ashlar.Extent) error {
	if ch.cur.row != nil && len(ch.cur.row.Manifest) > 0 {
		ch.Deletes = append(ch.Deletes, ch.sl.Manifest(ch.cur.row.Manifest))
	}
	return throwAway(&ch.Txn, ch.sl, ch.key, extents, ch.at)
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
