// Package oidc judges the tokens of OpenID Connect providers: whether one was signed
// by the provider, is meant for us, and holds now.
//
// Only providers that the operator has named are ever asked, and only under the
// addresses that they have themselves: a token says who issued it, but its bearer cannot
// make the gateway fetch anything else. What is fetched (the discovery document and the
// keys) comes over https, from loopback also over http, is bounded, follows no redirect,
// and is remembered; a key that is not known makes us look for new ones twice a minute at
// most, however many tokens name it.
//
// Signatures are RS256 or ES256, by a key of that kind that the provider publishes.
// Everything else, "none" and HMAC above all, is refused before a key is looked for.
//
// Parsing and signatures are go-jose's. coreos/go-oidc was weighed: its remote keys are
// fetched anew for every unknown key, and it bounds no answer.
package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/trust"
)

const (
	// TokenBytesMax bounds a token.
	TokenBytesMax = 20_000
	// keysFor is how long keys are used without another look, retryEvery how often they
	// are looked for at most.
	keysFor    = time.Hour
	retryEvery = 30 * time.Second
	fetchMax   = 5 * time.Second
	// answerBytesMax bounds a document of a provider.
	answerBytesMax = 1 << 20
	// leeway is how far the provider's clock may be ahead.
	leeway     = time.Minute
	rsaBitsMin = 2048
)

// Verifier judges tokens. It is safe for concurrent use.
type Verifier struct {
	now     func() time.Time
	client  *http.Client
	issuers map[string]*issuer // by URL without a slash at the end
}

// issuer is one provider and what is known of its keys.
type issuer struct {
	url string
	mu  sync.Mutex // held while it is asked: others wait for the answer
	// guarded by mu:
	keys  []jose.JSONWebKey
	until time.Time // keys need no look before
	tried time.Time
	err   error // of the last look
}

// CheckURL judges the URL of a provider.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%q is no URL of a provider: want https://HOST/PATH", text)
	case trust.Private(u):
		return nil
	}
	return fmt.Errorf("%q: a provider is asked over https, or over http on the loopback address", text)
}

// New returns a Verifier of the tokens of these providers, whose URLs CheckURL accepts.
func New(urls []string, now func() time.Time) *Verifier {
	v := &Verifier{now: now, issuers: map[string]*issuer{}, client: &http.Client{
		Timeout:       fetchMax,
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the provider answers with a redirect") },
	}}
	for _, u := range urls {
		v.issuers[trim(u)] = &issuer{url: trim(u)}
	}
	return v
}

func trim(u string) string { return strings.TrimSuffix(u, "/") }

// Allowed reports whether the operator has named a provider.
func (v *Verifier) Allowed(url string) bool { return v.issuers[trim(url)] != nil }

// Token is what a token that was believed says.
type Token struct {
	Subject string
	// Claims are the condition keys of trust policies, without the provider's name:
	// aud, sub, azp, amr, email.
	Claims map[string][]string
	// Audience is the first of the token's that is among those that were asked for.
	Audience string
}

var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256}

func refused(why string) error {
	return s3.E(s3.InvalidIdentityToken, "The token is not valid: "+why+".")
}

// Issuer returns who says to have issued a token, which is not believed yet.
func Issuer(text string) (string, error) {
	if len(text) > TokenBytesMax {
		return "", refused("it is too long")
	}
	t, err := jwt.ParseSigned(text, algorithms)
	if err != nil {
		return "", refused("it is no JWT signed with RS256 or ES256")
	}
	var c jwt.Claims
	if err := t.UnsafeClaimsWithoutVerification(&c); err != nil || c.Issuer == "" {
		return "", refused("it names no issuer")
	}
	return c.Issuer, nil
}

// claims are those that we look at.
type claims struct {
	jwt.Claims
	Azp           string   `json:"azp"`
	Amr           []string `json:"amr"`
	Email         string   `json:"email"`
	EmailVerified any      `json:"email_verified"`
}

// Verify judges a token of a provider for one of the audiences. Errors are *s3.Error:
// InvalidIdentityToken, ExpiredTokenException, IDPCommunicationError.
func (v *Verifier) Verify(ctx context.Context, text, provider string, audiences []string) (*Token, error) {
	i := v.issuers[trim(provider)]
	if i == nil {
		return nil, refused("the provider is not among oidc-issuers of the gateway")
	}
	if len(text) > TokenBytesMax {
		return nil, refused("it is too long")
	}
	t, err := jwt.ParseSigned(text, algorithms)
	if err != nil || len(t.Headers) != 1 {
		return nil, refused("it is no JWT signed with RS256 or ES256")
	}
	key, err := v.keyOf(ctx, i, t.Headers[0])
	if err != nil {
		return nil, err
	}
	var c claims
	if err := t.Claims(key, &c); err != nil {
		return nil, refused("its signature does not fit")
	}
	return v.judge(&c, i.url, audiences)
}

