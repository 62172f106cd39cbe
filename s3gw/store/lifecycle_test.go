package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/lifecycle"
	"ashlar/s3gw/store/row"
)

const testDay = time.Hour

// daily returns a rig whose days are hours.
func daily(t *testing.T) *rig {
	r := newRig(t)
	r.days.Day = testDay
	return r
}

func (r *rig) rule(t *testing.T, rules ...lifecycle.Rule) {
	t.Helper()
	for i := range rules {
		rules[i].Enabled = true
	}
	want(t, r.SetLifecycle(r.ctx, "b", &lifecycle.Config{Rules: rules}), nil)
}

// pass lets days go by and expires what is due.
func (r *rig) pass(t *testing.T, days float64) {
	t.Helper()
	r.clock.advance(time.Duration(days * float64(testDay)))
	want(t, r.Expire(r.ctx, time.Minute), nil)
	r.audit(t)
	r.auditAgenda(t)
}

// auditAgenda checks that every key and upload has the agenda row that it says,
// and that every agenda row belongs to one.
func (r *rig) auditAgenda(t tester) {
	t.Helper()
	said, there := map[string]bool{}, map[string]bool{}
	for shard := range ashlar.ShardID(testShards) {
		for _, rw := range r.rows(t, shard) {
			sl := row.Slot{}
			if len(rw.Key) >= row.HeaderBytes {
				sl = row.Slot{Bucket: ashlar.BucketID(rw.Key[1:17]), Slot: rw.Key[17]}
			}
			key, suffix, _ := row.UserKey(rw.Key)
			switch rw.Key[0] {
			case row.KindObject:
				m, err := decodeObject(&rw)
				want(t, err, nil)
				if m.DueNs != 0 && suffix[0] != 0 {
					t.Fatalf("an older version of %q is on the agenda", key)
				}
				if m.DueNs != 0 {
					said[string(sl.Agenda(m.DueNs, row.AgendaKey, key))] = true
				}
			case row.KindUpload:
				var m row.Upload
				want(t, row.Decode(rw.Key, rw.Value, &m), nil)
				if m.DueNs != 0 {
					said[string(sl.Agenda(m.DueNs, row.AgendaUpload, row.UploadSubject(key, row.VersionID(suffix))))] = true
				}
			case row.KindAgenda:
				if e, ok := row.ParseAgenda(rw.Key); !ok {
					t.Fatalf("agenda row %x", rw.Key)
				} else if e.What != row.AgendaBuild {
					there[string(rw.Key)] = true
				}
			}
		}
	}
	for k := range said {
		if !there[k] {
			t.Fatalf("the agenda lacks %q", k)
		}
	}
	for k := range there {
		if !said[k] {
			t.Fatalf("nothing belongs to the agenda row %q", k)
		}
	}
}

// versions lists the bucket: "key" or "key!" for a delete marker, newest first.
func (r *rig) versions(t *testing.T) (out []string) {
	t.Helper()
	page, err := r.ListVersions(r.ctx, VersionsRequest{Bucket: "b", Max: ListMax})
	want(t, err, nil)
	for _, o := range page.Objects {
		name := o.Key
		if o.DeleteMarker {
			name += "!"
		}
		out = append(out, name)
	}
	return out
}

func (r *rig) holds(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(r.versions(t), " "); got != want {
		t.Fatalf("the bucket holds %q, want %q", got, want)
	}
}

func TestObjectsExpire(t *testing.T) {
	r := daily(t)
	r.put(t, "b", "old/1", "x")
	r.put(t, "b", "stays", "x")
	r.rule(t, lifecycle.Rule{Prefix: "old/", Days: 2}, lifecycle.Rule{Prefix: "tagged/", Tags: map[string]string{"k": "v"}, Days: 1})
	r.put(t, "b", "old/2", "x")
	r.put(t, "b", "tagged/1", "x")
	r.put(t, "b", "tagged/2", "x")
	_, err := r.SetTags(r.ctx, "b", "tagged/2", "", map[string]string{"k": "v"})
	want(t, err, nil)
	r.pass(t, 0.5)
	r.holds(t, "old/1 old/2 stays tagged/1 tagged/2")
	r.pass(t, 1)
	r.holds(t, "old/1 old/2 stays tagged/1")
	r.put(t, "b", "old/2", "again")
	r.pass(t, 1)
	r.holds(t, "old/2 stays tagged/1")
	o, err := r.HeadObject(r.ctx, "b", "old/2", "")
	if err != nil || o.ExpiresAt.IsZero() || o.ExpiresAt.Sub(o.Modified) < 48*time.Hour {
		t.Fatalf("expires %v, %v", o.ExpiresAt, err)
	}
	want(t, r.SetLifecycle(r.ctx, "b", nil), nil)
	r.pass(t, 5)
	r.holds(t, "old/2 stays tagged/1")
	if n := r.census(t)[row.KindAgenda]; n != 0 {
		t.Fatalf("%d rows are on the agenda without rules", n)
	}
	if st := r.Stats(); st.Expired != 2 {
		t.Fatalf("%+v", st)
	}
	want(t, r.unput(r.ctx, "b", "stays", Conditions{}), nil)
}

