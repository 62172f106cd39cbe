package wire_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/metatest"
	"ashlar/daemon/wire"
)

// modelShards is a host whose shards are the model; it keeps what is delivered.
type modelShards struct {
	meta.Store
	batches chan *wire.RaftBatch
	chunks  chan *wire.SnapshotChunk
	fail    error // if set, the answer to everything
}

func (m *modelShards) Get(ctx context.Context, shard ashlar.ShardID, key []byte) (meta.Row, error) {
	if m.fail != nil {
		return meta.Row{}, m.fail
	}
	return m.Store.Get(ctx, shard, key)
}

func (m *modelShards) Deliver(_ context.Context, b *wire.RaftBatch) error {
	m.batches <- b
	return m.fail
}

func (m *modelShards) GetAt(ctx context.Context, shard ashlar.ShardID, key []byte, at meta.At) (meta.Row, meta.Seen, error) {
	row, err := m.Get(ctx, shard, key)
	return row, meta.Seen{Index: at.Index + 1, Age: at.MaxAge + 1}, err
}

func (m *modelShards) ScanAt(ctx context.Context, shard ashlar.ShardID, req meta.ScanRequest, at meta.At) (meta.ScanPage, meta.Seen, error) {
	page, err := m.Scan(ctx, shard, req)
	return page, meta.Seen{Index: at.Index + 1, Age: at.MaxAge + 1}, err
}

func (m *modelShards) InstallSnapshot(_ context.Context, c *wire.SnapshotChunk) error {
	if m.fail == nil {
		m.chunks <- c
	}
	return m.fail
}

