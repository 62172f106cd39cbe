// Package directory keeps who there is inside an account: users, groups, roles, access
// keys, managed policies and identity providers, as rows of the metadata. It answers
// for whom an access key acts and what that one may.
//
// It knows the rules of IAM: names, limits, what must be gone before something can be
// deleted. It does not know HTTP, and it does not judge whether its caller may change
// what it changes: the gateway does, before it calls. Errors are *s3.Error with the
// codes of IAM, or of a kind.
//
// # Rows
//
// All rows lie on shard 0, that of the buckets' directory. A is the canonical id of the
// account, 32 bytes, L(name) a name in lower case: names differ in more than case.
//
//	key                       value          what
//	'i' 'k' access-key        AccessKey      found in one read
//	'i' 'u' A L(name)         Principal      a user
//	'i' 'g' A L(name)         Principal      a group
//	'i' 'r' A L(name)         Principal      a role
//	'i' 'p' A L(name)         Policy         a managed policy
//	'i' 'o' A url             Provider       an OpenID Connect provider, without its scheme
//	'i' 'n' A 'g' L(name)     counter        members of a group
//	'i' 'n' A 'p' L(name)     counter        how often a policy is attached, or a boundary
//	'i' 's' 0                 SessionSecret  seals session tokens; made when first needed
//
// What is changed together is changed in one mini-transaction that depends on every
// row that it was decided by. The counters change with what they count, and whatever
// they count keeps its group or policy from being deleted.
//
// A managed policy is attached by its name, or, if it is one that every account has
// (arn:aws:iam::aws:policy/NAME), by "aws:" and its name.
//
// # Secrets
//
// The secret of an access key must be had as it is: signatures are HMACs. Its 32 bytes
// are sealed by the gateway's keyring where there is one, bound to the access key, and
// else lie in the row as they are: then whoever can read the metadata can sign. They are
// shown once, by CreateKey, and never listed or logged. The session secret is kept
// likewise. Keys of a keyring that is gone cannot be used until it is back.
//
// # Age
//
// Lookup answers from memory what it read at most CacheFor ago. So a key that was
// deleted, a policy that was taken away, a user that is gone stops working within that
// time at every gateway, and at once at the one that was told. While the metadata
// cannot be asked, users are refused (503) and root keys go on.
package directory

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/iam"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/store"
)

//go:generate sh -c "cd ../../.. && protoc --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --go_out=. --go_opt=paths=source_relative s3gw/iam/directory/record.proto"

// Options are the choices of a Directory; each has a default.
type Options struct {
	// Clock is time.Now if nil.
	Clock func() time.Time
	// Keys seals the secrets of access keys. Nil leaves them as they are.
	Keys store.Keys
}

// Directory answers for the accounts of a configuration: their root keys and all that
// the metadata have of them. Its methods may be called from many goroutines.
type Directory struct {
	*iam.Static
	meta  meta.Store
	clock func() time.Time
	keys  store.Keys
	cache cache
	texts parsed
	vault vault
}

// New returns the directory of the accounts in the metadata.
func New(m meta.Store, accounts *iam.Static, opt Options) *Directory {
	d := &Directory{Static: accounts, meta: m, clock: opt.Clock, keys: opt.Keys}
	if d.clock == nil {
		d.clock = time.Now
	}
	d.cache.loads = make(chan struct{}, loadsMax)
	return d
}

const (
	shard ashlar.ShardID = 0
	// format is the version of every message that this code writes, and the only one
	// that it reads.
	format = 1

	// attemptsMax bounds how often a change is decided anew because a row changed.
	attemptsMax = 100
	// commitTimeout bounds one change, attemptTimeout one try of its commit.
	commitTimeout  = 20 * time.Second
	attemptTimeout = 5 * time.Second
	readTimeout    = 5 * time.Second
	pauseMin       = time.Millisecond
	pauseMax       = 50 * time.Millisecond
)

// record is a row's value.
type record interface {
	proto.Message
	GetFormat() uint32
}

