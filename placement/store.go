package placement

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"ashlar"
	"ashlar/placement/topology"
	"ashlar/placement/wire"
)

// The keys in the quorum.
const (
	keyMap       = "ashlar/map"       // the map, as wire.Map
	keyScheduler = "ashlar/scheduler" // "<term> <member>" of who may write it
)

// storeTimeout bounds one call to the quorum.
const storeTimeout = 4 * time.Second

// claim is the right to write the map. It ends when another member claims it.
type claim struct {
	cli *clientv3.Client
	// revision of keyScheduler when we took it, and of keyMap as we know it.
	schedulerRev, mapRev int64
}

// takeClaim makes this member the one that may write, unless a later term has
// been seen, and returns the map as it is, nil if there is none.
//
// Leadership in the engine does not protect the map by itself: the engine
// passes proposals of any member on to its leader. So every write demands, in
// its own transaction, that the claim still stands.
func takeClaim(ctx context.Context, cli *clientv3.Client, name string, term uint64) (*claim, *topology.Map, error) {
	const op = "placement: claim"
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	seen, err := cli.Get(ctx, keyScheduler)
	if err != nil {
		return nil, nil, ashlar.E(op, name, ashlar.Unavailable, err)
	}
	rev := int64(0)
	if len(seen.Kvs) > 0 {
		rev = seen.Kvs[0].ModRevision
		var other uint64
		if _, err := fmt.Sscanf(string(seen.Kvs[0].Value), "%d", &other); err != nil || other > term {
			return nil, nil, ashlar.E(op, name, ashlar.Stale, fmt.Errorf("term %d, but %q rules", term, seen.Kvs[0].Value))
		}
	}
	txn, err := cli.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(keyScheduler), "=", rev)).
		Then(clientv3.OpPut(keyScheduler, fmt.Sprintf("%d %s", term, name)), clientv3.OpGet(keyMap)).
		Commit()
	if err != nil {
		return nil, nil, ashlar.E(op, name, ashlar.Unavailable, err)
	}
	if !txn.Succeeded {
		return nil, nil, ashlar.E(op, name, ashlar.Stale, fmt.Errorf("another member claimed it"))
	}
	c := &claim{cli: cli, schedulerRev: txn.Header.Revision}
	kvs := txn.Responses[1].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return c, nil, nil
	}
	c.mapRev = kvs[0].ModRevision
	m, _, err := decode(kvs[0])
	return c, m, err
}

// write stores the next map. Kind Stale means that the claim has ended or the
// map was changed by somebody else; after Unavailable it is open whether the
// map was stored.
func (c *claim) write(ctx context.Context, m *topology.Map) error {
	op, subject := "placement: write map", fmt.Sprintf("epoch=%d", m.Epoch)
	value, err := proto.Marshal(wire.FromMap(m))
	if err != nil {
		return ashlar.E(op, subject, ashlar.Internal, err)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	txn, err := c.cli.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(keyScheduler), "=", c.schedulerRev),
			clientv3.Compare(clientv3.ModRevision(keyMap), "=", c.mapRev)).
		Then(clientv3.OpPut(keyMap, string(value))).
		Commit()
	if err != nil {
		return ashlar.E(op, subject, ashlar.Unavailable, err)
	}
	if !txn.Succeeded {
		return ashlar.E(op, subject, ashlar.Stale, fmt.Errorf("another member schedules now"))
	}
	c.mapRev = txn.Header.Revision
	return nil
}

func decode(kv *mvccpb.KeyValue) (*topology.Map, *wire.Map, error) {
	w := &wire.Map{}
	if err := proto.Unmarshal(kv.Value, w); err != nil {
		return nil, nil, ashlar.E("placement: read map", fmt.Sprintf("revision=%d", kv.ModRevision), ashlar.Corrupt, err)
	}
	m, err := wire.ToMap(w)
	return m, w, err
}

// follow hands every map that this member's own copy of the state holds or
// will hold to accept, until ctx ends. It needs no quorum.
func follow(ctx context.Context, cli *clientv3.Client, accept func(*topology.Map, *wire.Map)) error {
	take := func(kv *mvccpb.KeyValue) error {
		m, w, err := decode(kv)
		if err == nil {
			accept(m, w)
		}
		return err
	}
	gctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	got, err := cli.Get(gctx, keyMap, clientv3.WithSerializable())
	if err != nil {
		return ashlar.E("placement: follow", "", ashlar.Unavailable, err)
	}
	for _, kv := range got.Kvs {
		if err := take(kv); err != nil {
			return err
		}
	}
	for resp := range cli.Watch(ctx, keyMap, clientv3.WithRev(got.Header.Revision+1)) {
		if err := resp.Err(); err != nil {
			return ashlar.E("placement: follow", "", ashlar.Unavailable, err)
		}
		for _, ev := range resp.Events {
			if ev.Type == mvccpb.Event_PUT {
				if err := take(ev.Kv); err != nil {
					return err
				}
			}
		}
	}
	return ashlar.E("placement: follow", "", ashlar.Unavailable, fmt.Errorf("the watch ended"))
}
