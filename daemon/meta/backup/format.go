// Package backup writes the metadata of a whole cluster into one stream, checks
// such a stream, and brings it back into an empty cluster.
//
// It knows shards, rows and the map; it knows nothing of S3, and holds no bytes
// of objects: these stay on the disks, and a backup is worth as much as the
// pieces that its rows name.
//
// # One moment
//
// All shards are saved as of one moment, so that what holds between them (a
// bucket's record on one shard, its markers on others) holds in the backup:
//
//  1. freeze: every shard's leader takes no transactions for a few seconds;
//     callers are told Busy and try again;
//  2. pin: when all are frozen, each leader proves that it still leads, in the
//     same term and within its freeze, and keeps the state of that moment;
//  3. thaw: transactions go on. Steps 1 to 3 take about two round trips;
//  4. export: the kept states are read out, at leisure.
//
// If a step fails for a shard all are thawed, and it begins anew. Why the states
// belong together: let a transaction Y be in the backup, and X be answered before
// Y began. Y entered its shard before that was frozen, so X was answered before
// the last shard was frozen, hence before any state was kept: X is in the backup.
// So is everything that was answered before the backup began. What was on its way
// at that moment may be in or not, as with a power cut.
//
// # Until when it can be restored in full
//
// Pieces of what is deleted or overwritten after the backup are freed when the
// trash grace is over (trash-grace in daemon.toml). A backup is whole for that
// long. Later it can still be restored, and every row is right, but objects that
// were deleted or overwritten since may have lost their pieces.
//
// # The stream
//
// A frame is: type (1), length of the payload (4), payload, CRC-32C of all that
// (4). Numbers are little-endian, those in payloads uvarints where not said
// otherwise; bytes are a uvarint length and the bytes.
//
//	type  payload
//	'H'   magic "ashlar backup" 0x0a, format version (1, now 1), backup id (16),
//	      nanoseconds since 1970 (8), number of shards (4)
//	'M'   the map, as placement/wire.Map
//	'S'   shard (4), applied index (8): its rows follow
//	'R'   rows: version, key, value (bytes), one after the other, in key order;
//	      at most about 4 MiB
//	'E'   shard (4), number of its rows (8)
//	'Z'   number of all rows (8), SHA-256 of all bytes of the stream before this frame (32)
//
// Order: H M (S R* E)* Z, shards ascending, each once. A stream without its Z was
// cut off. A version, type or order that is not known is refused.
package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/placement/topology"
	"ashlar/placement/wire"
)

