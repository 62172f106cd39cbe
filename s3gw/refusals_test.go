package s3gw

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The tests of bad inputs walk a list: each row is an input that must be refused, with
// the one right answer, by every route and in every form of authentication that it
// can come in. Their subtests are named after the rows. Forms of HTML have a list of
// their own (TestPostFormRefusals): what they say is in their fields.

// refusal is one bad input.
type refusal struct {
	row    int
	name   string
	routes func(*route) bool // nil: every route
	forms  func(*form) bool  // nil: every form
	// spoil changes a good call.
	spoil  func(*testCall, *route)
	status int
	code   string
	// answers judges instead of status and code.
	answers func(*httptest.ResponseRecorder) bool
}

func inQuery(f *form) bool  { return f.presign }
func inHeader(f *form) bool { return !f.presign }
func hashed(f *form) bool   { return f.payload == "" }
func framed(f *form) bool   { return f.chunked }
func unframed(f *form) bool { return !f.chunked }
func trailed(f *form) bool  { return f.payload == streamTrailer || f.payload == streamBoth }

func ofOps(names ...string) func(*route) bool {
	return func(rt *route) bool { return contains(names, rt.op) }
}

func notForm(rt *route) bool       { return rt.body != formFile }
func takesData(rt *route) bool     { return rt.body == dataBody }
func takesDocument(rt *route) bool { return rt.body == xmlBody || rt.body == completeBody }

// tampered is a change of a signed request.
func tampered(edit func(*http.Request)) func(*testCall, *route) {
	return func(c *testCall, _ *route) { c.tamper = edit }
}

// sending is a header that is sent and signed.
func sending(name, value string) func(*testCall, *route) {
	return func(c *testCall, _ *route) { c.headers[name] = value }
}

// replacing changes a part of the Authorization header.
func replacing(old, with string) func(*testCall, *route) {
	return tampered(func(r *http.Request) {
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, with, 1))
	})
}

// asking changes a parameter of the query, or takes it away.
func asking(name, value string) func(*testCall, *route) {
	return tampered(func(r *http.Request) {
		q := r.URL.Query()
		if q.Set(name, value); value == "" {
			q.Del(name)
		}
		r.URL.RawQuery = q.Encode()
	})
}

// refusedWith reports whether a request was answered with status and code. The keys
// of a DeleteObjects are answered one by one; HEAD has no body.
func refusedWith(r *http.Request, w *httptest.ResponseRecorder, status int, code string) bool {
	named := strings.Contains(w.Body.String(), "<Code>"+code+"</Code>")
	if r.Method == http.MethodPost && w.Code == 200 && strings.Contains(w.Body.String(), "<DeleteResult") {
		return named && !strings.Contains(w.Body.String(), "<Deleted>")
	}
	return w.Code == status && (named || r.Method == http.MethodHead)
}

// refuse sends every bad input to every route that it is for, in every form.
// call makes the good call of a route.
func (g *gateway) refuse(t *testing.T, list []refusal, forms []form, call func(*route) testCall) {
	total := 0
	for i := range list {
		bad := &list[i]
		t.Run(fmt.Sprintf("row %d: %s", bad.row, bad.name), func(t *testing.T) {
			sent, wrong := 0, 0
			for j := range routes {
				rt := &routes[j]
				for k := range forms {
					f := &forms[k]
					if f.old && !withinVersion2(rt) || bad.routes != nil && !bad.routes(rt) || bad.forms != nil && !bad.forms(f) {
						continue
					}
					c := call(rt)
					bad.spoil(&c, rt)
					r := g.request(t, *f, c)
					w := g.serve(r)
					good := refusedWith(r, w, bad.status, bad.code)
					if bad.answers != nil {
						good = bad.answers(w)
					}
					if sent++; good {
						continue
					}
					if wrong++; wrong <= 5 { // one mistake is often everybody's
						t.Errorf("%s, %s: %d %.400s", rt.op, f.name, w.Code, w.Body)
					}
				}
			}
			if wrong > 0 || sent == 0 {
				t.Errorf("%d of %d requests were not refused as they should be", wrong, sent)
			}
			total += sent
		})
	}
	t.Logf("%d inputs, %d requests refused", len(list), total)
}

