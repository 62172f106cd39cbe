package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ashlar/s3gw"
	"ashlar/s3gw/trace"
	"ashlar/tools/dev"
	"ashlar/tools/tracing"
)

// traceExplained is how long a request takes whose steps are printed without --slow.
const traceExplained = 500 * time.Millisecond

func traceCommand() *cobra.Command {
	var (
		where    endpointFlags
		dir      string
		gateways []string
		filter   trace.Filter
		length   time.Duration
		asJSON   bool
	)
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Show the requests of all gateways as they end, and where slow ones spend their time",
		Example: `  ashlar trace
  ashlar trace --slow 200ms
  ashlar trace --errors --bucket photos --json
  ashlar trace --gateway http://g1:9000,http://g2:9000 --for 1m`,
		Long: `Show the requests of all gateways as they end, and where slow ones spend their time.

A line tells when a request began, on which gateway, its id (the x-amz-request-id that
the client got), the status, how long it took in all and until the first byte of the
answer, the bytes of both bodies, what it was and by which access key. Below requests that took
as long as --slow (500ms without it) or failed in the store stands where the time
went: at which metadata shard on which host, on which disk, and whether it waited for
the client. LATE is a disk or host that the request did without: its time is how long
it had been waited for, or was under way, by then.

The gateways are those of --gateway, or of the dev cluster in --dir, or the one that
/etc/ashlar/gateway.toml describes, with the keys that are found there too. Give
--gateway the address of each gateway, not that of a balancer before them. The keys
must be the root key, or those of a user of its account whom a policy allows
ashlar:TraceRequests. Secrets, signatures and queries are never shown.

A gateway never waits for its readers: what they do not take in time is not shown,
and counted.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := tracing.Options{Gateways: gateways, Filter: filter, Note: func(s string) { fmt.Fprintln(cmd.ErrOrStderr(), "ashlar:", s) }}
			if err := findGateways(&o, &where, dir); err != nil {
				return err
			}
			ctx := cmd.Context()
			if length > 0 {
				timed, cancel := context.WithTimeout(ctx, length)
				defer cancel()
				ctx = timed
			}
			err := followTrace(ctx, cmd, o, asJSON)
			if errors.Is(err, context.DeadlineExceeded) && cmd.Context().Err() == nil {
				return nil
			}
			return err
		},
	}
	f := cmd.Flags()
	f.DurationVar(&filter.Slow, "slow", 0, "only requests that took at least that long, for example 200ms")
	f.BoolVar(&filter.Errors, "errors", false, "only requests that were answered with 4xx or 5xx, or not at all")
	f.StringVar(&filter.Bucket, "bucket", "", "only requests of a bucket")
	f.StringVar(&filter.ID, "request-id", "", "only the request with this x-amz-request-id")
	f.DurationVar(&length, "for", 0, "end after that long (default: when it is interrupted)")
	f.StringSliceVar(&gateways, "gateway", gatewaysOfEnvironment(), "`URL`s of the gateways to follow (default from ASHLAR_GATEWAYS)")
	f.StringVar(&dir, "dir", dev.Defaults().Dir, "directory of the dev cluster")
	f.BoolVar(&asJSON, "json", false, "print one line of JSON for each request, with all its steps")
	where.addKeys(cmd)
	return cmd
}

func gatewaysOfEnvironment() []string {
	return strings.FieldsFunc(os.Getenv("ASHLAR_GATEWAYS"), func(r rune) bool { return r == ',' || r == ' ' })
}

// followTrace prints what the gateways tell.
func followTrace(ctx context.Context, cmd *cobra.Command, o tracing.Options, asJSON bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		lines := json.NewEncoder(out)
		return tracing.Follow(ctx, o, func(e *trace.Event) error { return lines.Encode(e) })
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "following %s\n%s\n", strings.Join(o.Gateways, ", "), tracing.Head)
	explained := cmp.Or(o.Filter.Slow, traceExplained)
	return tracing.Follow(ctx, o, func(e *trace.Event) error { return tracing.Render(out, e, explained) })
}

// findGateways fills in the gateways, unless they are given, and the keys.
func findGateways(o *tracing.Options, where *endpointFlags, dir string) error {
	access, secret := "", ""
	if len(o.Gateways) == 0 {
		urls, a, s, err := dev.GatewaysOf(dir)
		if err != nil {
			notDev := err
			var url string
			if url, a, s, err = configuredGateway(); err != nil {
				return errors.Join(notDev, err)
			}
			urls = []string{url}
		}
		o.Gateways, access, secret = urls, a, s
	}
	if access == "" || where.accessKey != "" || where.secretKey != "" {
		var err error
		if access, secret, err = where.keys(); err != nil {
			return err
		}
	}
	o.Keys = tracing.Keys{AccessKey: access, SecretKey: secret, Region: where.region}
	if access == os.Getenv("AWS_ACCESS_KEY_ID") {
		o.Keys.Token = os.Getenv("AWS_SESSION_TOKEN")
	}
	return nil
}

// configuredGateway finds the gateway of this host. The keys are empty if they do not
// stand in its configuration.
func configuredGateway() (url, access, secret string, err error) {
	const path = "/etc/ashlar/gateway.toml"
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", "", "", fmt.Errorf("and no gateway is configured in %s: name gateways with --gateway", path)
	}
	cfg, err := loadConfig[s3gw.Config](path)
	if err != nil {
		return "", "", "", err
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return "", "", "", fmt.Errorf("%s: the gateway does not listen in the clear: name it with --gateway https://NAME", path)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	url = "http://" + net.JoinHostPort(host, port)
	if cfg.RootSecretFile == "" || strings.HasPrefix(cfg.RootSecretFile, "credential:") {
		return url, "", "", nil
	}
	b, err := os.ReadFile(cfg.RootSecretFile)
	if err != nil {
		return url, "", "", nil // it is the service's; keys can be given
	}
	return url, cfg.RootAccessKey, strings.TrimSpace(string(b)), nil
}
