package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// checkS3cmd drives s3cmd.
func (s *suite) checkS3cmd() {
	if !s.installed("s3cmd", "s3cmd", "--version") {
		return
	}
	config := filepath.Join(s.dir, "s3cfg")
	host := strings.TrimPrefix(strings.TrimPrefix(s.endpoint, "https://"), "http://")
	text := fmt.Sprintf("[default]\naccess_key = %s\nsecret_key = %s\nhost_base = %s\nhost_bucket = %s\nuse_https = %t\n",
		s.accessKey, s.secretKey, host, host, strings.HasPrefix(s.endpoint, "https://"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		s.check("configuration", err)
		return
	}
	s3cmd := func(arguments ...string) (string, error) {
		return s.command(nil, "s3cmd", append([]string{"--config", config, "--no-progress"}, arguments...)...)
	}
	bucket := s.bucket("b")
	url := "s3://" + bucket
	defer s.undisturbed().deleteBucket(bucket)
	_, err := s3cmd("mb", url)
	s.check("mb", err)
	if err != nil {
		return
	}
	for _, f := range s.files {
		back := filepath.Join(s.dir, "s3cmd-back.bin")
		if _, err = s3cmd("put", f.path, url+"/"+filepath.Base(f.path)); err == nil {
			if _, err = s3cmd("get", "--force", url+"/"+filepath.Base(f.path), back); err == nil {
				err = f.same(back)
			}
		}
		s.check("put and get "+f.size(), err)
	}
	out, err := s3cmd("ls", url)
	if err == nil {
		err = expectCount("files listed", strings.Count(out, "\n"), len(s.files))
	}
	s.check("ls", err)
	name := filepath.Base(s.files[2].path)
	_, err = s3cmd("cp", url+"/"+name, url+"/copy of it")
	if err == nil {
		_, err = s3cmd("mv", url+"/copy of it", url+"/moved/ümlaut & more")
	}
	if err == nil {
		out, err = s3cmd("info", url+"/moved/ümlaut & more")
		if err == nil && !strings.Contains(out, "4096") {
			err = fmt.Errorf("info says %q", out)
		}
	}
	s.check("cp, mv and info", err)
	s.check("get of what is not there", refused("does not exist")(s3cmd("get", url+"/nothing", filepath.Join(s.dir, "nothing"))))

	folder, back := url+"/tree/", filepath.Join(s.dir, "s3cmd-tree")
	defer os.RemoveAll(back)
	// An upload of many small files takes s3cmd a process and a connection: part of the tree will do.
	part := filepath.Join(s.tree, "odd names") + "/"
	_, err = s3cmd("sync", part, folder)
	if err == nil {
		out, err = s3cmd("sync", part, folder)
		if err == nil && strings.Contains(out, "upload:") {
			err = fmt.Errorf("the second time moves %q", out)
		}
	}
	s.check("sync up, and again moves nothing", err)
	if err = os.MkdirAll(back, 0o755); err == nil {
		if _, err = s3cmd("sync", folder, back+"/"); err == nil {
			err = sameTrees(part, back)
		}
	}
	s.check("sync down brings the tree back the same", err)
	_, err = s3cmd("del", "--recursive", "--force", url)
	if err == nil {
		_, err = s3cmd("rb", url)
	}
	s.check("del --recursive and rb", err)
}
