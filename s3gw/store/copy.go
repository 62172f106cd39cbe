package store

import (
	"cmp"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"hash"
	"io"

	"ashlar"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/store/row"
)

// CopyObject makes the destination an object with the source's content. The
// bytes are read and written anew, so that no stripe belongs to two objects,
// and the ETag is the MD5 of the content also where the source's is md5-N.
//
// A copy onto the same key that changes only what is said about the object is
// one transaction on its row: content and ETag stay, also an md5-N. Where the
// object is a version that must stay as it is, the content is copied. It needs
// Replace, ReplaceTags, another storage class or a website redirect, or it is
// ErrCopyUnchanged.
//
// The copy has a full-object checksum of the algorithm asked for, else of the
// source's, else CRC64NVME.
//
// Errors: those of PutObject; ErrConflict if a source that was found before is
// copied onto itself and has changed; ErrNoSuchKey and ErrPreconditionFailed also for
// the source; ErrEntityTooLarge if the source is larger than PutBytesMax.
func (s *Store) CopyObject(ctx context.Context, req *CopyRequest) (Object, error) {
	o, err := s.copyObject(ctx, req)
	subject := named(req.Put.Bucket, req.Put.Key) + " from " + named(req.Source.Bucket, req.Source.Key)
	return o, fail("copy object", subject, err)
}

func (s *Store) copyObject(ctx context.Context, req *CopyRequest) (Object, error) {
	if err := checkKey(req.Put.Key); err != nil {
		return Object{}, err
	}
	if req.ChecksumAlgorithm != "" && NewHash(req.ChecksumAlgorithm) == nil {
		return Object{}, invalid("checksum algorithm %q is unknown", req.ChecksumAlgorithm)
	}
	source, err := s.copySource(ctx, req)
	if err != nil {
		return Object{}, err
	}
	if err := judgeSource(req.SourceConditions, source.ETag, source.Modified); err != nil {
		return Object{}, err
	}
	if source.Bytes > PutBytesMax {
		return Object{}, ErrEntityTooLarge
	}
	if _, err := s.lockable(ctx, req.Put.Bucket, req.Put.Lock); err != nil {
		return Object{}, err
	}
	same := req.Source.Bucket == req.Put.Bucket && req.Source.Key == req.Put.Key
	if err := s.unlock(ctx, &source, req.SourceKey); err != nil {
		return Object{}, err
	}
	plain := source.Encryption == nil && req.Put.Encryption == nil
	if same && req.Source.Version == "" && plain {
		if !req.changes(source.StorageClass) {
			return Object{}, ErrCopyUnchanged
		}
		if req.ChecksumAlgorithm == "" || (source.Checksum != nil && req.ChecksumAlgorithm == source.Checksum.Algorithm) {
			o, err := s.rewriteObject(ctx, req)
			if err != errVersioned {
				return o, err
			}
		}
	}
	return s.copyContent(ctx, req, &source)
}

func (s *Store) copySource(ctx context.Context, req *CopyRequest) (Object, error) {
	if req.Found != nil {
		return *req.Found, nil
	}
	return s.headObject(ctx, req.Source.Bucket, req.Source.Key, req.Source.Version)
}

// changes reports whether a copy of an object onto itself changes it.
func (req *CopyRequest) changes(storageClass string) bool {
	return req.Replace || req.ReplaceTags || req.Put.WebsiteRedirect != "" ||
		(req.Put.StorageClass != "" && req.Put.StorageClass != cmp.Or(storageClass, "STANDARD"))
}

// attributes returns what is said about the copy. Storage class and website
// redirect are never taken from the source.
func (req *CopyRequest) attributes(source Attributes) Attributes {
	out := source
	if req.Replace {
		out = req.Put.Attributes
	}
	out.StorageClass, out.WebsiteRedirect = req.Put.StorageClass, req.Put.WebsiteRedirect
	out.Tags = source.Tags
	if req.ReplaceTags {
		out.Tags = req.Put.Tags
	}
	return out
}

