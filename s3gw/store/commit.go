package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
)

// commitAttemptTimeout bounds one try of a commit; the next one carries the
// same request id.
const commitAttemptTimeout = 5 * time.Second

// unknownError is a commit of which it could not be learnt whether it was
// applied. What the transaction would refer to must not be deleted.
type unknownError struct{ err error }

func (e *unknownError) Error() string {
	return fmt.Sprintf("the outcome of the commit is unknown: %v", e.err)
}

// Unwrap gives the error its kind, Unavailable, and its cause.
func (e *unknownError) Unwrap() []error {
	return []error{ashlar.E("store: commit", "", ashlar.Unavailable, nil), e.err}
}

// commit applies the transaction. It gives it a fresh request id and repeats
// it under that id until the outcome is known or the deadline passes. It
// returns nil, a *meta.ConditionError, another error when nothing was applied,
// or an *unknownError. A caller that goes away does not stop it: half of the
// work is done by then, and an outcome is better than none.
func (s *Store) commit(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn) error {
	if err := ctx.Err(); err != nil {
		return ashlar.E("store: commit", "", ashlar.Unavailable, err)
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(commitTimeout)
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()

	txn.ID = ashlar.RequestID(ashlar.NewID())
	unknown := false
	for n := 0; ; n++ {
		err := s.tryCommit(ctx, shard, txn)
		if session := sessionOf(ctx); err == nil && session != nil {
			session.note(shard, txn.Seen)
		}
		var refused *meta.ConditionError
		if err == nil || errors.As(err, &refused) {
			return err
		}
		switch ashlar.KindOf(err) {
		case ashlar.Busy, ashlar.Full:
		case ashlar.Invalid, ashlar.Denied:
			if !unknown {
				return err
			}
		default:
			unknown = true
		}
		if !pause(ctx, n) {
			if unknown {
				return &unknownError{err}
			}
			return err
		}
	}
}

func (s *Store) tryCommit(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn) error {
	ctx, cancel := context.WithTimeout(ctx, commitAttemptTimeout)
	defer cancel()
	return s.meta.Commit(ctx, shard, txn)
}

// pause sleeps before attempt n+1, longer each time and by a random amount so
// that racers do not meet again. It reports false when ctx ended.
func pause(ctx context.Context, n int) bool {
	d := min(backoffMin<<min(n, 16), backoffMax)
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// get reads one row, or nil if there is none.
func (s *Store) get(ctx context.Context, shard ashlar.ShardID, key []byte) (*meta.Row, error) {
	ctx, cancel := bounded(ctx, metaTimeout)
	defer cancel()
	r, err := s.getRow(ctx, shard, key)
	if ashlar.Is(err, ashlar.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &r, nil
}

func (s *Store) scan(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest) (meta.ScanPage, error) {
	ctx, cancel := bounded(ctx, metaTimeout)
	defer cancel()
	return s.scanRows(ctx, shard, req)
}

// conditionAt returns the index of the condition that did not hold and the row
// that is there, if err is a refusal.
func conditionAt(err error) (index int, there *meta.Row, ok bool) {
	var refused *meta.ConditionError
	if !errors.As(err, &refused) {
		return 0, nil, false
	}
	return refused.Index, refused.Row, true
}
