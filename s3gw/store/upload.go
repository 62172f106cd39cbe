package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash"
	"strings"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/store/row"
)

func uploadSubject(bucket, key, id string) string { return named(bucket, key) + " upload=" + id }

// CreateUpload starts a multipart upload and returns its id. Of up it takes
// Bucket, Key, Owner, Attributes, Lock, ChecksumAlgorithm and Composite; SHA
// algorithms are composite only, CRC64NVME never is. Errors: ErrNoSuchBucket,
// ErrNoObjectLock. It sets Started, Aborts and AbortRule.
func (s *Store) CreateUpload(ctx context.Context, up *Upload) (id string, err error) {
	for n := range attemptsMax {
		id, err = s.createUpload(ctx, up)
		// The bucket was made again meanwhile; nothing was written, so start over.
		if !errors.Is(err, ErrConflict) || !pause(ctx, n) {
			break
		}
	}
	return id, fail("create upload", named(up.Bucket, up.Key), err)
}

// IsUploadID reports whether an id has the form of those that CreateUpload makes.
func IsUploadID(id string) bool {
	_, ok := row.ParseVersionID(id)
	return ok
}

// FirstUpload is a marker before all uploads of a key.
var FirstUpload = row.VersionID{}.String()

func (s *Store) createUpload(ctx context.Context, up *Upload) (string, error) {
	if err := checkKey(up.Key); err != nil {
		return "", err
	}
	if !checksumFits(up.ChecksumAlgorithm, up.Composite) {
		return "", invalid("checksum algorithm %q, composite %t", up.ChecksumAlgorithm, up.Composite)
	}
	b, err := s.lockable(ctx, up.Bucket, up.Lock)
	if err != nil {
		return "", err
	}
	now := s.now()
	id := row.NewVersionID(now)
	sl := b.slotOf(up.Key)
	life, err := s.rulesOf(ctx, b, sl)
	if err != nil {
		return "", err
	}
	enc, _, err := s.newEncryption(ctx, b, up.Key, up.Encryption)
	if err != nil {
		return "", err
	}
	m := &row.Upload{
		Encryption: enc,
		Format:     row.Format, StartedNs: now.UnixNano(), Owner: up.Owner,
		Attributes: rowAttributes(&up.Attributes), ChecksumAlgorithm: up.ChecksumAlgorithm, Composite: up.Composite,
		Lock: rowLock(up.Lock), Acl: up.ACL,
	}
	for n := range attemptsMax {
		txn := &meta.Txn{
			Conds: []meta.Cond{{Key: sl.Header(row.KindOpen), Kind: meta.CondExists}, life.cond(sl)},
			Adds:  []meta.Add{{Key: sl.Counter(row.CountUploads), Delta: 1}},
		}
		if err := s.planUpload(txn, sl, up.Key, id, m, life); err != nil {
			return "", err
		}
		err := s.commit(ctx, sl.shard, txn)
		at, _, refused := conditionAt(err)
		switch {
		case !refused:
			up.Started, up.Encryption = now, encryption(enc)
			foretellAbort(b, up)
			return id.String(), err
		case at == condOpen:
			err = s.revive(ctx, b)
		default:
			life, err = s.readRules(ctx, sl)
		}
		if err != nil {
			return "", err
		}
		pause(ctx, n)
	}
	return "", ErrConflict
}

// openUpload is an upload that was found, with the version of its row.
type openUpload struct {
	Upload
	id      row.VersionID
	sl      slot
	version uint64
	due     int64 // of its agenda row; 0: it has none
	enc     *row.Encryption
}

// findUpload returns the open upload, or ErrNoSuchUpload.
func (s *Store) findUpload(ctx context.Context, b *bucket, key, uploadID string) (*openUpload, error) {
	id, ok := row.ParseVersionID(uploadID)
	if !ok || checkKey(key) != nil {
		return nil, ErrNoSuchUpload
	}
	sl := b.slotOf(key)
	r, err := s.get(ctx, sl.shard, sl.Upload(key, id))
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, s.absent(ctx, sl, ErrNoSuchUpload)
	}
	var m row.Upload
	if err := row.Decode(r.Key, r.Value, &m); err != nil {
		return nil, err
	}
	return &openUpload{Upload: upload(b.Name, key, id, &m), id: id, sl: sl, version: r.Version, due: m.DueNs, enc: m.Encryption}, nil
}

// withUpload runs fn on an open upload of the right incarnation of the bucket.
func (s *Store) withUpload(ctx context.Context, bucketName, key, uploadID string, fn func(*bucket, *openUpload) error) error {
	return s.reading(ctx, bucketName, ErrNoSuchUpload, func(b *bucket) error {
		up, err := s.findUpload(ctx, b, key, uploadID)
		if err != nil {
			return err
		}
		return fn(b, up)
	})
}

