package replica

import (
	"bytes"

	"ashlar/daemon/meta"
)

const (
	// hotRowsMax and hotValueBytesMax bound what a machine keeps of the rows that
	// many transactions look at.
	hotRowsMax       = 4096
	hotValueBytesMax = 64
	// guardCondsMax is the most conditions of a transaction that is looked
	// through for guards.
	guardCondsMax = 8
)

// hotRows remembers small rows that transactions of many keys have in common,
// present or absent: the guards, which a condition names and nothing in the
// transaction writes, and counters. Without it each transaction would look them
// up again on every replica. Only the applier touches it; nil remembers nothing.
type hotRows map[string]cell

func (h hotRows) get(key []byte) (cell, bool) {
	c, ok := h[string(key)]
	return c, ok
}

// keep remembers what lies under a key. It keeps the value.
func (h *hotRows) keep(key []byte, c cell) {
	if len(c.value) > hotValueBytesMax {
		return
	}
	if *h == nil || len(*h) >= hotRowsMax {
		*h = make(hotRows, 64)
	}
	(*h)[string(key)] = c
}

// wrote takes a write over, if the key is among them.
func (h *hotRows) wrote(key []byte, c cell) {
	if len(*h) == 0 {
		return
	}
	if _, ok := (*h)[string(key)]; !ok {
		return
	}
	if len(c.value) > hotValueBytesMax {
		delete(*h, string(key))
		return
	}
	c.value = bytes.Clone(c.value)
	(*h)[string(key)] = c
}

// isGuard reports whether nothing in the transaction writes the key.
func isGuard(txn *meta.Txn, key []byte) bool {
	if len(txn.Conds) > guardCondsMax || len(txn.Puts)+len(txn.Deletes) > guardCondsMax {
		return false
	}
	for i := range txn.Puts {
		if bytes.Equal(txn.Puts[i].Key, key) {
			return false
		}
	}
	for i := range txn.Deletes {
		if bytes.Equal(txn.Deletes[i], key) {
			return false
		}
	}
	return true
}
