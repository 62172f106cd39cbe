package dev

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	placeclient "ashlar/placement/client"
	"ashlar/tools/dev/devtest"
	"ashlar/tools/recount"
)

var (
	chaosDuration = flag.Duration("chaos.duration", 45*time.Second, "how long TestChaos breaks things")
	chaosSeed     = flag.Uint64("chaos.seed", 0, "seed of TestChaos; 0 chooses one")
	chaosKinds    = flag.String("chaos.kinds", strings.Join(nemesisKinds, ","), "what TestChaos kills")
	chaosKeep     = flag.String("chaos.keep", "", "directory that TestChaos leaves its cluster in")
)

const (
	chaosClients = 6
	// chaosKeysMax bounds the keys of each client. Every third PUT makes a new
	// one, so that many objects are written once and must stay.
	chaosKeysMax = 400
	// chaosGrace lets the trash worker free pieces while the test runs: freeing a
	// live one must show.
	chaosGrace = 3 * time.Second
	// healBound is how long the cluster may take from its last fault to HEALTHY
	// with nothing to repair, on a busy machine.
	healBound = 90 * time.Second
	// errorPause is what a client waits after an error, as any would.
	errorPause = 100 * time.Millisecond
)

// TestChaos writes with several clients while a nemesis kills processes, hosts
// and disks, and everything at once, and then reads back every object.
func TestChaos(t *testing.T) {
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	cfg := testConfig(t)
	cfg.Gateways, cfg.TrashGrace = 2, chaosGrace
	if *chaosKeep != "" {
		cfg.Dir = *chaosKeep
	}
	t.Logf("seed %d: go test ./tools/dev -run TestChaos -chaos.seed=%d -chaos.duration=%v", seed, seed, *chaosDuration)
	p := startMany(t, cfg)
	run := newChaos(t, p.place, p.Gateways(), p.Config(), seed)
	makeBucket(t, run.gateways[0])

	stop := make(chan struct{}) // closed when the nemesis has ended
	var wg sync.WaitGroup
	for i := range chaosClients {
		c := run.newClient(i)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					c.step()
				}
			}
		})
	}
	n := &nemesis{chaos: run, p: p, rng: rand.New(rand.NewPCG(seed, 1))}
	n.run(*chaosDuration)
	close(stop)
	wg.Wait()
	n.heal()

	begin := time.Now()
	devtest.AwaitHealthy(t, healBound, p.Status)
	run.logf("healthy, nothing to repair, %.1f s after the last fault", time.Since(begin).Seconds())
	run.readBack()
	run.checkList()
	run.checkCounters()
	run.countPieces()
	run.report()
}

// chaos is one run: its clients, what they know, and what was counted.
type chaos struct {
	t        *testing.T
	seed     uint64
	began    time.Time
	gateways []*s3.Client
	clients  []*chaosClient
	inspect  *inspector

	mu     sync.Mutex
	counts map[string]int
	kills  map[string]int
	lost   int
	change int
	sizes  uint64
	worst  time.Duration // the longest request
}

func newChaos(t *testing.T, place *placeclient.Client, urls []string, cfg Config, seed uint64) *chaos {
	c := &chaos{t: t, seed: seed, began: time.Now(), counts: map[string]int{}, kills: map[string]int{}}
	c.inspect = newInspector(t, place)
	for _, url := range urls {
		c.gateways = append(c.gateways, s3Client(t, url, cfg))
	}
	return c
}

