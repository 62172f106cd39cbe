package trash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/metatest"
	"ashlar/daemon/wire"
)

func extents(n int, bytes uint64) (list []ashlar.Extent) {
	for i := range n {
		list = append(list, ashlar.Extent{
			Write: ashlar.WriteID(i + 1), Part: uint32(i), Bytes: bytes, StripeBytes: 16 << 20, SmallMax: 1 << 20,
			Large: ashlar.Code{K: 8, M: 4}, Small: ashlar.Code{K: 1, M: 2},
		})
	}
	return list
}

func TestRowRoundTrip(t *testing.T) {
	e := Entry{Bucket: ashlar.BucketID{1, 2, 3}, Key: "a/b", Extents: extents(3, 1<<40), Dropped: time.Unix(0, 1e18).UTC()}
	put, err := Row(e)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(meta.Row{Key: put.Key, Value: put.Value})
	if err != nil || !reflect.DeepEqual(got, e) {
		t.Fatalf("got %+v, %v\nwant %+v", got, err, e)
	}
	again, err := Row(e)
	if err != nil || bytes.Equal(again.Key, put.Key) {
		t.Fatalf("two entries of one moment have the same key (%v)", err)
	}
	later, err := Row(Entry{Dropped: e.Dropped.Add(1)})
	if err != nil || bytes.Compare(put.Key, later.Key) >= 0 || bytes.Compare(put.Key, before(e.Dropped.Add(1))) >= 0 ||
		bytes.Compare(put.Key, before(e.Dropped)) < 0 {
		t.Fatalf("keys are not in order of time (%v)", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := Row(Entry{Key: "k", Extents: extents(1, 1)})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		row  meta.Row
		kind ashlar.Kind
	}{
		"key":    {meta.Row{Key: good.Key[:16], Value: good.Value}, ashlar.Corrupt},
		"kind":   {meta.Row{Key: append([]byte{'o'}, good.Key[1:]...), Value: good.Value}, ashlar.Corrupt},
		"noise":  {meta.Row{Key: good.Key, Value: []byte{0xff}}, ashlar.Corrupt},
		"format": {meta.Row{Key: good.Key, Value: append([]byte{}, 0x08, 2)}, ashlar.Invalid},
		"empty":  {meta.Row{Key: good.Key}, ashlar.Invalid},
		"bucket": {meta.Row{Key: good.Key, Value: []byte{0x08, 1}}, ashlar.Corrupt},
	} {
		if _, err := Decode(c.row); !ashlar.Is(err, c.kind) {
			t.Errorf("%s: %v, want %v", name, err, c.kind)
		}
	}
}

// disks is what DeleteStripes was asked for, and answers.
type disks struct {
	wire.Stripes
	mu      sync.Mutex
	deleted map[string]int // extents by key
	calls   int
	fail    func(key string, call int) error
}

func (d *disks) DeleteStripes(ctx context.Context, _ ashlar.BucketID, key string, extents []ashlar.Extent) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if _, ok := ctx.Deadline(); !ok {
		return errors.New("no deadline")
	}
	if d.fail != nil {
		if err := d.fail(key, d.calls); err != nil {
			return err
		}
	}
	d.deleted[key] += len(extents)
	return nil
}

func (d *disks) ReadStripes(context.Context, wire.ReadRequest) (io.ReadCloser, error) { panic("never") }

// bench is a worker on doubles that leads shards 1 and 2.
type bench struct {
	*Worker
	disks *disks
	now   time.Time
}

func newBench(t *testing.T) *bench {
	d := &disks{deleted: map[string]int{}}
	b := &bench{disks: d, now: time.Unix(1e9, 0)}
	b.Worker = &Worker{
		Store: metatest.NewModel(), Stripes: d, Grace: time.Hour,
		Led:   func() []ashlar.ShardID { return []ashlar.ShardID{1, 2} },
		Clock: func() time.Time { return b.now },
	}
	b.init()
	return b
}

