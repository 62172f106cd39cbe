package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"ashlar"
	"ashlar/bench/report"
)

const (
	// commandTimeout bounds one command of a client; the largest is the 2 GiB file.
	commandTimeout = 15 * time.Minute
	// reasonMax bounds what is shown of a client's words, in bytes.
	reasonMax = 600
)

type options struct {
	endpoint, accessKey, secretKey string
	only, aws, rclone, python      string
	large                          bool
	treeFiles                      int
}

// suite counts the checks of one run.
type suite struct {
	options
	ctx            context.Context
	dir            string // removed at the end
	id             string // in the names of all buckets of this run
	out            io.Writer
	client         string
	files          []file
	tree           string // folder with the tree to synchronise
	passed, failed int
}

// file is something to store, on the local disk.
type file struct {
	path   string
	bytes  int64
	sha256 string
}

// check prints what came of one check and counts it. What an interrupt cut
// short has neither passed nor failed.
func (s *suite) check(name string, err error) {
	if s.ctx.Err() != nil {
		return
	}
	if err == nil {
		s.passed++
		fmt.Fprintf(s.out, "ok %s: %s\n", s.client, name)
		return
	}
	s.failed++
	reason := strings.Join(strings.Fields(err.Error()), " ")
	if len(reason) > reasonMax {
		reason = reason[:reasonMax] + " …"
	}
	fmt.Fprintf(s.out, "FAILED %s: %s: %s\n", s.client, name, reason)
}

// awsConfig: aws-cli 1 makes presigned addresses with Signature Version 2 unless
// told otherwise, which nobody accepts any more.
const awsConfig = "[default]\ns3 =\n  signature_version = s3v4\n  addressing_style = path\n"

// prepare makes the files and the tree that all clients store.
func (s *suite) prepare() error {
	if err := os.WriteFile(filepath.Join(s.dir, "aws-config"), []byte(awsConfig), 0o600); err != nil {
		return err
	}
	sizes := []int64{0, 1, 4 * ashlar.KiB, 5 * ashlar.MiB, 100 * ashlar.MiB}
	if s.large {
		sizes = append(sizes, 2*ashlar.GiB)
	}
	for i, n := range sizes {
		f := file{path: filepath.Join(s.dir, fmt.Sprintf("file-%d.bin", n)), bytes: n}
		var err error
		if f.sha256, err = writeRandom(f.path, n, uint64(i)); err != nil {
			return err
		}
		s.files = append(s.files, f)
	}
	s.tree = filepath.Join(s.dir, "tree")
	return makeTree(s.tree, s.treeFiles)
}

func (f file) size() string { return report.Size(f.bytes) }

// writeRandom makes a file of pseudo-random bytes and returns their SHA-256.
func writeRandom(path string, size int64, seed uint64) (sum string, err error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	hash := sha256.New()
	key := sha256.Sum256(fmt.Appendf(nil, "seed %d", seed))
	_, err = io.CopyN(io.MultiWriter(f, hash), rand.NewChaCha8(key), size)
	return hex.EncodeToString(hash.Sum(nil)), err
}

func hashOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// same compares a file that came back with the one that went in, and removes it.
func (f file) same(back string) error {
	sum, err := hashOf(back)
	if err == nil && sum != f.sha256 {
		err = fmt.Errorf("sha256 is %s, stored was %s", sum, f.sha256)
	}
	os.Remove(back) // frees the disk; the folder goes at the end in any case
	return err
}

// installed checks that a client is there and prints its version.
func (s *suite) installed(program, debian string, version ...string) bool {
	if _, err := exec.LookPath(program); err != nil {
		s.check("is installed", fmt.Errorf("%s is not installed: apt-get install %s", program, debian))
		return false
	}
	out, err := s.command(nil, program, version...)
	first, _, _ := strings.Cut(out, "\n")
	if err != nil {
		s.check("starts", err)
		return false
	}
	fmt.Fprintf(s.out, "# %s: %s\n", s.client, first)
	return true
}

// start prepares a program that is interrupted, not killed, when ctx ends: it
// is in a process group of its own, so that the terminal does not do that too,
// and has a while to clean up.
func (s *suite) start(ctx context.Context, environment []string, program string, arguments ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, program, arguments...)
	c.Dir = s.dir
	c.Env = append(s.environment(), environment...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 30 * time.Second
	return c
}

// undisturbed lets the rest of a run go on although it was interrupted; it is
// for removing what was stored.
func (s *suite) undisturbed() *suite {
	quiet := *s
	quiet.ctx = context.WithoutCancel(s.ctx)
	return &quiet
}

// command runs a program and returns its standard output. What it wrote to
// standard error is in the error, if it failed.
func (s *suite) command(environment []string, program string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(s.ctx, commandTimeout)
	defer cancel()
	c := s.start(ctx, environment, program, arguments...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s %s", filepath.Base(program), strings.Join(arguments, " "), err, errs.String(), out.String())
	}
	return out.String(), nil
}

// environment is all that a client sees: the keys, and a home without a configuration.
func (s *suite) environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "LC_ALL=C.UTF-8", "TZ=UTC", "NO_PROXY=*",
		"AWS_ACCESS_KEY_ID=" + s.accessKey, "AWS_SECRET_ACCESS_KEY=" + s.secretKey,
		"AWS_DEFAULT_REGION=us-east-1", "AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=",
		"AWS_CONFIG_FILE=" + filepath.Join(s.dir, "aws-config"), "AWS_SHARED_CREDENTIALS_FILE=" + filepath.Join(s.dir, "no-aws-credentials"),
	}
}

func (s *suite) bucket(what string) string {
	return "ashlar-clients-" + s.client + "-" + what + "-" + s.id
}

// expectLines compares a listing with what it must be, line by line.
func expectLines(got string, want ...string) error {
	lines := strings.Split(strings.TrimRight(got, "\n"), "\n")
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		return fmt.Errorf("listed %q, want %q", lines, want)
	}
	return nil
}

// countPrefix counts the lines that begin with prefix.
func countPrefix(text, prefix string) (n int) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

func expectCount(what string, got, want int) error {
	if got != want {
		return fmt.Errorf("%d %s, want %d", got, what, want)
	}
	return nil
}
