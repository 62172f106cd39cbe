package report

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"ashlar/bench/measure"
)

func sample(rates ...float64) *Report {
	r := &Report{Format: FormatVersion, Server: "ashlar 0.1.0", Started: time.Unix(1700000000, 0).UTC(),
		Setup: Setup{Operation: "get", ObjectBytes: 4 << 20, Objects: 256, Concurrent: 64, Duration: 10 * time.Second,
			Warmup: 2 * time.Second, Repeats: len(rates), Verify: true, Endpoints: 1}}
	for _, rate := range rates {
		r.Rounds = append(r.Rounds, Round{Seconds: 10, Bytes: rate * 10, Operations: rate * 10 / (4 << 20),
			Latency: Latency{P50: 24100, P90: 38000, P99: 71600, P999: 140000, Max: 212000},
			Slowest: rate * 0.9, Median: rate, Fastest: rate * 1.1, VerifiedBytes: int64(rate) * 10,
			ServerCPU: 4, ServerResident: 200 << 20, ClientCPU: 1, Windows: []measure.Window{{Bytes: rate, Operations: 2}}})
	}
	return r
}

func TestPrintIsTheStoryboard(t *testing.T) {
	var b strings.Builder
	sample(9.62e9).Print(&b)
	want := `GET 4 MiB · 64 in flight · 10s after 2s warm-up · 256 objects (1 GiB) · ashlar 0.1.0
  throughput   9.62 GB/s   2 294 obj/s   errors 0
  1 s windows  slowest 8.658, median 9.62, fastest 10.58 GB/s
  latency ms   p50 24.1   p90 38   p99 71.6   p99.9 140   max 212
  server cpu   4.00 s = 0.0416 s/GB, 174.4 µs/op   memory 200 MiB
  client cpu   1.00 s = 0.0104 s/GB, 43.6 µs/op
  verified     89.6 GiB, every byte
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestSaveLoadKeepsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.json")
	r := sample(1e9, 2e9)
	r.ErrorSamples = []string{"one"}
	if err := r.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, %v", got, err)
	}
	raw, _ := os.ReadFile(path)
	os.WriteFile(path, []byte(strings.Replace(string(raw), `"format": 1`, `"format": 99`, 1)), 0o644)
	if _, err := Load(path); err == nil {
		t.Error("an unknown format must be refused")
	}
}

func TestCompareVerdicts(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after *Report
		want          string
	}{
		{"within the noise", sample(1.00e9, 1.04e9, 1.02e9), sample(1.01e9, 1.05e9, 1.03e9), "same"},
		{"beyond the noise", sample(1.00e9, 1.01e9), sample(1.50e9, 1.51e9), "better"},
		{"slower", sample(1.00e9, 1.01e9), sample(0.50e9, 0.51e9), "worse"},
		{"no repeats", sample(1e9), sample(2e9), "unknown"},
	} {
		var b strings.Builder
		if err := Compare(&b, c.before, c.after, false); err != nil {
			t.Fatal(err)
		}
		line, _, _ := strings.Cut(b.String()[strings.Index(b.String(), "MB/s"):], "\n")
		if !strings.Contains(line, c.want) {
			t.Errorf("%s: %q does not say %q", c.name, line, c.want)
		}
	}
}

func TestCompareRefusesDifferentSetups(t *testing.T) {
	other := sample(1e9)
	other.Setup.Concurrent = 8
	var b strings.Builder
	err := Compare(&b, sample(1e9), other, false)
	if !errors.Is(err, ErrSetupsDiffer) || !strings.Contains(err.Error(), "Concurrent 64 → 8") || b.Len() > 0 {
		t.Errorf("got %v and %q", err, b.String())
	}
	if err := Compare(&b, sample(1e9), other, true); err != nil || !strings.Contains(b.String(), "DIFFERENT") {
		t.Errorf("anyway: %v, %q", err, b.String())
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1: "1 B", 1023: "1023 B", 4096: "4 KiB", 1536 << 10: "1.5 MiB", 2 << 30: "2 GiB"} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %q, want %q", n, got, want)
		}
	}
}
