package client

import (
	"context"
	"math/rand/v2"
	"time"

	"ashlar"
	"ashlar/placement/health"
	"ashlar/placement/wire"
)

// fullEvery makes every n-th heartbeat list all disks, so that whatever a
// delta lost is mended within a minute.
const fullEvery = 60

// Self is what a host says of itself. It does not change while it runs.
type Self struct {
	// Cluster is the one that the host's disks are labelled with, or zero.
	Cluster ashlar.ClusterID
	Name    string
	// Host is the id that was given before, or 0.
	Host       ashlar.HostID
	Boot       ashlar.BootID
	Zone, Rack string
	// Addr is the host:port of the HTTP listener for bytes, RPC that of the gRPC listener.
	Addr, RPC string
	// Learned, if set, is called when the quorum gave an id that differs from
	// Host; from the goroutine that runs Heartbeat.
	Learned func(ashlar.HostID, ashlar.ClusterID)
}

// Disk is the report of one disk.
type Disk struct {
	ID   ashlar.DiskID
	Name string // host/dNN
	// Failed: fenced; Reason says why, for people.
	Failed bool
	Reason string
	// CapacityBytes for records, and those in use.
	CapacityBytes, UsedBytes                uint64
	FreeSegments                            uint32
	Room                                    health.DiskRoom
	ReadErrors, WriteErrors, CorruptRecords uint64
	// Scrub is zero for a disk that is not scrubbed.
	Scrub health.DiskScrub
	// Smart is what the disk says of itself; zero if it was not asked lately.
	Smart health.DiskSmart
}

// Report is the state of a host at one moment.
type Report struct {
	Disks        []Disk
	RepairPieces uint64
	// Checked is the epoch up to which the roll call owes nothing; 0: there is none.
	Checked ashlar.Epoch
	// Shards are the metadata shards that the host leads; Lost its replicas whose
	// data is gone or cannot be trusted.
	Shards []Shard
	Lost   []ashlar.ReplicaID
}

// Shard is the committed configuration of a metadata shard, as its leader knows it.
type Shard struct {
	Shard ashlar.ShardID
	// Index is its place in the shard's log.
	Index  uint64
	Leader ashlar.ReplicaID
	Voters []uint64
	// Learners do not vote yet, Outgoing will cease to.
	Learners, Outgoing []uint64
}

// Heartbeat sends report() every so often until ctx ends, and then returns
// nil. It goes to the leader where that is known. A host that the quorum
// refuses (another cluster, a name in use) gets the refusal as an error of
// kind Invalid, Exists or Denied; everything else is tried again.
func (c *Client) Heartbeat(ctx context.Context, self Self, every time.Duration, report func() Report) error {
	b := &beat{c: c, self: self, needFull: true, at: rand.IntN(len(c.members))}
	for n := 0; ctx.Err() == nil; n++ {
		started := time.Now()
		err := b.send(ctx, report(), n%fullEvery == 0)
		if refused(err) {
			return err
		}
		wait := every - time.Since(started)
		if err != nil {
			c.log.Debug("placement heartbeat failed", "err", err)
			wait = min(every, b.pause)
		}
		sleep(ctx, max(wait, pauseMin))
	}
	return nil
}

// beat is the state of a heartbeat loop; its goroutine owns it.
type beat struct {
	c        *Client
	self     Self
	at       int // the member to ask next
	needFull bool
	sent     map[ashlar.DiskID]Disk // as the scheduler knows them
	pause    time.Duration
	behind   int // answers in a row that spoke of a newer map than we have
}

// behindMax answers that speak of a newer map mean that the watch is stuck.
const behindMax = 3

