// Package sigv4 decides who sent a request: it verifies AWS Signature Version 4
// in all the forms that S3 clients use, and the signed framing of bodies.
//
//	header        Authorization: AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…
//	presigned     the same facts as query parameters, with X-Amz-Expires
//	payload       a SHA-256 of the body, UNSIGNED-PAYLOAD, or one of the STREAMING-
//	              forms, whose chunks (and trailers) ChunkReader verifies
//
// Signature Version 2 it verifies only where it is asked to (version2.go).
//
// One Verifier stands in front of the router. It yields an Auth or an error and
// nothing in between; a request without credentials is an error too. Beyond the
// signature it insists that the host and every x-amz-* and x-ashlar-* header that
// arrived are signed, so that no handler can be steered by a header that somebody
// added on the way. Signatures are compared in constant time; signing keys are cached
// per access key, day and region once a signature was good.
//
// The clock and the credentials are injected. The package does not look at
// bucket, key or operation: where version 2 needs the bucket, it asks.
package sigv4

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ashlar/s3gw/s3"
)

// Credentials finds what an access key stands for. Implementations are called
// concurrently and once per request, so they answer mostly from memory.
type Credentials interface {
	// Lookup returns the credential of a key. token is the session token that came
	// with it, empty if none did. Errors: ErrUnknownKey, ErrInvalidToken (also of a
	// key that needs a token and has none, or has one and needs none),
	// ErrExpiredToken; anything else says that it cannot be known now.
	Lookup(ctx context.Context, accessKey, token string) (Credential, error)
}

// Credential is what an access key stands for.
type Credential struct {
	Secret string
	// Account is the canonical id of the account that it belongs to.
	Account string
	// Holder is for whom the key acts, in the words of whoever keeps the keys. It is
	// handed on in Auth.
	Holder any
}

// What Lookup returns for keys and tokens that are not good.
var (
	ErrUnknownKey   = errors.New("the access key does not exist")
	ErrInvalidToken = errors.New("the session token is not that of the access key")
	ErrExpiredToken = errors.New("the session token has expired")
)

const (
	algorithm   = "AWS4-HMAC-SHA256"
	scopeTail   = "aws4_request"
	serviceS3   = "s3"
	serviceIAM  = "iam"
	serviceSTS  = "sts"
	dateLayout  = "20060102"
	stampLayout = "20060102T150405Z"
	// skewMax is how far the client's clock may be off.
	skewMax = 15 * time.Minute
	// expiresSecondsMax is the longest life of a presigned request: seven days.
	expiresSecondsMax = 604800
)

// Options say what a Verifier takes. All but AnyRegion and Version2 must be set.
type Options struct {
	Credentials Credentials
	// Region is the one that requests must be signed for.
	Region string
	// AnyRegion takes every region that a client names in a scope: its key is derived
	// from that name. Region is then only what errors and answers say.
	AnyRegion bool
	// Version2 takes requests that are signed with Signature Version 2 too. Nil refuses them.
	Version2 *Version2
	// Now judges times and lives.
	Now func() time.Time
}

// Verifier checks requests against Options.
type Verifier struct {
	Options
	keys    keyCache
	buffers sync.Pool // *[]byte
}

// New returns a Verifier. It is safe for concurrent use.
func New(o Options) *Verifier {
	return &Verifier{Options: o, buffers: sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}}
}

// Auth is a verified request.
type Auth struct {
	AccessKey, Account string
	// Holder is what Credentials said of the key.
	Holder any
	// Service is what the request was signed for: s3, iam or sts.
	Service string
	// Presigned says that the credentials came in the query.
	Presigned bool
	Payload   Payload
	// Version2 says that the request is signed with Signature Version 2, or the policy of
	// a form with the HMAC-SHA1 of its days.
	Version2 bool
	// Time is when the request was signed, zero if that is not known: of what is presigned
	// with version 2, and of forms that are signed with it.
	Time time.Time
}

