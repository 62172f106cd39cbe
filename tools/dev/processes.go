package dev

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/pelletier/go-toml/v2"

	placeclient "ashlar/placement/client"
	"ashlar/placement/health"
	"ashlar/placement/topology"
	"ashlar/s3gw"
	"ashlar/tools/network"
	"ashlar/tools/operate"
)

// Processes is a cluster whose every service is a child process of this one,
// started from a TOML file. The children die with this process, whatever ends it.
type Processes struct {
	cfg   Config
	st    *state
	specs []hostSpec
	super *supervisor
	place *placeclient.Client
	adm   net.Listener
	s3    []string
	net   *network.Network // nil unless Options.Isolate
	rpc   []string         // the members' gRPC addresses
	tls   string           // the address with TLS of the first gateway, or empty

	stop context.CancelFunc
	wg   sync.WaitGroup
	mu   sync.Mutex // held by a fault verb from start to end
}

// StartProcesses brings a cluster of processes up and returns when it serves S3.
func StartProcesses(ctx context.Context, cfg Config, opt Options) (*Processes, error) {
	opt.fill()
	cfg, st, err := open(cfg, formProcesses, opt.Set)
	if err != nil {
		return nil, err
	}
	p := &Processes{cfg: cfg, st: st, specs: cfg.layout(), super: newSupervisor(opt.Log, opt.Program)}
	if opt.Isolate {
		if err := p.isolate(); err != nil {
			return nil, err
		}
	}
	run, stop := context.WithCancel(context.Background())
	p.stop = stop
	begin, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := p.start(begin, run, opt, newProgress(opt.Progress)); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Processes) start(ctx, run context.Context, opt Options, out *progress) (err error) {
	if p.adm, err = listen("--admin", p.cfg.Admin); err != nil {
		return err
	}
	for _, dir := range []string{"etc", "log"} {
		if err := os.MkdirAll(filepath.Join(p.cfg.Dir, dir), 0o700); err != nil {
			return err
		}
	}
	out.head(&p.cfg)
	members, err := p.startMembers()
	if err != nil {
		return err
	}
	p.rpc = members
	if p.place, err = placeclient.New(placeclient.Config{Members: members, Log: opt.Log}); err != nil {
		return err
	}
	p.wg.Go(func() { p.place.Run(run) })
	if err := p.startHosts(members); err != nil {
		return err
	}
	if err := p.startGateways(members); err != nil {
		return err
	}
	if err := out.placement(ctx, p.place); err != nil {
		return fmt.Errorf("%w; see %s", err, filepath.Join(p.cfg.Dir, "log"))
	}
	if _, err := p.place.Wait(ctx, func(m *topology.Map) bool { return m.Formed() && allUp(m, p.specs) }); err != nil {
		return fmt.Errorf("not all hosts came up; see %s: %w", filepath.Join(p.cfg.Dir, "log"), err)
	}
	out.hosts(len(p.specs), len(p.specs)*p.cfg.Disks)
	for _, addr := range p.s3 {
		if err := awaitS3(ctx, addr); err != nil {
			return err
		}
		out.gateway("http://" + addr)
	}
	p.st.S3, p.st.Admin, p.st.PID = p.s3[0], p.adm.Addr().String(), os.Getpid()
	p.wg.Go(func() {
		if err := serveAdmin(run, p.adm, p.cfg.SecretKey, p); err != nil {
			opt.Log.Error("admin", "cause", err)
		}
	})
	return p.st.save(p.cfg.Dir)
}

// allUp reports whether the map shows every host of the layout as up.
func allUp(m *topology.Map, specs []hostSpec) bool {
	up := map[string]bool{}
	for _, h := range m.Hosts {
		up[h.Name] = h.State == topology.HostUp
	}
	for _, s := range specs {
		if !up[s.Name] {
			return false
		}
	}
	return true
}

// run writes a service's TOML file and starts the service from it.
func (p *Processes) run(service, name string, cfg any) error {
	b, err := toml.Marshal(cfg)
	if err != nil {
		return err
	}
	path := filepath.Join(p.cfg.Dir, "etc", name+".toml")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	return p.super.add(name, filepath.Join(p.cfg.Dir, "log", name+".log"), service, "--config", path)
}

func (p *Processes) startMembers() (addrs []string, err error) {
	cfgs, err := memberConfigs(&p.cfg, p.st)
	if err != nil {
		return nil, err
	}
	for _, cfg := range cfgs {
		if err := p.run("placement", cfg.Name, cfg); err != nil {
			return nil, err
		}
	}
	return rpcAddrs(cfgs), nil
}

func (p *Processes) startHosts(members []string) error {
	for _, spec := range p.specs {
		if err := prepareDisks(&p.cfg, spec); err != nil {
			return err
		}
		bytes, err := p.st.addr(p.cfg.Dir, spec.Name+".bytes")
		if err != nil {
			return err
		}
		rpc, err := p.st.addr(p.cfg.Dir, spec.Name+".rpc")
		if err != nil {
			return err
		}
		if err := p.run("daemon", spec.Name, hostConfig(&p.cfg, spec, members, bytes, rpc)); err != nil {
			return err
		}
	}
	return nil
}

