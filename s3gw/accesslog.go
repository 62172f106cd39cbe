package s3gw

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// The access log of buckets, in the form of S3's server access log: a line for each
// request that got as far as its bucket. Lines are gathered in memory and put into
// the bucket that is configured, as an object now and then. It is best effort, as on
// AWS: what a gateway had gathered when it died is gone, and so is what does not fit.

const (
	// logBytesMax bounds what a gateway has gathered, logObjectBytes what it gathers
	// of a bucket before it delivers at once.
	logBytesMax    = 16 << 20
	logObjectBytes = 1 << 20
	// logAge is how long a line waits.
	logAge = 5 * time.Minute
	// logLook is how often the gateway looks for lines that have waited.
	logLook = 5 * time.Second
	// logTimeout bounds one delivery.
	logTimeout = 30 * time.Second
)

// accessLog gathers and delivers.
type accessLog struct {
	s    *Server
	full chan struct{} // a word that a book is full
	mu   struct {
		sync.Mutex
		books map[bookOf]*book
		bytes int
	}
}

// bookOf names what goes into one object: a bucket's lines of one day.
type bookOf struct {
	bucket s3.Bucket
	day    string
}

type book struct {
	lines   []byte
	records int
	since   time.Time
}

func newAccessLog(s *Server) *accessLog {
	l := &accessLog{s: s, full: make(chan struct{}, 1)}
	l.mu.books = map[bookOf]*book{}
	return l
}

// note writes down a request that is over, if its bucket wants that.
func (l *accessLog) note(c *call) {
	a := c.known[c.bucket]
	if a == nil || a.logging == nil || c.who == nil || c.route == nil {
		return
	}
	now := l.s.now().UTC()
	line := c.logRecord(a, now)
	l.add(bookOf{c.bucket, now.Format(time.DateOnly)}, line, 1, now)
}

// add puts lines into a book; where there is no room they are counted.
func (l *accessLog) add(at bookOf, lines []byte, records int, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.bytes+len(lines) > logBytesMax {
		l.s.metrics.unlogged.Add(float64(records))
		return
	}
	b := l.mu.books[at]
	if b == nil {
		b = &book{since: since}
		l.mu.books[at] = b
	}
	b.lines = append(b.lines, lines...)
	b.records += records
	l.mu.bytes += len(lines)
	if len(b.lines) >= logObjectBytes {
		select {
		case l.full <- struct{}{}:
		default: // somebody knows
		}
	}
}

// take returns the books that are full or old, or all of them.
func (l *accessLog) take(all bool) map[bookOf]*book {
	l.mu.Lock()
	defer l.mu.Unlock()
	due := map[bookOf]*book{}
	for at, b := range l.mu.books {
		if all || len(b.lines) >= logObjectBytes || l.s.now().Sub(b.since) >= logAge {
			due[at] = b
			delete(l.mu.books, at)
			l.mu.bytes -= len(b.lines)
		}
	}
	return due
}

// RunAccessLog delivers the access logs of buckets until ctx ends, and then what is
// left.
func (s *Server) RunAccessLog(ctx context.Context) {
	ticker := time.NewTicker(logLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), logTimeout)
			defer cancel()
			s.accessLog.deliverAll(last, true)
			return
		case <-ticker.C:
		case <-s.accessLog.full:
		}
		s.accessLog.deliverAll(ctx, false)
	}
}

func (l *accessLog) deliverAll(ctx context.Context, all bool) {
	for at, b := range l.take(all) {
		err := l.deliver(ctx, at, b)
		switch {
		case err == nil:
		case ctx.Err() != nil, s3.Classify(err).Code.Status() >= 500: // later perhaps
			l.add(at, b.lines, b.records, b.since)
		default:
			l.s.metrics.unlogged.Add(float64(b.records))
			l.s.log.Warn("s3gw: an access log cannot be delivered", "bucket", at.bucket, "records", b.records, "err", err)
		}
	}
}

var errNoDelivery = errors.New("the target bucket is another account's, or does not let logs be delivered")

// deliver puts a book into the bucket that its own names now.
func (l *accessLog) deliver(ctx context.Context, at bookOf, b *book) error {
	ctx, cancel := context.WithTimeout(ctx, logTimeout)
	defer cancel()
	rec, err := l.s.backend.Access(ctx, string(at.bucket))
	if err != nil {
		return err
	}
	source := l.s.accesses.of(rec)
	if source.logging == nil {
		return nil // nobody wants it any more
	}
	if rec, err = l.s.backend.Access(ctx, source.logging.Bucket); err != nil {
		return err
	}
	target := l.s.accesses.of(rec)
	key := l.s.logKey(source, at.day)
	if target.Owner != source.Owner || !l.s.mayDeliver(source, target, key) {
		return s3.E(s3.AccessDenied, errNoDelivery.Error())
	}
	size := uint64(len(b.lines))
	_, err = l.s.backend.PutObject(ctx, &store.PutRequest{
		Bucket: target.Name, Key: key, Owner: target.Owner, Attributes: store.Attributes{ContentType: "text/plain"},
	}, newCopyBody(bytes.NewReader(b.lines), size, s3.AlgorithmOf(store.CRC64NVME)))
	return err
}