func (b *beat) send(ctx context.Context, r Report, full bool) error {
	req := b.request(r, full || b.needFull)
	const op = "placement: heartbeat"
	reply, at, err := hedge(ctx, b.c, op, b.at, func(ctx context.Context, m member) (*wire.HeartbeatReply, error) {
		return m.rpc.Heartbeat(ctx, req)
	})
	if err != nil {
		b.needFull = true // it may have been lost on the way
		b.pause = min(max(2*b.pause, pauseMin), pauseMax)
		return err
	}
	b.at, b.pause = at, 0
	b.c.heard.Store(time.Now().UnixNano())
	b.needFull = reply.GetNeedFull()
	b.sent = make(map[ashlar.DiskID]Disk, len(r.Disks))
	for _, d := range r.Disks {
		b.sent[d.ID] = d
	}
	for i, other := range b.c.members {
		if other.addr == reply.GetLeader() {
			b.at = i
		}
	}
	if err := b.learn(reply); err != nil {
		return err
	}
	return b.catchUp(ctx, reply.GetEpoch())
}

// catchUp asks for the map if the watch does not bring it.
func (b *beat) catchUp(ctx context.Context, newest uint64) error {
	if newest <= b.c.epoch() {
		b.behind = 0
		return nil
	}
	if b.behind++; b.behind < behindMax {
		return nil
	}
	b.behind = 0
	return b.c.Refresh(ctx)
}

func (b *beat) learn(reply *wire.HeartbeatReply) error {
	cluster, err := wire.ID(reply.GetCluster())
	if err != nil {
		return err
	}
	host := ashlar.HostID(reply.GetHost())
	if host == 0 || host == b.self.Host && b.c.HostID() == host {
		return nil
	}
	told := host != b.self.Host
	b.self.Host, b.self.Cluster = host, ashlar.ClusterID(cluster)
	b.c.mu.Lock()
	b.c.mu.host = host
	b.c.mu.Unlock()
	if told && b.self.Learned != nil {
		b.self.Learned(host, ashlar.ClusterID(cluster))
	}
	return nil
}

func (b *beat) request(r Report, full bool) *wire.HeartbeatRequest {
	s := b.self                                // a copy: a call that lost the race may still read the request
	full = full || len(r.Disks) != len(b.sent) // a disk came or went
	req := &wire.HeartbeatRequest{
		Cluster: s.Cluster[:], Name: s.Name, Host: uint32(s.Host), Boot: s.Boot[:], Zone: s.Zone, Rack: s.Rack,
		Addr: s.Addr, Rpc: s.RPC, EpochSeen: b.c.epoch(), RepairPieces: r.RepairPieces,
		CheckedEpoch: uint64(r.Checked),
	}
	for _, sh := range r.Shards {
		req.Shards = append(req.Shards, &wire.ShardReport{
			Shard: uint32(sh.Shard), Index: sh.Index, Leader: uint64(sh.Leader),
			Voters: sh.Voters, Learners: sh.Learners, Outgoing: sh.Outgoing,
		})
	}
	for _, id := range r.Lost {
		req.LostReplicas = append(req.LostReplicas, uint64(id))
	}
	var changed []*wire.DiskReport
	for _, d := range r.Disks {
		old, known := b.sent[d.ID]
		full = full || !known
		if !known || old != d {
			changed = append(changed, report(d))
		}
	}
	if full {
		changed = changed[:0]
		for _, d := range r.Disks {
			changed = append(changed, report(d))
		}
	}
	req.Full, req.Disks = full, changed
	return req
}

func report(d Disk) *wire.DiskReport {
	return &wire.DiskReport{
		Id: d.ID[:], Name: d.Name, Failed: d.Failed, Reason: d.Reason, Capacity: d.CapacityBytes, Used: d.UsedBytes,
		FreeSegments: d.FreeSegments, WritableSegments: d.Room.Segments, SegmentRoom: d.Room.SegmentBytes, ReadErrors: d.ReadErrors, WriteErrors: d.WriteErrors, CorruptRecords: d.CorruptRecords,
		Scrub: wire.FromScrub(d.Scrub), Smart: wire.FromSmart(d.Smart),
	}
}
