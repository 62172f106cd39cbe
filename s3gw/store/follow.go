package store

import (
	"context"
	"sync/atomic"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/store/row"
)

const (
	// patience is how long a newer state is waited for before a stale one is
	// given; while leaders were out of reach a moment ago, shortPatience.
	patience      = 3 * time.Second
	shortPatience = 300 * time.Millisecond
	troubleFor    = 10 * time.Second
)

// trouble remembers when a newer state could not be had last.
type trouble struct{ at atomic.Int64 }

func (t *trouble) patience() time.Duration {
	if at := t.at.Load(); at != 0 && time.Since(time.Unix(0, at)) < troubleFor {
		return shortPatience
	}
	return patience
}

func (t *trouble) saw(ok bool) {
	if ok {
		t.at.Store(0)
	} else {
		t.at.Store(time.Now().UnixNano())
	}
}

// following is a read that need not be linearizable.
type following struct {
	session *Session
	reads   Reads
	store   meta.Followers
}

type followingKey struct{}

func followingOf(ctx context.Context) *following {
	f, _ := ctx.Value(followingKey{}).(*following)
	return f
}

// follow lets reads of the bucket's rows be what the bucket allows. A request
// without a session gets linearizable reads.
func (s *Store) follow(ctx context.Context, b *bucket) context.Context {
	session, reads := sessionOf(ctx), b.reads()
	store, ok := s.meta.(meta.Followers)
	if session == nil || session.Newest || reads == (Reads{}) || !ok {
		return ctx
	}
	session.allow(reads)
	return context.WithValue(ctx, followingKey{}, &following{session: session, reads: reads, store: store})
}

// readingAt is reading for requests that change nothing: fn gets a context whose
// reads are what the bucket allows.
func (s *Store) readingAt(ctx context.Context, name string, missing error, fn func(context.Context, *bucket) error) error {
	b, err := s.lookupAt(ctx, name)
	if err != nil {
		return err
	}
	return s.readingFrom(ctx, name, b, missing, func(b *bucket) error { return fn(s.follow(ctx, b), b) })
}

// lookupAt is lookup, which falls back to an old record of the bucket if that
// allows stale reads. Whether it does is known only when there is a record: any
// other bucket has the patience of its caller.
func (s *Store) lookupAt(ctx context.Context, name string) (*bucket, error) {
	session := sessionOf(ctx)
	store, ok := s.meta.(meta.Followers)
	if session == nil || session.Newest || !ok {
		return s.lookup(ctx, name)
	}
	try, cancel := context.WithTimeout(ctx, s.trouble.patience())
	defer cancel()
	b, err := s.lookup(try, name)
	if err == nil || !ashlar.Is(err, ashlar.Unavailable) || ctx.Err() != nil {
		return b, err
	}
	s.trouble.saw(false)
	if old, seen, err := store.GetAt(ctx, directoryShard, row.BucketKey(name), meta.At{Index: session.has(directoryShard)}); err == nil {
		if b, err = decodeBucket(name, &old); err == nil && b.exists() && b.reads().Stale {
			session.noteAge(seen.Age)
			return b, nil
		}
	}
	b, err = s.lookup(ctx, name)
	s.trouble.saw(!ashlar.Is(err, ashlar.Unavailable))
	return b, err
}

// read asks for a state as the bucket allows it: ask with a bound, or newest
// without one, and if that is not to be had, ask for any.
func (f *following) read(ctx context.Context, s *Store, shard ashlar.ShardID,
	newest func(context.Context) error, ask func(context.Context, meta.At) (meta.Seen, error),
) error {
	try := ctx
	if f.reads.Stale {
		var cancel context.CancelFunc
		try, cancel = context.WithTimeout(ctx, s.trouble.patience())
		defer cancel()
	}
	var err error
	if f.reads.Follower {
		err = f.noted(try, shard, FollowerAgeMax, ask)
	} else {
		err = newest(try)
	}
	away := ashlar.Is(err, ashlar.Unavailable)
	if !f.reads.Stale || !away || ctx.Err() != nil {
		s.trouble.saw(!away)
		return err
	}
	s.trouble.saw(false)
	if stale := f.noted(ctx, shard, 0, ask); !ashlar.Is(stale, ashlar.Unavailable) {
		return stale
	}
	return err
}

// noted asks, and notes in the session what the answer is of. A missing row is
// an answer too.
func (f *following) noted(ctx context.Context, shard ashlar.ShardID, ageMax time.Duration, ask func(context.Context, meta.At) (meta.Seen, error)) error {
	seen, err := ask(ctx, meta.At{Index: f.session.has(shard), MaxAge: ageMax})
	if err == nil || ashlar.Is(err, ashlar.NotFound) {
		f.session.note(shard, seen.Index)
		f.session.noteAge(seen.Age)
	}
	return err
}

func (s *Store) getRow(ctx context.Context, shard ashlar.ShardID, key []byte) (r meta.Row, err error) {
	f := followingOf(ctx)
	if f == nil {
		return s.meta.Get(ctx, shard, key)
	}
	err = f.read(ctx, s, shard, func(ctx context.Context) (err error) {
		r, err = s.meta.Get(ctx, shard, key)
		return err
	}, func(ctx context.Context, at meta.At) (seen meta.Seen, err error) {
		r, seen, err = f.store.GetAt(ctx, shard, key, at)
		return seen, err
	})
	return r, err
}

func (s *Store) scanRows(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest) (page meta.ScanPage, err error) {
	f := followingOf(ctx)
	if f == nil {
		return s.meta.Scan(ctx, shard, req)
	}
	err = f.read(ctx, s, shard, func(ctx context.Context) (err error) {
		page, err = s.meta.Scan(ctx, shard, req)
		return err
	}, func(ctx context.Context, at meta.At) (seen meta.Seen, err error) {
		page, seen, err = f.store.ScanAt(ctx, shard, req, at)
		return seen, err
	})
	return page, err
}
