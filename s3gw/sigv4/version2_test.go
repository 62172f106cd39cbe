package sigv4

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/minio/minio-go/v7/pkg/signer"

	"ashlar/s3gw/s3"
)

// bucketOfTests finds the bucket in front of h.example.
func bucketOfTests(r *http.Request) (string, bool) { return strings.CutSuffix(r.Host, ".h.example") }

// steeringOfTests are parameters that pick operations, signed or not, and one that is ordinary.
var steeringOfTests = map[string]bool{"acl": true, "policyStatus": true, "uploadId": true, "x-ashlar-reads": true}

func testOptions2(now time.Time) Options {
	o := testOptions(now)
	o.Credentials = keyring{testKey: testSecret, "ASIATEMP": "another"}
	o.Version2 = &Version2{Bucket: bucketOfTests, Steers: func(name string) bool { return steeringOfTests[name] }}
	return o
}

const testExpires = 600

// signed2 builds a request and lets minio-go sign it at testTime.
func signed2(t failer, method, rawURL string, headers map[string]string, presign bool) *http.Request {
	t.Helper()
	return signedBy2(t, testKey, testSecret, method, rawURL, headers, presign)
}

func signedBy2(t failer, key, secret, method, rawURL string, headers map[string]string, presign bool) *http.Request {
	t.Helper()
	r := unsigned(t, method, rawURL, headers)
	_, virtual := bucketOfTests(r)
	if !presign {
		r.Header.Set("Date", testTime.Format(http.TimeFormat))
		return trimmed(arrived(t, signer.SignV2(*r, key, secret, virtual), r.URL.String()))
	}
	// The signer asks the clock for the query, but signs what stands in this header.
	expires := strconv.FormatInt(testTime.Unix()+testExpires, 10)
	r.Header.Set("Expires", expires)
	r = signer.PreSignV2(*r, key, secret, testExpires, virtual)
	r.Header.Del("Expires")
	q := r.URL.Query()
	q.Set("Expires", expires)
	r.URL.RawQuery = q.Encode()
	return trimmed(arrived(t, r, r.URL.String()))
}

// trimmed takes off what net/http takes off on the way.
func trimmed(r *http.Request) *http.Request {
	for _, values := range r.Header {
		for i := range values {
			values[i] = strings.Trim(values[i], " \t")
		}
	}
	return r
}

