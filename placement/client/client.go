// Package client follows the placement quorum from a host or a gateway: it
// keeps the newest map, sends the host's heartbeats, and asks for the status.
//
// The map that was seen last stays in force for as long as the quorum is away,
// and it never goes backwards, whichever member is asked. All calls have a
// deadline; a member that does not answer is left for the next one, with a
// growing pause when none does.
//
//	c, err := client.New(client.Config{Members: addrs, Log: log})
//	go c.Run(ctx)                          // watches until ctx ends
//	go c.Heartbeat(ctx, self, time.Second, report)
//	m, err := c.Wait(ctx, (*topology.Map).Formed)
//
// A Client is safe for use by many goroutines. It has no goroutine of its own
// besides those that call Run and Heartbeat.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"ashlar"
	"ashlar/placement/health"
	"ashlar/placement/topology"
	"ashlar/placement/wire"
)

// Deadlines and pauses.
const (
	callTimeout    = 2 * time.Second        // one call to one member
	hedgeAfter     = 400 * time.Millisecond // then the next member is asked too
	silenceTimeout = 3 * wire.AliveEvery    // a watch that is silent for so long is left
	keepalivePing  = 10 * time.Second
	pauseMin       = 50 * time.Millisecond
	pauseMax       = 2 * time.Second
	mapBytesMax    = 64 * ashlar.MiB
)

// Config names the members of the quorum.
type Config struct {
	// Members are the host:port of the members' gRPC listeners, at least one.
	Members []string
	// Log is told when members are lost and found; nil discards.
	Log *slog.Logger
}

// Client follows the quorum.
type Client struct {
	members []member
	log     *slog.Logger
	heard   atomic.Int64 // when a heartbeat was last answered, Unix ns

	mu struct {
		sync.Mutex
		current *topology.Map
		changed chan struct{} // closed when current changes
		host    ashlar.HostID
	}
}

type member struct {
	addr string
	conn *grpc.ClientConn
	rpc  wire.PlacementClient
}

// New makes a client. It does not connect yet. An error has kind Invalid.
func New(cfg Config) (*Client, error) {
	const op = "placement: client"
	if len(cfg.Members) == 0 {
		return nil, ashlar.E(op, "", ashlar.Invalid, fmt.Errorf("no members"))
	}
	c := &Client{log: cfg.Log}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.mu.changed = make(chan struct{})
	for _, addr := range cfg.Members {
		conn, err := grpc.NewClient("passthrough:///"+addr,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: pauseMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: pauseMax},
				MinConnectTimeout: callTimeout,
			}),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepalivePing, Timeout: silenceTimeout}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(mapBytesMax)))
		if err != nil {
			c.Close()
			return nil, ashlar.E(op, addr, ashlar.Invalid, err)
		}
		c.members = append(c.members, member{addr: addr, conn: conn, rpc: wire.NewPlacementClient(conn)})
	}
	return c, nil
}

// Heard is when the quorum last answered a heartbeat of this host, zero if it
// never did. What happened later may not be in the map.
func (c *Client) Heard() time.Time {
	if ns := c.heard.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// Close closes the connections. Calls that run fail.
func (c *Client) Close() {
	for _, m := range c.members {
		m.conn.Close()
	}
}

// Map returns the newest map that was seen, or nil before the first. It must
// not be changed.
func (c *Client) Map() *topology.Map {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.current
}

// Changed returns a channel that is closed when the map changes next. Take it
// before Map to miss nothing.
func (c *Client) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.changed
}

// Wait returns the first map for which ok holds. ok is called with nil while
// there is no map. The error is that of ctx, of kind Unavailable.
func (c *Client) Wait(ctx context.Context, ok func(*topology.Map) bool) (*topology.Map, error) {
	for {
		changed := c.Changed()
		if m := c.Map(); ok(m) {
			return m, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ashlar.E("placement: wait for map", "", ashlar.Unavailable, context.Cause(ctx))
		}
	}
}

// HostID returns the id that the quorum gave to this host, or 0.
func (c *Client) HostID() ashlar.HostID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.host
}

// accept takes a map if it is newer. It reports whether it was.
func (c *Client) accept(w *wire.Map) (bool, error) {
	m, err := wire.ToMap(w)
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A map without hosts belongs to nobody yet: a backup may take its place.
	if cur := c.mu.current; cur != nil && (m.Epoch <= cur.Epoch || m.Cluster != cur.Cluster && len(cur.Hosts) > 0) {
		return false, nil
	}
	c.mu.current = m
	close(c.mu.changed)
	c.mu.changed = make(chan struct{})
	return true, nil
}

// Status asks for the cluster's status. Any member gives the same answer.
func (c *Client) Status(ctx context.Context) (health.Status, error) {
	var st health.Status
	reply, _, err := hedge(ctx, c, "placement: status", 0, func(ctx context.Context, m member) (*wire.StatusReply, error) {
		return m.rpc.Status(ctx, &wire.StatusRequest{})
	})
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(reply.GetStatus(), &st); err != nil {
		return st, ashlar.E("placement: status", "", ashlar.Corrupt, err)
	}
	return st, nil
}

