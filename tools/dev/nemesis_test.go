package dev

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// What the nemesis kills. A process is started again by the supervisor, hosts
// and disks by the nemesis.
const (
	killDaemon  = "daemon"
	killMember  = "member"
	killGateway = "gateway"
	killHost    = "host"
	killDisk    = "disk"
	killAll     = "everything"
)

var nemesisKinds = []string{killDaemon, killMember, killGateway, killHost, killDisk, killAll}

// nemesis breaks a cluster of processes.
type nemesis struct {
	*chaos
	p     *Processes
	rng   *rand.Rand
	kinds []string // but killAll
	deck  []string
	dead  map[string]time.Time // disks and hosts, and when they come back
	alls  int
	since time.Time
}

// Bounds of what is broken at the same time: the promise holds beyond them, but
// nothing could be written.
const (
	deadHostsMax = 1
	deadDisksMax = 2
)

func (n *nemesis) run(d time.Duration) {
	n.dead, n.since, n.kinds = map[string]time.Time{}, time.Now(), strings.Split(*chaosKinds, ",")
	wantAll := slices.Contains(n.kinds, killAll)
	n.kinds = slices.DeleteFunc(n.kinds, func(kind string) bool { return kind == killAll })
	for time.Since(n.since) < d {
		time.Sleep(time.Duration(300+n.rng.IntN(1700)) * time.Millisecond)
		n.revive(func(back time.Time) bool { return time.Now().After(back) })
		// Everything at once at one and two thirds of the time, or every 30 s.
		if wantAll && time.Since(n.since) > time.Duration(n.alls+1)*min(d/3, 30*time.Second) && n.alls < max(2, int(d/(30*time.Second))) {
			n.alls++
			n.killEverything()
			continue
		}
		n.step()
	}
	for ; wantAll && n.alls < 2; n.alls++ {
		n.killEverything()
	}
}

// step deals from a shuffled deck, so that every kind comes up.
func (n *nemesis) step() {
	if len(n.kinds) == 0 {
		return
	}
	if len(n.deck) == 0 {
		n.deck = slices.Clone(n.kinds)
		n.rng.Shuffle(len(n.deck), func(i, j int) { n.deck[i], n.deck[j] = n.deck[j], n.deck[i] })
	}
	kind := n.deck[0]
	n.deck = n.deck[1:]
	switch kind {
	case killDaemon:
		n.signal(kind, n.host())
	case killMember:
		n.signal(kind, fmt.Sprintf("p%d", 1+n.rng.IntN(n.p.cfg.Members)))
	case killGateway:
		n.signal(kind, fmt.Sprintf("g%d", 1+n.rng.IntN(n.p.cfg.Gateways)))
	case killHost:
		if n.deadOnes(false) < deadHostsMax {
			n.fault(kind, KillHost, n.host())
		}
	case killDisk:
		if n.deadOnes(true) < deadDisksMax {
			spec := n.p.specs[n.rng.IntN(len(n.p.specs))]
			n.fault(kind, KillDisk, spec.Disks[n.rng.IntN(len(spec.Disks))].Name)
		}
	}
}

func (n *nemesis) host() string { return n.p.specs[n.rng.IntN(len(n.p.specs))].Name }

// deadOnes counts the dead disks or the dead hosts.
func (n *nemesis) deadOnes(disks bool) (c int) {
	for name := range n.dead {
		if strings.Contains(name, "/") == disks {
			c++
		}
	}
	return c
}

// signal kills one process, which the supervisor starts again. That it does not
// run now is not worth a word.
func (n *nemesis) signal(kind, name string) {
	if _, running := n.p.PIDs()[name]; !running {
		return
	}
	n.p.super.signal(name, syscall.SIGKILL)
	n.kills[kind]++
	n.logf("nemesis: kill -9 %s", name)
}

func (n *nemesis) killEverything() {
	pids := n.p.PIDs()
	for name := range pids {
		n.p.super.signal(name, syscall.SIGKILL)
	}
	n.kills[killAll]++
	n.logf("nemesis: kill -9 of all %d processes", len(pids))
}

// fault kills a host or disk for a while.
func (n *nemesis) fault(kind, verb, name string) {
	if _, already := n.dead[name]; already {
		return
	}
	err := n.p.Fault(context.Background(), verb, name)
	n.kills[kind]++
	n.dead[name] = time.Now().Add(time.Duration(1+n.rng.IntN(5)) * time.Second)
	n.logf("nemesis: %s %s (%v)", verb, name, err)
}

// revive brings back what is due. A map that does not show it yet is no reason
// to wait: the quorum may be dead at the moment.
func (n *nemesis) revive(due func(time.Time) bool) {
	for _, name := range slices.Sorted(maps.Keys(n.dead)) {
		if !due(n.dead[name]) {
			continue
		}
		verb := ReviveHost
		if strings.Contains(name, "/") {
			verb = ReviveDisk
		}
		err := n.p.Fault(context.Background(), verb, name)
		delete(n.dead, name)
		n.logf("nemesis: %s %s (%v)", verb, name, err)
	}
}

// heal brings everything back.
func (n *nemesis) heal() {
	n.revive(func(time.Time) bool { return true })
	if switches, err := filepath.Glob(filepath.Join(n.p.cfg.faultDir(), "*")); err != nil || len(switches) > 0 {
		n.t.Errorf("fault switches are left: %v, %v", switches, err)
	}
	for _, spec := range n.p.specs {
		if err := n.p.super.start(spec.Name); err != nil {
			n.t.Error(err)
		}
	}
}
