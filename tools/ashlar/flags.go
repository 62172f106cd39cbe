package main

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"ashlar"
)

// textFlag makes a flag of a pointer to anything that reads and prints text.
type textFlag struct {
	v interface {
		encoding.TextUnmarshaler
		encoding.TextMarshaler
	}
}

func (f textFlag) Set(s string) error { return f.v.UnmarshalText([]byte(s)) }
func (f textFlag) Type() string       { return strings.ToLower(reflect.TypeOf(f.v).Elem().Name()) }
func (f textFlag) String() string {
	if f.v == nil {
		return ""
	}
	b, _ := f.v.MarshalText() // a code always prints
	return string(b)
}

// sizeFlag reads a number of bytes with a unit: 4GiB, 500MB, 1T.
type sizeFlag struct{ v *int64 }

var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", ashlar.KiB}, {"MiB", ashlar.MiB}, {"GiB", ashlar.GiB}, {"TiB", ashlar.TiB},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"K", ashlar.KiB}, {"M", ashlar.MiB}, {"G", ashlar.GiB}, {"T", ashlar.TiB}, {"B", 1}, {"", 1},
}

func (f sizeFlag) Set(s string) error {
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || n <= 0 || n*u.bytes > 1<<60 {
			break
		}
		*f.v = int64(n * u.bytes)
		return nil
	}
	return fmt.Errorf("size %q: want a number and a unit, for example 4GiB or 500MB", s)
}

func (f sizeFlag) Type() string { return "size" }

func (f sizeFlag) String() string {
	if f.v == nil {
		return ""
	}
	for i := 3; i >= 0; i-- {
		if unit := int64(sizeUnits[i].bytes); *f.v >= unit && *f.v%unit == 0 {
			return fmt.Sprintf("%d%s", *f.v/unit, sizeUnits[i].suffix)
		}
	}
	return strconv.FormatInt(*f.v, 10)
}

// exactArgs refuses a wrong number of arguments and says what is wanted.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return withCode(exitUsage, fmt.Errorf("%s wants %s", cmd.CommandPath(), what))
		}
		return nil
	}
}
