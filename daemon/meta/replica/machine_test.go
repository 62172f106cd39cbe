package replica

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"ashlar"
	"ashlar/daemon/meta"
)

var crashAll = vfs.CrashCloneCfg{}

func newMemFS() *vfs.MemFS { return vfs.NewCrashableMem() }

func openMachine(t *testing.T, fs vfs.FS) (*pebble.DB, *machine) {
	t.Helper()
	db, err := pebble.Open("/m", &pebble.Options{FS: fs, Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{id: 1, state: appliedState{generation: 1, conf: raftpb.EnsureConfState(nil)}}
	if raw, closer, err := db.Get(replicaKey(kindApplied, 1)); err == nil {
		if m.state, err = decodeAppliedState(raw); err != nil {
			t.Fatal(err)
		}
		closer.Close()
	}
	if err := m.loadSeen(db); err != nil {
		t.Fatal(err)
	}
	return db, m
}

type quiet struct{}

func (quiet) Infof(string, ...any)         {}
func (quiet) Errorf(string, ...any)        {}
func (quiet) Fatalf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }

func entryOf(index uint64, stampMS int64, txn *meta.Txn) *raftpb.Entry {
	return &raftpb.Entry{
		Index: new(index), Term: new(uint64(1)), Type: raftpb.EntryNormal.Enum(), Data: encodeCommand(stampMS, txn),
	}
}

// applyAll applies the entries in one batch and returns what was answered.
func applyAll(t *testing.T, db *pebble.DB, m *machine, entries []*raftpb.Entry) []byte {
	t.Helper()
	b := newApplyBatch(db)
	var codes []byte
	for _, e := range entries {
		_, out, ok, err := m.applyEntry(b, e, func(ashlar.RequestID) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			codes = append(codes, out.code)
		}
	}
	if err := m.saveState(b.batch); err != nil {
		t.Fatal(err)
	}
	if err := b.commit(); err != nil {
		t.Fatal(err)
	}
	return codes
}

func dumpDB(t *testing.T, db *pebble.DB) string {
	it, err := db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	var s bytes.Buffer
	for ok := it.First(); ok; ok = it.Next() {
		fmt.Fprintf(&s, "%x=%x\n", it.Key(), it.Value())
	}
	return s.String()
}

func randomEntries(r *rand.Rand, n int) []*raftpb.Entry {
	key := func() []byte { return []byte{'k', byte('0' + r.IntN(8))} }
	var ids []ashlar.RequestID
	entries := make([]*raftpb.Entry, n)
	for i := range entries {
		txn := &meta.Txn{ID: ashlar.RequestID(ashlar.NewID())}
		if len(ids) > 0 && r.IntN(5) == 0 {
			txn.ID = ids[r.IntN(len(ids))] // a retry
		}
		ids = append(ids, txn.ID)
		if r.IntN(3) == 0 {
			txn.Conds = []meta.Cond{{Key: key(), Kind: meta.CondKind(1 + r.IntN(4)), Version: r.Uint64N(uint64(n))}}
		}
		txn.Puts = []meta.Put{{Key: key(), Value: fmt.Append(nil, "value", i)}}
		txn.Adds = []meta.Add{{Key: []byte("count"), Delta: 1}}
		if r.IntN(4) == 0 {
			txn.Deletes = [][]byte{key()}
		}
		entries[i] = entryOf(uint64(i+1), int64(1000*i+1), txn)
	}
	return entries
}

// Applying the log again after crashes at random points, in other batches,
// leads to the same bytes as applying it once.
func TestApplyIsIdempotentAcrossCrashes(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	crashes := 0
	for range 10 {
		crashes += applyWithCrashes(t, r)
	}
	t.Logf("seed %d: %d crashes", seed, crashes)
}

func applyWithCrashes(t *testing.T, r *rand.Rand) (crashes int) {
	entries := randomEntries(r, 400)
	plain, pm := openMachine(t, vfs.NewMem())
	defer plain.Close()
	applyAll(t, plain, pm, entries)
	fs := newMemFS()
	for ; ; crashes++ {
		db, m := openMachine(t, fs)
		at := 0 // always from the beginning of the log
		for at < len(entries) && r.IntN(12) > 0 {
			n := min(1+r.IntN(60), len(entries)-at)
			applyAll(t, db, m, entries[at:at+n])
			at += n
		}
		if at == len(entries) {
			if got, want := dumpDB(t, db), dumpDB(t, plain); got != want {
				t.Errorf("the states differ:\n%s\nwant\n%s", got, want)
			}
			db.Close()
			return crashes
		}
		fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: rand.New(rand.NewPCG(r.Uint64(), 0))})
		db.Close()
	}
}

