package report

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// ErrSetupsDiffer is returned by Compare for reports whose setups are not the
// same, unless the caller insists.
var ErrSetupsDiffer = errors.New("the setups differ")

// metric is one line of a comparison.
type metric struct {
	name   string
	of     func(*Round) float64
	larger bool // larger is better
}

var metrics = []metric{
	{"MB/s", func(r *Round) float64 { return r.BytesPerSecond() / 1e6 }, true},
	{"obj/s", (*Round).OperationsPerSecond, true},
	{"p50 ms", func(r *Round) float64 { return r.Latency.P50 / 1000 }, false},
	{"p99 ms", func(r *Round) float64 { return r.Latency.P99 / 1000 }, false},
	{"p99.9 ms", func(r *Round) float64 { return r.Latency.P999 / 1000 }, false},
	{"server µs/op", (*Round).ServerMicrosPerOperation, false},
	{"server s/GB", (*Round).ServerSecondsPerGB, false},
}

// Compare prints before against after, metric by metric: the medians of the
// rounds, the change, the noise that the repeats show, and a verdict. A change
// counts only beyond the noise; without repeats there is no verdict. Reports of
// different setups are refused with ErrSetupsDiffer unless anyway is set.
func Compare(w io.Writer, before, after *Report, anyway bool) error {
	if before.Setup != after.Setup && !anyway {
		return fmt.Errorf("%w: %s", ErrSetupsDiffer, difference(before.Setup, after.Setup))
	}
	if len(before.Rounds) == 0 || len(after.Rounds) == 0 {
		return errors.New("a report without a measured round cannot be compared")
	}
	fmt.Fprintf(w, "%-14s %10s %10s %9s %18s   %s\n", "", "before", "after", "change", "run-to-run noise", "verdict")
	for _, m := range metrics {
		left, right := before.median(m.of), after.median(m.of)
		if left == 0 || right == 0 {
			continue
		}
		change := (right - left) / left * 100
		noise := max(spread(before.each(m.of)), spread(after.each(m.of)))
		fmt.Fprintf(w, "%-14s %10.4g %10.4g %+8.1f%% %18s   %s\n", m.name, left, right, change, noiseText(noise), m.verdict(change, noise))
	}
	if e := before.Errors() + after.Errors(); e > 0 {
		fmt.Fprintf(w, "errors: %d before, %d after\n", before.Errors(), after.Errors())
	}
	fmt.Fprintf(w, "setup: %s\n", setupText(before, after))
	return nil
}

func (m metric) verdict(change, noise float64) string {
	switch {
	case math.IsNaN(noise):
		return "unknown: run both with --repeat 3 or more"
	case math.Abs(change) <= noise:
		return "same"
	case change > 0 == m.larger:
		return "better"
	}
	return "worse"
}

// spread is half the range of the rounds in percent of their middle, NaN for
// fewer than two rounds: one round says nothing about noise.
func spread(all []float64) float64 {
	if len(all) < 2 {
		return math.NaN()
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range all {
		low, high = min(low, v), max(high, v)
	}
	return (high - low) / (high + low) * 100
}

func noiseText(noise float64) string {
	if math.IsNaN(noise) {
		return "not measured"
	}
	return fmt.Sprintf("±%.1f%%", noise)
}

func setupText(before, after *Report) string {
	if before.Setup != after.Setup {
		return "DIFFERENT, " + difference(before.Setup, after.Setup)
	}
	if before.Server != after.Server {
		return fmt.Sprintf("identical except %s → %s", before.Server, after.Server)
	}
	return "identical"
}
