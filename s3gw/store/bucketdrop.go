package store

import (
	"context"

	"google.golang.org/protobuf/proto"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/store/row"
)

// DeleteBucket deletes an empty bucket; uploads that are open end with it. It
// returns ErrNoSuchBucket, or ErrBucketNotEmpty if the bucket holds objects,
// versions or delete markers. The steps are
// described in package row; whoever meets a deletion that stopped half-way
// carries it on.
func (s *Store) DeleteBucket(ctx context.Context, name string) error {
	return fail("delete bucket", name, s.deleteBucket(ctx, name))
}

func (s *Store) deleteBucket(ctx context.Context, name string) error {
	for n := range attemptsMax {
		b, err := s.directory(ctx, name)
		switch {
		case err != nil:
			return err
		case b == nil:
			return ErrNoSuchBucket
		case b.rec.State == row.Bucket_DROPPING:
			if err := s.settle(ctx, name); err != nil {
				return err
			}
			return ErrNoSuchBucket
		case b.rec.State != row.Bucket_ACTIVE:
			if err := s.settle(ctx, name); err != nil {
				return err
			}
			continue
		}
		u, err := s.usage(ctx, b)
		if err != nil {
			return err
		}
		if u.Objects > 0 || u.Others > 0 {
			return ErrBucketNotEmpty
		}
		err = s.moveBucket(ctx, b, row.Bucket_DELETING, b.rec.Generation)
		if _, _, changed := conditionAt(err); changed {
			pause(ctx, n)
			continue
		}
		if err != nil {
			return err
		}
		if err := s.settle(ctx, name); err != nil {
			return err
		}
		after, err := s.directory(ctx, name)
		if err != nil {
			return err
		}
		if after != nil && after.ID == b.ID {
			return ErrBucketNotEmpty
		}
		return nil
	}
	return errContended
}

// moveBucket changes the state in the directory row, by compare-and-set on the
// version that b was read at.
func (s *Store) moveBucket(ctx context.Context, b *bucket, state row.Bucket_State, generation uint64) error {
	key := row.BucketKey(b.Name)
	txn := &meta.Txn{Conds: []meta.Cond{{Key: key, Kind: meta.CondVersion, Version: b.version}}}
	rec := proto.CloneOf(b.rec)
	rec.State, rec.Generation = state, generation
	value, err := row.Encode(rec)
	if err != nil {
		return err
	}
	txn.Puts = []meta.Put{{Key: key, Value: value}}
	return s.commit(ctx, directoryShard, txn)
}

// settle carries a deletion that is under way to one of its ends: the bucket
// is active again, or it is gone.
func (s *Store) settle(ctx context.Context, name string) error {
	for n := range attemptsMax {
		b, err := s.directory(ctx, name)
		if err != nil {
			return err
		}
		if b == nil || b.rec.State == row.Bucket_ACTIVE {
			return nil
		}
		switch b.rec.State {
		case row.Bucket_DELETING:
			err = s.closeSlots(ctx, b)
		case row.Bucket_REOPENING:
			err = s.reopenSlots(ctx, b)
		case row.Bucket_DROPPING:
			err = s.dropBucket(ctx, b)
		}
		if _, _, changed := conditionAt(err); changed || err == errStale {
			// Somebody else is at it too: look again.
			if !pause(ctx, n) {
				return ashlar.E("store: settle bucket", name, ashlar.Unavailable, ctx.Err())
			}
			continue
		}
		if err != nil {
			return err
		}
	}
	return errContended
}

// closeSlots is the step DELETING: close every slot, or find one in use.
func (s *Store) closeSlots(ctx context.Context, b *bucket) error {
	for _, sl := range b.slots() {
		empty, err := s.closeSlot(ctx, sl, b.rec.Generation)
		if err != nil {
			return err
		}
		if !empty {
			return s.moveBucket(ctx, b, row.Bucket_REOPENING, b.rec.Generation)
		}
	}
	return s.moveBucket(ctx, b, row.Bucket_DROPPING, b.rec.Generation)
}

// closeSlot closes one slot and reports whether it is closed. False means
// that it holds something. errStale means that the step is over.
func (s *Store) closeSlot(ctx context.Context, sl slot, generation uint64) (bool, error) {
	openRow, closedRow, err := s.markers(ctx, sl, generation)
	if err != nil {
		return false, err
	}
	if openRow == nil {
		if closedRow == nil {
			return false, errStale
		}
		return true, nil
	}
	put, err := markerPut(sl.Header(row.KindClosed), generation)
	if err != nil {
		return false, err
	}
	err = s.commit(ctx, sl.shard, &meta.Txn{
		Conds: []meta.Cond{
			{Key: sl.Header(row.KindOpen), Kind: meta.CondVersion, Version: openRow.Version},
			{Key: sl.Counter(row.CountObjects), Kind: meta.CondZero},
			{Key: sl.Counter(row.CountOthers), Kind: meta.CondZero},
		},
		Puts:    []meta.Put{put},
		Deletes: [][]byte{sl.Header(row.KindOpen)},
	})
	if at, _, refused := conditionAt(err); refused && at > 0 {
		return false, nil
	}
	return err == nil, err
}

