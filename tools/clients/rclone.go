package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// remote is the name that rclone knows the endpoint by.
const remote = "ashlar:"

// checkRclone drives rclone.
func (s *suite) checkRclone() {
	if !s.installed(s.rclone, "rclone", "version") {
		return
	}
	bucket := remote + s.bucket("b")
	_, err := s.rcloneRun("mkdir", bucket)
	s.check("mkdir", err)
	if err != nil {
		return
	}
	defer s.undisturbed().rcloneRun("purge", bucket) // does nothing if all went well
	for _, f := range s.files {
		s.check("copyto "+f.size()+" up and down", s.rcloneCopy(bucket+"/files/", f))
	}
	s.rcloneExample(bucket + "/example")
	s.rcloneSync(bucket + "/tree")
	s.rcloneVersions(remote + s.bucket("v"))
	_, err = s.rcloneRun("purge", bucket)
	s.check("purge", err)
	out, err := s.rcloneRun("lsf", remote)
	if err == nil && strings.Contains(out, s.bucket("b")) {
		err = errors.New("the bucket is still listed")
	}
	s.check("lsf without the bucket", err)
}

// rcloneRun runs rclone with the endpoint as its only remote. The output holds
// standard output only; logs are asked for with a file.
func (s *suite) rcloneRun(arguments ...string) (string, error) {
	const prefix = "RCLONE_CONFIG_ASHLAR_"
	environment := []string{
		prefix + "TYPE=s3", prefix + "PROVIDER=Other", prefix + "ENDPOINT=" + s.endpoint, prefix + "REGION=us-east-1",
		prefix + "ACCESS_KEY_ID=" + s.accessKey, prefix + "SECRET_ACCESS_KEY=" + s.secretKey,
		prefix + "FORCE_PATH_STYLE=true", prefix + "UPLOAD_CUTOFF=16Mi", prefix + "CHUNK_SIZE=8Mi",
		"RCLONE_CONFIG=" + filepath.Join(s.dir, "no-rclone.conf"), "RCLONE_RETRIES=1", "RCLONE_TRANSFERS=8", "RCLONE_CHECKERS=8",
	}
	return s.command(environment, s.rclone, arguments...)
}

func (s *suite) rcloneCopy(folder string, f file) error {
	key := folder + filepath.Base(f.path)
	if _, err := s.rcloneRun("copyto", f.path, key); err != nil {
		return err
	}
	back := filepath.Join(s.dir, "back.bin")
	if _, err := s.rcloneRun("copyto", key, back); err != nil {
		return err
	}
	return f.same(back)
}

func (s *suite) rcloneExample(folder string) {
	root := filepath.Join(s.dir, "rclone-example")
	for _, key := range example {
		full := filepath.Join(root, key)
		err := os.MkdirAll(filepath.Dir(full), 0o755)
		if err == nil {
			err = os.WriteFile(full, []byte(key), 0o644)
		}
		if err != nil {
			s.check("copy of the example", err)
			return
		}
	}
	_, err := s.rcloneRun("copy", root, folder)
	s.check("copy of the example", err)
	for _, c := range []struct {
		name      string
		arguments []string
		want      []string
	}{
		{"lsf", []string{folder}, []string{"CA/", "NY/", "photos/", "sample.jpg"}},
		{"lsf -R --files-only", []string{"-R", "--files-only", folder}, example},
		{"lsf -R --files-only with pages of 2", []string{"-R", "--files-only", "--s3-list-chunk", "2", folder}, example},
		{"lsf of a folder with sizes", []string{"--format", "sp", folder + "/photos/2006/February"}, []string{"32;sample2.jpg", "32;sample3.jpg", "32;sample4.jpg"}},
		{"lsf with list type 1", []string{"-R", "--files-only", "--s3-list-version", "1", folder}, example},
	} {
		out, err := s.rcloneRun(append([]string{"lsf"}, c.arguments...)...)
		if err == nil {
			lines := strings.Split(strings.TrimSpace(out), "\n")
			slices.Sort(lines) // rclone lists folders side by side, in no order
			err = expectLines(strings.Join(lines, "\n"), c.want...)
		}
		s.check(c.name, err)
	}
	_, err = s.rcloneRun("moveto", folder+"/sample.jpg", folder+"/NY/moved here.jpg")
	var out string
	if err == nil {
		if out, err = s.rcloneRun("cat", folder+"/NY/moved here.jpg"); err == nil && out != "sample.jpg" {
			err = fmt.Errorf("it holds %q", out)
		}
	}
	s.check("moveto inside the bucket", err)
	_, err = s.rcloneRun("delete", folder)
	if err == nil {
		if out, err = s.rcloneRun("lsf", "-R", "--files-only", folder); err == nil && out != "" {
			err = fmt.Errorf("still listed: %s", out)
		}
	}
	s.check("delete", err)
}

