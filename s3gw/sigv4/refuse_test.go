package sigv4

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"ashlar/s3gw/s3"
)

// edit changes a signed request before it arrives.
type edit func(r *http.Request)

func setHeader(name, value string) edit { return func(r *http.Request) { r.Header.Set(name, value) } }

func auth(from, to string) edit {
	return func(r *http.Request) {
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), from, to, 1))
	}
}

func query(name, value string) edit {
	return func(r *http.Request) {
		q := r.URL.Query()
		if q.Set(name, value); value == "" {
			q.Del(name)
		}
		r.URL.RawQuery = q.Encode()
	}
}

func TestHeaderRefusals(t *testing.T) {
	v := testVerifier(testTime)
	for _, c := range []struct {
		name string
		edit edit
		code string
	}{
		{"as signed", func(*http.Request) {}, "OK"},
		{"no credentials", func(r *http.Request) { r.Header.Del("Authorization") }, "AccessDenied"},
		{"empty credentials", setHeader("Authorization", ""), "AccessDenied"},
		{"unknown key", auth("AKID/with", "AKIX/with"), "InvalidAccessKeyId"},
		{"signature v2", setHeader("Authorization", "AWS AKID:c2lnbmF0dXJl"), "InvalidRequest"},
		{"signature v2 without a signature", setHeader("Authorization", "AWS AKID"), "InvalidArgument"},
		{"signature v2 in the query", func(r *http.Request) {
			r.Header.Del("Authorization")
			r.URL.RawQuery = "AWSAccessKeyId=AKID&Expires=99999999999&Signature=c2ln"
		}, "InvalidRequest"},
		{"two mechanisms", query("X-Amz-Algorithm", algorithm), "InvalidArgument"},
		{"two headers", func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }, "InvalidArgument"},
		{"another scheme", setHeader("Authorization", "Bearer x"), "InvalidArgument"},
		{"only the algorithm", setHeader("Authorization", algorithm), "AuthorizationHeaderMalformed"},
		{"no space", auth(algorithm+" ", algorithm), "AuthorizationHeaderMalformed"},
		{"wrong region", auth("eu-test-1", "us-test-9"), "AuthorizationHeaderMalformed"},
		{"wrong service", auth("/s3/", "/ec2/"), "AuthorizationHeaderMalformed"},
		{"wrong terminator", auth("aws4_request", "aws5_request"), "AuthorizationHeaderMalformed"},
		{"wrong date in the scope", auth("20260228", "20260227"), "AuthorizationHeaderMalformed"},
		{"no date in the scope", auth("20260228", "2026022x"), "AuthorizationHeaderMalformed"},
		{"twice a field", auth("Signature=", "Signature=0, Signature="), "AuthorizationHeaderMalformed"},
		{"unknown field", auth("Signature=", "X=y, Signature="), "AuthorizationHeaderMalformed"},
		{"short signature", func(r *http.Request) {
			h := r.Header.Get("Authorization")
			r.Header.Set("Authorization", h[:len(h)-1])
		}, "AuthorizationHeaderMalformed"},
		{"upper-case signed headers", auth("SignedHeaders=", "SignedHeaders=Accept;"), "AuthorizationHeaderMalformed"},
		{"host twice", auth("host;", "host;host;"), "AuthorizationHeaderMalformed"},
		{"host not signed", auth(";host;", ";"), "AccessDenied"},
		{"unsigned copy source", setHeader("X-Amz-Copy-Source", "a/b"), "AccessDenied"},
		{"unsigned acl", setHeader("X-Amz-Acl", "public-read"), "AccessDenied"},
		{"no date", func(r *http.Request) { r.Header.Del("X-Amz-Date") }, "AccessDenied"},
		{"date is no date", setHeader("X-Amz-Date", "yesterday"), "AccessDenied"},
		{"payload hash is none", setHeader("X-Amz-Content-Sha256", "abc"), "InvalidArgument"},
		{"no payload hash", func(r *http.Request) { r.Header.Del("X-Amz-Content-Sha256") }, "InvalidRequest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := signed(t, "PUT", "http://h.example/b/k", unsignedPayload, map[string]string{"Content-Type": "a/b"}, false)
			c.edit(r)
			if _, err := verify(t, v, r); codeOf(err) != c.code {
				t.Fatalf("got %v, want %s", err, c.code)
			}
		})
	}
}

