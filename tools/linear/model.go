// Package linear checks that a running cluster is linearizable: clients write,
// delete, read and list the same keys through several gateways while a nemesis
// kills, pauses and cuts processes, and porcupine judges what they saw.
//
//	load      clients that race for a few keys at a time
//	nemesis   faults, dealt from a deck
//	history   what was asked and answered about one key, and when
//	model     what one key may do; judged key by key
//
// # The model
//
// A key is a register that holds nothing or one value, and every write has a
// value of its own, known by its ETag and its MD5. A condition is a part of the
// write that it guards. A request that failed or was not answered is open-ended:
// it may take effect at any later time, or never. A page of a listing is a read
// of every key in its range, at some point between its request and its answer.
// After the last fault every key is read once more, and joins its history.
//
// A key is given up after some dozens of requests, or when a few of them are
// open-ended: both keep the search for an order short. Keys are independent
// registers, and histories of independent objects are linearizable together if
// each of them is (Herlihy and Wing).
package linear

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind is what was asked of a key.
type Kind uint8

// The kinds of operations.
const (
	Put Kind = iota
	Complete
	Delete
	Get
	Head
	List
	kinds
)

func (k Kind) String() string {
	return [...]string{"PUT", "Complete", "DELETE", "GET", "HEAD", "LIST"}[k]
}

func (k Kind) reads() bool { return k >= Get }

// Guard is the condition of a write.
type Guard uint8

// The conditions.
const (
	Always   Guard = iota
	IfAbsent       // If-None-Match: *
	IfValue        // If-Match: the ETag of Operation.Guarded
)

// Outcome is what became of an operation.
type Outcome uint8

// The outcomes.
const (
	Done    Outcome = iota
	Refused         // 412: the condition did not hold
	Missing         // 404: If-Match where no object is
	Open            // failed or not answered
)

// Value numbers what was written under one key, from 1. Nothing is no object,
// and Foreign is what nobody wrote.
type Value int

// Values that no write has.
const (
	Nothing Value = 0
	Foreign Value = -1
)

// Operation is one request about one key, and its answer.
type Operation struct {
	Kind            Kind
	Client, Gateway int
	Call, Return    time.Duration // since the start of the run; Return is never for Open
	Guard           Guard
	Guarded         Value
	// Value is what was written or read. A delete writes Nothing.
	Value   Value
	Outcome Outcome
}

const never = time.Duration(math.MaxInt64)

func (o *Operation) holds(state Value) bool {
	switch o.Guard {
	case IfAbsent:
		return state == Nothing
	case IfValue:
		return state == o.Guarded
	}
	return true
}

// step says whether the operation may have this outcome in the state, and which
// state it leaves.
func (o *Operation) step(state Value) (bool, Value) {
	switch {
	case o.Kind.reads():
		return o.Value == state, state
	case o.Outcome == Done:
		return o.holds(state), o.Value
	case o.Outcome == Open:
		if o.holds(state) {
			return true, o.Value
		}
		return true, state
	case o.Outcome == Missing:
		return o.Guard == IfValue && state == Nothing, state
	}
	// S3 answers 404 to If-Match where nothing is, so 412 says that there is something.
	return state != Nothing && !o.holds(state), state
}

func (o *Operation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "client %2d g%d  %11.6f ", o.Client, o.Gateway+1, o.Call.Seconds())
	if o.Return == never {
		fmt.Fprintf(&b, "…  %9s ", "")
	} else {
		fmt.Fprintf(&b, "… %11.6f ", o.Return.Seconds())
	}
	fmt.Fprintf(&b, " %-8v", o.Kind)
	switch {
	case o.Kind.reads():
		fmt.Fprintf(&b, " saw %v", o.Value)
		return b.String()
	case o.Kind != Delete:
		fmt.Fprintf(&b, " %v", o.Value)
	}
	switch o.Guard {
	case IfAbsent:
		b.WriteString(" if nothing")
	case IfValue:
		fmt.Fprintf(&b, " if %v", o.Guarded)
	}
	b.WriteString([...]string{": done", ": refused", ": there is none", ": no answer"}[o.Outcome])
	return b.String()
}

