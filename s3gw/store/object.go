package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/store/row"
)

// readAttempts bounds how often a read is sent again with a newer map.
const (
	readAttempts = 4
	readPause    = 20 * time.Millisecond
)

// PutObject stores the body as the object's new content. It reads the body to
// its end, and stores nothing unless that end is io.EOF. The conditions
// IfMatch and IfNoneMatch are judged at the commit; a first look before the
// body is read saves the transfer where they fail already.
// Errors: ErrNoSuchBucket, ErrPreconditionFailed, ErrNoSuchKey (IfMatch without
// an object), ErrEntityTooLarge, ErrConflict, the body's own; kinds besides:
// Full, Unavailable (it may have been stored or not), Invalid.
func (s *Store) PutObject(ctx context.Context, req *PutRequest, body Body) (Object, error) {
	name := notify.Put
	if req.Posted {
		name = notify.Post
	}
	o, err := s.putObject(ctx, req, body, name)
	return o, fail("put object", named(req.Bucket, req.Key), err)
}

// putObject is PutObject, told under the given name.
func (s *Store) putObject(ctx context.Context, req *PutRequest, body Body, name string) (Object, error) {
	if err := checkKey(req.Key); err != nil {
		return Object{}, err
	}
	b, err := s.foresee(ctx, req.Bucket, req.Key, req.Conditions)
	if err != nil {
		return Object{}, err
	}
	if !req.Lock.empty() {
		if b, err = s.lockable(ctx, req.Bucket, req.Lock); err != nil {
			return Object{}, err
		}
	}
	enc, data, err := s.newEncryption(ctx, b, req.Key, req.Encryption)
	if err != nil {
		return Object{}, err
	}
	r, err := s.receive(ctx, b, req.Key, 0, body, PutBytesMax, data)
	if err != nil {
		return Object{}, err
	}
	m := &row.Object{
		Bytes: r.bytes, EtagMd5: maskedMD5(enc, data, r.md5), Encryption: enc, Checksum: rowChecksum(r.sum),
		Attributes: rowAttributes(&req.Attributes), Owner: req.Owner, Lock: rowLock(req.Lock), Acl: req.ACL,
	}
	mutate := s.mutateNew
	if len(req.Conditions.IfMatch) > 0 {
		mutate = s.mutate
	}
	err = mutate(ctx, b, req.Key, func(ch *change) error {
		if err := judgeWrite(req.Conditions, ch.cur.live(), ch.cur.etag()); err != nil {
			return err
		}
		if err := r.fresh(); err != nil {
			return err
		}
		if err := ch.put(ctx, m, r.extents, nil, r.salt); err != nil {
			return err
		}
		return ch.tell(ctx, name, m)
	})
	if err != nil {
		s.release(ctx, b, req.Key, r.extents, err)
		return Object{}, err
	}
	o := object(b.ID, req.Key, m, r.extents)
	o.Version = writtenVersion(m)
	foretell(b, &o)
	return o, nil
}

// foresee finds the bucket of a write and judges the write's conditions before
// its body is read.
func (s *Store) foresee(ctx context.Context, bucketName, key string, c Conditions) (found *bucket, err error) {
	if len(c.IfMatch)+len(c.IfNoneMatch) == 0 {
		return s.lookup(ctx, bucketName)
	}
	err = s.reading(ctx, bucketName, ErrNoSuchKey, func(b *bucket) error {
		sl := b.slotOf(key)
		cur, err := s.current(ctx, sl, key)
		if err != nil {
			return err
		}
		if !cur.live() && len(c.IfMatch) > 0 {
			return s.absent(ctx, sl, ErrNoSuchKey)
		}
		found = b
		return judgeWrite(c, cur.live(), cur.etag())
	})
	return found, err
}

// writtenVersion is the version that a writer is told: S3 is silent about the
// null version.
func writtenVersion(m *row.Object) string {
	if m.NullVersion {
		return ""
	}
	return versionOf(m)
}

// HeadObject returns a version of the object under the key, with its extents;
// an empty version means the current one. Errors: ErrNoSuchBucket,
// ErrNoSuchKey, ErrNoSuchVersion, *MarkerError; kinds besides: Unavailable,
// Corrupt.
func (s *Store) HeadObject(ctx context.Context, bucketName, key, version string) (Object, error) {
	o, err := s.headObject(ctx, bucketName, key, version)
	return o, fail("head object", named(bucketName, key), err)
}