// Content of x-amz-content-sha256 is judged behind the signature, so these are signed.
func TestPayloadKinds(t *testing.T) {
	v := testVerifier(testTime)
	for payload, code := range map[string]string{
		unsignedPayload: "OK", streamSigned: "OK", streamSignedTrailer: "OK", streamUnsignedTrailer: "OK", emptySHA256: "OK",
		strings.ToUpper(emptySHA256): "OK", "nonsense": "InvalidArgument", emptySHA256[1:]: "InvalidArgument",
		emptySHA256 + "00": "InvalidArgument", streamECDSA: "NotImplemented",
	} {
		r := signed(t, "PUT", "http://h.example/b/k", payload, nil, false)
		a, err := verify(t, v, r)
		if codeOf(err) != code {
			t.Errorf("%s: got %v, want %s", payload, err, code)
		}
		if err == nil && a.Payload.Chunked() != strings.HasPrefix(payload, "STREAMING") {
			t.Errorf("%s: chunked %v", payload, a.Payload.Chunked())
		}
	}
}

// TestToken: a token belongs to its key, comes where the signature does, and is signed.
func TestToken(t *testing.T) {
	const temporary, secret, token = "ASIATEMP", "another", "token-of-ASIATEMP"
	v := New(Options{Credentials: keyring{testKey: testSecret, temporary: secret}, Region: testRegion, Now: func() time.Time { return testTime }})
	build := func(cred aws.Credentials, presign bool) *http.Request {
		return signedBy(t, cred, "GET", "http://h.example/b/k", unsignedPayload, nil, presign)
	}
	permanent := aws.Credentials{AccessKeyID: testKey, SecretAccessKey: testSecret}
	with := func(key, secret, token string) aws.Credentials {
		return aws.Credentials{AccessKeyID: key, SecretAccessKey: secret, SessionToken: token}
	}
	for _, presign := range []bool{false, true} {
		for _, c := range []struct {
			name string
			cred aws.Credentials
			edit edit
			code string
		}{
			{"good", with(temporary, secret, token), nil, "OK"},
			{"missing", with(temporary, secret, ""), nil, "InvalidToken"},
			{"false", with(temporary, secret, "token-of-other"), nil, "InvalidToken"},
			{"expired", with(temporary, secret, "stale"), nil, "ExpiredToken"},
			{"of a permanent key", with(testKey, testSecret, token), nil, "InvalidToken"},
			{"wrong secret", with(temporary, "guess", token), nil, "SignatureDoesNotMatch"},
			{"added to the header", permanent, setHeader("X-Amz-Security-Token", token), "AccessDenied"},
			{"added to the query", permanent, query("X-Amz-Security-Token", token), "InvalidToken"},
			{"twice", with(temporary, secret, token), func(r *http.Request) {
				r.Header.Add("X-Amz-Security-Token", token)
				r.Header.Add("X-Amz-Security-Token", token)
			}, map[bool]string{false: "InvalidToken", true: "AccessDenied"}[presign]},
		} {
			r := build(c.cred, presign)
			if c.edit != nil {
				c.edit(r)
			}
			a, err := verify(t, v, r)
			if codeOf(err) != c.code {
				t.Errorf("%s, presigned %v: %v, want %s", c.name, presign, err, c.code)
			}
			if err == nil && a.Holder != "holder-of-"+temporary {
				t.Errorf("%s: holder %v", c.name, a.Holder)
			}
		}
	}
	r := build(with(temporary, secret, token), true)
	query("X-Amz-Security-Token", "stale2")(r)
	if _, err := verify(t, v, r); codeOf(err) != "InvalidToken" {
		t.Error("an exchanged token:", err)
	}
}

