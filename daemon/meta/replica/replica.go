package replica

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// replica is one member of one shard's raft group on this host.
type replica struct {
	shard ashlar.ShardID
	id    ashlar.ReplicaID
	log   *slog.Logger
	// machine is nil until the replica is born.
	machine *machine

	// What other goroutines may look at.
	born    atomic.Bool
	leading atomic.Bool
	lead    atomic.Uint32 // host that leads, or zero
	lost    atomic.Bool   // refused to start: see birth.go
	failed  atomic.Bool   // raft met something impossible and stopped
	retired atomic.Bool   // the map names it no more; see retire.go
	conf    atomic.Pointer[confSeen]
	// newestAt is when the state held all that was committed, as Host.uptime; zero
	// if that is not known.
	newestAt atomic.Int64

	waiters struct {
		sync.Mutex
		byID map[ashlar.RequestID][]chan error
	}

	// disk is what the log writer has written; only it looks.
	disk struct {
		last, term, vote uint64
		// commit is what raft said last, and change the newest change of the
		// configuration in the log that is not known, on disk, to be committed.
		commit, change uint64
	}

	// recv is the snapshot that is being received; see snapshot.go.
	recv receiver

	core replicaCore
}

// replicaCore is the part of a replica that only the core goroutine touches.
type replicaCore struct {
	node  *raft.RawNode
	store *logStore
	// voters is the map's list, preferred leader first; peers knows the host of
	// everyone who was ever in it.
	voters []topology.Replica
	peers  map[ashlar.ReplicaID]ashlar.HostID
	// leaving are those of the map that were replaced and may still vote; moved
	// orders the map's lists, and confMoved is the order of the one that the last
	// change of the configuration followed.
	leaving          []topology.Replica
	moved, confMoved ashlar.Epoch

	dirty bool
	term  uint64 // as of the last look
	lead  uint64

	props     []proposal
	newReads  []chan error
	reading   readRound   // on its way through the quorum
	readsWait []readRound // confirmed, waiting for the applied index
	follow    follow
	learn     learning

	peersSeen // see marks.go

	birth     map[ashlar.ReplicaID]*wire.Birth
	frozen    freeze
	returning bool // has state, and asks the others whether it is the newest
	bornWith  []ashlar.ReplicaID
	ticks     int
	lonely    int // ticks without a leader
	leadTicks int // ticks as leader
	// handedOver: we gave the leadership away because the host stops.
	handedOver bool

	staged       *staged // handed to raft, not yet taken
	snapsSending int
}

// proposal is a transaction on its way into the log.
type proposal struct {
	id   ashlar.RequestID
	data []byte
}

// readRound is a set of readers that share one confirmation of leadership.
type readRound struct {
	seq, index uint64
	readers    []chan error
}

func (r *replica) String() string { return fmt.Sprintf("shard=%d replica=%d", r.shard, r.id) }

// notLeader is the answer of a replica that does not lead.
func (r *replica) notLeader() error {
	return &wire.NotLeader{Shard: r.shard, Hint: ashlar.HostID(r.lead.Load())}
}

// await registers a waiter for the answer to a transaction.
func (r *replica) await(id ashlar.RequestID) chan error {
	ch := make(chan error, 1)
	r.waiters.Lock()
	defer r.waiters.Unlock()
	r.waiters.byID[id] = append(r.waiters.byID[id], ch)
	return ch
}

// forget removes a waiter that gave up.
func (r *replica) forget(id ashlar.RequestID, ch chan error) {
	r.waiters.Lock()
	defer r.waiters.Unlock()
	list := r.waiters.byID[id]
	for i := range list {
		if list[i] == ch {
			list[i] = list[len(list)-1]
			list = list[:len(list)-1]
			break
		}
	}
	if len(list) == 0 {
		delete(r.waiters.byID, id)
	} else {
		r.waiters.byID[id] = list
	}
}

func (r *replica) awaited(id ashlar.RequestID) bool {
	r.waiters.Lock()
	defer r.waiters.Unlock()
	return len(r.waiters.byID[id]) > 0
}

// answer tells everybody who waits for the transaction.
func (r *replica) answer(id ashlar.RequestID, err error) {
	r.waiters.Lock()
	list := r.waiters.byID[id]
	delete(r.waiters.byID, id)
	r.waiters.Unlock()
	for _, ch := range list {
		ch <- err // room for one, and answered once
	}
}

// answerAll tells everybody who waits for any transaction.
func (r *replica) answerAll(err error) {
	r.waiters.Lock()
	all := r.waiters.byID
	r.waiters.byID = map[ashlar.RequestID][]chan error{}
	r.waiters.Unlock()
	for _, list := range all {
		for _, ch := range list {
			ch <- err
		}
	}
}
