package state

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"ashlar"
	"ashlar/placement/health"
	"ashlar/placement/topology"
)

// How the replicas of a shard change.
//
// The map holds for each shard the list of replicas that it should have. To
// replace one, the machine writes a list with a new replica, whose id was never
// used before, and notes the old one as leaving. The shard's leader does the rest
// (daemon/meta/replica): it adds the new one as a learner, waits until it keeps
// up, and swaps the two in one joint change. The leader reports the committed
// configuration with its host's heartbeats; when that is the list of the map,
// nothing more and nothing less, the change is done and nobody leaves any more.
//
// Why that is safe:
//
//   - The machine never changes who votes. It names a wish; raft goes there from
//     the configuration that is really in force, and a joint change needs
//     majorities of the old and of the new voters. So whatever the machine
//     believes, no two configurations decide without a common member.
//   - A list differs from the one before in one replica, and a new list is written
//     only when the leader was heard lately and reports the last one as
//     committed: so there is a live majority, and the one that is replaced is
//     not needed for it. The exception is the new replica of a change under way:
//     if its host is given up before it votes, another one takes its place.
//   - The list that a leader follows is ordered by Moved, which travels in the
//     change itself: a leader with an older map cannot undo a newer change.
//   - A replica loses its data only when the map names it no more, which is after
//     a committed configuration without it was seen, of which its leader had made
//     sure that a majority knows: whichever host is lost then, those who are left
//     need nobody who is gone. As ids are not used twice and lists do not go
//     back, it is never asked to vote again.
//   - While many hosts are lost at once nothing is planned.
const (
	// changesMax bounds the changes under way in the cluster.
	changesMax = 8
	// leavingMax bounds the tries on a host that loses one replica after the other.
	leavingMax = 8
	// reportMax is the age up to which a leader's report counts.
	reportMax = 5 * time.Second
	// improveEvery is how often the balance is looked at.
	improveEvery = 5 * time.Second
)

// ShardReport is the committed configuration of a shard, as its leader says.
type ShardReport struct {
	Shard ashlar.ShardID
	// Index is its place in the shard's log.
	Index  uint64
	Leader ashlar.ReplicaID
	Voters []ashlar.ReplicaID
	// Learners do not vote yet, Outgoing will cease to.
	Learners, Outgoing []ashlar.ReplicaID
}

// shardHeard is the newest report of a shard.
type shardHeard struct {
	ShardReport
	host ashlar.HostID
	at   time.Time
}

// hearShards takes in what a host says of metadata.
func (s *Machine) hearShards(now time.Time, host ashlar.HostID, mem *heard, hb Heartbeat) {
	mem.lost = mem.lost[:0]
	for _, id := range hb.Lost {
		for i := range s.Map().Shards {
			if slices.Contains(s.Map().Shards[i].All(), topology.Replica{ID: id, Host: host}) {
				mem.lost = append(mem.lost, id)
			}
		}
	}
	for _, r := range hb.Shards {
		if known := s.shards[r.Shard]; int(r.Shard) < len(s.Map().Shards) && r.Index >= known.Index {
			s.shards[r.Shard] = shardHeard{ShardReport: r, host: host, at: now}
		}
	}
}

// tendShards ends changes that are done and begins those that are due.
func (s *Machine) tendShards(now time.Time) {
	changing := 0
	for i := range s.Map().Shards {
		if s.Map().Shards[i].Changing() && s.settled(i) {
			s.edit().Shards[i].Leaving = nil
		}
		if s.Map().Shards[i].Changing() {
			changing++
		}
	}
	for _, h := range s.Map().Hosts {
		if s.suspected(h) {
			return
		}
	}
	for i := range s.Map().Shards {
		changing += s.heal(now, i, changing < changesMax)
	}
	if changing == 0 && now.Sub(s.improved) >= improveEvery {
		s.improved = now
		s.improve(now)
	}
}

// settled reports whether the shard's leader says that the map's list is what
// is in force.
func (s *Machine) settled(i int) bool {
	r, replicas := s.shards[ashlar.ShardID(i)], s.Map().Shards[i].Replicas
	if len(r.Learners) > 0 || len(r.Outgoing) > 0 || len(r.Voters) != len(replicas) {
		return false
	}
	for _, v := range replicas {
		if !slices.Contains(r.Voters, v.ID) {
			return false
		}
	}
	return true
}

