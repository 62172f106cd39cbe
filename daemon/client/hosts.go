// Package client is how everybody else reaches the daemons: gateways, other
// hosts, and the process itself.
//
//	Hosts     the registry: a host of this process by direct call, others by connections
//	Stripes   a wire.Stripes that finds a coordinator for each body
//	Meta      a meta.Store that finds the leader of each shard
//
// Nothing here keeps state that matters: connections and hints can be dropped
// at any time. All retries are bounded by a number of hosts or by the caller's
// deadline, and are made only where repeating is safe.
package client

import (
	"errors"
	"sync"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// Host is everything that a host answers to others.
type Host interface {
	wire.Pieces
	wire.Stripes
	wire.Shards
}

// Hosts reaches every host of the cluster: the hosts of this process by a
// direct call, the others through pools of connections to the addresses in the
// map, which are kept and shared. It is safe for concurrent use and starts
// nothing: a connection is made by the first call that needs it.
type Hosts struct {
	maps func() *topology.Map

	mu     sync.Mutex
	direct map[ashlar.HostID]Host
	remote map[ashlar.HostID]*remote
}

// remote is what is kept about a host of another process. It is replaced when
// the host's addresses change.
type remote struct {
	addr, rpc string
	bytes     wire.BytesConn
	shards    wire.ShardsConn
}

func (r *remote) close() {
	_ = r.bytes.Close() // only idle connections; nothing is lost
	_ = r.shards.Close()
}

// NewHosts returns a registry without hosts of this process. Maps returns the
// newest map seen, nil if there is none yet.
func NewHosts(maps func() *topology.Map) *Hosts {
	return &Hosts{maps: maps, direct: map[ashlar.HostID]Host{}, remote: map[ashlar.HostID]*remote{}}
}

// Direct makes calls to a host go to a value of this process; nil takes it away
// again, as when the host stops.
func (h *Hosts) Direct(id ashlar.HostID, host Host) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if host == nil {
		delete(h.direct, id)
		return
	}
	h.direct[id] = host
}

// Pieces returns the disks of a host. It does not block. A host that the map
// does not know is Unavailable.
func (h *Hosts) Pieces(id ashlar.HostID) (wire.Pieces, error) {
	return reach(h, id, func(d Host) wire.Pieces { return d }, func(r *remote) wire.Pieces { return r.bytes })
}

// Stripes returns a host as a coordinator of bodies. It does not block.
func (h *Hosts) Stripes(id ashlar.HostID) (wire.Stripes, error) {
	return reach(h, id, func(d Host) wire.Stripes { return d }, func(r *remote) wire.Stripes { return r.bytes })
}

// Shards returns a host as a holder of metadata replicas. It does not block.
func (h *Hosts) Shards(id ashlar.HostID) (wire.Shards, error) {
	return reach(h, id, func(d Host) wire.Shards { return d }, func(r *remote) wire.Shards { return r.shards })
}

// reach returns one face of a host, wherever it runs.
func reach[T any](h *Hosts, id ashlar.HostID, here func(Host) T, there func(*remote) T) (face T, err error) {
	direct, r, err := h.find(id)
	switch {
	case err != nil:
		return face, err
	case direct != nil:
		return here(direct), nil
	}
	return there(r), nil
}

// find returns a host of this process, or the pools of one elsewhere.
func (h *Hosts) find(id ashlar.HostID) (Host, *remote, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.direct[id]; d != nil {
		return d, nil, nil
	}
	m := h.maps()
	if m == nil {
		return nil, nil, unknown(id, errors.New("there is no map yet"))
	}
	known := m.Host(id)
	if known == nil || known.Addr == "" {
		return nil, nil, unknown(id, errors.New("the map has no address for it"))
	}
	r := h.remote[id]
	if r != nil && r.addr == known.Addr && r.rpc == known.RPC {
		return nil, r, nil
	}
	if r != nil {
		r.close()
	}
	shards, err := wire.DialShards(known.RPC)
	if err != nil {
		return nil, nil, unknown(id, err)
	}
	r = &remote{addr: known.Addr, rpc: known.RPC, bytes: wire.DialBytes(known.Addr), shards: shards}
	h.remote[id] = r
	return nil, r, nil
}

func unknown(id ashlar.HostID, cause error) error {
	return ashlar.E("client: reach", "host="+id.String(), ashlar.Unavailable, cause)
}

// Close drops the connections. Hosts of this process stay.
func (h *Hosts) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, r := range h.remote {
		r.close()
		delete(h.remote, id)
	}
}
