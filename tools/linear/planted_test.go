package linear

import (
	"context"
	"math"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/client"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire"
	placeclient "ashlar/placement/client"
	"ashlar/s3gw"
	"ashlar/s3gw/iam"
	"ashlar/s3gw/store"
	"ashlar/tools/dev"
	"ashlar/tools/dev/devtest"
)

// This file plants two bugs, each between real gateways, which run in this
// process, and the real daemons, and demands that the checker finds them.

// plantedBound is how long the checker may need to find a planted bug.
const plantedBound = time.Minute

// planted runs two gateways of this process over the cluster. Their metadata
// calls go through wrap.
func planted(t *testing.T, p *dev.Processes, wrap func(ashlar.HostID, wire.Shards) wire.Shards, tell func(meta.Store) meta.Store) []*S3 {
	t.Helper()
	gateways(t, p, 1) // the bucket
	cfg := p.Config()
	var all []*S3
	for range 2 {
		place, err := placeclient.New(placeclient.Config{Members: p.Members()})
		if err != nil {
			t.Fatal(err)
		}
		hosts := client.NewHosts(place.Map)
		rows := client.NewMeta(place.Map, func(id ashlar.HostID) (wire.Shards, error) {
			s, err := hosts.Shards(id)
			if err != nil {
				return nil, err
			}
			return wrap(id, s), nil
		})
		backend := store.New(tell(rows), client.NewStripes(place.Map, hosts.Stripes, ""), place.Map, store.Options{})
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		accounts, err := iam.NewStatic(iam.KeyConfig{AccessKey: cfg.AccessKey, SecretKey: cfg.SecretKey}, nil)
		if err != nil {
			t.Fatal(err)
		}
		server := s3gw.New(s3gw.Options{
			Backend: backend, Credentials: accounts,
		})
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { place.Run(ctx) })
		wg.Go(func() {
			if err := server.Serve(ctx, s3gw.Door{Listener: ln}); err != nil {
				t.Error(err)
			}
		})
		g := NewS3("http://"+ln.Addr().String(), cfg.AccessKey, cfg.SecretKey, 16)
		t.Cleanup(func() {
			g.Close()
			stop()
			wg.Wait()
			backend.Close()
			hosts.Close()
			place.Close()
		})
		devtest.Eventually(t, plantedBound, func() error { return g.MakeBucket(t.Context(), Bucket) })
		all = append(all, g)
	}
	return all
}

func noWrap(_ ashlar.HostID, s wire.Shards) wire.Shards { return s }
func noTell(s meta.Store) meta.Store                    { return s }

// rounds lets clients race in short rounds until the checker finds something,
// and calls between after each. It returns what was found first.
func rounds(t *testing.T, all []*S3, seed uint64, live int, between func()) []Finding {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < plantedBound; seed++ {
		load := &Load{Seed: seed, Clients: 16, Live: live, Gateways: all}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { load.Run(math.MaxInt, stop) })
		time.Sleep(time.Second)
		between()
		time.Sleep(time.Second)
		close(stop)
		wg.Wait()
		if found := load.Judge(); len(found) > 0 {
			return found
		}
	}
	return nil
}

// early is a meta.Store that judges the conditions of a transaction before it,
// with reads of its own, instead of in it.
type early struct{ meta.Store }

func (s early) Commit(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn) error {
	for i, c := range txn.Conds {
		r, err := s.Get(ctx, shard, c.Key)
		if err != nil && !ashlar.Is(err, ashlar.NotFound) {
			return err
		}
		var there *meta.Row
		if err == nil {
			there = &r
		}
		holds := map[meta.CondKind]bool{
			meta.CondExists: there != nil, meta.CondAbsent: there == nil,
			meta.CondVersion: there != nil && there.Version == c.Version,
		}
		if held, known := holds[c.Kind]; known && !held {
			return &meta.ConditionError{Index: i, Row: there}
		}
	}
	bare := *txn
	bare.Conds = nil
	return s.Store.Commit(ctx, shard, &bare)
}

// TestFindsConditionOutsideTransaction judges a cluster whose conditions hold
// only shortly before the commit.
func TestFindsConditionOutsideTransaction(t *testing.T) {
	p := start(t, false)
	all := planted(t, p, noWrap, func(s meta.Store) meta.Store { return early{s} })
	found := rounds(t, all, chooseSeed(), 4, func() {})
	if len(found) == 0 {
		t.Fatal("a condition outside the transaction was not found")
	}
	t.Logf("found: %v", &found[0])
	if found[0].Verdict != Violated {
		t.Errorf("verdict %v", found[0].Verdict)
	}
}

