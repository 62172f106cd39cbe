package rollcall

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ashlar"
	"ashlar/daemon/piece"
	"ashlar/daemon/stripe"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
	"ashlar/segment"
	"ashlar/segment/simdev"
)

const seats = 6

var code = ashlar.Code{K: 4, M: 2}

// rig is six hosts of one real log each, every one with its roll call.
type rig struct {
	m      atomic.Pointer[topology.Map]
	dir    string
	clock  atomic.Pointer[time.Time]
	logs   [seats]*segment.Log
	stores [seats]*piece.Store
	rolls  [seats]*Roll
	calls  atomic.Int64 // HasPieces
	asked  atomic.Int64 // pieces asked for
	away   [seats]atomic.Bool

	mu    sync.Mutex
	found map[wire.PieceID]int // by how many hosts
}

func newRig(t testing.TB) *rig {
	r := &rig{dir: t.TempDir(), found: map[wire.PieceID]int{}}
	m := &topology.Map{
		Epoch: 1, Groups: []topology.Group{{Moved: 1}}, Shards: []topology.Shard{{}},
		Settings: topology.Settings{Large: code, Small: ashlar.Code{K: 1, M: 2}},
	}
	for i := range seats {
		m.Hosts = append(m.Hosts, topology.Host{ID: ashlar.HostID(i + 1), Boot: ashlar.BootID(ashlar.NewID())})
		m.Disks = append(m.Disks, topology.Disk{ID: ashlar.DiskID{byte(i + 1)}, Host: ashlar.HostID(i + 1)})
		m.Groups[0].Disks = append(m.Groups[0].Disks, topology.DiskNum(i))
	}
	r.m.Store(m)
	r.set(time.Now())
	for i := range seats {
		log, err := segment.Open(t.Context(), simdev.New(64*ashlar.MiB, 4096, uint64(i)), segment.Options{
			Disk: m.Disks[i].ID, IndexDir: filepath.Join(r.dir, "index", fmt.Sprint(i)), SegmentBytes: 4 * ashlar.MiB,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { log.Close() })
		r.logs[i], r.stores[i] = log, piece.NewStore(r.m.Load)
		r.stores[i].Add(m.Disks[i].ID, log)
		r.boot(i)
	}
	return r
}

// boot starts the roll call of a host anew, on what its last run left.
func (r *rig) boot(i int) {
	if was := r.rolls[i]; was != nil {
		was.save()
	}
	r.rolls[i] = New(Config{
		Dir: filepath.Join(r.dir, fmt.Sprint("roll", i)), Maps: r.m.Load, Dial: r.dial, Settle: time.Minute,
		Missing: func(m stripe.Missed) bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.found[m.PieceID]++
			return true
		},
		confirm: time.Microsecond, now: r.now,
	})
	r.rolls[i].Add(ashlar.DiskID{byte(i + 1)}, r.logs[i])
	r.stores[i].Stored = r.rolls[i].Stored
}

func (r *rig) now() time.Time    { return *r.clock.Load() }
func (r *rig) set(now time.Time) { r.clock.Store(&now) }

// seen is a host as the others see it.
type seen struct {
	wire.Pieces
	r *rig
	i int
}

func (s seen) HasPieces(ctx context.Context, disk ashlar.DiskID, ids []wire.PieceID) ([]bool, error) {
	if s.r.away[s.i].Load() {
		return nil, errors.New("no answer")
	}
	s.r.calls.Add(1)
	s.r.asked.Add(int64(len(ids)))
	return s.Pieces.HasPieces(ctx, disk, ids)
}

func (r *rig) dial(h ashlar.HostID) (wire.Pieces, error) {
	return seen{r.stores[h-1], r, int(h - 1)}, nil
}

