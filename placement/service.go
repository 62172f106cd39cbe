package placement

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/metadata"

	"ashlar"
	"ashlar/placement/health"
	"ashlar/placement/state"
	"ashlar/placement/wire"
)

// forwardTimeout bounds a call that is passed on to the leader.
const forwardTimeout = 1500 * time.Millisecond

var (
	errNotLeading = errors.New("this member does not lead")
	errNoLeader   = errors.New("there is no leader")
)

// service answers the calls of package wire.
type service struct {
	wire.UnimplementedPlacementServer
	m *Member
}

// Heartbeat answers as the scheduler does, or passes the call on to the leader.
func (s *service) Heartbeat(ctx context.Context, req *wire.HeartbeatRequest) (*wire.HeartbeatReply, error) {
	if sched := s.m.sched.Load(); sched != nil {
		hb, err := fromWire(req)
		if err != nil {
			return nil, wire.Status(err)
		}
		r, err := sched.offer(ctx, hb)
		if err != nil {
			return nil, wire.Status(err)
		}
		return &wire.HeartbeatReply{
			Host: uint32(r.answer.Host), NeedFull: r.answer.NeedFull, Epoch: uint64(r.m.Epoch),
			Cluster: r.m.Cluster[:], Leader: s.m.cfg.RPC[s.m.cfg.Name],
		}, nil
	}
	leader, err := s.leader("placement: heartbeat", req.GetForwarded())
	if err != nil {
		return nil, wire.Status(err)
	}
	req.Forwarded = true
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	return leader.Heartbeat(ctx, req)
}

// leader returns the leader's door, unless the call came from a member already.
func (s *service) leader(op string, forwarded bool) (wire.PlacementClient, error) {
	name := s.m.Leader()
	switch conn := s.m.peers[name]; {
	case name == "":
		return nil, ashlar.E(op, s.m.cfg.Name, ashlar.Unavailable, errNoLeader)
	case forwarded || conn == nil:
		return nil, ashlar.E(op, s.m.cfg.Name, ashlar.Unavailable, errNotLeading)
	default:
		return wire.NewPlacementClient(conn), nil
	}
}

// Watch sends maps until the caller, the member or the quorum goes away; in the
// last case the caller has this member's map and does well to ask another.
func (s *service) Watch(req *wire.WatchRequest, stream wire.Placement_WatchServer) error {
	if err := stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	seen := req.GetEpoch()
	away := s.m.away.notice()
	alive := time.NewTicker(wire.AliveEvery)
	defer alive.Stop()
	for {
		_, w, changed := s.m.maps.get()
		if w != nil && w.GetEpoch() > seen {
			if err := stream.Send(&wire.WatchReply{Map: w}); err != nil {
				return err
			}
			seen = w.GetEpoch()
		}
		select {
		case <-changed:
		case <-alive.C:
			if err := stream.Send(&wire.WatchReply{}); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		case <-away:
			return wire.Status(ashlar.E("placement: watch", s.m.cfg.Name, ashlar.Unavailable, errNoLeader))
		case <-s.m.ctx.Done():
			return wire.Status(ashlar.E("placement: watch", s.m.cfg.Name, ashlar.Unavailable, fmt.Errorf("the member stops")))
		}
	}
}

// Ping says whom this member follows.
func (s *service) Ping(context.Context, *wire.PingRequest) (*wire.PingReply, error) {
	return &wire.PingReply{Name: s.m.cfg.Name, Leader: s.m.Leader()}, nil
}

// Status is the leader's view; without one it is that of the last map.
func (s *service) Status(ctx context.Context, req *wire.StatusRequest) (*wire.StatusReply, error) {
	if sched := s.m.sched.Load(); sched != nil {
		v := sched.view.Load()
		facts := v.facts
		facts.Now = time.Now()
		facts.Members, facts.Leader = sched.members(facts.Now), s.m.cfg.Name
		return encodeStatus(health.Judge(v.m, facts))
	}
	leader, err := s.leader("placement: status", req.GetForwarded())
	if err == nil {
		fctx, cancel := context.WithTimeout(ctx, forwardTimeout)
		defer cancel()
		var reply *wire.StatusReply
		if reply, err = leader.Status(fctx, &wire.StatusRequest{Forwarded: true}); err == nil {
			return reply, nil
		}
	}
	if req.GetForwarded() {
		return nil, wire.Status(err)
	}
	return s.lastStatus(err)
}

// MoveReplica lets the scheduler judge the order, or passes it on to the leader.
func (s *service) MoveReplica(ctx context.Context, req *wire.MoveReplicaRequest) (*wire.MoveReplicaReply, error) {
	if sched := s.m.sched.Load(); sched != nil {
		var moved state.Moved
		epoch, err := sched.obey(ctx, func(m *state.Machine) (err error) {
			moved, err = m.Move(time.Now(), ashlar.ShardID(req.GetShard()), req.GetFrom(), req.GetTo())
			return err
		})
		if err != nil {
			return nil, wire.Status(err)
		}
		return &wire.MoveReplicaReply{Epoch: uint64(epoch), Replica: uint64(moved.Replica), Done: moved.Done}, nil
	}
	leader, err := s.leader("placement: move replica", req.GetForwarded())
	if err != nil {
		return nil, wire.Status(err)
	}
	req.Forwarded = true
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	return leader.MoveReplica(ctx, req)
}

