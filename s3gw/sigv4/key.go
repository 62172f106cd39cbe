package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync"
)

// cachedKeysMax bounds the cache; a full cache is emptied, which costs four
// HMACs per key.
const cachedKeysMax = 4096

// signingKey is the key of one access key, day and region.
type signingKey struct {
	secret string
	kept   bool      // it is in a cache; set before it can be found there
	hmacs  sync.Pool // hash.Hash, keyed; Reset brings back the keyed state
}

type keyName struct{ accessKey, date, region, service string }

type keyCache struct {
	mu   sync.RWMutex
	keys map[keyName]*signingKey
}

// get returns the signing key, deriving it if the secret is new or was rotated. What is
// derived is the caller's: keep it when it has verified something. Otherwise those who
// know an access key could put any number of days and regions into the cache.
func (kc *keyCache) get(name keyName, secret string) *signingKey {
	kc.mu.RLock()
	k := kc.keys[name]
	kc.mu.RUnlock()
	if k != nil && k.secret == secret {
		return k
	}
	derived := mac(mac(mac(mac([]byte("AWS4"+secret), name.date), name.region), name.service), scopeTail)
	k = &signingKey{secret: secret}
	k.hmacs.New = func() any { return hmac.New(sha256.New, derived) }
	return k
}

// keep puts a key that get returned into the cache.
func (kc *keyCache) keep(name keyName, k *signingKey) {
	if k.kept {
		return
	}
	k.kept = true
	kc.mu.Lock()
	defer kc.mu.Unlock()
	if kc.keys == nil || len(kc.keys) >= cachedKeysMax {
		kc.keys = make(map[keyName]*signingKey)
	}
	kc.keys[name] = k
}

func mac(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(data))
	return h.Sum(nil)
}

// sign returns the HMAC of algorithm, stamp, scope and the hash of what.
func (k *signingKey) sign(algorithm, stamp, scope string, what []byte) [32]byte {
	sum := sha256.Sum256(what)
	var buf [256]byte
	b := append(buf[:0], algorithm...)
	b = append(b, '\n')
	b = append(b, stamp...)
	b = append(b, '\n')
	b = append(b, scope...)
	b = append(b, '\n')
	return k.mac(hex.AppendEncode(b, sum[:]))
}

func (k *signingKey) mac(b []byte) (out [32]byte) {
	h := k.hmacs.Get().(hash.Hash)
	h.Reset()
	h.Write(b)
	h.Sum(out[:0])
	k.hmacs.Put(h)
	return out
}
