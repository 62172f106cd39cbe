package daemon

import (
	"fmt"
	"net"
	"time"

	"ashlar"
	"ashlar/daemon/orphan"
	"ashlar/daemon/rollcall"
	"ashlar/daemon/scrub"
	"ashlar/daemon/stripe"
	"ashlar/segment"
)

// Config says who and where a host is. Everything that the cluster must agree
// on is in the map instead. The toml tags are the keys of daemon.toml.
type Config struct {
	// Name is unique in the cluster and names the host for people. A host is
	// known by it for ever: keep it when hardware is replaced.
	Name string `toml:"name"`
	Zone string `toml:"zone"`
	Rack string `toml:"rack"`
	// Dir holds the metadata replicas and the disks' indexes: on an SSD.
	Dir string `toml:"dir"`
	// Listen is the host:port for bytes (HTTP/1.1), ListenRPC the one for small
	// calls (gRPC). Other hosts reach us there, so the host part must be ours.
	Listen    string `toml:"listen"`
	ListenRPC string `toml:"listen-rpc"`
	// Placement lists the gRPC addresses of the placement members.
	Placement []string `toml:"placement"`
	// Disks says where this host's disks are: paths of devices or files, globs, or
	// "auto" for all block devices. A disk is known by its label, so order and names
	// may change. Each must have been claimed (`ashlar disk claim`): a path that
	// holds anything else is refused; of the others only the cluster's disks are taken.
	Disks []string `toml:"disks"`
	// Engine is how bytes get to the disks: "auto" (also when empty), "pread" or
	// "uring", which costs less CPU under many reads at once and more otherwise.
	Engine string `toml:"engine"`
	// Writers is the number of segments that are written at once on each disk. 0
	// means one on a disk that rotates, which would seek between them, and one per
	// core on others; which it is the machine said when the disk was claimed.
	Writers int `toml:"writers"`
	// ClaimBlank claims blank devices of Disks at start. It is for test clusters:
	// a disk whose labels were wiped would come back as a new, empty one.
	ClaimBlank bool `toml:"claim-blank"`
	// FaultDir is for test clusters: while it holds a file named after a disk
	// (b1-d02 for b1/d02), all I/O of that disk fails. Empty: no such switches.
	FaultDir string `toml:"fault-dir"`
	// SmartDir is where ashlar-smart leaves what the disks say of themselves. Empty
	// means smart.Dir.
	SmartDir string `toml:"smart-dir"`
	// BufferBytes bounds the memory of bodies on their way. 0 means BufferBytesDefault.
	BufferBytes int64 `toml:"buffer-bytes"`
	// MetadataCache bounds the memory in which blocks of the metadata are kept; what is
	// being written takes up to twice as much again, at most 256 MiB. 0 means MetadataCacheDefault.
	MetadataCache int64 `toml:"metadata-cache-bytes"`
	// TrashGrace is how long the pieces of a deleted object are kept. 0 means TrashGraceDefault.
	TrashGrace duration `toml:"trash-grace"`
	// MissingAfter is the age from which a stripe is asked about after somebody
	// came or went, whether all its pieces are there. 0 means rollcall.DefaultSettle.
	MissingAfter duration `toml:"missing-after"`
	// MissingPeriod is the time in which every stripe is asked about. 0 means
	// rollcall.DefaultPeriod.
	MissingPeriod duration `toml:"missing-period"`
	// OrphanGrace is the age from which a stripe that nothing refers to may be
	// freed, OrphanConfirm the time between the two looks. 0 means the default of
	// package orphan.
	OrphanGrace   duration `toml:"orphan-grace"`
	OrphanConfirm duration `toml:"orphan-confirm"`
	// ScrubPeriod is the time in which every byte of a disk is verified. 0 means
	// scrub.DefaultPeriod.
	ScrubPeriod duration `toml:"scrub-period"`
	// ScrubBytes bounds what the scrub reads of each disk in a second. 0 means
	// scrub.DefaultBytesPerSecond.
	ScrubBytes int64 `toml:"scrub-bytes-per-second"`
}