// TestQueryAPI: what is signed for IAM and STS is no request to S3 and the other way
// round, and the signature covers the body.
func TestQueryAPI(t *testing.T) {
	const form = "Action=CreateUser&UserName=ann"
	v := testVerifier(testTime)
	build := func(service, region, body string, headers map[string]string) *http.Request {
		r, err := http.NewRequest("POST", "http://h.example/", nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, value := range headers {
			r.Header.Set(k, value)
		}
		sum := sha256.Sum256([]byte(body))
		if err := sdkSigner().SignHTTP(context.Background(), sdkCredentials, r, hex.EncodeToString(sum[:]), service, region, testTime); err != nil {
			t.Fatal(err)
		}
		return arrived(t, r, r.URL.String())
	}
	for _, c := range []struct {
		name, service, region, signed string
		headers                       map[string]string
		edit                          edit
		code                          string
	}{
		{"iam", "iam", testRegion, form, nil, nil, "OK"},
		{"sts", "sts", testRegion, form, nil, nil, "OK"},
		{"the region of global services", "iam", globalRegion, form, nil, nil, "OK"},
		{"another region", "iam", "mars-1", form, nil, nil, "AuthorizationHeaderMalformed"},
		{"s3", "s3", testRegion, form, nil, nil, "AuthorizationHeaderMalformed"},
		{"another body", "iam", testRegion, form + "x", nil, nil, "SignatureDoesNotMatch"},
		{"a body that is said not to be signed", "iam", testRegion, form, map[string]string{"X-Amz-Content-Sha256": unsignedPayload}, nil, "XAmzContentSHA256Mismatch"},
		{"no credentials", "iam", testRegion, form, nil, func(r *http.Request) { r.Header.Del("Authorization") }, "AccessDenied"},
		{"a token of nobody", "iam", testRegion, form, map[string]string{"X-Amz-Security-Token": "t"}, nil, "InvalidToken"},
		{"an unsigned header", "iam", testRegion, form, nil, setHeader("X-Amz-Security-Token", "t"), "AccessDenied"},
		{"the other service in the scope", "iam", testRegion, form, nil, auth("/iam/", "/sts/"), "SignatureDoesNotMatch"},
	} {
		r := build(c.service, c.region, c.signed, c.headers)
		if c.edit != nil {
			c.edit(r)
		}
		a, err := v.VerifyQuery(r, []byte(form))
		if codeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		}
		if err == nil && a.Service != c.service {
			t.Errorf("%s: signed for %s", c.name, a.Service)
		}
	}
	r := build("iam", testRegion, form, map[string]string{"X-Amz-Content-Sha256": unsignedPayload})
	if _, err := verify(t, v, r); codeOf(err) != "AuthorizationHeaderMalformed" {
		t.Error("a signature for IAM opened S3:", err)
	}
}

func TestClock(t *testing.T) {
	for offset, want := range map[time.Duration]string{
		0: "OK", skewMax: "OK", -skewMax: "OK", skewMax + time.Second: "RequestTimeTooSkewed", -skewMax - time.Second: "RequestTimeTooSkewed",
		24 * time.Hour: "RequestTimeTooSkewed",
	} {
		r := signed(t, "GET", "http://h.example/b/k", unsignedPayload, nil, false)
		if _, err := verify(t, testVerifier(testTime.Add(offset)), r); codeOf(err) != want {
			t.Errorf("%v: %v, want %s", offset, err, want)
		}
	}
	for offset, want := range map[time.Duration]string{
		0: "OK", 10 * time.Minute: "OK", 10*time.Minute + time.Second: "AccessDenied", -16 * time.Minute: "AccessDenied",
	} {
		r := signed(t, "GET", "http://h.example/b/k", unsignedPayload, nil, true)
		if _, err := verify(t, testVerifier(testTime.Add(offset)), r); codeOf(err) != want {
			t.Errorf("presigned %v: %v, want %s", offset, err, want)
		}
	}
}

