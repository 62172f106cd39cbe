package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"ashlar/s3gw/sse"
)

// testKeys is a keyring of two keys by name.
type testKeys map[string]sse.Key

func (k testKeys) Seal(_ context.Context, _ EncryptionMode, name string, data sse.Key, aad []byte) (string, []byte, error) {
	if name == "" {
		name = "default"
	}
	with, ok := k[name]
	if !ok {
		return "", nil, ErrNoSuchEncryptionKey
	}
	return name, sse.SealKey(with, data, aad), nil
}

func (k testKeys) Open(_ context.Context, _ EncryptionMode, name string, sealed, aad []byte) (sse.Key, error) {
	with, ok := k[name]
	if !ok {
		return sse.Key{}, ErrNoSuchEncryptionKey
	}
	return sse.OpenKey(with, sealed, aad)
}

func encrypted(t *testing.T) *rig {
	r := newRig(t)
	r.keys = testKeys{"default": sse.NewKey(), "other": sse.NewKey()}
	return r
}

var customer = func() []byte { k := sse.NewKey(); return k[:] }()

// readLocked reads a range of the current object with the customer's key.
func (r *rig) readLocked(t *testing.T, key string, customerKey []byte, off, n uint64) string {
	t.Helper()
	o, err := r.HeadObject(r.ctx, "b", key, "")
	want(t, err, nil)
	want(t, r.Unlock(r.ctx, &o, customerKey), nil)
	return r.content(t, &o, off, n)
}

func TestEncryptedContent(t *testing.T) {
	r := encrypted(t)
	text := strings.Repeat("0123456789abcdef", 12_345)
	for _, e := range []Encryption{{Mode: SSES3}, {Mode: SSEKMS, KeyID: "other"}, {Mode: SSEC, CustomerKey: customer}} {
		key := string(e.Mode)
		for _, size := range []int{0, 1, len(text)} {
			plain := text[:size]
			o, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: key, Encryption: &e}, body([]byte(plain)))
			want(t, err, nil)
			if o.Encryption == nil || o.Encryption.Mode != e.Mode || o.Bytes != uint64(size) || masks(e.Mode) == (o.ETag == md5hex(plain)) {
				t.Fatalf("%s: %+v", e.Mode, o)
			}
			if size == 0 {
				continue
			}
			for range 30 {
				off := rand.IntN(size)
				n := 1 + rand.IntN(size-off)
				if got := r.readLocked(t, key, e.CustomerKey, uint64(off), uint64(n)); got != plain[off:off+n] {
					t.Fatalf("%s: bytes %d+%d of %d differ", e.Mode, off, n, size)
				}
			}
		}
	}
	for _, x := range r.stripes.live {
		if strings.Contains(string(x.data), "0123456789abcdef") {
			t.Fatalf("the content of %q is stored in the clear", x.key)
		}
	}
	r.audit(t)
}

func TestCustomerKeys(t *testing.T) {
	r := encrypted(t)
	_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "c", Encryption: &Encryption{Mode: SSEC, CustomerKey: customer}}, body([]byte("x")))
	want(t, err, nil)
	r.put(t, "b", "plain", "x")
	o, err := r.HeadObject(r.ctx, "b", "c", "")
	want(t, err, nil)
	_, err = r.OpenObject(r.ctx, &o, 0, 1)
	want(t, err, ErrCustomerKey)
	want(t, r.Unlock(r.ctx, &o, nil), ErrCustomerKey)
	other := sse.NewKey()
	want(t, r.Unlock(r.ctx, &o, other[:]), ErrCustomerKey)
	p, err := r.HeadObject(r.ctx, "b", "plain", "")
	want(t, err, nil)
	want(t, r.Unlock(r.ctx, &p, customer), ErrCustomerKey)
	_, err = r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Encryption: &Encryption{Mode: SSEKMS, KeyID: "nobody"}}, body([]byte("x")))
	want(t, err, ErrNoSuchEncryptionKey)
	r.keys = nil
	_, err = r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "k", Encryption: &Encryption{Mode: SSES3}}, body([]byte("x")))
	want(t, err, ErrNoSuchEncryptionKey)
	r.audit(t)
}

