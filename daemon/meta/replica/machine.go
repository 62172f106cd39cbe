package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"ashlar"
	"ashlar/daemon/meta"
)

// How long the answer to a transaction is remembered: for one whole dedupe
// generation, which lasts until both bounds are passed.
const (
	rememberMS   = 10 * 60 * 1000
	rememberTxns = 10_000
	// stampStepMaxMS is the most that one transaction moves the machine's clock:
	// a leader whose clock is wrong must not make the others forget.
	stampStepMaxMS = 60_000
)

// appliedState is what a state machine knows beside its rows. It is stored
// under kindApplied in the same batch as the effects that it describes.
type appliedState struct {
	index, term uint64
	// generation is the prefix under which the rows lie; installing a snapshot
	// moves on to another one.
	generation uint32
	// clockMS is the sum of the bounded steps between lastStampMS.
	clockMS, lastStampMS int64
	// Answers are remembered under dedupe and, if it exists, dedupe-1.
	dedupe        uint64
	dedupeStartMS int64
	dedupeTxns    uint64
	// confMoved is the order of the map's list that conf follows.
	confMoved ashlar.Epoch
	conf      *raftpb.ConfState
}

// The applied state has its own version: 1 is without confMoved.
const (
	stateVersion      = 2
	stateVersionFirst = 1
)

func (s *appliedState) encode() ([]byte, error) {
	b := make([]byte, 0, 96)
	b = append(b, stateVersion)
	for _, v := range []uint64{
		s.index, s.term, uint64(s.generation), uint64(s.clockMS), uint64(s.lastStampMS),
		s.dedupe, uint64(s.dedupeStartMS), s.dedupeTxns, uint64(s.confMoved),
	} {
		b = binary.AppendUvarint(b, v)
	}
	conf, err := proto.Marshal(s.conf)
	return append(b, conf...), err
}

func decodeAppliedState(b []byte) (s appliedState, err error) {
	d := decoder{rest: b}
	version := d.byte()
	if version != stateVersion && version != stateVersionFirst {
		return s, errors.New("applied state of an unknown version")
	}
	s.index, s.term, s.generation = d.uvarint(), d.uvarint(), uint32(d.uvarint())
	s.clockMS, s.lastStampMS = int64(d.uvarint()), int64(d.uvarint())
	s.dedupe, s.dedupeStartMS, s.dedupeTxns = d.uvarint(), int64(d.uvarint()), d.uvarint()
	if version >= stateVersion {
		s.confMoved = ashlar.Epoch(d.uvarint())
	}
	if d.bad {
		return s, errors.New("applied state cut short")
	}
	s.conf = new(raftpb.ConfState)
	return s, proto.Unmarshal(d.rest, s.conf)
}

// machine is the deterministic state machine of one replica: rows, counters
// and remembered answers in Pebble.
//
// Its state is written by the applier, and by the log writer when a snapshot
// is installed; Host.applyMu keeps the two apart. Readers hold mu, which the
// change of the generation holds too, so that they never look at rows that are
// being thrown away.
type machine struct {
	id    ashlar.ReplicaID
	state appliedState
	// applied is state.index, for readers.
	applied atomic.Uint64
	// applying is at least the index of everything that a reader may see: it runs
	// ahead of applied while a batch is being committed.
	applying atomic.Uint64

	// seen holds the ids remembered under dedupe and dedupe-1; nil if they are
	// not all known, and only the disk can tell.
	seen [2]*idFilter

	// hot is what the applier need not look up again.
	hot hotRows

	mu   sync.RWMutex // guards state.generation and gone against readers
	gone bool         // the rows are removed
}

// answer codes, the first byte of a remembered answer.
const (
	answerApplied    = 1
	answerCondition  = 2 // followed by the index of the condition, uvarint
	answerNoCounter  = 3 // an add met a row that is no counter
	answerBadCommand = 4 // never stored
)

// outcome is the answer to a transaction.
type outcome struct {
	code byte
	cond int
	row  *meta.Row // for answerCondition, only if somebody waits for it
}

func (o outcome) err() error {
	const op = "meta: commit"
	switch o.code {
	case answerApplied:
		return nil
	case answerCondition:
		return &meta.ConditionError{Index: o.cond, Row: o.row}
	case answerNoCounter:
		return ashlar.E(op, "", ashlar.Invalid, errors.New("an add to a row that is no counter"))
	default:
		return ashlar.E(op, "", ashlar.Internal, errBadCommand)
	}
}