// Defaults of Config.
const (
	BufferBytesDefault   = 512 * ashlar.MiB
	MetadataCacheDefault = 256 * ashlar.MiB
	TrashGraceDefault    = 15 * time.Minute
	// orphanMin leaves room behind the longest upload. Test clusters may have less.
	orphanMin = stripe.UploadMax + 2*time.Hour
)

// duration is a time.Duration that reads "15m" from TOML.
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

// Check refuses a configuration that cannot work, naming the key and the remedy.
func (c *Config) Check() error {
	for _, f := range []struct{ key, value string }{
		{"name", c.Name}, {"zone", c.Zone}, {"dir", c.Dir}, {"listen", c.Listen}, {"listen-rpc", c.ListenRPC},
	} {
		if f.value == "" {
			return ashlar.E("daemon: config", f.key, ashlar.Invalid, fmt.Errorf("%s is missing", f.key))
		}
	}
	for _, f := range []struct{ key, value string }{{"listen", c.Listen}, {"listen-rpc", c.ListenRPC}} {
		host, _, err := net.SplitHostPort(f.value)
		if err != nil {
			return ashlar.E("daemon: config", f.key, ashlar.Invalid, fmt.Errorf("%s = %q: want host:port", f.key, f.value))
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			return ashlar.E("daemon: config", f.key, ashlar.Invalid,
				fmt.Errorf("%s = %q: name the address that the other hosts reach this one at", f.key, f.value))
		}
	}
	if len(c.Placement) == 0 {
		return ashlar.E("daemon: config", "placement", ashlar.Invalid, fmt.Errorf("placement is missing: list the members' addresses"))
	}
	if len(c.Disks) == 0 {
		return ashlar.E("daemon: config", "disks", ashlar.Invalid, fmt.Errorf("disks is missing: list the devices of this host"))
	}
	if c.Writers < 0 || c.Writers > segment.WritersMax {
		return ashlar.E("daemon: config", "writers", ashlar.Invalid,
			fmt.Errorf("writers = %d: want 0, which chooses by the kind of disk, to %d", c.Writers, segment.WritersMax))
	}
	if c.MetadataCache < 0 {
		return ashlar.E("daemon: config", "metadata-cache-bytes", ashlar.Invalid, fmt.Errorf("metadata-cache-bytes must not be negative"))
	}
	if c.ScrubPeriod < 0 || c.ScrubBytes < 0 {
		return ashlar.E("daemon: config", "scrub", ashlar.Invalid, fmt.Errorf("scrub-period and scrub-bytes-per-second must not be negative"))
	}
	if c.MissingAfter < 0 || c.MissingPeriod < 0 {
		return ashlar.E("daemon: config", "missing-after", ashlar.Invalid, fmt.Errorf("missing-after and missing-period must not be negative"))
	}
	for key, v := range map[string]duration{"orphan-grace": c.OrphanGrace, "orphan-confirm": c.OrphanConfirm} {
		if d := time.Duration(v); d < 0 || !c.ClaimBlank && d != 0 && d < orphanMin {
			return ashlar.E("daemon: config", key, ashlar.Invalid,
				fmt.Errorf("%s = %v: want at least %v, longer than any upload takes", key, d, orphanMin))
		}
	}
	if c.Rack == "" {
		c.Rack = c.Name
	}
	if c.BufferBytes == 0 {
		c.BufferBytes = BufferBytesDefault
	}
	if c.MetadataCache == 0 {
		c.MetadataCache = MetadataCacheDefault
	}
	if c.TrashGrace == 0 {
		c.TrashGrace = duration(TrashGraceDefault)
	}
	if c.MissingPeriod == 0 {
		c.MissingPeriod = duration(rollcall.DefaultPeriod)
	}
	if c.OrphanGrace == 0 {
		c.OrphanGrace = duration(orphan.DefaultGrace)
	}
	if c.OrphanConfirm == 0 {
		c.OrphanConfirm = duration(orphan.DefaultConfirm)
	}
	if c.ScrubPeriod == 0 {
		c.ScrubPeriod = duration(scrub.DefaultPeriod)
	}
	if c.ScrubBytes == 0 {
		c.ScrubBytes = scrub.DefaultBytesPerSecond
	}
	return nil
}
