package wire

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire/shardspb"
)

// ShardsMessageBytesMax bounds one gRPC message of the Shards service, in
// either direction: a transaction or a page of a scan with its overhead fits.
// A gRPC server must be made with ShardsServerOptions for it to hold.
const ShardsMessageBytesMax = 24 * ashlar.MiB

// Flow control windows: gRPC's default of 64 KiB makes a large transaction wait
// for dozens of round trips.
const (
	streamWindowBytes = 2 * ashlar.MiB
	connWindowBytes   = 8 * ashlar.MiB
)

// ShardsServerOptions are the options without which a gRPC server cannot carry
// the Shards service.
func ShardsServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(ShardsMessageBytesMax), grpc.MaxSendMsgSize(ShardsMessageBytesMax),
		grpc.InitialWindowSize(streamWindowBytes), grpc.InitialConnWindowSize(connWindowBytes),
	}
}

// RegisterShards makes the gRPC server answer the calls of Shards with s.
func RegisterShards(server grpc.ServiceRegistrar, s Shards) {
	shardspb.RegisterShardsServer(server, &shardsServer{shards: s})
}

type shardsServer struct {
	shardspb.UnimplementedShardsServer
	shards Shards
}

func (s *shardsServer) Get(ctx context.Context, m *shardspb.GetRequest) (*shardspb.GetReply, error) {
	var seen meta.Seen
	var row meta.Row
	var err error
	if m.At == nil {
		row, err = s.shards.Get(ctx, ashlar.ShardID(m.Shard), m.Key)
	} else {
		row, seen, err = s.shards.GetAt(ctx, ashlar.ShardID(m.Shard), m.Key, atFromPB(m.At))
	}
	if err != nil {
		return &shardspb.GetReply{Failure: failureOf(err), Seen: seenToPB(seen)}, nil
	}
	return &shardspb.GetReply{Row: rowToPB(row), Seen: seenToPB(seen)}, nil
}

func (s *shardsServer) Scan(ctx context.Context, m *shardspb.ScanRequest) (*shardspb.ScanReply, error) {
	var seen meta.Seen
	var page meta.ScanPage
	var err error
	if m.At == nil {
		page, err = s.shards.Scan(ctx, ashlar.ShardID(m.Shard), scanFromPB(m))
	} else {
		page, seen, err = s.shards.ScanAt(ctx, ashlar.ShardID(m.Shard), scanFromPB(m), atFromPB(m.At))
	}
	if err != nil {
		return &shardspb.ScanReply{Failure: failureOf(err), Seen: seenToPB(seen)}, nil
	}
	reply := &shardspb.ScanReply{Seen: seenToPB(seen), Next: page.Next, More: page.Next != nil, Rows: make([]*shardspb.Row, len(page.Rows))}
	for i, row := range page.Rows {
		reply.Rows[i] = rowToPB(row)
	}
	return reply, nil
}

func (s *shardsServer) Commit(ctx context.Context, m *shardspb.CommitRequest) (*shardspb.CommitReply, error) {
	txn, err := txnFromPB(m)
	if err == nil {
		err = s.shards.Commit(ctx, ashlar.ShardID(m.Shard), txn)
	}
	reply := &shardspb.CommitReply{Failure: failureOf(err)}
	if txn != nil {
		reply.Seen = txn.Seen
	}
	return reply, nil
}

// Deliver ends when the caller ends the stream or a message cannot be taken;
// the caller then opens another one.
func (s *shardsServer) Deliver(stream grpc.ClientStreamingServer[shardspb.RaftBatch, shardspb.DeliverReply]) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&shardspb.DeliverReply{})
		}
		if err != nil {
			return err
		}
		batch, err := batchFromPB(m)
		if err != nil {
			return err
		}
		if err := s.shards.Deliver(stream.Context(), batch); err != nil {
			return err
		}
	}
}

func (s *shardsServer) InstallSnapshot(ctx context.Context, m *shardspb.SnapshotChunk) (*shardspb.InstallSnapshotReply, error) {
	chunk, err := chunkFromPB(m)
	if err == nil {
		err = s.shards.InstallSnapshot(ctx, chunk)
	}
	return &shardspb.InstallSnapshotReply{Failure: failureOf(err)}, nil
}
