package s3

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strings"
	"time"
)

const (
	unsignedPayload = "UNSIGNED-PAYLOAD"
	emptySHA256     = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	dateFormat      = "20060102T150405Z"
)

// signer makes AWS Signature Version 4 headers for one worker. It keeps the
// keyed hash of the day, so that a request costs two SHA-256 of a few hundred
// bytes and one HMAC. It is not safe for concurrent use.
type signer struct {
	accessKey, secretKey, region string

	second int64  // of date
	date   string // 20060102T150405Z
	scope  string // 20060102/region/s3/aws4_request
	mac    hash.Hash
	digest hash.Hash
	buf    []byte
	sum    [sha256.Size]byte
}

func newSigner(accessKey, secretKey, region string) *signer {
	return &signer{accessKey: accessKey, secretKey: secretKey, region: region, digest: sha256.New()}
}

// sign appends to dst the header lines that authenticate a request: x-amz-date,
// x-amz-content-sha256 and Authorization. Path and query must be escaped as
// they are sent, the query's parameters sorted. A contentMD5 that is not empty
// is signed with the rest; the caller sends that header itself.
func (s *signer) sign(dst []byte, now time.Time, method, path, query, host, payload, contentMD5 string) []byte {
	s.at(now)
	signed := "host;x-amz-content-sha256;x-amz-date"
	b := append(s.buf[:0], method...)
	b = append(append(b, '\n'), path...)
	b = append(append(b, '\n'), query...)
	b = append(b, '\n')
	if contentMD5 != "" {
		signed = "content-md5;" + signed
		b = append(append(append(b, "content-md5:"...), contentMD5...), '\n')
	}
	b = append(append(b, "host:"...), host...)
	b = append(append(b, "\nx-amz-content-sha256:"...), payload...)
	b = append(append(b, "\nx-amz-date:"...), s.date...)
	b = append(append(b, "\n\n"...), signed...)
	b = append(append(b, '\n'), payload...)

	s.digest.Reset()
	s.digest.Write(b)
	b = append(append(b[:0], "AWS4-HMAC-SHA256\n"...), s.date...)
	b = append(append(b, '\n'), s.scope...)
	b = hex.AppendEncode(append(b, '\n'), s.digest.Sum(s.sum[:0]))
	s.mac.Reset()
	s.mac.Write(b)
	s.buf = b

	dst = append(append(dst, "x-amz-date: "...), s.date...)
	dst = append(append(dst, "\r\nx-amz-content-sha256: "...), payload...)
	dst = append(append(dst, "\r\nAuthorization: AWS4-HMAC-SHA256 Credential="...), s.accessKey...)
	dst = append(append(dst, '/'), s.scope...)
	dst = append(append(dst, ", SignedHeaders="...), signed...)
	dst = hex.AppendEncode(append(dst, ", Signature="...), s.mac.Sum(s.sum[:0]))
	return append(dst, "\r\n"...)
}

// at sets date, scope and the day's key.
func (s *signer) at(now time.Time) {
	second := now.Unix()
	if s.mac != nil && second == s.second {
		return
	}
	day := s.date[:min(8, len(s.date))]
	s.second, s.date = second, now.UTC().Format(dateFormat)
	if s.mac != nil && s.date[:8] == day {
		return
	}
	day = s.date[:8]
	s.scope = strings.Join([]string{day, s.region, "s3", "aws4_request"}, "/")
	key := []byte("AWS4" + s.secretKey)
	for _, part := range []string{day, s.region, "s3", "aws4_request"} {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(part))
		key = m.Sum(nil)
	}
	s.mac = hmac.New(sha256.New, key)
}

// escape writes text as S3 wants it in a path or a query: everything but
// letters, digits and -._~ as %XX, the slash too unless keepSlash is set.
func escape(text string, keepSlash bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(text) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '-', c == '.', c == '_', c == '~', c == '/' && keepSlash:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}
