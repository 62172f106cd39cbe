package s3gw

import (
	"crypto/md5"
	"errors"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

func createUpload(c *call) error {
	w, err := c.newWrite()
	if err != nil {
		return err
	}
	u := store.Upload{Bucket: w.Bucket, Key: w.Key, Owner: w.Owner, ACL: w.ACL, Attributes: w.Attributes, Lock: w.Lock, Encryption: w.Encryption}
	alg, err := s3.RequestedAlgorithm(c.r.Header, "X-Amz-Checksum-Algorithm")
	if err != nil {
		return err
	}
	if u.Composite, err = checksumType(strings.ToUpper(c.header("X-Amz-Checksum-Type")), alg); err != nil {
		return err
	}
	if alg != nil {
		u.ChecksumAlgorithm = alg.Name
	}
	id, err := c.s.backend.CreateUpload(c.ctx, &u)
	if err != nil {
		return c.withKey(err)
	}
	c.abortHeaders(&u)
	c.encryptionHeaders(u.Encryption)
	if alg != nil {
		c.set("X-Amz-Checksum-Algorithm", alg.Name)
		c.set("X-Amz-Checksum-Type", typeName(u.Composite))
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("InitiateMultipartUploadResult")
		w.Text("Bucket", string(c.bucket))
		w.Text("Key", string(c.key))
		w.Text("UploadId", id)
		w.Close("InitiateMultipartUploadResult")
	})
}

func typeName(composite bool) string {
	if composite {
		return "COMPOSITE"
	}
	return "FULL_OBJECT"
}

// checksumType judges x-amz-checksum-type against the algorithm; the default is
// composite wherever that exists.
func checksumType(text string, alg *s3.Algorithm) (composite bool, err error) {
	switch {
	case text != "" && text != "COMPOSITE" && text != "FULL_OBJECT":
		return false, s3.E(s3.InvalidRequest, "Value for x-amz-checksum-type header is invalid.")
	case alg == nil && text != "":
		return false, s3.E(s3.InvalidRequest, "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
	case alg == nil:
		return false, nil
	case text == "":
		return alg.Composite, nil
	case text == "COMPOSITE" && alg.Composite:
		return true, nil
	case text == "FULL_OBJECT" && alg.FullObject:
		return false, nil
	}
	return false, s3.E(s3.InvalidRequest, "The "+text+" checksum type cannot be used with the "+strings.ToLower(alg.Name)+" checksum algorithm.")
}

// uploadID returns the id of the query; an empty one names no upload.
func (c *call) uploadID() (string, error) {
	id := c.query.Value("uploadId")
	if id == "" {
		return "", s3.E(s3.NoSuchUpload, "")
	}
	return id, nil
}

// part returns the upload and the part number that a request names.
func (c *call) part() (id string, number int, err error) {
	text, given := c.query.Get("partNumber")
	if !given {
		return "", 0, invalidArgument("partNumber", "", "This operation does not accept a query-string without partNumber.")
	}
	if number, err = partNumber(text); err != nil {
		return "", 0, err
	}
	id, err = c.uploadID()
	return id, number, err
}

func uploadPart(c *call) error {
	id, number, err := c.part()
	if err != nil {
		return err
	}
	key, err := c.customerKey(false)
	if err != nil {
		return err
	}
	p, err := c.s.backend.PutPartWith(c.ctx, string(c.bucket), string(c.key), id, number, key, c.body)
	if err != nil {
		return c.withKey(err)
	}
	c.encryptionHeaders(p.Encryption)
	c.set("ETag", `"`+p.ETag+`"`)
	if p.Checksum != nil {
		if a := s3.AlgorithmOf(p.Checksum.Algorithm); a != nil {
			c.set(a.Header, s3.FormatChecksum(p.Checksum))
		}
	}
	return c.empty(http.StatusOK)
}

// partSource returns the object and the bytes of it that a part is copied from.
func (c *call) partSource() (src store.Object, rng s3.Range, err error) {
	bucket, key, version, err := c.copySource()
	if err != nil {
		return src, rng, err
	}
	if o := c.judged(bucket, key, version); o != nil {
		src = *o
	} else if src, err = c.s.backend.HeadObject(c.ctx, string(bucket), string(key), version); err != nil {
		return src, rng, sourceError(err)
	}
	sourceKey, err := c.customerKey(true)
	if err != nil {
		return src, rng, err
	}
	if sourceKey != nil || src.Encryption != nil {
		if err := c.s.backend.Unlock(c.ctx, &src, sourceKey); err != nil {
			return src, rng, err
		}
	}
	if version != "" {
		c.set("X-Amz-Copy-Source-Version-Id", version)
	}
	cond := s3.Conditions(c.r.Header, "X-Amz-Copy-Source-")
	if err := s3.JudgeRead(&cond, src.ETag, src.Modified, true); err != nil {
		return src, rng, err
	}
	rng.Length = src.Bytes
	if text := c.header("X-Amz-Copy-Source-Range"); text != "" {
		if rng, err = s3.ParseCopyRange(text, src.Bytes); err != nil {
			return src, rng, err
		}
	}
	if rng.Length > store.PartBytesMax {
		err = s3.E(s3.InvalidRequest, copyTooLarge)
	}
	return src, rng, err
}

const copyTooLarge = "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120"

// uploadPartCopy reads the source through the gateway and stores it as a part.
func uploadPartCopy(c *call) error {
	id, number, err := c.part()
	if err != nil {
		return err
	}
	customer, err := c.customerKey(false)
	if err != nil {
		return err
	}
	src, rng, err := c.partSource()
	if err != nil {
		return err
	}
	// The part needs the checksum that its upload keeps: nobody sends it.
	u, _, _, err := c.s.backend.ListParts(c.ctx, string(c.bucket), string(c.key), id, store.PartsMax, 1)
	if err != nil {
		return c.withKey(err)
	}
	var from io.ReadCloser = io.NopCloser(strings.NewReader(""))
	if rng.Length > 0 {
		if from, err = c.s.backend.OpenObject(c.ctx, &src, rng.Offset, rng.Length); err != nil {
			return err
		}
	}
	defer from.Close()
	body := newCopyBody(from, rng.Length, s3.AlgorithmOf(u.ChecksumAlgorithm))
	p, err := c.s.backend.PutPartWith(c.ctx, string(c.bucket), string(c.key), id, number, customer, body)
	if err != nil {
		return c.withKey(err)
	}
	c.encryptionHeaders(p.Encryption)
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("CopyPartResult")
		w.Time("LastModified", p.Modified)
		w.ETag("ETag", p.ETag)
		w.Checksum(p.Checksum, false)
		w.Close("CopyPartResult")
	})
}