// led reports whether somebody led the shard lately.
func (s *Machine) led(now time.Time, i int) bool {
	r, ok := s.shards[ashlar.ShardID(i)]
	return ok && now.Sub(r.at) <= reportMax && s.hostIs(r.host, topology.HostUp)
}

func (s *Machine) hostIs(id ashlar.HostID, state topology.HostState) bool {
	h := s.Map().Host(id)
	return h != nil && h.State == state
}

// lost reports whether the replica's host says that its data is gone.
func (s *Machine) lost(r topology.Replica) bool {
	mem := s.heard[r.Host]
	return mem != nil && s.hostIs(r.Host, topology.HostUp) && slices.Contains(mem.lost, r.ID)
}

// gone reports whether the replica has to be replaced.
func (s *Machine) gone(r topology.Replica) bool {
	return s.hostIs(r.Host, topology.HostOut) || s.lost(r)
}

// heal replaces one replica of the shard that is gone, if that is safe now and
// may begins a change. It returns how many changes began.
func (s *Machine) heal(now time.Time, i int, may bool) int {
	sh := &s.Map().Shards[i]
	at := slices.IndexFunc(sh.Replicas, s.gone)
	if at < 0 || !s.led(now, i) {
		return 0
	}
	if sh.Changing() {
		// Only the new one may be replaced again, and only if it does not vote.
		at = slices.IndexFunc(sh.Replicas, func(r topology.Replica) bool { return s.gone(r) && s.pending(i, r.ID) })
		if at < 0 {
			return 0
		}
		if host, ok := s.seat(i, at); ok {
			s.replace(i, at, host)
		}
		return 0
	}
	if !may || !s.settled(i) {
		return 0
	}
	host, ok := s.seat(i, at)
	if !ok {
		return 0
	}
	s.replace(i, at, host)
	return 1
}

// pending reports whether the replica is in the list and does not vote yet.
func (s *Machine) pending(i int, id ashlar.ReplicaID) bool {
	r, ok := s.shards[ashlar.ShardID(i)]
	return ok && s.Map().Shards[i].Changing() && !slices.Contains(r.Voters, id)
}

// seat chooses the host of the replica that takes the place of number at. One
// whose data was lost on a host that lives is made again there, but elsewhere,
// if that is possible, when that happens before it votes; else it is the host that
// spreads the shard best, and of these the one with the fewest replicas.
func (s *Machine) seat(i, at int) (ashlar.HostID, bool) {
	m := s.Map()
	sh := &m.Shards[i]
	old := sh.Replicas[at]
	if s.lost(old) && !s.pending(i, old.ID) {
		return old.Host, true
	}
	load := s.load()
	var best *topology.Host
	better := func(a, b *topology.Host) bool {
		return cmp.Or(s.crowd(sh, at, a).compare(s.crowd(sh, at, b)), load[a.ID]-load[b.ID], int(a.ID)-int(b.ID)) < 0
	}
	for k := range m.Hosts {
		h := &m.Hosts[k]
		if h.State == topology.HostUp && !holds(sh, h.ID) && (best == nil || better(h, best)) {
			best = h
		}
	}
	switch {
	case best != nil:
		return best.ID, true
	case s.lost(old) && len(sh.Leaving) < leavingMax:
		return old.Host, true // there is no other host: once more where it was
	}
	return 0, false
}

func holds(sh *topology.Shard, host ashlar.HostID) bool {
	return slices.ContainsFunc(sh.All(), func(r topology.Replica) bool { return r.Host == host })
}

// load counts the replicas of each host.
func (s *Machine) load() map[ashlar.HostID]int {
	load := map[ashlar.HostID]int{}
	for i := range s.Map().Shards {
		for _, r := range s.Map().Shards[i].Replicas {
			load[r.Host]++
		}
	}
	return load
}

// crowd is how many other replicas of a shard share a zone and a rack.
type crowd struct{ zone, rack int }

func (c crowd) compare(o crowd) int { return cmp.Or(c.zone-o.zone, c.rack-o.rack) }

