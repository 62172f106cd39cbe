package s3gw

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ashlar"
	hosts "ashlar/daemon/client"
	placement "ashlar/placement/client"
	"ashlar/placement/topology"
	"ashlar/s3gw/iam"
	"ashlar/s3gw/iam/directory"
	"ashlar/s3gw/iam/oidc"
	ring "ashlar/s3gw/keyring"
	"ashlar/s3gw/notify/courier"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/sse"
	"ashlar/s3gw/store"
	"ashlar/s3gw/transit"
	"ashlar/systemd/notify"
)

// Config is gateway.toml: where the gateway listens and who may bootstrap.
type Config struct {
	// Name is sent as x-amz-id-2 and names the gateway in logs.
	Name string `toml:"name"`
	// Listen is the address in the clear, TLSListen that of TLS. One may be empty.
	Listen    string `toml:"listen"`
	TLSListen string `toml:"tls-listen"`
	// TLSCertFile and TLSKeyFile are PEM files: the certificate, followed by those
	// that lead to its root, and its key. Renewed files are taken within seconds.
	TLSCertFile string `toml:"tls-cert-file"`
	TLSKeyFile  string `toml:"tls-key-file"`
	// MetricsListen is the address of /metrics, in the form of Prometheus, for whoever can
	// reach it: name one that clients of S3 cannot. Empty: none.
	MetricsListen string `toml:"metrics-listen,omitempty"`
	// Placement lists the gRPC addresses of the placement members.
	Placement []string `toml:"placement"`
	Region    string   `toml:"region"`
	// AnyRegion takes what is signed for any region, and buckets that are to be in one: for
	// clients with another store's region in their code. GetBucketLocation says Region.
	AnyRegion bool `toml:"any-region,omitempty"`
	// SignatureV2 takes Signature Version 2 too, for clients that know no better. It signs
	// neither host nor body nor most of the query: take TLS with it.
	SignatureV2 bool `toml:"signature-v2,omitempty"`
	// Domains are the names under which bucket.name means a bucket.
	Domains []string `toml:"domains"`
	// WebsiteDomains are the names under which bucket.name is the bucket's website.
	WebsiteDomains []string `toml:"website-domains,omitempty"`
	// RootAccessKey and the secret in RootSecretFile are the bootstrap
	// credentials. Without them ASHLAR_ACCESS_KEY and ASHLAR_SECRET_KEY are taken. A file
	// of secrets, here and below, that is named credential:NAME is the one that the
	// service manager opened for us under that name.
	RootAccessKey  string `toml:"root-access-key"`
	RootSecretFile string `toml:"root-secret-file"`
	// KeyringFile holds the keys of SSE-S3 and SSE-KMS; see ashlar/s3gw/keyring.
	KeyringFile string `toml:"keyring-file"`
	// Vault seals the keys of SSE-S3 and SSE-KMS with a server of its own. The keys of
	// KeyringFile then only open what was sealed with them before.
	Vault *transit.Config `toml:"vault,omitempty"`
	// PlainCustomerKeys takes the keys of SSE-C over plain HTTP too: for tests.
	PlainCustomerKeys bool `toml:"plain-customer-keys"`
	// ObjectOwnership is the mode of new buckets that ask for none.
	ObjectOwnership string `toml:"object-ownership,omitempty"`
	// Answers is aws, rgw or minio: whose answers are given where they differ. Empty is aws.
	Answers string `toml:"answers,omitempty"`
	// Accounts besides that of the root key, for the bootstrap and for test clusters.
	// An account that lists the root key among its own is the root key's.
	Accounts []iam.AccountConfig `toml:"accounts,omitempty"`
	// Notify declares whom clients may want told of events, and NotifyQueueMax how
	// many events of each a shard keeps while it is away: 100,000 if zero. They must
	// be the same on all gateways.
	Notify         []courier.Config `toml:"notify,omitempty"`
	NotifyQueueMax int              `toml:"notify-queue-max,omitempty"`
	// OIDCIssuers are the URLs of identity providers whose tokens AssumeRoleWithWebIdentity
	// takes. The gateways fetch the keys from there, and from nowhere else; an account
	// accepts a provider by CreateOpenIDConnectProvider.
	OIDCIssuers []string `toml:"oidc-issuers,omitempty"`
	// Rates bound what each user and each bucket may ask of this gateway.
	Rates *Rates `toml:"rates,omitempty"`
	// LifecycleDay is how long the lifecycle worker takes a day to be: for test
	// clusters. 24 hours, due at midnight, if zero.
	LifecycleDay Duration `toml:"lifecycle-day"`
}