// copyBody is the store.Body of bytes that come from the store itself.
type copyBody struct {
	src    io.Reader
	length uint64
	seen   uint64
	md5    hash.Hash
	alg    *s3.Algorithm // nil: no checksum
	sum    hash.Hash
	err    error
}

func newCopyBody(src io.Reader, length uint64, alg *s3.Algorithm) *copyBody {
	b := &copyBody{src: src, length: length, md5: md5.New(), alg: alg}
	if alg != nil {
		b.sum = alg.New()
	}
	return b
}

func (b *copyBody) Bytes() int64 { return int64(b.length) }

func (b *copyBody) Algorithm() string { return nameOf(b.alg) }

func (b *copyBody) Sums() (sum [16]byte, checksum *store.Checksum) {
	if b.err != io.EOF {
		panic("s3gw: Sums of a copy that has not ended well")
	}
	b.md5.Sum(sum[:0])
	if b.alg != nil {
		checksum = &store.Checksum{Algorithm: b.alg.Name, Value: b.sum.Sum(nil)}
	}
	return sum, checksum
}

// Read ends with io.ErrUnexpectedEOF if the source is shorter than it said.
func (b *copyBody) Read(p []byte) (int, error) {
	if b.err == nil && b.seen == b.length {
		b.err = io.EOF
	}
	if b.err != nil {
		return 0, b.err
	}
	p = p[:min(uint64(len(p)), b.length-b.seen)]
	n, err := b.src.Read(p)
	b.md5.Write(p[:n])
	if b.sum != nil {
		b.sum.Write(p[:n])
	}
	b.seen += uint64(n)
	switch {
	case b.seen == b.length:
		b.err = io.EOF
	case err == io.EOF:
		b.err = &s3.Error{Code: s3.InternalError, Err: io.ErrUnexpectedEOF}
	case err != nil:
		b.err = err
	}
	return n, b.err
}

