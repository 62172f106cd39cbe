package measure

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
)

func TestHistogramQuantilesAgainstSorted(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	var parts [3]Histogram
	for i := range 20_000 {
		d := time.Duration(rng.ExpFloat64() * float64(time.Millisecond))
		if i%100 == 0 {
			d *= 1000
		}
		all = append(all, d)
		parts[i%3].Add(d)
	}
	var h Histogram
	for i := range parts {
		h.Merge(&parts[i])
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.001, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[max(0, int(q*float64(len(all))+0.999999)-1)]
		got := h.Quantile(q)
		if off := float64(got-want) / float64(max(want, 1)); off > 0.008 || off < -0.008 {
			t.Errorf("q=%v: got %v, want %v", q, got, want)
		}
	}
	if h.Max() != all[len(all)-1] || h.Count() != uint64(len(all)) {
		t.Errorf("max %v count %d", h.Max(), h.Count())
	}
}

func TestHistogramBucketsAreContiguous(t *testing.T) {
	last := -1
	for v := uint64(0); v < 1<<20; v++ {
		b := bucketOf(v)
		if b != last && b != last+1 {
			t.Fatalf("value %d: bucket %d after %d", v, b, last)
		}
		last = b
	}
	if b := bucketOf(1<<63 + 5); b != bucketCount-1 {
		t.Errorf("huge value in bucket %d, want the last (%d)", b, bucketCount-1)
	}
	if b := bucketOf(1<<exponentMax - 1); b >= bucketCount {
		t.Errorf("bucket %d out of range", b)
	}
	var empty Histogram
	if empty.Quantile(0.5) != 0 || empty.Mean() != 0 {
		t.Error("empty histogram must answer zero")
	}
}

func TestTimelineCountsOnlyWhatWasMeasured(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	line := Timeline{Start: start, End: at(3)}
	line.Add(at(-1), at(1), 200)    // half of it was warm-up
	line.Add(at(0.5), at(2.5), 400) // 100 200 100
	line.Add(at(2.5), at(4.5), 400) // a quarter of it before the end
	line.Add(at(-3), at(-2), 1<<40) // all of it warm-up
	line.Add(at(3.5), at(4), 1<<40) // all of it late
	want := []float64{200, 200, 200}
	if len(line.Windows) != 3 {
		t.Fatalf("%d windows, want 3", len(line.Windows))
	}
	for i, w := range line.Windows {
		if w.Bytes != want[i] {
			t.Errorf("window %d: %v bytes, want %v", i, w.Bytes, want[i])
		}
	}
	if total := line.Total(); total.Bytes != 600 || total.Operations != 1.75 {
		t.Errorf("total %+v, want 600 bytes, 1.75 operations", total)
	}
	other := Timeline{Start: start, Windows: []Window{{}, {}, {}, {}, {Bytes: 900}}}
	line.Merge(&other)
	slowest, median, fastest := line.Spread(5 * time.Second)
	if slowest.Bytes != 0 || median.Bytes != 200 || fastest.Bytes != 900 {
		t.Errorf("spread %v %v %v", slowest, median, fastest)
	}
}

func TestProcessUsage(t *testing.T) {
	u, err := parseStat([]byte("42 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 7 1000 3 18446744073709551615"))
	if err != nil || u.CPU != 2*time.Second || u.ResidentBytes != 3*int64(os.Getpagesize()) {
		t.Errorf("got %+v, %v; want 2 s and 3 pages", u, err)
	}
	if _, err := parseStat([]byte("42 (x) S 1")); err == nil {
		t.Error("a short stat must be refused")
	}
	if _, err := ProcessesUsage([]int{os.Getpid(), 1 << 30}); err == nil {
		t.Error("a process that does not exist must be an error")
	}
	own, err := ProcessUsage(os.Getpid())
	if err != nil || own.ResidentBytes == 0 {
		t.Errorf("own process: %+v, %v", own, err)
	}
}
