package dev

import (
	"fmt"
	"os"

	"github.com/pelletier/go-toml/v2"

	"ashlar/s3gw"
	"ashlar/s3gw/iam"
	"ashlar/s3gw/s3"
)

// accountsFile is a file of accounts, as they stand in gateway.toml.
type accountsFile struct {
	Accounts []iam.AccountConfig `toml:"accounts"`
}

// readAccounts reads the accounts of a test cluster; there need be none.
func (c *Config) readAccounts() ([]iam.AccountConfig, error) {
	if c.ObjectOwnership != "" && s3.CheckOwnership(c.ObjectOwnership) != nil {
		return nil, fmt.Errorf("--object-ownership %s: want %s, %s or %s", c.ObjectOwnership, s3.OwnerEnforced, s3.OwnerPreferred, s3.ObjectWriter)
	}
	if err := s3gw.CheckAnswers(c.Answers); err != nil {
		return nil, err
	}
	if c.AccountsFile == "" {
		return nil, nil
	}
	f, err := os.Open(c.AccountsFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var file accountsFile
	if err := toml.NewDecoder(f).DisallowUnknownFields().Decode(&file); err != nil {
		return nil, fmt.Errorf("%s: %w", c.AccountsFile, err)
	}
	return file.Accounts, nil
}

// directory returns the accounts with the root key's.
func (c *Config) directory() (*iam.Static, error) {
	accounts, err := c.readAccounts()
	if err != nil {
		return nil, err
	}
	return iam.NewStatic(iam.KeyConfig{AccessKey: c.AccessKey, SecretKey: c.SecretKey}, accounts)
}
