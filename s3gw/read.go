package s3gw

import (
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"time"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// Answers are written in steps of a buffer: small ones for small objects, so
// that many slow readers of them hold little.
const (
	smallBufferBytes = 16 << 10
	largeBufferBytes = 128 << 10
)

var (
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallBufferBytes); return &b }}
	largeBuffers = sync.Pool{New: func() any { b := make([]byte, largeBufferBytes); return &b }}
)

// version returns the version that a request names, empty for the current one.
func (c *call) version() (string, error) {
	v, given := c.query.Get("versionId")
	if !given {
		return "", nil
	}
	return v, s3.CheckVersion(v)
}

func (c *call) headObject() (store.Object, error) {
	version, err := c.version()
	if err != nil {
		return store.Object{}, err
	}
	if o := c.judged(c.bucket, c.key, version); o != nil {
		return *o, nil
	}
	found, err := c.s.backend.HeadObject(c.ctx, string(c.bucket), string(c.key), version)
	return found, c.readError(err)
}

// readError adds to an error what the answer to a read carries.
func (c *call) readError(err error) error {
	var marker *store.MarkerError
	if errors.As(err, &marker) {
		return c.markerAnswer(marker)
	}
	err = c.withKey(err)
	var e *s3.Error
	if c.s.rgw && errors.As(err, &e) && e.Code == s3.NoSuchKey {
		return e.WithHeader("X-Amz-Delete-Marker", "false")
	}
	return err
}

// markerAnswer is the answer to a read that met a delete marker.
func (c *call) markerAnswer(m *store.MarkerError) error {
	e := (&s3.Error{Code: s3.NoSuchKey, Err: m}).With("Key", string(c.key))
	if m.Named {
		e = (&s3.Error{Code: s3.MethodNotAllowed, Err: m}).With("Method", c.r.Method).With("ResourceType", "DeleteMarker").
			WithHeader("Allow", "DELETE").WithHeader("Last-Modified", m.Modified.Format(http.TimeFormat))
	}
	return e.WithHeader("X-Amz-Delete-Marker", "true").WithHeader("X-Amz-Version-Id", m.Version)
}

// withKey adds the names to the answers that carry them.
func (c *call) withKey(err error) error {
	if err == nil {
		return nil
	}
	switch e := s3.Classify(err); e.Code {
	case s3.NoSuchKey:
		return (&s3.Error{Code: e.Code, Message: e.Message, Err: err}).With("Key", string(c.key))
	case s3.NoSuchVersion:
		return (&s3.Error{Code: e.Code, Message: e.Message, Err: err}).With("Key", string(c.key)).With("VersionId", c.query.Value("versionId"))
	case s3.NoSuchUpload:
		return (&s3.Error{Code: e.Code, Message: e.Message, Err: err}).With("UploadId", c.query.Value("uploadId"))
	case s3.NoSuchBucket:
		return withBucket(err, c.bucket)
	}
	return err
}

// getObject serves GET and HEAD.
func getObject(c *call) error {
	if text, given := c.query.Get("partNumber"); given {
		if _, err := partNumber(text); err != nil {
			return err
		}
	}
	o, err := c.headObject()
	if c.s.capacity != nil && errors.Is(err, store.ErrNoSuchKey) && systemDocuments[c.key] != nil {
		return c.systemDocument()
	}
	if err != nil {
		return err
	}
	if err := c.unlock(&o); err != nil {
		return err
	}
	return c.answerObject(&o, func(r s3.Range) (io.ReadCloser, error) {
		return c.s.backend.OpenObject(c.ctx, &o, r.Offset, r.Length)
	})
}

// answerObject sends of an object what the headers and the query ask for; open
// yields its bytes.
func (c *call) answerObject(o *store.Object, open func(s3.Range) (io.ReadCloser, error)) error {
	cond := s3.Conditions(c.r.Header, "")
	c.objectBytes = int64(o.Bytes)
	c.objectHeaders(o)
	c.encryptionHeaders(o.Encryption)
	c.expiryHeader(o)
	if err := s3.JudgeRead(&cond, o.ETag, o.Modified, false); err != nil {
		return err
	}
	rng, partial, err := c.wanted(o)
	if err != nil {
		return err
	}
	if err := c.overrides(); err != nil {
		return err
	}
	if strings.EqualFold(c.header("X-Amz-Checksum-Mode"), "ENABLED") {
		c.readChecksum(o, partial)
	}
	c.set("Content-Length", strconv.FormatUint(rng.Length, 10))
	status := http.StatusOK
	if partial {
		status = http.StatusPartialContent
		c.set("Content-Range", contentRange(rng, o.Bytes))
	}
	if c.r.Method == http.MethodHead || rng.Length == 0 {
		c.writeHead(status)
		return nil
	}
	src, err := open(rng)
	if err != nil {
		return err
	}
	defer src.Close()
	return c.stream(status, src, rng.Length)
}

