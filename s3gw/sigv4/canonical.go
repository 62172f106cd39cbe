package sigv4

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"ashlar/s3gw/s3"
)

// appendCanonical appends the canonical request: method, path, query, signed
// headers, their names, and the hash of the payload.
func appendCanonical(b []byte, r *http.Request, q s3.Query, c *claim, path string) []byte {
	b = append(b, r.Method...)
	b = append(b, '\n')
	if path == "" {
		path = "/"
	}
	b = append(b, path...)
	b = append(b, '\n')
	b = appendQuery(b, q, c.presigned)
	b = append(b, '\n')
	for rest := c.signedHeaders; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, ";")
		b = append(b, name...)
		b = append(b, ':')
		b = appendHeader(b, r, name)
		b = append(b, '\n')
	}
	b = append(b, '\n')
	b = append(b, c.signedHeaders...)
	b = append(b, '\n')
	return append(b, c.payload...)
}

// appendQuery appends the parameters escaped and sorted by escaped name and
// value; a presigned request leaves its signature out.
func appendQuery(b []byte, q s3.Query, presigned bool) []byte {
	switch len(q) {
	case 0:
		return b
	case 1:
		return appendParam(b, q[0])
	}
	pairs := make([][]byte, 0, len(q))
	flat := make([]byte, 0, 512)
	for _, p := range q {
		if presigned && p.Name == "X-Amz-Signature" {
			continue
		}
		start := len(flat)
		flat = appendParam(flat, p)
		pairs = append(pairs, flat[start:len(flat):len(flat)])
	}
	slices.SortFunc(pairs, compareParams)
	for i, p := range pairs {
		if i > 0 {
			b = append(b, '&')
		}
		b = append(b, p...)
	}
	return b
}

func appendParam(b []byte, p s3.Param) []byte {
	b = s3.AppendEscaped(b, p.Name, false)
	b = append(b, '=')
	return s3.AppendEscaped(b, p.Value, false)
}

// compareParams orders by name, then by value: "a=…" before "a-b=…" although
// '=' sorts behind '-'.
func compareParams(x, y []byte) int {
	i, j := bytes.IndexByte(x, '='), bytes.IndexByte(y, '=')
	if c := bytes.Compare(x[:i], y[:j]); c != 0 {
		return c
	}
	return bytes.Compare(x[i:], y[j:])
}

// appendHeader appends the value of a signed header: trimmed, runs of spaces
// made one, several values joined by commas.
func appendHeader(b []byte, r *http.Request, name string) []byte {
	switch name {
	case "host":
		return appendTrimmed(b, r.Host)
	case "content-length":
		if len(r.Header["Content-Length"]) == 0 && r.ContentLength >= 0 {
			return strconv.AppendInt(b, r.ContentLength, 10)
		}
	case "transfer-encoding":
		return append(b, strings.Join(r.TransferEncoding, ",")...)
	}
	for i, v := range r.Header[canonicalName(name)] {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendTrimmed(b, v)
	}
	return b
}

func appendTrimmed(b []byte, s string) []byte {
	s = strings.Trim(s, " \t")
	if !strings.Contains(s, "  ") {
		return append(b, s...)
	}
	for i := 0; i < len(s); i++ {
		if s[i] != ' ' || s[i-1] != ' ' {
			b = append(b, s[i])
		}
	}
	return b
}

// canonicalNames spares an allocation for the headers of nearly every request.
var canonicalNames = func() map[string]string {
	m := map[string]string{}
	for _, n := range []string{
		"X-Amz-Date", "X-Amz-Content-Sha256", "X-Amz-Decoded-Content-Length", "X-Amz-Trailer", "X-Amz-Sdk-Checksum-Algorithm",
		"X-Amz-Checksum-Crc32", "X-Amz-Checksum-Crc32c", "X-Amz-Checksum-Crc64nvme", "X-Amz-Checksum-Mode",
		"Content-Type", "Content-Md5", "Content-Length", "Content-Encoding", "Accept-Encoding", "Amz-Sdk-Invocation-Id",
		"Amz-Sdk-Request", "Range", "Date", "User-Agent", "Expect", "X-Amz-User-Agent",
	} {
		m[strings.ToLower(n)] = n
	}
	return m
}()

func canonicalName(lower string) string {
	if n, ok := canonicalNames[lower]; ok {
		return n
	}
	return http.CanonicalHeaderKey(lower)
}