func (c *chaos) logf(format string, args ...any) {
	c.t.Logf("%8.3f s  %s", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
}

func (c *chaos) count(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[what]++
}

// broken fails the test with what is known about the key.
func (c *chaos) broken(b *breach, key string) {
	c.mu.Lock()
	if b.lost {
		c.lost++
	} else {
		c.change++
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stripes, err := c.inspect.locate(ctx, key)
	where := fmt.Sprintf("no pieces: %v", err)
	if err == nil {
		where = ""
		for _, s := range stripes {
			where += s.String() + "\n"
		}
	}
	c.t.Errorf("%s\n%s", b.text, where)
}

// readBack reads every key through every gateway. Everything is at rest, so
// every request must succeed, and the first read decides what may be there.
func (c *chaos) readBack() {
	var wg sync.WaitGroup
	for _, cl := range c.clients {
		wg.Go(func() {
			for _, k := range cl.keys {
				k.settle()
				for _, g := range c.gateways {
					cl.mustGet(g, k)
				}
			}
		})
	}
	wg.Wait()
}

// checkList compares a listing of everything with what was read back.
func (c *chaos) checkList() {
	var all []*chaosKey
	for _, cl := range c.clients {
		all = append(all, cl.keys...)
	}
	for i, g := range c.gateways {
		ctx, cancel := context.WithTimeout(context.Background(), requestBound)
		err := c.clients[0].list(ctx, g, "", all)
		cancel()
		if err != nil {
			c.t.Errorf("LIST through gateway %d: %v", i+1, err)
		}
	}
}

// checkCounters compares the bucket's counters with a scan of all its rows. A
// write that was not answered may end only now.
func (c *chaos) checkCounters() {
	var b *recount.Bucket
	devtest.Eventually(c.t, healBound, func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), requestBound)
		defer cancel()
		if b, err = recount.Of(ctx, c.inspect.meta, bucketName); err != nil {
			return err
		}
		return b.Err()
	})
	c.logf("counters: %v", b.Counters)
	c.logf("rows:     %v", b.Rows)
}

// countPieces demands every piece of every object: the cluster said that it was
// healthy, so the roll call has found what killed coordinators forgot. An object
// with fewer than its quorum was never rightly acknowledged.
func (c *chaos) countPieces() {
	objects, pieces, missing := 0, 0, 0
	for _, cl := range c.clients {
		for _, k := range cl.keys {
			if k.only() == absent {
				continue
			}
			objects++
			stripes, err := c.inspect.locate(context.Background(), k.key)
			if err != nil {
				c.t.Errorf("%s: %v", k.key, err)
			}
			for _, s := range stripes {
				has := 0
				for _, h := range s.has {
					has += map[bool]int{true: 1}[h == "yes"]
				}
				pieces, missing = pieces+len(s.has), missing+len(s.has)-has
				if has < len(s.has) {
					c.t.Errorf("%s write %d is not whole: %v", k.key, k.only(), s)
				}
				if has < s.Code.Quorum() {
					c.t.Errorf("%s: fewer pieces than acknowledged it: %v", k.key, s)
				}
			}
		}
	}
	c.logf("%d objects, %d pieces, %d missing", objects, pieces, missing)
}

// report prints what was done, and fails if something that had to be tried was
// never tried.
func (c *chaos) report() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines []string
	for _, what := range slices.Sorted(maps.Keys(c.counts)) {
		lines = append(lines, fmt.Sprintf("%s %d", what, c.counts[what]))
	}
	var kills []string
	for _, what := range slices.Sorted(maps.Keys(c.kills)) {
		kills = append(kills, fmt.Sprintf("%s %d", what, c.kills[what]))
	}
	c.t.Logf("seed %d: %s; longest request %.1f s", c.seed, strings.Join(lines, ", "), c.worst.Seconds())
	c.t.Logf("kills: %s", strings.Join(kills, ", "))
	c.t.Logf("%d lost, %d changed", c.lost, c.change)
	for _, what := range []string{"acknowledged PUT", "acknowledged DELETE", "acknowledged Complete", "reads", "lists"} {
		if c.counts[what] == 0 {
			c.t.Errorf("no %s: nothing was tested", what)
		}
	}
	for what := range strings.SplitSeq(*chaosKinds, ",") {
		if want := map[bool]int{true: 2, false: 1}[what == killAll]; c.kills[what] < want {
			c.t.Errorf("%d kills of %s, want %d: nothing was tested", c.kills[what], what, want)
		}
	}
}