// TestVersion2Vectors: the examples that AWS documents for Signature Version 2, with the
// signatures printed there.
func TestVersion2Vectors(t *testing.T) {
	const day = "Tue, 27 Mar 2007 "
	for _, c := range []struct {
		name, method, host, target, date, signature string
		headers                                     map[string]string
	}{
		{"GET", "GET", "johnsmith.h.example", "/photos/puppy.jpg", day + "19:36:42 +0000", "bWq2s1WEIj+Ydj0vQ697zp+IXMU=", nil},
		{"PUT", "PUT", "johnsmith.h.example", "/photos/puppy.jpg", day + "21:15:45 +0000", "MyyxeRY7whkBe+bq8fHCL/2kKUg=", map[string]string{"Content-Type": "image/jpeg", "Content-Length": "94328"}},
		{"list", "GET", "johnsmith.h.example", "/?prefix=photos&max-keys=50&marker=puppy", day + "19:42:41 +0000", "htDYFYduRNen8P9ZfE/s9SuKy0U=", map[string]string{"User-Agent": "Mozilla/5.0"}},
		{"fetch", "GET", "johnsmith.h.example", "/?acl", day + "19:44:46 +0000", "c2WLPFtWHVgbEmeEG93a4cG37dM=", nil},
		// The document has this date in an x-amz-date as well, which is not in what it then signs.
		{"delete", "DELETE", "h.example", "/johnsmith/photos/puppy.jpg", day + "21:20:26 +0000", "lx3byBScXR6KzyMaifNkardMwNk=", map[string]string{"User-Agent": "dotnet"}},
		{"upload", "PUT", "h.example", "/static.johnsmith.net/db-backup.dat.gz", day + "21:06:08 +0000", "ilyl83RwaSoYIEdixDQcA4OnAnc=", map[string]string{
			"User-Agent": "curl/7.15.5", "X-Amz-Acl": "public-read", "Content-Type": "application/x-download", "Content-Md5": "4gJE4saaMU4BqNR0kLY+lw==",
			"X-Amz-Meta-Reviewedby": "joe@johnsmith.net|jane@johnsmith.net", "X-Amz-Meta-Filechecksum": "0x02661779", "X-Amz-Meta-Checksumalgorithm": "crc32",
			"Content-Disposition": "attachment; filename=database.dat", "Content-Encoding": "gzip", "Content-Length": "5913339"}},
		{"list all buckets", "GET", "h.example", "/", "Wed, 28 Mar 2007 01:29:59 +0000", "qGdzdERIC03wnaRNKh6OqZehG9s=", nil},
		{"unicode keys", "GET", "h.example", "/dictionary/fran%C3%A7ais/pr%c3%a9f%c3%a8re", "Wed, 28 Mar 2007 01:49:49 +0000", "DNEZGsoieTZ92F3bUfSPQcbGmlM=", nil},
		{"presigned", "GET", "johnsmith.h.example", "/photos/puppy.jpg?AWSAccessKeyId=" + docKey + "&Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D&Expires=1175139620", "", "", nil},
		{"GET, of today's document", "GET", "awsexamplebucket1.h.example", "/photos/puppy.jpg", day + "19:36:42 +0000", "qgk2+6Sv9/oM7G3qLEjTH1a1l1g=", nil},
		{"fetch, of today's document", "GET", "awsexamplebucket1.h.example", "/?acl", day + "19:44:46 +0000", "82ZHiFIjc+WbcwFKGUVEQspPn+0=", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, q := request(t, c.method, c.target, c.host, c.headers)
			o := testOptions2(time.Unix(1175139620, 0))
			if c.signature != "" {
				at, err := time.Parse(time.RFC1123Z, c.date)
				if err != nil {
					t.Fatal(err)
				}
				o.Now = func() time.Time { return at }
				r.Header.Set("Date", c.date)
				r.Header.Set("Authorization", "AWS "+docKey+":"+c.signature)
			}
			if v := r.Header["X-Amz-Meta-Reviewedby"]; len(v) > 0 {
				r.Header["X-Amz-Meta-Reviewedby"] = strings.Split(v[0], "|")
			}
			o.Credentials = keyring{docKey: docSecret}
			a, err := New(o).Verify(r, q)
			if err != nil {
				t.Fatal(err)
			}
			if !a.Version2 || a.AccessKey != docKey || a.Account != "account-of-"+docKey || a.Service != serviceS3 || a.Presigned != (c.signature == "") || a.Time.IsZero() != a.Presigned {
				t.Fatalf("auth %+v", a)
			}
		})
	}
}

