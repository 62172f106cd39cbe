package health

import (
	"fmt"
	"strings"
	"time"

	"ashlar/placement/topology"
)

// DiskScrub is how the scrub of one disk stands, as its host says. It is zero
// for a disk that is not scrubbed.
type DiskScrub struct {
	// Period is the time that one pass should take.
	Period time.Duration
	// Last is when the last full pass ended, zero if there was none; Due is when
	// the pass under way should end.
	Last, Due time.Time
	// Oldest: every byte that was stored then was read after it.
	Oldest time.Time
	// Bytes were read and found right since the disk was first scrubbed.
	Bytes uint64
	// Waiting pieces were found bad and are not right again. Repaired pieces are;
	// they and the Unread segments count from the beginning of the last full pass.
	Waiting, Repaired, Unread uint64
}

// Scrub is how the scrub of all disks that answer stands.
type Scrub struct {
	// Disks report one; Never counts those that had no full pass yet, Overdue
	// those whose oldest byte is older than it may be.
	Disks   int `json:"disks"`
	Never   int `json:"never"`
	Overdue int `json:"overdue"`
	// LastSeconds is the age of the last full pass of the disk where that is
	// longest ago, of those that had one; DueSeconds is when the last of those
	// without one should have it, negative if that is over; OldestSeconds is the
	// age of the oldest unverified byte.
	LastSeconds   int64 `json:"last_seconds"`
	DueSeconds    int64 `json:"due_seconds"`
	OldestSeconds int64 `json:"oldest_seconds"`
	// Bytes, Waiting, Repaired and Unread are sums over the disks.
	Bytes    uint64 `json:"bytes"`
	Waiting  uint64 `json:"waiting"`
	Repaired uint64 `json:"repaired"`
	Unread   uint64 `json:"unread_segments"`
}

// overdue reports whether the oldest byte is a quarter of the period older than
// it would be if every pass took its time.
func (d *DiskScrub) overdue(now time.Time) bool {
	return d.Period > 0 && now.Sub(d.Oldest) > d.Period+d.Period/4
}

// scrub adds up the disks that answer.
func scrub(m *topology.Map, f Facts) *Scrub {
	s := &Scrub{}
	if f.Now.IsZero() {
		return nil
	}
	seconds := func(d time.Duration) int64 { return int64(d / time.Second) }
	for i := range m.Disks {
		d := f.Disks[topology.DiskNum(i)].Scrub
		if d.Period == 0 || !m.Live(topology.DiskNum(i)) {
			continue
		}
		due := seconds(d.Due.Sub(f.Now))
		switch {
		case !d.Last.IsZero():
			s.LastSeconds = max(s.LastSeconds, seconds(f.Now.Sub(d.Last)))
		case s.Never == 0:
			s.Never, s.DueSeconds = 1, due
		default:
			s.Never, s.DueSeconds = s.Never+1, max(s.DueSeconds, due)
		}
		s.Disks++
		s.Overdue += one(d.overdue(f.Now))
		s.OldestSeconds = max(s.OldestSeconds, seconds(f.Now.Sub(d.Oldest)))
		s.Bytes += d.Bytes
		s.Waiting += d.Waiting
		s.Repaired += d.Repaired
		s.Unread += d.Unread
	}
	if s.Disks == 0 {
		return nil
	}
	return s
}

// String is the line for people.
func (s *Scrub) String() string {
	var b strings.Builder
	switch {
	case s.Never == s.Disks && s.DueSeconds >= 0:
		fmt.Fprintf(&b, "never (first due in %s)", span(s.DueSeconds))
	case s.Never == s.Disks:
		fmt.Fprintf(&b, "never (first was due %s ago)", span(-s.DueSeconds))
	default:
		fmt.Fprintf(&b, "last full pass %s ago", span(s.LastSeconds))
		if s.Never > 0 {
			fmt.Fprintf(&b, " on %d of %s", s.Disks-s.Never, plural(s.Disks, "disk"))
		}
	}
	switch found := int(s.Repaired + s.Waiting); {
	case s.Waiting > 0:
		fmt.Fprintf(&b, ", %s found, %d repaired so far", plural(found, "latent error"), s.Repaired)
	case found > 0:
		fmt.Fprintf(&b, ", %s found and repaired", plural(found, "latent error"))
	case s.Never < s.Disks:
		b.WriteString(", no latent errors")
	}
	if s.Unread > 0 {
		fmt.Fprintf(&b, "; %s could not be read", plural(int(s.Unread), "segment"))
	}
	return b.String()
}

// span prints a time in the greatest unit of which there are two.
func span(seconds int64) string {
	for _, u := range []struct {
		seconds int64
		noun    string
	}{{24 * 3600, "day"}, {3600, "hour"}, {60, "minute"}} {
		if seconds >= 2*u.seconds {
			return plural(int(seconds/u.seconds), u.noun)
		}
	}
	return plural(int(seconds), "second")
}

// scrubs raises the disks that were not read for too long.
func (r *raiser) scrubs() {
	if r.st.Scrub == nil || r.st.Scrub.Overdue == 0 {
		return
	}
	overdue := 0
	for i, d := range r.m.Disks {
		s := r.f.Disks[topology.DiskNum(i)].Scrub
		if !s.overdue(r.f.Now) || !r.m.Live(topology.DiskNum(i)) {
			continue
		}
		if overdue++; overdue <= perCodeMax {
			host := r.hostName(d.Host)
			r.add(ScrubOverdue, d.Name, "journalctl -u ashlar-daemon on "+host+"; raise scrub-bytes-per-second there if it is too low",
				"%s holds bytes that nobody verified for %s; a pass should take %s.", d.Name,
				span(int64(r.f.Now.Sub(s.Oldest)/time.Second)), span(int64(s.Period/time.Second)))
		}
	}
	if overdue > perCodeMax {
		r.add(ScrubOverdue, "", "ashlar status --json", "… and %s more.", plural(overdue-perCodeMax, "disk"))
	}
}
