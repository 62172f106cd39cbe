package s3gw

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"ashlar/s3gw/store"
)

func putRequest(bucket, key string) *store.PutRequest {
	return &store.PutRequest{Bucket: bucket, Key: key, Owner: testAccount}
}

func bodyOf(s string) store.Body { return newCopyBody(strings.NewReader(s), uint64(len(s)), nil) }

// keysOf lists with V2 in pages of max and returns keys and prefixes in order.
func keysOf(t *testing.T, c *awss3.Client, in awss3.ListObjectsV2Input) (all []string, pages int) {
	t.Helper()
	p := awss3.NewListObjectsV2Paginator(c, &in)
	for p.HasMorePages() {
		page, err := p.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		pages++
		if int(*page.KeyCount) != len(page.Contents)+len(page.CommonPrefixes) {
			t.Errorf("KeyCount %d", *page.KeyCount)
		}
		for _, o := range page.Contents {
			all = append(all, *o.Key)
		}
		for _, p := range page.CommonPrefixes {
			all = append(all, *p.Prefix+"*")
		}
	}
	return all, pages
}

func TestListing(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	for _, k := range []string{"sample.jpg", "photos/2006/January/1.jpg", "photos/2006/February/1.jpg", "photos/2006/February/2.jpg", "photos/x", "a&<b>", "ä ü", "z\nz"} {
		if _, err := g.PutObject(ctx, putRequest("bucket", k), bodyOf(k)); err != nil {
			t.Fatal(err)
		}
	}
	c := g.sdk()
	b := aws.String("bucket")
	for _, l := range []struct {
		in   awss3.ListObjectsV2Input
		want string
	}{
		{awss3.ListObjectsV2Input{}, `["a&<b>" "photos/2006/February/1.jpg" "photos/2006/February/2.jpg" "photos/2006/January/1.jpg" "photos/x" "sample.jpg" "z\nz" "ä ü"]`},
		{awss3.ListObjectsV2Input{MaxKeys: aws.Int32(1)}, `["a&<b>" "photos/2006/February/1.jpg" "photos/2006/February/2.jpg" "photos/2006/January/1.jpg" "photos/x" "sample.jpg" "z\nz" "ä ü"]`},
		{awss3.ListObjectsV2Input{Delimiter: aws.String("/")}, `["a&<b>" "sample.jpg" "z\nz" "ä ü" "photos/*"]`},
		{awss3.ListObjectsV2Input{Delimiter: aws.String("/"), MaxKeys: aws.Int32(1)}, `["a&<b>" "photos/*" "sample.jpg" "z\nz" "ä ü"]`},
		{awss3.ListObjectsV2Input{Delimiter: aws.String("/"), MaxKeys: aws.Int32(2), EncodingType: "url"}, `["a%26%3Cb%3E" "photos/*" "sample.jpg" "z%0Az" "%C3%A4%20%C3%BC"]`},
		{awss3.ListObjectsV2Input{Delimiter: aws.String("/"), Prefix: aws.String("photos/2006/")}, `["photos/2006/February/*" "photos/2006/January/*"]`},
		{awss3.ListObjectsV2Input{StartAfter: aws.String("photos/x")}, `["sample.jpg" "z\nz" "ä ü"]`},
		{awss3.ListObjectsV2Input{Prefix: aws.String("none")}, `[]`},
	} {
		l.in.Bucket = b
		got, _ := keysOf(t, c, l.in)
		if s := fmt.Sprintf("%q", got); s != l.want {
			t.Errorf("%+v:\n got %s\nwant %s", l.in, s, l.want)
		}
	}
	// V1, as its own SDK call and page by page.
	var keys []string
	in := &awss3.ListObjectsInput{Bucket: b, MaxKeys: aws.Int32(2), Delimiter: aws.String("/")}
	for {
		p, err := c.ListObjects(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range p.Contents {
			if keys = append(keys, *o.Key); *o.Owner.ID != testAccount || o.StorageClass != "STANDARD" || !strings.HasPrefix(*o.ETag, `"`) {
				t.Errorf("%+v", o)
			}
		}
		for _, cp := range p.CommonPrefixes {
			keys = append(keys, *cp.Prefix)
		}
		if !*p.IsTruncated {
			break
		}
		in.Marker = p.NextMarker
	}
	if len(keys) != 5 {
		t.Errorf("%q", keys)
	}
}

func TestListingDocument(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	for _, k := range []string{"p/a b", "p/c/d", "p/e"} {
		g.PutObject(ctx, putRequest("bucket", k), bodyOf("x"))
	}
	g.mu.Lock()
	for _, o := range g.buckets["bucket"].objects {
		o.Modified = o.Modified.AddDate(2000-o.Modified.Year(), 0, 0).Truncate(24 * 3600e9)
	}
	day := g.buckets["bucket"].objects["p/e"].Modified.UTC().Format("2006-01-02")
	g.mu.Unlock()
	got := g.do(t, testCall{method: "GET", target: "/bucket?list-type=2&prefix=p/&delimiter=/&max-keys=2&fetch-owner=true&start-after=p&encoding-type=url"}).want(t, 200, "").body
	want := `<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><Prefix>p/</Prefix>` +
		`<StartAfter>p</StartAfter><KeyCount>2</KeyCount><NextContinuationToken>` + makeToken("p/c/") + `</NextContinuationToken><MaxKeys>2</MaxKeys><Delimiter>/</Delimiter>` +
		`<IsTruncated>true</IsTruncated><EncodingType>url</EncodingType><Contents><Key>p/a%20b</Key><LastModified>` + day + `T00:00:00.000Z</LastModified>` +
		`<ETag>&quot;9dd4e461268c8034f5c8564e155c67a6&quot;</ETag><Size>1</Size><Owner><ID>` + testAccount + `</ID><DisplayName>` + testAccount + `</DisplayName></Owner>` +
		`<StorageClass>STANDARD</StorageClass></Contents><CommonPrefixes><Prefix>p/c/</Prefix></CommonPrefixes></ListBucketResult>`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestListingArguments(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	g.PutObject(ctx, putRequest("bucket", "k"), bodyOf("x"))
	for _, c := range []struct {
		query  string
		status int
		code   string
		holds  string
	}{
		{"max-keys=0", 200, "", "<IsTruncated>false</IsTruncated>"}, {"list-type=2&max-keys=0", 200, "", "<KeyCount>0</KeyCount>"},
		{"max-keys=5000", 200, "", "<MaxKeys>1000</MaxKeys>"}, {"max-keys=", 200, "", "<MaxKeys>1000</MaxKeys>"},
		{"max-keys=-1", 400, "InvalidArgument", ""}, {"max-keys=x", 400, "InvalidArgument", ""}, {"max-keys=99999999999", 400, "InvalidArgument", ""},
		{"encoding-type=base64", 400, "InvalidArgument", ""}, {"list-type=3", 400, "InvalidArgument", ""}, {"list-type=2&continuation-token=", 400, "InvalidArgument", ""},
		{"list-type=2&continuation-token=junk", 400, "InvalidArgument", ""}, {"list-type=2&continuation-token=anVuaw==", 400, "InvalidArgument", ""},
		{"prefix=%00", 400, "InvalidArgument", ""}, {"prefix=%ff", 400, "InvalidArgument", ""}, {"marker=k", 200, "", "<Marker>k</Marker>"},
		{"uploads&max-uploads=x", 400, "InvalidArgument", ""}, {"uploads&max-uploads=0", 200, "", "<MaxUploads>0</MaxUploads>"},
	} {
		a := g.do(t, testCall{method: "GET", target: "/bucket?" + c.query}).want(t, c.status, c.code)
		if !strings.Contains(a.body, c.holds) {
			t.Errorf("%s: %s", c.query, a.body)
		}
	}
}

func TestMultipart(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	c := g.sdk()
	b, k := aws.String("bucket"), aws.String("dir/big & <ä>")
	up, err := c.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: b, Key: k, ContentType: aws.String("a/b"), Metadata: map[string]string{"m": "v"},
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
	if err != nil || *up.Key != *k || up.ChecksumType != types.ChecksumTypeComposite {
		t.Fatal(up, err)
	}
	parts := [][]byte{bytes.Repeat([]byte("a"), store.PartBytesMin), bytes.Repeat([]byte("b"), store.PartBytesMin), []byte("end")}
	var done []types.CompletedPart
	h := md5.New()
	for i, p := range parts {
		out, err := c.UploadPart(ctx, &awss3.UploadPartInput{Bucket: b, Key: k, UploadId: up.UploadId, PartNumber: aws.Int32(int32(i + 1)), Body: bytes.NewReader(p),
			ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
		if err != nil {
			t.Fatal(err)
		}
		sum := md5.Sum(p)
		h.Write(sum[:])
		done = append(done, types.CompletedPart{ETag: out.ETag, PartNumber: aws.Int32(int32(i + 1)), ChecksumCRC32: out.ChecksumCRC32})
	}
	lp, err := c.ListParts(ctx, &awss3.ListPartsInput{Bucket: b, Key: k, UploadId: up.UploadId, MaxParts: aws.Int32(2)})
	if err != nil || len(lp.Parts) != 2 || !*lp.IsTruncated || *lp.NextPartNumberMarker != "2" || *lp.Parts[0].Size != store.PartBytesMin || lp.Parts[0].ChecksumCRC32 == nil {
		t.Fatal(lp, err)
	}
	lu, err := c.ListMultipartUploads(ctx, &awss3.ListMultipartUploadsInput{Bucket: b, Prefix: aws.String("dir/")})
	if err != nil || len(lu.Uploads) != 1 || *lu.Uploads[0].Key != *k || *lu.Uploads[0].UploadId != *up.UploadId {
		t.Fatal(lu, err)
	}
	lu, err = c.ListMultipartUploads(ctx, &awss3.ListMultipartUploadsInput{Bucket: b, Delimiter: aws.String("/")})
	if err != nil || len(lu.Uploads) != 0 || len(lu.CommonPrefixes) != 1 {
		t.Fatal(lu, err)
	}
	in := &awss3.CompleteMultipartUploadInput{Bucket: b, Key: k, UploadId: up.UploadId, MpuObjectSize: aws.Int64(7),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: done}}
	if _, err = c.CompleteMultipartUpload(ctx, in); codeOf(err) != "InvalidRequest" {
		t.Error("a wrong object size:", err)
	}
	in.MpuObjectSize = aws.Int64(2*store.PartBytesMin + 3)
	out, err := c.CompleteMultipartUpload(ctx, in)
	if err != nil || *out.ETag != `"`+hex.EncodeToString(h.Sum(nil))+`-3"` || !strings.HasSuffix(*out.Location, "/bucket/dir/big%20%26%20%3C%C3%A4%3E") {
		t.Fatal(out, err)
	}
	got, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: b, Key: k, PartNumber: aws.Int32(3)})
	if err != nil || *got.PartsCount != 3 || *got.ContentRange != "bytes 10485760-10485762/10485763" {
		t.Fatal(got, err)
	}
	if body, _ := io.ReadAll(got.Body); string(body) != "end" {
		t.Errorf("%q", body)
	}
	if _, err = c.GetObject(ctx, &awss3.GetObjectInput{Bucket: b, Key: k, PartNumber: aws.Int32(4)}); codeOf(err) != "InvalidPartNumber" {
		t.Error(err)
	}
}

func TestPartCopy(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	g.PutObject(ctx, putRequest("bucket", "src"), bodyOf("0123456789"))
	id, _ := g.CreateUpload(ctx, &store.Upload{Bucket: "bucket", Key: "k", ChecksumAlgorithm: "SHA1"})
	c := g.sdk()
	in := func(source, rng string) *awss3.UploadPartCopyInput {
		i := &awss3.UploadPartCopyInput{Bucket: aws.String("bucket"), Key: aws.String("k"), UploadId: &id, PartNumber: aws.Int32(1), CopySource: &source}
		if rng != "" {
			i.CopySourceRange = &rng
		}
		return i
	}
	for _, r := range []struct{ source, rng, code, part string }{
		{"bucket/src", "", "OK", "0123456789"}, {"bucket/src", "bytes=2-4", "OK", "234"}, {"bucket/src", "bytes=2-10", "InvalidArgument", ""},
		{"bucket/src", "bytes=2-", "InvalidArgument", ""}, {"bucket/src", "2-4", "InvalidArgument", ""}, {"bucket/absent", "", "NoSuchKey", ""},
		{"absent/src", "", "NoSuchBucket", ""}, {"src", "", "InvalidArgument", ""},
	} {
		out, err := c.UploadPartCopy(ctx, in(r.source, r.rng))
		if codeOf(err) != r.code {
			t.Errorf("%+v: %v", r, err)
		}
		if err == nil {
			if got := string(g.buckets["bucket"].uploads[id].parts[1].data); got != r.part || out.CopyPartResult.ChecksumSHA1 == nil {
				t.Errorf("%+v: %q %+v", r, got, out.CopyPartResult)
			}
		}
	}
}

func TestMultipartRefusals(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	id, _ := g.CreateUpload(ctx, &store.Upload{Bucket: "bucket", Key: "k"})
	etags := map[int]string{}
	for n, body := range map[int]string{1: "small", 2: "last"} {
		a := g.do(t, testCall{method: "PUT", target: fmt.Sprintf("/bucket/k?partNumber=%d&uploadId=%s", n, id), body: body}).want(t, 200, "")
		etags[n] = strings.Trim(a.header.Get("ETag"), `"`)
	}
	part := func(n int, etag string) string {
		return fmt.Sprintf("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", n, etag)
	}
	doc := func(parts ...string) string {
		return "<CompleteMultipartUpload>" + strings.Join(parts, "") + "</CompleteMultipartUpload>"
	}
	many := strings.Repeat(part(1, "e"), 10_001)
	for _, c := range []struct {
		method, target, body string
		status               int
		code                 string
	}{
		{"PUT", "/bucket/k?partNumber=1&uploadId=absent", "x", 404, "NoSuchUpload"}, {"PUT", "/bucket/other?partNumber=1&uploadId=" + id, "x", 404, "NoSuchUpload"},
		{"PUT", "/bucket/k?partNumber=1&uploadId=", "x", 404, "NoSuchUpload"}, {"PUT", "/bucket/k?uploadId=" + id, "x", 400, "InvalidArgument"},
		{"PUT", "/bucket/k?partNumber=0&uploadId=" + id, "x", 400, "InvalidArgument"}, {"PUT", "/bucket/k?partNumber=10001&uploadId=" + id, "x", 400, "InvalidArgument"},
		{"GET", "/bucket/none?partNumber=0", "", 400, "InvalidArgument"}, {"GET", "/bucket/none?attributes", "", 400, "InvalidArgument"},
		{"PUT", "/bucket/k?partNumber=one&uploadId=" + id, "x", 400, "InvalidArgument"}, {"GET", "/bucket/k?uploadId=absent", "", 404, "NoSuchUpload"},
		{"GET", "/bucket/other?uploadId=" + id, "", 404, "NoSuchUpload"}, {"GET", "/bucket/k?max-parts=x&uploadId=" + id, "", 400, "InvalidArgument"},
		{"DELETE", "/bucket/k?uploadId=absent", "", 404, "NoSuchUpload"}, {"DELETE", "/bucket/other?uploadId=" + id, "", 404, "NoSuchUpload"},
		{"POST", "/bucket/k?uploadId=absent", doc(part(1, etags[1])), 404, "NoSuchUpload"},
		{"POST", "/bucket/k?uploadId=" + id, doc(part(2, etags[2]), part(1, etags[1])), 400, "InvalidPartOrder"},
		{"POST", "/bucket/k?uploadId=" + id, doc(part(1, etags[2])), 400, "InvalidPart"}, {"POST", "/bucket/k?uploadId=" + id, doc(part(3, etags[1])), 400, "InvalidPart"},
		{"POST", "/bucket/k?uploadId=" + id, doc(part(1, etags[1]), part(2, etags[2])), 400, "EntityTooSmall"},
		{"POST", "/bucket/k?uploadId=" + id, doc(), 400, "MalformedXML"}, {"POST", "/bucket/k?uploadId=" + id, "", 400, "MalformedXML"},
		{"POST", "/bucket/k?uploadId=" + id, doc(many), 400, "MalformedXML"}, {"POST", "/bucket/k?uploadId=" + id, doc(part(1, etags[1])) + "x", 400, "MalformedXML"},
	} {
		g.do(t, testCall{method: c.method, target: c.target, body: c.body}).want(t, c.status, c.code)
	}
	if _, there := g.stored("bucket", "k"); there {
		t.Error("an object came out of a refused complete")
	}
	g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "x"}).want(t, 200, "")
	g.do(t, testCall{method: "POST", target: "/bucket/k?uploadId=" + id, body: doc(part(1, etags[1])), headers: map[string]string{"If-None-Match": "*"}}).want(t, 412, "PreconditionFailed")
	g.do(t, testCall{method: "DELETE", target: "/bucket/k?uploadId=" + id}).want(t, 204, "")
	g.do(t, testCall{method: "DELETE", target: "/bucket/k?uploadId=" + id}).want(t, 404, "NoSuchUpload")
	type H = map[string]string
	for _, c := range []struct {
		headers H
		status  int
		code    string
	}{
		{H{"X-Amz-Checksum-Algorithm": "MD9"}, 400, "InvalidRequest"}, {H{"X-Amz-Checksum-Type": "COMPOSITE"}, 400, "InvalidRequest"},
		{H{"X-Amz-Checksum-Algorithm": "SHA256", "X-Amz-Checksum-Type": "FULL_OBJECT"}, 400, "InvalidRequest"},
		{H{"X-Amz-Checksum-Algorithm": "CRC64NVME", "X-Amz-Checksum-Type": "COMPOSITE"}, 400, "InvalidRequest"},
		{H{"X-Amz-Checksum-Algorithm": "CRC32", "X-Amz-Checksum-Type": "FULL_OBJECT"}, 200, ""},
		{H{"X-Amz-Checksum-Algorithm": "crc32", "X-Amz-Checksum-Type": "full_object"}, 200, ""},
	} {
		g.do(t, testCall{method: "POST", target: "/bucket/new?uploads", headers: c.headers}).want(t, c.status, c.code)
	}
}
