package metatest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"

	"ashlar"
	"ashlar/daemon/meta"
)

func (s *suite) getPutDelete() {
	s.wantAbsent("a")
	s.mustCommit(meta.Txn{Puts: []meta.Put{put("a", "1"), put("empty", "")}})
	s.wantValue("a", "1")
	s.wantValue("empty", "")
	s.mustCommit(meta.Txn{Puts: []meta.Put{put("a", "2")}})
	s.wantValue("a", "2")
	s.mustCommit(meta.Txn{Deletes: [][]byte{[]byte("a"), []byte("never there")}})
	s.wantAbsent("a")
	s.mustCommit(meta.Txn{}) // a transaction that asks nothing is granted
}

func (s *suite) conditions() {
	s.mustCommit(meta.Txn{Puts: []meta.Put{put("there", "v")}, Adds: []meta.Add{{Key: []byte("one"), Delta: 1}, {Key: []byte("zero")}}})
	s.mustCommit(meta.Txn{Puts: []meta.Put{{Key: []byte("limits"), Value: limitsOf(1, 1)}}, Adds: []meta.Add{{Key: []byte("two"), Delta: 2}}})
	there, one, limits := s.mustGet("there"), s.mustGet("one"), s.mustGet("limits")
	version := func(v uint64) meta.Cond {
		return meta.Cond{Kind: meta.CondVersion, Key: []byte("there"), Version: v}
	}
	for _, tc := range []struct {
		name  string
		cond  meta.Cond
		holds bool
		row   *meta.Row
	}{
		{"exists", cond(meta.CondExists, "there"), true, nil},
		{"exists, is not", cond(meta.CondExists, "gone"), false, nil},
		{"absent", cond(meta.CondAbsent, "gone"), true, nil},
		{"absent, is not", cond(meta.CondAbsent, "there"), false, &there},
		{"version", version(there.Version), true, nil},
		{"older version", version(there.Version - 1), false, &there},
		{"newer version", version(there.Version + 1), false, &there},
		{"version of nothing", meta.Cond{Kind: meta.CondVersion, Key: []byte("gone"), Version: 1}, false, nil},
		{"version zero of nothing", meta.Cond{Kind: meta.CondVersion, Key: []byte("gone")}, false, nil},
		{"zero", cond(meta.CondZero, "zero"), true, nil},
		{"zero, never added to", cond(meta.CondZero, "gone"), true, nil},
		{"zero, is not", cond(meta.CondZero, "one"), false, &one},
		{"within nothing", within("gone", "one"), true, nil},
		{"within what is reached", within("limits", "one", "zero"), true, nil},
		{"within, is not", within("limits", "one", "two"), false, &limits},
		{"within the second, is not", within("limits", "one", "", "two"), false, &limits},
		{"within a limit that is not there", within("limits", "gone", "", "gone", "", "two"), true, nil},
	} {
		mark := "mark " + tc.name
		err := s.commit(meta.Txn{Conds: []meta.Cond{tc.cond}, Puts: []meta.Put{put(mark, "x")}})
		if tc.holds {
			if err != nil {
				s.Fatalf("%s: %v", tc.name, err)
			}
			s.wantValue(mark, "x")
			continue
		}
		s.wantCondition(err, 0, tc.row)
		s.wantAbsent(mark)
	}
}

// within is a condition that sums keep the limits of a row. An empty key begins
// the next sum.
func within(limits string, keys ...string) meta.Cond {
	c := meta.Cond{Kind: meta.CondWithin, Key: []byte(limits), Sums: [][][]byte{nil}}
	for _, key := range keys {
		if key == "" {
			c.Sums = append(c.Sums, nil)
			continue
		}
		last := &c.Sums[len(c.Sums)-1]
		*last = append(*last, []byte(key))
	}
	return c
}

func limitsOf(limits ...int64) (value []byte) {
	for _, n := range limits {
		value = binary.LittleEndian.AppendUint64(value, uint64(n))
	}
	return value
}

