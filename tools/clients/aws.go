package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// example are the keys by which the manual of S3 explains prefixes and
// delimiters, and two states with their cities; in byte order.
var example = []string{
	"CA/Los Angeles/harbour.jpg",
	"CA/San Francisco/bridge.jpg",
	"NY/Albany/capitol.jpg",
	"NY/New York/park.jpg",
	"photos/2006/February/sample2.jpg",
	"photos/2006/February/sample3.jpg",
	"photos/2006/February/sample4.jpg",
	"photos/2006/January/sample.jpg",
	"sample.jpg",
}

// checkAWS drives aws-cli.
func (s *suite) checkAWS() {
	if !s.installed(s.aws, "awscli", "--version") {
		return
	}
	bucket := s.bucket("b")
	url := "s3://" + bucket
	_, err := s.s3("mb", url)
	s.check("s3 mb", err)
	if err != nil {
		return // everything else would fail for the same reason
	}
	defer s.undisturbed().s3("rb", "--force", url) // does nothing if all went well
	for _, f := range s.files {
		s.check("s3 cp "+f.size()+" up and down", s.awsCopy(url, f))
	}
	s.check("s3 rm --recursive of the files", s.awsEmpty(url, len(s.files)))
	s.awsExample(url)
	s.awsSmall(bucket)
	s.awsSync(url)
	_, err = s.s3("rb", url)
	s.check("s3 rb", err)
	out, err := s.s3("ls")
	if err == nil && strings.Contains(out, bucket) {
		err = errors.New("the bucket is still listed")
	}
	s.check("s3 ls without the bucket", err)
	s.check("s3 ls of an unknown bucket is NoSuchBucket", refused("NoSuchBucket")(s.s3("ls", url)))
}

func (s *suite) s3(arguments ...string) (string, error) { return s.awsCommand("s3", arguments) }

func (s *suite) s3api(arguments ...string) (string, error) { return s.awsCommand("s3api", arguments) }

func (s *suite) awsCommand(service string, arguments []string) (string, error) {
	return s.command(nil, s.aws, append([]string{"--endpoint-url", s.endpoint, service}, arguments...)...)
}

// refused turns the answer of a command that must fail with a code into a verdict.
func refused(code string) func(string, error) error {
	return func(out string, err error) error {
		switch {
		case err == nil:
			return fmt.Errorf("it succeeded: %s", out)
		case !strings.Contains(err.Error(), code):
			return fmt.Errorf("want %s, got %w", code, err)
		}
		return nil
	}
}

func (s *suite) awsCopy(url string, f file) error {
	key := url + "/files/" + filepath.Base(f.path)
	if _, err := s.s3("cp", "--no-progress", f.path, key); err != nil {
		return err
	}
	back := filepath.Join(s.dir, "back.bin")
	if _, err := s.s3("cp", "--no-progress", key, back); err != nil {
		return err
	}
	return f.same(back)
}

// awsEmpty removes everything in the bucket, which must be that many objects.
func (s *suite) awsEmpty(url string, objects int) error {
	out, err := s.s3("rm", "--recursive", url)
	if err != nil {
		return err
	}
	if err := expectCount("deleted", countPrefix(out, "delete:"), objects); err != nil {
		return err
	}
	// An empty listing is exit status 0 for a bucket, with no output.
	out, err = s.s3("ls", "--recursive", url)
	if err == nil && out != "" {
		err = fmt.Errorf("still listed: %s", out)
	}
	return err
}

