package s3gw

import (
	"crypto/md5"
	"encoding/base64"
	"strings"
	"testing"

	ring "ashlar/s3gw/keyring"
	"ashlar/s3gw/sse"
	"ashlar/s3gw/store"
)

func base64Key(k sse.Key) string { return base64.StdEncoding.EncodeToString(k[:]) }

// customerHeaders are the headers of a customer's key, with a prefix for copies.
func customerHeaders(prefix string, k sse.Key) map[string]string {
	sum := md5.Sum(k[:])
	return map[string]string{
		prefix + "Server-Side-Encryption-Customer-Algorithm": "AES256",
		prefix + "Server-Side-Encryption-Customer-Key":       base64Key(k),
		prefix + "Server-Side-Encryption-Customer-Key-Md5":   base64.StdEncoding.EncodeToString(sum[:]),
	}
}

func merge(maps ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range maps {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

const (
	sseHeader = "X-Amz-Server-Side-Encryption"
	kmsHeader = sseHeader + "-Aws-Kms-Key-Id"
)

func startEncrypted(t *testing.T, plain bool, change ...func(*Options)) *gateway {
	t.Helper()
	keys, err := ring.Parse([]byte("sse-s3 a " + base64Key(sse.NewKey()) + "\nkms one " + base64Key(sse.NewKey()) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return startRealWith(t, "bucket", store.Options{Keys: keys}, append(change, func(o *Options) { o.PlainKeys = plain })...)
}

func TestEncryptionHeaders(t *testing.T) {
	g := startEncrypted(t, true)
	k, other := sse.NewKey(), sse.NewKey()
	own, wrong := customerHeaders("X-Amz-", k), customerHeaders("X-Amz-", other)
	without := func(name string) map[string]string {
		m := merge(own)
		delete(m, "X-Amz-Server-Side-Encryption-Customer-"+name)
		return m
	}
	for _, c := range []struct {
		headers map[string]string
		code    string
	}{
		{map[string]string{sseHeader: "rot13"}, "InvalidArgument"},
		{map[string]string{kmsHeader: "one"}, "InvalidArgument"},
		{map[string]string{sseHeader: "AES256", kmsHeader: "one"}, "InvalidArgument"},
		{map[string]string{sseHeader: "aws:kms", kmsHeader: "nobody"}, "KMS.NotFoundException"},
		{map[string]string{sseHeader: "aws:kms"}, "KMS.NotFoundException"}, // there is no default
		{merge(own, map[string]string{sseHeader: "AES256"}), "InvalidArgument"},
		{without("Algorithm"), "InvalidArgument"}, {without("Key"), "InvalidArgument"}, {without("Key-Md5"), "InvalidArgument"},
		{merge(own, map[string]string{"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES192"}), "InvalidEncryptionAlgorithmError"},
		{merge(own, map[string]string{"X-Amz-Server-Side-Encryption-Customer-Key": "c2hvcnQ="}), "InvalidArgument"},
		{merge(own, map[string]string{"X-Amz-Server-Side-Encryption-Customer-Key-Md5": "AAAAAAAAAAAAAAAAAAAAAA=="}), "InvalidArgument"},
	} {
		g.do(t, testCall{method: "PUT", target: "/bucket/bad", body: "x", headers: c.headers}).want(t, 400, c.code)
	}
	g.do(t, testCall{method: "GET", target: "/bucket/bad"}).want(t, 404, "NoSuchKey")

	for _, c := range []struct{ put, get, said map[string]string }{
		{map[string]string{sseHeader: "AES256"}, nil, map[string]string{sseHeader: "AES256"}},
		{map[string]string{sseHeader: "aws:kms", kmsHeader: "one"}, nil, map[string]string{sseHeader: "aws:kms", kmsHeader: "one"}},
		{own, own, map[string]string{"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256"}},
	} {
		for _, call := range []testCall{
			{method: "PUT", target: "/bucket/k", body: "content", headers: c.put}, {method: "HEAD", target: "/bucket/k", headers: c.get},
			{method: "GET", target: "/bucket/k", headers: merge(c.get, map[string]string{"Range": "bytes=0-6"})},
		} {
			got := g.do(t, call)
			for name, value := range c.said {
				if got.status/100 != 2 || got.header.Get(name) != value {
					t.Errorf("%s: %d, %s is %q, want %q", call.method, got.status, name, got.header.Get(name), value)
				}
			}
			if call.method == "GET" && got.body != "content" {
				t.Errorf("content %q", got.body)
			}
		}
	}
	// The key of SSE-C: needed, checked, and refused where it does not belong.
	g.do(t, testCall{method: "GET", target: "/bucket/k"}).want(t, 400, "InvalidRequest")
	g.do(t, testCall{method: "GET", target: "/bucket/k", headers: wrong}).want(t, 400, "InvalidRequest")
	g.do(t, testCall{method: "HEAD", target: "/bucket/k"}).want(t, 400, "")
	g.do(t, testCall{method: "GET", target: "/bucket/k?attributes", headers: map[string]string{"X-Amz-Object-Attributes": "ETag"}}).want(t, 400, "InvalidRequest")
	g.do(t, testCall{method: "PUT", target: "/bucket/plain", body: "x"}).want(t, 200, "")
	g.do(t, testCall{method: "GET", target: "/bucket/plain", headers: own}).want(t, 400, "InvalidRequest")
	g.do(t, testCall{method: "GET", target: "/bucket/plain", headers: map[string]string{sseHeader: "AES256"}}).want(t, 400, "InvalidArgument")

	source := map[string]string{"X-Amz-Copy-Source": "bucket/k"}
	g.do(t, testCall{method: "PUT", target: "/bucket/copy", headers: source}).want(t, 400, "InvalidRequest")
	from := customerHeaders("X-Amz-Copy-Source-", k)
	// Another encryption is change enough for a copy to itself, also where it is the bucket's.
	g.do(t, testCall{method: "PUT", target: "/bucket/self", body: "content", headers: own}).want(t, 200, "")
	g.do(t, testCall{method: "PUT", target: "/bucket/self", headers: merge(from, map[string]string{"X-Amz-Copy-Source": "bucket/self"})}).want(t, 200, "")
	g.do(t, testCall{method: "GET", target: "/bucket/self"}).want(t, 200, "")
	g.do(t, testCall{method: "PUT", target: "/bucket/copy", headers: merge(source, from, map[string]string{sseHeader: "AES256"})}).want(t, 200, "")
	if got := g.do(t, testCall{method: "GET", target: "/bucket/copy"}).want(t, 200, ""); got.body != "content" || got.header.Get(sseHeader) != "AES256" {
		t.Errorf("%q %v", got.body, got.header)
	}
}

// TestCompleteWithCustomerKey: completing an upload needs the customer's key where
// the upload has a checksum, but for MinIO's answers, and takes no other one.
func TestCompleteWithCustomerKey(t *testing.T) {
	for _, answers := range []string{AnswersAWS, AnswersMinIO} {
		g := startEncrypted(t, true, func(o *Options) { o.Answers = answers })
		t.Run(answers, g.completeWithCustomerKey)
	}
}

func (g *gateway) completeWithCustomerKey(t *testing.T) {
	own, wrong := customerHeaders("X-Amz-", sse.NewKey()), customerHeaders("X-Amz-", sse.NewKey())
	for _, c := range []struct {
		checksum string            // of the upload or of the part
		keys     map[string]string // the upload's
		complete map[string]string
		status   int
		code     string
	}{
		{"", own, nil, 200, ""}, {"", own, own, 200, ""}, {"", own, wrong, 400, "InvalidRequest"}, {"", nil, own, 400, "InvalidRequest"},
		{"CRC32", own, nil, 400, "InvalidRequest"}, {"CRC32", own, wrong, 400, "InvalidRequest"}, {"CRC32", own, own, 200, ""},
		{"CRC32", nil, nil, 200, ""},
		{"part", own, nil, 400, "InvalidRequest"}, {"part", own, own, 200, ""}, {"part", nil, nil, 200, ""},
	} {
		headers := merge(c.keys)
		if c.checksum == "CRC32" {
			headers["X-Amz-Checksum-Algorithm"] = c.checksum
		}
		up := g.do(t, testCall{method: "POST", target: "/bucket/k?uploads", headers: headers}).want(t, 200, "").body
		_, up, _ = strings.Cut(up, "<UploadId>")
		up, _, _ = strings.Cut(up, "</UploadId>")
		headers = merge(c.keys)
		if c.checksum != "" {
			headers["X-Amz-Checksum-Crc32"] = "y/Q5Jg=="
		}
		part := g.do(t, testCall{method: "PUT", target: "/bucket/k?partNumber=1&uploadId=" + up, body: "123456789", headers: headers}).want(t, 200, "")
		doc := "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>" + part.header.Get("ETag") + "</ETag></Part></CompleteMultipartUpload>"
		if g.server.minio && c.complete == nil {
			c.status, c.code = 200, ""
		}
		g.do(t, testCall{method: "POST", target: "/bucket/k?uploadId=" + up, body: doc, headers: c.complete}).want(t, c.status, c.code)
		if c.status == 200 {
			got := g.do(t, testCall{method: "GET", target: "/bucket/k", headers: c.keys}).want(t, 200, "")
			if got.body != "123456789" {
				t.Errorf("completed: %q", got.body)
			}
		}
	}
}

func TestBucketEncryption(t *testing.T) {
	g := startEncrypted(t, false)
	put := func(in string) answer {
		return g.do(t, testCall{method: "PUT", target: "/bucket?encryption", body: "<ServerSideEncryptionConfiguration>" + in + "</ServerSideEncryptionConfiguration>"})
	}
	rule := func(in string) string {
		return "<Rule><ApplyServerSideEncryptionByDefault>" + in + "</ApplyServerSideEncryptionByDefault></Rule>"
	}
	g.do(t, testCall{method: "GET", target: "/bucket?encryption"}).want(t, 404, "ServerSideEncryptionConfigurationNotFoundError")
	for in, code := range map[string]string{
		"": "MalformedXML", rule(""): "MalformedXML", rule("<SSEAlgorithm>rot13</SSEAlgorithm>"): "MalformedXML",
		rule("<SSEAlgorithm>AES256</SSEAlgorithm><KMSMasterKeyID>one</KMSMasterKeyID>"): "InvalidArgument",
	} {
		put(in).want(t, 400, code)
	}
	put(rule("<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>one</KMSMasterKeyID>")).want(t, 200, "")
	if got := g.do(t, testCall{method: "GET", target: "/bucket?encryption"}).want(t, 200, ""); !strings.Contains(got.body, "<KMSMasterKeyID>one</KMSMasterKeyID>") {
		t.Error(got.body)
	}
	got := g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "x"}).want(t, 200, "")
	if got.header.Get(sseHeader) != "aws:kms" || got.header.Get(kmsHeader) != "one" {
		t.Error(got.header)
	}
	up := g.do(t, testCall{method: "POST", target: "/bucket/up?uploads"}).want(t, 200, "")
	if up.header.Get(sseHeader) != "aws:kms" {
		t.Error(up.header)
	}
	g.do(t, testCall{method: "DELETE", target: "/bucket?encryption"}).want(t, 204, "")
	if got := g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "x"}).want(t, 200, ""); got.header.Get(sseHeader) != "" {
		t.Error(got.header)
	}
	// Customers' keys do not travel in the clear.
	own := customerHeaders("X-Amz-", sse.NewKey())
	g.do(t, testCall{method: "PUT", target: "/bucket/c", body: "x", headers: own}).want(t, 400, "InvalidRequest")
	g.do(t, testCall{method: "GET", target: "/bucket/k", headers: own}).want(t, 400, "InvalidRequest")
}