// put stores the pieces of stripe n but for those that are left out.
func (r *rig) put(t testing.TB, n uint64, written time.Time, without ...int) ashlar.StripeID {
	id := ashlar.NewStripeID(ashlar.BucketID{1}, fmt.Sprint(n), 0, 0, ashlar.WriteID(n))
	for i := range seats {
		if slices.Contains(without, i) {
			continue
		}
		err := r.stores[i].PutPiece(context.Background(), &wire.Piece{
			PieceID: wire.PieceID{Stripe: id, Index: uint8(i)}, Disk: ashlar.DiskID{byte(i + 1)}, Epoch: r.m.Load().Epoch,
			Code: code, StripeBytes: 40, Written: written, Data: make([]byte, 10),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return id
}

func (r *rig) edit(f func(*topology.Map)) {
	m := r.m.Load().Clone()
	m.Epoch++
	f(m)
	r.m.Store(m)
}

// restart gives a host a new boot id, as the quorum does when it is back.
func (r *rig) restart(i int) {
	r.edit(func(m *topology.Map) { m.Hosts[i].Boot = ashlar.BootID(ashlar.NewID()) })
}

// at lets every host do at a time what its loop would do then.
func (r *rig) at(t testing.TB, now time.Time) {
	r.set(now)
	m := r.m.Load()
	for i, roll := range r.rolls {
		if r.away[i].Load() {
			continue
		}
		roll.follow(m, now)
		if roll.due(m, now) {
			roll.pay(t.Context(), m, now)
		}
	}
}

func (r *rig) take() map[wire.PieceID]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.found
	r.found = map[wire.PieceID]int{}
	return was
}

func (r *rig) checked(t testing.TB, want bool, when string) {
	t.Helper()
	for i, roll := range r.rolls {
		if got := roll.Checked() == r.m.Load().Epoch; got != want {
			t.Errorf("%s: host %d says %v, want %v", when, i, got, want)
		}
	}
}

// quiet lets the debts of the start be paid.
func (r *rig) quiet(t testing.TB, now time.Time) {
	r.at(t, now)
	r.at(t, now.Add(5*time.Second))
	r.checked(t, true, "nothing was stored yet")
}

// TestForgottenPiecesAreFoundOnce kills a coordinator: whatever single seats
// lack is found by exactly one host, once it has settled, and not before.
func TestForgottenPiecesAreFoundOnce(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	r.quiet(t, now)
	want := map[wire.PieceID]int{}
	for n := range uint64(300) {
		without := [][]int{nil, {int(n % seats)}, {int(n % seats), int(n+1) % seats}}[n%3]
		id := r.put(t, n, now, without...)
		for _, i := range without {
			want[wire.PieceID{Stripe: id, Index: uint8(i)}] = 1
		}
	}
	r.at(t, now.Add(10*time.Second))
	if got := r.take(); len(got) != 0 {
		t.Errorf("%d pieces looked for though everybody lives", len(got))
	}
	r.checked(t, true, "before the kill")

	r.restart(3)
	r.at(t, now.Add(11*time.Second))
	r.at(t, now.Add(20*time.Second))
	if got := r.take(); len(got) != 0 {
		t.Errorf("%d pieces looked for before they had time to arrive", len(got))
	}
	r.checked(t, false, "before they settled")

	r.asked.Store(0)
	r.calls.Store(0)
	r.at(t, now.Add(80*time.Second))
	if got := r.take(); !maps.Equal(got, want) {
		t.Errorf("%d pieces found, want %d, each once: %v", len(got), len(want), got)
	}
	r.checked(t, true, "after the roll call")
	if a, c := r.asked.Load(), r.calls.Load(); a > 300*3*seats || c > 8*seats*seats {
		t.Errorf("%d pieces asked for in %d calls", a, c)
	}
	r.at(t, now.Add(90*time.Second))
	if got := r.take(); len(got) != 0 {
		t.Errorf("%d pieces asked for again without a reason", len(got))
	}
}

// TestDeletedStripesStayDeleted leaves so few pieces that the stripe can only
// have been deleted, and deletes others between the two looks.
func TestDeletedStripesStayDeleted(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	r.quiet(t, now)
	r.put(t, 1, now, 1, 2, 3)
	r.put(t, 2, now, 0, 2, 3, 4, 5)
	id := r.put(t, 3, now, 5)
	r.restart(0)
	r.at(t, now.Add(time.Second))
	go func() { // a delete under way takes the asker's own piece before the second look
		for i := range seats {
			r.logs[i].Delete(context.Background(), segment.Key{Stripe: id, Piece: uint8(i)})
		}
	}()
	for _, roll := range r.rolls {
		roll.cfg.confirm = 300 * time.Millisecond
	}
	r.at(t, now.Add(100*time.Second))
	if got := r.take(); len(got) != 0 {
		t.Errorf("deleted stripes would come back: %v", got)
	}
}

// TestDebtsSurviveAbsence: a disk that is away is asked when it is back, and a
// host that was away asks about what was written meanwhile.
func TestDebtsSurviveAbsence(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	r.quiet(t, now)
	r.edit(func(m *topology.Map) { m.Hosts[2].State = topology.HostDown })
	r.away[2].Store(true)
	r.at(t, now.Add(time.Second))
	one := r.put(t, 1, now, 2)
	r.at(t, now.Add(100*time.Second))
	if got := r.take(); len(got) != 0 {
		t.Errorf("the pieces of a host that is down are for when it is back: %v", got)
	}
	for i := range seats {
		r.boot(i) // and all the others restart in between
	}
	r.edit(func(m *topology.Map) { m.Hosts[2].State = topology.HostUp })
	r.away[2].Store(false)
	later := now.Add(time.Hour)
	r.set(later)
	two := r.put(t, 2, later, 0)
	r.at(t, later.Add(time.Second))
	r.at(t, later.Add(100*time.Second))
	want := map[wire.PieceID]int{{Stripe: one, Index: 2}: 1, {Stripe: two, Index: 0}: 1}
	if got := r.take(); !maps.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	r.checked(t, true, "after all")
}

// TestNoAnswerIsNoPayment: a disk that does not answer stays owed, and so does
// everything that repair could not take.
func TestNoAnswerIsNoPayment(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	r.quiet(t, now)
	r.restart(1)
	r.at(t, now.Add(time.Second))
	id := r.put(t, 1, now, 4)
	r.away[4].Store(true) // the map does not know it yet
	r.at(t, now.Add(100*time.Second))
	if r.rolls[0].Checked() == r.m.Load().Epoch {
		t.Error("a disk did not answer and is taken for complete")
	}
	r.away[4].Store(false)
	full := true
	take := r.rolls[0].cfg.Missing
	r.rolls[0].cfg.Missing = func(m stripe.Missed) bool { return take(m) && !full }
	r.at(t, now.Add(110*time.Second))
	if r.rolls[0].Checked() == r.m.Load().Epoch {
		t.Error("repair took nothing and the debt is paid")
	}
	full = false
	r.at(t, now.Add(120*time.Second))
	if got := r.take(); got[wire.PieceID{Stripe: id, Index: 4}] == 0 {
		t.Error("the piece was not found")
	}
	r.checked(t, true, "after all")
}

// TestEverythingIsAskedForInAPeriod loses pieces without anybody coming or going.
func TestEverythingIsAskedForInAPeriod(t *testing.T) {
	r := newRig(t)
	for _, roll := range r.rolls {
		roll.cfg.Period, roll.cfg.Settle, roll.cfg.PiecesPerSecond = time.Millisecond, time.Nanosecond, 1e6
	}
	id := r.put(t, 1, time.Now().Add(-time.Hour))
	if err := r.logs[3].Delete(t.Context(), segment.Key{Stripe: id, Piece: 3}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, roll := range r.rolls {
		wg.Go(func() { roll.full(ctx) })
	}
	want := wire.PieceID{Stripe: id, Index: 3}
	found := 0
	for end := time.Now().Add(20 * time.Second); found == 0 || r.rolls[0].Stats().LastFull.IsZero(); time.Sleep(time.Millisecond) {
		found += r.take()[want]

		if time.Now().After(end) {
			t.Fatal("not found, or no walk ended")
		}
	}
	stop()
	wg.Wait()
}

// TestCutOffHostAsksFromThenOn: a host that the quorum did not answer for an hour
// looked at its old map all the time, and is owed what happened in that hour.
func TestCutOffHostAsksFromThenOn(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	r.quiet(t, now)
	heard, cut := now, now.Add(time.Hour)
	r.rolls[0].cfg.Heard = func() time.Time { return heard }
	id := r.put(t, 1, now.Add(10*time.Minute), 3)
	for at := now; at.Before(cut); at = at.Add(5 * time.Minute) {
		r.rolls[0].follow(r.m.Load(), at)
	}
	heard = cut
	r.restart(2)
	r.rolls[0].follow(r.m.Load(), cut)
	if due := r.rolls[0].due(r.m.Load(), cut.Add(time.Minute)); !due {
		t.Fatal("nothing is due")
	}
	r.rolls[0].pay(t.Context(), r.m.Load(), cut.Add(time.Minute))
	if got := r.take(); got[wire.PieceID{Stripe: id, Index: 3}] != 1 {
		t.Errorf("what was lost in that hour was not found: %v", got)
	}
}

// TestModel kills coordinators at random moments among puts and restarts: when
// everybody is back and time has gone by, what is missing was found.
func TestModel(t *testing.T) {
	r, n := newRig(t), uint64(0)
	now := time.Now()
	r.quiet(t, now)
	rapid.Check(t, func(rt *rapid.T) {
		want := map[wire.PieceID]bool{}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 100).Draw(rt, "seconds")) * time.Second)
			r.set(now)
			i := rapid.IntRange(0, seats-1).Draw(rt, "host")
			switch rapid.IntRange(0, 3).Draw(rt, "what") {
			case 0: // a coordinator dies after its quorum
				n++
				id := r.put(t, n, now, i)
				want[wire.PieceID{Stripe: id, Index: uint8(i)}] = true
				r.restart(rapid.IntRange(0, seats-1).Draw(rt, "coordinator"))
			case 1:
				n++
				r.put(t, n, now)
			case 2: // this one forgets what it remembered and knows what it wrote down
				r.boot(i)
				r.restart(i)
			case 3:
				down := map[bool]topology.HostState{true: topology.HostDown, false: topology.HostUp}[r.away[i].CompareAndSwap(false, true)]
				if down == topology.HostUp {
					r.away[i].Store(false)
				}
				r.edit(func(m *topology.Map) { m.Hosts[i].State = down })
			}
			r.at(t, now)
		}
		for i := range seats {
			r.away[i].Store(false)
		}
		r.edit(func(m *topology.Map) {
			for i := range m.Hosts {
				m.Hosts[i].State = topology.HostUp
			}
		})
		for range 4 {
			now = now.Add(80 * time.Second)
			r.at(t, now)
		}
		r.checked(t, true, "at the end")
		for id := range r.take() {
			delete(want, id)
		}
		if len(want) > 0 {
			rt.Errorf("not found: %v", want)
		}
	})
}
