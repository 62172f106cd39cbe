package store

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/store/row"
)

// The lifecycle worker: it takes what is due from the head of each shard's
// agenda, looks at the key, and deletes by transactions that depend on the rows
// it judged, so that a write that came in between survives.

const (
	// agendaRows is how many entries are taken at once, agendaAtOnce how many are
	// worked on at the same time.
	agendaRows   = 256
	agendaAtOnce = 8
	// visitSteps bounds the transactions of one visit; the rest waits in the agenda.
	visitSteps = 64
	// visitDrops bounds the versions that one of them deletes.
	visitDrops = 100
	// visitRows is how many older versions are read at once.
	visitRows = 500
	// buildRows is how many keys or uploads a step of a build looks at.
	buildRows = 500
	// leaseName is the lease of the worker; it is held for leaseTurns intervals.
	leaseName  = "lifecycle"
	leaseTurns = 3
	leaseMin   = 10 * time.Second
	// visitTimeout bounds the work on one entry.
	visitTimeout = 2 * time.Minute
)

// RunLifecycle expires what is due, looking every so often, until ctx ends. Any
// number of Stores may run it: for each shard the one with the lease works, and
// another takes over when a lease has run out. So an expiry is late by at most
// the interval, the length of a lease (three intervals, at least 10 s) if a
// worker died, and the time that what was due before takes.
func (s *Store) RunLifecycle(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := s.Expire(ctx, max(leaseTurns*every, leaseMin)); err != nil && ctx.Err() == nil {
			s.log.Warn("store: lifecycle: not everything that is due was done; it is tried again", "err", err)
		}
	}
}

// Expire does everything that is due now, under leases of the given length. It
// goes on with other shards where one fails.
func (s *Store) Expire(ctx context.Context, lease time.Duration) error {
	m, err := s.formed()
	if err != nil {
		return nil // nothing can be due
	}
	var errs []error
	for shard := range m.Shards {
		if err := s.expireShard(ctx, ashlar.ShardID(shard), lease); err != nil {
			errs = append(errs, err)
		}
	}
	return fail("lifecycle", "", errors.Join(errs...))
}

