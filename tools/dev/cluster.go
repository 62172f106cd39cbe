package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon"
	"ashlar/daemon/client"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/backup"
	"ashlar/daemon/meta/trash"
	"ashlar/diskmgr/blockdev"
	"ashlar/placement"
	placeclient "ashlar/placement/client"
	"ashlar/placement/health"
	"ashlar/placement/topology"
	"ashlar/s3gw"
	"ashlar/s3gw/iam"
	"ashlar/s3gw/keyring"
	"ashlar/s3gw/store"
	"ashlar/tools/operate"
)

const (
	startTimeout = 2 * time.Minute
	// noticeTimeout is how long a fault verb waits until the map shows it.
	noticeTimeout = 20 * time.Second
)

// Options of a cluster besides its Config.
type Options struct {
	Log *slog.Logger
	// Progress gets lines for people while the cluster starts.
	Progress io.Writer
	// Set says which flags the caller gave, by their names; nil means none.
	Set func(flag string) bool
	// Program is the ashlar binary that StartProcesses runs; empty means the one
	// that is running.
	Program string
	// Isolate makes StartProcesses give every process a network namespace of its
	// own, so that links can be cut (see Processes.Cut). It needs root and a new
	// directory.
	Isolate bool
	// Restore, if not empty, is a backup that Start brings back before the cluster
	// serves; its metadata must be lost.
	Restore string
}

func (o *Options) fill() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if o.Set == nil {
		o.Set = func(string) bool { return false }
	}
}

// Cluster is a cluster in this process.
type Cluster struct {
	cfg      Config
	restore  string
	accounts *iam.Static
	log      *slog.Logger
	members  []*placement.Member
	place    *placeclient.Client
	registry *client.Hosts
	doors    []s3gw.Door // S3 in the clear, then by TLS
	keys     *keyring.Ring
	adm      net.Listener
	served   bool // doors and adm belong to their servers

	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex // held by a fault verb from start to end
	specs []hostSpec
	hosts map[string]*daemon.Host // without those that are killed
}

// Start brings a cluster up and returns when it serves S3.
func Start(ctx context.Context, cfg Config, opt Options) (*Cluster, error) {
	opt.fill()
	cfg, st, err := open(cfg, formOne, opt.Set)
	if err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, restore: opt.Restore, log: opt.Log, specs: cfg.layout(), hosts: map[string]*daemon.Host{}}
	run, stop := context.WithCancel(context.Background())
	c.stop = stop
	begin, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.start(begin, run, st, newProgress(opt.Progress)); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) start(ctx, run context.Context, st *state, p *progress) error {
	var err error
	if c.accounts, err = c.cfg.directory(); err != nil {
		return err
	}
	if err := c.openDoors(); err != nil {
		return err
	}
	if c.adm, err = listen("--admin", c.cfg.Admin); err != nil {
		return err
	}
	p.head(&c.cfg)
	if err := c.startPlacement(ctx, run, st); err != nil {
		return err
	}
	if err := p.placement(ctx, c.place); err != nil {
		return err
	}
	if err := c.bringUp(ctx); err != nil {
		return err
	}
	if _, err := c.place.Wait(ctx, (*topology.Map).Formed); err != nil {
		return fmt.Errorf("the cluster did not form: %w", err)
	}
	p.hosts(len(c.specs), len(c.specs)*c.cfg.Disks)
	st.S3, st.Admin, st.PID = c.doors[0].Addr().String(), c.adm.Addr().String(), os.Getpid()
	if err := st.save(c.cfg.Dir); err != nil {
		return err
	}
	c.serve(run)
	if err := awaitS3(ctx, st.S3); err != nil {
		return err
	}
	p.gateway(c.S3())
	return nil
}

