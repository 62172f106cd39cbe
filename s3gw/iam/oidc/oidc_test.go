package oidc

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"ashlar/s3gw/s3"
)

// provider is an identity provider whose answers a test can bend.
type provider struct {
	*httptest.Server
	key   *rsa.PrivateKey
	kid   string
	jwks  string // address of the keys; its own if empty
	named string // what it says to be; its URL if empty
	bend  func(w http.ResponseWriter, r *http.Request) bool
	asked int
}

func start(t testing.TB) *provider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{key: key, kid: "one"}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked++
		if p.bend != nil && p.bend(w, r) {
			return
		}
		if r.URL.Path == "/keys" {
			json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &p.key.PublicKey, KeyID: p.kid, Use: "sig"}}})
			return
		}
		named, jwks := p.named, p.jwks
		if named == "" {
			named = p.URL
		}
		if jwks == "" {
			jwks = p.URL + "/keys"
		}
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, named, jwks)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *provider) token(t testing.TB, now time.Time) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: p.key, KeyID: p.kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(fmt.Appendf(nil, `{"iss":%q,"aud":"a","sub":"s","exp":%d}`, p.URL, now.Add(24*time.Hour).Unix()))
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func codeOf(err error) string {
	var e *s3.Error
	if errors.As(err, &e) {
		return e.Code.String()
	}
	return fmt.Sprint(err)
}

// TestKeysAreRemembered: one look serves an hour, a new key is found, and tokens that
// name keys that are not there make nobody look more than twice a minute.
func TestKeysAreRemembered(t *testing.T) {
	p := start(t)
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	v := New([]string{p.URL}, func() time.Time { return now })
	check := func(token, code string, asked int) {
		t.Helper()
		_, err := v.Verify(t.Context(), token, p.URL, []string{"a"})
		if err == nil && code != "OK" || err != nil && codeOf(err) != code {
			t.Errorf("got %v, want %s", err, code)
		}
		if p.asked != asked {
			t.Errorf("the provider was asked %d times, want %d", p.asked, asked)
		}
	}
	old := p.token(t, now)
	check(old, "OK", 2)
	now = now.Add(59 * time.Minute)
	check(old, "OK", 2)
	now = now.Add(time.Minute)
	check(old, "OK", 4)

	p.kid = "two" // the provider has a new key
	renewed := p.token(t, now)
	check(renewed, "InvalidIdentityToken", 4)
	now = now.Add(retryEvery)
	check(renewed, "OK", 6)
	check(old, "InvalidIdentityToken", 6)
	for range 100 {
		check(old, "InvalidIdentityToken", 6)
	}

	p.bend = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true }
	now = now.Add(59 * time.Minute)
	check(renewed, "OK", 6)
	now = now.Add(time.Minute)
	check(renewed, "IDPCommunicationError", 7) // old keys are not used for ever
	check(renewed, "IDPCommunicationError", 7)
	p.bend = nil
	now = now.Add(retryEvery)
	check(renewed, "OK", 9)
}

// TestAProviderLeadsNowhere: it cannot make the gateway ask somebody else, nor fill it.
func TestAProviderLeadsNowhere(t *testing.T) {
	victim := 0
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { victim++ }))
	defer inside.Close()
	for name, bend := range map[string]func(*provider){
		"another issuer's name": func(p *provider) { p.named = "https://id.example" },
		"keys over plain http":  func(p *provider) { p.jwks = "http://id.example/keys" },
		"keys in a file":        func(p *provider) { p.jwks = "file:///etc/passwd" },
		"a redirect": func(p *provider) {
			p.bend = func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, inside.URL, http.StatusFound)
				return true
			}
		},
		"an endless answer": func(p *provider) {
			p.bend = func(w http.ResponseWriter, _ *http.Request) bool {
				for chunk := strings.Repeat(" ", 1<<16); ; {
					if _, err := w.Write([]byte(chunk)); err != nil {
						return true
					}
				}
			}
		},
		"no JSON": func(p *provider) {
			p.bend = func(w http.ResponseWriter, _ *http.Request) bool { w.Write([]byte("<html>")); return true }
		},
		"nobody": func(p *provider) { p.Close() },
	} {
		p := start(t)
		token := p.token(t, time.Now())
		bend(p)
		v := New([]string{p.URL}, time.Now)
		if _, err := v.Verify(t.Context(), token, p.URL, []string{"a"}); codeOf(err) != "IDPCommunicationError" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if victim != 0 {
		t.Error("a redirect was followed")
	}
}

func TestURLs(t *testing.T) {
	for text, good := range map[string]bool{
		"https://id.example": true, "https://id.example/realms/x": true, "http://127.0.0.1:80": true, "http://localhost:1/x": true, "http://[::1]:1": true,
		"http://id.example": false, "id.example": false, "": false, "https://": false, "https://u:p@id.example": false, "https://id.example?x=y": false,
		"https://id.example#x": false, "file:///etc": false, "http://127.0.0.1.example": false,
	} {
		if err := CheckURL(text); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzToken: no text that was not signed is believed.
func FuzzToken(f *testing.F) {
	p := start(f)
	good := p.token(f, time.Now())
	v := New([]string{p.URL}, time.Now)
	f.Add("a.b.c")
	f.Add(good[:len(good)-4])
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := Issuer(text); err != nil && codeOf(err) != "InvalidIdentityToken" {
			t.Fatal(err)
		}
		if _, err := v.Verify(t.Context(), text, p.URL, []string{"a"}); err == nil && text != good {
			t.Fatalf("%q was believed", text)
		}
	})
}
