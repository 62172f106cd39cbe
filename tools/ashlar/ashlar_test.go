package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ashlar"
	"ashlar/daemon"
	"ashlar/placement/health"
	"ashlar/placement/topology"
)

// ashlarRun runs the command line as main does and returns what it printed and
// the exit code.
func ashlarRun(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	var b bytes.Buffer
	cmd := root()
	cmd.SetArgs(args)
	cmd.SetOut(&b)
	cmd.SetErr(&b)
	err := cmd.ExecuteContext(t.Context())
	if err != nil {
		b.WriteString(err.Error())
	}
	return b.String(), exitCode(err)
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"version", 0, "ashlar "},
		{"--help", 0, "Available Commands"},
		{"status --no-such-flag", exitUsage, "no-such-flag"},
		{"status --dir " + dir, exitFailed, "no dev cluster in " + dir},
		{"dev kill-disk", exitUsage, "wants the name of a disk"},
		{"dev kill-host a b", exitUsage, "wants the name of a host"},
		{"dev --profile 4x2", exitUsage, "want k+m"},
		{"dev --disk-size many", exitUsage, "want a number and a unit"},
		{"dev --zones 1 --hosts 1 --disks 2 --dir " + dir + "/x", exitFailed, "4+2 needs 6 disks"},
		{"dev --members 4 --dir " + dir + "/x", exitFailed, "1, 3, 5 or 7"},
		{"dev --gateways 3 --dir " + dir + "/x", exitUsage, "--processes"},
		{"daemon --config " + dir + "/none.toml", exitUsage, "none.toml"},
		{"daemon --log-level loud", exitUsage, "debug, info, warn or error"},
		{"disk udev", exitUsage, "wants a device"},
		{"trace --slow never", exitUsage, "--slow"},
		{"trace photos", exitFailed, "unknown command"},
		{"trace --dir " + dir, exitFailed, "no dev cluster in " + dir},
		{"trace --gateway http://127.0.0.1:1", exitUsage, "no keys"},
		{"trace --gateway http://127.0.0.1:1 --access-key k --secret-key s", exitFailed, "is the gateway running?"},
		{"trace --gateway g1:9000 --access-key k --secret-key s", exitFailed, "want http://HOST:PORT"},
	} {
		t.Run(c.args, func(t *testing.T) {
			for _, name := range []string{"ASHLAR_ACCESS_KEY", "ASHLAR_SECRET_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "ASHLAR_GATEWAYS"} {
				t.Setenv(name, "")
			}
			out, code := ashlarRun(t, strings.Fields(c.args)...)
			if code != c.code || !strings.Contains(out, c.says) {
				t.Errorf("exit %d, want %d; printed %q, want %q in it", code, c.code, out, c.says)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a refused start left its directory behind")
	}
}

func TestHalfOfTheKeysIsRefused(t *testing.T) {
	t.Setenv("ASHLAR_ACCESS_KEY", "only")
	t.Setenv("ASHLAR_SECRET_KEY", "")
	if out, code := ashlarRun(t, "dev", "--dir", filepath.Join(t.TempDir(), "x")); code != exitUsage || !strings.Contains(out, "both") {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestUnknownKeyOfAConfigurationIsShown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.toml")
	if err := os.WriteFile(path, []byte("name = 'a1'\nrak = 'r1'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := loadConfig[daemon.Config](path)
	if err == nil || !strings.Contains(err.Error(), "rak") || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"4GiB": 4 * ashlar.GiB, "500MB": 500e6, "1T": ashlar.TiB, "1.5KiB": 1536, "17": 17, "17B": 17} {
		var got int64
		if err := (sizeFlag{&got}).Set(text); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "0", "1e30", "4 furlongs"} {
		var got int64
		if err := (sizeFlag{&got}).Set(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
	got := int64(4 * ashlar.GiB)
	if s := (sizeFlag{&got}).String(); s != "4GiB" {
		t.Error(s)
	}
}

func TestVerdictIsTheExitCodeOfCheck(t *testing.T) {
	for v, want := range map[health.Verdict]int{
		health.Healthy: 0, health.Repairing: 0, health.Degraded: exitDegraded,
		health.IsNearFull: exitDegraded, health.IsFull: exitDegraded, health.AtRisk: exitAtRisk, health.Unavailable: exitAtRisk,
	} {
		if got := exitCode(verdict(v)); got != want {
			t.Errorf("%s: %d, want %d", v, got, want)
		}
	}
}

func TestBackupRefusesAClusterInOneProcess(t *testing.T) {
	m := &topology.Map{Hosts: []topology.Host{{Name: "a1", RPC: "127.0.0.1:7001"}}}
	if err := checkListening(m); err != nil {
		t.Error(err)
	}
	m.Hosts = append(m.Hosts, topology.Host{Name: "b1", RPC: "127.0.0.1:0"})
	if err := checkListening(m); err == nil || !strings.Contains(err.Error(), "host b1") || !strings.Contains(err.Error(), "--processes") {
		t.Errorf("got %v", err)
	}
}
