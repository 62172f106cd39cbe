package s3gw

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"ashlar/s3gw/iam"
	"ashlar/s3gw/s3"
)

// Rate bounds what one user or one bucket may ask of a gateway. Zero is no bound.
type Rate struct {
	RequestsPerSecond float64 `toml:"requests-per-second,omitempty"`
	// BytesPerSecond counts bodies, both ways, from when their length is known.
	BytesPerSecond float64 `toml:"bytes-per-second,omitempty"`
}

// Rates are the bounds of all users and buckets: one for each of them, and others for
// those that are named. Every gateway counts what it serves itself, so that a cluster
// allows as many times as much as it has gateways.
//
// A user is named by its ARN, that of a session by its role's; everybody without
// credentials together is "anonymous".
type Rates struct {
	User    Rate            `toml:"user,omitempty"`
	Bucket  Rate            `toml:"bucket,omitempty"`
	Users   map[string]Rate `toml:"users,omitempty"`
	Buckets map[string]Rate `toml:"buckets,omitempty"`
}

// check judges a configuration.
func (r *Rates) check() error {
	if r == nil {
		return nil
	}
	bad := func(name string, rate Rate) error {
		for _, v := range []float64{rate.RequestsPerSecond, rate.BytesPerSecond} {
			if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("%s: a rate is a number above 0, or 0 for no bound", name)
			}
		}
		return nil
	}
	err := errors.Join(bad("user", r.User), bad("bucket", r.Bucket))
	for name, rate := range r.Users {
		if name != anonymousUser && !strings.HasPrefix(name, "arn:") {
			err = errors.Join(err, fmt.Errorf("users.%q: name a user by its ARN, or all without credentials as anonymous", name))
		}
		err = errors.Join(err, bad("users."+name, rate))
	}
	for name, rate := range r.Buckets {
		if _, bucketErr := s3.ParseBucket(name); bucketErr != nil {
			err = errors.Join(err, fmt.Errorf("buckets.%q: no bucket can have this name", name))
		}
		err = errors.Join(err, bad("buckets."+name, rate))
	}
	return err
}

const (
	anonymousUser = "anonymous"
	// rateBurst is how much of what was not used is saved up.
	rateBurst = time.Second
	// metersMax bounds how many users, and how many buckets, are counted at once.
	metersMax = 16384
)

// meter is how far into the future a user or a bucket has used up its rates.
type meter struct{ requests, bytes time.Time }

func (m *meter) idle(now time.Time) bool { return !m.requests.After(now) && !m.bytes.After(now) }

// limiter counts either users or buckets. Nil has no bounds.
type limiter struct {
	every Rate
	named map[string]Rate
	mu    struct {
		sync.Mutex
		meters map[string]*meter
	}
}

func newLimiter(every Rate, named map[string]Rate) *limiter {
	if every == (Rate{}) && len(named) == 0 {
		return nil
	}
	l := &limiter{every: every, named: named}
	l.mu.meters = map[string]*meter{}
	return l
}

func (l *limiter) rateOf(name string) Rate {
	if r, ok := l.named[name]; ok {
		return r
	}
	return l.every
}

// admit counts one request, unless the name has used up its rates: then it returns
// how long they will be used up.
func (l *limiter) admit(name string, now time.Time) (wait time.Duration) {
	if l == nil {
		return 0
	}
	rate := l.rateOf(name)
	if rate == (Rate{}) {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.meterLocked(name, now)
	if rate.RequestsPerSecond > 0 {
		wait = m.requests.Sub(now)
	}
	if rate.BytesPerSecond > 0 {
		wait = max(wait, m.bytes.Sub(now))
	}
	if wait <= 0 && rate.RequestsPerSecond > 0 {
		m.requests = used(m.requests, 1/rate.RequestsPerSecond, now)
	}
	return max(wait, 0)
}

// charge counts bytes that are on their way.
func (l *limiter) charge(name string, bytes int64, now time.Time) {
	if l == nil || bytes <= 0 {
		return
	}
	rate := l.rateOf(name).BytesPerSecond
	if rate <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.meterLocked(name, now)
	m.bytes = used(m.bytes, float64(bytes)/rate, now)
}

// used returns until when a rate is used up after seconds more of it.
func used(until time.Time, seconds float64, now time.Time) time.Time {
	if saved := now.Add(-rateBurst); until.Before(saved) {
		until = saved
	}
	return until.Add(time.Duration(min(seconds, rateDebtMax.Seconds()) * float64(time.Second)))
}

// rateDebtMax is the longest that one body may keep its sender waiting.
const rateDebtMax = time.Hour

func (l *limiter) meterLocked(name string, now time.Time) *meter {
	m := l.mu.meters[name]
	if m != nil {
		return m
	}
	if len(l.mu.meters) >= metersMax {
		l.forgetLocked(now)
	}
	m = &meter{}
	l.mu.meters[name] = m
	return m
}

// forgetLocked makes room: of those who owe nothing, and if all owe, of anybody.
func (l *limiter) forgetLocked(now time.Time) {
	for name, m := range l.mu.meters {
		if m.idle(now) {
			delete(l.mu.meters, name)
		}
	}
	for name := range l.mu.meters {
		if len(l.mu.meters) < metersMax {
			return
		}
		delete(l.mu.meters, name)
	}
}

// payer is the name by which a sender's requests are counted.
func (c *call) payer() string {
	switch {
	case c.who.Kind == iam.Anonymous:
		return anonymousUser
	case c.who.Role != "":
		return c.who.Role
	}
	return c.who.ARN
}

// admitUser counts the request of a sender, and admitBucket that of a bucket: after it
// was authorised, so that nobody uses up what is others'.
func (c *call) admitUser() error {
	if c.s.userRates == nil {
		return nil
	}
	c.user = c.payer()
	return tooFast(c.s.userRates.admit(c.user, c.s.now()))
}

func (c *call) admitBucket() error {
	if err := tooFast(c.s.bucketRates.admit(string(c.bucket), c.s.now())); err != nil {
		return err
	}
	c.admitted = true
	c.charge(c.r.ContentLength)
	return nil
}

// charge counts bytes of a body for the sender and the bucket of an admitted request.
func (c *call) charge(bytes int64) {
	if c.admitted {
		c.s.userRates.charge(c.user, bytes, c.s.now())
		c.s.bucketRates.charge(string(c.bucket), bytes, c.s.now())
	}
}

// chargeAnswer counts the body of the answer that begins.
func (c *call) chargeAnswer() {
	if c.s.userRates == nil && c.s.bucketRates == nil || c.r.Method == "HEAD" {
		return
	}
	if n, err := strconv.ParseInt(c.w.Header().Get("Content-Length"), 10, 64); err == nil {
		c.charge(n)
	}
}

func tooFast(wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	return &s3.Error{Code: s3.SlowDown, RetryAfterSeconds: int((wait + time.Second - 1) / time.Second)}
}
