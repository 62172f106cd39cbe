package linear

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"ashlar"
	"ashlar/daemon/client"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
	"ashlar/tools/dev"
)

// Fault is a kind of fault.
type Fault string

// The faults. Each lasts a few seconds and is then taken back; a killed process
// is started again by its supervisor.
const (
	KillLeader  Fault = "kill leader"  // of a metadata shard
	PauseLeader Fault = "pause leader" // SIGSTOP, until the others have elected another
	CutLeader   Fault = "cut leader"   // from all hosts and members; gateways still reach it
	MuteLeader  Fault = "mute leader"  // as CutLeader, but it still hears
	DeafLeader  Fault = "deafen leader"
	KillHost    Fault = "kill host" // and keep it down for a while
	PauseHost   Fault = "pause host"
	KillMember  Fault = "kill member"
	PauseMember Fault = "pause member"
	CutMember   Fault = "cut member"
	KillGateway Fault = "kill gateway"
	CutLink     Fault = "cut link" // between two hosts
	CutOneWay   Fault = "cut one way"
	CutGateway  Fault = "cut gateway" // from one host
	SplitZone   Fault = "split zone"  // from the rest
	Flap        Fault = "flap link"
	MoveReplica Fault = "move replica" // of a metadata shard to another host
)

// Faults are all kinds.
var Faults = []Fault{KillLeader, PauseLeader, CutLeader, MuteLeader, DeafLeader, KillHost, PauseHost, KillMember, PauseMember,
	CutMember, KillGateway, CutLink, CutOneWay, CutGateway, SplitZone, Flap, MoveReplica}

// Bounds of a fault and of the time between two. A pause is longer than the
// time in which the others elect a new leader.
const (
	faultMin, faultMax = 1500 * time.Millisecond, 6 * time.Second
	calmMin, calmMax   = 200 * time.Millisecond, 2500 * time.Millisecond
	askTimeout         = 400 * time.Millisecond
	// orderTimeout bounds a wait for the move of a replica, which goes on after it.
	orderTimeout = 8 * time.Second
	// movesPerDeck is how often a deck holds a move: it breaks nothing by itself.
	movesPerDeck = 4
)

// Nemesis breaks a cluster of isolated processes.
type Nemesis struct {
	cluster *dev.Processes
	hosts   *client.Hosts
	rng     *rand.Rand
	logf    func(string, ...any)
	deck    []Fault
	counts  map[Fault]int
	// key lies on a shard of every slot that it is asked of
	key []byte
}

// NewNemesis returns a nemesis whose faults follow from the seed, as far as the
// cluster's own timing does.
func NewNemesis(cluster *dev.Processes, seed uint64, logf func(string, ...any)) *Nemesis {
	return &Nemesis{
		cluster: cluster, hosts: client.NewHosts(cluster.Map), rng: rand.New(rand.NewPCG(seed, 1)),
		logf: logf, counts: map[Fault]int{}, key: []byte("nemesis"),
	}
}

// Run breaks and mends until stop is closed, and heals everything. Sometimes two
// faults overlap.
func (n *Nemesis) Run(stop <-chan struct{}) {
	defer n.hosts.Close()
	for n.sleep(stop, n.between(calmMin, calmMax)) {
		mend := n.step()
		if n.rng.IntN(4) == 0 && n.sleep(stop, n.between(0, faultMin)) {
			first, second := mend, n.step()
			mend = func() { first(); second() }
		}
		n.sleep(stop, n.between(faultMin, faultMax))
		mend()
	}
}

func (n *Nemesis) between(low, high time.Duration) time.Duration {
	return low + time.Duration(n.rng.Int64N(int64(high-low)))
}

// sleep reports false when stop was closed.
func (n *Nemesis) sleep(stop <-chan struct{}, d time.Duration) bool {
	select {
	case <-stop:
		return false
	case <-time.After(d):
		return true
	}
}

