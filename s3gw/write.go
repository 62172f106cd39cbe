package s3gw

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// deletesAtOnce bounds how many keys of one DeleteObjects are in flight.
const deletesAtOnce = 16

// attributes reads everything that a client says about an object.
func (c *call) attributes() (a store.Attributes, err error) {
	a = store.Attributes{
		ContentType: c.header("Content-Type"), ContentEncoding: s3.StripChunked(strings.Join(c.r.Header["Content-Encoding"], ",")),
		ContentDisposition: c.header("Content-Disposition"), ContentLanguage: c.header("Content-Language"),
		CacheControl: c.header("Cache-Control"), Expires: c.header("Expires"),
	}
	if a.ContentType == "" {
		a.ContentType = "binary/octet-stream"
	}
	if a.WebsiteRedirect, err = s3.WebsiteRedirect(c.r.Header); err != nil {
		return a, err
	}
	if a.StorageClass, err = s3.StorageClass(c.r.Header); err != nil {
		return a, err
	}
	if a.User, err = s3.UserMetadata(c.r.Header); err != nil {
		return a, err
	}
	a.Tags, err = s3.TagsOf(c.r.Header)
	return a, err
}

// writeConditions reads If-Match and If-None-Match of a write; AWS knows no
// dates there.
func (c *call) writeConditions() store.Conditions {
	cond := s3.Conditions(c.r.Header, "")
	return store.Conditions{IfMatch: cond.IfMatch, IfNoneMatch: cond.IfNoneMatch}
}

// newWrite reads all that a request says of the object that it makes: of the key of
// the call, or of an upload that will be one. Forms have no conditions: nobody signs
// the headers that say them.
func (c *call) newWrite() (*store.PutRequest, error) {
	w := &store.PutRequest{Bucket: string(c.bucket), Key: string(c.key)}
	if c.form == nil {
		w.Conditions = c.writeConditions()
	}
	var err error
	if w.Attributes, err = c.attributes(); err != nil {
		return nil, err
	}
	if w.Lock, err = c.lock(); err != nil {
		return nil, err
	}
	if w.Encryption, err = c.encryption(); err != nil {
		return nil, err
	}
	own, err := c.ownedBy()
	w.Owner, w.ACL = own.owner, own.acl
	return w, err
}

// writtenHeaders tell about an object that was made.
func (c *call) writtenHeaders(o *store.Object) {
	c.versionHeader(o.Version)
	c.expiryHeader(o)
	c.encryptionHeaders(o.Encryption)
}

// storeBody makes an object of a body.
func (c *call) storeBody(w *store.PutRequest, body store.Body) (store.Object, error) {
	o, err := c.s.backend.PutObject(c.ctx, w, body)
	if err != nil {
		return o, c.withKey(err)
	}
	c.objectBytes = int64(o.Bytes)
	c.set("ETag", `"`+o.ETag+`"`)
	c.writtenHeaders(&o)
	c.checksumHeaders(o.Checksum)
	return o, nil
}

func putObject(c *call) error {
	w, err := c.newWrite()
	if err != nil {
		return err
	}
	if w.Lock != (store.Lock{}) && !c.body.hasDigest() {
		return s3.E(s3.InvalidRequest, "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters")
	}
	if _, err := c.storeBody(w, c.body); err != nil {
		return err
	}
	return c.empty(http.StatusOK)
}

func deleteObject(c *call) error {
	version, err := c.version()
	if err != nil {
		return err
	}
	cond, err := c.deleteConditions()
	if err != nil {
		return err
	}
	d, err := c.remove(c.key, version, cond)
	if err != nil && !(errors.Is(err, store.ErrNoSuchKey) && len(cond.IfMatch) == 0) {
		return c.withKey(err)
	}
	c.versionHeader(cmp.Or(d.Version, version))
	if d.Marker {
		c.set("X-Amz-Delete-Marker", "true")
	}
	return c.empty(http.StatusNoContent)
}

// remove deletes a version or what is current. A delete marker that takes its
// place is whose an object would be that the sender puts there.
func (c *call) remove(key s3.Key, version string, cond store.Conditions) (store.Deleted, error) {
	a, err := c.access(c.bucket)
	if err != nil {
		return store.Deleted{}, err
	}
	return c.s.backend.DeleteObject(c.ctx, string(c.bucket), string(key), version, c.writer(a), cond)
}

// deleteConditions reads the conditions of a DELETE. Size and time, which AWS
// knows for directory buckets only, are judged for every bucket: a condition that
// was sent is never ignored.
func (c *call) deleteConditions() (store.Conditions, error) {
	cond := c.writeConditions()
	cond.Bypass = c.bypass(c.key)
	if text := c.header("X-Amz-If-Match-Size"); text != "" {
		n, err := strconv.ParseUint(text, 10, 63)
		if err != nil {
			return cond, invalidArgument("x-amz-if-match-size", text, "Want a number of bytes.")
		}
		cond.IfBytes = &n
	}
	if text := c.header("X-Amz-If-Match-Last-Modified-Time"); text != "" {
		t, err := s3.ParseDate(text)
		if err != nil {
			return cond, invalidArgument("x-amz-if-match-last-modified-time", text, "Want a date.")
		}
		cond.IfModifiedAt = &t
	}
	return cond, nil
}

func deleteObjects(c *call) error {
	if !c.body.hasDigest() {
		return s3.E(s3.InvalidRequest, "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
	}
	doc, err := c.document()
	if err != nil {
		return err
	}
	keys, quiet, err := s3.ParseDelete(doc)
	if err != nil {
		return err
	}
	if _, err := c.s.backend.HeadBucket(c.ctx, string(c.bucket)); err != nil {
		return withBucket(err, c.bucket)
	}
	results := make([]deleteResult, len(keys))
	each(len(keys), deletesAtOnce, func(i int) {
		d, err := c.deleteOne(&keys[i])
		results[i] = deleteResult{d, s3.Classify(err)}
	})
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("DeleteResult")
		for i := range keys {
			writeDeleted(w, &keys[i], &results[i], quiet)
		}
		w.Close("DeleteResult")
	})
}

