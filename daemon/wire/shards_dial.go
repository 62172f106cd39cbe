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
		grpc.WithInitialWindowSize(streamWindowBytes), grpc.WithInitialConnWindowSize(connWindowBytes),
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

	beats, bulk lane
}

// lane is one stream of batches.
type lane struct {
	mu struct {
		sync.Mutex
		// stream is nil until the first batch and after a failure.
		stream grpc.ClientStreamingClient[shardspb.RaftBatch, shardspb.DeliverReply]
		cancel context.CancelFunc
	}
}

func (c *shardsClient) transportError(op string, err error) error {
	return ashlar.E(op, "host="+c.addr, ashlar.Unavailable, err)
}

func (c *shardsClient) Get(ctx context.Context, shard ashlar.ShardID, key []byte) (meta.Row, error) {
	row, _, err := c.get(ctx, shard, key, nil)
	return row, err
}

func (c *shardsClient) GetAt(ctx context.Context, shard ashlar.ShardID, key []byte, at meta.At) (meta.Row, meta.Seen, error) {
	return c.get(ctx, shard, key, atToPB(at))
}

func (c *shardsClient) get(ctx context.Context, shard ashlar.ShardID, key []byte, at *shardspb.At) (meta.Row, meta.Seen, error) {
	reply, err := c.rpc.Get(ctx, &shardspb.GetRequest{Shard: uint32(shard), Key: key, At: at})
	if err != nil {
		return meta.Row{}, meta.Seen{}, c.transportError("meta: get", err)
	}
	if reply.Failure != nil {
		return meta.Row{}, seenFromPB(reply.Seen), errorOf(reply.Failure, shard)
	}
	return rowFromPB(reply.Row, false), seenFromPB(reply.Seen), nil
}

func (c *shardsClient) Scan(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest) (meta.ScanPage, error) {
	page, _, err := c.scan(ctx, shard, req, nil)
	return page, err
}

func (c *shardsClient) ScanAt(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest, at meta.At) (meta.ScanPage, meta.Seen, error) {
	return c.scan(ctx, shard, req, atToPB(at))
}

func (c *shardsClient) scan(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest, at *shardspb.At) (meta.ScanPage, meta.Seen, error) {
	// What the encoding would silently change is judged before it.
	if err := req.Check(); err != nil {
		return meta.ScanPage{}, meta.Seen{}, err
	}
	m := scanToPB(shard, req)
	m.At = at
	reply, err := c.rpc.Scan(ctx, m)
	if err != nil {
		return meta.ScanPage{}, meta.Seen{}, c.transportError("meta: scan", err)
	}
	if reply.Failure != nil {
		return meta.ScanPage{}, seenFromPB(reply.Seen), errorOf(reply.Failure, shard)
	}
	page := meta.ScanPage{Rows: make([]meta.Row, len(reply.Rows))}
	for i, row := range reply.Rows {
		page.Rows[i] = rowFromPB(row, req.KeysOnly)
	}
	if reply.More {
		page.Next = append([]byte{}, reply.Next...)
	}
	return page, seenFromPB(reply.Seen), nil
}

func (c *shardsClient) Commit(ctx context.Context, shard ashlar.ShardID, txn *meta.Txn) error {
	if err := txn.Check(); err != nil {
		return err
	}
	reply, err := c.rpc.Commit(ctx, txnToPB(shard, txn))
	if err != nil {
		return c.transportError("meta: commit", err)
	}
	txn.Seen = reply.Seen
	return errorOf(reply.Failure, shard)
}

// Deliver sends the batch on the stream that is open, or opens one. Batches of
// concurrent calls go one after the other, bulk and other ones apart. When the
// caller's time is over before the batch is on its way, the stream is given up.
func (c *shardsClient) Deliver(ctx context.Context, batch *RaftBatch) error {
	const op = "meta: deliver"
	m, err := batchToPB(batch)
	if err != nil {
		return ashlar.E(op, "", ashlar.Invalid, err)
	}
	l := &c.beats
	if batch.Bulk {
		l = &c.bulk
	}
	if err := l.send(ctx, c.rpc, m); err != nil {
		return c.transportError(op, err)
	}
	return nil
}

func (l *lane) send(ctx context.Context, rpc shardspb.ShardsClient, m *shardspb.RaftBatch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.stream == nil {
		// The stream outlives the call; Close and failures end it.
		streamCtx, cancel := context.WithCancel(context.Background())
		stop := context.AfterFunc(ctx, cancel)
		stream, err := rpc.Deliver(streamCtx)
		stop()
		if err != nil {
			cancel()
			return err
		}
		l.mu.stream, l.mu.cancel = stream, cancel
	}
	defer context.AfterFunc(ctx, l.mu.cancel)()
	err := l.mu.stream.Send(m)
	if err != nil {
		l.dropLocked()
	}
	return err
}

func (l *lane) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked()
}

func (l *lane) dropLocked() {
	if l.mu.stream != nil {
		l.mu.cancel()
		l.mu.stream, l.mu.cancel = nil, nil
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
	c.beats.drop()
	c.bulk.drop()
	return c.conn.Close()
}
