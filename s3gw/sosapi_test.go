package s3gw

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/s3gw/store"
)

// TestSystemDocuments asks a bucket with and without a quota as Veeam does.
func TestSystemDocuments(t *testing.T) {
	var s *store.Store
	var asked atomic.Int32
	var away atomic.Bool
	var late atomic.Int64
	g := startReal(t, "bucket", func(o *Options) {
		s, o.Credentials = o.Backend.(*store.Store), cast(t)
		o.Clock = func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
		o.Capacity = func(context.Context) (uint64, uint64, error) {
			asked.Add(1)
			if away.Load() {
				return 0, 0, ashlar.E("test", "", ashlar.Unavailable, errors.New("no quorum"))
			}
			return 400, 1000, nil
		}
	})
	const folder = "/bucket/.system-d26a9498-cb7c-4a87-a44a-8ae204f5ba6c/"
	get := func(key, name string) answer {
		return g.do(t, testCall{method: "GET", target: folder + name, key: key, secret: testSecret})
	}
	capacity := func(want string) {
		t.Helper()
		if a := get(testKey, "capacity.xml").want(t, 200, ""); !strings.HasSuffix(a.body, "\n<CapacityInfo>"+want+"</CapacityInfo>") {
			t.Errorf("%s, want %s", a.body, want)
		}
	}
	a := get("AKIDREADER", "system.xml").want(t, 200, "")
	for _, part := range []string{`<SystemInfo><ProtocolVersion>"1.0"</ProtocolVersion>`, "<CapacityInfo>true<", "<UploadSessions>false<", "<IAMSTS>false<"} {
		if !strings.Contains(a.body, part) {
			t.Errorf("no %s in %s", part, a.body)
		}
	}
	head := g.do(t, testCall{method: "HEAD", target: folder + "system.xml"}).want(t, 200, "")
	if head.header.Get("ETag") != a.header.Get("ETag") || head.header.Get("Content-Type") != "application/xml" {
		t.Error(head.header)
	}
	g.do(t, testCall{method: "GET", target: folder + "system.xml", headers: map[string]string{"If-None-Match": a.header.Get("ETag")}}).want(t, 304, "")
	part := g.do(t, testCall{method: "GET", target: folder + "system.xml", headers: map[string]string{"Range": "bytes=2-4"}}).want(t, 206, "")
	if part.body != "xml" {
		t.Errorf("range: %q", part.body)
	}
	for _, who := range []string{"AKIDNONE", "AKIDOTHER"} {
		get(who, "system.xml").want(t, 403, "AccessDenied")
		get(who, "capacity.xml").want(t, 403, "AccessDenied")
	}
	get(testKey, "other.xml").want(t, 404, "NoSuchKey")
	g.do(t, testCall{method: "GET", target: strings.Replace(folder, "bucket", "no-bucket", 1) + "system.xml"}).want(t, 404, "NoSuchBucket")

	capacity("<Capacity>1000</Capacity><Available>600</Available><Used>400</Used>")
	g.do(t, testCall{method: "PUT", target: "/bucket/k", body: strings.Repeat("x", 30)}).want(t, 200, "")
	for quota, want := range map[uint64]string{
		100:  "<Capacity>100</Capacity><Available>70</Available><Used>30</Used>",
		9000: "<Capacity>9000</Capacity><Available>600</Available><Used>30</Used>", // the cluster has no more
		7:    "<Capacity>7</Capacity><Available>0</Available><Used>30</Used>",
	} {
		if err := s.SetQuota(t.Context(), "bucket", store.Quota{Bytes: quota}); err != nil {
			t.Fatal(err)
		}
		capacity(want)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the quorum was asked %d times", n)
	}
	away.Store(true)
	late.Store(int64(2 * capacityFor))
	get(testKey, "capacity.xml").want(t, 503, "ServiceUnavailable")
	away.Store(false)
	late.Store(int64(4 * capacityFor))

	if list := g.do(t, testCall{method: "GET", target: "/bucket?list-type=2"}).want(t, 200, "").body; strings.Contains(list, ".system") {
		t.Error(list)
	}
	if err := s.SetQuota(t.Context(), "bucket", store.Quota{}); err != nil {
		t.Fatal(err)
	}
	// What a client stored is what it reads.
	g.do(t, testCall{method: "PUT", target: folder + "system.xml", body: "mine"}).want(t, 200, "")
	if a := get(testKey, "system.xml").want(t, 200, ""); a.body != "mine" {
		t.Error(a.body)
	}
	g.do(t, testCall{method: "DELETE", target: folder + "system.xml"}).want(t, 204, "")
	if a := get(testKey, "system.xml").want(t, 200, ""); !strings.Contains(a.body, "<SystemInfo>") {
		t.Error(a.body)
	}
}
