package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/store/row"
)

// held is what a quota counts.
func (r *rig) held(t tester) growth {
	t.Helper()
	u, err := r.BucketUsage(r.ctx, "b")
	if err != nil {
		t.Fatalf("usage: %v", err)
	}
	return growth{u.Bytes + u.OtherBytes + u.PartBytes, u.Objects + u.Others}
}

// limits is the sum of the slots' limits; pinned ones count as what the slot holds.
func (r *rig) limits(t tester) (sum growth) {
	t.Helper()
	b, err := r.lookupFresh(r.ctx, "b")
	if err != nil {
		t.Fatalf("lookup: %v", err)
	}
	for _, sl := range b.slots() {
		h, _, ok, err := r.holding(r.ctx, sl)
		if err != nil || !ok {
			t.Fatalf("slot %v has limits: %t, %v", sl, ok, err)
		}
		if h.growth == pinned {
			h.growth = h.held
		}
		sum = sum.plus(h.growth)
	}
	return sum
}

// TestQuotaIsExact fills a bucket from two gateways at once: what fits is stored to
// the last byte, whatever slots the keys fall into, and nothing more.
func TestQuotaIsExact(t *testing.T) {
	r := newRig(t)
	const size, fit = 1000, 57
	want(t, r.SetQuota(r.ctx, "b", Quota{Bytes: size * fit}), nil)
	gateways := []*Store{r.Store, r.again()}
	var stored, full atomic.Int64
	var all sync.WaitGroup
	for n := range 16 {
		all.Go(func() {
			for i := range 8 {
				key := fmt.Sprintf("%d/%d", n, i)
				_, err := gateways[i%2].PutObject(r.ctx, &PutRequest{Bucket: "b", Key: key, Owner: "me"}, body(make([]byte, size)))
				switch {
				case err == nil:
					stored.Add(1)
				case errors.Is(err, ErrQuota):
					full.Add(1)
				default:
					t.Errorf("put %s: %v", key, err)
				}
			}
		})
	}
	all.Wait()
	if stored.Load() != fit || full.Load() != 16*8-fit {
		t.Fatalf("%d stored and %d refused, want %d and %d", stored.Load(), full.Load(), fit, 16*8-fit)
	}
	if h := r.held(t); h.bytes != size*fit {
		t.Errorf("%d bytes", h.bytes)
	}
	gateways[1].Close()
	r.audit(t)
}

func TestQuota(t *testing.T) {
	r := newRig(t)
	put := func(key string, n int) error {
		_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: key, Owner: "me"}, body(make([]byte, n)))
		return err
	}
	want(t, put("before", 600), nil)
	want(t, r.SetQuota(r.ctx, "b", Quota{Bytes: 1000, Objects: 3}), nil)
	if b, err := r.HeadBucket(r.ctx, "b"); err != nil || b.Quota != (Quota{1000, 3}) {
		t.Errorf("%+v, %v", b.Quota, err)
	}
	want(t, put("large", 401), ErrQuota)
	want(t, put("fits", 400), nil)
	want(t, put("empty", 0), nil)
	want(t, put("fourth", 0), ErrQuota)
	want(t, put("fits", 401), ErrQuota)
	want(t, put("fits", 399), nil) // in its place
	want(t, put("before", 601), nil)
	_, err := r.CopyObject(r.ctx, copyReq("fits", "copy"))
	want(t, err, ErrQuota)

	// What is above a lower quota stays and can be read and deleted.
	want(t, r.SetQuota(r.ctx, "b", Quota{Bytes: 500}), nil)
	want(t, put("empty", 0), nil)
	want(t, put("more", 1), ErrQuota)
	if got := r.read(t, "b", "before"); len(got) != 601 {
		t.Errorf("%d bytes", len(got))
	}
	_, err = r.DeleteObject(r.ctx, "b", "before", "", "me", Conditions{})
	want(t, err, nil)
	want(t, put("more", 101), nil)
	want(t, put("yet more", 1), ErrQuota)

	want(t, r.SetQuota(r.ctx, "b", Quota{}), nil)
	want(t, put("yet more", 1<<20), nil)
	r.audit(t)
	if err := r.SetQuota(r.ctx, "b", Quota{Bytes: 1 << 63}); !ashlar.Is(err, ashlar.Invalid) {
		t.Errorf("a quota that is no number of bytes: %v", err)
	}
	want(t, r.SetQuota(r.ctx, "nobody's", Quota{Bytes: 1}), ErrNoSuchBucket)
}

