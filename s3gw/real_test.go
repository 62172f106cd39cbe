package s3gw

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"ashlar"
	"ashlar/daemon/meta/metatest"
	stripes "ashlar/daemon/wire"
	"ashlar/placement/topology"
	"ashlar/s3gw/store"
)

// heap keeps the stripes of a real store in memory, by extent.
type heap struct {
	mu   sync.Mutex
	data map[ashlar.WriteID][]byte
}

func (h *heap) WriteStripes(_ context.Context, req stripes.WriteRequest, body io.Reader) (ashlar.Extent, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return ashlar.Extent{}, err
	}
	x := ashlar.Extent{
		Write: ashlar.NewWriteID(), Part: req.Part, Bytes: uint64(len(data)),
		StripeBytes: ashlar.MiB, SmallMax: 4096, Large: ashlar.Code{K: 4, M: 2}, Small: ashlar.Code{K: 1, M: 2},
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.data[x.Write] = data
	return x, nil
}

func (h *heap) ReadStripes(_ context.Context, req stripes.ReadRequest) (io.ReadCloser, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []byte
	for _, x := range req.Extents {
		all = append(all, h.data[x.Write]...)
	}
	return io.NopCloser(bytes.NewReader(all[req.Off : req.Off+req.Length])), nil
}

func (h *heap) DeleteStripes(context.Context, ashlar.BucketID, string, []ashlar.Extent) error {
	return nil
}

// startReal serves a gateway over the real store with a bucket of the given name.
func startReal(t testing.TB, bucket string, change ...func(*Options)) *gateway {
	t.Helper()
	return startRealWith(t, bucket, store.Options{}, change...)
}

func startRealWith(t testing.TB, bucket string, opt store.Options, change ...func(*Options)) *gateway {
	t.Helper()
	m := &topology.Map{
		Epoch: 1, Groups: make([]topology.Group, 1), Shards: make([]topology.Shard, 2), Settings: topology.Settings{BucketShards: 2},
	}
	s := store.New(metatest.NewModel(), &heap{data: map[ashlar.WriteID][]byte{}}, func() *topology.Map { return m }, opt)
	g := start(t, append([]func(*Options){func(o *Options) { o.Backend = s }}, change...)...)
	t.Cleanup(s.Close)
	g.do(t, testCall{method: "PUT", target: "/" + bucket}).want(t, 200, "")
	return g
}

func (g *gateway) version(t *testing.T, status string) {
	t.Helper()
	g.do(t, testCall{method: "PUT", target: "/bucket?versioning",
		body: "<VersioningConfiguration><Status>" + status + "</Status></VersioningConfiguration>"}).want(t, 200, "")
}

