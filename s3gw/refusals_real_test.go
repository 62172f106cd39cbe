package s3gw

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/notify/courier"
)

// world is a gateway over the real store with something of everything in it: the
// bucket has versions, locks and rules, an object, an upload with a part; another
// account has a bucket with a secret.
type world struct {
	*gateway
	upload, aborted string // uploads of some/key
	foreign         string // an upload of other/key
	part            string // the ETag of the first part
	locked          string // a version under COMPLIANCE
	governed        string // a version under GOVERNANCE
}

const theSecret = "what nobody may see"

// known are people whose accounts are known by their ids.
type known struct{ people }

func (k known) Account(canonical string) *iam.Account {
	for _, who := range k.people {
		if who.Account.Canonical == canonical {
			return who.Account
		}
	}
	return nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	who := cast(t)
	who["AKIDDELETER"] = &iam.Identity{Kind: iam.User, Account: homeAccount, Name: "deleter", ARN: "arn:aws:iam::111:user/deleter", Policies: identityPolicy(t,
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["s3:DeleteObject","s3:DeleteObjectVersion","s3:PutObjectRetention"],"Resource":"*"}}`)}
	w := &world{gateway: startReal(t, "plain", func(o *Options) {
		o.Credentials, o.ObjectOwnership, o.Targets = known{who}, "ObjectWriter", []courier.Config{{Name: "hook", Kind: courier.KindWebhook}}
		o.SignatureV2 = true
	})}
	put := func(key, target, body string, headers ...string) answer {
		t.Helper()
		c := testCall{method: "PUT", target: target, body: body, key: key, secret: testSecret, headers: map[string]string{}}
		for i := 0; i < len(headers); i += 2 {
			c.headers[headers[i]] = headers[i+1]
		}
		return w.do(t, c).want(t, 200, "")
	}
	put(testKey, "/bucket", "", "X-Amz-Bucket-Object-Lock-Enabled", "true")
	put("AKIDOTHER", "/other-bucket", "")
	put("AKIDOTHER", "/other-bucket/secret", theSecret)
	put(testKey, "/bucket?cors", corsDoc)
	for _, key := range []string{"key", "some/key"} {
		put(testKey, "/bucket/"+key, "0123456789")
	}
	lock := func(key, mode string) string {
		return put(testKey, "/bucket/"+key, "x", "Content-Md5", md5Base64("x"), "X-Amz-Object-Lock-Mode", mode,
			"X-Amz-Object-Lock-Retain-Until-Date", time.Now().Add(time.Hour).UTC().Format(time.RFC3339)).header.Get("X-Amz-Version-Id")
	}
	w.locked, w.governed = lock("locked", "COMPLIANCE"), lock("governed", "GOVERNANCE")
	begin := func(key string) string {
		a := w.do(t, testCall{method: "POST", target: "/bucket/" + key + "?uploads"}).want(t, 200, "")
		_, rest, _ := strings.Cut(a.body, "<UploadId>")
		id, _, _ := strings.Cut(rest, "<")
		return id
	}
	w.upload, w.aborted, w.foreign = begin("some/key"), begin("some/key"), begin("other/key")
	w.part = put(testKey, "/bucket/some/key?partNumber=1&uploadId="+w.upload, "part").header.Get("ETag")
	w.do(t, testCall{method: "DELETE", target: "/bucket/some/key?uploadId=" + w.aborted}).want(t, 204, "")
	return w
}

// seen is everything that a refused request could have changed.
func (w *world) seen(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, key := range []string{testKey, "AKIDOTHER"} {
		b.WriteString(w.do(t, testCall{method: "GET", target: "/", key: key, secret: testSecret}).want(t, 200, "").body)
	}
	for _, target := range []string{"/bucket?versions", "/bucket?uploads", "/plain?versions", "/bucket/some/key?uploadId=" + w.upload} {
		b.WriteString(w.do(t, testCall{method: "GET", target: target}).want(t, 200, "").body)
	}
	b.WriteString(w.do(t, testCall{method: "GET", target: "/other-bucket?versions", key: "AKIDOTHER", secret: testSecret}).want(t, 200, "").body)
	for _, sub := range []string{"acl", "versioning", "cors", "policy", "tagging", "lifecycle", "encryption", "ownershipControls", "publicAccessBlock", "object-lock"} {
		a := w.do(t, testCall{method: "GET", target: "/bucket?" + sub})
		if a.status != 200 && a.status != 404 {
			t.Errorf("%s: %d %s", sub, a.status, a.body)
		}
		_, doc, _ := strings.Cut(a.body, "?>")
		doc, _, _ = strings.Cut(doc, "<RequestId>")
		b.WriteString(doc)
	}
	return b.String()
}

// unchanged runs do and compares what is there before and afterwards.
func (w *world) unchanged(t *testing.T, do func()) {
	t.Helper()
	before := w.seen(t)
	do()
	for old, now := before, w.seen(t); old != now; {
		i := 0
		for i < min(len(old), len(now)) && old[i] == now[i] {
			i++
		}
		t.Fatalf("a refused request left something behind.\nbefore: …%.200s\nafter:  …%.200s", old[max(i-100, 0):], now[max(i-100, 0):])
	}
}

// documents are good bodies of the routes that take one.
var documents = map[string]string{
	"CreateBucket":               "<CreateBucketConfiguration/>",
	"DeleteObjects":              "<Delete><Object><Key>none</Key></Object></Delete>",
	"PutBucketAcl":               ownerACL,
	"PutObjectAcl":               ownerACL,
	"PutBucketVersioning":        "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
	"PutBucketOwnershipControls": "<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>",
	"PutBucketPolicy":            `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::bucket/*"}]}`,
	"PutBucketTagging":           "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
	"PutObjectTagging":           "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
	"PutBucketLifecycleConfiguration": "<LifecycleConfiguration><Rule><ID>r</ID><Filter><Prefix>tmp/</Prefix></Filter><Status>Enabled</Status>" +
		"<Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>",
	"PutBucketCors": corsDoc,
	"PutBucketEncryption": "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>" +
		"</ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>",
	"PutObjectLockConfiguration": "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>",
	"PutPublicAccessBlock":       "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls></PublicAccessBlockConfiguration>",
	"PutObjectRetention":         "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>",
	"PutBucketWebsite":           "<WebsiteConfiguration><IndexDocument><Suffix>index.html</Suffix></IndexDocument></WebsiteConfiguration>",
	"PutBucketNotificationConfiguration": "<NotificationConfiguration><QueueConfiguration><Queue>arn:ashlar:sqs::hook:webhook</Queue>" +
		"<Event>s3:ObjectCreated:*</Event></QueueConfiguration></NotificationConfiguration>",
	"PutBucketLogging":   "<BucketLoggingStatus></BucketLoggingStatus>",
	"PutObjectLegalHold": "<LegalHold><Status>OFF</Status></LegalHold>",
}

const ownerACL = `<AccessControlPolicy><Owner><ID>` + testAccount + `</ID></Owner><AccessControlList><Grant><Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser"><ID>` +
	testAccount + `</ID></Grantee><Permission>FULL_CONTROL</Permission></Grant></AccessControlList></AccessControlPolicy>`

// call is the good call of a route: only what a test spoils is wrong with it.
func (w *world) call(rt *route) testCall {
	c := plainCall(rt)
	c.target = strings.Replace(c.target, "uploadId=u", "uploadId="+w.upload, 1)
	switch {
	case rt.body == dataBody:
		c.body = strings.Repeat("0123456789abcdef", 3*testChunkBytes/16)
	case rt.op == "CompleteMultipartUpload":
		c.body = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>" + w.part + "</ETag></Part></CompleteMultipartUpload>"
	case rt.body == xmlBody:
		c.body = documents[rt.op]
	}
	if rt.op == "DeleteObjects" {
		c.headers["Content-Md5"] = md5Base64(c.body)
	}
	switch rt.op {
	case "GetObjectAttributes":
		c.headers["X-Amz-Object-Attributes"] = "ETag"
	case "PutBucketReads":
		c.target += "=none"
	}
	return c
}

// doing changes the framed body of a call.
func doing(mangle func(string) string) func(*testCall, *route) {
	return func(c *testCall, _ *route) { c.mangle = mangle }
}

func otherDigit(s string, at int) string { return s[:at] + flipped(s[at:at+1]) + s[at+1:] }

// spoiledChunk changes the signature of a chunk, the first or the last one.
func spoiledChunk(index func(s, sep string) int) func(string) string {
	return func(s string) string { return otherDigit(s, index(s, "chunk-signature=")+len("chunk-signature=")) }
}

func crc32Base64(s string) string {
	h := crc32.NewIEEE()
	io.WriteString(h, s)
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

func announcing(sum string) func(*testCall, *route) {
	return func(c *testCall, _ *route) {
		c.headers["X-Amz-Trailer"], c.headers["test-trailer"] = "x-amz-checksum-crc32", sum
	}
}

// ownChecksum holds for routes whose checksum headers are about the body.
func ownChecksum(rt *route) bool { return rt.body == dataBody || rt.body == xmlBody }

func bodyRefusals(t *testing.T) []refusal {
	unread := func(r *http.Request) { r.Body = unreadable{t} }
	return []refusal{
		{row: 11, name: "another body than the hash says", routes: notForm, forms: hashed, spoil: tampered(func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("another")), 7
		}), status: 400, code: "XAmzContentSHA256Mismatch"},
		{row: 13, name: "wrong signature of the first chunk", routes: notForm, forms: func(f *form) bool { return f.signsChunks() },
			spoil: doing(spoiledChunk(strings.Index)), status: 403, code: "SignatureDoesNotMatch"},
		{row: 13, name: "wrong signature of the last chunk", routes: notForm, forms: func(f *form) bool { return f.signsChunks() },
			spoil: doing(spoiledChunk(strings.LastIndex)), status: 403, code: "SignatureDoesNotMatch"},
		{row: 13, name: "wrong signature of the trailer", routes: notForm, forms: func(f *form) bool { return f.payload == streamBoth },
			spoil: doing(func(s string) string { return otherDigit(s, len(s)-5) }), status: 403, code: "SignatureDoesNotMatch"},
		{row: 14, name: "no final chunk", routes: notForm, forms: framed, spoil: doing(func(s string) string {
			if at := strings.LastIndex(s, "\r\n0"); at >= 0 {
				return s[:at+2]
			}
			return "5\r\n"
		}), status: 400, code: "IncompleteBody"},
		{row: 14, name: "fewer bytes than declared", routes: notForm, forms: framed, spoil: sending("X-Amz-Decoded-Content-Length", "70000"), status: 400, code: "IncompleteBody"},
		{row: 14, name: "more bytes than declared", routes: func(rt *route) bool { return takesData(rt) || takesDocument(rt) }, forms: framed,
			spoil: sending("X-Amz-Decoded-Content-Length", "1"), status: 400, code: "IncompleteBody"},
		{row: 17, name: "wrong checksum in the trailer", routes: ownChecksum, forms: trailed, spoil: announcing("AAAAAA=="), status: 400, code: "BadDigest"},
		{row: 17, name: "a trailer that was not announced", routes: ownChecksum, forms: func(f *form) bool { return f.payload == streamTrailer },
			spoil: doing(func(s string) string { return s[:len(s)-2] + "x-amz-checksum-crc32:AAAAAA==\r\n\r\n" }), status: 400, code: "MalformedTrailerError"},
		{row: 17, name: "a trailer of an unknown kind", routes: ownChecksum, forms: trailed, spoil: sending("X-Amz-Trailer", "x-amz-meta-late"), status: 400, code: "InvalidRequest"},
		{row: 30, name: "no length", routes: takesData, forms: unframed,
			spoil: tampered(func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 }), status: 411, code: "MissingContentLength"},
		{row: 30, name: "transfer in chunks without a length", routes: takesData, forms: unframed,
			spoil: tampered(func(r *http.Request) { r.ContentLength = -1 }), status: 411, code: "MissingContentLength"},
		{row: 30, name: "no decoded length", routes: notForm, forms: framed, spoil: sending("X-Amz-Decoded-Content-Length", ""), status: 411, code: "MissingContentLength"},
		{row: 32, name: "more than 5 GiB at once", routes: takesData, forms: unframed,
			spoil: tampered(func(r *http.Request) { unread(r); r.ContentLength = 5<<30 + 1 }), status: 400, code: "EntityTooLarge"},
		{row: 32, name: "more than 5 GiB at once in chunks", routes: takesData, forms: framed, spoil: func(c *testCall, _ *route) {
			c.headers["X-Amz-Decoded-Content-Length"], c.tamper = fmt.Sprint(5<<30+1), unread
		}, status: 400, code: "EntityTooLarge"},
		{row: 35, name: "Content-MD5 that is none", routes: func(rt *route) bool { return takesData(rt) || takesDocument(rt) }, spoil: sending("Content-Md5", "???"), status: 400, code: "InvalidDigest"},
		{row: 35, name: "Content-MD5 of another body", routes: func(rt *route) bool { return takesData(rt) || takesDocument(rt) },
			spoil: sending("Content-Md5", md5Base64("another")), status: 400, code: "BadDigest"},
		{row: 35, name: "checksum of another body", routes: ownChecksum, spoil: sending("X-Amz-Checksum-Crc32", crc32Base64("another")), status: 400, code: "BadDigest"},
		{row: 35, name: "checksum that is none", routes: ownChecksum, spoil: sending("X-Amz-Checksum-Crc32", "???"), status: 400, code: "InvalidRequest"},
		{row: 35, name: "two checksums", routes: ownChecksum, spoil: func(c *testCall, _ *route) {
			c.headers["X-Amz-Checksum-Crc32"], c.headers["X-Amz-Checksum-Sha1"] = crc32Base64(c.body), "2jmj7l5rSw0yVb/vlWAYkK/YBwk="
		}, status: 400, code: "InvalidRequest"},
	}
}

// unreadable is a body of which nothing may be read.
type unreadable struct{ t *testing.T }

func (u unreadable) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func (u unreadable) Close() error { return nil }

// TestRefusedBodies: a body that is not what was said of it leaves nothing behind.
func TestRefusedBodies(t *testing.T) {
	w := newWorld(t)
	w.unchanged(t, func() { w.refuse(t, bodyRefusals(t), allForms, w.call) })
}

// TestGoodCalls is the other half of the walks: what they spoil is good otherwise.
// In every form, every route does what it is for, or says why this world does not let it.
func TestGoodCalls(t *testing.T) {
	excuses := map[string]string{
		"DeleteBucket": "BucketNotEmpty", "GetBucketOwnershipControls": "OwnershipControlsNotFoundError", "PostObject": "MalformedPOSTRequest", "PutBucketEncryption": "KMS.NotFoundException",
		"GetBucketPolicy": "NoSuchBucketPolicy", "GetBucketPolicyStatus": "NoSuchBucketPolicy", "GetBucketTagging": "NoSuchTagSet",
		"GetBucketLifecycleConfiguration": "NoSuchLifecycleConfiguration", "GetBucketEncryption": "ServerSideEncryptionConfigurationNotFoundError",
		"GetPublicAccessBlock": "NoSuchPublicAccessBlockConfiguration", "GetBucketReplication": "ReplicationConfigurationNotFoundError",
		"GetBucketWebsite": "NoSuchWebsiteConfiguration", "GetObjectRetention": "NoSuchObjectLockConfiguration", "GetObjectLegalHold": "NoSuchObjectLockConfiguration",
	}
	for i := range allForms {
		f := &allForms[i]
		w := newWorld(t)
		for _, ends := range []bool{false, true} {
			for j := range routes {
				rt := &routes[j]
				switch last := rt.op == "DeleteObject" || rt.op == "CompleteMultipartUpload" || rt.op == "AbortMultipartUpload"; {
				case last != ends, f.old && !withinVersion2(rt):
					continue
				case last:
					w = newWorld(t)
				}
				if rt.body == xmlBody && documents[rt.op] == "" && rt.op != "PutBucketReads" {
					t.Errorf("%s has no good document in this test's list", rt.op)
				}
				r := w.request(t, *f, w.call(rt))
				if a := w.serve(r); a.Code >= 300 && !refusedWith(r, a, a.Code, excuses[rt.op]) {
					t.Errorf("%s, %s: %d %.300s", rt.op, f.name, a.Code, a.Body)
				}
			}
		}
	}
}

// gzipped is a body that unpacks to a thousand times itself.
func gzipped(t *testing.T) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(make([]byte, 1<<20))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestPackedBodies: what comes packed is kept packed (row 54).
func TestPackedBodies(t *testing.T) {
	w := newWorld(t)
	packed := gzipped(t)
	for i := range allForms {
		t.Run("row 54: "+allForms[i].name, func(t *testing.T) {
			r := w.request(t, allForms[i], testCall{method: "PUT", target: "/plain/packed", body: packed, headers: map[string]string{"Content-Encoding": "gzip"}})
			if a := w.serve(r); a.Code != 200 {
				t.Fatal(a.Code, a.Body)
			}
			a := w.do(t, testCall{method: "GET", target: "/plain/packed"}).want(t, 200, "")
			if a.body != packed || a.header.Get("Content-Encoding") != "gzip" {
				t.Errorf("%d bytes came back, encoding %q", len(a.body), a.header.Get("Content-Encoding"))
			}
		})
	}
}