// Capacity returns how many bytes of user data the cluster holds and can hold, in
// the large code. Unavailable while it is not formed.
func (c *Client) Capacity(ctx context.Context) (used, total uint64, err error) {
	st, err := c.Status(ctx)
	if err == nil && st.Capacity.UsableBytes == 0 {
		err = ashlar.E("placement: capacity", "", ashlar.Unavailable, errors.New("the cluster has no usable disks yet"))
	}
	return st.Capacity.StoredBytes, st.Capacity.UsableBytes, err
}

// Shards lists the metadata shards, their replicas and leaders.
func (c *Client) Shards(ctx context.Context) ([]health.Shard, error) {
	const op = "placement: shards"
	reply, _, err := hedge(ctx, c, op, 0, func(ctx context.Context, m member) (*wire.ShardsReply, error) {
		return m.rpc.Shards(ctx, &wire.ShardsRequest{})
	})
	if err != nil {
		return nil, err
	}
	var all []health.Shard
	if err := json.Unmarshal(reply.GetShards(), &all); err != nil {
		return nil, ashlar.E(op, "", ashlar.Corrupt, err)
	}
	return all, nil
}

// MoveReplica orders a new replica of the shard on host to in the place of the
// one on host from; both are names. When it returns the order stands in the map
// of the epoch; done says that nothing is left to do. What is unsafe now is
// refused with kind Denied and the reason. Asking again is safe.
func (c *Client) MoveReplica(ctx context.Context, shard ashlar.ShardID, from, to string) (id ashlar.ReplicaID, epoch ashlar.Epoch, done bool, err error) {
	reply, _, err := hedge(ctx, c, "placement: move replica", 0, func(ctx context.Context, m member) (*wire.MoveReplicaReply, error) {
		return m.rpc.MoveReplica(ctx, &wire.MoveReplicaRequest{Shard: uint32(shard), From: from, To: to})
	})
	if err != nil {
		return 0, 0, false, err
	}
	return ashlar.ReplicaID(reply.GetReplica()), ashlar.Epoch(reply.GetEpoch()), reply.GetDone(), nil
}

// Restore gives the map of a backup, as of created, to a quorum that has none
// yet. A cluster that is not empty refuses with kind Denied. Asking again is safe.
func (c *Client) Restore(ctx context.Context, backup, run ashlar.ID, created time.Time, m *topology.Map) error {
	return c.restore(ctx, &wire.RestoreRequest{
		Backup: backup[:], Run: run[:], Map: wire.FromMap(m), CreatedUnixNanos: created.UnixNano(),
	})
}

// Restored says that the rows of the backup are back. Asking again is safe.
func (c *Client) Restored(ctx context.Context, backup ashlar.ID) error {
	return c.restore(ctx, &wire.RestoreRequest{Backup: backup[:]})
}

// Release says that what is newer than the backup that the cluster was restored
// from, and has no row, may be freed. Asking again is safe.
func (c *Client) Release(ctx context.Context, backup ashlar.ID) error {
	return c.restore(ctx, &wire.RestoreRequest{Backup: backup[:], Release: true})
}

func (c *Client) restore(ctx context.Context, req *wire.RestoreRequest) error {
	_, _, err := hedge(ctx, c, "placement: restore", 0, func(ctx context.Context, m member) (*wire.RestoreReply, error) {
		return m.rpc.Restore(ctx, req)
	})
	return err
}

// refused reports whether a member judged the call, so that no other will differ.
func refused(err error) bool {
	return ashlar.Is(err, ashlar.Invalid) || ashlar.Is(err, ashlar.Exists) || ashlar.Is(err, ashlar.Denied)
}

// hedge asks member number first, and the next one whenever one failed or did
// not answer for hedgeAfter; the first answer wins. It returns the number of
// the member that gave it. If none did the error is that of the last to fail. A
// refusal is an answer: it ends the search. The call must be safe to repeat.
func hedge[T any](ctx context.Context, c *Client, op string, first int, call func(context.Context, member) (T, error)) (T, int, error) {
	type result struct {
		value T
		at    int
		err   error
	}
	var none T
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the calls that lost
	results := make(chan result, len(c.members))
	next := time.NewTimer(0)
	defer next.Stop()
	var last error
	for asked, failed := 0, 0; failed < len(c.members); {
		select {
		case <-next.C:
			if asked == len(c.members) {
				continue
			}
			at := (first + asked) % len(c.members)
			asked++
			go func() { // ends with ctx
				cctx, cancel := context.WithTimeout(ctx, callTimeout)
				defer cancel()
				v, err := call(cctx, c.members[at])
				results <- result{v, at, err}
			}()
			next.Reset(hedgeAfter)
		case r := <-results:
			if r.err == nil {
				return r.value, r.at, nil
			}
			failed++
			last = ashlar.E(op, c.members[r.at].addr, wire.Kind(r.err), r.err)
			if refused(last) {
				return none, r.at, last
			}
			next.Reset(0)
		case <-ctx.Done():
			return none, 0, ashlar.E(op, "", ashlar.Unavailable, context.Cause(ctx))
		}
	}
	return none, 0, last
}
