package s3gw

import (
	"net/http"
	"time"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

func getLifecycle(c *call) error {
	config, err := c.s.backend.Lifecycle(c.ctx, string(c.bucket))
	if err != nil {
		return withBucket(err, c.bucket)
	}
	if config == nil {
		return s3.E(s3.NoSuchLifecycleConfiguration, "").With("BucketName", string(c.bucket))
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) { w.Lifecycle(config) })
}

func putLifecycle(c *call) error {
	doc, err := c.document()
	if err != nil {
		return err
	}
	config, err := s3.ParseLifecycle(doc)
	if err != nil {
		return err
	}
	if err := c.s.backend.SetLifecycle(c.ctx, string(c.bucket), config); err != nil {
		return withBucket(err, c.bucket)
	}
	return c.empty(http.StatusOK)
}

func deleteLifecycle(c *call) error {
	if err := c.s.backend.SetLifecycle(c.ctx, string(c.bucket), nil); err != nil {
		return withBucket(err, c.bucket)
	}
	return c.empty(http.StatusNoContent)
}

// expiryHeader tells when a rule will expire the object, if one will.
func (c *call) expiryHeader(o *store.Object) {
	if !o.ExpiresAt.IsZero() {
		c.set("X-Amz-Expiration", `expiry-date="`+o.ExpiresAt.UTC().Format(http.TimeFormat)+`", rule-id="`+escaped(o.ExpiryRule)+`"`)
	}
}

// abortHeaders tell when a rule will end the upload, if one will.
func (c *call) abortHeaders(u *store.Upload) {
	if !u.Aborts.IsZero() {
		c.set("X-Amz-Abort-Date", u.Aborts.UTC().Format(http.TimeFormat))
		c.set("X-Amz-Abort-Rule-Id", escaped(u.AbortRule))
	}
}

func escaped(text string) string { return string(s3.AppendEscaped(nil, text, true)) }

// lifecycleEvery is how often the worker looks for what is due: in time for a
// day, and soon enough where a test cluster has short ones.
func lifecycleEvery(day time.Duration) time.Duration {
	if day <= 0 {
		return lifecycleEveryMax
	}
	return min(max(day/20, lifecycleEveryMin), lifecycleEveryMax)
}

const (
	lifecycleEveryMin = 100 * time.Millisecond
	lifecycleEveryMax = time.Minute
)
