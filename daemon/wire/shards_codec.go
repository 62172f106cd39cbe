package wire

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/wire/shardspb"
)

// failureOf turns an error of the shard into what travels; nil stays nil.
func failureOf(err error) *shardspb.Failure {
	if err == nil {
		return nil
	}
	f := &shardspb.Failure{Kind: uint32(ashlar.KindOf(err)), Message: err.Error()}
	var (
		cond   *meta.ConditionError
		leader *NotLeader
		none   *NoReplica
		e      *ashlar.Error
	)
	switch {
	case errors.As(err, &cond):
		f.Condition = &shardspb.Failure_Condition{Index: uint32(cond.Index)}
		if cond.Row != nil {
			f.Condition.Row = rowToPB(*cond.Row)
		}
	case errors.As(err, &leader):
		f.NotLeader = &shardspb.Failure_NotLeader{Hint: uint32(leader.Hint)}
	case errors.As(err, &none):
		f.NotLeader = &shardspb.Failure_NotLeader{NoReplica: true}
	case errors.As(err, &e):
		f.Op, f.Subject, f.Message = e.Op, e.Subject, ""
		if e.Err != nil {
			f.Message = e.Err.Error()
		}
	}
	return f
}

// errorOf is the inverse of failureOf.
func errorOf(f *shardspb.Failure, shard ashlar.ShardID) error {
	switch {
	case f == nil:
		return nil
	case f.Condition != nil:
		e := &meta.ConditionError{Index: int(f.Condition.Index)}
		if f.Condition.Row != nil {
			row := rowFromPB(f.Condition.Row, false)
			e.Row = &row
		}
		return e
	case f.NotLeader.GetNoReplica():
		return &NoReplica{Shard: shard}
	case f.NotLeader != nil:
		return &NotLeader{Shard: shard, Hint: ashlar.HostID(f.NotLeader.Hint)}
	}
	var cause error
	if f.Message != "" {
		cause = errors.New(f.Message)
	}
	op := f.Op
	if op == "" {
		op = "meta"
	}
	return ashlar.E(op, f.Subject, ashlar.Kind(f.Kind), cause)
}

func rowToPB(r meta.Row) *shardspb.Row {
	return &shardspb.Row{Key: r.Key, Value: r.Value, Version: r.Version}
}

// rowFromPB keeps the promise that a value is nil only in a scan of keys:
// empty bytes do not survive the encoding.
func rowFromPB(r *shardspb.Row, keysOnly bool) meta.Row {
	row := meta.Row{Key: r.GetKey(), Value: r.GetValue(), Version: r.GetVersion()}
	if row.Value == nil && !keysOnly {
		row.Value = []byte{}
	}
	return row
}

func scanToPB(shard ashlar.ShardID, req meta.ScanRequest) *shardspb.ScanRequest {
	m := &shardspb.ScanRequest{
		Shard: uint32(shard), Start: req.Start, End: req.End, Limit: int64(req.Limit), KeysOnly: req.KeysOnly,
	}
	for _, c := range req.Collapse {
		m.Collapse = append(m.Collapse, &shardspb.ScanRequest_Collapse{Delim: c.Delim, From: int64(c.From)})
	}
	return m
}

func scanFromPB(m *shardspb.ScanRequest) meta.ScanRequest {
	req := meta.ScanRequest{Start: m.Start, End: m.End, Limit: int(m.Limit), KeysOnly: m.KeysOnly}
	for _, c := range m.Collapse {
		req.Collapse = append(req.Collapse, meta.Collapse{Delim: c.Delim, From: int(c.From)})
	}
	return req
}

func atToPB(at meta.At) *shardspb.At {
	return &shardspb.At{Index: at.Index, MaxAgeNs: int64(at.MaxAge)}
}

// atFromPB keeps a bound that makes no sense from meaning none.
func atFromPB(m *shardspb.At) meta.At {
	at := meta.At{Index: m.Index, MaxAge: time.Duration(m.MaxAgeNs)}
	if at.MaxAge < 0 {
		at.MaxAge = 1
	}
	return at
}

func seenToPB(s meta.Seen) *shardspb.Seen {
	if s == (meta.Seen{}) {
		return nil
	}
	return &shardspb.Seen{Index: s.Index, AgeNs: int64(s.Age)}
}

func seenFromPB(m *shardspb.Seen) meta.Seen {
	return meta.Seen{Index: m.GetIndex(), Age: time.Duration(m.GetAgeNs())}
}

func txnToPB(shard ashlar.ShardID, txn *meta.Txn) *shardspb.CommitRequest {
	m := &shardspb.CommitRequest{Shard: uint32(shard), Id: txn.ID[:], Deletes: txn.Deletes}
	for _, c := range txn.Conds {
		cond := &shardspb.CommitRequest_Cond{Key: c.Key, Kind: uint32(c.Kind), Version: c.Version}
		for _, counters := range c.Sums {
			cond.Sums = append(cond.Sums, &shardspb.CommitRequest_Sum{Counters: counters})
		}
		m.Conds = append(m.Conds, cond)
	}
	for _, p := range txn.Puts {
		m.Puts = append(m.Puts, &shardspb.CommitRequest_Put{Key: p.Key, Value: p.Value})
	}
	for _, a := range txn.Adds {
		m.Adds = append(m.Adds, &shardspb.CommitRequest_Add{Key: a.Key, Delta: a.Delta})
	}
	return m
}