// Duration is a span of time that a configuration writes as text, such as "10s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// credentials finds the root key, for which there is no default secret, and the
// accounts.
func (c *Config) credentials() (*iam.Static, error) {
	const op = "s3gw: config"
	root := iam.KeyConfig{AccessKey: c.RootAccessKey}
	if c.RootSecretFile != "" {
		b, err := os.ReadFile(secretPath(c.RootSecretFile))
		if err != nil {
			return nil, ashlar.E(op, "root-secret-file", ashlar.Invalid, err)
		}
		root.SecretKey = strings.TrimSpace(string(b))
	} else {
		root = iam.KeyConfig{AccessKey: os.Getenv("ASHLAR_ACCESS_KEY"), SecretKey: os.Getenv("ASHLAR_SECRET_KEY")}
	}
	if root.AccessKey == "" || root.SecretKey == "" {
		return nil, ashlar.E(op, "", ashlar.Invalid, errors.New(
			"no root key: set root-access-key and root-secret-file, or ASHLAR_ACCESS_KEY and ASHLAR_SECRET_KEY"))
	}
	if c.ObjectOwnership != "" && s3.CheckOwnership(c.ObjectOwnership) != nil {
		return nil, ashlar.E(op, "object-ownership", ashlar.Invalid, errors.New("want BucketOwnerEnforced, BucketOwnerPreferred or ObjectWriter"))
	}
	if err := CheckAnswers(c.Answers); err != nil {
		return nil, ashlar.E(op, "answers", ashlar.Invalid, err)
	}
	for _, u := range c.OIDCIssuers {
		if err := oidc.CheckURL(u); err != nil {
			return nil, ashlar.E(op, "oidc-issuers", ashlar.Invalid, err)
		}
	}
	return iam.NewStatic(root, c.Accounts)
}

// secretPath finds what the service manager keeps sealed and opens for the
// service alone: see systemd-creds(1).
func secretPath(path string) string {
	name, ok := strings.CutPrefix(path, "credential:")
	if !ok {
		return path
	}
	return filepath.Join(os.Getenv("CREDENTIALS_DIRECTORY"), filepath.Base(name))
}

// keys returns what seals data keys, nil if nothing is configured.
func (c *Config) keys(ctx context.Context, log *slog.Logger) (store.Keys, error) {
	var before store.Keys
	if c.KeyringFile != "" {
		r, err := ring.Read(secretPath(c.KeyringFile))
		if err != nil {
			return nil, err
		}
		before = r
	}
	if c.Vault == nil {
		return before, nil
	}
	server := *c.Vault
	server.TokenFile = secretPath(server.TokenFile)
	v, err := transit.New(server)
	if err != nil {
		return nil, err
	}
	go func() { // not waited for: what needs no keys is served without
		if err := v.Check(ctx); err != nil {
			log.Error("the key server does not seal and open: encrypted objects cannot be written or read",
				"code", "s3gw-key-server", "address", c.Vault.Address, "error", err)
		}
	}()
	return vaultKeys{v, before}, nil
}

// vaultKeys seals with a Vault and opens also what another seal closed before.
type vaultKeys struct {
	*transit.Vault
	before store.Keys // nil if there was none
}

// Open implements store.Keys.
func (k vaultKeys) Open(ctx context.Context, mode store.EncryptionMode, name string, sealed, aad []byte) (sse.Key, error) {
	if k.before != nil && !transit.Sealed(sealed) {
		return k.before.Open(ctx, mode, name, sealed, aad)
	}
	return k.Vault.Open(ctx, mode, name, sealed, aad)
}