func (s *Store) headObject(ctx context.Context, bucketName, key, version string) (o Object, err error) {
	if err := checkKey(key); err != nil {
		return o, err
	}
	missing := ErrNoSuchKey
	if version != "" {
		missing = ErrNoSuchVersion
	}
	err = s.readingAt(ctx, bucketName, missing, func(ctx context.Context, b *bucket) error {
		sl := b.slotOf(key)
		found, err := s.find(ctx, sl, key, version)
		if err != nil {
			return err
		}
		if found.row == nil {
			return s.absent(ctx, sl, missing)
		}
		if found.row.DeleteMarker {
			return &MarkerError{Version: versionOf(found.row), Modified: fromNS(found.row.ModifiedNs), Named: version != ""}
		}
		o = object(b.ID, key, found.row, found.extents)
		o.Version = versionIn(b.rec.Versioning, found.row)
		o.PartSums = partSums(&o, found.sums)
		o.sealing = sealing{sealed: found.row.Encryption.GetSealed(), salts: found.salts}
		if version == "" {
			foretell(b, &o)
		}
		return nil
	})
	return o, err
}

// OpenObject streams length bytes from off of an object that HeadObject
// returned; the range must lie within it. The caller closes the reader. The
// content stays readable for the trash worker's grace after the object was
// replaced or deleted.
func (s *Store) OpenObject(ctx context.Context, o *Object, off, length uint64) (io.ReadCloser, error) {
	r, err := s.openObject(ctx, o, off, length)
	return r, fail("open object", fmt.Sprintf("bucket=%s key=%q", o.Bucket, o.Key), err)
}

func (s *Store) openObject(ctx context.Context, o *Object, off, length uint64) (io.ReadCloser, error) {
	if off > o.Bytes || length > o.Bytes-off {
		return nil, invalid("bytes %d+%d of an object of %d", off, length, o.Bytes)
	}
	if o.Encryption != nil {
		return s.openSealed(ctx, o, off, length)
	}
	if length == 0 {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	extents, off := overlapping(o.Extents, off, length)
	return s.readExtents(ctx, o, extents, off, length)
}

// readExtents streams bytes of extents as they are stored.
func (s *Store) readExtents(ctx context.Context, o *Object, extents []ashlar.Extent, off, length uint64) (io.ReadCloser, error) {
	for n := 0; ; n++ {
		m, err := s.formed()
		if err != nil {
			return nil, err
		}
		r, err := s.stripes.ReadStripes(ctx, wire.ReadRequest{
			Bucket: o.Bucket, Key: o.Key, Extents: extents, Off: off, Length: length, Epoch: m.Epoch,
		})
		if !ashlar.Is(err, ashlar.Stale) || n == readAttempts-1 {
			return r, err
		}
		select { // the newer map is on its way
		case <-ctx.Done():
			return nil, err
		case <-time.After(readPause << n):
		}
	}
}

// overlapping returns the extents that hold bytes of the range, and the
// range's offset in their concatenation. A manifest of 10,000 parts need not
// travel for one of them.
func overlapping(extents []ashlar.Extent, off, length uint64) ([]ashlar.Extent, uint64) {
	first, at := 0, uint64(0)
	for first < len(extents) && at+extents[first].Bytes <= off {
		at += extents[first].Bytes
		first++
	}
	last, end := first, at
	for last < len(extents) && end < off+length {
		end += extents[last].Bytes
		last++
	}
	return extents[first:last], off - at
}

// DeleteObject deletes the object under the key: for good in a bucket that
// never had versioning, and by a delete marker on top otherwise. With a version
// it deletes that version for good. Without IfMatch it succeeds if there is
// nothing to delete. Errors: ErrNoSuchBucket, ErrNoSuchKey (IfMatch without an
// object), ErrPreconditionFailed, ErrLocked, ErrConflict; kinds besides: Unavailable
// (done or not), Invalid.
func (s *Store) DeleteObject(ctx context.Context, bucketName, key, version, owner string, cond Conditions) (Deleted, error) {
	d, err := s.deleteObject(ctx, bucketName, key, version, owner, cond)
	return d, fail("delete object", named(bucketName, key), err)
}

func (s *Store) deleteObject(ctx context.Context, bucketName, key, version, owner string, cond Conditions) (d Deleted, err error) {
	if err := checkKey(key); err != nil {
		return d, err
	}
	missing := judgeWrite(cond, false, "")
	if version != "" {
		missing = nil
	}
	err = s.reading(ctx, bucketName, missing, func(b *bucket) error {
		err := s.mutate(ctx, b, key, func(ch *change) (err error) {
			ch.bypass = cond.Bypass
			if version != "" {
				d, err = ch.deleteVersion(ctx, version, cond)
				return err
			}
			if err := judgeWrite(cond, ch.cur.live(), ch.cur.etag()); err != nil {
				return err
			}
			if err := judgeDelete(cond, ch.cur.row); err != nil {
				return err
			}
			d, err = ch.deleteCurrent(ctx, owner)
			return err
		})
		if err == errNothing || err == ErrNoSuchKey {
			d = Deleted{}
			return s.absent(ctx, b.slotOf(key), missing)
		}
		return err
	})
	return d, err
}
