package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/store/row"
)

func TestBuckets(t *testing.T) {
	r := newRig(t)
	b, err := r.HeadBucket(r.ctx, "b")
	want(t, err, nil)
	if b.Owner != "me" || b.Region != "eu-test-1" || b.Shards != 4 || b.Created.IsZero() || b.Name != "b" {
		t.Fatalf("bucket is %+v", b)
	}
	want(t, r.CreateBucket(r.ctx, "me", "b", ""), ErrBucketOwned)
	want(t, r.CreateBucket(r.ctx, "you", "b", ""), ErrBucketExists)
	_, err = r.HeadBucket(r.ctx, "c")
	want(t, err, ErrNoSuchBucket)
	want(t, r.DeleteBucket(r.ctx, "c"), ErrNoSuchBucket)
	_, err = r.HeadBucket(r.ctx, "")
	if !ashlar.Is(err, ashlar.Invalid) {
		t.Fatalf("empty name: %v", err)
	}
	want(t, r.DeleteBucket(r.ctx, "b"), nil)
	want(t, r.DeleteBucket(r.ctx, "b"), ErrNoSuchBucket)
	if left := r.census(t); len(left) != 0 {
		t.Fatalf("rows of a deleted bucket: %v", left)
	}
	want(t, r.CreateBucket(r.ctx, "you", "b", "mars"), nil)
	again, err := r.HeadBucket(r.ctx, "b")
	want(t, err, nil)
	if again.ID == b.ID || again.Owner != "you" || again.Region != "mars" {
		t.Fatalf("bucket made again is %+v", again)
	}
}

func TestUnformedCluster(t *testing.T) {
	r := newRig(t)
	r.Store.maps = func() *topologyMap { return nil }
	if err := r.CreateBucket(r.ctx, "me", "new", ""); !ashlar.Is(err, ashlar.Unavailable) {
		t.Fatalf("create: %v", err)
	}
	_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k"}, body([]byte("x")))
	if !ashlar.Is(err, ashlar.Unavailable) {
		t.Fatalf("put: %v", err)
	}
}

func TestListBuckets(t *testing.T) {
	r := newRig(t)
	r.meta.rnd = seeded(t)
	var mine []string
	for i := range 60 {
		owner := []string{"me", "you"}[i%2]
		name := fmt.Sprintf("%c-%s", 'a'+byte(i%3), numbered(i))
		want(t, r.CreateBucket(r.ctx, owner, name, ""), nil)
		if owner == "me" {
			mine = append(mine, name)
		}
	}
	mine = append(mine, "b")
	slices.Sort(mine)
	for _, limit := range []int{1, 7, 29, 31, 0} {
		var got []string
		after := ""
		for {
			page, more, err := r.ListBuckets(r.ctx, "me", "", after, limit)
			want(t, err, nil)
			for _, b := range page {
				got = append(got, b.Name)
			}
			if !more {
				break
			}
			if len(page) != limit {
				t.Fatalf("a page of %d, not %d, and more", len(page), limit)
			}
			after = page[len(page)-1].Name
		}
		if !slices.Equal(got, mine) {
			t.Fatalf("limit %d: %v\nwant %v", limit, got, mine)
		}
	}
	page, _, err := r.ListBuckets(r.ctx, "me", "c-", "", 0)
	want(t, err, nil)
	if len(page) != 10 {
		t.Fatalf("prefix c-: %d buckets", len(page))
	}
}

func TestDeleteBucketNotEmpty(t *testing.T) {
	r := newRig(t)
	r.put(t, "b", "k", "x")
	want(t, r.DeleteBucket(r.ctx, "b"), ErrBucketNotEmpty)
	want(t, r.unput(r.ctx, "b", "k", Conditions{}), nil)
	id, err := r.CreateUpload(r.ctx, &Upload{Bucket: "b", Key: "k"})
	want(t, err, nil)
	r.part(t, "k", id, 1, "part", nil)
	want(t, r.DeleteBucket(r.ctx, "b"), nil) // open uploads end with the bucket
	if left := r.census(t); len(left) != 1 || left['t'] != 2 {
		t.Fatalf("rows left: %v, want two trash rows", left)
	}
	r.audit(t)
}

