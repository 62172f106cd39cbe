// Package trash is the list of extents that no row refers to any more, and the
// worker that frees them.
//
// A transaction that drops an object, a part or a version puts the extents on
// the trash list of its own shard in the same transaction, so that nothing is
// forgotten and nothing is freed early. After a grace, which must be longer
// than the longest read that may have started before the drop, the worker of
// the host that leads the shard deletes the pieces everywhere and then the row.
//
//	key     offset  size
//	             0     1  't'
//	             1     8  when it was dropped, ns since 1970, big-endian
//	             9     8  random
//	value   Row of trash.proto, format 1
//
// Rows are in order of time, so the worker reads from the front and stops at
// the first that is too young. The time is that of the writer's clock: the
// grace must also cover the skew between hosts. A stripe is named by one upload
// (ashlar.WriteID) and belongs to one row, so an entry needs no count of
// references; the list holds only what the dropping transaction owned. All the
// same the worker asks, before it frees, whether any row refers to what it is
// about to free (Referee): a mistake elsewhere then costs space and an alarm in
// the log, never data.
//
// If the index is lost: a lost trash row costs space, never data. The pieces
// name their owner, and an orphan search finds what no row refers to.
package trash

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/daemon/meta/trash/trashpb"
)

// Kind is the first byte of the key of every trash row. No other row of a
// shard begins with it.
const Kind = 't'

const (
	format   = 1
	keyBytes = 1 + 8 + 8
)

// Entry is what one trash row holds: extents of one key that are to be freed.
type Entry struct {
	Bucket  ashlar.BucketID
	Key     string
	Extents []ashlar.Extent
	// Dropped is when the last reference went away.
	Dropped time.Time
}

// Row returns the row that puts the entry on the trash list of the shard that
// it is written to.
func Row(e Entry) (meta.Put, error) {
	m := &trashpb.Row{Format: format, Bucket: e.Bucket[:], Key: []byte(e.Key)}
	for _, x := range e.Extents {
		m.Extents = append(m.Extents, &trashpb.Extent{
			Write: uint64(x.Write), Part: x.Part, Bytes: x.Bytes,
			StripeBytes: x.StripeBytes, SmallMax: x.SmallMax,
			LargeK: uint32(x.Large.K), LargeM: uint32(x.Large.M),
			SmallK: uint32(x.Small.K), SmallM: uint32(x.Small.M),
		})
	}
	value, err := proto.Marshal(m)
	if err != nil {
		return meta.Put{}, ashlar.E("trash: row", e.Key, ashlar.Invalid, err)
	}
	key := make([]byte, 0, keyBytes)
	key = append(key, Kind)
	key = binary.BigEndian.AppendUint64(key, uint64(e.Dropped.UnixNano()))
	key = binary.BigEndian.AppendUint64(key, uint64(ashlar.NewWriteID()))
	return meta.Put{Key: key, Value: value}, nil
}

// Decode reads a trash row. A row that makes no sense is Corrupt, one of an
// unknown format Invalid.
func Decode(row meta.Row) (Entry, error) {
	const op = "trash: decode"
	subject := fmt.Sprintf("key=%x", row.Key)
	if len(row.Key) != keyBytes || row.Key[0] != Kind {
		return Entry{}, ashlar.E(op, subject, ashlar.Corrupt, fmt.Errorf("not the key of a trash row"))
	}
	var m trashpb.Row
	if err := proto.Unmarshal(row.Value, &m); err != nil {
		return Entry{}, ashlar.E(op, subject, ashlar.Corrupt, err)
	}
	if m.Format != format {
		return Entry{}, ashlar.E(op, subject, ashlar.Invalid, fmt.Errorf("format %d is unknown", m.Format))
	}
	e := Entry{Key: string(m.Key), Dropped: time.Unix(0, int64(binary.BigEndian.Uint64(row.Key[1:9]))).UTC()}
	if copy(e.Bucket[:], m.Bucket) != len(e.Bucket) || len(m.Bucket) != len(e.Bucket) {
		return Entry{}, ashlar.E(op, subject, ashlar.Corrupt, fmt.Errorf("bucket id of %d bytes", len(m.Bucket)))
	}
	for _, x := range m.Extents {
		if max(x.LargeK, x.LargeM, x.SmallK, x.SmallM) > ashlar.PiecesMax {
			return Entry{}, ashlar.E(op, subject, ashlar.Corrupt, fmt.Errorf("impossible code"))
		}
		e.Extents = append(e.Extents, ashlar.Extent{
			Write: ashlar.WriteID(x.Write), Part: x.Part, Bytes: x.Bytes,
			StripeBytes: x.StripeBytes, SmallMax: x.SmallMax,
			Large: ashlar.Code{K: uint8(x.LargeK), M: uint8(x.LargeM)},
			Small: ashlar.Code{K: uint8(x.SmallK), M: uint8(x.SmallM)},
		})
	}
	return e, nil
}

// Each calls fn for every entry on a shard's list, oldest first.
func Each(ctx context.Context, store meta.Store, shard ashlar.ShardID, fn func(Entry)) error {
	for start := []byte{Kind}; start != nil; {
		page, err := store.Scan(ctx, shard, meta.ScanRequest{Start: start, End: []byte{Kind + 1}})
		if err != nil {
			return err
		}
		for _, row := range page.Rows {
			e, err := Decode(row)
			if err != nil {
				return err
			}
			fn(e)
		}
		start = page.Next
	}
	return nil
}

// before returns the key that ends the range of rows dropped before t.
func before(t time.Time) []byte {
	return binary.BigEndian.AppendUint64([]byte{Kind}, uint64(max(0, t.UnixNano())))
}