// deleteResult is what became of one key of a batch.
type deleteResult struct {
	store.Deleted
	failure *s3.Error
}

func writeDeleted(w *s3.Writer, k *s3.DeleteKey, r *deleteResult, quiet bool) {
	if r.failure == nil && quiet {
		return
	}
	element := "Deleted"
	if r.failure != nil {
		element = "Error"
	}
	w.Open(element)
	w.Text("Key", k.Key)
	if k.VersionID != "" {
		w.Text("VersionId", k.VersionID)
	}
	if r.Marker {
		w.Bool("DeleteMarker", true)
		w.Text("DeleteMarkerVersionId", r.Version)
	}
	if r.failure != nil {
		w.Raw("Code", r.failure.Code.String())
		w.Text("Message", r.failure.Text())
	}
	w.Close(element)
}

// deleteOne deletes one key of a batch. A key that is not there is a success,
// unless a condition asked for it.
func (c *call) deleteOne(k *s3.DeleteKey) (store.Deleted, error) {
	key, err := s3.ParseKey(k.Key)
	if err != nil {
		return store.Deleted{}, err
	}
	if k.VersionID != "" {
		if err := s3.CheckVersion(k.VersionID); err != nil {
			return store.Deleted{}, s3.E(s3.NoSuchVersion, "")
		}
	}
	if err := c.demand(&right{action: actionOn("s3:DeleteObject", k.VersionID), bucket: c.bucket, key: key, version: k.VersionID}); err != nil {
		return store.Deleted{}, err
	}
	cond := store.Conditions{Bypass: c.bypass(key)}
	cond.IfBytes, cond.IfModifiedAt = k.Bytes, k.Modified
	if k.ETag != "" {
		cond.IfMatch = []string{k.ETag}
	}
	d, err := c.remove(key, k.VersionID, cond)
	if errors.Is(err, store.ErrNoSuchKey) && k.ETag == "" {
		return d, nil
	}
	return d, err
}

// each runs do for 0…n-1, at most atOnce together, and returns when all are
// done.
func each(n, atOnce int, do func(i int)) {
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(n, atOnce) {
		wg.Go(func() { // ends when next is closed
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// copySource reads x-amz-copy-source.
func (c *call) copySource() (bucket s3.Bucket, key s3.Key, version string, err error) {
	return s3.ParseCopySource(c.header("X-Amz-Copy-Source"))
}

// sourceError is the answer where the source of a copy cannot be read.
func sourceError(err error) error {
	var marker *store.MarkerError
	if errors.As(err, &marker) && marker.Named {
		return &s3.Error{Code: s3.InvalidRequest, Message: "The source of a copy request may not specifically refer to a delete marker by version id.", Err: err}
	}
	return err
}

// directive reads a COPY or REPLACE header.
func (c *call) directive(canonical string) (replace bool, err error) {
	switch v := c.header(canonical); v {
	case "", "COPY":
		return false, nil
	case "REPLACE":
		return true, nil
	default:
		what, _ := strings.CutSuffix(strings.TrimPrefix(strings.ToLower(canonical), "x-amz-"), "-directive")
		return false, invalidArgument(strings.ToLower(canonical), v, "Unknown "+what+" directive.")
	}
}

func copyObject(c *call) error {
	req := store.CopyRequest{SourceConditions: s3.Conditions(c.r.Header, "X-Amz-Copy-Source-")}
	srcBucket, srcKey, version, err := c.copySource()
	if err != nil {
		return err
	}
	req.Source.Bucket, req.Source.Key, req.Source.Version = string(srcBucket), string(srcKey), version
	if req.Replace, err = c.directive("X-Amz-Metadata-Directive"); err != nil {
		return err
	}
	if req.ReplaceTags, err = c.directive("X-Amz-Tagging-Directive"); err != nil {
		return err
	}
	alg, err := s3.RequestedAlgorithm(c.r.Header, "X-Amz-Checksum-Algorithm")
	if err != nil {
		return err
	}
	if alg != nil {
		req.ChecksumAlgorithm = alg.Name
	}
	w, err := c.newWrite()
	if err != nil {
		return err
	}
	req.Put = *w
	if req.SourceKey, err = c.customerKey(true); err != nil {
		return err
	}
	same := srcBucket == c.bucket && srcKey == c.key && version == ""
	if same && w.Encryption == nil && req.SourceKey == nil && !req.Replace && w.WebsiteRedirect == "" && c.header("X-Amz-Storage-Class") == "" {
		return s3.E(s3.InvalidRequest, "This copy request is illegal because it is trying to copy an object to itself without changing "+
			"the object's metadata, storage class, website redirect location or encryption attributes.")
	}
	req.Found = c.judged(srcBucket, srcKey, version)
	o, err := c.s.backend.CopyObject(c.ctx, &req)
	if errors.Is(err, store.ErrEntityTooLarge) {
		return s3.E(s3.InvalidRequest, copyTooLarge)
	}
	if err != nil {
		return sourceError(err)
	}
	c.writtenHeaders(&o)
	if version != "" {
		c.set("X-Amz-Copy-Source-Version-Id", version)
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("CopyObjectResult")
		w.Time("LastModified", o.Modified)
		w.ETag("ETag", o.ETag)
		w.Checksum(o.Checksum, true)
		w.Close("CopyObjectResult")
	})
}