func TestVersionsExpire(t *testing.T) {
	r := daily(t)
	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	for range 5 {
		r.put(t, "b", "k", "x")
	}
	r.put(t, "b", "cur", "x")
	r.rule(t, lifecycle.Rule{NoncurrentDays: 1, NoncurrentKeep: 2}, lifecycle.Rule{Prefix: "cur", Days: 2, NoncurrentDays: 2})
	r.pass(t, 0.5)
	r.holds(t, "cur k k k k k")
	r.pass(t, 1)
	r.holds(t, "cur k k k")
	r.put(t, "b", "k", "x") // one too many: the oldest is due at once
	r.pass(t, 0)
	r.holds(t, "cur k k k")
	r.pass(t, 1)
	r.holds(t, "cur! cur k k k")
	r.pass(t, 2.1) // the version is gone, and with it the marker, by the rule's days
	r.pass(t, 0)
	r.holds(t, "k k k")
}

func TestDeleteMarkersExpire(t *testing.T) {
	r := daily(t)
	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	o := r.put(t, "b", "k", "x")
	r.rule(t, lifecycle.Rule{LoneMarkers: true})
	want(t, r.unput(r.ctx, "b", "k", Conditions{}), nil)
	r.pass(t, 3)
	r.holds(t, "k! k")
	_, err := r.DeleteObject(r.ctx, "b", "k", o.Version, "me", Conditions{})
	want(t, err, nil)
	r.pass(t, 0)
	r.holds(t, "")
	want(t, r.DeleteBucket(r.ctx, "b"), nil)
}

func TestLockedVersionsDoNotExpire(t *testing.T) {
	r := daily(t)
	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	want(t, r.SetObjectLock(r.ctx, "b", nil), nil)
	until := r.clock.Now().Add(5 * testDay)
	_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Lock: Lock{Mode: Governance, Until: until}}, body(nil))
	want(t, err, nil)
	held := r.put(t, "b", "h", "x")
	want(t, r.SetLegalHold(r.ctx, "b", "h", "", true), nil)
	r.rule(t, lifecycle.Rule{Days: 1, NoncurrentDays: 1})
	r.pass(t, 1.1)
	r.pass(t, 1.1)
	r.holds(t, "h! h k! k") // a marker is allowed, the versions stay
	r.pass(t, 3.5)
	r.holds(t, "h! h")
	want(t, r.SetLegalHold(r.ctx, "b", "h", held.Version, false), nil)
	r.pass(t, 1.1)
	r.holds(t, "")
}

func TestUploadsAreAborted(t *testing.T) {
	r := daily(t)
	start := func(key string) string {
		id, err := r.CreateUpload(r.ctx, &Upload{Bucket: "b", Key: key})
		want(t, err, nil)
		_, err = r.PutPart(r.ctx, "b", key, id, 1, body([]byte("part")))
		want(t, err, nil)
		return id
	}
	before := start("a/1")
	r.rule(t, lifecycle.Rule{ID: "r", Prefix: "a/", AbortDays: 2})
	after, other := start("a/2"), start("b/1")
	up, _, _, err := r.ListParts(r.ctx, "b", "a/2", after, 0, 1)
	if err != nil || up.AbortRule != "r" || up.Aborts.Sub(up.Started) < 48*time.Hour {
		t.Fatalf("%+v %v", up, err)
	}
	r.pass(t, 1)
	for key, id := range map[string]string{"a/1": before, "a/2": after, "b/1": other} {
		_, _, _, err := r.ListParts(r.ctx, "b", key, id, 0, 1)
		want(t, err, nil)
	}
	r.pass(t, 1.1)
	_, _, _, err = r.ListParts(r.ctx, "b", "a/1", before, 0, 1)
	want(t, err, ErrNoSuchUpload)
	_, _, _, err = r.ListParts(r.ctx, "b", "a/2", after, 0, 1)
	want(t, err, ErrNoSuchUpload)
	_, _, _, err = r.ListParts(r.ctx, "b", "b/1", other, 0, 1)
	want(t, err, nil)
}