func TestPresignedRefusals(t *testing.T) {
	v := testVerifier(testTime)
	const bad = "AuthorizationQueryParametersError"
	for _, c := range []struct {
		name string
		edit edit
		code string
	}{
		{"as signed", func(*http.Request) {}, "OK"},
		{"expires 0", query("X-Amz-Expires", "0"), bad},
		{"expires negative", query("X-Amz-Expires", "-1"), bad},
		{"expires too large", query("X-Amz-Expires", "604801"), bad},
		{"expires text", query("X-Amz-Expires", "soon"), bad},
		{"expires overflows", query("X-Amz-Expires", "99999999999999999999"), bad},
		{"no expires", query("X-Amz-Expires", ""), bad},
		{"no date", query("X-Amz-Date", ""), bad},
		{"no signature", query("X-Amz-Signature", ""), bad},
		{"no credential", query("X-Amz-Credential", ""), bad},
		{"no algorithm", query("X-Amz-Algorithm", ""), bad},
		{"no signed headers", query("X-Amz-SignedHeaders", ""), bad},
		{"other algorithm", query("X-Amz-Algorithm", "AWS4-ECDSA-P256-SHA256"), bad},
		{"bad date", query("X-Amz-Date", "now"), bad},
		{"other date", query("X-Amz-Date", "20260227T235930Z"), bad},
		{"bad credential", query("X-Amz-Credential", "AKID"), bad},
		{"wrong region", query("X-Amz-Credential", testKey+"/20260228/us-east-9/s3/aws4_request"), bad},
		{"twice a parameter", func(r *http.Request) { r.URL.RawQuery += "&X-Amz-Expires=60" }, bad},
		{"longer life", query("X-Amz-Expires", "601"), "SignatureDoesNotMatch"},
		{"other parameter", query("versionId", "1"), "SignatureDoesNotMatch"},
		{"unsigned copy source", setHeader("X-Amz-Copy-Source", "a/b"), "AccessDenied"},
		{"host not signed", query("X-Amz-SignedHeaders", "content-type"), "AccessDenied"},
		{"other key", func(r *http.Request) {
			r.URL = &url.URL{Scheme: "http", Host: "h.example", Path: "/b/other", RawQuery: r.URL.RawQuery}
		}, "SignatureDoesNotMatch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := signed(t, "GET", "http://h.example/b/k", unsignedPayload, nil, true)
			c.edit(r)
			if _, err := verify(t, v, r); codeOf(err) != c.code {
				t.Fatalf("got %v, want %s", err, c.code)
			}
		})
	}
}

// TestRotation proves that a cached signing key dies with its secret.
func TestRotation(t *testing.T) {
	keys := keyring{testKey: testSecret}
	v := New(Options{Credentials: keys, Region: testRegion, Now: func() time.Time { return testTime }})
	r := signed(t, "GET", "http://h.example/b/k", unsignedPayload, nil, false)
	if _, err := verify(t, v, r); err != nil {
		t.Fatal(err)
	}
	keys[testKey] = "another secret"
	if _, err := verify(t, v, r); codeOf(err) != "SignatureDoesNotMatch" {
		t.Fatalf("after rotation: %v", err)
	}
	delete(keys, testKey)
	if _, err := verify(t, v, r); codeOf(err) != "InvalidAccessKeyId" {
		t.Fatalf("after removal: %v", err)
	}
}

// regionsOf signs a request for a region, in every form that has one, and judges it.
var regionsOf = map[string]func(t *testing.T, v *Verifier, region string) error{
	"header": func(t *testing.T, v *Verifier, region string) error {
		_, err := verify(t, v, signedFor(t, sdkCredentials, serviceS3, region, unsignedPayload, false))
		return err
	},
	"presigned": func(t *testing.T, v *Verifier, region string) error {
		_, err := verify(t, v, signedFor(t, sdkCredentials, serviceS3, region, unsignedPayload, true))
		return err
	},
	"query API": func(t *testing.T, v *Verifier, region string) error {
		_, err := v.VerifyQuery(signedFor(t, sdkCredentials, serviceIAM, region, emptySHA256, false), nil)
		return err
	},
	"form": func(t *testing.T, v *Verifier, region string) error {
		scope := keyName{testKey, testTime.Format(dateLayout), region, serviceS3}
		sum := (&keyCache{}).get(scope, testSecret).mac([]byte("policy"))
		_, err := v.VerifyForm(t.Context(), map[string]string{
			"policy": "policy", "x-amz-algorithm": algorithm, "x-amz-date": testTime.Format(stampLayout), "x-amz-signature": hex.EncodeToString(sum[:]),
			"x-amz-credential": testKey + "/" + scope.date + "/" + region + "/s3/aws4_request",
		})
		return err
	},
}