func listParts(c *call) error {
	id, err := c.uploadID()
	if err != nil {
		return err
	}
	limit, _, err := c.number("max-parts", store.ListMax)
	if err != nil {
		return err
	}
	after, _, err := c.number("part-number-marker", 0)
	if err != nil {
		return err
	}
	limit = min(limit, store.ListMax)
	u, parts, truncated, err := c.s.backend.ListParts(c.ctx, string(c.bucket), string(c.key), id, after, limit)
	if err != nil {
		return c.withKey(err)
	}
	c.abortHeaders(&u)
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("ListPartsResult")
		w.Text("Bucket", string(c.bucket))
		w.Text("Key", string(c.key))
		w.Text("UploadId", id)
		w.Owner("Initiator", u.Owner)
		w.Owner("Owner", u.Owner)
		w.Raw("StorageClass", storageClass(u.StorageClass))
		w.Int("PartNumberMarker", int64(after))
		if len(parts) > 0 {
			w.Int("NextPartNumberMarker", int64(parts[len(parts)-1].Number))
		}
		w.Int("MaxParts", int64(limit))
		w.Bool("IsTruncated", truncated)
		if u.ChecksumAlgorithm != "" {
			w.Raw("ChecksumAlgorithm", u.ChecksumAlgorithm)
			w.Raw("ChecksumType", typeName(u.Composite))
		}
		for i := range parts {
			p := &parts[i]
			w.Open("Part")
			w.Int("PartNumber", int64(p.Number))
			w.Time("LastModified", p.Modified)
			w.ETag("ETag", p.ETag)
			w.Int("Size", int64(p.Bytes))
			w.Checksum(p.Checksum, false)
			w.Close("Part")
		}
		w.Close("ListPartsResult")
	})
}

func listUploads(c *call) error {
	limit, _, err := c.number("max-uploads", store.ListMax)
	if err != nil {
		return err
	}
	limit = min(limit, store.ListMax)
	urlEncode, err := c.urlEncoding()
	if err != nil {
		return err
	}
	if err := checkText(c.query, "prefix", "delimiter", "key-marker"); err != nil {
		return err
	}
	prefix, delimiter := c.query.Value("prefix"), c.query.Value("delimiter")
	keyAfter, idAfter := c.query.Value("key-marker"), c.query.Value("upload-id-marker")
	switch {
	case keyAfter == "":
		idAfter = "" // without a key the id means nothing
	case idAfter != "" && !store.IsUploadID(idAfter):
		return invalidArgument("upload-id-marker", idAfter, "Invalid uploadId marker")
	}
	after := idAfter
	if c.s.minio && keyAfter != "" && idAfter == "" {
		after = store.FirstUpload
	}
	var uploads []store.Upload
	var prefixes []string
	truncated := false
	if limit > 0 {
		uploads, prefixes, truncated, err = c.s.backend.ListUploads(c.ctx, string(c.bucket), prefix, delimiter, keyAfter, after, limit)
	} else {
		_, err = c.s.backend.HeadBucket(c.ctx, string(c.bucket))
	}
	if err != nil {
		return withBucket(err, c.bucket)
	}
	nextKey, nextID := lastUpload(uploads, prefixes)
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.URLEncode = urlEncode
		w.Begin("ListMultipartUploadsResult")
		w.Text("Bucket", string(c.bucket))
		w.Name("KeyMarker", keyAfter)
		w.Text("UploadIdMarker", idAfter)
		if truncated {
			w.Name("NextKeyMarker", nextKey)
			w.Text("NextUploadIdMarker", nextID)
		}
		w.Name("Prefix", prefix)
		if delimiter != "" {
			w.Name("Delimiter", delimiter)
		}
		if urlEncode {
			w.Raw("EncodingType", "url")
		}
		w.Int("MaxUploads", int64(limit))
		w.Bool("IsTruncated", truncated)
		for i := range uploads {
			writeUpload(w, &uploads[i], !c.s.minio)
		}
		writePrefixes(w, prefixes)
		w.Close("ListMultipartUploadsResult")
	})
}

// lastUpload returns where the next page begins: the greatest key or prefix.
func lastUpload(uploads []store.Upload, prefixes []string) (key, id string) {
	if n := len(uploads); n > 0 {
		key, id = uploads[n-1].Key, uploads[n-1].ID
	}
	if n := len(prefixes); n > 0 && prefixes[n-1] > key {
		key, id = prefixes[n-1], ""
	}
	return key, id
}

func writeUpload(w *s3.Writer, u *store.Upload, owned bool) {
	w.Open("Upload")
	w.Name("Key", u.Key)
	w.Text("UploadId", u.ID)
	if owned {
		w.Owner("Initiator", u.Owner)
		w.Owner("Owner", u.Owner)
		w.Raw("StorageClass", storageClass(u.StorageClass))
	}
	w.Time("Initiated", u.Started)
	if u.ChecksumAlgorithm != "" {
		w.Raw("ChecksumAlgorithm", u.ChecksumAlgorithm)
		w.Raw("ChecksumType", typeName(u.Composite))
	}
	w.Close("Upload")
}

