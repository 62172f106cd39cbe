package tracing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ashlar/s3gw/trace"
)

func TestRender(t *testing.T) {
	shard := uint32(3)
	e := &trace.Event{
		Time: time.Date(2026, 11, 28, 17, 42, 3, 121e6, time.Local), Gateway: "g1", ID: "8F3A19C2D4E5F607", Method: "PUT", Operation: "PutObject",
		Bucket: "photos", Key: "a\x1b[2J\n" + strings.Repeat("k", 100), Status: 200, Took: trace.Duration(1204 * time.Millisecond), FirstByte: trace.Duration(1203 * time.Millisecond),
		BytesIn: 8 << 20, Remote: "10.0.0.7:5222", AccessKey: "AKIA", Auth: trace.Duration(1200 * time.Microsecond), BodyIn: trace.Duration(240 * time.Millisecond),
		Steps: []trace.Step{
			{What: "write", Host: "a1", Disk: "a1/d04", Calls: 1, Failed: 1, Reason: "dead", Longest: trace.Duration(time.Millisecond)},
			{What: "write", Host: "b1", Disk: "b1/d02", Calls: 2, Late: 1, Longest: trace.Duration(935 * time.Millisecond)},
			{What: "commit", Host: "b1", Shard: &shard, Calls: 1, Longest: trace.Duration(9 * time.Millisecond)},
			{What: "body", Host: "a1", Calls: 1, Longest: trace.Duration(940 * time.Millisecond)},
			{What: "memory", Host: "a1", Calls: 1, Longest: waitShown - 1},
		},
	}
	for i := range 6 {
		e.Steps = append(e.Steps, trace.Step{What: "write", Disk: fmt.Sprintf("c1/d%02d", i), Calls: 1})
	}
	line := `17:42:03.121  g1        8F3A19C2D4E5F607  200     1.20s     1.20s    8.0MiB        0B  PutObject photos/a\x1b[2J\n` + strings.Repeat("k", 74) + "…  by AKIA from 10.0.0.7:5222\n"
	where := `    gateway   auth 1.2ms, body from client 240.0ms
    metadata  commit shard 3 at b1 9.0ms
    pieces    write a1/d04 1.0ms FAILED: dead, write b1/d02 935.0ms (the longest of 2) LATE, write c1/d00 0.0ms, write c1/d01 0.0ms, write c1/d02 0.0ms, write c1/d03 0.0ms, 2 more
    hosts     body a1 940.0ms
`
	failed := *e
	failed.Status = 503
	for _, c := range []struct {
		name string
		e    *trace.Event
		slow time.Duration
		want string
	}{
		{"fast", e, 2 * time.Second, line},
		{"slow", e, time.Second, line + where},
		{"failed in the store", &failed, 2 * time.Second, strings.Replace(line, "  200 ", "  503 ", 1) + where},
		{"refused", &trace.Event{Time: e.Time, Gateway: "g1", ID: "1", Method: "GET", Operation: "Unknown", Status: 403, Code: "AccessDenied", Remote: "r:1"}, time.Second,
			"17:42:03.121  g1        1                 403     0.0ms     0.0ms        0B        0B  GET AccessDenied  by nobody from r:1\n"},
		{"under way before", &trace.Event{Time: e.Time, Gateway: "g1", ID: "2", Method: "PUT", Operation: "PutObject", Status: 200, Took: trace.Duration(time.Second), BodyIn: trace.Duration(time.Second), StepsUnknown: true, Remote: "r:1"}, time.Second,
			"17:42:03.121  g1        2                 200     1.00s     0.0ms        0B        0B  PutObject  by nobody from r:1\n    gateway   body from client 1.00s\n    its calls are not known: it began before the trace did\n"},
		{"dropped", &trace.Event{Gateway: "g2", Dropped: 37}, 0, "-- g2: 37 requests are not shown: this reader was too slow for them\n"},
	} {
		var b strings.Builder
		if err := Render(&b, c.e, c.slow); err != nil || b.String() != c.want {
			t.Errorf("%s: %v\n%q\nwant\n%q", c.name, err, b.String(), c.want)
		}
	}
}

// gateway answers calls in order, the last one for ever.
func gateway(t *testing.T, answers ...func(http.ResponseWriter, *http.Request)) string {
	var calls atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answers[min(int(calls.Add(1)), len(answers))-1](w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// telling answers with events, and ends or waits.
func telling(wait bool, events ...trace.Event) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		fmt.Fprintln(w)
		for _, e := range events {
			json.NewEncoder(w).Encode(e)
		}
		http.NewResponseController(w).Flush()
		if wait {
			<-r.Context().Done()
		}
	}
}

func refusing(status int, text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, status) }
}

var errEnough = errors.New("enough")

// TestFollowAsksAgain: two gateways, one of which goes away twice, and the filter
// reaches them.
func TestFollowAsksAgain(t *testing.T) {
	var query atomic.Value
	first := gateway(t, func(w http.ResponseWriter, r *http.Request) {
		query.Store(r.URL.RawQuery)
		telling(false, trace.Event{ID: "1"})(w, r)
	}, refusing(503, "<Error><Code>SlowDown</Code></Error>"), telling(true, trace.Event{ID: "2"}))
	second := gateway(t, telling(true, trace.Event{ID: "3", Dropped: 4}))
	var mu sync.Mutex
	var notes []string
	got := map[string]int64{}
	o := Options{Gateways: []string{first, second}, Keys: Keys{AccessKey: "a", SecretKey: "s", Region: "us-east-1"},
		Filter: trace.Filter{Slow: time.Second, Errors: true, Bucket: "b&c", ID: "X"},
		Note:   func(s string) { mu.Lock(); defer mu.Unlock(); notes = append(notes, s) }}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := Follow(ctx, o, func(e *trace.Event) error {
		if got[e.ID] = e.Dropped; len(got) == 3 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) || got["3"] != 4 {
		t.Errorf("%v, %v", err, got)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(notes) != 2 || !strings.Contains(notes[0], "ended the trace") || !strings.HasSuffix(notes[1], "is back") {
		t.Errorf("%q", notes)
	}
	if q := query.Load(); q != "x-ashlar-bucket=b%26c&x-ashlar-errors=&x-ashlar-request-id=X&x-ashlar-slow=1s&x-ashlar-trace=" {
		t.Error(q)
	}
}

func TestFollowEnds(t *testing.T) {
	good := gateway(t, telling(true))
	for _, c := range []struct {
		name     string
		gateways []string
		says     string
	}{
		{"denied", []string{good, gateway(t, refusing(403, "<Error><Code>AccessDenied</Code></Error>"))}, "ashlar:TraceRequests"},
		{"wrong key", []string{good, gateway(t, refusing(403, "<Error><Code>InvalidAccessKeyId</Code><Message>No.</Message></Error>"))}, "InvalidAccessKeyId: No."},
		{"no Ashlar", []string{gateway(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<ListAllMyBucketsResult/>") })}, "of this version"},
		{"no event", []string{gateway(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-ndjson")
			fmt.Fprintln(w, "}")
		})}, "no event"},
		{"no address", []string{"ftp://x"}, "want http://HOST:PORT"},
		{"all away", []string{"http://127.0.0.1:1", "http://127.0.0.1:2"}, "is the gateway running?"},
		{"none", nil, "no gateway"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := Follow(ctx, Options{Gateways: c.gateways, Keys: Keys{AccessKey: "a", SecretKey: "s"}}, func(*trace.Event) error { return nil })
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Follow(ctx, Options{Gateways: []string{good}, Keys: Keys{AccessKey: "a", SecretKey: "s"}}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
