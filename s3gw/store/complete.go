package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"slices"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/store/row"
)

const (
	// doneKeep is how long it is remembered how an upload ended.
	doneKeep = 24 * time.Hour
	// sweepRows bounds the rows of one clean-up transaction.
	sweepRows = 500
	// One in tidyEvery uploads that end looks for up to tidyRows memories that
	// are older than doneKeep.
	tidyEvery = 8
	tidyRows  = 64
)

// CompleteUpload makes the listed parts, in ascending order, the object's new
// content in one transaction, and throws the other parts away. The conditions
// are judged at that transaction. Repeated after a success, it returns the same
// object again while the upload is remembered (doneKeep).
//
// A checksum given for a part must be that of the stored part; sum, if not
// nil, must be that of the object, which is computed from those of the parts.
// Errors: ErrNoSuchBucket, ErrNoSuchUpload, ErrInvalidPart,
// ErrInvalidPartOrder, ErrEntityTooSmall, ErrEntityTooLarge, ErrBadDigest,
// ErrPreconditionFailed, ErrNoSuchKey (IfMatch without an object), ErrConflict, ErrCustomerKey;
// kinds besides: Unavailable (it may be repeated), Invalid.
func (s *Store) CompleteUpload(ctx context.Context, bucketName, key, uploadID string, parts []CompletePart, sum *Checksum, cond Conditions) (o Object, err error) {
	err = checkList(parts)
	if err == nil {
		err = s.reading(ctx, bucketName, ErrNoSuchUpload, func(b *bucket) error {
			o, err = s.completeUpload(ctx, b, key, uploadID, parts, sum, cond)
			return err
		})
	}
	return o, fail("complete upload", uploadSubject(bucketName, key, uploadID), err)
}

func checkList(parts []CompletePart) error {
	if len(parts) == 0 || len(parts) > PartsMax {
		return invalid("%d parts: want 1 to %d", len(parts), PartsMax)
	}
	for i, p := range parts {
		if p.Number < 1 || p.Number > PartsMax {
			return ErrInvalidPart
		}
		if i > 0 && p.Number <= parts[i-1].Number {
			return ErrInvalidPartOrder
		}
	}
	return nil
}

func (s *Store) completeUpload(ctx context.Context, b *bucket, key, uploadID string, parts []CompletePart, sum *Checksum, cond Conditions) (Object, error) {
	for n := range attemptsMax {
		up, err := s.findUpload(ctx, b, key, uploadID)
		if err == ErrNoSuchUpload || err == errGone {
			return s.recall(ctx, b, key, uploadID, err)
		}
		if err != nil {
			return Object{}, err
		}
		a, err := s.assemble(ctx, up, parts, sum)
		if err == ErrInvalidPart { // not if the upload has ended meanwhile, and its parts with it
			if _, gone := s.findUpload(ctx, b, key, uploadID); gone == ErrNoSuchUpload || gone == errGone {
				return s.recall(ctx, b, key, uploadID, gone)
			}
		}
		if err != nil {
			return Object{}, err
		}
		if cond.CustomerKey != nil || up.enc.GetMode() == row.Encryption_SSE_C && a.checked() && !cond.KeyOptional {
			if _, err := s.uploadKey(ctx, b, up, cond.CustomerKey); err != nil {
				return Object{}, err
			}
		}
		o, err := s.commitUpload(ctx, b, a, cond)
		if _, _, disturbed := conditionAt(err); !disturbed {
			if err == nil {
				s.afterUpload(ctx, up)
			}
			return o, err
		}
		if !pause(ctx, n) {
			break
		}
	}
	return Object{}, ErrConflict
}

// recall answers a repeated Complete from the memory of how the upload ended,
// or with notFound.
func (s *Store) recall(ctx context.Context, b *bucket, key, uploadID string, notFound error) (Object, error) {
	id, ok := row.ParseVersionID(uploadID)
	if !ok || checkKey(key) != nil {
		return Object{}, notFound
	}
	sl := b.slotOf(key)
	r, err := s.get(ctx, sl.shard, sl.Done(id))
	if err != nil {
		return Object{}, err
	}
	if r == nil {
		return Object{}, notFound
	}
	var m row.Done
	if err := row.Decode(r.Key, r.Value, &m); err != nil {
		return Object{}, err
	}
	if m.Aborted || string(m.Key) != key || m.Object == nil {
		return Object{}, notFound
	}
	o := object(b.ID, key, m.Object, nil)
	if len(m.Object.Version) > 0 {
		o.Version = writtenVersion(m.Object)
	}
	return o, nil
}

// assembled is an upload with the parts that were chosen and what they make.
type assembled struct {
	up      *openUpload
	parts   []storedPart
	extents []ashlar.Extent
	sums    []byte // the parts' checksums, if the object has one
	salts   []byte // the parts' salts, if they are encrypted
	object  *row.Object
}

// checked reports whether the upload or one of the chosen parts has a checksum.
func (a *assembled) checked() bool {
	return a.up.ChecksumAlgorithm != "" || slices.ContainsFunc(a.parts, func(p storedPart) bool { return p.Checksum != nil })
}

