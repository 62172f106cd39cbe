package transit

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ashlar"
	"ashlar/s3gw/sse"
	"ashlar/s3gw/store"
	"ashlar/s3gw/transit/transittest"
)

func start(t *testing.T) (*transittest.Engine, *Vault, string) {
	e := transittest.New("seals", "s3", "one", "two", "hidden")
	e.Namespace = "team"
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(transittest.Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := New(Config{Address: server.URL, Mount: "seals", Namespace: "team", TokenFile: file, SSES3Key: "s3", KMSKeys: []string{"one", "two"}})
	if err != nil {
		t.Fatal(err)
	}
	return e, v, file
}

func TestSealedOpensOnlyWhatItWasMadeFor(t *testing.T) {
	_, v, _ := start(t)
	data, aad := sse.NewKey(), []byte("bucket/key")
	for _, c := range []struct {
		mode       store.EncryptionMode
		name, used string
	}{{store.SSES3, "", "s3"}, {store.SSEKMS, "", "one"}, {store.SSEKMS, "two", "two"}} {
		used, sealed, err := v.Seal(t.Context(), c.mode, c.name, data, aad)
		if err != nil || used != c.used || !Sealed(sealed) || bytes.Contains(sealed, data[:]) {
			t.Fatalf("%v: %q %q %v", c, used, sealed, err)
		}
		for _, remembered := range []bool{true, false} {
			if !remembered {
				v.opened.drop()
			}
			if got, err := v.Open(t.Context(), c.mode, used, sealed, aad); err != nil || got != data {
				t.Errorf("%v: %v", c, err)
			}
			if _, err := v.Open(t.Context(), c.mode, used, sealed, []byte("bucket/other")); !errors.Is(err, sse.ErrKey) {
				t.Errorf("it opens for another object: %v", err)
			}
			other := map[string]string{"s3": "one", "one": "two", "two": "s3"}[used]
			if _, err := v.Open(t.Context(), c.mode, other, sealed, aad); !errors.Is(err, sse.ErrKey) {
				t.Errorf("another key opens it: %v", err)
			}
		}
		torn := bytes.Clone(sealed)
		torn[len(torn)-5] ^= 1
		if _, err := v.Open(t.Context(), c.mode, used, torn, aad); !errors.Is(err, sse.ErrKey) {
			t.Errorf("a changed one opens: %v", err)
		}
	}
	if err := v.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestOnlyListedKeysSeal: no client reaches a key, or a path, that the operator
// did not name.
func TestOnlyListedKeysSeal(t *testing.T) {
	e, v, _ := start(t)
	for _, name := range []string{"hidden", "s3", "nobody", "../encrypt/one", "one/../two", "one?x", "%6fne"} {
		if _, _, err := v.Seal(t.Context(), store.SSEKMS, name, sse.NewKey(), nil); !errors.Is(err, store.ErrNoSuchEncryptionKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := e.Calls.Load(); n != 0 {
		t.Errorf("%d calls", n)
	}
	delete(e.Keys, "one")
	if _, _, err := v.Seal(t.Context(), store.SSEKMS, "one", sse.NewKey(), nil); !errors.Is(err, store.ErrNoSuchEncryptionKey) {
		t.Errorf("a listed key that the server lacks: %v", err)
	}
	if err := v.Check(t.Context()); !errors.Is(err, store.ErrNoSuchEncryptionKey) {
		t.Errorf("check: %v", err)
	}
}

func TestFailures(t *testing.T) {
	e, v, file := start(t)
	data, aad := sse.NewKey(), []byte("a")
	_, sealed, err := v.Seal(t.Context(), store.SSES3, "", data, aad)
	if err != nil {
		t.Fatal(err)
	}
	v.opened.drop()
	e.Status.Store(503)
	e.Fails.Store(1)
	if got, err := v.Open(t.Context(), store.SSES3, "s3", sealed, aad); err != nil || got != data {
		t.Errorf("after one failure: %v", err)
	}
	v.opened.drop()
	e.Fails.Store(2)
	if _, err := v.Open(t.Context(), store.SSES3, "s3", sealed, aad); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("after two: %v", err)
	}
	e.Fails.Store(0)
	if err := os.WriteFile(file, []byte("hvs.wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = v.Open(t.Context(), store.SSES3, "s3", sealed, aad)
	if !ashlar.Is(err, ashlar.Unavailable) || !strings.Contains(err.Error(), "update on seals/decrypt/s3") || strings.ContainsAny(err.Error(), "\n\t") || strings.Contains(err.Error(), "hvs") {
		t.Errorf("a wrong token: %v", err)
	}
	e.Token = "hvs.wrong" // the agent's new token, valid from now on
	if got, err := v.Open(t.Context(), store.SSES3, "s3", sealed, aad); err != nil || got != data {
		t.Errorf("with a renewed token: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Seal(t.Context(), store.SSES3, "", data, aad); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("no token: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Open(ctx, store.SSES3, "s3", sealed, []byte("b")); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("given up: %v", err)
	}
}

func TestARememberedKeyIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o opened
		data := sse.NewKey()
		o.keep("one", []byte("vault:v1:x"), []byte("a"), data)
		for _, c := range []struct {
			name, sealed, aad string
			found             bool
		}{{"one", "vault:v1:x", "a", true}, {"two", "vault:v1:x", "a", false}, {"one", "vault:v1:y", "a", false}, {"one", "vault:v1:x", "b", false}} {
			if got, ok := o.find(c.name, []byte(c.sealed), []byte(c.aad)); ok != c.found || ok && got != data {
				t.Errorf("%v: %v", c, ok)
			}
		}
		time.Sleep(openedTime)
		if _, ok := o.find("one", []byte("vault:v1:x"), []byte("a")); ok {
			t.Error("it is remembered too long")
		}
		for i := range 3 * openedMax {
			o.keep("one", []byte{byte(i), byte(i >> 8), byte(i >> 16)}, nil, data)
			if len(o.keys) > openedMax {
				t.Fatalf("%d are remembered", len(o.keys))
			}
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Address: "https://vault.example:8200", TokenFile: "t", SSES3Key: "k"}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"address":           func(c *Config) { c.Address = "vault.example:8200" },
		"use https":         func(c *Config) { c.Address = "http://vault.example:8200" },
		"token-file":        func(c *Config) { c.TokenFile = "" },
		"sse-s3-key":        func(c *Config) { c.SSES3Key = "" },
		"letters, digits":   func(c *Config) { c.KMSKeys = []string{"a/b"} },
		"ca-file":           func(c *Config) { c.CAFile = "/nowhere" },
		"a key's name":      func(c *Config) { c.SSES3Key = ".." },
		"no certificate in": func(c *Config) { c.CAFile = os.DevNull },
	} {
		c := good
		change(&c)
		if _, err := New(c); !ashlar.Is(err, ashlar.Invalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
