package store

import (
	"context"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
)

// slowLeader is a meta.Store whose leader answers later than anybody waits who has
// a stale state to give instead; its followers answer at once.
type slowLeader struct{ meta.Store }

func (s slowLeader) Get(ctx context.Context, shard ashlar.ShardID, key []byte) (meta.Row, error) {
	if by, limited := ctx.Deadline(); limited && time.Until(by) <= patience {
		return meta.Row{}, errLost
	}
	return s.Store.Get(ctx, shard, key)
}

func (s slowLeader) GetAt(ctx context.Context, shard ashlar.ShardID, key []byte, _ meta.At) (meta.Row, meta.Seen, error) {
	r, err := s.Store.Get(ctx, shard, key)
	return r, meta.Seen{Age: time.Hour}, err
}

func (s slowLeader) ScanAt(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest, _ meta.At) (meta.ScanPage, meta.Seen, error) {
	p, err := s.Store.Scan(ctx, shard, req)
	return p, meta.Seen{Age: time.Hour}, err
}

// TestSlowLeader: patience is short only for buckets that allow stale reads.
func TestSlowLeader(t *testing.T) {
	r := newRig(t)
	want(t, r.CreateBucket(r.ctx, "me", "stale", ""), nil)
	want(t, r.SetBucketReads(r.ctx, "stale", Reads{Stale: true}), nil)
	slow := New(slowLeader{r.meta}, r.stripes, testMap, Options{Clock: r.clock.Now})
	defer slow.Close()
	for _, c := range []struct {
		bucket  string
		aged    bool
		missing error
	}{{"b", false, nil}, {"stale", true, nil}, {"none", false, ErrNoSuchBucket}} {
		session, err := NewSession("")
		want(t, err, nil)
		_, err = slow.Access(WithSession(context.Background(), session), c.bucket)
		want(t, err, c.missing)
		if _, aged := session.Age(); aged != c.aged {
			t.Errorf("%s: decided by an old record: %v", c.bucket, aged)
		}
		if troubled := slow.trouble.patience() != patience; troubled != c.aged {
			t.Errorf("%s: patience is short: %v", c.bucket, troubled)
		}
	}
}
