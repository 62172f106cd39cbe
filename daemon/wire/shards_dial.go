package wire

import (
	"context"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire/shardspb"
)

// reconnect keeps a host that came back from being ignored for minutes.
var reconnect = backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}

// ShardsConn is a connection to the Shards of another process.
type ShardsConn interface {
	Shards
	io.Closer
}

// DialShards returns a connection to the Shards service at addr (host:port).
// It does not wait for the connection to stand: calls do, within their
// deadlines. A failure of the transport is of kind Unavailable. Without
// transport credentials among opts the connection is in the clear.
func DialShards(addr string, opts ...grpc.DialOption) (ShardsConn, error) {
	base := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: time.Second}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(ShardsMessageBytesMax), grpc.MaxCallSendMsgSize(ShardsMessageBytesMax)),
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, append(base, opts...)...)
	if err != nil {
		return nil, ashlar.E("meta: dial", addr, ashlar.Invalid, err)
	}
	return &shardsClient{addr: addr, conn: conn, rpc: shardspb.NewShardsClient(conn)}, nil
}

type shardsClient struct {
	addr string
	conn *grpc.ClientConn
	rpc  shardspb.ShardsClient

	mu struct {
		sync.Mutex
		// stream carries the batches of Deliver; nil until the first and after a failure.
		stream grpc.ClientStreamingClient[shardspb.RaftBatch, shardspb.DeliverReply]
		cancel context.CancelFunc
	}
}

func (c *shardsClient) transportError(op string, err error) error {
	return ashlar.E(op, "host="+c.addr, ashlar.Unavailable, err)
}

func (c *shardsClient) Get(ctx context.Context, shard ashlar.ShardID, key []byte) (meta.Row, error) {
	reply, err := c.rpc.Get(ctx, &shardspb.GetRequest{Shard: uint32(shard), Key: key})
	if err != nil {
		return meta.Row{}, c.transportError("meta: get", err)
	}
	if reply.Failure != nil {
		return meta.Row{}, errorOf(reply.Failure, shard)
	}
	return rowFromPB(reply.Row, false), nil
}

func (c *shardsClient) Scan(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest) (meta.ScanPage, error) {
	// What the encoding would silently change is judged before it.
	if err := req.Check(); err != nil {
		return meta.ScanPage{}, err
	}
	reply, err := c.rpc.Scan(ctx, scanToPB(shard, req))
	if err != nil {
		return meta.ScanPage{}, c.transportError("meta: scan", err)
	}
	if reply.Failure != nil {
		return meta.ScanPage{}, errorOf(reply.Failure, shard)
	}
	page := meta.ScanPage{Rows: make([]meta.Row, len(reply.Rows))}
	for i, row := range reply.Rows {
		page.Rows[i] = rowFromPB(row, req.KeysOnly)
	}
	if reply.More {
		page.Next = append([]byte{}, reply.Next...)
	}
	return page, nil
}

func (c *shardsClient) Commit(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn) error {
	if err := txn.Check(); err != nil {
		return err
	}
	reply, err := c.rpc.Commit(ctx, txnToPB(shard, txn))
	if err != nil {
		return c.transportError("meta: commit", err)
	}
	return errorOf(reply.Failure, shard)
}

// Deliver sends the batch on the stream that is open, or opens one. Batches of
// concurrent calls go one after the other. When the caller's time is over
// before the batch is on its way, the stream is given up.
func (c *shardsClient) Deliver(ctx context.Context, batch *RaftBatch) error {
	const op = "meta: deliver"
	m, err := batchToPB(batch)
	if err != nil {
		return ashlar.E(op, "", ashlar.Invalid, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.stream == nil {
		// The stream outlives the call; Close and failures end it.
		streamCtx, cancel := context.WithCancel(context.Background())
		stop := context.AfterFunc(ctx, cancel)
		stream, err := c.rpc.Deliver(streamCtx)
		stop()
		if err != nil {
			cancel()
			return c.transportError(op, err)
		}
		c.mu.stream, c.mu.cancel = stream, cancel
	}
	defer context.AfterFunc(ctx, c.mu.cancel)()
	if err := c.mu.stream.Send(m); err != nil {
		c.dropStreamLocked()
		return c.transportError(op, err)
	}
	return nil
}

func (c *shardsClient) dropStreamLocked() {
	if c.mu.stream != nil {
		c.mu.cancel()
		c.mu.stream, c.mu.cancel = nil, nil
	}
}

func (c *shardsClient) InstallSnapshot(ctx context.Context, chunk *SnapshotChunk) error {
	const op = "meta: install snapshot"
	m, err := chunkToPB(chunk)
	if err != nil {
		return ashlar.E(op, "", ashlar.Invalid, err)
	}
	reply, err := c.rpc.InstallSnapshot(ctx, m)
	if err != nil {
		return c.transportError(op, err)
	}
	return errorOf(reply.Failure, chunk.Shard)
}

// Close ends the connection; calls under way fail.
func (c *shardsClient) Close() error {
	c.mu.Lock()
	c.dropStreamLocked()
	c.mu.Unlock()
	return c.conn.Close()
}