// claim is what a request says about its signature, parsed and not yet believed.
type claim struct {
	accessKey, date, region string
	service                 string
	signedHeaders           string
	signature               string
	stamp                   string // ISO 8601 basic, as signed
	time                    time.Time
	presigned               bool
	expires                 time.Duration
	until                   time.Time // the end of its life, if presigned
	payload                 string    // the x-amz-content-sha256 that was signed

	// Of Signature Version 2, which has no region, no service and no list of headers.
	version2 bool
	timeText string // what is signed as the time
	headers  []header2
}

func (c *claim) scope() string {
	return c.date + "/" + c.region + "/" + c.service + "/" + scopeTail
}

// Verify decides who sent r, whose parsed query is q. Every error is an
// *s3.Error.
func (v *Verifier) Verify(r *http.Request, q s3.Query) (*Auth, error) {
	c, err := v.claimOf(r, q)
	if err != nil {
		return nil, err
	}
	if err := v.check(r, q, c); err != nil {
		return nil, err
	}
	payload, err := parsePayload(c.payload)
	if err != nil {
		return nil, err
	}
	token, err := sessionToken(r, q, c)
	if err != nil {
		return nil, err
	}
	return v.judge(r, q, c, payload, token)
}

// VerifyQuery decides who sent a request of the query APIs (IAM and STS), whose
// body is form. They are signed in a header, for the gateway's region or the one that
// AWS has for global services, and the signature covers the body. Every error is an
// *s3.Error.
func (v *Verifier) VerifyQuery(r *http.Request, form []byte) (*Auth, error) {
	headers := r.Header["Authorization"]
	if len(headers) != 1 || headers[0] == "" {
		return nil, s3.E(s3.AccessDenied, "")
	}
	c, err := parseAuthorization(headers[0], serviceIAM, serviceSTS)
	if err != nil {
		return nil, err
	}
	if why := v.wrongRegion(c.region); why != "" && c.region != globalRegion {
		return nil, v.malformedRegion(why)
	}
	if err := c.readTime(r.Header); err != nil {
		return nil, err
	}
	if err := v.check(r, nil, c); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(form)
	c.payload = hex.EncodeToString(sum[:])
	if said := r.Header["X-Amz-Content-Sha256"]; len(said) > 1 || len(said) == 1 && said[0] != c.payload {
		return nil, s3.E(s3.XAmzContentSHA256Mismatch, "")
	}
	token, err := sessionToken(r, nil, c)
	if err != nil {
		return nil, err
	}
	return v.judge(r, nil, c, Payload{}, token)
}

// globalRegion is what clients of AWS's global services sign for.
const globalRegion = "us-east-1"

// sessionToken finds the token, which comes where the signature does.
func sessionToken(r *http.Request, q s3.Query, c *claim) (string, error) {
	const name = "X-Amz-Security-Token"
	header := r.Header[name]
	token, inQuery := "", false
	for i := range q {
		if q[i].Name == name || c.version2 && strings.EqualFold(q[i].Name, name) {
			token, inQuery = q[i].Value, true
			break
		}
	}
	switch {
	case inQuery && (!c.presigned || len(header) > 0), len(header) > 1:
		return "", s3.E(s3.InvalidToken, "")
	case len(header) == 1:
		return header[0], nil
	}
	return token, nil
}

// check judges what can be judged without knowing the key.
func (v *Verifier) check(r *http.Request, q s3.Query, c *claim) error {
	var err error
	if c.version2 {
		err = v.readVersion2(r, q, c)
	} else {
		err = checkSigned(r, c.signedHeaders)
	}
	if err != nil {
		return err
	}
	return v.checkTime(c)
}

