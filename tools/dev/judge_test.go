package dev

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A judge knows what may be read under one key that one client owns.
//
// The rule: a write that was acknowledged replaces everything before it. One
// that was not answered, or answered with an error, may have happened or may
// still happen, until the next acknowledged write of the key. A read settles
// what it saw: everything older is gone for ever, and so are unanswered writes
// that had settleTime to happen and were not seen.
type judge struct {
	key     string
	allowed []claim
	history []string // the newest historyMax events
	began   time.Time
}

// claim is a value that may be read. Seq is the number of the write, absent
// for none.
type claim struct {
	seq     int
	open    bool // not answered
	openAt  time.Time
	settled bool // acknowledged or read
}

const (
	absent     = 0
	settleTime = 15 * time.Second
	historyMax = 40
)

func newJudge(key string, began time.Time) *judge {
	return &judge{key: key, began: began, allowed: []claim{{seq: absent, settled: true}}}
}

func (j *judge) note(at time.Time, format string, args ...any) {
	if len(j.history) == historyMax {
		j.history = slices.Delete(j.history, 0, 1)
	}
	j.history = append(j.history, fmt.Sprintf("%8.3f s  ", at.Sub(j.began).Seconds())+fmt.Sprintf(format, args...))
}

// acknowledged says that write seq, or a delete (absent), was answered with success.
func (j *judge) acknowledged(what string, seq int, at time.Time) {
	j.note(at, "%s %d acknowledged", what, seq)
	j.allowed = []claim{{seq: seq, settled: true}}
}

// unanswered says that write seq or a delete failed or was not answered.
func (j *judge) unanswered(what string, seq int, at time.Time, err error) {
	j.note(at, "%s %d not acknowledged: %v", what, seq, err)
	j.allowed = append(j.allowed, claim{seq: seq, open: true, openAt: at})
}

// allows reports whether seq may be there now.
func (j *judge) allows(seq int) bool {
	return slices.ContainsFunc(j.allowed, func(c claim) bool { return c.seq == seq })
}

// read judges what a read saw that began at the given time.
func (j *judge) read(seq int, at time.Time) *breach {
	if !j.allows(seq) {
		j.note(at, "read %d: BREACH", seq)
		return j.breach(seq)
	}
	j.note(at, "read %d", seq)
	kept := []claim{{seq: seq, settled: true}}
	for _, c := range j.allowed {
		if c.open && c.seq != seq && at.Sub(c.openAt) < settleTime {
			kept = append(kept, c)
		}
	}
	j.allowed = kept
	return nil
}

// only is the one value that can be there once everything has come to rest and
// a read has been judged.
func (j *judge) only() int { return j.allowed[0].seq }

// settle ends the time of all unanswered writes: the next read decides.
func (j *judge) settle() {
	for i := range j.allowed {
		j.allowed[i].openAt = time.Time{}
	}
}

// breach is a broken promise: an object that is gone, or that is not what was written.
type breach struct {
	lost bool
	text string
}

func (b *breach) Error() string { return b.text }

func (j *judge) breach(seq int) *breach {
	var may []string
	for _, c := range j.allowed {
		may = append(may, fmt.Sprint(c.seq))
	}
	b := &breach{lost: seq == absent}
	what := "CHANGED"
	if b.lost {
		what = "LOST"
	}
	b.text = fmt.Sprintf("%s %s: found write %d, allowed %s (%d is absence)\n%s", what, j.key, seq,
		strings.Join(may, " or "), absent, strings.Join(j.history, "\n"))
	return b
}

// TestJudge plants what must be found and what must not.
func TestJudge(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	type step func(*judge) *breach
	ack := func(seq int, s float64) step {
		return func(j *judge) *breach { j.acknowledged("PUT", seq, at(s)); return nil }
	}
	lose := func(seq int, s float64) step {
		return func(j *judge) *breach { j.unanswered("PUT", seq, at(s), nil); return nil }
	}
	see := func(seq int, s float64) step {
		return func(j *judge) *breach { return j.read(seq, at(s)) }
	}
	settle := func(j *judge) *breach { j.settle(); return nil }
	for _, c := range []struct {
		name  string
		steps []step
		bad   string // how the breach begins; empty: none. It must be the last step's.
	}{
		{"what was acknowledged is there", []step{ack(1, 0), see(1, 1), ack(2, 2), see(2, 3)}, ""},
		{"an acknowledged object is gone", []step{ack(1, 0), see(absent, 1)}, "LOST"},
		{"an acknowledged overwrite is gone", []step{ack(1, 0), ack(2, 1), see(1, 2)}, "CHANGED"},
		{"a deleted object is back", []step{ack(1, 0), ack(absent, 1), see(1, 2)}, "CHANGED"},
		{"an unanswered overwrite is there or not", []step{ack(1, 0), lose(2, 1), see(1, 2), see(2, 3), see(2, 4)}, ""},
		{"an unanswered overwrite does not go again", []step{ack(1, 0), lose(2, 1), see(2, 2), see(1, 3)}, "CHANGED"},
		{"an unanswered overwrite deletes nothing", []step{ack(1, 0), lose(2, 1), see(absent, 2)}, "LOST"},
		{"an unanswered delete happens or not", []step{ack(1, 0), lose(absent, 1), see(1, 2), see(absent, 3)}, ""},
		{"an unanswered write comes back after an acknowledged one", []step{lose(1, 0), ack(2, 1), see(1, 2)}, "CHANGED"},
		{"a late surprise", []step{ack(1, 0), lose(2, 1), see(1, 17), see(2, 18)}, "CHANGED"},
		{"two unanswered writes", []step{lose(1, 0), lose(2, 0), see(2, 1), see(1, 2), see(1, 3)}, ""},
		{"at rest only one of two answers", []step{ack(1, 0), lose(2, 1), settle, see(2, 2), see(1, 3)}, "CHANGED"},
		{"at rest only the other of two answers", []step{ack(1, 0), lose(2, 1), settle, see(1, 2), see(2, 3)}, "CHANGED"},
		{"never written", []step{see(1, 0)}, "CHANGED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := newJudge("k", start)
			for i, s := range c.steps {
				b := s(j)
				switch last := i == len(c.steps)-1; {
				case b == nil && (!last || c.bad == ""):
				case b == nil:
					t.Fatalf("not found: %s", c.bad)
				case !last || c.bad == "" || !strings.HasPrefix(b.text, c.bad):
					t.Fatalf("step %d: %v", i, b)
				}
			}
		})
	}
}
