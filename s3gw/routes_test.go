package s3gw

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// untouched is a backend that must not be reached: its methods are nil, but for
// those that say whose the bucket is.
type untouched struct{ Backend }

func (untouched) Access(context.Context, string) (store.Access, error) {
	return store.NewAccess(store.Bucket{Name: "bucket", Owner: testAccount}, 1, nil), nil
}

func (untouched) HeadBucket(context.Context, string) (store.Bucket, error) {
	return store.Bucket{Name: "bucket", Owner: testAccount}, nil
}

// target writes the request line of a route.
func (r *route) target() string {
	path := map[target]string{onService: "/", onBucket: "/bucket", onObject: "/bucket/some/key"}[r.on]
	switch r.sub {
	case "":
		return path
	case "list-type":
		return path + "?list-type=2"
	case "uploadId":
		return path + "?partNumber=1&uploadId=u"
	case subTrace:
		return path + "?" + subTrace + "&" + traceFor + "=1ms"
	}
	return path + "?" + r.sub
}

// TestEveryRouteIsServed proves that the walks over the table reach the routes they
// mean: with a good signature each of them is found under its own name.
func TestEveryRouteIsServed(t *testing.T) {
	g := start(t)
	for i := range routes {
		rt := &routes[i]
		c := testCall{method: rt.method, target: rt.target(), headers: map[string]string{}}
		if rt.copy {
			c.headers["X-Amz-Copy-Source"] = "bucket/key"
		}
		r := g.request(t, forms[0], c)
		q, err := parseQuery(r)
		if err != nil {
			t.Fatal(err)
		}
		call := &call{s: g.server, r: r, query: q, ctx: context.Background()}
		if err := call.parseTarget(); err != nil {
			t.Fatal(err)
		}
		got, err := g.server.routes.find(call)
		if err != nil || got.op != rt.op {
			t.Errorf("%s: %v %v", rt.op, got, err)
		}
	}
}

func TestUnknownRequests(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	for _, c := range []struct {
		method, target string
		status         int
		code           string
	}{
		{"PUT", "/bucket?analytics", 501, "NotImplemented"}, {"PUT", "/bucket?policy", 400, "MalformedPolicy"}, {"PUT", "/bucket?acl", 400, "MissingSecurityHeader"},
		{"DELETE", "/bucket?metrics", 501, "NotImplemented"}, {"DELETE", "/bucket?versions", 501, "NotImplemented"}, {"GET", "/bucket?inventory&id=x", 501, "NotImplemented"},
		{"POST", "/bucket/k?tagging", 501, "NotImplemented"}, {"PUT", "/bucket/k?renameObject", 501, "NotImplemented"}, {"POST", "/bucket/k?select&select-type=2", 501, "NotImplemented"},
		{"POST", "/bucket/k?restore", 501, "NotImplemented"}, {"GET", "/bucket/k?torrent", 501, "NotImplemented"}, {"PUT", "/bucket/k?neverHeardOf", 501, "NotImplemented"},
		{"PUT", "/bucket/k?never=heard", 501, "NotImplemented"}, {"GET", "/bucket?neverHeardOf", 501, "NotImplemented"}, {"DELETE", "/bucket/k?what", 501, "NotImplemented"},
		{"POST", "/bucket", 400, "MalformedPOSTRequest"}, {"POST", "/bucket/k", 501, "NotImplemented"}, {"PUT", "/bucket/k?acl&tagging", 400, "InvalidArgument"},
		{"PUT", "/bucket/k?partNumber=1", 400, "InvalidArgument"}, {"PUT", "/bucket/k?versionId=null", 400, "InvalidArgument"},
		{"PATCH", "/bucket/k", 405, "MethodNotAllowed"}, {"PUT", "/", 405, "MethodNotAllowed"}, {"DELETE", "/", 405, "MethodNotAllowed"}, {"POST", "/", 405, "MethodNotAllowed"},
		{"GET", "/bucket?policy", 404, "NoSuchBucketPolicy"}, {"GET", "/bucket?policyStatus", 404, "NoSuchBucketPolicy"}, {"GET", "/bucket?tagging", 404, "NoSuchTagSet"},
		{"GET", "/bucket?lifecycle", 404, "NoSuchLifecycleConfiguration"}, {"GET", "/bucket?cors", 404, "NoSuchCORSConfiguration"},
		{"GET", "/bucket?encryption", 404, "ServerSideEncryptionConfigurationNotFoundError"}, {"GET", "/bucket?object-lock", 404, "ObjectLockConfigurationNotFoundError"},
		{"GET", "/bucket?publicAccessBlock", 404, "NoSuchPublicAccessBlockConfiguration"}, {"GET", "/bucket?replication", 404, "ReplicationConfigurationNotFoundError"},
		{"GET", "/bucket?website", 404, "NoSuchWebsiteConfiguration"}, {"GET", "/nobucket?policy", 404, "NoSuchBucket"}, {"GET", "/nobucket?versioning", 404, "NoSuchBucket"},
		{"GET", "/bucket?versioning", 200, ""}, {"GET", "/bucket?location", 200, ""}, {"GET", "/bucket?acl", 200, ""}, {"GET", "/bucket?ownershipControls", 200, ""},
		{"GET", "/bucket?requestPayment", 200, ""}, {"GET", "/bucket?notification", 200, ""}, {"GET", "/bucket?logging", 200, ""}, {"GET", "/bucket?accelerate", 200, ""},
		{"GET", "/bucket?x-custom=1&prefix=", 200, ""}, {"GET", "/bucket?unknown=1", 200, ""},
	} {
		t.Run(c.method+c.target, func(t *testing.T) {
			g.do(t, testCall{method: c.method, target: c.target}).want(t, c.status, c.code)
		})
	}
	if g.puts != 0 {
		t.Errorf("%d objects were stored", g.puts)
	}
}

// FuzzTarget reads any request line: what comes out of it is a judged bucket
// and a judged key that say again what stood there, or a refusal.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/", "/bucket", "/bucket/", "/bucket/k", "//bucket/k", "/bucket/../x", "/bucket/%2e%2e/%2F?uploads", "/b%2Fk/x?a&b=c", "*", "http://h/bucket/k?acl"} {
		f.Add("PUT", s)
	}
	server := New(Options{Backend: untouched{}, Credentials: keyring{}, Domains: []string{testDomain}})
	f.Fuzz(func(t *testing.T, method, line string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + line + " HTTP/1.1\r\nHost: h\r\n\r\n")))
		if err != nil {
			return
		}
		c := &call{s: server, r: r, ctx: context.Background()}
		if c.query, err = parseQuery(r); err != nil {
			return
		}
		if err := c.parseTarget(); err != nil {
			if s3.Classify(err).Code == s3.InternalError {
				t.Fatal(err)
			}
			return
		}
		if _, err := server.routes.find(c); err != nil && s3.Classify(err).Code == s3.InternalError {
			t.Fatal(err)
		}
		if c.bucket == "" {
			return
		}
		if _, err := s3.ParseBucket(string(c.bucket)); err != nil {
			t.Fatalf("%q gave the bucket %q", line, c.bucket)
		}
		want := "/" + string(c.bucket) + "/" + string(c.key)
		if r.URL.Path != want && r.URL.Path+"/" != want {
			t.Fatalf("%q is %q and became %q", line, r.URL.Path, want)
		}
	})
}
