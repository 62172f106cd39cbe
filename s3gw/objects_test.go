package s3gw

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

var ctx = context.Background()

func TestBuckets(t *testing.T) {
	g := start(t)
	c := g.sdk()
	for _, name := range []string{"bucket-b", "bucket-a", "other"} {
		if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: &name}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("other")}); err != nil {
		t.Error("us-east-1 lets you make your own bucket again:", err)
	}
	g.CreateBucket(ctx, "somebody", "taken", testRegion)
	_, err := c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("taken")})
	if codeOf(err) != "BucketAlreadyExists" {
		t.Error(err)
	}
	_, err = c.CreateBucket(ctx, &awss3.CreateBucketInput{Bucket: aws.String("elsewhere"),
		CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: "eu-west-1"}})
	if codeOf(err) != "InvalidLocationConstraint" {
		t.Error(err)
	}
	west := start(t, func(o *Options) { o.Region = "eu-west-1" })
	for location, code := range map[string]string{"eu-west-1": "", "us-east-1": "IllegalLocationConstraintException"} {
		doc := "<CreateBucketConfiguration><LocationConstraint>" + location + "</LocationConstraint></CreateBucketConfiguration>"
		status := 200
		if code != "" {
			status = 400
		}
		west.do(t, testCall{method: "PUT", target: "/elsewhere", body: doc, region: "eu-west-1"}).want(t, status, code)
	}
	anywhere := start(t, func(o *Options) { o.AnyRegion = true })
	for i, f := range forms {
		for location, code := range map[string]string{"mars-1": "", "us-east-1": "", "mars 1": "InvalidLocationConstraint"} {
			body := "<CreateBucketConfiguration><LocationConstraint>" + location + "</LocationConstraint></CreateBucketConfiguration>"
			status := map[bool]int{true: 200, false: 400}[code == ""]
			bucket := fmt.Sprintf("/%s-%d", strings.ReplaceAll(location, " ", "-"), i)
			r := anywhere.request(t, f, testCall{method: "PUT", target: bucket, body: body, region: "mars-2"})
			if a := anywhere.send(t, r).want(t, status, code); status == 200 {
				a = anywhere.do(t, testCall{method: "GET", target: bucket + "?location", region: "mars-3"}).want(t, 200, "")
				if !strings.Contains(a.body, "></LocationConstraint>") {
					t.Errorf("a bucket that was to be in %s is in %s", location, a.body)
				}
			}
		}
	}
	again := "<CreateBucketConfiguration><LocationConstraint>mars-1</LocationConstraint></CreateBucketConfiguration>"
	anywhere.do(t, testCall{method: "PUT", target: "/mars-1-0", body: again, region: "mars-2"}).want(t, 409, "BucketAlreadyOwnedByYou")
	anywhere.do(t, testCall{method: "PUT", target: "/mars-1-0", region: "mars-2"}).want(t, 200, "")
	var names []string
	pages := awss3.NewListBucketsPaginator(c, &awss3.ListBucketsInput{MaxBuckets: aws.Int32(2)})
	for pages.HasMorePages() {
		p, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range p.Buckets {
			names = append(names, *b.Name)
		}
	}
	if fmt.Sprint(names) != "[bucket-a bucket-b other]" {
		t.Error(names)
	}
	head, err := c.HeadBucket(ctx, &awss3.HeadBucketInput{Bucket: aws.String("other")})
	if err != nil || aws.ToString(head.BucketRegion) != testRegion {
		t.Error(head, err)
	}
	if _, err = c.HeadBucket(ctx, &awss3.HeadBucketInput{Bucket: aws.String("absent")}); codeOf(err) != "NotFound" {
		t.Error(err)
	}
	loc, err := c.GetBucketLocation(ctx, &awss3.GetBucketLocationInput{Bucket: aws.String("other")})
	if err != nil || loc.LocationConstraint != "" {
		t.Error(loc, err)
	}
	g.do(t, testCall{method: "PUT", target: "/other/k", body: "x"}).want(t, 200, "")
	g.do(t, testCall{method: "DELETE", target: "/other"}).want(t, 409, "BucketNotEmpty")
	g.do(t, testCall{method: "DELETE", target: "/other/k"}).want(t, 204, "")
	g.do(t, testCall{method: "DELETE", target: "/other"}).want(t, 204, "")
	g.do(t, testCall{method: "DELETE", target: "/other"}).want(t, 404, "NoSuchBucket")
	g.do(t, testCall{method: "PUT", target: "/xml-bucket", body: "<!DOCTYPE x><CreateBucketConfiguration/>"}).want(t, 400, "MalformedXML")
	g.do(t, testCall{method: "PUT", target: "/public-bucket", headers: map[string]string{"X-Amz-Acl": "public-read"}}).want(t, 400, "InvalidBucketAclWithObjectOwnership")
}