// plainCall is the call of a route over names that need not be there.
func plainCall(rt *route) testCall {
	c := testCall{method: rt.method, target: rt.target(), headers: map[string]string{}}
	if rt.copy {
		c.headers["X-Amz-Copy-Source"] = "bucket/key"
	}
	if rt.op == "DeleteObjects" {
		c.body = "<Delete><Object><Key>k</Key></Object></Delete>"
		c.headers["Content-Md5"] = md5Base64(c.body)
	}
	return c
}

// oldSignature replaces what signs a request by a Signature of version 2.
func oldSignature(inQuery bool) func(*http.Request) {
	return func(r *http.Request) {
		anonymise(r)
		if !inQuery {
			r.Header.Set("Authorization", "AWS "+testKey+":frJIUN8DYpKDtOLCwo//yllqDzg=")
			return
		}
		q := r.URL.Query()
		q.Set("AWSAccessKeyId", testKey)
		q.Set("Expires", "4102444800")
		q.Set("Signature", "frJIUN8DYpKDtOLCwo//yllqDzg=")
		r.URL.RawQuery = q.Encode()
	}
}

// flipped returns a hexadecimal text whose last digit is another one.
func flipped(s string) string {
	if strings.HasSuffix(s, "0") {
		return s[:len(s)-1] + "1"
	}
	return s[:len(s)-1] + "0"
}

