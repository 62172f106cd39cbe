package bench

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ashlar"
	"ashlar/bench/s3"
)

// ErrIncomplete: the run was interrupted, had errors or read wrong bytes. It is
// the error of a command that has already printed everything else.
var ErrIncomplete = errors.New("the run is not complete, or had errors")

// s3Flags are the flags that are not options of the run as they stand.
type s3Flags struct {
	size, caFile, save string
	insecure           bool
}

func s3Command(operation, short string) *cobra.Command {
	var flags s3Flags
	o := s3.Options{Operation: operation}
	c := &cobra.Command{
		Use:           operation,
		Short:         short,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(c *cobra.Command, _ []string) error { return runS3(c, o, flags) },
	}
	f := c.Flags()
	f.StringSliceVar(&o.Endpoints, "endpoint", []string{"http://127.0.0.1:9000"}, "`URL` of the S3 endpoint; repeat it to spread the load over several")
	f.StringVar(&o.AccessKey, "access-key", "", "access key (default from ASHLAR_ACCESS_KEY or AWS_ACCESS_KEY_ID)")
	f.StringVar(&o.SecretKey, "secret-key", "", "secret key (default from ASHLAR_SECRET_KEY or AWS_SECRET_ACCESS_KEY)")
	f.StringVar(&o.Region, "region", "us-east-1", "region to sign for")
	f.StringVar(&o.Bucket, "bucket", "", "bucket; made and removed by the run if it does not exist (default a new one)")
	f.StringVar(&o.Prefix, "prefix", "ashlar-bench/", "prefix of the names of all objects of the run")
	f.StringVar(&flags.size, "size", "1MiB", "size of every object, for example 4KiB or 64MiB")
	f.IntVar(&o.Concurrent, "concurrent", 16, "requests in flight, each on its own connection")
	f.DurationVar(&o.Duration, "duration", 10*time.Second, "length of a measured round")
	f.IntVar(&o.Count, "count", 0, "end a round after this many operations, whatever the time")
	f.DurationVar(&o.Warmup, "warmup", 2*time.Second, "work before the first round, not measured")
	f.IntVar(&o.Repeats, "repeat", 1, "measured rounds; three or more show the noise that compare needs")
	f.BoolVar(&o.SignedPayload, "signed-payload", false, "sign the SHA-256 of every body (costs the client a pass over it)")
	f.BoolVar(&o.Verify, "verify", true, "get: check every byte; put: read a sample back at the end")
	f.Uint64Var(&o.Seed, "seed", 1, "seed of the content")
	f.DurationVar(&o.Timeout, "timeout", 60*time.Second, "longest wait for the next bytes of a request")
	f.IntSliceVar(&o.ServerPIDs, "server-pid", nil, "process whose CPU time and memory is reported; repeatable")
	f.StringVar(&o.Label, "label", "", "name of the run, stored in the report")
	f.StringVar(&flags.save, "save", "", "write the report as JSON to this `FILE` (default LABEL.json if a label is given)")
	f.StringVar(&flags.caFile, "ca-file", "", "PEM `FILE` with the authority of an https endpoint")
	f.BoolVar(&flags.insecure, "insecure", false, "do not check the certificate of an https endpoint")
	if operation == s3.Get {
		f.IntVar(&o.Objects, "objects", 0, "objects to read from (default as many as make 1 GiB, at most 2000)")
	}
	return c
}

func runS3(c *cobra.Command, o s3.Options, flags s3Flags) error {
	if err := complete(&o, flags); err != nil {
		return err
	}
	o.Progress = func(text string) { fmt.Fprintln(c.ErrOrStderr(), text+" …") }
	ctx, release := untilInterrupted(c.Context())
	defer release()
	defer context.AfterFunc(ctx, func() { o.Progress("interrupted; a second time leaves the objects where they are") })()
	rep, err := s3.Run(ctx, o)
	if rep == nil {
		return err
	}
	rep.Print(c.OutOrStdout())
	if path := saveTo(o.Label, flags.save); path != "" {
		if err := rep.Save(path); err != nil {
			return err
		}
		fmt.Fprintln(c.OutOrStdout(), "  saved        "+path)
	}
	if err != nil {
		return err
	}
	if n := rep.Errors(); n > 0 {
		return fmt.Errorf("%w: %d errors", ErrIncomplete, n)
	}
	return nil
}

func saveTo(label, save string) string {
	if save == "" && label != "" {
		return label + ".json"
	}
	return save
}

// complete fills in what flags leave to the environment and to files.
func complete(o *s3.Options, flags s3Flags) (err error) {
	o.AccessKey = cmp.Or(o.AccessKey, os.Getenv("ASHLAR_ACCESS_KEY"), os.Getenv("AWS_ACCESS_KEY_ID"))
	o.SecretKey = cmp.Or(o.SecretKey, os.Getenv("ASHLAR_SECRET_KEY"), os.Getenv("AWS_SECRET_ACCESS_KEY"))
	if o.Bytes, err = parseSize(flags.size); err != nil {
		return err
	}
	if flags.caFile == "" && !flags.insecure {
		return nil
	}
	o.TLS = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: flags.insecure}
	if flags.caFile == "" {
		return nil
	}
	pem, err := os.ReadFile(flags.caFile)
	if err != nil {
		return fmt.Errorf("--ca-file: %w", err)
	}
	o.TLS.RootCAs = x509.NewCertPool()
	if !o.TLS.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("--ca-file %s: no certificate in it", flags.caFile)
	}
	return nil
}

// parseSize reads 4096, 4KiB, 4MiB, 1GiB (powers of 1,024) or 4KB, 4MB, 1GB
// (powers of 1,000).
func parseSize(text string) (int64, error) {
	for _, unit := range []struct {
		suffix string
		bytes  int64
	}{{"KiB", ashlar.KiB}, {"MiB", ashlar.MiB}, {"GiB", ashlar.GiB}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1}} {
		if digits, ok := strings.CutSuffix(text, unit.suffix); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
			if err != nil || n < 0 || n > s3.ObjectMax/unit.bytes {
				break
			}
			return n * unit.bytes, nil
		}
	}
	return 0, fmt.Errorf("size %q: want for example 0, 4KiB, 64MiB or 1GB, at most 5 GiB", text)
}
