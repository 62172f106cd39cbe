package linear

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	signer "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	region          = "us-east-1"
	unsignedPayload = "UNSIGNED-PAYLOAD"
	dialTimeout     = 2 * time.Second
)

// S3 is one gateway as a client sees it. It never tries again: a second try
// would be a request that the history does not know.
type S3 struct {
	url    string
	keys   aws.Credentials
	sign   *signer.Signer
	client http.Client
}

// NewS3 returns a client of the gateway at url.
func NewS3(url, accessKey, secretKey string, connections int) *S3 {
	return &S3{
		url:  url,
		keys: aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey},
		sign: signer.NewSigner(func(o *signer.SignerOptions) { o.DisableURIPathEscaping = true }),
		// net/http sends nothing twice but GET and HEAD, which change nothing.
		client: http.Client{Transport: &http.Transport{
			MaxIdleConnsPerHost: connections, DisableCompression: true,
			DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext,
		}},
	}
}

// Close drops the idle connections.
func (s *S3) Close() { s.client.CloseIdleConnections() }

// answer is what came back.
type answer struct {
	status int
	etag   string
	body   []byte
}

// call sends one request. Header pairs follow the body.
func (s *S3) call(ctx context.Context, method, path, query string, body []byte, headers ...string) (a answer, err error) {
	url := s.url + path
	if query != "" {
		url += "?" + query
	}
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return a, err
	}
	if len(body) > 0 {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	r.Header.Set("X-Amz-Content-Sha256", unsignedPayload)
	if err := s.sign.SignHTTP(ctx, s.keys, r, unsignedPayload, "s3", region, time.Now()); err != nil {
		return a, err
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	a.status, a.etag = resp.StatusCode, strings.Trim(resp.Header.Get("ETag"), `"`)
	a.body, err = io.ReadAll(resp.Body)
	return a, err
}

// refusal is an answer that is no success.
type refusal struct {
	status int
	code   string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %s", r.status, r.code) }

// errorBody is S3's error document.
type errorBody struct {
	XMLName xml.Name `xml:"Error"`
	Code    string
}

// check turns an answer that is no success into an error. Complete may answer
// 200 and still fail in the body.
func (a *answer) check() error {
	if a.status/100 == 2 && !bytes.Contains(a.body, []byte("<Error>")) {
		return nil
	}
	r := &refusal{status: a.status}
	var doc errorBody
	if xml.Unmarshal(a.body, &doc) == nil {
		r.code = doc.Code
	}
	switch r.code { // in a body after 200
	case "PreconditionFailed":
		r.status = http.StatusPreconditionFailed
	case "NoSuchKey":
		r.status = http.StatusNotFound
	case "ConditionalRequestConflict":
		r.status = http.StatusConflict
	}
	if r.status == http.StatusOK {
		r.status = http.StatusInternalServerError
	}
	return r
}

func statusOf(err error) int {
	var r *refusal
	if errors.As(err, &r) {
		return r.status
	}
	return 0
}

// put writes an object. A guard is a pair of header and value.
func (s *S3) put(ctx context.Context, bucket, key string, body []byte, guard ...string) error {
	a, err := s.call(ctx, http.MethodPut, "/"+bucket+"/"+key, "", body, guard...)
	if err != nil {
		return err
	}
	return a.check()
}

func (s *S3) delete(ctx context.Context, bucket, key string, guard ...string) error {
	a, err := s.call(ctx, http.MethodDelete, "/"+bucket+"/"+key, "", nil, guard...)
	if err != nil {
		return err
	}
	return a.check()
}

// get reads an object whole; found is false if there is none.
func (s *S3) get(ctx context.Context, bucket, key string) (etag string, sum [md5.Size]byte, found bool, err error) {
	a, err := s.call(ctx, http.MethodGet, "/"+bucket+"/"+key, "", nil)
	if err != nil {
		return "", sum, false, err
	}
	if a.status == http.StatusNotFound {
		return "", sum, false, noSuch(&a)
	}
	if a.status != http.StatusOK {
		return "", sum, false, a.check()
	}
	return a.etag, md5.Sum(a.body), true, nil
}

// noSuch tells a key that is not there from a bucket that is not.
func noSuch(a *answer) error {
	if bytes.Contains(a.body, []byte("<Code>NoSuchKey</Code>")) {
		return nil
	}
	return a.check()
}

func (s *S3) head(ctx context.Context, bucket, key string) (etag string, found bool, err error) {
	a, err := s.call(ctx, http.MethodHead, "/"+bucket+"/"+key, "", nil)
	switch {
	case err != nil:
		return "", false, err
	case a.status == http.StatusOK:
		return a.etag, true, nil
	case a.status == http.StatusNotFound:
		return "", false, nil
	}
	return "", false, &refusal{status: a.status}
}

// page is one page of ListObjectsV2.
type page struct {
	Contents []struct {
		Key, ETag string
		Size      int64
	}
	IsTruncated           bool
	NextContinuationToken string
}

func (s *S3) list(ctx context.Context, bucket, query string) (p page, err error) {
	a, err := s.call(ctx, http.MethodGet, "/"+bucket, query, nil)
	if err != nil {
		return p, err
	}
	if err := a.check(); err != nil {
		return p, err
	}
	return p, xml.Unmarshal(a.body, &p)
}

// createUpload begins a multipart upload and returns its id.
func (s *S3) createUpload(ctx context.Context, bucket, key string) (string, error) {
	a, err := s.call(ctx, http.MethodPost, "/"+bucket+"/"+key, "uploads=", nil)
	if err == nil {
		err = a.check()
	}
	if err != nil {
		return "", err
	}
	var doc struct{ UploadId string }
	return doc.UploadId, xml.Unmarshal(a.body, &doc)
}

// uploadPart sends the only part.
func (s *S3) uploadPart(ctx context.Context, bucket, key, upload string, body []byte) (etag string, err error) {
	a, err := s.call(ctx, http.MethodPut, "/"+bucket+"/"+key, "partNumber=1&uploadId="+upload, body)
	if err == nil {
		err = a.check()
	}
	return a.etag, err
}

func (s *S3) complete(ctx context.Context, bucket, key, upload, part string, guard ...string) error {
	doc := fmt.Sprintf(`<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"%s"</ETag></Part></CompleteMultipartUpload>`, part)
	a, err := s.call(ctx, http.MethodPost, "/"+bucket+"/"+key, "uploadId="+upload, []byte(doc), guard...)
	if err != nil {
		return err
	}
	return a.check()
}

// MakeBucket makes a bucket; one that is there already is as good.
func (s *S3) MakeBucket(ctx context.Context, bucket string) error {
	a, err := s.call(ctx, http.MethodPut, "/"+bucket, "", nil)
	if err != nil {
		return err
	}
	if err := a.check(); err != nil && statusOf(err) != http.StatusConflict {
		return err
	}
	return nil
}
