package smart_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ashlar"
	"ashlar/diskmgr/smart"
)

const none = smart.Unknown

var samples = map[string]struct {
	want     smart.Facts
	concerns []string
	summary  string
}{
	"ata-hdd": {smart.Facts{Serial: "ZL2A7K10", Model: "ST16000NM001G-2KK103", Protocol: "ATA", Reallocated: 16, Pending: 8, Uncorrectable: 2, LinkCRC: 3, Wear: none, Temperature: 34},
		[]string{"8 sectors cannot be read", "2 errors were beyond repair"}, "16 reallocated, 8 pending, 2 uncorrectable, 3 link CRC, 34 °C"},
	"ata-failing": {smart.Facts{Serial: "F 1/2", Model: "OLD DISK", Protocol: "ATA", Failing: true, Verdict: "below its threshold: Reallocated_Sector_Ct",
		Reallocated: 4032, Pending: none, Uncorrectable: none, LinkCRC: 0, Wear: none, Temperature: 41},
		[]string{"it expects to fail: below its threshold: Reallocated_Sector_Ct", "4032 sectors were replaced"}, "FAILING, 4032 reallocated, 0 link CRC, 41 °C"},
	"ata-ssd": {smart.Facts{Serial: "S5GNNG0R", Model: "SAMSUNG MZ7LH480", Protocol: "ATA", Reallocated: 0, Pending: none, Uncorrectable: none, LinkCRC: 0, Wear: 9, Temperature: 29},
		nil, "0 reallocated, 0 link CRC, 9 % worn, 29 °C"},
	"nvme": {smart.Facts{Serial: "Y1A0A00XT5A8", Model: "KCD6XLUL7T68", Protocol: "NVMe", Reallocated: none, Pending: none, Uncorrectable: 1, LinkCRC: none, Wear: 7, Temperature: 38},
		[]string{"1 errors were beyond repair"}, "1 uncorrectable, 7 % worn, 38 °C"},
	"nvme-failing": {smart.Facts{Serial: "W1", Model: "WORN", Protocol: "NVMe", Failing: true,
		Verdict:     "few spare blocks are left, its reliability is degraded, the medium is read-only",
		Reallocated: none, Pending: none, Uncorrectable: 0, LinkCRC: none, Wear: 140, Temperature: 71},
		[]string{"it expects to fail: few spare", "140 % of its life", "it has 71 °C"}, "FAILING, 0 uncorrectable, 140 % worn, 71 °C"},
	"scsi": {smart.Facts{Serial: "Z1Z0ABCD", Model: "SEAGATE ST4000NM0023", Protocol: "SCSI", Reallocated: 12, Pending: 1, Uncorrectable: 3, LinkCRC: none, Wear: none, Temperature: 33},
		[]string{"1 sectors cannot be read", "3 errors"}, "12 reallocated, 1 pending, 3 uncorrectable, 33 °C"},
	"scsi-failing": {smart.Facts{Serial: "S9", Model: "HGST SSD", Protocol: "SCSI", Failing: true, Verdict: "HARDWARE IMPENDING FAILURE GENERAL HARD DRIVE FAILURE",
		Reallocated: 0, Pending: none, Uncorrectable: none, LinkCRC: none, Wear: 96, Temperature: none},
		[]string{"it expects to fail: HARDWARE IMPENDING", "96 % of its life"}, "FAILING, 0 reallocated, 96 % worn"},
}

func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Fault 31, as far as it is read: what disks of each kind say of themselves.
func TestParse(t *testing.T) {
	for name, c := range samples {
		got, err := smart.Parse(sample(t, name))
		c.want.Version = smart.Version
		if err != nil || got != c.want {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", name, err, got, c.want)
		}
		concerns := got.Concerns()
		if len(concerns) != len(c.concerns) {
			t.Errorf("%s: concerns %q, want %q", name, concerns, c.concerns)
			continue
		}
		for i, want := range c.concerns {
			if !strings.HasPrefix(concerns[i], want) {
				t.Errorf("%s: concern %q, want %q", name, concerns[i], want)
			}
		}
		if s := got.Summary(); s != c.summary {
			t.Errorf("%s: summary %q, want %q", name, s, c.summary)
		}
	}
	if _, err := smart.Parse(sample(t, "not-opened")); !ashlar.Is(err, ashlar.Unavailable) || !strings.Contains(err.Error(), "Unable to detect device type") {
		t.Errorf("a device that was not opened: %v", err)
	}
	if _, err := smart.Parse([]byte("smartctl: command not found")); !ashlar.Is(err, ashlar.Invalid) {
		t.Errorf("no JSON: %v", err)
	}
	if _, err := smart.Parse([]byte(`{"smartctl":{"exit_status":4}}`)); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("a device without SMART: %v", err)
	}
}

