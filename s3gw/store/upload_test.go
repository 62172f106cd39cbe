package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/trash"
	"ashlar/s3gw/store/row"
)

// big is the content of a part that need not be the last.
var (
	big    = bytes.Repeat([]byte("0123456789abcdef"), PartBytesMin/16)
	bigSum = md5.Sum(big)
)

func (r *rig) upload(t tester, key string, up Upload) string {
	t.Helper()
	up.Bucket, up.Key, up.Owner = "b", key, "me"
	id, err := r.CreateUpload(r.ctx, &up)
	if err != nil {
		t.Fatalf("create upload %q: %v", key, err)
	}
	return id
}

func (r *rig) part(t tester, key, id string, number int, content string, sum *Checksum) Part {
	t.Helper()
	b := body([]byte(content))
	b.check = sum
	p, err := r.PutPart(r.ctx, "b", key, id, number, b)
	if err != nil {
		t.Fatalf("put part %d: %v", number, err)
	}
	return p
}

func (r *rig) bigPart(t tester, key, id string, number int) Part {
	t.Helper()
	b := &testBody{r: bytes.NewReader(big), n: int64(len(big)), sum: bigSum}
	p, err := r.PutPart(r.ctx, "b", key, id, number, b)
	if err != nil {
		t.Fatalf("put part %d: %v", number, err)
	}
	return p
}

// complete completes with the stored ETags of the given parts.
func (r *rig) complete(id, key string, numbers ...int) (Object, error) {
	var list []CompletePart
	for _, n := range numbers {
		_, parts, _, err := r.ListParts(r.ctx, "b", key, id, n-1, 1)
		if err != nil {
			return Object{}, err
		}
		etag := "none"
		if len(parts) == 1 && parts[0].Number == n {
			etag = parts[0].ETag
		}
		list = append(list, CompletePart{Number: n, ETag: etag})
	}
	return r.CompleteUpload(r.ctx, "b", key, id, list, nil, Conditions{})
}

func TestMultipart(t *testing.T) {
	r := newRig(t)
	r.put(t, "b", "k", "old content")
	id := r.upload(t, "k", Upload{Attributes: Attributes{ContentType: "x/y", User: map[string]string{"u": "1"}}})
	r.part(t, "k", id, 3, "replaced", nil)
	r.bigPart(t, "k", id, 1)
	r.part(t, "k", id, 3, "the end", nil)
	r.part(t, "k", id, 7, "not listed", nil)
	if got := r.read(t, "b", "k"); got != "old content" {
		t.Fatalf("before completion: %q", got)
	}
	r.audit(t)
	u, err := r.BucketUsage(r.ctx, "b")
	want(t, err, nil)
	if u != (Usage{Objects: 1, Bytes: 11, Uploads: 1, PartBytes: int64(len(big)) + 7 + 10}) {
		t.Fatalf("usage %+v", u)
	}
	o, err := r.complete(id, "k", 1, 3)
	want(t, err, nil)
	end := md5.Sum([]byte("the end"))
	sum := md5.Sum(append(bigSum[:], end[:]...))
	if o.ETag != hex.EncodeToString(sum[:])+"-2" || o.Bytes != uint64(len(big))+7 {
		t.Fatalf("completed %+v", o)
	}
	head, err := r.HeadObject(r.ctx, "b", "k", "")
	want(t, err, nil)
	if head.ContentType != "x/y" || head.User["u"] != "1" || head.Owner != "me" ||
		!slices.Equal(head.PartBytes, []uint64{uint64(len(big)), 7}) {
		t.Fatalf("head %+v", head)
	}
	if r.read(t, "b", "k") != string(big)+"the end" {
		t.Fatal("wrong content")
	}
	if got := r.content(t, &head, uint64(len(big))-2, 5); got != "efthe" {
		t.Fatalf("range across parts: %q", got)
	}
	r.audit(t)
	census := r.census(t)
	if census[row.KindPart] != 0 || census[row.KindUpload] != 0 || census[row.KindDone] != 1 || census[trash.Kind] != 3 {
		t.Fatalf("rows %v", census)
	}
	u, err = r.BucketUsage(r.ctx, "b")
	want(t, err, nil)
	if u != (Usage{Objects: 1, Bytes: int64(len(big)) + 7}) {
		t.Fatalf("usage %+v", u)
	}

	// Repeated, it says the same, even if the object is gone or replaced.
	r.put(t, "b", "k", "newer")
	list := []CompletePart{{Number: 1, ETag: "whatever"}}
	again, err := r.CompleteUpload(r.ctx, "b", "k", id, list, nil, Conditions{IfNoneMatch: []string{"*"}})
	want(t, err, nil)
	if again.ETag != o.ETag || r.read(t, "b", "k") != "newer" {
		t.Fatalf("repeated: %+v", again)
	}
	_, err = r.CompleteUpload(r.ctx, "b", "other", id, list, nil, Conditions{})
	want(t, err, ErrNoSuchUpload)
	want(t, r.AbortUpload(r.ctx, "b", "k", id), ErrNoSuchUpload)
	_, err = r.PutPart(r.ctx, "b", "k", id, 1, body([]byte("late")))
	want(t, err, ErrNoSuchUpload)
	r.audit(t)
}