// crowd counts the shard's replicas, without number at, that are near a host.
func (s *Machine) crowd(sh *topology.Shard, at int, h *topology.Host) (c crowd) {
	for k, r := range sh.Replicas {
		other := s.Map().Host(r.Host)
		if k == at || other == nil || other.Zone != h.Zone {
			continue
		}
		c.zone++
		if other.Rack == h.Rack {
			c.rack++
		}
	}
	return c
}

// replace writes a new replica into the list. If the old one was the preferred
// leader, one that is there already becomes it.
func (s *Machine) replace(i, at int, host ashlar.HostID) ashlar.ReplicaID {
	m := s.edit()
	sh := &m.Shards[i]
	id := m.NextReplica
	m.NextReplica++
	sh.Leaving = append(sh.Leaving, sh.Replicas[at])
	sh.Replicas[at] = topology.Replica{ID: id, Host: host}
	sh.Moved = s.nextEpoch()
	if at == 0 {
		if k := s.firstAmong(i, func(r topology.Replica) bool { return r.ID != id && s.hostIs(r.Host, topology.HostUp) && !s.lost(r) }); k > 0 {
			sh.Replicas[0], sh.Replicas[k] = sh.Replicas[k], sh.Replicas[0]
		}
	}
	return id
}

// firsts counts the shards that each host is to lead.
func (s *Machine) firsts() map[ashlar.HostID]int {
	n := map[ashlar.HostID]int{}
	for i := range s.Map().Shards {
		if replicas := s.Map().Shards[i].Replicas; len(replicas) > 0 {
			n[replicas[0].Host]++
		}
	}
	return n
}

// firstAmong returns the position of the replica that may lead and whose host
// is to lead the fewest shards, or -1.
func (s *Machine) firstAmong(i int, may func(topology.Replica) bool) int {
	firsts, best := s.firsts(), -1
	replicas := s.Map().Shards[i].Replicas
	for k, r := range replicas {
		if may(r) && (best < 0 || firsts[r.Host] < firsts[replicas[best].Host]) {
			best = k
		}
	}
	return best
}

// improve makes one step towards a better spread, an even load, and leaders on
// all hosts, if everything else is well: nobody is silent and nothing is lost.
func (s *Machine) improve(now time.Time) {
	m := s.Map()
	for _, h := range m.Hosts {
		if mem := s.heard[h.ID]; h.State == topology.HostDown || mem != nil && len(mem.lost) > 0 {
			return
		}
	}
	load, firsts := s.load(), s.firsts()
	for i := range m.Shards {
		if !s.led(now, i) || !s.settled(i) || slices.ContainsFunc(m.Shards[i].Replicas, s.gone) {
			continue
		}
		if at, host := s.betterSeat(i, load); host != 0 {
			s.replace(i, at, host)
			return
		}
		replicas := m.Shards[i].Replicas
		k := s.firstAmong(i, func(topology.Replica) bool { return true })
		if k > 0 && firsts[replicas[0].Host]-firsts[replicas[k].Host] >= 2 {
			sh := &s.edit().Shards[i]
			sh.Replicas[0], sh.Replicas[k] = sh.Replicas[k], sh.Replicas[0]
			return
		}
	}
}

// betterSeat returns a replica of the shard and the host on which it would be
// spread better, or as well with two replicas fewer; 0 if there is none.
func (s *Machine) betterSeat(i int, load map[ashlar.HostID]int) (at int, host ashlar.HostID) {
	m := s.Map()
	sh := &m.Shards[i]
	for at, r := range sh.Replicas {
		here := s.crowd(sh, at, m.Host(r.Host))
		for k := range m.Hosts {
			h := &m.Hosts[k]
			if h.State != topology.HostUp || holds(sh, h.ID) {
				continue
			}
			if c := s.crowd(sh, at, h).compare(here); c < 0 || c == 0 && load[r.Host]-load[h.ID] >= 2 {
				return at, h.ID
			}
		}
	}
	return 0, 0
}

// Moved is the answer to Move.
type Moved struct {
	Replica ashlar.ReplicaID
	// Done: there is nothing to do any more.
	Done bool
}

