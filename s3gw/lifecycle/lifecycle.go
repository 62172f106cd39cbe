// Package lifecycle says what the lifecycle rules of a bucket mean: which
// version of which key is due when, and by which rule.
//
// Everything here is a pure function of its arguments. The package knows
// neither XML nor rows nor who deletes: s3gw/s3 reads and writes the document,
// s3gw/store keeps the rules, asks at every write when a key must be looked at,
// and looks at it when that time has come.
//
// A rule matches a version by the prefix of its key, by its tags (all of them)
// and by its size; what is not given matches everything. Of several rules that
// match, the one that is due first counts.
package lifecycle

import (
	"strings"
	"time"
)

// Form is how the filter of a rule was written, so that it is read back as it
// was. It has no other meaning.
type Form uint8

// The forms of a filter. The numbers are kept: append only.
const (
	Filter Form = iota // a Filter with one predicate
	And                // a Filter with And
	Prefix             // a Prefix without a Filter
	Empty              // an empty Filter
)

// Config is the lifecycle configuration of a bucket. Nil has no rules.
type Config struct{ Rules []Rule }

// Rule is one rule. What is zero is not asked for.
type Rule struct {
	ID      string
	Enabled bool

	Prefix        string
	Tags          map[string]string
	Greater, Less *uint64 // bytes, exclusive; nil matches every size
	Form          Form

	// Days and Date expire the current version: from then on, or since it is so
	// many days old.
	Days int
	Date time.Time
	// LoneMarkers removes a delete marker that has no versions behind it.
	LoneMarkers bool
	// NoncurrentDays deletes versions that are not current for so long, but
	// never the NoncurrentKeep newest of them.
	NoncurrentDays, NoncurrentKeep int
	// AbortDays ends multipart uploads that were started so long ago.
	AbortDays int
}

// Version is what a rule looks at.
type Version struct {
	Key      string
	Bytes    uint64
	Tags     map[string]string
	Modified time.Time
	Marker   bool // a delete marker: it has neither tags nor bytes
}

// Clock says how long a day is. The zero Clock has days of 24 hours and is due
// at the midnight (UTC) after them, as S3 is; a test cluster has shorter days,
// and is due to the moment.
type Clock struct{ Day time.Duration }

// After returns the moment that is so many days after t.
func (c Clock) After(t time.Time, days int) time.Time {
	const day = 24 * time.Hour
	if c.Day == 0 || c.Day == day {
		end := t.UTC().AddDate(0, 0, days)
		if midnight := end.Truncate(day); midnight.Before(end) {
			return midnight.Add(day)
		}
		return end
	}
	return t.Add(time.Duration(days) * c.Day)
}

// Due is a moment at which a rule wants something. A Due without a time is never.
type Due struct {
	At   time.Time
	Rule string
}

func (d *Due) earlier(at time.Time, r *Rule) {
	if d.At.IsZero() || at.Before(d.At) {
		d.At, d.Rule = at, r.ID
	}
}

func (r *Rule) matches(v *Version) bool {
	if !r.Enabled || !strings.HasPrefix(v.Key, r.Prefix) {
		return false
	}
	if v.Marker {
		return len(r.Tags) == 0 && r.Greater == nil && r.Less == nil
	}
	for k, want := range r.Tags {
		if got, ok := v.Tags[k]; !ok || got != want {
			return false
		}
	}
	return (r.Greater == nil || v.Bytes > *r.Greater) && (r.Less == nil || v.Bytes < *r.Less)
}

func (c *Config) each(v *Version, fn func(*Rule)) {
	if c == nil {
		return
	}
	for i := range c.Rules {
		if r := &c.Rules[i]; r.matches(v) {
			fn(r)
		}
	}
}

// Touches reports whether any rule could ever want something of a key.
func (c *Config) Touches(key string) bool {
	if c == nil {
		return false
	}
	for i := range c.Rules {
		if r := &c.Rules[i]; r.Enabled && strings.HasPrefix(key, r.Prefix) {
			return true
		}
	}
	return false
}

// Expiry returns when a current version is due that is no delete marker.
func (c *Config) Expiry(v *Version, clock Clock) (d Due) {
	if v.Marker {
		return d
	}
	c.each(v, func(r *Rule) {
		if r.Days > 0 {
			d.earlier(clock.After(v.Modified, r.Days), r)
		}
		if !r.Date.IsZero() {
			d.earlier(r.Date, r)
		}
	})
	return d
}

// Lone returns when a delete marker is due that is current and has no versions
// behind it. Like S3, a rule that expires objects removes such markers too.
func (c *Config) Lone(v *Version, clock Clock) (d Due) {
	if !v.Marker {
		return d
	}
	c.each(v, func(r *Rule) {
		if r.LoneMarkers {
			d.earlier(v.Modified, r)
		}
		if r.Days > 0 {
			d.earlier(clock.After(v.Modified, r.Days), r)
		}
		if !r.Date.IsZero() {
			d.earlier(r.Date, r)
		}
	})
	return d
}

// Noncurrent returns when a version is due that is not current since then, and
// has so many newer ones that are not current either.
func (c *Config) Noncurrent(v *Version, since time.Time, newer int, clock Clock) (d Due) {
	c.each(v, func(r *Rule) {
		if r.NoncurrentDays > 0 && newer >= r.NoncurrentKeep {
			d.earlier(clock.After(since, r.NoncurrentDays), r)
		}
	})
	return d
}

// Counts reports whether a rule for the key keeps a number of versions, so that
// one more version can make another one due.
func (c *Config) Counts(key string) bool {
	if c == nil {
		return false
	}
	for i := range c.Rules {
		if r := &c.Rules[i]; r.Enabled && r.NoncurrentKeep > 0 && strings.HasPrefix(key, r.Prefix) {
			return true
		}
	}
	return false
}

// Abort returns when a multipart upload is due.
func (c *Config) Abort(key string, started time.Time, clock Clock) (d Due) {
	if c == nil {
		return d
	}
	for i := range c.Rules {
		r := &c.Rules[i]
		if r.Enabled && r.AbortDays > 0 && strings.HasPrefix(key, r.Prefix) {
			d.earlier(clock.After(started, r.AbortDays), r)
		}
	}
	return d
}
