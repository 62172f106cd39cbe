// Package dev runs a whole cluster on one machine: zones × hosts × disks, a
// placement quorum and a gateway, for trying out, for tests and for breaking
// things on purpose.
//
// Two forms run the same services:
//
//	Cluster     everything in this process; the services are functions
//	Processes   every service is a child process started from its TOML file,
//	            the way systemd would start it; kill -9 is then the real thing
//
// Both keep everything under one directory and start again on it with their
// data. The directory's dev.json names the topology, the addresses and the
// keys, so that `ashlar status` and the fault verbs find a running cluster.
//
//	DIR/dev.json             topology, addresses, keys (mode 0600)
//	DIR/placement/p1…        state of the placement members
//	DIR/faults/b1-d02        a switch: while it exists, disk b1/d02 is dead
//	DIR/hosts/a1/            state of a daemon, and its disks as files
//	DIR/etc/tls.crt, tls.key only with an address for TLS
//	DIR/etc/*.toml, DIR/log  only for Processes
package dev

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ashlar"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/notify/courier"
	"ashlar/tools/network"
)

// Config says what to run. Zero values mean the defaults that Defaults sets.
type Config struct {
	Dir string
	// Profile is the code for large stripes.
	Profile ashlar.Code
	// Zones, Hosts per zone and Disks per host.
	Zones, Hosts, Disks int
	// Members of the placement quorum: 1, 3, 5 or 7.
	Members int
	// Gateways is the number of gateways; the in-process cluster has one.
	Gateways int
	// DiskBytes is the size of each file that stands for a disk.
	DiskBytes int64
	// MetadataCache bounds what each host remembers of its metadata, in bytes.
	MetadataCache int64
	// Devices, if given, are used instead of files: Zones × Hosts × Disks of
	// them, in the order of the hosts.
	Devices []string
	// TrashGrace is how long the pieces of a deleted object are kept; 0 means
	// the daemon's default.
	TrashGrace time.Duration
	// MissingAfter is the age from which a stripe is asked about, whether all its
	// pieces are there; 0 means the daemon's default.
	MissingAfter time.Duration
	// OutAfter is how long a host may be down before it is given up; 0 means the
	// quorum's default. It is used when the cluster is made.
	OutAfter time.Duration
	// MissingPeriod is the time in which every stripe is looked at once, OrphanGrace
	// the age from which one that nothing refers to is freed; 0 means the daemon's
	// default.
	MissingPeriod, OrphanGrace time.Duration
	// ScrubPeriod is the time in which every byte of a disk is verified; 0 means
	// the daemon's default.
	ScrubPeriod time.Duration
	// KMSKeys are the names of the keys of SSE-KMS. They are made when they are
	// first named, and kept in DIR/etc/keyring with the key of SSE-S3.
	KMSKeys []string
	// LifecycleDay is how long the gateways take a day of a lifecycle rule to be; 0
	// means 24 hours.
	LifecycleDay time.Duration
	// S3 and Admin are the addresses to listen on. TLS, if not empty, is one more for
	// S3, with a self-signed certificate that is made in DIR/etc.
	S3, Admin, TLS string
	// AccessKey and SecretKey are the root credentials.
	AccessKey, SecretKey string
	// AccountsFile is a TOML file of [[accounts]] as they stand in gateway.toml.
	AccountsFile string
	// ObjectOwnership is the mode of new buckets that ask for none; empty is AWS's.
	ObjectOwnership string
	// Answers is aws, rgw or minio, as in gateway.toml; empty is aws.
	Answers string
	// AnyRegion and SignatureV2 are any-region and signature-v2 of gateway.toml.
	AnyRegion, SignatureV2 bool
	// Webhook is the URL of a target of notifications, WebhookARN; empty: there is none.
	Webhook string
}

// WebhookARN is how clients name the target at Config.Webhook.
var WebhookARN = notify.ARN(webhookName, courier.KindWebhook)

const webhookName = "dev"

// targets declares what Webhook says.
func (c *Config) targets() []courier.Config {
	if c.Webhook == "" {
		return nil
	}
	return []courier.Config{{Name: webhookName, Kind: courier.KindWebhook, Address: c.Webhook}}
}

// Bounds of a dev cluster: it is for one machine.
const (
	zonesMax, hostsMax, disksMax = 9, 64, 64
	diskBytesMin                 = 64 * ashlar.MiB
	stateFile                    = "dev.json"
	// websiteDomain ends in what browsers take for this machine without a name server.
	websiteDomain = "website.localhost"
)