func txnFromPB(m *shardspb.CommitRequest) (*meta.Txn, error) {
	txn := &meta.Txn{Deletes: m.Deletes}
	if len(m.Id) != len(txn.ID) {
		return nil, ashlar.E("meta: commit", "", ashlar.Invalid, fmt.Errorf("request id of %d bytes", len(m.Id)))
	}
	copy(txn.ID[:], m.Id)
	for _, c := range m.Conds {
		// A kind beyond a byte must stay unknown, not wrap round to a known one.
		cond := meta.Cond{Key: c.Key, Kind: meta.CondKind(min(c.Kind, 255)), Version: c.Version}
		for _, sum := range c.Sums {
			cond.Sums = append(cond.Sums, sum.Counters)
		}
		txn.Conds = append(txn.Conds, cond)
	}
	for _, p := range m.Puts {
		txn.Puts = append(txn.Puts, meta.Put{Key: p.Key, Value: p.Value})
	}
	for _, a := range m.Adds {
		txn.Adds = append(txn.Adds, meta.Add{Key: a.Key, Delta: a.Delta})
	}
	return txn, nil
}

func batchToPB(b *RaftBatch) (*shardspb.RaftBatch, error) {
	m := &shardspb.RaftBatch{From: uint32(b.From), Messages: make([]*shardspb.RaftMessage, 0, len(b.Messages))}
	for _, msg := range b.Messages {
		pm := &shardspb.RaftMessage{Shard: uint32(msg.Shard), From: uint64(msg.From), To: uint64(msg.To)}
		if msg.Raft != nil {
			raw, err := proto.Marshal(msg.Raft)
			if err != nil {
				return nil, err
			}
			pm.Raft, pm.Durable = raw, positionToPB(msg.Durable)
		}
		if msg.Birth != nil {
			pm.Birth = &shardspb.Birth{
				Reply: msg.Birth.Reply, Born: msg.Birth.Born, Heard: msg.Birth.Heard, Behind: msg.Birth.Behind,
				Position: positionToPB(msg.Birth.Position),
			}
			for _, v := range msg.Birth.Voters {
				pm.Birth.Voters = append(pm.Birth.Voters, uint64(v))
			}
		}
		m.Messages = append(m.Messages, pm)
	}
	return m, nil
}

func batchFromPB(m *shardspb.RaftBatch) (*RaftBatch, error) {
	b := &RaftBatch{From: ashlar.HostID(m.From), Messages: make([]RaftMessage, 0, len(m.Messages))}
	for _, pm := range m.Messages {
		msg := RaftMessage{
			Shard: ashlar.ShardID(pm.Shard), From: ashlar.ReplicaID(pm.From), To: ashlar.ReplicaID(pm.To),
		}
		if pm.Birth != nil {
			msg.Birth = &Birth{
				Reply: pm.Birth.Reply, Born: pm.Birth.Born, Heard: pm.Birth.Heard, Behind: pm.Birth.Behind,
				Position: positionFromPB(pm.Birth.Position),
			}
			for _, v := range pm.Birth.Voters {
				msg.Birth.Voters = append(msg.Birth.Voters, ashlar.ReplicaID(v))
			}
		} else {
			msg.Raft, msg.Durable = new(raftpb.Message), positionFromPB(pm.Durable)
			if err := proto.Unmarshal(pm.Raft, msg.Raft); err != nil {
				return nil, ashlar.E("meta: deliver", "", ashlar.Invalid, err)
			}
		}
		b.Messages = append(b.Messages, msg)
	}
	return b, nil
}

func positionToPB(p Position) *shardspb.Position {
	if p == (Position{}) {
		return nil
	}
	return &shardspb.Position{Term: p.Term, Index: p.Index}
}

func positionFromPB(p *shardspb.Position) Position {
	return Position{Term: p.GetTerm(), Index: p.GetIndex()}
}

func chunkToPB(c *SnapshotChunk) (*shardspb.SnapshotChunk, error) {
	m := &shardspb.SnapshotChunk{
		Shard: uint32(c.Shard), From: uint64(c.From), To: uint64(c.To), Id: c.ID, Seq: c.Seq, Rows: c.Rows,
	}
	if c.Last == nil {
		return m, nil
	}
	raw, err := proto.Marshal(c.Last)
	m.Last = raw
	return m, err
}

func chunkFromPB(m *shardspb.SnapshotChunk) (*SnapshotChunk, error) {
	c := &SnapshotChunk{
		Shard: ashlar.ShardID(m.Shard), From: ashlar.ReplicaID(m.From), To: ashlar.ReplicaID(m.To),
		ID: m.Id, Seq: m.Seq, Rows: m.Rows,
	}
	if len(m.Last) == 0 {
		return c, nil
	}
	c.Last = new(raftpb.Message)
	if err := proto.Unmarshal(m.Last, c.Last); err != nil {
		return nil, ashlar.E("meta: install snapshot", "", ashlar.Invalid, err)
	}
	return c, nil
}
