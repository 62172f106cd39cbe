package s3gw

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// listing is what both versions of ListObjects have in common.
type listing struct {
	req       store.ListRequest
	urlEncode bool
	max       int
}

// listing reads the parameters that V1 and V2 share.
func (c *call) listing() (l listing, err error) {
	l.req.Bucket = string(c.bucket)
	l.req.Prefix = c.query.Value("prefix")
	l.req.Delimiter = c.query.Value("delimiter")
	if l.max, _, err = c.number("max-keys", store.ListMax); err != nil {
		return l, err
	}
	l.max = min(l.max, store.ListMax)
	if l.urlEncode, err = c.urlEncoding(); err != nil {
		return l, err
	}
	return l, checkText(c.query, "prefix", "delimiter", "marker", "start-after", "key-marker")
}

func (c *call) urlEncoding() (bool, error) {
	switch text := c.query.Value("encoding-type"); text {
	case "":
		return false, nil
	case "url":
		return true, nil
	default:
		return false, invalidArgument("encoding-type", text, "Invalid Encoding Method specified in Request")
	}
}

// checkText refuses parameters that no key can begin with.
func checkText(q s3.Query, names ...string) error {
	for _, n := range names {
		if v := q.Value(n); !utf8.ValidString(v) || strings.IndexByte(v, 0) >= 0 {
			return invalidArgument(n, strings.ToValidUTF8(v, "\uFFFD"), "The parameter "+n+" is not UTF-8 text.")
		}
	}
	return nil
}

// page asks the store, unless the client asked for nothing.
func (c *call) page(l *listing) (store.ListPage, error) {
	if l.max == 0 {
		_, err := c.s.backend.HeadBucket(c.ctx, l.req.Bucket)
		return store.ListPage{}, withBucketOrNil(err, c.bucket)
	}
	l.req.Max = l.max
	p, err := c.s.backend.ListObjects(c.ctx, l.req)
	return p, withBucketOrNil(err, c.bucket)
}

func withBucketOrNil(err error, b s3.Bucket) error {
	if err == nil {
		return nil
	}
	return withBucket(err, b)
}

func listObjectsV1(c *call) error {
	l, err := c.listing()
	if err != nil {
		return err
	}
	l.req.After = c.query.Value("marker")
	page, err := c.page(&l)
	if err != nil {
		return err
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.URLEncode = l.urlEncode
		w.Begin("ListBucketResult")
		w.Text("Name", l.req.Bucket)
		if c.s.rgw {
			w.Text("Prefix", l.req.Prefix)
		} else {
			w.Name("Prefix", l.req.Prefix)
		}
		w.Name("Marker", l.req.After)
		if page.Truncated && l.req.Delimiter != "" {
			w.Name("NextMarker", page.Last)
		}
		writeListing(w, &l, &page, true, nil)
		w.Close("ListBucketResult")
	})
}

func listObjectsV2(c *call) error {
	if v := c.query.Value("list-type"); v != "2" {
		return invalidArgument("list-type", v, "Invalid List Type specified in Request")
	}
	l, err := c.listing()
	if err != nil {
		return err
	}
	token, hasToken := c.query.Get("continuation-token")
	start, hasStart := c.query.Get("start-after")
	l.req.After = start
	if hasToken && (token != "" || !c.s.rgw) {
		if l.req.After, err = c.token("continuation-token"); err != nil {
			return err
		}
	}
	page, err := c.page(&l)
	if err != nil {
		return err
	}
	told, err := c.toldOf(page.Objects, false)
	if err != nil {
		return err
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.URLEncode = l.urlEncode
		w.Begin("ListBucketResult")
		w.Text("Name", l.req.Bucket)
		w.Name("Prefix", l.req.Prefix)
		if hasToken {
			w.Text("ContinuationToken", token)
		}
		if hasStart {
			w.Name("StartAfter", start)
		}
		w.Int("KeyCount", int64(len(page.Objects)+len(page.Prefixes)))
		if page.Truncated {
			w.Raw("NextContinuationToken", makeToken(page.Last))
		}
		writeListing(w, &l, &page, strings.EqualFold(c.query.Value("fetch-owner"), "true"), told)
		w.Close("ListBucketResult")
	})
}

