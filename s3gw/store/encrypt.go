package store

import (
	"bytes"
	"context"
	"errors"
	"io"

	"ashlar"
	"ashlar/s3gw/sse"
	"ashlar/s3gw/store/row"
)

// EncryptionMode is a form of server-side encryption, in S3's words where it has
// one.
type EncryptionMode string

// The modes of encryption.
const (
	SSEC   EncryptionMode = "SSE-C"
	SSES3  EncryptionMode = "AES256"
	SSEKMS EncryptionMode = "aws:kms"
)

// Encryption says how content is encrypted.
type Encryption struct {
	Mode EncryptionMode
	// KeyID names the key of SSE-KMS. In a request it may be empty: the default.
	KeyID string
	// CustomerKey is the key of SSE-C, 32 bytes; in requests only.
	CustomerKey []byte
}

// Keys seals and opens data keys with keys that have names. An empty name means
// the current key of SSE-S3 or the default of SSE-KMS. A name that is not known
// is ErrNoSuchEncryptionKey.
type Keys interface {
	Seal(ctx context.Context, mode EncryptionMode, name string, data sse.Key, aad []byte) (used string, sealed []byte, err error)
	Open(ctx context.Context, mode EncryptionMode, name string, sealed, aad []byte) (sse.Key, error)
}

// sealing is what opens the content of an object.
type sealing struct {
	sealed, salts []byte
	data          *sse.Key // once it was opened
}

var (
	rowEncryptions = map[EncryptionMode]row.Encryption_Mode{SSEC: row.Encryption_SSE_C, SSES3: row.Encryption_SSE_S3, SSEKMS: row.Encryption_SSE_KMS}
	encryptions    = map[row.Encryption_Mode]EncryptionMode{row.Encryption_SSE_C: SSEC, row.Encryption_SSE_S3: SSES3, row.Encryption_SSE_KMS: SSEKMS}
)

func encryption(m *row.Encryption) *Encryption {
	if m.GetMode() == row.Encryption_NONE {
		return nil
	}
	return &Encryption{Mode: encryptions[m.Mode], KeyID: m.KeyId}
}

// sealedFor binds keys and content to the place that they were made for.
func sealedFor(b ashlar.BucketID, key string) []byte { return append(b[:], key...) }

func sealedLength(n int64) int64 {
	if n < 0 {
		return n
	}
	return int64(sse.SealedBytes(uint64(n)))
}

// contentBytes is the length of the content that an extent of the object holds.
func contentBytes(m *row.Object, x ashlar.Extent) uint64 {
	if m.Encryption == nil {
		return x.Bytes
	}
	return sse.PlainBytes(x.Bytes)
}

// newEncryption makes a data key for a write that asks for encryption, or goes
// to a bucket that has a default. Both results are nil if it does neither. The
// default is that of the bucket's record, which other gateways may remember for
// up to two seconds.
func (s *Store) newEncryption(ctx context.Context, b *bucket, key string, want *Encryption) (*row.Encryption, *sse.Key, error) {
	if want == nil {
		want = b.Encryption
	}
	if want == nil {
		return nil, nil, nil
	}
	data := sse.NewKey()
	m := &row.Encryption{Mode: rowEncryptions[want.Mode]}
	aad := sealedFor(b.ID, key)
	if want.Mode == SSEC {
		if len(want.CustomerKey) != len(data) {
			return nil, nil, ErrCustomerKey
		}
		m.Sealed = sse.SealKey(sse.Key(want.CustomerKey), data, aad)
		return m, &data, nil
	}
	if s.keys == nil {
		return nil, nil, ErrNoSuchEncryptionKey
	}
	var err error
	m.KeyId, m.Sealed, err = s.keys.Seal(ctx, want.Mode, want.KeyID, data, aad)
	return m, &data, err
}

// openKey opens the data key of an object or upload.
func (s *Store) openKey(ctx context.Context, mode EncryptionMode, keyID string, sealed, aad, customerKey []byte) (*sse.Key, error) {
	if mode == SSEC {
		if len(customerKey) != len(sse.Key{}) {
			return nil, ErrCustomerKey
		}
		data, err := sse.OpenKey(sse.Key(customerKey), sealed, aad)
		if err != nil {
			return nil, ErrCustomerKey
		}
		return &data, nil
	}
	if customerKey != nil {
		return nil, ErrCustomerKey
	}
	if s.keys == nil {
		return nil, ErrNoSuchEncryptionKey
	}
	data, err := s.keys.Open(ctx, mode, keyID, sealed, aad)
	if errors.Is(err, sse.ErrKey) {
		err = ashlar.E("store: encryption", keyID, ashlar.Corrupt, err)
	}
	return &data, err
}

// uploadKey opens the data key of an upload, nil if it is not encrypted.
func (s *Store) uploadKey(ctx context.Context, b *bucket, up *openUpload, customerKey []byte) (*sse.Key, error) {
	if up.enc == nil {
		if customerKey != nil {
			return nil, ErrCustomerKey
		}
		return nil, nil
	}
	return s.openKey(ctx, encryptions[up.enc.Mode], up.enc.KeyId, up.enc.Sealed, sealedFor(b.ID, up.Key), customerKey)
}

