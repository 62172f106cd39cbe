package store

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/lifecycle"
	"ashlar/s3gw/store/row"
)

// The lifecycle rules of a bucket: how they are kept and read, and how every
// write plans when its key must be looked at. What is done then is in expire.go.

// ruleSet is the lifecycle that holds in a slot, as it was read.
type ruleSet struct {
	*lifecycle.Config        // nil: there were never any rules
	version           uint64 // of the mark; 0: there is none
	bucket, owner     string
}

// cond is the condition that these rules still hold.
func (r ruleSet) cond(sl slot) meta.Cond {
	if r.version == 0 {
		return meta.Cond{Key: sl.Mark(row.MarkLifecycle), Kind: meta.CondAbsent}
	}
	return meta.Cond{Key: sl.Mark(row.MarkLifecycle), Kind: meta.CondVersion, Version: r.version}
}

// ruleCache remembers the rules of slots. They need no expiry: whoever writes
// with old ones is refused.
type ruleCache struct {
	mu      sync.Mutex
	entries map[row.Slot]ruleSet // guarded by mu
}

func (c *ruleCache) get(sl slot) (ruleSet, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.entries[sl.Slot]
	return r, ok
}

func (c *ruleCache) put(sl slot, r ruleSet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.version == 0 {
		delete(c.entries, sl.Slot)
		return
	}
	if c.entries == nil || len(c.entries) >= cacheMax {
		c.entries = map[row.Slot]ruleSet{}
	}
	c.entries[sl.Slot] = r
}

// rulesOf returns the rules that hold in a slot, as far as is known. A bucket
// whose record has none costs no read.
func (s *Store) rulesOf(ctx context.Context, b *bucket, sl slot) (ruleSet, error) {
	if r, ok := s.rules.get(sl); ok {
		return r, nil
	}
	if b.rec.Lifecycle == nil {
		return ruleSet{}, nil
	}
	return s.readRules(ctx, sl)
}

// readRules reads the rules of a slot. Mark and rules are written together, so
// they belong together if their versions are equal.
func (s *Store) readRules(ctx context.Context, sl slot) (r ruleSet, err error) {
	for n := range attemptsMax {
		mark, err := s.get(ctx, sl.shard, sl.Mark(row.MarkLifecycle))
		if err != nil {
			return r, err
		}
		if mark == nil {
			s.rules.put(sl, ruleSet{})
			return ruleSet{}, nil
		}
		rules, err := s.get(ctx, sl.shard, sl.Mark(row.MarkRules))
		if err != nil {
			return r, err
		}
		if rules != nil && rules.Version == mark.Version {
			var m row.LifecycleMark
			if err := row.Decode(rules.Key, rules.Value, &m); err != nil {
				return r, err
			}
			r = ruleSet{Config: lifecycleConfig(m.Lifecycle), version: mark.Version, bucket: m.Bucket, owner: m.Owner}
			s.rules.put(sl, r)
			return r, nil
		}
		if !pause(ctx, n) {
			break
		}
	}
	return r, ashlar.E("store: lifecycle", "", ashlar.Unavailable, errContended)
}

// Lifecycle returns the lifecycle configuration of a bucket, nil if it has
// none. Errors: ErrNoSuchBucket.
func (s *Store) Lifecycle(ctx context.Context, name string) (*lifecycle.Config, error) {
	b, err := s.lookupFresh(ctx, name)
	if err != nil {
		return nil, fail("lifecycle", name, err)
	}
	return b.life, nil
}

// SetLifecycle replaces the lifecycle configuration of a bucket; nil removes it.
// When it returns, every later write follows it, whatever gateway it goes
// through, and what was there before is being entered in the background.
// Errors: ErrNoSuchBucket.
func (s *Store) SetLifecycle(ctx context.Context, name string, c *lifecycle.Config) error {
	return fail("set lifecycle", name, s.changeBucket(ctx, name, func(b *bucket, rec *row.Bucket) error {
		rec.Lifecycle = rowLifecycle(c)
		for _, sl := range b.slots() {
			if err := s.markRules(ctx, b, sl, rec); err != nil {
				return err
			}
		}
		return nil
	}))
}