func (s *Store) expireShard(ctx context.Context, shard ashlar.ShardID, lease time.Duration) error {
	for ctx.Err() == nil {
		now := s.now()
		page, err := s.scan(ctx, shard, meta.ScanRequest{
			Start: []byte{row.KindAgenda}, End: row.AgendaEnd(now.UnixNano()), Limit: agendaRows,
		})
		if err != nil || len(page.Rows) == 0 {
			return err
		}
		if mine, err := s.takeLease(ctx, shard, leaseName, lease); err != nil || !mine {
			return err
		}
		if first, ok := row.ParseAgenda(page.Rows[0].Key); ok {
			s.stats.behind.Store(int64(now.Sub(fromNS(first.Due))))
		}
		var group errgroup.Group
		var more atomic.Bool
		group.SetLimit(agendaAtOnce)
		for i := range page.Rows {
			group.Go(func() error {
				again, err := s.attend(ctx, shard, &page.Rows[i])
				if again {
					more.Store(true)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil || !more.Load() {
			return err
		}
	}
	return ctx.Err()
}

// takeLease takes or extends a lease of a shard. It reports false if another
// holds it. It only saves work: nothing that is done under it relies on it.
func (s *Store) takeLease(ctx context.Context, shard ashlar.ShardID, name string, length time.Duration) (bool, error) {
	key, now := row.LeaseKey(name), s.now()
	r, err := s.get(ctx, shard, key)
	if err != nil {
		return false, err
	}
	cond := meta.Cond{Key: key, Kind: meta.CondAbsent}
	if r != nil {
		var m row.Lease
		if err := row.Decode(r.Key, r.Value, &m); err != nil {
			return false, err
		}
		mine, left := string(m.Holder) == string(s.id[:]), fromNS(m.UntilNs).Sub(now)
		switch {
		case mine && left > length/2:
			return true, nil
		case !mine && left > 0 && left <= length:
			return false, nil
		}
		cond = meta.Cond{Key: key, Kind: meta.CondVersion, Version: r.Version}
	}
	value, err := row.Encode(&row.Lease{Format: row.Format, Holder: s.id[:], UntilNs: now.Add(length).UnixNano()})
	if err != nil {
		return false, err
	}
	err = s.commit(ctx, shard, &meta.Txn{Conds: []meta.Cond{cond}, Puts: []meta.Put{{Key: key, Value: value}}})
	if _, _, lost := conditionAt(err); lost {
		return false, nil
	}
	return err == nil, err
}

// attend does what one agenda row asks for. It reports whether the agenda
// changed, so that it is worth another look at once.
func (s *Store) attend(ctx context.Context, shard ashlar.ShardID, r *meta.Row) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, visitTimeout)
	defer cancel()
	e, ok := row.ParseAgenda(r.Key)
	if !ok {
		return false, ashlar.E("store: agenda", "", ashlar.Corrupt, errors.New("a row key of another form"))
	}
	sl := slot{Slot: e.Slot, shard: shard}
	b, err := s.bucketOfAgenda(ctx, sl)
	if err == nil {
		switch e.What {
		case row.AgendaKey:
			err = s.visitKey(ctx, b, e.Subject, e.Due)
		case row.AgendaUpload:
			err = s.visitUpload(ctx, b, sl, e)
		case row.AgendaBuild:
			err = s.build(ctx, b, sl, r)
		default:
			return false, nil // of a newer program
		}
	}
	switch {
	case err == errNothing || errors.Is(err, ErrNoSuchBucket):
		err = s.dropEntry(ctx, shard, r)
	case err == errIdle, s.passesOver("", err):
		return false, nil
	}
	return err == nil, err
}

// passesOver reports whether an error is that of one row that cannot be read: it
// must not keep the worker from the others.
func (s *Store) passesOver(bucket string, err error) bool {
	if !ashlar.Is(err, ashlar.Corrupt) {
		return false
	}
	s.stats.unreadable.Add(1)
	s.log.Error("store: lifecycle: a row cannot be read and is passed over", "bucket", bucket, "err", err)
	return true
}

// dropEntry removes an agenda row that leads nowhere. If it was written anew
// meanwhile it leads somewhere and stays.
func (s *Store) dropEntry(ctx context.Context, shard ashlar.ShardID, r *meta.Row) error {
	err := s.commit(ctx, shard, &meta.Txn{
		Conds: []meta.Cond{{Key: r.Key, Kind: meta.CondVersion, Version: r.Version}}, Deletes: [][]byte{r.Key},
	})
	if _, _, changed := conditionAt(err); changed {
		return nil
	}
	return err
}

// bucketOfAgenda returns the bucket that a slot belongs to, or ErrNoSuchBucket.
func (s *Store) bucketOfAgenda(ctx context.Context, sl slot) (*bucket, error) {
	// Read anew: a look that ends without a transaction is judged by nothing else.
	rules, err := s.readRules(ctx, sl)
	if err != nil {
		return nil, err
	}
	if rules.version == 0 {
		return nil, ErrNoSuchBucket
	}
	b, err := s.lookup(ctx, rules.bucket)
	if err == nil && b.ID != sl.Bucket {
		b, err = s.lookupFresh(ctx, rules.bucket)
	}
	if err == nil && b.ID != sl.Bucket {
		err = ErrNoSuchBucket
	}
	return b, err
}

// anyDue lets visitKey look at a key whenever its place in the agenda is.
const anyDue = -1

// visitKey looks at a key and does what its rules want. errNothing says that the
// key has no such place in the agenda, errIdle that nothing changes.
func (s *Store) visitKey(ctx context.Context, b *bucket, key string, due int64) error {
	s.stats.visits.Add(1)
	for range visitSteps {
		var did visit
		err := s.mutate(ctx, b, key, func(ch *change) (err error) {
			if ch.cur.row == nil || due != anyDue && ch.cur.row.DueNs != due {
				return errNothing
			}
			ch.byRule = true
			did, err = ch.expire(ctx)
			return err
		})
		if err != nil {
			return err
		}
		s.stats.expired.Add(int64(did.drops))
		if !did.more {
			return nil
		}
		due = anyDue
	}
	return nil
}

// visit is what one look at a key did.
type visit struct {
	drops int
	more  bool // there is more to do now
}

// expire fills the transaction with what the rules want of the key now, and with
// the time of the next look.
func (ch *change) expire(ctx context.Context) (did visit, err error) {
	cur, now := ch.cur.row, ch.at.UnixNano()
	v := versionFor(ch.key, cur)
	var next, expiry soonest
	expiry.due(ch.life.Expiry(v, ch.s.days))
	if expiry != 0 && int64(expiry) <= now {
		// In a bucket with versions that is a delete marker, which a lock allows.
		_, err = ch.deleteCurrent(ctx, ch.life.owner)
		return visit{drops: 1, more: ch.versioning != row.Bucket_NEVER}, err
	}
	next.add(int64(expiry))
	old, err := ch.expireOld(ctx, &next)
	if err != nil {
		return did, err
	}
	did.drops, did.more = old.drops, old.more
	m := proto.CloneOf(cur)
	if old.nullGone {
		m.NullAt = nil
	}
	if cur.DeleteMarker && old.left == 0 {
		var lone soonest
		lone.due(ch.life.Lone(v, ch.s.days))
		switch {
		case lone == 0 || int64(lone) > now:
			next.add(int64(lone))
		case old.drops > 0:
			did.more = true // alone from the next transaction on
		default:
			if err := ch.tellRemoved(ctx, cur, false); err != nil {
				return did, err
			}
			return visit{drops: 1}, ch.remove(ctx)
		}
	}
	if did.more {
		next.add(now)
	}
	if did.drops == 0 && int64(next) == cur.DueNs {
		return did, errIdle
	}
	ch.visited, ch.next = true, next
	return did, ch.storeCurrent(m)
}

// expired says what became of the older versions of a key.
type expired struct {
	drops, left int
	nullGone    bool
	more        bool
}

// expireOld deletes older versions that are due, up to visitDrops of them, and
// finds out when others will be.
func (ch *change) expireOld(ctx context.Context, next *soonest) (x expired, err error) {
	if ch.versioning == row.Bucket_NEVER {
		return x, nil
	}
	start := ch.sl.OldObjects(ch.key)
	end := row.Successor(start)
	since, newer := fromNS(ch.cur.row.ModifiedNs), 0
	for start != nil && !x.more {
		page, err := ch.s.scan(ctx, ch.sl.shard, meta.ScanRequest{Start: start, End: end, Limit: visitRows})
		if err != nil {
			return x, err
		}
		for i := range page.Rows {
			r := &page.Rows[i]
			m, err := decodeObject(r)
			if err != nil {
				return x, err
			}
			due := ch.life.Noncurrent(versionFor(ch.key, m), since, newer, ch.s.days).At
			since, newer = fromNS(m.ModifiedNs), newer+1
			gone, err := ch.expireOne(ctx, r, m, due, next, &x)
			if err != nil {
				return x, err
			}
			if !gone {
				x.left++
			}
		}
		start = page.Next
	}
	return x, nil
}

// expireOne deletes an older version if it is due and not locked.
func (ch *change) expireOne(ctx context.Context, r *meta.Row, m *row.Object, due time.Time, next *soonest, x *expired) (gone bool, err error) {
	switch {
	case due.IsZero():
		return false, nil
	case due.After(ch.at):
		next.add(due.UnixNano())
		return false, nil
	case ch.judgeLock(m.Lock) != nil:
		at := ch.at.Add(ch.s.dayOf()).UnixNano() // a hold has no end: look again
		if m.Lock.GetHold() != row.Lock_ON {
			at = m.Lock.UntilNs
		}
		next.add(at)
		return false, nil
	case x.drops == visitDrops:
		x.more = true
		return false, nil
	}
	old, ok, err := ch.s.complete(ctx, ch.sl, r)
	if err == nil && !ok {
		err = errMoved
	}
	if err != nil {
		return false, err
	}
	ch.expect(r)
	x.drops++
	x.nullGone = x.nullGone || m.NullVersion
	if err := ch.dropOther(old, r.Key); err != nil {
		return false, err
	}
	return true, ch.tellRemoved(ctx, m, false)
}

// visitUpload ends an upload if that is due, or enters when it will be.
func (s *Store) visitUpload(ctx context.Context, b *bucket, sl slot, e row.AgendaEntry) error {
	key, id, ok := strings.Cut(e.Subject, "\x00")
	if !ok || len(id) != len(row.VersionID{}) {
		return errNothing
	}
	return s.replanUpload(ctx, b, sl, key, row.VersionID([]byte(id)), e.Due)
}

func (s *Store) replanUpload(ctx context.Context, b *bucket, sl slot, key string, id row.VersionID, due int64) error {
	s.stats.visits.Add(1)
	life, err := s.readRules(ctx, sl)
	if err != nil {
		return err
	}
	r, err := s.get(ctx, sl.shard, sl.Upload(key, id))
	if err == nil && r == nil {
		err = errNothing
	}
	if err != nil {
		return err
	}
	m := &row.Upload{}
	if err := row.Decode(r.Key, r.Value, m); err != nil {
		return err
	}
	if due != anyDue && m.DueNs != due {
		return errNothing
	}
	var at soonest
	at.due(life.Abort(key, fromNS(m.StartedNs), s.days))
	if at != 0 && int64(at) <= s.now().UnixNano() {
		switch err = s.abortUpload(ctx, b.Name, key, id.String(), life.cond(sl)); {
		case err == nil:
			s.stats.aborted.Add(1)
		case errors.Is(err, ErrNoSuchUpload):
			err = errNothing
		case err == errStale: // it ended, or there are other rules
			err = nil
		}
		return err
	}
	if int64(at) == m.DueNs {
		return errIdle
	}
	txn := &meta.Txn{Conds: []meta.Cond{life.cond(sl), {Key: r.Key, Kind: meta.CondVersion, Version: r.Version}}}
	if m.DueNs != 0 {
		txn.Deletes = [][]byte{sl.Agenda(m.DueNs, row.AgendaUpload, row.UploadSubject(key, id))}
	}
	if err := s.planUpload(txn, sl, key, id, m, life); err != nil {
		return err
	}
	err = s.commit(ctx, sl.shard, txn)
	if _, _, changed := conditionAt(err); changed {
		return nil // it ended, or there are other rules, which come with a build of their own
	}
	return err
}
