package s3gw

import (
	"crypto/md5"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func onObjects(rt *route) bool { return rt.on == onObject }
func copies(rt *route) bool    { return rt.copy }
func withXML(rt *route) bool   { return takesDocument(rt) && rt.op != "PutBucketPolicy" }
func ofUpload(rt *route) bool  { return rt.sub == "uploadId" }

// at sends a call to another path; the query stays.
func at(path string) func(*testCall, *route) {
	return func(c *testCall, _ *route) {
		_, query, has := strings.Cut(c.target, "?")
		if c.target = path; has {
			c.target += "?" + query
		}
	}
}

// holding replaces the body.
func holding(body string) func(*testCall, *route) {
	return func(c *testCall, rt *route) {
		c.body = body
		if c.headers["Content-Md5"] != "" {
			c.headers["Content-Md5"] = md5Base64(body)
		}
	}
}

// wrapping puts the good body of a call into another text.
func wrapping(wrap func(string) string) func(*testCall, *route) {
	return func(c *testCall, rt *route) { holding(wrap(c.body))(c, rt) }
}

// ofUploadID names another upload.
func ofUploadID(id string) func(*testCall, *route) {
	return func(c *testCall, _ *route) {
		before, _, _ := strings.Cut(c.target, "uploadId=")
		c.target = before + "uploadId=" + id
	}
}

func deleting(keys ...string) func(*testCall, *route) {
	doc := "<Delete>"
	for _, k := range keys {
		doc += "<Object><Key>" + k + "</Key></Object>"
	}
	return holding(doc + "</Delete>")
}

// malformed is how bad XML is refused: ACLs have a code of their own.
func malformed(r *httptest.ResponseRecorder) bool {
	return r.Code == 400 && (strings.Contains(r.Body.String(), "<Code>MalformedXML</Code>") || strings.Contains(r.Body.String(), "<Code>MalformedACLError</Code>"))
}

var (
	longKey  = strings.Repeat("k", 1025)
	deepXML  = strings.Repeat("<a>", 33) + strings.Repeat("</a>", 33)
	sources  = "X-Amz-Copy-Source"
	manyKeys = func() []string {
		keys := make([]string, 1001)
		for i := range keys {
			keys[i] = fmt.Sprint("k", i)
		}
		return keys
	}()
)

var nameRefusals = []refusal{
	{row: 23, name: "NUL in a key", routes: onObjects, spoil: at("/bucket/a%00b"), status: 400, code: "InvalidURI"},
	{row: 23, name: "a key that is not UTF-8", routes: onObjects, spoil: at("/bucket/%ff"), status: 400, code: "InvalidURI"},
	{row: 23, name: "a key with half a character", routes: onObjects, spoil: at("/bucket/%c3%28"), status: 400, code: "InvalidURI"},
	{row: 23, name: "a source that is not UTF-8", routes: copies, spoil: sending(sources, "bucket/%ff"), status: 400, code: "InvalidURI"},
	{row: 23, name: "NUL in a source", routes: copies, spoil: sending(sources, "bucket/%00"), status: 400, code: "InvalidURI"},
	{row: 23, name: "NUL in a key of a batch", routes: ofOps("DeleteObjects"), spoil: deleting("a&#0;b"), status: 400, code: "MalformedXML"},
	{row: 23, name: "a key of a batch that is not UTF-8", routes: ofOps("DeleteObjects"), spoil: deleting("\xff"), status: 400, code: "MalformedXML"},
	{row: 24, name: "a long key", routes: onObjects, spoil: at("/bucket/" + longKey), status: 400, code: "KeyTooLongError"},
	{row: 24, name: "a long source", routes: copies, spoil: sending(sources, "bucket/"+longKey), status: 400, code: "KeyTooLongError"},
	{row: 24, name: "a long key of a batch", routes: ofOps("DeleteObjects"), spoil: deleting(longKey), status: 400, code: "KeyTooLongError"},
	{row: 27, name: "a source that may not be read", routes: copies, spoil: sending(sources, "other-bucket/secret"), status: 403, code: "AccessDenied"},
	{row: 27, name: "a part that cannot be, before its source", routes: ofOps("UploadPartCopy"), spoil: func(c *testCall, _ *route) {
		c.target, c.headers[sources] = strings.Replace(c.target, "partNumber=1&", "partNumber=0&", 1), "no-bucket/k"
	}, status: 400, code: "InvalidArgument"},
	{row: 27, name: "a range beyond the source", routes: ofOps("UploadPartCopy"), spoil: sending("X-Amz-Copy-Source-Range", "bytes=0-10"), status: 400, code: "InvalidArgument"},
	{row: 27, name: "a range of the source that is none", routes: ofOps("UploadPartCopy"), spoil: sending("X-Amz-Copy-Source-Range", "bytes=9-0"), status: 400, code: "InvalidArgument"},
	{row: 34, name: "metadata above 2 KB", routes: ofOps("PutObject", "CopyObject", "CreateMultipartUpload"), spoil: func(c *testCall, _ *route) {
		c.headers["X-Amz-Meta-A"], c.headers["X-Amz-Metadata-Directive"] = strings.Repeat("x", 2048), "REPLACE"
	}, status: 400, code: "MetadataTooLarge"},
	{row: 36, name: "a range past the end", routes: ofOps("GetObject", "HeadObject"), spoil: sending("Range", "bytes=10-"), status: 416, code: "InvalidRange"},
	{row: 36, name: "a range that is none is ignored", routes: ofOps("GetObject", "HeadObject"), spoil: sending("Range", "bytes=9-0"),
		answers: func(w *httptest.ResponseRecorder) bool { return w.Code == 200 && w.Header().Get("Content-Range") == "" }},
	{row: 44, name: "the key is there", routes: ofOps("PutObject", "CopyObject", "CompleteMultipartUpload"), spoil: sending("If-None-Match", "*"), status: 412, code: "PreconditionFailed"},
	{row: 44, name: "another ETag", routes: ofOps("PutObject", "CopyObject", "CompleteMultipartUpload", "DeleteObject"),
		spoil: sending("If-Match", `"0123456789abcdef0123456789abcdef"`), status: 412, code: "PreconditionFailed"},
	{row: 38, name: "a marker of uploads that is none", routes: ofOps("ListMultipartUploads"), spoil: func(c *testCall, _ *route) {
		c.target += "&key-marker=k&upload-id-marker=none"
	}, status: 400, code: "InvalidArgument"},
	{row: 51, name: "a bucket that is not empty", routes: ofOps("DeleteBucket"), spoil: func(*testCall, *route) {}, status: 409, code: "BucketNotEmpty"},
}

// badBuckets are names that no bucket has.
var badBuckets = []string{"Bucket", "ab", strings.Repeat("b", 64), "192.168.1.1", "xn--bucket", "bu_cket", "-bucket", "bucket.", "bu..cket", "bucket-s3alias", "bu%2Fcket", "%2e%2e", ".."}

func (w *world) documentRefusals() []refusal {
	list := []refusal{
		{row: 38, name: "an upload that is not there", routes: ofUpload, spoil: ofUploadID("none"), status: 404, code: "NoSuchUpload"},
		{row: 38, name: "an upload that was aborted", routes: ofUpload, spoil: ofUploadID(w.aborted), status: 404, code: "NoSuchUpload"},
		{row: 38, name: "an upload of another key", routes: ofUpload, spoil: ofUploadID(w.foreign), status: 404, code: "NoSuchUpload"},
		{row: 38, name: "an empty upload id", routes: ofUpload, spoil: ofUploadID(""), status: 404, code: "NoSuchUpload"},
		{row: 41, name: "more than a thousand keys", routes: ofOps("DeleteObjects"), spoil: deleting(manyKeys...), status: 400, code: "MalformedXML"},
		{row: 41, name: "no digest", routes: ofOps("DeleteObjects"), spoil: func(c *testCall, _ *route) { delete(c.headers, "Content-Md5") }, status: 400, code: "InvalidRequest"},
	}
	part := func(n int, etag string) string {
		return fmt.Sprintf("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", n, etag)
	}
	complete := func(parts string) string { return "<CompleteMultipartUpload>" + parts + "</CompleteMultipartUpload>" }
	for _, c := range []struct{ name, doc, code string }{
		{"parts out of order", part(2, w.part) + part(1, w.part), "InvalidPartOrder"}, {"a part twice", part(1, w.part) + part(1, w.part), "InvalidPartOrder"},
		{"a part that is not there", part(2, w.part), "InvalidPart"}, {"another ETag of a part", part(1, "0123456789abcdef0123456789abcdef"), "InvalidPart"},
		{"part 0", part(0, w.part), "InvalidArgument"}, {"part 10001", part(10001, w.part), "InvalidArgument"}, {"no parts", "", "MalformedXML"},
		{"too many parts", strings.Repeat(part(1, "x"), 10001), "MalformedXML"}, {"a part without a number", "<Part><ETag>x</ETag></Part>", "MalformedXML"},
	} {
		list = append(list, refusal{row: 39, name: c.name, routes: ofOps("CompleteMultipartUpload"), spoil: holding(complete(c.doc)), status: 400, code: c.code})
	}
	for name, wrap := range map[string]func(string) string{
		"a DTD":                     func(s string) string { return `<!DOCTYPE x [<!ENTITY e "v">]>` + s },
		"an external entity":        func(s string) string { return `<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>` },
		"an entity that nobody has": func(s string) string { return strings.Replace(s, "</", "&e;</", 1) },
		"too deep":                  func(string) string { return deepXML },
		"two roots":                 func(s string) string { return s + s },
		"text behind the root":      func(s string) string { return s + "x" },
		"a root that is none":       func(string) string { return "<x/>" },
		"cut off":                   func(s string) string { return s[:max(len(s)-3, 1)] },
		"no XML":                    func(string) string { return "{}" },
		"more than 2 MiB":           func(s string) string { return s + strings.Repeat(" ", 2<<20) },
		"another encoding":          func(s string) string { return `<?xml version="1.0" encoding="UTF-16"?>` + s },
	} {
		if name == "an entity that nobody has" { // the empty document has no text to put it into
			list = append(list, refusal{row: 40, name: name, routes: func(rt *route) bool { return withXML(rt) && rt.op != "CreateBucket" && rt.op != "PutBucketReads" }, spoil: wrapping(wrap), answers: malformed})
			continue
		}
		list = append(list, refusal{row: 40, name: name, routes: func(rt *route) bool { return withXML(rt) && rt.op != "PutBucketReads" }, spoil: wrapping(wrap), answers: malformed})
	}
	statement := func(principal, condition string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":` + principal + `,"Action":"s3:GetObject","Resource":"arn:aws:s3:::bucket/*"` + condition + `}]}`
	}
	for name, doc := range map[string]string{
		"above 20 KB":              statement(`"*"`, `,"Sid":"`+strings.Repeat("x", 20<<10)+`"`),
		"an unknown key":           statement(`"*"`, `,"Condition":{"StringEquals":{"s3:neverHeardOf":"x"}}`),
		"an unknown operator":      statement(`"*"`, `,"Condition":{"StringSounds":{"s3:prefix":"x"}}`),
		"a principal that is none": statement(`{"AWS":"not a name"}`, ""),
		"a principal of no kind":   statement(`{"Robot":"x"}`, ""),
		"a group as principal":     statement(`{"AWS":"arn:aws:iam::111:group/x"}`, ""),
		"an unknown element":       statement(`"*"`, `,"Mood":"good"`),
		"no principal":             `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::bucket/*"}]}`,
		"another bucket":           `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::other-bucket/*"}]}`,
		"no JSON":                  "<x/>",
		"text behind the end":      statement(`"*"`, "") + "{}",
		"nothing":                  "",
	} {
		list = append(list, refusal{row: 43, name: name, routes: ofOps("PutBucketPolicy"), spoil: holding(doc), status: 400, code: "MalformedPolicy"})
	}
	return list
}

func (w *world) lockRefusals() []refusal {
	bypass := "X-Amz-Bypass-Governance-Retention"
	of := func(key, version string) func(*testCall, *route) {
		return func(c *testCall, rt *route) {
			switch rt.op {
			case "DeleteObjects":
				holding("<Delete><Object><Key>"+key+"</Key><VersionId>"+version+"</VersionId></Object></Delete>")(c, rt)
			case "PutObjectRetention":
				c.target = "/bucket/" + key + "?retention&versionId=" + version
				c.body = "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>" + time.Now().Add(time.Minute).UTC().Format(time.RFC3339) + "</RetainUntilDate></Retention>"
			default:
				c.target = "/bucket/" + key + "?versionId=" + version
			}
		}
	}
	ways := ofOps("DeleteObject", "DeleteObjects", "PutObjectRetention")
	return []refusal{
		{row: 49, name: "a version under COMPLIANCE", routes: ways, spoil: of("locked", w.locked), status: 403, code: "AccessDenied"},
		{row: 49, name: "a version under COMPLIANCE, by its owner's order", routes: ways, spoil: func(c *testCall, rt *route) {
			of("locked", w.locked)(c, rt)
			c.headers[bypass] = "true"
		}, status: 403, code: "AccessDenied"},
		{row: 49, name: "a version under GOVERNANCE", routes: ways, spoil: of("governed", w.governed), status: 403, code: "AccessDenied"},
		{row: 49, name: "a version under GOVERNANCE, by order of one who has no right to give it", routes: ways, spoil: func(c *testCall, rt *route) {
			of("governed", w.governed)(c, rt)
			c.headers[bypass], c.key, c.secret = "true", "AKIDDELETER", testSecret
		}, status: 403, code: "AccessDenied"},
	}
}

// TestRefusedNames, TestRefusedDocuments and TestRefusedUnderLock: what is asked for
// with a good signature and must not be done leaves everything as it was.
func TestRefusedNames(t *testing.T) {
	w := newWorld(t)
	list := nameRefusals
	for _, name := range badBuckets {
		list = append(list, refusal{row: 25, name: "a bucket called " + name, routes: func(rt *route) bool { return rt.on == onBucket }, spoil: at("/" + name), status: 400, code: "InvalidBucketName"},
			refusal{row: 25, name: "a key in a bucket called " + name, routes: onObjects, spoil: at("/" + name + "/k"), status: 400, code: "InvalidBucketName"})
	}
	w.unchanged(t, func() { w.refuse(t, list, allForms, w.call) })
}

func TestRefusedDocuments(t *testing.T) {
	w := newWorld(t)
	w.unchanged(t, func() { w.refuse(t, w.documentRefusals(), allForms, w.call) })
}

func TestRefusedUnderLock(t *testing.T) {
	w := newWorld(t)
	w.unchanged(t, func() { w.refuse(t, w.lockRefusals(), allForms, w.call) })
}

// TestUnlistedOrigin: a page of an origin that no rule of the bucket names learns
// nothing, whatever it asks for.
func TestUnlistedOrigin(t *testing.T) {
	silent := func(a *httptest.ResponseRecorder) bool {
		for name := range a.Header() {
			if strings.HasPrefix(name, "Access-Control-") {
				return false
			}
		}
		return true
	}
	w := newWorld(t)
	w.refuse(t, []refusal{{row: 46, name: "an origin that is not listed", spoil: sending("Origin", "https://evil.test"), answers: silent,
		routes: func(rt *route) bool { return rt.method != "HEAD" && rt.method != "DELETE" }}}, allForms, w.call) // HEAD is everybody's by corsDoc
}

// climbing are keys that would lead out of a bucket if a key were a path.
var climbing = []string{"../other-bucket/secret", "%2e%2e/other-bucket/secret", "..%2fother-bucket%2fsecret", "%2e%2e%2fother-bucket%2fsecret",
	`..%5cother-bucket%5csecret`, "./../other-bucket/secret", "a/../../other-bucket/secret", "/other-bucket/secret", "..", "."}

// TestClimbingKeys: dots and strokes are a part of a key of the bucket that was
// named, in every place where a key can stand (row 22).
func TestClimbingKeys(t *testing.T) {
	w := newWorld(t)
	secret := func() string {
		return w.do(t, testCall{method: "GET", target: "/other-bucket?versions", key: "AKIDOTHER", secret: testSecret}).want(t, 200, "").body
	}
	before := secret()
	try := func(t *testing.T, f *form, rt *route, c testCall) {
		a := w.serve(w.request(t, *f, c))
		if strings.Contains(a.Body.String(), theSecret) || a.Code >= 500 && a.Code != http.StatusNotImplemented {
			t.Errorf("%s, %s, %s: %d %s", rt.op, f.name, c.target, a.Code, a.Body)
		}
	}
	for _, key := range climbing {
		t.Run("row 22: "+key, func(t *testing.T) {
			for i := range routes {
				rt := &routes[i]
				for j := range forms {
					c := w.call(rt)
					switch {
					case rt.on == onObject:
						at("/plain/"+key)(&c, rt)
						try(t, &forms[j], rt, c)
						if !rt.copy {
							continue
						}
						c = w.call(rt)
						c.headers[sources] = "plain/" + key
						if a := w.serve(w.request(t, forms[j], c)); strings.Contains(a.Body.String(), md5Hex(theSecret)) {
							t.Errorf("%s, %s: copied the secret: %s", rt.op, forms[j].name, a.Body)
						}
					case rt.op == "DeleteObjects":
						deleting(strings.NewReplacer("%2e", ".", "%2f", "/", "%5c", `\`).Replace(key))(&c, rt)
						try(t, &forms[j], rt, c)
					}
				}
			}
		})
	}
	if after := secret(); after != before {
		t.Errorf("another bucket was reached.\nbefore: %s\nafter:  %s", before, after)
	}
}

// md5Hex is the ETag of a text.
func md5Hex(s string) string { return fmt.Sprintf("%x", md5.Sum([]byte(s))) }
