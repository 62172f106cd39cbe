package store

import (
	"context"

	"ashlar/s3gw/store/row"
)

// ListVersions returns one page of all versions and delete markers of a
// bucket's objects: by key, under a key the newest first, which is the current
// one. Keys that hold the Delimiter behind the prefix are rolled up into one
// common prefix. Like ListObjects it shows every change that was acknowledged
// before the call. Errors: ErrNoSuchBucket; kinds besides: Unavailable.
func (s *Store) ListVersions(ctx context.Context, req VersionsRequest) (VersionsPage, error) {
	var page VersionsPage
	err := s.readingAt(ctx, req.Bucket, nil, func(ctx context.Context, b *bucket) error {
		page = VersionsPage{}
		err := s.listVersions(ctx, b, req, &page)
		if err == nil && len(page.Objects)+len(page.Prefixes) == 0 {
			return s.absent(ctx, b.slot(0), nil)
		}
		return err
	})
	if err != nil {
		return VersionsPage{}, fail("list versions", req.Bucket, err)
	}
	return page, nil
}

func (s *Store) listVersions(ctx context.Context, b *bucket, req VersionsRequest, page *VersionsPage) error {
	limit := min(req.Max, ListMax)
	w := newWalk(row.KindObject, req.Prefix, req.Delimiter, b, limit)
	if limit < 1 || w == nil {
		return nil
	}
	if err := s.startVersions(ctx, b, w, req); err != nil {
		return err
	}
	var bad error
	err := s.list(ctx, b, w, func(e entry) bool {
		if len(page.Objects)+len(page.Prefixes) == limit {
			page.Truncated = true
			return false
		}
		page.LastKey, page.LastVersion = e.name, ""
		if e.prefix {
			page.Prefixes = append(page.Prefixes, e.name)
			return true
		}
		var m *row.Object
		if m, bad = decodeObject(e.row); bad != nil {
			return false
		}
		o := object(b.ID, e.name, m, nil)
		o.Version, o.Latest, o.DeleteMarker = versionOf(m), e.suffix[0] == 0, m.DeleteMarker
		page.LastVersion = o.Version
		page.Objects = append(page.Objects, o)
		return true
	})
	if bad != nil {
		return bad
	}
	return err
}

// startVersions sets the walk to begin behind a version of a key.
func (s *Store) startVersions(ctx context.Context, b *bucket, w *walk, req VersionsRequest) error {
	w.startAfter(req.KeyAfter)
	if _, common := w.delimited(req.KeyAfter); common || req.VersionAfter == "" || checkKey(req.KeyAfter) != nil {
		return nil
	}
	sl := b.slotOf(req.KeyAfter)
	cur, err := s.current(ctx, sl, req.KeyAfter)
	if err != nil || cur.row == nil {
		return err
	}
	if versionOf(cur.row) == req.VersionAfter {
		w.from = append([]byte(req.KeyAfter), 0, 1)
		return nil
	}
	if at := otherKey(sl, req.KeyAfter, cur.row, req.VersionAfter); at != nil {
		w.from = append(at[row.HeaderBytes:], 0)
	}
	return nil
}