var credentialRefusals = []refusal{
	{row: 1, name: "no credentials", spoil: tampered(anonymise), status: 403, code: "AccessDenied"},
	{row: 2, name: "unknown access key", spoil: func(c *testCall, _ *route) { c.key, c.secret = "AKIDNOBODY", testSecret }, status: 403, code: "InvalidAccessKeyId"},
	{row: 3, name: "wrong secret", spoil: func(c *testCall, _ *route) { c.key, c.secret = testKey, "guess" }, status: 403, code: "SignatureDoesNotMatch"},
	{row: 3, name: "a digit of the signature changed", forms: inHeader, spoil: tampered(func(r *http.Request) {
		r.Header.Set("Authorization", flipped(r.Header.Get("Authorization")))
	}), status: 403, code: "SignatureDoesNotMatch"},
	{row: 3, name: "a digit of the signature in the query changed", forms: inQuery, spoil: tampered(func(r *http.Request) {
		q := r.URL.Query()
		q.Set("X-Amz-Signature", flipped(q.Get("X-Amz-Signature")))
		r.URL.RawQuery = q.Encode()
	}), status: 403, code: "SignatureDoesNotMatch"},
	{row: 3, name: "a signed header changed", spoil: func(c *testCall, _ *route) {
		c.headers["Content-Type"] = "text/plain"
		c.tamper = func(r *http.Request) { r.Header.Set("Content-Type", "text/html") }
	}, status: 403, code: "SignatureDoesNotMatch"},
	{row: 3, name: "the source of a copy changed", routes: func(rt *route) bool { return rt.copy },
		spoil: tampered(func(r *http.Request) { r.Header.Set("X-Amz-Copy-Source", "bucket/secret") }), status: 403, code: "SignatureDoesNotMatch"},
	{row: 4, name: "Authorization garbled", forms: inHeader,
		spoil: tampered(func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 garbage") }), status: 400, code: "AuthorizationHeaderMalformed"},
	{row: 4, name: "Authorization of an unknown kind", forms: inHeader,
		spoil: tampered(func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }), status: 400, code: "InvalidArgument"},
	{row: 4, name: "region of another endpoint", forms: inHeader, spoil: func(c *testCall, _ *route) { c.region = "mars-1" }, status: 400, code: "AuthorizationHeaderMalformed"},
	{row: 4, name: "another service", forms: inHeader, spoil: replacing("/s3/", "/ec2/"), status: 400, code: "AuthorizationHeaderMalformed"},
	{row: 4, name: "another day", forms: inHeader, spoil: replacing("/20", "/19"), status: 400, code: "AuthorizationHeaderMalformed"},
	{row: 4, name: "region of another endpoint in the query", forms: inQuery, spoil: func(c *testCall, _ *route) { c.region = "mars-1" }, status: 400, code: "AuthorizationQueryParametersError"},
	{row: 4, name: "another service in the query", forms: inQuery, spoil: asking("X-Amz-Credential", testKey+"/20260101/us-east-1/ec2/aws4_request"), status: 400, code: "AuthorizationQueryParametersError"},
	{row: 4, name: "another day in the query", forms: inQuery, spoil: asking("X-Amz-Credential", testKey+"/19700101/us-east-1/s3/aws4_request"), status: 400, code: "AuthorizationQueryParametersError"},
	{row: 5, name: "clock that is behind", forms: inHeader, spoil: func(c *testCall, _ *route) { c.at = time.Now().Add(-16 * time.Minute) }, status: 403, code: "RequestTimeTooSkewed"},
	{row: 5, name: "clock that is ahead", forms: inHeader, spoil: func(c *testCall, _ *route) { c.at = time.Now().Add(16 * time.Minute) }, status: 403, code: "RequestTimeTooSkewed"},
	{row: 6, name: "neither Date nor x-amz-date", forms: inHeader, spoil: tampered(func(r *http.Request) { r.Header.Del("X-Amz-Date") }), status: 403, code: "AccessDenied"},
	{row: 7, name: "presigned and expired", forms: inQuery, spoil: func(c *testCall, _ *route) { c.at = time.Now().Add(-time.Hour) }, status: 403, code: "AccessDenied"},
	{row: 7, name: "presigned and not yet valid", forms: inQuery, spoil: func(c *testCall, _ *route) { c.at = time.Now().Add(time.Hour) }, status: 403, code: "AccessDenied"},
	{row: 8, name: "X-Amz-Expires of 0", forms: inQuery, spoil: asking("X-Amz-Expires", "0"), status: 400, code: "AuthorizationQueryParametersError"},
	{row: 8, name: "X-Amz-Expires below 0", forms: inQuery, spoil: asking("X-Amz-Expires", "-1"), status: 400, code: "AuthorizationQueryParametersError"},
	{row: 8, name: "X-Amz-Expires above a week", forms: inQuery, spoil: asking("X-Amz-Expires", "604801"), status: 400, code: "AuthorizationQueryParametersError"},
	{row: 8, name: "X-Amz-Expires in words", forms: inQuery, spoil: asking("X-Amz-Expires", "soon"), status: 400, code: "AuthorizationQueryParametersError"},
	{row: 8, name: "no X-Amz-Expires", forms: inQuery, spoil: asking("X-Amz-Expires", ""), status: 400, code: "AuthorizationQueryParametersError"},
	{row: 8, name: "no X-Amz-Algorithm", forms: inQuery, spoil: asking("X-Amz-Algorithm", ""), status: 400, code: "AuthorizationQueryParametersError"},
	{row: 8, name: "no X-Amz-Credential", forms: inQuery, spoil: asking("X-Amz-Credential", ""), status: 400, code: "AuthorizationQueryParametersError"},
	{row: 8, name: "no X-Amz-Date", forms: inQuery, spoil: asking("X-Amz-Date", ""), status: 400, code: "AuthorizationQueryParametersError"},
	{row: 8, name: "no X-Amz-SignedHeaders", forms: inQuery, spoil: asking("X-Amz-SignedHeaders", ""), status: 400, code: "AuthorizationQueryParametersError"},
	{row: 8, name: "no X-Amz-Signature", forms: inQuery, spoil: asking("X-Amz-Signature", ""), status: 400, code: "AuthorizationQueryParametersError"},
	{row: 10, name: "host is not signed", forms: inHeader, spoil: replacing("host;", ""), status: 403, code: "AccessDenied"},
	{row: 10, name: "host is not signed in the query", forms: inQuery, spoil: asking("X-Amz-SignedHeaders", "accept"), status: 403, code: "AccessDenied"},
	{row: 10, name: "an ACL that is not signed", spoil: tampered(func(r *http.Request) { r.Header.Set("X-Amz-Acl", "public-read") }), status: 403, code: "AccessDenied"},
	{row: 10, name: "a source that is not signed", routes: func(rt *route) bool { return !rt.copy },
		spoil: tampered(func(r *http.Request) { r.Header.Set("X-Amz-Copy-Source", "bucket/secret") }), status: 403, code: "AccessDenied"},
	{row: 10, name: "an encryption that is not signed", spoil: tampered(func(r *http.Request) { r.Header.Set("X-Amz-Server-Side-Encryption", "AES256") }), status: 403, code: "AccessDenied"},
	{row: 10, name: "a token that is not signed", spoil: tampered(func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "t") }), status: 403, code: "AccessDenied"},
	{row: 10, name: "a session that is not signed", spoil: tampered(func(r *http.Request) { r.Header.Set("X-Ashlar-Session", "s") }), status: 403, code: "AccessDenied"},
	{row: 12, name: "no x-amz-content-sha256", forms: inHeader, spoil: tampered(func(r *http.Request) { r.Header.Del("X-Amz-Content-Sha256") }), status: 400, code: "InvalidRequest"},
	{row: 12, name: "x-amz-content-sha256 is nonsense", forms: inHeader, spoil: tampered(func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", "abc") }), status: 400, code: "InvalidArgument"},
	{row: 18, name: "Signature Version 2", spoil: tampered(oldSignature(false)), status: 400, code: "InvalidRequest"},
	{row: 18, name: "Signature Version 2 in the query", spoil: tampered(oldSignature(true)), status: 400, code: "InvalidRequest"},
	{row: 19, name: "a session token of a key that has none", spoil: sending("X-Amz-Security-Token", "t"), status: 400, code: "InvalidToken"},
	{row: 20, name: "sent to another key", spoil: tampered(func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/bucket/other", "" }), status: 403, code: "SignatureDoesNotMatch"},
	{row: 20, name: "sent to another host", spoil: tampered(func(r *http.Request) { r.Host = "elsewhere" }), status: 403, code: "SignatureDoesNotMatch"},
	{row: 20, name: "sent with another method", spoil: tampered(func(r *http.Request) { r.Method = "PATCH" }), status: 403, code: "SignatureDoesNotMatch"},
	{row: 20, name: "sent with one more parameter", spoil: tampered(func(r *http.Request) {
		r.URL.RawQuery = strings.TrimPrefix(r.URL.RawQuery+"&x-id=x", "&")
	}), status: 403, code: "SignatureDoesNotMatch"},
	{row: 34, name: "header block above 8 KB", spoil: sending("X-Other", strings.Repeat("x", 8<<10)), status: 400, code: "RequestHeaderSectionTooLarge"},
	{row: 51, name: "a method that nothing has", spoil: func(c *testCall, _ *route) {
		c.method = "PATCH"
		c.target, _, _ = strings.Cut(c.target, "?")
	}, status: 405, code: "MethodNotAllowed"},
}

// TestRefusedCredentials: nothing behind the router is reached without a good
// signature, and what was tried tells the log no secret (row 56).
func TestRefusedCredentials(t *testing.T) {
	var logged bytes.Buffer
	g := start(t, func(o *Options) {
		o.Backend = untouched{}
		o.Log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	g.refuse(t, credentialRefusals, forms, plainCall)
	if logged.Len() == 0 || strings.Contains(logged.String(), testSecret) {
		t.Error("row 56: the log is empty or holds the secret")
	}
}
