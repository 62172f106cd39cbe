package segment

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"ashlar"
	"ashlar/segment/format"
)

// The index mirrors what lies on the device. Its rows, all of indexVersion:
//
//	'm'                              which run of which disk this index is of
//	's' segment                      state, life and end of a segment
//	'o'                              how many segments were ever opened: see openings
//	'r' stripe piece                 the current record of the key
//	'r' stripe piece sequence gen    a piece that was replaced or deleted and
//	                                 still lies on the device
//
// A tombstone has a row only while an older piece of its key lies on the
// device: then it may not be forgotten.
const indexVersion = 1

const (
	keyRowBytes = 1 + 16 + 1
	oldRowBytes = keyRowBytes + 8 + 8
	rowBytes    = 53
	segRowBytes = 1 + 8 + 8 + 4 + 8
)

var (
	be = binary.BigEndian
	le = binary.LittleEndian
)

// row is one record and where it lies.
type row struct {
	format.Entry
	segment    uint32
	generation uint64
}

func (r *row) key() Key { return Key{r.Stripe, r.Piece} }

// newer reports whether r is the current record rather than other.
func (r *row) newer(other *row) bool {
	return r.Sequence > other.Sequence || r.Sequence == other.Sequence && r.generation > other.generation
}

func (r *row) same(other *row) bool {
	return r.Sequence == other.Sequence && r.generation == other.generation && r.Offset == other.Offset
}

func (k Key) row(buf []byte) []byte {
	buf = append(buf[:0], 'r')
	buf = append(buf, k.Stripe[:]...)
	return append(buf, k.Piece)
}

func (r *row) oldRow(buf []byte) []byte {
	buf = r.key().row(buf)
	buf = be.AppendUint64(buf, r.Sequence)
	return be.AppendUint64(buf, r.generation)
}

func (r *row) encode(p []byte) []byte {
	p = le.AppendUint32(p[:0], r.segment)
	p = le.AppendUint64(p, r.generation)
	p = le.AppendUint64(p, r.Sequence)
	p = le.AppendUint64(p, uint64(r.Written))
	p = le.AppendUint32(p, r.Offset)
	p = le.AppendUint32(p, r.DataBytes)
	p = le.AppendUint32(p, uint32(r.Group))
	p = le.AppendUint32(p, r.StripeBytes)
	p = le.AppendUint16(p, r.HeadBytes)
	p = append(p, byte(r.Type), r.Code.K, r.Code.M)
	return append(p, 0, 0, 0, 0) // room for one more field
}

func decodeRow(key, p []byte) (row, error) {
	if len(p) != rowBytes || len(key) < keyRowBytes {
		return row{}, fmt.Errorf("index row of %d bytes", len(p))
	}
	return row{
		segment: le.Uint32(p), generation: le.Uint64(p[4:]),
		Entry: format.Entry{
			Stripe: ashlar.StripeID(key[1:17]), Piece: key[17],
			Sequence: le.Uint64(p[12:]), Written: int64(le.Uint64(p[20:])),
			Offset: le.Uint32(p[28:]), DataBytes: le.Uint32(p[32:]),
			Group: ashlar.GroupID(le.Uint32(p[36:])), StripeBytes: le.Uint32(p[40:]),
			HeadBytes: le.Uint16(p[44:]), Type: format.Type(p[46]),
			Code: ashlar.Code{K: p[47], M: p[48]},
		},
	}, nil
}

// identity is the 'm' row: the index belongs to this disk and has seen this
// run. Next is a run that was about to begin when the row was written.
type identity struct {
	disk      ashlar.DiskID
	run, next uint64
}

func (id identity) encode() []byte {
	p := append([]byte{indexVersion}, id.disk[:]...)
	p = le.AppendUint64(p, id.run)
	return le.AppendUint64(p, id.next)
}

type index struct {
	db     *pebble.DB
	opened *openings
	// damaged is called, from any goroutine, when Pebble meets a bad checksum
	// after the log was opened. Before that the caller sees the error.
	damaged atomic.Pointer[func(error)]
}