func TestObjectRoundTrip(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	c := g.sdk()
	data := bytes.Repeat([]byte("ashlar "), 40_000)
	put, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("dir/ä b+c"), Body: bytes.NewReader(data),
		Metadata: map[string]string{"Color": "blue"}, CacheControl: aws.String("max-age=1"), ContentType: aws.String("text/x"),
		ContentEncoding: aws.String("gzip"), Tagging: aws.String("a=1&b=2"), ChecksumAlgorithm: types.ChecksumAlgorithmCrc64nvme})
	if err != nil {
		t.Fatal(err)
	}
	get, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("dir/ä b+c"), ChecksumMode: types.ChecksumModeEnabled})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(get.Body) // the SDK verifies the checksum
	if err != nil || !bytes.Equal(got, data) || *get.ETag != *put.ETag || get.Metadata["color"] != "blue" || *get.CacheControl != "max-age=1" ||
		*get.ContentType != "text/x" || *get.ContentEncoding != "gzip" || aws.ToInt32(get.TagCount) != 2 || get.ChecksumCRC64NVME == nil {
		t.Fatal(err, len(got), get)
	}
	tags, err := c.GetObjectTagging(ctx, &awss3.GetObjectTaggingInput{Bucket: aws.String("bucket"), Key: aws.String("dir/ä b+c")})
	if err != nil || len(tags.TagSet) != 2 || *tags.TagSet[1].Value != "2" {
		t.Error(tags, err)
	}
	attr, err := c.GetObjectAttributes(ctx, &awss3.GetObjectAttributesInput{Bucket: aws.String("bucket"), Key: aws.String("dir/ä b+c"),
		ObjectAttributes: []types.ObjectAttributes{"ETag", "ObjectSize", "Checksum"}})
	if err != nil || *attr.ObjectSize != int64(len(data)) || attr.Checksum == nil || attr.Checksum.ChecksumType != types.ChecksumTypeFullObject {
		t.Error(attr, err)
	}
	presigned, err := awss3.NewPresignClient(c).PresignGetObject(ctx, &awss3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("dir/ä b+c"),
		ResponseContentDisposition: aws.String(`attachment; filename="x"`)})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.http.Get(presigned.URL)
	if err != nil {
		t.Fatal(err)
	}
	got, _ = io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 200 || !bytes.Equal(got, data) || resp.Header.Get("Content-Disposition") != `attachment; filename="x"` {
		t.Error(resp.StatusCode, len(got), resp.Header)
	}
	a := g.do(t, testCall{method: "GET", target: "/bucket/dir/%C3%A4%20b%2Bc?response-content-type=a%0d%0aX:y"})
	a.want(t, 400, "InvalidArgument")
}

func TestReads(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "0123456789"}).want(t, 200, "")
	etag := g.do(t, testCall{method: "HEAD", target: "/bucket/k"}).header.Get("ETag")
	past, future := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	type H = map[string]string
	for _, c := range []struct {
		query   string
		headers H
		status  int
		code    string
		body    string
	}{
		{"", nil, 200, "", "0123456789"},
		{"", H{"Range": "bytes=2-4"}, 206, "", "234"}, {"", H{"Range": "bytes=7-"}, 206, "", "789"}, {"", H{"Range": "bytes=-2"}, 206, "", "89"},
		{"", H{"Range": "bytes=5-99"}, 206, "", "56789"}, {"", H{"Range": "bytes=10-"}, 416, "InvalidRange", ""}, {"", H{"Range": "bytes=-0"}, 416, "InvalidRange", ""},
		{"", H{"Range": "nonsense"}, 200, "", "0123456789"}, {"", H{"Range": "bytes=0-1,4-5"}, 200, "", "0123456789"}, {"", H{"Range": "bytes=4-2"}, 200, "", "0123456789"},
		{"", H{"Range": "bytes=0-0", "If-Range": etag}, 206, "", "0"}, {"", H{"Range": "bytes=0-0", "If-Range": `"x"`}, 200, "", "0123456789"},
		{"", H{"Range": "bytes=0-0", "If-Range": past}, 200, "", "0123456789"},
		{"", H{"If-Match": etag}, 200, "", "0123456789"}, {"", H{"If-Match": `"x"`}, 412, "PreconditionFailed", ""},
		{"", H{"If-None-Match": etag}, 304, "", ""}, {"", H{"If-None-Match": `"x"`}, 200, "", "0123456789"},
		{"", H{"If-Modified-Since": future}, 304, "", ""}, {"", H{"If-Modified-Since": past}, 200, "", "0123456789"},
		{"", H{"If-Unmodified-Since": past}, 412, "PreconditionFailed", ""}, {"", H{"If-Unmodified-Since": future}, 200, "", "0123456789"},
		{"?partNumber=1", nil, 206, "", "0123456789"}, {"?partNumber=2", nil, 416, "InvalidPartNumber", ""}, {"?partNumber=0", nil, 400, "InvalidArgument", ""},
		{"?partNumber=1", H{"Range": "bytes=0-1"}, 400, "InvalidRequest", ""}, {"?versionId=null", nil, 200, "", "0123456789"},
		{"?versionId=0123456789abcdef0123456789abcdef", nil, 404, "NoSuchVersion", ""}, {"?versionId=abc", nil, 400, "InvalidArgument", ""}, {"?versionId=", nil, 400, "InvalidArgument", ""},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			a := g.do(t, testCall{method: method, target: "/bucket/k" + c.query, headers: c.headers})
			if method == "HEAD" {
				a.want(t, c.status, "")
			} else if a.want(t, c.status, c.code); c.code == "" && a.body != c.body {
				t.Errorf("%v: %q, want %q", c, a.body, c.body)
			}
			if want := fmt.Sprint(len(c.body)); c.status/100 == 2 && a.header.Get("Content-Length") != want {
				t.Errorf("%s %v: length %s", method, c, a.header.Get("Content-Length"))
			}
			if (a.header.Get("Content-Range") != "") != (c.status == 206) {
				t.Errorf("%s %v: Content-Range %q", method, c, a.header.Get("Content-Range"))
			}
			if (c.status == 304 || c.status/100 == 2) && a.header.Get("ETag") != etag {
				t.Errorf("%s %v: no ETag", method, c)
			}
		}
	}
}

