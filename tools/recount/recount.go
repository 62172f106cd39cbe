// Package recount counts what a bucket holds by reading every one of its rows,
// and compares that with the counters that the store keeps beside them.
//
// A counter is added to in the transaction that changes what it counts, so the
// two may differ at no moment; a reader of many slots needs the bucket to be at
// rest. The reader is the one that gateways use: it finds each shard's leader,
// so what it sees is linearizable. It decodes rows, and knows nothing of how
// the store counts. Tests of running clusters call it when they are done.
package recount

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/store/row"
)

// Count is what one slot holds, or the whole bucket.
type Count struct {
	Objects, Bytes int64
	// Uploads that are neither completed nor aborted, and the bytes of their parts.
	Uploads, PartBytes int64
	// Others are older versions and delete markers, with the bytes of the former.
	Others, OtherBytes int64
}

func (c Count) String() string {
	return fmt.Sprintf("%d objects of %d bytes, %d uploads with parts of %d bytes, %d other versions of %d bytes",
		c.Objects, c.Bytes, c.Uploads, c.PartBytes, c.Others, c.OtherBytes)
}

func (c *Count) add(o Count) {
	c.Objects, c.Bytes = c.Objects+o.Objects, c.Bytes+o.Bytes
	c.Uploads, c.PartBytes = c.Uploads+o.Uploads, c.PartBytes+o.PartBytes
	c.Others, c.OtherBytes = c.Others+o.Others, c.OtherBytes+o.OtherBytes
}

// Bucket is a bucket counted in both ways.
type Bucket struct {
	Counters, Rows Count
	// Slots are the numbers of the slots whose counters are not what they hold.
	Slots []int
	what  map[int]string
}

// Err is nil if the counters are right, slot by slot.
func (b *Bucket) Err() error {
	var errs []error
	for _, n := range b.Slots {
		errs = append(errs, errors.New(b.what[n]))
	}
	return errors.Join(errs...)
}

// directoryShard holds the rows that name buckets.
const directoryShard ashlar.ShardID = 0

// Of counts a bucket. Nobody may write to it meanwhile.
func Of(ctx context.Context, store meta.Store, name string) (*Bucket, error) {
	dir, err := store.Get(ctx, directoryShard, row.BucketKey(name))
	if err != nil {
		return nil, err
	}
	var rec row.Bucket
	if err := row.Decode(dir.Key, dir.Value, &rec); err != nil {
		return nil, err
	}
	b := &Bucket{what: map[int]string{}}
	for i, shard := range rec.Slots {
		slot := row.Slot{Slot: uint8(i)}
		copy(slot.Bucket[:], rec.Id)
		counters, rows, err := ofSlot(ctx, store, ashlar.ShardID(shard), slot)
		if err != nil {
			return nil, fmt.Errorf("slot %d on shard %d: %w", i, shard, err)
		}
		b.Counters.add(counters)
		b.Rows.add(rows)
		if counters != rows {
			b.Slots = append(b.Slots, i)
			b.what[i] = fmt.Sprintf("slot %d on shard %d: the counters say %v; the rows are %v", i, shard, counters, rows)
		}
	}
	return b, nil
}

func ofSlot(ctx context.Context, store meta.Store, shard ashlar.ShardID, slot row.Slot) (counters, rows Count, err error) {
	handlers := map[byte]func(meta.Row) error{
		row.KindCounter: func(r meta.Row) error {
			if r.Key[row.HeaderBytes] == row.CountLimit {
				return nil
			}
			return counters.counter(r)
		},
		row.KindObject: func(r meta.Row) error { return rows.object(r) },
		row.KindUpload: func(meta.Row) error { rows.Uploads++; return nil },
		row.KindPart: func(r meta.Row) error {
			var p row.Part
			err := row.Decode(r.Key, r.Value, &p)
			rows.PartBytes += int64(p.Bytes)
			return err
		},
	}
	for _, kind := range slices.Sorted(maps.Keys(handlers)) {
		if err := scan(ctx, store, shard, slot.Header(kind), handlers[kind]); err != nil {
			return counters, rows, err
		}
	}
	return counters, rows, nil
}

func scan(ctx context.Context, store meta.Store, shard ashlar.ShardID, prefix []byte, each func(meta.Row) error) error {
	req := meta.ScanRequest{Start: prefix, End: row.Successor(prefix)}
	for req.Start != nil {
		page, err := store.Scan(ctx, shard, req)
		if err != nil {
			return err
		}
		for _, r := range page.Rows {
			if err := each(r); err != nil {
				return err
			}
		}
		req.Start = page.Next
	}
	return nil
}

func (c *Count) object(r meta.Row) error {
	var o row.Object
	if err := row.Decode(r.Key, r.Value, &o); err != nil {
		return err
	}
	_, suffix, ok := row.UserKey(r.Key)
	if !ok || len(suffix) == 0 {
		return ashlar.E("recount: object", fmt.Sprintf("key=%q", r.Key), ashlar.Corrupt, nil)
	}
	if suffix[0] == 0 && !o.DeleteMarker {
		c.Objects, c.Bytes = c.Objects+1, c.Bytes+int64(o.Bytes)
		return nil
	}
	c.Others, c.OtherBytes = c.Others+1, c.OtherBytes+int64(o.Bytes)
	return nil
}

func (c *Count) counter(r meta.Row) error {
	if len(r.Key) != row.HeaderBytes+1 || len(r.Value) != 8 {
		return ashlar.E("recount: counter", fmt.Sprintf("key=%x", r.Key), ashlar.Corrupt, nil)
	}
	into := map[byte]*int64{
		row.CountObjects: &c.Objects, row.CountBytes: &c.Bytes, row.CountUploads: &c.Uploads,
		row.CountPartBytes: &c.PartBytes, row.CountOthers: &c.Others, row.CountOtherBytes: &c.OtherBytes,
	}[r.Key[row.HeaderBytes]]
	if into != nil { // others count what Count does not have
		*into = int64(binary.LittleEndian.Uint64(r.Value))
	}
	return nil
}
