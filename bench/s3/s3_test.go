package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeebo/xxh3"
)

func TestPutRunCountsChecksAndCleans(t *testing.T) {
	for _, size := range []int64{0, 1, 4096, ioBytes - 1, 3*ioBytes + 5} {
		for _, signed := range []bool{false, true} {
			s := newTestServer(t)
			o := s.options(Put)
			o.Bytes, o.Count, o.Repeats, o.SignedPayload = size, 30, 2, signed
			o.ServerPIDs = []int{os.Getpid()}
			rep, err := Run(context.Background(), o)
			if err != nil {
				t.Fatal(err)
			}
			if len(rep.Rounds) != 2 || rep.Rounds[1].Operations < 29.99 || rep.Rounds[1].Operations > 30.01 || rep.Errors() != 0 {
				t.Errorf("size %d: %+v", size, rep.Rounds)
			}
			if rep.ReadBack != 60 || rep.Server != "test/1" {
				t.Errorf("size %d: read back %d of 60 from %q", size, rep.ReadBack, rep.Server)
			}
			if s.counts["PUT object"] != 60 || len(s.buckets) != 0 {
				t.Errorf("size %d: %v requests, buckets left: %d", size, s.counts, len(s.buckets))
			}
		}
	}
}

func TestGetRunForATime(t *testing.T) {
	s := newTestServer(t)
	o := s.options(Get)
	o.Bytes, o.Duration, o.Warmup, o.Objects = 300_001, 300*time.Millisecond, 50*time.Millisecond, 7
	rep, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	d := rep.Rounds[0]
	if d.Operations == 0 || d.Errors != 0 || d.VerifiedBytes%o.Bytes != 0 || float64(d.VerifiedBytes) < d.Bytes {
		t.Errorf("%+v", d)
	}
	if d.Seconds < 0.299 || d.Seconds > 0.301 {
		t.Errorf("a round of 0.3 s lasted %v s", d.Seconds)
	}
	if s.counts["PUT object"] != 7 || len(s.buckets) != 0 {
		t.Errorf("%v, buckets left: %d", s.counts, len(s.buckets))
	}
}

func TestWrongBytesAreFound(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"a bit":        func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"one byte off": func(b []byte) []byte { return b[1:] },
		"zeros":        func(b []byte) []byte { return make([]byte, len(b)) },
	} {
		for _, operation := range []string{Put, Get} {
			s := newTestServer(t)
			s.spoil = func(w http.ResponseWriter, r *http.Request) bool {
				key := r.URL.Path[strings.Index(r.URL.Path[1:], "/")+2:]
				if r.Method != "GET" || key == "" || r.URL.RawQuery != "" {
					return false
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				for _, objects := range s.buckets {
					w.Write(spoil(bytes.Clone(objects[key])))
				}
				return true
			}
			o := s.options(operation)
			o.Bytes, o.Count, o.Objects = 5000, 8, 4
			if _, err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), "WRONG BYTES") {
				t.Errorf("%s, %s: %v", operation, name, err)
			}
		}
	}
}

func TestErrorsAreCountedAndShown(t *testing.T) {
	s := newTestServer(t)
	var n atomic.Int64
	s.spoil = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != "PUT" || strings.Count(r.URL.Path, "/") < 2 {
			return false
		}
		number := n.Add(1)
		if number%3 != 0 {
			return false
		}
		if number%2 == 0 {
			fail(w, 503, "SlowDown")
			return true
		}
		hijacked, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			hijacked.Close()
		}
		return true
	}
	o := s.options(Put)
	o.Bytes, o.Count = 100, 60
	rep, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	shown := strings.Join(rep.ErrorSamples, "\n")
	if rep.Errors() != 20 || len(rep.ErrorSamples) != errorSamplesMax || !strings.Contains(shown, "503 SlowDown as the test wants") || !strings.Contains(shown, "EOF") {
		t.Errorf("%d errors, shown:\n%s", rep.Errors(), shown)
	}
	if got := rep.Rounds[0].Operations; got < 39.99 || got > 40.01 {
		t.Errorf("%v operations, want 40", got)
	}
}

