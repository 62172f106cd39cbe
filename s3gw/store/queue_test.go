package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/lifecycle"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/store/row"
)

var allEvents = []string{"s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*", "s3:ObjectTagging:*", "s3:ObjectAcl:*"}

// tells has a bucket tell everything to target "ear".
func (r *rig) tells(t tester, bucket string, rules ...notify.Rule) {
	t.Helper()
	if rules == nil {
		rules = []notify.Rule{{ID: "all", ARN: notify.ARN("ear", "webhook"), Events: allEvents}}
	}
	want(t, r.SetNotification(r.ctx, bucket, &notify.Config{Rules: rules}, false), nil)
}

// ear is a target.
type ear struct {
	mu    sync.Mutex
	heard []notify.Event
	deaf  func(*notify.Event) error // if set, says which it does not take
}

var errDeaf = errors.New("the target is away")

func (e *ear) deliver(_ context.Context, ev *notify.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.deaf != nil {
		if err := e.deaf(ev); err != nil {
			return err
		}
	}
	e.heard = append(e.heard, *ev)
	return nil
}

// said are the events of each key, in the order in which they came first.
func (e *ear) said() map[string][]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out, seen := map[string][]string{}, map[string]bool{}
	for _, ev := range e.heard {
		if !seen[ev.ID] {
			seen[ev.ID] = true
			out[ev.Key] = append(out[ev.Key], strings.TrimPrefix(ev.Name, "s3:"))
		}
	}
	return out
}

// pour sends what is queued for "ear" once.
func pour(ctx context.Context, s *Store, e *ear) (sent, failed int64, err error) {
	q := s.sender("ear", e.deliver)
	return q.round(ctx, q.allShards())
}

func TestEventsOfEverything(t *testing.T) {
	r := newRig(t)
	var e ear
	r.put(t, "b", "before", "x") // nobody is told
	r.tells(t, "b")
	r.ctx = WithOrigin(r.ctx, &Origin{Principal: "AKID", Source: "10.0.0.1", Request: "REQ", Host: "gw1"})
	o := r.put(t, "b", "k", "content")
	_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Owner: "me", Posted: true}, body([]byte("form")))
	want(t, err, nil)
	copied := &CopyRequest{Put: PutRequest{Bucket: "b", Key: "copy", Owner: "me"}}
	copied.Source.Bucket, copied.Source.Key = "b", "k"
	_, err = r.CopyObject(r.ctx, copied)
	want(t, err, nil)
	copied.Source.Key, copied.Replace = "copy", true // in place
	_, err = r.CopyObject(r.ctx, copied)
	want(t, err, nil)
	_, err = r.SetTags(r.ctx, "b", "k", "", map[string]string{"a": "b"})
	want(t, err, nil)
	_, err = r.SetTags(r.ctx, "b", "k", "", nil)
	want(t, err, nil)
	_, err = r.SetACL(r.ctx, "b", "k", "", []byte("READ all\n"))
	want(t, err, nil)
	id, err := r.CreateUpload(r.ctx, &Upload{Bucket: "b", Key: "parts", Owner: "me"})
	want(t, err, nil)
	p, err := r.PutPart(r.ctx, "b", "parts", id, 1, body([]byte("part")))
	want(t, err, nil)
	for range 2 { // the second is answered from memory and is told to nobody
		_, err = r.CompleteUpload(r.ctx, "b", "parts", id, []CompletePart{{Number: 1, ETag: p.ETag}}, nil, Conditions{})
		want(t, err, nil)
	}
	want(t, r.unput(r.ctx, "b", "k", Conditions{}), nil)
	want(t, r.unput(r.ctx, "b", "k", Conditions{}), nil) // there is nothing any more
	want(t, r.unput(r.ctx, "b", "before", Conditions{}), nil)
	r.audit(t)
	if sent, failed, err := pour(r.ctx, r.Store, &e); sent != 10 || failed != 0 || err != nil {
		t.Fatalf("%d sent, %d failed, %v", sent, failed, err)
	}
	r.audit(t)
	wanted := map[string][]string{
		"k":    {"ObjectCreated:Put", "ObjectCreated:Post", "ObjectTagging:Put", "ObjectTagging:Delete", "ObjectAcl:Put", "ObjectRemoved:Delete"},
		"copy": {"ObjectCreated:Copy", "ObjectCreated:Copy"}, "parts": {"ObjectCreated:CompleteMultipartUpload"}, "before": {"ObjectRemoved:Delete"},
	}
	if got := e.said(); !maps.EqualFunc(got, wanted, slices.Equal) {
		t.Errorf("%v, want %v", got, wanted)
	}
	first := e.heard[slices.IndexFunc(e.heard, func(ev notify.Event) bool { return ev.Name == notify.Put })]
	first.At, first.ID, first.Sequence = time.Time{}, "", 0
	if (first != notify.Event{Name: notify.Put, Rule: "all", Bucket: "b", Owner: "me", Key: "k", ETag: o.ETag, Bytes: 7,
		Principal: "AKID", Source: "10.0.0.1", Request: "REQ", Host: "gw1"}) {
		t.Errorf("%+v", first)
	}
	if st := r.QueueStats("ear"); st.Sent != 10 || st.Failed != 0 {
		t.Errorf("%+v", st)
	}
}

