package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"ashlar"
	"ashlar/placement"
	placeclient "ashlar/placement/client"
)

// Sizes of a dev cluster's tables: enough to spread, small enough to read.
const (
	devGroups = 128
	devShards = 6
)

// memberConfigs returns the configuration of every placement member. Ports are
// chosen once and kept in the state: the quorum remembers them.
func memberConfigs(cfg *Config, st *state) ([]placement.Config, error) {
	peers, rpc := map[string]string{}, map[string]string{}
	for i := range cfg.Members {
		name := fmt.Sprintf("p%d", i+1)
		peer, err := st.addr(cfg.Dir, name+".peer")
		if err != nil {
			return nil, err
		}
		if rpc[name], err = st.addr(cfg.Dir, name+".rpc"); err != nil {
			return nil, err
		}
		peers[name] = "http://" + peer
	}
	var cfgs []placement.Config
	for i := range cfg.Members {
		name := fmt.Sprintf("p%d", i+1)
		cfgs = append(cfgs, placement.Config{
			Name: name, Dir: cfg.memberDir(name), Cluster: "ashlar-dev", Peers: peers, RPC: rpc,
			New: placement.NewCluster{
				Large: cfg.Profile, Small: smallCode, SmallMax: devSmallMax, StripeSize: stripeBytes(cfg.Profile),
				Groups: devGroups, Shards: devShards, BucketShards: min(4, devShards),
				OutAfter:    placement.Duration(cfg.OutAfter),
				ExpectHosts: cfg.Zones * cfg.Hosts, ExpectDisks: cfg.Zones * cfg.Hosts * cfg.Disks,
			},
		})
	}
	return cfgs, nil
}

// Stripes of a dev cluster: the sizes that a cluster on SSDs has. A segment of
// the smallest disk holds a piece of devPieceMax, and no longer one.
const (
	devSmallMax    = 128 << 10
	devStripeBytes = 8 << 20
	devPieceMax    = 2 << 20
)

// stripeBytes is the length of a stripe: a narrow code has shorter ones, whose
// pieces fit any disk.
func stripeBytes(code ashlar.Code) uint32 {
	return min(devStripeBytes, uint32(code.K)*devPieceMax)
}

func rpcAddrs(cfgs []placement.Config) []string {
	var addrs []string
	for _, c := range cfgs {
		addrs = append(addrs, c.RPC[c.Name])
	}
	return addrs
}

// listeners are the kinds of listeners of a process.
var listeners = []string{".peer", ".rpc", ".bytes", ".s3"}

// Ports are taken below the range that the kernel gives to outgoing
// connections, so that none of those takes one while the cluster is down.
const (
	portMin = 20_000
	portMax = 30_000
)

// addr returns the address of a listener, named as in p1.peer: on the loopback,
// with a free port chosen at the first call for the name, or in the process's own
// namespace, where all ports are free.
func (s *state) addr(dir, name string) (string, error) {
	if s.network != nil {
		process, _, _ := strings.Cut(name, ".")
		for i, suffix := range listeners {
			if strings.HasSuffix(name, suffix) {
				return fmt.Sprintf("%s:%d", s.network.IP(process), portMin+i), nil
			}
		}
	}
	if port, ok := s.Ports[name]; ok {
		return fmt.Sprintf("127.0.0.1:%d", port), nil
	}
	taken := map[int]bool{}
	for _, port := range s.Ports {
		taken[port] = true
	}
	for range portMax - portMin {
		port := portMin + rand.IntN(portMax-portMin)
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", addr)
		if taken[port] || err != nil {
			if err == nil {
				l.Close()
			}
			continue
		}
		l.Close()
		s.Ports[name] = port
		return addr, s.save(dir)
	}
	return "", fmt.Errorf("no free port between %d and %d on 127.0.0.1", portMin, portMax)
}

// fixed returns the address that is wanted, with a port that stays if it leaves it open.
func (s *state) fixed(dir, name, want string) (string, error) {
	if !strings.HasSuffix(want, ":0") {
		return want, nil
	}
	return s.addr(dir, name)
}

const pollEvery = 20 * time.Millisecond

// awaitS3 waits until the gateway answers requests.
func awaitS3(ctx context.Context, addr string) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			switch resp.StatusCode {
			case http.StatusForbidden, http.StatusOK: // it judges who asks, so it serves; 200 with RGW's answers
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the gateway at %s does not answer: %w", addr, context.Cause(ctx))
		case <-time.After(pollEvery):
		}
	}
}

// progress prints what is ready while a cluster starts.
type progress struct {
	w     io.Writer
	start time.Time
}

func newProgress(w io.Writer) *progress { return &progress{w, time.Now()} }

func (p *progress) line(what, state string) {
	fmt.Fprintf(p.w, "  %-11s %-36s ready  %.1f s\n", what, state, time.Since(p.start).Seconds())
}

func (p *progress) head(cfg *Config) {
	backing := "sparse files"
	if len(cfg.Devices) > 0 {
		backing = "devices"
	}
	fmt.Fprintf(p.w, "ashlar dev: a cluster in %s  (%d hosts × %d disks in %d zones, %s, %s)\n",
		cfg.Dir, cfg.Zones*cfg.Hosts, cfg.Disks, cfg.Zones, backing, cfg.Profile)
}

// placement waits for a leader and prints the quorum.
func (p *progress) placement(ctx context.Context, place *placeclient.Client) error {
	for {
		s, err := place.Status(ctx)
		if err == nil && s.Placement.Leader != "" {
			p.line("placement", fmt.Sprintf("%d of %d voting, leader %s", s.Placement.Voting, s.Placement.Members, s.Placement.Leader))
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the placement quorum found no leader: %w", errors.Join(err, context.Cause(ctx)))
		case <-time.After(pollEvery):
		}
	}
}

func (p *progress) hosts(hosts, disks int) {
	p.line("hosts", fmt.Sprintf("%d of %d, %d disks claimed", hosts, hosts, disks))
}

func (p *progress) gateway(url string) { p.line("gateway", url) }
