package dev

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"ashlar/s3gw/keyring"
	"ashlar/s3gw/sse"
)

// keyring returns the file of the cluster's encryption keys, which is made at the
// first call: a key for SSE-S3, and one for each name of KMSKeys. Names that are
// new get a key later too.
func (c *Config) keyring() (path string, err error) {
	path = filepath.Join(c.Dir, "etc", "keyring")
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		text = fmt.Appendf(nil, "# Without this file, what was stored encrypted cannot be read.\nsse-s3 dev %s\n", newKey())
	case err != nil:
		return "", err
	}
	known, err := keyring.Parse(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	for _, name := range c.KMSKeys {
		if !known.Has(name) {
			text = fmt.Appendf(text, "kms %s %s\n", name, newKey())
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, text, 0o600)
}

func newKey() string {
	k := sse.NewKey()
	return base64.StdEncoding.EncodeToString(k[:])
}
