// Package segmenttest is the conformance suite of package segment: what a log
// must do on any device that keeps the rules of segment.Device.
//
// It is run against the device in memory, a file opened with O_DIRECT and a
// loop device, and may be run against any other:
//
//	segmenttest.Run(t, func(t *testing.T) segment.Device { … })
//
// The function returns a fresh device each time; what it needs to be cleaned
// up it registers with the test. Devices need 48 MiB.
package segmenttest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/segment"
)

// DeviceBytes is the length of the devices that the suite wants.
const DeviceBytes = 48 * ashlar.MiB

// Run runs the suite.
func Run(t *testing.T, device func(t *testing.T) segment.Device) {
	for _, c := range []struct {
		name string
		test func(*bench)
	}{
		{"RoundTrip", roundTrip},
		{"Kinds", kinds},
		{"DeleteAndReplace", deleteAndReplace},
		{"IndexLost", indexLost},
		{"IndexOfAnotherRun", indexOfAnotherRun},
		{"ManyCallers", manyCallers},
		{"FullDeleteCompact", fullDeleteCompact},
		{"ReopenOften", reopenOften},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.test(&bench{T: t, dev: device(t), dir: t.TempDir(), disk: ashlar.DiskID(ashlar.NewID()), rng: rand.New(rand.NewPCG(1, 2))})
		})
	}
}

// bench is one device under test.
type bench struct {
	*testing.T
	dev  segment.Device
	dir  string
	disk ashlar.DiskID
	rng  *rand.Rand
}