// PutPart stores a part of an open upload; a part of the same number is
// replaced. Number is 1 to PartsMax. If the upload has a checksum algorithm
// and the body a checksum of another one, the call is Invalid. If the body has none, the
// part gets one all the same, but not for a composite upload, which is Invalid too. Errors:
// ErrNoSuchBucket, ErrNoSuchUpload, ErrEntityTooLarge, the body's own; kinds
// besides: Full, Unavailable, Invalid.
func (s *Store) PutPart(ctx context.Context, bucketName, key, uploadID string, number int, body Body) (Part, error) {
	return s.PutPartWith(ctx, bucketName, key, uploadID, number, nil, body)
}

// PutPartWith is PutPart for an upload that is encrypted with the customer's
// key. Errors: also ErrCustomerKey.
func (s *Store) PutPartWith(ctx context.Context, bucketName, key, uploadID string, number int, customerKey []byte, body Body) (Part, error) {
	var p Part
	err := s.withUpload(ctx, bucketName, key, uploadID, func(b *bucket, up *openUpload) (err error) {
		p, err = s.putPart(ctx, b, up, number, customerKey, body)
		return err
	})
	return p, fail("put part", fmt.Sprintf("%s part=%d", uploadSubject(bucketName, key, uploadID), number), err)
}

func (s *Store) putPart(ctx context.Context, b *bucket, up *openUpload, number int, customerKey []byte, body Body) (Part, error) {
	if number < 1 || number > PartsMax {
		return Part{}, errBadPart
	}
	data, err := s.uploadKey(ctx, b, up, customerKey)
	if err != nil {
		return Part{}, err
	}
	algorithm := cmp.Or(up.ChecksumAlgorithm, defaultChecksum)
	var own hash.Hash // nil if the body has that checksum, or the client must send it
	if !up.Composite && body.Algorithm() != algorithm {
		own = NewHash(algorithm)
		body = &summed{body, own}
	}
	r, err := s.receive(ctx, b, up.Key, uint32(number), body, PartBytesMax, data)
	if err != nil {
		return Part{}, err
	}
	if got := algorithmOf(r.sum); up.ChecksumAlgorithm != got && up.ChecksumAlgorithm != "" && (got != "" || up.Composite) {
		s.discard(ctx, b, up.Key, r.extents)
		return Part{}, invalid("%w", &ChecksumTypeError{Want: up.ChecksumAlgorithm, Got: got})
	}
	sum := r.sum
	if own != nil {
		sum = &Checksum{Algorithm: algorithm, Value: own.Sum(nil)}
	}
	if up.ChecksumAlgorithm != "" {
		r.sum = sum
	}
	m := &row.Part{
		Format: row.Format, Key: []byte(up.Key), Bytes: r.bytes, Md5: maskedMD5(up.enc, data, r.md5), Checksum: rowChecksum(r.sum),
		Extents: row.FromExtents(r.extents),
	}
	if up.ChecksumAlgorithm == "" {
		m.Crc64Nvme = sum.Value
	}
	if m.Extents != nil {
		m.Extents.Salts = r.salt
	}
	err = r.fresh()
	if err == nil {
		err = s.commitPart(ctx, b, up, uint16(number), m)
	}
	if err != nil {
		s.release(ctx, b, up.Key, r.extents, err)
		return Part{}, err
	}
	p := part(number, m)
	p.Encryption = encryption(up.enc)
	return p, nil
}

// defaultChecksum is that of an object of parts whose upload asked for none.
const defaultChecksum = CRC64NVME

// summed is a body that is hashed besides what its client asked for.
type summed struct {
	Body
	hash hash.Hash
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.Body.Read(p)
	s.hash.Write(p[:n])
	return n, err
}

// commitPart puts the part's row in place of an older one.
func (s *Store) commitPart(ctx context.Context, b *bucket, up *openUpload, number uint16, m *row.Part) error {
	key := up.sl.Part(up.id, number)
	for n := range attemptsMax {
		old, err := s.get(ctx, up.sl.shard, key)
		if err != nil {
			return err
		}
		now := s.now()
		m.ModifiedNs = now.UnixNano()
		value, err := row.Encode(m)
		if err != nil {
			return err
		}
		txn := &meta.Txn{
			Conds: []meta.Cond{{Key: up.sl.Upload(up.Key, up.id), Kind: meta.CondExists}, {Key: key, Kind: meta.CondAbsent}},
			Puts:  []meta.Put{{Key: key, Value: value}},
		}
		delta := int64(m.Bytes)
		if old != nil {
			txn.Conds[1] = meta.Cond{Key: key, Kind: meta.CondVersion, Version: old.Version}
			was, err := decodePart(old)
			if err != nil {
				return err
			}
			delta -= int64(was.row.Bytes)
			if err := throwAway(txn, up.sl, up.Key, was.extents, now); err != nil {
				return err
			}
		}
		if delta != 0 {
			txn.Adds = []meta.Add{{Key: up.sl.Counter(row.CountPartBytes), Delta: delta}}
		}
		quota := s.limited.hold(txn, up.sl)
		err = s.commit(ctx, up.sl.shard, txn)
		at, _, refused := conditionAt(err)
		switch {
		case !refused:
			return err
		case at == 0:
			return ErrNoSuchUpload
		case at == quota:
			if err := s.refused(ctx, b, up.sl, txn); err != nil {
				return err
			}
		}
		if !pause(ctx, n) {
			break
		}
	}
	return ErrConflict
}