// memTables of memTableBytes are in memory at most: one is filled while one is written.
const (
	memTables     = 2
	memTableBytes = 8 * ashlar.MiB
)

// Keys come in random order, so every compaction of the first level rewrites most of the
// next. It waits for four memtables instead of Pebble's two, which it counts double: that
// takes a third off the cost of a row, and a read looks at three files instead of two.
const compactAt = 8

// openIndex opens or makes the index. On any damage it makes a new, empty one:
// the identity is then missing and the log rebuilds it. A directory that
// another log has open is refused untouched.
func openIndex(dir string, fs vfs.FS, cacheBytes int64, log *slog.Logger) (*index, error) {
	x := &index{}
	open := func() (*pebble.DB, error) {
		opt := &pebble.Options{
			FS: fs, FormatMajorVersion: pebble.FormatNewest, Logger: pebbleLogger{log},
			// Pebble takes the memory of its memtables out of the cache, which they would fill.
			CacheSize: cacheBytes + memTables*memTableBytes, MaxOpenFiles: 200,
			MemTableSize: memTableBytes, MemTableStopWritesThreshold: memTables,
			L0CompactionThreshold: compactAt,
		}
		opt.EventListener = &pebble.EventListener{DataCorruption: x.corruption} // the default ends the process
		for i := range opt.Levels {
			opt.Levels[i].FilterPolicy = filter
			opt.Levels[i].Compression = uncompressed // ids and places are as good as random
		}
		if err := checkTables(dir, fs); err != nil {
			return nil, err
		}
		return pebble.Open(dir, opt)
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := pebble.LockDirectory(dir, fs)
	if err != nil {
		return nil, err
	}
	if err := lock.Close(); err != nil {
		return nil, err
	}
	if err := removeRemains(dir, fs); err != nil {
		return nil, err
	}
	db, err := open()
	if err != nil {
		log.Warn("segment: the index cannot be opened and is rebuilt", "dir", dir, "error", err)
		if err := fs.RemoveAll(dir); err != nil {
			return nil, err
		}
		if err := fs.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if db, err = open(); err != nil {
			return nil, err
		}
	}
	x.db = db
	if x.opened, err = openOpenings(dir, fs); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return x, nil
}

// checkTables verifies every block of the tables of a database that nobody has open.
// Pebble looks at some of them only when a compaction needs them, and a damage that
// is met then ends the writing, after every Open again.
func checkTables(dir string, fs vfs.FS) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			if err := checkTable(filepath.Join(dir, name), fs); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func checkTable(path string, fs vfs.FS) error {
	file, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(file)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, sstable.ReaderOptions{
		Filters: map[string]sstable.FilterPolicy{filter.Name(): filter},
	})
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
}

var filter = bloom.FilterPolicy(10)

func uncompressed() *sstable.CompressionProfile { return sstable.NoCompression }

func (x *index) close() error { return errors.Join(x.db.Close(), x.opened.file.Close()) }

func (x *index) corruption(info pebble.DataCorruptionInfo) {
	if tell := x.damaged.Load(); tell != nil {
		(*tell)(fmt.Errorf("index file %s: %w", info.Path, info.Details))
	}
}

func (x *index) identity() (identity, bool) {
	v, closer, err := x.db.Get([]byte{'m'})
	if err != nil {
		return identity{}, false
	}
	defer closer.Close()
	if len(v) != 33 || v[0] != indexVersion {
		return identity{}, false
	}
	return identity{ashlar.DiskID(v[1:17]), le.Uint64(v[17:]), le.Uint64(v[25:])}, true
}

// wipe removes every row.
func (x *index) wipe() error {
	if err := x.db.DeleteRange([]byte{0}, []byte{0xff}, pebble.Sync); err != nil {
		return err
	}
	if err := x.restart(); err != nil {
		return err
	}
	return x.db.Flush()
}

