package linear

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestPrune compares the verdicts with and without reads that decide nothing, on
// small histories of all kinds.
func TestPrune(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	var verdicts [3]int
	pruned := 0
	for n := range 5_000 {
		var ops []Operation
		writes := Value(0)
		for i := range 3 + rng.IntN(7) {
			call := time.Duration(rng.IntN(40))
			o := Operation{Kind: Kind(rng.IntN(int(kinds))), Client: i, Call: call, Return: call + 1 + time.Duration(rng.IntN(15))}
			o.Value = Value(rng.IntN(3))
			if !o.Kind.reads() && o.Kind != Delete {
				writes++
				o.Value, o.Guard, o.Guarded = writes, Guard(rng.IntN(3)), Value(1+rng.IntN(2))
				o.Outcome = []Outcome{Done, Done, Refused, Open}[rng.IntN(4)]
			} else if o.Kind == Delete {
				o.Value = Nothing
			}
			if o.Outcome == Open {
				o.Return = never
			}
			ops = append(ops, o)
		}
		short := prune(ops)
		pruned += len(ops) - len(short)
		got, want := search(short, time.Minute), search(ops, time.Minute)
		if got != want {
			t.Fatalf("seed %d, history %d: verdict %d without and %d with reads that decide nothing:\n%s", seed, n, got, want, Render(ops))
		}
		verdicts[got]++
	}
	if verdicts[Linearizable] < 100 || verdicts[Violated] < 100 || pruned < 100 {
		t.Errorf("verdicts %v, %d reads left out: nothing was tested", verdicts, pruned)
	}
}

// TestCrowd judges a key in whose time dozens of pages were listed at once.
func TestCrowd(t *testing.T) {
	t.Parallel()
	var ops []Operation
	for v := range Value(12) {
		at := 100 * time.Duration(v)
		ops = append(ops, Operation{Kind: Put, Value: v + 1, Call: at, Return: at + 50})
		for i := range time.Duration(12) {
			ops = append(ops, Operation{Kind: List, Value: v + 1, Call: at + i, Return: at + 140 - i})
		}
	}
	if got := Check(ops, 20*time.Second); got != Linearizable {
		t.Errorf("verdict %d", got)
	}
	ops = append(ops, Operation{Kind: Get, Value: 11, Call: 1500, Return: 1600})
	if got := Check(ops, 20*time.Second); got != Violated {
		t.Errorf("verdict %d of a history with a stale read", got)
	}
}

// TestModel judges histories of which it is known what they are.
func TestModel(t *testing.T) {
	t.Parallel()
	at := func(o Operation, call, ret int) Operation {
		o.Call, o.Return = time.Duration(call), time.Duration(ret)
		if o.Outcome == Open {
			o.Return = never
		}
		return o
	}
	put := func(v Value) Operation { return Operation{Kind: Put, Value: v} }
	open := func(o Operation) Operation { o.Outcome = Open; return o }
	create := func(v Value) Operation { return Operation{Kind: Put, Value: v, Guard: IfAbsent} }
	swap := func(old, v Value) Operation { return Operation{Kind: Complete, Value: v, Guard: IfValue, Guarded: old} }
	refused := func(o Operation) Operation { o.Outcome = Refused; return o }
	missing := func(o Operation) Operation { o.Outcome = Missing; return o }
	del := Operation{Kind: Delete}
	get := func(v Value) Operation { return Operation{Kind: Get, Value: v} }
	list := func(v Value) Operation { return Operation{Kind: List, Value: v} }

	for _, c := range []struct {
		name string
		ops  []Operation
		want Verdict
	}{
		{"a write is read", []Operation{at(put(1), 0, 1), at(get(1), 2, 3)}, Linearizable},
		{"a stale read", []Operation{at(put(1), 0, 1), at(put(2), 2, 3), at(get(1), 4, 5)}, Violated},
		{"either, while it is written", []Operation{at(put(1), 0, 1), at(put(2), 2, 9), at(get(1), 4, 5), at(get(2), 6, 7)}, Linearizable},
		{"there and back", []Operation{at(put(1), 0, 1), at(put(2), 2, 9), at(get(2), 4, 5), at(get(1), 6, 7)}, Violated},
		{"a listing that misses a key", []Operation{at(put(1), 0, 1), at(list(Nothing), 2, 3)}, Violated},
		{"a listing of the past", []Operation{at(put(1), 0, 1), at(del, 2, 3), at(list(1), 4, 5)}, Violated},
		{"a listing in between", []Operation{at(put(1), 0, 1), at(del, 2, 5), at(list(1), 3, 4), at(list(Nothing), 3, 4)}, Linearizable},
		{"two creators", []Operation{at(create(1), 0, 5), at(create(2), 0, 5)}, Violated},
		{"a creator and a refusal", []Operation{at(create(1), 0, 5), at(refused(create(2)), 0, 5)}, Linearizable},
		{"a refusal before anything is there", []Operation{at(refused(create(2)), 0, 1), at(create(1), 2, 3)}, Violated},
		{"two swaps of one generation", []Operation{at(put(1), 0, 1), at(swap(1, 2), 2, 9), at(swap(1, 3), 2, 9)}, Violated},
		{"a swap of nothing", []Operation{at(missing(swap(1, 2)), 0, 1)}, Linearizable},
		{"a swap of nothing where something is", []Operation{at(put(1), 0, 1), at(missing(swap(1, 2)), 2, 3)}, Violated},
		{"refused though it holds", []Operation{at(put(1), 0, 1), at(refused(swap(1, 2)), 2, 3)}, Violated},
		{"an unanswered write comes late", []Operation{at(put(1), 0, 1), at(open(put(2)), 2, 0), at(get(1), 9, 10), at(get(2), 11, 12)}, Linearizable},
		{"an unanswered write comes twice", []Operation{at(open(put(2)), 0, 0), at(get(2), 1, 2), at(put(3), 3, 4), at(get(2), 5, 6)}, Violated},
		{"an unanswered write before it began", []Operation{at(get(2), 0, 1), at(open(put(2)), 2, 0)}, Violated},
		{"an unanswered creation over something", []Operation{at(put(1), 0, 1), at(open(create(2)), 2, 0), at(get(2), 3, 4)}, Violated},
		{"an unanswered delete", []Operation{at(put(1), 0, 1), at(open(del), 2, 0), at(get(1), 3, 4), at(get(Nothing), 5, 6), at(list(Nothing), 7, 8)}, Linearizable},
		{"what nobody wrote", []Operation{at(put(1), 0, 1), at(get(Foreign), 2, 3)}, Violated},
	} {
		if got := Check(c.ops, time.Minute); got != c.want {
			t.Errorf("%s: verdict %d, want %d", c.name, got, c.want)
		}
	}

	long := []Operation{at(put(1), 0, 1), at(get(1), 2, 3), at(put(2), 4, 5), at(get(1), 6, 7), at(put(3), 8, 9), at(get(3), 10, 11)}
	part := Culprit(long, time.Minute)
	if len(part) != 4 || part[3].Kind != Get || part[3].Value != 1 {
		t.Errorf("the culprit is\n%s", Render(part))
	}
	if text := Render(part); !strings.Contains(text, "►") || !strings.Contains(text, "saw v1") {
		t.Errorf("rendered as\n%s", text)
	}
}