// judge believes a claim or refuses it.
func (v *Verifier) judge(r *http.Request, q s3.Query, c *claim, payload Payload, token string) (*Auth, error) {
	found, err := v.Credentials.Lookup(r.Context(), c.accessKey, token)
	if err != nil {
		return nil, lookupError(err, c.accessKey)
	}
	key, good := v.signedWith(found.Secret, r, q, c)
	switch {
	case !good && c.version2:
		return nil, v.mismatch2(r, q, c)
	case !good:
		return nil, s3.E(s3.SignatureDoesNotMatch, "").With("AWSAccessKeyId", c.accessKey).
			With("SignatureProvided", c.signature)
	}
	a := &Auth{AccessKey: c.accessKey, Account: found.Account, Holder: found.Holder, Service: c.service, Presigned: c.presigned,
		Version2: c.version2, Time: c.time, Payload: payload}
	if a.Payload.Signed() {
		a.Payload.key, a.Payload.stamp, a.Payload.scope, a.Payload.seed = key, c.stamp, c.scope(), c.signature
	}
	return a, nil
}

// signedWith reports whether a claim is signed with a secret. The key signs chunks; there
// is none in version 2.
func (v *Verifier) signedWith(secret string, r *http.Request, q s3.Query, c *claim) (*signingKey, bool) {
	if c.version2 {
		return nil, v.signedWith2(secret, r, q, c)
	}
	name := keyName{c.accessKey, c.date, c.region, c.service}
	key := v.keys.get(name, secret)
	good := v.matches(r, func(b []byte, path string) ([]byte, bool) {
		b = appendCanonical(b, r, q, c, path)
		got := key.sign(algorithm, c.stamp, c.scope(), b)
		var text [64]byte
		hex.Encode(text[:], got[:])
		return b, subtle.ConstantTimeCompare(text[:], []byte(c.signature)) == 1
	})
	if good {
		v.keys.keep(name, key)
	}
	return key, good
}

func lookupError(err error, accessKey string) error {
	switch {
	case errors.Is(err, ErrUnknownKey):
		return s3.E(s3.InvalidAccessKeyID, "").With("AWSAccessKeyId", accessKey)
	case errors.Is(err, ErrInvalidToken):
		return s3.E(s3.InvalidToken, "")
	case errors.Is(err, ErrExpiredToken):
		return s3.E(s3.ExpiredToken, "")
	}
	return s3.Classify(err)
}

// claimOf finds the one place where the request names its credentials.
func (v *Verifier) claimOf(r *http.Request, q s3.Query) (*claim, error) {
	headers := r.Header["Authorization"]
	query := q.Has("X-Amz-Algorithm") || q.Has("X-Amz-Signature") || q.Has("X-Amz-Credential")
	v2 := q.Has(paramAccessKey) && q.Has(paramSignature)
	if v.Version2 != nil { // what is presigned by half is told what it lacks
		v2 = q.Has(paramAccessKey) || q.Has(paramSignature)
	}
	switch {
	case len(headers) > 1, len(headers) == 1 && headers[0] != "" && (query || v2), query && v2:
		return nil, s3.E(s3.InvalidArgument, "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "+
			"Signature query string parameter or the Authorization header should be specified")
	case query:
		return v.claimOfQuery(r, q)
	case v2:
		return v.claimOfQuery2(q)
	case len(headers) == 0 || headers[0] == "":
		return nil, s3.E(s3.AccessDenied, "")
	}
	return v.claimOfHeader(r, headers[0])
}