// The look at the counters is only a short cut: with it blinded, the markers
// decide, and a bucket that is not empty is opened again and goes on.
func TestDeleteBucketIsTakenBack(t *testing.T) {
	r := newRig(t)
	second := r.again()
	r.put(t, "b", "warm", "x") // second has the bucket in its cache
	_, err := second.HeadObject(r.ctx, "b", "warm", "")
	want(t, err, nil)
	want(t, r.unput(r.ctx, "b", "warm", Conditions{}), nil)
	key := ""
	armed := true
	r.meta.onCommit(func(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn, next func() error) error {
		// A PUT slips in between the look at the counters and the first step.
		if armed && shard == directoryShard && len(txn.Puts) == 1 && txn.Puts[0].Key[0] == row.KindBucket {
			armed = false
			b, err := r.directory(ctx, "b")
			if err != nil {
				t.Error(err)
			}
			for n := 0; ; n++ { // a key of the last slot, so that others are closed before
				if key = numbered(n); row.SlotOf(b.ID, key, 4) == 3 {
					break
				}
			}
			if _, err := second.PutObject(ctx, &PutRequest{Bucket: "b", Key: key}, body([]byte("slipped in"))); err != nil {
				t.Errorf("put: %v", err)
			}
		}
		return next()
	})
	want(t, r.DeleteBucket(r.ctx, "b"), ErrBucketNotEmpty)
	if armed {
		t.Fatal("the PUT never ran")
	}
	if got := r.read(t, "b", key); got != "slipped in" {
		t.Fatalf("content is %q", got)
	}
	for i := range 20 {
		r.put(t, "b", "after-"+numbered(i), "x")
	}
	if n := r.census(t)[row.KindClosed]; n != 0 {
		t.Fatalf("%d closed markers", n)
	}
	r.audit(t)
}

// DeleteBucket is stopped before and after each of its commits. Whoever comes
// next, with whatever operation, finds a bucket that is either whole or gone.
func TestDeleteBucketCrashPoints(t *testing.T) {
	commits := 0
	for _, full := range []bool{false, true} {
		for crash := 1; ; crash++ {
			r, done := crashedDelete(t, full, crash)
			if done {
				commits = crash - 1
				break
			}
			for _, next := range []string{"delete", "create", "put", "head", "list", "get"} {
				r, _ := crashedDelete(t, full, crash)
				r.checkRecovered(t, full, next)
			}
			r.Close()
		}
		t.Logf("bucket with objects %t: %d crash points × 6 operations", full, commits)
		if commits < 8 {
			t.Fatalf("only %d crash points", commits)
		}
	}
}

// crashedDelete runs DeleteBucket and stops it at half-commit number crash:
// odd ones are lost before, even ones after they were applied. It reports
// whether the deletion ended before that.
func crashedDelete(t *testing.T, full bool, crash int) (*rig, bool) {
	r := newRig(t)
	r.put(t, "b", "parted", "x")
	want(t, r.unput(r.ctx, "b", "parted", Conditions{}), nil)
	second := New(r.meta.Store, r.stripes, testMap, Options{Clock: r.clock.Now}) // without faults
	errCrash := ashlar.E("test: crash", "", ashlar.Denied, nil)                  // not worth a retry: the process is dead
	n, dead, armed := 0, false, full
	r.meta.onCommit(func(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn, next func() error) error {
		if armed {
			armed = false // the bucket is filled behind the deleter's back
			if _, err := second.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k"}, body([]byte("slipped in"))); err != nil {
				t.Error(err)
			}
		}
		if n++; dead || n == crash {
			dead = true
			return errCrash
		}
		err := next()
		if n++; n == crash {
			dead = true
			return errCrash
		}
		return err
	})
	err := r.DeleteBucket(r.ctx, "b")
	r.meta.onCommit(nil)
	if !dead {
		if full {
			want(t, err, ErrBucketNotEmpty)
		} else {
			want(t, err, nil)
		}
		return r, true
	}
	if err == nil && full {
		t.Fatalf("crash %d: the deletion of a bucket with objects succeeded", crash)
	}
	r.Store = r.again()
	return r, false
}