func (v Value) String() string {
	switch v {
	case Nothing:
		return "nothing"
	case Foreign:
		return "WHAT NOBODY WROTE"
	}
	return fmt.Sprintf("v%d", int(v))
}

// model is porcupine's view of one key.
var model = porcupine.Model{
	Init: func() any { return Nothing },
	Step: func(state, input, _ any) (bool, any) {
		ok, next := input.(*Operation).step(state.(Value))
		return ok, next
	},
}

// Verdict is what the checker found out about one history.
type Verdict uint8

// The verdicts. Undecided means that the time was over: it is no pass.
const (
	Linearizable Verdict = iota
	Violated
	Undecided
)

// Check judges the history of one key. It does not change ops.
func Check(ops []Operation, timeout time.Duration) Verdict {
	return search(prune(ops), timeout)
}

// prune leaves out reads that decide nothing: one during which another operation
// began and ended that saw or left the same value. Wherever that one has its
// place in an order, the read may stand right behind it. Without this dozens of
// overlapping pages of listings would make the search exponential.
func prune(ops []Operation) (kept []Operation) {
	gone := make([]bool, len(ops))
	for i := range ops {
		for j := range ops {
			if i != j && !gone[j] && ops[i].spans(&ops[j]) {
				gone[i] = true
				break
			}
		}
		if !gone[i] {
			kept = append(kept, ops[i])
		}
	}
	return kept
}

// spans reports whether o is a read that p makes superfluous.
func (o *Operation) spans(p *Operation) bool {
	return o.Kind.reads() && p.Outcome == Done && p.Value == o.Value && o.Call <= p.Call && p.Return <= o.Return
}

func search(ops []Operation, timeout time.Duration) Verdict {
	events := make([]porcupine.Operation, len(ops))
	for i := range ops {
		events[i] = porcupine.Operation{ClientId: ops[i].Client, Input: &ops[i], Call: int64(ops[i].Call), Return: int64(ops[i].Return)}
	}
	switch porcupine.CheckOperationsTimeout(model, events, timeout) {
	case porcupine.Ok:
		return Linearizable
	case porcupine.Illegal:
		return Violated
	}
	return Undecided
}

// Culprit returns the shortest beginning of a violated history that is violated
// by itself. Its last answer is the one that cannot be: it stands at the end.
func Culprit(ops []Operation, timeout time.Duration) []Operation {
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b Operation) int { return int(min(1, max(-1, a.Return-b.Return))) })
	for i := range ops {
		part := before(ops, i)
		if Check(part, timeout) == Violated {
			return part
		}
	}
	return ops
}

// before is the history at the moment when operation last was answered: what
// was asked but not answered by then is open.
func before(ops []Operation, last int) (part []Operation) {
	end := ops[last].Return
	for i := range ops {
		o := ops[i]
		switch {
		case i == last || o.Call > end:
			continue
		case i > last && o.Kind.reads():
			continue
		case i > last:
			o.Return, o.Outcome = never, Open
		}
		part = append(part, o)
	}
	return append(part, ops[last])
}

// Render prints a history in the order of the calls, the last one apart.
func Render(ops []Operation) string {
	if len(ops) == 0 {
		return ""
	}
	last := ops[len(ops)-1]
	rest := slices.Clone(ops[:len(ops)-1])
	slices.SortStableFunc(rest, func(a, b Operation) int { return int(min(1, max(-1, a.Call-b.Call))) })
	var b strings.Builder
	for i := range rest {
		fmt.Fprintf(&b, "    %v\n", &rest[i])
	}
	fmt.Fprintf(&b, "  ► %v\n", &last)
	return b.String()
}
