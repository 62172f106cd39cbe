// Package session makes and opens temporary credentials. Nothing of them is stored:
// the session token holds what the session is, sealed under a secret that all gateways
// have, and access key and secret key are derived from it. So any gateway opens a
// token that another one made, and a token that was changed opens for nobody.
//
//	offset  size  token, in base64 for URLs without padding
//	     0     1  1, the version of this form
//	     1    24  salt, random for each token
//	    25     n  Claims as JSON, sealed with AES-256-GCM; the nonce is zero, and what
//	              stands before is authenticated too
//
// HKDF-SHA-256 of the secret and the salt yields the key of the seal, 32 bytes, used
// for this token alone, then 10 bytes of the access key and 30 of the secret key.
//
// The package is pure: it has no clock and no rows. Whether what the claims name still
// exists, and what it may do, is for the directory to say.
package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
)

// Prefix begins the access keys of sessions.
const Prefix = "ASIA"

// TokenBytesMax bounds a token that is looked at: more than a header block may have.
const TokenBytesMax = 8 << 10

// Secret is what tokens are sealed with.
type Secret [32]byte

// Sorts of claims.
const (
	OfRole = "role"
	OfUser = "user"
	OfRoot = "root"
)

// Claims say what a session is.
type Claims struct {
	// Sort is OfRole, OfUser or OfRoot.
	Sort string `json:"s"`
	// Account is the canonical id of the account.
	Account string `json:"a"`
	// Name and ID are those of the role.
	Name string `json:"n,omitempty"`
	ID   string `json:"i,omitempty"`
	// Session is the name that was given to the session of a role.
	Session string `json:"r,omitempty"`
	// Parent is the access key that the session of a user or of the root came from.
	Parent string `json:"p,omitempty"`
	// Scoped says that the session has policies of its own, which bound it: Scope holds
	// their text, Attached names managed ones.
	Scoped   bool     `json:"b,omitempty"`
	Scope    []string `json:"d,omitempty"`
	Attached []string `json:"m,omitempty"`
	// Provider is the identity provider that vouched for it, an ARN.
	Provider string `json:"f,omitempty"`
	// Issued and Expires are seconds since 1970.
	Issued  int64 `json:"t"`
	Expires int64 `json:"e"`
}

// Credentials are what a client gets.
type Credentials struct {
	AccessKey, SecretKey, Token string
}

// ErrInvalid says that a token is not one that this secret sealed, or not that of the
// access key.
var ErrInvalid = errors.New("the session token is not valid")

const (
	version     = 1
	saltBytes   = 24
	headBytes   = 1 + saltBytes
	sealBytes   = 32
	keyBytes    = 10
	secretBytes = 30
)

// New makes credentials with these claims.
func New(s Secret, c Claims) (Credentials, error) {
	head := make([]byte, headBytes, headBytes+512)
	head[0] = version
	rand.Read(head[1:]) // never fails: see crypto/rand
	aead, cred, err := derive(s, head[1:])
	if err != nil {
		return cred, err
	}
	text, err := json.Marshal(&c)
	if err != nil {
		return cred, err
	}
	cred.Token = encoding.EncodeToString(aead.Seal(head, make([]byte, aead.NonceSize()), text, head))
	return cred, nil
}

// Open returns what the token of an access key says, and its secret key. The caller
// judges Expires. The error is ErrInvalid, whatever is wrong.
func Open(s Secret, accessKey, token string) (Claims, Credentials, error) {
	raw, err := encoding.DecodeString(token)
	if err != nil || len(token) > TokenBytesMax || len(raw) < headBytes || raw[0] != version {
		return Claims{}, Credentials{}, ErrInvalid
	}
	head := raw[:headBytes]
	aead, cred, err := derive(s, head[1:])
	if err != nil || subtle.ConstantTimeCompare([]byte(cred.AccessKey), []byte(accessKey)) != 1 {
		return Claims{}, Credentials{}, ErrInvalid
	}
	text, err := aead.Open(nil, make([]byte, aead.NonceSize()), raw[headBytes:], head)
	if err != nil {
		return Claims{}, Credentials{}, ErrInvalid
	}
	var c Claims
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields() // a later bound must not be overlooked
	if err := d.Decode(&c); err != nil {
		return Claims{}, Credentials{}, ErrInvalid
	}
	cred.Token = token
	return c, cred, nil
}

// encoding is strict: one token has one text.
var encoding = base64.RawURLEncoding.Strict()

func derive(s Secret, salt []byte) (cipher.AEAD, Credentials, error) {
	out, err := hkdf.Key(sha256.New, s[:], salt, "ashlar session 1", sealBytes+keyBytes+secretBytes)
	if err != nil {
		return nil, Credentials{}, err
	}
	block, err := aes.NewCipher(out[:sealBytes])
	if err != nil {
		return nil, Credentials{}, err
	}
	aead, err := cipher.NewGCM(block)
	return aead, Credentials{
		AccessKey: Prefix + base32.StdEncoding.EncodeToString(out[sealBytes:sealBytes+keyBytes]),
		SecretKey: base64.StdEncoding.EncodeToString(out[sealBytes+keyBytes:]),
	}, err
}
