package dev

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
)

// Budgets of resident memory: the buffers of a daemon and what it needs
// besides (indexes, metadata, connections, garbage between collections). A
// gateway and a placement member hold no bodies. Measured: 150, 50 and 50 MiB.
var budgets = map[byte]int64{
	'a': daemonBudget, 'b': daemonBudget, 'c': daemonBudget, 'g': 192 * ashlar.MiB, 'p': 192 * ashlar.MiB,
}

const daemonBudget = hostBufferBytes + 128*ashlar.MiB

// TestMemory uploads 64 large objects at the same time: nothing grows beyond
// its budget, and whoever is sent away succeeds later.
func TestMemory(t *testing.T) {
	const uploads, size = 64, 32 * ashlar.MiB
	cfg := testConfig(t)
	cfg.Gateways, cfg.DiskBytes = 2, 2*ashlar.GiB
	p := startMany(t, cfg)
	client := s3Client(t, p.S3(), cfg)
	makeBucket(t, client)

	pids := p.PIDs()
	var refused, stored atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range uploads {
		c := s3Client(t, p.Gateways()[i%2], cfg)
		key := fmt.Sprintf("large/%d", i)
		wg.Go(func() {
			b := content(11, key, 1, size)
			for time.Since(begin) < 2*time.Minute {
				ctx, done := context.WithTimeout(context.Background(), 2*time.Minute)
				err := put(ctx, c, object{key, 1, b})
				done()
				if err == nil {
					stored.Add(1)
					return
				}
				if status(err) != http.StatusServiceUnavailable {
					t.Errorf("PUT %s: %v", key, err)
					return
				}
				refused.Add(1)
				time.Sleep(time.Second)
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	if stored.Load() != uploads {
		t.Errorf("%d of %d uploads stored", stored.Load(), uploads)
	}
	t.Logf("%d uploads of %d MiB in %.1f s, %d times 503", stored.Load(), size/ashlar.MiB, took.Seconds(), refused.Load())
	if now := p.PIDs(); !maps.Equal(now, pids) {
		t.Errorf("processes ended meanwhile: %v, now %v", pids, now)
	}
	for _, name := range slices.Sorted(maps.Keys(pids)) {
		peak := peakBytes(t, pids[name])
		t.Logf("%s: peak %d MiB", name, peak/ashlar.MiB)
		if budget := budgets[name[0]]; peak > budget {
			t.Errorf("%s: peak of %d MiB, the budget is %d MiB", name, peak/ashlar.MiB, budget/ashlar.MiB)
		}
	}
	for i := range 8 {
		key := fmt.Sprintf("large/%d", i*uploads/8)
		b, err := get(t.Context(), client, key, "")
		if err != nil || !bytes.Equal(b, content(11, key, 1, size)) {
			t.Errorf("GET %s: %d bytes, %v", key, len(b), err)
		}
	}
}

// peakBytes is the most memory that a process ever had resident.
func peakBytes(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n * ashlar.KiB
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