func serve(t *testing.T) (*modelShards, wire.ShardsConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shards := &modelShards{
		Store: metatest.NewModel(), batches: make(chan *wire.RaftBatch, 64), chunks: make(chan *wire.SnapshotChunk, 64),
	}
	server := grpc.NewServer(wire.ShardsServerOptions()...)
	wire.RegisterShards(server, shards)
	go server.Serve(listener) // ends with Stop
	t.Cleanup(server.Stop)
	conn, err := wire.DialShards(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return shards, conn
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestShardsKeepTheStorePromisesOverGRPC(t *testing.T) {
	metatest.Run(t, func(t *testing.T) meta.Store {
		_, conn := serve(t)
		return conn
	})
}

func TestShardsErrorsSurviveTheWire(t *testing.T) {
	shards, conn := serve(t)
	get := func(fail error) error {
		shards.fail = fail
		_, err := conn.Get(within(t, 10*time.Second), 7, []byte("k"))
		return err
	}
	var leader *wire.NotLeader
	if err := get(&wire.NotLeader{Shard: 7, Hint: 42}); !errors.As(err, &leader) || leader.Hint != 42 || leader.Shard != 7 || !ashlar.Is(err, ashlar.Stale) {
		t.Errorf("not leader arrives as %#v", err)
	}
	var none *wire.NoReplica
	if err := get(&wire.NoReplica{Shard: 7}); !errors.As(err, &none) || none.Shard != 7 {
		t.Errorf("no replica arrives as %#v", err)
	}
	var cond *meta.ConditionError
	row := &meta.Row{Key: []byte("k"), Value: []byte{}, Version: 9}
	if err := get(&meta.ConditionError{Index: 3, Row: row}); !errors.As(err, &cond) || cond.Index != 3 || cond.Row == nil || cond.Row.Version != 9 || cond.Row.Value == nil {
		t.Errorf("condition arrives as %#v", err)
	}
	for kind := ashlar.Internal; kind <= ashlar.Invalid; kind++ {
		err := get(ashlar.E("meta: get", "shard=7", kind, errors.New("the cause")))
		if ashlar.KindOf(err) != kind || err.Error() != "meta: get shard=7: the cause" {
			t.Errorf("kind %v arrives as %v: %v", kind, ashlar.KindOf(err), err)
		}
	}
	if err := get(errors.New("plain")); ashlar.KindOf(err) != ashlar.Internal {
		t.Errorf("a plain error arrives as %v", err)
	}
}

func TestShardsDeliverAndSnapshotOverGRPC(t *testing.T) {
	shards, conn := serve(t)
	message := &raftpb.Message{
		Type: raftpb.MsgApp.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(3)),
		Entries: []*raftpb.Entry{{Index: new(uint64(5)), Term: new(uint64(3)), Data: bytes.Repeat([]byte("x"), 9*ashlar.MiB)}},
	}
	sent := &wire.RaftBatch{From: 4, Messages: []wire.RaftMessage{
		{Shard: 1, From: 1, To: 2, Raft: message},
		{Shard: 2, From: 3, To: 4, Birth: &wire.Birth{Reply: true, Born: true, Heard: true, Voters: []ashlar.ReplicaID{3, 4}}},
		{Shard: 2, From: 3, To: 4, Birth: &wire.Birth{}},
	}}
	ctx := within(t, 20*time.Second)
	if err := conn.Deliver(ctx, sent); err != nil {
		t.Fatal(err)
	}
	got := <-shards.batches
	if got.From != 4 || len(got.Messages) != 3 || !proto.Equal(got.Messages[0].Raft, message) {
		t.Fatalf("raft message arrives as %v", got.Messages[0].Raft.GetType())
	}
	birth := got.Messages[1].Birth
	if birth == nil || !birth.Reply || !birth.Born || !birth.Heard || len(birth.Voters) != 2 || got.Messages[1].Raft != nil {
		t.Fatalf("birth arrives as %+v", birth)
	}
	if got.Messages[2].Birth == nil || got.Messages[2].Birth.Reply {
		t.Fatalf("question arrives as %+v", got.Messages[2])
	}
	chunk := &wire.SnapshotChunk{Shard: 1, From: 2, To: 3, ID: 4, Seq: 5, Rows: []byte("rows"), Last: message}
	if err := conn.InstallSnapshot(ctx, chunk); err != nil {
		t.Fatal(err)
	}
	c := <-shards.chunks
	if c.Shard != 1 || c.From != 2 || c.To != 3 || c.ID != 4 || c.Seq != 5 || string(c.Rows) != "rows" || !proto.Equal(c.Last, message) {
		t.Fatalf("chunk arrives as %+v", c)
	}
}

func TestShardsDeliverRecoversFromAFailedStream(t *testing.T) {
	shards, conn := serve(t)
	shards.fail = ashlar.E("meta: deliver", "", ashlar.Busy, nil)
	ctx := within(t, 20*time.Second)
	batch := &wire.RaftBatch{From: 1, Messages: []wire.RaftMessage{{Birth: &wire.Birth{}}}}
	if err := conn.Deliver(ctx, batch); err != nil {
		t.Fatal(err)
	}
	<-shards.batches // answered with an error, which ends the stream
	for err := error(nil); err == nil; err = conn.Deliver(ctx, batch) {
		if ctx.Err() != nil {
			t.Fatal("a stream that failed is not noticed")
		}
		select {
		case <-shards.batches:
		default:
		}
	}
	shards.fail = nil
	if err := conn.Deliver(ctx, batch); err != nil {
		t.Fatalf("no new stream after a failure: %v", err)
	}
}

func TestShardsDeadHostIsUnavailable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	conn, err := wire.DialShards(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Get(within(t, 2*time.Second), 0, []byte("k")); !ashlar.Is(err, ashlar.Unavailable) {
		t.Fatalf("get from nobody: %v", err)
	}
}

func TestShardsFollowersTravel(t *testing.T) {
	model, conn := serve(t)
	ctx := within(t, 5*time.Second)
	txn := &meta.Txn{ID: ashlar.RequestID{1}, Puts: []meta.Put{{Key: []byte("k"), Value: []byte("v")}}}
	if err := conn.Commit(ctx, 0, txn); err != nil {
		t.Fatal(err)
	}
	at := meta.At{Index: 7, MaxAge: time.Second}
	want := meta.Seen{Index: 8, Age: time.Second + 1}
	if row, seen, err := conn.GetAt(ctx, 0, []byte("k"), at); err != nil || string(row.Value) != "v" || seen != want {
		t.Errorf("%q %+v %v", row.Value, seen, err)
	}
	if _, seen, err := conn.GetAt(ctx, 0, []byte("none"), at); !ashlar.Is(err, ashlar.NotFound) || seen != want {
		t.Errorf("%+v %v", seen, err)
	}
	if page, seen, err := conn.ScanAt(ctx, 0, meta.ScanRequest{}, at); err != nil || len(page.Rows) != 1 || seen != want {
		t.Errorf("%+v %+v %v", page, seen, err)
	}
	model.fail = &wire.NoReplica{Shard: 3}
	var none *wire.NoReplica
	if _, _, err := conn.GetAt(ctx, 3, []byte("k"), at); !errors.As(err, &none) {
		t.Error(err)
	}
}
