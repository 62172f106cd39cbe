package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"

	"github.com/spf13/cobra"

	"ashlar/tools/dev"
)

// running is a dev cluster of either form.
type running interface {
	S3() string
	SecureS3() string
	Admin() string
	Config() dev.Config
	Close()
}

func devCommand() *cobra.Command {
	var (
		cfg       = dev.Defaults()
		processes bool
		asJSON    bool
		logLevel  string
		profile   string
	)
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster on this machine: placement quorum, hosts, disks and an S3 gateway",
		Long: `Run a whole cluster on this machine, for trying out and for breaking things on purpose.

The disks are sparse files in --dir unless --devices names others. A directory that
was used before is started again with its topology and its data. The keys come from
ASHLAR_ACCESS_KEY and ASHLAR_SECRET_KEY; a new cluster makes its own otherwise.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := (&serviceFlags{logLevel: logLevel}).logger()
			if err != nil {
				return err
			}
			cfg.AccessKey, cfg.SecretKey = os.Getenv("ASHLAR_ACCESS_KEY"), os.Getenv("ASHLAR_SECRET_KEY")
			if (cfg.AccessKey == "") != (cfg.SecretKey == "") {
				return withCode(exitUsage, fmt.Errorf("set both of ASHLAR_ACCESS_KEY and ASHLAR_SECRET_KEY, or neither"))
			}
			opt := dev.Options{Log: log, Progress: cmd.OutOrStdout(), Set: cmd.Flags().Changed}
			if asJSON {
				opt.Progress = cmd.ErrOrStderr()
			}
			cluster, err := startDev(cmd.Context(), cfg, opt, processes, cmd.Flags().Changed("gateways"))
			if err != nil {
				return err
			}
			defer cluster.Close()
			stopProfile, err := startProfile(profile)
			if err != nil {
				return err
			}
			defer stopProfile()
			if err := announce(cmd.OutOrStdout(), cluster, asJSON); err != nil {
				return err
			}
			<-cmd.Context().Done()
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Dir, "dir", cfg.Dir, "directory that holds the cluster")
	f.Var(textFlag{&cfg.Profile}, "profile", "erasure code of large objects, k+m")
	f.IntVar(&cfg.Zones, "zones", cfg.Zones, "number of zones")
	f.IntVar(&cfg.Hosts, "hosts", cfg.Hosts, "hosts per zone")
	f.IntVar(&cfg.Disks, "disks", cfg.Disks, "disks per host")
	f.IntVar(&cfg.Members, "members", cfg.Members, "members of the placement quorum: 1, 3, 5 or 7")
	f.IntVar(&cfg.Gateways, "gateways", 2, "gateways; only with --processes")
	f.Var(sizeFlag{&cfg.MetadataCache}, "metadata-cache", "what each host keeps of its metadata in memory, for example 1GiB")
	f.Var(sizeFlag{&cfg.DiskBytes}, "disk-size", "size of each disk that is a file, for example 4GiB")
	f.StringSliceVar(&cfg.Devices, "devices", nil, "devices to use instead of files, zones × hosts × disks of them")
	f.DurationVar(&cfg.ScrubPeriod, "scrub-period", 0, "time in which every byte of a disk is verified, for example 1m (default 336h)")
	f.StringSliceVar(&cfg.KMSKeys, "kms-keys", nil, "names of keys for SSE-KMS, made in --dir/etc/keyring when they are new")
	f.DurationVar(&cfg.LifecycleDay, "lifecycle-day", 0, "how long a day of a lifecycle rule takes, for example 10s (default 24h)")
	f.StringVar(&cfg.S3, "s3", cfg.S3, "address of the S3 endpoint")
	f.StringVar(&cfg.TLS, "tls", "", "one more address of the S3 endpoint, with TLS and a self-signed certificate in --dir/etc/tls.crt")
	f.StringVar(&cfg.AccountsFile, "accounts", "", "TOML `file` of further accounts with their keys, [[accounts]] as in gateway.toml")
	f.StringVar(&cfg.Webhook, "webhook", "", "URL that buckets may have told of events, as "+dev.WebhookARN)
	f.StringVar(&cfg.Answers, "answers", "", "aws, rgw or minio: whose answers are given where they differ (default aws)")
	f.BoolVar(&cfg.AnyRegion, "any-region", false, "take what is signed for any region, for clients with another store's region in their code")
	f.BoolVar(&cfg.SignatureV2, "signature-v2", false, "take Signature Version 2 too, which signs neither host nor body, for clients that know no better")
	f.StringVar(&cfg.ObjectOwnership, "object-ownership", "", "mode of new buckets that ask for none (default BucketOwnerEnforced)")
	f.StringVar(&cfg.Admin, "admin", cfg.Admin, "address of the admin endpoint")
	f.BoolVar(&processes, "processes", false, "run every service as a process of its own, from TOML files in --dir/etc")
	f.BoolVar(&asJSON, "json", false, "print one line of JSON when ready; progress goes to standard error")
	f.StringVar(&logLevel, "log-level", "error", "debug, info, warn or error")
	f.StringVar(&profile, "cpu-profile", "", "write a CPU profile of this process to a file, from ready to the end")
	for _, verb := range dev.Verbs {
		cmd.AddCommand(faultCommand(verb))
	}
	return cmd
}

// startProfile starts a CPU profile, or nothing if no file is named.
func startProfile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { pprof.StopCPUProfile(); f.Close() }, nil
}

func startDev(ctx context.Context, cfg dev.Config, opt dev.Options, processes, gatewaysGiven bool) (running, error) {
	if processes {
		return dev.StartProcesses(ctx, cfg, opt)
	}
	if gatewaysGiven && cfg.Gateways != 1 {
		return nil, withCode(exitUsage, fmt.Errorf("--gateways goes with --processes; one process has one gateway"))
	}
	cfg.Gateways = 1
	return dev.Start(ctx, cfg, opt)
}

// announce says that the cluster is ready and what to type next.
func announce(w io.Writer, c running, asJSON bool) error {
	cfg := c.Config()
	if asJSON {
		return json.NewEncoder(w).Encode(struct {
			S3        string `json:"s3"`
			SecureS3  string `json:"s3_tls,omitempty"`
			Admin     string `json:"admin"`
			AccessKey string `json:"access_key"`
			SecretKey string `json:"secret_key"`
		}{c.S3(), c.SecureS3(), c.Admin(), cfg.AccessKey, cfg.SecretKey})
	}
	dir := ""
	if cfg.Dir != dev.Defaults().Dir {
		dir = " --dir " + cfg.Dir
	}
	if url := c.SecureS3(); url != "" {
		fmt.Fprintf(w, "  gateway     %s  (AWS_CA_BUNDLE=%s)\n", url, filepath.Join(cfg.Dir, "etc", "tls.crt"))
	}
	_, err := fmt.Fprintf(w, `  admin       %s
  export AWS_ENDPOINT_URL=%s AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s AWS_DEFAULT_REGION=us-east-1
Next:  aws s3 mb s3://hello && aws s3 cp README.md s3://hello/     then  ashlar dev kill-disk b1/d02%s
Ctrl-C stops it; the same command starts it again with its data.
`, c.Admin(), c.S3(), cfg.AccessKey, cfg.SecretKey, dir)
	return err
}

func faultCommand(verb string) *cobra.Command {
	var where whereFlags
	kind, example := "host", "b1"
	if strings.HasSuffix(verb, "disk") {
		kind, example = "disk", "b1/d02"
	}
	cmd := &cobra.Command{
		Use:     verb + " NAME",
		Short:   strings.ToUpper(verb[:1]) + strings.Replace(verb[1:], "-", " a ", 1) + " of the running dev cluster",
		Example: "  ashlar dev " + verb + " " + example,
		Args:    exactArgs(1, "the name of a "+kind+", for example "+example),
		RunE: func(cmd *cobra.Command, args []string) error {
			remote, err := where.remote()
			if err != nil {
				return err
			}
			if err := remote.Fault(cmd.Context(), verb, args[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s: done\nNext:  ashlar status\n", verb, args[0])
			return err
		},
	}
	where.add(cmd)
	return cmd
}

// whereFlags find a running dev cluster.
type whereFlags struct {
	dir, admin string
}

func (w *whereFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.dir, "dir", dev.Defaults().Dir, "directory of the dev cluster")
	cmd.Flags().StringVar(&w.admin, "admin", os.Getenv("ASHLAR_ADMIN"), "URL of its admin endpoint, with ASHLAR_SECRET_KEY set; instead of --dir")
}

func (w *whereFlags) remote() (*dev.Remote, error) {
	if w.admin == "" {
		return dev.Find(w.dir)
	}
	secret := os.Getenv("ASHLAR_SECRET_KEY")
	if secret == "" {
		return nil, withCode(exitUsage, fmt.Errorf("--admin needs the cluster's secret key in ASHLAR_SECRET_KEY"))
	}
	url := w.admin
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	return &dev.Remote{URL: url, Secret: secret}, nil
}
