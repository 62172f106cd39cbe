// Package keyring holds the keys that seal data keys, read from a file that only
// the gateway's user may read. It is the simplest of the store's Keys: another
// can stand in its place, such as a key service over the network.
//
// The file has a line for each key; empty lines and those that begin with # are
// skipped:
//
//	sse-s3  NAME  BASE64    seals for SSE-S3; the last line is the one in use
//	kms     NAME  BASE64    a key that clients name with SSE-KMS
//	default NAME            the key of SSE-KMS for those who name none
//
// BASE64 is 32 random bytes, for example of `head -c 32 /dev/urandom | base64`.
// All gateways need the same file. A name must keep its key for as long as there
// are objects that were sealed with it: without the key they cannot be read by
// anybody. The file is as secret as what it protects. It is not sealed by us; systemd
// seals it with the host's TPM and opens it for the gateway alone:
//
//	systemd-creds encrypt --name=keyring keyring.txt /etc/ashlar/keyring.cred
//
// with keyring-file = "credential:keyring" in gateway.toml, and in a drop-in of the unit
// LoadCredentialEncrypted=keyring:/etc/ashlar/keyring.cred.
package keyring

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"ashlar"
	"ashlar/s3gw/sse"
	"ashlar/s3gw/store"
)

// Ring is the keys of a file. It is not changed any more once it was read.
type Ring struct {
	master, kms map[string]sse.Key
	current     string // of master
	fallback    string // of kms
}

// Read reads a keyring from a file, which nobody but its owner and group may
// read.
func Read(path string) (*Ring, error) {
	const op = "keyring: read"
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o007 != 0 {
		err = fmt.Errorf("%w: everybody may read it; run chmod 600 on it", fs.ErrPermission)
	}
	if err != nil {
		return nil, ashlar.E(op, path, ashlar.Invalid, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, ashlar.E(op, path, ashlar.Invalid, err)
	}
	r, err := Parse(text)
	if err != nil {
		return nil, ashlar.E(op, path, ashlar.Invalid, err)
	}
	return r, nil
}

// Parse reads the lines of a keyring.
func Parse(text []byte) (*Ring, error) {
	r := &Ring{master: map[string]sse.Key{}, kms: map[string]sse.Key{}}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		f := strings.Fields(lines.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if err := r.line(f); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if _, ok := r.kms[r.fallback]; !ok && r.fallback != "" {
		return nil, fmt.Errorf("default %q is none of the kms keys", r.fallback)
	}
	return r, lines.Err()
}

func (r *Ring) line(f []string) error {
	if f[0] == "default" && len(f) == 2 && r.fallback == "" {
		r.fallback = f[1]
		return nil
	}
	keys := map[string]map[string]sse.Key{"sse-s3": r.master, "kms": r.kms}[f[0]]
	if keys == nil || len(f) != 3 {
		return fmt.Errorf(`want "sse-s3 NAME BASE64", "kms NAME BASE64" or one "default NAME"`)
	}
	raw, err := base64.StdEncoding.DecodeString(f[2])
	if err != nil || len(raw) != len(sse.Key{}) {
		return fmt.Errorf("the key %q is not 32 bytes in base64", f[1])
	}
	if _, twice := keys[f[1]]; twice {
		return fmt.Errorf("the key %q is there twice", f[1])
	}
	keys[f[1]] = sse.Key(raw)
	if f[0] == "sse-s3" {
		r.current = f[1]
	}
	return nil
}

// Has reports whether there is a key of that name for SSE-KMS.
func (r *Ring) Has(name string) bool {
	_, ok := r.kms[name]
	return ok
}

func (r *Ring) find(mode store.EncryptionMode, name string) (string, sse.Key, error) {
	keys, def := r.kms, r.fallback
	if mode == store.SSES3 {
		keys, def = r.master, r.current
	}
	if name == "" {
		name = def
	}
	k, ok := keys[name]
	if !ok {
		return "", k, store.ErrNoSuchEncryptionKey
	}
	return name, k, nil
}

// Seal implements store.Keys.
func (r *Ring) Seal(_ context.Context, mode store.EncryptionMode, name string, data sse.Key, aad []byte) (string, []byte, error) {
	used, k, err := r.find(mode, name)
	if err != nil {
		return "", nil, err
	}
	return used, sse.SealKey(k, data, aad), nil
}

// Open implements store.Keys.
func (r *Ring) Open(_ context.Context, mode store.EncryptionMode, name string, sealed, aad []byte) (sse.Key, error) {
	_, k, err := r.find(mode, name)
	if err != nil {
		return k, err
	}
	return sse.OpenKey(k, sealed, aad)
}
