package courier

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"ashlar/s3gw/notify"
)

func event(id string) *notify.Event {
	return &notify.Event{Name: notify.Put, Bucket: "photos", Key: "a/b", ID: id, At: time.Unix(1e9, 0)}
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func opened(t *testing.T, c Config) Target {
	t.Helper()
	target, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(target.Close)
	return target
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// until repeats what may need some time, as the queue does.
func until(t *testing.T, ctx context.Context, do func(context.Context) error) {
	t.Helper()
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		err := do(attempt)
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestWebhook(t *testing.T) {
	status, seen := http.StatusOK, ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization")
		if status/100 == 3 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
	}))
	defer s.Close()
	w := opened(t, Config{Name: "hook", Kind: KindWebhook, Address: s.URL + "/in", TokenFile: file(t, "t0ken\n")})
	for _, c := range []struct {
		status int
		taken  bool
	}{{200, true}, {204, true}, {302, false}, {307, false}, {400, false}, {401, false}, {500, false}} {
		status = c.status
		if err := w.Send(bounded(t), event("1"), []byte("{}")); (err == nil) != c.taken {
			t.Errorf("%d: %v", c.status, err)
		}
		if seen != "POST /in Bearer t0ken" {
			t.Errorf("%d: %s", c.status, seen)
		}
	}
	s.Close()
	if err := w.Send(bounded(t), event("1"), nil); err == nil {
		t.Error("a target that is gone took an event")
	}
}

// TestWebhookHangs: an answer that does not come ends with the caller's patience.
func TestWebhookHangs(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	w := opened(t, Config{Name: "hook", Kind: KindWebhook, Address: "http://" + ln.Addr().String()})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := w.Send(ctx, event("1"), nil); err == nil {
		t.Error("taken without an answer")
	}
}

func TestWebhookTrust(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	s.Config.ErrorLog = nil
	if err := opened(t, Config{Name: "hook", Kind: KindWebhook, Address: s.URL}).Send(bounded(t), event("1"), nil); err == nil {
		t.Error("a certificate that nobody vouches for was trusted")
	}
}

// brokers are a Kafka of three in this process, with a topic of four partitions.
func brokers(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.SeedTopics(4, "events")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestKafka(t *testing.T) {
	c := brokers(t)
	addresses := strings.Join(c.ListenAddrs(), ",")
	k := opened(t, Config{Name: "log", Kind: KindKafka, Address: addresses, Topic: "events"})
	ctx := bounded(t)
	for i := range 8 {
		if err := k.Send(ctx, event(strconv.Itoa(i)), []byte("record "+strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics("events"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var got []*kgo.Record
	for len(got) < 8 {
		fetched := reader.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			t.Fatal(err)
		}
		got = append(got, fetched.Records()...)
	}
	for i, r := range got { // of one key: in one partition, in order
		if string(r.Key) != "photos/a/b" || string(r.Value) != "record "+strconv.Itoa(i) || string(r.Headers[0].Value) != strconv.Itoa(i) || r.Partition != got[0].Partition {
			t.Errorf("record %d: %s %s", i, r.Key, r.Value)
		}
	}
	missing := opened(t, Config{Name: "log", Kind: KindKafka, Address: addresses, Topic: "none"})
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := missing.Send(short, event("1"), nil); err == nil {
		t.Error("a topic that is not there took an event")
	}
}

func TestKafkaUsers(t *testing.T) {
	c := brokers(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "me", "right"))
	for password, taken := range map[string]bool{"right": true, "wrong": false} {
		k := opened(t, Config{Name: "log", Kind: KindKafka, Address: c.ListenAddrs()[0], Topic: "events", User: "me", PasswordFile: file(t, password)})
		ctx := bounded(t)
		if !taken { // Kafka's client goes on for as long as it may
			short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			ctx = short
		}
		if err := k.Send(ctx, event("1"), nil); (err == nil) != taken {
			t.Errorf("%s: %v", password, err)
		}
	}
}

// streaming runs a NATS server with JetStream; port 0 is any.
func streaming(t *testing.T, port int, dir string) *server.Server {
	t.Helper()
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true, Authorization: "t0ken"})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not come up")
	}
	return s
}

