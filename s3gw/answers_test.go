package s3gw

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// endless takes the length from a request.
func endless(r *http.Request) { r.ContentLength = -1 }

// TestAnswers: every difference between AWS and RGW, with either setting.
func TestAnswers(t *testing.T) {
	for _, answers := range []string{AnswersAWS, AnswersRGW} {
		t.Run(answers, func(t *testing.T) {
			g := start(t, func(o *Options) { o.Credentials, o.ObjectOwnership, o.Answers = cast(t), "ObjectWriter", answers })
			acl := map[string]string{"X-Amz-Acl": "public-read"}
			nobody := func(r *http.Request) { anonymise(r) }
			for _, call := range []testCall{
				{method: "PUT", target: "/bucket", headers: acl}, {method: "PUT", target: "/bucket/k", body: "x"},
				{method: "PUT", target: "/bucket?policy", body: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:PutObject","Resource":"arn:aws:s3:::bucket/*"}]}`},
				{method: "PUT", target: "/plain", headers: acl},
			} {
				if a := g.do(t, call); a.status/100 != 2 {
					t.Fatalf("%s: %d %s", call.target, a.status, a.body)
				}
			}
			for _, c := range []struct {
				call     testCall
				form     form
				aws, rgw string // status, code and a piece of the answer
			}{
				{call: testCall{method: "PUT", target: "/bucket"}, aws: "200", rgw: "409 BucketAlreadyExists"},
				{call: testCall{method: "PUT", target: "/bucket", headers: acl}, aws: "200", rgw: "200"},
				{call: testCall{method: "PUT", target: "/named", body: "<CreateBucketConfiguration><LocationConstraint>us-east-1</LocationConstraint></CreateBucketConfiguration>"},
					aws: "400 InvalidLocationConstraint", rgw: "200"},
				{call: testCall{method: "GET", target: "/", tamper: nobody}, aws: "403 AccessDenied", rgw: "200  <Buckets></Buckets>"},
				{call: testCall{method: "GET", target: "/bucket?encoding-type=url&prefix=a%20b"}, aws: "200  <Prefix>a%20b</Prefix>", rgw: "200  <Prefix>a b</Prefix>"},
				{call: testCall{method: "GET", target: "/bucket?list-type=2&continuation-token="}, aws: "400 InvalidArgument", rgw: "200  <Key>k</Key>"},
				{call: testCall{method: "GET", target: "/bucket?list-type=2&continuation-token=x"}, aws: "400 InvalidArgument", rgw: "400 InvalidArgument"},
				{call: testCall{method: "GET", target: "/bucket/none"}, aws: "404 NoSuchKey", rgw: "404 NoSuchKey"},
				{call: testCall{method: "GET", target: "/plain?policyStatus"}, aws: "404 NoSuchBucketPolicy", rgw: "200  <IsPublic>true</IsPublic>"},
				{call: testCall{method: "PUT", target: "/bucket/t", headers: map[string]string{"X-Amz-Tagging": "a=b"}, key: "AKIDOTHER", secret: testSecret}, aws: "403 AccessDenied", rgw: "200"},
				{call: testCall{method: "PUT", target: "/bucket/t", headers: map[string]string{"X-Amz-Checksum-Sha256": "bad"}}, aws: "400 InvalidRequest", rgw: "400 BadDigest"},
				{call: testCall{method: "PUT", target: "/bucket/endless", body: strings.Repeat("e", 100<<10), tamper: endless}, aws: "411 MissingContentLength", rgw: "200"},
				{call: testCall{method: "PUT", target: "/bucket/endless", body: "e", tamper: func(r *http.Request) { endless(r); r.Header.Set("Content-Md5", "AAAAAAAAAAAAAAAAAAAAAA==") }},
					aws: "411 MissingContentLength", rgw: "400 BadDigest"},
				{call: testCall{method: "GET", target: "/bucket/k?partNumber=2"}, aws: "416 InvalidPartNumber", rgw: "400 InvalidPart"},
				{call: testCall{method: "GET", target: "/bucket/k?X-Amz-Expires=604801"}, form: forms[2], aws: "400 AuthorizationQueryParametersError", rgw: "403 AccessDenied"},
				{call: testCall{method: "GET", target: "/bucket/k?X-Amz-Expires=-1"}, form: forms[2], aws: "400 AuthorizationQueryParametersError", rgw: "403 AccessDenied"},
			} {
				want := map[string]string{AnswersAWS: c.aws, AnswersRGW: c.rgw}[answers]
				a := g.send(t, g.request(t, c.form, c.call))
				status, rest, _ := strings.Cut(want, " ")
				code, piece, _ := strings.Cut(rest, " ")
				if status != strconv.Itoa(a.status) || code != a.code || !strings.Contains(a.body, piece) {
					t.Errorf("%s %s: %d %s, want %s\n%s", c.call.method, c.call.target, a.status, a.code, want, a.body)
				}
				marker := a.header.Get("X-Amz-Delete-Marker")
				if strings.HasSuffix(c.call.target, "/none") && (marker == "false") != (answers == AnswersRGW) {
					t.Errorf("x-amz-delete-marker: %q", marker)
				}
			}
		})
	}
	g := start(t, func(o *Options) { o.Answers = AnswersRGW }).withBucket(t, "bucket")
	data := strings.Repeat("e", 100<<10)
	g.do(t, testCall{method: "PUT", target: "/bucket/k", body: data, tamper: endless}).want(t, 200, "")
	if got, _ := g.stored("bucket", "k"); string(got) != data {
		t.Errorf("%d bytes of a body without a length", len(got))
	}
	if CheckAnswers("gcs") == nil {
		t.Error("answers that nobody has are taken")
	}
}
