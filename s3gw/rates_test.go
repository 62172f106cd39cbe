package s3gw

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"ashlar/s3gw/iam"
)

// rated is a gateway with rates and a clock that stands until it is moved.
type rated struct {
	*gateway
	now time.Time
}

func startRated(t *testing.T, r Rates) *rated {
	w := &rated{now: time.Now()}
	who := cast(t)
	w.gateway = start(t, func(o *Options) { o.Credentials, o.Rates, o.Clock = who, &r, func() time.Time { return w.now } })
	return w.with(t, "bucket", "quiet")
}

func (w *rated) with(t *testing.T, names ...string) *rated {
	for _, name := range names {
		w.withBucket(t, name)
	}
	return w
}

// ask sends a request as a user and returns its status and after how many seconds it
// may be sent again.
func (w *rated) ask(t *testing.T, key, method, target, body string) (int, string) {
	t.Helper()
	a := w.do(t, testCall{method: method, target: target, body: body, key: key, secret: testSecret, at: w.now})
	if a.status == 503 && method != "HEAD" && a.code != "SlowDown" {
		t.Errorf("503 %s", a.code)
	}
	return a.status, a.header.Get("Retry-After")
}

func TestRequestsOfUsers(t *testing.T) {
	w := startRated(t, Rates{User: Rate{RequestsPerSecond: 2}, Users: map[string]Rate{
		"arn:aws:iam::111:user/reader": {RequestsPerSecond: 0.1}, "arn:aws:iam::222:root": {}}})
	served := func(key string) (n int, retry string) {
		for range 20 {
			status, after := w.ask(t, key, "GET", "/bucket", "")
			if status == 503 {
				return n, after
			}
			n++
		}
		return n, ""
	}
	for _, c := range []struct {
		key   string
		n     int
		retry string
	}{{testKey, 3, "1"}, {testKey, 0, "1"}, {"AKIDREADER", 1, "9"}, {"AKIDOTHER", 20, ""}, {"AKIDNONE", 3, "1"}} {
		if n, retry := served(c.key); n != c.n || retry != c.retry {
			t.Errorf("%s: %d served, then wait %q; want %d and %q", c.key, n, retry, c.n, c.retry)
		}
	}
	w.now = w.now.Add(500 * time.Millisecond)
	if n, _ := served(testKey); n != 1 {
		t.Errorf("half a second later: %d", n)
	}
	w.now = w.now.Add(time.Hour)
	if n, _ := served(testKey); n != 3 {
		t.Errorf("an hour later: %d", n)
	}
}