// limitsHoldWithWhatIsAdded: a condition on sums counts what its own transaction
// adds, so that nothing gets past a limit, and what takes away always passes.
func (s *suite) limitsHoldWithWhatIsAdded() {
	s.mustCommit(meta.Txn{Puts: []meta.Put{{Key: []byte("limits"), Value: limitsOf(10)}}})
	add := func(key string, delta int64) error {
		return s.commit(meta.Txn{Conds: []meta.Cond{within("limits", "a", "b")}, Adds: []meta.Add{{Key: []byte(key), Delta: delta}}})
	}
	for _, step := range []struct {
		key   string
		delta int64
		holds bool
	}{
		{"a", 4, true}, {"b", 7, false}, {"b", 6, true}, {"a", 1, false}, {"a", -1, true}, {"b", 1, true}, {"elsewhere", 1, true}, {"b", 1, false},
	} {
		limits := s.mustGet("limits")
		if err := add(step.key, step.delta); step.holds && err != nil {
			s.Fatalf("%+v: %v", step, err)
		} else if !step.holds {
			s.wantCondition(err, 0, &limits)
		}
	}
	s.mustCommit(meta.Txn{Puts: []meta.Put{{Key: []byte("limits"), Value: limitsOf(-100)}}})
	limits := s.mustGet("limits")
	s.wantCondition(add("a", -1), 0, &limits)
	s.mustCommit(meta.Txn{Deletes: [][]byte{[]byte("limits")}})
	if err := add("a", 1000); err != nil {
		s.Fatal(err)
	}
}

func (s *suite) conditionsAreAtomic() {
	s.mustCommit(meta.Txn{Puts: []meta.Put{put("a", "1"), put("b", "1")}})
	b := s.mustGet("b")
	err := s.commit(meta.Txn{
		Conds:   []meta.Cond{cond(meta.CondExists, "a"), cond(meta.CondAbsent, "b"), cond(meta.CondAbsent, "a")},
		Puts:    []meta.Put{put("c", "1"), put("a", "2")},
		Deletes: [][]byte{[]byte("b")},
		Adds:    []meta.Add{{Key: []byte("n"), Delta: 5}},
	})
	s.wantCondition(err, 1, &b)
	s.wantValue("a", "1")
	s.wantValue("b", "1")
	s.wantAbsent("c")
	s.wantAbsent("n")
}

func (s *suite) versionsGrow() {
	var last uint64
	for i := range 20 {
		s.mustCommit(meta.Txn{Puts: []meta.Put{put("a", fmt.Sprint(i)), put("b", "")}})
		a, b := s.mustGet("a"), s.mustGet("b")
		if a.Version <= last || a.Version != b.Version {
			s.Fatalf("versions %d and %d after %d", a.Version, b.Version, last)
		}
		last = a.Version
	}
	s.mustCommit(meta.Txn{Deletes: [][]byte{[]byte("a")}})
	s.mustCommit(meta.Txn{Puts: []meta.Put{put("a", "again")}})
	if v := s.mustGet("a").Version; v <= last {
		s.Fatalf("version %d of a row made again, after %d", v, last)
	}
}

func (s *suite) counters() {
	n := []byte("n")
	s.mustCommit(meta.Txn{Adds: []meta.Add{{Key: n, Delta: 5}}})
	s.wantCounter("n", 5)
	s.mustCommit(meta.Txn{Adds: []meta.Add{{Key: n, Delta: -7}, {Key: n, Delta: 1}}})
	s.wantCounter("n", -1)
	before := s.mustGet("n").Version
	s.mustCommit(meta.Txn{Adds: []meta.Add{{Key: n, Delta: 1}}})
	s.wantCounter("n", 0)
	if s.mustGet("n").Version <= before {
		s.Fatal("an add does not change the version")
	}
	s.mustCommit(meta.Txn{Puts: []meta.Put{put("text", "no counter")}})
	err := s.commit(meta.Txn{Puts: []meta.Put{put("x", "1")}, Adds: []meta.Add{{Key: n, Delta: 9}, {Key: []byte("text"), Delta: 1}}})
	s.wantInvalid("add to a row that is no counter", err)
	s.wantAbsent("x")
	s.wantCounter("n", 0)
	s.wantValue("text", "no counter")
}

