package s3gw

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// lockedBuffer collects log lines of several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestLogAndMetrics(t *testing.T) {
	var logged lockedBuffer
	reg := prometheus.NewRegistry()
	g := start(t, func(o *Options) {
		o.Metrics, o.Log = reg, slog.New(slog.NewJSONHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}).withBucket(t, "bucket")
	g.do(t, testCall{method: "PUT", target: "/bucket/k", body: "x"}).want(t, 200, "")
	a := g.do(t, testCall{method: "GET", target: "/bucket/absent"}).want(t, 404, "NoSuchKey")
	g.do(t, testCall{method: "GET", target: "/bucket/k", secret: "wrong", key: testKey}).want(t, 403, "SignatureDoesNotMatch")
	// A line is written after its answer went out: wait for the last one.
	waitFor(t, func() bool { return strings.Count(logged.String(), "\n") >= 3 })
	text := logged.String()
	for _, want := range []string{`"op":"PutObject","code":"OK","status":200,"bucket":"bucket","key":"k"`, `"op":"GetObject","code":"NoSuchKey","status":404`,
		`"id":"` + a.header.Get("X-Amz-Request-Id") + `"`, `"code":"SignatureDoesNotMatch"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in the log: %s", want, text)
		}
	}
	if strings.Contains(text, testSecret) || strings.Contains(text, "AWS4-HMAC") {
		t.Error("the log holds secrets")
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for _, want := range []string{"ashlar_s3_requests_total OK PutObject", "ashlar_s3_requests_total NoSuchKey GetObject",
		"ashlar_s3_requests_total SignatureDoesNotMatch Unknown", "ashlar_s3_request_seconds PutObject"} {
		if got[want] != 1 {
			t.Errorf("%s: %v in %v", want, got[want], got)
		}
	}
}

// waitFor polls until ok or ten seconds have passed.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen within ten seconds")
		}
	}
}

// TestReaderThatStops proves that a client that takes no bytes loses its
// request, and that the next request of others is not hurt.
func TestReaderThatStops(t *testing.T) {
	g := start(t, func(o *Options) { o.Limits.WriteStall = time.Second }).withBucket(t, "bucket")
	if _, err := g.PutObject(ctx, putRequest("bucket", "k"), bodyOf(strings.Repeat("x", 32<<20))); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, head(g.request(t, forms[0], testCall{method: "GET", target: "/bucket/k"}), ""))
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return g.server.inflight.Load() == 0 })
	if a := g.do(t, testCall{method: "GET", target: "/bucket/k"}).want(t, 200, ""); len(a.body) != 32<<20 {
		t.Error(len(a.body))
	}
}

// TestHoisted proves that signed x-amz-* parameters of a presigned URL count,
// and that a parameter added later does not pass.
func TestHoisted(t *testing.T) {
	g := start(t).withBucket(t, "bucket")
	r := g.request(t, forms[2], testCall{method: "PUT", target: "/bucket/k?x-amz-meta-color=blue&x-amz-storage-class=STANDARD_IA", body: "x"})
	g.send(t, r).want(t, 200, "")
	if o, err := g.HeadObject(ctx, "bucket", "k", ""); err != nil || o.User["color"] != "blue" || o.StorageClass != "STANDARD_IA" {
		t.Errorf("%+v %v", o, err)
	}
	r = g.request(t, forms[2], testCall{method: "PUT", target: "/bucket/copy?x-amz-copy-source=bucket/k"})
	g.send(t, r).want(t, 200, "")
	if got, _ := g.stored("bucket", "copy"); string(got) != "x" {
		t.Errorf("%q", got)
	}
	r = g.request(t, forms[2], testCall{method: "PUT", target: "/bucket/k", body: "y",
		tamper: func(r *http.Request) { r.URL.RawQuery += "&x-amz-copy-source=bucket/other" }})
	g.send(t, r).want(t, 403, "SignatureDoesNotMatch")
	// Outside a presigned URL a parameter is no header.
	g.do(t, testCall{method: "PUT", target: "/bucket/plain?x-amz-meta-color=red", body: "z"}).want(t, 200, "")
	if o, _ := g.HeadObject(ctx, "bucket", "plain", ""); o.User["color"] != "" {
		t.Errorf("%+v", o)
	}
}