// An overwrite that comes between the worker's judgement and its commit survives.
func TestRacingOverwriteSurvives(t *testing.T) {
	r := daily(t)
	r.rule(t, lifecycle.Rule{Days: 1})
	r.put(t, "b", "k", "old")
	r.clock.advance(2 * testDay)
	raced := false
	r.meta.onCommit(func(_ context.Context, _ ashlar.ShardID, txn *meta.Txn, next func() error) error {
		deletes := slices.ContainsFunc(txn.Deletes, func(k []byte) bool { return k[0] == row.KindObject })
		if !raced && deletes {
			raced = true
			r.put(t, "b", "k", "new")
		}
		return next()
	})
	want(t, r.Expire(r.ctx, time.Minute), nil)
	if got := r.read(t, "b", "k"); !raced || got != "new" {
		t.Fatalf("raced %t, content %q", raced, got)
	}
	r.audit(t)
	r.auditAgenda(t)
}

// A gateway that does not know of the rules yet cannot write past them.
func TestRulesHoldThroughOtherGateways(t *testing.T) {
	r := daily(t)
	other := r.again()
	other.days = r.days
	_, err := other.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "warm"}, body(nil))
	want(t, err, nil)
	r.rule(t, lifecycle.Rule{Days: 1, AbortDays: 1})
	want(t, r.Expire(r.ctx, time.Minute), nil) // the build is over
	_, err = other.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k"}, body(nil))
	want(t, err, nil)
	id, err := other.CreateUpload(r.ctx, &Upload{Bucket: "b", Key: "u"})
	want(t, err, nil)
	r.pass(t, 1.1)
	r.holds(t, "")
	_, _, _, err = r.ListParts(r.ctx, "b", "u", id, 0, 1)
	want(t, err, ErrNoSuchUpload)
}

// One worker holds a shard at a time, and another takes over when its lease ends.
func TestLeases(t *testing.T) {
	r := daily(t)
	other := r.again()
	for shard := range ashlar.ShardID(testShards) {
		for i, step := range []struct {
			s    *Store
			wait time.Duration
			want bool
		}{{r.Store, 0, true}, {other, 0, false}, {r.Store, 40 * time.Second, true}, {other, 40 * time.Second, false}, {other, time.Minute, true}, {r.Store, 0, false}} {
			r.clock.advance(step.wait)
			if got, err := step.s.takeLease(r.ctx, shard, leaseName, time.Minute); err != nil || got != step.want {
				t.Fatalf("step %d: %t, %v", i, got, err)
			}
		}
	}
}

// A bucket that is gone leaves nothing on the agenda, and its successor of the
// same name is not touched by its rules.
func TestAgendaOfDeletedBuckets(t *testing.T) {
	r := daily(t)
	r.rule(t, lifecycle.Rule{Days: 1, AbortDays: 1})
	r.put(t, "b", "k", "x")
	_, err := r.CreateUpload(r.ctx, &Upload{Bucket: "b", Key: "u"})
	want(t, err, nil)
	want(t, r.unput(r.ctx, "b", "k", Conditions{}), nil)
	want(t, r.DeleteBucket(r.ctx, "b"), nil)
	want(t, r.CreateBucket(r.ctx, "me", "b", ""), nil)
	r.put(t, "b", "k", "x")
	r.clock.advance(3 * testDay)
	want(t, r.again().Expire(r.ctx, time.Minute), nil)
	r.holds(t, "k")
	if n := r.census(t)[row.KindAgenda]; n != 0 {
		t.Fatalf("%d rows are left on the agenda", n)
	}
}

// Random writes, rules and days through two gateways: the agenda is always that
// of the rows, and after each day nothing is left that the rules want gone, and
// nothing gone that they do not.
func TestAgendaAtRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	for range 12 {
		m := &lifeMachine{rig: daily(t), rnd: rnd}
		m.second = m.again()
		m.second.days = m.days
		want(t, m.SetLifecycle(m.ctx, "b", m.randomRules()), nil)
		for range 120 {
			m.step(t)
		}
	}
}