var listed = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) +(\d+) (.+)$`)

// plainListing takes date and padding off the lines of `s3 ls`: what is left is
// "PRE prefix/" or "size key". A date that is not now is an error.
func plainListing(out string) (lines []string, err error) {
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		if prefix, ok := strings.CutPrefix(strings.TrimLeft(line, " "), "PRE "); ok {
			lines = append(lines, "PRE "+prefix)
			continue
		}
		m := listed.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("not a line of a listing: %q", line)
		}
		at, err := time.Parse(time.DateTime, m[1])
		if err != nil || time.Since(at).Abs() > 10*time.Minute {
			return nil, fmt.Errorf("%q: the time is not now", line)
		}
		lines = append(lines, m[2]+" "+m[3])
	}
	return lines, nil
}

// awsExample stores the example, each key with as many bytes as it is long, and lists it.
func (s *suite) awsExample(url string) {
	root := filepath.Join(s.dir, "example")
	var all []string
	for _, key := range example {
		full := filepath.Join(root, key)
		err := os.MkdirAll(filepath.Dir(full), 0o755)
		if err == nil {
			err = os.WriteFile(full, []byte(key), 0o644)
		}
		if err != nil {
			s.check("s3 ls example", err)
			return
		}
		all = append(all, fmt.Sprintf("%d %s", len(key), key))
	}
	_, err := s.s3("cp", "--recursive", "--no-progress", root, url)
	s.check("s3 cp --recursive of the example", err)
	for _, c := range []struct {
		name      string
		arguments []string
		want      []string
	}{
		{"s3 ls", []string{url}, []string{"PRE CA/", "PRE NY/", "PRE photos/", "10 sample.jpg"}},
		{"s3 ls --recursive", []string{"--recursive", url}, all},
		{"s3 ls of a prefix without a slash", []string{url + "/photos"}, []string{"PRE photos/"}},
		{"s3 ls photos/2006/", []string{url + "/photos/2006/"}, []string{"PRE February/", "PRE January/"}},
		{"s3 ls photos/2006/February/", []string{url + "/photos/2006/February/"}, []string{"32 sample2.jpg", "32 sample3.jpg", "32 sample4.jpg"}},
		{"s3 ls CA/ NY/ --recursive", []string{"--recursive", url + "/NY/"}, []string{"21 NY/Albany/capitol.jpg", "20 NY/New York/park.jpg"}},
		{"s3 ls with pages of 2", []string{"--recursive", "--page-size", "2", url}, all},
	} {
		out, err := s.s3(append([]string{"ls"}, c.arguments...)...)
		var lines []string
		if err == nil {
			lines, err = plainListing(out)
		}
		if err == nil {
			err = expectLines(strings.Join(lines, "\n"), c.want...)
		}
		s.check(c.name, err)
	}
	s.check("s3 rm --recursive of the example", s.awsEmpty(url, len(example)))
}

// awsSmall: the single calls that people make from scripts.
func (s *suite) awsSmall(bucket string) {
	url := "s3://" + bucket
	small := s.files[2]
	_, err := s.s3("cp", "--no-progress", "--content-type", "text/x-test", "--metadata", "colour=grey", small.path, url+"/a b/ü+.txt")
	s.check("s3 cp with metadata", err)
	out, err := s.s3api("head-object", "--bucket", bucket, "--key", "a b/ü+.txt", "--query", "[ContentLength,ContentType,Metadata.colour]", "--output", "text")
	if err == nil {
		err = expectLines(out, strconv.FormatInt(small.bytes, 10)+"\ttext/x-test\tgrey")
	}
	s.check("s3api head-object", err)
	s.check("s3api get-object with a range", s.awsRange(bucket, small))
	out, err = s.s3("presign", url+"/a b/ü+.txt")
	if err == nil {
		err = s.fetch(strings.TrimSpace(out), small)
	}
	s.check("s3 presign and GET", err)
	_, err = s.s3("mv", "--no-progress", url+"/a b/ü+.txt", url+"/moved.txt")
	if err == nil {
		err = s.awsBack(url+"/moved.txt", small)
	}
	s.check("s3 mv inside the bucket", err)
	s.check("s3api head-object of an unknown key is 404", refused("404")(s.s3api("head-object", "--bucket", bucket, "--key", "a b/ü+.txt")))
	s.check("s3 rb of a bucket that is not empty is BucketNotEmpty", refused("BucketNotEmpty")(s.s3("rb", url)))
	_, err = s.s3("rm", url+"/moved.txt")
	s.check("s3 rm", err)
}

func (s *suite) awsBack(key string, f file) error {
	back := filepath.Join(s.dir, "back.bin")
	if _, err := s.s3("cp", "--no-progress", key, back); err != nil {
		return err
	}
	return f.same(back)
}

func (s *suite) awsRange(bucket string, f file) error {
	back := filepath.Join(s.dir, "range.bin")
	defer os.Remove(back)
	if _, err := s.s3api("get-object", "--bucket", bucket, "--key", "a b/ü+.txt", "--range", "bytes=1000-1999", back); err != nil {
		return err
	}
	whole, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	part, err := os.ReadFile(back)
	if err == nil && string(part) != string(whole[1000:2000]) {
		err = fmt.Errorf("%d bytes came back, or others than asked for", len(part))
	}
	return err
}

// fetch reads a presigned address without a client of S3.
func (s *suite) fetch(address string, f file) error {
	request, err := http.NewRequestWithContext(s.ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && (answer.StatusCode != http.StatusOK || int64(len(body)) != f.bytes) {
		err = fmt.Errorf("%s, %d bytes", answer.Status, len(body))
	}
	return err
}

// awsSync synchronises the tree both ways; a second time nothing moves.
func (s *suite) awsSync(url string) {
	back := filepath.Join(s.dir, "aws-back")
	defer os.RemoveAll(back)
	for _, step := range []struct {
		name, from, to, word string
		count                int
	}{
		{"s3 sync up", s.tree, url + "/tree", "upload:", s.treeFiles},
		{"s3 sync up again moves nothing", s.tree, url + "/tree", "", 0},
		{"s3 sync down", url + "/tree", back, "download:", s.treeFiles},
		{"s3 sync down again moves nothing", url + "/tree", back, "", 0},
		{"s3 sync inside the bucket", url + "/tree/room-1", url + "/copy", "copy:", s.countBelow("room-1")},
	} {
		out, err := s.s3("sync", "--no-progress", step.from, step.to)
		if err == nil {
			err = expectCount("moved", countPrefix(out, step.word), step.count)
		}
		s.check(fmt.Sprintf("%s (%d files)", step.name, step.count), err)
	}
	s.check("the tree came back the same", sameTrees(s.tree, back))
	s.check("s3 rm --recursive of the tree", s.awsEmpty(url, s.treeFiles+s.countBelow("room-1")))
}

func (s *suite) countBelow(folder string) int {
	all, err := readTree(filepath.Join(s.tree, folder))
	if err != nil {
		return -1 // no count is right then, and the check fails
	}
	return len(all)
}
