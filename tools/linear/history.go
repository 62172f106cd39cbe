package linear

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Bounds of one key's history.
const (
	keyOperationsMax = 48  // requests that clients send for it
	keyOpenMax       = 3   // open-ended ones, from which on it is given up
	keyListedMax     = 160 // operations from which on pages of listings no longer join
)

// Key is one register and its history. It is safe for concurrent use.
type Key struct {
	Name string

	mu      sync.Mutex
	ops     []Operation
	sent    int
	open    int
	etags   map[string]Value
	sums    [][md5.Size]byte // of the values, from 1
	current string           // the ETag that was seen last, for conditions
}

func newKey(n int) *Key { return &Key{Name: keyName(n), etags: map[string]Value{}} }

func keyName(n int) string { return fmt.Sprintf("k%07d", n) }

// written makes a value known before it is sent. Parts is the number of parts
// of a multipart upload, 0 for none; the body is then whole in one part.
func (k *Key) written(body []byte, parts int) (v Value, etag string) {
	sum := md5.Sum(body)
	etag = hex.EncodeToString(sum[:])
	if parts > 0 {
		etag = fmt.Sprintf("%x-%d", md5.Sum(sum[:]), parts)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sums = append(k.sums, sum)
	v = Value(len(k.sums))
	k.etags[etag] = v
	return v, etag
}

// seen returns the value of an ETag that was read. If the body was read too,
// sum is its MD5 and must be that of the value.
func (k *Key) seen(etag string, sum *[md5.Size]byte) Value {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.etags[etag]
	if !ok || sum != nil && *sum != k.sums[v-1] {
		return Foreign
	}
	k.current = etag
	return v
}

// guess returns an ETag for If-Match and its value; ok is false if none was seen.
func (k *Key) guess() (etag string, v Value, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current, k.etags[k.current], k.current != ""
}

// begin counts a request and reports whether the key takes no more.
func (k *Key) begin() (full bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sent++
	return k.sent >= keyOperationsMax || k.open >= keyOpenMax
}

func (k *Key) add(o Operation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if o.Kind == List && len(k.ops) >= keyListedMax {
		return
	}
	if o.Outcome == Open {
		o.Return = never
		k.open++
	}
	k.ops = append(k.ops, o)
}

// History returns what happened to the key so far.
func (k *Key) History() []Operation {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.ops)
}

// keyring holds the keys that are in use, and all those that were.
type keyring struct {
	began time.Time

	mu   sync.Mutex
	all  []*Key // by number
	live []*Key
}

func newKeyring(live int) *keyring {
	r := &keyring{began: time.Now()}
	for range live {
		r.live = append(r.live, r.newLocked())
	}
	return r
}

func (r *keyring) newLocked() *Key {
	k := newKey(len(r.all))
	r.all = append(r.all, k)
	return k
}

// at returns the key in a place; one that takes no more is replaced.
func (r *keyring) at(place int) *Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.live[place]
	if k.begin() {
		r.live[place] = r.newLocked()
	}
	return k
}

// oldest is the number of the oldest key that is in use.
func (r *keyring) oldest() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := r.live[0].Name
	for _, k := range r.live {
		name = min(name, k.Name)
	}
	var n int
	fmt.Sscanf(name, "k%d", &n)
	return n
}

// keys returns the keys with after < name ≤ last; an empty last is no bound.
func (r *keyring) keys(after, last string) []*Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, _ := slices.BinarySearchFunc(r.all, after, func(k *Key, name string) int {
		if k.Name <= name {
			return -1
		}
		return 1
	})
	j := len(r.all)
	if last != "" {
		j, _ = slices.BinarySearchFunc(r.all, last, func(k *Key, name string) int {
			if k.Name <= name {
				return -1
			}
			return 1
		})
	}
	return slices.Clone(r.all[i:max(i, j)])
}

func (r *keyring) now() time.Duration { return time.Since(r.began) }