// TestAnyRegion: who allows it takes every region that can be one's name, in every form,
// and says back nothing of what cannot.
func TestAnyRegion(t *testing.T) {
	o := testOptions(testTime)
	one := New(o)
	o.AnyRegion = true
	any := New(o)
	for form, judged := range regionsOf {
		for _, region := range []string{testRegion, "mars-1", "US", "my_store.example", strings.Repeat("x", 64)} {
			if err := judged(t, any, region); err != nil {
				t.Errorf("%s, %s: %v", form, region, err)
			}
			if err := judged(t, one, region); (err == nil) != (region == testRegion) {
				t.Errorf("%s, %s, where one region is right: %v", form, region, err)
			}
		}
		for _, region := range []string{"", "mars 1", "mars\x07", "m\xe4rs", "<b>", "mars~", strings.Repeat("x", 65)} {
			err := judged(t, any, region)
			if err == nil || !strings.Contains(err.Error(), s3.RegionForm) || region != "" && strings.Contains(err.Error(), region) {
				t.Errorf("%s, %q: %v", form, region, err)
			}
		}
	}
}

// TestKeysAreKeptWhenTheyAreGood: whoever does not have the secret cannot put anything into
// the cache of signing keys, and whoever has it cannot put more into it than it may hold.
func TestKeysAreKeptWhenTheyAreGood(t *testing.T) {
	o := testOptions(testTime)
	o.AnyRegion = true
	v := New(o)
	guess := aws.Credentials{AccessKeyID: testKey, SecretAccessKey: "guess"}
	for _, presign := range []bool{false, true} {
		if _, err := verify(t, v, signedFor(t, guess, serviceS3, "mars-1", unsignedPayload, presign)); codeOf(err) != "SignatureDoesNotMatch" {
			t.Fatal(err)
		}
	}
	_, err := v.VerifyForm(t.Context(), map[string]string{
		"policy": "policy", "x-amz-algorithm": algorithm, "x-amz-date": testTime.Format(stampLayout), "x-amz-signature": strings.Repeat("0", 64),
		"x-amz-credential": testKey + "/" + testTime.Format(dateLayout) + "/mars-1/s3/aws4_request",
	})
	if codeOf(err) != "SignatureDoesNotMatch" {
		t.Fatal(err)
	}
	if n := len(v.keys.keys); n != 0 {
		t.Fatalf("%d keys of signatures that were not good are kept", n)
	}
	for i := range cachedKeysMax + 10 {
		name := keyName{testKey, "20260228", "region-" + strconv.Itoa(i), serviceS3}
		v.keys.keep(name, v.keys.get(name, testSecret))
		if len(v.keys.keys) > cachedKeysMax {
			t.Fatalf("%d keys are kept", len(v.keys.keys))
		}
	}
	last := keyName{testKey, "20260228", "region-" + strconv.Itoa(cachedKeysMax+9), serviceS3}
	if k := v.keys.get(last, testSecret); k != v.keys.get(last, testSecret) {
		t.Error("a key that is kept is derived again")
	}
}