func (r *rig) checkRecovered(t *testing.T, full bool, next string) {
	t.Helper()
	var err error
	switch next {
	case "delete":
		err = r.DeleteBucket(r.ctx, "b")
		if full {
			want(t, err, ErrBucketNotEmpty)
		} else if err != nil && !errors.Is(err, ErrNoSuchBucket) {
			t.Fatal(err)
		}
	case "create":
		err = r.CreateBucket(r.ctx, "me", "b", "")
		if err != nil && !errors.Is(err, ErrBucketOwned) {
			t.Fatal(err)
		}
		if full {
			want(t, err, ErrBucketOwned)
		}
		r.put(t, "b", "new", "x")
	case "put":
		for i := range 8 { // in all slots
			_, err = r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: numbered(i)}, body([]byte("x")))
			if err != nil && !errors.Is(err, ErrNoSuchBucket) {
				t.Fatal(err)
			}
			if full && err != nil {
				t.Fatalf("a bucket with objects is gone: %v", err)
			}
		}
	case "head":
		_, err = r.HeadBucket(r.ctx, "b")
	case "list":
		_, err = r.ListObjects(r.ctx, ListRequest{Bucket: "b", Max: 10})
	case "get":
		_, err = r.HeadObject(r.ctx, "b", "k", "")
		if full {
			want(t, err, nil)
		}
	}
	if full {
		if got := r.read(t, "b", "k"); got != "slipped in" {
			t.Fatalf("content is %q", got)
		}
	}
	r.audit(t)
	// And the bucket can be emptied, deleted and made again.
	page, err := r.ListObjects(r.ctx, ListRequest{Bucket: "b", Max: 100})
	if err == nil {
		for _, o := range page.Objects {
			want(t, r.unput(r.ctx, "b", o.Key, Conditions{}), nil)
		}
	}
	if err := r.DeleteBucket(r.ctx, "b"); err != nil && !errors.Is(err, ErrNoSuchBucket) {
		t.Fatal(err)
	}
	_, err = r.HeadBucket(r.ctx, "b")
	want(t, err, ErrNoSuchBucket)
	want(t, r.CreateBucket(r.ctx, "you", "b", ""), nil)
	r.audit(t)
}

// PUTs race with DeleteBucket and CreateBucket through two gateways. Every PUT
// that was acknowledged is there, unless it went into a bucket that was then
// emptied by nobody: which must not happen.
func TestPutRacesDeleteBucket(t *testing.T) {
	r := newRig(t)
	gateways := []*Store{r.Store, r.again()}
	t.Cleanup(gateways[1].Close)
	var acked, refused atomic.Int64
	var wg sync.WaitGroup
	jitter := func(d time.Duration) { time.Sleep(rand.N(d)) }
	r.meta.onCommit(func(_ context.Context, _ ashlar.ShardID, _ *meta.Txn, next func() error) error {
		jitter(200 * time.Microsecond)
		return next()
	})
	for round := range 60 {
		name := "race-" + numbered(round)
		want(t, r.CreateBucket(r.ctx, "me", name, ""), nil)
		_, err := gateways[1].ListObjects(r.ctx, ListRequest{Bucket: name, Max: 1}) // fill the cache
		want(t, err, nil)
		var inBucket atomic.Int64
		deleted := make([]error, 3)
		wait := race(8 + len(deleted))
		for i := range 8 {
			wg.Go(func() {
				wait()
				jitter(2 * time.Millisecond)
				_, err := gateways[i%2].PutObject(r.ctx, &PutRequest{Bucket: name, Key: numbered(i)}, body([]byte("x")))
				switch {
				case err == nil:
					acked.Add(1)
					inBucket.Add(1)
				case errors.Is(err, ErrNoSuchBucket):
					refused.Add(1)
				default:
					t.Errorf("put: %v", err)
				}
			})
		}
		for i := range deleted {
			wg.Go(func() { wait(); deleted[i] = gateways[i%2].DeleteBucket(r.ctx, name) })
		}
		wg.Wait()
		gone := 0
		for _, err := range deleted {
			if err == nil {
				gone++
			} else if !errors.Is(err, ErrBucketNotEmpty) && !errors.Is(err, ErrNoSuchBucket) {
				t.Fatalf("delete: %v", err)
			}
		}
		page, err := r.ListObjects(r.ctx, ListRequest{Bucket: name, Max: 100})
		if gone > 0 {
			want(t, err, ErrNoSuchBucket)
			if inBucket.Load() != 0 {
				t.Fatalf("the bucket was deleted with %d acknowledged objects", inBucket.Load())
			}
		} else {
			want(t, err, nil)
			if int64(len(page.Objects)) != inBucket.Load() {
				t.Fatalf("%d objects, %d acknowledged", len(page.Objects), inBucket.Load())
			}
		}
	}
	gateways[1].background.Wait()
	t.Logf("%d PUTs acknowledged, %d found no bucket", acked.Load(), refused.Load())
	r.audit(t)
}

