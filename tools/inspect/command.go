package inspect

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// Command is `ashlar inspect`. It opens devices read-only and takes no hold of
// them, so it may look at a disk in use. What does not match its checksums is
// printed and makes the command fail.
func Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect",
		Short: "Show what lies on a device, field by field, with every checksum verified",
		Long: `Show what lies on a device, field by field, with every checksum verified.

This reader shares no code with the daemon: it was written from the format documents
alone. It never writes, and it may be used on a disk that is in use; what is being
written just then may look damaged for a moment.`,
	}
	cmd.AddCommand(labelCommand(), segmentCommand(), recordCommand())
	return cmd
}

// report is what every command prints.
type report struct {
	Tables   []Table       `json:"tables,omitempty"`
	Segments []segmentLine `json:"segments,omitempty"`
	Items    []Item        `json:"items,omitempty"`
	Notes    []string      `json:"notes"`
	Problems []string      `json:"problems"`
}

type segmentLine struct {
	Number     int    `json:"number"`
	At         int64  `json:"at"` // on the device
	State      string `json:"state"`
	Generation uint64 `json:"generation"`
	Records    int    `json:"records"`
	Damaged    int    `json:"damaged"`
}

func labelCommand() *cobra.Command {
	return subcommand("label DEVICE", "Show the four copies of the label", cobra.ExactArgs(1), func(f *os.File, bytes int64, _ []string) (*report, error) {
		copies, holds, err := Label(f, bytes)
		if err != nil {
			return nil, err
		}
		r := &report{Tables: copies}
		if holds < 0 {
			r.Problems = append(r.Problems, "no sound copy of a label")
			return r, nil
		}
		r.Notes = append(r.Notes, fmt.Sprintf("copy %d is the label", holds))
		for _, t := range copies {
			for _, p := range t.Problems {
				r.Problems = append(r.Problems, t.Name+": "+p)
			}
		}
		return r, nil
	})
}

func segmentCommand() *cobra.Command {
	cmd := subcommand("segment DEVICE [NUMBER]", "List the segments, or what lies in one", cobra.RangeArgs(1, 2), func(f *os.File, bytes int64, args []string) (*report, error) {
		l, r, from, err := openLog(f, bytes)
		if err != nil {
			return nil, err
		}
		if len(args) == 0 {
			return r, l.list(r, from)
		}
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return nil, fmt.Errorf("inspect: %q is not the number of a segment", args[0])
		}
		d, err := l.Detail(n)
		if err != nil {
			return nil, err
		}
		return d.report(from, fmt.Sprintf("segment %d is %s, at %d on the device", n, d.State, from+l.where(n))), nil
	})
	return cmd
}

// list adds the anchors and a line for each segment.
func (l *Log) list(r *report, from int64) error {
	for n := range l.Segments {
		s, err := l.Segment(n)
		if err != nil {
			return err
		}
		line := segmentLine{Number: n, At: from + l.where(n), State: s.State, Generation: s.Generation, Records: len(s.Records)}
		for _, x := range s.Records {
			if !x.Sound {
				line.Damaged++
			}
		}
		if line.Damaged > 0 {
			r.Problems = append(r.Problems, fmt.Sprintf("segment %d: %d of %d records are damaged", n, line.Damaged, line.Records))
		}
		r.Segments = append(r.Segments, line)
	}
	return nil
}

func recordCommand() *cobra.Command {
	return subcommand("record DEVICE SEGMENT:OFFSET|STRIPE[/PIECE]", "Show one record, or find all of a stripe", cobra.ExactArgs(2), func(f *os.File, bytes int64, args []string) (*report, error) {
		l, r, from, err := openLog(f, bytes)
		if err != nil {
			return nil, err
		}
		segment, offset, isPlace := strings.Cut(args[0], ":")
		if !isPlace {
			r.Tables = nil
			return r, l.find(r, args[0])
		}
		n, err1 := strconv.Atoi(segment)
		at, err2 := strconv.ParseInt(offset, 0, 64)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("inspect: %q is not SEGMENT:OFFSET", args[0])
		}
		d, err := l.Record(n, at)
		if err != nil {
			return nil, err
		}
		return d.report(from, fmt.Sprintf("at %d on the device", from+l.where(n)+at)), nil
	})
}

