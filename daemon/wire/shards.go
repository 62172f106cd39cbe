package wire

import (
	"context"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"ashlar"
	"ashlar/daemon/meta"
)

//go:generate sh shards_generate.sh

// Shards is what a host does with the metadata shards whose replicas it holds.
//
// Get, Scan and Commit keep the promises of meta.Store for these shards and
// may fail in one more way: a *NotLeader (kind Stale) says that nothing was
// done here (for Commit: nothing that a retry under the same id could repeat)
// and who may know better. A host that holds no replica of the shard answers
// *NoReplica, also of kind Stale.
//
// No call carries a map epoch: a replica is named by an id that is never
// reused, and raft itself fences whoever is out of date.
type Shards interface {
	meta.Store
	// Followers is answered by every replica, whoever leads. A host without one
	// answers *NoReplica.
	meta.Followers
	// Deliver hands over raft messages between replicas. It does not wait until
	// they are handled; messages may be lost, repeated and reordered. Neither
	// side changes a message after the call.
	Deliver(ctx context.Context, batch *RaftBatch) error
	// InstallSnapshot hands over one chunk of a snapshot of a shard's state to
	// a replica that lags behind. Chunks come in order; nil means that the chunk
	// was taken, and for the last one that the snapshot was handed to raft.
	InstallSnapshot(ctx context.Context, chunk *SnapshotChunk) error
}

// RaftBatch is a parcel of messages from one host to another.
type RaftBatch struct {
	From     ashlar.HostID
	Messages []RaftMessage
	// Bulk lets the batch ride on a way of its own, so that beats and votes do
	// not wait behind it. It does not travel.
	Bulk bool
}

// RaftMessage is one message between two replicas of a shard: of raft, or
// about the first start of a replica. Exactly one of Raft and Birth is set.
type RaftMessage struct {
	Shard    ashlar.ShardID
	From, To ashlar.ReplicaID
	Raft     *raftpb.Message
	Birth    *Birth
	// Durable is how far the life of the sender is on its disk. It rides on
	// messages of raft.
	Durable Position
}

// Position is a point in the life of a replica: the term that it has reached
// and, within that term, the last log index that it vouched for. It never goes
// back, unless the replica's disk was set back in time.
type Position struct{ Term, Index uint64 }

// Before reports whether p lies before o.
func (p Position) Before(o Position) bool {
	return p.Term < o.Term || p.Term == o.Term && p.Index < o.Index
}

// Birth is the talk of a replica that starts with the others of its shard;
// meta/replica says what it decides.
type Birth struct {
	// Reply is false in a question and true in an answer.
	Reply bool
	// Born says that whoever speaks has state.
	Born bool
	// Heard says that the answering replica was ever told anything by the asker.
	Heard bool
	// Voters are the voters with which the answering replica was born.
	Voters []ashlar.ReplicaID
	// Position, in a question of a replica that has state, is what it finds on its
	// disk: the term, and the last index of its log.
	Position Position
	// Behind says in an answer that the asker was further once.
	Behind bool
}

// SnapshotChunk is a part of the state of a shard at one log index.
type SnapshotChunk struct {
	Shard    ashlar.ShardID
	From, To ashlar.ReplicaID
	// ID names the transfer, Seq counts its chunks from zero.
	ID  uint64
	Seq uint32
	// Rows is the content, in the encoding of meta/replica. Borrowed: the
	// callee may not keep it.
	Rows []byte
	// Last is the raft message that the snapshot belongs to, set in the last chunk only.
	Last *raftpb.Message
}

// NotLeader is the answer of a replica that may not decide, because another
// one leads its shard or nobody does.
type NotLeader struct {
	Shard ashlar.ShardID
	// Hint is the host that leads the shard as far as the answering one knows, or zero.
	Hint ashlar.HostID
}

func (e *NotLeader) Error() string {
	if e.Hint == 0 {
		return fmt.Sprintf("shard %d has no leader that I know of", e.Shard)
	}
	return fmt.Sprintf("shard %d is led by host %d", e.Shard, e.Hint)
}

// Unwrap gives the error its kind.
func (e *NotLeader) Unwrap() error { return ashlar.E("meta", "", ashlar.Stale, nil) }

// NoReplica is the answer of a host that holds no replica of the shard.
type NoReplica struct{ Shard ashlar.ShardID }

func (e *NoReplica) Error() string {
	return fmt.Sprintf("no replica of shard %d on this host", e.Shard)
}

// Unwrap gives the error its kind.
func (e *NoReplica) Unwrap() error { return ashlar.E("meta", "", ashlar.Stale, nil) }