func TestConditionalWrites(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	type H = map[string]string
	put := func(h H) answer { return g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "x", headers: h}) }
	put(H{"If-Match": `"abc"`}).want(t, 404, "NoSuchKey")
	etag := put(H{"If-None-Match": "*"}).want(t, 200, "").header.Get("ETag")
	put(H{"If-None-Match": "*"}).want(t, 412, "PreconditionFailed")
	put(H{"If-Match": `"abc"`}).want(t, 412, "PreconditionFailed")
	put(H{"If-Match": `""`}).want(t, 412, "PreconditionFailed")
	put(H{"If-Match": etag}).want(t, 200, "")
	del := func(h H) answer { return g.do(t, testCall{method: "DELETE", target: "/bucket/k", headers: h}) }
	del(H{"If-Match": `"abc"`}).want(t, 412, "PreconditionFailed")
	del(H{"If-Match": etag}).want(t, 204, "")
	del(H{"If-Match": etag}).want(t, 404, "NoSuchKey")
	del(nil).want(t, 204, "")
}

func TestMultiDelete(t *testing.T) {
	g := start(t).withBucket(t, "bucket").withBucket(t, "other")
	for _, k := range []string{"a", "b", "../other/k", "c"} {
		g.PutObject(ctx, putRequest("bucket", k), bodyOf("x"))
	}
	g.PutObject(ctx, putRequest("other", "k"), bodyOf("x"))
	send := func(doc string, h map[string]string) answer {
		if h == nil {
			sum := md5.Sum([]byte(doc))
			h = map[string]string{"Content-Md5": base64.StdEncoding.EncodeToString(sum[:])}
		}
		return g.do(t, testCall{method: "POST", target: "/bucket?delete", body: doc, headers: h})
	}
	object := func(k string) string { return "<Object><Key>" + k + "</Key></Object>" }
	doc := "<Delete>" + object("a") + object("../other/k") + object("absent") + object(strings.Repeat("x", 1025)) +
		`<Object><Key>b</Key><ETag>"wrong"</ETag></Object>` + "</Delete>"
	a := send(doc, nil).want(t, 200, "")
	for _, want := range []string{"<Deleted><Key>a</Key></Deleted>", "<Deleted><Key>../other/k</Key></Deleted>", "<Deleted><Key>absent</Key></Deleted>",
		"<Code>KeyTooLongError</Code>", "<Error><Key>b</Key><Code>PreconditionFailed</Code>"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("%s is not in %s", want, a.body)
		}
	}
	if _, there := g.stored("other", "k"); !there {
		t.Error("a key with .. reached another bucket")
	}
	if a := send("<Delete><Quiet>true</Quiet>"+object("c")+"</Delete>", nil).want(t, 200, ""); strings.Contains(a.body, "Deleted") {
		t.Error(a.body)
	}
	if _, there := g.stored("bucket", "c"); there {
		t.Error("c is still there")
	}
	one := "<Delete>" + object("b") + "</Delete>"
	send(one, map[string]string{}).want(t, 400, "InvalidRequest")
	send(one, map[string]string{"Content-Md5": "AAAAAAAAAAAAAAAAAAAAAA=="}).want(t, 400, "BadDigest")
	send("<Delete>"+strings.Repeat(object("k"), 1001)+"</Delete>", nil).want(t, 400, "MalformedXML")
	send(one+"junk", nil).want(t, 400, "MalformedXML")
	send(`<!DOCTYPE x [<!ENTITY e "b">]><Delete>`+object("&e;")+"</Delete>", nil).want(t, 400, "MalformedXML")
	send("<Delete>"+strings.Repeat(" ", 2<<20)+object("b")+"</Delete>", nil).want(t, 400, "MalformedXML")
	if _, there := g.stored("bucket", "b"); !there {
		t.Error("b was deleted by a bad request")
	}
	out, err := g.sdk().DeleteObjects(ctx, &awss3.DeleteObjectsInput{Bucket: aws.String("bucket"),
		Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("b")}, {Key: aws.String("n\nl&")}}}})
	if err != nil || len(out.Deleted) != 2 || len(out.Errors) != 0 || *out.Deleted[1].Key != "n\nl&" {
		t.Error(out, err)
	}
}