// memory is what the hosts of a cluster remember of the rows that they served as
// leaders. A host forgets a row when it commits a transaction that touches it, so
// that it is right for as long as it leads. It does not notice when it is deposed.
type memory struct {
	mu      sync.Mutex
	leaders map[ashlar.ShardID]ashlar.HostID // who was found to lead first
	rows    map[rowAt]remembered
	touched map[rowAt]touches
	served  int
}

// touches counts the transactions that touched a row: all, and those under way.
type touches struct{ all, busy int }

type rowAt struct {
	host  ashlar.HostID
	shard ashlar.ShardID
	key   string
}

type remembered struct {
	row meta.Row
	err error
}

func newMemory() *memory {
	return &memory{leaders: map[ashlar.ShardID]ashlar.HostID{}, rows: map[rowAt]remembered{}, touched: map[rowAt]touches{}}
}

// at is a host with its memory.
type at struct {
	wire.Shards
	*memory
	host ashlar.HostID
}

func (m *memory) host(id ashlar.HostID, s wire.Shards) wire.Shards { return at{s, m, id} }

func (h at) Get(ctx context.Context, shard ashlar.ShardID, key []byte) (meta.Row, error) {
	where := rowAt{h.host, shard, string(key)}
	h.mu.Lock()
	before := h.touched[where]
	h.mu.Unlock()
	r, err := h.Shards.Get(ctx, shard, key)
	if err != nil && !ashlar.Is(err, ashlar.NotFound) {
		return r, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.leaders[shard]; !ok {
		h.leaders[shard] = h.host
	}
	if h.touched[where] == before && before.busy == 0 {
		h.rows[where] = remembered{clone(r), err}
	}
	return r, err
}

func clone(r meta.Row) meta.Row {
	return meta.Row{Key: slices.Clone(r.Key), Value: slices.Clone(r.Value), Version: r.Version}
}

func (h at) Commit(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn) error {
	h.touch(shard, txn, 1)
	defer h.touch(shard, txn, -1)
	return h.Shards.Commit(ctx, shard, txn)
}

func (h at) touch(shard ashlar.ShardID, txn *meta.Txn, busy int) {
	keys := slices.Clone(txn.Deletes)
	for _, p := range txn.Puts {
		keys = append(keys, p.Key)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range keys {
		where := rowAt{h.host, shard, string(key)}
		n := h.touched[where]
		h.touched[where] = touches{n.all + 1, n.busy + busy}
		delete(h.rows, where)
	}
}

// stubborn is a meta.Store that asks the first leader of each shard, who answers
// from memory.
type stubborn struct {
	meta.Store
	*memory
}

func (s stubborn) Get(ctx context.Context, shard ashlar.ShardID, key []byte) (meta.Row, error) {
	s.mu.Lock()
	r, ok := s.rows[rowAt{s.leaders[shard], shard, string(key)}]
	if ok {
		s.served++
	}
	s.mu.Unlock()
	if ok {
		return clone(r.row), r.err
	}
	return s.Store.Get(ctx, shard, key)
}

// TestFindsReadFromDeposedLeader judges a cluster in which a leader that was cut
// off goes on answering reads.
func TestFindsReadFromDeposedLeader(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the processes are put into network namespaces, which needs root")
	}
	seed := chooseSeed()
	p := start(t, true)
	m := newMemory()
	all := planted(t, p, m.host, func(s meta.Store) meta.Store { return stubborn{s, m} })
	n := NewNemesis(p, seed, t.Logf)
	defer n.hosts.Close()
	found := rounds(t, all, seed, 48, func() {
		what, mend, err := n.apply(CutLeader)
		t.Logf("%s %v", what, err)
		if err == nil {
			time.Sleep(deposedFor)
			mend()
		}
	})
	t.Logf("%d reads were answered from memory", m.served)
	if len(found) == 0 {
		t.Fatal("reads from deposed leaders were not found")
	}
	t.Logf("found: %v", &found[0])
	if found[0].Verdict != Violated {
		t.Errorf("verdict %v", found[0].Verdict)
	}
}

// deposedFor is enough for the others to elect another leader.
const deposedFor = 5 * time.Second