func (s *suite) orderWithinTxn() {
	k := []byte("k")
	s.mustCommit(meta.Txn{Puts: []meta.Put{put("k", "1"), put("k", "2")}, Deletes: [][]byte{k}})
	s.wantValue("k", "2")
	s.mustCommit(meta.Txn{Deletes: [][]byte{k}, Adds: []meta.Add{{Key: k, Delta: 3}}})
	s.wantCounter("k", 3)
}

func (s *suite) idempotence() {
	add := meta.Txn{ID: newID(), Adds: []meta.Add{{Key: []byte("n"), Delta: 1}}, Puts: []meta.Put{put("a", "1")}}
	create := meta.Txn{ID: newID(), Conds: []meta.Cond{cond(meta.CondAbsent, "new")}, Puts: []meta.Put{put("new", "mine")}}
	for range 3 {
		s.mustCommit(add)
		s.mustCommit(create)
	}
	s.wantCounter("n", 1)
	version := s.mustGet("a").Version
	s.mustCommit(add)
	if s.mustGet("a").Version != version {
		s.Fatal("a retry wrote the row again")
	}
	// A refusal is an answer too: it does not turn into a success later.
	refused := meta.Txn{ID: newID(), Conds: []meta.Cond{cond(meta.CondAbsent, "new")}, Puts: []meta.Put{put("late", "x")}}
	row := s.mustGet("new")
	s.wantCondition(s.commit(refused), 0, &row)
	s.mustCommit(meta.Txn{Deletes: [][]byte{[]byte("new")}})
	s.wantCondition(s.commit(refused), 0, nil)
	s.wantAbsent("late")
	bad := meta.Txn{ID: newID(), Adds: []meta.Add{{Key: []byte("a"), Delta: 1}}}
	s.wantInvalid("add to a row", s.commit(bad))
	s.mustCommit(meta.Txn{Deletes: [][]byte{[]byte("a")}})
	s.wantInvalid("add to a row, retried", s.commit(bad))
}

func (s *suite) shardsAreApart() {
	id := newID()
	for shard := range ashlar.ShardID(2) {
		txn := meta.Txn{ID: id, Puts: []meta.Put{put("k", fmt.Sprint("shard ", shard))}}
		if err := s.store.Commit(s.ctx(), shard, &txn); err != nil {
			s.Fatalf("commit to shard %d: %v", shard, err)
		}
	}
	for shard := range ashlar.ShardID(2) {
		row, err := s.store.Get(s.ctx(), shard, []byte("k"))
		if err != nil || string(row.Value) != fmt.Sprint("shard ", shard) {
			s.Fatalf("shard %d: %q, %v", shard, row.Value, err)
		}
		page, err := s.store.Scan(s.ctx(), shard, meta.ScanRequest{})
		if err != nil || len(page.Rows) != 1 {
			s.Fatalf("shard %d: scan sees %d rows, %v", shard, len(page.Rows), err)
		}
	}
}

func (s *suite) scanOrderAndPages() {
	s.wantKeys(meta.ScanRequest{})
	keys := []string{"\x00", "a", "a\x00", "aa", "b", "b\xff", "b\xff\xff", "c", "\xff", "\xff\xff"}
	txn := meta.Txn{}
	for i := len(keys) - 1; i >= 0; i-- {
		txn.Puts = append(txn.Puts, put(keys[i], "value of "+keys[i]))
	}
	s.mustCommit(txn)
	for limit := range len(keys) + 2 {
		s.wantKeys(meta.ScanRequest{Limit: limit}, keys...)
		s.wantKeys(meta.ScanRequest{Limit: limit, KeysOnly: true}, keys...)
		s.wantKeys(meta.ScanRequest{Start: []byte("aa"), End: []byte("c"), Limit: limit}, keys[3:7]...)
		s.wantKeys(meta.ScanRequest{Start: []byte("ab"), Limit: limit}, keys[4:]...)
	}
	s.wantKeys(meta.ScanRequest{Start: []byte("b"), End: []byte("b")})
	s.wantKeys(meta.ScanRequest{Start: []byte("c"), End: []byte("a")})
	for _, row := range s.scanAll(meta.ScanRequest{}) {
		if string(row.Value) != "value of "+string(row.Key) || row.Version == 0 {
			s.Fatalf("row %q: value %q version %d", row.Key, row.Value, row.Version)
		}
	}
	page, err := s.store.Scan(s.ctx(), 0, meta.ScanRequest{Limit: len(keys)})
	if err != nil || page.Next != nil {
		s.Fatalf("a page that ends with the last row: Next %q, %v", page.Next, err)
	}
}

