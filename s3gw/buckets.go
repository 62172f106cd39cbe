package s3gw

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// bucketsMax is how many buckets a client gets that asks for no number.
const bucketsMax = 10_000

// usEast1 is the region that S3 writes as no region at all.
const usEast1 = "us-east-1"

// documentStartBytes is what a document gets before its bytes arrive: memory
// follows what was sent, not what was announced.
const documentStartBytes = 16 << 10

// document is the body of a request, or why it could not be read.
type document struct {
	bytes []byte
	err   error
}

// document reads the whole XML body of a request, verified. It is read once.
func (c *call) document() ([]byte, error) {
	if c.doc == nil && c.body == nil {
		if err := c.openBody(); err != nil {
			return nil, err
		}
	}
	if c.doc == nil {
		var buf bytes.Buffer
		buf.Grow(min(int(c.body.Bytes())+bytes.MinRead, documentStartBytes))
		_, err := buf.ReadFrom(c.body)
		c.doc = &document{buf.Bytes(), err}
	}
	return c.doc.bytes, c.doc.err
}

func listBuckets(c *call) error {
	limit, paged, err := c.number("max-buckets", bucketsMax)
	if err != nil {
		return err
	}
	if paged && (limit < 1 || limit > bucketsMax) {
		return invalidArgument("max-buckets", c.query.Value("max-buckets"), "Argument max-buckets must be an integer between 1 and 10000")
	}
	after, err := c.token("continuation-token")
	if err != nil {
		return err
	}
	if region, ok := c.query.Get("bucket-region"); ok && region != c.s.region {
		limit = 0
	}
	prefix := c.query.Value("prefix")
	var list []store.Bucket
	more := false
	if limit > 0 {
		if list, more, err = c.s.backend.ListBuckets(c.ctx, c.auth.Account, prefix, after, limit); err != nil {
			return err
		}
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("ListAllMyBucketsResult")
		w.Owner("Owner", c.auth.Account)
		w.Open("Buckets")
		for i := range list {
			b := &list[i]
			w.Open("Bucket")
			w.Text("Name", b.Name)
			w.Time("CreationDate", b.Created)
			if paged {
				w.Text("BucketRegion", b.Region)
			}
			w.Close("Bucket")
		}
		w.Close("Buckets")
		if prefix != "" {
			w.Text("Prefix", prefix)
		}
		if more && len(list) > 0 {
			w.Raw("ContinuationToken", makeToken(list[len(list)-1].Name))
		}
		w.Close("ListAllMyBucketsResult")
	})
}

func createBucket(c *call) error {
	doc, err := c.document()
	if err != nil {
		return err
	}
	location, tags, err := s3.ParseNewBucket(doc)
	if err != nil {
		return err
	}
	if err := c.checkLocation(location); err != nil {
		return err
	}
	opt := store.BucketOptions{}
	if opt.Slots, err = c.shards(); err != nil {
		return err
	}
	switch v := c.header("X-Amz-Bucket-Object-Lock-Enabled"); {
	case strings.EqualFold(v, "true"):
		opt.Locked = true
	case v != "" && !strings.EqualFold(v, "false"):
		return invalidArgument("x-amz-bucket-object-lock-enabled", v, "Want true or false.")
	}
	if opt.Settings, err = c.newBucketSettings(); err != nil {
		return err
	}
	if len(tags) > 0 {
		opt.Settings[settingTags] = tagsDocument(tags)
	}
	err = c.s.backend.CreateBucketWith(c.ctx, c.auth.Account, string(c.bucket), c.s.region, opt)
	// AWS's oldest region answers 200 when you make your own bucket again, the others do not.
	if errors.Is(err, store.ErrBucketOwned) && c.s.region == usEast1 && (location == "" || location == usEast1) {
		err = c.sameOnRGW(opt.Settings)
	}
	if err != nil {
		return withBucket(err, c.bucket)
	}
	c.set("Location", "/"+string(c.bucket))
	c.set("X-Amz-Bucket-Arn", "arn:aws:s3:::"+string(c.bucket))
	return c.empty(http.StatusOK)
}

// checkLocation judges a location constraint: a bucket can be in this cluster's region only,
// also where any may be named.
func (c *call) checkLocation(location string) error {
	switch {
	case location == "" || location == c.s.region && (location != usEast1 || c.s.rgw):
		return nil
	case c.s.anyRegion && s3.IsRegion(location):
		return nil
	case c.s.anyRegion:
		return s3.E(s3.InvalidLocationConstraint, "The location constraint must be "+s3.RegionForm+".")
	case c.s.region == usEast1: // which nobody names: it is where buckets are without a constraint
		return s3.E(s3.InvalidLocationConstraint, "").With("LocationConstraint", location)
	}
	return s3.E(s3.IllegalLocationConstraintException, "The "+location+
		" location constraint is incompatible for the region specific endpoint this request was sent to.")
}

// sameOnRGW refuses, with RGW's answers, to make a bucket again with another ACL.
func (c *call) sameOnRGW(settings map[string][]byte) error {
	if !c.s.rgw {
		return nil
	}
	a, err := c.access(c.bucket)
	if err == nil && !bytes.Equal(a.Setting(settingACL), settings[settingACL]) {
		err = store.ErrBucketExists
	}
	return err
}