// get fills m with the row under key. It returns the row's version, 0 if there is none.
func (d *Directory) get(ctx context.Context, key []byte, m record) (version uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	r, err := d.meta.Get(ctx, shard, key)
	if ashlar.Is(err, ashlar.NotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return r.Version, decode(&r, m)
}

func decode(r *meta.Row, m record) error {
	if err := proto.Unmarshal(r.Value, m); err != nil {
		return ashlar.E("directory: read", string(r.Key[:2]), ashlar.Corrupt, err)
	}
	if m.GetFormat() != format {
		return ashlar.E("directory: read", string(r.Key[:2]), ashlar.Corrupt, errors.New("the row was written by a newer program"))
	}
	return nil
}

// change is one decision and what it writes: one mini-transaction.
type change struct {
	d   *Directory
	ctx context.Context
	txn meta.Txn
}

// read fills m with the row under key and reports whether there is one. The change
// depends on that.
func (ch *change) read(key []byte, m record) (bool, error) {
	version, err := ch.d.get(ch.ctx, key, m)
	if err != nil {
		return false, err
	}
	cond := meta.Cond{Key: key, Kind: meta.CondAbsent}
	if version != 0 {
		cond = meta.Cond{Key: key, Kind: meta.CondVersion, Version: version}
	}
	ch.txn.Conds = append(ch.txn.Conds, cond)
	return version != 0, nil
}

func (ch *change) put(key []byte, m record) error {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	ch.txn.Puts = append(ch.txn.Puts, meta.Put{Key: key, Value: value})
	return err
}

func (ch *change) drop(key []byte) { ch.txn.Deletes = append(ch.txn.Deletes, key) }

func (ch *change) count(counter []byte, delta int64) {
	ch.txn.Adds = append(ch.txn.Adds, meta.Add{Key: counter, Delta: delta})
}

// retire deletes a row and its counter, which must be zero.
func (ch *change) retire(key, counter []byte) {
	ch.txn.Conds = append(ch.txn.Conds, meta.Cond{Key: counter, Kind: meta.CondZero})
	ch.txn.Deletes = append(ch.txn.Deletes, key, counter)
}

// change decides by fn and commits, until nothing came in between. It forgets what
// Lookup remembers.
func (d *Directory) change(ctx context.Context, fn func(*change) error) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	defer d.cache.clear()
	for n := range attemptsMax {
		ch := &change{d: d, ctx: ctx}
		if err := fn(ch); err != nil {
			return err
		}
		err := d.commit(ctx, &ch.txn)
		var refused *meta.ConditionError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &refused):
			return err
		case ch.txn.Conds[refused.Index].Kind == meta.CondZero:
			return s3.E(s3.DeleteConflict, "Cannot delete entity, it is still in use: a group must have no users, a policy must be attached to nothing.")
		}
		pause(ctx, n)
	}
	return ashlar.E("directory: change", "", ashlar.Busy, errors.New("too many changes at the same time"))
}

// commit applies the transaction, again under the same id until its outcome is known.
func (d *Directory) commit(ctx context.Context, txn *meta.Txn) error {
	txn.ID = ashlar.RequestID(ashlar.NewID())
	for n := 0; ; n++ {
		err := d.tryCommit(ctx, txn)
		var refused *meta.ConditionError
		if err == nil || errors.As(err, &refused) || ashlar.Is(err, ashlar.Invalid) || !pause(ctx, n) {
			return err
		}
	}
}

func (d *Directory) tryCommit(ctx context.Context, txn *meta.Txn) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return d.meta.Commit(ctx, shard, txn)
}

// pause sleeps before attempt n+1; it reports false when ctx ended.
func pause(ctx context.Context, n int) bool {
	timer := time.NewTimer(min(pauseMin<<min(n, 16), pauseMax))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// ListMax is the longest page of a list.
const ListMax = 1000

// pages calls fn for each row whose key begins with prefix and is behind after, until fn
// returns false.
func (d *Directory) pages(ctx context.Context, prefix, after []byte, fn func(*meta.Row) (bool, error)) error {
	start := prefix
	if after != nil {
		start = append(after[:len(after):len(after)], 0)
	}
	for start != nil {
		page, err := d.scan(ctx, start, prefix)
		if err != nil {
			return err
		}
		for i := range page.Rows {
			if more, err := fn(&page.Rows[i]); err != nil || !more {
				return err
			}
		}
		start = page.Next
	}
	return nil
}

func (d *Directory) scan(ctx context.Context, start, prefix []byte) (meta.ScanPage, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return d.meta.Scan(ctx, shard, meta.ScanRequest{Start: start, End: successor(prefix), Limit: ListMax})
}