func TestEventsOfVersions(t *testing.T) {
	r := daily(t)
	var e ear
	r.rule(t, lifecycle.Rule{ID: "e", Prefix: "e", Days: 1, NoncurrentDays: 1}, lifecycle.Rule{ID: "m", Prefix: "e", LoneMarkers: true})
	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	r.tells(t, "b")
	v := r.put(t, "b", "k", "one").Version
	d, err := r.DeleteObject(r.ctx, "b", "k", "", "me", Conditions{})
	want(t, err, nil)
	for _, version := range []string{v, d.Version} {
		_, err = r.DeleteObject(r.ctx, "b", "k", version, "me", Conditions{})
		want(t, err, nil)
	}
	r.put(t, "b", "e", "two")
	for range 4 {
		r.pass(t, 1.5)
	}
	_, _, err = pour(r.ctx, r.Store, &e)
	want(t, err, nil)
	wanted := map[string][]string{
		"k": {"ObjectCreated:Put", "ObjectRemoved:DeleteMarkerCreated", "ObjectRemoved:Delete", "ObjectRemoved:Delete"},
		"e": {"ObjectCreated:Put", "LifecycleExpiration:DeleteMarkerCreated", "LifecycleExpiration:Delete", "LifecycleExpiration:Delete"},
	}
	if got := e.said(); !maps.EqualFunc(got, wanted, slices.Equal) {
		t.Errorf("%v, want %v", got, wanted)
	}
	for _, ev := range e.heard {
		if ev.Version == "" || ev.Name == notify.Expired && ev.Principal != byS3 || ev.Name == notify.MarkerCreated && ev.Version != d.Version {
			t.Errorf("%+v", ev)
		}
	}
}

