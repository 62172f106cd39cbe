package store

import (
	"context"
	"errors"
	"testing"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/store/row"
)

// before runs fn once, just before the first commit that puts a row of the
// given kind: after the decision, before it counts. What fn does goes through
// another gateway, without hooks.
func (r *rig) before(t *testing.T, kind byte, fn func(second *rig)) {
	second := &rig{Store: New(r.meta.Store, r.stripes, testMap, Options{Clock: r.clock.Now}), ctx: r.ctx, stripes: r.stripes}
	t.Cleanup(second.Close)
	fired := false
	t.Cleanup(func() {
		if !fired {
			t.Error("nothing came between")
		}
	})
	r.meta.onCommit(func(_ context.Context, _ ashlar.ShardID, txn *meta.Txn, next func() error) error {
		for _, p := range txn.Puts {
			if p.Key[0] == kind && !fired {
				fired = true
				fn(second)
				second.background.Wait()
			}
		}
		return next()
	})
}

func TestPartIsReplacedDuringComplete(t *testing.T) {
	r := newRig(t)
	id := r.upload(t, "k", Upload{})
	r.part(t, "k", id, 1, "first", nil)
	r.before(t, row.KindDone, func(second *rig) { second.part(t, "k", id, 1, "second", nil) })
	_, err := r.complete(id, "k", 1)
	want(t, err, ErrInvalidPart)
	r.audit(t)
	_, err = r.complete(id, "k", 1)
	want(t, err, nil)
	if got := r.read(t, "b", "k"); got != "second" {
		t.Fatalf("content %q", got)
	}
	r.audit(t)
}

func TestSamePartAgainDuringComplete(t *testing.T) {
	r := newRig(t)
	id := r.upload(t, "k", Upload{})
	r.part(t, "k", id, 1, "same", nil)
	r.before(t, row.KindDone, func(second *rig) { second.part(t, "k", id, 1, "same", nil) })
	_, err := r.complete(id, "k", 1)
	want(t, err, nil)
	if got := r.read(t, "b", "k"); got != "same" {
		t.Fatalf("content %q", got)
	}
	r.audit(t)
}

func TestAbortDuringComplete(t *testing.T) {
	r := newRig(t)
	id := r.upload(t, "k", Upload{})
	r.part(t, "k", id, 1, "x", nil)
	r.before(t, row.KindDone, func(second *rig) { want(t, second.AbortUpload(r.ctx, "b", "k", id), nil) })
	_, err := r.complete(id, "k", 1)
	want(t, err, ErrNoSuchUpload)
	_, err = r.HeadObject(r.ctx, "b", "k", "")
	want(t, err, ErrNoSuchKey)
	r.audit(t)
}

// Two clients complete the same upload, and one ends it while the other is about to
// read its parts.
func TestCompleteBeforeThePartsAreRead(t *testing.T) {
	r := newRig(t)
	id := r.upload(t, "k", Upload{})
	r.part(t, "k", id, 1, "x", nil)
	second := &rig{Store: New(r.meta.Store, r.stripes, testMap, Options{Clock: r.clock.Now}), ctx: r.ctx, stripes: r.stripes}
	t.Cleanup(second.Close)
	_, list, _, err := r.ListParts(r.ctx, "b", "k", id, 0, 1)
	want(t, err, nil)
	parts := []CompletePart{{1, list[0].ETag, nil}}
	fired := false
	r.meta.onScan(func(req meta.ScanRequest) {
		if fired || len(req.Start) == 0 || req.Start[0] != row.KindPart {
			return
		}
		fired = true
		_, err := second.CompleteUpload(r.ctx, "b", "k", id, parts, nil, Conditions{})
		want(t, err, nil)
		second.background.Wait()
	})
	first, err := r.CompleteUpload(r.ctx, "b", "k", id, parts, nil, Conditions{})
	want(t, err, nil)
	if o, err := r.HeadObject(r.ctx, "b", "k", ""); !fired || err != nil || first.ETag != o.ETag {
		t.Fatal(fired, first.ETag, o.ETag, err)
	}
	r.audit(t)
}

func TestCompleteDuringAbort(t *testing.T) {
	r := newRig(t)
	id := r.upload(t, "k", Upload{})
	r.part(t, "k", id, 1, "x", nil)
	r.before(t, row.KindDone, func(second *rig) {
		_, err := second.complete(id, "k", 1)
		want(t, err, nil)
	})
	want(t, r.AbortUpload(r.ctx, "b", "k", id), ErrNoSuchUpload)
	if got := r.read(t, "b", "k"); got != "x" {
		t.Fatalf("content %q", got)
	}
	r.audit(t)
}

func TestCompleteDuringComplete(t *testing.T) {
	r := newRig(t)
	id := r.upload(t, "k", Upload{})
	r.part(t, "k", id, 1, "x", nil)
	var first Object
	r.before(t, row.KindDone, func(second *rig) {
		var err error
		first, err = second.complete(id, "k", 1)
		want(t, err, nil)
		second.put(t, "b", "k", "newer")
	})
	o, err := r.complete(id, "k", 1)
	want(t, err, nil)
	if o.ETag != first.ETag || r.read(t, "b", "k") != "newer" {
		t.Fatalf("second answer %+v", o)
	}
	r.audit(t)
}

