package tracing

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"ashlar/s3gw/trace"
)

const (
	// namedMax is how many calls of a kind are shown of one request.
	namedMax = 6
	// nameRunesMax is how much of a name is shown.
	nameRunesMax = 80
	// waitShown is the least wait for memory that is worth a word.
	waitShown = trace.Duration(time.Millisecond)
)

// Head is the line above the events.
const Head = "TIME          GATEWAY   REQUEST ID        ST      TOOK     FIRST        IN       OUT  WHAT"

// Render prints an event for people: one line, and, if it took at least slow or the
// store failed, where its time went.
func Render(w io.Writer, e *trace.Event, slow time.Duration) error {
	var b strings.Builder
	if e.Dropped > 0 {
		fmt.Fprintf(&b, "-- %s: %d requests are not shown: this reader was too slow for them\n", e.Gateway, e.Dropped)
		_, err := io.WriteString(w, b.String())
		return err
	}
	what := e.Operation
	if what == "Unknown" {
		what = e.Method
	}
	if e.Bucket != "" {
		what += " " + e.Bucket
	}
	if e.Key != "" {
		what += "/" + shown(e.Key)
	}
	if e.Code != "" {
		what += " " + e.Code
	}
	who := e.AccessKey
	if who == "" {
		who = "nobody"
	}
	fmt.Fprintf(&b, "%s  %-8s  %-16s  %3d  %8s  %8s  %8s  %8s  %s  by %s from %s\n", e.Time.Local().Format("15:04:05.000"), e.Gateway, e.ID, e.Status,
		span(e.Took), span(e.FirstByte), size(e.BytesIn), size(e.BytesOut), what, shown(who), e.Remote)
	if time.Duration(e.Took) >= slow || e.Status >= 500 || e.Status == 0 {
		where(&b, e)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// where says what a request spent its time on.
func where(b *strings.Builder, e *trace.Event) {
	var own []string
	for _, p := range []struct {
		name string
		took trace.Duration
	}{{"auth", e.Auth}, {"body from client", e.BodyIn}, {"body to client", e.BodyOut}} {
		if p.took > 0 {
			own = append(own, p.name+" "+span(p.took))
		}
	}
	section(b, "gateway", own, 0)
	for _, g := range []struct {
		name  string
		kinds string
	}{{"metadata", "get scan commit"}, {"pieces", "write read"}, {"hosts", "body open memory delete"}} {
		var calls []string
		more := 0
		for i := range e.Steps {
			s := &e.Steps[i]
			switch {
			case !strings.Contains(" "+g.kinds+" ", " "+s.What+" "):
			case s.What == "memory" && s.Failed == 0 && s.Longest < waitShown:
			case len(calls) < namedMax:
				calls = append(calls, call(s))
			default:
				more++
			}
		}
		section(b, g.name, calls, more)
	}
	if e.StepsUnknown {
		b.WriteString("    its calls are not known: it began before the trace did\n")
	}
	if e.StepsLeftOut > 0 {
		fmt.Fprintf(b, "    and %d shorter steps\n", e.StepsLeftOut)
	}
}

func section(b *strings.Builder, name string, parts []string, more int) {
	if len(parts) == 0 {
		return
	}
	fmt.Fprintf(b, "    %-9s %s", name, strings.Join(parts, ", "))
	if more > 0 {
		fmt.Fprintf(b, ", %d more", more)
	}
	b.WriteByte('\n')
}

// call is one step in words.
func call(s *trace.Step) string {
	at := s.Host
	switch {
	case s.Disk != "":
		at = s.Disk
	case s.Shard != nil:
		at = fmt.Sprintf("shard %d at %s", *s.Shard, s.Host)
	}
	text := s.What + " " + at + " " + span(s.Longest)
	if s.Calls > 1 {
		text += fmt.Sprintf(" (the longest of %d)", s.Calls)
	}
	if s.Late > 0 {
		text += " LATE"
	}
	if s.Failed > 0 {
		text += " FAILED: " + shown(s.Reason)
	}
	return text
}

// shown makes a name fit for a terminal.
func shown(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > nameRunesMax {
			return b.String() + "…"
		}
		if !unicode.IsPrint(r) {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func span(d trace.Duration) string {
	switch v := time.Duration(d); {
	case v >= time.Second:
		return fmt.Sprintf("%.2fs", v.Seconds())
	default:
		return fmt.Sprintf("%.1fms", float64(v)/float64(time.Millisecond))
	}
}

func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for ; v >= 1000 && i+1 < len(units); i++ {
		v /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%dB", n)
	}
	return fmt.Sprintf("%.1f%s", v, units[i])
}