// The requests of IAM and STS count too.
func TestQueriesOfUsers(t *testing.T) {
	w := startRated(t, Rates{User: Rate{RequestsPerSecond: 2}})
	for i, limited := range []bool{false, false, false, true} {
		resp, err := w.http.Post(w.url, "application/x-www-form-urlencoded", strings.NewReader("Action=GetCallerIdentity&Version=2011-06-15"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if (resp.StatusCode == 503) != limited || limited && resp.Header.Get("Retry-After") != "1" {
			t.Errorf("query %d: %s %v", i, resp.Status, resp.Header)
		}
	}
}

func TestBytesOfBuckets(t *testing.T) {
	w := startRated(t, Rates{Bucket: Rate{BytesPerSecond: 1000}, Buckets: map[string]Rate{"quiet": {}}})
	want := func(method, target, body string, status int, retry string) {
		t.Helper()
		if got, after := w.ask(t, testKey, method, target, body); got != status || after != retry {
			t.Errorf("%s %s: %d, wait %q; want %d and %q", method, target, got, after, status, retry)
		}
	}
	body := strings.Repeat("x", 3000)
	want("PUT", "/bucket/k", body, 200, "")
	want("GET", "/bucket/k", "", 503, "2") // a second was saved up
	want("PUT", "/bucket/k", "", 503, "2")
	want("PUT", "/quiet/k", body, 200, "")
	want("GET", "/quiet/k", "", 200, "")
	w.now = w.now.Add(2 * time.Second)
	want("HEAD", "/bucket/k", "", 200, "")
	want("HEAD", "/bucket/k", "", 200, "") // no body, nothing to count
	want("GET", "/bucket/k", "", 200, "")
	want("HEAD", "/bucket/k", "", 503, "3")
	w.now = w.now.Add(3 * time.Second)
	for range 20 { // who may not, uses nothing up
		if status, _ := w.ask(t, "AKIDNONE", "PUT", "/bucket/k", body); status != 403 {
			t.Errorf("who may not: %d", status)
		}
	}
	want("HEAD", "/bucket/k", "", 200, "")
}

func TestBytesOfUsers(t *testing.T) {
	w := startRated(t, Rates{User: Rate{BytesPerSecond: 1000}})
	if status, _ := w.ask(t, testKey, "PUT", "/bucket/k", strings.Repeat("x", 5000)); status != 200 {
		t.Fatal(status)
	}
	for _, target := range []string{"/quiet", "/"} {
		if status, after := w.ask(t, testKey, "GET", target, ""); status != 503 || after != "4" {
			t.Errorf("%s: %d, wait %q", target, status, after)
		}
	}
	if status, _ := w.ask(t, "AKIDREADER", "GET", "/bucket/k", ""); status != 200 {
		t.Errorf("another user: %d", status)
	}
}

// The readers of a website share its bucket's rate, and nobody's.
func TestRatesOfWebsites(t *testing.T) {
	for name, r := range map[string]Rates{
		"bucket": {Buckets: map[string]Rate{"bucket": {RequestsPerSecond: 1}}}, "nobody": {Users: map[string]Rate{anonymousUser: {RequestsPerSecond: 1}}},
	} {
		now := time.Now()
		g := startReal(t, "bucket", func(o *Options) {
			o.Rates, o.Clock, o.WebsiteDomains = &r, func() time.Time { return now }, []string{"web.test"}
		})
		g.do(t, testCall{method: "PUT", target: "/bucket?website", body: documents["PutBucketWebsite"]}).want(t, 200, "")
		now = now.Add(10 * time.Second)
		for i, limited := range []bool{false, false, true} {
			req, err := http.NewRequest("GET", g.url+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "bucket.web.test"
			if w := g.serve(req); (w.Code == 503) != limited {
				t.Errorf("%s, page %d: %d %s", name, i, w.Code, w.Body)
			}
		}
	}
}

// Nobody is one user, and so is a role, whatever its sessions are called.
func TestPayers(t *testing.T) {
	for want, who := range map[string]*iam.Identity{
		"anonymous": iam.Unknown, "arn:aws:iam::111:root": iam.RootOf(homeAccount),
		"arn:aws:iam::111:role/r": {Kind: iam.Session, ARN: "arn:aws:sts::111:assumed-role/r/s", Role: "arn:aws:iam::111:role/r"},
	} {
		if got := (&call{who: who}).payer(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestMetersAreBounded: many names cannot fill the memory, and those that owe are the
// last to be forgotten.
func TestMetersAreBounded(t *testing.T) {
	now := time.Now()
	l := newLimiter(Rate{RequestsPerSecond: 1}, map[string]Rate{"owes": {BytesPerSecond: 1}})
	l.charge("owes", 100, now)
	for i := range 3 * metersMax {
		l.admit(fmt.Sprint(i), now)
	}
	if n := len(l.mu.meters); n > metersMax {
		t.Errorf("%d meters", n)
	}
	if l.admit("owes", now) != 99*time.Second {
		t.Error("a debt was forgotten although others owed nothing")
	}
}

func TestBadRates(t *testing.T) {
	for want, r := range map[string]Rates{
		"above 0":              {User: Rate{RequestsPerSecond: -1}},
		"buckets.quiet":        {Buckets: map[string]Rate{"quiet": {BytesPerSecond: -1}}},
		"name a user by":       {Users: map[string]Rate{"bob": {}}},
		"no bucket can have":   {Buckets: map[string]Rate{"Bad": {}}},
		"users.arn:aws:iam::1": {Users: map[string]Rate{"arn:aws:iam::1:root": {RequestsPerSecond: -2}}},
	} {
		if err := r.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	good := Rates{User: Rate{1, 2}, Users: map[string]Rate{"anonymous": {RequestsPerSecond: 0.5}}, Buckets: map[string]Rate{"quiet": {}}}
	if err := good.check(); err != nil {
		t.Error(err)
	}
}
