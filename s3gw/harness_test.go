package s3gw

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/sigv4"
)

const (
	testKey       = "AKIDTEST"
	testSecret    = "test/secret+key"
	testAccount   = "0123456789abcdef"
	testRegion    = "us-east-1"
	testDomain    = "s3.example.test"
	unsigned      = "UNSIGNED-PAYLOAD"
	streamSigned  = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	streamTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	streamBoth    = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	emptyHash     = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	stampLayout   = "20060102T150405Z"
)

type keyring map[string]string

func (k keyring) Lookup(_ context.Context, key, token string) (sigv4.Credential, error) {
	secret, ok := k[key]
	switch {
	case !ok:
		return sigv4.Credential{}, sigv4.ErrUnknownKey
	case token != "":
		return sigv4.Credential{}, sigv4.ErrInvalidToken
	}
	return sigv4.Credential{Secret: secret, Account: testAccount}, nil
}

// gateway is a running gateway over the in-memory double.
type gateway struct {
	*memory
	server *Server
	url    string
	addr   string
	http   *http.Client
}

// start serves a gateway on loopback until the test ends.
func start(t testing.TB, change ...func(*Options)) *gateway {
	t.Helper()
	m := newMemory()
	o := Options{Backend: m, Credentials: keyring{testKey: testSecret}, Region: testRegion, Domains: []string{testDomain}, HostID: "gw1", Operator: testAccount}
	for _, c := range change {
		c(&o)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &gateway{memory: m, server: New(o), addr: ln.Addr().String(), url: "http://" + ln.Addr().String(),
		http: &http.Client{Transport: &http.Transport{DisableCompression: true, ExpectContinueTimeout: 5 * time.Second, MaxIdleConnsPerHost: 64}, Timeout: 30 * time.Second}}
	done := make(chan error, 1)
	go func() { done <- g.server.Serve(ctx, Door{Listener: ln}) }()
	t.Cleanup(func() {
		g.http.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error("serve:", err)
		}
	})
	return g
}

// withBucket makes a bucket behind the gateway's back.
func (g *gateway) withBucket(t testing.TB, name string) *gateway {
	t.Helper()
	if err := g.CreateBucket(context.Background(), testAccount, name, testRegion); err != nil {
		t.Fatal(err)
	}
	return g
}

// sdk returns the AWS SDK's client of the gateway.
func (g *gateway) sdk() *awss3.Client {
	return awss3.New(awss3.Options{
		BaseEndpoint: aws.String(g.url), Region: testRegion, UsePathStyle: true, RetryMaxAttempts: 1, HTTPClient: g.http,
		Credentials: credentials.NewStaticCredentialsProvider(testKey, testSecret, ""),
	})
}

// form is a way to authenticate a request.
type form struct {
	name    string
	payload string // x-amz-content-sha256; empty: the hash of the body
	presign bool
	chunked bool
	old     bool // Signature Version 2; the payload is not signed
}

var forms = []form{
	{name: "signed payload"},
	{name: "unsigned payload", payload: unsigned},
	{name: "presigned", payload: unsigned, presign: true},
	{name: "signed chunks", payload: streamSigned, chunked: true},
	{name: "unsigned trailer", payload: streamTrailer, chunked: true},
	{name: "signed chunks and trailer", payload: streamBoth, chunked: true},
}

// version2Forms are those of Signature Version 2, which a gateway takes if it is told to.
var version2Forms = []form{{name: "version 2", payload: unsigned, old: true}, {name: "presigned with version 2", payload: unsigned, presign: true, old: true}}

var allForms = append(slices.Clone(forms), version2Forms...)

// signsChunks reports whether every chunk has a signature.
func (f *form) signsChunks() bool { return f.payload == streamSigned || f.payload == streamBoth }

// call is one request of a test.
type testCall struct {
	method, target string // target is path and query, escaped as it goes out
	headers        map[string]string
	body           string
	key, secret    string // testKey and testSecret if empty
	token          string
	region         string
	at             time.Time
	// tamper changes the signed request before it is sent.
	tamper func(*http.Request)
	// mangle changes the framed body.
	mangle func(string) string
}