// reopenSlots is the step REOPENING: give every slot an open marker of the
// next generation, then make the bucket active.
func (s *Store) reopenSlots(ctx context.Context, b *bucket) error {
	for _, sl := range b.slots() {
		if err := s.reopenSlot(ctx, sl, b.rec.Generation); err != nil {
			return err
		}
	}
	return s.moveBucket(ctx, b, row.Bucket_ACTIVE, b.rec.Generation+1)
}

func (s *Store) reopenSlot(ctx context.Context, sl slot, generation uint64) error {
	openRow, closedRow, err := s.markers(ctx, sl, generation)
	if err == errStale {
		// It may be open already, in the next generation.
		openRow, _, err = s.markers(ctx, sl, generation+1)
		if err == nil && openRow == nil {
			err = errStale
		}
		return err
	}
	if err != nil {
		return err
	}
	was := openRow
	if was == nil {
		was = closedRow
	}
	if was == nil {
		return errStale
	}
	put, err := markerPut(sl.Header(row.KindOpen), generation+1)
	if err != nil {
		return err
	}
	return s.commit(ctx, sl.shard, &meta.Txn{
		Conds:   []meta.Cond{{Key: was.Key, Kind: meta.CondVersion, Version: was.Version}},
		Deletes: [][]byte{sl.Header(row.KindClosed)},
		Puts:    []meta.Put{put},
	})
}

// markers returns the open or else the closed marker of a slot. A marker of
// another generation yields errStale.
func (s *Store) markers(ctx context.Context, sl slot, generation uint64) (openRow, closedRow *meta.Row, err error) {
	for _, kind := range []byte{row.KindOpen, row.KindClosed} {
		r, err := s.get(ctx, sl.shard, sl.Header(kind))
		if err != nil {
			return nil, nil, err
		}
		if r == nil {
			continue
		}
		var m row.Marker
		if err := row.Decode(r.Key, r.Value, &m); err != nil {
			return nil, nil, err
		}
		if m.Generation != generation {
			return nil, nil, errStale
		}
		if kind == row.KindOpen {
			return r, nil, nil
		}
		return nil, r, nil
	}
	return nil, nil, nil
}

func markerPut(key []byte, generation uint64) (meta.Put, error) {
	value, err := row.Encode(&row.Marker{Format: row.Format, Generation: generation})
	return meta.Put{Key: key, Value: value}, err
}

// dropBucket is the step DROPPING: remove what an empty bucket still has, then
// the directory row.
func (s *Store) dropBucket(ctx context.Context, b *bucket) error {
	for _, sl := range b.slots() {
		// Uploads first: no part can be added to one that is gone.
		if err := s.deleteRows(ctx, sl, row.KindUpload); err != nil {
			return err
		}
		if err := s.sweepParts(ctx, sl, sl.Header(row.KindPart)); err != nil {
			return err
		}
		for _, kind := range []byte{row.KindDone, row.KindCounter, row.KindMark, row.KindClosed} {
			if err := s.deleteRows(ctx, sl, kind); err != nil {
				return err
			}
		}
	}
	key := row.BucketKey(b.Name)
	err := s.commit(ctx, directoryShard, &meta.Txn{
		Conds:   []meta.Cond{{Key: key, Kind: meta.CondVersion, Version: b.version}},
		Deletes: [][]byte{key},
	})
	if err == nil {
		s.buckets.drop(b.Name)
	}
	return err
}

// deleteRows deletes all rows of a kind in a slot, a page at a time.
func (s *Store) deleteRows(ctx context.Context, sl slot, kind byte) error {
	start := sl.Header(kind)
	end := row.Successor(start)
	for start != nil {
		page, err := s.scan(ctx, sl.shard, meta.ScanRequest{Start: start, End: end, Limit: sweepRows, KeysOnly: true})
		if err != nil {
			return err
		}
		txn := &meta.Txn{}
		for _, r := range page.Rows {
			txn.Deletes = append(txn.Deletes, r.Key)
		}
		if len(txn.Deletes) > 0 {
			if err := s.commit(ctx, sl.shard, txn); err != nil {
				return err
			}
		}
		start = page.Next
	}
	return nil
}

// revive is called when a transaction found the open marker of b gone. It
// returns nil if the bucket lives, and the transaction may be tried again, or
// the error that the request ends with.
func (s *Store) revive(ctx context.Context, b *bucket) error {
	s.buckets.drop(b.Name)
	if err := s.settle(ctx, b.Name); err != nil {
		return err
	}
	fresh, err := s.lookupFresh(ctx, b.Name)
	if err != nil {
		return err
	}
	if fresh.ID != b.ID {
		// Deleted and made again: what was written belongs to the old one.
		return ErrConflict
	}
	return nil
}
