package measure

import (
	"slices"
	"time"
)

// Window is one second of a measurement. Operations are fractions where an
// operation lay in more than one window.
type Window struct {
	Bytes      float64 `json:"bytes"`
	Operations float64 `json:"operations"`
}

// Timeline spreads operations over one-second windows from Start on. Work that
// lies before Start or after the end is left out, so that warm-up and the
// operations that were cut by the end count for exactly the part that was
// measured. It is not safe for concurrent use.
type Timeline struct {
	Start, End time.Time // End may be zero: open
	Windows    []Window
}

// windowsMax bounds a timeline: a day.
const windowsMax = 24 * 60 * 60

// Add spreads one operation that moved bytes evenly over [from, to].
func (t *Timeline) Add(from, to time.Time, bytes int64) {
	left, right := from.Sub(t.Start), to.Sub(t.Start)
	span := float64(max(right-left, 1))
	if !t.End.IsZero() {
		right = min(right, t.End.Sub(t.Start))
	}
	for left = max(left, 0); left < right; {
		n := int(left / time.Second)
		if n >= windowsMax {
			return
		}
		for len(t.Windows) <= n {
			t.Windows = append(t.Windows, Window{})
		}
		until := min(right, time.Duration(n+1)*time.Second)
		share := float64(until-left) / span
		t.Windows[n].Bytes += share * float64(bytes)
		t.Windows[n].Operations += share
		left = until
	}
}

// Merge adds other's windows to t's; both must have the same Start.
func (t *Timeline) Merge(other *Timeline) {
	for len(t.Windows) < len(other.Windows) {
		t.Windows = append(t.Windows, Window{})
	}
	for i, w := range other.Windows {
		t.Windows[i].Bytes += w.Bytes
		t.Windows[i].Operations += w.Operations
	}
}

// Total sums all windows.
func (t *Timeline) Total() (sum Window) {
	for _, w := range t.Windows {
		sum.Bytes += w.Bytes
		sum.Operations += w.Operations
	}
	return sum
}

// Spread returns the bytes a second of the slowest, the median and the fastest
// among the whole windows of a measurement that lasted for length: a last
// window of less than a second is left out, a second in which nothing moved is not.
func (t *Timeline) Spread(length time.Duration) (slowest, median, fastest Window) {
	whole := int(length / time.Second)
	if whole == 0 {
		return
	}
	windows := slices.Clone(t.Windows)
	for len(windows) < whole {
		windows = append(windows, Window{})
	}
	windows = windows[:whole]
	slices.SortFunc(windows, func(a, b Window) int {
		if a.Bytes != b.Bytes {
			return compare(a.Bytes, b.Bytes)
		}
		return compare(a.Operations, b.Operations)
	})
	return windows[0], windows[whole/2], windows[whole-1]
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
