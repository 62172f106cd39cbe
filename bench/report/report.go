// Package report is what a benchmark leaves behind: its whole setup, its
// figures, and the comparison of two of them.
//
// A Report is saved as one JSON document, so that a run can be judged, repeated
// and compared later. The rules (ux.md §5.4 in short): warm-up is left out and
// said; every run stores its setup and its raw one-second windows; two runs
// with different setups are not compared unless asked; noise is what repeated
// rounds of the same run show, never a guess.
//
// Units: MB and GB are 10⁶ and 10⁹ bytes, MiB and GiB are 2²⁰ and 2³⁰.
// Durations are stored in microseconds, as the name of the field says.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"ashlar/bench/measure"
)

// FormatVersion is written into every saved report; Load refuses others.
const FormatVersion = 1

// Setup is everything that must be equal for two reports to be comparable,
// and what says where the figures come from.
type Setup struct {
	Operation     string        `json:"operation"`
	ObjectBytes   int64         `json:"object_bytes"`
	Objects       int           `json:"objects,omitempty"` // size of the set that is read
	Concurrent    int           `json:"concurrent"`
	Duration      time.Duration `json:"duration_ns,omitempty"`
	Count         int           `json:"count,omitempty"`
	Warmup        time.Duration `json:"warmup_ns"`
	Repeats       int           `json:"repeats"`
	SignedPayload bool          `json:"signed_payload"`
	Verify        bool          `json:"verify"`
	TLS           bool          `json:"tls"`
	Endpoints     int           `json:"endpoints"`
	CPUs          int           `json:"client_cpus"`
	Machine       string        `json:"machine"` // model of the CPU and kernel of the client
}

// Latency is in microseconds, of operations that succeeded.
type Latency struct {
	P50  float64 `json:"p50_us"`
	P90  float64 `json:"p90_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us"`
	Max  float64 `json:"max_us"`
	Mean float64 `json:"mean_us"`
}

// LatencyOf reads the percentiles off a histogram.
func LatencyOf(h *measure.Histogram) Latency {
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return Latency{
		P50: us(h.Quantile(0.5)), P90: us(h.Quantile(0.9)), P99: us(h.Quantile(0.99)),
		P999: us(h.Quantile(0.999)), Max: us(h.Max()), Mean: us(h.Mean()),
	}
}

// Round is one measured stretch of a run.
type Round struct {
	Seconds       float64 `json:"seconds"`
	Bytes         float64 `json:"bytes"`
	Operations    float64 `json:"operations"`
	Errors        int     `json:"errors"`
	VerifiedBytes int64   `json:"verified_bytes"`
	Latency       Latency `json:"latency"`
	// Windows are the raw one-second windows; the last may be shorter.
	Windows []measure.Window `json:"windows"`
	// Slowest, Median and Fastest are bytes a second among the whole windows.
	Slowest float64 `json:"slowest_bytes_per_second"`
	Median  float64 `json:"median_bytes_per_second"`
	Fastest float64 `json:"fastest_bytes_per_second"`
	// ServerCPU is zero where no server process was named.
	ServerCPU      float64 `json:"server_cpu_seconds,omitempty"`
	ServerResident int64   `json:"server_resident_bytes,omitempty"`
	ClientCPU      float64 `json:"client_cpu_seconds"`
}

// BytesPerSecond is the throughput of the round.
func (r *Round) BytesPerSecond() float64 { return r.Bytes / max(r.Seconds, 1e-9) }

// OperationsPerSecond is the rate of the round.
func (r *Round) OperationsPerSecond() float64 { return r.Operations / max(r.Seconds, 1e-9) }

// ServerMicrosPerOperation is the server's CPU cost of one operation in µs.
func (r *Round) ServerMicrosPerOperation() float64 {
	return r.ServerCPU * 1e6 / max(r.Operations, 1e-9)
}

// ServerSecondsPerGB is the server's CPU cost of 10⁹ bytes in seconds.
func (r *Round) ServerSecondsPerGB() float64 { return r.ServerCPU * 1e9 / max(r.Bytes, 1e-9) }

// Report is one run.
type Report struct {
	Format  int       `json:"format"`
	Label   string    `json:"label,omitempty"`
	Server  string    `json:"server,omitempty"` // as the server names itself
	Started time.Time `json:"started"`
	Setup   Setup     `json:"setup"`
	// Rounds holds Setup.Repeats measured rounds, fewer if the run was interrupted.
	Rounds []Round `json:"rounds"`
	// ErrorSamples are the first few errors, in words.
	ErrorSamples []string `json:"error_samples,omitempty"`
	// ReadBack counts the objects that were read and compared after a put run.
	ReadBack int `json:"read_back,omitempty"`
	// Leftover says why bench objects are still there; empty if all were removed.
	Leftover string `json:"leftover,omitempty"`
	// Interrupted: the run was stopped before its rounds were complete.
	Interrupted bool `json:"interrupted,omitempty"`
}

// Errors counts the failed operations of all rounds.
func (r *Report) Errors() (n int) {
	for i := range r.Rounds {
		n += r.Rounds[i].Errors
	}
	return n
}

// median returns the middle of what f gives over the rounds.
func (r *Report) median(f func(*Round) float64) float64 {
	all := r.each(f)
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

func (r *Report) each(f func(*Round) float64) (all []float64) {
	for i := range r.Rounds {
		all = append(all, f(&r.Rounds[i]))
	}
	return all
}

// Save writes the report as indented JSON; an existing file is replaced.
func (r *Report) Save(path string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("report: encode: %w", err)
	}
	if err := os.WriteFile(path, append(raw, '\n'), 0o644); err != nil {
		return fmt.Errorf("report: save: %w", err)
	}
	return nil
}

// Load reads a saved report and refuses a format that it does not know.
func Load(path string) (*Report, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("report: load: %w", err)
	}
	var r Report
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("report: load %s: %w", path, err)
	}
	if r.Format != FormatVersion {
		return nil, fmt.Errorf("report: load %s: format %d, this program knows %d", path, r.Format, FormatVersion)
	}
	return &r, nil
}
