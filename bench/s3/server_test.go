package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	testAccess = "AKIDTEST"
	testSecret = "secret/with+odd=characters"
	testRegion = "eu-test-7"
)

// testServer is a small S3 that judges every request by the AWS SDK's signer.
// It pages its listings by five keys.
type testServer struct {
	*httptest.Server
	// spoil may answer in place of the server; it says whether it did.
	spoil func(w http.ResponseWriter, r *http.Request) bool

	mu      sync.Mutex
	buckets map[string]map[string][]byte
	counts  map[string]int // requests by "METHOD kind"
	refused []string
}

func newTestServer(t *testing.T) *testServer {
	s := &testServer{buckets: map[string]map[string][]byte{}, counts: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	t.Cleanup(func() {
		for _, why := range s.refused {
			t.Errorf("the server refused: %s", why)
		}
	})
	return s
}

func (s *testServer) options(operation string) Options {
	return Options{Operation: operation, Endpoints: []string{s.URL}, AccessKey: testAccess, SecretKey: testSecret,
		Region: testRegion, Verify: true, Timeout: 10 * time.Second, CleanupTimeout: 20 * time.Second, Concurrent: 4}
}

func (s *testServer) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away
	}
	if why := checkSignature(r, body); why != "" {
		s.mu.Lock()
		s.refused = append(s.refused, why)
		s.mu.Unlock()
		fail(w, 403, "SignatureDoesNotMatch")
		return
	}
	if s.spoil != nil && s.spoil(w, r) {
		return
	}
	w.Header().Set("Server", "test/1")
	s.mu.Lock()
	defer s.mu.Unlock()
	bucket, key, isObject := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if isObject {
		s.counts[r.Method+" object"]++
		s.object(w, r, bucket, key, body)
		return
	}
	s.counts[r.Method+" bucket"]++
	s.bucket(w, r, bucket, body)
}

func (s *testServer) object(w http.ResponseWriter, r *http.Request, bucket, key string, body []byte) {
	objects, ok := s.buckets[bucket]
	data, found := objects[key]
	switch {
	case !ok:
		fail(w, 404, "NoSuchBucket")
	case r.Method == "PUT":
		objects[key] = body
	case !found:
		fail(w, 404, "NoSuchKey")
	default:
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data)
	}
}

func (s *testServer) bucket(w http.ResponseWriter, r *http.Request, name string, body []byte) {
	objects, ok := s.buckets[name]
	switch {
	case r.Method == "PUT":
		s.buckets[name] = map[string][]byte{}
	case !ok:
		fail(w, 404, "NoSuchBucket")
	case r.Method == "DELETE" && len(objects) > 0:
		fail(w, 409, "BucketNotEmpty")
	case r.Method == "DELETE":
		delete(s.buckets, name)
		w.WriteHeader(204)
	case r.Method == "POST":
		var doc struct{ Object []struct{ Key string } }
		if err := xml.Unmarshal(body, &doc); err != nil {
			fail(w, 400, "MalformedXML")
			return
		}
		for _, o := range doc.Object {
			delete(objects, o.Key)
		}
		io.WriteString(w, "<DeleteResult></DeleteResult>")
	case r.Method == "GET":
		list(w, r.URL.Query(), objects)
	}
}

func list(w io.Writer, query url.Values, objects map[string][]byte) {
	var keys []string
	for k := range objects {
		if strings.HasPrefix(k, query.Get("prefix")) && k > query.Get("continuation-token") {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	const page = 5
	fmt.Fprintf(w, "<ListBucketResult><IsTruncated>%v</IsTruncated>", len(keys) > page)
	keys = keys[:min(page, len(keys))]
	for _, k := range keys {
		fmt.Fprintf(w, "<Contents><Key>%s</Key></Contents>", url.QueryEscape(k))
	}
	if len(keys) > 0 {
		fmt.Fprintf(w, "<NextContinuationToken>%s</NextContinuationToken>", keys[len(keys)-1])
	}
	io.WriteString(w, "</ListBucketResult>")
}

func fail(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>as the test wants</Message></Error>", code)
}

// checkSignature signs the same request with the AWS SDK and says how it
// differs; empty if it does not.
func checkSignature(r *http.Request, body []byte) string {
	at, err := time.Parse(dateFormat, r.Header.Get("X-Amz-Date"))
	if err != nil || time.Since(at).Abs() > time.Minute {
		return "date " + r.Header.Get("X-Amz-Date")
	}
	payload := r.Header.Get("X-Amz-Content-Sha256")
	if sum := sha256.Sum256(body); payload != unsignedPayload && payload != hex.EncodeToString(sum[:]) {
		return "payload hash of " + r.URL.Path
	}
	got := r.Header.Get("Authorization")
	_, rest, _ := strings.Cut(got, "SignedHeaders=")
	names, _, _ := strings.Cut(rest, ",")
	again := &http.Request{Method: r.Method, URL: r.URL, Host: r.Host, Header: http.Header{}}
	for _, name := range strings.Split(names, ";") {
		if name != "host" {
			again.Header.Set(name, r.Header.Get(name))
		}
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Amz-") && again.Header.Get(name) == "" {
			return name + " is not signed"
		}
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	who := aws.Credentials{AccessKeyID: testAccess, SecretAccessKey: testSecret}
	if err := signer.SignHTTP(context.Background(), who, again, payload, "s3", testRegion, at); err != nil {
		return err.Error()
	}
	if want := again.Header.Get("Authorization"); got != want {
		return fmt.Sprintf("%s %s signed\n%s\nthe SDK signs\n%s", r.Method, r.URL, got, want)
	}
	return ""
}
