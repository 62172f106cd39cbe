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
