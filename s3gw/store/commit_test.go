package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/trash"
	"ashlar/s3gw/store/row"
)

type commitHook = func(context.Context, ashlar.ShardID, *meta.Txn, func() error) error

// The answer of a commit is lost, before or after it was applied, a few times:
// the request succeeds, once.
func TestLostAnswersAreRepeated(t *testing.T) {
	for _, applied := range []bool{false, true} {
		r := newRig(t)
		ids := map[ashlar.RequestID]int{}
		r.meta.onCommit(func(_ context.Context, _ ashlar.ShardID, txn *meta.Txn, next func() error) error {
			ids[txn.ID]++
			if applied {
				_ = next()
			}
			if ids[txn.ID] < 4 {
				return errLost
			}
			return next()
		})
		cond := Conditions{IfNoneMatch: []string{"*"}}
		_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Conditions: cond}, body([]byte("once")))
		want(t, err, nil)
		if len(ids) != 1 {
			t.Fatalf("%d request ids for one commit", len(ids))
		}
		if r.read(t, "b", "k") != "once" {
			t.Fatal("the content is not there")
		}
		r.audit(t)
	}
}

// The outcome stays unknown until the deadline: the request fails, and the
// stripes stay, because they may be referred to.
func TestUnknownOutcomeKeepsStripes(t *testing.T) {
	for _, applied := range []bool{false, true} {
		r := newRig(t)
		r.meta.onCommit(func(_ context.Context, _ ashlar.ShardID, _ *meta.Txn, next func() error) error {
			if applied {
				_ = next()
			}
			return errLost
		})
		ctx, cancel := context.WithTimeout(r.ctx, 30*time.Millisecond)
		_, err := r.PutObject(ctx, &PutRequest{Bucket: "b", Key: "k"}, body([]byte("maybe")))
		cancel()
		var unknown *unknownError
		if !ashlar.Is(err, ashlar.Unavailable) || !errors.As(err, &unknown) {
			t.Fatalf("applied %t: %v", applied, err)
		}
		r.meta.onCommit(nil)
		r.background.Wait()
		if n := len(r.stripes.writes()); n != 1 {
			t.Fatalf("%d extents are stored, want the one that may be referred to", n)
		}
		if applied && r.read(t, "b", "k") != "maybe" {
			t.Fatal("the object is not readable")
		}
		if st := r.Stats(); st.Unknown != 1 || st.Discarded != 0 {
			t.Fatalf("stats %+v", st)
		}
	}
}

// A commit that failed for certain leaves no stripes, also where they cannot
// be deleted at once: then the trash list has them.
func TestFailedCommitDiscardsStripes(t *testing.T) {
	refuse := func(kind ashlar.Kind) commitHook {
		return func(_ context.Context, _ ashlar.ShardID, txn *meta.Txn, next func() error) error {
			if len(txn.Conds) == 0 { // the trash list
				return next()
			}
			return ashlar.E("test", "", kind, nil)
		}
	}
	for _, kind := range []ashlar.Kind{ashlar.Invalid, ashlar.Denied, ashlar.Full, ashlar.Busy} {
		for _, deleteErr := range []error{nil, errLost} {
			r := newRig(t)
			r.stripes.deleteErr = deleteErr
			r.meta.onCommit(refuse(kind))
			ctx, cancel := context.WithTimeout(r.ctx, 30*time.Millisecond)
			_, err := r.PutObject(ctx, &PutRequest{Bucket: "b", Key: "k"}, body([]byte("never")))
			cancel()
			if !ashlar.Is(err, kind) {
				t.Fatalf("%v: %v", kind, err)
			}
			r.audit(t)
			trashed := r.census(t)[trash.Kind]
			if (deleteErr == nil) != (trashed == 0) || r.stripes.deletes != 1 || r.Stats().Discarded != 1 {
				t.Fatalf("%v, delete error %v: %d trash rows, %d deletes, %+v", kind, deleteErr, trashed, r.stripes.deletes, r.Stats())
			}
		}
	}
}

