// Command clients drives real S3 clients against a running endpoint and says
// what holds: aws-cli, rclone, boto3 from a Python program, s3cmd, restic, s3fs (as
// root), and the Go SDKs aws-sdk-go-v2 and minio-go.
//
//	go run ./tools/clients -endpoint URL -access-key K -secret-key S [-large] [-only CLIENT]
//
// Every check prints one line, "ok …" or "FAILED …" with the reason, and a
// failed one does not stop the others. The last line is "N passed, N failed";
// the exit status is 0 only if nothing failed. A client that is not installed is
// a failure that names its Debian package.
//
// The endpoint is judged from the outside only: what a client stores it must
// get back with the same SHA-256, listings must be exact, a second sync must move
// nothing, refusals must have S3's code. Each client works in buckets of its own
// with random names, which are removed in any case, and in a temporary folder.
// The clients see no configuration of the user: HOME is that folder.
//
// It works with the versions of Debian 12 (aws-cli 2.9, rclone 1.60, boto3 1.26)
// and with newer ones, which send checksum trailers by default.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"ashlar"
)

func main() {
	o := options{}
	flag.StringVar(&o.endpoint, "endpoint", "", "`URL` of the S3 endpoint, for example http://127.0.0.1:9000")
	flag.StringVar(&o.accessKey, "access-key", os.Getenv("ASHLAR_ACCESS_KEY"), "access key")
	flag.StringVar(&o.secretKey, "secret-key", os.Getenv("ASHLAR_SECRET_KEY"), "secret key")
	flag.BoolVar(&o.large, "large", false, "also store a file of 2 GiB with every client")
	flag.StringVar(&o.only, "only", "", "run only one client: "+clientNames())
	flag.StringVar(&o.aws, "aws", "aws", "the aws-cli to run")
	flag.StringVar(&o.rclone, "rclone", "rclone", "the rclone to run")
	flag.StringVar(&o.python, "python", "", "the Python that has boto3 (default: the first of python3 and /usr/bin/python3 that has it)")
	flag.IntVar(&o.treeFiles, "tree-files", 2100, "files in the tree that is synchronised")
	flag.Parse()
	if o.endpoint == "" || o.accessKey == "" || o.secretKey == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	failed, err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
	}
	if err != nil || failed > 0 {
		os.Exit(1)
	}
}

// clients are run in this order.
var clients = []struct {
	name  string
	check func(*suite)
}{
	{"aws", (*suite).checkAWS}, {"boto3", (*suite).checkBoto3}, {"rclone", (*suite).checkRclone}, {"s3cmd", (*suite).checkS3cmd},
	{"restic", (*suite).checkRestic}, {"s3fs", (*suite).checkS3fs}, {"aws-sdk-go-v2", (*suite).checkAWSGo}, {"minio-go", (*suite).checkMinioGo},
}

func clientNames() string {
	var names []string
	for _, c := range clients {
		names = append(names, c.name)
	}
	return strings.Join(names, ", ")
}

// run drives the clients, writes a line for each check to out, and returns how
// many checks failed.
func run(ctx context.Context, o options, out io.Writer) (failed int, err error) {
	dir, err := os.MkdirTemp("", "ashlar-clients-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	s := &suite{options: o, ctx: ctx, dir: dir, id: ashlar.NewID().String()[:10], out: out}
	if err := s.prepare(); err != nil {
		return 0, err
	}
	known := false
	for _, client := range clients {
		if o.only == "" || o.only == client.name {
			known = true
			s.client = client.name
			client.check(s)
		}
	}
	if !known {
		return 0, fmt.Errorf("-only %s: want %s", o.only, clientNames())
	}
	fmt.Fprintf(s.out, "%d passed, %d failed\n", s.passed, s.failed)
	return s.failed, ctx.Err()
}
