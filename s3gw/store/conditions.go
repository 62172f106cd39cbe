package store

import (
	"slices"
	"time"

	"ashlar/s3gw/store/row"
)

// matches reports whether the list of ETags names the given one.
func matches(list []string, etag string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, etag)
}

// judgeWrite says whether a write may replace what is there: current is nil
// if the key has no object. The times of Conditions belong to reads only.
func judgeWrite(c Conditions, exists bool, etag string) error {
	if len(c.IfMatch) > 0 {
		if !exists {
			return ErrNoSuchKey
		}
		if !matches(c.IfMatch, etag) {
			return ErrPreconditionFailed
		}
	}
	if len(c.IfNoneMatch) > 0 && exists && matches(c.IfNoneMatch, etag) {
		return ErrPreconditionFailed
	}
	return nil
}

// judgeDelete says whether a deletion may take what is there, by its size and
// time.
func judgeDelete(c Conditions, there *row.Object) error {
	if there == nil {
		return nil
	}
	if c.IfBytes != nil && *c.IfBytes != there.Bytes {
		return ErrPreconditionFailed
	}
	if c.IfModifiedAt != nil && !fromNS(there.ModifiedNs).Truncate(time.Second).Equal(c.IfModifiedAt.Truncate(time.Second)) {
		return ErrPreconditionFailed
	}
	return nil
}

// judgeSource says whether the source of a copy may be read. As HTTP has it,
// an ETag condition overrules the date condition of the same direction. Dates
// have whole seconds.
func judgeSource(c Conditions, etag string, modified time.Time) error {
	modified = modified.Truncate(time.Second)
	switch {
	case len(c.IfMatch) > 0:
		if !matches(c.IfMatch, etag) {
			return ErrPreconditionFailed
		}
	case c.IfUnmodifiedSince != nil && modified.After(*c.IfUnmodifiedSince):
		return ErrPreconditionFailed
	}
	switch {
	case len(c.IfNoneMatch) > 0:
		if matches(c.IfNoneMatch, etag) {
			return ErrPreconditionFailed
		}
	case c.IfModifiedSince != nil && !modified.After(*c.IfModifiedSince):
		return ErrPreconditionFailed
	}
	return nil
}
