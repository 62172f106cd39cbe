package store

import (
	"context"

	"ashlar/s3gw/notify"
	"ashlar/s3gw/store/row"
)

// Access is what decides who may do what with a bucket: its record and its
// settings, as they were at one moment.
type Access struct {
	Bucket
	// Rev changes whenever record or settings change.
	Rev      uint64
	settings []*row.Setting
}

// Setting returns a configuration, nil if there is none. It must not be changed.
func (a *Access) Setting(name string) []byte {
	for _, m := range a.settings {
		if m.Name == name {
			if m.Value == nil {
				return []byte{}
			}
			return m.Value
		}
	}
	return nil
}

// NewAccess makes an Access for tests and doubles of a Store.
func NewAccess(b Bucket, rev uint64, settings map[string][]byte) Access {
	a := Access{Bucket: b, Rev: rev}
	for name, value := range settings {
		a.settings = append(a.settings, &row.Setting{Name: name, Value: value})
	}
	return a
}

// Access returns who may do what with a bucket. What was changed through this
// Store is seen at once, what another gateway changed within cacheFor: every request
// asks, so not every one can ask the directory. Where a bucket allows stale reads and
// its record cannot be had, an old one decides: nothing can be written then. Errors:
// ErrNoSuchBucket; kinds besides: Unavailable.
func (s *Store) Access(ctx context.Context, name string) (Access, error) {
	b, err := s.lookupAt(ctx, name)
	if err != nil {
		return Access{}, fail("access", name, err)
	}
	return b.access(), nil
}

func (b *bucket) access() Access {
	return Access{Bucket: b.Bucket, Rev: b.version, settings: b.rec.Settings}
}

// SetACL replaces the grants of a version of an object; an empty version is the
// current one. It returns the version. Errors: those of HeadObject.
func (s *Store) SetACL(ctx context.Context, bucketName, key, version string, acl []byte) (string, error) {
	v, err := s.changeVersion(ctx, bucketName, key, version, func(ch *change, m *row.Object) error {
		m.Acl = acl
		return ch.tell(ctx, notify.ACLPut, m)
	})
	return v, fail("set acl", named(bucketName, key), err)
}
