package store

import (
	"context"
	"strings"

	"ashlar/s3gw/store/row"
)

// ListObjects returns one page of the bucket's current objects: keys that begin
// with Prefix and are greater than After, in byte order. Keys that hold the
// Delimiter behind the prefix are rolled up into one common prefix, which
// counts against Max like a key. A common prefix that is not greater than After
// is not returned, nor is any key under it: so After may be a key, a common
// prefix (the Last of a page), or any string.
//
// A page shows every change that was acknowledged before the call, and the
// objects come without extents. Max below 1 gives an empty page, above ListMax
// it means ListMax. Errors: ErrNoSuchBucket; kinds besides: Unavailable.
func (s *Store) ListObjects(ctx context.Context, req ListRequest) (ListPage, error) {
	var page ListPage
	err := s.readingAt(ctx, req.Bucket, nil, func(ctx context.Context, b *bucket) error {
		page = ListPage{}
		err := s.listObjects(ctx, b, req, &page)
		if err == nil && len(page.Objects)+len(page.Prefixes) == 0 {
			return s.absent(ctx, b.slot(0), nil)
		}
		return err
	})
	if err != nil {
		return ListPage{}, fail("list objects", req.Bucket, err)
	}
	return page, nil
}

func (s *Store) listObjects(ctx context.Context, b *bucket, req ListRequest, page *ListPage) error {
	limit := min(req.Max, ListMax)
	w := newWalk(row.KindObject, req.Prefix, req.Delimiter, b, limit)
	if limit < 1 || w == nil {
		return nil
	}
	w.current = true
	w.startAfter(req.After)
	return s.list(ctx, b, w, func(e entry) bool {
		if len(page.Objects)+len(page.Prefixes) == limit {
			page.Truncated = true
			return false
		}
		page.Last = e.name
		if e.prefix {
			page.Prefixes = append(page.Prefixes, e.name)
			return true
		}
		page.Objects = append(page.Objects, object(b.ID, e.name, e.object, nil))
		return true
	})
}

// newWalk prepares a walk for a page of limit entries. It returns nil if
// nothing can match: keys hold no NUL and are at most KeyBytesMax long.
func newWalk(kind byte, prefix, delimiter string, b *bucket, limit int) *walk {
	if len(prefix) > row.KeyBytesMax || strings.IndexByte(prefix, 0) >= 0 {
		return nil
	}
	if len(delimiter) > row.KeyBytesMax || strings.IndexByte(delimiter, 0) >= 0 {
		delimiter = "" // no key holds it
	}
	// Keys are spread evenly: a quarter more than the fair share of a slot
	// suffices almost always, and where not, the slot is asked again.
	fair := (limit + 1) / len(b.rec.Slots)
	return &walk{kind: kind, prefix: prefix, delimiter: delimiter, pageRows: min(limit+1, fair+fair/4+16)}
}