func completeUpload(c *call) error {
	id, err := c.uploadID()
	if err != nil {
		return err
	}
	_, sum, err := s3.ChecksumOf(c.r.Header)
	if err != nil {
		return err
	}
	if err := c.checkUploadType(id); err != nil {
		return err
	}
	doc, err := c.document()
	if err != nil {
		return err
	}
	parts, err := s3.ParseComplete(doc)
	if err != nil {
		return err
	}
	if err := c.checkObjectSize(id, parts); err != nil {
		return err
	}
	cond := c.writeConditions()
	if cond.CustomerKey, err = c.customerKey(false); err != nil {
		return err
	}
	cond.KeyOptional = c.s.minio
	o, err := c.s.backend.CompleteUpload(c.ctx, string(c.bucket), string(c.key), id, parts, sum, cond)
	if errors.Is(err, store.ErrBadDigest) {
		err = &s3.Error{Code: s3.BadDigest, Message: "The " + sum.Algorithm + " you specified did not match the calculated checksum.", Err: err}
	}
	if err != nil {
		return c.withKey(err)
	}
	c.writtenHeaders(&o)
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("CompleteMultipartUploadResult")
		w.Text("Location", c.location())
		w.Text("Bucket", string(c.bucket))
		w.Text("Key", string(c.key))
		w.ETag("ETag", o.ETag)
		w.Checksum(o.Checksum, true)
		w.Close("CompleteMultipartUploadResult")
	})
}

// checkUploadType compares x-amz-checksum-type, if given, with what the upload was
// made with.
func (c *call) checkUploadType(id string) error {
	text := strings.ToUpper(c.header("X-Amz-Checksum-Type"))
	switch text {
	case "":
		return nil
	case "COMPOSITE", "FULL_OBJECT":
	default:
		return s3.E(s3.InvalidRequest, "Value for x-amz-checksum-type header is invalid.")
	}
	u, _, _, err := c.s.backend.ListParts(c.ctx, string(c.bucket), string(c.key), id, store.PartsMax, 1)
	switch {
	case errors.Is(err, store.ErrNoSuchUpload):
		return nil // Complete knows whether it was completed before
	case err != nil:
		return c.withKey(err)
	case u.ChecksumAlgorithm != "" && text != typeName(u.Composite):
		return s3.E(s3.InvalidRequest, "The upload was created using the "+typeName(u.Composite)+
			" checksum mode. The complete request must use the same checksum mode.")
	}
	return nil
}

// location returns the URL of the object as this client would ask for it.
func (c *call) location() string {
	scheme := "http://"
	if c.r.TLS != nil {
		scheme = "https://"
	}
	b := append([]byte(scheme), c.r.Host...)
	b = append(b, '/')
	if _, virtual := c.bucketOfHost(); !virtual {
		b = append(b, c.bucket...)
		b = append(b, '/')
	}
	return string(s3.AppendEscaped(b, string(c.key), true))
}

func abortUpload(c *call) error {
	id, err := c.uploadID()
	if err != nil {
		return err
	}
	if err := c.s.backend.AbortUpload(c.ctx, string(c.bucket), string(c.key), id); err != nil {
		return c.withKey(err)
	}
	return c.empty(http.StatusNoContent)
}

// checkObjectSize compares x-amz-mp-object-size, if given, with the parts that
// the object is to be made of.
func (c *call) checkObjectSize(id string, parts []store.CompletePart) error {
	text := c.header("X-Amz-Mp-Object-Size")
	if text == "" {
		return nil
	}
	want, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return s3.E(s3.InvalidRequest, "Value for x-amz-mp-object-size header is invalid.")
	}
	sizes := make(map[int]uint64, len(parts))
	for after, more := 0, true; more; {
		var page []store.Part
		_, page, more, err = c.s.backend.ListParts(c.ctx, string(c.bucket), string(c.key), id, after, store.ListMax)
		if errors.Is(err, store.ErrNoSuchUpload) {
			return nil // Complete knows whether it was completed before
		}
		if err != nil {
			return c.withKey(err)
		}
		for i := range page {
			sizes[page[i].Number], after = page[i].Bytes, page[i].Number
		}
		more = more && len(page) > 0
	}
	var got uint64
	for i := range parts {
		got += sizes[parts[i].Number]
	}
	if got != want {
		return s3.E(s3.InvalidRequest, "The provided 'x-amz-mp-object-size' header value "+text+
			" does not match what was computed: "+strconv.FormatUint(got, 10))
	}
	return nil
}