// A closer and a reopener that slept through their steps change nothing.
func TestSleepersOfDeletionDoNoHarm(t *testing.T) {
	r := newRig(t)
	old, err := r.directory(r.ctx, "b")
	want(t, err, nil)
	// The deletion of generation 1 was taken back.
	want(t, r.moveBucket(r.ctx, old, row.Bucket_REOPENING, 1), nil)
	want(t, r.settle(r.ctx, "b"), nil)
	if _, err := r.closeSlot(r.ctx, old.slot(0), 1); err != errStale {
		t.Fatalf("a late closer: %v", err)
	}
	r.put(t, "b", "k", "lives")
	want(t, r.unput(r.ctx, "b", "k", Conditions{}), nil)
	want(t, r.DeleteBucket(r.ctx, "b"), nil)
	for generation := uint64(1); generation < 4; generation++ {
		if err := r.reopenSlot(r.ctx, old.slot(0), generation); err != errStale {
			t.Fatalf("a late reopener: %v", err)
		}
	}
	if n := r.census(t)[row.KindOpen]; n != 0 {
		t.Fatalf("%d open markers of a bucket that is gone", n)
	}
}

// Another gateway deletes the bucket and makes it again: what this one has
// cached must never be believed.
func TestStaleCache(t *testing.T) {
	r := newRig(t)
	other := r.again()
	t.Cleanup(other.Close)
	_, err := r.ListObjects(r.ctx, ListRequest{Bucket: "b", Max: 1}) // cached
	want(t, err, nil)
	remake := func() {
		want(t, other.DeleteBucket(r.ctx, "b"), nil)
		want(t, other.CreateBucket(r.ctx, "me", "b", ""), nil)
	}
	remake()
	_, err = other.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k"}, body([]byte("new")))
	want(t, err, nil)
	if got := r.read(t, "b", "k"); got != "new" {
		t.Fatalf("read %q", got)
	}
	want(t, other.unput(r.ctx, "b", "k", Conditions{}), nil)
	remake()
	page, err := r.ListObjects(r.ctx, ListRequest{Bucket: "b", Max: 1})
	want(t, err, nil)
	if len(page.Objects) != 0 {
		t.Fatalf("listed %v", keysOf(page.Objects))
	}
	remake()
	id, err := r.CreateUpload(r.ctx, &Upload{Bucket: "b", Key: "k"})
	want(t, err, nil)
	want(t, r.AbortUpload(r.ctx, "b", "k", id), nil)
	remake()
	// A body went to the bucket that is gone: nothing is stored, and it can be sent again.
	_, err = r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k"}, body([]byte("x")))
	want(t, err, ErrConflict)
	r.put(t, "b", "k", "x")
	want(t, other.unput(r.ctx, "b", "k", Conditions{}), nil)
	want(t, other.DeleteBucket(r.ctx, "b"), nil)
	_, err = r.HeadObject(r.ctx, "b", "k", "")
	want(t, err, ErrNoSuchBucket)
	r.audit(t)
}

// lateGet is a meta.Store where something happens between the reading of a row and
// the answer.
type lateGet struct {
	meta.Store
	then func()
}

func (l *lateGet) Get(ctx context.Context, shard ashlar.ShardID, key []byte) (meta.Row, error) {
	r, err := l.Store.Get(ctx, shard, key)
	if then := l.then; then != nil {
		l.then = nil
		then()
	}
	return r, err
}

// TestOldRecordIsNotRemembered: a record that was read before a change is not
// remembered behind it.
func TestOldRecordIsNotRemembered(t *testing.T) {
	r := newRig(t)
	slow := &lateGet{Store: r.meta}
	s := New(slow, r.stripes, testMap, Options{Clock: r.clock.Now})
	defer s.Close()
	slow.then = func() { want(t, s.PutSetting(r.ctx, "b", "x", []byte("new")), nil) }
	_, err := s.Access(r.ctx, "b")
	want(t, err, nil)
	a, err := s.Access(r.ctx, "b")
	want(t, err, nil)
	if got := a.Setting("x"); string(got) != "new" {
		t.Errorf("after the change had returned the setting is %q", got)
	}
}
