package s3gw

import (
	"context"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/s3gw/store"
)

func loggingDocument(in string) string {
	return "<BucketLoggingStatus>" + in + "</BucketLoggingStatus>"
}

func logTo(bucket, rest string) string {
	return loggingDocument("<LoggingEnabled><TargetBucket>" + bucket + "</TargetBucket><TargetPrefix>in/</TargetPrefix>" + rest + "</LoggingEnabled>")
}

// logTarget makes bucket "logs", which lets the log of "bucket" be delivered.
func (g *gateway) logTarget(t *testing.T) {
	t.Helper()
	g.do(t, testCall{method: "PUT", target: "/logs"}).want(t, 200, "")
	g.do(t, testCall{method: "PUT", target: "/logs?policy", body: `{"Version":"2012-10-17","Statement":{"Effect":"Allow",
		"Principal":{"Service":"logging.s3.amazonaws.com"},"Action":"s3:PutObject","Resource":"arn:aws:s3:::logs/in/*",
		"Condition":{"ArnLike":{"aws:SourceArn":"arn:aws:s3:::bucket"},"StringEquals":{"aws:SourceAccount":"` + testAccount + `"}}}}`}).want(t, 204, "")
}

func TestLoggingDocuments(t *testing.T) {
	g := startReal(t, "bucket", func(o *Options) { o.Credentials = known{cast(t)} })
	put := func(doc string) answer { return g.do(t, testCall{method: "PUT", target: "/bucket?logging", body: doc}) }
	get := func() answer { return g.do(t, testCall{method: "GET", target: "/bucket?logging"}).want(t, 200, "") }
	empty := func() {
		t.Helper()
		if a := get(); !strings.HasSuffix(a.body, `/2006-03-01/"></BucketLoggingStatus>`) {
			t.Error(a.body)
		}
	}
	empty()
	g.do(t, testCall{method: "PUT", target: "/theirs", key: "AKIDOTHER", secret: testSecret}).want(t, 200, "")
	g.do(t, testCall{method: "PUT", target: "/deaf"}).want(t, 200, "")
	put(logTo("logs", "")).want(t, 400, "InvalidTargetBucketForLogging")
	g.do(t, testCall{method: "PUT", target: "/logs"}).want(t, 200, "")
	g.do(t, testCall{method: "PUT", target: "/logs?policy", body: `{"Version":"2012-10-17","Statement":{"Effect":"Allow",
		"Principal":{"Service":"logging.s3.amazonaws.com"},"Action":"s3:PutObject","Resource":"arn:aws:s3:::logs/in/*",
		"Condition":{"StringEquals":{"aws:SourceAccount":"111"}}}}`}).want(t, 204, "")
	const format = "<TargetObjectKeyFormat>"
	for doc, code := range map[string]string{
		"<x/>": "MalformedXML", loggingDocument("<x/>"): "MalformedXML", loggingDocument("<LoggingEnabled/>"): "MalformedXML",
		loggingDocument("<LoggingEnabled><TargetBucket>logs</TargetBucket></LoggingEnabled>"): "MalformedXML",
		logTo("Nope", ""): "InvalidTargetBucketForLogging", logTo("nowhere", ""): "InvalidTargetBucketForLogging",
		logTo("theirs", ""): "InvalidTargetBucketForLogging", logTo("deaf", ""): "InvalidTargetBucketForLogging", logTo("bucket", ""): "InvalidTargetBucketForLogging",
		strings.Replace(logTo("logs", ""), "in/", "elsewhere/", 1):                                                                              "InvalidTargetBucketForLogging",
		strings.Replace(logTo("logs", ""), "in/", "in/"+strings.Repeat("x", 800), 1):                                                            "InvalidArgument",
		logTo("logs", format+"</TargetObjectKeyFormat>"):                                                                                        "MalformedXML",
		logTo("logs", format+"<PartitionedPrefix><PartitionDateSource>Never</PartitionDateSource></PartitionedPrefix></TargetObjectKeyFormat>"): "MalformedXML",
	} {
		if a := put(doc); a.status != 400 || a.code != code {
			t.Errorf("%.200s: %d %s, want %s", doc, a.status, a.code, code)
		}
	}
	put(logTo("logs", "<TargetGrants><Grant/></TargetGrants>")).want(t, 501, "NotImplemented")
	empty()
	part := format + "<PartitionedPrefix><PartitionDateSource>EventTime</PartitionDateSource></PartitionedPrefix></TargetObjectKeyFormat>"
	for in, out := range map[string]string{"": "", "<TargetGrants/>": "", format + "<SimplePrefix/></TargetObjectKeyFormat>": "", part: part} {
		put(logTo("logs", in)).want(t, 200, "")
		if a := get(); !strings.HasSuffix(a.body, `/2006-03-01/">`+strings.TrimPrefix(logTo("logs", out), "<BucketLoggingStatus>")) {
			t.Errorf("put %s, got %s", in, a.body)
		}
	}
	put(loggingDocument("")).want(t, 200, "")
	empty()
	// The group that ACLs know lets logs in as well, where ACLs count.
	g.do(t, testCall{method: "PUT", target: "/acls", headers: map[string]string{"X-Amz-Object-Ownership": "ObjectWriter", "X-Amz-Acl": "log-delivery-write"}}).want(t, 200, "")
	put(logTo("acls", "")).want(t, 200, "")
}