// TestVersion2Forms: a time may stand in Date or x-amz-date, in each form that clients
// write, and the headers of a presigned request in its query.
func TestVersion2Forms(t *testing.T) {
	v := New(testOptions2(testTime))
	for _, c := range []struct{ name, text, want string }{
		{"Date", testTime.Format(http.TimeFormat), "OK"}, {"Date", testTime.Format(time.RFC1123Z), "OK"}, {"Date", testTime.Format(stampLayout), "OK"},
		{"X-Amz-Date", testTime.Format(http.TimeFormat), "OK"}, {"X-Amz-Date", testTime.Format(time.RFC1123Z), "OK"}, {"X-Amz-Date", testTime.Format(stampLayout), "OK"},
		{"Date", "yesterday", "AccessDenied"}, {"Date", "1175139620", "AccessDenied"}, {"X-Amz-Date", "", "AccessDenied"}, {"Date", "", "AccessDenied"},
	} {
		r, q := request(t, "GET", "/b/k", "h.example", map[string]string{c.name: c.text})
		date, amz := c.text, ""
		if c.name != "Date" {
			r.Header.Set("Date", "Thu, 01 Jan 1970 00:00:00 GMT") // x-amz-date is the one that counts
			date, amz = "", "x-amz-date:"+c.text+"\n"
		}
		r.Header.Set("Authorization", "AWS "+testKey+":"+sign2(testSecret, []byte("GET\n\n\n"+date+"\n"+amz+"/b/k")))
		if _, err := v.Verify(r, q); codeOf(err) != c.want {
			t.Errorf("%s: %s: %v, want %s", c.name, c.text, err, c.want)
		}
	}
	expires := strconv.FormatInt(testTime.Unix()+testExpires, 10)
	what := "PUT\n\ntext/plain\n" + expires + "\nx-amz-acl:private\nx-amz-meta-a:b c\nx-amz-security-token:token-of-ASIATEMP\n/b/k"
	target := func(secret string) string {
		return "/b/k?AWSAccessKeyId=ASIATEMP&Expires=" + expires + "&x-amz-meta-a=b%20c&x-amz-security-token=token-of-ASIATEMP&x-amz-acl=private&Signature=" +
			url.QueryEscape(sign2(secret, []byte(what)))
	}
	for edit, want := range map[*strings.Replacer]string{
		strings.NewReplacer(): "OK", strings.NewReplacer("=b%20c", "=b"): "SignatureDoesNotMatch", strings.NewReplacer("=private", "=public-read"): "SignatureDoesNotMatch",
		strings.NewReplacer("&x-amz-acl=private", ""):                                                       "SignatureDoesNotMatch",
		strings.NewReplacer("x-amz-security-token=token-of-ASIATEMP&", ""):                                  "InvalidToken",
		strings.NewReplacer("token=token-of", "token=another-token-of"):                                     "InvalidToken",
		strings.NewReplacer("token=token-of-ASIATEMP", "token=stale"):                                       "ExpiredToken",
		strings.NewReplacer("=private", "=private&x-amz-acl=public-read"):                                   "InvalidRequest",
		strings.NewReplacer("=private", "=private&X-Amz-Acl=public-read"):                                   "InvalidRequest",
		strings.NewReplacer("=private", "=private&x-amz-grant-read=id%3D1"):                                 "SignatureDoesNotMatch",
		strings.NewReplacer("=private", "=private&x-ashlar-session=1"):                                      "InvalidRequest",
		strings.NewReplacer("=private", "=private&x-amz-content-sha256=STREAMING-UNSIGNED-PAYLOAD-TRAILER"): "InvalidRequest",
	} {
		r, q := request(t, "PUT", edit.Replace(target("another")), "h.example", map[string]string{"Content-Type": "text/plain"})
		if _, err := v.Verify(r, q); codeOf(err) != want {
			t.Errorf("%s: %v, want %s", r.URL, err, want)
		}
	}
	for _, hidden := range []string{"x-amz-meta-a=b%20c%0Ax-amz-security-token:token-of-ASIATEMP", "x-amz-meta-a:b%20c%0Ax-amz-b=1", "x-amz-meta-a%0A=b", "x-amz-meta-a=%20b", "x-amz-meta-%00=b", "x-amz-meta-%11=b"} {
		r, q := request(t, "PUT", strings.Replace(target("another"), "x-amz-meta-a=b%20c", hidden, 1), "h.example", map[string]string{"Content-Type": "text/plain"})
		if _, err := v.Verify(r, q); codeOf(err) != "InvalidRequest" {
			t.Errorf("%s: %v", hidden, err)
		}
	}
	r, q := request(t, "PUT", target("guess"), "h.example", map[string]string{"Content-Type": "text/plain"})
	if _, err := v.Verify(r, q); codeOf(err) != "SignatureDoesNotMatch" || strings.Contains(documentOf(err), "token-of") || !strings.Contains(documentOf(err), "x-amz-meta-a:b c") {
		t.Errorf("what should have been signed is told as %s", documentOf(err))
	}
	for header, value := range map[string]string{"X-Amz-Acl": "public-read", "X-Amz-Security-Token": "token-of-ASIATEMP"} {
		r, q := request(t, "PUT", target("another"), "h.example", map[string]string{"Content-Type": "text/plain", header: value})
		if _, err := v.Verify(r, q); codeOf(err) != "InvalidRequest" {
			t.Errorf("%s in the query and in a header: %v", header, err)
		}
	}
}

