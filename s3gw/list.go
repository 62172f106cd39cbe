package s3gw

import (
	"net/http"
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
		writeListing(w, &l, &page, true)
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
		writeListing(w, &l, &page, strings.EqualFold(c.query.Value("fetch-owner"), "true"))
		w.Close("ListBucketResult")
	})
}

// writeListing writes the part that is the same in both versions.
func writeListing(w *s3.Writer, l *listing, page *store.ListPage, owner bool) {
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
		w.Close("Contents")
	}
	writePrefixes(w, page.Prefixes)
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
