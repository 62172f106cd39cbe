// Package transit seals data keys with the Transit engine of a Vault or OpenBao
// server: the keys that seal never leave that server, and whoever steals disks
// and gateways has nothing that opens them.
//
// Two calls of its API are used, both with associated data, so that a sealed key
// opens only what it was made for (the key must be of an AEAD type, as
// aes256-gcm96 is):
//
//	POST /v1/MOUNT/encrypt/KEY   {plaintext, associated_data} → vault:vN:…
//	POST /v1/MOUNT/decrypt/KEY   {ciphertext, associated_data} → plaintext
//
// The token needs the capability update on both. Without create on encrypt/* no
// key comes into being there by a call of ours; besides, clients may name only
// those keys that the configuration lists.
//
// See https://developer.hashicorp.com/vault/api-docs/secret/transit.
package transit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"ashlar"
	"ashlar/s3gw/sse"
	"ashlar/s3gw/store"
	"ashlar/s3gw/trust"
)

// Config is [vault] of gateway.toml.
type Config struct {
	// Address is the server's URL. Plain http is taken for a loopback address only,
	// since the token and the data keys travel in the calls.
	Address string `toml:"address"`
	// Mount is the path of the engine; transit if empty.
	Mount string `toml:"mount,omitempty"`
	// Namespace is sent along if it is set.
	Namespace string `toml:"namespace,omitempty"`
	// TokenFile holds the token. It is read for every call, so that an agent can renew it.
	TokenFile string `toml:"token-file"`
	// CAFile holds the PEM certificates that the server's leads to; the system's if empty.
	CAFile string `toml:"ca-file,omitempty"`
	// SSES3Key is the key that seals for SSE-S3.
	SSES3Key string `toml:"sse-s3-key"`
	// KMSKeys are the keys that clients may name with SSE-KMS. The first is for
	// those who name none.
	KMSKeys []string `toml:"kms-keys"`
}

const (
	callTimeout = 5 * time.Second // of one try
	callTries   = 2
	answerMax   = 64 << 10
	prefix      = "vault:v" // of everything that the engine sealed
)

// Vault is a client of one server. It is safe for concurrent use.
type Vault struct {
	cfg    Config
	base   string
	client *http.Client
	opened opened
}