func (v *Verifier) judge(c *claims, issuer string, audiences []string) (*Token, error) {
	now := v.now()
	at := slices.IndexFunc(c.Audience, func(a string) bool { return slices.Contains(audiences, a) })
	switch {
	case trim(c.Issuer) != issuer:
		return nil, refused("another issuer is named in it")
	case at < 0:
		return nil, refused("it is for another audience")
	case c.Subject == "":
		return nil, refused("it has no subject")
	case c.Expiry == nil:
		return nil, refused("it never expires")
	case !now.Before(c.Expiry.Time()):
		return nil, s3.E(s3.ExpiredTokenException, "Token expired: current date/time must be before the expiration date/time.")
	case c.NotBefore != nil && now.Add(leeway).Before(c.NotBefore.Time()), c.IssuedAt != nil && now.Add(leeway).Before(c.IssuedAt.Time()):
		return nil, refused("it is not valid yet")
	}
	t := &Token{Subject: c.Subject, Audience: c.Audience[at], Claims: map[string][]string{"aud": c.Audience, "sub": {c.Subject}, "amr": c.Amr}}
	if c.Azp != "" {
		t.Claims["azp"] = []string{c.Azp}
	}
	if c.Email != "" && c.EmailVerified == true {
		t.Claims["email"] = []string{c.Email}
	}
	return t, nil
}

// keyOf finds the provider's key that a header names: of the right kind, and one only.
func (v *Verifier) keyOf(ctx context.Context, i *issuer, h jose.Header) (any, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := v.now()
	key := find(i.keys, h)
	if (key == nil || !now.Before(i.until)) && (i.tried.IsZero() || now.Sub(i.tried) >= retryEvery || now.Before(i.tried)) {
		i.tried = now
		keys, err := v.fetch(ctx, i.url)
		if i.err = err; err == nil {
			i.keys, i.until = keys, now.Add(keysFor)
		}
		key = find(i.keys, h)
	}
	switch {
	case i.err != nil && !now.Before(i.until):
		return nil, &s3.Error{Code: s3.IDPCommunicationError, Err: i.err}
	case key == nil:
		return nil, refused("no key of the provider has signed it")
	}
	return key, nil
}

func find(keys []jose.JSONWebKey, h jose.Header) (found any) {
	for _, k := range keys {
		if h.KeyID != "" && k.KeyID != h.KeyID || k.Algorithm != "" && k.Algorithm != h.Algorithm || k.Use != "" && k.Use != "sig" {
			continue
		}
		fits := false
		switch pub := k.Key.(type) {
		case *rsa.PublicKey:
			fits = h.Algorithm == string(jose.RS256) && pub.N.BitLen() >= rsaBitsMin
		case *ecdsa.PublicKey:
			fits = h.Algorithm == string(jose.ES256) && pub.Curve == elliptic.P256()
		}
		switch {
		case !fits:
		case found != nil:
			return nil // it must say which
		default:
			found = k.Key
		}
	}
	return found
}

// fetch asks a provider for its keys.
func (v *Verifier) fetch(ctx context.Context, provider string) ([]jose.JSONWebKey, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchMax)
	defer cancel()
	var doc struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := v.document(ctx, provider+"/.well-known/openid-configuration", &doc); err != nil {
		return nil, err
	}
	if trim(doc.Issuer) != provider {
		return nil, fmt.Errorf("%s says to be the issuer %q", provider, doc.Issuer)
	}
	u, err := url.Parse(doc.JWKSURI)
	if err != nil || !trust.Private(u) {
		return nil, fmt.Errorf("%s has its keys at %q, which is not https", provider, doc.JWKSURI)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := v.document(ctx, doc.JWKSURI, &set); err != nil {
		return nil, err
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if json.Unmarshal(raw, &k) == nil && k.Valid() && k.IsPublic() { // others are of kinds that we do not take
			keys = append(keys, k)
		}
	}
	return keys, nil
}

func (v *Verifier) document(ctx context.Context, from string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	resp, err := v.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", from, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax+1))
	if err == nil && len(body) > answerBytesMax {
		err = errors.New("the answer is too long")
	}
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
}
