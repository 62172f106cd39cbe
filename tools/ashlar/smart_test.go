package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ashlar/diskmgr"
	"ashlar/diskmgr/label"
	"ashlar/diskmgr/probe"
	"ashlar/diskmgr/smart"
)

// TestSmartAsksOurDisksOnly, and leaves for each what `ashlar disk list` shows.
func TestSmartAsksOurDisksOnly(t *testing.T) {
	sample, err := filepath.Abs("../../diskmgr/smart/testdata/ata-failing.json")
	if err != nil {
		t.Fatal(err)
	}
	tool := filepath.Join(t.TempDir(), "smartctl")
	script := "#!/bin/sh\necho \"$3\" >>$0.asked\n[ $3 = /dev/mute ] && exit 2\ncat " + sample + "\nexit 24\n"
	if err := os.WriteFile(tool, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	device := func(state diskmgr.State, path, serial string) diskmgr.Found {
		return diskmgr.Found{State: state, Device: probe.Device{Path: path, Serial: serial}, Label: label.Label{Name: "b1/d01", Serial: serial}}
	}
	found := []diskmgr.Found{
		device(diskmgr.Ours, "/dev/failing", "F1"), device(diskmgr.Ours, "/dev/mute", "M1"), device(diskmgr.Ours, "/dev/nameless", ""),
		device(diskmgr.NotOurs, "/dev/theirs", "T1"), device(diskmgr.Blank, "/dev/blank", "B1"),
	}
	dir := filepath.Join(t.TempDir(), "smart")
	var out bytes.Buffer
	if err := askAll(t.Context(), &out, tool, dir, found); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/dev/failing  b1/d01 F1: FAILING, 4032 reallocated", "/dev/mute  b1/d01: ", "/dev/nameless  b1/d01: has no serial"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	asked, err := os.ReadFile(tool + ".asked")
	if err != nil || string(asked) != "/dev/failing\n/dev/mute\n/dev/nameless\n" {
		t.Errorf("asked %q, %v", asked, err)
	}
	for serial, want := range map[string]bool{"F1": true, "M1": false, "T1": false, "B1": false} {
		if _, ok := smart.Read(dir, serial, time.Now()); ok != want {
			t.Errorf("%s: facts %v", serial, ok)
		}
	}
	var table bytes.Buffer
	if err := printDisks(&table, []diskRow{newDiskRow(found[0], dir), newDiskRow(found[1], dir)}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(table.String(), "\n")
	if !strings.Contains(lines[1], "FAILING, 4032 reallocated, 0 link CRC, 41 °C") || strings.Contains(lines[2], "reallocated") {
		t.Errorf("\n%s", table.String())
	}
}
