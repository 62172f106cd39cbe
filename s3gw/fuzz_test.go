package s3gw

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ashlar/s3gw/s3"
)

var formTime = time.Date(2026, 2, 28, 12, 0, 0, 0, time.UTC)

// signedForm writes a form whose policy allows keys under up/, images, and 1 to 20 bytes;
// extra stands before the file.
func signedForm(key, contentType, file, extra string) []byte {
	stamp, day := formTime.Format(stampLayout), formTime.Format("20060102")
	credential := testKey + "/" + day + "/" + testRegion + "/s3/aws4_request"
	policy := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, `{"expiration":"2026-02-28T13:00:00Z","conditions":[{"bucket":"bucket"},["starts-with","$key","up/"],`+
		`["starts-with","$Content-Type","image/"],["content-length-range",1,20],{"x-amz-algorithm":"AWS4-HMAC-SHA256"},{"x-amz-credential":%q},{"x-amz-date":%q}]}`, credential, stamp))
	mac := testMAC(testMAC(testMAC(testMAC([]byte("AWS4"+testSecret), day), testRegion), "s3"), "aws4_request")
	var b strings.Builder
	for _, f := range [][2]string{{"key", key}, {"Content-Type", contentType}, {"policy", policy}, {"x-amz-algorithm", "AWS4-HMAC-SHA256"}, {"x-amz-credential", credential},
		{"x-amz-date", stamp}, {"x-amz-signature", hex.EncodeToString(testMAC(mac, policy))}} {
		fmt.Fprintf(&b, "--B\r\nContent-Disposition: form-data; name=%q\r\n\r\n%s\r\n", f[0], f[1])
	}
	return []byte(b.String() + extra + "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f.png\"\r\n\r\n" + file + "\r\n--B--\r\n")
}

// FuzzPostForm posts any body as a form. Nothing is stored but what the signed policy
// allows, under the name that it allows, and never does a form make the gateway fail.
func FuzzPostForm(f *testing.F) {
	field := func(name, value string) string {
		return "--B\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
	}
	good := signedForm("up/k", "image/png", "content", "")
	f.Add("multipart/form-data; boundary=B", good)
	f.Add("multipart/form-data; boundary=B", signedForm("up/${filename}", "image/png", strings.Repeat("x", 20), field("x-ignore-me", "1")))
	f.Add("multipart/form-data; boundary=B", signedForm("down/k", "image/png", "content", ""))
	f.Add("multipart/form-data; boundary=B", signedForm("up/k", "text/html", "content", ""))
	f.Add("multipart/form-data; boundary=B", signedForm("up/k", "image/png", strings.Repeat("x", 21), ""))
	f.Add("multipart/form-data; boundary=B", signedForm("up/k", "image/png", "", ""))
	f.Add("multipart/form-data; boundary=B", signedForm("up/k", "image/png", "x", field("acl", "public-read")))
	f.Add("multipart/form-data; boundary=B", signedForm("up/k", "image/png", "x", field("success_action_redirect", "http://h/")))
	f.Add("multipart/form-data; boundary=B", []byte(field("key", "k")+field("file", "x")+"--B--\r\n"))
	f.Add("multipart/form-data; boundary=", []byte("--\r\n"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		m := newMemory()
		s := New(Options{Backend: m, Credentials: keyring{testKey: testSecret}, Region: testRegion, Clock: func() time.Time { return formTime }, HostID: "gw1"})
		if err := m.CreateBucket(t.Context(), testAccount, "bucket", testRegion); err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("POST", "/bucket", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		objects := m.buckets["bucket"].objects
		if string(body) == string(good) && contentType == "multipart/form-data; boundary=B" && w.Code != 204 {
			t.Fatalf("the good form: %d %s", w.Code, w.Body)
		}
		if w.Code >= 500 || (w.Code < 400) != (len(objects) == 1) || len(objects) > 1 {
			t.Fatalf("%d with %d objects: %s", w.Code, len(objects), w.Body)
		}
		for key, o := range objects {
			if !strings.HasPrefix(key, "up/") || len(o.data) < 1 || len(o.data) > 20 || !strings.HasPrefix(o.ContentType, "image/") ||
				!strings.Contains(string(body), string(o.data)) || len(o.User)+len(o.Tags)+len(o.ACL) > 0 {
				t.Fatalf("%q of %q, %d bytes: against the policy", key, o.ContentType, len(o.data))
			}
		}
	})
}

// FuzzTokens: any text as a continuation token is refused or is one that we make, and where
// a listing stands comes back out of the token as it went in.
func FuzzTokens(f *testing.F) {
	f.Add("", "a/b")
	f.Add("YTE6aw==", "ä\x00\xff")
	f.Add("YTE6aw", "a1:")
	f.Add("a1:k", "+&=")
	f.Fuzz(func(t *testing.T, token, last string) {
		read := func(token string) (string, error) {
			r, err := http.NewRequest("GET", "/?continuation-token="+string(s3.AppendEscaped(nil, token, false)), nil)
			if err != nil {
				t.Fatal(err)
			}
			q, err := parseQuery(r)
			if err != nil {
				t.Fatal(err)
			}
			return (&call{query: q}).token("continuation-token")
		}
		if after, err := read(token); err == nil && (after == "" || strings.TrimRight(makeToken(after), "\r\n") != strings.NewReplacer("\r", "", "\n", "").Replace(token)) {
			t.Fatalf("%q was read as %q, whose token is %q", token, after, makeToken(after))
		} else if err != nil && s3.Classify(err).Code != s3.InvalidArgument {
			t.Fatal(err)
		}
		if last == "" {
			return
		}
		if after, err := read(makeToken(last)); err != nil || after != last {
			t.Fatalf("%q came back as %q: %v", last, after, err)
		}
	})
}