// Defaults returns the configuration of `ashlar dev` without flags.
func Defaults() Config {
	return Config{
		Dir: "ashlar-dev", Profile: ashlar.Code{K: 4, M: 2},
		Zones: 3, Hosts: 2, Disks: 4, Members: 5, Gateways: 1,
		DiskBytes: 4 * ashlar.GiB, MetadataCache: 64 * ashlar.MiB, S3: "127.0.0.1:9000", Admin: "127.0.0.1:9001",
	}
}

// hostSpec is one host of the layout.
type hostSpec struct {
	Name, Zone string
	Disks      []diskSpec
}

// diskSpec is one disk of a host. Path is a device or a file.
type diskSpec struct {
	Name, Path string
}

// layout names the hosts and disks: host b1 is the first of zone b, its disks
// are b1/d01, b1/d02 and so on.
func (c *Config) layout() []hostSpec {
	var hosts []hostSpec
	for z := range c.Zones {
		zone := string(rune('a' + z))
		for h := range c.Hosts {
			host := hostSpec{Name: fmt.Sprintf("%s%d", zone, h+1), Zone: zone}
			for d := range c.Disks {
				disk := diskSpec{Name: fmt.Sprintf("%s/d%02d", host.Name, d+1)}
				if n := (z*c.Hosts+h)*c.Disks + d; n < len(c.Devices) {
					disk.Path = c.Devices[n]
				} else {
					disk.Path = filepath.Join(c.hostDir(host.Name), fmt.Sprintf("d%02d.disk", d+1))
				}
				host.Disks = append(host.Disks, disk)
			}
			hosts = append(hosts, host)
		}
	}
	return hosts
}

func (c *Config) hostDir(name string) string   { return filepath.Join(c.Dir, "hosts", name) }
func (c *Config) faultDir() string             { return filepath.Join(c.Dir, "faults") }
func (c *Config) memberDir(name string) string { return filepath.Join(c.Dir, "placement", name) }

// check refuses what cannot work, naming the flag and the remedy.
func (c *Config) check() error {
	width := max(c.Profile.Pieces(), smallCode.Pieces())
	total := c.Zones * c.Hosts * c.Disks
	switch {
	case c.Zones < 1 || c.Zones > zonesMax:
		return fmt.Errorf("--zones %d: want 1 to %d", c.Zones, zonesMax)
	case c.Hosts < 1 || c.Hosts > hostsMax:
		return fmt.Errorf("--hosts %d: want 1 to %d hosts per zone", c.Hosts, hostsMax)
	case c.Disks < 1 || c.Disks > disksMax:
		return fmt.Errorf("--disks %d: want 1 to %d disks per host", c.Disks, disksMax)
	case c.Members != 1 && c.Members != 3 && c.Members != 5 && c.Members != 7:
		return fmt.Errorf("--members %d: a quorum has 1, 3, 5 or 7 members", c.Members)
	case c.LifecycleDay < 0:
		return fmt.Errorf("--lifecycle-day %v: want a time such as 10s", c.LifecycleDay)
	case c.ScrubPeriod < 0:
		return fmt.Errorf("--scrub-period %v: want a time such as 1m", c.ScrubPeriod)
	case c.DiskBytes < diskBytesMin:
		return fmt.Errorf("--disk-size %d: want at least %d MiB", c.DiskBytes, diskBytesMin/ashlar.MiB)
	case total < width:
		return fmt.Errorf("%s needs %d disks, but %d zones × %d hosts × %d disks are %d: raise --disks or --hosts, or choose a narrower --profile",
			c.Profile, width, c.Zones, c.Hosts, c.Disks, total)
	case len(c.Devices) > 0 && len(c.Devices) != total:
		return fmt.Errorf("--devices names %d devices, but %d zones × %d hosts × %d disks are %d", len(c.Devices), c.Zones, c.Hosts, c.Disks, total)
	case len(c.AccessKey) < accessKeyMin || len(c.SecretKey) < secretKeyMin:
		return fmt.Errorf("access key and secret key must have at least %d and %d characters", accessKeyMin, secretKeyMin)
	}
	return nil
}

const (
	accessKeyMin = 3
	secretKeyMin = 8
)

// smallCode is what short stripes are coded with.
var smallCode = ashlar.Code{K: 1, M: 2}

