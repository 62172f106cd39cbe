package replica

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/zeebo/xxh3"

	"ashlar"
	"ashlar/daemon/meta"
)

var chaosTime = flag.Duration("chaos", 3*time.Second, "how long the chaos test makes trouble")

// regOp is one operation on a register that is written conditionally or not.
// Every written value is unique, so "the version that I read with value x" and
// "value x" mean the same write.
type regOp struct {
	kind string // get, put, create, swap, delete
	key  string
	// value is what is written, or what a get saw; "" is absent.
	value string
	// expect is the value whose version a swap demands.
	expect string
}

type regAnswer struct {
	value   string // of a get
	refused bool   // by the condition
	unknown bool   // nobody knows whether it happened
}

// register is the model: the state is the value, "" if absent.
var register = porcupine.Model{
	Init: func() any { return "" },
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(regOp).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, ops := range byKey {
			parts = append(parts, ops)
		}
		return parts
	},
	Step: func(state, input, output any) (bool, any) {
		now, op, out := state.(string), input.(regOp), output.(regAnswer)
		if op.kind == "get" {
			return out.value == now, now
		}
		holds := op.kind == "put" || op.kind == "delete" ||
			op.kind == "create" && now == "" || op.kind == "swap" && now == op.expect
		if !out.unknown && out.refused == holds {
			return false, now
		}
		if !holds {
			return true, now
		}
		return true, op.value // "" for a delete
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
}

// recorder runs clients against a store and keeps their history.
type recorder struct {
	store  meta.Store
	keys   int
	shards int
	start  time.Time

	mu      sync.Mutex
	history []porcupine.Operation
	unknown int
}

func (r *recorder) now() int64 { return time.Since(r.start).Nanoseconds() }

func (r *recorder) run(ctx context.Context, client int, rng *rand.Rand) {
	versions := map[string]meta.Row{} // what this client last read
	for n := 0; ctx.Err() == nil; n++ {
		op := regOp{key: fmt.Sprint("key", rng.IntN(r.keys)), value: fmt.Sprintf("c%d-%d", client, n)}
		seen, have := versions[op.key]
		switch p := rng.IntN(10); {
		case p < 4:
			op.kind, op.value = "get", ""
		case p < 6 && have:
			op.kind, op.expect = "swap", string(seen.Value)
		case p < 7:
			op.kind = "create"
		case p < 8:
			op.kind, op.value = "delete", ""
		default:
			op.kind = "put"
		}
		call := r.now()
		out, row, ok := r.do(op, seen.Version)
		if op.kind == "get" && ok {
			op.value = ""
			if out.value != "" {
				versions[op.key] = row
			}
		}
		r.record(client, op, out, call, ok)
	}
}

// do runs one operation to the end; ok is false if its outcome is unknown.
func (r *recorder) do(op regOp, version uint64) (out regAnswer, row meta.Row, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	key := []byte(op.key)
	shard := ashlar.ShardID(int(key[len(key)-1]) % r.shards)
	if op.kind == "get" {
		row, err := r.store.Get(ctx, shard, key)
		if ashlar.Is(err, ashlar.NotFound) {
			return regAnswer{}, row, true
		}
		return regAnswer{value: string(row.Value)}, row, err == nil
	}
	txn := &meta.Txn{ID: ashlar.RequestID(ashlar.NewID()), Adds: []meta.Add{{Key: []byte("count"), Delta: 1}}}
	switch op.kind {
	case "create":
		txn.Conds = []meta.Cond{{Key: key, Kind: meta.CondAbsent}}
	case "swap":
		txn.Conds = []meta.Cond{{Key: key, Kind: meta.CondVersion, Version: version}}
	}
	if op.kind == "delete" {
		txn.Deletes = [][]byte{key}
	} else {
		txn.Puts = []meta.Put{{Key: key, Value: []byte(op.value)}}
	}
	err := r.store.Commit(ctx, shard, txn)
	return regAnswer{refused: ashlar.Is(err, ashlar.Stale), unknown: err != nil && !ashlar.Is(err, ashlar.Stale)}, row, err == nil || ashlar.Is(err, ashlar.Stale)
}

