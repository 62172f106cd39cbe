package s3gw

import (
	"errors"
	"net/http"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

func getBucketVersioning(c *call) error {
	b, err := c.s.backend.HeadBucket(c.ctx, string(c.bucket))
	if err != nil {
		return withBucket(err, c.bucket)
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("VersioningConfiguration")
		if b.Versioning != "" {
			w.Raw("Status", string(b.Versioning))
		}
		w.Close("VersioningConfiguration")
	})
}

func putBucketVersioning(c *call) error {
	doc, err := c.document()
	if err != nil {
		return err
	}
	v, err := s3.ParseVersioning(doc)
	if err != nil {
		return err
	}
	if err := c.s.backend.SetVersioning(c.ctx, string(c.bucket), v); err != nil {
		if errors.Is(err, store.ErrBucketState) {
			err = &s3.Error{Code: s3.InvalidBucketState, Err: err,
				Message: "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."}
		}
		return withBucket(err, c.bucket)
	}
	return c.empty(http.StatusOK)
}

func listVersions(c *call) error {
	l, err := c.listing()
	if err != nil {
		return err
	}
	req := store.VersionsRequest{
		Bucket: l.req.Bucket, Prefix: l.req.Prefix, Delimiter: l.req.Delimiter, Max: l.max,
		KeyAfter: c.query.Value("key-marker"), VersionAfter: c.query.Value("version-id-marker"),
	}
	if v, given := c.query.Get("version-id-marker"); given && v != "" {
		if req.KeyAfter == "" {
			return invalidArgument("version-id-marker", v, "A version-id marker cannot be specified without a key marker.")
		}
		if err := s3.CheckVersion(v); err != nil {
			return err
		}
	}
	page, err := c.versionsPage(req)
	if err != nil {
		return err
	}
	told, err := c.toldOf(page.Objects, true)
	if err != nil {
		return err
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.URLEncode = l.urlEncode
		w.Begin("ListVersionsResult")
		w.Text("Name", req.Bucket)
		w.Name("Prefix", req.Prefix)
		w.Name("KeyMarker", req.KeyAfter)
		w.Text("VersionIdMarker", req.VersionAfter)
		if page.Truncated {
			w.Name("NextKeyMarker", page.LastKey)
			if page.LastVersion != "" {
				w.Text("NextVersionIdMarker", page.LastVersion)
			}
		}
		w.Int("MaxKeys", int64(l.max))
		if req.Delimiter != "" {
			w.Name("Delimiter", req.Delimiter)
		}
		w.Bool("IsTruncated", page.Truncated)
		if l.urlEncode {
			w.Raw("EncodingType", "url")
		}
		for i := range page.Objects {
			writeVersion(w, &page.Objects[i], told.of(i))
		}
		writePrefixes(w, page.Prefixes)
		w.Close("ListVersionsResult")
	})
}

// versionsPage asks the store, unless the client asked for nothing.
func (c *call) versionsPage(req store.VersionsRequest) (p store.VersionsPage, err error) {
	if req.Max == 0 {
		_, err = c.s.backend.HeadBucket(c.ctx, req.Bucket)
	} else {
		p, err = c.s.backend.ListVersions(c.ctx, req)
	}
	return p, withBucketOrNil(err, c.bucket)
}

func writeVersion(w *s3.Writer, o *store.Object, t told) {
	element := "Version"
	if o.DeleteMarker {
		element = "DeleteMarker"
	}
	w.Open(element)
	w.Name("Key", o.Key)
	w.Raw("VersionId", o.Version)
	w.Bool("IsLatest", o.Latest)
	w.Time("LastModified", o.Modified)
	if !o.DeleteMarker {
		w.ETag("ETag", o.ETag)
		if o.Checksum != nil {
			w.Raw("ChecksumAlgorithm", o.Checksum.Algorithm)
			w.Raw("ChecksumType", s3.ChecksumType(o.Checksum))
		}
		w.Int("Size", int64(o.Bytes))
		w.Raw("StorageClass", storageClass(o.StorageClass))
	}
	w.Owner("Owner", o.Owner)
	t.write(w, o)
	w.Close(element)
}
