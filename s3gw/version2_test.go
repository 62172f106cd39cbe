package s3gw

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// withVersion2 takes Signature Version 2.
func withVersion2(o *Options) { o.SignatureV2 = true }

// resourceOfVersion2 matches the parameters that clients sign with Signature Version 2.
var resourceOfVersion2 = regexp.MustCompile(`^(acl|accelerate|cors|delete|encryption|legal-hold|lifecycle|location|logging|notification|object-lock|` +
	`partNumber|policy|replication|requestPayment|response-[a-z-]+|retention|tagging|uploadId|uploads|versionId|versioning|versions|website)$`)

// signVersion2 signs a request as a client does that signs every subresource that it knows.
func signVersion2(r *http.Request, f form, c testCall) {
	when := c.at.UTC().Format(http.TimeFormat)
	if f.presign {
		when = fmt.Sprint(c.at.Unix() + 300)
	} else {
		r.Header.Set("Date", when)
	}
	if c.token != "" {
		r.Header.Set("X-Amz-Security-Token", c.token)
	}
	lines := []string{r.Method, r.Header.Get("Content-Md5"), r.Header.Get("Content-Type"), when}
	var headers, params []string
	for name, values := range r.Header {
		if low := strings.ToLower(name); strings.HasPrefix(low, "x-amz-") {
			headers = append(headers, low+":"+strings.Join(values, ","))
		}
	}
	slices.SortFunc(headers, func(a, b string) int { // by their names, of which one may begin with another
		a, _, _ = strings.Cut(a, ":")
		b, _, _ = strings.Cut(b, ":")
		return strings.Compare(a, b)
	})
	q := r.URL.Query()
	for name := range q {
		if resourceOfVersion2.MatchString(name) {
			params = append(params, strings.TrimSuffix(name+"="+q.Get(name), "="))
		}
	}
	slices.Sort(params)
	resource := r.URL.EscapedPath()
	if bucket, ok := strings.CutSuffix(r.Host, "."+testDomain); ok {
		resource = "/" + bucket + resource
	}
	if len(params) > 0 {
		resource += "?" + strings.Join(params, "&")
	}
	h := hmac.New(sha1.New, []byte(c.secret))
	io.WriteString(h, strings.Join(append(append(lines, headers...), resource), "\n"))
	signature := base64.StdEncoding.EncodeToString(h.Sum(nil))
	if !f.presign {
		r.Header.Set("Authorization", "AWS "+c.key+":"+signature)
		return
	}
	q.Set("AWSAccessKeyId", c.key)
	q.Set("Expires", when)
	q.Set("Signature", signature)
	r.URL.RawQuery = q.Encode()
}

// beyondVersion2 are the operations that Signature Version 2 cannot ask for, since no
// client signs their subresource with it.
var beyondVersion2 = []string{"TraceRequests", "GetBucketOwnershipControls", "PutBucketOwnershipControls", "DeleteBucketOwnershipControls", "GetBucketPolicyStatus",
	"GetPublicAccessBlock", "PutPublicAccessBlock", "DeletePublicAccessBlock", "GetBucketReads", "PutBucketReads", "GetObjectAttributes"}

func withinVersion2(rt *route) bool { return !slices.Contains(beyondVersion2, rt.op) }

// TestEveryRouteByVersion2: with a good signature every route is reached, but for those
// whose subresource it would not cover, and these are refused by their name.
func TestEveryRouteByVersion2(t *testing.T) {
	for i := range routes {
		rt := &routes[i]
		for _, f := range version2Forms {
			g := start(t, withVersion2).withBucket(t, "bucket")
			w := g.serve(g.request(t, f, plainCall(rt)))
			body := w.Body.String()
			if !withinVersion2(rt) {
				named := regexp.MustCompile("query parameter (" + rt.sub + "|" + traceFor + ") must be signed")
				if w.Code != 400 || !strings.Contains(body, "<Code>InvalidRequest<") || !named.MatchString(body) {
					t.Errorf("%s, %s: %d %s", rt.op, f.name, w.Code, body)
				}
				continue
			}
			if w.Code == 403 || w.Code == 501 && rt.op != "PostObject" || strings.Contains(body, "ignature") {
				t.Errorf("%s, %s is not reached: %d %s", rt.op, f.name, w.Code, body)
			}
		}
	}
}