// TestVersionsOverHTTP walks one key through the states of a bucket.
func TestVersionsOverHTTP(t *testing.T) {
	g := startReal(t, "bucket")
	call := func(method, target, body string) answer {
		return g.do(t, testCall{method: method, target: target, body: body})
	}
	id := func(a answer) string { return a.header.Get("X-Amz-Version-Id") }
	if a := call("GET", "/bucket?versioning", "").want(t, 200, ""); strings.Contains(a.body, "Status") {
		t.Errorf("fresh bucket: %s", a.body)
	}
	if v := id(call("PUT", "/bucket/k", "null").want(t, 200, "")); v != "" {
		t.Errorf("version %q without versioning", v)
	}
	g.version(t, "Enabled")
	if a := call("GET", "/bucket?versioning", ""); !strings.Contains(a.body, "<Status>Enabled</Status>") {
		t.Errorf("enabled: %s", a.body)
	}
	one := id(call("PUT", "/bucket/k", "one").want(t, 200, ""))
	if a := call("GET", "/bucket/k", ""); id(a) != one || a.body != "one" {
		t.Errorf("current: %q %q", id(a), a.body)
	}
	if a := call("GET", "/bucket/k?versionId=null", ""); id(a) != "null" || a.body != "null" {
		t.Errorf("null: %q %q", id(a), a.body)
	}
	gone := call("DELETE", "/bucket/k", "").want(t, 204, "")
	marker := id(gone)
	if gone.header.Get("X-Amz-Delete-Marker") != "true" || marker == "" || marker == one {
		t.Errorf("delete: %v", gone.header)
	}
	if a := call("GET", "/bucket/k", "").want(t, 404, "NoSuchKey"); a.header.Get("X-Amz-Delete-Marker") != "true" || id(a) != marker {
		t.Errorf("get of a deleted key: %v", a.header)
	}
	if a := call("GET", "/bucket/k?versionId="+marker, "").want(t, 405, "MethodNotAllowed"); a.header.Get("Allow") != "DELETE" {
		t.Errorf("get of a marker: %v", a.header)
	}
	list := call("GET", "/bucket?versions", "").want(t, 200, "").body
	order := fmt.Sprintf("%s|%s|null", marker, one)
	at := func(v string) int { return strings.Index(list, "<VersionId>"+v+"</VersionId>") }
	if !(0 < at(marker) && at(marker) < at(one) && at(one) < at("null")) || strings.Count(list, "<IsLatest>true") != 1 {
		t.Errorf("want the order %s in %s", order, list)
	}
	g.do(t, testCall{method: "PUT", target: "/bucket/copy", headers: map[string]string{"X-Amz-Copy-Source": "bucket/k?versionId=" + one}}).want(t, 200, "")
	if a := call("GET", "/bucket/copy", ""); a.body != "one" {
		t.Errorf("copy of a version: %q", a.body)
	}
	call("DELETE", "/bucket/k?versionId="+marker, "").want(t, 204, "")
	if a := call("GET", "/bucket/k", "").want(t, 200, ""); a.body != "one" {
		t.Errorf("without the marker: %q", a.body)
	}
	g.version(t, "Suspended")
	if v := id(call("PUT", "/bucket/k", "again").want(t, 200, "")); v != "" {
		t.Errorf("version %q while suspended", v)
	}
	if a := call("GET", "/bucket/k?versionId=null", ""); a.body != "again" {
		t.Errorf("null version after suspension: %q", a.body)
	}
	call("DELETE", "/bucket", "").want(t, 409, "BucketNotEmpty")
}

// TestDeleteOfVersions deletes a batch of versions and reads the answer.
func TestDeleteOfVersions(t *testing.T) {
	g := startReal(t, "bucket")
	g.version(t, "Enabled")
	v := g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "x"}).header.Get("X-Amz-Version-Id")
	batch := func(objects string) string {
		doc := "<Delete>" + objects + "</Delete>"
		return g.do(t, testCall{method: "POST", target: "/bucket?delete", body: doc, headers: map[string]string{"Content-Md5": md5Base64(doc)}}).want(t, 200, "").body
	}
	if got := batch("<Object><Key>k</Key></Object>"); !strings.Contains(got, "<DeleteMarker>true</DeleteMarker><DeleteMarkerVersionId>") {
		t.Errorf("a key: %s", got)
	}
	got := batch("<Object><Key>k</Key><VersionId>" + v + "</VersionId></Object><Object><Key>k</Key><VersionId>x</VersionId></Object>")
	if !strings.Contains(got, "<Deleted><Key>k</Key><VersionId>"+v+"</VersionId></Deleted>") || !strings.Contains(got, "<Code>NoSuchVersion</Code>") {
		t.Errorf("a version: %s", got)
	}
}

// TestBadVersioning: what cannot be done is refused, never half done.
func TestBadVersioning(t *testing.T) {
	g := startReal(t, "bucket")
	for doc, code := range map[string]string{
		"": "MalformedXML", "<x/>": "MalformedXML", "<VersioningConfiguration/>": "IllegalVersioningConfigurationException",
		"<VersioningConfiguration><Status>On</Status></VersioningConfiguration>":                                    "MalformedXML",
		"<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Enabled</MfaDelete></VersioningConfiguration>": "NotImplemented",
	} {
		status := 400
		if code == "NotImplemented" {
			status = 501
		}
		g.do(t, testCall{method: "PUT", target: "/bucket?versioning", body: doc}).want(t, status, code)
	}
	g.do(t, testCall{method: "GET", target: "/bucket?versions&version-id-marker=null"}).want(t, 400, "InvalidArgument")
	g.do(t, testCall{method: "PUT", target: "/nope-bucket?versioning",
		body: "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"}).want(t, 404, "NoSuchBucket")
}