// readChecksum sets the checksum of what is answered: that of the object, or of
// the part that was asked for by its number. Other ranges have none.
func (c *call) readChecksum(o *store.Object, partial bool) {
	if !partial {
		c.checksumHeaders(o.Checksum)
		return
	}
	n, err := strconv.Atoi(c.query.Value("partNumber"))
	if err != nil || n < 1 || n > len(o.PartSums) {
		return
	}
	if a := s3.AlgorithmOf(o.Checksum.Algorithm); a != nil {
		c.set(a.Header, s3.FormatChecksum(&store.Checksum{Algorithm: a.Name, Value: o.PartSums[n-1]}))
		c.set("X-Amz-Checksum-Type", s3.ChecksumType(o.Checksum))
	}
}

func contentRange(r s3.Range, size uint64) string {
	b := append(make([]byte, 0, 64), "bytes "...)
	b = strconv.AppendUint(b, r.Offset, 10)
	b = append(b, '-')
	b = strconv.AppendUint(b, r.Offset+r.Length-1, 10)
	b = append(b, '/')
	return string(strconv.AppendUint(b, size, 10))
}

// objectHeaders sets everything that is known of an object.
func (c *call) objectHeaders(o *store.Object) {
	c.set("ETag", `"`+o.ETag+`"`)
	c.set("Last-Modified", o.Modified.UTC().Format(http.TimeFormat))
	c.set("Accept-Ranges", "bytes")
	contentType := o.ContentType
	if contentType == "" {
		contentType = "binary/octet-stream"
	}
	c.set("Content-Type", contentType)
	for _, h := range [...]struct{ name, value string }{
		{"Content-Encoding", o.ContentEncoding}, {"Content-Disposition", o.ContentDisposition},
		{"Content-Language", o.ContentLanguage}, {"Cache-Control", o.CacheControl}, {"Expires", o.Expires},
		{"X-Amz-Storage-Class", o.StorageClass}, {"X-Amz-Website-Redirect-Location", o.WebsiteRedirect},
	} {
		if h.value != "" {
			c.set(h.name, h.value)
		}
	}
	c.versionHeader(o.Version)
	for _, f := range s3.LockHeaders(o.Lock) {
		c.set(f.Name, f.Value)
	}
	for name, value := range o.User {
		c.set("x-amz-meta-"+name, value)
	}
	if len(o.Tags) > 0 {
		c.set("X-Amz-Tagging-Count", strconv.Itoa(len(o.Tags)))
	}
}

func (c *call) versionHeader(version string) {
	if version != "" {
		c.set("X-Amz-Version-Id", version)
	}
}

func (c *call) checksumHeaders(sum *store.Checksum) {
	if sum == nil {
		return
	}
	if a := s3.AlgorithmOf(sum.Algorithm); a != nil {
		c.set(a.Header, s3.FormatChecksum(sum))
		c.set("X-Amz-Checksum-Type", s3.ChecksumType(sum))
	}
}

// wanted returns the bytes that Range or partNumber ask for. partial is false
// for the whole object.
func (c *call) wanted(o *store.Object) (rng s3.Range, partial bool, err error) {
	whole := s3.Range{Length: o.Bytes}
	header := c.header("Range")
	text, byPart := c.query.Get("partNumber")
	if byPart {
		if header != "" {
			return whole, false, s3.E(s3.InvalidRequest, "Cannot specify both Range header and partNumber query parameter")
		}
		return c.wantedPart(o, text)
	}
	if header == "" || !c.ifRange(o) {
		return whole, false, nil
	}
	if rng, partial, err = s3.ParseRange(header, o.Bytes); err != nil || !partial {
		return whole, false, err
	}
	return rng, true, nil
}

// ifRange reports whether Range counts: If-Range is absent or still true.
func (c *call) ifRange(o *store.Object) bool {
	h := c.header("If-Range")
	if h == "" {
		return true
	}
	if t, err := http.ParseTime(h); err == nil {
		return o.Modified.Truncate(time.Second).Equal(t)
	}
	h = textproto.TrimString(h)
	return !strings.HasPrefix(h, "W/") && s3.CleanETag(h) == o.ETag
}

