package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"ashlar/diskmgr"
)

// checkDevices refuses devices for a new cluster that are not blank: all of
// them at once, and before anything is written to any. A start that fails
// halfway would leave the good ones claimed by a cluster that never was.
func checkDevices(devices []string) error {
	if len(devices) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	names, files := map[string]string{}, []string(nil) // by path without links
	for _, name := range devices {
		path, err := filepath.EvalSymlinks(name)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		var info fs.FileInfo
		if err == nil {
			info, err = os.Stat(path)
		}
		if err != nil {
			return fmt.Errorf("--devices %s: %w", name, err)
		}
		if first, twice := names[path]; twice {
			return fmt.Errorf("--devices names %s twice, as %s and as %s", path, first, name)
		}
		if names[path] = name; info.Mode().IsRegular() {
			files = append(files, path)
		}
	}
	found, err := diskmgr.Discover(ctx, diskmgr.DiscoverOptions{Files: files})
	if err != nil {
		return err
	}
	return judgeDevices(names, found)
}

func judgeDevices(names map[string]string, found []diskmgr.Found) error {
	var errs []error
	for _, f := range found {
		name, asked := names[f.Device.Path]
		if !asked {
			continue
		}
		delete(names, f.Device.Path)
		switch f.State {
		case diskmgr.Blank:
		case diskmgr.Ours: // of any cluster: there is none yet that it could belong to
			errs = append(errs, fmt.Errorf("--devices %s: it is disk %q of the Ashlar cluster %q: start that one with its --dir, or wipe the device",
				name, f.Label.Name, f.Label.ClusterName))
		default:
			errs = append(errs, fmt.Errorf("--devices %s: %s", name, f.Why))
		}
	}
	for _, name := range names {
		errs = append(errs, fmt.Errorf("--devices %s: it is no block device and no file", name))
	}
	return errors.Join(errs...)
}
