// Package store holds the rules of S3: what buckets, objects, versions,
// uploads and listings are, expressed as rows and mini-transactions over
// meta.Store and as extents over wire.Stripes.
//
// It is the only place that knows how an object is written down. It does not
// know HTTP, XML or signatures: the gateway above it hands in parsed, verified
// requests and maps the errors below to answers.
package store

import (
	"errors"
	"io"
	"time"

	"ashlar"
)

// The ways a request can fail that S3 has a word for. They are matched with
// errors.Is; anything else is judged by ashlar.KindOf.
var (
	ErrNoSuchBucket       = errors.New("the bucket does not exist")
	ErrBucketExists       = errors.New("the bucket exists and belongs to somebody else")
	ErrBucketOwned        = errors.New("the bucket exists and is yours")
	ErrBucketNotEmpty     = errors.New("the bucket still holds objects or versions")
	ErrNoSuchKey          = errors.New("the key does not exist")
	ErrNoSuchVersion      = errors.New("the version does not exist")
	ErrNoSuchUpload       = errors.New("the upload does not exist")
	ErrInvalidPart        = errors.New("a part is missing or its ETag differs")
	ErrInvalidPartOrder   = errors.New("the parts are not in ascending order")
	ErrEntityTooSmall     = errors.New("a part other than the last is below 5 MiB")
	ErrEntityTooLarge     = errors.New("the object is larger than the maximum")
	ErrPreconditionFailed = errors.New("a condition of the request does not hold")
	ErrDeleteMarker       = errors.New("the version is a delete marker")
	ErrConflict           = errors.New("a conflicting request was running; try again")
	// ErrQuota: the bucket would hold more than its quota.
	ErrQuota = errors.New("the bucket has reached its quota")
	// ErrLocked: the version is under retention or legal hold.
	ErrLocked = errors.New("the version is protected by object lock")
	// ErrNoObjectLock: a lock was asked for in a bucket without object lock.
	ErrNoObjectLock = errors.New("the bucket has no object lock")
	// ErrBucketState: object lock needs versioning, and versioning stays with it.
	ErrBucketState = errors.New("the versioning of the bucket does not allow that")
	// ErrCustomerKey: the customer's key is missing, wrong, or not asked for.
	ErrCustomerKey = errors.New("the object needs the customer's key that it was stored with")
	// ErrNoSuchEncryptionKey: the keyring has no key of that name.
	ErrNoSuchEncryptionKey = errors.New("there is no such encryption key")
)

// Bounds that S3 states.
const (
	PartBytesMin   = 5 * ashlar.MiB // every part but the last
	PartBytesMax   = 5 * ashlar.GiB
	PutBytesMax    = 5 * ashlar.GiB
	ObjectBytesMax = 5 * ashlar.TiB
	PartsMax       = 10_000
	ListMax        = 1000
)

// Bucket is one bucket's record.
type Bucket struct {
	ID      ashlar.BucketID
	Name    string
	Owner   string // account id
	Created time.Time
	Region  string
	// Shards is the number of shards that the bucket's keys are spread over.
	Shards uint8
	// Versioning is what was set last; empty before it was ever set.
	Versioning Versioning
	// ObjectLock says that versions can be locked; it is never taken back.
	ObjectLock bool
	// DefaultLock is the retention of versions that come without one, or nil.
	DefaultLock *DefaultLock
	// Encryption is that of objects that ask for none, or nil.
	Encryption *Encryption
	// Quota bounds what the bucket holds; the zero Quota is none.
	Quota Quota
}

// Versioning is the versioning state of a bucket, in S3's words.
type Versioning string

// The states that can be set. There is no way back to never.
const (
	VersioningEnabled   Versioning = "Enabled"
	VersioningSuspended Versioning = "Suspended"
)

// NullVersion is the id of the version that was written while versioning was
// not enabled.
const NullVersion = "null"