func (r *recorder) record(client int, op regOp, out regAnswer, call int64, ok bool) {
	ret := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !ok {
		r.unknown++
		if op.kind == "get" {
			return // a read that was not answered says nothing
		}
		ret = math.MaxInt64 // it may take effect at any time from now on
	}
	r.history = append(r.history, porcupine.Operation{ClientId: client, Input: op, Output: out, Call: call, Return: ret})
}

// trouble kills, restarts, cuts off and stops hosts until ctx ends, then
// brings all back.
func trouble(ctx context.Context, c *cluster, rng *rand.Rand) (faults int) {
	pause := func(max time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rng.Int64N(int64(max)))):
		}
	}
	ids := []ashlar.HostID{1, 2, 3}
	for ; ctx.Err() == nil; faults++ {
		pause(400 * time.Millisecond)
		victim := ids[rng.IntN(len(ids))]
		if rng.IntN(2) == 0 {
			victim = c.leaderOf(0)
		}
		switch rng.IntN(4) {
		case 0:
			c.isolate(victim)
			pause(1200 * time.Millisecond)
			c.heal()
		case 1:
			for _, id := range ids {
				c.kill(id)
			}
			for _, id := range ids {
				c.start(id)
			}
		case 2:
			if err := c.host(victim).Close(ctx); err != nil {
				c.t.Errorf("close: %v", err)
			}
			c.kill(victim)
			c.start(victim)
		default:
			c.kill(victim)
			pause(600 * time.Millisecond)
			c.start(victim)
		}
	}
	c.heal()
	return faults
}

func TestLinearizableUnderKillsAndCuts(t *testing.T) {
	seed := rand.Uint64()
	const shards = 3
	c := newCluster(t, 3, shards, 3, true)
	c.cutLinks = true
	c.startAll()
	c.leaderOf(0)
	r := &recorder{store: c.store(), keys: 7, shards: shards, start: time.Now()}
	ctx := testCtx(t, *chaosTime)
	var wg sync.WaitGroup
	const clients = 6
	for i := range clients {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() { r.run(ctx, i, rng) })
	}
	faults := trouble(ctx, c, rand.New(rand.NewPCG(seed, 99)))
	wg.Wait()
	result := porcupine.CheckOperationsTimeout(register, r.history, 2*time.Minute)
	t.Logf("seed %d: %d operations, %d unanswered, %d faults: %s", seed, len(r.history), r.unknown, faults, result)
	if result != porcupine.Ok {
		t.Fatal("the history is not linearizable, or the checker gave up")
	}
	if len(r.history) < 100 || faults == 0 {
		t.Fatal("too little happened")
	}
	checkReplicasAgree(t, c, r)
}

// checkReplicasAgree waits until all replicas hold the same rows, and
// compares the counters with the writes that were acknowledged.
func checkReplicasAgree(t *testing.T, c *cluster, r *recorder) {
	t.Helper()
	ctx := testCtx(t, 30*time.Second)
	var n int64
	for shard := range ashlar.ShardID(r.shards) {
		row, err := r.store.Get(ctx, shard, []byte("count"))
		if err != nil {
			t.Fatal(err)
		}
		n += counterOf(row)
	}
	acked, maybe := 0, 0
	for _, op := range r.history {
		out := op.Output.(regAnswer)
		switch {
		case op.Input.(regOp).kind == "get" || out.refused:
		case out.unknown:
			maybe++
		default:
			acked++
		}
	}
	if n < int64(acked) || n > int64(acked+maybe) {
		t.Errorf("the counter says %d, %d writes were acknowledged and %d are unknown", n, acked, maybe)
	}
	for shard := range ashlar.ShardID(r.shards) {
		waitSame(t, c, shard)
	}
}

