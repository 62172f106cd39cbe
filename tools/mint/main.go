// Command mint runs a part of minio/mint, or the functional tests of minio/mc or
// minio/minio-go, that somebody brings along against a running endpoint, and prints how
// many tests passed and failed.
//
//	go run ./tools/mint -script DIR/run/core/awscli/test.sh -endpoint 127.0.0.1:9000 -access-key K -secret-key S
//	go run ./tools/mint -script DIR/run/core/s3cmd/test.sh …
//	go run ./tools/mint -script DIR/functional-tests.sh -mc PATH -tls …
//	go run ./tools/mint -script DIR/functional_tests.go -tls …
//
// The scripts run aws, s3cmd and jq, which must be installed, and mc, which is named.
// They make and delete buckets, all that there are among them. Tests that are kept for
// acceptance (package acceptance) are taken out before anything runs; the others run
// each for itself, although the scripts would end with the first that fails.
//
// A test of minio-go is a function that its main calls, however many lines it prints. Those
// of Signature Version 2, which Ashlar takes with --signature-v2, are counted with the others
// and without.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

type config struct {
	script, endpoint, accessKey, secretKey, region, mc string
	tls, failures                                      bool
	timeout                                            time.Duration
}

func main() {
	var c config
	flag.StringVar(&c.script, "script", "", "the `file` of the checkout that holds the tests")
	flag.StringVar(&c.endpoint, "endpoint", "", "`host:port` of the S3 endpoint")
	flag.StringVar(&c.accessKey, "access-key", "", "access key")
	flag.StringVar(&c.secretKey, "secret-key", "", "secret key")
	flag.StringVar(&c.region, "region", "us-east-1", "region of the endpoint")
	flag.StringVar(&c.mc, "mc", "", "the mc `binary`, for its own tests")
	flag.BoolVar(&c.tls, "tls", false, "the endpoint speaks TLS, with a certificate that SSL_CERT_FILE and AWS_CA_BUNDLE know")
	flag.BoolVar(&c.failures, "failures", false, "print the reason of each failure")
	flag.DurationVar(&c.timeout, "timeout", 30*time.Minute, "the script is ended then")
	flag.Parse()
	if c.script == "" || c.endpoint == "" || c.accessKey == "" || c.secretKey == "" {
		fmt.Fprintln(os.Stderr, "mint: set -script, -endpoint, -access-key and -secret-key")
		os.Exit(2)
	}
	if err := c.run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mint:", err)
		os.Exit(1)
	}
}

// dataFiles are the files that mint's scripts expect, with their sizes in bytes.
var dataFiles = map[string]int64{
	"0-b": 0, "1-b": 1, "1-kB": 1 << 10, "10-kB": 10 << 10, "33-kB": 33 << 10, "100-kB": 100 << 10, "1.03-MB": 1056 << 10, "1-MB": 1 << 20,
	"5-MB": 5 << 20, "5243880-b": 5243880, "6-MB": 6 << 20, "10-MB": 10 << 20, "11-MB": 11 << 20, "65-MB": 65 << 20, "129-MB": 129 << 20,
}

func (c *config) run(w io.Writer) error {
	source, err := os.ReadFile(c.script)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ashlar-mint-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if filepath.Ext(c.script) == ".go" {
		return c.runGo(w, dir, source)
	}
	script, tests, err := rewrite(source)
	if err != nil {
		return err
	}
	if tests == 0 {
		return c.unknown()
	}
	if err := c.prepare(dir, script); err != nil {
		return err
	}
	output, err := c.execute(dir, []string{"bash", "./test.sh", c.scheme() + c.endpoint}, "MINT_MODE=core", "MINT_DATA_DIR="+filepath.Join(dir, "data"))
	return c.report(w, results(output), tests, output, err)
}

