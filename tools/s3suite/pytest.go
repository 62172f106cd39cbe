package main

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// result is how a test ended.
type result struct {
	test
	outcome string // passed, failed or skipped
	why     string // the last line of the failure
}

// batchMax is how many tests one Python runs: the names travel on its command
// line, and one that hangs takes no more than its batch with it.
const batchMax = 100

// suiteConfig is what the suite reads.
const suiteConfig = `[DEFAULT]
host = %[1]s
port = %[2]s
is_secure = %[3]t
ssl_verify = False
[fixtures]
bucket prefix = ashlar-{random}-
[s3 main]
display_name = %[6]s
user_id = %[7]s
email = main@example.com
access_key = %[4]s
secret_key = %[5]s
lc_debug_interval = %[12]d
%[13]s[s3 alt]
display_name = %[10]s
email = alt@example.com
user_id = %[11]s
access_key = %[8]s
secret_key = %[9]s
[s3 tenant]
display_name = %[10]s
user_id = %[11]s
access_key = %[8]s
secret_key = %[9]s
email = tenant@example.com
tenant = none
[iam]
email = iam@example.com
user_id = %[7]s
access_key = %[4]s
secret_key = %[5]s
display_name = %[6]s
[iam root]
access_key = %[4]s
secret_key = %[5]s
user_id = %[7]s
email = root@example.com
[iam alt root]
access_key = %[8]s
secret_key = %[9]s
user_id = %[11]s
email = altroot@example.com
`

func writeConfig(o options, path string) error {
	u, err := url.Parse(o.endpoint)
	if err != nil {
		return err
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	kms := ""
	for name, key := range map[string]string{"kms_keyid": o.kmsKey, "kms_keyid2": o.kmsKey2} {
		if key != "" {
			kms += name + " = " + key + "\n"
		}
	}
	text := fmt.Sprintf(suiteConfig, u.Hostname(), port, u.Scheme == "https", o.accessKey, o.secretKey, o.mainName, o.mainID,
		o.altAccessKey, o.altSecretKey, o.altName, o.altID, max(1, int(o.lifecycleDay.Seconds())), kms)
	return os.WriteFile(path, []byte(text), 0o600)
}

// runTests runs the tests in batches and returns one result for each.
func runTests(ctx context.Context, o options, dir string, tests []test) ([]result, error) {
	config := filepath.Join(dir, "s3tests.conf")
	if err := writeConfig(o, config); err != nil {
		return nil, err
	}
	checkout, err := filepath.Abs(o.checkout)
	if err != nil {
		return nil, err
	}
	var out []result
	for len(tests) > 0 {
		batch := tests[:min(len(tests), batchMax)]
		tests = tests[len(batch):]
		got, err := runBatch(ctx, o, checkout, config, filepath.Join(dir, "junit.xml"), batch)
		if err != nil {
			return nil, err
		}
		out = append(out, got...)
	}
	return out, nil
}

func runBatch(ctx context.Context, o options, checkout, config, junit string, batch []test) ([]result, error) {
	args := []string{"-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--tb=short", "--junitxml=" + junit}
	for _, t := range batch {
		args = append(args, t.file+"::"+t.name)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(len(batch))*o.perTest)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.python, args...)
	cmd.Dir = checkout
	cmd.Env = append(os.Environ(), "S3TEST_CONF="+config, "PYTHONDONTWRITEBYTECODE=1")
	os.Remove(junit)
	said, err := cmd.CombinedOutput()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		return nil, err
	}
	f, err := os.Open(junit)
	if err != nil {
		return nil, fmt.Errorf("pytest wrote no results: %w\n%s", err, said)
	}
	defer f.Close()
	return readJUnit(f, batch)
}

// junitCase is what pytest writes about a test; a parametrised one has several.
type junitCase struct {
	Name    string      `xml:"name,attr"`
	Failure *junitCause `xml:"failure"`
	Error   *junitCause `xml:"error"`
	Skipped *junitCause `xml:"skipped"`
}

type junitCause struct {
	Message string `xml:"message,attr"`
}

// readJUnit gives every test of the batch its result. A test that pytest says
// nothing about has failed.
func readJUnit(r io.Reader, batch []test) ([]result, error) {
	var doc struct {
		Cases []junitCase `xml:"testsuite>testcase"`
	}
	if err := xml.NewDecoder(r).Decode(&doc); err != nil {
		return nil, err
	}
	cases := map[string][]junitCase{}
	for _, c := range doc.Cases {
		name, _, _ := strings.Cut(c.Name, "[")
		cases[name] = append(cases[name], c)
	}
	var out []result
	for _, t := range batch {
		if len(cases[t.name]) == 0 {
			out = append(out, result{t, "failed", "pytest did not run it"})
		}
		for _, c := range cases[t.name] {
			out = append(out, judge(t, c))
		}
	}
	return out, nil
}

func judge(t test, c junitCase) result {
	t.name = c.Name
	for _, cause := range []*junitCause{c.Failure, c.Error} {
		if cause != nil {
			why, _, _ := strings.Cut(cause.Message, "\n")
			return result{t, "failed", why}
		}
	}
	if c.Skipped != nil {
		return result{t, "skipped", c.Skipped.Message}
	}
	return result{t, "passed", ""}
}

// report prints a line per group and returns how many tests failed.
func report(w io.Writer, results []result, failures bool) (failed int) {
	type count struct{ passed, failed, skipped int }
	groups := map[string]*count{}
	var total count
	for _, r := range results {
		c := groups[r.group]
		if c == nil {
			c = &count{}
			groups[r.group] = c
		}
		switch r.outcome {
		case "passed":
			c.passed++
			total.passed++
		case "skipped":
			c.skipped++
			total.skipped++
		default:
			c.failed++
			total.failed++
			if failures {
				fmt.Fprintf(w, "FAILED %-20s %s: %s\n", r.group, r.name, r.why)
			}
		}
	}
	var names []string
	for g := range groups {
		names = append(names, g)
	}
	sort.Strings(names)
	fmt.Fprintf(w, "%-22s %6s %6s %7s\n", "group", "passed", "failed", "skipped")
	for _, g := range names {
		fmt.Fprintf(w, "%-22s %6d %6d %7d\n", g, groups[g].passed, groups[g].failed, groups[g].skipped)
	}
	fmt.Fprintf(w, "%-22s %6d %6d %7d\n", "all", total.passed, total.failed, total.skipped)
	return total.failed
}