// cell is a row as the running batch leaves it. Value points into a log entry
// or is owned; it is not changed.
type cell struct {
	version uint64
	value   []byte
	deleted bool
	// owed says that the batch does not hold the row yet: a counter is written
	// once a batch, however many adds it saw.
	owed bool
}

// applyBatch gathers the effects of many entries of many machines. Reads see
// the effects that are gathered already.
type applyBatch struct {
	db    *pebble.DB
	batch *pebble.Batch
	// cells holds what the batch wrote, by full Pebble key.
	cells map[string]cell
	owed  []string // keys of cells that may be owed
	txn   meta.Txn // scratch
	key   []byte   // scratch
}

func newApplyBatch(db *pebble.DB) *applyBatch {
	return &applyBatch{db: db, batch: db.NewBatch(), cells: map[string]cell{}}
}

// applyEntry applies one entry. Entries at or below the applied index were
// applied before and are skipped with ok false. Rows for the caller of a
// refused transaction are looked up only if wanted says that somebody waits.
func (m *machine) applyEntry(b *applyBatch, e *raftpb.Entry, wanted func(ashlar.RequestID) bool) (id ashlar.RequestID, out outcome, ok bool, err error) {
	index := e.GetIndex()
	if index <= m.state.index {
		return id, out, false, nil
	}
	if index != m.state.index+1 {
		return id, out, false, fmt.Errorf("entry %d applied after %d", index, m.state.index)
	}
	m.state.index, m.state.term = index, e.GetTerm()
	if e.GetType() != raftpb.EntryNormal || len(e.GetData()) == 0 {
		return id, out, false, nil
	}
	stamp, err := decodeCommand(e.GetData(), &b.txn)
	if err != nil {
		// Deterministic: every replica skips it alike.
		return id, outcome{code: answerBadCommand}, false, nil
	}
	id = b.txn.ID
	m.advanceClock(b, stamp)
	out, err = m.applyTxn(b, index, wanted(id))
	return id, out, true, err
}

func (m *machine) advanceClock(b *applyBatch, stampMS int64) {
	s := &m.state
	if s.lastStampMS != 0 {
		s.clockMS += min(max(stampMS-s.lastStampMS, 0), stampStepMaxMS)
	}
	s.lastStampMS = stampMS
	s.dedupeTxns++
	if s.clockMS-s.dedupeStartMS < rememberMS || s.dedupeTxns <= rememberTxns {
		return
	}
	s.dedupe, s.dedupeStartMS, s.dedupeTxns = s.dedupe+1, s.clockMS, 1
	m.seen[0], m.seen[1] = new(idFilter), m.seen[0]
	if s.dedupe >= 2 {
		prefix := append(machinePrefix(m.id, s.generation), partAnswers)
		from := binary.BigEndian.AppendUint64(bytes.Clone(prefix), s.dedupe-2)
		to := binary.BigEndian.AppendUint64(bytes.Clone(prefix), s.dedupe-1)
		b.batch.DeleteRange(from, to, nil)
	}
}

func (m *machine) applyTxn(b *applyBatch, index uint64, wanted bool) (outcome, error) {
	out, known, err := m.remembered(b)
	if err != nil {
		return out, err
	}
	if !known {
		if out, err = m.judge(b); err != nil {
			return out, err
		}
		if out.code == answerApplied {
			if out, err = m.write(b, index); err != nil {
				return out, err
			}
		}
		m.remember(b, out)
	}
	if out.code == answerCondition && wanted && out.cond < len(b.txn.Conds) {
		key := b.txn.Conds[out.cond].Key
		c, found, err := m.get(b, key)
		if err != nil {
			return out, err
		}
		if found {
			out.row = &meta.Row{Key: bytes.Clone(key), Value: append([]byte{}, c.value...), Version: c.version}
		}
	}
	return out, nil
}

func (m *machine) rowKey(b *applyBatch, key []byte) []byte {
	k := appendPrefix(b.key[:0], kindMachine, m.id)
	k = append(binary.BigEndian.AppendUint32(k, m.state.generation), partRows)
	b.key = append(k, key...)
	return b.key
}

// get looks a row up, first among what the batch wrote.
func (m *machine) get(b *applyBatch, key []byte) (cell, bool, error) {
	full := m.rowKey(b, key)
	if c, ok := b.cells[string(full)]; ok {
		return c, !c.deleted, nil
	}
	if c, ok := m.hot.get(key); ok {
		return c, !c.deleted, nil
	}
	raw, closer, err := b.db.Get(full)
	if errors.Is(err, pebble.ErrNotFound) {
		return cell{deleted: true}, false, nil
	}
	if err != nil {
		return cell{}, false, err
	}
	defer closer.Close()
	if len(raw) < 8 {
		return cell{}, false, errCorrupt("row", m.id)
	}
	return cell{version: binary.LittleEndian.Uint64(raw), value: bytes.Clone(raw[8:])}, true, nil
}