func (s *suite) scanLargeRows() {
	var want []string
	for i := range 5 {
		key := fmt.Sprintf("large%d", i)
		value := bytes.Repeat([]byte{byte(i)}, meta.ValueBytesMax/2)
		s.mustCommit(meta.Txn{Puts: []meta.Put{{Key: []byte(key), Value: value}}})
		want = append(want, key)
	}
	s.wantKeys(meta.ScanRequest{}, want...)
	for i, row := range s.scanAll(meta.ScanRequest{}) {
		if !bytes.Equal(row.Value, bytes.Repeat([]byte{byte(i)}, meta.ValueBytesMax/2)) {
			s.Fatalf("row %q is not what was put", row.Key)
		}
	}
}

func (s *suite) collapse() {
	txn := meta.Txn{}
	for _, key := range []string{
		"o/a/1\x00v1", "o/a/1\x00v2", "o/a/2\x00v1", "o/b\x00v1", "o/b\x00v2", "o/b\x00v3",
		"o/c/d/e\x00v1", "o/c/f\x00v1", "o/z", "p",
	} {
		txn.Puts = append(txn.Puts, put(key, "x"))
	}
	s.mustCommit(txn)
	rule := func(delim string, from int) meta.Collapse { return meta.Collapse{Delim: []byte(delim), From: from} }
	for limit := range 4 {
		req := func(rules ...meta.Collapse) meta.ScanRequest {
			return meta.ScanRequest{Collapse: rules, Limit: limit, KeysOnly: limit%2 == 0}
		}
		s.wantKeys(req(rule("\x00", 0)), "o/a/1\x00v1", "o/a/2\x00v1", "o/b\x00v1", "o/c/d/e\x00v1", "o/c/f\x00v1", "o/z", "p")
		s.wantKeys(req(rule("/", 2)), "o/a/1\x00v1", "o/b\x00v1", "o/b\x00v2", "o/b\x00v3", "o/c/d/e\x00v1", "o/z", "p")
		s.wantKeys(req(rule("/", 2), rule("\x00", 2)), "o/a/1\x00v1", "o/b\x00v1", "o/c/d/e\x00v1", "o/z", "p")
		s.wantKeys(req(rule("/", 0)), "o/a/1\x00v1", "p")
		s.wantKeys(req(rule("/", 99)), keysOf(s.scanAll(meta.ScanRequest{}))...)
	}
	within := meta.ScanRequest{Start: []byte("o/a/1\x00v2"), End: []byte("o/c/f"), Collapse: []meta.Collapse{rule("/", 2)}}
	s.wantKeys(within, "o/a/1\x00v2", "o/b\x00v1", "o/b\x00v2", "o/b\x00v3", "o/c/d/e\x00v1")
}

// collapseRandom compares with the definition, applied to a plain scan.
func (s *suite) collapseRandom() {
	r := newRand(s.T)
	txn := meta.Txn{}
	for range 150 {
		txn.Puts = append(txn.Puts, put(randomKey(r), "x"))
	}
	s.mustCommit(txn)
	all := keysOf(s.scanAll(meta.ScanRequest{KeysOnly: true}))
	for range 40 {
		req := meta.ScanRequest{KeysOnly: true, Limit: []int{0, 1, 7, 20}[r.IntN(4)]}
		if r.IntN(2) == 0 {
			req.Start = []byte(randomKey(r))
		}
		if r.IntN(2) == 0 {
			req.End = []byte(randomKey(r))
		}
		for range 1 + r.IntN(3) {
			req.Collapse = append(req.Collapse, meta.Collapse{Delim: []byte(randomKey(r)[:1]), From: r.IntN(4)})
		}
		var want []string
		seen := map[string]bool{}
		for _, key := range all {
			if key < string(req.Start) || len(req.End) > 0 && key >= string(req.End) {
				continue
			}
			if p := collapsed(key, req.Collapse); p == "" || !seen[p] {
				seen[p] = true
				want = append(want, key)
			}
		}
		s.wantKeys(req, want...)
	}
}