// step deals from a shuffled deck, so that every kind comes up, and returns what
// takes the fault back.
func (n *Nemesis) step() (mend func()) {
	if len(n.deck) == 0 {
		n.deck = append(slices.Clone(Faults), slices.Repeat([]Fault{MoveReplica}, movesPerDeck-1)...)
		n.rng.Shuffle(len(n.deck), func(i, j int) { n.deck[i], n.deck[j] = n.deck[j], n.deck[i] })
	}
	f := n.deck[0]
	n.deck = n.deck[1:]
	what, mend, err := n.apply(f)
	if err != nil {
		n.logf("nemesis: %s: %v", f, err)
		return func() {}
	}
	n.counts[f]++
	n.logf("nemesis: %s: %s", f, what)
	return mend
}

func (n *Nemesis) apply(f Fault) (what string, mend func(), err error) {
	c := n.cluster
	switch f {
	case KillLeader, PauseLeader, CutLeader, MuteLeader, DeafLeader:
		return n.onLeader(f)
	case KillHost:
		host := n.pick(c.HostNames())
		err := c.Fault(context.Background(), dev.KillHost, host)
		return fmt.Sprint(host, unless(err)), func() { n.revive(host) }, nil
	case PauseHost:
		return n.pause(n.pick(c.HostNames()))
	case PauseMember:
		return n.pause(n.pick(c.MemberNames()))
	case KillMember:
		return n.kill(n.pick(c.MemberNames()))
	case KillGateway:
		return n.kill(n.pick(c.GatewayNames()))
	case CutMember:
		member := n.pick(c.MemberNames())
		others := append(c.HostNames(), c.MemberNames()...)
		return n.cut(member, without(others, member), true, true)
	case SplitZone:
		return n.splitZone()
	case Flap:
		return n.flap()
	case MoveReplica:
		return n.move()
	case CutGateway:
		return n.cut(n.pick(c.GatewayNames()), []string{n.pick(c.HostNames())}, true, true)
	}
	a := n.pick(c.HostNames())
	b := n.pick(without(c.HostNames(), a))
	return n.cut(a, []string{b}, true, f == CutLink)
}

// onLeader finds the leader of some shard and breaks its host.
func (n *Nemesis) onLeader(f Fault) (string, func(), error) {
	shard, leader, err := n.leader()
	if err != nil {
		return "", nil, err
	}
	peers := without(append(n.cluster.HostNames(), n.cluster.MemberNames()...), leader)
	var what string
	var mend func()
	switch f {
	case KillLeader:
		what, mend, err = n.kill(leader)
	case PauseLeader:
		what, mend, err = n.pause(leader)
	case CutLeader:
		what, mend, err = n.cut(leader, peers, true, true)
	case MuteLeader:
		what, mend, err = n.cut(leader, peers, true, false)
	default:
		what, mend, err = n.cut(leader, peers, false, true)
	}
	return fmt.Sprintf("%s, which leads shard %d", what, shard), mend, err
}

// leader asks the replicas of a shard, as a client would, which of them answers.
func (n *Nemesis) leader() (ashlar.ShardID, string, error) {
	m := n.cluster.Map()
	shard := ashlar.ShardID(n.rng.IntN(len(m.Shards)))
	for _, r := range m.Shards[shard].Replicas {
		s, err := n.hosts.Shards(r.Host)
		if err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		_, err = s.Get(ctx, shard, n.key)
		cancel()
		if err == nil || ashlar.Is(err, ashlar.NotFound) {
			return shard, m.Host(r.Host).Name, nil
		}
		var other *wire.NotLeader
		if errors.As(err, &other) && m.Host(other.Hint) != nil {
			return shard, m.Host(other.Hint).Name, nil
		}
	}
	return shard, "", fmt.Errorf("shard %d has no leader now", shard)
}

func (n *Nemesis) pick(names []string) string { return names[n.rng.IntN(len(names))] }

func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(s string) bool { return s == name })
}

func unless(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf(" (%v)", err)
}

func (n *Nemesis) revive(host string) {
	if err := n.cluster.Fault(context.Background(), dev.ReviveHost, host); err != nil {
		n.logf("nemesis: %s is back, %v", host, err)
	}
}

func (n *Nemesis) kill(name string) (string, func(), error) {
	if !n.cluster.Kill(name) {
		return "", nil, fmt.Errorf("%s does not run now", name)
	}
	return name, func() {}, nil
}

func (n *Nemesis) pause(name string) (string, func(), error) {
	if !n.cluster.Pause(name) {
		return "", nil, fmt.Errorf("%s does not run now", name)
	}
	return name, func() { n.cluster.Resume(name) }, nil
}