func (m *machine) judge(b *applyBatch) (outcome, error) {
	for i, c := range b.txn.Conds {
		row, found, err := m.get(b, c.Key)
		if err != nil {
			return outcome{}, err
		}
		if _, known := m.hot.get(c.Key); !known && isGuard(&b.txn, c.Key) {
			m.hot.keep(c.Key, cell{version: row.version, value: bytes.Clone(row.value), deleted: !found})
		}
		holds := false
		switch c.Kind {
		case meta.CondExists:
			holds = found
		case meta.CondAbsent:
			holds = !found
		case meta.CondVersion:
			holds = found && row.version == c.Version
		case meta.CondZero:
			holds = !found || len(row.value) == 8 && binary.LittleEndian.Uint64(row.value) == 0
		case meta.CondWithin:
			if holds, err = m.within(b, row.value, c.Sums); err != nil {
				return outcome{}, err
			}
		}
		if !holds {
			return outcome{code: answerCondition, cond: i}, nil
		}
	}
	return outcome{code: answerApplied}, nil
}

// within reports whether the sums keep the limits.
func (m *machine) within(b *applyBatch, limits []byte, sums [][][]byte) (bool, error) {
	for i, counters := range sums {
		if len(limits) < 8*(i+1) {
			break
		}
		var sum int64
		for _, key := range counters {
			c, found, err := m.get(b, key)
			if err != nil {
				return false, err
			}
			if found && len(c.value) == 8 {
				sum += int64(binary.LittleEndian.Uint64(c.value))
			}
			for j := range b.txn.Adds {
				if bytes.Equal(b.txn.Adds[j].Key, key) {
					sum += b.txn.Adds[j].Delta
				}
			}
		}
		if sum > int64(binary.LittleEndian.Uint64(limits[8*i:])) {
			return false, nil
		}
	}
	return true, nil
}

// write applies deletes, puts and adds. The adds are summed before anything is
// written, for one of them may refuse the whole.
func (m *machine) write(b *applyBatch, index uint64) (outcome, error) {
	sums, out, err := m.sum(b)
	if err != nil || out.code != answerApplied {
		return out, err
	}
	for _, key := range b.txn.Deletes {
		full := m.rowKey(b, key)
		b.batch.Delete(full, nil)
		b.cells[string(full)] = cell{deleted: true}
		m.hot.wrote(key, cell{deleted: true})
	}
	for _, p := range b.txn.Puts {
		m.set(b, index, p.Key, p.Value)
	}
	for i, a := range b.txn.Adds {
		m.owe(b, index, a.Key, sums[i])
	}
	return out, nil
}

func (m *machine) set(b *applyBatch, index uint64, key, value []byte) {
	full := m.rowKey(b, key)
	c := cell{version: index, value: value}
	b.set(full, c)
	b.cells[string(full)] = c
	m.hot.wrote(key, c)
}

func (b *applyBatch) set(full []byte, c cell) {
	op := b.batch.SetDeferred(len(full), 8+len(c.value))
	copy(op.Key, full)
	binary.LittleEndian.PutUint64(op.Value, c.version)
	copy(op.Value[8:], c.value)
	op.Finish()
}

// owe notes the new value of a counter; settle writes it.
func (m *machine) owe(b *applyBatch, index uint64, key, value []byte) {
	full := string(m.rowKey(b, key))
	if old, ok := b.cells[full]; !ok || !old.owed {
		b.owed = append(b.owed, full)
	}
	c := cell{version: index, value: value}
	m.hot.keep(key, c)
	c.owed = true
	b.cells[full] = c
}

// commit writes the counters that are still owed and commits the batch, without
// a sync.
func (b *applyBatch) commit() error {
	for _, full := range b.owed {
		if c := b.cells[full]; c.owed {
			b.set([]byte(full), c)
			c.owed = false
			b.cells[full] = c
		}
	}
	b.owed = b.owed[:0]
	return b.batch.Commit(pebble.NoSync)
}