// New checks the configuration; it does not speak to the server.
func New(cfg Config) (*Vault, error) {
	const op = "transit: config"
	if cfg.Mount == "" {
		cfg.Mount = "transit"
	}
	u, err := url.Parse(cfg.Address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, ashlar.E(op, "address", ashlar.Invalid, errors.New("want a URL such as https://vault.example:8200"))
	case !trust.Private(u):
		return nil, ashlar.E(op, "address", ashlar.Invalid, errors.New("the token and data keys may not travel in the clear: use https"))
	case cfg.TokenFile == "":
		return nil, ashlar.E(op, "token-file", ashlar.Invalid, errors.New("name the file that holds the token"))
	case cfg.SSES3Key == "" && len(cfg.KMSKeys) == 0:
		return nil, ashlar.E(op, "sse-s3-key", ashlar.Invalid, errors.New("set sse-s3-key, kms-keys, or both"))
	}
	for _, name := range append(slices.Clone(cfg.KMSKeys), cfg.SSES3Key) {
		if name != "" && !validName(name) {
			return nil, ashlar.E(op, name, ashlar.Invalid, errors.New("a key's name has letters, digits, - _ and . only"))
		}
	}
	roots, err := trust.TLS(cfg.CAFile)
	if err != nil {
		return nil, ashlar.E(op, "ca-file", ashlar.Invalid, err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig, transport.MaxIdleConnsPerHost = roots, 16
	return &Vault{
		cfg: cfg, base: strings.TrimSuffix(u.String(), "/") + "/v1/" + strings.Trim(cfg.Mount, "/") + "/",
		client: &http.Client{Transport: transport, Timeout: callTimeout, CheckRedirect: sameScheme},
	}, nil
}

// sameScheme follows a standby server to the active one, but never out of TLS.
func sameScheme(r *http.Request, via []*http.Request) error {
	if len(via) > 3 || r.URL.Scheme != via[0].URL.Scheme {
		return http.ErrUseLastResponse
	}
	return nil
}

func validName(name string) bool {
	for _, c := range name {
		if c != '-' && c != '_' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return strings.Trim(name, ".") != "" && len(name) <= 128
}

// nameFor returns the key of the engine that a write is sealed with.
func (v *Vault) nameFor(mode store.EncryptionMode, name string) (string, error) {
	switch {
	case mode == store.SSES3 && v.cfg.SSES3Key != "":
		return v.cfg.SSES3Key, nil
	case mode == store.SSEKMS && name == "" && len(v.cfg.KMSKeys) > 0:
		return v.cfg.KMSKeys[0], nil
	case mode == store.SSEKMS && slices.Contains(v.cfg.KMSKeys, name):
		return name, nil
	}
	return "", store.ErrNoSuchEncryptionKey
}

// Seal implements store.Keys.
func (v *Vault) Seal(ctx context.Context, mode store.EncryptionMode, name string, data sse.Key, aad []byte) (string, []byte, error) {
	used, err := v.nameFor(mode, name)
	if err != nil {
		return "", nil, err
	}
	a, err := v.call(ctx, "encrypt", used, request{Plaintext: data[:], AssociatedData: aad})
	if err != nil {
		return "", nil, err
	}
	if !strings.HasPrefix(a.Ciphertext, prefix) {
		return "", nil, v.fail("encrypt", used, ashlar.Unavailable, errors.New("the answer holds no ciphertext"))
	}
	v.opened.keep(used, []byte(a.Ciphertext), aad, data)
	return used, []byte(a.Ciphertext), nil
}

// Open implements store.Keys. An opened key is remembered for a minute.
func (v *Vault) Open(ctx context.Context, _ store.EncryptionMode, name string, sealed, aad []byte) (sse.Key, error) {
	if !Sealed(sealed) || !validName(name) {
		return sse.Key{}, sse.ErrKey
	}
	if data, ok := v.opened.find(name, sealed, aad); ok {
		return data, nil
	}
	a, err := v.call(ctx, "decrypt", name, request{Ciphertext: string(sealed), AssociatedData: aad})
	if err != nil {
		return sse.Key{}, err
	}
	if len(a.Plaintext) != len(sse.Key{}) {
		return sse.Key{}, sse.ErrKey
	}
	data := sse.Key(a.Plaintext)
	v.opened.keep(name, sealed, aad, data)
	return data, nil
}

// Sealed reports whether a sealed data key is one of this engine.
func Sealed(sealed []byte) bool { return bytes.HasPrefix(sealed, []byte(prefix)) }

// Check seals and opens a data key with every key of the configuration. It is for
// the start of a gateway: what is wrong is known then, not at the first request.
func (v *Vault) Check(ctx context.Context) error {
	var errs []error
	try := func(mode store.EncryptionMode, name string) {
		data, aad := sse.NewKey(), []byte("check")
		used, sealed, err := v.Seal(ctx, mode, name, data, aad)
		if err == nil {
			v.opened.drop()
			_, err = v.Open(ctx, mode, used, sealed, aad)
		}
		errs = append(errs, err)
	}
	if v.cfg.SSES3Key != "" {
		try(store.SSES3, "")
	}
	for _, name := range v.cfg.KMSKeys {
		try(store.SSEKMS, name)
	}
	return errors.Join(errs...)
}

// request is the body of both calls; []byte travels in base64, as the engine wants it.
type request struct {
	Plaintext      []byte `json:"plaintext,omitempty"`
	Ciphertext     string `json:"ciphertext,omitempty"`
	AssociatedData []byte `json:"associated_data"`
}

type answer struct {
	Plaintext  []byte `json:"plaintext"`
	Ciphertext string `json:"ciphertext"`
}

// call asks the engine; what may pass by itself is tried once more.
func (v *Vault) call(ctx context.Context, what, name string, r request) (answer, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return answer{}, v.fail(what, name, ashlar.Internal, err)
	}
	for try := 1; ; try++ {
		a, again, err := v.once(ctx, what, name, body)
		if err == nil || !again || try == callTries || ctx.Err() != nil {
			return a, err
		}
	}
}

func (v *Vault) once(ctx context.Context, what, name string, body []byte) (a answer, again bool, err error) {
	token, err := os.ReadFile(v.cfg.TokenFile)
	if err != nil {
		return a, false, v.fail(what, name, ashlar.Unavailable, fmt.Errorf("token: %w", err))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.base+what+"/"+name, bytes.NewReader(body))
	if err != nil {
		return a, false, v.fail(what, name, ashlar.Internal, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Vault-Token", strings.TrimSpace(string(token)))
	req.Header.Set("X-Vault-Request", "true")
	if v.cfg.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", v.cfg.Namespace)
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return a, true, v.fail(what, name, ashlar.Unavailable, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerMax))
	if err != nil {
		return a, true, v.fail(what, name, ashlar.Unavailable, err)
	}
	var got struct {
		Data   answer   `json:"data"`
		Errors []string `json:"errors"`
	}
	if err := json.Unmarshal(text, &got); err != nil && resp.StatusCode == http.StatusOK {
		return a, false, v.fail(what, name, ashlar.Unavailable, errors.New("the answer is no JSON: is that a Vault server?"))
	}
	if resp.StatusCode == http.StatusOK {
		return got.Data, false, nil
	}
	again = resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests
	text = []byte(strings.Join(strings.Fields(strings.Join(got.Errors, "; ")), " ")) // it writes lists of lines
	return a, again, v.judge(what, name, resp.StatusCode, string(text))
}

// judge finds out what an answer other than 200 means.
func (v *Vault) judge(what, name string, status int, text string) error {
	switch {
	case status == http.StatusBadRequest && strings.Contains(text, "encryption key not found"):
		return store.ErrNoSuchEncryptionKey
	case status == http.StatusBadRequest && what == "decrypt" &&
		(strings.Contains(text, "message authentication failed") || strings.Contains(text, "invalid ciphertext")):
		return sse.ErrKey
	case status == http.StatusForbidden:
		text += ": the token of token-file needs the capability update on " + strings.TrimSuffix(v.cfg.Mount, "/") + "/" + what + "/" + name
	case status == http.StatusNotFound:
		text += ": is the Transit engine mounted at " + v.cfg.Mount + "?"
	}
	return v.fail(what, name, ashlar.Unavailable, fmt.Errorf("status %d: %s", status, strings.TrimPrefix(text, ": ")))
}

func (v *Vault) fail(what, name string, kind ashlar.Kind, err error) error {
	return ashlar.E("transit: "+what, name, kind, err)
}
