package s3gw

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// testForm is a POST form in the making; fields keep their order.
type testForm struct {
	bucket     string
	key        string // for the table of refusals
	conditions string // of the policy, JSON, without those that the signature needs
	policy     string // instead of one from conditions
	fields     [][2]string
	file       string
	noFile     bool
	secret     string
	accessKey  string // testKey if empty
	region     string // testRegion if empty
	old        bool   // signed with HMAC-SHA1
	headers    map[string]string
	cut        int // bytes that are missing at the end
}

// send signs and sends the form.
func (f testForm) send(t *testing.T, g *gateway) answer {
	t.Helper()
	now := time.Now().UTC()
	f.secret, f.accessKey, f.region = cmp.Or(f.secret, testSecret), cmp.Or(f.accessKey, testKey), cmp.Or(f.region, testRegion)
	stamp, credential := now.Format(stampLayout), f.accessKey+"/"+now.Format("20060102")+"/"+f.region+"/s3/aws4_request"
	if f.policy == "" {
		f.policy = fmt.Sprintf(`{"expiration":%q,"conditions":[{"x-amz-algorithm":"AWS4-HMAC-SHA256"},{"x-amz-credential":%q},{"x-amz-date":%q},%s]}`,
			now.Add(time.Minute).Format(time.RFC3339), credential, stamp, f.conditions)
		if f.old {
			f.policy = fmt.Sprintf(`{"expiration":%q,"conditions":[%s]}`, now.Add(time.Minute).Format(time.RFC3339), f.conditions)
		}
	}
	policy := base64.StdEncoding.EncodeToString([]byte(f.policy))
	var auth [][2]string
	if f.old {
		h := hmac.New(sha1.New, []byte(f.secret))
		h.Write([]byte(policy))
		auth = [][2]string{{"AWSAccessKeyId", f.accessKey}, {"signature", base64.StdEncoding.EncodeToString(h.Sum(nil))}}
	} else {
		key := testMAC(testMAC(testMAC(testMAC([]byte("AWS4"+f.secret), now.Format("20060102")), f.region), "s3"), "aws4_request")
		auth = [][2]string{{"X-Amz-Algorithm", "AWS4-HMAC-SHA256"}, {"X-Amz-Credential", credential}, {"X-Amz-Date", stamp},
			{"X-Amz-Signature", hex.EncodeToString(testMAC(key, policy))}}
	}
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for _, field := range append(append(f.fields, [2]string{"Policy", policy}), auth...) {
		if err := w.WriteField(field[0], field[1]); err != nil {
			t.Fatal(err)
		}
	}
	if !f.noFile {
		part, err := w.CreateFormFile("file", "dir/photo.jpg")
		if err != nil {
			t.Fatal(err)
		}
		part.Write([]byte(f.file))
	}
	w.Close()
	body.Truncate(body.Len() - f.cut)
	r, err := http.NewRequest("POST", g.url+"/"+f.bucket, &body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", w.FormDataContentType())
	for k, v := range f.headers {
		r.Header.Set(k, v)
	}
	g.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return g.send(t, r)
}

const anyForm = `{"bucket":"bucket"},["starts-with","$key","up/"]`

func TestPostForm(t *testing.T) {
	g := startReal(t, "bucket")
	for name, old := range map[string]bool{"V4": false, "HMAC-SHA1": true} {
		f := testForm{
			bucket: "bucket", old: old, file: "content", fields: [][2]string{
				{"key", "up/${filename}"}, {"Content-Type", "image/jpeg"}, {"x-amz-meta-Colour", "blue"}, {"Content-Language", "de"}, {"acl", "bucket-owner-full-control"},
				{"tagging", "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"}, {"x-ignore-me", "1"},
				{"success_action_status", "201"}},
			conditions: anyForm + `,["eq","$Content-TYPE","image/jpeg"],{"X-AMZ-meta-colour":"blue"},{"content-language":"de"},{"acl":"bucket-owner-full-control"},["starts-with","$tagging",""],
				["starts-with","$success_action_status",""],["content-length-range",7,"7"]`,
			// Headers of the request are not signed: they must not count.
			headers: map[string]string{"X-Amz-Meta-Colour": "red", "X-Amz-Meta-More": "x", "Cache-Control": "no-store"},
		}
		if a := f.send(t, g).want(t, 201, ""); !strings.Contains(a.body, "<PostResponse><Location>") || !strings.Contains(a.body, "<Key>up/photo.jpg</Key>") {
			t.Errorf("%s: %s", name, a.body)
		}
		a := g.do(t, testCall{method: "GET", target: "/bucket/up/photo.jpg"}).want(t, 200, "")
		h := a.header
		if a.body != "content" || h.Get("Content-Type") != "image/jpeg" || h.Get("X-Amz-Meta-Colour") != "blue" || h.Get("Content-Language") != "de" ||
			h.Get("X-Amz-Meta-More") != "" || h.Get("Cache-Control") != "" || h.Get("X-Amz-Tagging-Count") != "1" {
			t.Errorf("%s: %q %v", name, a.body, h)
		}
		g.do(t, testCall{method: "DELETE", target: "/bucket/up/photo.jpg"}).want(t, 204, "")
	}
}

func TestPostFormAnswers(t *testing.T) {
	g := startReal(t, "bucket")
	for _, c := range []struct {
		field, value, location string
		status                 int
	}{
		{"x-ignore-", "", "/bucket/up/k", 204}, {"success_action_status", "200", "/bucket/up/k", 200}, {"success_action_status", "404", "/bucket/up/k", 204},
		{"success_action_redirect", "https://example.test/done?a=b", "https://example.test/done?a=b&bucket=bucket&key=up%2Fk&etag=%229dd4e461268c8034f5c8564e155c67a6%22", 303},
		{"success_action_redirect", "javascript:alert(1)", "/bucket/up/k", 204},
		{"success_action_redirect", "http://example.test/\r\nX: y", "/bucket/up/k", 204},
	} {
		f := testForm{bucket: "bucket", file: "x", fields: [][2]string{{"key", "up/k"}, {c.field, c.value}},
			conditions: anyForm + `,["starts-with","$success_action_status",""],["starts-with","$success_action_redirect",""]`}
		if a := f.send(t, g).want(t, c.status, ""); !strings.HasSuffix(a.header.Get("Location"), c.location) {
			t.Errorf("%v: %s", c, a.header.Get("Location"))
		}
	}
}

// TestPostFormRefusals: each form fails for one reason, and nothing is stored.
func TestPostFormRefusals(t *testing.T) {
	g := startReal(t, "bucket")
	soon := time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
	for name, c := range map[string]struct {
		form   testForm
		status int
		code   string
	}{
		"row 3: wrong secret":            {testForm{conditions: anyForm, secret: "guess"}, 403, "SignatureDoesNotMatch"},
		"row 3: wrong secret, old":       {testForm{conditions: anyForm, secret: "guess", old: true}, 403, "SignatureDoesNotMatch"},
		"row 29: condition fails":        {testForm{conditions: `{"bucket":"bucket"},["starts-with","$key","down/"]`}, 403, "AccessDenied"},
		"row 29: key not in policy":      {testForm{conditions: `{"bucket":"bucket"}`}, 403, "AccessDenied"},
		"row 29: bucket not in policy":   {testForm{conditions: `["starts-with","$key",""]`}, 403, "AccessDenied"},
		"row 20: other bucket":           {testForm{conditions: `{"bucket":"other"},["starts-with","$key",""]`}, 403, "AccessDenied"},
		"row 29: extra field":            {testForm{conditions: anyForm, fields: [][2]string{{"x-amz-meta-a", "b"}}}, 403, "AccessDenied"},
		"row 29: field without a name":   {testForm{conditions: anyForm, fields: [][2]string{{"", strings.Repeat("x", 30<<10)}}}, 400, "MalformedPOSTRequest"},
		"row 29: field twice":            {testForm{conditions: anyForm, fields: [][2]string{{"KEY", "up/k"}}}, 400, "InvalidArgument"},
		"row 20: bucket field differs":   {testForm{conditions: anyForm, fields: [][2]string{{"bucket", "other"}}}, 403, "AccessDenied"},
		"row 29: too large":              {testForm{conditions: anyForm + `,["content-length-range",0,3]`}, 400, "EntityTooLarge"},
		"row 29: too small":              {testForm{conditions: anyForm + `,["content-length-range",8,9]`}, 400, "EntityTooSmall"},
		"row 29: bad range":              {testForm{conditions: anyForm + `,["content-length-range",-1,0]`}, 400, "InvalidPolicyDocument"},
		"row 29: short range":            {testForm{conditions: anyForm + `,["content-length-range",0]`}, 400, "InvalidPolicyDocument"},
		"row 29: unknown operator":       {testForm{conditions: anyForm + `,["ends-with","$key","k"]`}, 400, "InvalidPolicyDocument"},
		"row 29: no expiration":          {testForm{policy: `{"conditions":[]}`}, 400, "InvalidPolicyDocument"},
		"row 29: no conditions":          {testForm{policy: `{"expiration":"` + soon + `"}`}, 400, "InvalidPolicyDocument"},
		"row 29: case matters":           {testForm{policy: `{"expiration":"` + soon + `","CONDITIONS":[]}`}, 400, "InvalidPolicyDocument"},
		"row 7: expired":                 {testForm{policy: `{"expiration":"2020-01-01T00:00:00Z","conditions":[]}`}, 403, "AccessDenied"},
		"row 29: not JSON":               {testForm{policy: `{`}, 400, "InvalidPolicyDocument"},
		"row 29: no file":                {testForm{conditions: anyForm, noFile: true}, 400, "IncorrectNumberOfFilesInPostRequest"},
		"row 29: fields too large":       {testForm{conditions: anyForm, fields: [][2]string{{"x-ignore-a", strings.Repeat("x", 21<<10)}}}, 400, "MaxPostPreDataLengthExceededError"},
		"row 29: endless fields":         {testForm{conditions: anyForm, fields: [][2]string{{"x-ignore-a", strings.Repeat("x", 1<<20)}}}, 400, "MaxPostPreDataLengthExceededError"},
		"encryption":                     {testForm{conditions: anyForm + `,{"x-amz-server-side-encryption":"AES256"}`, fields: [][2]string{{"x-amz-server-side-encryption", "AES256"}}}, 400, "KMS.NotFoundException"},
		"row 35: bad digest":             {testForm{conditions: anyForm + `,["starts-with","$Content-MD5",""]`, fields: [][2]string{{"Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA=="}}}, 400, "BadDigest"},
		"row 14: cut short":              {testForm{conditions: anyForm, cut: 5}, 400, "IncompleteBody"},
		"row 2: unknown access key":      {testForm{conditions: anyForm, accessKey: "AKIDNOBODY"}, 403, "InvalidAccessKeyId"},
		"row 2: unknown access key, old": {testForm{conditions: anyForm, accessKey: "AKIDNOBODY", old: true}, 403, "InvalidAccessKeyId"},
		"row 4: other region":            {testForm{conditions: anyForm, region: "mars-1"}, 400, "InvalidArgument"},
		"row 19: token of a key without": {testForm{conditions: anyForm + `,{"x-amz-security-token":"t"}`, fields: [][2]string{{"x-amz-security-token", "t"}}}, 400, "InvalidToken"},
		"row 23: NUL in the key":         {testForm{conditions: anyForm, key: "up/\x00"}, 400, "InvalidURI"},
		"row 23: key not UTF-8":          {testForm{conditions: anyForm, key: "up/\xff"}, 400, "InvalidURI"},
		"row 24: long key":               {testForm{conditions: anyForm, key: "up/" + strings.Repeat("k", 1022)}, 400, "KeyTooLongError"},
		"row 25: bad bucket":             {testForm{bucket: "Bucket", conditions: `{"bucket":"Bucket"},["starts-with","$key",""]`}, 400, "InvalidBucketName"},
		"row 34: metadata above 2 KB": {testForm{conditions: anyForm + `,["starts-with","$x-amz-meta-a",""]`,
			fields: [][2]string{{"x-amz-meta-a", strings.Repeat("x", 2048)}}}, 400, "MetadataTooLarge"},
		"row 35: digest that is none": {testForm{conditions: anyForm + `,["starts-with","$Content-MD5",""]`, fields: [][2]string{{"Content-MD5", "???"}}}, 400, "InvalidDigest"},
		"row 35: bad checksum": {testForm{conditions: anyForm + `,["starts-with","$x-amz-checksum-crc32",""]`,
			fields: [][2]string{{"x-amz-checksum-crc32", "AAAAAA=="}}}, 400, "BadDigest"},
		"row 35: two checksums": {testForm{conditions: anyForm + `,["starts-with","$x-amz-checksum-crc32",""],["starts-with","$x-amz-checksum-crc32c",""]`,
			fields: [][2]string{{"x-amz-checksum-crc32", "AAAAAA=="}, {"x-amz-checksum-crc32c", "AAAAAA=="}}}, 400, "InvalidRequest"},
		"bucket gone": {testForm{bucket: "nope", conditions: `{"bucket":"nope"},["starts-with","$key",""]`}, 404, "NoSuchBucket"},
	} {
		f := c.form
		if f.bucket == "" {
			f.bucket = "bucket"
		}
		f.file = "content"
		f.fields = append([][2]string{{"key", cmp.Or(f.key, "up/k")}}, f.fields...)
		t.Run(name, func(t *testing.T) {
			a := f.send(t, g).want(t, c.status, c.code)
			_, bytes, _ := strings.Cut(a.body, "<StringToSignBytes>65 79 ") // a policy in base64 begins with ey
			if c.code == "SignatureDoesNotMatch" && bytes == "" {
				t.Errorf("nobody is told what was to be signed: %s", a.body)
			}
		})
	}
	if a := g.do(t, testCall{method: "GET", target: "/bucket?list-type=2"}); !strings.Contains(a.body, "<KeyCount>0</KeyCount>") {
		t.Errorf("something was stored: %s", a.body)
	}
}

// TestPostFormClimbingKeys: dots and strokes are a part of the key (row 22), and a
// packed file is kept packed (row 54).
func TestPostFormClimbingKeys(t *testing.T) {
	g := startReal(t, "bucket")
	g.do(t, testCall{method: "PUT", target: "/other"}).want(t, 200, "")
	packed := gzipped(t)
	for _, key := range []string{"../other/k", `..\other\k`, "/other/k", "a/../../other/k", "..", "."} {
		testForm{bucket: "bucket", conditions: `{"bucket":"bucket"},["starts-with","$key",""]`, fields: [][2]string{{"key", key}}, file: packed}.send(t, g).want(t, 204, "")
		if a := g.do(t, testCall{method: "GET", target: "/bucket/" + strings.ReplaceAll(url.PathEscape(key), ".", "%2E")}).want(t, 200, ""); a.body != packed {
			t.Errorf("%q: %d bytes came back", key, len(a.body))
		}
	}
	if a := g.do(t, testCall{method: "GET", target: "/other?versions"}).want(t, 200, ""); strings.Contains(a.body, "<Key>") {
		t.Error(a.body)
	}
}

// A form without a policy is an anonymous upload, and one that is not finished
// stores nothing.
func TestPostFormWithoutPolicy(t *testing.T) {
	g := startReal(t, "bucket")
	post := func(contentType, body string) answer {
		r, err := http.NewRequest("POST", g.url+"/bucket", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		return g.send(t, r)
	}
	const kind = "multipart/form-data; boundary=B"
	field := func(name, value string) string {
		return "--B\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
	}
	post(kind, field("key", "k")+field("file", "x")+"--B--\r\n").want(t, 403, "AccessDenied")
	post("multipart/form-data", field("key", "k")).want(t, 400, "MalformedPOSTRequest")
	post(kind, "").want(t, 400, "MalformedPOSTRequest")
	post(kind, "--B\r\nContent-Disposition").want(t, 400, "MalformedPOSTRequest")
	post("application/x-www-form-urlencoded", "key=k").want(t, 403, "AccessDenied")
	post(kind, field("policy", "e30=")+field("key", "k")+field("file", "x")+"--B--\r\n").want(t, 400, "InvalidArgument")
}
