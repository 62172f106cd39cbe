package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// checkRestic keeps two backups of the tree in a repository, reads all of it back,
// restores, forgets one and prunes.
func (s *suite) checkRestic() {
	if !s.installed("restic", "restic", "version") {
		return
	}
	bucket, restored := s.bucket("b"), filepath.Join(s.dir, "restic-back")
	defer os.RemoveAll(restored)
	defer s.undisturbed().deleteBucket(bucket)
	restic := func(arguments ...string) (string, error) {
		return s.command([]string{
			"RESTIC_REPOSITORY=s3:" + s.endpoint + "/" + bucket + "/repository", "RESTIC_PASSWORD=not a secret",
			"RESTIC_CACHE_DIR=" + filepath.Join(s.dir, "restic-cache"),
		}, "restic", arguments...)
	}
	_, err := restic("init")
	s.check("init makes bucket and repository", err)
	if err != nil {
		return
	}
	_, err = restic("backup", s.tree)
	s.check("backup", err)
	added := filepath.Join(s.tree, "added later")
	if err = os.WriteFile(added, []byte("added"), 0o644); err == nil {
		_, err = restic("backup", s.tree)
	}
	s.check("backup again", errors.Join(err, os.Remove(added)))
	out, err := restic("snapshots", "--compact")
	if err == nil && !strings.Contains(out, "2 snapshots") {
		err = fmt.Errorf("two backups are listed as %q", out)
	}
	s.check("snapshots", err)
	_, err = restic("check", "--read-data")
	s.check("check --read-data", err)
	if _, err = restic("restore", "latest", "--target", restored); err == nil {
		if err = os.Remove(filepath.Join(restored, added)); err == nil {
			err = sameTrees(s.tree, filepath.Join(restored, s.tree))
		}
	}
	s.check("restore brings the tree back the same", err)
	_, err = restic("forget", "--keep-last", "1", "--prune")
	s.check("forget and prune", err)
	_, err = restic("check", "--read-data")
	s.check("check --read-data after prune", err)
}
