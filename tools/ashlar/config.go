package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"
)

// loadConfig reads a TOML file strictly: a key that nobody knows is an error
// that shows the line, because a misspelt setting must not be silently absent.
func loadConfig[T any](path string) (T, error) {
	var cfg T
	b, err := os.ReadFile(path)
	if err != nil {
		return cfg, withCode(exitUsage, err)
	}
	err = toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields().Decode(&cfg)
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		return cfg, withCode(exitUsage, fmt.Errorf("%s: unknown key\n%s", path, unknown.String()))
	}
	if err != nil {
		return cfg, withCode(exitUsage, fmt.Errorf("%s: %w", path, err))
	}
	return cfg, nil
}

// serviceFlags are the flags that every service has.
type serviceFlags struct {
	config, logLevel string
}

func (f *serviceFlags) add(cmd *cobra.Command, path string) {
	cmd.Flags().StringVar(&f.config, "config", path, "configuration file (TOML)")
	cmd.Flags().StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
}

// logger writes text lines to standard error, where journald takes them.
func (f *serviceFlags) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, withCode(exitUsage, fmt.Errorf("--log-level %q: want debug, info, warn or error", f.logLevel))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})), nil
}
