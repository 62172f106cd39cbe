package s3gw

import (
	"bufio"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"ashlar"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// TestFormsStore puts and gets bodies of several lengths in every form.
func TestFormsStore(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	for _, f := range forms {
		for _, n := range []int{0, 1, testChunkBytes, 3*testChunkBytes + 17, 1 << 20} {
			body := strings.Repeat("0123456789abcde\n", n/16+1)[:n]
			target := fmt.Sprintf("/bucket/%s/%d", strings.ReplaceAll(f.name, " ", "-"), n)
			sum := md5.Sum([]byte(body))
			a := g.send(t, g.request(t, f, testCall{method: "PUT", target: target, body: body})).want(t, 200, "")
			if a.header.Get("ETag") != `"`+hex.EncodeToString(sum[:])+`"` {
				t.Errorf("%s %d: ETag %s", f.name, n, a.header.Get("ETag"))
			}
			got := g.do(t, testCall{method: "GET", target: target}).want(t, 200, "")
			if got.body != body || got.header.Get("Content-Encoding") != "" {
				t.Errorf("%s %d: %d bytes came back, encoding %q", f.name, n, len(got.body), got.header.Get("Content-Encoding"))
			}
		}
	}
}

// TestBadBodies sends bodies that must not be stored: as objects and as parts.
func TestBadBodies(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	id, err := g.CreateUpload(t.Context(), &store.Upload{Bucket: "bucket", Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	body := strings.Repeat("x", 20_000)
	flip := func(s string) string { return s[:len(s)/2] + "y" + s[len(s)/2+1:] }
	sum := md5.Sum([]byte("other"))
	wrongMD5 := base64.StdEncoding.EncodeToString(sum[:])
	crc := func(name, of string) string {
		h := s3.AlgorithmOf(name).New()
		io.WriteString(h, of)
		return base64.StdEncoding.EncodeToString(h.Sum(nil))
	}
	signed, plain, _, chunks, trailer := forms[0], forms[1], forms[2], forms[3], forms[4]
	type H = map[string]string
	cases := []struct {
		name    string
		form    form
		headers H
		mangle  func(string) string
		tamper  func(*http.Request)
		status  int
		code    string
	}{
		{"payload differs from its hash", signed, nil, flip, nil, 400, "XAmzContentSHA256Mismatch"},
		{"byte of a signed chunk differs", chunks, nil, flip, nil, 403, "SignatureDoesNotMatch"},
		{"no final chunk", chunks, nil, func(s string) string { return s[:strings.LastIndex(s, "0;chunk")] }, nil, 400, "IncompleteBody"},
		{"no final chunk, unsigned", trailer, nil, func(s string) string { return s[:len(s)-5] }, nil, 400, "IncompleteBody"},
		{"chunks hold more than declared", trailer, nil, func(s string) string { return "2000\r\n" + strings.Repeat("z", 8192) + "\r\n" + s }, nil, 400, "IncompleteBody"},
		{"small chunk that is not the last", trailer, nil, func(s string) string { return "1\r\nx\r\n" + strings.Replace(s, "2000\r\nx", "1fff\r\n", 1) }, nil, 400, "InvalidChunkSizeError"},
		{"not framed at all", trailer, nil, func(string) string { return body }, nil, 400, "IncompleteBody"},
		{"decoded length no number", trailer, nil, nil, func(r *http.Request) { r.Header.Set("X-Amz-Decoded-Content-Length", "many") }, 403, "SignatureDoesNotMatch"},
		{"Content-MD5 wrong", plain, H{"Content-Md5": wrongMD5}, nil, nil, 400, "BadDigest"},
		{"Content-MD5 wrong, chunks", chunks, H{"Content-Md5": wrongMD5}, nil, nil, 400, "BadDigest"},
		{"Content-MD5 not base64", plain, H{"Content-Md5": "!!!"}, nil, nil, 400, "InvalidDigest"},
		{"Content-MD5 short", plain, H{"Content-Md5": "AAAA"}, nil, nil, 400, "InvalidDigest"},
		{"Content-MD5 empty", plain, H{"Content-Md5": ""}, nil, nil, 400, "InvalidDigest"},
		{"checksum not base64", plain, H{"X-Amz-Checksum-Crc32": "????"}, nil, nil, 400, "InvalidRequest"},
		{"two checksums", plain, H{"X-Amz-Checksum-Crc32": crc("CRC32", body), "X-Amz-Checksum-Crc32c": crc("CRC32C", body)}, nil, nil, 400, "InvalidRequest"},
		{"algorithm without a checksum", plain, H{"X-Amz-Sdk-Checksum-Algorithm": "CRC32"}, nil, nil, 400, "InvalidRequest"},
		{"algorithm of another checksum", plain, H{"X-Amz-Sdk-Checksum-Algorithm": "SHA1", "X-Amz-Checksum-Crc32": crc("CRC32", body)}, nil, nil, 400, "InvalidRequest"},
		{"unknown algorithm", plain, H{"X-Amz-Sdk-Checksum-Algorithm": "MD6"}, nil, nil, 400, "InvalidRequest"},
		{"trailer wrong", trailer, H{"X-Amz-Trailer": "x-amz-checksum-crc32", "test-trailer": crc("CRC32", "other")}, nil, nil, 400, "BadDigest"},
		{"trailer garbled", trailer, H{"X-Amz-Trailer": "x-amz-checksum-crc32", "test-trailer": "?"}, nil, nil, 400, "InvalidRequest"},
		{"trailer not announced", trailer, nil, func(s string) string { return s[:len(s)-2] + "x-amz-checksum-crc32:AAAAAA==\r\n\r\n" }, nil, 400, "MalformedTrailerError"},
		{"trailer announced and another sent", trailer, H{"X-Amz-Trailer": "x-amz-checksum-crc32", "test-trailer": "x"},
			func(s string) string {
				return strings.Replace(s, "x-amz-checksum-crc32:x", "x-amz-checksum-sha1:AAAA", 1)
			}, nil, 400, "MalformedTrailerError"},
		{"trailer announced and none sent", trailer, H{"X-Amz-Trailer": "x-amz-checksum-crc32", "test-trailer": "x"},
			func(s string) string { return strings.Replace(s, "x-amz-checksum-crc32:x\r\n", "", 1) }, nil, 400, "MalformedTrailerError"},
		{"trailer of an unknown kind", trailer, H{"X-Amz-Trailer": "x-amz-meta-late"}, nil, nil, 400, "InvalidRequest"},
		{"trailer announced for a plain body", plain, H{"X-Amz-Trailer": "x-amz-checksum-crc32"}, nil, nil, 400, "InvalidRequest"},
	}
	for _, a := range s3.Algorithms {
		cases = append(cases, cases[0])
		c := &cases[len(cases)-1]
		c.name, c.form, c.headers, c.mangle, c.code = a.Name+" wrong", plain, H{a.Header: crc(a.Name, "other")}, nil, "BadDigest"
	}
	for _, c := range cases {
		for _, target := range []string{"/bucket/k", "/bucket/k?partNumber=1&uploadId=" + id} {
			r := g.request(t, c.form, testCall{method: "PUT", target: target, body: body, headers: c.headers, mangle: c.mangle, tamper: c.tamper})
			t.Run(c.name+" "+target, func(t *testing.T) { g.send(t, r).want(t, c.status, c.code) })
		}
	}
	if _, there := g.stored("bucket", "k"); there || g.puts != 0 {
		t.Errorf("%d bad bodies were stored", g.puts)
	}
	for _, a := range s3.Algorithms { // and the same with the right digest
		sent := crc(a.Name, body)
		r := g.request(t, trailer, testCall{method: "PUT", target: "/bucket/k", body: body,
			headers: H{"X-Amz-Trailer": strings.ToLower(a.Header), "test-trailer": sent, "X-Amz-Sdk-Checksum-Algorithm": a.Name}})
		g.send(t, r).want(t, 200, "")
		got := g.do(t, testCall{method: "HEAD", target: "/bucket/k", headers: H{"X-Amz-Checksum-Mode": "ENABLED"}})
		if got.header.Get(a.Header) != sent || got.header.Get("X-Amz-Checksum-Type") != "FULL_OBJECT" {
			t.Errorf("%s: %v", a.Name, got.header)
		}
	}
}

// rawRequest writes a request by hand, for what net/http's client would not send.
func (g *gateway) raw(t *testing.T, text string, parts ...string) (int, string) {
	t.Helper()
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, text)
	for _, p := range parts {
		io.WriteString(conn, p)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// head writes the head of a request as it would be sent, with length replaced.
func head(r *http.Request, length string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.Method, r.URL.RequestURI(), r.URL.Host)
	r.Header.Write(&b)
	return b.String() + length + "\r\n"
}

func TestLengths(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	put := func(f form) *http.Request {
		return g.request(t, f, testCall{method: "PUT", target: "/bucket/k", body: "hello"})
	}
	for _, c := range []struct {
		name, length, body string
		form               form
		status             int
		code               string
	}{
		{"no length", "", "", forms[1], 411, "MissingContentLength"},
		{"chunked transfer without a decoded length", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", forms[1], 411, "MissingContentLength"},
		{"5 GiB and one", "Content-Length: 5368709121\r\n", "", forms[1], 400, "EntityTooLarge"},
		{"huge", "Content-Length: 9223372036854775807\r\n", "", forms[1], 400, "EntityTooLarge"},
		{"refused before the body is sent", "Content-Length: 5368709121\r\nExpect: 100-continue\r\n", "", forms[1], 400, "EntityTooLarge"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := g.raw(t, head(put(c.form), c.length), c.body)
			if status != c.status || !strings.Contains(body, "<Code>"+c.code+"</Code>") {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	r := put(forms[4])
	r.Header.Del("X-Amz-Decoded-Content-Length")
	g.send(t, r).want(t, 403, "SignatureDoesNotMatch") // it was signed
	// The client closes before the announced end.
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, head(put(forms[1]), "Content-Length: 10\r\n")+"hello")
	conn.(*net.TCPConn).CloseWrite()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	answer, _ := io.ReadAll(conn)
	conn.Close()
	if !strings.Contains(string(answer), "IncompleteBody") && len(answer) > 0 {
		t.Errorf("%s", answer)
	}
	if g.puts != 0 {
		t.Errorf("%d objects were stored", g.puts)
	}
	// An unsigned chunked transfer with a decoded length is what some SDKs send.
	r = g.request(t, forms[4], testCall{method: "PUT", target: "/bucket/k", body: "hello"})
	status, body := g.raw(t, head(r, "Transfer-Encoding: chunked\r\n"), "f\r\n5\r\nhello\r\n0\r\n\r\n\r\n0\r\n\r\n")
	if status != 200 {
		t.Errorf("%d %s", status, body)
	}
}

func TestExpectContinue(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	for target, want := range map[string]int{"/bucket/k": 200, "/nobucket/k": 404, "/bucket/" + strings.Repeat("k", 1025): 400} {
		r := g.request(t, forms[0], testCall{method: "PUT", target: target, body: "hello", headers: map[string]string{"Expect": "100-continue"}})
		read := false
		r.Body = io.NopCloser(io.TeeReader(r.Body, writerFunc(func(p []byte) { read = true })))
		a := g.send(t, r)
		if a.status != want || read != (want == 200) {
			t.Errorf("%s: %d, body sent %v", target, a.status, read)
		}
	}
}

// refuser takes some of every body and then has no place for it.
type refuser struct {
	*memory
	takes int64
}

func (r *refuser) PutObject(_ context.Context, _ *store.PutRequest, body store.Body) (store.Object, error) {
	if _, err := io.CopyN(io.Discard, body, r.takes); err != nil {
		return store.Object{}, err
	}
	return store.Object{}, ashlar.E("test", "", ashlar.Unavailable, errors.New("no quorum"))
}

// TestRefusedHalfway lets a client that is still sending its body read why it
// was refused, whether it expected 100 Continue, waited for it, or not; and at
// once, not when the server has done with the connection, which takes an hour here.
func TestRefusedHalfway(t *testing.T) {
	r := &refuser{}
	g := start(t, func(o *Options) { r.memory, o.Backend = o.Backend.(*memory), r }).withBucket(t, "bucket")
	g.server.linger = time.Hour
	body := strings.Repeat("x", 8<<20)
	for _, r.takes = range []int64{0, 100 << 10} {
		for _, how := range []string{"sends", "waits", "does not wait"} {
			for range 15 {
				c := testCall{method: "PUT", target: "/bucket/k", body: body, headers: map[string]string{}}
				if how != "sends" {
					c.headers["Expect"] = "100-continue"
				}
				req := g.request(t, forms[1], c)
				if how == "does not wait" {
					req.ProtoMajor, req.ProtoMinor = 0, 0 // as the AWS SDK for Go leaves them
				}
				g.send(t, req).want(t, 503, "ServiceUnavailable")
			}
		}
	}
}

// TestExpectContinueOfNothing gives botocore the 100 that it waits for with an
// empty body, whatever the answer is.
func TestExpectContinueOfNothing(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	for target, want := range map[string]int{"/bucket/k": 200, "/nobucket/k": 404} {
		r := g.request(t, forms[0], testCall{method: "PUT", target: target})
		conn, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(conn, head(r, "Content-Length: 0\r\nExpect: 100-continue\r\n"))
		br := bufio.NewReader(conn)
		if resp, err := http.ReadResponse(br, r); err != nil || resp.StatusCode != 100 {
			t.Errorf("%s: %v %v", target, resp, err)
		}
		if resp, err := http.ReadResponse(br, r); err != nil || resp.StatusCode != want {
			t.Errorf("%s: %v %v", target, resp, err)
		}
		conn.Close()
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

// TestSlowBody proves that a body that stands still is given up, and the store
// is told.
func TestSlowBody(t *testing.T) {
	g := start(t, func(o *Options) { o.Limits.BodyStall = 100 * time.Millisecond }).withBucket(t, "bucket")
	r := g.request(t, forms[1], testCall{method: "PUT", target: "/bucket/k", body: "hello"})
	status, body := g.raw(t, head(r, "Content-Length: 5\r\n"), "he")
	if status != 400 || !strings.Contains(body, "<Code>RequestTimeout</Code>") || g.puts != 0 {
		t.Errorf("%d %s", status, body)
	}
}

// crawl yields one byte per wait without a real clock in the test.
type crawl struct{ left int }

func (c *crawl) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(2 * time.Millisecond)
	c.left--
	p[0] = 'x'
	return 1, nil
}

func TestCrawlingBody(t *testing.T) {
	l := Limits{BodyStall: 20 * time.Millisecond, BodyBytesPerSecondMin: 1 << 20}
	_, err := io.Copy(io.Discard, newPacer(nopWriter{}, &crawl{1000}, &l, &received{}, func(time.Time) {}))
	if s3.Classify(err) == nil || s3.Classify(err).Code != s3.RequestTimeout {
		t.Fatal(err)
	}
	l.BodyBytesPerSecondMin = 1
	if n, err := io.Copy(io.Discard, newPacer(nopWriter{}, &crawl{30}, &l, &received{}, func(time.Time) {})); err != nil || n != 30 {
		t.Fatal(n, err)
	}
}

type nopWriter struct{ http.ResponseWriter }

func TestNames(t *testing.T) {
	g := start(t).withBucket(t, "bucket").withBucket(t, "other")
	for _, c := range []struct {
		method, target string
		status         int
		code           string
	}{
		{"PUT", "/Bucket", 400, "InvalidBucketName"}, {"PUT", "/ab", 400, "InvalidBucketName"}, {"PUT", "/" + strings.Repeat("b", 64), 400, "InvalidBucketName"},
		{"PUT", "/192.168.1.1", 400, "InvalidBucketName"}, {"PUT", "/xn--bucket", 400, "InvalidBucketName"}, {"PUT", "/bu%2Fcket", 400, "InvalidBucketName"},
		{"PUT", "/../bucket/k", 400, "InvalidBucketName"}, {"PUT", "/%2e%2e/bucket/k", 400, "InvalidBucketName"}, {"PUT", "//bucket/k", 400, "InvalidBucketName"},
		{"PUT", "/bucket/a%00b", 400, "InvalidURI"}, {"PUT", "/bucket/%ff", 400, "InvalidURI"}, {"PUT", "/bucket/%c3%28", 400, "InvalidURI"},
		{"PUT", "/bucket/" + strings.Repeat("k", 1025), 400, "KeyTooLongError"}, {"PUT", "/bucket/" + strings.Repeat("%C3%A4", 513), 400, "KeyTooLongError"},
		{"GET", "/nobucket/k", 404, "NoSuchBucket"}, {"GET", "/bucket/nokey", 404, "NoSuchKey"}, {"GET", "/nobucket", 404, "NoSuchBucket"},
	} {
		g.do(t, testCall{method: c.method, target: c.target}).want(t, c.status, c.code)
	}
	for target, key := range map[string]string{
		"/bucket/..": "..", "/bucket/.": ".", "/bucket/../other/k": "../other/k", "/bucket/%2e%2e/other/k": "../other/k", "/bucket//": "/", "/bucket///x": "//x",
		"/bucket/a%5Cb": `a\b`, "/bucket/a%2Fb": "a/b", "/bucket/a+b": "a+b", "/bucket/a%2525b": "a%25b", "/bucket/%C3%A4": "ä", "/bucket/a/./b": "a/./b",
		"/bucket/x?y=z": "", "/bucket/" + strings.Repeat("k", 1024): strings.Repeat("k", 1024), "/bucket/a;b&c=d": "a;b&c=d",
	} {
		if key == "" {
			continue
		}
		g.do(t, testCall{method: "PUT", target: target, body: key}).want(t, 200, "")
		if got, ok := g.stored("bucket", key); !ok || string(got) != key {
			t.Errorf("%s did not become the key %q of its bucket", target, key)
		}
		if a := g.do(t, testCall{method: "GET", target: target}).want(t, 200, ""); a.body != key {
			t.Errorf("%s: %q", target, a.body)
		}
	}
	if len(g.buckets["other"].objects) != 0 {
		t.Error("a key reached another bucket")
	}
}

func TestVirtualHost(t *testing.T) {
	g := start(t).withBucket(t, "my.bucket")
	for _, f := range forms {
		r := g.request(t, f, testCall{method: "PUT", target: "/dir//k", body: "v", headers: map[string]string{"Host": "My.bucket." + testDomain + ":9000"}})
		g.send(t, r).want(t, 200, "")
		if got, _ := g.stored("my.bucket", "dir//k"); string(got) != "v" {
			t.Errorf("%s: stored %q", f.name, got)
		}
	}
	host := func(h string) map[string]string { return map[string]string{"Host": h} }
	g.do(t, testCall{method: "GET", target: "/", headers: host("my.bucket." + testDomain)}).want(t, 200, "")
	if a := g.do(t, testCall{method: "GET", target: "/", headers: host(testDomain)}).want(t, 200, ""); !strings.Contains(a.body, "ListAllMyBucketsResult") {
		t.Error(a.body)
	}
	if a := g.do(t, testCall{method: "GET", target: "/my.bucket/dir//k", headers: host("10.0.0.1")}).want(t, 200, ""); a.body != "v" {
		t.Error(a.body)
	}
	g.do(t, testCall{method: "GET", target: "/", headers: host("BAD_." + testDomain)}).want(t, 400, "InvalidBucketName")
}

func TestHeaderLimits(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	type H = map[string]string
	for _, c := range []struct {
		name    string
		headers H
		status  int
		code    string
	}{
		{"metadata of 2 KB", H{"X-Amz-Meta-A": strings.Repeat("x", 2047)}, 200, ""},
		{"metadata above 2 KB", H{"X-Amz-Meta-A": strings.Repeat("x", 2048)}, 400, "MetadataTooLarge"},
		{"headers above 8 KB", H{"X-Other": strings.Repeat("x", 8192)}, 400, "RequestHeaderSectionTooLarge"},
		{"storage class", H{"X-Amz-Storage-Class": "FLOPPY"}, 400, "InvalidStorageClass"},
		{"tags", H{"X-Amz-Tagging": "a=1&a=2"}, 400, "InvalidArgument"},
		{"public acl", H{"X-Amz-Acl": "public-read"}, 400, "AccessControlListNotSupported"},
		{"grant", H{"X-Amz-Grant-Read": "id=x"}, 400, "AccessControlListNotSupported"},
		{"private acl, which old clients always send", H{"X-Amz-Acl": "private"}, 200, ""},
		{"owner's acl", H{"X-Amz-Acl": "bucket-owner-full-control"}, 200, ""},
		{"owner's grant", H{"X-Amz-Grant-Full-Control": "id=" + testAccount}, 200, ""},
		{"redirect to a key", H{"X-Amz-Website-Redirect-Location": "/other"}, 200, ""},
		{"redirect to a site", H{"X-Amz-Website-Redirect-Location": "https://example.test/"}, 200, ""},
		{"redirect elsewhere", H{"X-Amz-Website-Redirect-Location": "ftp://example.test/"}, 400, "InvalidRedirectLocation"},
		{"long redirect", H{"X-Amz-Website-Redirect-Location": "/" + strings.Repeat("x", 2048)}, 400, "InvalidRedirectLocation"},
		{"encryption", H{"X-Amz-Server-Side-Encryption": "rot13"}, 400, "InvalidArgument"},
		{"encryption context", H{"X-Amz-Server-Side-Encryption-Context": "e30="}, 501, "NotImplemented"},
		{"customer key", H{"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256"}, 400, "InvalidArgument"},
		{"append", H{"X-Amz-Write-Offset-Bytes": "0"}, 501, "NotImplemented"},
		{"lock", H{"X-Amz-Object-Lock-Mode": "COMPLIANCE"}, 400, "InvalidArgument"},
		{"another owner", H{"X-Amz-Expected-Bucket-Owner": "nobody"}, 403, "AccessDenied"},
		{"this owner", H{"X-Amz-Expected-Bucket-Owner": testAccount}, 200, ""},
	} {
		before := g.puts
		t.Run(c.name, func(t *testing.T) {
			g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "x", headers: c.headers}).want(t, c.status, c.code)
			if stored := g.puts != before; stored != (c.status == 200) {
				t.Errorf("stored %v", stored)
			}
		})
	}
}

func TestTooManyRequests(t *testing.T) {
	g := start(t, func(o *Options) { o.Limits.Requests = 1 }).withBucket(t, "bucket")
	r := g.request(t, forms[1], testCall{method: "PUT", target: "/bucket/k", body: "hello"})
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	// 100 Continue says that the first request is inside.
	io.WriteString(conn, head(r, "Content-Length: 5\r\nExpect: 100-continue\r\n"))
	br := bufio.NewReader(conn)
	if line, err := br.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatal(line, err)
	}
	if a := g.do(t, testCall{method: "GET", target: "/bucket"}).want(t, 503, "SlowDown"); a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	io.WriteString(conn, "hello")
	br.ReadString('\n')
	resp, err := http.ReadResponse(br, r)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	g.do(t, testCall{method: "GET", target: "/bucket"}).want(t, 200, "")
}

func TestBackendFailures(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	g.do(t, testCall{method: "PUT", target: "/bucket/k", body: strings.Repeat("x", 1<<20)}).want(t, 200, "")
	g.failReadAt = 1 // nothing can be read: a clean refusal
	a := g.do(t, testCall{method: "GET", target: "/bucket/k"}).want(t, 503, "ServiceUnavailable")
	if a.header.Get("Retry-After") == "" || a.header.Get("ETag") != "" || a.header.Get("Content-Range") != "" {
		t.Error(a.header)
	}
	g.failReadAt = 600_000 // breaks off in the middle: the client must see it
	resp, err := g.http.Do(g.request(t, forms[0], testCall{method: "GET", target: "/bucket/k"}))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err == nil || n >= 1<<20 {
		t.Errorf("%d bytes and %v of a read that broke", n, err)
	}
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{ashlar.E("x", "", ashlar.Full, nil), 503, "SlowDown"}, {ashlar.E("x", "", ashlar.Unavailable, nil), 503, "ServiceUnavailable"},
		{ashlar.E("x", "", ashlar.Internal, nil), 500, "InternalError"}, {store.ErrConflict, 409, "ConditionalRequestConflict"},
	} {
		g.fail = c.err
		a := g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "x"}).want(t, c.status, c.code)
		if (a.header.Get("Retry-After") != "") != (c.status == 503) {
			t.Error(a.header)
		}
		g.do(t, testCall{method: "GET", target: "/bucket?list-type=2"}).want(t, c.status, c.code)
	}
}
