package iam

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"ashlar"
	"ashlar/s3gw/sigv4"
)

// AccountConfig is one [[accounts]] of gateway.toml.
type AccountConfig struct {
	// ID is twelve digits or a word of letters, digits, - and _.
	ID string `toml:"id"`
	// CanonicalID is derived from ID if it is empty.
	CanonicalID string `toml:"canonical-id"`
	Name        string `toml:"name"`
	Email       string `toml:"email"`
	// Keys may do everything in the account.
	Keys []KeyConfig `toml:"keys"`
}

// KeyConfig is an access key and its secret.
type KeyConfig struct {
	AccessKey string `toml:"access-key"`
	SecretKey string `toml:"secret-key"`
}

// Static are the accounts of a configuration. It never changes.
type Static struct {
	keys        map[string]staticKey
	byCanonical map[string]*Account
	byEmail     map[string]*Account
	byID        map[string]*Account
	operator    *Account
}

type staticKey struct {
	secret string
	who    *Identity
}

// NewStatic checks the accounts and indexes them. The root key belongs to the
// account that lists it among its keys, or else to one of its own.
func NewStatic(root KeyConfig, accounts []AccountConfig) (*Static, error) {
	s := &Static{keys: map[string]staticKey{}, byCanonical: map[string]*Account{}, byEmail: map[string]*Account{}, byID: map[string]*Account{}}
	for i := range accounts {
		if err := s.add(&accounts[i]); err != nil {
			return nil, ashlar.E("iam: accounts", accounts[i].ID, ashlar.Invalid, err)
		}
	}
	if k, listed := s.keys[root.AccessKey]; root.AccessKey != "" && (!listed || k.secret != root.SecretKey) {
		err := s.add(&AccountConfig{ID: RootID, Name: "root", Keys: []KeyConfig{root}})
		if err != nil {
			return nil, ashlar.E("iam: accounts", RootID, ashlar.Invalid, err)
		}
	}
	if k, ok := s.keys[root.AccessKey]; ok {
		s.operator = k.who.Account
	}
	return s, nil
}

const canonicalDigits = 64

func (s *Static) add(c *AccountConfig) error {
	a := &Account{ID: c.ID, Canonical: c.CanonicalID, Name: c.Name, Email: strings.ToLower(c.Email)}
	if a.Canonical == "" {
		a.Canonical = CanonicalOf(a.ID)
	}
	if a.Name == "" {
		a.Name = a.ID
	}
	switch {
	case !validID(a.ID):
		return errors.New("an account needs an id of twelve digits, or of letters, digits, - and _")
	case len(a.Canonical) != canonicalDigits || strings.Trim(a.Canonical, "0123456789abcdef") != "":
		return errors.New("canonical-id must be 64 hexadecimal digits in lower case")
	case s.byID[a.ID] != nil || s.byCanonical[a.Canonical] != nil || a.Email != "" && s.byEmail[a.Email] != nil:
		return errors.New("id, canonical-id and email of an account must be its own: another account has one of them")
	}
	s.byID[a.ID], s.byCanonical[a.Canonical] = a, a
	if a.Email != "" {
		s.byEmail[a.Email] = a
	}
	who := RootOf(a)
	for _, k := range c.Keys {
		if _, twice := s.keys[k.AccessKey]; twice || k.AccessKey == "" || k.SecretKey == "" {
			return fmt.Errorf("the access key %q is empty, has no secret-key, or is there twice", k.AccessKey)
		}
		s.keys[k.AccessKey] = staticKey{k.SecretKey, who}
	}
	return nil
}

func validID(id string) bool {
	for _, c := range id {
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return id != "" && len(id) <= canonicalDigits
}

// Lookup implements sigv4.Credentials: the holder is an *Identity. Root keys are
// permanent, so none has a token.
func (s *Static) Lookup(_ context.Context, accessKey, token string) (sigv4.Credential, error) {
	k, ok := s.keys[accessKey]
	switch {
	case !ok:
		return sigv4.Credential{}, sigv4.ErrUnknownKey
	case token != "":
		return sigv4.Credential{}, sigv4.ErrInvalidToken
	}
	return sigv4.Credential{Secret: k.secret, Account: k.who.Account.Canonical, Holder: k.who}, nil
}

// Account returns the account of a canonical id, nil if there is none.
func (s *Static) Account(canonical string) *Account { return s.byCanonical[canonical] }

// Operator returns the account of the root key, nil if there is none.
func (s *Static) Operator() *Account { return s.operator }

// AccountByEmail returns the account of an address, nil if there is none.
func (s *Static) AccountByEmail(email string) *Account { return s.byEmail[strings.ToLower(email)] }

// AccountByID returns the account of an id as it stands in ARNs, nil if there is none.
func (s *Static) AccountByID(id string) *Account { return s.byID[id] }