func TestInterruptedRunRemovesItsObjects(t *testing.T) {
	s := newTestServer(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var n atomic.Int64
	s.spoil = func(w http.ResponseWriter, r *http.Request) bool {
		if n.Add(1) == 40 {
			cancel()
		}
		return false
	}
	o := s.options(Put)
	o.Bytes, o.Duration = 20_000, time.Hour
	rep, err := Run(ctx, o)
	if !errors.Is(err, context.Canceled) || rep == nil || !rep.Interrupted || rep.Errors() != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if len(s.buckets) != 0 {
		t.Errorf("%d buckets left", len(s.buckets))
	}
}

func TestForeignObjectsStay(t *testing.T) {
	s := newTestServer(t)
	s.buckets["mine"] = map[string][]byte{"ashlar-bench/other": []byte("x"), "photo.jpg": []byte("y")}
	o := s.options(Put)
	o.Bucket, o.Bytes, o.Count = "mine", 10, 12
	if _, err := Run(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	if len(s.buckets["mine"]) != 2 {
		t.Errorf("left in the bucket: %v", s.buckets["mine"])
	}
}

func TestServerThatIsAwayEndsTheRun(t *testing.T) {
	s := newTestServer(t)
	o := s.options(Put)
	s.Close()
	o.Bytes, o.Duration = 10, time.Hour
	if rep, err := Run(context.Background(), o); err == nil || rep != nil {
		t.Errorf("%v, %v", rep, err)
	}
	o.AccessKey = ""
	if _, err := Run(context.Background(), o); err == nil {
		t.Error("a run without keys must be refused")
	}
}

func TestStalledServerIsATimeout(t *testing.T) {
	s := newTestServer(t)
	release := make(chan struct{})
	s.spoil = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == "PUT" && strings.Count(r.URL.Path, "/") >= 2 {
			<-release
		}
		return false
	}
	t.Cleanup(func() { close(release) })
	o := s.options(Put)
	o.Bytes, o.Count, o.Timeout, o.Verify = 10, 4, 500*time.Millisecond, false
	rep, err := Run(context.Background(), o)
	if rep == nil || rep.Errors() != 4 || !strings.Contains(rep.ErrorSamples[0], "timeout") {
		t.Errorf("%+v, %v", rep, err)
	}
}

func TestContentIsTheSameFromAnyOffset(t *testing.T) {
	c := contentOf(7, "some/key")
	whole := make([]byte, 100_003)
	c.fill(whole, 0)
	for _, off := range []int64{0, 8, 32, 4096, 99_992} {
		part := make([]byte, min(1001, len(whole)-int(off)))
		c.fill(part, off)
		if !bytes.Equal(part, whole[off:int(off)+len(part)]) {
			t.Errorf("offset %d differs", off)
		}
	}
	if got, want := c.hash(int64(len(whole)), make([]byte, 4096)), xxh3.Hash(whole); got != want {
		t.Errorf("hash %x, want %x", got, want)
	}
	other := make([]byte, 64)
	for _, c := range []content{contentOf(8, "some/key"), contentOf(7, "some/kez")} {
		if c.fill(other, 0); bytes.Equal(other, whole[:64]) {
			t.Error("another seed or key must give other bytes")
		}
	}
	var seen [256]int
	for _, b := range whole {
		seen[b]++
	}
	for b, n := range seen {
		if n < 250 || n > 550 { // 390 expected
			t.Errorf("byte %d occurs %d times", b, n)
		}
	}
}

func TestEscapeIsWhatTheServerReadsBack(t *testing.T) {
	for _, text := range []string{"a b+c", "ü/é", "%41", "x&y=z?#", "..//.", "~-._", "\x00\xff"} {
		got, err := url.PathUnescape(escape(text, true))
		if err != nil || got != text {
			t.Errorf("%q became %q, %v", text, got, err)
		}
		if strings.Contains(escape(text, false), "/") {
			t.Errorf("%q: a slash is left", text)
		}
	}
}

func TestSignerKeepsUpWithTheClock(t *testing.T) {
	s := newSigner(testAccess, testSecret, testRegion)
	day := time.Date(2026, 3, 1, 23, 59, 59, 0, time.UTC)
	for _, at := range []time.Time{day, day.Add(500 * time.Millisecond), day.Add(time.Second), day.Add(time.Hour)} {
		fresh := newSigner(testAccess, testSecret, testRegion)
		got := string(s.sign(nil, at, "GET", "/b/k", "", "h:1", emptySHA256, ""))
		want := string(fresh.sign(nil, at, "GET", "/b/k", "", "h:1", emptySHA256, ""))
		if got != want || !strings.Contains(got, fmt.Sprintf("/%s/%s/s3/", at.Format("20060102"), testRegion)) {
			t.Errorf("%v:\n%s\n%s", at, got, want)
		}
	}
}

func TestBadHeadsAreErrors(t *testing.T) {
	for _, head := range []string{"", "SSH-2.0-OpenSSH", "HTTP/1.1 abc", "HTTP/1.1 200 OK\r\nContent-Length: -4", "HTTP/1.1 200 OK\r\ncontent-length: 9x"} {
		if a, err := parseHead([]byte(head)); err == nil {
			t.Errorf("%q: %+v", head, a)
		}
	}
	a, err := parseHead([]byte("HTTP/1.1 200 OK\r\ncontent-LENGTH:  12 \r\nConnection: Close"))
	if err != nil || a.length != 12 || !a.close {
		t.Errorf("%+v, %v", a, err)
	}
}
