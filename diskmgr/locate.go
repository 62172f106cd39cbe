package diskmgr

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/label"
	"ashlar/diskmgr/probe"
)

// Auto, in place of a path, means every block device of this machine.
const Auto = "auto"

// Places returns the devices and files that the patterns stand for now: a path
// for itself, whether it is there or not, a glob for what it matches, Auto for
// every whole block device. A device that several patterns or links reach is
// returned once. Named says of each whether a pattern named it exactly.
func Places(patterns []string) (paths []string, named map[string]bool) {
	named = map[string]bool{}
	seen := map[string]bool{}
	add := func(path string, exact bool) {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			real = path
		}
		if !seen[real] {
			seen[real] = true
			paths = append(paths, path)
			named[path] = exact
		}
	}
	wide := func(p string) bool { return p == Auto || strings.ContainsAny(p, "*?[") }
	for _, p := range patterns {
		if !wide(p) {
			add(p, true)
		}
	}
	for _, p := range patterns {
		switch {
		case p == Auto:
			devices, _ := probe.Devices(os.DirFS("/")) // no sysfs, no devices
			for _, d := range devices {
				add(d.Path, false)
			}
		case wide(p):
			matches, _ := filepath.Glob(p) // sorted; a malformed pattern matches nothing
			for _, m := range matches {
				add(m, false)
			}
		}
	}
	return paths, named
}

// Locate reads the labels of the devices and files, without taking hold, and
// returns where the disks of the cluster are. Paths without a label of it are
// left out, those that do not answer within lookTimeout too. Of a disk that is
// reached at two paths one is returned.
func Locate(ctx context.Context, paths []string, cluster ashlar.ClusterID) map[ashlar.DiskID]string {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	type at struct {
		disk ashlar.DiskID
		path string
	}
	found := make(chan at, len(paths)) // room for all: a late answer blocks nobody
	tokens := make(chan struct{}, lookersMax)
	var all sync.WaitGroup
	for _, path := range paths {
		all.Go(func() { // ends when the device answers
			select {
			case tokens <- struct{}{}:
			case <-ctx.Done():
				return
			}
			defer func() { <-tokens }()
			if l, ok := labelAt(path); ok && l.Cluster == cluster {
				found <- at{l.Disk, path}
			}
		})
	}
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	disks := map[ashlar.DiskID]string{}
	for range len(found) {
		f := <-found
		if before, twice := disks[f.disk]; !twice || slices.Index(paths, f.path) < slices.Index(paths, before) {
			disks[f.disk] = f.path
		}
	}
	return disks
}

func labelAt(path string) (label.Label, bool) {
	dev, err := blockdev.OpenReadOnly(path)
	if err != nil {
		return label.Label{}, false
	}
	defer dev.Close()
	if dev.Bytes() < DeviceBytesMin {
		return label.Label{}, false
	}
	l, _, err := label.Read(dev)
	return l, err == nil
}
