package s3gw

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ashlar/s3gw/trace"
)

// tracing is a reader of a gateway's trace.
type tracing struct {
	t    *testing.T
	body *bufio.Reader
	text strings.Builder // all that came
}

// traceWith opens a trace and returns when the gateway records for it.
func (g *gateway) traceWith(t *testing.T, query string) *tracing {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	r := g.request(t, forms[0], testCall{method: "GET", target: "/?x-ashlar-trace" + query}).WithContext(ctx)
	resp, err := g.http.Transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatal(resp.Status, resp.Header)
	}
	return &tracing{t: t, body: bufio.NewReader(resp.Body)}
}

// until reads up to the event of a request.
func (tr *tracing) until(id string) (all []trace.Event) {
	tr.t.Helper()
	for {
		line, err := tr.body.ReadString('\n')
		if err != nil {
			tr.t.Fatalf("%v after %d events, waiting for %s", err, len(all), id)
		}
		tr.text.WriteString(line)
		if line == "\n" {
			continue
		}
		var e trace.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			tr.t.Fatalf("%v in %s", err, line)
		}
		if all = append(all, e); e.ID == id {
			return all
		}
	}
}

func (a answer) id() string { return a.header.Get("X-Amz-Request-Id") }

func TestTraceTellsOfRequests(t *testing.T) {
	g := startReal(t, "bucket", func(o *Options) { o.PlainKeys = true })
	brief := g.traceWith(t, "&x-ashlar-for=1ms")
	if line, err := brief.body.ReadString('\n'); err != io.EOF {
		t.Errorf("%q and %v, not the end", line, err)
	}
	tr, failed := g.traceWith(t, ""), g.traceWith(t, "&x-ashlar-errors")
	slow, other := g.traceWith(t, "&x-ashlar-slow=1h"), g.traceWith(t, "&x-ashlar-bucket=other")
	long := strings.Repeat("l", 1000)
	put := g.do(t, testCall{method: "PUT", target: "/bucket/a%20b", body: "content"}).want(t, 200, "")
	get := g.do(t, testCall{method: "GET", target: "/bucket/a%20b", headers: map[string]string{"Range": "bytes=1-3"}}).want(t, 206, "")
	none := g.do(t, testCall{method: "GET", target: "/bucket/" + long}).want(t, 404, "NoSuchKey")
	g.do(t, testCall{method: "PUT", target: "/other"}).want(t, 200, "")
	last := g.do(t, testCall{method: "HEAD", target: "/other"}).want(t, 200, "")

	events := tr.until(last.id())
	if len(events) != 5 {
		t.Fatalf("%d events: %+v", len(events), events)
	}
	e := events[0]
	if e.ID != put.id() || e.Gateway != "gw1" || e.Method != "PUT" || e.Operation != "PutObject" || e.Bucket != "bucket" || e.Key != "a b" || e.Status != 200 || e.Code != "" ||
		e.BytesIn != 7 || e.BytesOut != 0 || e.AccessKey != testKey || !strings.HasPrefix(e.Remote, "127.0.0.1:") || e.Time.IsZero() ||
		e.FirstByte < e.Auth || e.Took < e.FirstByte {
		t.Errorf("PUT: %+v", e)
	}
	if e = events[1]; e.ID != get.id() || e.Operation != "GetObject" || e.Status != 206 || e.BytesOut != 3 {
		t.Errorf("GET: %+v", e)
	}
	if e = events[2]; e.ID != none.id() || e.Status != 404 || e.Code != "NoSuchKey" || len(e.Key) > 300 || !strings.HasSuffix(e.Key, "l…") {
		t.Errorf("GET of nothing: %+v", e)
	}
	refused := g.do(t, testCall{method: "PUT", target: "/bucket/a%20b", secret: "wrong", key: testKey}).want(t, 403, "SignatureDoesNotMatch")
	if got := failed.until(refused.id()); len(got) != 2 || got[0].ID != none.id() || got[1].Bucket != "bucket" || got[1].Key != "a b" || got[1].AccessKey != "" {
		t.Errorf("errors: %+v", got)
	}
	if got := other.until(last.id()); len(got) != 2 || got[0].Operation != "CreateBucket" {
		t.Errorf("one bucket: %+v", got)
	}
	// What takes no clock's smallest step is not told; 4 MiB do.
	g.do(t, testCall{method: "PUT", target: "/bucket/large", body: strings.Repeat("x", 4<<20)}).want(t, 200, "")
	large := g.do(t, testCall{method: "GET", target: "/bucket/large"}).want(t, 200, "")
	events = tr.until(large.id())
	if in, out := events[len(events)-2], events[len(events)-1]; in.BytesIn != 4<<20 || in.BodyIn <= 0 || in.Auth <= 0 || out.BytesOut != 4<<20 || out.BodyOut <= 0 {
		t.Errorf("4 MiB: %+v, %+v", in, out)
	}
	g.do(t, testCall{method: "GET", target: "/?x-ashlar-trace&x-ashlar-slow=soon"}).want(t, 400, "InvalidArgument")
	g.do(t, testCall{method: "GET", target: "/?x-ashlar-trace&x-ashlar-for=-1s"}).want(t, 400, "InvalidArgument")
	if slow.body.Buffered() != 0 {
		t.Error("a request took an hour")
	}
}