// assemble reads the stored parts and checks the client's list against them.
func (s *Store) assemble(ctx context.Context, up *openUpload, list []CompletePart, sum *Checksum) (*assembled, error) {
	stored := make(map[int]storedPart, len(list))
	err := s.eachPart(ctx, up.sl, up.id, 0, meta.ScanRowsMax, func(p storedPart) bool {
		stored[p.Number] = p
		return true
	})
	if err != nil {
		return nil, err
	}
	a := &assembled{up: up, object: &row.Object{
		EtagParts: uint32(len(list)), Attributes: rowAttributes(&up.Attributes), Owner: up.Owner,
		Lock: rowLock(up.Lock), Encryption: up.enc, Acl: up.ACL,
	}}
	digests := md5.New()
	var plain []Part
	for i, want := range list {
		p, ok := stored[want.Number]
		if !ok || !want.names(p.Part) {
			return nil, ErrInvalidPart
		}
		if p.Bytes < PartBytesMin && i < len(list)-1 {
			return nil, ErrEntityTooSmall
		}
		a.object.Bytes += p.Bytes
		if a.object.Bytes > ObjectBytesMax {
			return nil, ErrEntityTooLarge
		}
		digests.Write(p.row.Md5)
		a.parts = append(a.parts, p)
		if up.ChecksumAlgorithm == "" { // the object has its own, whatever the clients of its parts sent
			p.Checksum = &Checksum{Algorithm: defaultChecksum, Value: p.row.Crc64Nvme}
		}
		plain = append(plain, p.Part)
		a.extents = append(a.extents, p.extent())
		if up.enc != nil {
			a.salts = append(a.salts, p.salt()...)
		}
	}
	a.object.EtagMd5 = digests.Sum(nil)
	joined := joinChecksums(cmp.Or(up.ChecksumAlgorithm, defaultChecksum), up.Composite, plain)
	if sum != nil && (joined == nil || joined.Algorithm != sum.Algorithm || !bytes.Equal(joined.Value, sum.Value)) {
		return nil, ErrBadDigest
	}
	a.object.Checksum = rowChecksum(joined)
	if joined != nil && up.ChecksumAlgorithm != "" {
		for i := range plain {
			a.sums = append(a.sums, plain[i].Checksum.Value...)
		}
	}
	return a, nil
}

// names reports whether the client's line means this stored part.
func (c *CompletePart) names(p Part) bool {
	if c.ETag != p.ETag {
		return false
	}
	return c.Checksum == nil || (p.Checksum != nil && c.Checksum.Algorithm == p.Checksum.Algorithm &&
		bytes.Equal(c.Checksum.Value, p.Checksum.Value))
}

// extent is the part's extent; an empty part has one too, so that extents and
// parts of an object correspond.
func (p *storedPart) extent() ashlar.Extent {
	if len(p.extents) == 0 {
		return ashlar.Extent{Part: uint32(p.Number)}
	}
	return p.extents[0]
}

// commitUpload replaces the object and ends the upload in one transaction. A
// *meta.ConditionError says that the upload or a part changed meanwhile.
func (s *Store) commitUpload(ctx context.Context, b *bucket, a *assembled, cond Conditions) (Object, error) {
	var partBytes int64
	for _, p := range a.parts {
		partBytes += int64(p.Bytes)
	}
	up := a.up
	err := s.mutate(ctx, b, up.Key, func(ch *change) error {
		if err := judgeWrite(cond, ch.cur.live(), ch.cur.etag()); err != nil {
			return err
		}
		if err := ch.put(ctx, a.object, a.extents, a.sums, a.salts); err != nil {
			return err
		}
		for _, p := range a.parts {
			ch.Conds = append(ch.Conds, meta.Cond{Key: p.key, Kind: meta.CondVersion, Version: p.version})
			ch.Deletes = append(ch.Deletes, p.key)
		}
		ch.add(row.CountPartBytes, -partBytes)
		memory := &row.Object{
			Bytes: a.object.Bytes, ModifiedNs: a.object.ModifiedNs, EtagMd5: a.object.EtagMd5,
			EtagParts: a.object.EtagParts, Checksum: a.object.Checksum, Owner: a.object.Owner,
			Version: a.object.Version, NullVersion: a.object.NullVersion, Encryption: a.object.Encryption,
		}
		if err := ch.tell(ctx, notify.Complete, a.object); err != nil {
			return err
		}
		return ch.endUpload(up, &row.Done{Object: memory})
	})
	if err != nil {
		return Object{}, err
	}
	o := object(b.ID, up.Key, a.object, a.extents)
	o.Version = writtenVersion(a.object)
	foretell(b, &o)
	return o, nil
}

// endUpload adds to a transaction that the upload is over.
func (ch *change) endUpload(up *openUpload, done *row.Done) error {
	key := up.sl.Upload(up.Key, up.id)
	ch.Conds = append(ch.Conds, meta.Cond{Key: key, Kind: meta.CondVersion, Version: up.version})
	ch.Deletes = append(ch.Deletes, key)
	if up.due != 0 {
		ch.Deletes = append(ch.Deletes, up.sl.Agenda(up.due, row.AgendaUpload, row.UploadSubject(up.Key, up.id)))
	}
	ch.add(row.CountUploads, -1)
	done.Format, done.Key, done.EndedNs = row.Format, []byte(up.Key), ch.at.UnixNano()
	return ch.store(up.sl.Done(up.id), done)
}

