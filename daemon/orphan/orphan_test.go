package orphan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/metatest"
	"ashlar/daemon/meta/trash"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// rig is a search over doubles; the trash is the real list in a model store.
type rig struct {
	*Search
	now     time.Time
	live    map[ashlar.WriteID]bool // what a row refers to
	refuse  error                   // what the referee fails with
	dead    error                   // what deletes fail with
	deleted []ashlar.StripeID
	from    topology.Restore
	store   meta.Store
}

func (r *rig) Refers(_ context.Context, bucket ashlar.BucketID, key string, extents []ashlar.Extent) ([]bool, error) {
	if r.refuse != nil {
		return nil, r.refuse
	}
	if bucket != rigOwner.Bucket || key != rigOwner.Key || len(extents) != 1 || extents[0].Part != rigOwner.Part {
		return nil, fmt.Errorf("asked about %v %q %+v, not about the owner in the record", bucket, key, extents)
	}
	refers := make([]bool, len(extents))
	for i, x := range extents {
		refers[i] = r.live[x.Write]
	}
	return refers, nil
}

// rigOwner is what every record on the rig's disks names.
var rigOwner = ashlar.Owner{Bucket: ashlar.BucketID{1}, Key: "k", Part: 3}

func newRig() *rig {
	r := &rig{now: time.Unix(1e9, 0), live: map[ashlar.WriteID]bool{}, store: metatest.NewModel()}
	r.Search = New(Config{
		Store: r.store, Referee: r, Shards: func() int { return 3 }, clock: func() time.Time { return r.now },
		Restored: func() topology.Restore { return r.from },
		Describe: func(_ context.Context, _ ashlar.DiskID, id wire.PieceID) (wire.Piece, error) {
			return wire.Piece{PieceID: id, Owner: rigOwner}, nil
		},
		Delete: func(_ context.Context, id ashlar.StripeID, _ ashlar.Code) error {
			if r.dead == nil {
				r.deleted = append(r.deleted, id)
			}
			return r.dead
		},
	})
	return r
}

// seen lets the walk come by a stripe of a write.
func (r *rig) seen(t *testing.T, write ashlar.WriteID, age time.Duration) ashlar.StripeID {
	id := ashlar.NewStripeID(ashlar.BucketID{1}, "k", 0, 0, write)
	r.Look(t.Context(), []Stripe{{
		PieceID: wire.PieceID{Stripe: id}, Code: ashlar.Code{K: 4, M: 2}, Bytes: 40, Written: r.now.Add(-age),
	}})
	return id
}