// writeListing writes the part that is the same in both versions.
func writeListing(w *s3.Writer, l *listing, page *store.ListPage, owner bool, told allTold) {
	w.Int("MaxKeys", int64(l.max))
	if l.req.Delimiter != "" {
		w.Name("Delimiter", l.req.Delimiter)
	}
	w.Bool("IsTruncated", page.Truncated)
	if l.urlEncode {
		w.Raw("EncodingType", "url")
	}
	for i := range page.Objects {
		o := &page.Objects[i]
		w.Open("Contents")
		w.Name("Key", o.Key)
		w.Time("LastModified", o.Modified)
		w.ETag("ETag", o.ETag)
		if o.Checksum != nil {
			w.Raw("ChecksumAlgorithm", o.Checksum.Algorithm)
			w.Raw("ChecksumType", s3.ChecksumType(o.Checksum))
		}
		w.Int("Size", int64(o.Bytes))
		if owner {
			w.Owner("Owner", o.Owner)
		}
		w.Raw("StorageClass", storageClass(o.StorageClass))
		told.of(i).write(w, o)
		w.Close("Contents")
	}
	writePrefixes(w, page.Prefixes)
}

// told says what of an object a listing tells beyond what every listing does.
type told struct{ metadata, tags bool }

// allTold is that of each object of a listing; nil tells nothing.
type allTold []told

func (t allTold) of(i int) told {
	if t == nil {
		return told{}
	}
	return t[i]
}

// toldOf judges what metadata=true shows, which is an extension of MinIO: of each
// object what the sender may read of it.
func (c *call) toldOf(objects []store.Object, versions bool) (allTold, error) {
	if !c.s.minio || c.query.Value("metadata") != "true" {
		return nil, nil
	}
	list := make(allTold, len(objects))
	for i := range objects {
		o := &objects[i]
		if o.DeleteMarker {
			continue
		}
		version := ""
		if versions {
			version = o.Version
		}
		c.remember(subjectOf{c.bucket, s3.Key(o.Key), version}, o)
		for _, ask := range []struct {
			action string
			into   *bool
		}{{"s3:GetObject", &list[i].metadata}, {"s3:GetObjectTagging", &list[i].tags}} {
			var err error
			if *ask.into, err = c.judge(&right{action: actionOn(ask.action, version), bucket: c.bucket, key: s3.Key(o.Key), version: version}); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}

// write writes what is told of o as MinIO does: an element for each header that a
// HEAD would answer with. A name that XML cannot hold is left out, and so is all that
// only the customer's key may show.
func (t told) write(w *s3.Writer, o *store.Object) {
	if t.tags && len(o.Tags) > 0 {
		tags := url.Values{}
		for k, v := range o.Tags {
			tags.Set(k, v)
		}
		w.Text("UserTags", tags.Encode())
	}
	if !t.metadata {
		return
	}
	w.Open("UserMetadata")
	for _, f := range s3.EncryptionHeaders(o.Encryption, nil) {
		if f.Value != "" {
			w.Text(f.Name, f.Value)
		}
	}
	if o.Encryption == nil || o.Encryption.Mode != store.SSEC {
		for _, f := range [...]s3.Field{
			{Name: "content-type", Value: o.ContentType}, {Name: "content-encoding", Value: o.ContentEncoding},
			{Name: "content-disposition", Value: o.ContentDisposition}, {Name: "content-language", Value: o.ContentLanguage},
			{Name: "cache-control", Value: o.CacheControl}, {Name: "expires", Value: o.Expires},
		} {
			if f.Value != "" {
				w.Text(f.Name, f.Value)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(o.User)) {
			if s3.IsXMLName(name) {
				w.Text(http.CanonicalHeaderKey("x-amz-meta-"+name), o.User[name])
			}
		}
	}
	w.Close("UserMetadata")
}

func writePrefixes(w *s3.Writer, prefixes []string) {
	for _, p := range prefixes {
		w.Open("CommonPrefixes")
		w.Name("Prefix", p)
		w.Close("CommonPrefixes")
	}
}

func storageClass(c string) string {
	if c == "" {
		return "STANDARD"
	}
	return c
}