// cut cuts what a process says to others, what it hears from them, or both.
func (n *Nemesis) cut(name string, others []string, says, hears bool) (string, func(), error) {
	var pairs [][2]string
	for _, o := range others {
		if says {
			pairs = append(pairs, [2]string{name, o})
		}
		if hears {
			pairs = append(pairs, [2]string{o, name})
		}
	}
	arrow := map[[2]bool]string{{true, true}: " ↮ ", {true, false}: " ↛ ", {false, true}: " ↚ "}[[2]bool{says, hears}]
	what, mend := name+arrow+strings.Join(others, " "), func() { n.each(pairs, n.cluster.Mend) }
	err := n.each(pairs, n.cluster.Cut)
	if err != nil {
		mend() // what was cut before it failed
	}
	return what, mend, err
}

// each does it for all pairs, also when one fails.
func (n *Nemesis) each(pairs [][2]string, do func(from, to string) error) error {
	var errs []error
	for _, p := range pairs {
		errs = append(errs, do(p[0], p[1]))
	}
	return errors.Join(errs...)
}

// splitZone cuts the hosts of one zone and one member from the rest.
func (n *Nemesis) splitZone() (string, func(), error) {
	zones := map[byte][]string{}
	for _, h := range n.cluster.HostNames() {
		zones[h[0]] = append(zones[h[0]], h)
	}
	names := slices.Sorted(maps.Keys(zones))
	zone := names[n.rng.IntN(len(names))]
	side := append(slices.Clone(zones[zone]), n.pick(n.cluster.MemberNames()))
	rest := append(n.cluster.HostNames(), n.cluster.MemberNames()...)
	for _, s := range side {
		rest = without(rest, s)
	}
	var mends []func()
	mendAll := func() {
		for _, mend := range mends {
			mend()
		}
	}
	for _, s := range side {
		_, mend, err := n.cut(s, rest, true, true)
		if err != nil {
			mendAll()
			return "", nil, err
		}
		mends = append(mends, mend)
	}
	return strings.Join(side, " ") + " ↮ " + strings.Join(rest, " "), mendAll, nil
}

// move moves one replica of a shard to a host that has none of it, in the same
// zone if there is one: the cluster balances its zones itself. It is refused
// while an earlier change of the shard is under way.
func (n *Nemesis) move() (string, func(), error) {
	m := n.cluster.Map()
	shard := ashlar.ShardID(n.rng.IntN(len(m.Shards)))
	replicas := m.Shards[shard].Replicas
	from := m.Host(replicas[n.rng.IntN(len(replicas))].Host)
	var near, far []string
	for _, h := range m.Hosts {
		switch {
		case slices.ContainsFunc(replicas, func(r topology.Replica) bool { return r.Host == h.ID }):
		case h.Zone == from.Zone:
			near = append(near, h.Name)
		default:
			far = append(far, h.Name)
		}
	}
	if len(near) == 0 {
		near = far
	}
	to := n.pick(near)
	what := fmt.Sprintf("shard %d from %s to %s", shard, from.Name, to)
	ctx, cancel := context.WithTimeout(context.Background(), orderTimeout)
	defer cancel()
	if err := n.cluster.MoveReplica(ctx, shard, from.Name, to); err != nil {
		return "", nil, fmt.Errorf("%s: %w", what, err)
	}
	return what, func() {}, nil
}

// flapEvery is how often a flapping link changes.
const flapEvery = 300 * time.Millisecond

// flap cuts and mends what a host says to all others, again and again.
func (n *Nemesis) flap() (string, func(), error) {
	host := n.pick(n.cluster.HostNames())
	others := without(n.cluster.HostNames(), host)
	what, mend, err := n.cut(host, others, true, true)
	if err != nil {
		return "", nil, err
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // ends before the fault is taken back
		defer close(done)
		for n.sleep(stop, flapEvery) {
			mend()
			if !n.sleep(stop, flapEvery) {
				return
			}
			if _, mend, err = n.cut(host, others, true, true); err != nil {
				return
			}
		}
	}()
	return what, func() { close(stop); <-done; mend() }, nil
}

// Counts says how often each kind of fault was made.
func (n *Nemesis) Counts() map[Fault]int { return n.counts }