func TestAnswersAreForgottenOnlyAfterBothBounds(t *testing.T) {
	db, m := openMachine(t, vfs.NewMem())
	defer db.Close()
	first := &meta.Txn{ID: ashlar.RequestID{1}, Adds: []meta.Add{{Key: []byte("n"), Delta: 1}}}
	index, stamp := uint64(1), int64(1)
	apply := func(txn *meta.Txn) byte {
		codes := applyAll(t, db, m, []*raftpb.Entry{entryOf(index, stamp, txn)})
		index++
		return codes[0]
	}
	count := func() uint64 {
		b := newApplyBatch(db)
		c, found, err := m.get(b, []byte("n"))
		if err != nil || !found {
			t.Fatal("no counter", err)
		}
		return uint64(c.value[0])
	}
	fill := func(n int) {
		entries := make([]*raftpb.Entry, n)
		for i := range entries {
			entries[i] = entryOf(index, stamp, &meta.Txn{ID: ashlar.RequestID(ashlar.NewID())})
			index++
		}
		applyAll(t, db, m, entries)
	}
	pass := func(ms int64) { // small steps: large ones do not count in full
		for ; ms > 0; ms -= stampStepMaxMS {
			stamp += min(ms, stampStepMaxMS)
			fill(1)
		}
	}
	apply(first)
	// A clock that leaps ahead, and many transactions, are not ten minutes.
	stamp += 365 * 24 * 3600 * 1000
	fill(3 * rememberTxns)
	if apply(first); count() != 1 {
		t.Fatal("applied twice after many transactions in little time")
	}
	pass(rememberMS + 1000) // generation 0 ends
	fill(rememberTxns / 2)
	if apply(first); count() != 1 {
		t.Fatal("applied twice when the generation had just changed")
	}
	pass(rememberMS + 1000)
	fill(rememberTxns) // generation 1 ends, 0 is forgotten
	if apply(first); count() != 2 {
		t.Fatal("never forgotten")
	}
}

func TestFilterForgetsNothing(t *testing.T) {
	var f idFilter
	ids := make([]ashlar.RequestID, 50_000)
	for i := range ids {
		ids[i] = ashlar.RequestID(ashlar.NewID())
		f.add(ids[i])
	}
	for _, id := range ids {
		if !f.maybe(id) {
			t.Fatal("an id that was added is denied")
		}
	}
	wrong := 0
	for range ids {
		if f.maybe(ashlar.RequestID(ashlar.NewID())) {
			wrong++
		}
	}
	if wrong > len(ids)/50 {
		t.Errorf("%d of %d strangers pass", wrong, len(ids))
	}
}

func TestCommandRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		txn := &meta.Txn{ID: ashlar.RequestID(ashlar.NewID())}
		blob := func() []byte { return bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(300)) }
		for range r.IntN(4) {
			txn.Conds = append(txn.Conds, meta.Cond{Key: blob(), Kind: meta.CondKind(r.IntN(5)), Version: r.Uint64()})
		}
		for range r.IntN(4) {
			txn.Puts = append(txn.Puts, meta.Put{Key: blob(), Value: blob()})
		}
		for range r.IntN(4) {
			txn.Deletes = append(txn.Deletes, blob())
			txn.Adds = append(txn.Adds, meta.Add{Key: blob(), Delta: int64(r.Uint64())})
		}
		raw := encodeCommand(42, txn)
		got := &meta.Txn{}
		stamp, err := decodeCommand(raw, got)
		if err != nil || stamp != 42 || !reflect.DeepEqual(got, txn) {
			t.Fatalf("%+v becomes %+v, %v", txn, got, err)
		}
		if _, err := decodeCommand(raw[:len(raw)-1], got); err == nil {
			t.Fatal("a command cut short decodes")
		}
		if _, err := decodeCommand(append(raw, 0), got); err == nil {
			t.Fatal("a command with a tail decodes")
		}
	}
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add(encodeCommand(1, putTxn(1)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var txn meta.Txn
		stamp, err := decodeCommand(raw, &txn)
		if err != nil {
			return
		}
		var again meta.Txn
		if s, err := decodeCommand(encodeCommand(stamp, &txn), &again); err != nil || s != stamp {
			t.Fatalf("what decodes does not survive: %v", err)
		}
	})
}
