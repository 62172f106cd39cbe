package linear

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"ashlar"
	"ashlar/tools/dev"
	"ashlar/tools/dev/devtest"
)

var (
	operations = flag.Int("linear.operations", 0, "operations that TestLinear sends; 0 means as many as fit its duration")
	duration   = flag.Duration("linear.duration", 25*time.Second, "how long TestLinear breaks things, unless operations are given")
	seedFlag   = flag.Uint64("linear.seed", 0, "seed of TestLinear; 0 chooses one")
	clients    = flag.Int("linear.clients", 32, "clients of TestLinear")
	keepDir    = flag.String("linear.dir", "", "directory that TestLinear leaves its cluster in")
	memoryDir  = flag.String("linear.memory", "", "directory on a tmpfs for the cluster, for example /dev/shm")
)

// healBound is how long the cluster may take from the last fault to HEALTHY
// with nothing to repair, on a busy machine.
const healBound = 2 * time.Minute

// progressEvery is how often a long run says how far it is.
const progressEvery = 30 * time.Second

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(devtest.Main(m))
}

// start brings up a cluster of processes: six hosts in three zones, three
// members and two gateways.
func start(t *testing.T, isolate bool) *dev.Processes {
	t.Helper()
	cfg := dev.Defaults()
	cfg.Disks, cfg.Members, cfg.Gateways, cfg.DiskBytes = 1, 3, 2, 4*ashlar.GiB
	cfg.S3, cfg.Admin, cfg.AccessKey, cfg.SecretKey = "127.0.0.1:0", "127.0.0.1:0", "tester", "a secret of the tests"
	cfg.TrashGrace = 3 * time.Second // freeing a live piece must show
	cfg.Dir = clusterDir(t)
	p, err := dev.StartProcesses(t.Context(), cfg, dev.Options{Program: devtest.Program(t), Isolate: isolate})
	if err != nil {
		devtest.PrintLogs(t, cfg.Dir)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		if t.Failed() {
			devtest.PrintLogs(t, cfg.Dir)
		}
	})
	return p
}

func clusterDir(t *testing.T) string {
	switch {
	case *keepDir != "":
		return *keepDir
	case *memoryDir == "":
		return filepath.Join(t.TempDir(), "cluster")
	}
	dir, err := os.MkdirTemp(*memoryDir, "ashlar-linear")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "cluster")
}

// gateways are clients of all gateways; the bucket is made.
func gateways(t *testing.T, p *dev.Processes, connections int) (all []*S3) {
	t.Helper()
	cfg := p.Config()
	for _, url := range p.Gateways() {
		g := NewS3(url, cfg.AccessKey, cfg.SecretKey, connections)
		t.Cleanup(g.Close)
		all = append(all, g)
	}
	devtest.Eventually(t, time.Minute, func() error { return all[0].MakeBucket(t.Context(), Bucket) })
	return all
}

func chooseSeed() uint64 {
	if *seedFlag != 0 {
		return *seedFlag
	}
	return rand.Uint64()
}

// TestLinear races clients for keys through two gateways while a nemesis kills,
// pauses and cuts, and judges every key's history.
func TestLinear(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the processes are put into network namespaces, which needs root")
	}
	seed := chooseSeed()
	replay := fmt.Sprintf("go test ./tools/linear -run '^TestLinear$' -v -timeout 30m -linear.operations=%d -linear.duration=%v -linear.clients=%d -linear.seed=%d",
		*operations, *duration, *clients, seed)
	t.Logf("seed %d: %s", seed, replay)
	p := start(t, true)
	load := &Load{
		Seed: seed, Clients: *clients, Live: 24, Gateways: gateways(t, p, *clients), LargeMax: 3 << 20, LargeEvery: 100,
	}
	began := time.Now()
	logf := func(format string, args ...any) {
		t.Logf("%9.3f s  %s", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	nemesis := NewNemesis(p, seed, logf)
	stopLoad, stopFaults := make(chan struct{}), make(chan struct{})
	var breaking sync.WaitGroup
	breaking.Go(func() { nemesis.Run(stopFaults) })
	count, bound := *operations, 20*time.Minute
	if count == 0 {
		count, bound = math.MaxInt, *duration
	}
	timer := time.AfterFunc(bound, func() { close(stopLoad) })
	breaking.Go(func() {
		for nemesis.sleep(stopFaults, progressEvery) {
			logf("%d operations", load.Operations())
		}
	})
	load.Run(count, stopLoad)
	timer.Stop()
	took := time.Since(began)
	close(stopFaults)
	breaking.Wait()

	begin := time.Now()
	devtest.AwaitHealthy(t, healBound, p.Status)
	logf("healthy, nothing to repair, %.1f s after the last fault", time.Since(begin).Seconds())
	if err := load.Settle(healBound); err != nil {
		t.Error(err)
	}
	logf("every key was read back")
	checkCounters(t, p)
	begin = time.Now()
	found := load.Judge()
	for i, f := range found {
		if i < findingsMax {
			t.Errorf("%v", &f)
		}
	}
	if err := load.Err(); err != nil {
		t.Error(err)
	}
	logf("judged in %.1f s", time.Since(begin).Seconds())
	t.Logf("seed %d, %.1f s, %.0f operations/s", seed, took.Seconds(), float64(load.Operations())/took.Seconds())
	t.Log(load.Report())
	t.Log(nemesis.Report())
	t.Logf("%d violations", len(found))
	if t.Failed() {
		t.Logf("replay: %s", replay)
	}
	enough(t, load, nemesis)
}

// enough fails the test if something that had to be tried was never tried.
func enough(t *testing.T, load *Load, nemesis *Nemesis) {
	t.Helper()
	for k := range kinds {
		if load.counts[k]-load.open[k] == 0 {
			t.Errorf("no answered %v: nothing was tested", k)
		}
	}
	if load.refused == 0 {
		t.Error("no condition was refused: nothing was tested")
	}
	sum := 0
	for _, n := range nemesis.Counts() {
		sum += n
	}
	if sum < 3 {
		t.Errorf("%d faults: nothing was tested", sum)
	}
}
