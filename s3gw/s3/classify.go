package s3

import (
	"cmp"
	"context"
	"errors"

	"ashlar"
	"ashlar/s3gw/store"
)

const (
	// retrySeconds is what Retry-After says when the cluster cannot answer now.
	retrySeconds = 1
	// fullRetrySeconds is what it says when the cluster is full: what is deleted comes back
	// after compaction at the earliest.
	fullRetrySeconds = 30
)

// clusterFull is told with SlowDown. S3 has no word for it, as S3 is never full; the code
// is one that every SDK backs off from and tries again.
const clusterFull = "The cluster is full: its disks have no room for new data. Reads and deletes go on. " +
	"Delete objects to make room; `ashlar status` says which disks are full."

var bySentinel = []struct {
	err  error
	code Code
}{
	{store.ErrNoSuchKey, NoSuchKey},
	{store.ErrNoSuchBucket, NoSuchBucket},
	{store.ErrPreconditionFailed, PreconditionFailed},
	{store.ErrNoSuchUpload, NoSuchUpload},
	{store.ErrConflict, ConditionalRequestConflict},
	{store.ErrBucketExists, BucketAlreadyExists},
	{store.ErrBucketOwned, BucketAlreadyOwnedByYou},
	{store.ErrBucketNotEmpty, BucketNotEmpty},
	{store.ErrNoSuchVersion, NoSuchVersion},
	{store.ErrDeleteMarker, MethodNotAllowed},
	{store.ErrInvalidPart, InvalidPart},
	{store.ErrInvalidPartOrder, InvalidPartOrder},
	{store.ErrEntityTooSmall, EntityTooSmall},
	{store.ErrEntityTooLarge, EntityTooLarge},
	{store.ErrBadDigest, BadDigest},
	{store.ErrCopyUnchanged, InvalidRequest},
	{store.ErrLocked, AccessDenied},
	{store.ErrQuota, QuotaExceeded},
	{store.ErrNoObjectLock, InvalidRequest},
	{store.ErrBucketState, InvalidBucketState},
	{store.ErrCustomerKey, InvalidRequest},
	{store.ErrNoSuchEncryptionKey, KMSNotFoundException},
}

// byKind judges what has no word in S3. NotFound and Exists are here for
// things below the store (a piece, a shard): a client must never read them as
// "no such object".
var byKind = [...]Code{
	ashlar.Internal:    InternalError,
	ashlar.NotFound:    InternalError,
	ashlar.Exists:      OperationAborted,
	ashlar.Corrupt:     ServiceUnavailable,
	ashlar.Stale:       ServiceUnavailable,
	ashlar.Full:        SlowDown,
	ashlar.Busy:        SlowDown,
	ashlar.Unavailable: ServiceUnavailable,
	ashlar.Denied:      AccessDenied,
	ashlar.Invalid:     InvalidRequest,
}

// Classify turns any error into an answer. An Error inside the chain wins,
// then the store's words, then the kind. It returns nil for nil.
func Classify(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var sums *store.ChecksumTypeError
	if errors.As(err, &sums) {
		return &Error{Code: InvalidRequest, Err: err,
			Message: "Checksum Type mismatch occurred, expected checksum Type: " + sums.Want + ", actual checksum Type: " + cmp.Or(sums.Got, "null")}
	}
	for _, s := range bySentinel {
		if errors.Is(err, s.err) {
			e := &Error{Code: s.code, Err: err}
			switch s.err {
			case store.ErrLocked:
				e.Message = "Access Denied because object protected by object lock."
			case store.ErrCustomerKey:
				e.Message = "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object."
			case store.ErrNoObjectLock:
				e.Message = NoLockConfiguration
			}
			return e
		}
	}
	if errors.Is(err, context.Canceled) {
		return &Error{Code: RequestTimeout, Message: "The request was cancelled.", Err: err}
	}
	code, kind := InternalError, ashlar.KindOf(err)
	if int(kind) < len(byKind) {
		code = byKind[kind]
	}
	e = &Error{Code: code, Err: err}
	if code.Status() == 503 {
		e.RetryAfterSeconds = retrySeconds
	}
	if kind == ashlar.Full {
		e.Message, e.RetryAfterSeconds = clusterFull, fullRetrySeconds
	}
	return e
}
