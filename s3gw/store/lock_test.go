package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
)

func (r *rig) locked(t *testing.T) {
	t.Helper()
	want(t, r.CreateBucketWith(r.ctx, "me", "locked", "", BucketOptions{Locked: true}), nil)
}

func (r *rig) putLocked(t *testing.T, key string, l Lock) Object {
	t.Helper()
	o, err := r.PutObject(r.ctx, &PutRequest{Bucket: "locked", Key: key, Owner: "me", Lock: l}, body([]byte(key)))
	want(t, err, nil)
	if o.Version == "" {
		t.Fatal("a version in a locked bucket has no id")
	}
	return o
}

func (r *rig) del(s *Store, o Object, bypass bool) error {
	_, err := s.DeleteObject(r.ctx, "locked", o.Key, o.Version, "me", Conditions{Bypass: bypass})
	return err
}

// Every way to lose a version is closed while it is locked, and open after.
func TestLockedVersionsStay(t *testing.T) {
	now := func(r *rig) time.Time { return r.clock.Now() }
	for _, c := range []struct {
		name             string
		lock             func(r *rig) Lock
		plain, bypass    error
		afterHour, after error // without and with bypass
	}{
		{"governance", func(r *rig) Lock { return Lock{Mode: Governance, Until: now(r).Add(time.Hour)} }, ErrLocked, nil, nil, nil},
		{"compliance", func(r *rig) Lock { return Lock{Mode: Compliance, Until: now(r).Add(time.Hour)} }, ErrLocked, ErrLocked, nil, nil},
		{"hold", func(r *rig) Lock { return Lock{Hold: HoldOn} }, ErrLocked, ErrLocked, ErrLocked, ErrLocked},
		{"hold off", func(r *rig) Lock { return Lock{Hold: HoldOff} }, nil, nil, nil, nil},
		{"both", func(r *rig) Lock { return Lock{Mode: Governance, Until: now(r).Add(time.Hour), Hold: HoldOn} }, ErrLocked, ErrLocked, ErrLocked, ErrLocked},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.locked(t)
			for i, step := range []struct {
				bypass bool
				want   error
				wait   time.Duration
			}{{false, c.plain, 0}, {true, c.bypass, 0}, {false, c.afterHour, time.Hour + time.Second}, {true, c.after, time.Hour + time.Second}} {
				for _, current := range []bool{true, false} {
					key := fmt.Sprintf("k%d%t", i, current)
					o := r.putLocked(t, key, c.lock(r))
					if !current {
						r.putLocked(t, key, Lock{}) // an overwrite makes a version and is allowed
					}
					r.clock.advance(step.wait)
					want(t, r.del(r.again(), o, step.bypass), step.want)
					_, err := r.HeadObject(r.ctx, "locked", key, o.Version)
					if gone := errors.Is(err, ErrNoSuchVersion) || errors.Is(err, ErrNoSuchKey); gone != (step.want == nil) {
						t.Fatalf("step %d: after the deletion: %v", i, err)
					}
				}
			}
			_, err := r.DeleteObject(r.ctx, "locked", "k0true", "", "me", Conditions{})
			want(t, err, nil) // a delete marker is no deletion
			r.audit(t)
		})
	}
}

func TestRetentionIsNotShortened(t *testing.T) {
	r := newRig(t)
	r.locked(t)
	hour := func(n int) time.Time { return r.clock.Now().Add(time.Duration(n) * time.Hour) }
	for i, c := range []struct {
		from, to LockMode
		hours    int // the old one has two
		bypass   bool
		want     error
	}{
		{Governance, Governance, 3, false, nil},
		{Governance, Governance, 1, false, ErrLocked},
		{Governance, Governance, 1, true, nil},
		{Governance, Compliance, 3, false, ErrLocked},
		{Governance, Compliance, 3, true, nil},
		{Governance, "", 0, false, ErrLocked},
		{Governance, "", 0, true, nil},
		{Compliance, Compliance, 3, false, nil},
		{Compliance, Compliance, 1, true, ErrLocked},
		{Compliance, Governance, 3, true, ErrLocked},
		{Compliance, "", 0, true, ErrLocked},
		{"", Compliance, 1, false, nil},
	} {
		o := r.putLocked(t, fmt.Sprint(i), Lock{Mode: c.from, Until: hour(2)})
		err := r.SetRetention(r.ctx, "locked", o.Key, o.Version, c.to, hour(c.hours), c.bypass)
		want(t, err, c.want)
		mode := c.to
		if c.want != nil {
			mode = c.from
		}
		if got, err := r.HeadObject(r.ctx, "locked", o.Key, ""); err != nil || got.Lock.Mode != mode {
			t.Errorf("%d: %v, %v; want %s", i, got.Lock, err, mode)
		}
	}
	o := r.putLocked(t, "ended", Lock{Mode: Compliance, Until: hour(1)})
	r.clock.advance(2 * time.Hour)
	want(t, r.SetRetention(r.ctx, "locked", o.Key, "", "", time.Time{}, false), nil)
	want(t, r.SetLegalHold(r.ctx, "locked", o.Key, "", true), nil)
	want(t, r.del(r.Store, o, true), ErrLocked)
	want(t, r.SetLegalHold(r.ctx, "locked", o.Key, o.Version, false), nil)
	want(t, r.del(r.Store, o, false), nil)
}

