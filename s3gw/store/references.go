package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/store/row"
)

// References tells what refers to the stripes of an upload. It is how the
// daemons, which know no objects, ask before they free anything: the trash
// worker, and the search for orphans.
//
// A row that refers to a write moves only within its slot, and always forward:
// from a part to an object, from an object to the trash. The rows are read in
// this order at the leaders, so a write that moves meanwhile is seen at least
// once by whoever asks for the parts and objects first and reads the trash after.
type References struct {
	meta meta.Store

	mu    sync.Mutex
	slots map[ashlar.BucketID]known
	// gone ids were not in the directory at that time. An id is never used again,
	// but a backup may bring one back: this is not believed for long.
	gone map[ashlar.BucketID]time.Time
}

type known struct {
	name  string
	slots []uint32
}

// goneMax bounds the ids of buckets that are known to be gone, goneFor how long they
// are: much shorter than the time between two looks at an orphan.
const (
	goneMax = 10_000
	goneFor = time.Minute
)

// parallelParts is up to how many parts are looked up one by one.
const parallelParts = 16

// NewReferences returns References over the metadata.
func NewReferences(m meta.Store) *References { return &References{meta: m} }

// Reference is one row that refers to writes.
type Reference struct {
	// What is "current version", "older version" or "part of an upload".
	What    string
	Bucket  string // its name
	Version string
	Upload  string
	Extents []ashlar.Extent
}

// Refers reports for each extent, of which Write and Part matter, whether a
// version of the key or a part of an upload refers to it. The trash is not asked.
func (r *References) Refers(ctx context.Context, id ashlar.BucketID, key string, extents []ashlar.Extent) ([]bool, error) {
	at := map[ashlar.WriteID][]int{}
	parts := map[uint32]bool{}
	for i, x := range extents {
		at[x.Write] = append(at[x.Write], i)
		if x.Part > 0 {
			parts[x.Part] = true
		}
	}
	refers := make([]bool, len(extents))
	err := r.Each(ctx, id, key, parts, func(ref Reference) {
		for _, x := range ref.Extents {
			for _, i := range at[x.Write] {
				refers[i] = true
			}
		}
	})
	return refers, err
}

// Each calls fn for every row of a key that refers to stripes: of the uploads,
// those parts that are asked for, or all if parts is nil, and then the versions.
// In a bucket that is gone there are none.
func (r *References) Each(ctx context.Context, id ashlar.BucketID, key string, parts map[uint32]bool, fn func(Reference)) error {
	b, err := r.bucket(ctx, id)
	if err != nil || b == nil {
		return err
	}
	sl := slot{Slot: row.Slot{Bucket: id, Slot: row.SlotOf(id, key, len(b.slots))}}
	sl.shard = ashlar.ShardID(b.slots[sl.Slot.Slot])
	if parts == nil || len(parts) > 0 {
		if err := r.parts(ctx, sl, b.name, key, parts, fn); err != nil {
			return err
		}
	}
	return r.versions(ctx, sl, b.name, key, fn)
}