type lifeMachine struct {
	*rig
	rnd     *rand.Rand
	second  *Store
	rules   *lifecycle.Config
	uploads int
}

func (m *lifeMachine) randomRules() *lifecycle.Config {
	pick := func(list ...int) int { return list[m.rnd.IntN(len(list))] }
	c := &lifecycle.Config{}
	for i := range m.rnd.IntN(4) {
		r := lifecycle.Rule{ID: fmt.Sprint(i), Enabled: m.rnd.IntN(5) > 0, Prefix: []string{"", "a", "b"}[m.rnd.IntN(3)],
			Days: pick(0, 0, 1, 3), NoncurrentDays: pick(0, 1, 2), NoncurrentKeep: pick(0, 0, 1, 2), LoneMarkers: m.rnd.IntN(3) == 0, AbortDays: pick(0, 2)}
		if m.rnd.IntN(4) == 0 {
			r.Tags = map[string]string{"t": "1"}
		}
		if m.rnd.IntN(6) == 0 {
			n := uint64(2)
			r.Greater = &n
		}
		c.Rules = append(c.Rules, r)
	}
	m.rules = c
	return c
}

func (m *lifeMachine) step(t *testing.T) {
	s := []*Store{m.Store, m.second}[m.rnd.IntN(2)]
	key := []string{"a", "ab", "b", "c"}[m.rnd.IntN(4)]
	var err error
	switch m.rnd.IntN(12) {
	case 0, 1, 2, 3:
		_, err = s.PutObject(m.ctx, &PutRequest{Bucket: "b", Key: key}, body([]byte("xxxx")[:m.rnd.IntN(5)]))
	case 4, 5:
		err = s.unput(m.ctx, "b", key, Conditions{})
	case 6:
		page, _ := s.ListVersions(m.ctx, VersionsRequest{Bucket: "b", Max: ListMax})
		if n := len(page.Objects); n > 0 {
			o := page.Objects[m.rnd.IntN(n)]
			_, err = s.DeleteObject(m.ctx, "b", o.Key, o.Version, "me", Conditions{})
		}
	case 7:
		page, _ := s.ListVersions(m.ctx, VersionsRequest{Bucket: "b", Max: ListMax})
		if n := len(page.Objects); n > 0 {
			if o := page.Objects[m.rnd.IntN(n)]; !o.DeleteMarker {
				_, err = s.SetTags(m.ctx, "b", o.Key, o.Version, map[string]string{"t": fmt.Sprint(m.rnd.IntN(2))})
			}
		}
	case 8:
		if m.rnd.IntN(4) == 0 {
			err = s.SetVersioning(m.ctx, "b", []Versioning{VersioningEnabled, VersioningSuspended}[m.rnd.IntN(2)])
		}
	case 9:
		if m.rnd.IntN(3) == 0 {
			err = s.SetLifecycle(m.ctx, "b", m.randomRules())
		}
	case 10:
		_, err = s.CreateUpload(m.ctx, &Upload{Bucket: "b", Key: key})
	case 11:
		m.day(t, s)
	}
	if err != nil && !errors.Is(err, ErrNoSuchKey) {
		t.Fatal(err)
	}
	m.audit(t)
	m.auditAgenda(t)
}

// slowVersion is a version as a scan finds it.
type slowVersion struct {
	lifecycle.Version
	id     string
	latest bool
	since  time.Time // when it was covered
	newer  int
	alone  bool
}

func (m *lifeMachine) scanAll(t *testing.T) map[string]slowVersion {
	t.Helper()
	page, err := m.ListVersions(m.ctx, VersionsRequest{Bucket: "b", Max: ListMax})
	want(t, err, nil)
	if page.Truncated {
		t.Fatal("too many versions for this test")
	}
	count := map[string]int{}
	for _, o := range page.Objects {
		count[o.Key]++
	}
	out := map[string]slowVersion{}
	var above slowVersion
	for _, o := range page.Objects {
		v := slowVersion{id: o.Version, latest: o.Latest, alone: count[o.Key] == 1}
		v.Version = lifecycle.Version{Key: o.Key, Bytes: o.Bytes, Tags: o.Tags, Modified: o.Modified, Marker: o.DeleteMarker}
		if !o.Latest {
			v.since, v.newer = above.Modified, above.newer
			if !above.latest {
				v.newer++
			}
		}
		above = v
		out[o.Key+" "+o.Version] = v
	}
	return out
}