func TestObjectLockNeedsItsBucket(t *testing.T) {
	r := newRig(t)
	r.put(t, "b", "k", "x")
	want(t, r.SetObjectLock(r.ctx, "b", nil), ErrBucketState)
	want(t, r.SetRetention(r.ctx, "b", "k", "", Governance, r.clock.Now().Add(time.Hour), false), ErrNoObjectLock)
	want(t, r.SetLegalHold(r.ctx, "b", "k", "", true), ErrNoObjectLock)
	_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Lock: Lock{Hold: HoldOn}}, body(nil))
	want(t, err, ErrNoObjectLock)
	_, err = r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Lock: Lock{Hold: HoldOff}}, body(nil))
	want(t, err, nil)
	_, err = r.CreateUpload(r.ctx, &Upload{Bucket: "b", Key: "k", Lock: Lock{Hold: HoldOn}})
	want(t, err, ErrNoObjectLock)

	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	want(t, r.SetObjectLock(r.ctx, "b", &DefaultLock{Mode: Compliance, Days: 2}), nil)
	want(t, r.SetVersioning(r.ctx, "b", VersioningSuspended), ErrBucketState)
	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	b, err := r.HeadBucket(r.ctx, "b")
	if err != nil || !b.ObjectLock || b.Versioning != VersioningEnabled || *b.DefaultLock != (DefaultLock{Mode: Compliance, Days: 2}) {
		t.Fatalf("%+v %v", b, err)
	}
	want(t, r.DeleteBucket(r.ctx, "b"), ErrBucketNotEmpty)
}

// A gateway that remembers the bucket as it was gives its next write the
// default retention all the same, and its next deletion does no harm.
func TestObjectLockHoldsThroughOtherGateways(t *testing.T) {
	r := newRig(t)
	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	other := r.again()
	_, err := other.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "old"}, body(nil))
	want(t, err, nil) // other has the bucket in its cache
	want(t, r.SetObjectLock(r.ctx, "b", &DefaultLock{Mode: Compliance, Years: 1}), nil)
	o, err := other.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k"}, body(nil))
	want(t, err, nil)
	got, err := r.HeadObject(r.ctx, "b", "k", o.Version)
	want(t, err, nil)
	if got.Lock.Mode != Compliance || got.Lock.Until.Sub(got.Modified) < 364*24*time.Hour {
		t.Fatalf("lock %+v", got.Lock)
	}
	_, err = other.DeleteObject(r.ctx, "b", "k", o.Version, "me", Conditions{Bypass: true})
	want(t, err, ErrLocked)
	want(t, r.SetObjectLock(r.ctx, "b", nil), nil)
	o, err = other.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "free"}, body(nil))
	want(t, err, nil)
	_, err = other.DeleteObject(r.ctx, "b", "free", o.Version, "me", Conditions{})
	want(t, err, nil)
}

// A null version from before, locked by its id, is not replaced by anything.
func TestNullVersionIsLocked(t *testing.T) {
	r := newRig(t)
	r.put(t, "b", "k", "null")
	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	want(t, r.SetObjectLock(r.ctx, "b", nil), nil)
	want(t, r.SetLegalHold(r.ctx, "b", "k", NullVersion, true), nil)
	r.put(t, "b", "k", "next")
	_, err := r.DeleteObject(r.ctx, "b", "k", NullVersion, "me", Conditions{Bypass: true})
	want(t, err, ErrLocked)
	r.audit(t)
}

// The lock that an upload asked for, or the default, is that of its object, and
// a deletion that raced a lock is judged against the lock.
func TestUploadsAndRacesAreLocked(t *testing.T) {
	r := newRig(t)
	r.locked(t)
	until := r.clock.Now().Add(time.Hour)
	id, err := r.CreateUpload(r.ctx, &Upload{Bucket: "locked", Key: "m", Lock: Lock{Mode: Compliance, Until: until, Hold: HoldOn}})
	want(t, err, nil)
	p, err := r.PutPart(r.ctx, "locked", "m", id, 1, body([]byte("part")))
	want(t, err, nil)
	o, err := r.CompleteUpload(r.ctx, "locked", "m", id, []CompletePart{{Number: 1, ETag: p.ETag}}, nil, Conditions{})
	want(t, err, nil)
	got, err := r.HeadObject(r.ctx, "locked", "m", o.Version)
	want(t, err, nil)
	if got.Lock.Mode != Compliance || !got.Lock.Until.Equal(until) || got.Lock.Hold != HoldOn {
		t.Fatalf("lock %+v", got.Lock)
	}

	o = r.putLocked(t, "race", Lock{})
	raced := false
	r.meta.onCommit(func(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn, next func() error) error {
		if !raced { // the deletion was decided, and before it is applied the hold comes
			raced = true
			r.meta.onCommit(nil)
			want(t, r.SetLegalHold(r.ctx, "locked", "race", o.Version, true), nil)
		}
		return next()
	})
	want(t, r.del(r.Store, o, true), ErrLocked)
	if !raced {
		t.Fatal("there was no race")
	}
	r.audit(t)
}