// TestVersion2Slash: a slash behind a bucket does not matter, one behind a key does.
func TestVersion2Slash(t *testing.T) {
	v := New(testOptions2(testTime))
	for _, c := range []struct{ host, sent, signed, want string }{
		{"h.example", "/b", "/b", "OK"}, {"h.example", "/b", "/b/", "OK"}, {"h.example", "/b/", "/b/", "OK"}, {"h.example", "/b/", "/b", "SignatureDoesNotMatch"},
		{"h.example", "/b?acl", "/b/?acl", "OK"}, {"h.example", "/b/k", "/b/k/", "SignatureDoesNotMatch"}, {"h.example", "/", "//", "SignatureDoesNotMatch"},
		{"b.h.example", "/k", "/b/k", "OK"}, {"b.h.example", "/k", "/b/k/", "SignatureDoesNotMatch"}, {"b.h.example", "/", "/b/", "OK"},
		{"b.h.example", "/", "/b", "SignatureDoesNotMatch"}, {"b.h.example", "/", "/b//", "SignatureDoesNotMatch"},
	} {
		date := testTime.Format(http.TimeFormat)
		r, q := request(t, "GET", c.sent, c.host, map[string]string{"Date": date})
		r.Header.Set("Authorization", "AWS "+testKey+":"+sign2(testSecret, []byte("GET\n\n\n"+date+"\n"+c.signed)))
		if _, err := v.Verify(r, q); codeOf(err) != c.want {
			t.Errorf("%s%s signed as %s: %v, want %s", c.host, c.sent, c.signed, err, c.want)
		}
	}
}

// documentOf is what the client is told.
func documentOf(err error) string { return string(s3.AppendError(nil, s3.Classify(err), "", "", "")) }

