// Package notify is what the notifications of a bucket mean: which rule is for
// which event of which key, and the record in which an event is told.
//
// Everything here is a pure function of its arguments. The package knows neither
// how a configuration is written (s3gw/s3) nor how it and the events are kept
// (s3gw/store), nor how a target is reached (s3gw/notify/courier).
//
// # Targets
//
// Who is told is declared by the operator, never by a client: a rule names a target
// by an ARN of the form
//
//	arn:ashlar:sqs:REGION:NAME:KIND
//
// whose region may be empty. Queues, topics and functions take the same ARNs.
package notify

import (
	"fmt"
	"slices"
	"strings"
)

// The events that happen here, as S3 names them.
const (
	Put             = "s3:ObjectCreated:Put"
	Post            = "s3:ObjectCreated:Post"
	Copy            = "s3:ObjectCreated:Copy"
	Complete        = "s3:ObjectCreated:CompleteMultipartUpload"
	Delete          = "s3:ObjectRemoved:Delete"
	MarkerCreated   = "s3:ObjectRemoved:DeleteMarkerCreated"
	Expired         = "s3:LifecycleExpiration:Delete"
	ExpiredByMarker = "s3:LifecycleExpiration:DeleteMarkerCreated"
	TagsPut         = "s3:ObjectTagging:Put"
	TagsDeleted     = "s3:ObjectTagging:Delete"
	ACLPut          = "s3:ObjectAcl:Put"
)

// Test is told to the targets of a configuration when it is set. No rule can ask for it.
const Test = "s3:TestEvent"

var events = []string{Put, Post, Copy, Complete, Delete, MarkerCreated, Expired, ExpiredByMarker, TagsPut, TagsDeleted, ACLPut}

// Known reports whether a rule may be for an event: one of the above, or all of a
// family, such as s3:ObjectCreated:*.
func Known(event string) bool {
	return slices.ContainsFunc(events, func(e string) bool { return covers(event, e) })
}

// covers reports whether an event of a rule means the event that happened.
func covers(rule, event string) bool {
	family, all := strings.CutSuffix(rule, ":*")
	return rule == event || all && strings.Count(family, ":") == 1 && strings.HasPrefix(event, family+":")
}

// Kind is how S3 calls a target.
type Kind uint8

// The kinds of targets. They make no difference.
const (
	Queue Kind = iota
	Topic
	Function
)

// Rule says that some events of some keys are told to a target.
type Rule struct {
	ID   string
	Kind Kind
	// ARN names the target; see ParseARN.
	ARN            string
	Events         []string
	Prefix, Suffix string
}

// Config is the notification configuration of a bucket. A nil Config has no rules.
type Config struct{ Rules []Rule }

// Match returns the rule for an event of a key, nil if there is none.
func (c *Config) Match(event, key string) *Rule {
	if c == nil {
		return nil
	}
	for i := range c.Rules {
		r := &c.Rules[i]
		if strings.HasPrefix(key, r.Prefix) && strings.HasSuffix(key, r.Suffix) &&
			slices.ContainsFunc(r.Events, func(e string) bool { return covers(e, event) }) {
			return r
		}
	}
	return nil
}

// Overlap returns two rules that could both be for one event, if there are such.
func (c *Config) Overlap() (a, b *Rule) {
	for i := range c.Rules {
		for j := range c.Rules[:i] {
			if a, b := &c.Rules[j], &c.Rules[i]; a.overlaps(b) {
				return a, b
			}
		}
	}
	return nil, nil
}

func (r *Rule) overlaps(o *Rule) bool {
	common := slices.ContainsFunc(events, func(e string) bool {
		mine := slices.ContainsFunc(r.Events, func(p string) bool { return covers(p, e) })
		return mine && slices.ContainsFunc(o.Events, func(p string) bool { return covers(p, e) })
	})
	return common &&
		(strings.HasPrefix(r.Prefix, o.Prefix) || strings.HasPrefix(o.Prefix, r.Prefix)) &&
		(strings.HasSuffix(r.Suffix, o.Suffix) || strings.HasSuffix(o.Suffix, r.Suffix))
}

// Target returns the name of the rule's target.
func (r *Rule) Target() string {
	_, name, _, _ := ParseARN(r.ARN)
	return name
}

// ARN returns the name by which clients know a target.
func ARN(name, kind string) string { return "arn:ashlar:sqs::" + name + ":" + kind }

// ParseARN reads the ARN of a target.
func ParseARN(arn string) (region, name, kind string, err error) {
	parts := strings.Split(arn, ":")
	if len(parts) != 6 || parts[0] != "arn" || parts[1] != "ashlar" || parts[2] != "sqs" || CheckName(parts[4]) != nil || parts[5] == "" {
		return "", "", "", fmt.Errorf("%q: want arn:ashlar:sqs::NAME:KIND", arn)
	}
	return parts[3], parts[4], parts[5], nil
}

// nameBytesMax bounds the name of a target.
const nameBytesMax = 64

// CheckName judges the name of a target.
func CheckName(name string) error {
	bad := name == "" || len(name) > nameBytesMax
	for _, c := range []byte(name) {
		bad = bad || !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-')
	}
	if bad {
		return fmt.Errorf("target %q: a name is 1 to %d of a-z, 0-9 and -", name, nameBytesMax)
	}
	return nil
}
