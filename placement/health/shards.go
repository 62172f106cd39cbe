package health

import (
	"fmt"
	"io"
	"text/tabwriter"

	"ashlar"
	"ashlar/placement/topology"
)

// ReplicaState is what is known of a replica of a metadata shard.
type ReplicaState string

// The states of a replica.
const (
	ReplicaVotes  ReplicaState = "votes"  // it takes part, as far as is known
	ReplicaLeads  ReplicaState = "leads"  // it votes and leads
	ReplicaJoins  ReplicaState = "joins"  // new: it does not vote yet
	ReplicaLeaves ReplicaState = "leaves" // replaced; it may vote until the change is done
	ReplicaLost   ReplicaState = "lost"   // its data is gone; it stays silent
	ReplicaDown   ReplicaState = "down"   // its host is down or out
)

// Shard is one metadata shard as `ashlar shard list` shows it. Fields are only
// ever added.
type Shard struct {
	Shard ashlar.ShardID `json:"shard"`
	// State is "ok", "changing", "degraded" (a majority lives) or "unavailable".
	State    string    `json:"state"`
	Leader   string    `json:"leader"` // name of its host, empty if not known
	Replicas []Replica `json:"replicas"`
}

// Replica is one replica of a shard.
type Replica struct {
	ID    ashlar.ReplicaID `json:"id"`
	Host  string           `json:"host"`
	Zone  string           `json:"zone"`
	Rack  string           `json:"rack"`
	State ReplicaState     `json:"state"`
}

// votersOf returns the replicas that vote now, as far as is known: those of the
// list without new ones, and those that leave and are known to vote still.
func votersOf(f Facts, sh *topology.Shard) []topology.Replica {
	var voters []topology.Replica
	for _, r := range sh.Replicas {
		if f.Replicas[r.ID] != ReplicaJoins {
			voters = append(voters, r)
		}
	}
	for _, r := range sh.Leaving {
		if f.Replicas[r.ID] != "" {
			voters = append(voters, r)
		}
	}
	return voters
}

// Shards lists every shard of the map.
func Shards(m *topology.Map, f Facts) []Shard {
	all := make([]Shard, 0, len(m.Shards))
	for i := range m.Shards {
		sh := &m.Shards[i]
		line := Shard{Shard: ashlar.ShardID(i), State: "ok"}
		for k, r := range sh.All() {
			h := m.Host(r.Host)
			state := f.Replicas[r.ID]
			switch {
			case h.State != topology.HostUp:
				state = ReplicaDown
			case k >= len(sh.Replicas):
				state = ReplicaLeaves
			case state == "":
				state = ReplicaVotes
			}
			if f.Replicas[r.ID] == ReplicaLeads && h.State == topology.HostUp {
				line.Leader = h.Name
			}
			line.Replicas = append(line.Replicas, Replica{ID: r.ID, Host: h.Name, Zone: h.Zone, Rack: h.Rack, State: state})
		}
		voters, live := votersOf(f, sh), 0
		for _, r := range voters {
			live += one(m.Host(r.Host).State == topology.HostUp && f.Replicas[r.ID] != ReplicaLost)
		}
		switch {
		case live <= len(voters)/2:
			line.State = "unavailable"
		case live < len(voters):
			line.State = "degraded"
		case sh.Changing():
			line.State = "changing"
		}
		all = append(all, line)
	}
	return all
}

// RenderShards prints the list for people.
func RenderShards(out io.Writer, shards []Shard) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SHARD\tSTATE\tLEADER\tREPLICAS")
	for _, s := range shards {
		leader := s.Leader
		if leader == "" {
			leader = "–"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t", s.Shard, s.State, leader)
		for i, r := range s.Replicas {
			if i > 0 {
				fmt.Fprint(w, ", ")
			}
			fmt.Fprintf(w, "%s (zone %s, id %d, %s)", r.Host, r.Zone, r.ID, r.State)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}