// rcloneVersions overwrites and deletes a file of a bucket with versions, reads the
// old ones back, and removes them.
func (s *suite) rcloneVersions(bucket string) {
	defer s.undisturbed().rcloneRun("purge", bucket)
	listed := func(arguments ...string) ([]string, error) {
		out, err := s.rcloneRun(append([]string{"lsf", bucket}, arguments...)...)
		return strings.Fields(out), err
	}
	_, err := s.rcloneRun("mkdir", bucket)
	if err == nil {
		_, err = s.rcloneRun("backend", "versioning", bucket, "Enabled")
	}
	s.check("backend versioning", err)
	if err != nil {
		return
	}
	source := filepath.Join(s.dir, "versions.txt")
	for _, text := range []string{"first", "second"} {
		if err == nil {
			err = os.WriteFile(source, []byte(text), 0o644)
		}
		if err == nil {
			_, err = s.rcloneRun("copyto", "--ignore-times", source, bucket+"/note.txt")
		}
	}
	var names []string
	if err == nil {
		names, err = listed("--s3-versions")
	}
	old := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "note.txt" })
	if err == nil && (len(names) != 2 || len(old) != 1 || !strings.HasPrefix(old[0], "note-v")) {
		err = fmt.Errorf("listed: %q", names)
	}
	s.check("lsf --s3-versions", err)
	if err != nil {
		return
	}
	out, err := s.rcloneRun("cat", "--s3-versions", bucket+"/"+old[0])
	if err == nil && out != "first" {
		err = fmt.Errorf("it holds %q", out)
	}
	s.check("cat of an old version", err)
	if _, err = s.rcloneRun("deletefile", bucket+"/note.txt"); err == nil {
		names, err = listed()
	}
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("still listed: %q", names)
	}
	if err == nil {
		names, err = listed("--s3-versions")
	}
	if err == nil && len(names) != 2 {
		err = fmt.Errorf("of two versions are listed: %q", names)
	}
	s.check("deletefile leaves the versions", err)
	if _, err = s.rcloneRun("backend", "cleanup-hidden", bucket); err == nil {
		names, err = listed("--s3-versions")
	}
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("still listed: %q", names)
	}
	s.check("backend cleanup-hidden", err)
}

// rcloneSync synchronises the tree both ways; a second time nothing moves.
func (s *suite) rcloneSync(folder string) {
	back := filepath.Join(s.dir, "rclone-back")
	defer os.RemoveAll(back)
	for _, step := range []struct {
		name, from, to string
		count          int
	}{
		{"sync up", s.tree, folder, s.treeFiles},
		{"sync up again moves nothing", s.tree, folder, 0},
		{"sync down", folder, back, s.treeFiles},
		{"sync down again moves nothing", folder, back, 0},
	} {
		moved, err := s.rcloneMoved("sync", step.from, step.to)
		if err == nil {
			err = expectCount("moved", moved, step.count)
		}
		s.check(fmt.Sprintf("%s (%d files)", step.name, step.count), err)
	}
	s.check("the tree came back the same", sameTrees(s.tree, back))
	_, err := s.rcloneRun("check", s.tree, folder)
	s.check("check by hash", err)
	_, err = s.rcloneRun("check", "--download", s.tree, folder)
	s.check("check by bytes", err)
	// A check that cannot fail proves nothing.
	changed := filepath.Join(back, "room-1")
	if err := os.RemoveAll(changed); err != nil {
		s.check("check finds what is missing", err)
		return
	}
	s.check("check finds what is missing", refused("differences found")(s.rcloneRun("check", back, folder)))
}

// rcloneMoved runs a command and counts the files that its log says it touched.
func (s *suite) rcloneMoved(arguments ...string) (int, error) {
	log := filepath.Join(s.dir, "rclone.log")
	os.Remove(log) // left by the command before
	_, err := s.rcloneRun(append(arguments, "--log-level", "INFO", "--log-file", log)...)
	text, errLog := os.ReadFile(log)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, text)
	}
	moved := 0
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, ": Copied (") || strings.Contains(line, ": Updated modification time") || strings.Contains(line, ": Deleted") {
			moved++
		}
	}
	return moved, errLog
}