func (c *call) wantedPart(o *store.Object, text string) (s3.Range, bool, error) {
	n, err := partNumber(text)
	if err != nil {
		return s3.Range{}, false, err
	}
	if len(o.PartBytes) == 0 {
		if n != 1 {
			return s3.Range{}, false, s3.E(s3.InvalidPartNumber, "").OnRGW(s3.InvalidPart).With("PartNumberRequested", text).With("ActualPartCount", "1")
		}
		return s3.Range{Length: o.Bytes}, o.Bytes > 0, nil
	}
	if n > len(o.PartBytes) {
		return s3.Range{}, false, s3.E(s3.InvalidPartNumber, "").OnRGW(s3.InvalidPart).With("PartNumberRequested", text).
			With("ActualPartCount", strconv.Itoa(len(o.PartBytes)))
	}
	rng := s3.Range{Length: o.PartBytes[n-1]}
	for _, b := range o.PartBytes[:n-1] {
		rng.Offset += b
	}
	c.set("X-Amz-Mp-Parts-Count", strconv.Itoa(len(o.PartBytes)))
	return rng, rng.Length > 0, nil
}

func partNumber(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > store.PartsMax {
		return 0, invalidArgument("partNumber", text, "Part number must be an integer between 1 and 10000, inclusive")
	}
	return n, nil
}

var overridable = map[string]string{
	"response-content-type": "Content-Type", "response-content-language": "Content-Language", "response-expires": "Expires",
	"response-cache-control": "Cache-Control", "response-content-disposition": "Content-Disposition",
	"response-content-encoding": "Content-Encoding",
}

// overrides applies the response-* parameters.
func (c *call) overrides() error {
	for i := range c.query {
		name, ok := overridable[c.query[i].Name]
		if !ok {
			continue
		}
		value := c.query[i].Value
		if c.who.Kind == iam.Anonymous {
			return s3.E(s3.InvalidRequest, "Request specific response headers cannot be used for anonymous GET requests.")
		}
		for j := 0; j < len(value); j++ {
			if value[j] < ' ' && value[j] != '\t' || value[j] == 0x7f {
				return invalidArgument(c.query[i].Name, c.query[i].Value, "Header value cannot be represented.")
			}
		}
		if value != "" {
			c.set(name, value)
		}
	}
	return nil
}

// answerBody sends the head of an answer with the first bytes of its body, so
// that an object that cannot be read is a 503 and not a broken 200.
type answerBody struct {
	c      *call
	status int
	left   uint64
}

func (a *answerBody) Write(p []byte) (int, error) {
	c := a.c
	if uint64(len(p)) > a.left {
		return 0, &s3.Error{Code: s3.InternalError, Err: errors.New("the backend yields more bytes than it was asked for")}
	}
	if !c.wrote {
		c.writeHead(a.status)
	}
	sent := 0
	for sent < len(p) {
		begin := time.Now()
		c.extendWrite(begin)
		n, err := c.w.Write(p[sent:min(len(p), sent+writeStepBytes)])
		if c.rec != nil {
			c.sending += time.Since(begin)
		}
		sent += n
		a.left -= uint64(n)
		c.bytesOut += int64(n)
		if err != nil {
			return sent, &s3.Error{Code: s3.RequestTimeout, Message: "The client stopped reading.", Err: err}
		}
	}
	return sent, nil
}

// writeStepBytes must be taken by a client within WriteStall.
const writeStepBytes = 256 << 10

// stream sends the head and length bytes of src, which may write them itself
// from where they lie.
func (c *call) stream(status int, src io.Reader, length uint64) error {
	out := &answerBody{c: c, status: status, left: length}
	var err error
	if direct, ok := src.(io.WriterTo); ok {
		_, err = direct.WriteTo(out)
	} else {
		pool := &largeBuffers
		if length <= smallBufferBytes {
			pool = &smallBuffers
		}
		buf := pool.Get().(*[]byte)
		_, err = io.CopyBuffer(out, src, *buf)
		pool.Put(buf)
	}
	if err == nil && out.left > 0 {
		err = &s3.Error{Code: s3.InternalError, Err: io.ErrUnexpectedEOF}
	}
	return err
}

func getObjectTagging(c *call) error {
	o, err := c.headObject()
	if err != nil {
		return err
	}
	c.versionHeader(o.Version)
	return c.xml(http.StatusOK, func(w *s3.Writer) { w.Tags(o.Tags) })
}
