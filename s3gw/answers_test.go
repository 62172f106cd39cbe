package s3gw

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/store"
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

// TestMinIOAnswers: every difference between AWS and MinIO, with either setting.
func TestMinIOAnswers(t *testing.T) {
	writer := &iam.Identity{Kind: iam.User, Account: homeAccount, Name: "writer", ARN: "arn:aws:iam::111:user/writer"}
	writer.Policies = identityPolicy(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["s3:PutObject","s3:ListBucket*","s3:CreateBucket"],"Resource":"*"}}`)
	partly := &iam.Identity{Kind: iam.User, Account: homeAccount, Name: "partly", ARN: "arn:aws:iam::111:user/partly"}
	partly.Policies = identityPolicy(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:ListBucket*","Resource":"*"},
		{"Effect":"Allow","Action":"s3:GetObject*","Resource":"arn:aws:s3:::*/open"},{"Effect":"Deny","Action":"s3:GetObject*Tagging","Resource":"*"}]}`)
	all := cast(t)
	all["WRITER"], all["PARTLY"] = writer, partly
	acl := map[string]string{"X-Amz-Acl": "public-read"}
	for _, answers := range []string{AnswersAWS, AnswersMinIO} {
		g := startRealWith(t, "other", store.Options{}, func(o *Options) { o.Credentials, o.Answers = all, answers })
		minio := answers == AnswersMinIO
		call := func(c testCall, aws, other string) string {
			t.Helper()
			want := aws
			if minio {
				want = other
			}
			a := g.do(t, c)
			if got := strings.TrimSpace(strconv.Itoa(a.status) + " " + a.code); got != want {
				t.Errorf("%s: %s %s: %s, want %s\n%s", answers, c.method, c.target, got, want, a.body)
			}
			return a.body
		}
		both := func(c testCall, want string) string { t.Helper(); return call(c, want, want) }
		both(testCall{method: "PUT", target: "/bucket"}, "200")
		both(testCall{method: "PUT", target: "/chosen", headers: map[string]string{"X-Amz-Object-Ownership": "BucketOwnerEnforced"}}, "200")
		both(testCall{method: "PUT", target: "/writers", headers: map[string]string{"X-Amz-Object-Ownership": "ObjectWriter"}}, "200")

		call(testCall{method: "PUT", target: "/public", headers: acl}, "400 InvalidBucketAclWithObjectOwnership", "200")
		call(testCall{method: "PUT", target: "/theirs", headers: acl, key: "WRITER", secret: testSecret}, "403 AccessDenied", "200")
		call(testCall{method: "PUT", target: "/bucket/acl", headers: acl}, "400 AccessControlListNotSupported", "200")
		call(testCall{method: "PUT", target: "/bucket/acl", headers: map[string]string{"X-Amz-Grant-Read": `uri="http://acs.amazonaws.com/groups/global/AllUsers"`}}, "400 AccessControlListNotSupported", "200")
		call(testCall{method: "PUT", target: "/bucket/acl", headers: acl, key: "WRITER", secret: testSecret}, "403 AccessDenied", "200")
		both(testCall{method: "PUT", target: "/bucket/acl"}, "200")
		if doc := both(testCall{method: "GET", target: "/bucket/acl?acl"}, "200"); strings.Contains(doc, "AllUsers") || strings.Count(doc, "<Grant>") != 1 {
			t.Errorf("%s: an ACL that is passed over did something: %s", answers, doc)
		}
		both(testCall{method: "GET", target: "/bucket/acl", tamper: anonymise}, "403 AccessDenied")
		// Who chose means it.
		both(testCall{method: "PUT", target: "/chosen/acl", headers: acl}, "400 AccessControlListNotSupported")
		both(testCall{method: "PUT", target: "/writers/acl", headers: acl}, "200")
		both(testCall{method: "PUT", target: "/writers/acl", headers: acl, key: "WRITER", secret: testSecret}, "403 AccessDenied")
		both(testCall{method: "GET", target: "/writers/acl", tamper: anonymise}, "200")
		both(testCall{method: "DELETE", target: "/bucket/acl"}, "204")

		meta := map[string]string{"X-Amz-Meta-Marker": "a<b", "X-Amz-Meta-No!name": "x", "X-Amz-Tagging": "t=1%2B2", "Cache-Control": "no-store", "Content-Type": "text/plain"}
		both(testCall{method: "PUT", target: "/bucket/open", headers: meta}, "200")
		both(testCall{method: "PUT", target: "/bucket/shut", headers: meta}, "200")
		const told = "<UserTags>t=1%2B2</UserTags><UserMetadata><content-type>text/plain</content-type><cache-control>no-store</cache-control><X-Amz-Meta-Marker>a&lt;b</X-Amz-Meta-Marker></UserMetadata>"
		for _, list := range []string{"/bucket?list-type=2&metadata=true", "/bucket?versions&metadata=true"} {
			root := both(testCall{method: "GET", target: list}, "200")
			half := both(testCall{method: "GET", target: list, key: "PARTLY", secret: testSecret}, "200")
			none := both(testCall{method: "GET", target: list, key: "WRITER", secret: testSecret}, "200")
			plain := both(testCall{method: "GET", target: strings.TrimSuffix(list, "&metadata=true")}, "200")
			open, shut, _ := strings.Cut(half, "<Key>shut</Key>")
			want, wantHalf := 0, 0
			if minio {
				want, wantHalf = 2, 1
			}
			if strings.Count(root, told) != want || strings.Count(open, "<UserMetadata>") != wantHalf || strings.Contains(shut, "User") || strings.Contains(half, "UserTags") ||
				strings.Contains(none+plain, "User") {
				t.Errorf("%s: %s\nroot    %s\npartly  %s\nwriter  %s\nwithout %s", answers, list, root, half, none, plain)
			}
		}

		for _, key := range []string{"a", "b", "b", "c"} {
			both(testCall{method: "POST", target: "/bucket/" + key + "?uploads"}, "200")
		}
		doc := both(testCall{method: "GET", target: "/bucket?uploads&key-marker=b"}, "200")
		n, owners := 1, 1
		if minio {
			n, owners = 3, 0
		}
		if strings.Count(doc, "<Upload>") != n || strings.Count(doc, "<Owner>") != owners || strings.Count(doc, "<StorageClass>") != owners {
			t.Errorf("%s: uploads behind b: %s", answers, doc)
		}
	}
}
