package s3gw

import (
	"context"
	"io"
	"time"

	"ashlar/s3gw/lifecycle"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/store"
)

// Backend is everything that the gateway asks of the store. It is larger than
// five methods because S3 is; handlers see only the part that they need.
type Backend interface {
	Buckets
	Objects
	Locks
	Lifecycles
	Notifications
	Encrypted
	Uploads
}

// Buckets makes, finds and lists buckets.
type Buckets interface {
	CreateBucketWith(ctx context.Context, owner, name, region string, opt store.BucketOptions) error
	HeadBucket(ctx context.Context, name string) (store.Bucket, error)
	DeleteBucket(ctx context.Context, name string) error
	// BucketUsage adds up what a bucket holds.
	BucketUsage(ctx context.Context, name string) (store.Usage, error)
	BucketReads(ctx context.Context, name string) (store.Reads, error)
	SetBucketReads(ctx context.Context, name string, r store.Reads) error
	SetVersioning(ctx context.Context, name string, v store.Versioning) error
	// Access returns what decides who may do what; it may be up to two seconds old.
	Access(ctx context.Context, name string) (store.Access, error)
	// Setting returns a configuration of a bucket, nil if there is none.
	Setting(ctx context.Context, name, setting string) ([]byte, error)
	// PutSetting stores one; a nil value removes it.
	PutSetting(ctx context.Context, name, setting string, value []byte) error
	// ChangeSetting stores what fn makes of the bucket as it is, or returns fn's error.
	ChangeSetting(ctx context.Context, name, setting string, fn func(store.Access) ([]byte, error)) error
	// ListBuckets returns at most limit buckets of owner with names > after.
	ListBuckets(ctx context.Context, owner, prefix, after string, limit int) (buckets []store.Bucket, more bool, err error)
}

// Objects reads and writes objects and their versions. Conditions of writes are judged by
// the store at the commit; conditions of reads are judged by the gateway.
type Objects interface {
	// PutObject reads body until it ends. It must store nothing unless Read
	// returned io.EOF.
	PutObject(ctx context.Context, req *store.PutRequest, body store.Body) (store.Object, error)
	// An empty version is the current one.
	HeadObject(ctx context.Context, bucket, key, version string) (store.Object, error)
	// OpenObject streams length bytes from off of an object that HeadObject
	// returned. The caller closes the reader.
	OpenObject(ctx context.Context, obj *store.Object, off, length uint64) (io.ReadCloser, error)
	// DeleteObject deletes a version for good, or, without one, what is current.
	DeleteObject(ctx context.Context, bucket, key, version, owner string, cond store.Conditions) (store.Deleted, error)
	CopyObject(ctx context.Context, req *store.CopyRequest) (store.Object, error)
	ListObjects(ctx context.Context, req store.ListRequest) (store.ListPage, error)
	ListVersions(ctx context.Context, req store.VersionsRequest) (store.VersionsPage, error)
	// SetTags replaces the tags of a version and returns which one that was.
	SetTags(ctx context.Context, bucket, key, version string, tags map[string]string) (string, error)
	// SetACL replaces the grants of a version and returns which one that was.
	SetACL(ctx context.Context, bucket, key, version string, acl []byte) (string, error)
}

// Locks keep versions from being deleted.
type Locks interface {
	// SetObjectLock gives a bucket object lock and its default retention, nil for none.
	SetObjectLock(ctx context.Context, bucket string, d *store.DefaultLock) error
	// SetRetention sets or, without a mode, takes off the retention of a version.
	SetRetention(ctx context.Context, bucket, key, version string, mode store.LockMode, until time.Time, bypass bool) error
	SetLegalHold(ctx context.Context, bucket, key, version string, on bool) error
}

// Encrypted is what encryption needs beside the fields of requests.
type Encrypted interface {
	// Unlock checks the customer's key of an object, nil if there is none.
	Unlock(ctx context.Context, o *store.Object, customerKey []byte) error
	// SetEncryption sets the default of a bucket, nil for none.
	SetEncryption(ctx context.Context, bucket string, e *store.Encryption) error
	// PutPartWith is PutPart with the customer's key.
	PutPartWith(ctx context.Context, bucket, key, uploadID string, number int, customerKey []byte, body store.Body) (store.Part, error)
}

// Lifecycles keep the lifecycle rules of buckets, nil for none.
type Lifecycles interface {
	Lifecycle(ctx context.Context, bucket string) (*lifecycle.Config, error)
	SetLifecycle(ctx context.Context, bucket string, c *lifecycle.Config) error
}

// Notifications keep who is told of what happens in a bucket, nil for nobody. With test
// they are told at once that they will be.
type Notifications interface {
	Notification(ctx context.Context, bucket string) (*notify.Config, error)
	SetNotification(ctx context.Context, bucket string, c *notify.Config, test bool) error
}

// Uploads runs multipart uploads.
type Uploads interface {
	CreateUpload(ctx context.Context, u *store.Upload) (id string, err error)
	PutPart(ctx context.Context, bucket, key, uploadID string, number int, body store.Body) (store.Part, error)
	// ListParts returns at most max parts with numbers > after, in order.
	ListParts(ctx context.Context, bucket, key, uploadID string, after, max int) (u store.Upload, parts []store.Part, truncated bool, err error)
	// ListUploads returns at most max uploads and prefixes in the order of
	// (key, id) after (keyAfter, idAfter).
	ListUploads(ctx context.Context, bucket, prefix, delimiter, keyAfter, idAfter string, max int) (uploads []store.Upload, prefixes []string, truncated bool, err error)
	CompleteUpload(ctx context.Context, bucket, key, uploadID string, parts []store.CompletePart, sum *store.Checksum, cond store.Conditions) (store.Object, error)
	AbortUpload(ctx context.Context, bucket, key, uploadID string) error
}
