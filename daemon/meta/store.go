// Package meta is the seam of the metadata store: linearizable reads, ordered
// scans, and one mini-transaction within a shard.
//
// The store knows rows, versions and counters; it knows nothing of S3. Every
// rule about buckets, objects, versions and uploads is expressed above it as
// conditions and writes, so that the replicated state machine below it stays
// small. A mini-transaction is the form of Sinfonia (Aguilera et al., SOSP'07)
// restricted to one shard: all conditions are judged and all writes applied at
// one point in the shard's log, or nothing happens.
//
//	row      key → value, version     version = log index of the row's last write
//	counter  key → int64              changed only by Add; read like a row (8 bytes, little-endian)
//
// Keys are opaque bytes ordered bytewise. Rows and counters live in one key
// space; the callers keep them apart by prefix.
//
// The engine lives in meta/replica (raft groups over Pebble); metatest holds
// the suite that every Store must pass.
package meta

import (
	"context"
	"fmt"

	"ashlar"
)

// Bounds of one call. A larger request is Invalid.
const (
	KeyBytesMax   = 4 * ashlar.KiB
	ValueBytesMax = 4 * ashlar.MiB
	TxnBytesMax   = 8 * ashlar.MiB
	ScanRowsMax   = 10_000
)

// Store is the metadata of the whole cluster, seen from anywhere.
//
// All calls are linearizable: a call that starts after another returned sees
// its effect. All return within the context's deadline; a minority or a lost
// leader yields kind Unavailable. Returned slices belong to the caller.
type Store interface {
	// Get returns the row under key, or an error of kind NotFound.
	Get(ctx context.Context, shard ashlar.ShardID, key []byte) (Row, error)
	// Scan returns rows in key order.
	Scan(ctx context.Context, shard ashlar.ShardID, req ScanRequest) (ScanPage, error)
	// Commit applies the transaction at one point of the shard's order. If a
	// condition does not hold, nothing is applied and the error is a
	// *ConditionError. An error of kind Unavailable leaves it open whether the
	// transaction was applied; calling again with the same Txn.ID is safe and
	// tells.
	Commit(ctx context.Context, shard ashlar.ShardID, txn *Txn) error
}

// Row is one stored row.
type Row struct {
	Key, Value []byte
	// Version is the log index of the transaction that last wrote the row. It
	// grows with every write to the shard and is never zero.
	Version uint64
}

// CondKind says what a condition demands of a key.
type CondKind uint8

// The numbers travel: append only.
const (
	CondExists  CondKind = iota + 1 // a row is there
	CondAbsent                      // no row is there
	CondVersion                     // a row is there and has this version
	CondZero                        // the counter is zero or was never added to
	CondWithin                      // no row is there, or its limits are kept; see Cond.Sums
)

// Cond is one condition of a transaction.
type Cond struct {
	Key     []byte
	Kind    CondKind
	Version uint64 // for CondVersion
	// Sums are for CondWithin. The row is a list of limits, 8 bytes each, little-endian
	// and signed. Number i of Sums names counters: together, and with what the
	// transaction adds to them, they must be at most limit number i. A row that has
	// no limit number i keeps nothing within it.
	Sums [][][]byte
}

// Put writes one row.
type Put struct {
	Key, Value []byte
}

// Add changes a counter.
type Add struct {
	Key   []byte
	Delta int64
}

// Txn is a mini-transaction: if all of Conds hold, all writes are applied:
// first the deletes, then the puts, then the adds, each list in its order. An
// Add to a row that is not 8 bytes long makes the transaction Invalid, and
// nothing of it is applied.
type Txn struct {
	// ID makes a retry safe: the answer to a transaction, applied or refused by
	// a condition, is remembered under its id (at least 10 minutes and 10,000
	// transactions), and the same id gets the same answer without a second
	// look. To decide again after a ConditionError, take a new id. The zero ID
	// is Invalid.
	ID      ashlar.RequestID
	Conds   []Cond
	Puts    []Put
	Deletes [][]byte // deleting an absent row is not an error
	Adds    []Add

	// Seen is set by Commit where it returns nil: an index that reads which must
	// see the transaction ask for; see At.
	Seen uint64
}

// ConditionError says which condition of a transaction did not hold. Its kind is Stale.
type ConditionError struct {
	Index int  // position in Txn.Conds
	Row   *Row // what is there now; nil if nothing is (or, at a retry, if it is gone since)
}

func (e *ConditionError) Error() string {
	return fmt.Sprintf("meta: condition %d does not hold", e.Index)
}

// Unwrap gives the error its kind.
func (e *ConditionError) Unwrap() error {
	return ashlar.E("meta: commit", "", ashlar.Stale, nil)
}

// ScanRequest asks for the rows with Start ≤ key < End.
type ScanRequest struct {
	Start, End []byte // an empty End is no bound
	// Limit bounds the number of rows; 0 means ScanRowsMax.
	Limit int
	// Collapse makes the scan return only the first row of each run of rows
	// that share a key prefix, by seeking past the rest: this is how a listing
	// skips delimited prefixes and older versions at a cost of one seek each.
	Collapse []Collapse
	// KeysOnly leaves Row.Value nil.
	KeysOnly bool
}

// Collapse names the end of a shared prefix: the first occurrence of Delim at
// or after byte From of the key. Where several rules match a key, the shortest
// prefix wins.
type Collapse struct {
	Delim []byte
	From  int
}

// ScanPage is one page of a scan.
type ScanPage struct {
	Rows []Row
	// Next is the Start that continues the scan, nil if and only if no row
	// follows. A page may be shorter than Limit and still have a Next (bounded
	// bytes).
	Next []byte
}
