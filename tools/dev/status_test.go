package dev

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"testing"
	"time"

	placeclient "ashlar/placement/client"
	"ashlar/placement/health"
	"ashlar/tools/dev/devtest"
)

// TestStatus asks every placement member, the admin endpoint and the command
// how the cluster is: all say the same, and it is right.
func TestStatus(t *testing.T) {
	cfg := testConfig(t)
	p := startMany(t, cfg)
	client := s3Client(t, p.S3(), cfg)
	makeBucket(t, client)
	putAll(t, client, samples(10, "status"))

	same := func(want health.Verdict, reads, writes health.Survival, codes ...string) {
		t.Helper()
		devtest.Eventually(t, time.Minute, func() error { return p.sameStatus(t, want, reads, writes, codes) })
	}
	same(health.Healthy, health.Survival{Disks: 2, Hosts: 1, Zones: 1}, health.Survival{Disks: 1, Hosts: 1, Zones: 0})
	apply(t, p, KillDisk, "b1/d02")
	same(health.Degraded, health.Survival{Disks: 1, Hosts: 1, Zones: 0}, health.Survival{Disks: 0, Hosts: 0, Zones: 0}, health.DiskFailed)
	apply(t, p, KillHost, "c2")
	same(health.AtRisk, health.Survival{Disks: 0, Hosts: 0, Zones: 0}, health.Survival{Disks: -1, Hosts: -1, Zones: -1},
		health.HostDown, health.DiskFailed, health.WritesRefused)
	apply(t, p, ReviveHost, "c2")
	apply(t, p, ReviveDisk, "b1/d02")
	same(health.Healthy, health.Survival{Disks: 2, Hosts: 1, Zones: 1}, health.Survival{Disks: 1, Hosts: 1, Zones: 0})

	// A member that is away is named, and the others still answer.
	p.super.kill("p2")
	devtest.Eventually(t, time.Minute, func() error {
		s, err := p.Status(t.Context())
		if err == nil && (s.Verdict != health.Degraded || !raised(s, health.QuorumDegraded, "p2")) {
			err = fmt.Errorf("%s, %v", s.Verdict, s.Codes)
		}
		return err
	})
}

// sameStatus asks everybody and compares.
func (p *Processes) sameStatus(t *testing.T, verdict health.Verdict, reads, writes health.Survival, codes []string) error {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	first := ""
	for _, ask := range p.askers(t) {
		s, err := ask.status(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", ask.who, err)
		}
		s.Capacity = health.Capacity{} // usage moves
		b, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if first == "" {
			first = string(b)
		}
		if string(b) != first {
			return fmt.Errorf("%s says\n%s\nand the first said\n%s", ask.who, b, first)
		}
		if s.Verdict != verdict || s.Reads != reads || s.Writes != writes || s.AsOf != "" {
			return fmt.Errorf("%s: %s, survives %+v for reads and %+v for writes, as of %q, want %s, %+v and %+v",
				ask.who, s.Verdict, s.Reads, s.Writes, s.AsOf, verdict, reads, writes)
		}
		for _, code := range codes {
			if !raised(s, code, "") {
				return fmt.Errorf("%s: %s is not raised: %v", ask.who, code, s.Codes)
			}
		}
	}
	return nil
}

// raised reports whether a code is raised, for the subject if one is given.
func raised(s health.Status, code, subject string) bool {
	for _, c := range s.Codes {
		if c.Code == code && (subject == "" || c.Subject == subject) {
			return true
		}
	}
	return false
}

type asker struct {
	who    string
	status func(context.Context) (health.Status, error)
}

// askers are all who can be asked: each member through a client of its own,
// the admin endpoint, and the command with each member and with the directory.
func (p *Processes) askers(t *testing.T) (all []asker) {
	cfgs, err := memberConfigs(&p.cfg, p.st)
	if err != nil {
		t.Fatal(err)
	}
	for i, addr := range rpcAddrs(cfgs) {
		all = append(all, asker{"member " + cfgs[i].Name, func(ctx context.Context) (health.Status, error) {
			c, err := placeclient.New(placeclient.Config{Members: []string{addr}})
			if err != nil {
				return health.Status{}, err
			}
			defer c.Close()
			return c.Status(ctx)
		}}, asker{"ashlar status --placement " + cfgs[i].Name, statusCommand(devtest.Program(t), "--placement", addr)})
	}
	remote, err := Find(p.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return append(all, asker{"the admin endpoint", remote.Status}, asker{"ashlar status --dir", statusCommand(devtest.Program(t), "--dir", p.cfg.Dir)})
}

// statusCommand runs `ashlar status`.
func statusCommand(program string, args ...string) func(context.Context) (health.Status, error) {
	return func(ctx context.Context) (s health.Status, err error) {
		out, err := exec.CommandContext(ctx, program, append([]string{"status", "--json"}, args...)...).Output()
		if err != nil {
			return s, err
		}
		return s, json.Unmarshal(out, &s)
	}
}