func (b *bench) open() *segment.Log {
	b.Helper()
	l, err := segment.Open(b.Context(), b.dev, segment.Options{
		Disk: b.disk, IndexDir: b.dir, SegmentBytes: ashlar.MiB, Writers: 2, CompactBytesPerSecond: -1,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

func (b *bench) close(l *segment.Log) {
	b.Helper()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

// Piece makes a record whose every field and byte follows from n and bytes.
func Piece(n uint64, bytes int) *segment.Record {
	r := &segment.Record{
		Group: ashlar.GroupID(n % 4096), Code: ashlar.Code{K: 8, M: 4}, StripeBytes: uint32(8 * bytes),
		Owner:   ashlar.Owner{Bucket: ashlar.BucketID{byte(n), 1}, Key: fmt.Sprintf("key/%d", n), Part: uint32(n % 7), Offset: n << 20},
		Written: time.Unix(1_700_000_000, int64(n)).UTC(), Data: make([]byte, bytes),
	}
	binary.BigEndian.PutUint64(r.Stripe[:], n*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(r.Stripe[8:], n)
	r.Piece = uint8(n % 12)
	rng := rand.New(rand.NewPCG(n, uint64(bytes)))
	for i := range r.Data {
		r.Data[i] = byte(rng.Uint32())
	}
	return r
}

func (b *bench) append(l *segment.Log, r *segment.Record) {
	b.Helper()
	if err := l.Append(b.Context(), r); err != nil {
		b.Fatal(err)
	}
}

// holds checks that the log gives the record back, whole and in part.
func (b *bench) holds(l *segment.Log, r *segment.Record) {
	b.Helper()
	got := make([]byte, len(r.Data))
	if err := l.ReadAt(b.Context(), r.Key, got, 0); err != nil {
		b.Fatalf("%v: %v", r.Key, err)
	}
	if !bytes.Equal(got, r.Data) {
		b.Fatalf("%v: wrong bytes", r.Key)
	}
	info, err := l.Stat(r.Key)
	want := segment.Info{Key: r.Key, Group: r.Group, Code: r.Code, StripeBytes: r.StripeBytes, Bytes: uint32(len(r.Data)), Written: r.Written}
	if err != nil || info != want {
		b.Fatalf("stat: %+v, %v, want %+v", info, err, want)
	}
}

func (b *bench) absent(l *segment.Log, k segment.Key) {
	b.Helper()
	err := l.ReadAt(b.Context(), k, make([]byte, 1), 0)
	if !ashlar.Is(err, ashlar.NotFound) || l.Has(k) {
		b.Fatalf("%v: %v, has %v, want not found", k, err, l.Has(k))
	}
}

var sizes = []int{0, 1, 7, 511, 512, 4096, 32767, 32768, 32769, 65536, 100_000, 900_000}

func roundTrip(b *bench) {
	l := b.open()
	var all []*segment.Record
	for i, n := range sizes {
		r := Piece(uint64(i+1), n)
		b.append(l, r)
		all = append(all, r)
	}
	check := func(l *segment.Log) {
		for _, r := range all {
			b.holds(l, r)
			for range 20 {
				off := b.rng.IntN(len(r.Data) + 1)
				part := make([]byte, b.rng.IntN(len(r.Data)-off+1))
				if err := l.ReadAt(b.Context(), r.Key, part, int64(off)); err != nil || !bytes.Equal(part, r.Data[off:off+len(part)]) {
					b.Fatalf("%v bytes %d+%d: %v", r.Key, off, len(part), err)
				}
			}
			d, err := l.Describe(b.Context(), r.Key)
			if err != nil || d.Owner != r.Owner {
				b.Fatalf("describe: %+v, %v", d, err)
			}
		}
		seen := 0
		if err := l.Each(b.Context(), func(segment.Info) bool { seen++; return true }); err != nil || seen != len(all) {
			b.Fatalf("each saw %d of %d: %v", seen, len(all), err)
		}
	}
	check(l)
	used := l.Usage()
	b.close(l)
	l = b.open()
	check(l)
	if u := l.Usage(); u.Used != used.Used || u.Records != used.Records {
		b.Fatalf("usage after reopening %+v, before %+v", u, used)
	}
}

func kinds(b *bench) {
	l := b.open()
	r := Piece(1, 1000)
	b.append(l, r)
	for _, c := range []struct {
		kind ashlar.Kind
		err  error
	}{
		{ashlar.Invalid, l.ReadAt(b.Context(), r.Key, make([]byte, 1001), 0)},
		{ashlar.Invalid, l.ReadAt(b.Context(), r.Key, make([]byte, 1), -1)},
		{ashlar.Invalid, l.ReadAt(b.Context(), r.Key, make([]byte, 1), 1000)},
		{ashlar.NotFound, l.ReadAt(b.Context(), segment.Key{}, nil, 0)},
		{ashlar.Invalid, l.Append(b.Context(), Piece(2, ashlar.MiB))},
		{ashlar.Invalid, l.Append(b.Context(), &segment.Record{Owner: ashlar.Owner{Key: string(make([]byte, 1025))}})},
	} {
		if !ashlar.Is(c.err, c.kind) {
			b.Errorf("%v, want kind %v", c.err, c.kind)
		}
	}
	if err := l.Delete(b.Context(), segment.Key{}); err != nil {
		b.Error(err)
	}
	longest := Piece(9, int(l.Usage().RecordDataMax))
	longest.Owner.Key = string(bytes.Repeat([]byte("k"), 1024))
	b.append(l, longest)
	b.holds(l, longest)
	b.close(l)
	if err := l.Append(b.Context(), r); !ashlar.Is(err, ashlar.Unavailable) {
		b.Errorf("after close: %v", err)
	}
	if _, err := segment.Open(b.Context(), b.dev, segment.Options{Disk: ashlar.DiskID{1}, IndexDir: b.TempDir()}); !ashlar.Is(err, ashlar.Invalid) {
		b.Errorf("another disk's log: %v", err)
	}
}

func deleteAndReplace(b *bench) {
	l := b.open()
	r1, r2, r3 := Piece(1, 5000), Piece(1, 70_000), Piece(3, 10)
	b.append(l, r1)
	b.append(l, r3)
	b.append(l, r2)
	b.holds(l, r2)
	if err := l.Delete(b.Context(), r3.Key); err != nil {
		b.Fatal(err)
	}
	for range 2 {
		b.absent(l, r3.Key)
		b.holds(l, r2)
		b.close(l)
		l = b.open()
	}
	b.append(l, r3)
	b.holds(l, r3)
}

func (b *bench) dropIndex() {
	if err := os.RemoveAll(b.dir); err != nil {
		b.Fatal(err)
	}
}

func indexLost(b *bench) {
	l := b.open()
	live := b.churn(l, 300)
	b.close(l)
	b.dropIndex()
	l = b.open()
	b.same(l, live)
	used := l.Usage().Used
	if err := l.Compact(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.close(l)
	b.dropIndex()
	l = b.open()
	b.same(l, live)
	if u := l.Usage(); u.Used != used {
		b.Fatalf("used %d after compaction and rebuild, %d before", u.Used, used)
	}
}

// churn appends, replaces and deletes, and returns what is live.
func (b *bench) churn(l *segment.Log, ops int) map[uint64]*segment.Record {
	live := map[uint64]*segment.Record{}
	for range ops {
		n := uint64(b.rng.IntN(100) + 1)
		if b.rng.IntN(3) == 0 {
			if err := l.Delete(b.Context(), Piece(n, 0).Key); err != nil {
				b.Fatal(err)
			}
			delete(live, n)
			continue
		}
		live[n] = Piece(n, b.rng.IntN(100_000))
		b.append(l, live[n])
	}
	return live
}

func (b *bench) same(l *segment.Log, live map[uint64]*segment.Record) {
	b.Helper()
	for n := uint64(1); n <= 100; n++ {
		if r := live[n]; r != nil {
			b.holds(l, r)
		} else {
			b.absent(l, Piece(n, 0).Key)
		}
	}
	if u := l.Usage(); u.Records != int64(len(live)) {
		b.Fatalf("%d records, want %d", u.Records, len(live))
	}
}

// indexOfAnotherRun puts an older, self-consistent index back, as a restored
// backup or a disk that was on another host would.
func indexOfAnotherRun(b *bench) {
	l := b.open()
	b.churn(l, 50)
	b.close(l)
	old := b.TempDir()
	if err := os.CopyFS(old, os.DirFS(b.dir)); err != nil {
		b.Fatal(err)
	}
	l = b.open()
	live := b.churn(l, 400)
	for n := uint64(1); n <= 100; n++ {
		if live[n] == nil {
			if err := l.Delete(b.Context(), Piece(n, 0).Key); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.close(l)
	b.dir = old
	b.same(b.open(), live)
}

func manyCallers(b *bench) {
	const callers, each = 64, 20
	l := b.open()
	var wg sync.WaitGroup
	errs := make(chan error, callers)
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				r := Piece(uint64(1+c*each+i), 4096)
				if err := l.Append(b.Context(), r); err != nil {
					errs <- err
					return
				}
				got := make([]byte, 4096)
				if err := l.ReadAt(b.Context(), r.Key, got, 0); err != nil || !bytes.Equal(got, r.Data) {
					errs <- fmt.Errorf("read own write: %w", err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		b.Fatal(err)
	}
	s := l.Stats()
	b.Logf("%d appends, %d flushes, %d bytes written for %d", s.Appends, s.Flushes, s.BytesWritten, s.BytesAppended)
	if s.Appends != callers*each || s.Flushes >= s.Appends {
		b.Fatalf("%d appends took %d flushes", s.Appends, s.Flushes)
	}
}

func fullDeleteCompact(b *bench) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	l := b.open()
	var n uint64
	for {
		err := l.Append(ctx, Piece(n+1, 60_000))
		if ashlar.Is(err, ashlar.Full) {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
		n++
	}
	full := l.Usage()
	if full.Used < full.Capacity*9/10 {
		b.Fatalf("full at %+v", full)
	}
	for i := uint64(1); i <= n; i += 2 {
		if err := l.Delete(ctx, Piece(i, 0).Key); err != nil {
			b.Fatalf("delete %d of %d when full: %v", i, n, err)
		}
	}
	before := l.Stats()
	reads := b.readWhile(l, n, func() {
		if err := l.Compact(ctx); err != nil {
			b.Error(err)
		}
	})
	u, s := l.Usage(), l.Stats()
	given := int64(u.SegmentsFree-full.SegmentsFree) * u.SegmentBytes
	b.Logf("full: %+v; half deleted and compacted: %+v; %d bytes copied and %d written for %d given back, %d reads meanwhile",
		full, u, s.BytesCompacted, s.BytesWritten-before.BytesWritten, given, reads)
	if got := n / 2; u.Records != int64(got) || u.SegmentsFree < u.SegmentsTotal*35/100 {
		b.Fatalf("after compaction %+v", u)
	}
	for i := uint64(1); i <= n; i++ {
		if i%2 == 0 {
			b.holds(l, Piece(i, 60_000))
		} else {
			b.absent(l, Piece(i, 0).Key)
		}
	}
	b.append(l, Piece(n+1, 60_000))
	for i := range u.SegmentsTotal {
		if rep, err := l.Verify(ctx, i); err != nil || len(rep.Bad) > 0 || rep.Sealed && !rep.SumMatches {
			b.Fatalf("verify segment %d: %+v, %v", i, rep, err)
		}
	}
}

// readWhile reads the even ones of n pieces from two goroutines while work runs.
func (b *bench) readWhile(l *segment.Log, n uint64, work func()) (reads int64) {
	done := make(chan struct{})
	var count atomic.Int64
	var wg sync.WaitGroup
	for c := range uint64(2) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(c, 5))
			for {
				select {
				case <-done:
					return
				default:
				}
				want := Piece(2+2*rng.Uint64N(n/2), 60_000)
				got := make([]byte, len(want.Data))
				if err := l.ReadAt(b.Context(), want.Key, got, 0); err != nil || !bytes.Equal(got, want.Data) {
					b.Errorf("read during compaction: %v", err)
					return
				}
				count.Add(1)
			}
		})
	}
	work()
	close(done)
	wg.Wait()
	return count.Load()
}

// reopenOften abandons an open segment each time; they must not pile up.
func reopenOften(b *bench) {
	for i := range uint64(30) {
		l := b.open()
		b.append(l, Piece(i+1, 2000))
		if err := l.Compact(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.close(l)
	}
	l := b.open()
	for i := range uint64(30) {
		b.holds(l, Piece(i+1, 2000))
	}
	if u := l.Usage(); u.SegmentsFree < u.SegmentsTotal*3/4 {
		b.Fatalf("%+v", errors.New(fmt.Sprint(u)))
	}
}
