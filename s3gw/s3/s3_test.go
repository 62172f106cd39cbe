package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"ashlar"
	"ashlar/s3gw/store"
)

func codeOf(err error) string {
	var e *Error
	if err == nil {
		return "OK"
	}
	if errors.As(err, &e) {
		return e.Code.String()
	}
	return "not an S3 error: " + err.Error()
}

func TestEveryCodeIsDefined(t *testing.T) {
	seen := map[string]bool{}
	for c := range codes {
		info := codes[c]
		if info.name == "" || info.status < 300 || info.message == "" || seen[info.name] {
			t.Errorf("code %d: %+v", c, info)
		}
		seen[info.name] = true
	}
}

func TestBucketNames(t *testing.T) {
	for _, good := range []string{"abc", "a-b", "a.b.c", "0ab", "my-bucket.1", strings.Repeat("a", 63), "1.2.3", "256.1.1.1"} {
		if b, err := ParseBucket(good); err != nil || string(b) != good {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "ab", strings.Repeat("a", 64), "Abc", "a_b", "-ab", "ab-", ".ab", "ab.", "a..b", "192.168.1.1", "xn--abc",
		"sthree-x", "abc-s3alias", "abc--ol-s3", "a/b", "a b", "äbc", "a\x00b", "..", "a%b", "abc--x-s3"} {
		if _, err := ParseBucket(bad); codeOf(err) != "InvalidBucketName" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestKeys(t *testing.T) {
	for _, good := range []string{"a", "..", ".", "a/../b", "//", "/", `\`, "%2e%2e", "ä\n", strings.Repeat("x", 1024), "\x7f\x01"} {
		if k, err := ParseKey(good); err != nil || string(k) != good {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, code := range map[string]string{"": "InvalidURI", "a\x00": "InvalidURI", "\xff": "InvalidURI", "a\xc3": "InvalidURI",
		strings.Repeat("x", 1025): "KeyTooLongError", strings.Repeat("ä", 513): "KeyTooLongError"} {
		if _, err := ParseKey(bad); codeOf(err) != code {
			t.Errorf("%q: %v, want %s", bad, err, code)
		}
	}
}

func TestCopySource(t *testing.T) {
	for in, want := range map[string][3]string{
		"bkt/key": {"bkt", "key", ""}, "/bkt/key": {"bkt", "key", ""}, "bkt/a%20b%2Bc": {"bkt", "a b+c", ""}, "bkt/a+b": {"bkt", "a+b", ""},
		"bkt%2Fkey": {"bkt", "key", ""}, "bkt//x": {"bkt", "/x", ""}, "bkt/../other/k": {"bkt", "../other/k", ""},
		"bkt/k?versionId=0123456789abcdef0123456789abcdef": {"bkt", "k", "0123456789abcdef0123456789abcdef"}, "bkt/k%3FversionId=abc": {"bkt", "k?versionId=abc", ""},
	} {
		b, k, v, err := ParseCopySource(in)
		if got := [3]string{string(b), string(k), v}; err != nil || got != want {
			t.Errorf("%q: %v %v", in, got, err)
		}
	}
	for in, code := range map[string]string{"": "InvalidArgument", "/": "InvalidArgument", "bkt": "InvalidArgument", "bkt/": "InvalidArgument",
		"bkt/%zz": "InvalidArgument", "bkt/%": "InvalidArgument", "bkt/k?x=y": "InvalidArgument", "..%2Fk": "InvalidArgument", "BKT/k": "InvalidArgument",
		"bkt/%00": "InvalidURI", "bkt/" + strings.Repeat("k", 1025): "KeyTooLongError", "arn:aws:s3:::x/object/y": "NotImplemented"} {
		if _, _, _, err := ParseCopySource(in); codeOf(err) != code {
			t.Errorf("%q: %v, want %s", in, err, code)
		}
	}
}

func TestRange(t *testing.T) {
	for _, c := range []struct {
		header string
		size   uint64
		want   string
	}{
		{"bytes=0-0", 10, "0+1"}, {"bytes=0-", 10, "0+10"}, {"bytes=3-5", 10, "3+3"}, {"bytes=3-99", 10, "3+7"}, {"bytes=-3", 10, "7+3"},
		{"bytes=-99", 10, "0+10"}, {"bytes=9-", 10, "9+1"}, {"bytes=0-99999999999999999999999", 10, "0+10"},
		{"bytes=10-", 10, "InvalidRange"}, {"bytes=10-12", 10, "InvalidRange"}, {"bytes=-0", 10, "InvalidRange"}, {"bytes=0-", 0, "InvalidRange"},
		{"bytes=-1", 0, "whole"}, {"bytes=99999999999999999999999-", 10, "InvalidRange"},
		{"", 10, "whole"}, {"bytes=5-3", 10, "whole"}, {"bytes=a-b", 10, "whole"}, {"bytes=", 10, "whole"}, {"bytes=-", 10, "whole"},
		{"items=0-1", 10, "whole"}, {"bytes=0-1,3-4", 10, "whole"}, {"bytes=1", 10, "whole"}, {"bytes= -1", 10, "whole"}, {"bytes=1-2 ", 10, "whole"}, {"bytes=+1-2", 10, "whole"}, {"bytes=1-2-3", 10, "whole"},
	} {
		r, ok, err := ParseRange(c.header, c.size)
		got := "whole"
		if err != nil {
			got = codeOf(err)
		} else if ok {
			got = fmt.Sprintf("%d+%d", r.Offset, r.Length)
		}
		if got != c.want {
			t.Errorf("%q of %d: %s, want %s", c.header, c.size, got, c.want)
		}
	}
	for _, c := range []struct{ header, want string }{
		{"bytes=0-9", "0+10"}, {"bytes=4-4", "4+1"}, {"bytes=0-10", "InvalidArgument"}, {"bytes=10-12", "InvalidArgument"}, {"bytes=5-", "InvalidArgument"},
		{"bytes=-5", "InvalidArgument"}, {"0-5", "InvalidArgument"}, {"bytes=5-4", "InvalidArgument"}, {"bytes=0-1,2-3", "InvalidArgument"},
	} {
		r, err := ParseCopyRange(c.header, 10)
		got := fmt.Sprintf("%d+%d", r.Offset, r.Length)
		if err != nil {
			got = codeOf(err)
		}
		if got != c.want {
			t.Errorf("copy %q: %s, want %s", c.header, got, c.want)
		}
	}
}

func TestJudgeRead(t *testing.T) {
	modified := time.Date(2026, 1, 2, 3, 4, 5, 999, time.UTC)
	at := modified.Truncate(time.Second).Format(http.TimeFormat)
	before, after := modified.Add(-time.Hour).Format(http.TimeFormat), modified.Add(time.Hour).Format(http.TimeFormat)
	for _, c := range []struct{ headers, code, copyCode string }{
		{"", "OK", "OK"},
		{`If-Match: "e"`, "OK", "OK"}, {`If-Match: e`, "OK", "OK"}, {`If-Match: *`, "OK", "OK"}, {`If-Match: "x", "e"`, "OK", "OK"},
		{`If-Match: "x"`, "PreconditionFailed", "PreconditionFailed"}, {`If-Match: ""`, "PreconditionFailed", "PreconditionFailed"},
		{`If-None-Match: "e"`, "NotModified", "PreconditionFailed"}, {`If-None-Match: W/"e"`, "NotModified", "PreconditionFailed"},
		{`If-None-Match: "x"`, "OK", "OK"}, {`If-None-Match: *`, "NotModified", "PreconditionFailed"},
		{"If-Modified-Since: " + at, "NotModified", "PreconditionFailed"}, {"If-Modified-Since: " + before, "OK", "OK"},
		{"If-Unmodified-Since: " + at, "OK", "OK"}, {"If-Unmodified-Since: " + before, "PreconditionFailed", "PreconditionFailed"},
		{"If-Modified-Since: never", "OK", "OK"},
		{`If-Match: "e"|If-Unmodified-Since: ` + before, "OK", "OK"},
		{`If-None-Match: "x"|If-Modified-Since: ` + after, "OK", "OK"},
	} {
		for _, prefix := range []string{"", "X-Amz-Copy-Source-"} {
			h := http.Header{}
			for _, line := range strings.Split(c.headers, "|") {
				if name, value, ok := strings.Cut(line, ": "); ok {
					h.Set(prefix+name, value)
				}
			}
			cond := Conditions(h, prefix)
			want := c.code
			if prefix != "" {
				want = c.copyCode
			}
			if got := codeOf(JudgeRead(&cond, "e", modified, prefix != "")); got != want {
				t.Errorf("%s%s: %s, want %s", prefix, c.headers, got, want)
			}
		}
	}
}

func TestMetadataAndTags(t *testing.T) {
	h := http.Header{"X-Amz-Meta-A": {"1", "2"}, "X-Amz-Meta-B-C": {"x"}, "X-Other": {"y"}}
	if m, err := UserMetadata(h); err != nil || !reflect.DeepEqual(m, map[string]string{"a": "1,2", "b-c": "x"}) {
		t.Fatal(m, err)
	}
	h = http.Header{"X-Amz-Meta-A": {strings.Repeat("x", MetadataBytesMax-1)}}
	if _, err := UserMetadata(h); err != nil {
		t.Fatal(err)
	}
	h.Set("X-Amz-Meta-A", strings.Repeat("x", MetadataBytesMax))
	if _, err := UserMetadata(h); codeOf(err) != "MetadataTooLarge" {
		t.Fatal(err)
	}
	for in, code := range map[string]string{"": "OK", "a=b&c=d%20e": "OK", "a=b&a=c": "InvalidArgument", "=x": "InvalidArgument", "a=%3Cb": "InvalidTag", "%zz": "InvalidArgument",
		"a&b&c&d&e&f&g&h&i&j&k": "BadRequest", strings.Repeat("k", 129) + "=v": "InvalidTag", "k=" + strings.Repeat("v", 257): "InvalidTag"} {
		if _, err := TagsOf(http.Header{"X-Amz-Tagging": {in}}); codeOf(err) != code {
			t.Errorf("tags %q: %v, want %s", in, err, code)
		}
	}
}

func TestStripChunked(t *testing.T) {
	for in, want := range map[string]string{"": "", "gzip": "gzip", "aws-chunked": "", "aws-chunked,gzip": "gzip", "gzip, aws-chunked": "gzip", "a, b": "a, b",
		"a, b, aws-chunked": "a, b", "a,b,aws-chunked": "a,b", "aws-chunked, a, b": "a, b", "aws-chunked, aws-chunked": ""} {
		if got := StripChunked(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestChecksums(t *testing.T) {
	// The check values of "123456789" from the algorithms' definitions.
	for name, want := range map[string]string{"CRC32": "y/Q5Jg==", "CRC32C": "4waSgw==", "CRC64NVME": "rosUhgp5mIg=",
		"SHA1": "98O8HYCOBHMq32eZZczDTKeuNEE=", "SHA256": "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=",
		"MD5": "JfnnlDI7RTiF9RgfG2JNCw==", "SHA512": "2eZ2LdHI6vbWGzxhkvxAjU1tXxF20MKRabwk5xw/J0rSf81YEbMT1oH35V7ALXPUmclUVba1u1A6z1dPuo/+hQ==",
		"XXHASH64": "jLhB20DmroM=", "XXHASH3": "ctyxi2ehff8=", "XXHASH128": "MxGUd+3l3NXpcWQnaB1YYA=="} {
		a := AlgorithmOf(name)
		h := a.New()
		h.Write([]byte("123456789"))
		got := FormatChecksum(&store.Checksum{Algorithm: name, Value: h.Sum(nil)})
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		back, err := ParseChecksum(a, got)
		if err != nil || FormatChecksum(back) != got {
			t.Errorf("%s: %v %v", name, back, err)
		}
		if _, err := ParseChecksum(a, got+"-3"); (err == nil) != a.Composite {
			t.Errorf("%s-3: %v", name, err)
		}
	}
	for _, c := range []struct {
		header http.Header
		code   string
	}{
		{http.Header{"X-Amz-Checksum-Crc32": {"y/Q5Jg=="}, "X-Amz-Checksum-Mode": {"ENABLED"}}, "OK"},
		{http.Header{"X-Amz-Checksum-Crc32": {"y/Q5Jg=="}, "X-Amz-Checksum-Sha1": {"98O8HYCOBHMq32eZZczDTKeuNEE="}}, "InvalidRequest"},
		{http.Header{"X-Amz-Checksum-Crc32": {"y/Q5Jg==", "y/Q5Jg=="}}, "InvalidRequest"},
		{http.Header{"X-Amz-Checksum-Crc32": {"y/Q5Jg"}}, "InvalidRequest"},
		{http.Header{"X-Amz-Checksum-Crc32": {"AAAA"}}, "InvalidRequest"},
		{http.Header{"X-Amz-Checksum-Md6": {"AAAA"}}, "InvalidRequest"},
	} {
		if _, _, err := ChecksumOf(c.header); codeOf(err) != c.code {
			t.Errorf("%v: %v, want %s", c.header, err, c.code)
		}
	}
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err   error
		code  string
		retry bool
	}{
		{fmt.Errorf("store: put: %w", E(BadDigest, "")), "BadDigest", false},
		{ashlar.E("store: put", "", ashlar.Invalid, E(IncompleteBody, "")), "IncompleteBody", false},
		{ashlar.E("store: get", "", ashlar.NotFound, store.ErrNoSuchKey), "NoSuchKey", false},
		{store.ErrNoSuchBucket, "NoSuchBucket", false}, {store.ErrBucketExists, "BucketAlreadyExists", false},
		{store.ErrBucketOwned, "BucketAlreadyOwnedByYou", false}, {store.ErrBucketNotEmpty, "BucketNotEmpty", false},
		{store.ErrNoSuchVersion, "NoSuchVersion", false}, {store.ErrNoSuchUpload, "NoSuchUpload", false},
		{store.ErrInvalidPart, "InvalidPart", false}, {store.ErrInvalidPartOrder, "InvalidPartOrder", false},
		{store.ErrEntityTooSmall, "EntityTooSmall", false}, {store.ErrEntityTooLarge, "EntityTooLarge", false},
		{store.ErrBadDigest, "BadDigest", false}, {store.ErrCopyUnchanged, "InvalidRequest", false},
		{store.ErrPreconditionFailed, "PreconditionFailed", false}, {store.ErrConflict, "ConditionalRequestConflict", false},
		{store.ErrQuota, "QuotaExceeded", false},
		{ashlar.E("x", "", ashlar.Unavailable, nil), "ServiceUnavailable", true}, {ashlar.E("x", "", ashlar.Busy, nil), "SlowDown", true},
		{ashlar.E("x", "", ashlar.Full, nil), "SlowDown", true}, {ashlar.E("x", "", ashlar.Corrupt, nil), "ServiceUnavailable", true},
		{ashlar.E("x", "", ashlar.Stale, nil), "ServiceUnavailable", true}, {ashlar.E("x", "", ashlar.Denied, nil), "AccessDenied", false},
		{context.DeadlineExceeded, "ServiceUnavailable", true}, {context.Canceled, "RequestTimeout", false},
		// A piece that is not found is not an object that is not found.
		{ashlar.E("x", "", ashlar.NotFound, nil), "InternalError", false}, {errors.New("?"), "InternalError", false},
	} {
		e := Classify(c.err)
		if e.Code.String() != c.code || (e.RetryAfterSeconds > 0) != c.retry {
			t.Errorf("%v: %s, retry %d; want %s", c.err, e.Code, e.RetryAfterSeconds, c.code)
		}
	}
	if e := Classify(ashlar.E("x", "", ashlar.Full, nil)); !strings.Contains(e.Message, "full") || e.RetryAfterSeconds <= retrySeconds {
		t.Errorf("full: %q, retry after %d s", e.Message, e.RetryAfterSeconds)
	}
	if Classify(nil) != nil {
		t.Error("nil is an error")
	}
}

func TestErrorDocument(t *testing.T) {
	e := E(NoSuchKey, "").With("Key", "a<b>&\"'\x01\xff")
	got := string(AppendError(nil, e, "/bkt/a<b", "ID1", "host"))
	want := `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message><Key>a&lt;b&gt;&amp;&quot;&#39;&#x1;` + "\uFFFD" +
		`</Key><Resource>/bkt/a&lt;b</Resource><RequestId>ID1</RequestId><HostId>host</HostId></Error>`
	if got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestParseComplete(t *testing.T) {
	part := func(n, etag string) string {
		return "<Part><PartNumber>" + n + "</PartNumber><ETag>" + etag + "</ETag></Part>"
	}
	doc := func(parts string) string {
		return `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">` + parts + "</CompleteMultipartUpload>"
	}
	got, err := ParseComplete([]byte(doc(part(" 1 ", "&quot;aa&quot;") + "<Part><ETag>\"bb\"</ETag><ChecksumCRC32>y/Q5Jg==</ChecksumCRC32><PartNumber>7</PartNumber></Part>")))
	if err != nil || len(got) != 2 || got[0].ETag != "aa" || got[1].Number != 7 || got[1].ETag != "bb" || got[1].Checksum.Algorithm != "CRC32" {
		t.Fatal(got, err)
	}
	var many strings.Builder
	for i := range store.PartsMax + 1 {
		many.WriteString(part(fmt.Sprint(i+1), "e"))
	}
	for in, code := range map[string]string{
		"": "MalformedXML", "x": "MalformedXML", doc(""): "MalformedXML", doc("<Part/>"): "MalformedXML", doc(part("-1", "a")): "InvalidArgument",
		doc(part("2", "a") + part("1", "b")): "InvalidPartOrder", doc(part("1", "a") + part("1", "a")): "InvalidPartOrder",
		doc(part("0", "a")): "InvalidArgument", doc(part("10001", "a")): "InvalidArgument", doc(part("x", "a")): "MalformedXML", doc(part("1", "")): "MalformedXML",
		doc(part("1", "a") + "<Other/>"): "MalformedXML", doc(many.String()): "MalformedXML", "<Delete>" + part("1", "a") + "</Delete>": "MalformedXML",
	} {
		if _, err := ParseComplete([]byte(in)); codeOf(err) != code {
			t.Errorf("%.80q: %v, want %s", in, err, code)
		}
	}
}

func TestParseDelete(t *testing.T) {
	keys, quiet, err := ParseDelete([]byte(`<?xml version="1.0" encoding="UTF-8"?><Delete><Quiet>true</Quiet>` +
		`<Object><Key>../a&amp;b</Key></Object><Object><Key> c </Key><VersionId>null</VersionId><ETag>"e"</ETag><Size>3</Size><LastModifiedTime>Thu, 01 Jan 2015 00:00:00 GMT</LastModifiedTime></Object></Delete>` + "\n"))
	three, date := uint64(3), time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)
	want := []DeleteKey{{Key: "../a&b"}, {Key: " c ", VersionID: "null", ETag: "e", Bytes: &three, Modified: &date}}
	if err != nil || !quiet || !reflect.DeepEqual(keys, want) {
		t.Fatal(keys, quiet, err)
	}
	object := "<Object><Key>k</Key></Object>"
	if keys, _, err := ParseDelete([]byte("<Delete>" + strings.Repeat(object, 1000) + "</Delete>")); err != nil || len(keys) != 1000 {
		t.Fatal(len(keys), err)
	}
	for _, bad := range []string{
		"", "<Delete></Delete>", "<Delete>" + strings.Repeat(object, 1001) + "</Delete>", "<Other>" + object + "</Other>",
		"<Delete><Object></Object></Delete>", "<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>",
		"<Delete>" + object + "</Delete>junk", "<Delete>" + object + "</Delete><Delete/>", "<Delete>" + object, "<Delete>" + object + "</Other>",
		`<!DOCTYPE d [<!ENTITY x "y">]><Delete><Object><Key>&x;</Key></Object></Delete>`, "<Delete><Object><Key>&x;</Key></Object></Delete>",
		`<!DOCTYPE d SYSTEM "file:///etc/passwd"><Delete>` + object + "</Delete>",
		"<Delete>" + strings.Repeat("<a>", 40) + strings.Repeat("</a>", 40) + "</Delete>",
		"<Delete>" + strings.Repeat(" ", XMLBytesMax) + object + "</Delete>", "<Delete><Object><Key>\xff</Key></Object></Delete>",
		`<?xml version="1.0" encoding="UTF-16"?><Delete>` + object + "</Delete>", "<Delete><Object><Key><b>k</b></Key></Object></Delete>",
		"<Delete><Object><Key>\x00</Key></Object></Delete>", "<Delete>" + object + "<?php x?></Delete>",
	} {
		if _, _, err := ParseDelete([]byte(bad)); codeOf(err) != "MalformedXML" {
			t.Errorf("%.80q: %v", bad, err)
		}
	}
}

func TestParseNewBucket(t *testing.T) {
	for in, want := range map[string]string{"": "", "<CreateBucketConfiguration/>": "",
		`<CreateBucketConfiguration xmlns="x"><LocationConstraint> eu-1 </LocationConstraint></CreateBucketConfiguration>`: "eu-1"} {
		if got, tags, err := ParseNewBucket([]byte(in)); err != nil || got != want || tags != nil {
			t.Errorf("%q: %q %v %v", in, got, tags, err)
		}
	}
	if _, tags, err := ParseNewBucket([]byte("<CreateBucketConfiguration><Tags><Tag><Key>k</Key><Value>v</Value></Tag></Tags></CreateBucketConfiguration>")); err != nil || len(tags) != 1 || tags["k"] != "v" {
		t.Errorf("tags: %v %v", tags, err)
	}
	for in, code := range map[string]string{"x": "MalformedXML", "<Other/>": "MalformedXML",
		"<CreateBucketConfiguration><Tags><Tag><Key>aws:k</Key><Value/></Tag></Tags></CreateBucketConfiguration>": "InvalidTag",
		"<CreateBucketConfiguration><Location/></CreateBucketConfiguration>":                                      "NotImplemented"} {
		if _, _, err := ParseNewBucket([]byte(in)); codeOf(err) != code {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestPolicyConditionIsPrintedAsItIsWritten(t *testing.T) {
	c := postCondition{field: "key", value: "up/<", prefix: true}
	doc := string(AppendError(nil, E(AccessDenied, "Policy Condition failed: "+c.String()), "/b", "1", "h"))
	if !strings.Contains(doc, `<Message>Policy Condition failed: ["starts-with", "$key", "up/&lt;"]</Message>`) {
		t.Error(doc)
	}
}

// FuzzXMLText proves that whatever a key holds, the document around it stays whole.
func FuzzXMLText(f *testing.F) {
	f.Add("a<b>&'\"\x00\x01\x7f\xff\uFFFE")
	f.Fuzz(func(t *testing.T, s string) {
		w := Writer{}
		w.Begin("R")
		w.Text("K", s)
		w.Close("R")
		if !utf8.Valid(w.B) {
			t.Fatalf("%q", w.B)
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' && r != '\r' }) {
			return // XML 1.0 has no way to say it; AWS's reference is not for parsers
		}
		var back struct{ K string }
		if err := xml.Unmarshal(w.B, &back); err != nil {
			t.Fatalf("%q: %v", w.B, err)
		}
		if utf8.ValidString(s) && !strings.ContainsAny(s, "\uFFFE\uFFFF") && back.K != s {
			t.Fatalf("%q came back as %q", s, back.K)
		}
	})
}

// FuzzQuery: every parameter that is read can be written and is read as the same again.
func FuzzQuery(f *testing.F) {
	f.Add("a=b&c")
	f.Add("%ff=%00&a=+&=x&a%3Db")
	f.Fuzz(func(t *testing.T, query string) {
		q, err := ParseQuery(query)
		if err != nil {
			if codeOf(err) != "InvalidURI" && codeOf(err) != "InvalidArgument" {
				t.Fatal(err)
			}
			return
		}
		var out []byte
		for i, p := range q {
			if i > 0 {
				out = append(out, '&')
			}
			out = append(AppendEscaped(out, p.Name, false), '=')
			out = AppendEscaped(out, p.Value, false)
		}
		for i := range q {
			q[i].HasValue = true // that is how all are written here
		}
		if again, err := ParseQuery(string(out)); err != nil || !slices.Equal(again, q) {
			t.Fatalf("%q was written as %q and read as %v instead of %v: %v", query, out, again, q, err)
		}
	})
}

func BenchmarkListing(b *testing.B) {
	w := Writer{}
	b.ReportAllocs()
	for b.Loop() {
		w.B = w.B[:0]
		w.Begin("ListBucketResult")
		for range 1000 {
			w.Open("Contents")
			w.Name("Key", "photos/2026/02/28/some-file-name.jpg")
			w.ETag("ETag", "d41d8cd98f00b204e9800998ecf8427e")
			w.Int("Size", 123456)
			w.Close("Contents")
		}
		w.Close("ListBucketResult")
	}
}
