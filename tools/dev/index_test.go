package dev

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ashlar/tools/dev/devtest"
)

// TestIndexLost deletes the Pebble indexes of disks: they are caches, and every
// piece must be found again in the logs.
func TestIndexLost(t *testing.T) {
	cfg := testConfig(t)
	p := startMany(t, cfg)
	c := s3Client(t, p.S3(), cfg)
	makeBucket(t, c)
	objects := samples(1, "index")
	for i := range 40 {
		key := fmt.Sprintf("many/%d", i)
		objects = append(objects, object{key, 1, content(1, key, 1, 1000*i)})
	}
	putAll(t, c, objects)
	devtest.AwaitHealthy(t, healBound, p.Status)
	in := newInspector(t, p.place)
	whole := in.census(t, objects)

	t.Run("of one host", func(t *testing.T) {
		apply(t, p, KillHost, "b1")
		dropIndexes(t, cfg, "b1")
		apply(t, p, ReviveHost, "b1")
		in.wantCensus(t, objects, whole)
		// Without one host of each of the other zones, 4+2 needs every piece of
		// the rebuilt host. Of c1 only the disks die: metadata needs two zones.
		apply(t, p, KillHost, "a1")
		for _, d := range p.specs[4].Disks {
			apply(t, p, KillDisk, d.Name)
		}
		checkAll(t, c, objects, "a1 and the disks of c1 are dead, b1 was rebuilt")
		for _, d := range p.specs[4].Disks {
			apply(t, p, ReviveDisk, d.Name)
		}
		apply(t, p, ReviveHost, "a1")
	})
	t.Run("of all hosts", func(t *testing.T) {
		for _, spec := range p.specs {
			if err := p.super.kill(spec.Name); err != nil {
				t.Fatal(err)
			}
		}
		for _, spec := range p.specs {
			dropIndexes(t, cfg, spec.Name)
		}
		for _, spec := range p.specs {
			if err := p.super.start(spec.Name); err != nil {
				t.Fatal(err)
			}
		}
		devtest.AwaitHealthy(t, healBound, p.Status)
		in.wantCensus(t, objects, whole)
		checkAll(t, c, objects, "every index was rebuilt")
		more := samples(2, "after")
		putAll(t, c, more)
		checkAll(t, c, more, "written after the rebuild")
	})
}

// dropIndexes deletes the indexes of a host that is not running.
func dropIndexes(t *testing.T, cfg Config, host string) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(cfg.hostDir(host), "state", "index", "*"))
	if err != nil || len(dirs) != cfg.Disks {
		t.Fatalf("%d indexes of %s, %v: want %d", len(dirs), host, err, cfg.Disks)
	}
	for _, dir := range dirs {
		if files, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*")); err != nil || len(files) == 0 {
			t.Fatalf("%s is no index: %v", dir, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// apply applies a verb.
func apply(t testing.TB, c target, verb, name string) {
	t.Helper()
	if err := c.Fault(t.Context(), verb, name); err != nil {
		t.Fatalf("%s %s: %v", verb, name, err)
	}
}

// census counts the pieces of the objects by disk. All must have all.
func (in *inspector) census(t *testing.T, objects []object) map[string]int {
	t.Helper()
	byDisk := map[string]int{}
	for _, o := range objects {
		devtest.Eventually(t, time.Minute, func() error {
			stripes, err := in.locate(t.Context(), o.key)
			if err != nil {
				return err
			}
			for _, s := range stripes {
				for _, has := range s.has {
					if has != "yes" {
						return fmt.Errorf("%s: %v", o.key, s)
					}
				}
			}
			for _, s := range stripes {
				for _, disk := range s.disks {
					byDisk[disk]++
				}
			}
			return nil
		})
	}
	return byDisk
}

func (in *inspector) wantCensus(t *testing.T, objects []object, want map[string]int) {
	t.Helper()
	got := in.census(t, objects)
	for disk, n := range want {
		if got[disk] != n {
			t.Errorf("%s has %d pieces of the objects, want %d", disk, got[disk], n)
		}
	}
}