// bucket finds a bucket by its id, nil if there is none.
func (r *References) bucket(ctx context.Context, id ashlar.BucketID) (*known, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k, ok := r.slots[id]; ok {
		return &k, nil
	}
	if at, ok := r.gone[id]; ok && time.Since(at) < goneFor {
		return nil, nil
	}
	slots, begin := map[ashlar.BucketID]known{}, time.Now()
	err := r.scan(ctx, 0, []byte{row.KindBucket}, func(rw meta.Row) error {
		var b row.Bucket
		if err := row.Decode(rw.Key, rw.Value, &b); err != nil {
			return err
		}
		var id ashlar.BucketID
		if copy(id[:], b.Id); len(b.Id) != len(id) || len(b.Slots) == 0 {
			return ashlar.E("store: bucket row", string(rw.Key[1:]), ashlar.Corrupt, errors.New("no id or no slots"))
		}
		slots[id] = known{string(rw.Key[1:]), b.Slots}
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.slots = slots
	if k, ok := slots[id]; ok {
		return &k, nil
	}
	if len(r.gone) >= goneMax || r.gone == nil {
		r.gone = map[ashlar.BucketID]time.Time{}
	}
	r.gone[id] = begin
	return nil, nil
}

// parts finds the parts of a key's uploads: of the open ones, and of those that
// have ended, whose parts are left until somebody cleans up.
func (r *References) parts(ctx context.Context, sl slot, bucket, key string, want map[uint32]bool, fn func(Reference)) error {
	uploads := map[row.VersionID]bool{}
	err := r.scan(ctx, sl.shard, append(append(sl.Header(row.KindUpload), key...), 0), func(rw meta.Row) error {
		var id row.VersionID
		if _, rest, ok := row.UserKey(rw.Key); ok && len(rest) == len(id) {
			copy(id[:], rest)
			uploads[id] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = r.scan(ctx, sl.shard, sl.Header(row.KindDone), func(rw meta.Row) error {
		var d row.Done
		if err := row.Decode(rw.Key, rw.Value, &d); err != nil {
			return err
		}
		var id row.VersionID
		if string(d.Key) == key && copy(id[:], rw.Key[row.HeaderBytes:]) == len(id) {
			uploads[id] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	for id := range uploads {
		if err := r.partsOf(ctx, sl, bucket, id, want, fn); err != nil {
			return err
		}
	}
	return nil
}

func (r *References) partsOf(ctx context.Context, sl slot, bucket string, id row.VersionID, want map[uint32]bool, fn func(Reference)) error {
	see := func(rw meta.Row) error {
		var p row.Part
		if err := row.Decode(rw.Key, rw.Value, &p); err != nil {
			return err
		}
		extents, err := p.Extents.List()
		if err == nil && len(extents) > 0 {
			fn(Reference{What: "part of an upload", Bucket: bucket, Upload: id.String(), Extents: extents})
		}
		return err
	}
	if want == nil || len(want) > parallelParts {
		return r.scan(ctx, sl.shard, sl.Parts(id), see)
	}
	for n := range want {
		ctx, cancel := bounded(ctx, metaTimeout)
		rw, err := r.meta.Get(ctx, sl.shard, sl.Part(id, uint16(n)))
		cancel()
		if ashlar.Is(err, ashlar.NotFound) {
			continue
		}
		if err == nil {
			err = see(rw)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// versions finds the versions of a key in one ordered scan: a version that is
// covered or uncovered meanwhile moves within the first page.
func (r *References) versions(ctx context.Context, sl slot, bucket, key string, fn func(Reference)) error {
	return r.scan(ctx, sl.shard, append(append(sl.Header(row.KindObject), key...), 0), func(rw meta.Row) error {
		m, err := decodeObject(&rw)
		if err != nil {
			return err
		}
		columns := m.Extents
		if len(m.Manifest) > 0 {
			ctx, cancel := bounded(ctx, metaTimeout)
			mr, err := r.meta.Get(ctx, sl.shard, sl.Manifest(m.Manifest))
			cancel()
			if ashlar.Is(err, ashlar.NotFound) {
				// It went with its version, between the two reads: look again.
				err = ashlar.E("store: references", fmt.Sprintf("key=%q", key), ashlar.Busy, errors.New("a version was deleted meanwhile"))
			}
			var man row.Manifest
			if err == nil {
				err = row.Decode(mr.Key, mr.Value, &man)
			}
			if err != nil {
				return err
			}
			columns = man.Extents
		}
		extents, err := columns.List()
		if err != nil || len(extents) == 0 {
			return err
		}
		what := "older version"
		if _, rest, _ := row.UserKey(rw.Key); len(rest) == 1 && rest[0] == 0 {
			what = "current version"
		}
		var v row.VersionID
		copy(v[:], m.Version)
		fn(Reference{What: what, Bucket: bucket, Version: v.String(), Extents: extents})
		return nil
	})
}

// scan calls fn for every row under a prefix.
func (r *References) scan(ctx context.Context, shard ashlar.ShardID, prefix []byte, fn func(meta.Row) error) error {
	start, end := prefix, row.Successor(prefix)
	for start != nil {
		ctx, cancel := bounded(ctx, metaTimeout)
		page, err := r.meta.Scan(ctx, shard, meta.ScanRequest{Start: start, End: end})
		cancel()
		if err != nil {
			return err
		}
		for _, rw := range page.Rows {
			if err := fn(rw); err != nil {
				return err
			}
		}
		start = page.Next
	}
	return nil
}

// ByName returns the id of a bucket, for people who name it.
func (r *References) ByName(ctx context.Context, name string) (ashlar.BucketID, error) {
	var id ashlar.BucketID
	ctx, cancel := bounded(ctx, metaTimeout)
	defer cancel()
	rw, err := r.meta.Get(ctx, 0, row.BucketKey(name))
	if err != nil {
		return id, err
	}
	var b row.Bucket
	if err := row.Decode(rw.Key, rw.Value, &b); err != nil {
		return id, err
	}
	copy(id[:], b.Id)
	return id, nil
}
