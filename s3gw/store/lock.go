package store

import (
	"context"
	"time"

	"ashlar/s3gw/store/row"
)

// LockMode is the mode of a retention, in S3's words; empty means none.
type LockMode string

// The modes of a retention.
const (
	// Governance: whoever has the right to bypass it may delete the version.
	Governance LockMode = "GOVERNANCE"
	// Compliance: nobody may, and nobody may shorten it.
	Compliance LockMode = "COMPLIANCE"
)

// The states of a legal hold; empty means that it was never set.
const (
	HoldOn  = "ON"
	HoldOff = "OFF"
)

// Lock is what keeps a version from being deleted: a retention until a moment,
// a legal hold, or both. The moment is judged by the clock of the gateway that
// commits the deletion.
type Lock struct {
	Mode  LockMode
	Until time.Time
	Hold  string
}

func (l Lock) empty() bool { return l.Mode == "" && l.Hold == "" }

// DefaultLock is the retention that a bucket gives to versions that come
// without one. Either Days or Years is set.
type DefaultLock struct {
	Mode        LockMode
	Days, Years int
}

var (
	rowModes = map[LockMode]row.Lock_Mode{Governance: row.Lock_GOVERNANCE, Compliance: row.Lock_COMPLIANCE}
	modes    = map[row.Lock_Mode]LockMode{row.Lock_GOVERNANCE: Governance, row.Lock_COMPLIANCE: Compliance}
	rowHolds = map[string]row.Lock_Hold{HoldOn: row.Lock_ON, HoldOff: row.Lock_OFF}
	holds    = map[row.Lock_Hold]string{row.Lock_ON: HoldOn, row.Lock_OFF: HoldOff}
)

func rowLock(l Lock) *row.Lock {
	if l.empty() {
		return nil
	}
	m := &row.Lock{Mode: rowModes[l.Mode], Hold: rowHolds[l.Hold]}
	if m.Mode != row.Lock_NONE {
		m.UntilNs = l.Until.UnixNano()
	}
	return m
}

func lock(m *row.Lock) (l Lock) {
	l.Mode, l.Hold = modes[m.GetMode()], holds[m.GetHold()]
	if l.Mode != "" {
		l.Until = fromNS(m.UntilNs)
	}
	return l
}

func defaultLock(m *row.DefaultLock) *DefaultLock {
	if m == nil {
		return nil
	}
	return &DefaultLock{Mode: modes[m.Mode], Days: int(m.Days), Years: int(m.Years)}
}

// lockable returns the bucket of a write that asks for a lock. Its record is
// read anew, because a wrong "there is no object lock" would refuse the write.
func (s *Store) lockable(ctx context.Context, name string, l Lock) (*bucket, error) {
	if l.empty() || l == (Lock{Hold: HoldOff}) {
		return s.lookup(ctx, name)
	}
	b, err := s.lookupFresh(ctx, name)
	if err == nil && !b.ObjectLock {
		err = ErrNoObjectLock
	}
	return b, err
}

// lock gives a new version its lock: its own, or the default of the bucket. The
// default is read from the bucket's row for every write, so that it holds for
// each write that begins after it was set.
func (ch *change) lock(ctx context.Context, m *row.Object) error {
	switch {
	case m.DeleteMarker:
		return nil
	case ch.versioning != row.Bucket_LOCKED && m.Lock.GetMode() == row.Lock_NONE && m.Lock.GetHold() != row.Lock_ON:
		m.Lock = nil // a hold that is off asks for nothing
		return nil
	case ch.versioning != row.Bucket_LOCKED:
		return ErrNoObjectLock
	case m.Lock.GetMode() != row.Lock_NONE:
		return nil
	}
	b, err := ch.s.directory(ctx, ch.bucket)
	if err != nil || b == nil || b.rec.DefaultLock == nil {
		return err // a bucket that is gone fails at the commit
	}
	d := b.rec.DefaultLock
	if m.Lock == nil {
		m.Lock = &row.Lock{}
	}
	m.Lock.Mode = d.Mode
	m.Lock.UntilNs = ch.at.AddDate(int(d.Years), 0, int(d.Days)).UnixNano()
	return nil
}

