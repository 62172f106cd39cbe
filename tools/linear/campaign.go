package linear

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// checkTimeout bounds the search for an order of one key's operations.
const checkTimeout = time.Minute

// Finding is a key whose history has no order.
type Finding struct {
	Key     string
	Verdict Verdict
	// History ends with the answer that cannot be.
	History []Operation
}

func (f *Finding) String() string {
	what := "is not linearizable"
	if f.Verdict == Undecided {
		what = fmt.Sprintf("was not decided within %v", checkTimeout)
	}
	return fmt.Sprintf("key %s %s; times in seconds since the start:\n%s", f.Key, what, Render(f.History))
}

// Judge checks the histories of all keys and returns those that fail, at most
// findingsMax with a history.
func (l *Load) Judge() []Finding {
	keys := l.ring.keys("", "")
	var next atomic.Int64
	var mu sync.Mutex
	var found []Finding
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for n := int(next.Add(1)) - 1; n < len(keys); n = int(next.Add(1)) - 1 {
				ops := keys[n].History()
				v := Check(ops, checkTimeout)
				if v == Linearizable {
					continue
				}
				mu.Lock()
				room := len(found) < findingsMax
				mu.Unlock()
				if v == Violated && room {
					ops = Culprit(ops, checkTimeout)
				}
				mu.Lock()
				found = append(found, Finding{keys[n].Name, v, ops})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return found
}

const findingsMax = 5

// Err returns what no history can show: answers that no request may get, and
// listings that are out of order or hold what nobody wrote.
func (l *Load) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, s := range l.strange {
		errs = append(errs, errors.New("unexpected answer: "+s))
	}
	for _, s := range l.listed {
		errs = append(errs, errors.New("listed out of order, or never written: "+s))
	}
	return errors.Join(errs...)
}

// Settle reads every key once more, within bound. Everything must have healed.
func (l *Load) Settle(bound time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	return l.settle(ctx)
}

// Keys is the number of keys that were used.
func (l *Load) Keys() int { return len(l.ring.keys("", "")) }

// Operations is the number of requests that were answered or left open.
func (l *Load) Operations() (sum int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.counts {
		sum += n
	}
	return sum
}

// Report says what was done.
func (l *Load) Report() string {
	longest, events := 0, 0
	for _, k := range l.ring.keys("", "") {
		n := len(k.History())
		longest, events = max(longest, n), events+n
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	sum, open := 0, 0
	for k := range kinds {
		lines = append(lines, fmt.Sprintf("%v %d (%d open)", k, l.counts[k], l.open[k]))
		sum, open = sum+l.counts[k], open+l.open[k]
	}
	return fmt.Sprintf("%d operations: %s; %d under a condition, %d of them refused, %d conflicts; %d without an answer\n"+
		"%d keys with %d events, at most %d on one", sum, strings.Join(lines, ", "), l.guarded, l.refused, l.conflict, open,
		len(l.ring.keys("", "")), events, longest)
}

// Report says what the nemesis did.
func (n *Nemesis) Report() string {
	var lines []string
	sum := 0
	for _, f := range slices.Sorted(maps.Keys(n.counts)) {
		lines = append(lines, fmt.Sprintf("%s %d", f, n.counts[f]))
		sum += n.counts[f]
	}
	return fmt.Sprintf("%d faults: %s", sum, strings.Join(lines, ", "))
}
