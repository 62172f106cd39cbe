package keyring

import (
	"context"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ashlar"
	"ashlar/s3gw/sse"
	"ashlar/s3gw/store"
)

func key() string { k := sse.NewKey(); return base64.StdEncoding.EncodeToString(k[:]) }

func TestRing(t *testing.T) {
	old := key()
	r, err := Parse([]byte("# comment\n\nsse-s3 a " + old + "\nkms one " + key() + "\nkms two " + key() + "\ndefault two\n"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, data, aad := context.Background(), sse.NewKey(), []byte("place")
	for _, c := range []struct {
		mode       store.EncryptionMode
		name, used string
	}{{store.SSES3, "", "a"}, {store.SSEKMS, "one", "one"}, {store.SSEKMS, "", "two"}} {
		used, sealed, err := r.Seal(ctx, c.mode, c.name, data, aad)
		if err != nil || used != c.used {
			t.Fatalf("%+v: %q %v", c, used, err)
		}
		if got, err := r.Open(ctx, c.mode, used, sealed, aad); err != nil || got != data {
			t.Fatalf("%+v: %v", c, err)
		}
		if _, err := r.Open(ctx, c.mode, "nobody", sealed, aad); !errors.Is(err, store.ErrNoSuchEncryptionKey) {
			t.Fatal(err)
		}
	}
	// A new master key does not lose what the old one sealed.
	_, sealed, _ := r.Seal(ctx, store.SSES3, "", data, aad)
	next, err := Parse([]byte("sse-s3 a " + old + "\nsse-s3 b " + key() + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if used, _, _ := next.Seal(ctx, store.SSES3, "", data, aad); used != "b" {
		t.Errorf("sealed with %q", used)
	}
	if got, err := next.Open(ctx, store.SSES3, "a", sealed, aad); err != nil || got != data {
		t.Error(err)
	}
	if _, _, err := next.Seal(ctx, store.SSEKMS, "", data, aad); !errors.Is(err, store.ErrNoSuchEncryptionKey) {
		t.Error(err)
	}
}

func TestBadFiles(t *testing.T) {
	for text, says := range map[string]string{
		"kms a": "line 1", "sse a " + key(): "line 1", "kms a AAAA": "32 bytes", "kms a " + key() + "\nkms a " + key(): "twice",
		"default x": "none of the kms keys",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", text, err)
		}
	}
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte("kms a "+key()), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); !ashlar.Is(err, ashlar.Invalid) || !strings.Contains(err.Error(), "chmod") {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err != nil {
		t.Error(err)
	}
}
