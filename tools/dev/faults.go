package dev

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"ashlar"
	"ashlar/placement/topology"
	"ashlar/tools/network"
)

// This file is what one does to a cluster of processes besides the verbs: signals
// to single processes, and cuts of the links between them.

// MemberNames are the names of the placement members.
func (p *Processes) MemberNames() []string { return numbered("p", p.cfg.Members) }

// HostNames are the names of the daemons.
func (p *Processes) HostNames() (names []string) {
	for _, s := range p.specs {
		names = append(names, s.Name)
	}
	return names
}

// GatewayNames are the names of the gateways.
func (p *Processes) GatewayNames() []string { return numbered("g", p.cfg.Gateways) }

func numbered(prefix string, count int) (names []string) {
	for i := range count {
		names = append(names, fmt.Sprintf("%s%d", prefix, i+1))
	}
	return names
}

// Members are the gRPC addresses of the placement members.
func (p *Processes) Members() []string { return p.rpc }

// Map is the newest map of the cluster.
func (p *Processes) Map() *topology.Map { return p.place.Map() }

// MoveReplica orders a new replica of a metadata shard on host to, in the place of
// the one on host from, and waits until nothing is left to do or ctx ends.
func (p *Processes) MoveReplica(ctx context.Context, shard ashlar.ShardID, from, to string) error {
	_, epoch, done, err := p.place.MoveReplica(ctx, shard, from, to)
	if err != nil || done {
		return err
	}
	_, err = p.place.Wait(ctx, func(m *topology.Map) bool {
		return m != nil && m.Epoch >= epoch && len(m.Shards[shard].Leaving) == 0
	})
	return err
}

// Kill ends a process with SIGKILL; it is started again after a pause. It reports
// whether the process ran.
func (p *Processes) Kill(name string) bool { return p.super.signal(name, syscall.SIGKILL) }

// Pause stops a process in its tracks until Resume. It reports whether it ran.
func (p *Processes) Pause(name string) bool { return p.super.signal(name, syscall.SIGSTOP) }

// Resume takes a Pause back.
func (p *Processes) Resume(name string) bool { return p.super.signal(name, syscall.SIGCONT) }

var errNotIsolated = errors.New("the processes share one network: start them with Isolate")

// Cut lets all packets from one process to another vanish, those of connections
// that stand too. This process is network.Outside.
func (p *Processes) Cut(from, to string) error {
	if p.net == nil {
		return errNotIsolated
	}
	return p.net.Cut(from, to)
}

// Mend takes a Cut back.
func (p *Processes) Mend(from, to string) error {
	if p.net == nil {
		return errNotIsolated
	}
	return p.net.Mend(from, to)
}

// isolate makes a namespace for every process.
func (p *Processes) isolate() (err error) {
	if len(p.st.Ports) > 0 || p.st.S3 != "" {
		return fmt.Errorf("%s was used before: choose another directory", p.cfg.Dir)
	}
	names := append(append(p.MemberNames(), p.HostNames()...), p.GatewayNames()...)
	if p.net, err = network.New(names...); err != nil {
		return err
	}
	p.st.network, p.super.enter = p.net, p.net.Enter
	return nil
}