// A client that goes away while the commit runs does not make it unknown.
func TestClientGoesAway(t *testing.T) {
	r := newRig(t)
	ctx, gone := context.WithCancel(r.ctx)
	r.meta.onCommit(func(ctx context.Context, _ ashlar.ShardID, _ *meta.Txn, next func() error) error {
		gone()
		if ctx.Err() != nil {
			t.Error("the commit was cancelled with the client")
		}
		return next()
	})
	_, err := r.PutObject(ctx, &PutRequest{Bucket: "b", Key: "k"}, body([]byte("x")))
	want(t, err, nil)
	_, err = r.PutObject(ctx, &PutRequest{Bucket: "b", Key: "k2"}, body([]byte("x")))
	if err == nil {
		t.Fatal("a PUT of a client that is gone succeeded")
	}
	r.meta.onCommit(nil)
	r.audit(t)
}

// The overwritten content is replaced by somebody else between reading the row
// and reading its manifest.
func TestManifestIsReadAgain(t *testing.T) {
	r := newRig(t)
	b, err := r.lookup(r.ctx, "b")
	want(t, err, nil)
	r.putMany(t, b, "k", row.InlineExtentsMax+1)
	fired := false
	r.meta.onGet(func(key []byte) {
		if key[0] == row.KindManifest && !fired {
			fired = true
			r.putMany(t, b, "k", row.InlineExtentsMax+2)
		}
	})
	o, err := r.HeadObject(r.ctx, "b", "k", "")
	want(t, err, nil)
	if !fired || len(o.Extents) != row.InlineExtentsMax+2 {
		t.Fatalf("fired %t, %d extents", fired, len(o.Extents))
	}
	want(t, r.unput(r.ctx, "b", "k", Conditions{}), nil)
	r.audit(t)
	if n := r.census(t)[row.KindManifest]; n != 0 {
		t.Fatalf("%d manifests left", n)
	}
}

// putMany commits an object of n one-byte extents.
func (r *rig) putMany(t *testing.T, b *bucket, key string, n int) {
	t.Helper()
	var list []ashlar.Extent
	for range n {
		got, err := r.receive(r.ctx, b, key, 0, body([]byte("x")), 10, nil)
		want(t, err, nil)
		list = append(list, got.extents...)
	}
	want(t, r.mutate(r.ctx, b, key, func(ch *change) error {
		return ch.put(r.ctx, &row.Object{Bytes: uint64(n), EtagMd5: make([]byte, 16)}, list, nil, nil)
	}), nil)
}

// A row that a newer program wrote is refused, not misread.
func TestUnknownFormatIsRefused(t *testing.T) {
	r := newRig(t)
	r.put(t, "b", "k", "x")
	b, err := r.lookup(r.ctx, "b")
	want(t, err, nil)
	sl := b.slotOf("k")
	for what, value := range map[string][]byte{"format 2": {0x08, 2}, "no format": {}, "delete marker": {0x08, 1, 0x20, 1}, "noise": {0xff}} {
		txn := &meta.Txn{Puts: []meta.Put{{Key: sl.Object("k"), Value: value}}}
		want(t, r.commit(r.ctx, sl.shard, txn), nil)
		if _, err := r.HeadObject(r.ctx, "b", "k", ""); err == nil || errors.Is(err, ErrNoSuchKey) {
			t.Errorf("%s: head: %v", what, err)
		}
		if _, err := r.ListObjects(r.ctx, ListRequest{Bucket: "b", Max: 10}); err == nil {
			t.Errorf("%s: listed", what)
		}
		if err := r.unput(r.ctx, "b", "k", Conditions{}); err == nil {
			t.Errorf("%s: deleted", what)
		}
		if _, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k"}, body([]byte("y"))); err == nil {
			t.Errorf("%s: overwritten", what)
		}
	}
}