// due says when the rules want a version gone or covered.
func (m *lifeMachine) due(v slowVersion) time.Time {
	switch {
	case !v.latest:
		return m.rules.Noncurrent(&v.Version, v.since, v.newer, m.days).At
	case !v.Marker:
		return m.rules.Expiry(&v.Version, m.days).At
	case v.alone:
		return m.rules.Lone(&v.Version, m.days).At
	}
	return time.Time{}
}

func (m *lifeMachine) day(t *testing.T, s *Store) {
	t.Helper()
	before := m.scanAll(t)
	m.clock.advance(testDay * time.Duration(1+m.rnd.IntN(3)))
	want(t, s.Expire(m.ctx, time.Nanosecond), nil)
	now := m.clock.Now()
	after := m.scanAll(t)
	for name, v := range after {
		if at := m.due(v); !at.IsZero() && !at.After(now) {
			t.Fatalf("%s is due since %v, it is %v, and still there: %+v", name, at, now, v)
		}
	}
	for name, v := range before {
		if _, there := after[name]; there {
			continue
		}
		at := m.due(v)
		if v.latest && v.Marker && !v.alone { // alone after its versions went
			at = m.rules.Lone(&v.Version, m.days).At
		}
		if !v.latest && (at.IsZero() || at.After(now)) { // one newer, after the current one was covered
			at = m.rules.Noncurrent(&v.Version, v.since, v.newer+1, m.days).At
		}
		if at.IsZero() || at.After(now) {
			t.Fatalf("%s is gone, it is %v, and due at %v: %+v", name, now, at, v)
		}
	}
	ups, _, _, err := m.ListUploads(m.ctx, "b", "", "", "", "", ListMax)
	want(t, err, nil)
	for _, u := range ups {
		if at := m.rules.Abort(u.Key, u.Started, m.days).At; !at.IsZero() && !at.After(now) {
			t.Fatalf("the upload of %s is due since %v", u.Key, at)
		}
	}
}

// TestUnreadableRowsArePassedOver: one broken row keeps no other key from its
// rules, neither in a build nor on the agenda.
func TestUnreadableRowsArePassedOver(t *testing.T) {
	r := daily(t)
	b, err := r.lookup(r.ctx, "b")
	want(t, err, nil)
	spoil := func(key string) {
		sl := b.slotOf(key)
		want(t, r.commit(r.ctx, sl.shard, &meta.Txn{Puts: []meta.Put{{Key: sl.Object(key), Value: []byte{0xff}}}}), nil)
	}
	r.put(t, "b", "built", "x")
	early := "a" // before the other in its slot
	for b.slotOf(early).Slot != b.slotOf("built").Slot {
		early += "a"
	}
	r.put(t, "b", early, "x")
	spoil(early)
	r.rule(t, lifecycle.Rule{Days: 1})
	want(t, r.Expire(r.ctx, time.Minute), nil) // builds
	r.put(t, "b", "planned", "x")
	r.put(t, "b", "broken late", "x")
	spoil("broken late")
	r.clock.advance(2 * testDay)
	want(t, r.Expire(r.ctx, time.Minute), nil)
	for _, key := range []string{"built", "planned"} {
		_, err := r.HeadObject(r.ctx, "b", key, "")
		want(t, err, ErrNoSuchKey)
	}
	if n := r.Stats().Unreadable; n < 2 {
		t.Errorf("%d rows were passed over", n)
	}
}

// TestRulesTakenBackAbortNothing: rules that are taken back while the worker has
// judged an upload end it no more.
func TestRulesTakenBackAbortNothing(t *testing.T) {
	r := daily(t)
	r.rule(t, lifecycle.Rule{AbortDays: 1})
	id, err := r.CreateUpload(r.ctx, &Upload{Bucket: "b", Key: "k"})
	want(t, err, nil)
	r.clock.advance(2 * testDay)
	var once sync.Once
	r.meta.onCommit(func(_ context.Context, _ ashlar.ShardID, txn *meta.Txn, next func() error) error {
		for _, put := range txn.Puts {
			if put.Key[0] == row.KindDone {
				once.Do(func() { want(t, r.again().SetLifecycle(r.ctx, "b", nil), nil) })
			}
		}
		return next()
	})
	want(t, r.Expire(r.ctx, time.Minute), nil)
	_, _, _, err = r.ListParts(r.ctx, "b", "k", id, 0, 1)
	want(t, err, nil)
	r.auditAgenda(t)
}
