package s3

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"ashlar/s3gw/lifecycle"
)

// Bounds of a lifecycle configuration.
const (
	lifecycleRulesMax = 1000
	ruleIDMax         = 255
	ruleTagsMax       = 50
	noncurrentKeepMax = 100
)

// ParseLifecycle reads a LifecycleConfiguration. A filter with several
// predicates outside of And, which S3 refuses, means all of them: nothing is
// matched that any reading of it would spare. Transitions are refused, because
// there is no other storage class that they could move anything to.
func ParseLifecycle(doc []byte) (*lifecycle.Config, error) {
	root, err := parseXML(doc)
	if err != nil {
		return nil, err
	}
	if root.name != "LifecycleConfiguration" && root.name != "BucketLifecycleConfiguration" {
		return nil, malformed("root " + root.name)
	}
	if n := len(root.children); n < 1 || n > lifecycleRulesMax {
		return nil, malformed("number of rules")
	}
	c := &lifecycle.Config{}
	ids := map[string]bool{}
	for i, n := range root.children {
		if n.name != "Rule" {
			return nil, malformed("element " + n.name)
		}
		r, err := parseRule(n)
		if err != nil {
			return nil, err
		}
		if r.ID == "" { // the same document gets the same ids
			sum := sha256.Sum256(strconv.AppendInt(slices.Clone(doc), int64(i), 10))
			r.ID = hex.EncodeToString(sum[:16])
		}
		if ids[r.ID] {
			return nil, E(InvalidArgument, "Rule ID must be unique. Found same ID for more than one rule")
		}
		ids[r.ID] = true
		c.Rules = append(c.Rules, r)
	}
	return c, nil
}

func parseRule(n *node) (r lifecycle.Rule, err error) {
	seen := map[string]bool{}
	for _, c := range n.children {
		repeats := c.name == "Transition" || c.name == "NoncurrentVersionTransition"
		if seen[c.name] && !repeats {
			return r, malformed("two of " + c.name)
		}
		seen[c.name] = true
		if err := parseRuleElement(&r, c); err != nil {
			return r, err
		}
	}
	return r, checkRule(&r, seen)
}

func parseRuleElement(r *lifecycle.Rule, c *node) (err error) {
	switch c.name {
	case "ID":
		if r.ID, err = c.value(); err == nil && len(r.ID) > ruleIDMax {
			err = E(InvalidArgument, "ID length should not exceed allowed limit of 255")
		}
	case "Status":
		v, bad := c.value()
		if bad != nil || v != "Enabled" && v != "Disabled" {
			return malformed("status")
		}
		r.Enabled = v == "Enabled"
	case "Prefix":
		r.Form = lifecycle.Prefix
		r.Prefix, err = c.value()
	case "Filter":
		if len(c.children) == 0 {
			r.Form = lifecycle.Empty
		}
		err = parsePredicates(r, c, false)
	case "Expiration":
		err = parseExpiration(r, c)
	case "NoncurrentVersionExpiration":
		err = parseNoncurrent(r, c)
	case "AbortIncompleteMultipartUpload":
		v, bad := c.values("DaysAfterInitiation")
		if bad != nil {
			return bad
		}
		r.AbortDays, err = positive(v["DaysAfterInitiation"], "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer")
	case "Transition", "NoncurrentVersionTransition":
		err = refuseTransition(c)
	default:
		err = malformed("element " + c.name)
	}
	return err
}

