package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// mountTimeout bounds the wait until s3fs has mounted.
const mountTimeout = 20 * time.Second

// checkS3fs mounts a bucket and works in it as in a folder.
func (s *suite) checkS3fs() {
	if !s.installed("s3fs", "s3fs", "--version") {
		return
	}
	bucket, folder := s.bucket("b"), filepath.Join(s.dir, "s3fs")
	defer s.undisturbed().deleteBucket(bucket)
	if err := s.createBucket(bucket); err != nil {
		s.check("bucket", err)
		return
	}
	unmount, err := s.mount(bucket, folder)
	s.check("mount", err)
	if err != nil {
		return
	}
	s.check("files up and down", s.copyFiles(folder))
	tree := filepath.Join(folder, "tree")
	err = os.CopyFS(tree, os.DirFS(filepath.Join(s.tree, "odd names")))
	s.check("a tree of odd names", errors.Join(err))
	name := filepath.Join(folder, "renamed.txt")
	if err = os.WriteFile(filepath.Join(folder, "first.txt"), []byte("first"), 0o644); err == nil {
		if err = os.Rename(filepath.Join(folder, "first.txt"), name); err == nil {
			err = appendTo(name, " and more")
		}
	}
	s.check("rename and append", err)
	s.check("unmount", unmount())

	// What another mount sees is what is stored.
	unmount, err = s.mount(bucket, folder)
	if err == nil {
		err = sameTrees(filepath.Join(s.tree, "odd names"), tree)
	}
	s.check("the tree is the same in a mount of its own", err)
	b, err := os.ReadFile(name)
	if err == nil && string(b) != "first and more" {
		err = fmt.Errorf("it holds %q", b)
	}
	s.check("the renamed file too", err)
	err = os.RemoveAll(tree)
	if _, gone := os.Stat(tree); err == nil && !os.IsNotExist(gone) {
		err = fmt.Errorf("still there: %v", gone)
	}
	s.check("remove the tree", err)
	s.check("unmount again", unmount())
}

func appendTo(name, text string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// copyFiles stores the files in a folder and compares them where they lie.
func (s *suite) copyFiles(folder string) error {
	var errs []error
	for _, f := range s.files {
		at := filepath.Join(folder, filepath.Base(f.path))
		if _, err := s.command(nil, "cp", f.path, at); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, f.same(at)) // which removes it
	}
	return errors.Join(errs...)
}

// mount mounts the bucket until unmount is called. s3fs runs in the foreground, so that
// its end can be waited for.
func (s *suite) mount(bucket, folder string) (unmount func() error, err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	c := s.start(ctx, []string{"AWSACCESSKEYID=" + s.accessKey, "AWSSECRETACCESSKEY=" + s.secretKey}, "s3fs", bucket, folder, "-f",
		"-o", "url="+s.endpoint, "-o", "use_path_request_style", "-o", "endpoint=us-east-1")
	if err := c.Start(); err != nil {
		cancel()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	unmount = func() error {
		err := unix.Unmount(folder, 0)
		if err != nil {
			cancel()
		}
		select {
		case <-ended: // s3fs 1.90 aborts now and then when it ends; what it stored the next mount tells
			return err
		case <-time.After(mountTimeout):
			cancel()
			return errors.Join(err, errors.New("s3fs did not end"), <-ended)
		}
	}
	for end := time.Now().Add(mountTimeout); ; time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-ended:
			cancel()
			return nil, fmt.Errorf("s3fs ended before it had mounted: %w", err)
		default:
		}
		if mounted(folder) {
			return unmount, nil
		}
		if time.Now().After(end) {
			cancel()
			return nil, errors.Join(errors.New("s3fs did not mount"), <-ended)
		}
	}
}

// mounted reports whether something is mounted on the folder.
func mounted(folder string) bool {
	var at, above unix.Stat_t
	return unix.Stat(folder, &at) == nil && unix.Stat(filepath.Dir(folder), &above) == nil && at.Dev != above.Dev
}
