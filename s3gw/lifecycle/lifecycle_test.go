package lifecycle

import (
	"testing"
	"time"
)

var (
	start = time.Date(2026, 3, 1, 10, 30, 0, 0, time.UTC)
	size  = func(n uint64) *uint64 { return &n }
)

func TestDays(t *testing.T) {
	midnight := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		clock Clock
		from  time.Time
		days  int
		want  time.Time
	}{
		{Clock{}, start, 1, midnight.AddDate(0, 0, 2)}, // a day later, at the midnight that follows
		{Clock{}, midnight, 1, midnight.AddDate(0, 0, 1)},
		{Clock{Day: 24 * time.Hour}, start, 30, midnight.AddDate(0, 0, 31)},
		{Clock{Day: 10 * time.Second}, start, 3, start.Add(30 * time.Second)},
	} {
		if got := c.clock.After(c.from, c.days); !got.Equal(c.want) {
			t.Errorf("%v + %d days of %v = %v, want %v", c.from, c.days, c.clock.Day, got, c.want)
		}
	}
}

func TestFilters(t *testing.T) {
	v := Version{Key: "logs/a", Bytes: 100, Tags: map[string]string{"k": "v", "x": ""}, Modified: start}
	for name, c := range map[string]struct {
		rule Rule
		want bool
	}{
		"everything":    {Rule{}, true},
		"prefix":        {Rule{Prefix: "logs/"}, true},
		"other prefix":  {Rule{Prefix: "log/"}, false},
		"tag":           {Rule{Tags: map[string]string{"k": "v"}}, true},
		"empty tag":     {Rule{Tags: map[string]string{"x": ""}}, true},
		"absent tag":    {Rule{Tags: map[string]string{"y": ""}}, false},
		"both tags":     {Rule{Tags: map[string]string{"k": "v", "x": ""}}, true},
		"one tag wrong": {Rule{Tags: map[string]string{"k": "v", "x": "1"}}, false},
		"greater":       {Rule{Greater: size(99)}, true},
		"not greater":   {Rule{Greater: size(100)}, false},
		"less":          {Rule{Less: size(101)}, true},
		"not less":      {Rule{Less: size(100)}, false},
	} {
		c.rule.Days = 1
		config := &Config{Rules: []Rule{c.rule}}
		if d := config.Expiry(&v, Clock{}); !d.At.IsZero() {
			t.Errorf("%s: a rule that is disabled is due at %v", name, d.At)
		}
		config.Rules[0].Enabled = true
		if d := config.Expiry(&v, Clock{}); d.At.IsZero() == c.want {
			t.Errorf("%s: due at %v", name, d.At)
		}
	}
	marker := Version{Key: "logs/a", Marker: true, Modified: start}
	for _, r := range []Rule{{Greater: size(0)}, {Less: size(10)}, {Tags: map[string]string{"k": "v"}}} {
		r.Enabled, r.LoneMarkers = true, true
		if d := (&Config{Rules: []Rule{r}}).Lone(&marker, Clock{}); !d.At.IsZero() {
			t.Errorf("%+v takes a delete marker", r)
		}
	}
}

func TestWhatIsDue(t *testing.T) {
	days := Clock{Day: time.Hour}
	c := &Config{Rules: []Rule{
		{ID: "slow", Enabled: true, Days: 9, NoncurrentDays: 9, AbortDays: 9},
		{ID: "fast", Enabled: true, Prefix: "a", Days: 2, NoncurrentDays: 3, NoncurrentKeep: 2, AbortDays: 4, LoneMarkers: true},
	}}
	v, m := Version{Key: "ab", Modified: start}, Version{Key: "ab", Modified: start, Marker: true}
	other := Version{Key: "b", Modified: start}
	hour := func(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }
	for name, c := range map[string]struct {
		got  Due
		at   time.Time
		rule string
	}{
		"the first rule counts":      {c.Expiry(&v, days), hour(2), "fast"},
		"another key":                {c.Expiry(&other, days), hour(9), "slow"},
		"markers do not expire":      {c.Expiry(&m, days), time.Time{}, ""},
		"a lone marker":              {c.Lone(&m, days), start, "fast"},
		"no marker":                  {c.Lone(&v, days), time.Time{}, ""},
		"noncurrent, kept":           {c.Noncurrent(&v, hour(1), 1, days), hour(10), "slow"},
		"noncurrent, one too many":   {c.Noncurrent(&v, hour(1), 2, days), hour(4), "fast"},
		"an upload":                  {c.Abort("ab", hour(1), days), hour(5), "fast"},
		"an upload of another key":   {c.Abort("b", hour(1), days), hour(10), "slow"},
		"nothing without rules":      {(*Config)(nil).Expiry(&v, days), time.Time{}, ""},
		"no upload without rules":    {(*Config)(nil).Abort("ab", start, days), time.Time{}, ""},
		"a marker without its rules": {(&Config{}).Lone(&m, days), time.Time{}, ""},
	} {
		if !c.got.At.Equal(c.at) || c.got.Rule != c.rule {
			t.Errorf("%s: %+v, want %v by %q", name, c.got, c.at, c.rule)
		}
	}
	date := &Config{Rules: []Rule{{ID: "d", Enabled: true, Date: hour(-5)}}}
	if d := date.Expiry(&v, days); !d.At.Equal(hour(-5)) {
		t.Errorf("a date in the past: %+v", d)
	}
	if !c.Counts("ab") || c.Counts("b") || !c.Touches("b") || date.Counts("ab") {
		t.Error("Counts or Touches")
	}
}
