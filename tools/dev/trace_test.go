package dev

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/client"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
	"ashlar/s3gw/trace"
	"ashlar/tools/tracing"
)

// slowHost is a host in which calls take long or do not come back.
type slowHost struct {
	client.Host
	pieces, commits time.Duration
	hold            chan struct{} // PutPiece waits until it is closed; nil holds nothing
	first           *atomic.Bool  // the first GetPiece takes it and waits until it is given up
}

func (h slowHost) PutPiece(ctx context.Context, p *wire.Piece) error {
	time.Sleep(h.pieces)
	if h.hold != nil {
		select {
		case <-h.hold:
		case <-ctx.Done():
		}
	}
	return h.Host.PutPiece(ctx, p)
}

func (h slowHost) GetPiece(ctx context.Context, r wire.PieceRange, dst []byte) error {
	if h.first != nil && h.first.CompareAndSwap(false, true) {
		<-ctx.Done()
	}
	return h.Host.GetPiece(ctx, r, dst)
}

func (h slowHost) Commit(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn) error {
	time.Sleep(h.commits)
	return h.Host.Commit(ctx, shard, txn)
}

// plant makes a host of the cluster as slow as h says.
func (c *Cluster) plant(name string, h slowHost) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h.Host = c.hosts[name]
	c.registry.Direct(c.hosts[name].ID(), h)
}

// watching follows the traces of the gateways of a directory.
type watching struct {
	t      *testing.T
	events chan *trace.Event
	text   strings.Builder
}

func watchTrace(t *testing.T, dir string) *watching {
	t.Helper()
	w := &watching{t: t, events: make(chan *trace.Event, 10_000)}
	followTrace(t, dir, func(e *trace.Event) error { w.events <- e; return nil })
	return w
}

// followTrace follows until the test ends.
func followTrace(t *testing.T, dir string, each func(*trace.Event) error) {
	t.Helper()
	urls, access, secret, err := GatewaysOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- tracing.Follow(ctx, tracing.Options{Gateways: urls, Keys: tracing.Keys{AccessKey: access, SecretKey: secret, Region: "us-east-1"}}, each)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// until reads events up to one that is wanted; do is done again and again meanwhile.
func (w *watching) until(do func(), want func(*trace.Event) bool) *trace.Event {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		do()
		for again := time.After(100 * time.Millisecond); again != nil; {
			select {
			case e := <-w.events:
				b, err := json.Marshal(e)
				if err != nil {
					w.t.Fatal(err)
				}
				w.text.Write(b)
				if want(e) {
					return e
				}
			case <-again:
				again = nil
			}
		}
	}
	w.t.Fatal("no such event within a minute")
	return nil
}

// of returns the steps of a kind.
func of(e *trace.Event, what string) []trace.Step {
	return slices.DeleteFunc(slices.Clone(e.Steps), func(s trace.Step) bool { return s.What != what })
}