// markRules puts the rules of a bucket's record into a slot, and what makes the
// worker enter what is there.
func (s *Store) markRules(ctx context.Context, b *bucket, sl slot, rec *row.Bucket) error {
	if rec.Lifecycle == nil { // only where there is something to take away
		mark, err := s.get(ctx, sl.shard, sl.Mark(row.MarkLifecycle))
		if err != nil || mark == nil {
			return err
		}
	}
	txn := &meta.Txn{Conds: []meta.Cond{{Key: sl.Header(row.KindOpen), Kind: meta.CondExists}}}
	rows := map[string]row.Message{
		string(sl.Mark(row.MarkLifecycle)): &row.Mark{Format: row.Format},
		string(sl.Mark(row.MarkRules)): &row.LifecycleMark{
			Format: row.Format, Lifecycle: rec.Lifecycle, Bucket: b.Name, Owner: rec.Owner,
		},
	}
	if rec.Lifecycle != nil {
		rows[string(sl.Agenda(s.now().UnixNano(), row.AgendaBuild, ""))] = &row.Agenda{Format: row.Format}
	}
	for key, m := range rows {
		value, err := row.Encode(m)
		if err != nil {
			return err
		}
		txn.Puts = append(txn.Puts, meta.Put{Key: []byte(key), Value: value})
	}
	err := s.commit(ctx, sl.shard, txn)
	if _, _, closed := conditionAt(err); closed {
		return s.revive(ctx, b)
	}
	return err
}

// versionFor is a row as rules see it.
func versionFor(key string, m *row.Object) *lifecycle.Version {
	return &lifecycle.Version{
		Key: key, Bytes: m.Bytes, Tags: tags(m.Attributes.GetTags()), Modified: fromNS(m.ModifiedNs), Marker: m.DeleteMarker,
	}
}

// soonest is the earliest of several moments, in nanoseconds; 0 is never.
type soonest int64

func (s *soonest) add(ns int64) {
	if ns != 0 && (*s == 0 || ns < int64(*s)) {
		*s = soonest(ns)
	}
}

func (s *soonest) due(d lifecycle.Due) {
	if !d.At.IsZero() {
		s.add(max(d.At.UnixNano(), 1))
	}
}

// storeCurrent writes the current row of the key, and with it the key's place
// in the agenda.
func (ch *change) storeCurrent(m *row.Object) error {
	m.DueNs = int64(ch.nextDue(m))
	if was := ch.cur.row.GetDueNs(); was != m.DueNs {
		ch.unplan()
		if m.DueNs != 0 {
			if err := ch.store(ch.sl.Agenda(m.DueNs, row.AgendaKey, ch.key), &row.Agenda{Format: row.Format}); err != nil {
				return err
			}
		}
	}
	return ch.store(ch.sl.Object(ch.key), m)
}

// unplan takes the key off the agenda.
func (ch *change) unplan() {
	if was := ch.cur.row.GetDueNs(); was != 0 {
		ch.Deletes = append(ch.Deletes, ch.sl.Agenda(was, row.AgendaKey, ch.key))
	}
}

// nextDue says when a key must be looked at whose current version will be m. It
// need not read the older versions: what they need was planned before, and one
// that is covered now is known.
func (ch *change) nextDue(m *row.Object) (at soonest) {
	switch {
	case ch.life.Config == nil:
		return 0
	case ch.visited:
		return ch.next
	}
	v := versionFor(ch.key, m)
	at.due(ch.life.Expiry(v, ch.s.days))
	at.due(ch.life.Lone(v, ch.s.days))
	cur := ch.cur.row
	if cur == nil || ch.versioning == row.Bucket_NEVER {
		return at
	}
	if len(ch.life.Rules) > 0 {
		at.add(cur.DueNs)
	}
	if string(cur.Version) != string(m.Version) {
		const all = 1 << 30
		at.due(ch.life.Noncurrent(versionFor(ch.key, cur), v.Modified, all, ch.s.days))
		if ch.life.Counts(ch.key) {
			at.add(ch.at.UnixNano())
		}
	}
	return at
}