// get returns the current row of a key from r, the database or a batch over it.
func get(r pebble.Reader, k Key) (row, bool, error) {
	var buf [keyRowBytes]byte
	key := k.row(buf[:])
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return row{}, false, nil
	}
	if err != nil {
		return row{}, false, err
	}
	defer closer.Close()
	found, err := decodeRow(key, v)
	return found, err == nil, err
}

func set(b *pebble.Batch, r *row) error {
	var key [keyRowBytes]byte
	var value [rowBytes]byte
	return b.Set(r.key().row(key[:]), r.encode(value[:]), nil)
}

func setOld(b *pebble.Batch, r *row) error {
	if r.Type != format.Piece {
		return nil // an older tombstone hides nothing that the newer record does not hide
	}
	var key [oldRowBytes]byte
	var value [rowBytes]byte
	return b.Set(r.oldRow(key[:]), r.encode(value[:]), nil)
}

// hasOld reports whether a replaced piece of the key lies outside generation.
func hasOld(r pebble.Reader, k Key, generation uint64) (bool, error) {
	var low, high [oldRowBytes]byte
	start := append(k.row(low[:]), 0)
	end := be.AppendUint64(be.AppendUint64(k.row(high[:]), ^uint64(0)), ^uint64(0))
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: start[:keyRowBytes+1], UpperBound: end})
	if err != nil {
		return false, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if key := it.Key(); len(key) == oldRowBytes && be.Uint64(key[keyRowBytes+8:]) != generation {
			return true, nil
		}
	}
	return false, it.Error()
}

// segRow is what the index remembers of a segment.
type segRow struct {
	state            segState
	generation, salt uint64
	end              uint32
	top              uint64
}

func setSeg(b *pebble.Batch, i int, s segRow) error {
	p := append(make([]byte, 0, segRowBytes), byte(s.state))
	p = le.AppendUint64(p, s.generation)
	p = le.AppendUint64(p, s.salt)
	p = le.AppendUint32(p, s.end)
	p = le.AppendUint64(p, s.top)
	return b.Set(be.AppendUint32([]byte{'s'}, uint32(i)), p, nil)
}

// segments calls fn for every remembered segment.
func (x *index) segments(fn func(i int, s segRow)) error {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{'s'}, UpperBound: []byte{'s' + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		k, p := it.Key(), it.Value()
		if len(k) != 5 || len(p) != segRowBytes {
			return fmt.Errorf("segment row of %d bytes", len(p))
		}
		fn(int(be.Uint32(k[1:])), segRow{segState(p[0]), le.Uint64(p[1:]), le.Uint64(p[9:]), le.Uint32(p[17:]), le.Uint64(p[21:])})
	}
	return it.Error()
}

// rows calls fn for every record row in key order until it returns false.
func (x *index) rows(fn func(r *row, old bool) (bool, error)) error {
	return x.rowsFrom(ashlar.StripeID{}, fn)
}

// rowsFrom is rows from a stripe on.
func (x *index) rowsFrom(from ashlar.StripeID, fn func(r *row, old bool) (bool, error)) error {
	var low [keyRowBytes]byte
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: Key{Stripe: from}.row(low[:]), UpperBound: []byte{'r' + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		r, err := decodeRow(it.Key(), it.Value())
		if err != nil {
			return err
		}
		more, err := fn(&r, len(it.Key()) > keyRowBytes)
		if err != nil || !more {
			return err
		}
	}
	return it.Error()
}

// pebbleLogger hands Pebble's words to slog. Pebble calls Fatalf when its own
// files cannot be written and must not go on after it.
type pebbleLogger struct{ log *slog.Logger }

func (p pebbleLogger) Infof(format string, args ...any) {
	p.log.Debug("index: " + fmt.Sprintf(format, args...))
}

func (p pebbleLogger) Errorf(format string, args ...any) {
	p.log.Error("index: " + fmt.Sprintf(format, args...))
}

func (p pebbleLogger) Fatalf(format string, args ...any) {
	panic("segment: index: " + fmt.Sprintf(format, args...))
}
