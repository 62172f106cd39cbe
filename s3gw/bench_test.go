package s3gw

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ashlar/s3gw/trace"
)

// The load generators below write prepared bytes and read answers without a
// client library, so that most of the measured CPU is the gateway's. They
// report the CPU of the whole process (client included) per request.

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// wire writes a request as bytes.
func onWire(b *testing.B, r *http.Request, body string) string {
	b.Helper()
	return head(r, fmt.Sprintf("Content-Length: %d\r\n", len(body))) + body
}

// hammer sends text over conns connections until b.N answers came.
func hammer(b *testing.B, g *gateway, text string, conns int) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	errs := make(chan error, conns)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	for range conns {
		go func() { errs <- pump(g.addr, text, &left) }()
	}
	for range conns {
		if err := <-errs; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N)/1000, "cpu-µs/op")
}

func pump(addr, text string, left *atomic.Int64) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	br := bufio.NewReaderSize(conn, 16<<10)
	for left.Add(-1) >= 0 {
		if _, err := io.WriteString(conn, text); err != nil {
			return err
		}
		if err := skipAnswer(br); err != nil {
			return err
		}
	}
	return nil
}

// skipAnswer reads one answer and insists on 200.
func skipAnswer(br *bufio.Reader) error {
	length := 0
	for first := true; ; first = false {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && string(line[9:12]) != "200" {
			rest, _ := br.Peek(br.Buffered())
			return fmt.Errorf("%s%s", line, rest)
		}
		if len(line) == 2 {
			_, err = br.Discard(length)
			return err
		}
		const name = "Content-Length: "
		if len(line) > len(name) && string(line[:len(name)]) == name {
			length = 0
			for _, c := range line[len(name) : len(line)-2] {
				length = length*10 + int(c-'0')
			}
		}
	}
}

func benchForms(b *testing.B, run func(b *testing.B, f form)) {
	for _, f := range forms {
		b.Run(strings.ReplaceAll(f.name, " ", "-"), func(b *testing.B) { run(b, f) })
	}
}

func BenchmarkPut4K(b *testing.B) {
	body := strings.Repeat("x", 4096)
	benchForms(b, func(b *testing.B, f form) {
		g := start(b).withBucket(b, "bucket")
		r := g.request(b, f, testCall{method: "PUT", target: "/bucket/some/key-of-usual-length", body: body})
		sent, err := io.ReadAll(r.Body)
		if err != nil {
			b.Fatal(err)
		}
		hammer(b, g, onWire(b, r, string(sent)), 16)
	})
}

// BenchmarkPut4KWatched is BenchmarkPut4K while somebody reads the trace.
func BenchmarkPut4KWatched(b *testing.B) {
	g := start(b).withBucket(b, "bucket")
	w, err := g.server.trace.Watch(trace.Filter{})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	read := make(chan struct{})
	go func() { // ends with the watcher
		defer close(read)
		out := &bytes.Buffer{}
		for {
			select {
			case e := <-w.Events():
				g.server.traceLines(out, w, e)
				out.Reset()
			case <-w.Done():
				return
			}
		}
	}()
	body := strings.Repeat("x", 4096)
	r := g.request(b, forms[0], testCall{method: "PUT", target: "/bucket/some/key-of-usual-length", body: body})
	hammer(b, g, onWire(b, r, body), 16)
	w.Close()
	<-read
}

func BenchmarkGet4K(b *testing.B) {
	g := start(b).withBucket(b, "bucket")
	if _, err := g.PutObject(ctx, putRequest("bucket", "some/key-of-usual-length"), bodyOf(strings.Repeat("x", 4096))); err != nil {
		b.Fatal(err)
	}
	r := g.request(b, forms[1], testCall{method: "GET", target: "/bucket/some/key-of-usual-length"})
	hammer(b, g, onWire(b, r, ""), 16)
}

func BenchmarkPut64M(b *testing.B) {
	body := strings.Repeat("x", 64<<20)
	for _, f := range []form{forms[1], forms[4]} {
		b.Run(strings.ReplaceAll(f.name, " ", "-"), func(b *testing.B) {
			g := start(b).withBucket(b, "bucket")
			r := g.request(b, f, testCall{method: "PUT", target: "/bucket/big", body: body})
			sent, _ := io.ReadAll(r.Body)
			b.SetBytes(int64(len(body)))
			hammer(b, g, onWire(b, r, string(sent)), 1)
		})
	}
}

// BenchmarkNetHTTP is the floor: the same bytes through net/http alone.
func BenchmarkNetHTTP(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	answer := []byte(strings.Repeat("x", 4096))
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header()["Content-Length"] = []string{"4096"}
		w.Write(answer)
	})}
	go srv.Serve(ln)
	b.Cleanup(func() { srv.Close() })
	g := &gateway{addr: ln.Addr().String(), url: "http://" + ln.Addr().String()}
	r := g.request(b, forms[1], testCall{method: "GET", target: "/bucket/some/key-of-usual-length"})
	hammer(b, g, onWire(b, r, ""), 16)
}