// TestVersion2Refusals changes what is signed, and adds what is not.
func TestVersion2Refusals(t *testing.T) {
	v := New(testOptions2(testTime))
	param := func(raw string) edit {
		return func(r *http.Request) { r.URL.RawQuery = strings.TrimPrefix(r.URL.RawQuery+"&"+raw, "&") }
	}
	path := func(to string) edit { return func(r *http.Request) { r.URL.Path, r.URL.RawPath = to, "" } }
	const target = "http://h.example/b/k?partNumber=1&uploadId=u%26%3D"
	headers := map[string]string{"Content-Type": "a/b", "Content-Md5": "1B2M2Y8AsgTpgAmY7PhCfg==", "X-Amz-Meta-A": "b"}
	for _, c := range []struct {
		name         string
		edit         edit
		header, link string // the answers to a signature in a header and in the query; empty: not sent
	}{
		{"as signed", func(*http.Request) {}, "OK", "OK"},
		{"ordinary parameter", param("prefix=x&list-type=2&x-id=y"), "OK", "OK"},
		{"another host", func(r *http.Request) { r.Host = "elsewhere" }, "OK", "OK"}, // which is not signed
		{"method", func(r *http.Request) { r.Method = "POST" }, "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"key", path("/b/l"), "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"bucket", path("/c/k"), "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"bucket in the host", func(r *http.Request) { r.Host = "c.h.example" }, "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"type", setHeader("Content-Type", "a/c"), "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"digest", setHeader("Content-Md5", "2B2M2Y8AsgTpgAmY7PhCfg=="), "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"metadata", setHeader("X-Amz-Meta-A", "c"), "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"metadata gone", func(r *http.Request) { r.Header.Del("X-Amz-Meta-A") }, "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"metadata twice", func(r *http.Request) { r.Header.Add("X-Amz-Meta-A", "b") }, "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"source", setHeader("X-Amz-Copy-Source", "b/secret"), "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"upload", query("uploadId", "v"), "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"no upload", query("uploadId", ""), "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"operation", param("acl"), "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"override", param("response-content-type=text%2Fhtml"), "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"version", param("versionId=1"), "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"date", setHeader("Date", testTime.Add(time.Second).Format(http.TimeFormat)), "SignatureDoesNotMatch", "OK"}, // a link has its end instead
		{"x-amz-date", setHeader("X-Amz-Date", testTime.Format(stampLayout)), "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{"no date", func(r *http.Request) { r.Header.Del("Date") }, "AccessDenied", "OK"},
		{"end", query("Expires", strconv.FormatInt(testTime.Unix()+testExpires+1, 10)), "", "SignatureDoesNotMatch"},
		{"no end", query("Expires", ""), "", "AccessDenied"},
		{"end in words", query("Expires", "soon"), "", "AccessDenied"},
		{"end before the epoch", query("Expires", "-1"), "", "AccessDenied"},
		{"end that overflows", query("Expires", "99999999999999999999"), "", "AccessDenied"},
		{"two ends", param("Expires=4102444800"), "OK", "AccessDenied"},
		{"two keys", param("AWSAccessKeyId=" + docKey), "InvalidArgument", "AccessDenied"},
		{"no key", query("AWSAccessKeyId", ""), "", "AccessDenied"},
		{"another key", query("AWSAccessKeyId", "AKIX"), "", "InvalidAccessKeyId"},
		{"another key in the header", auth(testKey, "AKIX"), "InvalidAccessKeyId", ""},
		{"no signature", query("Signature", ""), "", "AccessDenied"},
		{"short signature", query("Signature", "c2ln"), "", "SignatureDoesNotMatch"},
		{"short signature in the header", setHeader("Authorization", "AWS "+testKey+":c2ln"), "SignatureDoesNotMatch", ""},
		{"another signature", query("Signature", "frJIUN8DYpKDtOLCwo//yllqDzg="), "", "SignatureDoesNotMatch"},
		{"garbled", setHeader("Authorization", "AWS "+testKey), "InvalidArgument", ""},
		{"no credential", setHeader("Authorization", "AWS "), "InvalidArgument", ""},
		{"two headers", func(r *http.Request) { r.Header.Add("Authorization", "AWS a:b") }, "InvalidArgument", ""},
		{"a header besides a link", setHeader("Authorization", "AWS a:b"), "", "InvalidArgument"},
		{"version 4 in the header", setHeader("Authorization", docAuth("host", strings.Repeat("a", 64))), "", "InvalidArgument"},
		{"version 4 in the query", param("X-Amz-Algorithm=" + algorithm), "InvalidArgument", "InvalidArgument"},
		{"version 4 in the query too", param("X-Amz-Signature=" + strings.Repeat("a", 64)), "InvalidArgument", "InvalidArgument"},
		{"a link besides a header", param("AWSAccessKeyId=a&Signature=b"), "InvalidArgument", ""},
		{"our own header", setHeader("X-Ashlar-Session", "s"), "AccessDenied", "AccessDenied"},
		{"our own parameter", param("x-ashlar-for=1s"), "InvalidRequest", "InvalidRequest"},
		{"our own subresource", param("X-Ashlar-Reads"), "InvalidRequest", "InvalidRequest"},
		{"an operation that it does not sign", param("policyStatus"), "InvalidRequest", "InvalidRequest"},
		{"twice a parameter", param("uploadId=v"), "InvalidRequest", "InvalidRequest"},
		{"a parameter in a value", query("uploadId", "u&versionId=1"), "InvalidRequest", "InvalidRequest"},
		{"a token of a key that has none", setHeader("X-Amz-Security-Token", "t"), "InvalidToken", "InvalidToken"},
		{"a token in the query", param("x-amz-security-token=t"), "InvalidToken", "InvalidToken"},
		{"signed chunks", setHeader("X-Amz-Content-Sha256", streamSigned), "InvalidRequest", "InvalidRequest"},
		{"trailers", setHeader("X-Amz-Content-Sha256", streamUnsignedTrailer), "InvalidRequest", "InvalidRequest"},
		{"chunks of version 4A", setHeader("X-Amz-Content-Sha256", streamECDSA), "InvalidRequest", "InvalidRequest"},
		{"a hash that is none", setHeader("X-Amz-Content-Sha256", "abc"), "InvalidArgument", "InvalidArgument"},
	} {
		for presign, want := range map[bool]string{false: c.header, true: c.link} {
			if want == "" {
				continue
			}
			r := signed2(t, "PUT", target, headers, presign)
			c.edit(r)
			_, err := verify(t, v, r)
			if codeOf(err) != want {
				t.Errorf("%s, presigned %v: %v, want %s", c.name, presign, err, want)
			}
			if again, _ := verify(t, v, signed2(t, "PUT", target, headers, presign)); again == nil {
				t.Fatal("the request is not good before it is changed")
			}
		}
	}
}

// TestVersion2NamesWhatItDoesNotSign: the message says what to take out or how else to sign.
func TestVersion2NamesWhatItDoesNotSign(t *testing.T) {
	v := New(testOptions2(testTime))
	for target, wanted := range map[string][]string{
		"?policyStatus":                     {"policyStatus"},
		"?x-ashlar-reads=nearest":           {"x-ashlar-reads"},
		"?uploadId=a&uploadId=b":            {"uploadId"},
		"?versionId=a%26acl":                {"versionId"},
		"?prefix=a%26acl&delimiter=%26acl=": nil,
		"?response-content-disposition=attachment%3B%20filename%3D%22a%26b=c%22": nil,
	} {
		_, err := verify(t, v, signed2(t, "GET", "http://h.example/b"+target, nil, false))
		if (err == nil) != (wanted == nil) {
			t.Errorf("%s: %v", target, err)
		}
		for _, word := range append(wanted, "AWS4-HMAC-SHA256") {
			if err != nil && !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v does not say %q", target, err, word)
			}
		}
	}
	r := signed2(t, "GET", "http://h.example/b", nil, false)
	r.Header.Set("X-Ashlar-Session", "s")
	if _, err := verify(t, v, r); !strings.Contains(documentOf(err), "<HeadersNotSigned>x-ashlar-session<") {
		t.Error(documentOf(err))
	}
}

// TestVersion2IsOff: without the option it is refused as it always was, also where it
// would be good, and the query APIs never take it.
func TestVersion2IsOff(t *testing.T) {
	off, on := testVerifier(testTime), New(testOptions2(testTime))
	for _, presign := range []bool{false, true} {
		r := signed2(t, "GET", "http://h.example/b/k", nil, presign)
		if _, err := verify(t, on, r); err != nil {
			t.Error(err)
		}
		if _, err := verify(t, off, r); codeOf(err) != "InvalidRequest" || !strings.Contains(err.Error(), "not supported. Please use AWS4-HMAC-SHA256.") {
			t.Error(err)
		}
		if _, err := on.VerifyQuery(r, nil); err == nil || !presign && !strings.Contains(err.Error(), "must begin with AWS4-HMAC-SHA256") {
			t.Error("the query APIs take it:", err)
		}
		if _, err := verify(t, on, signed(t, "GET", "http://h.example/b/k", unsignedPayload, nil, presign)); err != nil {
			t.Error("version 4 is not taken any more:", err)
		}
	}
}

func TestVersion2Clock(t *testing.T) {
	judge := func(offset time.Duration, presign bool) string {
		_, err := verify(t, New(testOptions2(testTime.Add(offset))), signed2(t, "GET", "http://h.example/b/k", nil, presign))
		if presign && err != nil && !strings.Contains(err.Error(), "Request has expired") {
			t.Error(err)
		}
		return codeOf(err)
	}
	for offset, want := range map[time.Duration]string{
		0: "OK", skewMax: "OK", -skewMax: "OK", skewMax + time.Second: "RequestTimeTooSkewed", -skewMax - time.Second: "RequestTimeTooSkewed",
	} {
		if got := judge(offset, false); got != want {
			t.Errorf("%v: %s, want %s", offset, got, want)
		}
	}
	for offset, want := range map[time.Duration]string{
		0: "OK", testExpires * time.Second: "OK", (testExpires + 1) * time.Second: "AccessDenied", -24 * time.Hour: "OK", // it does not say when it begins
	} {
		if got := judge(offset, true); got != want {
			t.Errorf("presigned %v: %s, want %s", offset, got, want)
		}
	}
}

// TestVersion2Rotation: a signature dies with its secret, and a token with its key.
func TestVersion2Rotation(t *testing.T) {
	o := testOptions2(testTime)
	keys := o.Credentials.(keyring)
	v := New(o)
	r := signed2(t, "GET", "http://h.example/b/k", nil, false)
	if _, err := verify(t, v, r); err != nil {
		t.Fatal(err)
	}
	keys[testKey] = "another secret"
	if _, err := verify(t, v, r); codeOf(err) != "SignatureDoesNotMatch" {
		t.Error(err)
	}
	delete(keys, testKey)
	if _, err := verify(t, v, r); codeOf(err) != "InvalidAccessKeyId" {
		t.Error(err)
	}
	token := map[string]string{"X-Amz-Security-Token": "token-of-ASIATEMP"}
	a, err := verify(t, v, signedBy2(t, "ASIATEMP", "another", "GET", "http://h.example/b/k", token, false))
	if err != nil || a.Holder != "holder-of-ASIATEMP" {
		t.Errorf("%+v %v", a, err)
	}
	if _, err := verify(t, v, signedBy2(t, "ASIATEMP", "another", "GET", "http://h.example/b/k", nil, false)); codeOf(err) != "InvalidToken" {
		t.Error(err)
	}
}

// minioSigns are the parameters that minio-go signs: we sign what it signs.
var minioSigns = strings.Fields(`acl cors delete encryption legal-hold lifecycle location logging notification partNumber policy replication
	requestPayment response-cache-control response-content-disposition response-content-encoding response-content-language
	response-content-type response-expires retention select select-type tagging torrent uploadId uploads versionId versioning versions website`)

// sendable2 reports whether a message can be sent, is of no other mechanism, and has no
// parameter that is refused or that minio-go does not sign, nor text that it cannot sign.
func (m message) sendable2() bool {
	steered := steeringOfTests[m.name] || signedByVersion2[m.name]
	return m.sendable() && utf8.ValidString(m.key) && utf8.ValidString(m.value) && m.name != paramExpires && !strings.HasPrefix(strings.ToLower(m.name), "x-a") &&
		(!steered || slices.Contains(minioSigns, m.name)) && !(signedByVersion2[m.name] && hidesParameter(m.value))
}

// FuzzVersion2 is differential: of two messages that differ in one part, the signature of
// one is good for the other exactly if minio-go gives both the same signature.
func FuzzVersion2(f *testing.F) {
	f.Add("a/b c", "acl", "", "v", uint8(1), "a/b  c", false, false)
	f.Add("a/b", "versionId", "1", " two  spaces ", uint8(4), "two spaces", true, false)
	f.Add("..//%2e", "uploadId", "+&=;", "v", uint8(3), " &=;", false, true)
	f.Add("k", "prefix", "a", "v", uint8(2), "uploads", true, true)
	f.Add("ä", "response-content-type", "%", "v", uint8(0), "other", false, false)
	f.Add("k", "partNumber", "1", "v", uint8(6), "x", false, true)
	v := New(testOptions2(testTime))
	if len(minioSigns) < 25 || slices.ContainsFunc(minioSigns, func(name string) bool { return !signedByVersion2[name] }) {
		f.Fatal("minio-go signs what we do not")
	}
	f.Fuzz(func(t *testing.T, key, name, value, header string, part uint8, to string, presign, virtual bool) {
		host := "h.example"
		if virtual {
			host = "bucket.h.example"
		}
		one := message{"PUT", host, key, name, value, header, ""}
		two := one.change(part, to)
		if part%7 == 6 {
			two.host = []string{"other.h.example", "h.example", "bucket.h.example"}[len(to)%3]
		}
		if !one.sendable2() || !two.sendable2() {
			return
		}
		sign := func(m message) *http.Request {
			kind := ""
			if m.payload != "" { // a part that the signature covers, in place of the payload
				kind = "text/x" + m.payload
			}
			return signed2(t, m.method, m.url(), map[string]string{"X-Amz-Meta-A": m.header, "Content-Type": kind}, presign)
		}
		a, b := sign(one), sign(two)
		if _, err := verify(t, v, a); err != nil && strings.TrimSpace(header) == header {
			t.Fatalf("%+v is refused: %v", one, err)
		} else if err != nil {
			return // minio-go signs spaces that do not arrive
		}
		signature := func(r *http.Request) string {
			if presign {
				return r.URL.Query().Get(paramSignature)
			}
			return r.Header.Get("Authorization")
		}
		same := signature(a) == signature(b)
		if !same && strings.TrimSpace(two.header) != two.header {
			return
		}
		if presign {
			q := b.URL.Query()
			q.Set(paramSignature, signature(a))
			b.URL.RawQuery = q.Encode()
		} else {
			b.Header.Set("Authorization", signature(a))
		}
		if _, err := verify(t, v, b); (err == nil) != same || err != nil && codeOf(err) != "SignatureDoesNotMatch" {
			t.Fatalf("signed %+v\nsent   %+v\nminio-go's signatures are the same: %v; ours: %v", one, two, same, err)
		}
	})
}

// FuzzVersion2Query reads any query of a presigned request: what is taken can be read in
// one way only. Who parts its parameters in another way has another signature.
func FuzzVersion2Query(f *testing.F) {
	f.Add("acl", "versionId=1%26acl")
	f.Add("versionId=1&response-content-type=a%26b", "response-content-type=a&versionId=1")
	f.Add("response-content-type=a%26versionId%3D1", "response-content-type=a&versionId=1")
	f.Add("uploadId=a&partNumber=1", "partNumber=1%26uploadId=a")
	f.Add("x-amz-acl=a&x-amz-b=c", "x-amz-acl=a%0Ax-amz-b:c")
	f.Add("x-amz-acl=a&X-Amz-B=c", "x-amz-acl:a%0Ax-amz-b=c")
	f.Add("x-amz-acl=a&acl=", "acl&x-amz-acl=a%09")
	f.Add("prefix=", "X-Amz-")
	v := New(testOptions2(testTime))
	f.Fuzz(func(t *testing.T, one, two string) {
		read := func(raw string) (asked []string, signs string) {
			q, err := s3.ParseQuery(raw)
			c := &claim{version2: true, presigned: true, signature: strings.Repeat("a", version2Signature)}
			r := &http.Request{Method: "GET", URL: &url.URL{Path: "/b/k"}}
			if err != nil || v.readVersion2(r, q, c) != nil {
				return nil, ""
			}
			for _, p := range q {
				low := strings.ToLower(p.Name)
				switch {
				case strings.HasPrefix(low, "x-amz-"):
					asked = append(asked, low+"\x00"+p.Value)
				case signedByVersion2[p.Name]:
					asked = append(asked, p.Name+"\x00"+p.Value)
				}
			}
			slices.Sort(asked)
			return asked, string(v.appendStringToSign(nil, r, q, c, "/b/k"))
		}
		a, signsA := read(one)
		b, signsB := read(two)
		if signsA != "" && signsA == signsB && !slices.Equal(a, b) {
			t.Fatalf("%q and %q are signed alike: %q", a, b, signsA)
		}
	})
}
