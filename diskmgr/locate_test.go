package diskmgr_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ashlar"
	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev"
)

func TestDisksAreLocatedByTheirLabels(t *testing.T) {
	dir := t.TempDir()
	ids := map[string]ashlar.DiskID{}
	for _, name := range []string{"sda", "sdb"} {
		path := filepath.Join(dir, name)
		if err := blockdev.Create(path, diskBytes, true); err != nil {
			t.Fatal(err)
		}
		d := claim(t, path, options())
		ids[name] = d.Label().Disk
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	swap := func(a, b string) {
		if err := os.Rename(filepath.Join(dir, a), filepath.Join(dir, b)); err != nil {
			t.Fatal(err)
		}
	}
	swap("sda", "x")
	swap("sdb", "sda")
	swap("x", "sdb")
	if err := blockdev.Create(filepath.Join(dir, "sdc"), diskBytes, true); err != nil { // blank
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "sda"), filepath.Join(dir, "sdz")); err != nil {
		t.Fatal(err)
	}
	absent := filepath.Join(dir, "absent")
	paths, named := diskmgr.Places([]string{filepath.Join(dir, "sd*"), absent, filepath.Join(dir, "sdc")})
	if len(paths) != 4 || !named[absent] || !named[filepath.Join(dir, "sdc")] || named[filepath.Join(dir, "sda")] {
		t.Fatalf("%v %v", paths, named)
	}
	at := diskmgr.Locate(t.Context(), paths, ours)
	if len(at) != 2 || at[ids["sda"]] != filepath.Join(dir, "sdb") || at[ids["sdb"]] != filepath.Join(dir, "sda") {
		t.Errorf("%v of %v", at, ids)
	}
	if at := diskmgr.Locate(t.Context(), paths, ashlar.ClusterID{9}); len(at) != 0 {
		t.Errorf("of another cluster: %v", at)
	}
}

func TestAutoIsEveryDevice(t *testing.T) {
	found, err := diskmgr.Discover(t.Context(), diskmgr.DiscoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	paths, named := diskmgr.Places([]string{diskmgr.Auto})
	for _, p := range paths {
		if named[p] {
			t.Errorf("nobody named %s", p)
		}
	}
	// Loop devices come and go with other tests; disks stay.
	for _, f := range found {
		if f.Device.Serial != "" && !slices.Contains(paths, f.Device.Path) {
			t.Errorf("%s is not in %v", f.Device.Path, paths)
		}
	}
}

func TestWatchingPlugsEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- diskmgr.WatchPlugs(ctx, nil, func(diskmgr.Plug) {}) }()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("%v", err)
	}
}