// Checksum algorithms as S3 names them.
const (
	CRC32     = "CRC32"
	CRC32C    = "CRC32C"
	CRC64NVME = "CRC64NVME"
	SHA1      = "SHA1"
	SHA256    = "SHA256"
	SHA512    = "SHA512"
	MD5       = "MD5"
	XXHASH64  = "XXHASH64"
	XXHASH3   = "XXHASH3"
	XXHASH128 = "XXHASH128"
)

// Checksum is a checksum that the client gave or asked for.
type Checksum struct {
	Algorithm string
	// Value is the raw digest, not its base64.
	Value []byte
	// Parts is zero for a full-object checksum; for a composite one it is the
	// number of parts whose digests Value was computed over.
	Parts int
}

// Attributes is what a client may say about an object when it writes it.
type Attributes struct {
	ContentType, ContentEncoding, ContentDisposition, ContentLanguage, CacheControl, Expires string
	StorageClass, WebsiteRedirect                                                            string
	// User holds x-amz-meta-*: lower-case names without the prefix.
	User map[string]string
	// Tags holds x-amz-tagging.
	Tags map[string]string
}

// Object is one version of an object.
type Object struct {
	Bucket   ashlar.BucketID
	Key      string
	ETag     string // without quotes: md5, or md5-N for multipart
	Bytes    uint64
	Modified time.Time
	Attributes
	Checksum *Checksum
	Extents  []ashlar.Extent
	// PartBytes is the length of every part of a multipart object, nil otherwise.
	PartBytes []uint64
	// PartSums are the checksums of the parts, of Checksum's algorithm; nil if
	// a part has none, and in listings.
	PartSums [][]byte
	// Owner is the account that wrote it.
	Owner string
	// Lock is what keeps the version from being deleted.
	Lock Lock
	// Encryption says how it is encrypted, nil if it is not. Bytes and PartBytes
	// are those of the content, Extents those of what is stored.
	Encryption *Encryption
	sealing    sealing
	// ACL are its grants, in the gateway's words; nil for none.
	ACL []byte
	// ExpiresAt is when the rule ExpiryRule will expire it; zero: none will. It is
	// set of current versions, but not in listings.
	ExpiresAt  time.Time
	ExpiryRule string
	// Version is the id, or NullVersion; empty in a bucket that never had
	// versioning.
	Version string
	// Latest says that it is the current version, DeleteMarker that it has no
	// content; both are set in listings of versions only.
	Latest, DeleteMarker bool
}

// Body is an upload on its way in. Read yields the decoded user bytes; where
// the client sent digests (Content-MD5, x-amz-content-sha256, chunk signatures,
// trailers) Read ends with an error instead of io.EOF if they do not match, so
// that nothing is stored.
type Body interface {
	io.Reader
	// Bytes is the length of the user bytes, or -1 if it is not known.
	Bytes() int64
	// Algorithm is that of the checksum that Sums will return, empty if it will be nil.
	Algorithm() string
	// Sums may be called once Read returned io.EOF: the MD5 of the user bytes
	// and the checksum that the client sent or asked for, nil if none.
	Sums() (md5 [16]byte, sum *Checksum)
}

// Conditions are the If-* headers of a read or a write. ETags are without
// quotes; "*" matches any. Nil or empty means no condition.
type Conditions struct {
	IfMatch, IfNoneMatch               []string
	IfModifiedSince, IfUnmodifiedSince *time.Time
	// IfBytes and IfModifiedAt are conditions of a deletion: the size and the time,
	// in whole seconds, of what is there, which may be a delete marker. They hold
	// where nothing is there.
	IfBytes      *uint64
	IfModifiedAt *time.Time
	// Bypass lets a deletion pass a retention in governance mode. The caller
	// has judged the right to it.
	Bypass bool
	// CustomerKey is the key that came with a CompleteUpload, nil if none did. One
	// that came must be the upload's; an upload or a part with a checksum needs it.
	CustomerKey []byte
	// KeyOptional completes an upload without that key, whatever checksums it has.
	KeyOptional bool
}

