package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
	"ashlar/s3gw/sse"
)

// received is a body that was stored but is not referred to yet.
type received struct {
	extents []ashlar.Extent // at most one; none if the body was empty
	bytes   uint64
	at      time.Time // when, by the wall clock
	md5     [16]byte
	sum     *Checksum
	salt    []byte // of the stream, if it is encrypted
}

// watched is a body under way: it counts, enforces the maximum, and keeps the
// body's own error, which says more than what becomes of it further down.
type watched struct {
	body Body
	max  uint64
	n    uint64
	err  error // what Read returned last, sticky
}

func (w *watched) Read(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.body.Read(p)
	w.n += uint64(n)
	if w.n > w.max {
		n, err = 0, ErrEntityTooLarge
	}
	w.err = err
	return n, err
}

// finish reads to the end of the body: only there it is known that its digests
// are right, and a reader that knows the length may have stopped before.
func (w *watched) finish() error {
	var one [1]byte
	for range 100 {
		n, err := w.Read(one[:])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if n > 0 {
			return errBodyLength
		}
	}
	return io.ErrNoProgress
}

// receive stores a body as the content of an object (part 0) or a part. On an
// error nothing is left behind.
//
// With a data key, what is stored is sealed; the digests are those of the content.
func (s *Store) receive(ctx context.Context, b *bucket, key string, part uint32, body Body, max uint64, data *sse.Key) (received, error) {
	m, err := s.formed()
	if err != nil {
		return received{}, err
	}
	if body.Bytes() > int64(max) {
		return received{}, ErrEntityTooLarge
	}
	w := &watched{body: body, max: max}
	var extent ashlar.Extent
	var src io.Reader = w
	var r received
	length, stored := body.Bytes(), func() uint64 { return w.n }
	if data != nil {
		r.salt = sse.NewSalt()
		src = sse.NewSealer(w, *data, r.salt, sealedFor(b.ID, key))
		length, stored = sealedLength(length), func() uint64 { return sse.SealedBytes(w.n) }
	}
	if body.Bytes() != 0 {
		extent, err = s.stripes.WriteStripes(ctx, wire.WriteRequest{
			Bucket: b.ID, Key: key, Part: part, Bytes: length, Epoch: m.Epoch,
		}, src)
	}
	if err != nil {
		if w.err != nil && !errors.Is(w.err, io.EOF) {
			err = w.err
		}
		return received{}, err
	}
	r.bytes, r.at = w.n, time.Now().Round(0)
	if extent.Bytes > 0 {
		r.extents = []ashlar.Extent{extent}
	}
	err = w.finish()
	if err == nil && extent.Bytes != stored() {
		err = ashlar.E("store: receive", key, ashlar.Internal, fmt.Errorf("want %d bytes, stored %d", stored(), extent.Bytes))
	}
	if err != nil {
		s.discard(ctx, b, key, r.extents)
		return received{}, err
	}
	r.md5, r.sum = body.Sums()
	return r, nil
}

// commitWithin is how long after a body was stored a row may begin to refer to
// it. The search for orphans relies on it (daemon/orphan): a process that slept
// longer must not commit what may have been freed.
const commitWithin = time.Hour

func (r *received) fresh() error {
	if age := time.Now().Round(0).Sub(r.at); age > commitWithin {
		return ashlar.E("store: commit", "", ashlar.Unavailable, fmt.Errorf("the body was stored %v ago: too long to refer to it", age))
	}
	return nil
}

// release is called when the commit that was to refer to the extents failed:
// it removes them, unless they may be referred to after all.
func (s *Store) release(ctx context.Context, b *bucket, key string, extents []ashlar.Extent, err error) {
	var unknown *unknownError
	if errors.As(err, &unknown) {
		s.stats.unknown.Add(1)
		s.log.Warn("store: the outcome of a commit is unknown; its stripes are left in place",
			"bucket", b.Name, "key", key, "err", err)
		return
	}
	s.discard(ctx, b, key, extents)
}

// discard removes extents that nothing refers to. It does so in the
// background; where it cannot, the trash list of the key's shard gets them.
func (s *Store) discard(ctx context.Context, b *bucket, key string, extents []ashlar.Extent) {
	if len(extents) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTimeout)
	select {
	case s.discards <- struct{}{}:
	default:
		defer cancel()
		s.discardLater(ctx, b, key, extents)
		return
	}
	s.background.Go(func() {
		defer func() { cancel(); <-s.discards }()
		remove, done := context.WithTimeout(ctx, discardTimeout/2)
		defer done()
		if err := s.stripes.DeleteStripes(remove, b.ID, key, extents); err != nil {
			s.discardLater(ctx, b, key, extents)
			return
		}
		s.stats.discarded.Add(1)
	})
}

func (s *Store) discardLater(ctx context.Context, b *bucket, key string, extents []ashlar.Extent) {
	sl := b.slotOf(key)
	txn := &meta.Txn{}
	err := throwAway(txn, sl, key, extents, s.now())
	if err == nil {
		err = s.commit(ctx, sl.shard, txn)
	}
	if err != nil {
		s.stats.orphaned.Add(1)
		s.log.Warn("store: the stripes of a failed upload could not be removed",
			"bucket", b.Name, "key", key, "err", err)
		return
	}
	s.stats.discarded.Add(1)
}