func (s *suite) bounds() {
	long := strings.Repeat("k", meta.KeyBytesMax)
	huge := strings.Repeat("v", meta.ValueBytesMax)
	s.mustCommit(meta.Txn{Puts: []meta.Put{put(long, "x"), put("huge", huge)}})
	s.wantValue(long, "x")
	s.wantValue("huge", huge)
	ctx := s.ctx()
	for name, txn := range map[string]meta.Txn{
		"key too long":        {Puts: []meta.Put{put(long+"k", "")}},
		"empty key":           {Puts: []meta.Put{put("", "")}},
		"empty delete":        {Deletes: [][]byte{{}}},
		"add key too long":    {Adds: []meta.Add{{Key: []byte(long + "k"), Delta: 1}}},
		"value too long":      {Puts: []meta.Put{put("a", huge+"v")}},
		"txn too long":        {Puts: []meta.Put{put("a", huge), put("b", huge), put("c", "")}},
		"condition kind 0":    {Conds: []meta.Cond{{Key: []byte("a")}}},
		"condition kind 99":   {Conds: []meta.Cond{cond(99, "a")}},
		"condition, no key":   {Conds: []meta.Cond{cond(meta.CondAbsent, "")}},
		"too many conditions": {Conds: make([]meta.Cond, meta.TxnItemsMax+1)},
		"limits without sums": {Conds: []meta.Cond{{Kind: meta.CondWithin, Key: []byte("k")}}},
		"sums without limits": {Conds: []meta.Cond{{Kind: meta.CondExists, Key: []byte("k"), Sums: [][][]byte{{[]byte("n")}}}}},
		"sum of nothing":      {Conds: []meta.Cond{within("k")}},
		"sum of an empty key": {Conds: []meta.Cond{{Kind: meta.CondWithin, Key: []byte("k"), Sums: [][][]byte{{nil}}}}},
	} {
		s.wantInvalid(name, s.commit(txn))
	}
	s.wantInvalid("zero request id", s.store.Commit(ctx, 0, &meta.Txn{Puts: []meta.Put{put("a", "")}}))
	_, err := s.store.Get(ctx, 0, nil)
	s.wantInvalid("get of an empty key", err)
	_, err = s.store.Get(ctx, 0, []byte(long+"k"))
	s.wantInvalid("get of a long key", err)
	for name, req := range map[string]meta.ScanRequest{
		"negative limit":  {Limit: -1},
		"limit too large": {Limit: meta.ScanRowsMax + 1},
		"start too long":  {Start: []byte(long + "kk")},
		"empty delimiter": {Collapse: []meta.Collapse{{}}},
		"negative from":   {Collapse: []meta.Collapse{{Delim: []byte("/"), From: -1}}},
		"too many rules":  {Collapse: make([]meta.Collapse, meta.CollapseMax+1)},
	} {
		_, err := s.store.Scan(ctx, 0, req)
		s.wantInvalid(name, err)
	}
	s.wantAbsent("a")
	s.wantKeys(meta.ScanRequest{Start: []byte(long + "\x00"), KeysOnly: true})
}

// largestTxn commits as much as TxnBytesMax allows and reads it back.
func (s *suite) largestTxn() {
	value := strings.Repeat("v", meta.ValueBytesMax-1)
	s.mustCommit(meta.Txn{Puts: []meta.Put{put("a", value), put("b", value)}})
	s.wantValue("a", value)
	s.wantValue("b", value)
}

