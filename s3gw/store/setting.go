package store

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"ashlar/s3gw/notify"
	"ashlar/s3gw/store/row"
)

// settingBytesMax bounds one configuration of a bucket.
const settingBytesMax = 64 << 10

// Setting returns a configuration of a bucket, nil if there is none. Errors:
// ErrNoSuchBucket; kinds besides: Unavailable.
func (s *Store) Setting(ctx context.Context, name, setting string) ([]byte, error) {
	b, err := s.lookupFresh(ctx, name)
	if err != nil {
		return nil, fail("setting", name, err)
	}
	for _, m := range b.rec.Settings {
		if m.Name == setting {
			return m.Value, nil
		}
	}
	return nil, nil
}

// PutSetting stores a configuration in place of an older one; a nil value
// removes it. Errors: ErrNoSuchBucket; kinds besides: Unavailable, Invalid
// (larger than 64 KiB).
func (s *Store) PutSetting(ctx context.Context, name, setting string, value []byte) error {
	return s.ChangeSetting(ctx, name, setting, func(Access) ([]byte, error) { return value, nil })
}

// ChangeSetting is PutSetting of what fn says, which sees the bucket as it is when
// the configuration is stored. fn may run again. Errors: those of PutSetting, and
// fn's.
func (s *Store) ChangeSetting(ctx context.Context, name, setting string, fn func(Access) ([]byte, error)) error {
	return fail("put setting", name, s.changeBucket(ctx, name, func(b *bucket, rec *row.Bucket) error {
		value, err := fn(b.access())
		if err != nil {
			return err
		}
		if len(value) > settingBytesMax {
			return invalid("%s of %d bytes", setting, len(value))
		}
		at, found := slices.BinarySearchFunc(rec.Settings, setting, func(m *row.Setting, n string) int {
			return strings.Compare(m.Name, n)
		})
		if found {
			rec.Settings = slices.Delete(rec.Settings, at, at+1)
		}
		if value != nil {
			rec.Settings = slices.Insert(rec.Settings, at, &row.Setting{Name: setting, Value: value})
		}
		return nil
	}))
}

// SetTags replaces the tags of a version of an object; an empty version is the
// current one. It returns the version. Nothing else of the object changes, not
// even its time. Errors: those of HeadObject.
func (s *Store) SetTags(ctx context.Context, bucketName, key, version string, tags map[string]string) (string, error) {
	name := notify.TagsPut
	if len(tags) == 0 {
		name = notify.TagsDeleted
	}
	v, err := s.changeVersion(ctx, bucketName, key, version, func(ch *change, m *row.Object) error {
		if m.Attributes == nil {
			m.Attributes = &row.Attributes{}
		}
		m.Attributes.Tags = rowTags(tags)
		return ch.tell(ctx, name, m)
	})
	return v, fail("set tags", named(bucketName, key), err)
}

// changeVersion changes what is said about a version of an object; fn gets a
// copy of its row and may run again. An empty version is the current one. It
// returns the version. Errors: those of HeadObject, and fn's.
func (s *Store) changeVersion(ctx context.Context, bucketName, key, version string, fn func(ch *change, m *row.Object) error) (changed string, err error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	missing := ErrNoSuchKey
	if version != "" {
		missing = ErrNoSuchVersion
	}
	err = s.reading(ctx, bucketName, missing, func(b *bucket) error {
		err := s.mutate(ctx, b, key, func(ch *change) error {
			m, at, err := ch.pick(ctx, version)
			if err != nil {
				return err
			}
			next := proto.CloneOf(m)
			if err := fn(ch, next); err != nil {
				return err
			}
			changed = versionIn(ch.versioning, m)
			if m == ch.cur.row {
				return ch.storeCurrent(next)
			}
			return ch.changeOther(at, next)
		})
		if err == errNothing {
			return s.absent(ctx, b.slotOf(key), missing)
		}
		return err
	})
	return changed, err
}

// pick finds a version that is an object, and the key of its row. The
// transaction depends on it.
func (ch *change) pick(ctx context.Context, version string) (m *row.Object, at []byte, err error) {
	cur := ch.cur.row
	switch {
	case cur == nil:
		return nil, nil, errNothing
	case version == "" || versionOf(cur) == version:
		m, at = cur, ch.sl.Object(ch.key)
	default:
		if at = otherKey(ch.sl, ch.key, cur, version); at == nil {
			return nil, nil, errNothing
		}
		old, err := ch.other(ctx, at)
		if err != nil {
			return nil, nil, err
		}
		m = old.row
	}
	if m.DeleteMarker {
		return nil, nil, &MarkerError{Version: versionOf(m), Modified: fromNS(m.ModifiedNs), Named: version != ""}
	}
	return m, at, nil
}