// TestTagging sets, reads and removes the tags of an object and of a bucket.
func TestTagging(t *testing.T) {
	g := startReal(t, "bucket")
	g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "x", headers: map[string]string{"X-Amz-Tagging": "a=1&b=2"}}).want(t, 200, "")
	doc := func(tags ...string) string {
		var b strings.Builder
		for _, tag := range tags {
			k, v, _ := strings.Cut(tag, "=")
			fmt.Fprintf(&b, "<Tag><Key>%s</Key><Value>%s</Value></Tag>", k, v)
		}
		return "<Tagging><TagSet>" + b.String() + "</TagSet></Tagging>"
	}
	many := make([]string, 11)
	for i := range many {
		many[i] = fmt.Sprintf("k%d=v", i)
	}
	for _, target := range []string{"/bucket/k?tagging", "/bucket?tagging"} {
		put := func(body string) answer { return g.do(t, testCall{method: "PUT", target: target, body: body}) }
		put(doc("x=1", "y=ä: 2@")).want(t, 200, "")
		got := g.do(t, testCall{method: "GET", target: target}).want(t, 200, "").body
		if want := "<TagSet><Tag><Key>x</Key><Value>1</Value></Tag><Tag><Key>y</Key><Value>ä: 2@</Value></Tag></TagSet>"; !strings.Contains(got, want) {
			t.Errorf("%s: %s", target, got)
		}
		put(doc("x=1", "y=&lt;2")).want(t, 400, "InvalidTag")
		put(doc("x=1", "x=2")).want(t, 400, "InvalidTag")
		put(doc(strings.Repeat("k", 129)+"=")).want(t, 400, "InvalidTag")
		put("<Tagging/>").want(t, 400, "MalformedXML")
		put("<Tagging><TagSet><Tag><Key>a</Key></Tag></TagSet></Tagging>").want(t, 400, "MalformedXML")
		g.do(t, testCall{method: "DELETE", target: target}).want(t, 204, "")
	}
	g.do(t, testCall{method: "PUT", target: "/bucket/k?tagging", body: doc(many...)}).want(t, 400, "BadRequest")
	// Another store's version id is an id, only of no version here.
	for _, id := range []string{"01G65Z755AFWAKHE12NY0CQ9FH", "9f1c2a54-7d1e-4c0b-8f5e-0c3b2a1d4e5f"} {
		g.do(t, testCall{method: "GET", target: "/bucket/k?versionId=" + id}).want(t, 404, "NoSuchVersion")
	}
	g.do(t, testCall{method: "GET", target: "/bucket/k?versionId=short"}).want(t, 400, "InvalidArgument")
	g.do(t, testCall{method: "PUT", target: "/tagged", body: "<CreateBucketConfiguration><Tags><Tag><Key>x</Key><Value>1</Value></Tag></Tags></CreateBucketConfiguration>"}).want(t, 200, "")
	if got := g.do(t, testCall{method: "GET", target: "/tagged?tagging"}).want(t, 200, "").body; !strings.Contains(got, "<Key>x</Key><Value>1</Value>") {
		t.Error(got)
	}
	g.do(t, testCall{method: "PUT", target: "/bucket?tagging", body: doc(many...)}).want(t, 200, "")
	g.do(t, testCall{method: "DELETE", target: "/bucket?tagging"}).want(t, 204, "")
	g.do(t, testCall{method: "GET", target: "/bucket?tagging"}).want(t, 404, "NoSuchTagSet")
	if got := g.do(t, testCall{method: "GET", target: "/bucket/k?tagging"}).want(t, 200, ""); !strings.Contains(got.body, "<TagSet></TagSet>") {
		t.Errorf("after the delete: %s", got.body)
	}
	g.do(t, testCall{method: "PUT", target: "/bucket/none?tagging", body: doc("a=b")}).want(t, 404, "NoSuchKey")
}