// logKey is a new key for a log of source.
func (s *Server) logKey(source *access, day string) string {
	now, l := s.now().UTC(), source.logging
	at := now.Format("2006-01-02-15-04-05")
	key := l.Prefix
	if l.Dates != "" {
		date := now.Format(time.DateOnly)
		if l.Dates == s3.DatesOfEvents {
			date, at = day, day+"-00-00-00"
		}
		key += s.accountID(source.Owner) + "/" + s.region + "/" + source.Name + "/" + strings.ReplaceAll(date, "-", "/") + "/"
	}
	var unique [8]byte
	_, _ = rand.Read(unique[:]) // it never fails
	return key + at + "-" + strings.ToUpper(hex.EncodeToString(unique[:]))
}

// logRecord is the line of a request.
func (c *call) logRecord(a *access, now time.Time) []byte {
	requester := c.who.ARN
	switch c.who.Kind {
	case iam.Anonymous:
		requester = ""
	case iam.Root:
		requester = c.who.Account.Canonical
	}
	remote, _, _ := net.SplitHostPort(c.r.RemoteAddr)
	code := ""
	if c.failed != nil {
		code = c.failed.Code.String()
	}
	version := c.w.Header().Get("X-Amz-Version-Id")
	if version == "" {
		version = c.query.Value("versionId")
	}
	signature, auth := "SigV4", "AuthHeader"
	if c.auth.Version2 {
		signature = "SigV2"
	}
	switch {
	case c.who.Kind == iam.Anonymous:
		signature, auth = "", ""
	case c.auth.Presigned:
		auth = "QueryString"
	case c.form != nil:
		auth = "POST"
	}
	cipher, tlsVersion := "", ""
	if c.r.TLS != nil {
		cipher = tls.CipherSuiteName(c.r.TLS.CipherSuite)
		tlsVersion = map[uint16]string{tls.VersionTLS12: "TLSv1.2", tls.VersionTLS13: "TLSv1.3"}[c.r.TLS.Version]
	}
	turnaround := ""
	if !c.answered.IsZero() {
		turnaround = millis(c.answered.Sub(c.started))
	}
	fields := []string{
		a.Owner, string(c.bucket), now.Format("[02/Jan/2006:15:04:05 -0700]"), remote, requester, c.id, c.route.logName(c), escaped(string(c.key)),
		quoted(c.r.Method + " " + c.loggedURI() + " " + c.r.Proto), strconv.Itoa(c.status), code, positive(c.bytesOut), positive(c.objectBytes),
		millis(time.Since(c.started)), turnaround, quoted(c.r.Referer()), quoted(c.r.UserAgent()), version, c.s.hostID, signature, cipher, auth,
		loggable(c.r.Host, '!'), tlsVersion, "", "",
	}
	for i, f := range fields {
		if f == "" {
			fields[i] = "-"
		}
	}
	return append([]byte(strings.Join(fields, " ")), '\n')
}

// secretParameters are not for those who read logs.
var secretParameters = []string{"X-Amz-Signature", "Signature", "X-Amz-Security-Token"}

// loggedURI is the request's path and query, without what would let it be sent again.
func (c *call) loggedURI() string {
	path, query, has := strings.Cut(c.r.RequestURI, "?")
	if !has {
		return path
	}
	params := strings.Split(query, "&")
	for i, p := range params {
		name, _, _ := strings.Cut(p, "=")
		if plain, ok := s3.Unescape(name, true); ok {
			name = plain
		}
		if slices.ContainsFunc(secretParameters, func(s string) bool { return strings.EqualFold(s, name) }) {
			params[i] = name + "=REDACTED"
		}
	}
	return path + "?" + strings.Join(params, "&")
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

func positive(n int64) string {
	if n <= 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// quoted writes a field in quotes; nothing in it can end them or the line.
func quoted(s string) string {
	if s == "" {
		return ""
	}
	return `"` + loggable(s, ' ') + `"`
}

// loggable escapes what would be read as the end of a field; first is the least byte
// that may stand in it.
func loggable(s string, first byte) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < first || c == '"' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// logNames are the last words of operations that are not those of their subresource.
var logNames = map[string]string{
	"delete": "MULTI_OBJECT_DELETE", "list-type": "BUCKET", "versions": "BUCKETVERSIONS", "policy": "BUCKETPOLICY", "logging": "LOGGING_STATUS",
	"publicAccessBlock": "PUBLIC_ACCESS_BLOCK", "ownershipControls": "OWNERSHIP_CONTROLS", "requestPayment": "REQUEST_PAYMENT",
	"policyStatus": "BUCKETPOLICYSTATUS", "object-lock": "OBJECT_LOCK_CONFIGURATION", "legal-hold": "OBJECT_LOCK_LEGALHOLD", "retention": "OBJECT_LOCK_RETENTION",
}

// logName is the operation as S3's access logs call it.
func (r *route) logName(c *call) string {
	if c.site != nil {
		return "WEBSITE." + c.r.Method + ".OBJECT"
	}
	what := map[target]string{onService: "SERVICE", onBucket: "BUCKET", onObject: "OBJECT"}[r.on]
	switch {
	case r.sub == "uploadId" && r.method == http.MethodPut:
		what = "PART"
	case r.sub == "uploadId":
		what = "UPLOAD"
	case r.sub == "tagging" && r.on == onObject:
		what = "OBJECT_TAGGING"
	case logNames[r.sub] != "":
		what = logNames[r.sub]
	case r.sub != "":
		what = strings.ToUpper(strings.ReplaceAll(r.sub, "-", "_"))
	}
	method := r.method
	if r.copy {
		method = "COPY"
	}
	return "REST." + method + "." + what
}
