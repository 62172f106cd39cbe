package store

import (
	"crypto/md5"
	"encoding/hex"
	"maps"
	"slices"
	"testing"
	"time"

	"ashlar"
)

func copyReq(source, target string) *CopyRequest {
	req := &CopyRequest{Put: PutRequest{Bucket: "b", Key: target, Owner: "copier"}}
	req.Source.Bucket, req.Source.Key = "b", source
	return req
}

func TestCopy(t *testing.T) {
	r := newRig(t)
	attrs := Attributes{ContentType: "text/x", StorageClass: "STANDARD_IA", WebsiteRedirect: "/x",
		User: map[string]string{"a": "1"}, Tags: map[string]string{"t": "1"}}
	src, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "src", Attributes: attrs}, body([]byte("content")))
	want(t, err, nil)
	want(t, r.CreateBucket(r.ctx, "me", "other", ""), nil)
	req := copyReq("src", "dst")
	req.Put.Bucket = "other"
	o, err := r.CopyObject(r.ctx, req)
	want(t, err, nil)
	if o.ETag != src.ETag || o.ContentType != "text/x" || o.StorageClass != "" || o.WebsiteRedirect != "" ||
		!maps.Equal(o.Tags, attrs.Tags) || !maps.Equal(o.User, attrs.User) || o.Owner != "copier" {
		t.Fatalf("copy is %+v", o)
	}
	if o.Checksum == nil || o.Checksum.Algorithm != CRC64NVME || len(o.Checksum.Value) != 8 {
		t.Fatalf("checksum %+v", o.Checksum)
	}
	want(t, r.unput(r.ctx, "b", "src", Conditions{}), nil)
	if got := r.read(t, "other", "dst"); got != "content" {
		t.Fatalf("copy holds %q", got)
	}
	req = copyReq("dst", "dst2")
	req.Source.Bucket = "other"
	req.Replace, req.ReplaceTags, req.ChecksumAlgorithm = true, true, SHA256
	req.Put.Attributes = Attributes{ContentType: "text/y", Tags: map[string]string{"t": "2"}}
	o, err = r.CopyObject(r.ctx, req)
	want(t, err, nil)
	if o.ContentType != "text/y" || len(o.User) != 0 || o.Tags["t"] != "2" || o.Checksum.Algorithm != SHA256 {
		t.Fatalf("copy is %+v", o)
	}
	req = copyReq("nothing", "x")
	_, err = r.CopyObject(r.ctx, req)
	want(t, err, ErrNoSuchKey)
	req.Source.Bucket = "nowhere"
	_, err = r.CopyObject(r.ctx, req)
	want(t, err, ErrNoSuchBucket)
	req.ChecksumAlgorithm = "ROT13"
	_, err = r.CopyObject(r.ctx, req)
	if !ashlar.Is(err, ashlar.Invalid) {
		t.Fatalf("unknown algorithm: %v", err)
	}
	r.audit(t)
}

func TestCopyOntoItself(t *testing.T) {
	r := newRig(t)
	src, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Attributes: Attributes{ContentType: "a/b"}}, body([]byte("content")))
	want(t, err, nil)
	stored := r.stripes.writes()
	_, err = r.CopyObject(r.ctx, copyReq("k", "k"))
	want(t, err, ErrCopyUnchanged)
	req := copyReq("k", "k")
	req.Replace, req.Put.Attributes = true, Attributes{ContentType: "c/d"}
	o, err := r.CopyObject(r.ctx, req)
	want(t, err, nil)
	head, err := r.HeadObject(r.ctx, "b", "k", "")
	want(t, err, nil)
	if o.ETag != src.ETag || head.ContentType != "c/d" || !head.Modified.After(src.Modified) || !head.Modified.Equal(o.Modified) {
		t.Fatalf("copied %+v, head %+v", o, head)
	}
	if !slices.Equal(r.stripes.writes(), stored) || r.read(t, "b", "k") != "content" {
		t.Fatal("the content was touched")
	}
	req.Put.Conditions.IfMatch = []string{"other"}
	_, err = r.CopyObject(r.ctx, req)
	want(t, err, ErrPreconditionFailed)
	req.Put.Conditions = Conditions{}
	req.ChecksumAlgorithm = SHA1 // needs the content
	o, err = r.CopyObject(r.ctx, req)
	want(t, err, nil)
	if o.Checksum.Algorithm != SHA1 || r.read(t, "b", "k") != "content" {
		t.Fatalf("copied %+v", o)
	}
	r.audit(t)
}

func TestCopySourceConditions(t *testing.T) {
	r := newRig(t)
	o := r.put(t, "b", "k", "x")
	before, after := o.Modified.Add(-time.Hour), o.Modified.Add(time.Hour)
	match, other := []string{o.ETag}, []string{"other"}
	for i, c := range []struct {
		cond Conditions
		ok   bool
	}{
		{Conditions{IfMatch: match}, true},
		{Conditions{IfMatch: other}, false},
		{Conditions{IfNoneMatch: match}, false},
		{Conditions{IfNoneMatch: other}, true},
		{Conditions{IfUnmodifiedSince: &before}, false},
		{Conditions{IfUnmodifiedSince: &after}, true},
		{Conditions{IfModifiedSince: &before}, true},
		{Conditions{IfModifiedSince: &after}, false},
		{Conditions{IfMatch: match, IfUnmodifiedSince: &before}, true},
		{Conditions{IfNoneMatch: match, IfModifiedSince: &before}, false},
	} {
		req := copyReq("k", "copy")
		req.SourceConditions = c.cond
		_, err := r.CopyObject(r.ctx, req)
		if c.ok {
			want(t, err, nil)
		} else {
			want(t, err, ErrPreconditionFailed)
		}
		_ = i
	}
	r.audit(t)
}

// A multipart object's copy has the plain MD5; wrong bytes are never copied.
func TestCopyOfMultipart(t *testing.T) {
	r := newRig(t)
	id := r.upload(t, "k", Upload{})
	r.part(t, "k", id, 1, "only part", nil)
	o, err := r.complete(id, "k", 1)
	want(t, err, nil)
	if o.ETag[32:] != "-1" {
		t.Fatalf("etag %s", o.ETag)
	}
	copied, err := r.CopyObject(r.ctx, copyReq("k", "copy"))
	want(t, err, nil)
	sum := md5.Sum([]byte("only part"))
	if copied.ETag != hex.EncodeToString(sum[:]) || copied.PartBytes != nil {
		t.Fatalf("copy %+v", copied)
	}
	x := r.stripes.live[copied.Extents[0].Write]
	x.data[0] ^= 1
	_, err = r.CopyObject(r.ctx, copyReq("copy", "bad"))
	if !ashlar.Is(err, ashlar.Corrupt) {
		t.Fatalf("copy of changed bytes: %v", err)
	}
	_, err = r.HeadObject(r.ctx, "b", "bad", "")
	want(t, err, ErrNoSuchKey)
	r.audit(t)
}
