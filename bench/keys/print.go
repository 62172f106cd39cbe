package keys

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes the result for people. Growth is against the first checkpoint.
func (r *Result) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "keys\tPUT/s\tPUT/s per core\tCPU/PUT\tclient CPU/PUT\tbytes/key and replica\tresident\t")
	for _, c := range r.Checkpoints {
		if c.Puts == 0 {
			continue
		}
		puts := float64(c.Puts)
		fmt.Fprintf(w, "%d\t%.0f\t%.0f\t%.0f µs\t%.0f µs\t%.0f\t%d MiB\t\n", c.Keys, puts/c.PutSeconds, puts/max(c.PutServerCPU, 1e-9),
			c.PutServerCPU/puts*1e6, c.PutClientCPU/puts*1e6,
			float64(c.MetaBytes)/float64(max(c.Replicas, 1))/float64(c.Keys), c.ResidentBytes>>20)
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "keys\tp50\tp99\tCPU\tentries\tgrowth of p50, p99, CPU\tlisting\t")
	first := map[string]Kind{}
	for _, c := range r.Checkpoints {
		for _, k := range c.Kinds {
			growth := ""
			if f, ok := first[k.Name]; ok {
				growth = fmt.Sprintf("%.2f %.2f %.2f", ratio(k.P50, f.P50), ratio(k.P99, f.P99), ratio(k.ServerCPU, f.ServerCPU))
			} else {
				first[k.Name] = k
			}
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%.0f\t%s\t%s\t\n", c.Keys, ms(k.P50), ms(k.P99), ms(k.ServerCPU), k.Entries, growth, k.Name)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if r.Counted == 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "after kill -9 of every process: serving again in %.1f s, %d of %d keys listed in %.1f s (%.0f keys/s)\n",
		r.StartSeconds, r.Counted, r.Filled, r.CountSeconds, float64(r.Counted)/max(r.CountSeconds, 1e-9))
	_, err := io.WriteString(out, b.String())
	return err
}

func ratio(a, b time.Duration) float64 { return float64(a) / max(float64(b), 1) }

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond)) }
