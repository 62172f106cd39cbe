package sigv4

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"ashlar/s3gw/s3"
)

// Signature Version 2, for clients that know no better; it is off unless
// Options.Version2 says what it has to know.
//
//	header        Authorization: AWS AKID:base64(HMAC-SHA1(secret, StringToSign))
//	presigned     AWSAccessKeyId, Expires (seconds since 1970) and Signature in the query
//
//	StringToSign  method, Content-MD5, Content-Type and Date, a line each (Expires in place
//	              of Date if presigned, nothing if x-amz-date is there); a line name:value for
//	              each x-amz-* header, sorted; then the resource: the path with its bucket,
//	              and of the query what is in signedByVersion2, sorted, not escaped
//
// It signs neither the host nor the body nor the rest of the query, so what is not signed
// must not steer: parameters that would select another operation are refused, and so are
// our own x-ashlar-* headers and parameters and every framing of the body. In a presigned
// request x-amz-* parameters are signed as headers would be, and are then headers.
//
// What stands in the query is signed without escapes. A value that could be read as a
// further parameter is refused; but whoever lets others choose, say, the file name in
// response-content-disposition of what it signs, has let them choose these too.

// Version2 is what the Verifier has to know to judge Signature Version 2.
type Version2 struct {
	// Bucket returns the bucket that a request's host names, if it names one.
	Bucket func(r *http.Request) (string, bool)
	// Steers reports whether a parameter of the query may change what a request does to
	// what it names: whether it must be signed.
	Steers func(name string) bool
}

// signedByVersion2 are the parameters that are part of the resource: those of AWS's list,
// and what botocore and minio-go sign besides. A client that leaves one of them out signs
// something else than was sent, and is refused.
var signedByVersion2 = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range strings.Fields(`accelerate acl analytics cors delete encryption inventory legal-hold lifecycle location logging metrics
		notification object-lock partNumber policy replication requestPayment response-cache-control response-content-disposition
		response-content-encoding response-content-language response-content-type response-expires restore retention select select-type
		tagging torrent uploadId uploads versionId versioning versions website`) {
		m[name] = true
	}
	return m
}()

const (
	paramAccessKey = "AWSAccessKeyId"
	paramExpires   = "Expires"
	paramSignature = "Signature"
	// version2Signature is how long a signature is, in base64.
	version2Signature = 28
)

// CredentialOfVersion2 reports whether a parameter of the query is one of those that
// carry a signature of version 2, and no part of what is asked for.
func CredentialOfVersion2(name string) bool {
	return name == paramAccessKey || name == paramExpires || name == paramSignature
}

// claimOfHeader2 reads "AKID:signature".
func (v *Verifier) claimOfHeader2(r *http.Request, credential string) (*claim, error) {
	at := strings.LastIndexByte(credential, ':')
	if at <= 0 || at == len(credential)-1 {
		return nil, s3.E(s3.InvalidArgument, "AWS authorization header is invalid. Expected AwsAccessKeyId:signature").
			With("ArgumentName", "Authorization")
	}
	if v.Version2 == nil {
		return nil, unsupported()
	}
	c := &claim{version2: true, service: serviceS3, accessKey: credential[:at], signature: credential[at+1:]}
	h := r.Header
	values := h["X-Amz-Date"]
	if len(values) == 0 {
		c.timeText = h.Get("Date")
		values = []string{c.timeText}
	}
	var ok bool
	if c.time, c.stamp, ok = parseTime(values[0]); !ok || len(values) > 1 {
		return nil, noDate()
	}
	return c, nil
}

// claimOfQuery2 reads the parameters of a presigned request.
func (v *Verifier) claimOfQuery2(q s3.Query) (*claim, error) {
	if v.Version2 == nil {
		return nil, unsupported()
	}
	c := &claim{version2: true, service: serviceS3, presigned: true}
	for _, p := range []struct {
		name string
		into *string
	}{{paramAccessKey, &c.accessKey}, {paramExpires, &c.timeText}, {paramSignature, &c.signature}} {
		for i := range q {
			if q[i].Name != p.name {
				continue
			}
			if *p.into != "" {
				return nil, s3.E(s3.AccessDenied, p.name+" is given twice.")
			}
			*p.into = q[i].Value
		}
		if *p.into == "" {
			return nil, s3.E(s3.AccessDenied, "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters")
		}
	}
	seconds, err := strconv.ParseUint(c.timeText, 10, 40) // until the year 36,812
	if err != nil {
		return nil, s3.E(s3.AccessDenied, "Invalid date: Expires should be seconds since epoch")
	}
	c.until = time.Unix(int64(seconds), 0)
	return c, nil
}