// changeOther writes a version that is not current with other attributes. They
// may make it due.
func (ch *change) changeOther(at []byte, m *row.Object) error {
	if ch.life.Touches(ch.key) {
		cur := proto.CloneOf(ch.cur.row)
		ch.visited, ch.next = true, soonest(ch.at.UnixNano())
		if err := ch.storeCurrent(cur); err != nil {
			return err
		}
	}
	return ch.store(at, m)
}

// planUpload adds an upload's row to a transaction, and its place in the agenda.
func (s *Store) planUpload(txn *meta.Txn, sl slot, key string, id row.VersionID, m *row.Upload, life ruleSet) error {
	var at soonest
	at.due(life.Abort(key, fromNS(m.StartedNs), s.days))
	m.DueNs = int64(at)
	value, err := row.Encode(m)
	if err != nil {
		return err
	}
	txn.Puts = []meta.Put{{Key: sl.Upload(key, id), Value: value}}
	if m.DueNs != 0 {
		value, err = row.Encode(&row.Agenda{Format: row.Format})
		txn.Puts = append(txn.Puts, meta.Put{Key: sl.Agenda(m.DueNs, row.AgendaUpload, row.UploadSubject(key, id)), Value: value})
	}
	return err
}

// foretell says when the current version of an object will expire, as S3
// announces it: in days of 24 hours, whatever the worker takes a day to be.
func foretell(b *bucket, o *Object) {
	d := b.life.Expiry(&lifecycle.Version{Key: o.Key, Bytes: o.Bytes, Tags: o.Tags, Modified: o.Modified}, lifecycle.Clock{})
	o.ExpiresAt, o.ExpiryRule = d.At, d.Rule
}

func foretellAbort(b *bucket, u *Upload) {
	d := b.life.Abort(u.Key, u.Started, lifecycle.Clock{})
	u.Aborts, u.AbortRule = d.At, d.Rule
}

func lifecycleConfig(m *row.Lifecycle) *lifecycle.Config {
	if m == nil {
		return nil
	}
	c := &lifecycle.Config{}
	for _, r := range m.Rules {
		rule := lifecycle.Rule{
			ID: r.Id, Enabled: r.Enabled, Prefix: r.Prefix, Tags: tags(r.Tags), Form: lifecycle.Form(r.Form), Days: int(r.Days),
			LoneMarkers: r.LoneMarkers, NoncurrentDays: int(r.NoncurrentDays), NoncurrentKeep: int(r.NoncurrentKeep), AbortDays: int(r.AbortDays),
		}
		if r.HasGreater {
			rule.Greater = &r.GreaterBytes
		}
		if r.HasLess {
			rule.Less = &r.LessBytes
		}
		if r.DateNs != 0 {
			rule.Date = fromNS(r.DateNs)
		}
		c.Rules = append(c.Rules, rule)
	}
	return c
}

func rowLifecycle(c *lifecycle.Config) *row.Lifecycle {
	if c == nil {
		return nil
	}
	m := &row.Lifecycle{}
	for _, r := range c.Rules {
		rule := &row.LifecycleRule{
			Id: r.ID, Enabled: r.Enabled, Prefix: r.Prefix, Tags: rowTags(r.Tags), Form: row.LifecycleRule_Form(r.Form), Days: uint32(r.Days),
			LoneMarkers: r.LoneMarkers, NoncurrentDays: uint32(r.NoncurrentDays), NoncurrentKeep: uint32(r.NoncurrentKeep),
			AbortDays: uint32(r.AbortDays),
		}
		if r.Greater != nil {
			rule.HasGreater, rule.GreaterBytes = true, *r.Greater
		}
		if r.Less != nil {
			rule.HasLess, rule.LessBytes = true, *r.Less
		}
		if !r.Date.IsZero() {
			rule.DateNs = r.Date.UnixNano()
		}
		m.Rules = append(m.Rules, rule)
	}
	return m
}

// dayOf is how long the worker waits where a lock has no end.
func (s *Store) dayOf() time.Duration {
	if s.days.Day > 0 {
		return s.days.Day
	}
	return 24 * time.Hour
}