// Restore lets the scheduler take a backup's map over, or passes it on to the leader.
func (s *service) Restore(ctx context.Context, req *wire.RestoreRequest) (*wire.RestoreReply, error) {
	sched := s.m.sched.Load()
	if sched == nil {
		leader, err := s.leader("placement: restore", req.GetForwarded())
		if err != nil {
			return nil, wire.Status(err)
		}
		req.Forwarded = true
		ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
		defer cancel()
		return leader.Restore(ctx, req)
	}
	backup, err := wire.ID(req.GetBackup())
	if err != nil {
		return nil, wire.Status(ashlar.E("placement: restore", "", ashlar.Invalid, err))
	}
	do := func(m *state.Machine) error { return m.Restored(backup) }
	if req.GetRelease() {
		do = func(m *state.Machine) error { return m.Release(backup) }
	} else if w := req.GetMap(); w != nil {
		run, err := wire.ID(req.GetRun())
		if err != nil {
			return nil, wire.Status(ashlar.E("placement: restore", "", ashlar.Invalid, err))
		}
		created := wire.Time(req.GetCreatedUnixNanos())
		saved, err := wire.ToMap(w)
		if err != nil {
			return nil, wire.Status(err)
		}
		do = func(m *state.Machine) error { return m.Restore(time.Now(), created, backup, run, saved) }
	}
	epoch, err := sched.obey(ctx, do)
	if err != nil {
		return nil, wire.Status(err)
	}
	return &wire.RestoreReply{Epoch: uint64(epoch)}, nil
}

// Shards lists the metadata shards as the leader sees them.
func (s *service) Shards(ctx context.Context, req *wire.ShardsRequest) (*wire.ShardsReply, error) {
	if sched := s.m.sched.Load(); sched != nil {
		v := sched.view.Load()
		b, err := json.Marshal(health.Shards(v.m, v.facts))
		if err != nil {
			return nil, wire.Status(err)
		}
		return &wire.ShardsReply{Shards: b}, nil
	}
	leader, err := s.leader("placement: shards", req.GetForwarded())
	if err != nil {
		return nil, wire.Status(err)
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	return leader.Shards(ctx, &wire.ShardsRequest{Forwarded: true})
}

// lastStatus judges the last map, because there is no leader to ask.
func (s *service) lastStatus(cause error) (*wire.StatusReply, error) {
	m := s.m.Map()
	if m == nil {
		return nil, wire.Status(cause)
	}
	facts := health.Facts{Members: make([]health.Member, 0, len(s.m.cfg.Peers))}
	for _, name := range s.m.cfg.names() {
		facts.Members = append(facts.Members, health.Member{Name: name})
	}
	st := health.Judge(m, facts)
	st.AsOf = fmt.Sprintf("the last map that %s holds, epoch %d: no leader answers it", s.m.cfg.Name, m.Epoch)
	return encodeStatus(st)
}

func encodeStatus(st health.Status) (*wire.StatusReply, error) {
	b, err := json.Marshal(st)
	if err != nil {
		return nil, wire.Status(err)
	}
	return &wire.StatusReply{Status: b}, nil
}

// fromWire reads a heartbeat. An error has kind Invalid.
func fromWire(req *wire.HeartbeatRequest) (state.Heartbeat, error) {
	hb := state.Heartbeat{
		Name: req.GetName(), Host: ashlar.HostID(req.GetHost()), Zone: req.GetZone(), Rack: req.GetRack(),
		Addr: req.GetAddr(), RPC: req.GetRpc(), Full: req.GetFull(), RepairPieces: req.GetRepairPieces(),
		Checked: ashlar.Epoch(req.GetCheckedEpoch()),
	}
	invalid := func(err error) (state.Heartbeat, error) {
		return hb, ashlar.E("placement: heartbeat", req.GetName(), ashlar.Invalid, err)
	}
	cluster, err := wire.ID(req.GetCluster())
	if err != nil {
		return invalid(err)
	}
	boot, err := wire.ID(req.GetBoot())
	if err != nil {
		return invalid(err)
	}
	hb.Cluster, hb.Boot = ashlar.ClusterID(cluster), ashlar.BootID(boot)
	for _, d := range req.GetDisks() {
		id, err := wire.ID(d.GetId())
		if err != nil {
			return invalid(err)
		}
		hb.Disks = append(hb.Disks, state.Disk{
			ID: ashlar.DiskID(id), Name: d.GetName(), Failed: d.GetFailed(), Reason: d.GetReason(),
			Bytes: d.GetCapacity(), Used: d.GetUsed(),
			Room: health.DiskRoom{Segments: d.GetWritableSegments(), SegmentBytes: d.GetSegmentRoom()}, Scrub: wire.ToScrub(d.GetScrub()), Smart: wire.ToSmart(d.GetSmart()),
		})
	}
	for _, r := range req.GetShards() {
		hb.Shards = append(hb.Shards, state.ShardReport{
			Shard: ashlar.ShardID(r.GetShard()), Index: r.GetIndex(), Leader: ashlar.ReplicaID(r.GetLeader()),
			Voters: replicaIDs(r.GetVoters()), Learners: replicaIDs(r.GetLearners()), Outgoing: replicaIDs(r.GetOutgoing()),
		})
	}
	hb.Lost = replicaIDs(req.GetLostReplicas())
	return hb, nil
}

func replicaIDs(ids []uint64) []ashlar.ReplicaID {
	var out []ashlar.ReplicaID
	for _, id := range ids {
		out = append(out, ashlar.ReplicaID(id))
	}
	return out
}