// TestListingsNeedOneRight: list-type need not be signed, because both listings are the
// same right.
func TestListingsNeedOneRight(t *testing.T) {
	var needs []string
	for i := range routes {
		if rt := &routes[i]; rt.op == "ListObjects" || rt.op == "ListObjectsV2" {
			needs = append(needs, rt.need+rt.method)
		}
	}
	if len(needs) != 2 || needs[0] != needs[1] {
		t.Errorf("listings need %v", needs)
	}
}

var version2Refusals = []refusal{
	{row: 2, name: "unknown access key", spoil: func(c *testCall, _ *route) { c.key, c.secret = "AKIDNOBODY", testSecret }, status: 403, code: "InvalidAccessKeyId"},
	{row: 3, name: "wrong secret", spoil: func(c *testCall, _ *route) { c.key, c.secret = testKey, "guess" }, status: 403, code: "SignatureDoesNotMatch"},
	{row: 3, name: "another signature", forms: inHeader, spoil: tampered(func(r *http.Request) { r.Header.Set("Authorization", "AWS "+testKey+":frJIUN8DYpKDtOLCwo//yllqDzg=") }),
		status: 403, code: "SignatureDoesNotMatch"},
	{row: 3, name: "another signature in the query", forms: inQuery, spoil: asking("Signature", "frJIUN8DYpKDtOLCwo//yllqDzg="), status: 403, code: "SignatureDoesNotMatch"},
	{row: 3, name: "a signed header changed", spoil: func(c *testCall, _ *route) {
		c.headers["Content-Type"] = "text/plain"
		c.tamper = func(r *http.Request) { r.Header.Set("Content-Type", "text/html") }
	}, status: 403, code: "SignatureDoesNotMatch"},
	{row: 3, name: "a source that was not signed", spoil: tampered(func(r *http.Request) { r.Header.Set("X-Amz-Copy-Source", "bucket/secret") }), status: 403, code: "SignatureDoesNotMatch"},
	{row: 3, name: "an ACL that was not signed", spoil: tampered(func(r *http.Request) { r.Header.Set("X-Amz-Acl", "public-read") }), status: 403, code: "SignatureDoesNotMatch"},
	{row: 4, name: "Authorization garbled", forms: inHeader, spoil: tampered(func(r *http.Request) { r.Header.Set("Authorization", "AWS "+testKey) }), status: 400, code: "InvalidArgument"},
	{row: 4, name: "version 4 besides", spoil: func(c *testCall, _ *route) {
		c.tamper = func(r *http.Request) {
			r.URL.RawQuery = strings.TrimPrefix(r.URL.RawQuery+"&X-Amz-Algorithm=AWS4-HMAC-SHA256", "&")
		}
	}, status: 400, code: "InvalidArgument"},
	{row: 5, name: "clock that is behind", forms: inHeader, spoil: func(c *testCall, _ *route) { c.at = time.Now().Add(-16 * time.Minute) }, status: 403, code: "RequestTimeTooSkewed"},
	{row: 5, name: "clock that is ahead", forms: inHeader, spoil: func(c *testCall, _ *route) { c.at = time.Now().Add(16 * time.Minute) }, status: 403, code: "RequestTimeTooSkewed"},
	{row: 6, name: "no date", forms: inHeader, spoil: tampered(func(r *http.Request) { r.Header.Del("Date") }), status: 403, code: "AccessDenied"},
	{row: 7, name: "presigned and expired", forms: inQuery, spoil: func(c *testCall, _ *route) { c.at = time.Now().Add(-time.Hour) }, status: 403, code: "AccessDenied"},
	{row: 8, name: "Expires in words", forms: inQuery, spoil: asking("Expires", "soon"), status: 403, code: "AccessDenied"},
	{row: 8, name: "no Expires", forms: inQuery, spoil: asking("Expires", ""), status: 403, code: "AccessDenied"},
	{row: 8, name: "no access key", forms: inQuery, spoil: asking("AWSAccessKeyId", ""), status: 403, code: "AccessDenied"},
	{row: 8, name: "no signature", forms: inQuery, spoil: asking("Signature", ""), status: 403, code: "AccessDenied"},
	{row: 10, name: "a session", spoil: tampered(func(r *http.Request) { r.Header.Set("X-Ashlar-Session", "s") }), status: 403, code: "AccessDenied"},
	{row: 10, name: "our own parameter", spoil: asking("x-ashlar-reads", "nearest"), status: 400, code: "InvalidRequest"},
	{row: 10, name: "a subresource that is not signed", spoil: asking("policyStatus", "1"), status: 400, code: "InvalidRequest"},
	{row: 10, name: "metadata in a listing", spoil: asking("metadata", "true"), status: 400, code: "InvalidRequest"},
	{row: 10, name: "signed chunks", spoil: sending("X-Amz-Content-Sha256", streamSigned), status: 400, code: "InvalidRequest"},
	{row: 10, name: "trailers", spoil: sending("X-Amz-Content-Sha256", streamTrailer), status: 400, code: "InvalidRequest"},
	{row: 12, name: "x-amz-content-sha256 is nonsense", spoil: sending("X-Amz-Content-Sha256", "abc"), status: 400, code: "InvalidArgument"},
	{row: 19, name: "a session token of a key that has none", spoil: func(c *testCall, _ *route) { c.token = "t" }, status: 400, code: "InvalidToken"},
	{row: 20, name: "sent to another key", spoil: tampered(func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/bucket/other", "" }), status: 403, code: "SignatureDoesNotMatch"},
	{row: 20, name: "sent to another bucket", spoil: tampered(func(r *http.Request) { r.Host = "other." + testDomain }), status: 403, code: "SignatureDoesNotMatch"},
	{row: 20, name: "sent with another method", spoil: tampered(func(r *http.Request) { r.Method = "PATCH" }), status: 403, code: "SignatureDoesNotMatch"},
	{row: 20, name: "sent for a version", spoil: asking("versionId", "null"), status: 403, code: "SignatureDoesNotMatch"},
}

// TestRefusedByVersion2 walks the bad inputs of Signature Version 2 over every route that
// it can ask for; and over all of them where it is off.
func TestRefusedByVersion2(t *testing.T) {
	on := start(t, withVersion2, func(o *Options) { o.Backend = untouched{} })
	on.refuse(t, version2Refusals, version2Forms, plainCall)
	off := start(t, func(o *Options) { o.Backend = untouched{} })
	off.refuse(t, []refusal{{row: 18, name: "a good signature", spoil: func(*testCall, *route) {}, status: 400, code: "InvalidRequest"}}, version2Forms, plainCall)
}

// TestVersion2Serves puts, lists and gets with minio-go's client, in both styles of
// address; and what a presigned request repeats in its query, as botocore does.
func TestVersion2Serves(t *testing.T) {
	g := startReal(t, "bucket", withVersion2, func(o *Options) { o.Domains = []string{testDomain} })
	client, err := minio.New(g.addr, &minio.Options{Creds: credentials.NewStaticV2(testKey, testSecret, "")})
	if err != nil {
		t.Fatal(err)
	}
	const key = "a b/ü+&?"
	put := minio.PutObjectOptions{UserMetadata: map[string]string{"Colour": "red  and blue"}, ContentType: "text/x"}
	if _, err := client.PutObject(ctx, "bucket", key, strings.NewReader("content"), 7, put); err != nil {
		t.Fatal(err)
	}
	for o := range client.ListObjects(ctx, "bucket", minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil || o.Key != key {
			t.Errorf("listed %q: %v", o.Key, o.Err)
		}
	}
	if _, err := client.GetBucketVersioning(ctx, "bucket"); err != nil {
		t.Error(err)
	}
	link, err := client.PresignedGetObject(ctx, "bucket", key, time.Minute, map[string][]string{"response-content-disposition": {`attachment; filename="a&b"`}})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.http.Get(link.String())
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "content" || resp.Header.Get("Content-Disposition") != `attachment; filename="a&b"` || resp.Header.Get("X-Amz-Meta-Colour") != "red  and blue" {
		t.Errorf("%s: %d %q %v", link, resp.StatusCode, body, resp.Header)
	}
	for _, f := range version2Forms {
		for _, c := range []testCall{
			{method: "PUT", target: "/k", headers: map[string]string{"Host": "bucket." + testDomain, "Content-Type": "text/y"}, body: "x"},
			{method: "GET", target: "/bucket/k"},
			{method: "GET", target: "/?versions", headers: map[string]string{"Host": "bucket." + testDomain}},
			{method: "PUT", target: "/bucket/k?tagging", body: "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"},
			{method: "DELETE", target: "/bucket/k?tagging"},
			{method: "POST", target: "/bucket/k?uploads"},
		} {
			want := map[bool]int{true: 204, false: 200}[c.method == "DELETE"]
			g.send(t, g.request(t, f, c)).want(t, want, "")
		}
	}
	botocore := func(query string) answer {
		return g.send(t, g.request(t, version2Forms[1], testCall{method: "PUT", target: "/bucket/k", body: "x", headers: map[string]string{"Content-Type": "text/z"},
			tamper: func(r *http.Request) { r.URL.RawQuery += query }}))
	}
	botocore("&content-type=text%2Fz").want(t, 200, "")
	botocore("&content-type=text%2Fhtml").want(t, 501, "NotImplemented")
	botocore("&cache-control=x").want(t, 501, "NotImplemented")
}

// TestVersion2IsTold: policies and the access log see how a request is signed, and the
// log tells no signature.
func TestVersion2IsTold(t *testing.T) {
	g := startReal(t, "bucket", withVersion2)
	g.logTarget(t)
	for _, c := range []struct {
		condition    string
		header, link bool // is denied
	}{
		{`{"StringEquals":{"s3:signatureversion":"AWS"}}`, true, true},
		{`{"StringEquals":{"s3:signatureversion":"AWS4-HMAC-SHA256"}}`, false, false},
		{`{"StringEquals":{"s3:authType":"REST-HEADER"}}`, true, false},
		{`{"StringEquals":{"s3:authType":"REST-QUERY-STRING"}}`, false, true},
		{`{"NumericLessThan":{"s3:signatureAge":"600000"}}`, true, false},
		{`{"NumericGreaterThan":{"s3:signatureAge":"600000"}}`, false, true}, // of a link nobody knows it
	} {
		g.do(t, testCall{method: "PUT", target: "/bucket?policy", body: denial("s3:PutObject", c.condition)}).want(t, 204, "")
		for i, denied := range []bool{c.header, c.link} {
			f := version2Forms[i]
			if a := g.send(t, g.request(t, f, testCall{method: "PUT", target: "/bucket/k", body: "x"})); (a.status == 403) != denied {
				t.Errorf("%s, %s: %d %s", c.condition, f.name, a.status, a.body)
			}
		}
	}
	g.do(t, testCall{method: "PUT", target: "/bucket?logging", body: logTo("logs", "")}).want(t, 200, "")
	g.send(t, g.request(t, version2Forms[0], testCall{method: "GET", target: "/bucket/none"})).want(t, 404, "NoSuchKey")
	g.send(t, g.request(t, version2Forms[1], testCall{method: "GET", target: "/bucket/none"})).want(t, 404, "NoSuchKey")
	g.server.accessLog.deliverAll(t.Context(), true)
	_, lines := g.logged(t)
	for i, pattern := range []string{
		`"GET /bucket/none HTTP/1.1" 404 NoSuchKey .* SigV2 - AuthHeader `,
		`"GET /bucket/none\?AWSAccessKeyId=` + testKey + `&Expires=\d+&Signature=REDACTED HTTP/1.1" 404 NoSuchKey .* SigV2 - QueryString `,
	} {
		if i >= len(lines) || !regexp.MustCompile(pattern).MatchString(lines[i]) {
			t.Errorf("line %d of\n%s\nis not %s", i, strings.Join(lines, "\n"), pattern)
		}
	}
}