// startGateways gives the first gateway the address that was asked for and the
// others free ports.
func (p *Processes) startGateways(members []string) error {
	secret := filepath.Join(p.cfg.Dir, "etc", "root.secret")
	if err := os.WriteFile(secret, []byte(p.cfg.SecretKey+"\n"), 0o600); err != nil {
		return err
	}
	keys, err := p.cfg.keyring()
	if err != nil {
		return err
	}
	for i := range p.cfg.Gateways {
		name := fmt.Sprintf("g%d", i+1)
		want := "127.0.0.1:0"
		if i == 0 {
			want = p.cfg.S3
		}
		addr, err := p.st.fixed(p.cfg.Dir, name+".s3", want)
		if err != nil {
			return err
		}
		p.s3 = append(p.s3, addr)
		gw := s3gw.Config{Name: name, Listen: addr, Placement: members, RootAccessKey: p.cfg.AccessKey, RootSecretFile: secret,
			LifecycleDay: s3gw.Duration(p.cfg.LifecycleDay), KeyringFile: keys, ObjectOwnership: p.cfg.ObjectOwnership, Answers: p.cfg.Answers, AnyRegion: p.cfg.AnyRegion, SignatureV2: p.cfg.SignatureV2,
			WebsiteDomains: []string{websiteDomain}, Notify: p.cfg.targets()}
		if gw.Accounts, err = p.cfg.readAccounts(); err != nil {
			return err
		}
		if i == 0 && p.cfg.TLS != "" {
			if gw.TLSListen, err = p.st.fixed(p.cfg.Dir, name+".tls", p.cfg.TLS); err != nil {
				return err
			}
			if gw.TLSCertFile, gw.TLSKeyFile, err = p.cfg.certificate(); err != nil {
				return err
			}
			p.tls = gw.TLSListen
		}
		if err := p.run("gateway", name, gw); err != nil {
			return err
		}
	}
	return nil
}

// S3 is the URL of the first gateway.
func (p *Processes) S3() string { return "http://" + p.s3[0] }

// SecureS3 is the URL with TLS of the first gateway, empty if there is none.
func (p *Processes) SecureS3() string {
	if p.tls == "" {
		return ""
	}
	return "https://" + p.tls
}

// Gateways are the URLs of all gateways.
func (p *Processes) Gateways() []string {
	var urls []string
	for _, addr := range p.s3 {
		urls = append(urls, "http://"+addr)
	}
	return urls
}

// Admin is the URL of the admin listener.
func (p *Processes) Admin() string { return "http://" + p.adm.Addr().String() }

// Config returns the configuration in force.
func (p *Processes) Config() Config { return p.cfg }

// PIDs returns the process ids of the services that run now, by name: p1… the
// placement members, a1… the hosts, g1… the gateways.
func (p *Processes) PIDs() map[string]int { return p.super.pids() }

// Status asks the quorum for the health of the cluster.
func (p *Processes) Status(ctx context.Context) (health.Status, error) { return p.place.Status(ctx) }

// Ask answers a question of package operate, through connections of its own.
func (p *Processes) Ask(ctx context.Context, question string, args []string) ([]byte, error) {
	cfgs, err := memberConfigs(&p.cfg, p.st)
	if err != nil {
		return nil, err
	}
	c, end, err := operate.Dial(ctx, rpcAddrs(cfgs))
	if err != nil {
		return nil, err
	}
	defer end()
	return operate.Do(ctx, c, question, args)
}

// Fault applies a verb and returns when the map shows it. A host is killed with
// SIGKILL.
func (p *Processes) Fault(ctx context.Context, verb, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	switch verb {
	case KillDisk, ReviveDisk:
		return faultDisk(ctx, &p.cfg, p.place, p.specs, verb, name)
	case KillHost, ReviveHost:
		return p.faultHost(ctx, verb, name)
	}
	return errUnknownVerb(verb)
}

func (p *Processes) faultHost(ctx context.Context, verb, name string) error {
	if _, err := findHost(p.specs, name); err != nil {
		return err
	}
	if verb == KillHost {
		if err := p.super.kill(name); err != nil {
			return err
		}
		return awaitHost(ctx, p.place, name, topology.HostDown)
	}
	if err := p.super.start(name); err != nil {
		return err
	}
	return awaitHost(ctx, p.place, name, topology.HostUp)
}

// Close stops the services, those that clients see first.
func (p *Processes) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop()
	p.super.close(p.GatewayNames(), p.HostNames(), p.MemberNames())
	if p.adm != nil {
		p.adm.Close()
	}
	p.wg.Wait()
	if p.place != nil {
		p.place.Close()
	}
	if p.net != nil {
		p.net.Close()
	}
}
