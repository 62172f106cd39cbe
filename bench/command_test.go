package bench

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ashlar/bench/report"
)

func TestSizesAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "1": 1, "4096": 4096, "7B": 7, "4KiB": 4096, "4 MiB": 4 << 20, "5GiB": 5 << 30, "1KB": 1000, "2MB": 2e6, "1GB": 1e9} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "1.5MiB", "6GiB", "9223372036854775807GiB", "KiB", "4kib"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q was taken for %d", text, got)
		}
	}
}

// command runs the bench command and returns what it printed.
func command(arguments ...string) (string, error) {
	var out bytes.Buffer
	c := Command()
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(arguments)
	err := c.ExecuteContext(context.Background())
	return out.String(), err
}

func TestCommandsRefuseWhatTheyCannotDo(t *testing.T) {
	t.Setenv("ASHLAR_ACCESS_KEY", "")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	missing := filepath.Join(t.TempDir(), "missing")
	for want, arguments := range map[string][]string{
		"no access key":    {"s3", "put"},
		"size":             {"s3", "put", "--size", "much"},
		"no such file":     {"compare", missing, missing},
		"--ca-file":        {"s3", "get", "--ca-file", missing},
		"unknown command":  {"disk"},
		"accepts 2 arg(s)": {"compare", missing},
		"want http://":     {"s3", "put", "--endpoint", "ftp://x", "--access-key", "a", "--secret-key", "b"},
	} {
		if _, err := command(arguments...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", arguments, err, want)
		}
	}
}

func TestCompareSavedReports(t *testing.T) {
	dir := t.TempDir()
	save := func(name string, rate float64) string {
		r := report.Report{Format: report.FormatVersion, Setup: report.Setup{Operation: "put", Repeats: 2},
			Rounds: []report.Round{{Seconds: 1, Bytes: rate, Operations: 10}, {Seconds: 1, Bytes: rate * 1.01, Operations: 10}}}
		path := filepath.Join(dir, name)
		if err := r.Save(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	out, err := command("compare", save("a", 1e9), save("b", 2e9))
	if err != nil || !strings.Contains(out, "better") {
		t.Errorf("%q, %v", out, err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "b"))
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "c")
	os.WriteFile(other, bytes.Replace(raw, []byte(`"operation": "put"`), []byte(`"operation": "get"`), 1), 0o600)
	if _, err := command("compare", filepath.Join(dir, "a"), other); err == nil || !strings.Contains(err.Error(), "Operation put → get") {
		t.Errorf("%v", err)
	}
	if _, err := command("compare", "--anyway", filepath.Join(dir, "a"), other); err != nil {
		t.Error(err)
	}
}
