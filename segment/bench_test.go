package segment_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ashlar"
	"ashlar/diskmgr/blockdev/looptest"
	"ashlar/segment"
	"ashlar/segment/segmenttest"
)

// cpu is the process's CPU time, user and system.
func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func benchLog(b *testing.B) *segment.Log {
	dev := segmenttest.Loop(b, ashlar.GiB, looptest.Attach)
	l, err := segment.Open(b.Context(), dev, segment.Options{Disk: ashlar.DiskID{1}, IndexDir: filepath.Join(b.TempDir(), "index"), Writers: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

// spread runs op n times from that many callers.
func spread(b *testing.B, callers int, op func(i int64) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	before := cpu()
	for range callers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := op(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64((cpu()-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
}

// BenchmarkAppend replaces keys from a small set, so that it runs for ever;
// compaction is part of the price.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ bytes, callers int }{{4096, 1}, {4096, 64}, {65536, 16}, {1 << 20, 4}} {
		b.Run(fmt.Sprintf("bytes=%d/callers=%d", c.bytes, c.callers), func(b *testing.B) {
			l := benchLog(b)
			data := segmenttest.Piece(1, c.bytes).Data
			keys := uint64(256*ashlar.MiB/c.bytes) + 1
			b.SetBytes(int64(c.bytes))
			spread(b, c.callers, func(i int64) error {
				r := segment.Record{Data: data, Owner: ashlar.Owner{Key: "some/key/of/usual/length.bin"}}
				n := uint64(i) % keys * 0x9e3779b97f4a7c15
				for j := range 8 {
					r.Stripe[j] = byte(n >> (8 * j))
				}
				return l.Append(context.Background(), &r)
			})
			s := l.Stats()
			b.ReportMetric(float64(s.Appends)/float64(max(s.Batches, 1)), "appends/flush")
			b.ReportMetric(float64(s.BytesWritten)/float64(max(s.BytesAppended, 1)), "written/byte")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, c := range []struct{ bytes, callers int }{{4096, 1}, {4096, 16}, {65536, 16}, {1 << 20, 4}} {
		b.Run(fmt.Sprintf("bytes=%d/callers=%d", c.bytes, c.callers), func(b *testing.B) {
			l := benchLog(b)
			keys := 128 * ashlar.MiB / c.bytes
			var all []segment.Key
			for i := range min(keys, 4000) {
				r := segmenttest.Piece(uint64(i+1), 0)
				r.Data = make([]byte, c.bytes)
				if err := l.Append(b.Context(), r); err != nil {
					b.Fatal(err)
				}
				all = append(all, r.Key)
			}
			b.SetBytes(int64(c.bytes))
			pool := sync.Pool{New: func() any { p := make([]byte, c.bytes); return &p }}
			spread(b, c.callers, func(int64) error {
				p := pool.Get().(*[]byte)
				defer pool.Put(p)
				return l.ReadAt(context.Background(), all[rand.IntN(len(all))], *p, 0)
			})
		})
	}
}

// slowFlush is a device whose flushes take some milliseconds each and go one after the other,
// as those of an SSD without power-loss protection do.
type slowFlush struct {
	segment.Device
	mu sync.Mutex
}

const flushTime = 5 * time.Millisecond

func (d *slowFlush) Flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	time.Sleep(flushTime)
	return d.Device.Flush()
}

// BenchmarkAppendSlowFlush is of small appends to such a device: what counts is how many share a flush.
func BenchmarkAppendSlowFlush(b *testing.B) {
	for _, writers := range []int{1, 2, 4} {
		for _, callers := range []int{4, 64} {
			b.Run(fmt.Sprintf("writers=%d/callers=%d", writers, callers), func(b *testing.B) {
				dev := &slowFlush{Device: segmenttest.Loop(b, ashlar.GiB, looptest.Attach)}
				l, err := segment.Open(b.Context(), dev, segment.Options{Disk: ashlar.DiskID{1}, IndexDir: filepath.Join(b.TempDir(), "index"), Writers: writers})
				if err != nil {
					b.Fatal(err)
				}
				defer l.Close()
				began := time.Now()
				spread(b, callers, func(i int64) error {
					r := segmenttest.Piece(uint64(i), 0)
					r.Data = make([]byte, 4096)
					return l.Append(context.Background(), r)
				})
				s := l.Stats()
				b.ReportMetric(float64(s.Appends)/float64(max(s.Flushes, 1)), "appends/flush")
				b.ReportMetric(float64(s.Appends)*flushTime.Seconds()/time.Since(began).Seconds(), "appends/flush-time")
			})
		}
	}
}