func md5Base64(s string) string {
	sum := md5.Sum([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// TestPartChecksums: the parts of an object are listed with their checksums, in
// pages, and a part that is read by its number says its own.
func TestPartChecksums(t *testing.T) {
	g := startReal(t, "bucket")
	for _, kind := range []string{"COMPOSITE", "FULL_OBJECT"} {
		a := g.do(t, testCall{method: "POST", target: "/bucket/k?uploads", headers: map[string]string{
			"X-Amz-Checksum-Algorithm": "CRC32", "X-Amz-Checksum-Type": kind}}).want(t, 200, "")
		_, rest, _ := strings.Cut(a.body, "<UploadId>")
		id, _, _ := strings.Cut(rest, "<")
		sizes, list := []int{5 << 20, 5 << 20, 7}, ""
		var sums []string
		for i, n := range sizes {
			part := strings.Repeat(string(rune('a'+i)), n)
			raw := crc32.NewIEEE()
			io.WriteString(raw, part)
			sums = append(sums, base64.StdEncoding.EncodeToString(raw.Sum(nil)))
			up := g.do(t, testCall{method: "PUT", target: fmt.Sprintf("/bucket/k?partNumber=%d&uploadId=%s", i+1, id), body: part,
				headers: map[string]string{"X-Amz-Checksum-Crc32": sums[i]}}).want(t, 200, "")
			list += fmt.Sprintf("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag><ChecksumCRC32>%s</ChecksumCRC32></Part>", i+1, up.header.Get("ETag"), sums[i])
		}
		complete := func(said string) answer {
			return g.do(t, testCall{method: "POST", target: "/bucket/k?uploadId=" + id, body: "<CompleteMultipartUpload>" + list + "</CompleteMultipartUpload>",
				headers: map[string]string{"X-Amz-Checksum-Type": said}})
		}
		other := map[string]string{"COMPOSITE": "FULL_OBJECT", "FULL_OBJECT": "COMPOSITE"}[kind]
		complete("SOME").want(t, 400, "InvalidRequest")
		complete(other).want(t, 400, "InvalidRequest")
		complete(kind).want(t, 200, "")

		page := g.do(t, testCall{method: "GET", target: "/bucket/k?attributes", headers: map[string]string{
			"X-Amz-Object-Attributes": "ObjectParts,Checksum", "X-Amz-Max-Parts": "1", "X-Amz-Part-Number-Marker": "1"}}).want(t, 200, "").body
		want := "<ObjectParts><PartsCount>3</PartsCount><PartNumberMarker>1</PartNumberMarker><NextPartNumberMarker>2</NextPartNumberMarker>" +
			"<MaxParts>1</MaxParts><IsTruncated>true</IsTruncated><Part><PartNumber>2</PartNumber><Size>5242880</Size><ChecksumCRC32>" + sums[1] +
			"</ChecksumCRC32></Part></ObjectParts>"
		if !strings.Contains(page, want) || !strings.Contains(page, "<ChecksumType>"+kind+"</ChecksumType>") || strings.Contains(page, "-3<") {
			t.Errorf("%s: %s", kind, page)
		}
		last := g.do(t, testCall{method: "GET", target: "/bucket/k?attributes", headers: map[string]string{
			"X-Amz-Object-Attributes": "ObjectParts", "X-Amz-Part-Number-Marker": "9"}}).want(t, 200, "").body
		if !strings.Contains(last, "<IsTruncated>false</IsTruncated></ObjectParts>") {
			t.Errorf("behind the last part: %s", last)
		}
		part := g.do(t, testCall{method: "GET", target: "/bucket/k?partNumber=3", headers: map[string]string{"X-Amz-Checksum-Mode": "ENABLED"}}).want(t, 206, "")
		if part.body != "ccccccc" || part.header.Get("X-Amz-Checksum-Crc32") != sums[2] || part.header.Get("X-Amz-Checksum-Type") != kind {
			t.Errorf("%s, part 3: %q %v", kind, part.body, part.header)
		}
		ranged := g.do(t, testCall{method: "GET", target: "/bucket/k", headers: map[string]string{"X-Amz-Checksum-Mode": "ENABLED", "Range": "bytes=0-1"}}).want(t, 206, "")
		if ranged.header.Get("X-Amz-Checksum-Crc32") != "" {
			t.Error("a range has the checksum of something else")
		}
		g.do(t, testCall{method: "GET", target: "/bucket/k?attributes", headers: map[string]string{
			"X-Amz-Object-Attributes": "ObjectParts", "X-Amz-Max-Parts": "-1"}}).want(t, 400, "InvalidArgument")
	}
}

func TestPublicAccessBlock(t *testing.T) {
	g := startReal(t, "bucket")
	const target = "/bucket?publicAccessBlock"
	doc := func(body string) string {
		return "<PublicAccessBlockConfiguration>" + body + "</PublicAccessBlockConfiguration>"
	}
	g.do(t, testCall{method: "GET", target: target}).want(t, 404, "NoSuchPublicAccessBlockConfiguration")
	g.do(t, testCall{method: "PUT", target: target, body: doc("<BlockPublicPolicy>true</BlockPublicPolicy><BlockPublicAcls>false</BlockPublicAcls>")}).want(t, 200, "")
	got := g.do(t, testCall{method: "GET", target: target}).want(t, 200, "").body
	if !strings.Contains(got, "<BlockPublicAcls>false</BlockPublicAcls><IgnorePublicAcls>false</IgnorePublicAcls>"+
		"<BlockPublicPolicy>true</BlockPublicPolicy><RestrictPublicBuckets>false</RestrictPublicBuckets>") {
		t.Error(got)
	}
	for _, bad := range []string{"", "<x/>", doc("<BlockAll>true</BlockAll>"), doc("<BlockPublicAcls>yes</BlockPublicAcls>"),
		doc("<BlockPublicAcls>true</BlockPublicAcls><BlockPublicAcls>false</BlockPublicAcls>")} {
		g.do(t, testCall{method: "PUT", target: target, body: bad}).want(t, 400, "MalformedXML")
	}
	g.do(t, testCall{method: "DELETE", target: target}).want(t, 204, "")
	g.do(t, testCall{method: "GET", target: target}).want(t, 404, "NoSuchPublicAccessBlockConfiguration")
}

func TestBucketWithVersionsIsNotEmpty(t *testing.T) {
	g := startReal(t, "bucket")
	g.do(t, testCall{method: "PUT", target: "/bucket?versioning", body: "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"}).want(t, 200, "")
	g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "x"}).want(t, 200, "")
	g.do(t, testCall{method: "DELETE", target: "/bucket/k"}).want(t, 204, "")
	if a := g.do(t, testCall{method: "DELETE", target: "/bucket"}).want(t, 409, "BucketNotEmpty"); !strings.Contains(a.body, "You must delete all versions in the bucket.") {
		t.Error(a.body)
	}
}

// An object has a checksum also where its client gave none.
func TestDefaultChecksum(t *testing.T) {
	g := startReal(t, "bucket")
	put := g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "123456789"}).want(t, 200, "")
	head := g.do(t, testCall{method: "HEAD", target: "/bucket/k", headers: map[string]string{"X-Amz-Checksum-Mode": "ENABLED"}}).want(t, 200, "")
	for _, h := range []http.Header{put.header, head.header} {
		if h.Get("X-Amz-Checksum-Crc64nvme") != "rosUhgp5mIg=" || h.Get("X-Amz-Checksum-Type") != "FULL_OBJECT" {
			t.Error(h)
		}
	}
}