// logged returns what was delivered to bucket "logs": the keys and all lines.
func (g *gateway) logged(t *testing.T) (keys, lines []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`<Key>([^<]*)</Key>`).FindAllStringSubmatch(g.do(t, testCall{method: "GET", target: "/logs?list-type=2"}).want(t, 200, "").body, -1) {
		keys = append(keys, m[1])
		body := g.do(t, testCall{method: "GET", target: "/logs/" + m[1]}).want(t, 200, "").body
		lines = append(lines, strings.Split(strings.TrimSuffix(body, "\n"), "\n")...)
	}
	return keys, lines
}

func TestAccessLog(t *testing.T) {
	var late atomic.Int64
	g := startReal(t, "bucket", func(o *Options) {
		o.Clock = func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
		o.WebsiteDomains = []string{testWebsites}
	})
	g.logTarget(t)
	g.do(t, testCall{method: "PUT", target: "/bucket/before", body: "x"}).want(t, 200, "")
	g.do(t, testCall{method: "PUT", target: "/bucket?logging", body: logTo("logs", "")}).want(t, 200, "")
	agent := map[string]string{"User-Agent": `"quoted" agent`, "Referer": "http://r.test/a b"}
	id := g.do(t, testCall{method: "PUT", target: "/bucket/a%20b", body: "content", headers: agent}).want(t, 200, "").header.Get("X-Amz-Request-Id")
	g.do(t, testCall{method: "GET", target: "/bucket/a%20b", headers: map[string]string{"Range": "bytes=1-3"}}).want(t, 206, "")
	g.do(t, testCall{method: "GET", target: "/bucket/none"}).want(t, 404, "NoSuchKey")
	g.send(t, g.request(t, forms[2], testCall{method: "GET", target: "/bucket?tagging"})).want(t, 404, "NoSuchTagSet")
	g.send(t, g.request(t, forms[0], testCall{method: "DELETE", target: "/bucket/a%20b", tamper: anonymise})).want(t, 403, "AccessDenied")
	g.visit(t, "GET", "bucket."+testWebsites, "/", nil)
	g.server.accessLog.deliverAll(t.Context(), false)
	if keys, _ := g.logged(t); len(keys) != 0 {
		t.Fatalf("delivered at once: %v", keys)
	}
	late.Store(int64(logAge + time.Second))
	g.server.accessLog.deliverAll(t.Context(), false)
	keys, lines := g.logged(t)
	if len(keys) != 1 || !regexp.MustCompile(`^in/\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d-[0-9A-F]{16}$`).MatchString(keys[0]) {
		t.Errorf("keys: %v", keys)
	}
	const when = `\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\]`
	start := "^" + testAccount + " bucket " + when + " 127.0.0.1 "
	wanted := []string{
		start + testAccount + " " + id + ` REST.PUT.OBJECT a%20b "PUT /bucket/a%20b HTTP/1.1" 200 - - 7 \d+ \d+ "http://r.test/a b" "%22quoted%22 agent" - gw1 SigV4 - AuthHeader 127.0.0.1:\d+ - - -$`,
		start + testAccount + ` \w+ REST.GET.OBJECT a%20b "GET /bucket/a%20b HTTP/1.1" 206 - 3 7 `,
		start + testAccount + ` \w+ REST.GET.OBJECT none "GET /bucket/none HTTP/1.1" 404 NoSuchKey \d+ - `,
		start + testAccount + ` \w+ REST.GET.TAGGING - "GET /bucket\?\S+&X-Amz-Signature=REDACTED\S* HTTP/1.1" 404 NoSuchTagSet .* SigV4 - QueryString `,
		start + `- \w+ REST.DELETE.OBJECT a%20b "DELETE /bucket/a%20b HTTP/1.1" 403 AccessDenied \d+ - \d+ \d+ - "Go-http-client/1.1" - gw1 - - - `,
		start + `- \w+ WEBSITE.GET.OBJECT - "GET / HTTP/1.1" 404 NoSuchWebsiteConfiguration `,
	}
	if len(lines) != len(wanted) {
		t.Fatalf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	for i, pattern := range wanted {
		if !regexp.MustCompile(pattern).MatchString(lines[i]) {
			t.Errorf("line %d is\n%s\nwant\n%s", i, lines[i], pattern)
		}
	}
}

// TestAccessLogIsNotForced: what the target does not let in any more is not put there,
// and a gateway that ends delivers what it has.
func TestAccessLogIsNotForced(t *testing.T) {
	var failing atomic.Bool
	g := startReal(t, "bucket", func(o *Options) { o.Backend = &sometimes{Backend: o.Backend, failing: &failing} })
	g.logTarget(t)
	g.do(t, testCall{method: "PUT", target: "/bucket?logging", body: logTo("logs", "")}).want(t, 200, "")
	read := func() { t.Helper(); g.do(t, testCall{method: "GET", target: "/bucket?acl"}).want(t, 200, "") }
	deliver := func() {
		ctx, end := context.WithCancel(t.Context())
		end()
		g.server.RunAccessLog(ctx)
	}
	read()
	failing.Store(true)
	deliver() // the cluster cannot take it: it stays
	failing.Store(false)
	deliver()
	if _, lines := g.logged(t); len(lines) != 1 {
		t.Errorf("%d lines, want 1", len(lines))
	}
	read()
	g.do(t, testCall{method: "DELETE", target: "/logs?policy"}).want(t, 204, "")
	deliver()
	if _, lines := g.logged(t); len(lines) != 1 {
		t.Errorf("%d lines, want 1: the other one must not be delivered", len(lines))
	}
	// What does not fit is not kept.
	l := g.server.accessLog
	at := bookOf{"bucket", "2026-01-02"}
	l.add(at, make([]byte, logBytesMax), 1, time.Now())
	l.add(at, make([]byte, 1), 1, time.Now())
	if b := l.take(true)[at]; b.records != 1 || l.mu.bytes != 0 {
		t.Errorf("%d records, %d bytes", b.records, l.mu.bytes)
	}
}

// sometimes is a backend that takes no objects at times.
type sometimes struct {
	Backend
	failing *atomic.Bool
}

func (s *sometimes) PutObject(ctx context.Context, req *store.PutRequest, body store.Body) (store.Object, error) {
	if s.failing.Load() {
		return store.Object{}, ashlar.E("test", "", ashlar.Unavailable, nil)
	}
	return s.Backend.PutObject(ctx, req, body)
}

func TestLogKeys(t *testing.T) {
	g := start(t, func(o *Options) {
		o.Clock = func() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) }
	}).withBucket(t, "bucket")
	for dates, want := range map[string]string{
		"": "^p/2026-03-04-05-06-07-[0-9A-F]{16}$", "DeliveryTime": "^p/" + testAccount + "/us-east-1/bucket/2026/03/04/2026-03-04-05-06-07-[0-9A-F]{16}$",
		"EventTime": "^p/" + testAccount + "/us-east-1/bucket/2026/03/03/2026-03-03-00-00-00-[0-9A-F]{16}$",
	} {
		a := newAccess(store.NewAccess(store.Bucket{Name: "bucket", Owner: testAccount}, 1, map[string][]byte{settingLogging: []byte(
			strings.Replace(logTo("logs", ""), "in/", "p/", 1))}))
		a.logging.Dates = dates
		if key := g.server.logKey(a, "2026-03-03"); !regexp.MustCompile(want).MatchString(key) {
			t.Errorf("%s: %s, want %s", dates, key, want)
		}
	}
}
