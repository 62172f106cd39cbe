package segment

import (
	"fmt"
	"io"
	"text/tabwriter"

	"ashlar"
)

// Print writes the cases as a table for people.
func Print(w io.Writer, cases []Case) error {
	fmt.Fprintln(w, "raw: the same bytes from as many callers straight to the device; each write is followed by a flush, as an append is")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "operation\tsize\tcallers\trecords\top/s\tMB/s\tof raw\tper flush\tCPU s/1,000\tCPU s/GB\traw CPU s/GB\tCPU µs each\t")
	for i := range cases {
		c := &cases[i]
		perFlush := "-"
		if c.Log.Flushes > 0 {
			perFlush = fmt.Sprintf("%.1f", c.Log.PerFlush())
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%.0f\t%.1f\t%.2f\t%s\t%.4f\t%.3f\t%.3f\t%.1f\t\n",
			c.Operation, sizeText(c.Bytes), c.Callers, c.Records,
			float64(c.Log.Operations)/max(c.Log.Seconds, 1e-9), c.BytesPerSecond(c.Log)/1e6,
			c.BytesPerSecond(c.Log)/max(c.BytesPerSecond(c.Raw), 1e-9), perFlush,
			c.Log.MicrosEach()/1e3, perGB(c, c.Log), perGB(c, c.Raw), c.Log.MicrosEach())
	}
	return t.Flush()
}

// perGB is the CPU time of 10⁹ bytes in seconds.
func perGB(c *Case, s Side) float64 { return s.MicrosEach() * 1e3 / float64(c.Bytes) }

func sizeText(n int) string {
	if n%int(ashlar.MiB) == 0 {
		return fmt.Sprintf("%d MiB", n/int(ashlar.MiB))
	}
	return fmt.Sprintf("%d KiB", n/int(ashlar.KiB))
}