// Move gives the shard a new replica on host to in the place of the one on host
// from. What would be unsafe is refused with kind Denied and the reason, unknown
// names with Invalid. Asking again is answered like the first time.
func (s *Machine) Move(now time.Time, shard ashlar.ShardID, from, to string) (Moved, error) {
	bad := func(kind ashlar.Kind, format string, args ...any) (Moved, error) {
		return Moved{}, ashlar.E("placement: move replica", fmt.Sprintf("shard=%d", shard), kind, fmt.Errorf(format, args...))
	}
	m := s.Map()
	if int(shard) >= len(m.Shards) {
		return bad(ashlar.Invalid, "there are %d shards, numbered from 0", len(m.Shards))
	}
	source, target := s.hostNamed(from), s.hostNamed(to)
	if source == nil || target == nil {
		return bad(ashlar.Invalid, "no host %q: `ashlar shard list` names the hosts", map[bool]string{true: from, false: to}[source == nil])
	}
	i, sh := int(shard), &m.Shards[shard]
	onHost := func(list []topology.Replica, h *topology.Host) int {
		return slices.IndexFunc(list, func(r topology.Replica) bool { return r.Host == h.ID })
	}
	at, there := onHost(sh.Replicas, source), onHost(sh.Replicas, target)
	if at < 0 && there >= 0 {
		return Moved{Replica: sh.Replicas[there].ID, Done: !sh.Changing()}, nil
	}
	switch {
	case at < 0:
		return bad(ashlar.Denied, "%s holds no replica of it", from)
	case there >= 0:
		return bad(ashlar.Denied, "%s holds a replica of it already", to)
	case sh.Changing():
		return bad(ashlar.Denied, "another change of it is under way: wait until it is done")
	case target.State != topology.HostUp:
		return bad(ashlar.Denied, "%s is %v", to, target.State)
	case !s.led(now, i) || !s.settled(i):
		return bad(ashlar.Denied, "it has no leader that confirms who votes")
	}
	for k, r := range sh.Replicas {
		if k != at && (!s.hostIs(r.Host, topology.HostUp) || s.lost(r)) {
			return bad(ashlar.Denied, "its replica on %s does not answer: it would hang on a new one", m.Host(r.Host).Name)
		}
	}
	for _, h := range m.Hosts {
		if s.suspected(h) {
			return bad(ashlar.Denied, "a cut network is suspected")
		}
	}
	if c := s.crowd(sh, at, target); c.compare(s.crowd(sh, at, source)) > 0 {
		return bad(ashlar.Denied, "%s is in zone %s, rack %s, where another replica of it is", to, target.Zone, target.Rack)
	}
	return Moved{Replica: s.replace(i, at, target.ID)}, nil
}

func (s *Machine) hostNamed(name string) *topology.Host {
	m := s.Map()
	for i := range m.Hosts {
		if m.Hosts[i].Name == name {
			return &m.Hosts[i]
		}
	}
	return nil
}

// shardFacts tells health what the map does not show of shards.
func (s *Machine) shardFacts(f *health.Facts) {
	f.Replicas = map[ashlar.ReplicaID]health.ReplicaState{}
	for i := range s.Map().Shards {
		sh := &s.Map().Shards[i]
		if r, ok := s.shards[ashlar.ShardID(i)]; ok && s.hostIs(r.host, topology.HostUp) {
			f.Replicas[r.Leader] = health.ReplicaLeads
		}
		for _, r := range sh.Leaving {
			switch {
			case !slices.Contains(s.shards[ashlar.ShardID(i)].Voters, r.ID):
			case s.lost(r):
				f.Replicas[r.ID] = health.ReplicaLost
			case f.Replicas[r.ID] == "":
				f.Replicas[r.ID] = health.ReplicaVotes
			}
		}
		for at, r := range sh.Replicas {
			switch {
			case s.lost(r):
				f.Replicas[r.ID] = health.ReplicaLost
			case s.pending(i, r.ID):
				f.Replicas[r.ID] = health.ReplicaJoins
			}
			if !s.gone(r) || sh.Changing() && !s.pending(i, r.ID) {
				continue
			}
			if _, ok := s.seat(i, at); !ok {
				f.NoSeat++
				break
			}
		}
	}
}
