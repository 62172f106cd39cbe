package health

import (
	"fmt"
	"strings"

	"ashlar"
	"ashlar/placement/layout"
	"ashlar/placement/topology"
)

// The registry of health codes of this package, the gravest first.
const (
	GroupsUnreadable   = "GROUPS_UNREADABLE"
	ShardsUnavailable  = "SHARDS_UNAVAILABLE"
	Forming            = "FORMING"
	QuorumLost         = "QUORUM_LOST"
	PartitionSuspected = "PARTITION_SUSPECTED"
	ZoneDown           = "ZONE_DOWN"
	HostDown           = "HOST_DOWN"
	HostOut            = "HOST_OUT"
	DiskFailed         = "DISK_FAILED"
	DiskSmartCode      = "DISK_SMART"
	Full               = "FULL"
	WritesRefused      = "WRITES_REFUSED"
	LayoutBroken       = "LAYOUT_BROKEN"
	QuorumDegraded     = "QUORUM_DEGRADED"
	NearFull           = "NEARFULL"
	DiskFull           = "DISK_FULL"
	ScrubOverdue       = "SCRUB_OVERDUE"
	DiskUnused         = "DISK_UNUSED"
	ReplicasLost       = "REPLICAS_LOST"
	ReplicasNoHost     = "REPLICAS_NO_HOST"
	ReplicasMoving     = "REPLICAS_MOVING"
)

// Names lists the codes, the gravest first.
func Names() []string {
	return []string{
		GroupsUnreadable, ShardsUnavailable, Forming, QuorumLost, PartitionSuspected, ZoneDown, HostDown, HostOut, DiskFailed,
		DiskSmartCode, Full, WritesRefused, LayoutBroken, QuorumDegraded, NearFull, DiskFull, ScrubOverdue, DiskUnused,
		ReplicasLost, ReplicasNoHost, ReplicasMoving,
	}
}

// fullPercent of a disk's capacity in use raises DISK_FULL.
const fullPercent = 95

// perCodeMax bounds how often one code is listed; a last line counts the rest.
const perCodeMax = 8

// raise lists every code that holds, gravest first.
func raise(m *topology.Map, f Facts, st *Status) []Code {
	r := &raiser{m: m, f: f, st: st, slots: make([]int, len(m.Disks)), out: []Code{}}
	for _, g := range m.Groups {
		for _, n := range g.Disks {
			r.slots[n]++
		}
	}
	r.service()
	if st.Verdict == IsFull {
		r.room() // what helps stands first
	}
	r.hosts()
	r.disks()
	r.smart()
	if st.Verdict != IsFull {
		r.room()
	}
	r.scrubs()
	r.replicas()
	r.tables()
	return r.out
}

type raiser struct {
	m     *topology.Map
	f     Facts
	st    *Status
	slots []int // groups that have a piece on the disk
	out   []Code
}

func (r *raiser) add(code, subject, next, summary string, args ...any) {
	r.out = append(r.out, Code{
		Code: code, Subject: subject, Next: next, Summary: fmt.Sprintf(summary, args...), Note: code == DiskUnused || code == ReplicasMoving,
	})
}

// service raises what stops the cluster from serving.
func (r *raiser) service() {
	w := r.st.Worst
	if w.Unreadable > 0 {
		r.add(GroupsUnreadable, "", "bring the hosts and disks below back; no data was given up",
			"%s cannot be read: fewer than k of their disks answer.", plural(w.Unreadable, "group"))
	}
	if w.NoMajority > 0 {
		r.add(ShardsUnavailable, "", "bring the hosts below back; no metadata was given up",
			"%s without a majority: their keys are neither read nor written.", plural(w.NoMajority, "metadata shard"))
	}
	if !r.st.Formed && r.f.Heard {
		r.add(Forming, "", "journalctl -u ashlar-daemon on the hosts that are missing",
			"The cluster is not formed yet: %s.", r.f.Forming)
	}
	if !r.f.Heard {
		r.add(QuorumLost, "", "systemctl start ashlar-placement on the members that are away",
			"The placement quorum has no leader. Reads and writes go on from the last map; hosts that come or go are not noticed.")
	}
}

