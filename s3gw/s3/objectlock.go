package s3

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"ashlar/s3gw/store"
)

// Bounds of a default retention.
const (
	lockDaysMax  = 36500
	lockYearsMax = 100
)

const (
	needFuture = "The retain until date must be in the future!"
	// NoLockConfiguration is what S3 says of a bucket without object lock.
	NoLockConfiguration = "Bucket is missing Object Lock Configuration"
)

// values reads the values of an element whose children are all different and
// among the names that are known.
func (n *node) values(known ...string) (map[string]string, error) {
	out := make(map[string]string, len(n.children))
	for _, c := range n.children {
		v, err := c.value()
		if err != nil {
			return nil, err
		}
		_, twice := out[c.name]
		if twice || !oneOf(c.name, known) {
			return nil, malformed("element " + c.name)
		}
		out[c.name] = strings.TrimSpace(v)
	}
	return out, nil
}

func oneOf(s string, list []string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func lockMode(text string) (store.LockMode, bool) {
	m := store.LockMode(text)
	return m, m == store.Governance || m == store.Compliance
}

// ParseObjectLock reads an ObjectLockConfiguration: the default retention of a
// bucket, nil if it is to have none.
func ParseObjectLock(doc []byte) (*store.DefaultLock, error) {
	root, err := parseXML(doc)
	if err != nil {
		return nil, err
	}
	if root.name != "ObjectLockConfiguration" {
		return nil, malformed("root " + root.name)
	}
	var d *store.DefaultLock
	on := false
	for _, c := range root.children {
		switch {
		case c.name == "ObjectLockEnabled" && !on:
			v, err := c.value()
			if err != nil || v != "Enabled" {
				return nil, malformed("ObjectLockEnabled")
			}
			on = true
		case c.name == "Rule" && d == nil && len(c.children) == 1 && c.children[0].name == "DefaultRetention":
			if d, err = parseDefaultLock(c.children[0]); err != nil {
				return nil, err
			}
		default:
			return nil, malformed("element " + c.name)
		}
	}
	if !on {
		return nil, malformed("no ObjectLockEnabled")
	}
	return d, nil
}

func parseDefaultLock(n *node) (*store.DefaultLock, error) {
	v, err := n.values("Mode", "Days", "Years")
	if err != nil {
		return nil, err
	}
	mode, ok := lockMode(v["Mode"])
	days, byDays := v["Days"]
	years, byYears := v["Years"]
	if !ok || byDays == byYears {
		return nil, malformed("default retention")
	}
	count, err := strconv.Atoi(days + years)
	if err != nil {
		return nil, malformed("days or years")
	}
	d := &store.DefaultLock{Mode: mode, Days: count}
	top := lockDaysMax
	if byYears {
		d.Days, d.Years, top = 0, count, lockYearsMax
	}
	switch {
	case count <= 0:
		return nil, E(InvalidRetentionPeriod, "Default retention period must be a positive integer value.")
	case count > top:
		return nil, E(InvalidRetentionPeriod, "Default retention period too large. Limits are 36500 days and 100 years.")
	}
	return d, nil
}

// ObjectLock writes an ObjectLockConfiguration.
func (w *Writer) ObjectLock(d *store.DefaultLock) {
	w.Begin("ObjectLockConfiguration")
	w.Raw("ObjectLockEnabled", "Enabled")
	if d != nil {
		w.Open("Rule")
		w.Open("DefaultRetention")
		w.Raw("Mode", string(d.Mode))
		if d.Years > 0 {
			w.Int("Years", int64(d.Years))
		} else {
			w.Int("Days", int64(d.Days))
		}
		w.Close("DefaultRetention")
		w.Close("Rule")
	}
	w.Close("ObjectLockConfiguration")
}

// ParseRetention reads a Retention; an empty one, without a mode, takes the
// retention off.
func ParseRetention(doc []byte, now time.Time) (mode store.LockMode, until time.Time, err error) {
	root, err := parseXML(doc)
	if err != nil {
		return "", until, err
	}
	if root.name != "Retention" {
		return "", until, malformed("root " + root.name)
	}
	v, err := root.values("Mode", "RetainUntilDate")
	if err != nil || len(v) == 0 {
		return "", until, err
	}
	mode, ok := lockMode(v["Mode"])
	until, err = time.Parse(time.RFC3339, v["RetainUntilDate"])
	if !ok || err != nil {
		return "", until, malformed("mode or date of a retention")
	}
	if !until.After(now) {
		return "", until, E(InvalidArgument, needFuture)
	}
	return mode, until, nil
}

// ParseLegalHold reads a LegalHold.
func ParseLegalHold(doc []byte) (on bool, err error) {
	root, err := parseXML(doc)
	if err != nil {
		return false, err
	}
	if root.name != "LegalHold" {
		return false, malformed("root " + root.name)
	}
	v, err := root.values("Status")
	if err != nil {
		return false, err
	}
	if v["Status"] != store.HoldOn && v["Status"] != store.HoldOff {
		return false, malformed("status of a legal hold")
	}
	return v["Status"] == store.HoldOn, nil
}

// The headers of a lock, in requests and answers.
const (
	headerLockMode  = "X-Amz-Object-Lock-Mode"
	headerLockUntil = "X-Amz-Object-Lock-Retain-Until-Date"
	headerLockHold  = "X-Amz-Object-Lock-Legal-Hold"
)

// LockOf reads the x-amz-object-lock-* headers of a write.
func LockOf(h http.Header, now time.Time) (l store.Lock, err error) {
	header := headerLockMode
	bad := func(message string) (store.Lock, error) {
		return store.Lock{}, E(InvalidArgument, message).With("ArgumentName", strings.ToLower(header)).With("ArgumentValue", printable(h.Get(header)))
	}
	mode, hasMode := h[headerLockMode]
	until, hasUntil := h[headerLockUntil]
	if hasMode != hasUntil {
		if hasMode {
			header = headerLockUntil
		}
		return bad("x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied")
	}
	if hasMode {
		var ok bool
		if l.Mode, ok = lockMode(mode[0]); !ok {
			return bad("Unknown wormMode directive.")
		}
		header = headerLockUntil
		if l.Until, err = time.Parse(time.RFC3339, until[0]); err != nil {
			return bad("The retain until date must be provided in ISO 8601 format")
		}
		if !l.Until.After(now) {
			return bad(needFuture)
		}
	}
	if hold := h[headerLockHold]; len(hold) > 0 {
		header = headerLockHold
		if l.Hold = hold[0]; l.Hold != store.HoldOn && l.Hold != store.HoldOff {
			return bad("Legal Hold must be either of 'ON' or 'OFF'")
		}
	}
	return l, nil
}

// LockHeaders returns the headers that tell of a lock.
func LockHeaders(l store.Lock) (fields []Field) {
	if l.Mode != "" {
		fields = append(fields, Field{headerLockMode, string(l.Mode)}, Field{headerLockUntil, Timestamp(l.Until)})
	}
	if l.Hold != "" {
		fields = append(fields, Field{headerLockHold, l.Hold})
	}
	return fields
}