// judgeLock says whether a version with this lock may be deleted.
func (ch *change) judgeLock(l *row.Lock) error {
	switch {
	case l.GetHold() == row.Lock_ON:
		return ErrLocked
	case l.GetMode() == row.Lock_NONE, l.GetUntilNs() <= ch.at.UnixNano():
		return nil
	case l.GetMode() == row.Lock_GOVERNANCE && ch.bypass:
		return nil
	}
	return ErrLocked
}

// SetObjectLock gives a bucket object lock, which can never be taken back, and
// sets its default retention, or none. Versioning must be enabled. When it
// returns it holds for every later write, whatever gateway it goes through.
// Errors: ErrNoSuchBucket, ErrBucketState.
func (s *Store) SetObjectLock(ctx context.Context, name string, d *DefaultLock) error {
	return fail("set object lock", name, s.changeBucket(ctx, name, func(b *bucket, rec *row.Bucket) error {
		if !enabled(rec.Versioning) {
			return ErrBucketState
		}
		if rec.Versioning != row.Bucket_LOCKED {
			if err := s.markSlots(ctx, b, row.Bucket_LOCKED); err != nil {
				return err
			}
			rec.Versioning = row.Bucket_LOCKED
		}
		rec.DefaultLock = nil
		if d != nil {
			rec.DefaultLock = &row.DefaultLock{Mode: rowModes[d.Mode], Days: uint32(d.Days), Years: uint32(d.Years)}
		}
		return nil
	}))
}

// SetRetention sets the retention of a version, or takes it off if it has no
// mode; an empty version is the current one. A retention that still holds can
// only be extended in its mode; with bypass, one in governance mode can be
// changed at will. Errors: those of HeadObject, ErrNoObjectLock, ErrLocked.
func (s *Store) SetRetention(ctx context.Context, bucketName, key, version string, mode LockMode, until time.Time, bypass bool) error {
	err := s.setLock(ctx, bucketName, key, version, func(ch *change, m *row.Lock) error {
		ch.bypass = bypass
		was := &row.Lock{Mode: m.Mode, UntilNs: m.UntilNs}
		m.Mode, m.UntilNs = rowModes[mode], 0
		if mode != "" {
			m.UntilNs = until.UnixNano()
		}
		if m.Mode == was.Mode && m.UntilNs >= was.UntilNs {
			return nil
		}
		return ch.judgeLock(was)
	})
	return fail("set retention", named(bucketName, key), err)
}

// SetLegalHold puts a legal hold on a version or takes it off. Errors: those of
// HeadObject, ErrNoObjectLock.
func (s *Store) SetLegalHold(ctx context.Context, bucketName, key, version string, on bool) error {
	err := s.setLock(ctx, bucketName, key, version, func(_ *change, m *row.Lock) error {
		m.Hold = row.Lock_OFF
		if on {
			m.Hold = row.Lock_ON
		}
		return nil
	})
	return fail("set legal hold", named(bucketName, key), err)
}

func (s *Store) setLock(ctx context.Context, bucketName, key, version string, fn func(*change, *row.Lock) error) error {
	b, err := s.lookupFresh(ctx, bucketName)
	if err != nil {
		return err
	}
	if !b.ObjectLock {
		return ErrNoObjectLock
	}
	_, err = s.changeVersion(ctx, bucketName, key, version, func(ch *change, m *row.Object) error {
		if m.Lock == nil {
			m.Lock = &row.Lock{}
		}
		if err := fn(ch, m.Lock); err != nil {
			return err
		}
		if m.Lock.Mode == row.Lock_NONE && m.Lock.Hold == row.Lock_UNSET {
			m.Lock = nil
		}
		return nil
	})
	return err
}
