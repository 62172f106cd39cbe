package linear

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var raceKeys = flag.Int("linear.races", 100, "keys for which TestRaces races 32 creations each")

// racers is how many requests race for one key.
const racers = 32

// raceBound bounds one request of a race on a busy machine.
const raceBound = time.Minute

// outcomes counts how requests ended.
type outcomes struct {
	won, failed, conflict int
}

// race sends one request of each racer at the same moment, half of them through
// each gateway, and demands that exactly one wins; it returns the number of the
// winner. Every other one must be told 412 or 409.
func race(t *testing.T, what string, all []*S3, send func(ctx context.Context, n int, g *S3) error) (winner int, out outcomes) {
	t.Helper()
	errs := make([]error, racers)
	begin := make(chan struct{}) // closed when all are ready
	var wg sync.WaitGroup
	for n := range racers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), raceBound)
			defer cancel()
			<-begin
			errs[n] = send(ctx, n, all[n%len(all)])
		})
	}
	close(begin)
	wg.Wait()
	winner = -1
	for n, err := range errs {
		switch status := statusOf(err); {
		case err == nil:
			out.won++
			winner = n
		case status == http.StatusPreconditionFailed:
			out.failed++
		case status == http.StatusConflict:
			out.conflict++
		default:
			t.Errorf("%s: racer %d: %v", what, n, err)
		}
	}
	if out.won != 1 {
		t.Errorf("%s: %d of %d won", what, out.won, racers)
	}
	return winner, out
}

func (o *outcomes) add(p outcomes) {
	o.won, o.failed, o.conflict = o.won+p.won, o.failed+p.failed, o.conflict+p.conflict
}

func (o outcomes) String() string {
	return fmt.Sprintf("%d × 200, %d × 412, %d × 409", o.won, o.failed, o.conflict)
}

func raceBody(what string, n int) []byte { return fmt.Appendf(nil, "%s of racer %d", what, n) }

// winnerStays reads the key through both gateways.
func winnerStays(t *testing.T, all []*S3, key string, body []byte) {
	t.Helper()
	for i, g := range all {
		a, err := g.call(t.Context(), http.MethodGet, "/"+Bucket+"/"+key, "", nil)
		if err != nil || a.status != http.StatusOK || !bytes.Equal(a.body, body) {
			t.Errorf("%s through gateway %d: %d %v %q, want what the winner wrote, %q", key, i+1, a.status, err, a.body, body)
		}
	}
}

// TestRaces races conditional writes through two gateways: of 32 creations of
// a key, of 32 updates of one generation and of 32 completions exactly one wins.
func TestRaces(t *testing.T) {
	p := start(t, false)
	all := gateways(t, p, racers)
	t.Run("If-None-Match", func(t *testing.T) { raceCreations(t, all) })
	t.Run("If-Match", func(t *testing.T) { raceUpdates(t, all) })
	t.Run("Complete", func(t *testing.T) { raceCompletions(t, all) })
	t.Run("counters", func(t *testing.T) { checkCounters(t, p) })
}

// raceWidth is how many keys are raced for at a time.
const raceWidth = 4

func raceCreations(t *testing.T, all []*S3) {
	var mu sync.Mutex
	var sum outcomes
	var next atomic.Int64
	began := time.Now()
	var wg sync.WaitGroup
	for range raceWidth {
		wg.Go(func() {
			for n := int(next.Add(1)); n <= *raceKeys; n = int(next.Add(1)) {
				key := fmt.Sprintf("race/create%04d", n)
				winner, out := race(t, key, all, func(ctx context.Context, n int, g *S3) error {
					return g.put(ctx, Bucket, key, raceBody(key, n), "If-None-Match", "*")
				})
				mu.Lock()
				sum.add(out)
				mu.Unlock()
				if out.won == 1 {
					winnerStays(t, all, key, raceBody(key, winner))
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d racing PUTs with If-None-Match: * on each of %d keys through %d gateways: %v, in %.1f s",
		racers, *raceKeys, len(all), sum, time.Since(began).Seconds())
	if want := *raceKeys; sum.won != want {
		t.Errorf("%d winners for %d keys", sum.won, want)
	}
}

// How many keys are updated, and how often each.
const generations, updatedKeys = 10, 4

func raceUpdates(t *testing.T, all []*S3) {
	var sum outcomes
	for k := range updatedKeys {
		key := fmt.Sprintf("race/update%d", k)
		value := &Key{etags: map[string]Value{}}
		body := []byte("the first of " + key)
		_, etag := value.written(body, 0)
		if err := all[0].put(t.Context(), Bucket, key, body); err != nil {
			t.Fatal(err)
		}
		for generation := range generations {
			what := fmt.Sprintf("%s, generation %d", key, generation)
			winner, out := race(t, what, all, func(ctx context.Context, n int, g *S3) error {
				return g.put(ctx, Bucket, key, raceBody(what, n), "If-Match", `"`+etag+`"`)
			})
			sum.add(out)
			if out.won != 1 {
				return
			}
			body = raceBody(what, winner)
			_, etag = value.written(body, 0)
		}
		winnerStays(t, all, key, body)
	}
	t.Logf("%d racing PUTs with If-Match in each of %d generations of %d keys: %v", racers, generations, updatedKeys, sum)
}

const completedKeys = 10

// raceCompletions races completions of different uploads of one key, of which
// half demand that nothing is there.
func raceCompletions(t *testing.T, all []*S3) {
	var sum outcomes
	for k := range completedKeys {
		key := fmt.Sprintf("race/complete%d", k)
		uploads, parts := make([]string, racers), make([]string, racers)
		for n := range racers {
			g := all[n%len(all)]
			var err error
			if uploads[n], err = g.createUpload(t.Context(), Bucket, key); err != nil {
				t.Fatal(err)
			}
			if parts[n], err = g.uploadPart(t.Context(), Bucket, key, uploads[n], raceBody(key, n)); err != nil {
				t.Fatal(err)
			}
		}
		winner, out := race(t, key, all, func(ctx context.Context, n int, g *S3) error {
			return g.complete(ctx, Bucket, key, uploads[n], parts[n], "If-None-Match", "*")
		})
		sum.add(out)
		if out.won == 1 {
			winnerStays(t, all, key, raceBody(key, winner))
		}
	}
	t.Logf("%d racing completions with If-None-Match: * on each of %d keys: %v", racers, completedKeys, sum)
}
