package s3gw

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/s3gw/iam"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/sigv4"
	"ashlar/s3gw/store"
)

// call is one request on its way. Handlers get it behind the verifier, with
// auth, bucket, key and body set; they never look at the URL.
type call struct {
	s       *Server
	w       http.ResponseWriter
	r       *http.Request
	ctx     context.Context
	id      string
	started time.Time

	query  s3.Query
	auth   *sigv4.Auth
	bucket s3.Bucket // empty for the service
	key    s3.Key    // empty for the service and buckets
	route  *route
	// session is what the client has seen; nil until the request is routed.
	session *store.Session
	body    *body     // nil where the route takes none
	form    *postForm // of an upload by a form, nil otherwise
	api     *query    // of a request to IAM or STS, nil otherwise
	site    *site     // of a request under a website domain, nil otherwise
	who     *iam.Identity

	// user is by whose rate the request is counted, admitted that it is being served.
	user     string
	admitted bool

	doc   *document // the body as a document, once it was read
	known map[s3.Bucket]*access
	// subjects are the objects that rights were judged by. The keys of a
	// DeleteObjects are judged side by side.
	subjects struct {
		sync.Mutex
		of map[subjectOf]*store.Object
	}

	formRead bool      // the form of a query was read whole
	wrote    bool      // the status line was written
	cut      bool      // the answer broke off: the connection must go
	status   int       // 0 until then
	failed   *s3.Error // what the client was told
	bytesOut int64
	// objectBytes is the size of the object that was read or written, if one was.
	objectBytes int64
	answered    time.Time  // the status line was written
	cors        []s3.Field // headers for a page of another origin
	writeBy     time.Time  // the write deadline, if we set one
	values      []string   // of response headers
	received    received

	rec        *wire.Recorder // of the request's steps; nil unless somebody watches
	authorized time.Time      // it was known that the request may be served; with rec
	sending    time.Duration  // the client was waited for to take the body; with rec
}

// parseTarget finds bucket and key in the host and the escaped path. Each is
// unescaped once, behind the split, so that %2F cannot move the border.
func (c *call) parseTarget() error {
	path := c.r.URL.EscapedPath()
	if path == "" || path[0] != '/' {
		return s3.E(s3.InvalidURI, "")
	}
	rest := path[1:]
	name, ok := c.bucketOfHost()
	if !ok {
		name, rest, _ = strings.Cut(rest, "/")
		if name, ok = s3.Unescape(name, false); !ok {
			return s3.E(s3.InvalidURI, "")
		}
	}
	if name == "" {
		if rest != "" {
			return s3.E(s3.InvalidBucketName, "")
		}
		return nil
	}
	var err error
	if c.bucket, err = s3.ParseBucket(name); err != nil || rest == "" {
		return err
	}
	key, ok := s3.Unescape(rest, false)
	if !ok {
		return s3.E(s3.InvalidURI, "")
	}
	c.key, err = s3.ParseKey(key)
	return err
}

// bucketOfHost returns the bucket of a virtual-host style request.
func (c *call) bucketOfHost() (string, bool) { return c.s.bucketOfHost(c.r) }

