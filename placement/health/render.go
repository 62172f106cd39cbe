package health

import (
	"fmt"
	"io"
	"strings"
)

// Render prints the status for people: the verdict, what the cluster survives
// now, and what to do next. It returns the first error of w.
func (st Status) Render(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s   %s · epoch %d · %s, %s, %s\n", st.Verdict, st.Cluster, st.Epoch,
		st.Disks.of("disk"), st.Hosts.of("host"), st.Zones.of("zone"))
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "  %-14s %s\n", label, fmt.Sprintf(format, args...))
	}
	if st.AsOf != "" {
		line("As of", "%s", st.AsOf)
	}
	if st.Formed {
		line("Survives now", "%s", st.survivesNow())
		line("Writes go on", "%s", st.goOn())
	}
	c := st.Capacity
	line("Capacity", "%s stored of %s usable (%s raw, %s)", size(c.StoredBytes), size(c.UsableBytes), size(c.RawBytes), st.Code)
	if st.Room != nil {
		line("Room", "%s", st.Room.of(st.Groups))
	}
	line("Placement", "%s", st.Placement)
	if st.Scrub != nil {
		line("Scrub", "%s", st.Scrub)
	}
	if st.RepairPieces > 0 {
		line("Activity", "%s to repair", plural(int(st.RepairPieces), "piece"))
	}
	if n := st.HostsChecking; n > 0 {
		line("Roll call", "%s whether pieces are missing since somebody came or went",
			plural(n, "host")+map[bool]string{true: " asks", false: " ask"}[n == 1])
	}
	next := ""
	for _, code := range st.Codes {
		mark := "!"
		if code.Note {
			mark = "·"
		} else if next == "" {
			next = code.Next
		}
		fmt.Fprintf(&b, "  %s %s  %s\n", mark, code.Code, code.Summary)
	}
	if next != "" {
		fmt.Fprintf(&b, "Next:  %s\n", next)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// of prints "24 disks", or "23 of 24 disks" if some are away.
func (c Count) of(noun string) string {
	if c.Up == c.Total {
		return plural(c.Total, noun)
	}
	return fmt.Sprintf("%d of %s", c.Up, plural(c.Total, noun))
}

func (p Placement) String() string {
	if p.Leader == "" {
		return fmt.Sprintf("no leader among %d members", p.Members)
	}
	return fmt.Sprintf("%d of %d voting, leader %s", p.Voting, p.Members, p.Leader)
}

// goOn says which further losses leave every PUT its quorum.
func (st Status) goOn() string {
	var only []string
	if n := st.Worst.Unwritable; n > 0 {
		only = append(only, fmt.Sprintf("in %d of %s", st.Groups-n, plural(st.Groups, "group")))
	} else if st.Room != nil && st.Room.GroupsFull > 0 {
		only = append(only, fmt.Sprintf("in %d of %s", st.Groups-st.Room.GroupsFull, plural(st.Groups, "group")))
	}
	if n := st.Worst.NoMajority; n > 0 {
		only = append(only, fmt.Sprintf("for keys of %d of %s", st.Shards-n, plural(st.Shards, "metadata shard")))
	}
	switch {
	case len(only) > 0:
		return strings.Join(only, ", ") + " only"
	case st.Writes.Disks == 0:
		return "now, but " + st.survives(st.Writes) + " may go"
	}
	return "after " + st.survives(st.Writes)
}

// survivesNow is the second line: what may still be lost, and why not more.
func (st Status) survivesNow() string {
	var lost []string
	if n := st.Worst.Unreadable; n > 0 {
		lost = append(lost, fmt.Sprintf("%d of %s cannot be read", n, plural(st.Groups, "group")))
	}
	if n := st.Worst.NoMajority; n > 0 {
		lost = append(lost, fmt.Sprintf("%d of %s without a majority", n, plural(st.Shards, "metadata shard")))
	}
	if len(lost) > 0 {
		return "nothing more: " + strings.Join(lost, ", ")
	}
	if n := st.Worst.Edge; n > 0 {
		return fmt.Sprintf("%s: %d of %s cannot lose one more piece", st.survives(st.Reads), n, plural(st.Groups, "group"))
	}
	if st.RepairPieces > 0 && st.Reads.Disks > 0 {
		return fmt.Sprintf("%s, once %s repaired", st.survives(st.Reads),
			plural(int(st.RepairPieces), "piece")+map[bool]string{true: " is", false: " are"}[st.RepairPieces == 1])
	}
	return st.survives(st.Reads)
}

// survives puts a Survival into words.
func (st Status) survives(s Survival) string {
	more, not := "", "not a "
	if st.Disks.Up < st.Disks.Total || st.Hosts.Up < st.Hosts.Total {
		more, not = "more ", "no further "
	}
	var yes, no []string
	for _, kind := range []struct {
		n, up int
		noun  string
	}{{s.Disks, st.Disks.Up, "disk"}, {s.Hosts, st.Hosts.Up, "host"}, {s.Zones, st.Zones.Up, "zone"}} {
		switch {
		case kind.n > 0:
			yes = append(yes, fmt.Sprintf("any %d %s%s", kind.n, more, strings.TrimPrefix(plural(kind.n, kind.noun), fmt.Sprint(kind.n, " "))))
		case kind.up > 1:
			no = append(no, kind.noun)
		}
	}
	switch {
	case len(yes) == 0:
		return "no further " + or(no)
	case len(no) == 0:
		return or(yes)
	}
	return or(yes) + "; " + not + or(no)
}

// or joins words: a; a or b; a, b, or c.
func or(words []string) string {
	switch n := len(words); n {
	case 0:
		return "loss"
	case 1, 2:
		return strings.Join(words, " or ")
	default:
		return strings.Join(words[:n-1], ", ") + ", or " + words[n-1]
	}
}

// size prints bytes in binary units.
func size(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1023.95 && unit < len(units)-1 {
		v /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", v, units[unit])
}