// request signs the call in the given form.
func (g *gateway) request(t testing.TB, f form, c testCall) *http.Request {
	t.Helper()
	if c.key == "" {
		c.key, c.secret = testKey, testSecret
	}
	if c.region == "" {
		c.region = testRegion
	}
	if c.at.IsZero() {
		c.at = time.Now()
	}
	r, err := http.NewRequest(c.method, g.url+c.target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range c.headers {
		switch k {
		case "Host":
			r.Host = v
		case "test-trailer": // for frame
		case "X-Amz-Decoded-Content-Length": // of chunks, empty for none
			if f.chunked && v != "" {
				r.Header.Set(k, v)
			}
		default:
			r.Header.Set(k, v)
		}
	}
	payload, body := f.payload, c.body
	if payload == "" {
		sum := sha256.Sum256([]byte(c.body))
		payload = hex.EncodeToString(sum[:])
	}
	if f.chunked {
		if _, given := c.headers["X-Amz-Decoded-Content-Length"]; !given {
			r.Header.Set("X-Amz-Decoded-Content-Length", fmt.Sprint(len(c.body)))
		}
		r.Header.Set("Content-Encoding", strings.TrimPrefix(r.Header.Get("Content-Encoding")+",aws-chunked", ","))
	}
	g.sign(t, r, f, c, payload)
	if f.chunked {
		body = frame(c, f, r)
	}
	if c.mangle != nil {
		body = c.mangle(body)
	}
	if body != "" || c.method == "PUT" || c.method == "POST" {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		if body == "" {
			r.Body = http.NoBody
		}
	}
	if c.tamper != nil {
		c.tamper(r)
	}
	return r
}

func (g *gateway) sign(t testing.TB, r *http.Request, f form, c testCall, payload string) {
	t.Helper()
	if f.old {
		signVersion2(r, f, c)
		return
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	cred := aws.Credentials{AccessKeyID: c.key, SecretAccessKey: c.secret, SessionToken: c.token}
	if !f.presign {
		r.Header.Set("X-Amz-Content-Sha256", payload)
		if err := signer.SignHTTP(context.Background(), cred, r, payload, "s3", c.region, c.at); err != nil {
			t.Fatal(err)
		}
		return
	}
	q := r.URL.Query()
	if !q.Has("X-Amz-Expires") {
		q.Set("X-Amz-Expires", "300")
	}
	r.URL.RawQuery = q.Encode()
	uri, head, err := signer.PresignHTTP(context.Background(), cred, r, payload, "s3", c.region, c.at)
	if err != nil {
		t.Fatal(err)
	}
	host := r.Host
	if r.URL, err = url.Parse(uri); err != nil {
		t.Fatal(err)
	}
	r.URL.Host, r.Host = g.addr, host
	for k := range r.Header { // the signer moved them to the query
		if strings.HasPrefix(k, "X-Amz-") && len(head[k]) == 0 {
			delete(r.Header, k)
		}
	}
	for k, v := range head {
		if !strings.EqualFold(k, "Host") {
			r.Header[http.CanonicalHeaderKey(k)] = v
		}
	}
}

const testChunkBytes = 8192

// frame writes the body as aws-chunked, signing chunks where the form wants it.
func frame(c testCall, f form, r *http.Request) string {
	stamp := r.Header.Get("X-Amz-Date")
	scope := stamp[:8] + "/" + c.region + "/s3/aws4_request"
	key := []byte("AWS4" + c.secret)
	for _, s := range []string{stamp[:8], c.region, "s3", "aws4_request"} {
		key = testMAC(key, s)
	}
	previous := r.Header.Get("Authorization")
	previous = previous[strings.LastIndex(previous, "=")+1:]
	var b strings.Builder
	for data := c.body; ; {
		n := min(len(data), testChunkBytes)
		fmt.Fprintf(&b, "%x", n)
		if f.signsChunks() {
			sum := sha256.Sum256([]byte(data[:n]))
			previous = hex.EncodeToString(testMAC(key, strings.Join([]string{"AWS4-HMAC-SHA256-PAYLOAD", stamp, scope, previous,
				emptyHash, hex.EncodeToString(sum[:])}, "\n")))
			b.WriteString(";chunk-signature=" + previous)
		}
		b.WriteString("\r\n")
		if n == 0 {
			break
		}
		b.WriteString(data[:n] + "\r\n")
		data = data[n:]
	}
	signed := ""
	if trailer := r.Header.Get("X-Amz-Trailer"); trailer != "" {
		b.WriteString(trailer + ":" + c.headers["test-trailer"] + "\r\n")
		signed = trailer + ":" + c.headers["test-trailer"] + "\n"
	}
	if f.payload == streamBoth {
		sum := sha256.Sum256([]byte(signed))
		b.WriteString("x-amz-trailer-signature:" + hex.EncodeToString(testMAC(key, strings.Join([]string{"AWS4-HMAC-SHA256-TRAILER",
			stamp, scope, previous, hex.EncodeToString(sum[:])}, "\n"))) + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

func testMAC(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(data))
	return h.Sum(nil)
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
	code   string // of the error document
}

func (g *gateway) send(t testing.TB, r *http.Request) answer {
	t.Helper()
	resp, err := g.http.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(body)}
	var doc struct {
		XMLName                                    xml.Name
		Code, Message, Resource, RequestId, HostId string
	}
	if xml.Unmarshal(body, &doc) == nil && doc.XMLName.Local == "Error" {
		a.code = doc.Code
		if doc.Message == "" || doc.RequestId != resp.Header.Get("X-Amz-Request-Id") || doc.HostId != "gw1" {
			t.Errorf("%s %s: error document %s", r.Method, r.URL, body)
		}
	}
	return a
}

// do sends a call in the plain form.
func (g *gateway) do(t testing.TB, c testCall) answer {
	t.Helper()
	return g.send(t, g.request(t, forms[0], c))
}

// want checks status and code of an answer.
func (a answer) want(t testing.TB, status int, code string) answer {
	t.Helper()
	if a.status != status || a.code != code {
		t.Errorf("got %d %q, want %d %q: %.300s", a.status, a.code, status, code, a.body)
	}
	return a
}

// codeOf returns the S3 code of an SDK error.
func codeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	if err != nil {
		return err.Error()
	}
	return "OK"
}

// serve runs one request against the handler without a network.
func (g *gateway) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	g.server.Handler().ServeHTTP(w, r)
	return w
}

// stored returns the bytes of an object, and whether it is there.
func (g *gateway) stored(bucket, key string) ([]byte, bool) {
	o, err := g.object(bucket, key)
	if err != nil {
		return nil, false
	}
	return bytes.Clone(o.data), true
}

func parseQuery(r *http.Request) (s3.Query, error) { return s3.ParseQuery(r.URL.RawQuery) }