// PutRequest describes a PUT of an object.
type PutRequest struct {
	Bucket, Key string
	Owner       string
	Attributes
	Conditions Conditions
	// Encryption is what the client asked for; nil takes the default of the bucket.
	Encryption *Encryption
	// Lock is what the client asked for; without a mode, the default of the
	// bucket applies.
	Lock Lock
	// ACL are the grants of the object, in the gateway's words; nil for none.
	ACL []byte
	// Posted says that it is the file of a form.
	Posted bool
}

// CopyRequest describes a CopyObject; the destination may be the source.
type CopyRequest struct {
	// Source.Version is empty for the current version.
	Source struct{ Bucket, Key, Version string }
	// Found is the source as HeadObject returned it to a caller who has judged it:
	// that one is copied, or nothing. Nil has the store look.
	Found *Object
	// SourceConditions are the x-amz-copy-source-if-* headers.
	SourceConditions Conditions
	Put              PutRequest
	// Replace takes Put.Attributes instead of the source's; ReplaceTags likewise for Put.Tags.
	Replace, ReplaceTags bool
	// SourceKey is the customer's key of the source, if it has one.
	SourceKey []byte
	// ChecksumAlgorithm asks for a checksum of the copy; empty keeps the source's algorithm.
	ChecksumAlgorithm string
}

// ListRequest asks for a page of the current objects of a bucket.
type ListRequest struct {
	Bucket, Prefix, Delimiter string
	// After is the last key or common prefix of the page before, or where the
	// client wants to start; keys must be greater, and a common prefix that
	// equals it or sorts below it is not repeated.
	After string
	Max   int
}

// ListPage is one page of a listing. Objects and Prefixes are each in byte order.
type ListPage struct {
	Objects  []Object
	Prefixes []string
	// Truncated says that there is more after Last, which is the greatest key or
	// common prefix of this page.
	Truncated bool
	Last      string
}

// VersionsRequest asks for a page of all versions of a bucket.
type VersionsRequest struct {
	Bucket, Prefix, Delimiter string
	// KeyAfter and VersionAfter are where the page before ended. Without
	// VersionAfter the page begins behind all versions of KeyAfter, or behind
	// the common prefix that it names.
	KeyAfter, VersionAfter string
	Max                    int
}

// VersionsPage is one page of a listing of versions: by key, under a key the
// newest first.
type VersionsPage struct {
	Objects  []Object
	Prefixes []string
	// Truncated says that there is more after LastKey and LastVersion, which is
	// empty if the page ends with a common prefix.
	Truncated            bool
	LastKey, LastVersion string
}

// Deleted says what a DELETE did.
type Deleted struct {
	// Version is the delete marker that was made, or the version that was
	// deleted by its id; empty where the bucket has no versions.
	Version string
	// Marker says that Version is a delete marker.
	Marker bool
}

// Upload is a multipart upload that was started.
type Upload struct {
	Bucket, Key, ID string
	Owner           string
	Started         time.Time
	Attributes
	ChecksumAlgorithm string
	// Composite says that the object's checksum is computed over the parts' digests.
	Composite bool
	// Lock and ACL are those of the object that it will be.
	Lock Lock
	// Encryption is that of its parts; nil takes the default of the bucket.
	Encryption *Encryption
	ACL        []byte
	// Aborts is when the rule AbortRule will end it; zero: none will. It is not
	// set in listings.
	Aborts    time.Time
	AbortRule string
}

// Part is one stored part of an upload.
type Part struct {
	Number   int
	ETag     string
	Bytes    uint64
	Modified time.Time
	Checksum *Checksum
	// Encryption is that of the upload; it is not set in listings.
	Encryption *Encryption
}

// CompletePart is one line of a CompleteMultipartUpload.
type CompletePart struct {
	Number   int
	ETag     string
	Checksum *Checksum // nil if the client sent none
}