// The parts of an encrypted upload are streams of their own; one that is sent
// again replaces the first, and ranges go across them.
func TestEncryptedUploads(t *testing.T) {
	r := encrypted(t)
	for _, e := range []Encryption{{Mode: SSES3}, {Mode: SSEC, CustomerKey: customer}} {
		key := "up " + string(e.Mode)
		id, err := r.CreateUpload(r.ctx, &Upload{Bucket: "b", Key: key, Encryption: &e})
		want(t, err, nil)
		other := sse.NewKey()
		_, err = r.PutPartWith(r.ctx, "b", key, id, 1, other[:], body([]byte("x")))
		want(t, err, ErrCustomerKey)
		var list []CompletePart
		var text string
		for n := 1; n <= 3; n++ {
			part := strings.Repeat(fmt.Sprintf("part %d ", n), PartBytesMin/7+n)
			if n == 3 {
				part = "the last part"
			}
			_, err := r.PutPartWith(r.ctx, "b", key, id, n, e.CustomerKey, body([]byte("replaced")))
			want(t, err, nil)
			p, err := r.PutPartWith(r.ctx, "b", key, id, n, e.CustomerKey, body([]byte(part)))
			want(t, err, nil)
			list, text = append(list, CompletePart{Number: n, ETag: p.ETag}), text+part
		}
		_, err = r.CompleteUpload(r.ctx, "b", key, id, list, nil, Conditions{})
		want(t, err, nil)
		o, err := r.HeadObject(r.ctx, "b", key, "")
		want(t, err, nil)
		if o.Bytes != uint64(len(text)) || o.PartBytes[2] != 13 {
			t.Fatalf("%d bytes in parts of %v", o.Bytes, o.PartBytes)
		}
		border := PartBytesMin + 10
		for _, c := range [][2]int{{0, len(text)}, {border - 20, 40}, {len(text) - 1, 1}, {1, len(text) - 2}} {
			if got := r.readLocked(t, key, e.CustomerKey, uint64(c[0]), uint64(c[1])); got != text[c[0]:c[0]+c[1]] {
				t.Fatalf("%s: bytes %v differ", e.Mode, c)
			}
		}
	}
	r.audit(t)
}

// Copies go from any mode to any other, and what they write is sealed anew.
func TestEncryptedCopies(t *testing.T) {
	r := encrypted(t)
	all := []*Encryption{nil, {Mode: SSES3}, {Mode: SSEKMS, KeyID: "other"}, {Mode: SSEC, CustomerKey: customer}}
	keyOf := func(e *Encryption) []byte {
		if e == nil {
			return nil
		}
		return e.CustomerKey
	}
	for i, from := range all {
		source := fmt.Sprint("from ", i)
		_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: source, Encryption: from}, body([]byte("content")))
		want(t, err, nil)
		for j, to := range all {
			req := &CopyRequest{Put: PutRequest{Bucket: "b", Key: fmt.Sprint("to ", j), Encryption: to}, SourceKey: keyOf(from)}
			req.Source.Bucket, req.Source.Key = "b", source
			_, err := r.CopyObject(r.ctx, req)
			want(t, err, nil)
			if got := r.readLocked(t, req.Put.Key, keyOf(to), 0, 7); got != "content" {
				t.Fatalf("%v to %v: %q", from, to, got)
			}
		}
	}
	// Onto itself: the content is sealed, or no longer.
	req := &CopyRequest{Put: PutRequest{Bucket: "b", Key: "from 0", Encryption: all[1]}}
	req.Source.Bucket, req.Source.Key = "b", "from 0"
	o, err := r.CopyObject(r.ctx, req)
	want(t, err, nil)
	if o.Encryption == nil || r.read(t, "b", "from 0") != "content" {
		t.Fatalf("%+v", o)
	}
	req = &CopyRequest{Put: PutRequest{Bucket: "b", Key: "from 3"}}
	req.Source.Bucket, req.Source.Key = "b", "from 3"
	_, err = r.CopyObject(r.ctx, req)
	want(t, err, ErrCustomerKey)
	r.audit(t)
}

func TestDefaultEncryption(t *testing.T) {
	r := encrypted(t)
	want(t, r.SetEncryption(r.ctx, "b", &Encryption{Mode: SSEKMS, KeyID: "other"}), nil)
	o := r.put(t, "b", "k", "x")
	if o.Encryption == nil || o.Encryption.KeyID != "other" || r.read(t, "b", "k") != "x" {
		t.Fatalf("%+v", o.Encryption)
	}
	want(t, r.SetEncryption(r.ctx, "b", nil), nil)
	if o := r.put(t, "b", "k", "x"); o.Encryption != nil {
		t.Fatalf("%+v", o.Encryption)
	}
}

// TestEncryptedCopyOfNothing: an object without bytes is copied like any other.
func TestEncryptedCopyOfNothing(t *testing.T) {
	r := encrypted(t)
	for _, e := range []Encryption{{Mode: SSES3}, {Mode: SSEKMS}, {Mode: SSEC, CustomerKey: customer}} {
		_, err := r.PutObject(r.ctx, &PutRequest{Bucket: "b", Key: "src", Encryption: &e}, body(nil))
		want(t, err, nil)
		req := copyReq("src", "dst")
		req.SourceKey, req.Put.Encryption = e.CustomerKey, &e
		if o, err := r.CopyObject(r.ctx, req); err != nil || o.Bytes != 0 {
			t.Errorf("%s: %v", e.Mode, err)
		}
	}
	r.audit(t)
}
