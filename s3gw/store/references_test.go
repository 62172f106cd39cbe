package store

import (
	"testing"
	"time"

	"ashlar"
)

// TestBucketThatComesBack proves that a bucket which was once not in the directory
// is looked for again: a restored backup brings its id back, and what it holds
// must not pass for nobody's.
func TestBucketThatComesBack(t *testing.T) {
	r := newRig(t)
	o := r.put(t, "b", "k", "content")
	refs := NewReferences(r.meta)
	refers := func() bool {
		t.Helper()
		says, err := refs.Refers(r.ctx, o.Bucket, "k", o.Extents)
		if err != nil {
			t.Fatal(err)
		}
		return says[0]
	}
	refs.gone = map[ashlar.BucketID]time.Time{o.Bucket: time.Now().Add(-goneFor)}
	if !refers() {
		t.Error("the bucket is taken for gone for ever")
	}
	if k, err := refs.bucket(r.ctx, ashlar.BucketID{1}); k != nil || err != nil {
		t.Error("a bucket that never was:", k, err)
	}
	refs.meta = nil // another look at the directory would show
	if k, err := refs.bucket(r.ctx, ashlar.BucketID{1}); k != nil || err != nil {
		t.Error("asked again at once:", k, err)
	}
}
