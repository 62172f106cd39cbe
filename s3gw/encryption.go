package s3gw

import (
	"net/http"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// encryption reads the encryption that a write asks for.
func (c *call) encryption() (*store.Encryption, error) {
	e, err := s3.EncryptionOf(c.r.Header)
	if err == nil && e != nil && e.Mode == store.SSEC {
		err = c.checkSecure()
	}
	return e, err
}

// customerKey reads the customer's key of a request, or of the source of a copy.
func (c *call) customerKey(copySource bool) ([]byte, error) {
	key, err := s3.CustomerKeyOf(c.r.Header, copySource)
	if err == nil && key != nil {
		err = c.checkSecure()
	}
	return key, err
}

// checkSecure refuses to take a key that everybody on the way could read.
func (c *call) checkSecure() error {
	if c.r.TLS != nil || c.s.plainKeys {
		return nil
	}
	return s3.E(s3.InvalidRequest, "Requests specifying Server Side Encryption with Customer provided keys must be made over a secure connection.")
}

// unlock opens an object that is to be read with the key that came along.
func (c *call) unlock(o *store.Object) error {
	if s3.AsksForEncryption(c.r.Header) {
		return invalidArgument("x-amz-server-side-encryption", c.header("X-Amz-Server-Side-Encryption"),
			"x-amz-server-side-encryption header is not supported for this operation.")
	}
	key, err := c.customerKey(false)
	if err != nil || key == nil && o.Encryption == nil {
		return err
	}
	return c.s.backend.Unlock(c.ctx, o, key)
}

func (c *call) encryptionHeaders(e *store.Encryption) {
	for _, f := range s3.EncryptionHeaders(e, c.r.Header) {
		c.set(f.Name, f.Value)
	}
}

func getBucketEncryption(c *call) error {
	b, err := c.s.backend.HeadBucket(c.ctx, string(c.bucket))
	if err != nil {
		return withBucket(err, c.bucket)
	}
	if b.Encryption == nil {
		return s3.E(s3.ServerSideEncryptionConfigurationNotFoundError, "").With("BucketName", string(c.bucket))
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) { w.Encryption(b.Encryption) })
}

func putBucketEncryption(c *call) error {
	doc, err := c.document()
	if err != nil {
		return err
	}
	e, err := s3.ParseEncryption(doc)
	if err != nil {
		return err
	}
	if err := c.s.backend.SetEncryption(c.ctx, string(c.bucket), e); err != nil {
		return withBucket(err, c.bucket)
	}
	return c.empty(http.StatusOK)
}

func deleteBucketEncryption(c *call) error {
	if err := c.s.backend.SetEncryption(c.ctx, string(c.bucket), nil); err != nil {
		return withBucket(err, c.bucket)
	}
	return c.empty(http.StatusNoContent)
}
