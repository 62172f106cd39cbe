package placement

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"ashlar"
	"ashlar/placement/health"
	"ashlar/placement/state"
	"ashlar/placement/topology"
	"ashlar/placement/wire"
)

// Bounds and beats of the scheduler.
const (
	tickEvery    = 250 * time.Millisecond
	queueLenMax  = 1024 // heartbeats that wait for the scheduler
	batchMax     = 256  // heartbeats that share one write
	pingEvery    = 500 * time.Millisecond
	pingTimeout  = 400 * time.Millisecond
	votingWithin = 2 * time.Second // a member that answered so recently votes
)

// scheduler is one term of leadership. The goroutine of run owns the machine.
type scheduler struct {
	m       *Member
	claim   *claim
	machine *state.Machine
	queue   chan *beat
	orders  chan *order
	ended   chan struct{} // closed by run's owner when nobody reads queue any more
	view    atomic.Pointer[view]
	pings   pings
}

// beat is a heartbeat on its way through the scheduler.
type beat struct {
	at    time.Time // when it arrived
	hb    state.Heartbeat
	reply chan beatReply // holds one
}

type beatReply struct {
	answer state.Answer
	m      *topology.Map
	err    error
}

// order is something that the machine is told by hand.
type order struct {
	do    func(*state.Machine) error
	done  chan struct{} // closed when what follows is set
	epoch ashlar.Epoch
	err   error
}

// view is what Status is computed from. It is never changed.
type view struct {
	m     *topology.Map
	facts health.Facts
}

// schedule runs the scheduler whenever this member leads.
func (m *Member) schedule() {
	for m.ctx.Err() == nil {
		changed := m.etcd.Server.LeaderChangedNotify()
		if m.leadsEngine() {
			term := m.etcd.Server.Term()
			if err := m.lead(changed, term); err != nil && m.ctx.Err() == nil {
				m.log.Info("scheduler stopped", "term", term, "err", err)
			}
		}
		pause(m.ctx, retryPause)
	}
}

func (m *Member) leadsEngine() bool { return m.etcd.Server.Leader() == m.etcd.Server.MemberID() }

// lead schedules until the lead is lost or a write fails.
func (m *Member) lead(changed <-chan struct{}, term uint64) error {
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	c, current, err := takeClaim(ctx, m.cli, m.cfg.Name, term)
	if err != nil {
		return err
	}
	s := &scheduler{m: m, claim: c, queue: make(chan *beat, queueLenMax), orders: make(chan *order), ended: make(chan struct{})}
	s.machine = state.New(m.stateConfig(), current, time.Now())
	if err := s.commit(ctx); err != nil {
		return err
	}
	s.publish()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	s.ping(ctx, &wg)
	m.sched.Store(s)
	defer s.retire()
	m.log.Info("scheduler runs", "term", term, "epoch", s.machine.Map().Epoch)
	return s.run(ctx, changed)
}

func (m *Member) stateConfig() state.Config {
	return state.Config{
		Cluster: ashlar.ClusterID(ashlar.NewID()), Name: m.cfg.Cluster, Settings: m.cfg.New.settings(),
		Shards: m.cfg.New.Shards, ExpectHosts: m.cfg.New.ExpectHosts, ExpectDisks: m.cfg.New.ExpectDisks,
	}
}

func (s *scheduler) run(ctx context.Context, changed <-chan struct{}) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			if !s.m.leadsEngine() {
				return ashlar.E("placement: schedule", s.m.cfg.Name, ashlar.Stale, errNotLeading)
			}
			changed = s.m.etcd.Server.LeaderChangedNotify()
		case b := <-s.queue:
			if err := s.beats(ctx, b); err != nil {
				return err
			}
		case o := <-s.orders:
			o.err = o.do(s.machine)
			err := s.commit(ctx)
			if o.err == nil {
				o.err = err
			}
			o.epoch = s.machine.Map().Epoch
			close(o.done)
			if err != nil {
				return err
			}
			s.publish()
		case <-tick.C:
			// A leader that lost its majority is told so by nobody.
			if !s.m.leadsEngine() {
				return ashlar.E("placement: schedule", s.m.cfg.Name, ashlar.Stale, errNotLeading)
			}
			s.machine.Tick(time.Now())
			if err := s.commit(ctx); err != nil {
				return err
			}
			s.publish()
		}
	}
}