// rewriteObject changes the attributes of an object in place.
func (s *Store) rewriteObject(ctx context.Context, req *CopyRequest) (o Object, err error) {
	key := req.Put.Key
	err = s.reading(ctx, req.Put.Bucket, ErrNoSuchKey, func(b *bucket) error {
		err := s.mutate(ctx, b, key, func(ch *change) error {
			old := ch.cur.row
			if !ch.cur.live() {
				return errNothing
			}
			if enabled(ch.versioning) || !old.NullVersion {
				return errVersioned
			}
			if old.Encryption != nil || b.Encryption != nil {
				return errVersioned
			}
			if f := req.Found; f != nil && (f.ETag != ch.cur.etag() || !f.Modified.Equal(fromNS(old.ModifiedNs))) {
				return ErrConflict
			}
			if err := judgeSource(req.SourceConditions, ch.cur.etag(), fromNS(old.ModifiedNs)); err != nil {
				return err
			}
			if err := judgeWrite(req.Put.Conditions, true, ch.cur.etag()); err != nil {
				return err
			}
			attrs := req.attributes(attributes(old.Attributes))
			m := &row.Object{
				Bytes: old.Bytes, EtagMd5: old.EtagMd5, EtagParts: old.EtagParts, Checksum: old.Checksum,
				Attributes: rowAttributes(&attrs), Owner: req.Put.Owner, Lock: old.Lock, Acl: req.Put.ACL,
			}
			o = object(b.ID, key, m, ch.cur.extents)
			o.Modified = ch.at
			foretell(b, &o)
			if err := ch.rewrite(m); err != nil {
				return err
			}
			return ch.tell(ctx, notify.Copy, m)
		})
		if err == errNothing {
			return s.absent(ctx, b.slotOf(key), ErrNoSuchKey)
		}
		return err
	})
	if err != nil {
		return Object{}, err
	}
	return o, nil
}

// copyContent writes the source's bytes to the destination.
func (s *Store) copyContent(ctx context.Context, req *CopyRequest, source *Object) (Object, error) {
	algorithm := req.ChecksumAlgorithm
	if algorithm == "" && source.Checksum != nil {
		algorithm = source.Checksum.Algorithm
	}
	if NewHash(algorithm) == nil {
		algorithm = CRC64NVME
	}
	r, err := s.openObject(ctx, source, 0, source.Bytes)
	if err != nil {
		return Object{}, err
	}
	defer r.Close()
	body := &copyBody{r: r, source: source, md5: md5.New(), sum: NewHash(algorithm), algorithm: algorithm}
	put := req.Put
	put.Attributes = req.attributes(source.Attributes)
	return s.putObject(ctx, &put, body, notify.Copy)
}

// copyBody is the content of the source on its way to the destination.
type copyBody struct {
	r         io.Reader
	source    *Object
	md5, sum  hash.Hash
	algorithm string
	n         uint64
}

func (c *copyBody) Bytes() int64 { return int64(c.source.Bytes) }

func (c *copyBody) Algorithm() string { return c.algorithm }

// Read hashes what it passes on. At the end the bytes must be those that the
// source's ETag was made from, or the copy fails as Corrupt.
func (c *copyBody) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += uint64(n)
	c.md5.Write(p[:n])
	c.sum.Write(p[:n])
	if err == io.EOF {
		if bad := c.check(); bad != nil {
			return n, bad
		}
	}
	return n, err
}

func (c *copyBody) check() error {
	var why error
	switch {
	case c.n != c.source.Bytes:
		why = fmt.Errorf("read %d bytes of %d", c.n, c.source.Bytes)
	case len(c.source.PartBytes) == 0 && c.source.etagOf([16]byte(c.md5.Sum(nil))) != c.source.ETag:
		why = errors.New("the content read does not have the MD5 it was stored with")
	default:
		return nil
	}
	return ashlar.E("store: copy", c.source.Key, ashlar.Corrupt, why)
}

func (c *copyBody) Sums() (sum [16]byte, check *Checksum) {
	c.md5.Sum(sum[:0])
	return sum, &Checksum{Algorithm: c.algorithm, Value: c.sum.Sum(nil)}
}