// sum returns the value that each add leaves behind.
func (m *machine) sum(b *applyBatch) ([][]byte, outcome, error) {
	if len(b.txn.Adds) == 0 {
		return nil, outcome{code: answerApplied}, nil
	}
	sums := make([][]byte, len(b.txn.Adds))
	for i, a := range b.txn.Adds {
		value, found, err := m.beforeAdd(b, sums, i)
		if err != nil {
			return nil, outcome{}, err
		}
		n := a.Delta
		if found {
			if len(value) != 8 {
				return nil, outcome{code: answerNoCounter}, nil
			}
			n += int64(binary.LittleEndian.Uint64(value))
		}
		sums[i] = binary.LittleEndian.AppendUint64(nil, uint64(n))
	}
	return sums, outcome{code: answerApplied}, nil
}

// beforeAdd returns what add number i finds: an earlier add of the same
// transaction, its last put, nothing after its delete, or the row as it was.
func (m *machine) beforeAdd(b *applyBatch, sums [][]byte, i int) (value []byte, found bool, err error) {
	key := b.txn.Adds[i].Key
	for j := i - 1; j >= 0; j-- {
		if bytes.Equal(b.txn.Adds[j].Key, key) {
			return sums[j], true, nil
		}
	}
	for j := len(b.txn.Puts) - 1; j >= 0; j-- {
		if bytes.Equal(b.txn.Puts[j].Key, key) {
			return b.txn.Puts[j].Value, true, nil
		}
	}
	for _, d := range b.txn.Deletes {
		if bytes.Equal(d, key) {
			return nil, false, nil
		}
	}
	c, found, err := m.get(b, key)
	return c.value, found, err
}

func (m *machine) answerKey(b *applyBatch, dedupe uint64) []byte {
	k := appendPrefix(b.key[:0], kindMachine, m.id)
	k = append(binary.BigEndian.AppendUint32(k, m.state.generation), partAnswers)
	b.key = append(binary.BigEndian.AppendUint64(k, dedupe), b.txn.ID[:]...)
	return b.key
}

// remembered returns the answer that was given under the transaction's id.
func (m *machine) remembered(b *applyBatch) (out outcome, known bool, err error) {
	for back := range uint64(2) {
		if back > m.state.dedupe {
			break
		}
		if seen := m.seen[back]; seen != nil && !seen.maybe(b.txn.ID) {
			continue
		}
		key := m.answerKey(b, m.state.dedupe-back)
		if c, ok := b.cells[string(key)]; ok {
			out, err = decodeAnswer(c.value)
			return out, true, err
		}
		raw, closer, err := b.db.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return out, false, err
		}
		out, err = decodeAnswer(raw)
		closer.Close()
		return out, true, err
	}
	return out, false, nil
}

func (m *machine) remember(b *applyBatch, out outcome) {
	value := []byte{out.code}
	if out.code == answerCondition {
		value = binary.AppendUvarint(value, uint64(out.cond))
	}
	key := m.answerKey(b, m.state.dedupe)
	b.batch.Set(key, value, nil)
	b.cells[string(key)] = cell{value: value}
	if m.seen[0] != nil {
		m.seen[0].add(b.txn.ID)
	}
}

// loadSeen forgets what was known of an earlier state, and fills the filters
// from disk, if there is not too much to read.
func (m *machine) loadSeen(db *pebble.DB) error {
	m.seen, m.hot = [2]*idFilter{}, nil
	for back := range uint64(2) {
		if back > m.state.dedupe {
			break
		}
		prefix := append(machinePrefix(m.id, m.state.generation), partAnswers)
		prefix = binary.BigEndian.AppendUint64(prefix, m.state.dedupe-back)
		it, err := db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: successor(prefix)})
		if err != nil {
			return err
		}
		seen, n := new(idFilter), 0
		for ok := it.First(); ok && n <= filterLoadMax; ok = it.Next() {
			if len(it.Key()) != answerBytes {
				it.Close()
				return errCorrupt("answer", m.id)
			}
			seen.add(ashlar.RequestID(it.Key()[answerBytes-16:]))
			n++
		}
		if err := it.Close(); err != nil {
			return err
		}
		if n <= filterLoadMax {
			m.seen[back] = seen
		}
	}
	return nil
}

func decodeAnswer(b []byte) (outcome, error) {
	d := decoder{rest: b}
	out := outcome{code: d.byte()}
	if out.code == answerCondition {
		out.cond = int(d.uvarint())
	}
	if d.bad || out.code < answerApplied || out.code > answerNoCounter {
		return out, errors.New("a remembered answer that does not decode")
	}
	return out, nil
}

// saveState adds the applied state to the batch.
func (m *machine) saveState(batch *pebble.Batch) error {
	value, err := m.state.encode()
	if err != nil {
		return err
	}
	return batch.Set(replicaKey(kindApplied, m.id), value, nil)
}
