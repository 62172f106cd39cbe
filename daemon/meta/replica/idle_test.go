package replica

import (
	"testing"
	"time"

	"ashlar"
)

// BenchmarkIdle reports what a cluster costs that does nothing: 6 hosts, 64
// shards of 3 replicas.
func BenchmarkIdle(b *testing.B) {
	c := newCluster(b, 6, 64, 3, false)
	c.tick = defaultTick
	begin := time.Now()
	c.startAll()
	for s := range 64 {
		c.leaderOf(ashlar.ShardID(s))
	}
	b.ReportMetric(time.Since(begin).Seconds(), "s-to-start")
	before := cpu()
	b.ResetTimer()
	time.Sleep(3 * time.Second)
	b.StopTimer()
	b.ReportMetric(float64((cpu()-before).Milliseconds())/3, "cpu-ms/s")
}