// The object changes between the look at the condition and the commit.
func TestConditionIsJudgedAtCompletion(t *testing.T) {
	r := newRig(t)
	id := r.upload(t, "k", Upload{})
	p := r.part(t, "k", id, 1, "x", nil)
	r.before(t, row.KindDone, func(second *rig) { second.put(t, "b", "k", "came first") })
	list := []CompletePart{{Number: 1, ETag: p.ETag}}
	_, err := r.CompleteUpload(r.ctx, "b", "k", id, list, nil, Conditions{IfNoneMatch: []string{"*"}})
	want(t, err, ErrPreconditionFailed)
	r.audit(t)
	_, err = r.CompleteUpload(r.ctx, "b", "k", id, list, nil, Conditions{})
	want(t, err, nil)
	r.audit(t)
}

func TestPartDuringPart(t *testing.T) {
	for _, old := range []bool{false, true} {
		r := newRig(t)
		id := r.upload(t, "k", Upload{})
		if old {
			r.part(t, "k", id, 1, "oldest", nil)
		}
		r.before(t, row.KindPart, func(second *rig) { second.part(t, "k", id, 1, "between", nil) })
		r.part(t, "k", id, 1, "last", nil)
		_, err := r.complete(id, "k", 1)
		want(t, err, nil)
		if got := r.read(t, "b", "k"); got != "last" {
			t.Fatalf("content %q", got)
		}
		r.audit(t)
	}
}

func TestUploadEndsDuringPart(t *testing.T) {
	for _, end := range []string{"abort", "complete", "bucket"} {
		r := newRig(t)
		id := r.upload(t, "k", Upload{})
		r.part(t, "k", id, 1, "x", nil)
		r.before(t, row.KindPart, func(second *rig) {
			if end == "complete" {
				_, err := second.complete(id, "k", 1)
				want(t, err, nil)
				return
			}
			want(t, second.AbortUpload(r.ctx, "b", "k", id), nil)
			if end == "bucket" {
				want(t, second.DeleteBucket(r.ctx, "b"), nil)
			}
		})
		_, err := r.PutPart(r.ctx, "b", "k", id, 2, body([]byte("late")))
		if !errors.Is(err, ErrNoSuchUpload) {
			t.Fatalf("%s: %v", end, err)
		}
		r.audit(t)
	}
}

// A part arrives after Complete has read the parts: it is not in the object,
// and it is thrown away.
func TestPartArrivesDuringComplete(t *testing.T) {
	r := newRig(t)
	id := r.upload(t, "k", Upload{})
	r.part(t, "k", id, 1, "x", nil)
	r.before(t, row.KindDone, func(second *rig) { second.part(t, "k", id, 2, "late", nil) })
	_, err := r.complete(id, "k", 1)
	want(t, err, nil)
	if got := r.read(t, "b", "k"); got != "x" {
		t.Fatalf("content %q", got)
	}
	if n := r.census(t)[row.KindPart]; n != 0 {
		t.Fatalf("%d part rows left", n)
	}
	r.audit(t)
}

// What a PUT, a DELETE and a copy decided on is replaced or gone before they commit.
func TestObjectChangesBeforeCommit(t *testing.T) {
	for name, between := range map[string]func(second *rig){
		"put":    func(s *rig) { s.put(t, "b", "k", "between") },
		"delete": func(s *rig) { want(t, s.unput(s.ctx, "b", "k", Conditions{}), nil) },
	} {
		r := newRig(t)
		first := r.put(t, "b", "k", "first")
		r.before(t, row.KindObject, between)
		r.put(t, "b", "k", "last")
		if got := r.read(t, "b", "k"); got != "last" {
			t.Fatalf("%s: content %q", name, got)
		}
		r.audit(t)

		r = newRig(t)
		r.put(t, "b", "k", "first")
		r.before(t, row.KindObject, between)
		_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Conditions: Conditions{IfMatch: []string{first.ETag}}}, body([]byte("never")))
		if name == "put" {
			want(t, err, ErrPreconditionFailed)
		} else {
			want(t, err, ErrNoSuchKey)
		}
		r.audit(t)

		r = newRig(t)
		r.put(t, "b", "k", "first")
		r.before(t, row.KindObject, between)
		req := copyReq("k", "k")
		req.Replace, req.Put.ContentType = true, "new/type"
		_, err = r.CopyObject(r.ctx, req)
		if name == "put" {
			want(t, err, nil)
			if got := r.read(t, "b", "k"); got != "between" {
				t.Fatalf("copy onto itself: %q", got)
			}
		} else {
			want(t, err, ErrNoSuchKey)
		}
		r.audit(t)
	}
}

// The bucket goes between the PUT's transfer and its commit.
func TestBucketGoesDuringPut(t *testing.T) {
	r := newRig(t)
	r.before(t, row.KindObject, func(second *rig) { want(t, second.DeleteBucket(r.ctx, "b"), nil) })
	_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k"}, body([]byte("late")))
	want(t, err, ErrNoSuchBucket)
	r.audit(t)
	if n := len(r.stripes.writes()); n != 0 {
		t.Fatalf("%d extents left", n)
	}
}

// An upload is started between the look at the counters and the first step of
// the deletion: it ends with the bucket.
func TestUploadStartsDuringDeleteBucket(t *testing.T) {
	r := newRig(t)
	id := ""
	r.before(t, row.KindBucket, func(second *rig) { id = second.upload(t, "k", Upload{}) })
	want(t, r.DeleteBucket(r.ctx, "b"), nil)
	_, err := r.PutPart(r.ctx, "b", "k", id, 1, body([]byte("x")))
	want(t, err, ErrNoSuchBucket)
	if left := r.census(t); len(left) != 0 {
		t.Fatalf("rows left: %v", left)
	}
	r.audit(t)
}
