package health_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ashlar/diskmgr/health"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts print into them")

// TestScripts runs the stories in testdata. A script is a list of commands, each
// followed by what it printed on lines that start with a tab:
//
//	disk [baseline=D]                         a new disk with default limits
//	read|write|flush TOOK [OUTCOME] [at=OFF] [bytes=N] [times=N]   I/O, one after the other
//	begin read|write|flush                    an I/O that does not end yet
//	wait D                                    time passes, nobody looks
//	tick [D] [peer=D]                         wait D, then tick
//	window OP TOOK [peer=D] [times=N]         N × (20 I/Os, then a tick a window later)
//	fence WHY
//
// A line that starts with # is a comment. Every command prints the state if it
// changed, or "same".
func TestScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			script, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := run(t, string(script))
			if *rewrite {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(script) {
				t.Errorf("got:\n%s\nwant:\n%s", got, script)
			}
		})
	}
}

type story struct {
	t    *testing.T
	now  time.Time
	m    *health.Machine
	last string
}

func run(t *testing.T, script string) string {
	s := &story{t: t, now: time.Unix(1000, 0)}
	var out strings.Builder
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "\t") {
			continue // what it printed last time
		}
		out.WriteString(line)
		if f := strings.Fields(line); len(f) > 0 && f[0] != "#" {
			fmt.Fprintf(&out, "\t%s\n", s.command(f[0], f[1:]))
		}
	}
	return out.String()
}

func (s *story) command(verb string, words []string) string {
	named := map[string]string{}
	var plain []string
	for _, w := range words {
		if key, value, ok := strings.Cut(w, "="); ok {
			named[key] = value
		} else {
			plain = append(plain, w)
		}
	}
	peers := health.Latency{}
	if p, ok := named["peer"]; ok {
		peers = health.Latency{s.duration(p), s.duration(p), s.duration(p)}
	}
	switch verb {
	case "disk":
		base := s.duration(named["baseline"])
		s.m = health.New(health.DefaultLimits(), health.Latency{base, base, base}, s.now)
		s.last = ""
	case "read", "write", "flush":
		for i := range s.number(named["times"], 1) {
			off := int64(i) * 4096
			if at, ok := named["at"]; ok {
				off = int64(s.number(at, 0))
			}
			s.io(opOf(verb), s.duration(plain[0]), off, int(s.number(named["bytes"], 4096)), outcomeOf(plain[1:]))
		}
	case "begin":
		s.m.Begin(opOf(plain[0]), s.now)
	case "wait":
		s.now = s.now.Add(s.duration(plain[0]))
	case "tick":
		if len(plain) > 0 {
			s.now = s.now.Add(s.duration(plain[0]))
		}
		s.m.Tick(s.now, peers)
	case "window":
		for range s.number(named["times"], 1) {
			for range 20 {
				s.io(opOf(plain[0]), s.duration(plain[1]), 0, 4096, health.OK)
			}
			s.now = s.now.Add(10 * time.Second)
			s.m.Tick(s.now, peers)
		}
	case "fence":
		s.m.Fence(strings.Join(plain, " "), s.now)
	default:
		s.t.Fatalf("unknown command %q", verb)
	}
	return s.state()
}

func (s *story) io(op health.Op, took time.Duration, off int64, bytes int, outcome health.Outcome) {
	ticket := s.m.Begin(op, s.now)
	s.now = s.now.Add(took)
	s.m.End(ticket, off, bytes, outcome, s.now)
}

func (s *story) state() string {
	state, why, _ := s.m.State()
	text := state.String()
	if why != "" {
		text += ": " + why
	}
	if text == s.last {
		return "same"
	}
	s.last = text
	return text
}

func opOf(word string) health.Op {
	return map[string]health.Op{"read": health.Read, "write": health.Write, "flush": health.Flush}[word]
}

func outcomeOf(words []string) health.Outcome {
	if len(words) == 0 {
		return health.OK
	}
	return map[string]health.Outcome{"eio": health.Error, "gone": health.Gone, "readonly": health.ReadOnly, "full": health.Ignored}[words[0]]
}

func (s *story) duration(word string) time.Duration {
	if word == "" {
		return 0
	}
	d, err := time.ParseDuration(word)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *story) number(word string, otherwise int) int {
	if word == "" {
		return otherwise
	}
	n, err := strconv.Atoi(word)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// TestAStateOnlyWorsens feeds every event to every state: Fenced never becomes
// better, and Failed never anything else.
func TestAStateOnlyWorsens(t *testing.T) {
	reach := map[health.State]func(*health.Machine, time.Time){
		health.Good:    func(*health.Machine, time.Time) {},
		health.Suspect: func(m *health.Machine, now time.Time) { fail(m, health.Read, health.Error, 16, now) },
		health.Fenced:  func(m *health.Machine, now time.Time) { fail(m, health.Flush, health.Error, 1, now) },
		health.Failed:  func(m *health.Machine, now time.Time) { fail(m, health.Read, health.Gone, 1, now) },
	}
	for from, prepare := range reach {
		for op := health.Read; op <= health.Flush; op++ {
			for outcome := health.OK; outcome <= health.Ignored; outcome++ {
				now := time.Unix(1000, 0)
				m := health.New(health.DefaultLimits(), health.Latency{}, now)
				prepare(m, now)
				if got, why, _ := m.State(); got != from {
					t.Fatalf("prepared %v, got %v: %s", from, got, why)
				}
				fail(m, op, outcome, 1, now)
				m.Tick(now.Add(time.Hour), health.Latency{})
				if got, _, _ := m.State(); got < from && from >= health.Fenced {
					t.Errorf("%v became %v after a %v that ended %d", from, got, op, outcome)
				}
			}
		}
	}
}

// fail ends n I/Os; between the reads stands a success, so that only their
// number counts.
func fail(m *health.Machine, op health.Op, outcome health.Outcome, n int, now time.Time) {
	for i := range n {
		m.End(m.Begin(op, now), int64(i)*4096, 4096, outcome, now)
		if n > 1 {
			m.End(m.Begin(health.Read, now), 0, 4096, health.OK, now)
		}
	}
}

func TestQuantilesAreNearTheTruth(t *testing.T) {
	now := time.Unix(1000, 0)
	m := health.New(health.DefaultLimits(), health.Latency{}, now)
	for i := range 1000 {
		m.End(m.Begin(health.Read, now), 0, 1, health.OK, now.Add(time.Duration(i+1)*time.Millisecond))
	}
	c := m.Counters()
	for name, v := range map[string][2]time.Duration{
		"p50": {c.P50[health.Read], 500 * time.Millisecond}, "p99": {c.P99[health.Read], 990 * time.Millisecond},
	} {
		if got, truth := v[0], v[1]; got < truth || got > truth*5/4+time.Microsecond {
			t.Errorf("%s is %v, the truth is %v", name, got, truth)
		}
	}
	if c.Ops[health.Read] != 1000 || c.Bytes[health.Read] != 1000 || c.InFlight != 0 {
		t.Errorf("%+v", c)
	}
}
