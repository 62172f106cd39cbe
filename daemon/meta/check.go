package meta

import (
	"fmt"

	"ashlar"
)

// More bounds of one call.
const (
	// CollapseMax bounds the number of rules of a scan.
	CollapseMax = 8
	// SumsMax bounds the sums of a condition, SumCountersMax the counters of each.
	SumsMax, SumCountersMax = 4, 8
	// TxnItemsMax bounds the conditions and writes of a transaction, together: a
	// multipart upload of 10,000 parts needs one condition and one delete a part.
	TxnItemsMax = 32_768
)

func invalid(op, format string, args ...any) error {
	return ashlar.E(op, "", ashlar.Invalid, fmt.Errorf(format, args...))
}

// CheckKey returns an error of kind Invalid if key cannot name a row: it is
// empty or longer than KeyBytesMax.
func CheckKey(op string, key []byte) error {
	if len(key) == 0 || len(key) > KeyBytesMax {
		return invalid(op, "key of %d bytes: want 1 to %d", len(key), KeyBytesMax)
	}
	return nil
}

// Check returns an error of kind Invalid if the transaction exceeds a bound or
// holds a condition that has no meaning.
func (t *Txn) Check() error {
	const op = "meta: commit"
	if t.ID == (ashlar.RequestID{}) {
		return invalid(op, "the request id is zero")
	}
	if n := len(t.Conds) + len(t.Puts) + len(t.Deletes) + len(t.Adds); n > TxnItemsMax {
		return invalid(op, "%d conditions and writes: want at most %d", n, TxnItemsMax)
	}
	for i, c := range t.Conds {
		if c.Kind < CondExists || c.Kind > CondWithin {
			return invalid(op, "condition %d is of unknown kind %d", i, c.Kind)
		}
		if len(c.Sums) > SumsMax || (len(c.Sums) > 0) != (c.Kind == CondWithin) {
			return invalid(op, "condition %d of kind %d has %d sums", i, c.Kind, len(c.Sums))
		}
		for _, counters := range c.Sums {
			if len(counters) == 0 || len(counters) > SumCountersMax {
				return invalid(op, "condition %d sums %d counters: want 1 to %d", i, len(counters), SumCountersMax)
			}
		}
	}
	for _, p := range t.Puts {
		if len(p.Value) > ValueBytesMax {
			return invalid(op, "value of %d bytes: want at most %d", len(p.Value), ValueBytesMax)
		}
	}
	bytes := 0
	for key := range t.keys {
		if err := CheckKey(op, key); err != nil {
			return err
		}
		bytes += len(key)
	}
	for _, p := range t.Puts {
		bytes += len(p.Value)
	}
	if bytes > TxnBytesMax {
		return invalid(op, "transaction of %d bytes: want at most %d", bytes, TxnBytesMax)
	}
	return nil
}

// keys yields every key that the transaction names.
func (t *Txn) keys(yield func([]byte) bool) {
	for i := range t.Conds {
		if !yield(t.Conds[i].Key) {
			return
		}
		for _, counters := range t.Conds[i].Sums {
			for _, key := range counters {
				if !yield(key) {
					return
				}
			}
		}
	}
	for i := range t.Puts {
		if !yield(t.Puts[i].Key) {
			return
		}
	}
	for i := range t.Deletes {
		if !yield(t.Deletes[i]) {
			return
		}
	}
	for i := range t.Adds {
		if !yield(t.Adds[i].Key) {
			return
		}
	}
}

// Check returns an error of kind Invalid if the request exceeds a bound.
func (r *ScanRequest) Check() error {
	const op = "meta: scan"
	// One byte more than a key: the successor of the longest key is a good Start.
	if len(r.Start) > KeyBytesMax+1 || len(r.End) > KeyBytesMax+1 {
		return invalid(op, "bounds of %d and %d bytes: want at most %d", len(r.Start), len(r.End), KeyBytesMax+1)
	}
	if r.Limit < 0 || r.Limit > ScanRowsMax {
		return invalid(op, "limit %d: want 0 to %d", r.Limit, ScanRowsMax)
	}
	if len(r.Collapse) > CollapseMax {
		return invalid(op, "%d collapse rules: want at most %d", len(r.Collapse), CollapseMax)
	}
	for i, c := range r.Collapse {
		if len(c.Delim) == 0 || len(c.Delim) > KeyBytesMax || c.From < 0 {
			return invalid(op, "collapse rule %d: delimiter of %d bytes from %d", i, len(c.Delim), c.From)
		}
	}
	return nil
}