func TestFactsAreReadBackUntilTheyAreOld(t *testing.T) {
	dir := t.TempDir()
	f, err := smart.Parse(sample(t, "ata-failing"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	f.Taken = now
	if err := smart.Write(dir, f.Serial, f); err != nil {
		t.Fatal(err)
	}
	if got, ok := smart.Read(dir, f.Serial, now.Add(smart.MaxAge)); !ok || got != f {
		t.Errorf("%+v, %v", got, ok)
	}
	for what, at := range map[string]time.Time{"old": now.Add(smart.MaxAge + 1), "of the future": now.Add(-smart.MaxAge - 1)} {
		if _, ok := smart.Read(dir, f.Serial, at); ok {
			t.Errorf("%s facts are believed", what)
		}
	}
	for _, serial := range []string{"", "another", "../F 1/2"} {
		if _, ok := smart.Read(dir, serial, now); ok {
			t.Errorf("%q has the facts of another", serial)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "F_1_2.json" {
		t.Fatalf("%v, %v", entries, err)
	}
	if err := os.WriteFile(filepath.Join(dir, entries[0].Name()), []byte(`{"version":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := smart.Read(dir, f.Serial, now); ok {
		t.Error("another version is believed")
	}
	if err := smart.Write(dir, "", f); !ashlar.Is(err, ashlar.Invalid) {
		t.Errorf("no serial: %v", err)
	}
	if err := smart.Write(filepath.Join(dir, "none"), "x", f); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("no directory: %v", err)
	}
}

// tool stands for smartctl: it prints a sample and exits as the real one would.
func tool(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "smartctl")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAsk(t *testing.T) {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	// The exit status of a failing disk is 8: that is an answer, not an error.
	f, err := smart.Ask(t.Context(), tool(t, `[ "$*" = "--json --all /dev/x" ] && cat `+dir+`/nvme-failing.json; exit 8`), "/dev/x")
	if err != nil || !f.Failing || time.Since(f.Taken) > time.Minute {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := smart.Ask(t.Context(), tool(t, "cat "+dir+"/not-opened.json; exit 1"), "/dev/x"); !ashlar.Is(err, ashlar.Unavailable) {
		t.Error(err)
	}
	if _, err := smart.Ask(t.Context(), filepath.Join(dir, "none"), "/dev/x"); !ashlar.Is(err, ashlar.Unavailable) || !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestTheRealToolIsUnderstood: of a device without SMART, the only kind here.
func TestTheRealToolIsUnderstood(t *testing.T) {
	path, err := smart.Tool()
	if err != nil {
		t.Skipf("smartctl is not installed: %v", err)
	}
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := smart.Ask(t.Context(), path, file); !ashlar.Is(err, ashlar.Unavailable) || !strings.Contains(err.Error(), "exit status") {
		t.Errorf("a file: %+v, %v", f, err)
	}
}

func FuzzParse(f *testing.F) {
	for name := range samples {
		f.Add(sample(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		facts, err := smart.Parse(b)
		if err != nil {
			return
		}
		for _, n := range []int64{facts.Reallocated, facts.Pending, facts.Uncorrectable, facts.LinkCRC, facts.Wear, facts.Temperature} {
			if n < smart.Unknown {
				t.Errorf("%+v", facts)
			}
		}
		dir := t.TempDir()
		facts.Serial, facts.Model, facts.Protocol, facts.Verdict = "s", "", "", "" // JSON mends broken text
		facts.Taken = time.Unix(1_700_000_000, 0).UTC()
		if err := smart.Write(dir, "s", facts); err != nil {
			t.Fatal(err)
		}
		if got, ok := smart.Read(dir, "s", facts.Taken); !ok || got != facts {
			t.Errorf("%+v became %+v", facts, got)
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"version":1,"serial":"x","taken":"2026-11-28T12:00:00Z","pending":-5}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "s.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, ok := smart.Read(dir, "s", time.Unix(1_700_000_000, 0)); ok && (got.Pending < smart.Unknown || got.Version != smart.Version) {
			t.Errorf("%+v", got)
		}
	})
}
