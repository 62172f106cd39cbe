package replica

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
)

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchmarkClients shares b.N calls among clients and reports what one costs,
// on all three hosts together.
func benchmarkClients(b *testing.B, clients int, overGRPC bool, call func(ctx context.Context, store meta.Store, n int64) error) {
	c := newCluster(b, 3, 6, 3, false)
	c.tick, c.overGRPC, c.cacheBytes = defaultTick, overGRPC, defaultCacheBytes
	c.startAll()
	store := c.store()
	ctx := testCtx(b, 10*time.Minute)
	for i := range int64(1024) {
		if err := store.Commit(ctx, shardOf(i), putTxn(i)); err != nil {
			b.Fatal(err)
		}
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	before := cpu()
	b.ResetTimer()
	for range clients {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				if err := call(ctx, store, n); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
}

func benchKey(n int64) []byte { return fmt.Appendf(nil, "bucket/object-%08d", n%1024) }

func shardOf(n int64) ashlar.ShardID { return ashlar.ShardID(n % 1024 % 6) }

// putTxn is the shape of an object's commit: one row and two counters.
func putTxn(n int64) *meta.Txn {
	return &meta.Txn{
		ID:   ashlar.RequestID(ashlar.NewID()),
		Puts: []meta.Put{{Key: benchKey(n), Value: make([]byte, 300)}},
		Adds: []meta.Add{{Key: []byte("usage/bytes"), Delta: 300}, {Key: []byte("usage/objects"), Delta: 1}},
	}
}

// benchmarkBoth runs in one process by direct calls, and over sockets.
func benchmarkBoth(b *testing.B, run func(b *testing.B, clients int, overGRPC bool)) {
	for _, overGRPC := range []bool{false, true} {
		for _, clients := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("grpc=%t/clients=%d", overGRPC, clients), func(b *testing.B) { run(b, clients, overGRPC) })
		}
	}
}

func BenchmarkCommit(b *testing.B) {
	benchmarkBoth(b, func(b *testing.B, clients int, overGRPC bool) {
		benchmarkClients(b, clients, overGRPC, func(ctx context.Context, store meta.Store, n int64) error {
			return store.Commit(ctx, shardOf(n), putTxn(n))
		})
	})
}

func BenchmarkGet(b *testing.B) {
	benchmarkBoth(b, func(b *testing.B, clients int, overGRPC bool) {
		benchmarkClients(b, clients, overGRPC, func(ctx context.Context, store meta.Store, n int64) error {
			_, err := store.Get(ctx, shardOf(n), benchKey(n))
			return err
		})
	})
}