func (c *config) runGo(w io.Writer, dir string, source []byte) error {
	source, tests, err := rewriteGo(source)
	if err != nil {
		return err
	}
	if len(tests) == 0 {
		return c.unknown()
	}
	output, err := c.goTests(dir, source)
	list := goResults(output)
	if err := c.report(w, list, len(tests), output, err); err != nil {
		return err
	}
	ofVersion2 := func(name string) bool { return strings.HasSuffix(name, version2) }
	list = slices.DeleteFunc(list, func(r result) bool { return ofVersion2(r.test) })
	tests = slices.DeleteFunc(tests, ofVersion2)
	fmt.Fprintf(w, "without Signature Version 2: %s\n", summary(list, len(tests)))
	return nil
}

func (c *config) unknown() error {
	return fmt.Errorf("%s runs no tests that this command understands", c.script)
}

// report prints what became of the tests. output and err are what their process left, for
// the case that none ended.
func (c *config) report(w io.Writer, list []result, tests int, output []byte, err error) error {
	if len(list) == 0 {
		return fmt.Errorf("no test ended (%v): %.2000s", err, output)
	}
	for _, r := range list {
		switch {
		case !c.failures || r.passed:
		case r.absent:
			fmt.Fprintf(w, "NOT APPLICABLE %s: %.400s\n", r.test, r.reason)
		default:
			fmt.Fprintf(w, "FAILED %s: %.400s\n", r.test, r.reason)
		}
	}
	fmt.Fprintln(w, summary(list, tests))
	if len(list) < tests { // some stand under a condition, for example TLS
		fmt.Fprintf(w, "%d were not run\n", tests-len(list))
	}
	return nil
}

func summary(list []result, tests int) string {
	passed, absent := 0, 0
	for _, r := range list {
		switch {
		case r.passed:
			passed++
		case r.absent:
			absent++
		}
	}
	text := fmt.Sprintf("%d passed, %d failed", passed, len(list)-passed-absent)
	if absent > 0 {
		text += fmt.Sprintf(", %d not applicable", absent)
	}
	return fmt.Sprintf("%s of %d", text, tests)
}

func (c *config) scheme() string {
	if c.tls {
		return "https://"
	}
	return "http://"
}

// prepare fills the folder in which the script runs.
func (c *config) prepare(dir string, script []byte) error {
	for _, sub := range []string{"data", "bin"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "test.sh"), script, 0o700); err != nil {
		return err
	}
	seed := rand.NewChaCha8([32]byte([]byte("what is in the files of mint doe")))
	for name, size := range dataFiles {
		f, err := os.Create(filepath.Join(dir, "data", "datafile-"+name))
		if err != nil {
			return err
		}
		_, err = io.CopyN(f, seed, size)
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return err
		}
	}
	if c.mc != "" {
		mc, err := filepath.Abs(c.mc)
		if err != nil {
			return err
		}
		if err := os.Symlink(mc, filepath.Join(dir, "mc")); err != nil {
			return err
		}
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		return err
	}
	return os.Symlink(python, filepath.Join(dir, "bin", "python")) // as mint's image has it
}

// execute runs a command in dir, with more in its environment, and returns all that it printed.
func (c *config) execute(dir string, command []string, more ...string) ([]byte, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	https := "0"
	if c.tls {
		https = "1"
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PATH=") && !strings.HasPrefix(v, "AWS_PROFILE=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"),
		"AWS_CONFIG_FILE="+filepath.Join(dir, "aws"), "AWS_SHARED_CREDENTIALS_FILE="+filepath.Join(dir, "aws"), // not the user's own
		"SERVER_ENDPOINT="+c.endpoint, "SERVER_REGION="+c.region,
		"ACCESS_KEY="+c.accessKey, "SECRET_KEY="+c.secretKey, "ENABLE_HTTPS="+https,
		"AWS_ACCESS_KEY_ID="+c.accessKey, "AWS_SECRET_ACCESS_KEY="+c.secretKey, "AWS_DEFAULT_REGION="+c.region, "BOTO_EXPERIMENTAL__NO_EMPTY_CONTINUE=true")
	cmd.Env = append(cmd.Env, more...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	return output.Bytes(), err
}
