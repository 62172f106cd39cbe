package sigv4

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"pgregory.net/rapid"

	"ashlar/s3gw/s3"
)

const (
	testKey    = "AKID/with/slash"
	testSecret = "secret+/="
	testRegion = "eu-test-1"
)

var testTime = time.Date(2026, 2, 28, 23, 59, 30, 0, time.UTC)

func testOptions(now time.Time) Options {
	return Options{Credentials: keyring{testKey: testSecret}, Region: testRegion, Now: func() time.Time { return now }}
}

func testVerifier(now time.Time) *Verifier {
	return New(testOptions(now))
}

func sdkSigner() *v4.Signer {
	return v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
}

var sdkCredentials = aws.Credentials{AccessKeyID: testKey, SecretAccessKey: testSecret}

// signed builds a request and lets the SDK sign it.
func signed(t failer, method, rawURL, payload string, headers map[string]string, presign bool) *http.Request {
	t.Helper()
	return signedBy(t, sdkCredentials, method, rawURL, payload, headers, presign)
}

// unsigned builds a request that is to be signed.
func unsigned(t failer, method, rawURL string, headers map[string]string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, rawURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range headers {
		r.Header.Set(k, v)
	}
	return r
}

func signedBy(t failer, cred aws.Credentials, method, rawURL, payload string, headers map[string]string, presign bool) *http.Request {
	t.Helper()
	r := unsigned(t, method, rawURL, headers)
	if !presign {
		r.Header.Set("X-Amz-Content-Sha256", payload)
		if err := sdkSigner().SignHTTP(context.Background(), cred, r, payload, serviceS3, testRegion, testTime); err != nil {
			t.Fatal(err)
		}
		return arrived(t, r, r.URL.String())
	}
	q := r.URL.Query()
	q.Set("X-Amz-Expires", "600")
	r.URL.RawQuery = q.Encode()
	uri, head, err := sdkSigner().PresignHTTP(context.Background(), cred, r, payload, serviceS3, testRegion, testTime)
	if err != nil {
		t.Fatal(err)
	}
	got := arrived(t, r, uri)
	for k, v := range head {
		if k != "Host" {
			got.Header[http.CanonicalHeaderKey(k)] = v
		}
	}
	return got
}

// signedFor signs a request for a service of a region.
func signedFor(t failer, cred aws.Credentials, service, region, payload string, presign bool) *http.Request {
	t.Helper()
	r, err := http.NewRequest("POST", "http://h.example/?X-Amz-Expires=600", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !presign {
		r.URL.RawQuery = ""
		r.Header.Set("X-Amz-Content-Sha256", payload)
		if err := sdkSigner().SignHTTP(context.Background(), cred, r, payload, service, region, testTime); err != nil {
			t.Fatal(err)
		}
		return arrived(t, r, r.URL.String())
	}
	uri, _, err := sdkSigner().PresignHTTP(context.Background(), cred, r, payload, service, region, testTime)
	if err != nil {
		t.Fatal(err)
	}
	return arrived(t, r, uri)
}

// arrived is the request as the server sees it: only what travelled.
func arrived(t failer, r *http.Request, uri string) *http.Request {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	got, err := http.NewRequest(r.Method, u.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got.Header, got.Host = r.Header.Clone(), u.Host
	return got
}

func verify(t failer, v *Verifier, r *http.Request) (*Auth, error) {
	t.Helper()
	q, err := s3.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	return v.Verify(r, q)
}

// escape writes a path as clients of S3 do.
func escape(path string) string { return string(s3.AppendEscaped(nil, path, true)) }

// TestSDKAgrees signs random requests with the SDK and expects every one to be
// accepted, and to be refused once any part of it is changed.
func TestSDKAgrees(t *testing.T) {
	v := testVerifier(testTime.Add(time.Minute))
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringN(0, 40, 200).Draw(t, "key")
		raw := "http://host.example:9000/bucket/" + escape(key)
		q := url.Values{}
		for i := range rapid.IntRange(0, 4).Draw(t, "params") {
			q.Add(rapid.StringMatching(`[a-z0-9A-Z ~+-]{1,8}`).Draw(t, "name"), rapid.String().Draw(t, "value"+string(rune('0'+i))))
		}
		if len(q) > 0 {
			raw += "?" + strings.ReplaceAll(q.Encode(), "+", "%20")
		}
		sum := sha256.Sum256([]byte(key))
		headers := map[string]string{
			"X-Amz-Meta-Note": rapid.StringMatching(`[!-~]{1,8}( {1,3}[!-~]{1,8}){0,3}`).Draw(t, "meta"),
			"Content-Type":    "text/plain",
		}
		method := rapid.SampledFrom([]string{"GET", "PUT", "POST", "DELETE", "HEAD"}).Draw(t, "method")
		presign := rapid.Bool().Draw(t, "presign")
		payload := hex.EncodeToString(sum[:])
		if presign {
			payload = unsignedPayload
		}
		r := signed(t, method, raw, payload, headers, presign)
		if _, err := verify(t, v, r); err != nil {
			t.Fatalf("refused %s %s: %v", method, r.URL, err)
		}
		what := mutate(t, r)
		if _, err := verify(t, v, r); err == nil {
			t.Fatalf("accepted after a change of %s", what)
		}
	})
}

// mutate changes one signed thing.
func mutate(t *rapid.T, r *http.Request) string {
	kinds := []string{"method", "path", "query", "host", "meta", "unsigned header"}
	if r.Header.Get("Authorization") != "" {
		kinds = append(kinds, "payload", "signature", "date")
	}
	kind := rapid.SampledFrom(kinds).Draw(t, "change")
	switch kind {
	case "method":
		r.Method = map[string]string{"GET": "PUT", "PUT": "GET", "POST": "PUT", "DELETE": "GET", "HEAD": "GET"}[r.Method]
	case "path":
		r.URL.Path += "x"
		r.URL.RawPath = ""
	case "query":
		r.URL.RawQuery += "&x-id=DeleteObject"
	case "host":
		r.Host = "other.example:9000"
	case "meta":
		r.Header.Set("X-Amz-Meta-Note", r.Header.Get("X-Amz-Meta-Note")+"x")
	case "unsigned header":
		r.Header.Set("X-Amz-Copy-Source", "other/key")
	case "payload":
		r.Header.Set("X-Amz-Content-Sha256", unsignedPayload)
	case "signature":
		h := []byte(r.Header.Get("Authorization"))
		h[len(h)-1] ^= 1
		r.Header.Set("Authorization", string(h))
	case "date":
		r.Header.Set("X-Amz-Date", testTime.Add(time.Second).Format(stampLayout))
	}
	return kind
}

// failer is what helpers need of a test, plain or of rapid.
type failer interface {
	Helper()
	Fatal(...any)
}

// TestRawPath accepts a path that was signed exactly as it was sent, although
// AWS would have escaped it.
func TestRawPath(t *testing.T) {
	v := testVerifier(testTime)
	for _, path := range []string{"/b/a!b'(c)*", "/b/a:b@c", "/b/a%2fb", "//b//k", "/b/../k", "/b/.", "/b/a+b", "/b/%e4"} {
		r := signed(t, "GET", "http://h.example"+path, unsignedPayload, nil, false)
		if _, err := verify(t, v, r); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}
