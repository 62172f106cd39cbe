package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"ashlar"
)

// cacheBytesMax bounds the log entries that a replica keeps in memory beyond
// those that are not yet applied.
const cacheBytesMax = 512 * ashlar.KiB

// logStore is the raft.Storage of one replica: the part of its log that is
// durable. The core goroutine owns it; the log writer writes the same rows, and
// the core is told when they are durable.
type logStore struct {
	db   *pebble.DB
	id   ashlar.ReplicaID
	hard *raftpb.HardState
	conf *raftpb.ConfState
	// truncIndex and truncTerm name the entry before the first one.
	truncIndex, truncTerm uint64
	last                  uint64
	// bytes is about the size of the entries from truncIndex+1 to last.
	bytes uint64
	// cache holds the newest entries, without gaps, up to last.
	cache      []*raftpb.Entry
	cacheBytes int
	// applied is the index that the core knows to be applied.
	applied uint64
}

// loadLogStore reads what a born replica left on disk. Applied is the state
// machine's index: the commit index that raft starts from is at least that.
func loadLogStore(db *pebble.DB, id ashlar.ReplicaID, applied *appliedState) (*logStore, error) {
	s := &logStore{db: db, id: id, conf: applied.conf, applied: applied.index}
	hard, err := getUint64s(db, replicaKey(kindHard, id), 3)
	if err != nil {
		return nil, err
	}
	trunc, err := getUint64s(db, replicaKey(kindTrunc, id), 2)
	if err != nil {
		return nil, err
	}
	s.truncIndex, s.truncTerm = trunc[0], trunc[1]
	if s.last, err = s.lastOnDisk(); err != nil {
		return nil, err
	}
	if applied.index > s.last || applied.index < s.truncIndex {
		return nil, ashlar.E("meta: open log", fmt.Sprintf("replica=%d", id), ashlar.Corrupt,
			fmt.Errorf("applied %d lies outside the log (%d to %d)", applied.index, s.truncIndex, s.last))
	}
	s.hard = &raftpb.HardState{Term: new(hard[0]), Vote: new(hard[1]), Commit: new(max(hard[2], applied.index))}
	return s, nil
}

func getUint64s(db *pebble.DB, key []byte, n int) ([]uint64, error) {
	raw, closer, err := db.Get(key)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	if len(raw) != 8*n {
		return nil, fmt.Errorf("key %x holds %d bytes: want %d", key, len(raw), 8*n)
	}
	vs := make([]uint64, n)
	for i := range vs {
		vs[i] = binary.LittleEndian.Uint64(raw[8*i:])
	}
	return vs, nil
}

func putUint64s(b *pebble.Batch, key []byte, vs ...uint64) error {
	raw := make([]byte, 0, 8*len(vs))
	for _, v := range vs {
		raw = binary.LittleEndian.AppendUint64(raw, v)
	}
	return b.Set(key, raw, nil)
}

func (s *logStore) lastOnDisk() (uint64, error) {
	prefix := replicaKey(kindLog, s.id)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: successor(prefix)})
	if err != nil {
		return 0, err
	}
	defer it.Close()
	if !it.Last() {
		return s.truncIndex, it.Error()
	}
	return max(s.truncIndex, binary.BigEndian.Uint64(it.Key()[prefixBytes:])), nil
}

// InitialState implements raft.Storage.
func (s *logStore) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return s.hard, raftpb.EnsureConfState(s.conf), nil
}

// Entries implements raft.Storage.
func (s *logStore) Entries(lo, hi, maxBytes uint64) ([]*raftpb.Entry, error) {
	if lo <= s.truncIndex {
		return nil, raft.ErrCompacted
	}
	if hi > s.last+1 {
		return nil, raft.ErrUnavailable
	}
	if len(s.cache) > 0 && lo >= s.cache[0].GetIndex() {
		first := s.cache[0].GetIndex()
		return limitBytes(s.cache[lo-first:hi-first], maxBytes), nil
	}
	return s.entriesOnDisk(lo, hi, maxBytes)
}

// limitBytes returns the longest prefix within maxBytes, at least one entry. An
// append to it does not write into the original.
func limitBytes(ents []*raftpb.Entry, maxBytes uint64) []*raftpb.Entry {
	var sum uint64
	for i, e := range ents {
		sum += entryBytes(e)
		if sum > maxBytes && i > 0 {
			return ents[:i:i]
		}
	}
	return ents[:len(ents):len(ents)]
}

func entryBytes(e *raftpb.Entry) uint64 { return uint64(len(e.GetData())) + 24 }

func (s *logStore) entriesOnDisk(lo, hi, maxBytes uint64) ([]*raftpb.Entry, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: logKey(s.id, lo), UpperBound: logKey(s.id, hi)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var ents []*raftpb.Entry
	var sum uint64
	for ok := it.First(); ok; ok = it.Next() {
		index := binary.BigEndian.Uint64(it.Key()[prefixBytes:])
		if index != lo+uint64(len(ents)) {
			return nil, fmt.Errorf("log entry %d is missing: found %d", lo+uint64(len(ents)), index)
		}
		raw, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		e, err := decodeEntry(index, raw)
		if err != nil {
			return nil, err
		}
		sum += entryBytes(e)
		if sum > maxBytes && len(ents) > 0 {
			return ents, nil
		}
		ents = append(ents, e)
	}
	if err := it.Error(); err != nil {
		return nil, err
	}
	if len(ents) == 0 {
		return nil, raft.ErrUnavailable
	}
	return ents, nil
}