// TestTraceHoldsNoSecrets: requests in every form, good and refused, with customers'
// keys, tokens and passwords in their places, and none of that is told.
func TestTraceHoldsNoSecrets(t *testing.T) {
	g := startReal(t, "bucket", func(o *Options) { o.PlainKeys = true })
	tr := g.traceWith(t, "")
	customer := strings.Repeat("K", 32)
	secrets := []string{testSecret, customer, base64.StdEncoding.EncodeToString([]byte(customer)), md5Base64(customer), "the-token", "Signature=", "Credential="}
	var signatures []string
	headers := func() map[string]string {
		return map[string]string{
			"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256", "X-Amz-Server-Side-Encryption-Customer-Key": base64.StdEncoding.EncodeToString([]byte(customer)),
			"X-Amz-Server-Side-Encryption-Customer-Key-Md5": md5Base64(customer), "X-Amz-Meta-Password": "the-token",
		}
	}
	for _, f := range forms {
		for _, spoil := range []bool{false, true} {
			c := testCall{method: "PUT", target: "/bucket/k?x-password=the-token", body: "x", headers: headers()}
			if spoil {
				c.secret, c.key = "the-token", testKey
			}
			r := g.request(t, f, c)
			for _, text := range []string{r.Header.Get("Authorization"), r.URL.RawQuery} {
				if _, sig, ok := strings.Cut(text, "Signature="); ok {
					signatures = append(signatures, strings.Split(sig, "&")[0])
				}
			}
			if a := g.send(t, r); a.status != 200 && !spoil || a.status != 403 && spoil {
				t.Errorf("%s: %d %s", f.name, a.status, a.body)
			}
		}
	}
	g.do(t, testCall{method: "GET", target: "/bucket/k?x-amz-security-token=the-token"})
	g.do(t, testCall{method: "GET", target: "/bucket/k", key: "the-token", secret: "x"}).want(t, 403, "InvalidAccessKeyId")
	last := g.do(t, testCall{method: "HEAD", target: "/bucket"})
	if n := len(tr.until(last.id())); n != 2*len(forms)+3 {
		t.Errorf("%d events", n)
	}
	if len(signatures) != 2*len(forms) {
		t.Errorf("%d signatures", len(signatures))
	}
	for _, s := range append(secrets, signatures...) {
		if strings.Contains(tr.text.String(), s) {
			t.Errorf("%q is told: %s", s, tr.text.String())
		}
	}
}

// TestTraceIsForTheOperator: other roots and users without the right are refused by
// TestEveryRouteIsAuthorised; a user of the operator's account with the right is not.
func TestTraceIsForTheOperator(t *testing.T) {
	who := cast(t)
	const may = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ashlar:TraceRequests","Resource":"*"}}`
	who["AKIDREADER"].Policies = identityPolicy(t, may)
	g := start(t, func(o *Options) { o.Credentials = who })
	target := "/?x-ashlar-trace&x-ashlar-for=1ms"
	g.do(t, testCall{method: "GET", target: target, key: "AKIDREADER", secret: testSecret}).want(t, 200, "")
	g.do(t, testCall{method: "GET", target: target, key: "AKIDNONE", secret: testSecret}).want(t, 403, "AccessDenied")
	g.do(t, testCall{method: "GET", target: target, key: "AKIDOTHER", secret: testSecret}).want(t, 403, "AccessDenied")
	nobody := start(t, func(o *Options) { o.Credentials, o.Operator = who, "" })
	nobody.do(t, testCall{method: "GET", target: target}).want(t, 403, "AccessDenied")
}

// stuck is a connection whose client does not read: the second write waits.
type stuck struct {
	*httptest.ResponseRecorder
	writes  int
	reached chan struct{}
	release chan struct{}
	mu      sync.Mutex
}

func (s *stuck) Write(p []byte) (int, error) {
	if s.writes++; s.writes == 2 {
		close(s.reached)
		<-s.release
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ResponseRecorder.Write(p)
}

func (s *stuck) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(strings.Split(s.Body.String(), "\n"), func(l string) bool { return l == "" })
}

func TestTraceReaderThatDoesNotReadHarmsNobody(t *testing.T) {
	g := startReal(t, "bucket")
	ctx, cancel := context.WithCancel(t.Context())
	w := &stuck{ResponseRecorder: httptest.NewRecorder(), reached: make(chan struct{}), release: make(chan struct{})}
	r := g.request(t, forms[0], testCall{method: "GET", target: "/?x-ashlar-trace"}).WithContext(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); g.server.Handler().ServeHTTP(w, r) }()
	head := func() *http.Request { return g.request(t, forms[0], testCall{method: "HEAD", target: "/bucket"}) }
	sent := 0
	for stuckNow := false; !stuckNow; sent++ { // the first requests may come before the reader
		g.serve(head())
		select {
		case <-w.reached:
			stuckNow = true
		default:
		}
	}
	const many = 3000
	for range many {
		if a := g.serve(head()); a.Code != 200 {
			t.Fatal(a.Code)
		}
	}
	close(w.release)
	var told, dropped int64
	for deadline := time.Now().Add(30 * time.Second); dropped == 0 || told+dropped < many; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d told and %d dropped of %d to %d", told, dropped, many, many+sent)
		}
		told, dropped = 0, 0
		for _, line := range w.lines() {
			var e trace.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err, line)
			}
			if dropped += e.Dropped; e.ID != "" {
				told++
			}
		}
	}
	if told+dropped > int64(many+sent) {
		t.Errorf("%d told and %d dropped of %d", told, dropped, many+sent)
	}
	cancel()
	<-ended
}