func TestCompleteRefuses(t *testing.T) {
	r := newRig(t)
	id := r.upload(t, "k", Upload{})
	small := r.part(t, "k", id, 1, "small", nil)
	p2 := r.bigPart(t, "k", id, 2)
	p3 := r.part(t, "k", id, 3, "", nil)
	sum := &Checksum{Algorithm: CRC32, Value: []byte{0, 0, 0, 0}}
	line := func(p Part) CompletePart { return CompletePart{Number: p.Number, ETag: p.ETag} }
	for name, c := range map[string]struct {
		parts []CompletePart
		sum   *Checksum
		cond  Conditions
		want  error
	}{
		"order":           {parts: []CompletePart{line(p3), line(p2)}, want: ErrInvalidPartOrder},
		"twice":           {parts: []CompletePart{line(p2), line(p2)}, want: ErrInvalidPartOrder},
		"missing":         {parts: []CompletePart{line(p2), {Number: 9, ETag: p2.ETag}}, want: ErrInvalidPart},
		"etag":            {parts: []CompletePart{{Number: 2, ETag: small.ETag}}, want: ErrInvalidPart},
		"part checksum":   {parts: []CompletePart{{Number: 2, ETag: p2.ETag, Checksum: sum}}, want: ErrInvalidPart},
		"number 0":        {parts: []CompletePart{{Number: 0, ETag: p2.ETag}}, want: ErrInvalidPart},
		"number 10001":    {parts: []CompletePart{{Number: 10001, ETag: p2.ETag}}, want: ErrInvalidPart},
		"small":           {parts: []CompletePart{line(small), line(p2)}, want: ErrEntityTooSmall},
		"object checksum": {parts: []CompletePart{line(p2)}, sum: sum, want: ErrBadDigest},
		"if-match":        {parts: []CompletePart{line(p2)}, cond: Conditions{IfMatch: []string{"*"}}, want: ErrNoSuchKey},
	} {
		_, err := r.CompleteUpload(r.ctx, "b", "k", id, c.parts, c.sum, c.cond)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for _, parts := range [][]CompletePart{nil, make([]CompletePart, PartsMax+1)} {
		if _, err := r.CompleteUpload(r.ctx, "b", "k", id, parts, nil, Conditions{}); !ashlar.Is(err, ashlar.Invalid) {
			t.Errorf("%d parts: %v", len(parts), err)
		}
	}
	for _, bad := range []string{"", "zz", strings.Repeat("0", 32), id[:31] + "x"} {
		_, err := r.CompleteUpload(r.ctx, "b", "k", bad, []CompletePart{line(p2)}, nil, Conditions{})
		want(t, err, ErrNoSuchUpload)
		want(t, r.AbortUpload(r.ctx, "b", "k", bad), ErrNoSuchUpload)
		_, _, _, err = r.ListParts(r.ctx, "b", "k", bad, 0, 10)
		want(t, err, ErrNoSuchUpload)
	}
	_, err := r.PutPart(r.ctx, "b", "other key", id, 1, body([]byte("x")))
	want(t, err, ErrNoSuchUpload)
	for _, n := range []int{0, -1, 10001} {
		if _, err := r.PutPart(r.ctx, "b", "k", id, n, body([]byte("x"))); !ashlar.Is(err, ashlar.Invalid) {
			t.Errorf("part %d: %v", n, err)
		}
	}
	_, err = r.HeadObject(r.ctx, "b", "k", "")
	want(t, err, ErrNoSuchKey)
	// The condition is judged against what is there at completion.
	r.put(t, "b", "k", "came first")
	_, err = r.CompleteUpload(r.ctx, "b", "k", id, []CompletePart{line(p2)}, nil, Conditions{IfNoneMatch: []string{"*"}})
	want(t, err, ErrPreconditionFailed)
	// After all refusals the upload is as it was. Its last part is empty.
	o, err := r.complete(id, "k", 2, 3)
	want(t, err, nil)
	if !slices.Equal(o.PartBytes, []uint64{PartBytesMin, 0}) || r.read(t, "b", "k") != string(big) {
		t.Fatalf("completed %+v", o)
	}
	r.audit(t)
}

func TestUploadChecksums(t *testing.T) {
	r := newRig(t)
	digest := func(algorithm, content string) *Checksum {
		h := NewHash(algorithm)
		h.Write([]byte(content))
		return &Checksum{Algorithm: algorithm, Value: h.Sum(nil)}
	}
	for _, algorithm := range []string{CRC32, CRC32C, CRC64NVME} {
		id := r.upload(t, "k", Upload{ChecksumAlgorithm: algorithm})
		b := &testBody{r: bytes.NewReader(big), n: int64(len(big)), sum: bigSum, check: digest(algorithm, string(big))}
		p1, err := r.PutPart(r.ctx, "b", "k", id, 1, b)
		want(t, err, nil)
		p2 := r.part(t, "k", id, 2, "tail", digest(algorithm, "tail"))
		full := digest(algorithm, string(big)+"tail")
		list := []CompletePart{{1, p1.ETag, p1.Checksum}, {2, p2.ETag, p2.Checksum}}
		_, err = r.CompleteUpload(r.ctx, "b", "k", id, list, digest(algorithm, "wrong"), Conditions{})
		want(t, err, ErrBadDigest)
		o, err := r.CompleteUpload(r.ctx, "b", "k", id, list, full, Conditions{})
		want(t, err, nil)
		if !bytes.Equal(o.Checksum.Value, full.Value) || o.Checksum.Parts != 0 {
			t.Fatalf("%s: %x, want %x", algorithm, o.Checksum.Value, full.Value)
		}
	}
	for _, algorithm := range []string{CRC32, CRC32C, SHA1, SHA256, SHA512, MD5, XXHASH64, XXHASH3, XXHASH128} {
		id := r.upload(t, "k", Upload{ChecksumAlgorithm: algorithm, Composite: true})
		part := digest(algorithm, "content")
		p := r.part(t, "k", id, 5, "content", part)
		composite := digest(algorithm, string(part.Value))
		o, err := r.CompleteUpload(r.ctx, "b", "k", id, []CompletePart{{5, p.ETag, p.Checksum}}, nil, Conditions{})
		want(t, err, nil)
		if o.Checksum.Parts != 1 || !bytes.Equal(o.Checksum.Value, composite.Value) {
			t.Fatalf("%s: composite %+v", algorithm, o.Checksum)
		}
	}
	for _, c := range []struct {
		algorithm string
		composite bool
	}{{SHA256, false}, {SHA1, false}, {SHA512, false}, {MD5, false}, {XXHASH128, false}, {CRC64NVME, true}, {"ROT13", true}, {"", true}} {
		_, err := r.CreateUpload(r.ctx, &Upload{Bucket: "b", Key: "k", ChecksumAlgorithm: c.algorithm, Composite: c.composite})
		if !ashlar.Is(err, ashlar.Invalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	id := r.upload(t, "k", Upload{ChecksumAlgorithm: CRC32})
	wrong := body([]byte("x"))
	wrong.check = digest(CRC32C, "x")
	if _, err := r.PutPart(r.ctx, "b", "k", id, 1, wrong); !ashlar.Is(err, ashlar.Invalid) {
		t.Fatalf("another algorithm: %v", err)
	}
	for _, algorithm := range []string{"", CRC32, CRC64NVME} { // nobody sends any
		id := r.upload(t, "k", Upload{ChecksumAlgorithm: algorithm})
		p1, err := r.PutPart(r.ctx, "b", "k", id, 1, &testBody{r: bytes.NewReader(big), n: int64(len(big)), sum: bigSum})
		want(t, err, nil)
		var sent *Checksum
		if algorithm == "" {
			sent = digest(SHA256, "tail") // an upload that asked for none takes any
		}
		p2 := r.part(t, "k", id, 2, "tail", sent)
		if (p1.Checksum != nil) != (algorithm != "") || p2.Checksum == nil {
			t.Fatalf("%q: parts with %+v and %+v", algorithm, p1.Checksum, p2.Checksum)
		}
		full := digest(cmp.Or(algorithm, CRC64NVME), string(big)+"tail")
		list := []CompletePart{{1, p1.ETag, nil}, {2, p2.ETag, nil}}
		_, err = r.CompleteUpload(r.ctx, "b", "k", id, list, digest(full.Algorithm, "wrong"), Conditions{})
		want(t, err, ErrBadDigest)
		o, err := r.CompleteUpload(r.ctx, "b", "k", id, list, nil, Conditions{})
		want(t, err, nil)
		if o.Checksum == nil || o.Checksum.Algorithm != full.Algorithm || !bytes.Equal(o.Checksum.Value, full.Value) || o.Checksum.Parts != 0 {
			t.Fatalf("%q: %+v, want %+v", algorithm, o.Checksum, full)
		}
		if o, err = r.HeadObject(r.ctx, "b", "k", ""); err != nil || (len(o.PartSums) > 0) != (algorithm != "") {
			t.Errorf("%q: %d checksums of parts, %v", algorithm, len(o.PartSums), err)
		}
	}
	var kind *ChecksumTypeError
	id = r.upload(t, "k", Upload{ChecksumAlgorithm: CRC32, Composite: true})
	if _, err := r.PutPart(r.ctx, "b", "k", id, 1, body([]byte("x"))); !errors.As(err, &kind) || kind.Want != CRC32 || kind.Got != "" {
		t.Fatalf("no checksum for a composite one: %v", err)
	}
	r.audit(t)
}

func TestAbort(t *testing.T) {
	r := newRig(t)
	id := r.upload(t, "k", Upload{})
	for n := range 7 {
		r.part(t, "k", id, n*1000+1, "part", nil)
	}
	want(t, r.AbortUpload(r.ctx, "b", "k", id), nil)
	want(t, r.AbortUpload(r.ctx, "b", "k", id), ErrNoSuchUpload)
	_, err := r.complete(id, "k", 1)
	want(t, err, ErrNoSuchUpload)
	_, err = r.CompleteUpload(r.ctx, "b", "k", id, []CompletePart{{Number: 1}}, nil, Conditions{})
	want(t, err, ErrNoSuchUpload)
	if c := r.census(t); c[row.KindPart] != 0 || c[trash.Kind] != 1 {
		t.Fatalf("rows %v", c)
	}
	r.audit(t)
}

// A crash right after Complete or Abort leaves parts behind; they go when the
// memory of the upload does, or with the bucket.
func TestLeftPartsAreFound(t *testing.T) {
	for _, way := range []string{"forget", "drop"} {
		r := newRig(t)
		for _, end := range []string{"complete", "abort"} {
			id := r.upload(t, "k", Upload{})
			r.part(t, "k", id, 1, "one", nil)
			r.part(t, "k", id, 2, "left", nil)
			ended := false
			r.meta.onCommit(func(_ context.Context, _ ashlar.ShardID, txn *meta.Txn, next func() error) error {
				if ended {
					return ashlar.E("test: crash", "", ashlar.Denied, nil)
				}
				ended = true
				return next()
			})
			if end == "complete" {
				_, err := r.complete(id, "k", 1)
				want(t, err, nil)
			} else {
				want(t, r.AbortUpload(r.ctx, "b", "k", id), nil)
			}
			r.meta.onCommit(nil)
		}
		if c := r.census(t); c[row.KindPart] != 3 || c[row.KindDone] != 2 {
			t.Fatalf("rows %v", c)
		}
		r.audit(t)
		b, err := r.lookup(r.ctx, "b")
		want(t, err, nil)
		if way == "drop" {
			want(t, r.unput(r.ctx, "b", "k", Conditions{}), nil)
			want(t, r.DeleteBucket(r.ctx, "b"), nil)
		} else {
			want(t, r.forget(r.ctx, b.slotOf("k")), nil)
			if c := r.census(t); c[row.KindDone] != 2 {
				t.Fatalf("forgotten too early: %v", c)
			}
			r.clock.advance(doneKeep)
			want(t, r.forget(r.ctx, b.slotOf("k")), nil)
		}
		if c := r.census(t); c[row.KindPart] != 0 || c[row.KindDone] != 0 {
			t.Fatalf("%s: rows %v", way, c)
		}
		r.audit(t)
	}
}

// Uploads that end tidy up what is old, so memories do not pile up.
func TestMemoriesAreForgotten(t *testing.T) {
	r := newRig(t)
	for range 300 {
		r.clock.advance(time.Hour)
		id := r.upload(t, "k", Upload{})
		want(t, r.AbortUpload(r.ctx, "b", "k", id), nil)
	}
	if n := r.census(t)[row.KindDone]; n > 150 {
		t.Fatalf("%d memories after 300 uploads in 300 hours", n)
	}
}

// Parts, their replacements, a Complete and an Abort race. Whatever wins,
// nothing is lost, leaked or referred to twice.
func TestUploadRaces(t *testing.T) {
	r := newRig(t)
	second := r.again()
	t.Cleanup(second.Close)
	completed, aborted := 0, 0
	for round := range 40 {
		key := "race-" + numbered(round)
		id := r.upload(t, key, Upload{})
		r.part(t, key, id, 1, "first", nil)
		var wg sync.WaitGroup
		wait := race(7)
		for i := range 4 {
			wg.Go(func() {
				wait()
				st := []*Store{r.Store, second}[i%2]
				_, err := st.PutPart(r.ctx, "b", key, id, 1+i%2, body([]byte(numbered(i))))
				if err != nil && !errors.Is(err, ErrNoSuchUpload) {
					t.Errorf("part: %v", err)
				}
			})
		}
		outcomes := make([]error, 3)
		for i := range 2 {
			wg.Go(func() {
				wait()
				_, outcomes[i] = (&rig{Store: []*Store{r.Store, second}[i], ctx: r.ctx}).complete(id, key, 1)
			})
		}
		wg.Go(func() { wait(); outcomes[2] = r.AbortUpload(r.ctx, "b", key, id) })
		wg.Wait()
		for i, err := range outcomes {
			if err != nil && !errors.Is(err, ErrNoSuchUpload) && !errors.Is(err, ErrInvalidPart) {
				t.Fatalf("outcome %d: %v", i, err)
			}
		}
		_, err := r.HeadObject(r.ctx, "b", key, "")
		if outcomes[2] == nil {
			aborted++
			want(t, err, ErrNoSuchKey)
		} else if err == nil {
			completed++
		}
		second.background.Wait()
		// What a part that lost the race left is found later; do that now.
		b, err := r.lookup(r.ctx, "b")
		want(t, err, nil)
		if _, _, _, err := r.ListParts(r.ctx, "b", key, id, 0, 1); errors.Is(err, ErrNoSuchUpload) {
			sl := b.slotOf(key)
			v, _ := row.ParseVersionID(id)
			want(t, r.sweepParts(r.ctx, sl, sl.Parts(v)), nil)
		}
	}
	t.Logf("%d completed, %d aborted", completed, aborted)
	r.audit(t)
}

// The largest upload, with the longest key, over the largest object: it must
// fit the bounds of one transaction, and its listing must stay small.
func TestTenThousandParts(t *testing.T) {
	r := newRig(t)
	key := strings.Repeat("k", row.KeyBytesMax)
	var items, size int
	r.meta.onCommit(func(_ context.Context, _ ashlar.ShardID, txn *meta.Txn, next func() error) error {
		if err := next(); err != nil {
			return err
		}
		if n := len(txn.Conds) + len(txn.Puts) + len(txn.Deletes) + len(txn.Adds); n > items {
			items, size = n, txnBytes(txn)
		}
		return nil
	})
	for round := range 2 { // the second replaces the first
		id := r.upload(t, key, Upload{ChecksumAlgorithm: CRC64NVME})
		r.forgeParts(t, key, id)
		list := make([]CompletePart, PartsMax)
		for i := range list {
			list[i] = CompletePart{Number: i + 1, ETag: hex.EncodeToString(bigSum[:])}
		}
		o, err := r.CompleteUpload(r.ctx, "b", key, id, list, nil, Conditions{})
		want(t, err, nil)
		if !strings.HasSuffix(o.ETag, "-10000") || o.Bytes != PartsMax*400*ashlar.MiB || o.Checksum == nil {
			t.Fatalf("round %d: %s, %d bytes", round, o.ETag, o.Bytes)
		}
	}
	head, err := r.HeadObject(r.ctx, "b", key, "")
	want(t, err, nil)
	if len(head.Extents) != PartsMax || len(head.PartBytes) != PartsMax || head.Extents[9999].Part != 10000 {
		t.Fatalf("%d extents, %d parts", len(head.Extents), len(head.PartBytes))
	}
	rowBytes, manifestBytes := 0, 0
	for shard := range ashlar.ShardID(testShards) {
		for _, rw := range r.rows(t, shard) {
			switch rw.Key[0] {
			case row.KindObject:
				rowBytes = len(rw.Value)
			case row.KindManifest:
				manifestBytes = len(rw.Value)
			}
		}
	}
	t.Logf("Complete of 10,000 parts: %d items, %d bytes; object row %d bytes, manifest %d bytes", items, size, rowBytes, manifestBytes)
	if size > meta.TxnBytesMax || manifestBytes > meta.ValueBytesMax || rowBytes > 4096 {
		t.Fatal("too large")
	}
	want(t, r.unput(r.ctx, "b", key, Conditions{}), nil)
}

func txnBytes(txn *meta.Txn) (n int) {
	for _, c := range txn.Conds {
		n += len(c.Key)
	}
	for _, p := range txn.Puts {
		n += len(p.Key) + len(p.Value)
	}
	for _, k := range txn.Deletes {
		n += len(k)
	}
	return n
}

// forgeParts writes the rows of 10,000 parts of 400 MiB that were never sent.
func (r *rig) forgeParts(t *testing.T, key, id string) {
	t.Helper()
	b, err := r.lookup(r.ctx, "b")
	want(t, err, nil)
	v, _ := row.ParseVersionID(id)
	sl := b.slotOf(key)
	const each = 1000
	for at := 1; at <= PartsMax; at += each {
		txn := &meta.Txn{Adds: []meta.Add{{Key: sl.Counter(row.CountPartBytes), Delta: each * 400 * ashlar.MiB}}}
		for n := at; n < at+each; n++ {
			value, err := row.Encode(&row.Part{
				Format: row.Format, Key: []byte(key), Bytes: 400 * ashlar.MiB, Md5: bigSum[:],
				Checksum: &row.Checksum{Algorithm: CRC64NVME, Value: make([]byte, 8)},
				Extents: row.FromExtents([]ashlar.Extent{{
					Write: ashlar.NewWriteID(), Part: uint32(n), Bytes: 400 * ashlar.MiB, StripeBytes: 16 * ashlar.MiB,
					SmallMax: ashlar.MiB, Large: ashlar.Code{K: 8, M: 4}, Small: ashlar.Code{K: 1, M: 2},
				}}),
			})
			want(t, err, nil)
			txn.Puts = append(txn.Puts, meta.Put{Key: sl.Part(v, uint16(n)), Value: value})
		}
		want(t, r.commit(r.ctx, sl.shard, txn), nil)
	}
}

func TestListParts(t *testing.T) {
	r := newRig(t)
	r.meta.rnd = seeded(t)
	id := r.upload(t, "k", Upload{Attributes: Attributes{ContentType: "x/y"}, ChecksumAlgorithm: CRC32})
	numbers := []int{1, 2, 3, 5, 8, 13, 255, 256, 257, 10000}
	for _, n := range numbers {
		r.part(t, "k", id, n, fmt.Sprint("part ", n), nil)
	}
	for size := 1; size <= len(numbers)+1; size++ {
		var got []int
		after := 0
		for {
			up, parts, truncated, err := r.ListParts(r.ctx, "b", "k", id, after, size)
			want(t, err, nil)
			if up.ContentType != "x/y" || up.ID != id || up.ChecksumAlgorithm != CRC32 || up.Started.IsZero() {
				t.Fatalf("upload %+v", up)
			}
			for _, p := range parts {
				got = append(got, p.Number)
				if int(p.Bytes) != len(fmt.Sprint("part ", p.Number)) || len(p.ETag) != 32 {
					t.Fatalf("part %+v", p)
				}
			}
			if !truncated {
				break
			}
			after = got[len(got)-1]
		}
		if !slices.Equal(got, numbers) {
			t.Fatalf("pages of %d: %v", size, got)
		}
	}
	_, parts, truncated, err := r.ListParts(r.ctx, "b", "k", id, 0, 0)
	if err != nil || len(parts) != 0 || truncated {
		t.Fatalf("max 0: %v %v %v", parts, truncated, err)
	}
}

func TestListUploads(t *testing.T) {
	r := newRig(t)
	r.meta.rnd = seeded(t)
	type ku struct{ key, id string }
	var all []ku
	for i, k := range []string{"a", "a/1", "a/2", "a/3/x", "b", "b/", "c", "a", "a", "a/1", "f/2f/3"} {
		r.clock.advance(time.Second)
		all = append(all, ku{k, r.upload(t, k, Upload{})})
		if i%3 == 0 {
			r.put(t, "b", k, "objects do not disturb")
		}
	}
	slices.SortStableFunc(all, func(x, y ku) int { return strings.Compare(x.key, y.key) })
	for _, prefix := range []string{"", "a", "a/", "c", "zz"} {
		for _, delimiter := range []string{"", "/", "1", "2"} {
			var names, model []string
			for _, u := range all {
				if !strings.HasPrefix(u.key, prefix) {
					continue
				}
				name := u.key + " " + u.id
				if common, ok := (&walk{prefix: prefix, delimiter: delimiter}).delimited(u.key); ok {
					name = common
				}
				if len(model) == 0 || model[len(model)-1] != name {
					model = append(model, name)
				}
			}
			for size := 1; size < 8; size += 2 {
				names = nil
				keyAfter, idAfter := "", ""
				for {
					ups, prefixes, truncated, err := r.ListUploads(r.ctx, "b", prefix, delimiter, keyAfter, idAfter, size)
					want(t, err, nil)
					var page []ku
					for _, u := range ups {
						page = append(page, ku{u.Key, u.ID})
					}
					for _, p := range prefixes {
						page = append(page, ku{p, ""})
					}
					slices.SortStableFunc(page, func(x, y ku) int { return strings.Compare(x.key, y.key) })
					for _, u := range page {
						names = append(names, strings.TrimSuffix(u.key+" "+u.id, " "))
					}
					if !truncated {
						break
					}
					last := page[len(page)-1]
					keyAfter, idAfter = last.key, last.id
				}
				if !slices.Equal(names, model) {
					t.Fatalf("prefix %q delimiter %q size %d:\n got %q\nwant %q", prefix, delimiter, size, names, model)
				}
			}
		}
	}
}
