package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"ashlar"
)

// Print writes the report for people: setup, throughput, latency, cost, errors.
func (r *Report) Print(w io.Writer) {
	s := r.Setup
	fmt.Fprintf(w, "%s %s · %d in flight · %s after %s warm-up", strings.ToUpper(s.Operation), Size(s.ObjectBytes), s.Concurrent, s.length(), s.warmup())
	if s.Objects > 0 {
		fmt.Fprintf(w, " · %d objects (%s)", s.Objects, Size(int64(s.Objects)*s.ObjectBytes))
	}
	if s.SignedPayload {
		fmt.Fprint(w, " · signed payload")
	}
	if r.Server != "" {
		fmt.Fprintf(w, " · %s", r.Server)
	}
	fmt.Fprintln(w)
	for i := range r.Rounds {
		r.Rounds[i].print(w, s, i, len(r.Rounds))
	}
	r.printTroubles(w)
}

func (d *Round) print(w io.Writer, s Setup, number, of int) {
	title := ""
	if of > 1 {
		title = fmt.Sprintf("round %d of %d: ", number+1, of)
	}
	unit, name := rateUnit(d.BytesPerSecond())
	fmt.Fprintf(w, "  %sthroughput   %.4g %s   %s obj/s   errors %d\n", title, d.BytesPerSecond()/unit, name, thousands(d.OperationsPerSecond()), d.Errors)
	if d.Seconds >= 2 {
		fmt.Fprintf(w, "  1 s windows  slowest %.4g, median %.4g, fastest %.4g %s\n", d.Slowest/unit, d.Median/unit, d.Fastest/unit, name)
	}
	l := d.Latency
	fmt.Fprintf(w, "  latency ms   p50 %s   p90 %s   p99 %s   p99.9 %s   max %s\n", millis(l.P50), millis(l.P90), millis(l.P99), millis(l.P999), millis(l.Max))
	if d.ServerCPU > 0 {
		fmt.Fprintf(w, "  server cpu   %.2f s = %.3g s/GB, %.4g µs/op   memory %s\n", d.ServerCPU, d.ServerSecondsPerGB(), d.ServerMicrosPerOperation(), Size(d.ServerResident))
	}
	fmt.Fprintf(w, "  client cpu   %.2f s = %.3g s/GB, %.4g µs/op\n", d.ClientCPU, d.ClientCPU*1e9/max(d.Bytes, 1), d.ClientCPU*1e6/max(d.Operations, 1))
	if s.Verify && s.Operation == "get" {
		fmt.Fprintf(w, "  verified     %s, every byte\n", Size(d.VerifiedBytes))
	}
}

func (r *Report) printTroubles(w io.Writer) {
	if r.Setup.Verify && r.Setup.Operation == "put" && !r.Interrupted {
		fmt.Fprintf(w, "  verified     %d of the objects read back, every byte\n", r.ReadBack)
	}
	for _, e := range r.ErrorSamples {
		fmt.Fprintf(w, "  error        %s\n", e)
	}
	if r.Interrupted {
		fmt.Fprintln(w, "  interrupted: the figures are of the part that ran")
	}
	if r.Leftover != "" {
		fmt.Fprintf(w, "  not removed: %s\n", r.Leftover)
	}
}

func (s Setup) length() string {
	text := s.Duration.String()
	if s.Count > 0 {
		text = fmt.Sprintf("%d operations", s.Count)
	}
	if s.Repeats > 1 {
		text = fmt.Sprintf("%d × %s", s.Repeats, text)
	}
	return text
}

func (s Setup) warmup() string {
	if s.Warmup == 0 {
		return "no"
	}
	return s.Warmup.Round(time.Millisecond).String()
}

// Size prints bytes in the largest binary unit that leaves at most one digit
// after the point: 4 KiB, 1.5 MiB, 0 B.
func Size(n int64) string {
	for _, unit := range []struct {
		bytes int64
		name  string
	}{{ashlar.TiB, "TiB"}, {ashlar.GiB, "GiB"}, {ashlar.MiB, "MiB"}, {ashlar.KiB, "KiB"}} {
		if n >= unit.bytes {
			text := fmt.Sprintf("%.1f", float64(n)/float64(unit.bytes))
			return strings.TrimSuffix(text, ".0") + " " + unit.name
		}
	}
	return fmt.Sprintf("%d B", n)
}

func rateUnit(bytesPerSecond float64) (unit float64, name string) {
	if bytesPerSecond >= 1e9 {
		return 1e9, "GB/s"
	}
	return 1e6, "MB/s"
}

func millis(us float64) string { return fmt.Sprintf("%.3g", us/1000) }

// thousands prints a rate with thin groups of three digits: 2 293.
func thousands(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.3g", v)
	}
	text := fmt.Sprintf("%.0f", v)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + " " + text[i:]
	}
	return text
}