// TestPartsWithoutChecksums: what nobody sends is made here, as on S3: a part of an upload
// for a checksum of the whole object has it, and so has the object of an upload for none.
func TestPartsWithoutChecksums(t *testing.T) {
	g := startReal(t, "bucket")
	for _, c := range []struct{ algorithm, part, whole, value string }{
		{"CRC32", "X-Amz-Checksum-Crc32", "X-Amz-Checksum-Crc32", "y/Q5Jg=="},
		{"", "", "X-Amz-Checksum-Crc64nvme", "rosUhgp5mIg="},
	} {
		headers := map[string]string{}
		if c.algorithm != "" {
			headers = map[string]string{"X-Amz-Checksum-Algorithm": c.algorithm, "X-Amz-Checksum-Type": "FULL_OBJECT"}
		}
		up := g.do(t, testCall{method: "POST", target: "/bucket/k?uploads", headers: headers}).want(t, 200, "").body
		_, up, _ = strings.Cut(up, "<UploadId>")
		up, _, _ = strings.Cut(up, "</UploadId>")
		part := g.do(t, testCall{method: "PUT", target: "/bucket/k?partNumber=1&uploadId=" + up, body: "123456789"}).want(t, 200, "")
		if c.part != "" && part.header.Get(c.part) != c.value {
			t.Errorf("%q: part with %v", c.algorithm, part.header)
		}
		doc := "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>" + part.header.Get("ETag") + "</ETag></Part></CompleteMultipartUpload>"
		g.do(t, testCall{method: "POST", target: "/bucket/k?uploadId=" + up, body: doc}).want(t, 200, "")
		a := g.do(t, testCall{method: "HEAD", target: "/bucket/k", headers: map[string]string{"X-Amz-Checksum-Mode": "ENABLED"}}).want(t, 200, "")
		if a.header.Get(c.whole) != c.value || a.header.Get("X-Amz-Checksum-Type") != "FULL_OBJECT" {
			t.Errorf("%q: object with %v", c.algorithm, a.header)
		}
	}
}
