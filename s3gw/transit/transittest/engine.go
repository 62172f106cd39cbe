// Package transittest answers as the Transit engine of a Vault server does, for
// tests of what talks to one.
//
// It knows keys of an AEAD type: it seals with AES-256-GCM and associated data, and
// refuses, in the words of the engine, what was sealed for something else, keys that
// are not there, and tokens that are not the one it wants.
package transittest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"

	"ashlar/s3gw/sse"
)

// Token is what an Engine wants to see.
const Token = "hvs.secret-of-the-test"

// Engine answers as the Transit engine of a Vault server does for AEAD keys. It
// is for tests.
type Engine struct {
	Mount, Namespace, Token string

	Keys  map[string]sse.Key
	Calls atomic.Int32
	// Fails makes that many calls fail with Status.
	Fails, Status atomic.Int32
}

// New returns an engine at a mount with keys of these names.
func New(mount string, names ...string) *Engine {
	e := &Engine{Mount: mount, Token: Token, Keys: map[string]sse.Key{}}
	for _, n := range names {
		e.Keys[n] = sse.NewKey()
	}
	return e
}

// ServeHTTP implements http.Handler.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.Calls.Add(1)
	refuse := func(status int, text string) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string][]string{"errors": {text}})
	}
	if e.Fails.Add(-1) >= 0 {
		refuse(int(e.Status.Load()), "not now")
		return
	}
	if r.Header.Get("X-Vault-Token") != e.Token || r.Header.Get("X-Vault-Namespace") != e.Namespace {
		refuse(403, "1 error occurred:\n\t* permission denied\n\n")
		return
	}
	what, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"+e.Mount+"/"), "/")
	var in struct {
		Plaintext      string `json:"plaintext"`
		Ciphertext     string `json:"ciphertext"`
		AssociatedData string `json:"associated_data"`
	}
	key, ok := e.Keys[name]
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Method != "POST" {
		refuse(400, "bad request")
		return
	}
	if !ok {
		refuse(400, "encryption key not found")
		return
	}
	block, _ := aes.NewCipher(key[:])
	aead, _ := cipher.NewGCM(block)
	aad, err := base64.StdEncoding.DecodeString(in.AssociatedData)
	if err != nil {
		refuse(400, "failed to base64-decode associated_data")
		return
	}
	data := map[string]string{}
	switch what {
	case "encrypt":
		plain, _ := base64.StdEncoding.DecodeString(in.Plaintext)
		nonce := make([]byte, aead.NonceSize())
		rand.Read(nonce)
		data["ciphertext"] = "vault:v1:" + base64.StdEncoding.EncodeToString(aead.Seal(nonce, nonce, plain, aad))
	case "decrypt":
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(in.Ciphertext, "vault:v1:"))
		if err != nil || len(raw) < aead.NonceSize() {
			refuse(400, "invalid ciphertext: could not decode base64")
			return
		}
		plain, err := aead.Open(nil, raw[:aead.NonceSize()], raw[aead.NonceSize():], aad)
		if err != nil {
			refuse(400, err.Error())
			return
		}
		data["plaintext"] = base64.StdEncoding.EncodeToString(plain)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
}
