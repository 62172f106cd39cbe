package store

import (
	"errors"
	"fmt"

	"ashlar"
)

// Errors that are answers of S3 beside those of store.go.
var (
	// ErrBadDigest: the checksum given to CompleteUpload is not the object's.
	ErrBadDigest = errors.New("the checksum that the client gave does not match")
	// ErrCopyUnchanged: an object was copied onto itself and nothing would change.
	ErrCopyUnchanged = errors.New("the copy onto itself would change nothing")
)

var (
	errNotFormed  = errors.New("the cluster is not formed yet")
	errContended  = errors.New("too many concurrent changes of the same row")
	errStale      = errors.New("the bucket changed its state meanwhile")
	errNothing    = errors.New("there is nothing to change")
	errIdle       = errors.New("nothing is due")
	errVersioned  = errors.New("the object is a version that must stay as it is")
	errMoved      = errors.New("the key changed between two reads")
	errGone       = errors.New("the bucket's marker is gone")
	errBadKey     = errors.New("a key is 1 to 1024 bytes of UTF-8 without NUL")
	errBadBucket  = errors.New("a bucket name is 1 to 255 bytes without NUL")
	errBadPart    = errors.New("a part number is 1 to 10000")
	errBodyLength = errors.New("the body is longer than announced")
)

// kinds gives each sentinel the kind that KindOf reports for it.
var kinds = map[error]ashlar.Kind{
	ErrNoSuchBucket: ashlar.NotFound, ErrNoSuchKey: ashlar.NotFound,
	ErrNoSuchVersion: ashlar.NotFound, ErrNoSuchUpload: ashlar.NotFound,
	ErrBucketExists: ashlar.Exists, ErrBucketOwned: ashlar.Exists,
	ErrBucketNotEmpty: ashlar.Exists, ErrPreconditionFailed: ashlar.Stale,
	ErrConflict: ashlar.Busy, ErrInvalidPart: ashlar.Invalid,
	ErrInvalidPartOrder: ashlar.Invalid, ErrEntityTooSmall: ashlar.Invalid,
	ErrEntityTooLarge: ashlar.Invalid, ErrBadDigest: ashlar.Invalid,
	ErrDeleteMarker: ashlar.NotFound, ErrCopyUnchanged: ashlar.Invalid, errNotFormed: ashlar.Unavailable,
	ErrLocked: ashlar.Denied, ErrQuota: ashlar.Denied, ErrNoObjectLock: ashlar.Invalid, ErrBucketState: ashlar.Invalid,
	ErrCustomerKey: ashlar.Invalid, ErrNoSuchEncryptionKey: ashlar.Invalid,
	errContended: ashlar.Busy, errStale: ashlar.Busy, errBadKey: ashlar.Invalid,
	errBadBucket: ashlar.Invalid, errBadPart: ashlar.Invalid, errBodyLength: ashlar.Invalid,
}

// fail wraps err once, at the door of the room. It is nil for nil.
func fail(op, subject string, err error) error {
	if err == nil {
		return nil
	}
	kind := ashlar.KindOf(err)
	for sentinel, k := range kinds {
		if errors.Is(err, sentinel) {
			kind = k
		}
	}
	return ashlar.E("store: "+op, subject, kind, err)
}

func named(bucket, key string) string { return fmt.Sprintf("bucket=%s key=%q", bucket, key) }

func invalid(format string, args ...any) error {
	return ashlar.E("store", "", ashlar.Invalid, fmt.Errorf(format, args...))
}