func unsupported() error {
	return s3.E(s3.InvalidRequest, "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
}

func (v *Verifier) claimOfHeader(r *http.Request, header string) (*claim, error) {
	if credential, ok := strings.CutPrefix(header, "AWS "); ok {
		return v.claimOfHeader2(r, credential)
	}
	scheme, _, spaced := strings.Cut(header, " ")
	if !strings.HasPrefix(scheme, algorithm) {
		why := "Unsupported Authorization Type"
		if !spaced {
			why = "Authorization header is invalid -- one and only one ' ' (space) required."
		}
		return nil, s3.E(s3.InvalidArgument, why).With("ArgumentName", "Authorization").
			With("ArgumentValue", strings.ToValidUTF8(header, "?"))
	}
	c, err := parseAuthorization(header, serviceS3)
	if err != nil {
		return nil, err
	}
	if why := v.wrongRegion(c.region); why != "" {
		return nil, v.malformedRegion(why)
	}
	if err := c.readTime(r.Header); err != nil {
		return nil, err
	}
	values := r.Header["X-Amz-Content-Sha256"]
	if len(values) != 1 || values[0] == "" {
		return nil, s3.E(s3.InvalidRequest, "Missing required header for this request: x-amz-content-sha256")
	}
	c.payload = values[0]
	return c, nil
}

func (v *Verifier) malformedRegion(why string) error {
	return s3.E(s3.AuthorizationHeaderMalformed, "The authorization header is malformed; "+why).With("Region", v.Region)
}

// readTime takes the time of the request from its headers.
func (c *claim) readTime(h http.Header) (err error) {
	if c.time, c.stamp, err = requestTime(h); err != nil {
		return err
	}
	if c.stamp[:len(dateLayout)] != c.date {
		return s3.E(s3.AuthorizationHeaderMalformed, "The authorization header is malformed; invalid credential date. "+
			"Date is not the same as X-Amz-Date.")
	}
	return nil
}

// parseAuthorization reads the value of an Authorization header for one of the services.
func parseAuthorization(header string, services ...string) (*claim, error) {
	bad := func(why string) (*claim, error) {
		return nil, s3.E(s3.AuthorizationHeaderMalformed, "The authorization header is malformed; "+why)
	}
	rest, ok := strings.CutPrefix(header, algorithm)
	if !ok || rest == "" || rest[0] != ' ' && rest[0] != '\t' {
		return bad("it must begin with " + algorithm + ".")
	}
	c := &claim{}
	credential := ""
	fields := strings.Split(rest, ",")
	if len(fields) != 3 {
		return bad("the authorization header requires three components: Credential, SignedHeaders, and Signature.")
	}
	for _, field := range fields {
		name, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		var into *string
		switch name {
		case "Credential":
			into = &credential
		case "SignedHeaders":
			into = &c.signedHeaders
		case "Signature":
			into = &c.signature
		}
		if !ok || value == "" {
			return bad("the authorization component " + quoted(strings.TrimSpace(field)) + " is malformed.")
		}
		if into != nil { // what is missing is named below
			*into = value
		}
	}
	for _, p := range []struct{ name, value string }{
		{"Credential", credential}, {"SignedHeaders", c.signedHeaders}, {"Signature", c.signature},
	} {
		if p.value == "" {
			return bad("missing " + p.name + ".")
		}
	}
	if why := c.setCredential(credential, services...); why != "" {
		return bad(why)
	}
	if !validSignature(c.signature) {
		return bad("the Signature must be 64 hexadecimal digits.")
	}
	return c, nil
}

// setCredential splits AKID/date/region/service/aws4_request; it returns what is
// wrong with it, or nothing. The access key itself may hold slashes.
func (c *claim) setCredential(s string, services ...string) string {
	const malformed = `the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".`
	var tail [4]string
	for i := 3; i >= 0; i-- {
		at := strings.LastIndexByte(s, '/')
		if at < 0 {
			return malformed
		}
		s, tail[i] = s[:at], s[at+1:]
	}
	_, err := time.Parse(dateLayout, tail[0])
	switch {
	case s == "":
		return malformed
	case !slices.Contains(services, tail[2]):
		return "incorrect service " + quoted(tail[2]) + ". This endpoint belongs to " + quoted(services[0]) + "."
	case tail[3] != scopeTail:
		return "incorrect terminal " + quoted(tail[3]) + `. This endpoint uses "aws4_request".`
	case err != nil || len(tail[0]) != len(dateLayout):
		return "incorrect date format " + quoted(tail[0]) + `. This date in the credential must be in the format "yyyyMMdd".`
	}
	c.accessKey, c.date, c.region, c.service = s, tail[0], tail[1], tail[2]
	return ""
}

func quoted(s string) string { return `"` + strings.ToValidUTF8(s, "?") + `"` }

func validSignature(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// wrongRegion is what follows "…; " where the region of a scope is not taken, or nothing;
// old clients find the right one in these words, with these quotes.
func (v *Verifier) wrongRegion(region string) string {
	switch {
	case region == v.Region, v.AnyRegion && s3.IsRegion(region):
		return ""
	case v.AnyRegion:
		return "the region must be " + s3.RegionForm + "; '" + v.Region + "' is this endpoint's"
	}
	return "the region '" + strings.ToValidUTF8(region, "?") + "' is wrong; expecting '" + v.Region + "'"
}

func noDate() error {
	return s3.E(s3.AccessDenied, "AWS authentication requires a valid Date or x-amz-date header")
}

// requestTime reads x-amz-date or, failing that, Date.
func requestTime(h http.Header) (time.Time, string, error) {
	if values := h["X-Amz-Date"]; len(values) > 0 {
		t, err := time.Parse(stampLayout, values[0])
		if err != nil || len(values) > 1 {
			return time.Time{}, "", noDate()
		}
		return t, values[0], nil
	}
	t, stamp, ok := parseTime(h.Get("Date"))
	if !ok {
		return time.Time{}, "", noDate()
	}
	return t, stamp, nil
}

// parseTime reads a time in each form that clients write into a Date, and returns its stamp.
func parseTime(text string) (t time.Time, stamp string, ok bool) {
	t, err := time.Parse(stampLayout, text)
	if err != nil {
		t, err = http.ParseTime(text)
	}
	if err != nil { // botocore writes a numeric zone, as mail does.
		t, err = time.Parse(time.RFC1123Z, text)
	}
	return t, t.UTC().Format(stampLayout), err == nil
}

func (v *Verifier) claimOfQuery(r *http.Request, q s3.Query) (*claim, error) {
	bad := func(why string) (*claim, error) { return nil, s3.E(s3.AuthorizationQueryParametersError, why) }
	outOfBounds := func(why string) (*claim, error) {
		return nil, s3.E(s3.AuthorizationQueryParametersError, why).OnRGW(s3.AccessDenied)
	}
	var alg, credential, expires string
	c := &claim{presigned: true, payload: unsignedPayload}
	for _, p := range []struct {
		name string
		into *string
	}{
		{"X-Amz-Algorithm", &alg}, {"X-Amz-Credential", &credential}, {"X-Amz-Signature", &c.signature},
		{"X-Amz-Date", &c.stamp}, {"X-Amz-SignedHeaders", &c.signedHeaders}, {"X-Amz-Expires", &expires},
	} {
		for i := range q {
			if q[i].Name != p.name {
				continue
			}
			if *p.into != "" {
				return bad(p.name + " is given twice.")
			}
			*p.into = q[i].Value
		}
		if *p.into == "" {
			return bad("Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, " +
				"X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.")
		}
	}
	const parsing = "Error parsing the X-Amz-Credential parameter; "
	if alg != algorithm {
		return bad(`X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"`)
	}
	if why := c.setCredential(credential, serviceS3); why != "" {
		return bad(parsing + why)
	}
	if !validSignature(c.signature) {
		return nil, s3.E(s3.SignatureDoesNotMatch, "")
	}
	if why := v.wrongRegion(c.region); why != "" {
		return nil, s3.E(s3.AuthorizationQueryParametersError, parsing+why).With("Region", v.Region)
	}
	var err error
	if c.time, err = time.Parse(stampLayout, c.stamp); err != nil {
		return bad(`X-Amz-Date must be in the ISO8601 Long Format "yyyyMMdd'T'HHmmss'Z'"`)
	}
	if c.stamp[:len(dateLayout)] != c.date {
		return bad("Invalid credential date " + quoted(c.date) + ". This date is not the same as X-Amz-Date: " + quoted(c.stamp[:len(dateLayout)]) + ".")
	}
	seconds, err := strconv.Atoi(expires)
	switch {
	case err != nil:
		return bad("X-Amz-Expires should be a number")
	case seconds < 0:
		return outOfBounds("X-Amz-Expires must be non-negative")
	case seconds == 0:
		return outOfBounds("X-Amz-Expires must be positive")
	case seconds > expiresSecondsMax:
		return outOfBounds("X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds")
	}
	c.expires = time.Duration(seconds) * time.Second
	c.until = c.time.Add(c.expires)
	if p, ok := q.Get("X-Amz-Content-Sha256"); ok {
		c.payload = p
	} else if h := r.Header.Get("X-Amz-Content-Sha256"); h != "" {
		c.payload = h
	}
	return c, nil
}

// checkTime judges the clock: 15 minutes either way for a header, the stated
// life for a presigned request.
func (v *Verifier) checkTime(c *claim) error {
	now := v.Now()
	if !c.presigned {
		if d := now.Sub(c.time); d > skewMax || d < -skewMax {
			return s3.E(s3.RequestTimeTooSkewed, "").With("RequestTime", c.stamp).
				With("ServerTime", now.UTC().Format(time.RFC3339)).
				With("MaxAllowedSkewMilliseconds", strconv.FormatInt(skewMax.Milliseconds(), 10))
		}
		return nil
	}
	switch {
	case now.Before(c.time.Add(-skewMax)):
		return s3.E(s3.AccessDenied, "Request is not yet valid").With("X-Amz-Date", c.stamp)
	case now.After(c.until):
		expired := s3.E(s3.AccessDenied, "Request has expired")
		if !c.version2 {
			expired = expired.With("X-Amz-Expires", strconv.Itoa(int(c.expires/time.Second)))
		}
		return expired.With("Expires", c.until.UTC().Format(time.RFC3339)).With("ServerTime", now.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkSigned insists on host and on every x-amz-* header that arrived. The
// list must be lower-case and ascending, which every signer produces and which
// makes the test for membership unambiguous.
func checkSigned(r *http.Request, signed string) error {
	prev, host, amz := "", false, 0
	for rest := signed; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, ";")
		if name <= prev || strings.ToLower(name) != name {
			return s3.E(s3.AuthorizationHeaderMalformed, "The authorization is malformed; SignedHeaders must be lower-case and sorted.")
		}
		prev = name
		if name == "host" {
			host = true
		} else if isAmz(name) && len(r.Header[canonicalName(name)]) > 0 {
			amz++
		}
	}
	if !host {
		return s3.E(s3.AccessDenied, "There were headers present in the request which were not signed").With("HeadersNotSigned", "host")
	}
	arrived := 0
	for name := range r.Header {
		if isAmz(name) {
			arrived++
		}
	}
	if arrived == amz {
		return nil
	}
	return s3.E(s3.AccessDenied, "There were headers present in the request which were not signed").
		With("HeadersNotSigned", unsignedAmz(r.Header, signed))
}

func unsignedAmz(h http.Header, signed string) string {
	var missing []string
	list := ";" + signed + ";"
	for name := range h {
		if low := strings.ToLower(name); isAmz(low) && !strings.Contains(list, ";"+low+";") {
			missing = append(missing, low)
		}
	}
	slices.Sort(missing)
	return strings.Join(missing, ", ")
}

// isAmz reports whether a header must be signed: AWS's x-amz-*, and our own
// x-ashlar-*.
func isAmz(name string) bool { return hasFold(name, "x-amz-") || hasFold(name, "x-ashlar-") }

func hasFold(name, prefix string) bool {
	return len(name) > len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// matches asks judge, which appends what is signed and compares the signature in constant
// time. A path may be signed as AWS encodes it or exactly as it was sent.
func (v *Verifier) matches(r *http.Request, judge func(b []byte, path string) ([]byte, bool)) (good bool) {
	buf := v.buffers.Get().(*[]byte)
	defer v.buffers.Put(buf)
	normal := string(s3.AppendEscaped((*buf)[:0], r.URL.Path, true))
	if *buf, good = judge((*buf)[:0], normal); good {
		return true
	}
	if sent := r.URL.EscapedPath(); sent != normal {
		*buf, good = judge((*buf)[:0], sent)
	}
	return good
}