// readVersion2 takes the headers that the signature covers, and refuses what is not
// covered and would steer.
func (v *Verifier) readVersion2(r *http.Request, q s3.Query, c *claim) error {
	const why = "Sign the request with AWS4-HMAC-SHA256."
	if len(c.signature) != version2Signature {
		return s3.E(s3.SignatureDoesNotMatch, "").With("AWSAccessKeyId", c.accessKey)
	}
	var unsigned []string
	seen := map[string]bool{}
	for name, values := range r.Header {
		switch low := strings.ToLower(name); {
		case strings.HasPrefix(low, "x-ashlar-"):
			unsigned = append(unsigned, low)
		case strings.HasPrefix(low, "x-amz-"):
			c.headers, seen[low] = append(c.headers, header2{low, values}), true
		}
	}
	if len(unsigned) > 0 {
		slices.Sort(unsigned)
		return s3.E(s3.AccessDenied, "There were headers present in the request which were not signed: Signature Version 2 covers no x-ashlar- headers. "+why).
			With("HeadersNotSigned", strings.Join(unsigned, ", "))
	}
	for i := range q {
		switch name, low := q[i].Name, strings.ToLower(q[i].Name); {
		case signedByVersion2[name]:
			if seen[name] || hidesParameter(q[i].Value) {
				return s3.E(s3.InvalidRequest, "Signature Version 2 does not tell where the query parameter "+name+" ends. "+why)
			}
			seen[name] = true
		case strings.HasPrefix(low, "x-ashlar-"), v.Version2.Steers(name):
			return s3.E(s3.InvalidRequest, "The query parameter "+strings.ToValidUTF8(name, "?")+" must be signed, and Signature Version 2 does not cover it. "+why)
		case c.presigned && strings.HasPrefix(low, "x-amz-"):
			if !fitsHeader(name, q[i].Value) {
				return s3.E(s3.InvalidRequest, "The query parameter "+strings.ToValidUTF8(name, "?")+" is signed as a header, and cannot be one.")
			}
			if seen[low] {
				return s3.E(s3.InvalidRequest, low+" is given twice.")
			}
			c.headers, seen[low] = append(c.headers, header2{low, []string{q[i].Value}}), true
		}
	}
	slices.SortFunc(c.headers, func(a, b header2) int { return strings.Compare(a.name, b.name) })
	c.payload = unsignedPayload
	for _, h := range c.headers {
		if h.name != "x-amz-content-sha256" {
			continue
		}
		if c.payload = h.values[0]; len(h.values) > 1 || strings.HasPrefix(c.payload, "STREAMING-") {
			return s3.E(s3.InvalidRequest, "Signature Version 2 has no "+strings.ToValidUTF8(strings.Join(h.values, ","), "?")+
				": the body is not signed in chunks and has no trailers. "+why)
		}
	}
	return nil
}

// header2 is a header that the signature covers.
type header2 struct {
	name   string // lower-case
	values []string
}

// fitsHeader reports whether a parameter could have come as a header. What could not might
// end its line in what is signed, or take the next one in.
func fitsHeader(name, value string) bool {
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return strings.Trim(value, " \t") == value && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// hidesParameter reports whether a value could be read as the end of its parameter and a
// further one, in what is signed.
func hidesParameter(value string) bool {
	for _, rest := range strings.Split(value, "&")[1:] {
		if name, _, _ := strings.Cut(rest, "="); signedByVersion2[name] {
			return true
		}
	}
	return false
}

// appendStringToSign appends what was signed, if the path was signed in this form.
func (v *Verifier) appendStringToSign(b []byte, r *http.Request, q s3.Query, c *claim, path string) []byte {
	for _, line := range []string{r.Method, r.Header.Get("Content-Md5"), r.Header.Get("Content-Type"), c.timeText} {
		b = append(b, line...)
		b = append(b, '\n')
	}
	for _, h := range c.headers {
		b = append(b, h.name...)
		for i, value := range h.values {
			b = append(b, ":,"[min(i, 1)])
			b = append(b, strings.Trim(value, " \t")...)
		}
		b = append(b, '\n')
	}
	if bucket, ok := v.Version2.Bucket(r); ok {
		b = append(b, '/')
		b = append(b, bucket...)
	}
	if path == "" {
		path = "/"
	}
	b = append(b, path...)
	var params s3.Query
	for _, p := range q {
		if signedByVersion2[p.Name] {
			params = append(params, p)
		}
	}
	slices.SortFunc(params, func(a, b s3.Param) int { return strings.Compare(a.Name, b.Name) })
	for i, p := range params {
		b = append(b, "?&"[min(i, 1)])
		b = append(b, p.Name...)
		if p.Value != "" {
			b = append(b, '=')
			b = append(b, p.Value...)
		}
	}
	return b
}

// signedWith2 is signedWith for version 2. A bucket may be signed with a slash behind its
// name, which botocore always does, whether one was sent or not: it is the same bucket.
func (v *Verifier) signedWith2(secret string, r *http.Request, q s3.Query, c *claim) bool {
	_, virtual := v.Version2.Bucket(r)
	return v.matches(r, func(b []byte, path string) ([]byte, bool) {
		b = v.appendStringToSign(b, r, q, c, path)
		good := equal(sign2(secret, b), c.signature)
		if bucket := len(path) > 1 && strings.LastIndexByte(path, '/') == 0 && !virtual; bucket && !good {
			b = v.appendStringToSign(b[:0], r, q, c, path+"/")
			good = equal(sign2(secret, b), c.signature)
		}
		return b, good
	})
}

// sign2 is the signature of version 2.
func sign2(secret string, what []byte) string {
	h := hmac.New(sha1.New, []byte(secret))
	h.Write(what)
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// mismatch2 tells the client, as S3 does, what should have been signed, but for what is secret in it.
func (v *Verifier) mismatch2(r *http.Request, q s3.Query, c *claim) error {
	told := *c
	told.headers = slices.Clone(c.headers)
	for i, h := range told.headers {
		if h.name == "x-amz-security-token" || strings.HasSuffix(h.name, "-customer-key") {
			told.headers[i].values = []string{"REDACTED"}
		}
	}
	what := v.appendStringToSign(nil, r, q, &told, r.URL.EscapedPath())
	return s3.E(s3.SignatureDoesNotMatch, "").With("AWSAccessKeyId", c.accessKey).
		With("StringToSign", string(bytes.ToValidUTF8(what, []byte("?"))))
}