// waitSame waits until the replicas of a shard hold the same rows.
func waitSame(t *testing.T, c *cluster, shard ashlar.ShardID) {
	t.Helper()
	var dumps []string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * c.tick) {
		dumps = dumps[:0]
		for _, v := range c.topology().Shards[shard].Replicas {
			dumps = append(dumps, dump(t, c.host(v.Host), shard))
		}
		if dumps[0] != "" && len(slices.Compact(slices.Clone(dumps))) == 1 {
			return
		}
	}
	for _, d := range dumps {
		t.Log("replica:", d)
	}
	t.Fatal("the replicas do not agree")
}

func dump(t *testing.T, h *Host, shard ashlar.ShardID) string {
	r := (*h.shards.Load())[shard]
	if r == nil || !r.born.Load() {
		return ""
	}
	it, prefix, err := r.machine.newScan(h.db, &meta.ScanRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	sum, rows := xxh3.New(), 0
	for ok := it.First(); ok; ok = it.Next() {
		fmt.Fprintf(sum, "%q=", it.Key()[len(prefix):])
		sum.Write(it.Value())
		rows++
	}
	return fmt.Sprintf("%d rows, sum %x", rows, sum.Sum64())
}

// The checker itself must be able to say no.
func TestCheckerSeesAStaleRead(t *testing.T) {
	history := []porcupine.Operation{
		{Input: regOp{kind: "put", key: "k", value: "1"}, Output: regAnswer{}, Call: 0, Return: 1},
		{Input: regOp{kind: "put", key: "k", value: "2"}, Output: regAnswer{}, Call: 2, Return: 3},
		{Input: regOp{kind: "get", key: "k"}, Output: regAnswer{value: "1"}, Call: 4, Return: 5},
	}
	if porcupine.CheckOperations(register, history) {
		t.Fatal("a stale read passed")
	}
	history[2].Call = 2 // now it overlaps the second put
	if !porcupine.CheckOperations(register, history) {
		t.Fatal("a good history did not pass")
	}
	twice := []porcupine.Operation{
		{Input: regOp{kind: "create", key: "k", value: "1"}, Output: regAnswer{}, Call: 0, Return: 1},
		{Input: regOp{kind: "create", key: "k", value: "2"}, Output: regAnswer{}, Call: 0, Return: 1},
	}
	if porcupine.CheckOperations(register, twice) {
		t.Fatal("two winners passed")
	}
}

// A store that answers reads from a leader without asking whether it still
// leads is caught by the checker.
func TestCheckerSeesADeposedLeader(t *testing.T) {
	c := newCluster(t, 3, 1, 3, true)
	c.cutLinks = true
	c.startAll()
	r := &recorder{store: c.store(), keys: 1, shards: 1, start: time.Now()}
	put := func(value string) {
		call := r.now()
		op := regOp{kind: "put", key: "key0", value: value}
		out, _, ok := r.do(op, 0)
		r.record(0, op, out, call, ok)
	}
	// read lets a store answer: the right one, or the careless one.
	read := func(store meta.Store) {
		right := r.store
		defer func() { r.store = right }()
		r.store = store
		call := r.now()
		op := regOp{kind: "get", key: "key0"}
		out, _, ok := r.do(op, 0)
		r.record(1, op, out, call, ok)
	}
	put("old")
	old := c.leaderOf(0)
	planted := careless{Store: r.store, h: c.host(old), r: c.replicaOn(old, 0)}
	read(planted)
	c.isolate(old)
	put("new")
	read(r.store)
	if !porcupine.CheckOperations(register, r.history) || len(r.history) != 4 {
		t.Fatalf("a good history of %d operations does not pass", len(r.history))
	}
	read(planted)
	if porcupine.CheckOperations(register, r.history) {
		t.Fatal("a read from a deposed leader passed")
	}
}

// careless reads what a replica has applied, whoever leads.
type careless struct {
	meta.Store
	h *Host
	r *replica
}

func (s careless) Get(_ context.Context, _ ashlar.ShardID, key []byte) (meta.Row, error) {
	return s.h.row("careless", s.r, key)
}