// openDoors opens the listeners of the gateway.
func (c *Cluster) openDoors() error {
	ln, err := listen("--s3", c.cfg.S3)
	if err != nil {
		return err
	}
	c.doors = []s3gw.Door{{Listener: ln}}
	if err := c.readKeys(); err != nil {
		return err
	}
	if c.cfg.TLS == "" {
		return nil
	}
	if ln, err = listen("--tls", c.cfg.TLS); err != nil {
		return err
	}
	c.doors = append(c.doors, s3gw.Door{Listener: ln})
	cert, key, err := c.cfg.certificate()
	if err != nil {
		return err
	}
	c.doors[1], err = s3gw.Secure(ln, cert, key, c.log)
	return err
}

func listen(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: choose another address", flag, addr, err)
	}
	return l, nil
}

// startPlacement starts all members at once and follows them.
func (c *Cluster) startPlacement(ctx, run context.Context, st *state) error {
	cfgs, err := memberConfigs(&c.cfg, st)
	if err != nil {
		return err
	}
	c.members = make([]*placement.Member, len(cfgs))
	errs := make([]error, len(cfgs))
	var wg sync.WaitGroup
	for i, cfg := range cfgs {
		cfg.Log = c.log
		wg.Go(func() { c.members[i], errs[i] = placement.Start(ctx, cfg) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c.place, err = placeclient.New(placeclient.Config{Members: rpcAddrs(cfgs), Log: c.log})
	if err != nil {
		return err
	}
	c.wg.Go(func() { c.place.Run(run) })
	c.registry = client.NewHosts(c.place.Map)
	return nil
}

// bringUp starts the hosts, after the quorum has the map of a backup if there is
// one to restore.
func (c *Cluster) bringUp(ctx context.Context) error {
	if c.restore == "" {
		return c.startHosts(ctx)
	}
	_, err := backup.Restore(ctx, c.place, c.registry.Shards, func() (io.ReadCloser, error) { return os.Open(c.restore) },
		func() error { return c.startHosts(ctx) })
	return err
}

func (c *Cluster) startHosts(ctx context.Context) error {
	errs := make([]error, len(c.specs))
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i, spec := range c.specs {
		if err := prepareDisks(&c.cfg, spec); err != nil {
			return err
		}
		wg.Go(func() {
			h, err := c.startHost(ctx, spec)
			mu.Lock()
			defer mu.Unlock()
			if c.hosts[spec.Name] = h; err != nil {
				errs[i] = fmt.Errorf("host %s: %w", spec.Name, err)
				delete(c.hosts, spec.Name)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (c *Cluster) startHost(ctx context.Context, spec hostSpec) (*daemon.Host, error) {
	var members []string
	for _, m := range c.members {
		members = append(members, m.Addr())
	}
	return daemon.Start(ctx, hostConfig(&c.cfg, spec, members, inProcess, inProcess),
		daemon.Options{Log: c.log, Registry: c.registry, Referee: func(m meta.Store) trash.Referee { return store.NewReferences(m) }})
}

// inProcess is the address of a host that opens no listener: a call to it
// fails at once.
const inProcess = "127.0.0.1:0"

// readKeys reads the encryption keys of the gateway.
func (c *Cluster) readKeys() error {
	path, err := c.cfg.keyring()
	if err == nil {
		c.keys, err = keyring.Read(path)
	}
	return err
}

// serve runs the gateway and the admin listener until the cluster closes.
func (c *Cluster) serve(run context.Context) {
	c.served = true
	accounts := c.accounts
	c.wg.Go(func() {
		if err := s3gw.Run(run, c.doors, c.place.Map, c.registry, s3gw.Options{
			Credentials: accounts, ObjectOwnership: c.cfg.ObjectOwnership, Answers: c.cfg.Answers, AnyRegion: c.cfg.AnyRegion, SignatureV2: c.cfg.SignatureV2,
			HostID: "dev", Log: c.log, Keys: c.keys, LifecycleDay: c.cfg.LifecycleDay, Capacity: c.place.Capacity,
			WebsiteDomains: []string{websiteDomain}, Targets: c.cfg.targets(),
		}); err != nil {
			c.log.Error("gateway", "cause", err)
		}
	})
	c.wg.Go(func() {
		if err := serveAdmin(run, c.adm, c.cfg.SecretKey, c); err != nil {
			c.log.Error("admin", "cause", err)
		}
	})
}

// S3 is the URL that clients use.
func (c *Cluster) S3() string { return "http://" + c.doors[0].Addr().String() }

// SecureS3 is the URL with TLS, empty if there is none.
func (c *Cluster) SecureS3() string {
	if len(c.doors) < 2 {
		return ""
	}
	return "https://" + c.doors[1].Addr().String()
}

// Admin is the URL of the admin listener.
func (c *Cluster) Admin() string { return "http://" + c.adm.Addr().String() }

// Config returns the configuration in force.
func (c *Cluster) Config() Config { return c.cfg }

// Status asks the quorum for the health of the cluster.
func (c *Cluster) Status(ctx context.Context) (health.Status, error) { return c.place.Status(ctx) }

// Ask answers a question of package operate.
func (c *Cluster) Ask(ctx context.Context, question string, args []string) ([]byte, error) {
	return operate.Do(ctx, &operate.Cluster{
		Maps: c.place.Map, Meta: client.NewMeta(c.place.Map, c.registry.Shards), Pieces: c.registry.Pieces, Release: c.place.Release,
	}, question, args)
}

// Fault applies a verb to a disk or host and returns when the map shows it.
func (c *Cluster) Fault(ctx context.Context, verb, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	switch verb {
	case KillHost, ReviveHost:
		return c.faultHost(ctx, verb, name)
	case KillDisk, ReviveDisk:
		return faultDisk(ctx, &c.cfg, c.place, c.specs, verb, name)
	}
	return errUnknownVerb(verb)
}

func errUnknownVerb(verb string) error {
	return fmt.Errorf("unknown fault %q: want one of %s", verb, strings.Join(Verbs, ", "))
}

func (c *Cluster) faultHost(ctx context.Context, verb, name string) error {
	spec, err := findHost(c.specs, name)
	if err != nil {
		return err
	}
	h, running := c.hosts[name]
	switch {
	case verb == KillHost && running:
		delete(c.hosts, name)
		h.Kill()
	case verb == ReviveHost && !running:
		if h, err = c.startHost(ctx, spec); err != nil {
			return err
		}
		c.hosts[name] = h
	}
	want := topology.HostUp
	if verb == KillHost {
		want = topology.HostDown
	}
	return awaitHost(ctx, c.place, name, want)
}

// faultDisk throws the switch of a disk and waits until the map shows it. The
// map shows nothing new of a disk whose host is down.
func faultDisk(ctx context.Context, cfg *Config, place *placeclient.Client, specs []hostSpec, verb, name string) error {
	if _, _, err := findDisk(specs, name); err != nil {
		return err
	}
	file, want := daemon.FaultSwitch(cfg.faultDir(), name), topology.DiskUp
	if verb == KillDisk {
		want = topology.DiskFailed
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			return err
		}
	} else if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if m := place.Map(); m != nil && !hostIs(m, strings.Split(name, "/")[0], topology.HostUp) {
		return nil
	}
	return awaitDisk(ctx, place, name, want)
}

// Close stops everything, the clients first.
func (c *Cluster) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop()
	if !c.served { // else their servers own them
		for _, d := range c.doors {
			d.Close()
		}
		if c.adm != nil {
			c.adm.Close()
		}
	}
	var wg sync.WaitGroup
	for _, h := range c.hosts {
		wg.Go(h.Stop)
	}
	wg.Wait()
	c.wg.Wait()
	if c.registry != nil {
		c.registry.Close()
	}
	if c.place != nil {
		c.place.Close()
	}
	for _, m := range c.members {
		if m != nil {
			wg.Go(m.Stop)
		}
	}
	wg.Wait()
}

// awaitHost waits until the map shows the host in the state.
func awaitHost(ctx context.Context, place *placeclient.Client, name string, want topology.HostState) error {
	_, err := place.Wait(ctx, func(m *topology.Map) bool { return m != nil && hostIs(m, name, want) })
	if err != nil {
		return fmt.Errorf("done, but the map does not show %s as %v yet: %w", name, want, err)
	}
	return nil
}

func hostIs(m *topology.Map, name string, want topology.HostState) bool {
	return slices.ContainsFunc(m.Hosts, func(h topology.Host) bool { return h.Name == name && h.State == want })
}

func awaitDisk(ctx context.Context, place *placeclient.Client, name string, want topology.DiskState) error {
	_, err := place.Wait(ctx, func(m *topology.Map) bool {
		return m != nil && slices.ContainsFunc(m.Disks, func(d topology.Disk) bool { return d.Name == name && d.State == want })
	})
	if err != nil {
		return fmt.Errorf("done, but the map does not show %s as %v yet: %w", name, want, err)
	}
	return nil
}

func findHost(specs []hostSpec, name string) (hostSpec, error) {
	var names []string
	for _, s := range specs {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return hostSpec{}, fmt.Errorf("no host %q: there are %s", name, strings.Join(names, ", "))
}

func findDisk(specs []hostSpec, name string) (hostSpec, diskSpec, error) {
	host, _, ok := strings.Cut(name, "/")
	if !ok {
		return hostSpec{}, diskSpec{}, fmt.Errorf("%q is no disk: want host/dNN, for example %s", name, specs[0].Disks[0].Name)
	}
	spec, err := findHost(specs, host)
	if err != nil {
		return spec, diskSpec{}, err
	}
	var names []string
	for _, d := range spec.Disks {
		if d.Name == name {
			return spec, d, nil
		}
		names = append(names, d.Name)
	}
	return spec, diskSpec{}, fmt.Errorf("no disk %q: host %s has %s", name, host, strings.Join(names, ", "))
}

// prepareDisks makes the files that stand for the disks of a host.
func prepareDisks(cfg *Config, spec hostSpec) error {
	for _, dir := range []string{cfg.hostDir(spec.Name), cfg.faultDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if len(cfg.Devices) > 0 {
		return nil
	}
	for _, d := range spec.Disks {
		if _, err := os.Stat(d.Path); err == nil {
			continue
		}
		if err := blockdev.Create(d.Path, cfg.DiskBytes, true); err != nil {
			return err
		}
	}
	return nil
}

func hostConfig(cfg *Config, spec hostSpec, members []string, bytes, rpc string) daemon.Config {
	h := daemon.Config{
		Name: spec.Name, Zone: spec.Zone, Rack: spec.Name, Dir: filepath.Join(cfg.hostDir(spec.Name), "state"),
		Listen: bytes, ListenRPC: rpc, Placement: members, BufferBytes: hostBufferBytes, MetadataCache: cfg.MetadataCache,
		ClaimBlank: true, FaultDir: cfg.faultDir(),
	}
	if cfg.TrashGrace > 0 {
		_ = h.TrashGrace.UnmarshalText([]byte(cfg.TrashGrace.String())) // a Duration always reads back
	}
	if cfg.MissingAfter > 0 {
		_ = h.MissingAfter.UnmarshalText([]byte(cfg.MissingAfter.String()))
	}
	if cfg.MissingPeriod > 0 {
		_ = h.MissingPeriod.UnmarshalText([]byte(cfg.MissingPeriod.String()))
	}
	if cfg.OrphanGrace > 0 {
		_ = h.OrphanGrace.UnmarshalText([]byte(cfg.OrphanGrace.String()))
		_ = h.OrphanConfirm.UnmarshalText([]byte((cfg.OrphanGrace / 2).String()))
	}
	if cfg.ScrubPeriod > 0 {
		_ = h.ScrubPeriod.UnmarshalText([]byte(cfg.ScrubPeriod.String()))
	}
	for _, d := range spec.Disks {
		h.Disks = append(h.Disks, d.Path)
	}
	return h
}

// hostBufferBytes bounds the bodies on their way in one host of a dev cluster.
const hostBufferBytes = 256 * ashlar.MiB