// TestQuotaOfPartsAndVersions: parts count as soon as they are stored, a Complete
// adds nothing to them, versions count until they are gone, and a delete is never refused.
func TestQuotaOfPartsAndVersions(t *testing.T) {
	r := newRig(t)
	want(t, r.SetQuota(r.ctx, "b", Quota{Bytes: PartBytesMin + 10, Objects: 2}), nil)
	id := r.upload(t, "k", Upload{})
	r.bigPart(t, "k", id, 1)
	r.part(t, "k", id, 2, strings.Repeat("x", 10), nil)
	_, err := r.PutPart(r.ctx, "b", "k", id, 3, body([]byte("y")))
	want(t, err, ErrQuota)
	_, err = r.complete(id, "k", 1, 2)
	want(t, err, nil)
	r.audit(t)

	want(t, r.SetVersioning(r.ctx, "b", VersioningEnabled), nil)
	want(t, r.SetQuota(r.ctx, "b", Quota{Bytes: PartBytesMin + 15, Objects: 2}), nil)
	r.put(t, "b", "k", "12345")
	_, err = r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Owner: "me"}, body(nil))
	want(t, err, ErrQuota) // a third version
	for range 2 {
		_, err = r.DeleteObject(r.ctx, "b", "k", "", "me", Conditions{}) // a marker
		want(t, err, nil)
	}
	if h := r.held(t); h.objects != 4 {
		t.Errorf("%+v", h)
	}
	r.audit(t)
}

// TestDealersDoNotAddUp has several gateways deal one quota out while it is changed,
// objects come and go, and dealers die half-way. Whatever they do to each other,
// the limits never add up to more than the quota.
func TestDealersDoNotAddUp(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := newRig(t)
	const quota = 20_000
	want(t, r.SetQuota(r.ctx, "b", Quota{Bytes: quota}), nil)
	died := errors.New("died")
	var rng sync.Mutex
	rnd := rand.New(rand.NewPCG(seed, 1))
	r.meta.onCommit(func(_ context.Context, _ ashlar.ShardID, txn *meta.Txn, next func() error) error {
		rng.Lock()
		dies := len(txn.Puts) == 1 && strings.HasSuffix(string(txn.Puts[0].Key), string(row.CountLimit)) && rnd.IntN(40) == 0
		rng.Unlock()
		if dies {
			return ashlar.E("test", "", ashlar.Invalid, died)
		}
		return next()
	})
	var all sync.WaitGroup
	for n := range 4 {
		s := r.again()
		all.Go(func() {
			defer s.Close()
			own := rand.New(rand.NewPCG(seed, uint64(2+n)))
			for range 60 {
				key := fmt.Sprint(own.IntN(40))
				var err error
				if own.IntN(4) == 0 {
					_, err = s.DeleteObject(r.ctx, "b", key, "", "me", Conditions{})
				} else {
					_, err = s.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: key, Owner: "me"}, body(make([]byte, own.IntN(2000))))
				}
				if err != nil && !errors.Is(err, ErrQuota) && !errors.Is(err, died) && !ashlar.Is(err, ashlar.Busy) {
					t.Errorf("%s: %v", key, err)
				}
			}
		})
	}
	all.Wait()
	r.meta.onCommit(nil)
	if h := r.held(t); h.bytes > quota {
		t.Errorf("%d bytes in a bucket of %d", h.bytes, quota)
	}
	if sum := r.limits(t); sum.bytes > quota {
		t.Errorf("the limits add up to %d bytes of %d", sum.bytes, quota)
	}
	r.audit(t)
	// Nobody's death took any room away.
	_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "last", Owner: "me"}, body(make([]byte, quota-r.held(t).bytes)))
	want(t, err, nil)
}

// TestDealerThatWasOvertaken: a dealer has read what the slots hold, another one
// deals everything to another slot, and the first one goes on and dies.
func TestDealerThatWasOvertaken(t *testing.T) {
	r := newRig(t)
	const quota = 1000
	want(t, r.SetQuota(r.ctx, "b", Quota{Bytes: quota}), nil)
	b, err := r.lookupFresh(r.ctx, "b")
	want(t, err, nil)
	other, died := r.again(), errors.New("died")
	r.meta.onCommit(func(_ context.Context, _ ashlar.ShardID, txn *meta.Txn, next func() error) error {
		if l, err := decodeWithin(&meta.Row{Value: txn.Puts[0].Value}); err != nil || l.growth == pinned {
			return next()
		}
		r.meta.onCommit(nil)
		enough, err := other.deal(r.ctx, b, b.slot(1), growth{bytes: quota})
		if err != nil || !enough {
			t.Errorf("the other dealer: %t, %v", enough, err)
		}
		err = next()
		r.meta.onCommit(func(context.Context, ashlar.ShardID, *meta.Txn, func() error) error {
			return ashlar.E("test", "", ashlar.Invalid, died)
		})
		return err
	})
	_, err = r.deal(r.ctx, b, b.slot(0), growth{bytes: quota})
	want(t, err, died)
	r.meta.onCommit(nil)
	if sum := r.limits(t); sum.bytes > quota {
		t.Errorf("the limits add up to %d bytes of %d", sum.bytes, quota)
	}
}

// TestDealerWithAnOldRecord deals out what the quota is, not what it was.
func TestDealerWithAnOldRecord(t *testing.T) {
	r := newRig(t)
	want(t, r.SetQuota(r.ctx, "b", Quota{Bytes: 2000}), nil)
	b, err := r.lookupFresh(r.ctx, "b")
	want(t, err, nil)
	want(t, r.SetQuota(r.ctx, "b", Quota{Bytes: 1000}), nil)
	_, err = r.deal(r.ctx, b, b.slot(0), growth{})
	want(t, err, nil)
	if sum := r.limits(t); sum.bytes != 1000 {
		t.Errorf("the limits add up to %d bytes", sum.bytes)
	}
}
