package s3gw

import (
	"crypto/md5"
	"errors"
	"hash"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/sigv4"
	"ashlar/s3gw/store"
)

// Bounds of a POST form.
const (
	// formFieldsBytesMax bounds everything that stands before the file.
	formFieldsBytesMax = 20 << 10
	// formReadAhead is what the reader of the form may take beyond that.
	formReadAhead = 8 << 10
)

// postForm is a POST form whose fields were read; its file was not.
type postForm struct {
	fields map[string]string // by lower-case name, with the bucket
	key    s3.Key            // with the name of the file in it
	file   *multipart.Part
	policy *s3.PostPolicy
}

// isForm reports whether a request is an upload by a form: its signature is in
// the body. With credentials anywhere else it is judged by those.
func isForm(r *http.Request, q s3.Query) bool {
	if r.Method != http.MethodPost || len(r.Header["Authorization"]) > 0 || len(q) > 0 {
		return false
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "multipart/form-data"
}

// anonymous reports whether a form brings no credentials: no policy, no key and
// no signature.
func (f *postForm) anonymous() bool {
	for _, name := range []string{"policy", "awsaccesskeyid", "signature", "x-amz-credential", "x-amz-signature", "x-amz-algorithm", "x-amz-security-token"} {
		if f.fields[name] != "" {
			return false
		}
	}
	return true
}

// fieldsReader ends with an error when the fields of a form grow too large.
type fieldsReader struct {
	src  io.Reader
	left int // negative once the file was reached
	file bool
}

func (f *fieldsReader) Read(p []byte) (int, error) {
	if !f.file {
		if f.left <= 0 {
			return 0, s3.E(s3.MaxPostPreDataLengthExceededError, "")
		}
		p = p[:min(len(p), f.left)]
	}
	n, err := f.src.Read(p)
	f.left -= n
	return n, err
}

// openForm reads the fields of a form, verifies its signature and judges its
// policy. It does for a form what verifier and hoist do for other requests:
// behind it, the headers hold what the signed policy allows and nothing that
// somebody added on the way.
func (c *call) openForm() error {
	f, err := c.readForm()
	if err != nil {
		return err
	}
	if f.anonymous() {
		c.auth, f.policy = &sigv4.Auth{}, &s3.PostPolicy{BytesMax: store.PutBytesMax}
	} else if c.auth, err = c.s.verifier.VerifyForm(c.ctx, f.fields); err != nil {
		return err
	} else if f.policy, err = s3.ParsePostPolicy(f.fields["policy"]); err != nil {
		return err
	}
	if err = c.parseTarget(); err != nil {
		return err
	}
	if c.bucket == "" || c.key != "" {
		return s3.E(s3.MethodNotAllowed, "").With("Method", c.r.Method)
	}
	if named, given := f.fields["bucket"]; given && named != string(c.bucket) {
		return s3.E(s3.AccessDenied, "Invalid according to Policy: the form is for another bucket.")
	}
	f.fields["bucket"] = string(c.bucket)
	if !f.anonymous() {
		if err = f.policy.Judge(f.fields, c.s.now()); err != nil {
			return err
		}
	}
	if f.key, err = s3.ParseKey(strings.ReplaceAll(f.fields["key"], "${filename}", f.file.FileName())); err != nil {
		return err
	}
	for name := range c.r.Header {
		if strings.HasPrefix(name, "X-Amz-") || formHeaders[name] {
			delete(c.r.Header, name)
		}
	}
	for name, value := range f.fields {
		header := http.CanonicalHeaderKey(name)
		switch {
		case name == "acl":
			c.r.Header["X-Amz-Acl"] = []string{value}
		case formHeaders[header], strings.HasPrefix(header, "X-Amz-") && !authParams[name] && name != "x-amz-tagging":
			c.r.Header[header] = []string{value}
		}
	}
	c.form = f
	return nil
}

// formHeaders are headers that a form gives as fields.
var formHeaders = map[string]bool{
	"Cache-Control": true, "Content-Type": true, "Content-Disposition": true, "Content-Encoding": true, "Content-Language": true, "Expires": true, "Content-Md5": true,
}

// readForm reads everything up to the file.
func (c *call) readForm() (*postForm, error) {
	_, params, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if params["boundary"] == "" {
		return nil, s3.E(s3.MalformedPOSTRequest, "")
	}
	src := &fieldsReader{src: newPacer(c.w, c.r.Body, &c.s.limits, &c.received, c.extendWrite), left: formFieldsBytesMax + formReadAhead}
	parts := multipart.NewReader(src, params["boundary"])
	f := &postForm{fields: map[string]string{}}
	size := 0
	for {
		p, err := parts.NextRawPart()
		if err == io.EOF {
			return nil, s3.E(s3.IncorrectNumberOfFilesInPostRequest, "")
		}
		if err != nil {
			return nil, formError(err)
		}
		name := strings.ToLower(p.FormName())
		if name == "file" {
			src.file, f.file = true, p
			return f, nil
		}
		if name == "" {
			return nil, s3.E(s3.MalformedPOSTRequest, "A field of the form has no name.")
		}
		value, err := io.ReadAll(p)
		if err != nil {
			return nil, formError(err)
		}
		if size += len(name) + len(value); size > formFieldsBytesMax {
			return nil, s3.E(s3.MaxPostPreDataLengthExceededError, "")
		}
		if _, twice := f.fields[name]; twice {
			return nil, s3.E(s3.InvalidArgument, "A field of the form is there twice.").With("ArgumentName", name)
		}
		f.fields[name] = string(value)
	}
}

// formError names the reason why a form could not be read.
func formError(err error) error {
	var e *s3.Error
	if errors.As(err, &e) {
		return err
	}
	return &s3.Error{Code: s3.MalformedPOSTRequest, Err: err}
}

// postObject stores the file of a form.
func postObject(c *call) error {
	f := c.form
	if f == nil {
		return s3.E(s3.MalformedPOSTRequest, "")
	}
	c.key = f.key
	w, err := c.newWrite()
	if err != nil {
		return err
	}
	if doc := f.fields["tagging"]; doc != "" {
		if w.Tags, err = s3.ParseTagging([]byte(doc), s3.ObjectTagsMax); err != nil {
			return err
		}
	}
	body, err := newFormBody(c.r.Header, f)
	if err != nil {
		return err
	}
	w.Posted = true
	o, err := c.storeBody(w, body)
	if err != nil {
		return err
	}
	return c.formAnswer(f.fields, &o)
}

// formAnswer is what the form asked to see after the upload.
func (c *call) formAnswer(fields map[string]string, o *store.Object) error {
	redirect := fields["success_action_redirect"]
	if redirect == "" {
		redirect = fields["redirect"]
	}
	if u, err := url.Parse(redirect); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
		b := append([]byte(u.RawQuery), '&')
		if u.RawQuery == "" {
			b = b[:0]
		}
		b = s3.AppendEscaped(append(b, "bucket="...), string(c.bucket), false)
		b = s3.AppendEscaped(append(b, "&key="...), string(c.key), false)
		b = s3.AppendEscaped(append(b, "&etag="...), `"`+o.ETag+`"`, false)
		u.RawQuery = string(b)
		c.set("Location", u.String())
		return c.empty(http.StatusSeeOther)
	}
	location := c.location()
	c.set("Location", location)
	switch fields["success_action_status"] {
	case "200":
		return c.empty(http.StatusOK)
	case "201":
		return c.xml(http.StatusCreated, func(w *s3.Writer) {
			w.BeginPlain("PostResponse")
			w.Text("Location", location)
			w.Text("Bucket", string(c.bucket))
			w.Text("Key", string(c.key))
			w.ETag("ETag", o.ETag)
			w.Close("PostResponse")
		})
	}
	return c.empty(http.StatusNoContent)
}