// A log entry is stored as term (8, little-endian), type (1), data.
func setEntry(b *pebble.Batch, id ashlar.ReplicaID, e *raftpb.Entry) {
	data := e.GetData()
	op := b.SetDeferred(prefixBytes+8, 9+len(data))
	appendPrefix(op.Key[:0], kindLog, id)
	binary.BigEndian.PutUint64(op.Key[prefixBytes:], e.GetIndex())
	binary.LittleEndian.PutUint64(op.Value, e.GetTerm())
	op.Value[8] = byte(e.GetType())
	copy(op.Value[9:], data)
	op.Finish()
}

// decodeEntry copies what it keeps of raw.
func decodeEntry(index uint64, raw []byte) (*raftpb.Entry, error) {
	if len(raw) < 9 {
		return nil, fmt.Errorf("log entry %d of %d bytes", index, len(raw))
	}
	e := &raftpb.Entry{
		Index: new(index), Term: new(binary.LittleEndian.Uint64(raw)), Type: raftpb.EntryType(raw[8]).Enum(),
	}
	if len(raw) > 9 {
		e.Data = append([]byte{}, raw[9:]...)
	}
	return e, nil
}

// Term implements raft.Storage.
func (s *logStore) Term(i uint64) (uint64, error) {
	switch {
	case i == s.truncIndex:
		return s.truncTerm, nil
	case i < s.truncIndex:
		return 0, raft.ErrCompacted
	case i > s.last:
		return 0, raft.ErrUnavailable
	}
	if len(s.cache) > 0 && i >= s.cache[0].GetIndex() {
		return s.cache[i-s.cache[0].GetIndex()].GetTerm(), nil
	}
	raw, closer, err := s.db.Get(logKey(s.id, i))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, raft.ErrUnavailable
	}
	if err != nil {
		return 0, err
	}
	defer closer.Close()
	e, err := decodeEntry(i, raw)
	return e.GetTerm(), err
}

// LastIndex implements raft.Storage.
func (s *logStore) LastIndex() (uint64, error) { return s.last, nil }

// FirstIndex implements raft.Storage.
func (s *logStore) FirstIndex() (uint64, error) { return s.truncIndex + 1, nil }

// Snapshot implements raft.Storage. It names a point that the state machine
// has passed; what is really sent is read when it is sent, and may be newer.
func (s *logStore) Snapshot() (*raftpb.Snapshot, error) {
	term, err := s.Term(s.applied)
	if err != nil || s.applied == 0 {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		ConfState: raftpb.EnsureConfState(s.conf), Index: new(s.applied), Term: new(term),
	}}, nil
}

// appended notes entries that are now durable.
func (s *logStore) appended(ents []*raftpb.Entry) {
	if len(ents) == 0 {
		return
	}
	first := ents[0].GetIndex()
	keep := len(s.cache)
	for keep > 0 && s.cache[keep-1].GetIndex() >= first {
		keep--
		s.cacheBytes -= int(entryBytes(s.cache[keep]))
	}
	switch {
	case keep > 0 && s.cache[keep-1].GetIndex()+1 != first:
		s.cache, s.cacheBytes = nil, 0
	case keep < len(s.cache):
		// Raft may hold slices of the old array: never write over it.
		s.cache = s.cache[:keep:keep]
	}
	s.cache = append(s.cache, ents...)
	for _, e := range ents {
		n := entryBytes(e)
		s.cacheBytes += int(n)
		s.bytes += n
	}
	s.last = ents[len(ents)-1].GetIndex()
}

// trimCache drops the oldest entries that are applied and beyond the bound.
func (s *logStore) trimCache() {
	n := 0
	for n < len(s.cache) && s.cacheBytes > cacheBytesMax && s.cache[n].GetIndex() <= s.applied {
		s.cacheBytes -= int(entryBytes(s.cache[n]))
		n++
	}
	s.cache = s.cache[n:]
}

// truncated notes that the entries up to index are gone.
func (s *logStore) truncated(index, term uint64) {
	if kept := s.last - index; s.last > s.truncIndex {
		s.bytes = s.bytes / (s.last - s.truncIndex) * kept
	}
	s.truncIndex, s.truncTerm = index, term
	for len(s.cache) > 0 && s.cache[0].GetIndex() <= index {
		s.cacheBytes -= int(entryBytes(s.cache[0]))
		s.cache = s.cache[1:]
	}
}

// restored notes that a snapshot replaced the log.
func (s *logStore) restored(index, term uint64, conf *raftpb.ConfState) {
	s.truncIndex, s.truncTerm, s.last, s.applied = index, term, index, index
	s.cache, s.cacheBytes, s.bytes, s.conf = nil, 0, 0, conf
}