func TestCopy(t *testing.T) {
	g := start(t).withBucket(t, "bucket").withBucket(t, "other")
	type H = map[string]string
	g.do(t, testCall{method: "PUT", target: "/bucket/a%20b", body: "hello", headers: H{"X-Amz-Meta-A": "1", "X-Amz-Tagging": "t=1", "Content-Type": "x/y"}}).want(t, 200, "")
	cp := func(target string, h H) answer { return g.do(t, testCall{method: "PUT", target: target, headers: h}) }
	const src = "X-Amz-Copy-Source"
	for _, c := range []struct {
		target  string
		headers H
		status  int
		code    string
	}{
		{"/other/k", H{src: "bucket/a%20b"}, 200, ""}, {"/other/k", H{src: "/bucket/a%20b?versionId=null"}, 200, ""},
		{"/other/k", H{src: ""}, 400, "InvalidArgument"}, {"/other/k", H{src: "bucket"}, 400, "InvalidArgument"}, {"/other/k", H{src: "bucket/%"}, 400, "InvalidArgument"},
		{"/other/k", H{src: "bucket/../other/k"}, 404, "NoSuchKey"}, {"/other/k", H{src: "absent/k"}, 404, "NoSuchBucket"}, {"/other/k", H{src: "bucket/absent"}, 404, "NoSuchKey"},
		{"/absent/k", H{src: "bucket/a%20b"}, 404, "NoSuchBucket"}, {"/other/k", H{src: "bucket/a%20b?versionId=0123456789abcdef0123456789abcdef"}, 404, "NoSuchVersion"},
		{"/other/k", H{src: "bucket/a%20b", "X-Amz-Metadata-Directive": "MAYBE"}, 400, "InvalidArgument"},
		{"/other/k", H{src: "bucket/a%20b", "X-Amz-Copy-Source-If-Match": "nope"}, 412, "PreconditionFailed"},
		{"/other/k", H{src: "bucket/a%20b", "X-Amz-Copy-Source-If-None-Match": "5d41402abc4b2a76b9719d911017c592"}, 412, "PreconditionFailed"},
		{"/other/k", H{src: "bucket/a%20b", "If-None-Match": "*"}, 412, "PreconditionFailed"},
		{"/other/k", H{src: "bucket/a%20b", "X-Amz-Checksum-Algorithm": "MD9"}, 400, "InvalidRequest"},
		{"/bucket/a%20b", H{src: "bucket/a%20b"}, 400, "InvalidRequest"},
		{"/bucket/a%20b", H{src: "bucket/a%20b", "X-Amz-Storage-Class": "STANDARD_IA"}, 200, ""},
		{"/bucket/a%20b", H{src: "bucket/a%20b", "X-Amz-Metadata-Directive": "REPLACE", "X-Amz-Meta-B": "2"}, 200, ""},
	} {
		cp(c.target, c.headers).want(t, c.status, c.code)
	}
	o, err := g.HeadObject(ctx, "other", "k", "")
	if err != nil || o.User["a"] != "1" || o.Tags["t"] != "1" || o.ContentType != "x/y" {
		t.Error(o, err)
	}
	o, _ = g.HeadObject(ctx, "bucket", "a b", "")
	if o.User["b"] != "2" || o.User["a"] != "" || o.Tags["t"] != "1" {
		t.Errorf("%+v", o.Attributes)
	}
	out, err := g.sdk().CopyObject(ctx, &awss3.CopyObjectInput{Bucket: aws.String("other"), Key: aws.String("sum"), CopySource: aws.String("bucket/a%20b"),
		ChecksumAlgorithm: types.ChecksumAlgorithmSha256})
	if err != nil || aws.ToString(out.CopyObjectResult.ChecksumSHA256) == "" || out.CopyObjectResult.ETag == nil {
		t.Error(out, err)
	}
}