func (s *Server) bucketOfHost(r *http.Request) (string, bool) {
	if len(s.domains) == 0 {
		return "", false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(host)
	for _, d := range s.domains {
		if bucket, ok := strings.CutSuffix(host, "."+d); ok && bucket != "" {
			return bucket, true
		}
	}
	return "", false
}

// header returns the first value of a request header, given in canonical form.
func (c *call) header(canonical string) string {
	if v := c.r.Header[canonical]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// set sets a response header. The name goes out as it is written here. The
// values live in the call: one allocation for all of them.
func (c *call) set(name, value string) {
	if len(c.values) == cap(c.values) {
		c.values = make([]string, 0, headerValues)
	}
	c.values = append(c.values, value)
	n := len(c.values)
	c.w.Header()[name] = c.values[n-1 : n : n]
}

// headerValues is about how many headers an answer has.
const headerValues = 16

// identify sets the headers that every answer has.
func (c *call) identify() {
	c.set("X-Amz-Request-Id", c.id)
	c.set("X-Amz-Id-2", c.s.hostID)
	c.set("Server", "Ashlar")
}

// writeHead sends the status line. Every answer passes here once.
func (c *call) writeHead(status int) {
	c.status, c.wrote, c.answered = status, true, time.Now()
	c.chargeAnswer()
	c.sessionHeaders()
	c.extendWrite(c.answered)
	c.w.WriteHeader(status)
}

// empty answers without a body.
func (c *call) empty(status int) error {
	if status != http.StatusNoContent {
		c.set("Content-Length", "0")
	}
	c.writeHead(status)
	return nil
}

var xmlBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// xmlBufferKeptBytes bounds the buffers that go back to the pool.
const xmlBufferKeptBytes = 1 << 20

// xml answers with the document that build writes.
func (c *call) xml(status int, build func(w *s3.Writer)) error {
	buf := xmlBuffers.Get().(*[]byte)
	w := s3.Writer{B: (*buf)[:0], DisplayName: c.s.displayName}
	build(&w)
	c.sendXML(status, w.B)
	if *buf = w.B; cap(w.B) <= xmlBufferKeptBytes {
		xmlBuffers.Put(buf)
	}
	return nil
}

func (c *call) sendXML(status int, doc []byte) { c.sendDocument(status, "application/xml", doc) }

func (c *call) sendDocument(status int, contentType string, doc []byte) {
	c.set("Content-Type", contentType)
	c.set("Content-Length", strconv.Itoa(len(doc)))
	c.writeHead(status)
	if c.r.Method != http.MethodHead {
		n, _ := c.w.Write(doc) // a client that left is seen by the server
		c.bytesOut += int64(n)
	}
}

// fail turns an error into the answer. Behind the first byte of an answer
// nothing can be said any more: the connection is cut, so that the client sees
// a short body and not a wrong one.
func (c *call) fail(err error) {
	e := c.s.toClient(s3.Classify(err))
	if c.api != nil {
		e = queryError(e)
	}
	c.failed = e
	if e.Code == s3.InternalError {
		c.s.log.LogAttrs(c.ctx, slog.LevelError, "request failed", slog.String("id", c.id), slog.Any("cause", e.Err))
	}
	if c.wrote {
		c.cut = true
		return
	}
	if e.Code == s3.NotModified {
		c.writeHead(http.StatusNotModified)
		return
	}
	clear(c.w.Header()) // an object's headers say nothing about an error
	c.identify()
	c.setCORS()
	for _, h := range e.Headers {
		c.set(h.Name, h.Value)
	}
	if e.RetryAfterSeconds > 0 {
		c.set("Retry-After", strconv.Itoa(e.RetryAfterSeconds))
	}
	unread := c.unreadBody()
	if unread {
		// net/http reads a short rest to keep the connection; not for ever.
		http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(c.s.limits.BodyStall))
	}
	switch {
	case c.api != nil:
		c.sendQueryError(e)
	case c.site != nil:
		c.errorHeaders(e)
		c.sendDocument(e.Code.Status(), "text/html; charset=utf-8", s3.AppendErrorPage(nil, e, c.site.custom, c.id, c.s.hostID))
	default:
		c.sendXML(e.Code.Status(), s3.AppendError(nil, e, c.resource(), c.id, c.s.hostID))
	}
	if unread {
		c.linger()
	}
}

// Bounds of what is read of a body that was refused.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 64 * ashlar.MiB
)

// linger lets the client take the answer before the connection goes. A server
// that closes on a client that still sends makes the client's system drop the
// answer with the connection. net/http lingers by itself, but not for a request
// with Expect: 100-continue, and the AWS SDK for Go sends that without waiting.
func (c *call) linger() {
	control := http.NewResponseController(c.w)
	if control.Flush() != nil || control.SetReadDeadline(time.Now().Add(c.s.linger)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.r.Body, lingerBytes) // whatever ends it, the connection is done
}

// unreadBody reports whether the client may still be sending a body that
// nobody will read.
func (c *call) unreadBody() bool {
	return c.r.ContentLength != 0 && (c.body == nil || !c.body.ended()) && !c.formRead
}

// resource returns the path for the error document, fit for any XML parser.
func (c *call) resource() string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(c.r.URL.Path, "\uFFFD"))
}

// finish releases what the request held, counts it and writes its line.
func (c *call) finish() {
	s := c.s
	s.inflight.Add(-1)
	if !c.writeBy.IsZero() {
		http.NewResponseController(c.w).SetWriteDeadline(time.Time{})
	}
	if c.body != nil {
		c.body.release()
	}
	op, code := "Unknown", "OK"
	if c.route != nil {
		op = c.route.op
	}
	switch {
	case c.failed != nil:
		code = c.failed.Code.String()
	case !c.wrote: // a handler panicked
		code = s3.InternalError.String()
	}
	took := time.Since(c.started)
	s.metrics.observe(op, code, took)
	c.logLine(op, code, took)
	c.tell(op, code, took)
	s.accessLog.note(c)
	if c.cut {
		panic(http.ErrAbortHandler)
	}
}

func (c *call) logLine(op, code string, took time.Duration) {
	if !c.s.log.Enabled(c.ctx, slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{
		slog.String("id", c.id), slog.String("op", op), slog.String("code", code), slog.Int("status", c.status),
		slog.String("bucket", string(c.bucket)), slog.String("key", string(c.key)), slog.String("remote", c.r.RemoteAddr),
		slog.Int64("bytes_out", c.bytesOut), slog.Duration("took", took),
	}
	if c.auth != nil {
		attrs = append(attrs, slog.String("account", c.auth.Account), slog.String("key_id", c.auth.AccessKey))
	}
	if c.failed != nil && c.failed.Err != nil {
		attrs = append(attrs, slog.String("cause", c.failed.Err.Error()))
	}
	c.s.log.LogAttrs(c.ctx, slog.LevelDebug, "request", attrs...)
}

// extendWrite gives the client another WriteStall to take bytes, once a good
// part of the last one has passed.
func (c *call) extendWrite(now time.Time) {
	stall := c.s.limits.WriteStall
	due := c.writeBy
	if due.IsZero() {
		due = c.started.Add(stall)
	}
	if due.Sub(now) > stall/2 {
		return
	}
	c.writeBy = now.Add(stall)
	http.NewResponseController(c.w).SetWriteDeadline(c.writeBy) // not supported by a recorder: nothing to bound there
}
