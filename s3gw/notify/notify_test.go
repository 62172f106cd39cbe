package notify

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestKnown(t *testing.T) {
	for e, want := range map[string]bool{
		Put: true, "s3:ObjectCreated:*": true, "s3:ObjectRemoved:*": true, "s3:LifecycleExpiration:*": true, "s3:ObjectTagging:*": true, "s3:ObjectAcl:*": true,
		"": false, "*": false, "s3:*": false, "s3:ObjectCreated": false, "s3:ObjectCreated:": false, "s3:ObjectCreated:Pu": false, "s3:ObjectCreated:*:*": false, "s3:Replication:*": false,
	} {
		if Known(e) != want {
			t.Errorf("%q: %v", e, !want)
		}
	}
}

// TestOverlap: rules overlap if and only if some event of some key is for both.
func TestOverlap(t *testing.T) {
	part := rapid.StringMatching(`[ab]{0,3}`)
	patterns := append([]string{"s3:ObjectCreated:*", "s3:ObjectRemoved:*"}, events...)
	rapid.Check(t, func(t *rapid.T) {
		c := &Config{Rules: make([]Rule, 2)}
		for i := range c.Rules {
			c.Rules[i] = Rule{Events: []string{rapid.SampledFrom(patterns).Draw(t, "event")}, Prefix: part.Draw(t, "prefix"), Suffix: part.Draw(t, "suffix")}
		}
		a, b := c.Rules[0], c.Rules[1]
		// If there is a common key, then one that begins and ends with what is asked for.
		longer := func(x, y string) string {
			if len(x) > len(y) {
				return x
			}
			return y
		}
		key := longer(a.Prefix, b.Prefix) + "-" + longer(a.Suffix, b.Suffix)
		both := false
		for _, e := range events {
			one := (&Config{Rules: []Rule{a}}).Match(e, key)
			both = both || one != nil && (&Config{Rules: []Rule{b}}).Match(e, key) != nil
		}
		if x, _ := c.Overlap(); (x != nil) != both {
			t.Fatalf("%+v and %+v: overlap %v, both match %v", a, b, x != nil, both)
		}
	})
}

func TestARN(t *testing.T) {
	if _, name, kind, err := ParseARN(ARN("lake-1", "webhook")); err != nil || name != "lake-1" || kind != "webhook" {
		t.Error(name, kind, err)
	}
	for _, bad := range []string{"", "arn:ashlar:sqs::lake", "arn:aws:sqs::lake:webhook", "arn:ashlar:sns::lake:webhook", "arn:ashlar:sqs::La:webhook", "arn:ashlar:sqs::" + strings.Repeat("a", 65) + ":webhook", "arn:ashlar:sqs::a:webhook:x", "arn:ashlar:sqs::a:"} {
		if _, _, _, err := ParseARN(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