// shards reads x-ashlar-shards, our own header: over how many shards the keys of
// a new bucket are spread. Absent is 0.
func (c *call) shards() (int, error) {
	const name = "X-Ashlar-Shards"
	if _, given := c.r.Header[name]; !given {
		return 0, nil
	}
	text := c.header(name)
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n < 1 || n > store.SlotsMax {
		return 0, invalidArgument("x-ashlar-shards", text, fmt.Sprintf("The number of shards of a bucket must be 1 to %d.", store.SlotsMax))
	}
	return int(n), nil
}

// withBucket adds the name to the answers that carry one.
func withBucket(err error, b s3.Bucket) error {
	e := s3.Classify(err)
	if e.Code == s3.NoSuchBucket || e.Code == s3.BucketAlreadyExists || e.Code == s3.BucketNotEmpty || e.Code == s3.BucketAlreadyOwnedByYou {
		return (&s3.Error{Code: e.Code, Err: err}).With("BucketName", string(b))
	}
	return err
}

func headBucket(c *call) error {
	b, err := c.s.backend.HeadBucket(c.ctx, string(c.bucket))
	if err != nil {
		return err
	}
	region := b.Region
	if region == "" {
		region = c.s.region
	}
	c.set("X-Amz-Bucket-Region", region)
	c.set("X-Amz-Access-Point-Alias", "false")
	c.set("X-Ashlar-Shards", strconv.Itoa(int(b.Shards)))
	c.set("Content-Type", "application/xml")
	return c.empty(http.StatusOK)
}

func deleteBucket(c *call) error {
	if err := c.s.backend.DeleteBucket(c.ctx, string(c.bucket)); err != nil {
		if errors.Is(err, store.ErrBucketNotEmpty) {
			if b, failed := c.s.backend.HeadBucket(c.ctx, string(c.bucket)); failed == nil && b.Versioning != "" {
				return s3.E(s3.BucketNotEmpty, "The bucket you tried to delete is not empty. You must delete all versions in the bucket.").
					With("BucketName", string(c.bucket))
			}
		}
		return withBucket(err, c.bucket)
	}
	return c.empty(http.StatusNoContent)
}

func getBucketLocation(c *call) error {
	b, err := c.s.backend.HeadBucket(c.ctx, string(c.bucket))
	if err != nil {
		return withBucket(err, c.bucket)
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("LocationConstraint")
		if b.Region != usEast1 {
			w.B = append(w.B, b.Region...)
		}
		w.Close("LocationConstraint")
	})
}

// emptyDocument answers what AWS answers for a configuration that nobody made.
func emptyDocument(root string) func(*call) error {
	return func(c *call) error {
		if _, err := c.s.backend.HeadBucket(c.ctx, string(c.bucket)); err != nil {
			return withBucket(err, c.bucket)
		}
		return c.xml(http.StatusOK, func(w *s3.Writer) {
			w.Begin(root)
			w.Close(root)
		})
	}
}

// notConfigured answers with the error that AWS uses for a configuration that
// nobody made.
func notConfigured(code s3.Code) func(*call) error {
	return func(c *call) error {
		if _, err := c.s.backend.HeadBucket(c.ctx, string(c.bucket)); err != nil {
			return withBucket(err, c.bucket)
		}
		return s3.E(code, "").With("BucketName", string(c.bucket))
	}
}

func getRequestPayment(c *call) error {
	if _, err := c.s.backend.HeadBucket(c.ctx, string(c.bucket)); err != nil {
		return withBucket(err, c.bucket)
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("RequestPaymentConfiguration")
		w.Raw("Payer", "BucketOwner")
		w.Close("RequestPaymentConfiguration")
	})
}

// number reads a count from the query. Absent is def; text, signs and what does
// not fit an int32 are InvalidArgument.
func (c *call) number(name string, def int) (n int, given bool, err error) {
	text, given := c.query.Get(name)
	if !given || text == "" {
		return def, false, nil
	}
	v, err := strconv.ParseInt(text, 10, 32)
	if err == nil && v < 0 {
		return 0, true, invalidArgument(name, text, "Argument "+name+" must be an integer between 0 and 2147483647")
	}
	if err != nil {
		return 0, true, invalidArgument(name, text, "Provided "+name+" not an integer or within integer range")
	}
	return int(v), true, nil
}

func invalidArgument(name, value, message string) error {
	return s3.E(s3.InvalidArgument, message).With("ArgumentName", name).With("ArgumentValue", value)
}

// tokenMark begins every token that we made: junk and other stores' tokens are
// refused, not read as a key.
const tokenMark = "a1:"

// makeToken wraps where a listing stands, so that clients do not build on it.
func makeToken(last string) string {
	return base64.URLEncoding.EncodeToString([]byte(tokenMark + last))
}

// token reads a continuation token; absent is the beginning.
func (c *call) token(name string) (string, error) {
	text, given := c.query.Get(name)
	if !given {
		return "", nil
	}
	raw, err := base64.URLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) <= len(tokenMark) || string(raw[:len(tokenMark)]) != tokenMark {
		return "", invalidArgument(name, text, "The continuation token provided is incorrect")
	}
	return string(raw[len(tokenMark):]), nil
}