func (s *suite) deadline() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.store.Get(ctx, 0, []byte("a")); !ashlar.Is(err, ashlar.Unavailable) {
		s.Fatalf("get after the deadline: %v", err)
	}
	if _, err := s.store.Scan(ctx, 0, meta.ScanRequest{}); !ashlar.Is(err, ashlar.Unavailable) {
		s.Fatalf("scan after the deadline: %v", err)
	}
	if err := s.store.Commit(ctx, 0, &meta.Txn{ID: newID()}); !ashlar.Is(err, ashlar.Unavailable) {
		s.Fatalf("commit after the deadline: %v", err)
	}
}

func (s *suite) slicesBelongToCaller() {
	key, value := []byte("key"), []byte("value")
	txn := meta.Txn{ID: newID(), Puts: []meta.Put{{Key: key, Value: value}}}
	if err := s.store.Commit(s.ctx(), 0, &txn); err != nil {
		s.Fatal(err)
	}
	key[0], value[0] = 'X', 'X'
	row := s.mustGet("key")
	row.Key[0], row.Value[0] = 'Y', 'Y'
	s.wantValue("key", "value")
	s.scanAll(meta.ScanRequest{})[0].Value[0] = 'Z'
	s.wantValue("key", "value")
}

// racingConditions lets many clients create the same rows: each has one winner.
func (s *suite) racingConditions() {
	const clients, keys = 8, 12
	var won [keys]atomic.Int32
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for k := range keys {
				key := fmt.Sprintf("key%02d", k)
				err := s.commit(meta.Txn{
					Conds: []meta.Cond{cond(meta.CondAbsent, key)},
					Puts:  []meta.Put{put(key, fmt.Sprint(c))},
					Adds:  []meta.Add{{Key: []byte("count"), Delta: 1}},
				})
				switch {
				case err == nil:
					won[k].Add(1)
				case !ashlar.Is(err, ashlar.Stale):
					s.Errorf("client %d %s: %v", c, key, err)
				}
			}
		})
	}
	wg.Wait()
	for k := range keys {
		if n := won[k].Load(); n != 1 {
			s.Errorf("key%02d has %d winners", k, n)
		}
	}
	s.wantCounter("count", keys)
}

// randomAgainstModel gives the same random calls to the store and to the model.
func (s *suite) randomAgainstModel() {
	r := newRand(s.T)
	ref := &suite{T: s.T, store: NewModel()}
	for i := range 250 {
		txn := randomTxn(r)
		got, want := describe(s.commit(txn)), describe(ref.commit(txn))
		if got != want {
			s.Fatalf("step %d: %+v: %s, want %s", i, txn, got, want)
		}
	}
	got, want := s.scanAll(meta.ScanRequest{}), ref.scanAll(meta.ScanRequest{})
	if len(got) != len(want) {
		s.Fatalf("%d rows, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i].Key, want[i].Key) || !bytes.Equal(got[i].Value, want[i].Value) {
			s.Fatalf("row %d: %q=%q, want %q=%q", i, got[i].Key, got[i].Value, want[i].Key, want[i].Value)
		}
	}
}

func randomTxn(r *rand.Rand) meta.Txn {
	key := func() string { return string("abcdef"[r.IntN(6)]) + string("xyz"[r.IntN(3)]) }
	txn := meta.Txn{ID: newID()}
	for range r.IntN(2) {
		if kind := []meta.CondKind{meta.CondExists, meta.CondAbsent, meta.CondZero, meta.CondWithin}[r.IntN(4)]; kind != meta.CondWithin {
			txn.Conds = append(txn.Conds, cond(kind, key()))
		} else {
			txn.Conds = append(txn.Conds, within("l"+key(), "n"+key(), "n"+key(), "", "n"+key()))
		}
	}
	if r.IntN(4) == 0 {
		txn.Puts = append(txn.Puts, meta.Put{Key: []byte("l" + key()), Value: limitsOf(r.Int64N(40)-10, r.Int64N(20))})
	}
	for range r.IntN(3) {
		txn.Puts = append(txn.Puts, put(key(), strings.Repeat("v", r.IntN(12))))
	}
	for range r.IntN(3) {
		txn.Deletes = append(txn.Deletes, []byte(key()))
	}
	for range r.IntN(2) {
		txn.Adds = append(txn.Adds, meta.Add{Key: []byte("n" + key()), Delta: r.Int64N(20) - 10})
	}
	return txn
}
