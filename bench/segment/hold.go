package segment

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"ashlar"
	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/label"
)

const blankOnly = "name a blank device, or a file that is not there yet"

// hold claims the blank device at path, or a scratch file that it makes there;
// release closes it and makes it blank again, or removes it.
func hold(ctx context.Context, op, path string, fileBytes int64, engine blockdev.Engine) (disk *diskmgr.Disk, release func() error, err error) {
	info, statErr := os.Stat(path)
	scratch := errors.Is(statErr, os.ErrNotExist)
	if statErr == nil && info.Mode().IsRegular() {
		return nil, nil, ashlar.E(op, path, ashlar.Exists, errors.New(blankOnly))
	}
	if scratch && strings.HasPrefix(filepath.Clean(path), "/dev/") && !strings.HasPrefix(filepath.Clean(path), "/dev/shm/") {
		return nil, nil, ashlar.E(op, path, ashlar.NotFound, errors.New("there is no such device; "+blankOnly+", outside /dev"))
	}
	if scratch {
		if err := writtenFile(path, fileBytes); err != nil {
			return nil, nil, err
		}
	}
	disk, err = diskmgr.Claim(ctx, path, diskmgr.ClaimOptions{
		OpenOptions: diskmgr.OpenOptions{Cluster: ashlar.ClusterID(ashlar.NewID()), Engine: engine},
		ClusterName: "bench", Name: "bench",
	})
	if err != nil {
		var refusal *diskmgr.Refusal
		if errors.As(err, &refusal) { // a claim may go on with the operator's consent, a bench may not
			err = ashlar.E(op, path, ashlar.KindOf(err), fmt.Errorf("%s; %s", refusal.Found.Why, blankOnly))
		}
		if scratch {
			err = errors.Join(err, os.Remove(path))
		}
		return nil, nil, err
	}
	return disk, func() error {
		err := disk.Close()
		switch {
		case scratch:
			err = errors.Join(err, os.Remove(path))
		case err == nil: // a device that cannot be closed keeps its label, which says whose it was
			err = wipe(path)
		}
		return err
	}, nil
}

// writtenFile makes a file all of which was written once: flushing into one that was
// only allocated measures the file system's journal. It is written as it is measured,
// past the page cache: each write would have to drop what that holds.
func writtenFile(path string, bytes int64) error {
	if err := blockdev.Create(path, bytes, false); err != nil {
		return err
	}
	fill := func() error {
		d, err := blockdev.Open(path)
		if err != nil {
			return err
		}
		zeros := blockdev.Aligned(int(ashlar.MiB))
		for off := int64(0); off < bytes && err == nil; off += int64(len(zeros)) {
			_, err = d.WriteAt(zeros[:min(int64(len(zeros)), bytes-off)], off)
		}
		return errors.Join(err, d.Flush(), d.Close())
	}
	if err := fill(); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// wipe makes the device blank again.
func wipe(path string) error {
	d, err := blockdev.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(label.Wipe(d), d.Close())
}