// TestTraceNamesTheSlow: what is planted in disks and hosts stands in the trace with
// its name and its time, no secret does, and a reader that does not read harms nobody.
func TestTraceNamesTheSlow(t *testing.T) {
	cfg := testConfig(t)
	cfg.Hosts, cfg.Disks, cfg.Members, cfg.Profile = 1, 1, 1, ashlar.Code{K: 2, M: 1}
	c := startOne(t, cfg)
	g := s3Client(t, c.S3(), cfg)
	makeBucket(t, g)
	deaf, hear := context.WithCancel(context.Background())
	followTrace(t, cfg.Dir, func(*trace.Event) error { <-deaf.Done(); return nil })
	w := watchTrace(t, cfg.Dir)
	t.Cleanup(hear) // before the readers are waited for
	small := content(7, "small", 1, 4<<10)
	putting := func(key string) func() {
		return func() { putAll(t, g, []object{{key, 1, small}}) }
	}
	once := func(do func()) func() {
		done := false
		return func() {
			if !done {
				done = true
				do()
			}
		}
	}
	named := func(key, operation string) func(*trace.Event) bool {
		return func(e *trace.Event) bool { return e.Key == key && e.Operation == operation }
	}
	w.until(putting("warm"), named("warm", "PutObject"))
	const delay = 300 * time.Millisecond

	c.plant("b1", slowHost{pieces: delay})
	c.plant("c1", slowHost{pieces: delay})
	e := w.until(once(putting("pieces")), named("pieces", "PutObject"))
	waited := slices.ContainsFunc(of(e, "write"), func(s trace.Step) bool {
		return (s.Disk == "b1/d01" || s.Disk == "c1/d01") && s.Host+"/d01" == s.Disk && s.Longest >= trace.Duration(delay) && s.Late == 0
	})
	if !waited || e.Took < trace.Duration(delay) || e.Status != 200 || e.BytesIn < int64(len(small)) || e.AccessKey != cfg.AccessKey {
		t.Errorf("two slow disks of three: %+v", e)
	}

	hold := make(chan struct{})
	c.plant("b1", slowHost{hold: hold})
	c.plant("c1", slowHost{})
	e = w.until(once(putting("late")), named("late", "PutObject"))
	close(hold)
	late := slices.ContainsFunc(of(e, "write"), func(s trace.Step) bool { return s.Disk == "b1/d01" && s.Late == 1 && s.Longest > 0 })
	if !late || e.Status != 200 {
		t.Errorf("a disk that is done without: %+v", e)
	}

	first := &atomic.Bool{}
	for _, host := range []string{"a1", "b1", "c1"} {
		c.plant(host, slowHost{first: first})
	}
	e = w.until(once(func() {
		if _, err := get(t.Context(), g, "late", ""); err != nil {
			t.Error(err)
		}
	}), named("late", "GetObject"))
	late = slices.ContainsFunc(of(e, "read"), func(s trace.Step) bool { return s.Late == 1 && s.Disk == s.Host+"/d01" })
	if !late || e.BytesOut != int64(len(small)) {
		t.Errorf("a read that others overtook: %+v", e)
	}

	for _, host := range []string{"a1", "b1", "c1"} {
		c.plant(host, slowHost{commits: delay})
	}
	e = w.until(once(putting("commit")), named("commit", "PutObject"))
	waited = slices.ContainsFunc(of(e, "commit"), func(s trace.Step) bool {
		return s.Shard != nil && slices.Contains([]string{"a1", "b1", "c1"}, s.Host) && s.Longest >= trace.Duration(delay)
	})
	if !waited || e.Took < trace.Duration(delay) {
		t.Errorf("slow commits: %+v", e)
	}
	for _, host := range []string{"a1", "b1", "c1"} {
		c.plant(host, slowHost{})
	}
	for _, secret := range []string{cfg.SecretKey, "Signature", "Credential"} {
		if strings.Contains(w.text.String(), secret) {
			t.Errorf("%q is in the trace", secret)
		}
	}
}

// TestTraceFollowsAllGateways: hosts in other processes tell the gateways what they
// did for a request, and one reader sees what all gateways serve.
func TestTraceFollowsAllGateways(t *testing.T) {
	cfg := testConfig(t)
	cfg.Hosts, cfg.Disks, cfg.Members, cfg.Gateways, cfg.Profile = 1, 1, 1, 2, ashlar.Code{K: 2, M: 1}
	p := startMany(t, cfg)
	makeBucket(t, s3Client(t, p.S3(), cfg))
	w := watchTrace(t, cfg.Dir)
	large := object{"large", 1, content(8, "large", 1, 777_777)}
	for i, url := range p.Gateways() {
		g := s3Client(t, url, cfg)
		name := p.GatewayNames()[i]
		e := w.until(func() { putAll(t, g, []object{large}) }, func(e *trace.Event) bool { return e.Gateway == name && e.Operation == "PutObject" && !e.StepsUnknown })
		disks := 0
		for _, s := range of(e, "write") {
			if s.Disk == s.Host+"/d01" && s.Calls == 1 {
				disks++
			}
		}
		if disks != 3 || len(of(e, "body")) != 1 || len(of(e, "commit")) == 0 || e.BytesIn < int64(len(large.b)) {
			t.Errorf("PUT through %s: %+v", name, e)
		}
		e = w.until(func() {
			if _, err := get(t.Context(), g, large.key, ""); err != nil {
				t.Error(err)
			}
		}, func(e *trace.Event) bool { return e.Gateway == name && e.Operation == "GetObject" })
		if len(of(e, "read")) < 2 || len(of(e, "open")) != 1 || e.BytesOut != int64(len(large.b)) {
			t.Errorf("GET through %s: %+v", name, e)
		}
	}
}