// hosts raises what is silent: whole zones, then single hosts.
func (r *raiser) hosts() {
	if n := len(r.f.Suspected); n > 0 {
		r.add(PartitionSuspected, "", "check the network between the zones first",
			"%s went down together (%s): taken for a cut network, none of them is given up.", plural(n, "host"), list(r.f.Suspected))
	}
	up, first := map[string]bool{}, map[string]topology.Host{}
	for _, h := range r.m.Hosts {
		up[h.Zone] = up[h.Zone] || h.State == topology.HostUp
		if _, ok := first[h.Zone]; !ok {
			first[h.Zone] = h
		}
	}
	lines := 0
	for _, h := range r.m.Hosts {
		if !up[h.Zone] && first[h.Zone].ID == h.ID {
			r.add(ZoneDown, h.Zone, "check power and network of the zone", "Zone %s: none of its %s answers; the last went down %s.",
				h.Zone, plural(r.hostsIn(h.Zone), "host"), r.lastOf(h.Zone))
		}
		if h.State == topology.HostUp || !up[h.Zone] {
			continue
		}
		if lines++; lines > perCodeMax {
			continue
		}
		if h.State == topology.HostOut {
			r.add(HostOut, h.Name, "systemctl status ashlar-daemon on "+h.Name,
				"%s (%s) is given up since %s. Its %s; groups keep their disks.",
				h.Name, place(h), clock(h), r.replicasOn(h.ID))
			continue
		}
		r.add(HostDown, h.Name, "systemctl status ashlar-daemon on "+h.Name,
			"%s (%s) is down since %s.", h.Name, place(h), clock(h))
	}
	if lines > perCodeMax {
		r.add(HostDown, "", "ashlar status --json", "… and %s more.", plural(lines-perCodeMax, "host"))
	}
}

func (r *raiser) hostsIn(zone string) int {
	n := 0
	for _, h := range r.m.Hosts {
		n += one(h.Zone == zone)
	}
	return n
}

// lastOf is when the last host of a zone went.
func (r *raiser) lastOf(zone string) string {
	var last topology.Host
	for _, h := range r.m.Hosts {
		if h.Zone == zone && !h.Since.Before(last.Since) {
			last = h
		}
	}
	return clock(last)
}

// disks raises what single disks suffer from.
func (r *raiser) disks() {
	failed, full, unused := 0, 0, 0
	for i, d := range r.m.Disks {
		facts := r.f.Disks[topology.DiskNum(i)]
		if d.State != topology.DiskUp {
			if failed++; failed <= perCodeMax {
				why := facts.Reason
				if why == "" {
					why = "its daemon fenced it"
				}
				r.add(DiskFailed, d.Name, "journalctl -u ashlar-daemon on "+r.hostName(d.Host),
					"%s: %s. %s one piece fewer until it is back: this version moves nothing.",
					d.Name, why, has(r.slots[i], "group"))
			}
		}
		taken := facts.UsedBytes * 100 / max(1, d.Bytes)
		switch {
		case d.State != topology.DiskUp || r.st.Room != nil && r.st.Room.GroupsFull > 0: // FULL names them
		case taken >= fullPercent || facts.Room.full():
			switch full++; {
			case full > perCodeMax:
			case facts.Room.full():
				r.add(DiskFull, d.Name, makeRoom, "%s is full: it takes no more pieces (%d %% of its bytes are in use).", d.Name, taken)
			default:
				r.add(DiskFull, d.Name, makeRoom, "%s is %d %% full.", d.Name, taken)
			}
		}
		unused += one(r.st.Formed && r.slots[i] == 0)
	}
	if failed > perCodeMax {
		r.add(DiskFailed, "", "ashlar status --json", "… and %s more.", plural(failed-perCodeMax, "disk"))
	}
	if full > perCodeMax {
		r.add(DiskFull, "", "ashlar status --json", "… and %s more.", plural(full-perCodeMax, "disk"))
	}
	if unused > 0 {
		r.add(DiskUnused, "", "nothing to do",
			"%s came after the cluster was formed and %s nothing: this version does not rebalance.",
			plural(unused, "disk"), map[bool]string{true: "holds", false: "hold"}[unused == 1])
	}
}

