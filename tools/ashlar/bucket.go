package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ashlar/bench/s3"
	"ashlar/tools/operate"
)

// bucketTimeout bounds the wait for the next bytes of an answer.
const bucketTimeout = 30 * time.Second

// endpointFlags say where a gateway is and who asks.
type endpointFlags struct{ url, accessKey, secretKey, region string }

func (e *endpointFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&e.url, "endpoint", cmp.Or(os.Getenv("AWS_ENDPOINT_URL"), "http://127.0.0.1:9000"), "`URL` of a gateway (default from AWS_ENDPOINT_URL)")
	e.addKeys(cmd)
}

// addKeys adds the flags that say who asks.
func (e *endpointFlags) addKeys(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&e.accessKey, "access-key", "", "access key (default from ASHLAR_ACCESS_KEY or AWS_ACCESS_KEY_ID)")
	f.StringVar(&e.secretKey, "secret-key", "", "secret key (default from ASHLAR_SECRET_KEY or AWS_SECRET_ACCESS_KEY)")
	f.StringVar(&e.region, "region", cmp.Or(os.Getenv("AWS_DEFAULT_REGION"), "us-east-1"), "region to sign for")
}

func (e *endpointFlags) client() (*s3.Client, error) {
	access, secret, err := e.keys()
	if err != nil {
		return nil, err
	}
	return s3.NewClient(e.url, access, secret, e.region, bucketTimeout)
}

func bucketCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bucket", Short: "Settings of a bucket that S3 has no words for", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	cmd.AddCommand(bucketSetCommand(), bucketQuotaCommand())
	return cmd
}

func bucketQuotaCommand() *cobra.Command {
	var (
		ask     askFlags
		bytes   int64
		objects uint64
		none    bool
	)
	cmd := &cobra.Command{
		Use:   "quota BUCKET",
		Short: "Say what a bucket may hold, or see what it does",
		Example: `  ashlar bucket quota photos
  ashlar bucket quota photos --bytes 10TB --objects 1000000
  ashlar bucket quota photos --none`,
		Long: `Say what a bucket may hold, or see what it does.

A quota is exact: what would pass it is refused with QuotaExceeded (403), from the
moment on that this command returns. All versions and the parts of uploads count;
delete markers count as objects. What is there already stays, and deletes always go
on. --bytes and --objects set both bounds: the one that is not named is none.`,
		Args: exactArgs(1, "a bucket"),
	}
	arguments := func(cmd *cobra.Command, args []string) ([]string, error) {
		set := cmd.Flags().Changed("bytes") || cmd.Flags().Changed("objects")
		if set && none {
			return nil, withCode(exitUsage, errors.New("--none goes with neither --bytes nor --objects"))
		}
		if set || none {
			return operate.QuotaArgs(args[0], uint64(bytes), objects), nil
		}
		return args, nil
	}
	ask.command(cmd, operate.BucketQuota, arguments, func() rendered { return &operate.Filled{} })
	f := cmd.Flags()
	f.Var(sizeFlag{&bytes}, "bytes", "bytes that it may hold, for example 10TB")
	f.Uint64Var(&objects, "objects", 0, "objects that it may hold")
	f.BoolVar(&none, "none", false, "take the quota away")
	return cmd
}

func bucketSetCommand() *cobra.Command {
	var where endpointFlags
	cmd := &cobra.Command{
		Use:     "set BUCKET reads=none|follower|stale|follower,stale",
		Short:   "Say which reads a bucket allows",
		Example: "  ashlar bucket set photos reads=follower,stale",
		Long: `Say which reads a bucket allows. Without any, every read sees every write that was
acknowledged before it.

follower  HEAD, GET and listings may be answered by any replica whose state is at
          most one second old. A client that sends back the x-ashlar-session that
          it got sees at least what it saw and wrote before.
stale     While no leader can be reached, as on the minority side of a partition,
          the last state that a replica knows is given instead of a 503.

Both say in x-ashlar-age-ms how old an answer may be. Gateways follow a change
within two seconds.`,
		Args: exactArgs(2, "a bucket and reads=…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			words, ok := strings.CutPrefix(args[1], "reads=")
			if !ok {
				return withCode(exitUsage, fmt.Errorf("%q: want reads=none, reads=follower, reads=stale or reads=follower,stale", args[1]))
			}
			c, err := where.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.Do("PUT", "/"+s3.Escape(args[0], false), "x-ashlar-reads="+s3.Escape(words, false)); err != nil {
				return fmt.Errorf("bucket %s: %w", args[0], err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: reads=%s\n", args[0], words)
			return err
		},
	}
	where.add(cmd)
	return cmd
}