// TestTargetsAreTested: each target of a configuration is told once that it is set, if
// that is wanted, and waits for nobody.
func TestTargetsAreTested(t *testing.T) {
	r := newRig(t)
	r.queueMax = 2
	want(t, r.CreateBucket(r.ctx, "me", "told", ""), nil)
	ctx := WithOrigin(r.ctx, &Origin{Principal: "AKID", Source: "10.0.0.1", Request: "REQ", Host: "gw1"})
	rule := func(id, target, event string) notify.Rule {
		return notify.Rule{ID: id, ARN: notify.ARN(target, "webhook"), Events: []string{event}}
	}
	config := &notify.Config{Rules: []notify.Rule{
		rule("1", "ear", notify.Put), rule("2", "other", notify.Copy), rule("3", "ear", notify.Delete),
	}}
	want(t, r.SetNotification(ctx, "told", config, true), nil)
	want(t, r.SetNotification(ctx, "told", config, false), nil)
	want(t, r.SetNotification(ctx, "told", nil, true), nil)
	want(t, r.SetNotification(ctx, "nowhere", config, true), ErrNoSuchBucket)
	r.audit(t)
	for _, target := range []string{"ear", "other"} {
		var e ear
		q := r.sender(target, e.deliver)
		if sent, failed, err := q.round(r.ctx, q.allShards()); sent != 1 || failed != 0 || err != nil {
			t.Fatalf("%s: %d sent, %d failed, %v", target, sent, failed, err)
		}
		got := e.heard[0]
		got.At, got.ID, got.Sequence = time.Time{}, "", 0
		if (got != notify.Event{Name: notify.Test, Bucket: "told", Owner: "me", Principal: "AKID", Source: "10.0.0.1", Request: "REQ", Host: "gw1"}) {
			t.Errorf("%s: %+v", target, got)
		}
	}
	for range 4 { // more than a queue holds
		r.clock.advance(queueLook)
		want(t, r.SetNotification(ctx, "told", config, true), nil)
	}
	r.audit(t)
	list, err := r.Queues(r.ctx)
	if err != nil || len(list) != 2 || list[0].Pending != 2 || list[0].Lost != 2 || list[1].Pending != 2 || list[1].Lost != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestEventsByRule: who is told what is decided by the rules.
func TestEventsByRule(t *testing.T) {
	r := newRig(t)
	var e ear
	r.tells(t, "b",
		notify.Rule{ID: "1", ARN: notify.ARN("ear", "webhook"), Events: []string{notify.Put}, Prefix: "in/", Suffix: ".jpg"},
		notify.Rule{ID: "2", ARN: notify.ARN("other", "webhook"), Events: []string{"s3:ObjectCreated:*"}, Prefix: "out/"})
	for _, key := range []string{"in/a.jpg", "in/a.png", "out/a.jpg", "in/b.jpg"} {
		r.put(t, "b", key, "x")
	}
	want(t, r.unput(r.ctx, "b", "in/a.jpg", Conditions{}), nil)
	_, _, err := pour(r.ctx, r.Store, &e)
	want(t, err, nil)
	if got := e.said(); len(got) != 2 || len(got["in/a.jpg"]) != 1 || len(got["in/b.jpg"]) != 1 {
		t.Errorf("%v", got)
	}
	if n := r.census(t)[row.KindEvent]; n != 1 {
		t.Errorf("%d events wait for the other target", n)
	}
	want(t, r.SetNotification(r.ctx, "b", nil, false), nil)
	r.put(t, "b", "in/c.jpg", "x")
	if n := r.census(t)[row.KindEvent]; n != 1 {
		t.Errorf("%d events after the configuration was removed", n)
	}
}

// TestEventsOutliveTheirGateway: between commit and sending, and between sending
// and the deletion of the row, a gateway may die.
func TestEventsOutliveTheirGateway(t *testing.T) {
	r := newRig(t)
	var e ear
	r.tells(t, "b")
	for i := range 20 {
		r.put(t, "b", numbered(i), "x")
	}
	r.meta.onCommit(func(_ context.Context, _ ashlar.ShardID, txn *meta.Txn, next func() error) error {
		if len(txn.Deletes) > 0 && txn.Deletes[0][0] == row.KindEvent {
			return ashlar.E("test", "", ashlar.Denied, nil) // it never gets there
		}
		return next()
	})
	if _, _, err := pour(r.ctx, r.Store, &e); err == nil {
		t.Fatal("rows that cannot be deleted are no error")
	}
	r.meta.onCommit(nil)
	once := len(e.heard)
	if once == 0 {
		t.Fatal("nothing was sent")
	}
	next := r.again()
	if sent, _, err := pour(r.ctx, next, &e); sent != 0 || err != nil {
		t.Fatalf("%d sent beside the one with the lease, %v", sent, err)
	}
	r.clock.advance(time.Minute) // its lease runs out
	_, _, err := pour(r.ctx, next, &e)
	want(t, err, nil)
	if got := e.said(); len(got) != 20 || len(e.heard) != once+20 {
		t.Errorf("%d keys, %d messages of which %d came twice", len(got), len(e.heard), once)
	}
	if n := r.census(t)[row.KindEvent]; n != 0 {
		t.Errorf("%d rows stay", n)
	}
	r.audit(t)
}

// TestEventsWaitForTheirTarget: what a target does not take comes later, in order, and
// one event that is never taken holds up its key alone.
func TestEventsWaitForTheirTarget(t *testing.T) {
	r := newRig(t)
	r.tells(t, "b")
	for i := range 3 {
		for _, key := range []string{"a", "bad", "c"} {
			r.put(t, "b", key, numbered(i))
		}
	}
	e := ear{deaf: func(*notify.Event) error { return errDeaf }}
	if sent, failed, err := pour(r.ctx, r.Store, &e); sent != 0 || failed == 0 || !errors.Is(err, errDeaf) {
		t.Fatalf("%d sent, %d failed, %v", sent, failed, err)
	}
	e.deaf = func(ev *notify.Event) error {
		if ev.Key == "bad" {
			return errDeaf
		}
		return nil
	}
	sent, failed, err := pour(r.ctx, r.Store, &e)
	if sent != 6 || failed == 0 {
		t.Fatalf("%d sent, %d failed, %v", sent, failed, err)
	}
	e.deaf = nil
	sent, failed, err = pour(r.ctx, r.Store, &e)
	if sent != 3 || failed != 0 || err != nil {
		t.Fatalf("%d sent, %d failed, %v", sent, failed, err)
	}
	var at uint64
	for _, ev := range e.heard {
		if ev.Key == "bad" {
			if ev.Sequence <= at {
				t.Errorf("%d after %d", ev.Sequence, at)
			}
			at = ev.Sequence
		}
	}
	r.audit(t)
	// One that nobody ever takes is given up in the end, and counted.
	r.put(t, "b", "bad", "x")
	e.deaf = func(*notify.Event) error { return errDeaf }
	r.clock.advance(queueKeep + time.Hour)
	_, _, err = pour(r.ctx, r.Store, &e)
	want(t, err, nil)
	_, _, err = pour(r.ctx, r.Store, &e)
	want(t, err, nil)
	if st := r.QueueStats("ear"); st.Lost != 1 || st.Pending != 0 || r.census(t)[row.KindEvent] != 0 {
		t.Errorf("%+v", st)
	}
	r.audit(t)
}

// TestEventsBeyondTheBound: a queue that is full stops nobody from writing; what it
// does not keep is counted.
func TestEventsBeyondTheBound(t *testing.T) {
	r := newRig(t)
	r.queueMax = 4
	r.tells(t, "b")
	const writes = 60
	for i := range writes {
		r.put(t, "b", numbered(i), "x")
		r.clock.advance(queueLook)
	}
	r.audit(t)
	var e ear
	_, _, err := pour(r.ctx, r.Store, &e)
	want(t, err, nil)
	_, _, err = pour(r.ctx, r.Store, &ear{}) // to look once more
	want(t, err, nil)
	kept := len(e.heard)
	if list, err := r.Queues(r.ctx); err != nil || len(list) != 1 || list[0] != (Queue{Target: "ear", Lost: int64(writes - kept)}) {
		t.Errorf("%+v, %v", list, err)
	}
	if st := r.QueueStats("ear"); kept != 4*testShards || st.Lost != int64(writes-kept) || st.Pending != 0 {
		t.Errorf("%d kept, %+v", kept, st)
	}
	r.clock.advance(queueLook)
	r.put(t, "b", "again", "x")
	list, err := r.Queues(r.ctx)
	if age := r.clock.Now().Sub(list[0].Oldest); err != nil || list[0].Pending != 1 || age < 0 || age > time.Second {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestEventsOfDeletedBuckets: what was told to happen is told, also when the bucket is
// gone; and what nobody sends any more goes in the end.
func TestEventsOfDeletedBuckets(t *testing.T) {
	r := newRig(t)
	r.tells(t, "b", notify.Rule{ID: "1", ARN: notify.ARN("ear", "webhook"), Events: allEvents[:1]},
		notify.Rule{ID: "2", ARN: notify.ARN("gone", "webhook"), Events: allEvents[1:]})
	r.put(t, "b", "k", "x")
	want(t, r.unput(r.ctx, "b", "k", Conditions{}), nil)
	want(t, r.DeleteBucket(r.ctx, "b"), nil)
	var e ear
	_, _, err := pour(r.ctx, r.Store, &e)
	want(t, err, nil)
	if len(e.heard) != 1 {
		t.Errorf("%v", e.heard)
	}
	known := map[string]Deliver{"ear": e.deliver}
	want(t, r.sweepQueues(r.ctx, known), nil)
	if n := r.census(t)[row.KindEvent]; n != 1 {
		t.Errorf("%d events, want that of the target that is gone", n)
	}
	r.audit(t)
	r.clock.advance(queueKeep + time.Hour)
	want(t, r.CreateBucket(r.ctx, "me", "b", ""), nil)
	r.tells(t, "b")
	r.put(t, "b", "k", "x")
	r.clock.advance(queueKeep + time.Hour)
	want(t, r.sweepQueues(r.ctx, known), nil)
	if n := r.census(t)[row.KindEvent]; n != 1 { // that of the target that has a sender
		t.Errorf("%d events after the sweep", n)
	}
	r.audit(t)
}

// TestEventsOfManyOfOneKey: more of one key than are read at once come in order, also
// where the clocks of two gateways differ.
func TestEventsOfManyOfOneKey(t *testing.T) {
	r := newRig(t)
	ahead := New(r.meta, r.stripes, testMap, Options{Clock: func() time.Time { return r.clock.Now().Add(10 * time.Second) }})
	defer ahead.Close()
	r.tells(t, "b")
	const rounds = 2 * queueRows
	for i := range rounds {
		s := []*Store{r.Store, ahead}[i%2]
		_, err := s.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Owner: "me"}, body([]byte("x")))
		want(t, err, nil)
		want(t, []*Store{ahead, r.Store}[i%2].unput(r.ctx, "b", "k", Conditions{}), nil)
	}
	r.put(t, "b", "l", "x")
	var e ear
	for range 3 {
		_, _, err := pour(r.ctx, r.Store, &e)
		want(t, err, nil)
	}
	got := e.said()["k"]
	for i, name := range got {
		if wanted := []string{"ObjectCreated:Put", "ObjectRemoved:Delete"}[i%2]; name != wanted {
			t.Fatalf("event %d is %s, want %s", i, name, wanted)
		}
	}
	if len(got) != 2*rounds || len(e.heard) != 2*rounds+1 {
		t.Errorf("%d events of the key, %d in all", len(got), len(e.heard))
	}
	r.audit(t)
}

// TestEventsAreNotLost: what two gateways acknowledged is told at least once, and first
// in the order in which it happened, whoever sends, however often a target fails and
// commits are answered late or not at all.
func TestEventsAreNotLost(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	r := newRig(t)
	second := r.again()
	defer second.Close()
	r.tells(t, "b")
	var lock sync.Mutex
	chance := func(n int) bool { lock.Lock(); defer lock.Unlock(); return rnd.IntN(n) == 0 }
	r.meta.onCommit(func(_ context.Context, _ ashlar.ShardID, _ *meta.Txn, next func() error) error {
		err := next()
		if chance(10) {
			return errLost // it was applied, or not
		}
		return err
	})
	e := ear{deaf: func(*notify.Event) error {
		if chance(4) {
			return errDeaf
		}
		return nil
	}}
	ctx, stop := context.WithCancel(r.ctx)
	var senders, clients sync.WaitGroup
	for _, s := range []*Store{r.Store, second} {
		senders.Go(func() {
			q := s.sender("ear", e.deliver)
			for ctx.Err() == nil {
				q.round(ctx, q.allShards()) // what fails is tried again
			}
		})
	}
	var mu sync.Mutex
	acknowledged := map[string][]string{}
	for c := range 4 {
		clients.Go(func() {
			s := []*Store{r.Store, second}[c%2]
			for i := range 60 {
				key := fmt.Sprintf("%d-%d", c, i%3) // a key is one client's, so its order is known
				var names []string
				if _, err := s.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: key, Owner: "me"}, body([]byte("x"))); err != nil {
					t.Errorf("put: %v", err)
				}
				names = append(names, "ObjectCreated:Put")
				if i%5 == 0 {
					if err := s.unput(r.ctx, "b", key, Conditions{}); err != nil {
						t.Errorf("delete: %v", err)
					}
					names = append(names, "ObjectRemoved:Delete")
				}
				mu.Lock()
				acknowledged[key] = append(acknowledged[key], names...)
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	stop()
	senders.Wait()
	r.meta.onCommit(nil)
	e.deaf = nil
	for _, s := range []*Store{r.Store, second} {
		r.clock.advance(time.Minute)
		_, _, err := pour(r.ctx, s, &e)
		want(t, err, nil)
	}
	if got := e.said(); !maps.EqualFunc(got, acknowledged, slices.Equal) {
		t.Errorf("told: %v\nacknowledged: %v", got, acknowledged)
	}
	if n := r.census(t)[row.KindEvent]; n != 0 {
		t.Errorf("%d rows stay", n)
	}
	t.Logf("%d messages", len(e.heard))
	r.audit(t)
}

// TestRunQueues: a running sender sends what its own gateway queues at once, what
// another one queues soon, and what waited when it began.
func TestRunQueues(t *testing.T) {
	r := newRig(t)
	second := r.again()
	defer second.Close()
	r.tells(t, "b")
	r.put(t, "b", "before", "x")
	e := ear{}
	ctx, stop := context.WithCancel(r.ctx)
	done := make(chan struct{})
	go func() { r.RunQueues(ctx, map[string]Deliver{"ear": e.deliver}); close(done) }()
	defer func() { stop(); <-done }()
	await := func(n int) {
		t.Helper()
		for len(e.said()) < n {
			select {
			case <-r.ctx.Done():
				t.Fatalf("heard %v", e.said())
			case <-time.After(time.Millisecond):
			}
		}
	}
	await(1)
	r.put(t, "b", "own", "x")
	await(2)
	_, err := second.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "theirs", Owner: "me"}, body([]byte("x")))
	want(t, err, nil)
	await(3)
}