// formBody is the file of a form on its way in: a store.Body of unknown length.
type formBody struct {
	src     io.Reader
	policy  *s3.PostPolicy
	seen    int64
	err     error // sticky; io.EOF is the good end
	md5     hash.Hash
	wantMD5 *[16]byte
	alg     *s3.Algorithm // nil: no checksum
	sum     hash.Hash
	want    []byte
}

func newFormBody(h http.Header, f *postForm) (*formBody, error) {
	b := &formBody{src: f.file, policy: f.policy, md5: md5.New()}
	sum, given, err := s3.ParseMD5(h)
	if err != nil {
		return nil, err
	}
	if given {
		b.wantMD5 = &sum
	}
	alg, check, err := s3.ChecksumOf(h)
	if err != nil || alg == nil {
		return b, err
	}
	if check.Parts > 0 {
		return nil, s3.E(s3.InvalidRequest, "A composite checksum cannot describe a body.")
	}
	b.alg, b.sum, b.want = alg, alg.New(), check.Value
	return b, nil
}

// Bytes implements store.Body.
func (b *formBody) Bytes() int64 { return -1 }

// Read implements store.Body: it ends with io.EOF only if the file is as long as
// the policy allows and as the digests say.
func (b *formBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.src.Read(p)
	b.seen += int64(n)
	b.md5.Write(p[:n])
	if b.sum != nil {
		b.sum.Write(p[:n])
	}
	switch {
	case b.policy.BytesMax >= 0 && b.seen > b.policy.BytesMax:
		err = s3.E(s3.EntityTooLarge, "").With("ProposedSize", strconv.FormatInt(b.seen, 10)).
			With("MaxSizeAllowed", strconv.FormatInt(b.policy.BytesMax, 10))
	case err == io.EOF:
		err = b.end()
	case err != nil:
		err = incomplete(err)
	}
	b.err = err
	return n, err
}

func (b *formBody) end() error {
	var sum [16]byte
	b.md5.Sum(sum[:0])
	switch {
	case b.seen < b.policy.BytesMin:
		return s3.E(s3.EntityTooSmall, "").With("ProposedSize", strconv.FormatInt(b.seen, 10)).
			With("MinSizeAllowed", strconv.FormatInt(b.policy.BytesMin, 10))
	case b.wantMD5 != nil && sum != *b.wantMD5:
		return s3.E(s3.BadDigest, "The Content-MD5 you specified did not match what we received.")
	case b.alg != nil && string(b.sum.Sum(nil)) != string(b.want):
		return s3.E(s3.BadDigest, "The "+b.alg.Name+" you specified did not match the calculated checksum.")
	}
	return io.EOF
}

// Algorithm implements store.Body.
func (b *formBody) Algorithm() string { return nameOf(b.alg) }

// Sums implements store.Body.
func (b *formBody) Sums() (sum [16]byte, checksum *store.Checksum) {
	if b.err != io.EOF {
		panic("s3gw: Sums of a file that has not ended well")
	}
	b.md5.Sum(sum[:0])
	if b.alg != nil {
		checksum = &store.Checksum{Algorithm: b.alg.Name, Value: b.sum.Sum(nil)}
	}
	return sum, checksum
}