func TestUnsignedChunks(t *testing.T) {
	p := &Payload{kind: kindChunksUnsignedTrailer}
	const good = "5\r\nhello\r\n1\r\n!\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
	for _, src := range []io.Reader{strings.NewReader(good), iotest.OneByteReader(strings.NewReader(good)), iotest.DataErrReader(strings.NewReader(good))} {
		c := NewChunkReader(src, p, 6)
		c.bytesMin = 5
		got, err := io.ReadAll(iotest.OneByteReader(c))
		if err != nil || string(got) != "hello!" || c.Trailers()["x-amz-checksum-crc32"] != "AAAAAA==" {
			t.Fatalf("%q %v %v", got, c.Trailers(), err)
		}
		c.Release()
	}
	for body, code := range map[string]string{
		"5\r\nhello\r\n0\r\n\r\n":                  "IncompleteBody", // fewer than declared
		"7\r\nhello!!\r\n0\r\n\r\n":                "IncompleteBody", // more than declared
		"6\r\nhello!\r\n":                          "IncompleteBody",
		"6\nhello!\r\n0\r\n\r\n":                   "IncompleteBody",
		"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n":        "InvalidChunkSizeError",
		"6\r\nhello!\r\n0\r\na:b\n\r\n\r\n":        "OK", // minio-go's spelling
		"6\r\nhello!\r\n0\r\na:b\n\r\n\r\n\r\n":    "IncompleteBody",
		"6\r\nhello!\r\n0\r\n\r\n\r\n":             "IncompleteBody",
		"6\r\nhello!x\r\n0\r\n\r\n":                "IncompleteBody",
		"6;chunk-signature=0\r\nhello!\r\n0\r\n":   "IncompleteBody",
		"\r\n":                                     "IncompleteBody",
		"-6\r\nhello!\r\n0\r\n\r\n":                "IncompleteBody",
		strings.Repeat("0", 2000) + "\r\n":         "IncompleteBody",
		"6\r\nhello!\r\n0\r\na:b\r\na:c\r\n\r\n":   "MalformedTrailerError",
		"6\r\nhello!\r\n0\r\n: x\r\n\r\n":          "MalformedTrailerError",
		"6\r\nhello!\r\n0\r\n\r\nGET / HTTP/1.1\r": "IncompleteBody",
	} {
		c := NewChunkReader(strings.NewReader(body), p, 6)
		if _, err := io.ReadAll(c); codeOf(err) != code {
			t.Errorf("%q: got %v, want %s", body, err, code)
		}
		c.Release()
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add(docAuth("host;x-amz-date", strings.Repeat("a", 64)))
	f.Add("AWS4-HMAC-SHA256 Credential=a/20130524/r/s3/aws4_request, SignedHeaders=host, Signature=")
	f.Add("AWS a:b")
	f.Fuzz(func(t *testing.T, header string) {
		c, err := parseAuthorization(header, serviceS3)
		if err != nil {
			if codeOf(err) != "AuthorizationHeaderMalformed" {
				t.Fatalf("%q: %v", header, err)
			}
			return
		}
		if !strings.Contains(header, c.accessKey+"/"+c.scope()) || !validSignature(c.signature) || c.signedHeaders == "" {
			t.Fatalf("%q was read as %+v", header, c)
		}
		r, q := request(t, "GET", "/", "h", map[string]string{"Authorization": header, "X-Amz-Date": docStamp, "X-Amz-Content-Sha256": unsignedPayload})
		if _, err := docVerifier().Verify(r, q); err == nil {
			t.Fatalf("%q was accepted", header)
		}
	})
}

// FuzzCanonicalizer is differential: what the SDK signs we accept, whatever the
// path, the query and the header.
func FuzzCanonicalizer(f *testing.F) {
	f.Add("a/b c", "prefix", "x y", "v")
	f.Add("..//%2e", "a", "+&=;", " two  spaces ")
	f.Add("ä\x7f", "Ü", "%", "\t")
	v := testVerifier(testTime)
	f.Fuzz(func(t *testing.T, key, name, value, header string) {
		if strings.ContainsFunc(header, func(r rune) bool { return r < ' ' || r > '~' }) {
			return // net/http refuses it before us
		}
		raw := "http://h.example/b/" + escape(key)
		if name != "" {
			raw += "?" + string(s3.AppendEscaped(nil, name, false)) + "=" + string(s3.AppendEscaped(nil, value, false))
		}
		r := signed(t, "PUT", raw, unsignedPayload, map[string]string{"X-Amz-Meta-A": header}, false)
		if name == "Signature" || strings.HasPrefix(name, "X-Amz-") || name == "AWSAccessKeyId" {
			return // another mechanism
		}
		if _, err := verify(t, v, r); err != nil {
			t.Fatalf("%s %q: %v", raw, header, err)
		}
	})
}

// FuzzChunks feeds any bytes as a chunked body: it ends, says an S3 error or
// EOF, and never yields more than was declared.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"), byte(5), uint8(2))
	f.Add([]byte("5;chunk-signature="+strings.Repeat("0", 64)+"\r\nhello\r\n0\r\n\r\n"), byte(5), uint8(0))
	f.Add([]byte("0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"), byte(0), uint8(2))
	key := (&keyCache{}).get(keyName{"k", "20130524", "r", serviceS3}, "s")
	f.Fuzz(func(t *testing.T, body []byte, declared byte, kind uint8) {
		p := &Payload{kind: kindChunksSigned + payloadKind(kind%3), key: key, stamp: docStamp, seed: strings.Repeat("0", 64)}
		c := NewChunkReader(bytes.NewReader(body), p, int64(declared))
		defer c.Release()
		got, err := io.ReadAll(c)
		if len(got) > int(declared) || err == nil && len(got) != int(declared) {
			t.Fatalf("%d bytes of %d, %v", len(got), declared, err)
		}
		if strings.HasPrefix(codeOf(err), "not an S3") {
			t.Fatal(err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	v := testVerifier(testTime)
	r := signed(b, "PUT", "http://h.example:9000/bucket/some/key/of/usual/length.bin", unsignedPayload,
		map[string]string{"Content-Type": "application/octet-stream", "X-Amz-Meta-A": "b"}, false)
	q, _ := s3.ParseQuery(r.URL.RawQuery)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(r, q); err != nil {
			b.Fatal(err)
		}
	}
}

// The Date header may be written in each form that clients use; all of them
// stand for the same stamp in what is signed.
func TestFormsOfDate(t *testing.T) {
	at := time.Date(2026, 11, 21, 23, 39, 59, 0, time.UTC)
	for _, value := range []string{"20261121T233959Z", "Sat, 21 Nov 2026 23:39:59 GMT", "Sat, 21 Nov 2026 23:39:59 -0000", "Sun, 22 Nov 2026 00:39:59 +0100"} {
		got, stamp, err := requestTime(http.Header{"Date": {value}})
		if err != nil || !got.Equal(at) || stamp != "20261121T233959Z" {
			t.Errorf("%q: %v %q %v", value, got, stamp, err)
		}
	}
	for _, h := range []http.Header{{}, {"Date": {"yesterday"}}, {"Date": {"Sat, 21 Nov 2026 23:39:59"}},
		{"X-Amz-Date": {"Sat, 21 Nov 2026 23:39:59 GMT"}, "Date": {"Sat, 21 Nov 2026 23:39:59 GMT"}}} {
		if _, _, err := requestTime(h); err == nil {
			t.Errorf("%v was taken", h)
		}
	}
}

// Clients find in these sentences what to do better.
func TestRefusalsSayWhatIsWrong(t *testing.T) {
	v := testVerifier(testTime)
	for _, c := range []struct {
		edit edit
		want string
	}{
		{setHeader("Authorization", "Bearer"), "one and only one ' ' (space) required"},
		{setHeader("Authorization", "Bearer x"), "Unsupported Authorization Type"},
		{auth("Credential=", "Crudential="), "missing Credential."},
		{auth("Signature=", "Signature=0, Signature="), "requires three components"},
		{auth("Signature=", "Signature-"), `the authorization component "Signature-`},
		{func(r *http.Request) {
			r.Header.Set("Authorization", algorithm+" Credential=a/20260228/eu-test-1/s3/aws4_request, Signature=0, X=y")
		},
			"missing SignedHeaders."},
		{auth("eu-test-1", "us-test-9"), "; the region 'us-test-9' is wrong; expecting 'eu-test-1'"},
		{auth("/s3/", "/ec2/"), `incorrect service "ec2". This endpoint belongs to "s3".`},
		{auth("aws4_request", "aws5_request"), `incorrect terminal "aws5_request". This endpoint uses "aws4_request".`},
		{auth("20260228", "2026022x"), `incorrect date format "2026022x"`},
	} {
		r := signed(t, "PUT", "http://h.example/b/k", unsignedPayload, nil, false)
		c.edit(r)
		if _, err := verify(t, v, r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}
