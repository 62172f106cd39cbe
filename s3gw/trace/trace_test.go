package trace

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"ashlar"
	"ashlar/daemon/wire"
)

func TestFilter(t *testing.T) {
	e := Event{ID: "A1", Bucket: "b", Status: 200, Took: Duration(200 * time.Millisecond)}
	bad, gone := e, e
	bad.Status, gone.Status = 404, 0
	for _, c := range []struct {
		name string
		f    Filter
		e    *Event
		want bool
	}{
		{"all", Filter{}, &e, true},
		{"exactly as slow", Filter{Slow: 200 * time.Millisecond}, &e, true},
		{"faster", Filter{Slow: 200*time.Millisecond + 1}, &e, false},
		{"errors, and it is none", Filter{Errors: true}, &e, false},
		{"errors", Filter{Errors: true}, &bad, true},
		{"errors, no answer", Filter{Errors: true}, &gone, true},
		{"bucket", Filter{Bucket: "b"}, &e, true},
		{"another bucket", Filter{Bucket: "bb"}, &e, false},
		{"id", Filter{ID: "A1"}, &e, true},
		{"another id", Filter{ID: "A"}, &e, false},
		{"all of them", Filter{Slow: 1, Errors: true, Bucket: "b", ID: "A1"}, &bad, true},
		{"all but one", Filter{Slow: 1, Errors: true, Bucket: "b", ID: "A1"}, &e, false},
	} {
		if got := c.f.Wants(c.e); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestReaderThatDoesNotReadLosesEvents and nobody else: what is published goes to
// the others, nobody waits, and it is told how many were lost.
func TestReaderThatDoesNotReadLosesEvents(t *testing.T) {
	var h Hub
	if h.Watched() {
		t.Error("watched by nobody")
	}
	deaf, err := h.Watch(Filter{})
	if err != nil {
		t.Fatal(err)
	}
	picky, err := h.Watch(Filter{Bucket: "b"})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * queueMax {
		h.Publish(&Event{})
	}
	h.Publish(&Event{Bucket: "b"})
	if n := deaf.Dropped(); n != 2*queueMax+1 {
		t.Errorf("%d dropped", n)
	}
	if n := deaf.Dropped(); n != 0 {
		t.Errorf("%d told again", n)
	}
	if e := <-picky.Events(); e.Bucket != "b" || picky.Dropped() != 0 {
		t.Errorf("%+v", e)
	}
	deaf.Close()
	deaf.Close()
	<-deaf.Done()
	if !h.Watched() {
		t.Error("one is left")
	}
	picky.Close()
	if h.Watched() {
		t.Error("none is left")
	}
}

func TestHubBoundsAndEnds(t *testing.T) {
	var h Hub
	var all []*Watcher
	for range watchersMax {
		w, err := h.Watch(Filter{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
	if _, err := h.Watch(Filter{}); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	h.Close()
	for _, w := range all {
		<-w.Done()
		w.Close()
	}
	if _, err := h.Watch(Filter{}); !errors.Is(err, ErrClosed) || h.Watched() {
		t.Error(err)
	}
	h.Publish(&Event{})
}

func TestKeysAreCut(t *testing.T) {
	for _, key := range []string{"", "k", strings.Repeat("k", keyBytesMax)} {
		if got := CutKey(key); got != key {
			t.Errorf("%q became %q", key, got)
		}
	}
	for _, key := range []string{strings.Repeat("k", keyBytesMax+1), strings.Repeat("ü", 200), "k" + strings.Repeat("ü", 200), strings.Repeat("\x80", 300)} {
		got := CutKey(key)
		start, ok := strings.CutSuffix(got, "…")
		if !ok || !strings.HasPrefix(key, start) || len(start) > keyBytesMax || len(start) < keyBytesMax-utf8.UTFMax || utf8.ValidString(key) != utf8.ValidString(start) {
			t.Errorf("%q became %q", key, got)
		}
	}
}

func TestEventsTravelAsJSON(t *testing.T) {
	r := wire.NewRecorder("A1")
	r.Begin(wire.Step{Kind: wire.StepCommit, Host: 3, Shard: 0}).End(errors.New("because"))
	r.Begin(wire.Step{Kind: wire.StepWrite, Host: 4, Disk: ashlar.DiskID{5}}).Late()
	e := &Event{Time: time.Unix(1700000000, 0).UTC(), Gateway: "g1", ID: "A1", Took: Duration(1234567 * time.Nanosecond)}
	e.Record(r)
	b, err := json.Marshal(e.Named(func(s *wire.Step) (string, string) {
		if s.Kind == wire.StepCommit {
			return "b1", ""
		}
		return "c1", "c1/d02"
	}))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"ms":1.235`, `"what":"commit","host":"b1","shard":0,"calls":1,"failed":1,"reason":"because"`, `"what":"write","host":"c1","disk":"c1/d02","calls":1,"late":1`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
	var back Event
	if err := json.Unmarshal(b, &back); err != nil || back.ID != "A1" || back.Took != Duration(1235*time.Microsecond) || len(back.Steps) != 2 || *back.Steps[0].Shard != 0 {
		t.Errorf("%v, %+v", err, back)
	}
	if len(e.Steps) != 0 {
		t.Error("naming changed what others read")
	}
	before := &Event{}
	if before.Record(nil); e.StepsUnknown || !before.StepsUnknown {
		t.Error("steps that were not recorded pass for none")
	}
}
