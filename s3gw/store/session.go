package store

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"ashlar"
)

// Reads is what a bucket allows beside linearizable reads.
type Reads struct {
	// Follower: HEAD, GET and listings may be answered by any replica whose state
	// is at most FollowerAgeMax old and includes what the client's session has seen.
	Follower bool
	// Stale: when no such state can be had, as in a partition, the last one that a
	// replica has is given, with its age.
	Stale bool
}

// FollowerAgeMax bounds the age of an answer of a follower.
const FollowerAgeMax = time.Second

// settingReads is where a bucket's Reads are kept. It is part of the format.
const settingReads = "reads"

// The words of a stored Reads.
const (
	wordFollower = "follower"
	wordStale    = "stale"
)

// ParseReads reads what String prints: "follower", "stale", both with a comma,
// or "none".
func ParseReads(text string) (r Reads, err error) {
	if text == "none" {
		return r, nil
	}
	for word := range strings.SplitSeq(text, ",") {
		switch word {
		case wordFollower:
			r.Follower = true
		case wordStale:
			r.Stale = true
		default:
			return Reads{}, invalid("reads %q: want follower, stale, follower,stale or none", text)
		}
	}
	return r, nil
}

func (r Reads) String() string {
	var words []string
	if r.Follower {
		words = append(words, wordFollower)
	}
	if r.Stale {
		words = append(words, wordStale)
	}
	if words == nil {
		return "none"
	}
	return strings.Join(words, ",")
}

// BucketReads returns what a bucket allows. Errors: ErrNoSuchBucket.
func (s *Store) BucketReads(ctx context.Context, name string) (Reads, error) {
	b, err := s.lookupFresh(ctx, name)
	if err != nil {
		return Reads{}, fail("reads", name, err)
	}
	return b.reads(), nil
}

// SetBucketReads changes what a bucket allows. Gateways see it within two
// seconds. Errors: ErrNoSuchBucket.
func (s *Store) SetBucketReads(ctx context.Context, name string, r Reads) error {
	if r == (Reads{}) {
		return s.PutSetting(ctx, name, settingReads, nil)
	}
	return s.PutSetting(ctx, name, settingReads, []byte(r.String()))
}

// reads is what the record says; what it does not understand it does not allow.
func (b *bucket) reads() Reads {
	for _, m := range b.rec.Settings {
		if m.Name == settingReads {
			r, _ := ParseReads(string(m.Value))
			return r
		}
	}
	return Reads{}
}

// Session is what one client has seen of the shards: its reads from followers
// see at least that much. Requests that carry one may run at the same time.
type Session struct {
	// Newest makes its reads linearizable: the request changes something.
	Newest bool

	mu      sync.Mutex
	seen    map[ashlar.ShardID]uint64
	age     time.Duration // the largest of an answer
	aged    bool          // an answer had an age
	allowed bool          // a bucket that was named allows more than linearizable reads
}

// sessionMark begins every token.
const sessionMark = "a1"

// sessionShardsMax bounds a token.
const sessionShardsMax = 1024

var errBadSession = errors.New("not a session token of this store")

// NewSession returns the session that a token stands for; an empty token is a
// new one. Anything else is Invalid.
func NewSession(token string) (*Session, error) {
	s := &Session{}
	if token == "" {
		return s, nil
	}
	bad := ashlar.E("store: session", "", ashlar.Invalid, errBadSession)
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < len(sessionMark) || string(raw[:len(sessionMark)]) != sessionMark {
		return nil, bad
	}
	s.seen = map[ashlar.ShardID]uint64{}
	for raw = raw[len(sessionMark):]; len(raw) > 0; {
		shard, n := binary.Uvarint(raw)
		if n <= 0 || shard > 1<<32-1 || len(s.seen) == sessionShardsMax {
			return nil, bad
		}
		index, m := binary.Uvarint(raw[n:])
		if m <= 0 {
			return nil, bad
		}
		s.seen[ashlar.ShardID(shard)] = index
		raw = raw[n+m:]
	}
	return s, nil
}

// Token is what the client is to send with its next request; empty where the
// buckets that were named allow only linearizable reads.
func (s *Session) Token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.allowed {
		return ""
	}
	raw := []byte(sessionMark)
	shards := make([]ashlar.ShardID, 0, len(s.seen))
	for shard := range s.seen {
		shards = append(shards, shard)
	}
	slices.Sort(shards)
	for _, shard := range shards {
		raw = binary.AppendUvarint(raw, uint64(shard))
		raw = binary.AppendUvarint(raw, s.seen[shard])
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// Age is at least the time since what was read was the newest there was; false
// if every read was linearizable.
func (s *Session) Age() (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.age, s.aged
}

func (s *Session) note(shard ashlar.ShardID, index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index <= s.seen[shard] {
		return
	}
	if s.seen == nil {
		s.seen = map[ashlar.ShardID]uint64{}
	}
	if len(s.seen) < sessionShardsMax {
		s.seen[shard] = index
	}
}

func (s *Session) noteAge(age time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.age, s.aged = max(s.age, age), true
}

func (s *Session) has(shard ashlar.ShardID) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[shard]
}

func (s *Session) allow(r Reads) {
	if r == (Reads{}) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed = true
}

type sessionKey struct{}

// WithSession lets the calls that get the context read and grow the session.
func WithSession(ctx context.Context, s *Session) context.Context {
	return context.WithValue(ctx, sessionKey{}, s)
}

func sessionOf(ctx context.Context) *Session {
	s, _ := ctx.Value(sessionKey{}).(*Session)
	return s
}

// String is for logs.
func (s *Session) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.seen)
}