// storedPart is a part row that was read.
type storedPart struct {
	Part
	row     *row.Part
	extents []ashlar.Extent
	key     []byte
	version uint64
}

func decodePart(r *meta.Row) (storedPart, error) {
	_, number, ok := row.PartNumber(r.Key)
	if !ok {
		return storedPart{}, invalid("row key %x is not that of a part", r.Key)
	}
	p := storedPart{row: &row.Part{}, key: r.Key, version: r.Version}
	if err := row.Decode(r.Key, r.Value, p.row); err != nil {
		return p, err
	}
	var err error
	p.extents, err = p.row.Extents.List()
	p.Part = part(number, p.row)
	return p, err
}

// ListParts returns the upload and at most max of its parts with numbers
// greater than after, in order, and whether there are more. With a max below 1
// it returns the upload only. Errors: ErrNoSuchBucket, ErrNoSuchUpload.
func (s *Store) ListParts(ctx context.Context, bucketName, key, uploadID string, after, max int) (up Upload, parts []Part, truncated bool, err error) {
	err = s.withUpload(ctx, bucketName, key, uploadID, func(b *bucket, found *openUpload) error {
		up = found.Upload
		foretellAbort(b, &up)
		parts, truncated, err = s.listParts(ctx, found, after, min(max, ListMax))
		return err
	})
	return up, parts, truncated, fail("list parts", uploadSubject(bucketName, key, uploadID), err)
}

func (s *Store) listParts(ctx context.Context, up *openUpload, after, limit int) (parts []Part, truncated bool, err error) {
	if limit < 1 || after >= PartsMax {
		return nil, false, nil
	}
	err = s.eachPart(ctx, up.sl, up.id, after, limit+1, func(p storedPart) bool {
		if len(parts) == limit {
			truncated = true
			return false
		}
		parts = append(parts, p.Part)
		return true
	})
	return parts, truncated, err
}

// eachPart calls fn for the part rows of an upload with numbers above after,
// in order, until fn returns false. It reads pageRows at a time.
func (s *Store) eachPart(ctx context.Context, sl slot, id row.VersionID, after, pageRows int, fn func(storedPart) bool) error {
	start, end := sl.Part(id, uint16(max(after, 0))+1), row.Successor(sl.Parts(id))
	for start != nil {
		page, err := s.scan(ctx, sl.shard, meta.ScanRequest{Start: start, End: end, Limit: pageRows})
		if err != nil {
			return err
		}
		for i := range page.Rows {
			p, err := decodePart(&page.Rows[i])
			if err != nil {
				return err
			}
			if !fn(p) {
				return nil
			}
		}
		start = page.Next
	}
	return nil
}

// ListUploads returns at most max open uploads and common prefixes, in order
// of key and, under one key, of the time of their start. It begins behind the
// upload idAfter of the key keyAfter; without idAfter behind all uploads of
// keyAfter, or behind the common prefix that keyAfter names. Errors:
// ErrNoSuchBucket.
func (s *Store) ListUploads(ctx context.Context, bucketName, prefix, delimiter, keyAfter, idAfter string, max int) (ups []Upload, prefixes []string, truncated bool, err error) {
	err = s.reading(ctx, bucketName, nil, func(b *bucket) error {
		ups, prefixes, truncated = nil, nil, false
		limit := min(max, ListMax)
		w := newWalk(row.KindUpload, prefix, delimiter, b, limit)
		if limit < 1 || w == nil {
			return s.absent(ctx, b.slot(0), nil)
		}
		w.startAfter(keyAfter)
		if id, ok := row.ParseVersionID(idAfter); ok && keyAfter != "" && strings.IndexByte(keyAfter, 0) < 0 {
			if _, common := w.delimited(keyAfter); !common {
				w.from = append(append(append([]byte(keyAfter), 0), id[:]...), 0)
			}
		}
		var bad error
		err := s.list(ctx, b, w, func(e entry) bool {
			if len(ups)+len(prefixes) == limit {
				truncated = true
				return false
			}
			if e.prefix {
				prefixes = append(prefixes, e.name)
				return true
			}
			var up Upload
			if up, bad = decodeUpload(b.Name, e); bad != nil {
				return false
			}
			ups = append(ups, up)
			return true
		})
		if bad != nil {
			return bad
		}
		if err == nil && len(ups)+len(prefixes) == 0 {
			return s.absent(ctx, b.slot(0), nil)
		}
		return err
	})
	return ups, prefixes, truncated, fail("list uploads", bucketName, err)
}

func decodeUpload(bucketName string, e entry) (Upload, error) {
	var id row.VersionID
	if copy(id[:], e.suffix) != len(id) || len(e.suffix) != len(id) {
		return Upload{}, invalid("row key %x is not that of an upload", e.row.Key)
	}
	var m row.Upload
	if err := row.Decode(e.row.Key, e.row.Value, &m); err != nil {
		return Upload{}, err
	}
	return upload(bucketName, e.name, id, &m), nil
}