// TestNATS: an event is taken when a stream has it, once, also after the server was away.
func TestNATS(t *testing.T) {
	dir := t.TempDir()
	s := streaming(t, 0, dir)
	ctx := bounded(t)
	n := opened(t, Config{Name: "bus", Kind: KindNATS, Address: s.ClientURL(), Topic: "events.photos", TokenFile: file(t, "t0ken")})
	if err := n.Send(ctx, event("0"), []byte("lost")); err == nil {
		t.Fatal("taken without a stream")
	}
	conn, err := nats.Connect(s.ClientURL(), nats.Token("t0ken"), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		until(t, ctx, func(ctx context.Context) error { return n.Send(ctx, event("1"), []byte("one")) })
	}
	port := s.Addr().(*net.TCPAddr).Port
	s.Shutdown()
	s.WaitForShutdown()
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := n.Send(short, event("2"), []byte("two")); err == nil {
		t.Fatal("a server that is away took an event")
	}
	streaming(t, port, dir)
	until(t, ctx, func(ctx context.Context) error { return n.Send(ctx, event("2"), []byte("two")) })
	until(t, ctx, func(ctx context.Context) error {
		stream, err := js.Stream(ctx, "EVENTS")
		if err != nil {
			return err
		}
		info, err := stream.Info(ctx)
		if err == nil && info.State.Msgs != 2 {
			t.Fatalf("%d messages, want 2", info.State.Msgs)
		}
		return err
	})
}

func TestOpenRefuses(t *testing.T) {
	empty := file(t, "\n")
	for _, c := range []Config{
		{Name: "x", Kind: KindKafka, Address: "h:1"}, {Name: "x", Kind: KindKafka, Topic: "t"}, {Name: "x", Kind: KindKafka, Address: "h:1", Topic: "t", User: "u"},
		{Name: "x", Kind: KindKafka, Address: "h:1", Topic: "t", User: "u", PasswordFile: empty}, {Name: "x", Kind: KindKafka, Address: "h:1", Topic: "t", User: "u", PasswordFile: file(t, "p"), SASL: "none"},
		{Name: "x", Kind: KindNATS, Address: "nats://h:1"}, {Name: "x", Kind: KindNATS, Topic: "t"}, {Name: "x", Kind: KindNATS, Address: "nats://h:1", Topic: "t", User: "u"},
		{Name: "x", Kind: KindNATS, Address: "nats://127.0.0.1:1", Topic: "t", User: "u", TokenFile: file(t, "t")}, {Name: "x", Kind: KindNATS, Address: "127.0.0.1:1,h:1", Topic: "t", TokenFile: file(t, "t")},
		{Name: "x", Kind: KindNATS, Address: "nats://h:1", Topic: "t", User: "u", PasswordFile: file(t, "p")}, {Name: "x", Kind: KindKafka, Address: "h:1", Topic: "t", User: "u", PasswordFile: file(t, "p"), SASL: "plain"},
		{Name: "x", Kind: KindWebhook, Address: "http://h/", TokenFile: file(t, "t")}, {Name: "x", Kind: KindWebhook, Address: "http://10.0.0.1:80/", TokenFile: file(t, "t")},
		{Name: "x", Kind: KindNATS, Address: "nats://h:1", Topic: "t", CAFile: empty},
	} {
		if target, err := Open(c); err == nil {
			target.Close()
			t.Errorf("%+v was taken", c)
		}
	}
	for _, c := range []Config{
		{Name: "x", Kind: KindWebhook, Address: "https://h/", TokenFile: file(t, "t")}, {Name: "x", Kind: KindWebhook, Address: "http://h/"}, {Name: "x", Kind: KindWebhook, Address: "http://[::1]:80/", TokenFile: file(t, "t")},
		{Name: "x", Kind: KindKafka, Address: "h:1", Topic: "t", User: "u", PasswordFile: file(t, "p"), SASL: "plain", TLS: true}, {Name: "x", Kind: KindKafka, Address: "h:1", Topic: "t", User: "u", PasswordFile: file(t, "p")},
	} {
		target, err := Open(c)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		target.Close()
	}
}