// state is dev.json: what must be the same at the next start.
type state struct {
	Version   int            `json:"version"`
	Created   time.Time      `json:"created"`
	Form      string         `json:"form"` // "process" or "processes"
	Profile   ashlar.Code    `json:"profile"`
	Zones     int            `json:"zones"`
	Hosts     int            `json:"hosts_per_zone"`
	Disks     int            `json:"disks_per_host"`
	Members   int            `json:"members"`
	Gateways  int            `json:"gateways"`
	DiskBytes int64          `json:"disk_bytes"`
	Devices   []string       `json:"devices,omitempty"`
	Ports     map[string]int `json:"ports"`
	AccessKey string         `json:"access_key"`
	SecretKey string         `json:"secret_key"`
	// S3, Admin and PID are those of the last start.
	S3    string `json:"s3"`
	Admin string `json:"admin"`
	PID   int    `json:"pid"`

	network *network.Network // nil: everything listens on the loopback
}

const (
	stateVersion  = 1
	formOne       = "process"
	formProcesses = "processes"
)

// loadState reads DIR/dev.json; a directory without one gives nil.
func loadState(dir string) (*state, error) {
	path := filepath.Join(dir, stateFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): restore it, or start with another --dir", path, err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("%s has version %d; this ashlar knows %d", path, s.Version, stateVersion)
	}
	return &s, nil
}

func (s *state) save(dir string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, stateFile+".new")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, stateFile))
}

// open settles what the cluster in cfg.Dir is: for a directory that was used
// before, the topology that it has; set says which flags the caller gave, and
// one that contradicts the directory is refused. A new directory takes cfg.
func open(cfg Config, form string, set func(flag string) bool) (Config, *state, error) {
	s, err := loadState(cfg.Dir)
	if err != nil {
		return cfg, nil, err
	}
	if s == nil {
		return create(cfg, form)
	}
	if s.Form != form {
		return cfg, nil, fmt.Errorf("%s was made as a cluster of one %s: start it the same way, or choose another --dir", cfg.Dir, s.Form)
	}
	for _, f := range []struct {
		flag         string
		given, stays any
	}{
		{"profile", cfg.Profile, s.Profile}, {"zones", cfg.Zones, s.Zones}, {"hosts", cfg.Hosts, s.Hosts},
		{"disks", cfg.Disks, s.Disks}, {"members", cfg.Members, s.Members}, {"gateways", cfg.Gateways, s.Gateways},
		{"disk-size", cfg.DiskBytes, s.DiskBytes}, {"devices", strings.Join(cfg.Devices, ","), strings.Join(s.Devices, ",")},
	} {
		if set(f.flag) && f.given != f.stays {
			return cfg, nil, fmt.Errorf("%s holds a cluster with --%s %v, not %v: leave the flag out, or choose another --dir", cfg.Dir, f.flag, f.stays, f.given)
		}
	}
	cfg.Profile, cfg.Zones, cfg.Hosts, cfg.Disks = s.Profile, s.Zones, s.Hosts, s.Disks
	cfg.Members, cfg.Gateways, cfg.DiskBytes, cfg.Devices = s.Members, s.Gateways, s.DiskBytes, s.Devices
	if cfg.AccessKey == "" {
		cfg.AccessKey, cfg.SecretKey = s.AccessKey, s.SecretKey
	}
	s.AccessKey, s.SecretKey = cfg.AccessKey, cfg.SecretKey
	return cfg, s, cfg.check()
}

func create(cfg Config, form string) (Config, *state, error) {
	if cfg.AccessKey == "" {
		cfg.AccessKey = "dev"
		cfg.SecretKey = newSecret()
	}
	if err := cfg.check(); err != nil {
		return cfg, nil, err
	}
	if entries, err := os.ReadDir(cfg.Dir); err == nil && len(entries) > 0 {
		return cfg, nil, fmt.Errorf("%s is not empty and holds no dev cluster: choose another --dir, or empty it yourself", cfg.Dir)
	}
	if err := checkDevices(cfg.Devices); err != nil {
		return cfg, nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return cfg, nil, err
	}
	s := &state{
		Version: stateVersion, Created: time.Now().UTC(), Form: form, Profile: cfg.Profile,
		Zones: cfg.Zones, Hosts: cfg.Hosts, Disks: cfg.Disks, Members: cfg.Members, Gateways: cfg.Gateways,
		DiskBytes: cfg.DiskBytes, Devices: cfg.Devices, Ports: map[string]int{},
		AccessKey: cfg.AccessKey, SecretKey: cfg.SecretKey,
	}
	return cfg, s, s.save(cfg.Dir)
}

// newSecret returns 160 random bits in letters and digits.
func newSecret() string {
	var b [20]byte
	rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}
