package wire

import (
	"context"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire/shardspb"
)

// BackupStep is what a backup asks of the leader of a shard.
type BackupStep uint32

// The steps, in their order; daemon/meta/backup says why it is done so. The
// numbers travel: append only.
const (
	BackupFreeze  BackupStep = iota + 1 // take no transactions for Hold
	BackupPin                           // keep the state of this moment; the freeze must still hold
	BackupThaw                          // take transactions again
	BackupExport                        // rows of the pinned state, from Start on
	BackupRelease                       // forget the pinned state
)

// BackupRequest is one step for one shard.
type BackupRequest struct {
	Shard ashlar.ShardID
	// Token names the backup; it ties the steps together.
	Token ashlar.RequestID
	Step  BackupStep
	Hold  time.Duration // of BackupFreeze
	Start []byte        // of BackupExport
}

// BackupReply is the answer: of BackupPin the applied index, of BackupExport
// a page of rows.
type BackupReply struct {
	Index uint64
	Page  meta.ScanPage
}

// Backups is what a host that leads a shard does for a backup. Every Shards
// that a host or a connection to one offers is one. A step that comes too late
// is Stale, as is one to a host that does not lead the shard any more.
type Backups interface {
	Backup(ctx context.Context, req BackupRequest) (BackupReply, error)
}

func (s *shardsServer) Backup(ctx context.Context, m *shardspb.BackupRequest) (*shardspb.BackupReply, error) {
	b, ok := s.shards.(Backups)
	if !ok || len(m.Token) != len(ashlar.RequestID{}) {
		return &shardspb.BackupReply{Failure: failureOf(ashlar.E("meta: backup", "", ashlar.Invalid, nil))}, nil
	}
	reply, err := b.Backup(ctx, BackupRequest{
		Shard: ashlar.ShardID(m.Shard), Token: ashlar.RequestID(m.Token), Step: BackupStep(m.Step),
		Hold: time.Duration(m.HoldNanos), Start: m.Start,
	})
	if err != nil {
		return &shardspb.BackupReply{Failure: failureOf(err)}, nil
	}
	out := &shardspb.BackupReply{Index: reply.Index, Next: reply.Page.Next, More: reply.Page.Next != nil}
	for _, row := range reply.Page.Rows {
		out.Rows = append(out.Rows, rowToPB(row))
	}
	return out, nil
}

// Backup implements Backups.
func (c *shardsClient) Backup(ctx context.Context, req BackupRequest) (BackupReply, error) {
	m, err := c.rpc.Backup(ctx, &shardspb.BackupRequest{
		Shard: uint32(req.Shard), Token: req.Token[:], Step: uint32(req.Step), HoldNanos: int64(req.Hold), Start: req.Start,
	})
	if err != nil {
		return BackupReply{}, c.transportError("meta: backup", err)
	}
	if m.Failure != nil {
		return BackupReply{}, errorOf(m.Failure, req.Shard)
	}
	reply := BackupReply{Index: m.Index}
	for _, row := range m.Rows {
		reply.Page.Rows = append(reply.Page.Rows, rowFromPB(row, false))
	}
	if m.More {
		reply.Page.Next = append([]byte{}, m.Next...)
	}
	return reply, nil
}
