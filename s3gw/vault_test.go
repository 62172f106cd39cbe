package s3gw

import (
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"ashlar"
	"ashlar/s3gw/sse"
	"ashlar/s3gw/store"
	"ashlar/s3gw/transit"
	"ashlar/s3gw/transit/transittest"
)

// exchange are keys that are exchanged under a running gateway.
type exchange struct{ store.Keys }

// TestFromAKeyringToAVault: what the keyring sealed is still read, what is written
// from now on needs the server.
func TestFromAKeyringToAVault(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	log := slog.New(slog.DiscardHandler)
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	write("keyring", "sse-s3 a "+base64Key(sse.NewKey())+"\nkms one "+base64Key(sse.NewKey())+"\ndefault one\n")
	cfg := Config{KeyringFile: "credential:keyring"}
	before, err := cfg.keys(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	keys := &exchange{before}
	g := startRealWith(t, "bucket", store.Options{Keys: keys})
	put := func(key, mode string) answer {
		return g.do(t, testCall{method: "PUT", target: "/bucket/" + key, headers: map[string]string{sseHeader: mode}, body: "of " + key})
	}
	put("old-s3", "AES256").want(t, 200, "")
	put("old-kms", "aws:kms").want(t, 200, "")

	engine := transittest.New("transit", "s3", "two")
	write("token", transittest.Token)
	server := httptest.NewServer(engine)
	defer server.Close()
	cfg.Vault = &transit.Config{Address: server.URL, TokenFile: "credential:token", SSES3Key: "s3", KMSKeys: []string{"two"}}
	if keys.Keys, err = cfg.keys(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	put("new-s3", "AES256").want(t, 200, "")
	if a := put("new-kms", "aws:kms").want(t, 200, ""); a.header.Get(kmsHeader) != "two" {
		t.Errorf("sealed with %q", a.header.Get(kmsHeader))
	}
	g.do(t, testCall{method: "PUT", target: "/bucket/k", headers: map[string]string{sseHeader: "aws:kms", kmsHeader: "one"}}).want(t, 400, "KMS.NotFoundException")
	for _, key := range []string{"old-s3", "old-kms", "new-s3", "new-kms"} {
		if a := g.do(t, testCall{method: "GET", target: "/bucket/" + key}).want(t, 200, ""); a.body != "of "+key {
			t.Errorf("%s: %q", key, a.body)
		}
	}
	// Another gateway, which remembers nothing, and the server is gone.
	if keys.Keys, err = cfg.keys(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	server.Close()
	g.do(t, testCall{method: "GET", target: "/bucket/old-kms"}).want(t, 200, "")
	g.do(t, testCall{method: "GET", target: "/bucket/new-kms"}).want(t, 503, "ServiceUnavailable")
	g.do(t, testCall{method: "HEAD", target: "/bucket/new-kms"}).want(t, 200, "")
	put("later", "AES256").want(t, 503, "ServiceUnavailable")

	cfg.Vault.TokenFile = ""
	if _, err := cfg.keys(t.Context(), log); !ashlar.Is(err, ashlar.Invalid) {
		t.Errorf("without a token: %v", err)
	}
}
