package transit

import (
	"sync"
	"time"

	"ashlar/s3gw/sse"
)

// Bounds of what is remembered. A key that was taken away at the server opens
// nothing here after that time.
const (
	openedTime = time.Minute
	openedMax  = 10_000
)

// opened remembers data keys that the server has opened, so that the ranges of
// an object do not cost a call each. The zero value is empty.
type opened struct {
	mu   sync.Mutex
	keys map[openedKey]openedData
}

// openedKey is all that the server judged by.
type openedKey struct{ name, sealed, aad string }

type openedData struct {
	data  sse.Key
	until time.Time
}

func (o *opened) find(name string, sealed, aad []byte) (sse.Key, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d, ok := o.keys[openedKey{name, string(sealed), string(aad)}]
	return d.data, ok && time.Now().Before(d.until)
}

func (o *opened) keep(name string, sealed, aad []byte, data sse.Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if len(o.keys) >= openedMax {
		for k, d := range o.keys {
			if now.After(d.until) {
				delete(o.keys, k)
			}
		}
	}
	if o.keys == nil || len(o.keys) >= openedMax {
		o.keys = map[openedKey]openedData{}
	}
	o.keys[openedKey{name, string(sealed), string(aad)}] = openedData{data, now.Add(openedTime)}
}

// drop forgets everything.
func (o *opened) drop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keys = nil
}
