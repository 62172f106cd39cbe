package replica

import (
	"encoding/binary"
	"errors"

	"ashlar"
	"ashlar/daemon/meta"
)

// A command is what a raft entry holds: a transaction and the leader's clock.
//
//	offset  size  meaning
//	0       1     version, 1
//	1       8     milliseconds since 1970 when it was proposed, little-endian
//	9       16    request id
//	25            number of conditions, then each: kind (1), version (uvarint), key
//	              number of puts, then each: key, value
//	              number of deletes, then each: key
//	              number of adds, then each: key, delta (varint)
//
// Numbers are uvarints; keys and values are a uvarint length and the bytes.
const commandVersion = 1

const commandHeaderBytes = 1 + 8 + 16

func encodeCommand(stampMS int64, txn *meta.Txn) []byte {
	size := commandHeaderBytes + 4*binary.MaxVarintLen32
	for _, c := range txn.Conds {
		size += len(c.Key) + 16
		for _, counters := range c.Sums {
			for _, key := range counters {
				size += len(key) + 5
			}
		}
	}
	for _, p := range txn.Puts {
		size += len(p.Key) + len(p.Value) + 10
	}
	for _, d := range txn.Deletes {
		size += len(d) + 5
	}
	for _, a := range txn.Adds {
		size += len(a.Key) + 15
	}
	b := make([]byte, 0, size)
	b = append(b, commandVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(stampMS))
	b = append(b, txn.ID[:]...)
	b = binary.AppendUvarint(b, uint64(len(txn.Conds)))
	for _, c := range txn.Conds {
		b = append(b, byte(c.Kind))
		b = binary.AppendUvarint(b, c.Version)
		b = appendBytes(b, c.Key)
		if c.Kind == meta.CondWithin {
			b = appendSums(b, c.Sums)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(txn.Puts)))
	for _, p := range txn.Puts {
		b = appendBytes(appendBytes(b, p.Key), p.Value)
	}
	b = binary.AppendUvarint(b, uint64(len(txn.Deletes)))
	for _, d := range txn.Deletes {
		b = appendBytes(b, d)
	}
	b = binary.AppendUvarint(b, uint64(len(txn.Adds)))
	for _, a := range txn.Adds {
		b = appendBytes(b, a.Key)
		b = binary.AppendVarint(b, a.Delta)
	}
	return b
}

func appendSums(b []byte, sums [][][]byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(sums)))
	for _, counters := range sums {
		b = binary.AppendUvarint(b, uint64(len(counters)))
		for _, key := range counters {
			b = appendBytes(b, key)
		}
	}
	return b
}

func (d *decoder) sums() [][][]byte {
	sums := make([][][]byte, d.count())
	for i := range sums {
		sums[i] = make([][]byte, d.count())
		for j := range sums[i] {
			sums[i][j] = d.bytes()
		}
	}
	return sums
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

var errBadCommand = errors.New("a log entry that is no command")

// decodeCommand is the inverse of encodeCommand. The transaction's slices
// point into b; txn's own lists are reused.
func decodeCommand(b []byte, txn *meta.Txn) (stampMS int64, err error) {
	if len(b) < commandHeaderBytes || b[0] != commandVersion {
		return 0, errBadCommand
	}
	stampMS = int64(binary.LittleEndian.Uint64(b[1:]))
	txn.ID = ashlar.RequestID(b[9:25])
	d := decoder{rest: b[commandHeaderBytes:]}
	txn.Conds, txn.Puts, txn.Deletes, txn.Adds = txn.Conds[:0], txn.Puts[:0], txn.Deletes[:0], txn.Adds[:0]
	for range d.count() {
		c := meta.Cond{Kind: meta.CondKind(d.byte()), Version: d.uvarint()}
		c.Key = d.bytes()
		if c.Kind == meta.CondWithin {
			c.Sums = d.sums()
		}
		txn.Conds = append(txn.Conds, c)
	}
	for range d.count() {
		p := meta.Put{Key: d.bytes()}
		p.Value = d.bytes()
		txn.Puts = append(txn.Puts, p)
	}
	for range d.count() {
		txn.Deletes = append(txn.Deletes, d.bytes())
	}
	for range d.count() {
		a := meta.Add{Key: d.bytes()}
		a.Delta = d.varint()
		txn.Adds = append(txn.Adds, a)
	}
	if d.bad || len(d.rest) != 0 {
		return 0, errBadCommand
	}
	return stampMS, nil
}

// decoder takes values off the front of rest; bad stays set once something did
// not fit.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// count reads the length of a list; each item takes at least one byte.
func (d *decoder) count() int {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return 0
	}
	return int(n)
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.bad = true
		return 0
	}
	v := d.rest[0]
	d.rest = d.rest[1:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return nil
	}
	v := d.rest[:n:n]
	d.rest = d.rest[n:]
	return v
}