// AbortUpload ends an upload and throws its parts away. Errors:
// ErrNoSuchBucket, ErrNoSuchUpload; kinds besides: Unavailable (done or not).
func (s *Store) AbortUpload(ctx context.Context, bucketName, key, uploadID string) error {
	err := s.abortUpload(ctx, bucketName, key, uploadID)
	if err == errStale {
		err = ErrNoSuchUpload // somebody else ended it
	}
	return fail("abort upload", uploadSubject(bucketName, key, uploadID), err)
}

// abortUpload is AbortUpload as long as some more conditions hold; errStale says
// that the upload or they do not any more.
func (s *Store) abortUpload(ctx context.Context, bucketName, key, uploadID string, conds ...meta.Cond) error {
	return s.withUpload(ctx, bucketName, key, uploadID, func(_ *bucket, up *openUpload) error {
		ch := &change{sl: up.sl, key: up.Key, at: s.now()}
		if err := ch.endUpload(up, &row.Done{Aborted: true}); err != nil {
			return err
		}
		ch.Conds = append(ch.Conds, conds...)
		err := s.commit(ctx, up.sl.shard, &ch.Txn)
		if _, _, refused := conditionAt(err); refused {
			return errStale
		}
		if err == nil {
			s.afterUpload(ctx, up)
		}
		return err
	})
}

// afterUpload throws away the parts that an ended upload left: nobody can add
// to them any more. What fails here is done again when the upload is forgotten.
func (s *Store) afterUpload(ctx context.Context, up *openUpload) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), metaTimeout)
	defer cancel()
	err := s.sweepParts(ctx, up.sl, up.sl.Parts(up.id))
	if err == nil && up.id[len(up.id)-1]%tidyEvery == 0 {
		err = s.forget(ctx, up.sl)
	}
	if err != nil {
		s.log.Warn("store: parts of an ended upload stay until it is forgotten",
			"bucket", up.Bucket, "key", up.Key, "upload", up.ID, "err", err)
	}
}

// sweepParts moves the part rows under a prefix to the trash. Their uploads
// must have ended.
func (s *Store) sweepParts(ctx context.Context, sl slot, prefix []byte) error {
	start, end := prefix, row.Successor(prefix)
	for start != nil {
		page, err := s.scan(ctx, sl.shard, meta.ScanRequest{Start: start, End: end, Limit: sweepRows})
		if err != nil {
			return err
		}
		if err := s.sweepPage(ctx, sl, page.Rows); err != nil {
			if _, _, refused := conditionAt(err); !refused {
				return err
			}
			continue // somebody else sweeps too: read again
		}
		start = page.Next
	}
	return nil
}

func (s *Store) sweepPage(ctx context.Context, sl slot, rows []meta.Row) error {
	if len(rows) == 0 {
		return nil
	}
	txn := &meta.Txn{}
	now := s.now()
	var partBytes int64
	byKey := map[string][]ashlar.Extent{}
	for i := range rows {
		p, err := decodePart(&rows[i])
		if err != nil {
			return err
		}
		txn.Conds = append(txn.Conds, meta.Cond{Key: p.key, Kind: meta.CondVersion, Version: p.version})
		txn.Deletes = append(txn.Deletes, p.key)
		partBytes += int64(p.Bytes)
		byKey[string(p.row.Key)] = append(byKey[string(p.row.Key)], p.extents...)
	}
	for key, extents := range byKey {
		if err := throwAway(txn, sl, key, extents, now); err != nil {
			return err
		}
	}
	if partBytes != 0 {
		txn.Adds = []meta.Add{{Key: sl.Counter(row.CountPartBytes), Delta: -partBytes}}
	}
	return s.commit(ctx, sl.shard, txn)
}

// forget removes memories of uploads that ended long ago, and before each the
// parts that a crash may have left.
func (s *Store) forget(ctx context.Context, sl slot) error {
	header := sl.Header(row.KindDone)
	page, err := s.scan(ctx, sl.shard, meta.ScanRequest{Start: header, End: row.Successor(header), Limit: tidyRows})
	if err != nil {
		return err
	}
	txn := &meta.Txn{}
	for _, r := range page.Rows {
		var m row.Done
		if err := row.Decode(r.Key, r.Value, &m); err != nil {
			return err
		}
		if s.now().Sub(fromNS(m.EndedNs)) < doneKeep {
			continue
		}
		id := row.VersionID(r.Key[row.HeaderBytes:])
		if err := s.sweepParts(ctx, sl, sl.Parts(id)); err != nil {
			return err
		}
		txn.Deletes = append(txn.Deletes, r.Key)
	}
	if len(txn.Deletes) == 0 {
		return nil
	}
	return s.commit(ctx, sl.shard, txn)
}
