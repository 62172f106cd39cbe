package wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"ashlar"
)

func TestRecorderCountsCalls(t *testing.T) {
	r := NewRecorder("R")
	write := func(host ashlar.HostID) *Call {
		return r.Begin(Step{Kind: StepWrite, Host: host, Disk: ashlar.DiskID{byte(host)}})
	}
	write(1).End(nil)
	write(1).End(nil)
	failed := write(1)
	failed.End(errors.New("because"))
	failed.Late() // only the first end counts
	write(2).Late()
	write(3).Forget()
	write(4)
	r.Begin(Step{Kind: StepCommit, Host: 4, Shard: 7}).End(fmt.Errorf("x: %w", context.DeadlineExceeded))
	r.Begin(Step{Kind: StepGet, Host: 4, Shard: 7}).End(&NotLeader{Shard: 7, Hint: 9})
	late := write(5)
	steps, leftOut := r.Finish()
	late.End(nil)
	if more, _ := r.Finish(); more != nil || r.Begin(Step{}) != nil {
		t.Errorf("recorded after the end: %+v", more)
	}
	got := map[string]string{}
	for _, s := range steps {
		if s.Longest < 0 || s.Total < s.Longest {
			t.Errorf("times of %+v", s)
		}
		got[fmt.Sprint(s.Kind, s.Host)] = fmt.Sprint(s.Disk[0], s.Shard, s.Calls, s.Late, s.Failed, s.Reason)
	}
	want := map[string]string{
		"5 1": "1 0 3 0 1because", "5 2": "2 0 1 1 0", "5 4": "4 0 1 1 0", "5 5": "5 0 1 1 0",
		"2 4": "0 7 1 0 1timed out", "0 4": "0 7 1 0 1shard 7 is led by host 9",
	}
	if !reflect.DeepEqual(got, want) || leftOut != 0 {
		t.Errorf("got  %v and %d left out\nwant %v", got, leftOut, want)
	}
	for i, s := range steps { // failures first
		if (s.Failed > 0) != (i < 3) {
			t.Errorf("step %d is %+v", i, s)
		}
	}
}

func TestRecorderKeepsWhatSaysMost(t *testing.T) {
	r := NewRecorder("R")
	for i := range 3 * stepsMax {
		s := Step{Kind: StepRead, Host: ashlar.HostID(i), Calls: 1, Longest: time.Duration(i%7) * time.Millisecond}
		if i == 1 {
			s.Failed = 1
		}
		if i == 2*stepsMax {
			s.Longest = time.Hour
		}
		r.add([]Step{s})
	}
	steps, leftOut := r.Finish()
	if len(steps) != stepsMax || leftOut != 2*stepsMax || steps[0].Host != 1 || steps[1].Host != 2*stepsMax {
		t.Errorf("%d steps, %d left out, first %+v", len(steps), leftOut, steps[:2])
	}
}

func TestNobodyWatches(t *testing.T) {
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		tell := RecorderOf(ctx).Begin(Step{Kind: StepGet, Host: 1})
		tell.Late()
		tell.Forget()
		tell.End(nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if steps, n := (*Recorder)(nil).Finish(); steps != nil || n != 0 {
		t.Error(steps, n)
	}
}

func TestStepsTravel(t *testing.T) {
	want := []Step{
		{Kind: StepWrite, Host: 1 << 30, Disk: ashlar.DiskID{1, 15: 9}, Calls: 3, Late: 1, Failed: 1, Longest: 3 * time.Hour, Total: 5 * time.Hour, Reason: strings.Repeat("ü", 50)},
		{Kind: StepCommit, Shard: 77, Calls: 1, Longest: 1, Total: 1},
	}
	from, to := NewRecorder("R"), NewRecorder("R")
	from.add(want)
	h := http.Header{}
	from.tell(h, traceHeader)
	to.hear(h)
	if got, _ := to.Finish(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	good := h.Get(traceHeader)
	for _, bad := range []string{"", "?", good[:len(good)-4], good + good, "AQ==", "/////w8="} {
		r := NewRecorder("R")
		r.hear(http.Header{traceHeader: {bad}})
		if steps, _ := r.Finish(); len(steps) != 0 {
			t.Errorf("%q was taken for %+v", bad, steps)
		}
	}
}