// checkRule judges what only the whole rule shows.
func checkRule(r *lifecycle.Rule, seen map[string]bool) error {
	switch {
	case !seen["Status"], seen["Prefix"] == seen["Filter"]:
		return malformed("a rule has a status, and a filter or a prefix")
	case !seen["Expiration"] && !seen["NoncurrentVersionExpiration"] && !seen["AbortIncompleteMultipartUpload"]:
		return E(InvalidRequest, "At least one action needs to be specified in a rule")
	case r.LoneMarkers && len(r.Tags) > 0:
		return E(InvalidRequest, "ExpiredObjectDeleteMarker cannot be specified with Tags.")
	case r.AbortDays > 0 && len(r.Tags) > 0:
		return E(InvalidRequest, "AbortIncompleteMultipartUpload cannot be specified with Tags.")
	case r.AbortDays > 0 && (r.Greater != nil || r.Less != nil):
		return E(InvalidRequest, "AbortIncompleteMultipartUpload cannot be specified with Object Size.")
	case r.Greater != nil && r.Less != nil && *r.Greater >= *r.Less:
		return E(InvalidRequest, "'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'.")
	case len(r.Prefix) > 1024:
		return E(InvalidRequest, "The maximum size of a prefix is 1024.")
	}
	return nil
}

// parsePredicates reads the children of a Filter or of its And.
func parsePredicates(r *lifecycle.Rule, n *node, inAnd bool) error {
	seen := map[string]bool{}
	for _, c := range n.children {
		if seen[c.name] && !(inAnd && c.name == "Tag") {
			return malformed("two of " + c.name)
		}
		seen[c.name] = true
		switch c.name {
		case "And":
			if inAnd {
				return malformed("And in And")
			}
			r.Form = lifecycle.And
			if err := parsePredicates(r, c, true); err != nil {
				return err
			}
			continue
		case "Tag":
			t, err := parseTag(c)
			if err != nil {
				return err
			}
			if err := addTag(r, t); err != nil {
				return err
			}
			continue
		}
		v, err := c.value()
		if err != nil {
			return err
		}
		switch c.name {
		case "Prefix":
			if !strings.HasPrefix(v, r.Prefix) && !strings.HasPrefix(r.Prefix, v) {
				return malformed("two prefixes that exclude one another")
			}
			r.Prefix = max(r.Prefix, v) // of two such prefixes the longer one
		case "ObjectSizeGreaterThan":
			r.Greater, err = sizeBound(v)
		case "ObjectSizeLessThan":
			if r.Less, err = sizeBound(v); err == nil && *r.Less == 0 {
				err = E(InvalidRequest, "'ObjectSizeLessThan' must be a positive integer.")
			}
		default:
			err = malformed("element " + c.name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func addTag(r *lifecycle.Rule, t Tag) error {
	if was, twice := r.Tags[t.Key]; twice && was == t.Value {
		return nil
	} else if twice {
		return E(InvalidRequest, "Duplicate Tag Keys are not allowed.")
	}
	if _, err := judgeTags([]Tag{t}, ruleTagsMax); err != nil {
		return err
	}
	if r.Tags == nil {
		r.Tags = map[string]string{}
	}
	r.Tags[t.Key] = t.Value
	return nil
}

func sizeBound(text string) (*uint64, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 63)
	if err != nil {
		return nil, malformed("size")
	}
	return &n, nil
}

func positive(text, message string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0, malformed("number of days")
	}
	if n <= 0 {
		return 0, E(InvalidArgument, message)
	}
	return int(n), nil
}

func parseExpiration(r *lifecycle.Rule, n *node) error {
	v, err := n.values("Days", "Date", "ExpiredObjectDeleteMarker")
	if err != nil {
		return err
	}
	if len(v) != 1 {
		return malformed("an expiration has one of days, date and marker")
	}
	for name, text := range v {
		switch name {
		case "Days":
			r.Days, err = positive(text, "'Days' for Expiration action must be a positive integer")
		case "Date":
			r.Date, err = midnight(text)
		default:
			if text != "true" && text != "false" {
				return malformed(name)
			}
			r.LoneMarkers = text == "true"
		}
	}
	return err
}

// midnight reads the date of a rule.
func midnight(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		if t, err = time.Parse(time.DateOnly, text); err != nil {
			return t, malformed("date")
		}
	}
	if !t.Equal(t.UTC().Truncate(24 * time.Hour)) {
		return t, E(InvalidArgument, "'Date' must be at midnight GMT")
	}
	return t.UTC(), nil
}

func parseNoncurrent(r *lifecycle.Rule, n *node) error {
	v, err := n.values("NoncurrentDays", "NewerNoncurrentVersions")
	if err != nil {
		return err
	}
	r.NoncurrentDays, err = positive(v["NoncurrentDays"], "'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer")
	if keep, given := v["NewerNoncurrentVersions"]; given && err == nil {
		const message = "'NewerNoncurrentVersions' for NoncurrentVersionExpiration action must be between 1 and 100"
		if r.NoncurrentKeep, err = positive(keep, message); err == nil && r.NoncurrentKeep > noncurrentKeepMax {
			err = E(InvalidArgument, message)
		}
	}
	return err
}

func refuseTransition(n *node) error {
	v, err := n.values("Days", "Date", "StorageClass", "NoncurrentDays", "NewerNoncurrentVersions")
	if err != nil {
		return err
	}
	if date, given := v["Date"]; given {
		if _, err := midnight(date); err != nil {
			return err
		}
	}
	return E(NotImplemented, "Transitions are not implemented: there is one storage class, so nothing could move.").
		With("StorageClass", printable(v["StorageClass"]))
}

// Lifecycle writes a LifecycleConfiguration.
func (w *Writer) Lifecycle(c *lifecycle.Config) {
	w.Begin("LifecycleConfiguration")
	for i := range c.Rules {
		w.rule(&c.Rules[i])
	}
	w.Close("LifecycleConfiguration")
}

func (w *Writer) rule(r *lifecycle.Rule) {
	w.Open("Rule")
	w.Text("ID", r.ID)
	if r.Form == lifecycle.Prefix {
		w.Text("Prefix", r.Prefix)
	} else {
		w.filter(r)
	}
	w.Raw("Status", map[bool]string{true: "Enabled", false: "Disabled"}[r.Enabled])
	if r.Days > 0 || !r.Date.IsZero() || r.LoneMarkers {
		w.Open("Expiration")
		switch {
		case r.Days > 0:
			w.Int("Days", int64(r.Days))
		case r.LoneMarkers:
			w.Bool("ExpiredObjectDeleteMarker", true)
		default:
			w.Time("Date", r.Date)
		}
		w.Close("Expiration")
	}
	if r.NoncurrentDays > 0 {
		w.Open("NoncurrentVersionExpiration")
		w.Int("NoncurrentDays", int64(r.NoncurrentDays))
		if r.NoncurrentKeep > 0 {
			w.Int("NewerNoncurrentVersions", int64(r.NoncurrentKeep))
		}
		w.Close("NoncurrentVersionExpiration")
	}
	if r.AbortDays > 0 {
		w.Open("AbortIncompleteMultipartUpload")
		w.Int("DaysAfterInitiation", int64(r.AbortDays))
		w.Close("AbortIncompleteMultipartUpload")
	}
	w.Close("Rule")
}

func (w *Writer) filter(r *lifecycle.Rule) {
	predicates := len(r.Tags)
	for _, given := range []bool{r.Prefix != "", r.Greater != nil, r.Less != nil} {
		if given {
			predicates++
		}
	}
	and := r.Form == lifecycle.And || predicates > 1
	w.Open("Filter")
	if and {
		w.Open("And")
	}
	if r.Prefix != "" || predicates == 0 && r.Form != lifecycle.Empty {
		w.Text("Prefix", r.Prefix)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Tags)) {
		w.Open("Tag")
		w.Text("Key", k)
		w.Text("Value", r.Tags[k])
		w.Close("Tag")
	}
	if r.Greater != nil {
		w.Int("ObjectSizeGreaterThan", int64(*r.Greater))
	}
	if r.Less != nil {
		w.Int("ObjectSizeLessThan", int64(*r.Less))
	}
	if and {
		w.Close("And")
	}
	w.Close("Filter")
}