// find lists every record of a stripe, old ones and tombstones too.
func (l *Log) find(r *report, what string) error {
	stripe, piece, one := strings.Cut(what, "/")
	want, err := hex.DecodeString(stripe)
	number := 0
	if one && err == nil {
		number, err = strconv.Atoi(piece)
	}
	if err != nil || len(want) != 16 {
		return fmt.Errorf("inspect: %q is not a stripe (32 hexadecimal digits), nor STRIPE/PIECE, nor SEGMENT:OFFSET", what)
	}
	for n := range l.Segments {
		s, err := l.Segment(n)
		if err != nil {
			return err
		}
		for _, x := range s.Records {
			if [16]byte(want) != x.Stripe || one && int(x.Piece) != number {
				continue
			}
			i := x.item()
			i.What = fmt.Sprintf("%d:%d %s", n, x.Offset, i.What)
			if i.Problem != "" {
				r.Problems = append(r.Problems, i.What+": "+i.Problem)
			}
			r.Items = append(r.Items, i)
		}
	}
	r.Notes = append(r.Notes, fmt.Sprintf("%d records; of each piece the one with the greatest sequence number holds", len(r.Items)))
	return nil
}

func (d *Detail) report(from int64, note string) *report {
	for i := range d.Tables {
		d.Tables[i].At += from
	}
	return &report{Tables: d.Tables, Items: d.Items, Notes: []string{note}, Problems: d.Problems}
}

// openLog finds the log on a device; its anchors are in the report.
func openLog(f *os.File, bytes int64) (*Log, *report, int64, error) {
	area, from, err := DataArea(f, bytes)
	if err != nil {
		return nil, nil, 0, err
	}
	l, err := OpenLog(area, area.Size())
	if err != nil {
		return nil, nil, 0, err
	}
	anchors, err := l.Anchors(area.Size())
	if err != nil {
		return nil, nil, 0, err
	}
	for i := range anchors {
		anchors[i].At += from
	}
	return l, &report{Tables: anchors}, from, nil
}

// subcommand opens the device read-only, runs fn and prints its report.
func subcommand(use, short string, args cobra.PositionalArgs, fn func(f *os.File, bytes int64, args []string) (*report, error)) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args}
	asJSON := cmd.Flags().Bool("json", false, "print one line of JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := os.Open(args[0])
		if err != nil {
			return fmt.Errorf("inspect: %w", err)
		}
		defer f.Close()
		bytes, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return fmt.Errorf("inspect: %s: size: %w", args[0], err)
		}
		r, err := fn(f, bytes, args[1:])
		if err != nil {
			return err
		}
		if err := r.print(cmd.OutOrStdout(), *asJSON); err != nil {
			return err
		}
		if n := len(r.Problems); n > 0 {
			return fmt.Errorf("inspect: %s: %d problems, the first: %s", args[0], n, r.Problems[0])
		}
		return nil
	}
	return cmd
}

func (r *report) print(out io.Writer, asJSON bool) error {
	if asJSON {
		r.Notes, r.Problems = append([]string{}, r.Notes...), append([]string{}, r.Problems...)
		return json.NewEncoder(out).Encode(r)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, t := range r.Tables {
		fmt.Fprintf(w, "%s, at %d: %s\n", t.Name, t.At, verdict(strings.Join(t.Problems, "; ")))
		for _, f := range t.Fields {
			fmt.Fprintf(w, "  %d\t%v\t%s\n", f.Offset, f.Value, f.Meaning)
		}
		fmt.Fprintln(w)
	}
	if len(r.Segments) > 0 {
		fmt.Fprintln(w, "SEGMENT\tAT\tSTATE\tGENERATION\tRECORDS\tDAMAGED")
		for _, s := range r.Segments {
			fmt.Fprintf(w, "%d\t%d\t%s\t%d\t%d\t%d\n", s.Number, s.At, s.State, s.Generation, s.Records, s.Damaged)
		}
	}
	if len(r.Items) > 0 {
		fmt.Fprintln(w, "OFFSET\tBYTES\tKIND\tWHAT\tCHECKSUMS")
		for _, i := range r.Items {
			fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%s\n", i.Offset, i.Bytes, i.Kind, i.What, verdict(i.Problem))
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintln(w, n)
	}
	return w.Flush()
}

func verdict(problem string) string {
	if problem == "" {
		return "good"
	}
	return problem
}