// Unlock checks the customer's key of an object that HeadObject returned, and
// lets OpenObject read it. The key is nil where the client gave none. Errors:
// ErrCustomerKey.
func (s *Store) Unlock(ctx context.Context, o *Object, customerKey []byte) error {
	return fail("unlock", o.Key, s.unlock(ctx, o, customerKey))
}

func (s *Store) unlock(ctx context.Context, o *Object, customerKey []byte) (err error) {
	if o.Encryption == nil {
		if customerKey != nil {
			return ErrCustomerKey
		}
		return nil
	}
	if o.Encryption.Mode != SSEC && customerKey == nil {
		return nil // opened when it is read
	}
	o.sealing.data, err = s.openKey(ctx, o.Encryption.Mode, o.Encryption.KeyID, o.sealing.sealed, sealedFor(o.Bucket, o.Key), customerKey)
	return err
}

// masks reports whether the ETag must not tell the MD5 of the content.
func masks(mode EncryptionMode) bool { return mode == SSEC || mode == SSEKMS }

func maskedMD5(m *row.Encryption, data *sse.Key, md5 [16]byte) []byte {
	if m == nil || !masks(encryptions[m.Mode]) {
		return md5[:]
	}
	return sse.Mask(*data, md5[:])
}

// etagOf returns the ETag that content of this MD5 has in the object.
func (o *Object) etagOf(md5 [16]byte) string {
	if o.Encryption != nil && o.sealing.data != nil && masks(o.Encryption.Mode) {
		return etag(sse.Mask(*o.sealing.data, md5[:]), 0)
	}
	return etag(md5[:], 0)
}

// salt is the salt of a stored part; one without bytes needs none.
func (p *storedPart) salt() []byte {
	if s := p.row.Extents.GetSalts(); len(s) == sse.SaltBytes {
		return s
	}
	return make([]byte, sse.SaltBytes)
}

// openSealed streams a range of an encrypted object.
func (s *Store) openSealed(ctx context.Context, o *Object, off, length uint64) (io.ReadCloser, error) {
	if o.sealing.data == nil {
		var err error
		if o.sealing.data, err = s.openKey(ctx, o.Encryption.Mode, o.Encryption.KeyID, o.sealing.sealed, sealedFor(o.Bucket, o.Key), nil); err != nil {
			return nil, err
		}
	}
	if length == 0 { // the key is open nevertheless: the ETag of nothing is made with it too
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	if len(o.sealing.salts) != len(o.Extents)*sse.SaltBytes {
		return nil, ashlar.E("store: encryption", o.Key, ashlar.Corrupt, errors.New("salts and extents differ in number"))
	}
	r := &sealedReader{s: s, ctx: ctx, o: o, off: off, left: length}
	if err := r.open(); err != nil { // so that what cannot be read is an error, and no broken answer
		return nil, err
	}
	return r, nil
}

// sealedReader reads a range over the extents of an encrypted object, one after
// the other: each is a stream of its own.
type sealedReader struct {
	s    *Store
	ctx  context.Context
	o    *Object
	next int    // the extent to open
	off  uint64 // of the range, in what is left from there on
	left uint64
	cur  io.ReadCloser
	n    uint64 // that cur has still to give
}

// open opens the next extent that holds bytes of the range.
func (r *sealedReader) open() error {
	for ; r.next < len(r.o.Extents); r.next++ {
		x := r.o.Extents[r.next]
		n := sse.PlainBytes(x.Bytes)
		if r.off >= n {
			r.off -= n
			continue
		}
		r.n = min(n-r.off, r.left)
		span := sse.SpanOf(x.Bytes, r.off, r.n)
		src, err := r.s.readExtents(r.ctx, r.o, r.o.Extents[r.next:r.next+1], span.Off, span.Length)
		if err != nil {
			return err
		}
		salt := r.o.sealing.salts[r.next*sse.SaltBytes:][:sse.SaltBytes]
		r.cur = sse.NewOpener(src, span, *r.o.sealing.data, salt, sealedFor(r.o.Bucket, r.o.Key))
		r.off = 0
		r.next++
		return nil
	}
	return io.ErrUnexpectedEOF
}

func (r *sealedReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if r.n == 0 {
		r.cur.Close()
		if err := r.open(); err != nil {
			r.cur = nil
			return 0, err
		}
	}
	n, err := r.cur.Read(p[:min(uint64(len(p)), r.n)])
	r.n -= uint64(n)
	r.left -= uint64(n)
	switch {
	case errors.Is(err, sse.ErrContent):
		err = ashlar.E("store: encryption", r.o.Key, ashlar.Corrupt, err)
	case err == io.EOF && r.n > 0:
		err = io.ErrUnexpectedEOF
	case err == io.EOF:
		err = nil
	}
	return n, err
}

func (r *sealedReader) Close() error {
	if r.cur == nil {
		return nil
	}
	return r.cur.Close()
}

// SetEncryption sets the encryption of objects that ask for none; nil removes
// it. Other gateways follow within two seconds. Errors: ErrNoSuchBucket.
func (s *Store) SetEncryption(ctx context.Context, name string, e *Encryption) error {
	return fail("set encryption", name, s.changeBucket(ctx, name, func(_ *bucket, rec *row.Bucket) error {
		rec.DefaultEncryption = nil
		if e != nil {
			rec.DefaultEncryption = &row.Encryption{Mode: rowEncryptions[e.Mode], KeyId: e.KeyID}
		}
		return nil
	}))
}
