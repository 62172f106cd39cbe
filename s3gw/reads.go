package s3gw

import (
	"net/http"
	"strconv"
	"time"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

// Reads from replicas that need not lead, for buckets that allow them. What a
// client has seen travels in x-ashlar-session, there and back; an answer that is
// not from the newest state says in x-ashlar-age-ms how old it may be.

const (
	sessionHeader = "X-Ashlar-Session"
	ageHeader     = "X-Ashlar-Age-Ms"
	// subReads is our own subresource of a bucket: what reads it allows.
	subReads = "x-ashlar-reads"
)

// openSession reads the client's session. Only what changes nothing may read
// from another state than the newest.
func (c *call) openSession() (err error) {
	token := c.header(sessionHeader)
	if c.session, err = store.NewSession(token); err != nil {
		return invalidArgument("x-ashlar-session", token, "The session token is not one that this store gave out; leave it away to begin anew.")
	}
	c.session.Newest = c.r.Method != http.MethodGet && c.r.Method != http.MethodHead
	c.ctx = store.WithSession(c.ctx, c.session)
	return nil
}

// sessionHeaders tells the client what it has seen now, and how old that may be.
func (c *call) sessionHeaders() {
	if c.session == nil {
		return
	}
	if token := c.session.Token(); token != "" {
		c.set(sessionHeader, token)
	}
	if age, ok := c.session.Age(); ok {
		c.set(ageHeader, strconv.FormatInt(int64((age+time.Millisecond-1)/time.Millisecond), 10))
	}
}

func getBucketReads(c *call) error {
	r, err := c.s.backend.BucketReads(c.ctx, string(c.bucket))
	if err != nil {
		return withBucket(err, c.bucket)
	}
	return c.xml(http.StatusOK, func(w *s3.Writer) {
		w.Begin("AshlarReads")
		w.Bool("Follower", r.Follower)
		w.Bool("Stale", r.Stale)
		w.Close("AshlarReads")
	})
}

func putBucketReads(c *call) error {
	text := c.query.Value(subReads)
	r, err := store.ParseReads(text)
	if err != nil {
		return invalidArgument(subReads, text, "Want follower, stale, follower,stale or none.")
	}
	if err := c.s.backend.SetBucketReads(c.ctx, string(c.bucket), r); err != nil {
		return withBucket(err, c.bucket)
	}
	return c.empty(http.StatusOK)
}
