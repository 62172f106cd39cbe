// Command s3suite runs an external checkout of ceph/s3-tests against a running
// endpoint and prints what passed and failed, group by group.
//
//	go run ./tools/s3suite -checkout DIR -endpoint http://127.0.0.1:9000 [-only tagging,copy] [-failures]
//
// Nothing of the suite is kept here: the checkout, a Python with boto3, pytest,
// munch, isodate, pytz and requests are the caller's (PYTHONPATH is passed on).
// The configuration that the suite wants is written to a temporary folder.
//
// A third of the tests is never run: those whose name's SHA-1, read as a number,
// is divisible by 3. They are kept for acceptance, so that the gateway is not
// fitted to its examination. They are left out when names are collected, before
// anything else looks at them.
//
// A test belongs to one group, by its marks and its name; see groups.go. What
// S3 does not have (extensions of RGW, Signature V2, tenants) is out of scope and
// not run unless -only names it.
//
// The exit status is 0 if everything that ran passed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"ashlar/s3gw/iam"
)

// options are the flags.
type options struct {
	checkout, endpoint, python string
	accessKey, secretKey       string
	altAccessKey, altSecretKey string
	mainID, mainName           string
	altID, altName             string
	only                       string
	match                      string
	kmsKey, kmsKey2            string
	lifecycleDay               time.Duration
	failures                   bool
	perTest                    time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.checkout, "checkout", "", "`folder` of a checkout of ceph/s3-tests")
	flag.StringVar(&o.endpoint, "endpoint", "", "`URL` of the S3 endpoint")
	flag.StringVar(&o.python, "python", "python3", "the Python that has boto3 and pytest")
	flag.StringVar(&o.accessKey, "access-key", os.Getenv("ASHLAR_ACCESS_KEY"), "access key")
	flag.StringVar(&o.secretKey, "secret-key", os.Getenv("ASHLAR_SECRET_KEY"), "secret key")
	flag.StringVar(&o.mainID, "account", iam.RootCanonical(), "canonical id of the account that the access key belongs to")
	flag.StringVar(&o.mainName, "account-name", "root", "its display name")
	flag.StringVar(&o.altAccessKey, "alt-access-key", "", "access key of a second account (default: the first; tests of strangers then fail)")
	flag.StringVar(&o.altSecretKey, "alt-secret-key", "", "its secret key")
	flag.StringVar(&o.altID, "alt-account", "", "canonical id of the second account")
	flag.StringVar(&o.altName, "alt-account-name", "", "its display name")
	flag.StringVar(&o.only, "only", "", "comma-separated groups to run (default: all that are in scope)")
	flag.StringVar(&o.kmsKey, "kms-key", "", "name of a key for SSE-KMS (default: its tests are skipped)")
	flag.StringVar(&o.kmsKey2, "kms-key-2", "", "name of another key for SSE-KMS")
	flag.DurationVar(&o.lifecycleDay, "lifecycle-day", 10*time.Second, "how long the endpoint takes a lifecycle day to be")
	flag.StringVar(&o.match, "match", "", "run only tests whose name contains this")
	flag.BoolVar(&o.failures, "failures", false, "print the reason of each failure")
	flag.DurationVar(&o.perTest, "per-test", 2*time.Minute, "a test that runs longer has failed")
	flag.Parse()
	if o.checkout == "" || o.endpoint == "" || o.accessKey == "" || o.secretKey == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if o.altAccessKey == "" {
		o.altAccessKey, o.altSecretKey, o.altID, o.altName = o.accessKey, o.secretKey, o.mainID, o.mainName
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	failed, err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "s3suite:", err)
	}
	if err != nil || failed > 0 {
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (failed int, err error) {
	tests, err := collect(o.checkout)
	if err != nil {
		return 0, err
	}
	tests = choose(tests, o)
	if len(tests) == 0 {
		return 0, fmt.Errorf("no test is in the groups %q", o.only)
	}
	dir, err := os.MkdirTemp("", "ashlar-s3suite-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	results, err := runTests(ctx, o, dir, tests)
	if err != nil {
		return 0, err
	}
	return report(os.Stdout, results, o.failures), nil
}

// choose keeps the tests that the flags ask for.
func choose(tests []test, o options) []test {
	only := map[string]bool{}
	for _, g := range strings.Split(o.only, ",") {
		if g = strings.TrimSpace(g); g != "" {
			only[g] = true
		}
	}
	var out []test
	for _, t := range tests {
		wanted := t.group != outOfScope
		if len(only) > 0 {
			wanted = only[t.group]
		}
		if wanted && strings.Contains(t.name, o.match) {
			out = append(out, t)
		}
	}
	return out
}