const (
	magic         = "ashlar backup\n"
	formatVersion = 1
	frameBytesMax = 64 * ashlar.MiB

	frameHead  = 'H'
	frameMap   = 'M'
	frameShard = 'S'
	frameRows  = 'R'
	frameEnd   = 'E'
	frameLast  = 'Z'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Info is what a backup says of itself.
type Info struct {
	ID      ashlar.ID
	Created time.Time
	Shards  int
	Rows    uint64
	// Map is the cluster as it was.
	Map *topology.Map
}

// writer writes frames.
type writer struct {
	w   *bufio.Writer
	sum hash.Hash
}

func newWriter(w io.Writer) *writer { return &writer{bufio.NewWriterSize(w, 1<<20), sha256.New()} }

func (w *writer) frame(kind byte, payload []byte) error {
	head := binary.LittleEndian.AppendUint32([]byte{kind}, uint32(len(payload)))
	crc := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload)
	for _, b := range [][]byte{head, payload, binary.LittleEndian.AppendUint32(nil, crc)} {
		w.sum.Write(b)
		if _, err := w.w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) begin(info Info) error {
	b := append([]byte(magic), formatVersion)
	b = append(b, info.ID[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(info.Created.UnixNano()))
	b = binary.LittleEndian.AppendUint32(b, uint32(info.Shards))
	if err := w.frame(frameHead, b); err != nil {
		return err
	}
	m, err := proto.MarshalOptions{Deterministic: true}.Marshal(wire.FromMap(info.Map))
	if err != nil {
		return err
	}
	return w.frame(frameMap, m)
}

func (w *writer) rows(rows []meta.Row) error {
	var b []byte
	for _, r := range rows {
		b = binary.AppendUvarint(b, r.Version)
		b = append(binary.AppendUvarint(b, uint64(len(r.Key))), r.Key...)
		b = append(binary.AppendUvarint(b, uint64(len(r.Value))), r.Value...)
	}
	return w.frame(frameRows, b)
}

func (w *writer) end(rows uint64) error {
	b := w.sum.Sum(binary.LittleEndian.AppendUint64(nil, rows))
	if err := w.frame(frameLast, b); err != nil {
		return err
	}
	return w.w.Flush()
}

// Visitor is told what a stream holds; a nil function is not told.
type Visitor struct {
	Rows func(ashlar.ShardID, []meta.Row) error // it may keep the rows
	End  func(shard ashlar.ShardID, rows uint64) error
}

// Read reads a whole stream, checks every sum, and tells the visitor what is in
// it: note that the last sum is known only at the end, so Read it once without a
// visitor before acting on it. Errors have kind Corrupt, or Invalid for what is no
// backup or of a version that is not known, or are those of the visitor.
func Read(r io.Reader, v Visitor) (Info, error) {
	d := &reader{r: bufio.NewReaderSize(r, 1<<20), sum: sha256.New()}
	if err := d.run(v); err != nil {
		return d.info, err
	}
	return d.info, nil
}

type reader struct {
	r    *bufio.Reader
	sum  hash.Hash
	info Info
}

func corrupt(format string, args ...any) error {
	return ashlar.E("backup: read", "", ashlar.Corrupt, fmt.Errorf(format, args...))
}

// next reads a frame. The sum is that of everything before it.
func (d *reader) next() (kind byte, payload, sum []byte, err error) {
	sum = d.sum.Sum(nil)
	head := make([]byte, 5)
	if _, err := io.ReadFull(d.r, head); err != nil {
		return 0, nil, nil, corrupt("the stream was cut off: %w", err)
	}
	n := binary.LittleEndian.Uint32(head[1:])
	if n > frameBytesMax {
		return 0, nil, nil, corrupt("a frame of %d bytes", n)
	}
	var body bytes.Buffer // grows with what is there, whatever the length claims
	if _, err := io.CopyN(&body, d.r, int64(n)+4); err != nil {
		return 0, nil, nil, corrupt("the stream was cut off: %w", err)
	}
	payload = body.Bytes()[:n]
	if crc := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload); crc != binary.LittleEndian.Uint32(body.Bytes()[n:]) {
		return 0, nil, nil, corrupt("a frame of type %q does not match its sum", head[0])
	}
	d.sum.Write(head)
	d.sum.Write(body.Bytes())
	return head[0], payload, sum, nil
}

func (d *reader) want(kind byte, size int) ([]byte, error) {
	got, b, _, err := d.next()
	if err != nil {
		return nil, err
	}
	if got != kind || size >= 0 && len(b) != size {
		return nil, corrupt("a frame of type %q and %d bytes where %q should be", got, len(b), kind)
	}
	return b, nil
}

func (d *reader) run(v Visitor) error {
	if err := d.head(); err != nil {
		return err
	}
	for shard := range d.info.Shards {
		if err := d.shard(ashlar.ShardID(shard), v); err != nil {
			return err
		}
	}
	kind, b, sum, err := d.next()
	switch {
	case err != nil:
		return err
	case kind != frameLast || len(b) != 8+sha256.Size || binary.LittleEndian.Uint64(b) != d.info.Rows || !bytes.Equal(b[8:], sum):
		return corrupt("the end does not match what came before")
	}
	if _, err := d.r.ReadByte(); !errors.Is(err, io.EOF) {
		return corrupt("something follows the end")
	}
	return nil
}

func (d *reader) head() error {
	invalid := func(format string, args ...any) error {
		return ashlar.E("backup: read", "", ashlar.Invalid, fmt.Errorf(format, args...))
	}
	if b, err := d.r.Peek(5 + len(magic)); err != nil || string(b[5:]) != magic {
		return invalid("this is no backup of ashlar")
	}
	b, err := d.want(frameHead, len(magic)+1+16+8+4)
	if err != nil {
		return err
	}
	b = b[len(magic):]
	if b[0] != formatVersion {
		return invalid("a backup of format version %d; this ashlar knows %d", b[0], formatVersion)
	}
	copy(d.info.ID[:], b[1:])
	d.info.Created = time.Unix(0, int64(binary.LittleEndian.Uint64(b[17:]))).UTC()
	d.info.Shards = int(binary.LittleEndian.Uint32(b[25:]))
	if b, err = d.want(frameMap, -1); err != nil {
		return err
	}
	w := &wire.Map{}
	if err := proto.Unmarshal(b, w); err != nil {
		return corrupt("the map: %w", err)
	}
	if d.info.Map, err = wire.ToMap(w); err != nil {
		return err
	}
	if !d.info.Map.Laid() || len(d.info.Map.Shards) != d.info.Shards {
		return corrupt("a map with %d shards for %d", len(d.info.Map.Shards), d.info.Shards)
	}
	return nil
}

func (d *reader) shard(shard ashlar.ShardID, v Visitor) error {
	b, err := d.want(frameShard, 12)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b) != uint32(shard) {
		return corrupt("shard %d where %d should be", binary.LittleEndian.Uint32(b), shard)
	}
	var n uint64
	var last []byte
	for {
		kind, b, _, err := d.next()
		if err != nil {
			return err
		}
		if kind == frameEnd && len(b) == 12 && binary.LittleEndian.Uint32(b) == uint32(shard) && binary.LittleEndian.Uint64(b[4:]) == n {
			d.info.Rows += n
			if v.End != nil {
				return v.End(shard, n)
			}
			return nil
		}
		if kind != frameRows {
			return corrupt("a frame of type %q and %d bytes among the rows of shard %d", kind, len(b), shard)
		}
		rows, err := decodeRows(b, last)
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			last = rows[len(rows)-1].Key
		}
		n += uint64(len(rows))
		if v.Rows != nil {
			if err := v.Rows(shard, rows); err != nil {
				return err
			}
		}
	}
}

// decodeRows reads rows whose keys must follow last and one another.
func decodeRows(b, last []byte) (rows []meta.Row, err error) {
	take := func() []byte {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			err = corrupt("rows that do not decode")
			return nil
		}
		v := b[k : k+int(n) : k+int(n)]
		b = b[k+int(n):]
		return v
	}
	for len(b) > 0 && err == nil {
		version, k := binary.Uvarint(b)
		if k <= 0 {
			return nil, corrupt("rows that do not decode")
		}
		b = b[k:]
		row := meta.Row{Version: version, Key: take()}
		if err == nil {
			row.Value = take()
		}
		if err == nil && bytes.Compare(row.Key, last) <= 0 {
			err = corrupt("rows that are not in order")
		}
		last = row.Key
		rows = append(rows, row)
	}
	return rows, err
}