// beats takes in a heartbeat and those that wait behind it, writes the map
// once if they changed it, and answers.
func (s *scheduler) beats(ctx context.Context, first *beat) error {
	batch := []*beat{first}
	for len(batch) < batchMax && len(s.queue) > 0 {
		batch = append(batch, <-s.queue)
	}
	replies := make([]beatReply, len(batch))
	for i, b := range batch {
		replies[i].answer, replies[i].err = s.machine.Heartbeat(b.at, b.hb)
	}
	wrote := s.machine.Pending() != nil
	err := s.commit(ctx)
	for i, b := range batch {
		if replies[i].m = s.machine.Map(); replies[i].err == nil {
			replies[i].err = err
		}
		b.reply <- replies[i]
	}
	if wrote && err == nil {
		s.publish()
	}
	return err
}

// commit writes the pending map, if there is one.
func (s *scheduler) commit(ctx context.Context) error {
	next := s.machine.Pending()
	if next == nil {
		return nil
	}
	if err := s.claim.write(ctx, next); err != nil {
		return err
	}
	s.machine.Written()
	s.m.maps.put(next, wire.FromMap(next))
	return nil
}

// publish shows the state of this moment to Status.
func (s *scheduler) publish() {
	s.view.Store(&view{m: s.machine.Map(), facts: s.machine.Facts()})
}

// retire refuses the heartbeats that still wait.
func (s *scheduler) retire() {
	s.m.sched.Store(nil)
	close(s.ended)
	for {
		select {
		case b := <-s.queue:
			b.reply <- beatReply{err: ashlar.E("placement: heartbeat", b.hb.Name, ashlar.Unavailable, errNotLeading)}
		default:
			return
		}
	}
}

// offer queues a heartbeat and waits for its answer.
func (s *scheduler) offer(ctx context.Context, hb state.Heartbeat) (beatReply, error) {
	b := &beat{at: time.Now(), hb: hb, reply: make(chan beatReply, 1)}
	select {
	case s.queue <- b:
	default:
		return beatReply{}, ashlar.E("placement: heartbeat", hb.Name, ashlar.Busy, nil)
	}
	select {
	case r := <-b.reply:
		return r, r.err
	case <-s.ended:
		return beatReply{}, ashlar.E("placement: heartbeat", hb.Name, ashlar.Unavailable, errNotLeading)
	case <-ctx.Done():
		return beatReply{}, ashlar.E("placement: heartbeat", hb.Name, ashlar.Unavailable, ctx.Err())
	}
}

// obey lets the machine do something and returns when it is in the map of the
// epoch, or why it is not.
func (s *scheduler) obey(ctx context.Context, do func(*state.Machine) error) (ashlar.Epoch, error) {
	o := &order{do: do, done: make(chan struct{})}
	select {
	case s.orders <- o:
	case <-s.ended:
		return 0, ashlar.E("placement: order", "", ashlar.Unavailable, errNotLeading)
	case <-ctx.Done():
		return 0, ashlar.E("placement: order", "", ashlar.Unavailable, ctx.Err())
	}
	<-o.done // the scheduler took it and bounds its write
	return o.epoch, o.err
}

// pings remembers when each member was last seen to follow this one. A member
// that was not asked yet is not in it: it has the benefit of the doubt.
type pings struct {
	sync.Mutex
	voted map[string]time.Time
}

// ping asks every other member, again and again, whom it follows. Its
// goroutines end with ctx.
func (s *scheduler) ping(ctx context.Context, wg *sync.WaitGroup) {
	s.pings.voted = map[string]time.Time{}
	for name, conn := range s.m.peers {
		rpc := wire.NewPlacementClient(conn)
		wg.Go(func() {
			for ctx.Err() == nil {
				pctx, cancel := context.WithTimeout(ctx, pingTimeout)
				reply, err := rpc.Ping(pctx, &wire.PingRequest{})
				cancel()
				s.pings.note(name, err == nil && reply.GetLeader() == s.m.cfg.Name)
				pause(ctx, pingEvery)
			}
		})
	}
}

func (p *pings) note(name string, votes bool) {
	p.Lock()
	defer p.Unlock()
	if votes {
		p.voted[name] = time.Now()
	} else if _, asked := p.voted[name]; !asked {
		p.voted[name] = time.Time{}
	}
}

// members returns the quorum as the leader sees it.
func (s *scheduler) members(now time.Time) []health.Member {
	s.pings.Lock()
	defer s.pings.Unlock()
	var all []health.Member
	for _, name := range s.m.cfg.names() {
		last, asked := s.pings.voted[name]
		voting := name == s.m.cfg.Name || !asked || now.Sub(last) < votingWithin
		all = append(all, health.Member{Name: name, Voting: voting})
	}
	return all
}
