package s3gw

import (
	"errors"
	"net/http"
	"strings"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// lock reads the lock that a write asks for.
func (c *call) lock() (store.Lock, error) { return s3.LockOf(c.r.Header, c.s.now()) }

// bypass reports whether a retention in governance mode is to be passed.
// The header of a sender who lacks the right does nothing.
func (c *call) bypass(key s3.Key) bool {
	if !strings.EqualFold(c.header("X-Amz-Bypass-Governance-Retention"), "true") {
		return false
	}
	ok, err := c.judge(&right{action: "s3:BypassGovernanceRetention", bucket: c.bucket, key: key})
	return ok && err == nil
}

func getObjectLock(c *call) error {
	b, err := c.s.backend.HeadBucket(c.ctx, string(c.bucket))
	if err != nil {
		return withBucket(err, c.bucket)
	}
	if !b.ObjectLock {
		return s3.E(s3.ObjectLockConfigurationNotFoundError, "").With("BucketName", string(c.bucket))
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) { w.ObjectLock(b.DefaultLock) })
}

func putObjectLock(c *call) error {
	doc, err := c.document()
	if err != nil {
		return err
	}
	d, err := s3.ParseObjectLock(doc)
	if err != nil {
		return err
	}
	if err := c.s.backend.SetObjectLock(c.ctx, string(c.bucket), d); err != nil {
		if errors.Is(err, store.ErrBucketState) {
			err = &s3.Error{Code: s3.InvalidBucketState, Err: err,
				Message: "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration"}
		}
		return withBucket(err, c.bucket)
	}
	return c.empty(http.StatusOK)
}

// lockedObject returns the object of a request about locks, which make no sense
// in a bucket without object lock.
func (c *call) lockedObject() (store.Object, error) {
	b, err := c.s.backend.HeadBucket(c.ctx, string(c.bucket))
	if err != nil {
		return store.Object{}, withBucket(err, c.bucket)
	}
	if !b.ObjectLock {
		return store.Object{}, store.ErrNoObjectLock
	}
	return c.headObject()
}

func getRetention(c *call) error {
	o, err := c.lockedObject()
	if err != nil {
		return err
	}
	if o.Lock.Mode == "" {
		return s3.E(s3.NoSuchObjectLockConfiguration, "").With("Key", string(c.key))
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("Retention")
		w.Raw("Mode", string(o.Lock.Mode))
		w.Time("RetainUntilDate", o.Lock.Until)
		w.Close("Retention")
	})
}

func putRetention(c *call) error {
	version, err := c.version()
	if err != nil {
		return err
	}
	doc, err := c.document()
	if err != nil {
		return err
	}
	mode, until, err := s3.ParseRetention(doc, c.s.now())
	if err != nil {
		return err
	}
	err = c.s.backend.SetRetention(c.ctx, string(c.bucket), string(c.key), version, mode, until, c.bypass(c.key))
	if err != nil {
		return c.readError(err)
	}
	return c.empty(http.StatusOK)
}

func getLegalHold(c *call) error {
	o, err := c.lockedObject()
	if err != nil {
		return err
	}
	if o.Lock.Hold == "" {
		return s3.E(s3.NoSuchObjectLockConfiguration, "").With("Key", string(c.key))
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("LegalHold")
		w.Raw("Status", o.Lock.Hold)
		w.Close("LegalHold")
	})
}

func putLegalHold(c *call) error {
	version, err := c.version()
	if err != nil {
		return err
	}
	doc, err := c.document()
	if err != nil {
		return err
	}
	on, err := s3.ParseLegalHold(doc)
	if err != nil {
		return err
	}
	if err := c.s.backend.SetLegalHold(c.ctx, string(c.bucket), string(c.key), version, on); err != nil {
		return c.readError(err)
	}
	return c.empty(http.StatusOK)
}