// Main runs a gateway until ctx ends. It serves as soon as it listens; until
// the cluster is formed it answers 503.
func Main(ctx context.Context, cfg Config, log *slog.Logger) error {
	root, err := cfg.credentials()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys, err := cfg.keys(ctx, log)
	if err != nil {
		return err
	}
	if err := cfg.checkDomains(); err != nil {
		return ashlar.E("s3gw: config", "website-domains", ashlar.Invalid, err)
	}
	if err := cfg.Rates.check(); err != nil {
		return ashlar.E("s3gw: config", "rates", ashlar.Invalid, err)
	}
	for i := range cfg.Notify {
		t := &cfg.Notify[i]
		t.TokenFile, t.PasswordFile = secretPath(t.TokenFile), secretPath(t.PasswordFile)
	}
	place, err := placement.New(placement.Config{Members: cfg.Placement, Log: log})
	if err != nil {
		return err
	}
	defer place.Close()
	go place.Run(ctx) // ends with ctx

	if cfg.MetricsListen != "" {
		ln, err := net.Listen("tcp", cfg.MetricsListen)
		if err != nil {
			return ashlar.E("s3gw: config", "metrics-listen", ashlar.Invalid, err)
		}
		defer serveMetrics(ln, prometheus.DefaultGatherer, log)()
	}
	doors, err := cfg.open(log)
	if err != nil {
		return err
	}
	registry := hosts.NewHosts(place.Map)
	defer registry.Close()
	var names []string
	for _, d := range doors {
		names = append(names, d.Addr().String())
	}
	log.Info("gateway listens", "addr", strings.Join(names, " "))
	defer notify.Service(log, "serving S3 on "+strings.Join(names, " and "), func() bool { return accepts(doors) })()
	opt := cfg.options()
	opt.Credentials, opt.Keys, opt.Log = root, keys, log
	opt.Metrics, opt.Capacity, opt.Health = prometheus.DefaultRegisterer, place.Capacity, place.Status
	return Run(ctx, doors, place.Map, registry, opt)
}

// options are those that are taken from the configuration as they stand there.
func (c *Config) options() Options {
	return Options{
		ObjectOwnership: c.ObjectOwnership, Region: c.Region, AnyRegion: c.AnyRegion, SignatureV2: c.SignatureV2, Domains: c.Domains, WebsiteDomains: c.WebsiteDomains, HostID: c.Name,
		LifecycleDay: time.Duration(c.LifecycleDay), PlainKeys: c.PlainCustomerKeys, Answers: c.Answers,
		Targets: c.Notify, QueueMax: c.NotifyQueueMax, Issuers: c.OIDCIssuers, Rates: c.Rates,
	}
}

// Run serves S3 on the doors, which it owns, over the hosts of a cluster until
// ctx ends, and takes its share of the lifecycle's work and of sending events. It
// sets opt.Backend, and gives the accounts of opt.Credentials the users that the
// metadata have.
func Run(ctx context.Context, doors []Door, maps func() *topology.Map, registry *hosts.Hosts, opt Options) error {
	rows := hosts.NewMeta(maps, registry.Shards)
	backend := store.New(rows, hosts.NewStripes(maps, registry.Stripes, ""), maps,
		store.Options{Log: opt.Log, Region: opt.Region, Day: opt.LifecycleDay, Keys: opt.Keys, QueueMax: opt.QueueMax})
	defer backend.Close()
	targets, closeTargets, err := openTargets(opt.Targets, cmp.Or(opt.Region, usEast1))
	if err != nil {
		closeDoors(doors)
		return err
	}
	defer closeTargets()
	opt.Backend, opt.Maps = backend, maps
	if accounts, ok := opt.Credentials.(*iam.Static); ok {
		if root := accounts.Operator(); root != nil && opt.Operator == "" {
			opt.Operator = root.Canonical
		}
		opt.Credentials = directory.New(rows, accounts, directory.Options{Keys: opt.Keys, Clock: opt.Clock})
	}
	if opt.Metrics != nil {
		opt.Metrics.MustRegister(storeMetrics(backend)...)
		if opt.Health != nil {
			opt.Metrics.MustRegister(clusterMetrics{opt.Health})
		}
		for name := range targets {
			opt.Metrics.MustRegister(queueMetrics(backend, name)...)
		}
	}
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	work.Go(func() { backend.RunLifecycle(ctx, lifecycleEvery(opt.LifecycleDay)) })
	work.Go(func() { backend.RunQueues(ctx, targets) })
	defer work.Wait()
	defer cancel()
	gateway := New(opt)
	served, end := context.WithCancel(context.WithoutCancel(ctx))
	work.Go(func() { gateway.RunAccessLog(served) })
	defer end() // when the last request is in the log
	return gateway.Serve(ctx, doors...)
}