// replicas raises what the replicas of metadata shards suffer from.
func (r *raiser) replicas() {
	lost, moving := 0, 0
	for i := range r.m.Shards {
		sh := &r.m.Shards[i]
		moving += one(sh.Changing())
		for _, rep := range sh.Replicas {
			lost += one(r.f.Replicas[rep.ID] == ReplicaLost)
		}
	}
	if lost > 0 {
		r.add(ReplicasLost, "", "ashlar shard list", "%s of metadata shards lost their data and stay silent; new ones take their place.",
			plural(lost, "replica"))
	}
	if n := r.f.NoSeat; n > 0 {
		r.add(ReplicasNoHost, "", "bring a host back or add one",
			"%s a replica, and there is no host that could take it: each replica needs a host of its own.", misses(n, "metadata shard"))
	}
	if moving > 0 {
		r.add(ReplicasMoving, "", "ashlar shard list", "%s being changed.", map[bool]string{
			true: "The replicas of 1 metadata shard are", false: fmt.Sprintf("The replicas of %d metadata shards are", moving)}[moving == 1])
	}
}

// replicasOn says what becomes of the metadata replicas of a host that is out.
func (r *raiser) replicasOn(id ashlar.HostID) string {
	n := 0
	for i := range r.m.Shards {
		for _, rep := range r.m.Shards[i].Replicas {
			n += one(rep.Host == id)
		}
	}
	if n == 0 {
		return "metadata replicas are on other hosts"
	}
	return plural(n, "metadata replica") + " wait for other hosts"
}

func misses(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " misses"
	}
	return plural(n, noun) + " miss"
}

// tables raises what the group table and the quorum suffer from.
func (r *raiser) tables() {
	if n := r.st.Worst.Unwritable; n > 0 {
		code := r.m.Settings.Large
		r.add(WritesRefused, "", "bring the hosts and disks above back",
			"PUTs to %d of %s get 503: %v needs %d durable pieces, %v needs %d.", n, plural(len(r.m.Groups), "group"),
			code, code.Quorum(), r.m.Settings.Small, r.m.Settings.Small.Quorum())
	}
	if broken := layout.Check(r.m); len(broken) > 0 {
		r.add(LayoutBroken, "", "ashlar status --json",
			"%s of the placement rules, the first: %v.", plural(len(broken), "breach"), broken[0])
	}
	if p := r.st.Placement; p.Voting < p.Members && r.f.Heard {
		var away []string
		for _, member := range r.f.Members {
			if !member.Voting {
				away = append(away, member.Name)
			}
		}
		r.add(QuorumDegraded, strings.Join(away, ","), "systemctl status ashlar-placement on "+away[0],
			"%d of %d placement members vote; %s away.", p.Voting, p.Members, list(away)+map[bool]string{true: " is", false: " are"}[len(away) == 1])
	}
}

func (r *raiser) hostName(id ashlar.HostID) string {
	if h := r.m.Host(id); h != nil {
		return h.Name
	}
	return "its host"
}

func place(h topology.Host) string {
	if h.Rack == "" {
		return "zone " + h.Zone
	}
	return "zone " + h.Zone + ", rack " + h.Rack
}

func clock(h topology.Host) string { return h.Since.UTC().Format("2006-01-02 15:04:05 UTC") }

// list names up to perCodeMax names.
func list(names []string) string {
	if len(names) <= perCodeMax {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:perCodeMax], ", "), len(names)-perCodeMax)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "ch") {
		noun += "e"
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func has(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " has"
	}
	return plural(n, noun) + " have"
}