func (r *rig) throw(t *testing.T, shard ashlar.ShardID, write ashlar.WriteID) {
	t.Helper()
	put, err := trash.Row(trash.Entry{Key: "k", Extents: []ashlar.Extent{{Write: write, Bytes: 40}}, Dropped: r.now})
	if err == nil {
		err = r.store.Commit(t.Context(), shard, &meta.Txn{ID: ashlar.RequestID(ashlar.NewID()), Puts: []meta.Put{put}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) later(t *testing.T, d time.Duration) {
	r.now = r.now.Add(d)
	r.settle(t.Context())
}

func TestOnlyWhatNothingRefersToIsFreed(t *testing.T) {
	const old = 48 * time.Hour
	r := newRig()
	r.live[1] = true
	r.seen(t, 1, old)
	r.seen(t, 2, time.Hour) // too young
	r.seen(t, 3, old)       // referred to before the second look
	r.seen(t, 4, old)       // thrown away meanwhile
	nobodys := r.seen(t, 5, old)
	r.later(t, DefaultConfirm/2)
	if len(r.deleted) > 0 {
		t.Fatalf("freed after one look: %v", r.deleted)
	}
	r.live[3] = true
	r.throw(t, 2, 4)
	r.later(t, DefaultConfirm)
	if !slices.Equal(r.deleted, []ashlar.StripeID{nobodys}) {
		t.Errorf("freed %v, want %v", r.deleted, nobodys)
	}
	if s := r.Stats(); s.Looked != 4 || s.Freed != 1 || s.Bytes != 40 || s.Spared != 2 || s.Candidates != 0 {
		t.Errorf("%+v", s)
	}
}

func TestDoubtKeeps(t *testing.T) {
	r := newRig()
	r.refuse = errors.New("no leader")
	r.seen(t, 1, 48*time.Hour)
	if s := r.Stats(); s.Candidates != 0 || s.Failed != 1 {
		t.Errorf("nobody answered: %+v", s)
	}
	r.refuse = nil
	id := r.seen(t, 1, 48*time.Hour)
	r.refuse = errors.New("no leader")
	r.later(t, 2*DefaultConfirm)
	r.refuse = nil
	bad := &meta.Txn{ID: ashlar.RequestID(ashlar.NewID()), Puts: []meta.Put{{Key: append([]byte{trash.Kind}, make([]byte, 16)...), Value: []byte("not a trash row")}}}
	if err := r.store.Commit(t.Context(), 1, bad); err != nil {
		t.Fatal(err)
	}
	r.later(t, time.Minute)
	if len(r.deleted) > 0 {
		t.Fatal("freed though the trash could not be read")
	}
	undo := &meta.Txn{ID: ashlar.RequestID(ashlar.NewID()), Deletes: [][]byte{bad.Puts[0].Key}}
	if err := r.store.Commit(t.Context(), 1, undo); err != nil {
		t.Fatal(err)
	}
	r.dead = errors.New("a disk is down")
	r.later(t, time.Minute)
	if s := r.Stats(); s.Candidates != 1 || s.Freed != 0 {
		t.Errorf("not all disks confirmed: %+v", s)
	}
	r.dead = nil
	r.later(t, time.Minute)
	if !slices.Equal(r.deleted, []ashlar.StripeID{id}) {
		t.Errorf("freed %v in the end", r.deleted)
	}
}

// TestAnOrphanWhoseDiskIsAwayIsLeftToTheNextWalk, so that it does not fill the list.
func TestAnOrphanWhoseDiskIsAwayIsLeftToTheNextWalk(t *testing.T) {
	r := newRig()
	r.dead = errors.New("a disk is down")
	r.seen(t, 1, 48*time.Hour)
	r.later(t, DefaultConfirm)
	for range triesMax + 2 {
		r.later(t, time.Minute)
	}
	if s := r.Stats(); s.Candidates != 0 || s.Failed != triesMax || s.Freed != 0 {
		t.Errorf("%+v", s)
	}
	r.dead = nil
	id := r.seen(t, 1, 48*time.Hour)
	r.later(t, DefaultConfirm)
	if !slices.Equal(r.deleted, []ashlar.StripeID{id}) {
		t.Errorf("freed %v when the disk was back", r.deleted)
	}
}

// TestTheWalkDoesNotWaitForOneLookAtATime: looks wait until as many as may are
// under way, and never are there more.
func TestTheWalkDoesNotWaitForOneLookAtATime(t *testing.T) {
	r := newRig()
	var all []Stripe
	for write := range ashlar.WriteID(4 * lookersMax) {
		all = append(all, Stripe{
			PieceID: wire.PieceID{Stripe: ashlar.NewStripeID(ashlar.BucketID{1}, "k", 0, 0, write+1)}, Written: r.now.Add(-48 * time.Hour),
		})
	}
	var now, most atomic.Int32
	var once sync.Once
	together := make(chan struct{}) // closed when lookersMax are under way
	r.cfg.Describe = func(ctx context.Context, _ ashlar.DiskID, id wire.PieceID) (wire.Piece, error) {
		n := now.Add(1)
		defer now.Add(-1)
		most.Store(max(most.Load(), n))
		if n == lookersMax {
			once.Do(func() { close(together) })
		}
		select {
		case <-together:
		case <-ctx.Done():
		}
		return wire.Piece{PieceID: id, Owner: rigOwner}, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r.Look(ctx, all)
	if s := r.Stats(); s.Candidates != uint64(len(all)) || most.Load() > lookersMax {
		t.Errorf("%+v, %d looks at once", s, most.Load())
	}
}

// TestWhatIsNewerThanTheBackupIsKept restores from a backup of a while ago: only
// what no lost row can have named goes, the rest when an operator says so.
func TestWhatIsNewerThanTheBackupIsKept(t *testing.T) {
	const day = 24 * time.Hour
	r := newRig()
	r.from = topology.Restore{Created: r.now.Add(-20 * day), Adopted: r.now.Add(-10 * day)}
	before := r.seen(t, 1, 22*day)
	begun := r.seen(t, 2, 20*day+time.Hour) // an upload that was under way
	lost := r.seen(t, 3, 15*day)
	skewed := r.seen(t, 4, 10*day-time.Hour)
	later := r.seen(t, 5, 5*day)
	r.live[6] = true
	r.seen(t, 6, 15*day)
	r.later(t, 2*DefaultConfirm)
	slices.SortFunc(r.deleted, func(a, b ashlar.StripeID) int { return int(a.Write()) - int(b.Write()) })
	if !slices.Equal(r.deleted, []ashlar.StripeID{before, later}) {
		t.Errorf("freed %v, want %v", r.deleted, []ashlar.StripeID{before, later})
	}
	if s := r.Stats(); s.Kept != 3 || s.KeptBytes != 120 || s.Candidates != 0 {
		t.Errorf("%+v", s)
	}
	r.from.Created, r.from.Adopted, r.deleted = time.Time{}, time.Time{}, nil
	r.later(t, time.Minute)
	if s := r.Stats(); s.Kept != 0 {
		t.Errorf("released: %+v", s)
	}
	for write, age := range map[ashlar.WriteID]time.Duration{2: 20*day + time.Hour, 3: 15 * day, 4: 10*day - time.Hour, 6: 15 * day} {
		r.seen(t, write, age)
	}
	r.later(t, 2*DefaultConfirm)
	slices.SortFunc(r.deleted, func(a, b ashlar.StripeID) int { return int(a.Write()) - int(b.Write()) })
	if !slices.Equal(r.deleted, []ashlar.StripeID{begun, lost, skewed}) {
		t.Errorf("freed %v after the release, want %v", r.deleted, []ashlar.StripeID{begun, lost, skewed})
	}
}

func TestReports(t *testing.T) {
	store := metatest.NewModel()
	want := []Report{{Version: 1, Host: 1, Name: "a", Freed: 7}, {Version: 1, Host: 300, Name: "b"}}
	for range 2 {
		for _, r := range want {
			if err := r.Write(t.Context(), store); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := Reports(t.Context(), store); err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}
