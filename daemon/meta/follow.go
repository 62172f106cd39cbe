package meta

import (
	"context"
	"time"

	"ashlar"
)

// Followers reads from whichever replica is at hand. What it gives is a state
// that the shard really had, perhaps not its newest one.
type Followers interface {
	// GetAt is Store.Get of a state that is as new as at demands. If none can be
	// had, the error is of kind Unavailable.
	GetAt(ctx context.Context, shard ashlar.ShardID, key []byte, at At) (Row, Seen, error)
	// ScanAt is Store.Scan of such a state.
	ScanAt(ctx context.Context, shard ashlar.ShardID, req ScanRequest, at At) (ScanPage, Seen, error)
}

// At says how new a state must be.
type At struct {
	// Index is the least log index that it includes: what the caller has seen.
	Index uint64
	// MaxAge bounds its age; 0 takes any age, as long as it is known.
	MaxAge time.Duration
}

// Seen says what state an answer is of.
type Seen struct {
	// Index is at least the log index of everything that the answer shows.
	Index uint64
	// Age is at least the time since the state was the newest there was. It was
	// measured on one host's clock, from before the replica asked the shard's
	// leader what is committed.
	Age time.Duration
}