func (b *bench) throw(t *testing.T, shard ashlar.ShardID, key string, age time.Duration, list []ashlar.Extent) {
	t.Helper()
	put, err := Row(Entry{Key: key, Extents: list, Dropped: b.now.Add(-age)})
	if err != nil {
		t.Fatal(err)
	}
	txn := &meta.Txn{ID: ashlar.RequestID(ashlar.NewID()), Puts: []meta.Put{put, {Key: []byte("s" + key), Value: []byte("x")}, {Key: []byte("u" + key), Value: []byte("x")}}}
	if err := b.Store.Commit(context.Background(), shard, txn); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) left(t *testing.T, shard ashlar.ShardID) (list []Entry) {
	t.Helper()
	page, err := b.Store.Scan(context.Background(), shard, meta.ScanRequest{Start: []byte{Kind}, End: []byte{Kind + 1}})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range page.Rows {
		e, err := Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

func TestOldTrashIsFreed(t *testing.T) {
	b := newBench(t)
	b.throw(t, 1, "old", time.Hour+1, extents(2, 100))
	b.throw(t, 1, "young", time.Hour, extents(1, 1))
	b.throw(t, 2, "old too", 48*time.Hour, extents(1, 1))
	b.throw(t, 3, "not ours", 48*time.Hour, extents(1, 1))
	if b.round(t.Context()) {
		t.Fatal("there is nothing more to do")
	}
	if len(b.disks.deleted) != 2 || b.disks.deleted["old"] != 2 || b.disks.deleted["old too"] != 1 {
		t.Fatalf("deleted %v", b.disks.deleted)
	}
	if l := b.left(t, 1); len(l) != 1 || l[0].Key != "young" {
		t.Fatalf("left %v", l)
	}
	if len(b.left(t, 2)) != 0 || len(b.left(t, 3)) != 1 {
		t.Fatal("wrong rows left")
	}
	if st := b.Stats(); st.Rows != 2 || st.Bytes != 201 || st.Errors != 0 || st.Lag != 47*time.Hour {
		t.Fatalf("stats %+v", st)
	}
	b.now = b.now.Add(time.Second)
	b.round(t.Context())
	if len(b.left(t, 1)) != 0 {
		t.Fatal("the young one is old now")
	}
	row, err := b.Store.Get(t.Context(), 1, []byte("uold"))
	if err != nil || string(row.Value) != "x" {
		t.Fatalf("a row that is not trash: %v", err)
	}
}

// One dead disk does not hold up what lies behind it, and is asked again with
// growing pauses until it answers.
func TestFailuresAreRetried(t *testing.T) {
	b := newBench(t)
	for i := range 200 {
		b.throw(t, 1, fmt.Sprintf("k%03d", i), 2*time.Hour-time.Duration(i), extents(1, 1))
	}
	down := true
	b.disks.fail = func(key string, _ int) error {
		if down && key < "k100" {
			return errors.New("the disk is away")
		}
		return nil
	}
	b.round(t.Context())
	if n := len(b.left(t, 1)); n != 100 {
		t.Fatalf("%d left, want the 100 that fail", n)
	}
	if st := b.Stats(); st.Rows != 100 || st.Errors != 100 {
		t.Fatalf("stats %+v", st)
	}
	calls := b.disks.calls
	var pauses []time.Duration
	for range 12 {
		b.round(t.Context()) // backs off: nothing is asked
		if b.disks.calls != calls {
			t.Fatal("no pause after a failure")
		}
		pause := b.shards[1].retryAt.Sub(b.now)
		pauses = append(pauses, pause)
		b.now = b.now.Add(pause)
		b.round(t.Context())
		calls = b.disks.calls
	}
	if pauses[0] != backoffMin || pauses[1] != 2*backoffMin || pauses[11] != backoffMax {
		t.Fatalf("pauses %v", pauses)
	}
	down = false
	b.now = b.now.Add(backoffMax)
	b.round(t.Context())
	if n := len(b.left(t, 1)); n != 0 {
		t.Fatalf("%d left", n)
	}
	if b.shards[1].backoff != 0 {
		t.Fatal("still backing off")
	}
}

// More failing rows than one pass takes do not starve the rest.
func TestCursorPassesFailures(t *testing.T) {
	b := newBench(t)
	b.limit.SetLimit(1e9)
	const failing = rowsPerPage*pagesPerPass + 10
	for i := range failing {
		b.throw(t, 1, "bad", 2*time.Hour-time.Duration(i), extents(1, 1))
	}
	b.throw(t, 1, "good", 2*time.Hour-failing, extents(1, 1))
	b.disks.fail = func(key string, _ int) error {
		if key == "bad" {
			return errors.New("no")
		}
		return nil
	}
	b.round(t.Context())
	if b.disks.deleted["good"] != 0 {
		t.Fatal("a pass has no bound")
	}
	b.now = b.now.Add(backoffMax)
	b.round(t.Context())
	if b.disks.deleted["good"] != 1 {
		t.Fatal("what lies behind the failures starves")
	}
}

// A huge entry is freed in bounded calls, and what was done is remembered.
func TestLargeEntryGoesOnWhereItStopped(t *testing.T) {
	b := newBench(t)
	list := extents(100, 100*16<<20) // 100 stripes each
	b.throw(t, 1, "huge", 2*time.Hour, list)
	b.disks.fail = func(_ string, call int) error {
		if call == 3 {
			return errors.New("once")
		}
		return nil
	}
	b.round(t.Context())
	l := b.left(t, 1)
	if len(l) != 1 || len(l[0].Extents) != 90 || l[0].Extents[0] != list[10] || b.disks.deleted["huge"] != 10 {
		t.Fatalf("left %d rows, deleted %v", len(l), b.disks.deleted)
	}
	b.now = b.now.Add(backoffMax)
	b.round(t.Context())
	if len(b.left(t, 1)) != 0 || b.disks.deleted["huge"] != 100 || b.disks.calls != 3+18 {
		t.Fatalf("deleted %v in %d calls", b.disks.deleted, b.disks.calls)
	}
}

func TestBatch(t *testing.T) {
	for _, c := range []struct {
		list []ashlar.Extent
		want int
	}{
		{extents(3, 1), 3},
		{extents(1, 1<<40), 1},
		{extents(2, 1<<40), 1},
		{append(extents(511, 1), extents(2, 1<<20)...), 512},
	} {
		if got := batch(c.list); got != c.want {
			t.Errorf("batch of %d extents is %d, want %d", len(c.list), got, c.want)
		}
	}
}

// lossy loses the answer of the first commit.
type lossy struct {
	meta.Store
	once sync.Once
}

func (l *lossy) Commit(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn) (err error) {
	l.once.Do(func() { err = ashlar.E("test", "", ashlar.Unavailable, nil) })
	if err != nil {
		return err
	}
	return l.Store.Commit(ctx, shard, txn)
}

// Run frees, survives a lost commit, and ends with its context.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Clock, b.now = nil, time.Now()
		b.throw(t, 1, "k", 2*time.Hour, extents(1, 1))
		b.throw(t, 1, "young", 0, extents(1, 1))
		b.Store = &lossy{Store: b.Store}
		ctx, cancel := context.WithCancel(t.Context())
		end := make(chan error, 1)
		go func() { end <- b.Run(ctx) }()
		time.Sleep(time.Minute)
		if l := b.left(t, 1); len(l) != 1 || l[0].Key != "young" {
			t.Errorf("left %v", l)
		}
		time.Sleep(time.Hour)
		if l := b.left(t, 1); len(l) != 0 {
			t.Errorf("left %v", l)
		}
		cancel()
		if err := <-end; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	put, _ := Row(Entry{Key: "k", Extents: extents(2, 5)})
	f.Add(put.Key, put.Value)
	f.Fuzz(func(t *testing.T, key, value []byte) {
		e, err := Decode(meta.Row{Key: key, Value: value})
		if err != nil {
			return
		}
		again, err := Row(e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(meta.Row{Key: again.Key, Value: again.Value})
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Fatalf("%+v became %+v, %v", e, got, err)
		}
	})
}

// referee refers to the writes that it holds.
type referee map[ashlar.WriteID]bool

func (r referee) Refers(_ context.Context, _ ashlar.BucketID, _ string, extents []ashlar.Extent) ([]bool, error) {
	if r == nil {
		return nil, errors.New("no leader")
	}
	refers := make([]bool, len(extents))
	for i, x := range extents {
		refers[i] = r[x.Write]
	}
	return refers, nil
}

// TestNothingLiveIsFreed puts on the list what a row refers to.
func TestNothingLiveIsFreed(t *testing.T) {
	b := newBench(t)
	live := referee{2: true}
	b.Referee = live
	b.throw(t, 1, "live", 2*time.Hour, extents(3, 100))
	b.throw(t, 1, "dead", 2*time.Hour, extents(1, 100))
	b.round(t.Context())
	if left := b.left(t, 1); len(left) != 1 || left[0].Key != "live" || b.disks.deleted["live"] != 0 || b.disks.deleted["dead"] != 1 {
		t.Errorf("left %v, freed %v", left, b.disks.deleted)
	}
	if s := b.Stats(); s.Held != 1 || s.Rows != 1 {
		t.Errorf("%+v", s)
	}
	b.Referee = referee(nil)
	b.now = b.now.Add(time.Hour)
	b.round(t.Context())
	if left := b.left(t, 1); len(left) != 1 || b.disks.deleted["live"] != 0 {
		t.Errorf("freed without an answer: %v", b.disks.deleted)
	}
	b.Referee = referee{}
	b.now = b.now.Add(time.Hour)
	b.round(t.Context())
	if left := b.left(t, 1); len(left) != 0 || b.disks.deleted["live"] != 3 {
		t.Errorf("left %v, freed %v when nothing refers to it any more", left, b.disks.deleted)
	}
}
