package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/lifecycle"
	"ashlar/s3gw/notify"
	"ashlar/s3gw/store/row"
)

const (
	// directoryShard holds the directory rows of all buckets.
	directoryShard ashlar.ShardID = 0
	// slotsDefault is the number of slots of a bucket if the map names none.
	slotsDefault = 4
	// cacheFor is how long a bucket record may be used without another look.
	// It only decides which slots are asked; whether the bucket still exists is
	// judged by its markers. A PUT through a record that another gateway made
	// obsolete fails with ErrConflict, after its body; hence so short.
	cacheFor = 2 * time.Second
	// cacheMax bounds the number of cached records.
	cacheMax        = 4096
	bucketNameMax   = 255
	directoryScan   = 1000
	generationFirst = 1
)

// bucket is a directory row as it was read.
type bucket struct {
	Bucket
	rec     *row.Bucket
	version uint64
	life    *lifecycle.Config // nil: none is set
	notes   *notify.Config    // nil: nobody is told of events
}

// slot is one slot of a bucket and the shard that it lies on.
type slot struct {
	row.Slot
	shard ashlar.ShardID
}

func (b *bucket) slotOf(key string) slot { return b.slot(int(row.SlotOf(b.ID, key, len(b.rec.Slots)))) }

func (b *bucket) slot(i int) slot {
	return slot{Slot: row.Slot{Bucket: b.ID, Slot: uint8(i)}, shard: ashlar.ShardID(b.rec.Slots[i])}
}

func (b *bucket) slots() []slot {
	out := make([]slot, len(b.rec.Slots))
	for i := range out {
		out[i] = b.slot(i)
	}
	return out
}

// bucketCache remembers records of buckets by name.
type bucketCache struct {
	mu      sync.Mutex
	entries map[string]cached // guarded by mu
	drops   uint64            // guarded by mu
}

type cached struct {
	b     *bucket
	until time.Time
}

func (c *bucketCache) get(name string, now time.Time) *bucket {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[name]; ok && now.Before(e.until) {
		return e.b
	}
	return nil
}

// since is to be asked before a record is read, for put.
func (c *bucketCache) since() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drops
}

// put remembers a record that was read after since, unless one was dropped
// meanwhile: it may be the one that was read.
func (c *bucketCache) put(name string, b *bucket, now time.Time, since uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drops != since {
		return
	}
	if c.entries == nil || len(c.entries) >= cacheMax {
		c.entries = map[string]cached{}
	}
	c.entries[name] = cached{b: b, until: now.Add(cacheFor)}
}

func (c *bucketCache) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, name)
	c.drops++
}

// directory reads the directory row of a bucket, whatever its state, or nil.
func (s *Store) directory(ctx context.Context, name string) (*bucket, error) {
	if name == "" || len(name) > bucketNameMax || strings.IndexByte(name, 0) >= 0 {
		return nil, errBadBucket
	}
	r, err := s.get(ctx, directoryShard, row.BucketKey(name))
	if err != nil || r == nil {
		return nil, err
	}
	return decodeBucket(name, r)
}

func decodeBucket(name string, r *meta.Row) (*bucket, error) {
	rec := &row.Bucket{}
	if err := row.Decode(r.Key, r.Value, rec); err != nil {
		return nil, err
	}
	b := &bucket{rec: rec, version: r.Version, life: lifecycleConfig(rec.Lifecycle), notes: notification(rec.Notification)}
	if len(rec.Id) != len(b.ID) || len(rec.Slots) < 1 || len(rec.Slots) > row.SlotsMax {
		return nil, ashlar.E("store: directory", name, ashlar.Corrupt,
			fmt.Errorf("id of %d bytes, %d slots", len(rec.Id), len(rec.Slots)))
	}
	b.Bucket = Bucket{
		ID: ashlar.BucketID(rec.Id), Name: name, Owner: rec.Owner, Created: fromNS(rec.CreatedNs),
		Region: rec.Region, Shards: uint8(len(rec.Slots)), Versioning: versionings[rec.Versioning],
		ObjectLock: rec.Versioning == row.Bucket_LOCKED, DefaultLock: defaultLock(rec.DefaultLock),
		Encryption: encryption(rec.DefaultEncryption), Quota: quotaOf(rec.Quota),
	}
	return b, nil
}

// exists reports whether the bucket exists for a client: while it is being
// deleted it does, until the deletion cannot be taken back any more.
func (b *bucket) exists() bool { return b != nil && b.rec.State != row.Bucket_DROPPING }

// lookup returns the bucket, from the cache if it may.
func (s *Store) lookup(ctx context.Context, name string) (b *bucket, err error) {
	if b = s.buckets.get(name, s.clock()); b == nil {
		b, err = s.lookupFresh(ctx, name)
	}
	if session := sessionOf(ctx); err == nil && session != nil {
		session.allow(b.reads())
	}
	return b, err
}

func (s *Store) lookupFresh(ctx context.Context, name string) (*bucket, error) {
	since := s.buckets.since()
	b, err := s.directory(ctx, name)
	if err != nil {
		return nil, err
	}
	if !b.exists() {
		s.buckets.drop(name)
		return nil, ErrNoSuchBucket
	}
	s.buckets.put(name, b, s.clock(), since)
	return b, nil
}

// reading runs fn on the right incarnation of the bucket. A cached record may
// name one that is gone, and then "nothing found" means nothing: fn returns
// errGone if it found nothing and the slot's marker is not there either. If the
// bucket is what it was after all, the result is missing.
func (s *Store) reading(ctx context.Context, name string, missing error, fn func(*bucket) error) error {
	b, err := s.lookup(ctx, name)
	if err != nil {
		return err
	}
	return s.readingFrom(ctx, name, b, missing, fn)
}

func (s *Store) readingFrom(ctx context.Context, name string, b *bucket, missing error, fn func(*bucket) error) error {
	for {
		if err := fn(b); err != errGone {
			return err
		}
		fresh, err := s.lookupFresh(ctx, name)
		if err != nil {
			return err
		}
		if fresh.ID == b.ID {
			return missing
		}
		b = fresh
	}
}

// absent returns missing if the bucket is open in this slot, which proves that
// it existed when nothing was found, and errGone otherwise.
func (s *Store) absent(ctx context.Context, sl slot, missing error) error {
	marker, err := s.get(ctx, sl.shard, sl.Header(row.KindOpen))
	if err != nil {
		return err
	}
	if marker == nil {
		return errGone
	}
	return missing
}

// HeadBucket returns the bucket's record or ErrNoSuchBucket.
func (s *Store) HeadBucket(ctx context.Context, name string) (Bucket, error) {
	b, err := s.lookupFresh(ctx, name)
	if err != nil {
		return Bucket{}, fail("head bucket", name, err)
	}
	return b.Bucket, nil
}

// ListBuckets returns at most limit buckets of the owner whose names begin with
// prefix and are greater than after, in byte order, and whether there are more.
// A limit below 1 or above ListMax means ListMax.
func (s *Store) ListBuckets(ctx context.Context, owner, prefix, after string, limit int) (list []Bucket, more bool, err error) {
	if limit < 1 || limit > ListMax {
		limit = ListMax
	}
	start := row.BucketKey(prefix)
	end := row.Successor(start)
	if after >= prefix {
		start = append(row.BucketKey(after), 0)
	}
	for start != nil && string(start) < string(end) {
		page, err := s.scan(ctx, directoryShard, meta.ScanRequest{Start: start, End: end, Limit: directoryScan})
		if err != nil {
			return nil, false, fail("list buckets", owner, err)
		}
		for i := range page.Rows {
			b, err := decodeBucket(string(page.Rows[i].Key[1:]), &page.Rows[i])
			if err != nil {
				return nil, false, fail("list buckets", owner, err)
			}
			if b.Owner != owner || !b.exists() {
				continue
			}
			if len(list) == limit {
				return list, true, nil
			}
			list = append(list, b.Bucket)
		}
		start = page.Next
	}
	return list, false, nil
}

// CreateBucket makes a bucket. It returns ErrBucketOwned or ErrBucketExists if
// the name is taken by the same or by another account.
func (s *Store) CreateBucket(ctx context.Context, owner, name, region string) error {
	return s.CreateBucketWith(ctx, owner, name, region, BucketOptions{})
}

// BucketOptions are what is decided about a bucket when it is made, and stays.
type BucketOptions struct {
	// Locked gives it object lock, and with it versioning, from the beginning.
	Locked bool
	// Slots is how many slots its keys are spread over, 1 to SlotsMax; 0 is what
	// the cluster's settings say.
	Slots int
	// Settings it has from the beginning; they can be changed later.
	Settings map[string][]byte
}

// SlotsMax is the largest number of slots of a bucket.
const SlotsMax = row.SlotsMax

// CreateBucketWith is CreateBucket with options. Kinds besides: Invalid.
func (s *Store) CreateBucketWith(ctx context.Context, owner, name, region string, opt BucketOptions) error {
	if opt.Slots < 0 || opt.Slots > SlotsMax {
		return fail("create bucket", name, invalid("%d slots: want 1 to %d", opt.Slots, SlotsMax))
	}
	for n := range attemptsMax {
		b, err := s.directory(ctx, name)
		if err == nil && b != nil && b.rec.State != row.Bucket_ACTIVE {
			err = s.settle(ctx, name)
			if err == nil {
				continue
			}
		}
		switch {
		case err != nil:
			return fail("create bucket", name, err)
		case b != nil && b.Owner == owner:
			return fail("create bucket", name, ErrBucketOwned)
		case b != nil:
			return fail("create bucket", name, ErrBucketExists)
		}
		err = s.tryCreate(ctx, owner, name, region, opt)
		if _, _, taken := conditionAt(err); !taken {
			return fail("create bucket", name, err)
		}
		pause(ctx, n)
	}
	return fail("create bucket", name, errContended)
}

// tryCreate puts the markers of a fresh bucket and then claims the name. A
// *meta.ConditionError says that the name was taken meanwhile.
func (s *Store) tryCreate(ctx context.Context, owner, name, region string, opt BucketOptions) error {
	m, err := s.formed()
	if err != nil {
		return err
	}
	if region == "" {
		region = s.region
	}
	slots := cmp.Or(opt.Slots, int(m.Settings.BucketShards), slotsDefault)
	state := row.Bucket_NEVER
	if opt.Locked {
		state = row.Bucket_LOCKED
	}
	id := ashlar.BucketID(ashlar.NewID())
	b := &bucket{Bucket: Bucket{ID: id}, rec: &row.Bucket{
		Format: row.Format, Id: id[:], Owner: owner, CreatedNs: s.now().UnixNano(), Region: region,
		Slots: row.SpreadSlots(id, min(slots, row.SlotsMax), len(m.Shards)), Generation: generationFirst,
		Versioning: state,
	}}
	for _, name := range slices.Sorted(maps.Keys(opt.Settings)) {
		b.rec.Settings = append(b.rec.Settings, &row.Setting{Name: name, Value: opt.Settings[name]})
	}
	mark, err := row.Encode(&row.Mark{Format: row.Format})
	if err != nil {
		return err
	}
	if err := s.eachShard(ctx, b, func(sl slot, txn *meta.Txn) error {
		if state != row.Bucket_NEVER {
			txn.Puts = append(txn.Puts, marksOf(sl, state, mark)...)
		}
		put, err := markerPut(sl.Header(row.KindOpen), generationFirst)
		txn.Puts = append(txn.Puts, put)
		return err
	}); err != nil {
		return err
	}
	value, err := row.Encode(b.rec)
	if err != nil {
		return err
	}
	key := row.BucketKey(name)
	err = s.commit(ctx, directoryShard, &meta.Txn{
		Conds: []meta.Cond{{Key: key, Kind: meta.CondAbsent}},
		Puts:  []meta.Put{{Key: key, Value: value}},
	})
	if _, _, taken := conditionAt(err); taken {
		// The markers of the id that lost mean nothing to anybody; an error here
		// leaves a few bytes behind.
		_ = s.eachShard(ctx, b, func(sl slot, txn *meta.Txn) error {
			txn.Deletes = append(txn.Deletes, sl.Header(row.KindOpen))
			for _, put := range marksOf(sl, state, nil) {
				txn.Deletes = append(txn.Deletes, put.Key)
			}
			return nil
		})
	}
	return err
}

// eachShard commits one transaction on every shard that holds slots of the
// bucket, filled by fn for each slot.
func (s *Store) eachShard(ctx context.Context, b *bucket, fn func(slot, *meta.Txn) error) error {
	txns := map[ashlar.ShardID]*meta.Txn{}
	for _, sl := range b.slots() {
		if txns[sl.shard] == nil {
			txns[sl.shard] = &meta.Txn{}
		}
		if err := fn(sl, txns[sl.shard]); err != nil {
			return err
		}
	}
	for shard, txn := range txns {
		if err := s.commit(ctx, shard, txn); err != nil {
			return err
		}
	}
	return nil
}

// Usage is what a bucket holds: exact sums over its slots. The slots are read
// one after the other, so a sum may mix moments while writes go on.
type Usage struct {
	Objects, Bytes int64
	// Uploads that are open, and the bytes of parts stored.
	Uploads, PartBytes int64
	// Others are older versions and delete markers, and the bytes of the former.
	Others, OtherBytes int64
}

// counterOf decodes the row of a slot's counter.
func counterOf(r *meta.Row) (int64, error) {
	if len(r.Key) != row.HeaderBytes+1 {
		return 0, ashlar.E("store: counter", fmt.Sprintf("key=%x", r.Key), ashlar.Corrupt, nil)
	}
	return counter(r)
}

func counter(r *meta.Row) (int64, error) {
	if len(r.Value) != 8 {
		return 0, ashlar.E("store: counter", fmt.Sprintf("key=%x", r.Key), ashlar.Corrupt, nil)
	}
	return int64(binary.LittleEndian.Uint64(r.Value)), nil
}

// BucketUsage adds up the bucket's counters.
func (s *Store) BucketUsage(ctx context.Context, name string) (Usage, error) {
	b, err := s.lookupFresh(ctx, name)
	if err != nil {
		return Usage{}, fail("usage", name, err)
	}
	u, err := s.usage(ctx, b)
	return u, fail("usage", name, err)
}

func (s *Store) usage(ctx context.Context, b *bucket) (u Usage, err error) {
	for _, sl := range b.slots() {
		header := sl.Header(row.KindCounter)
		page, err := s.scan(ctx, sl.shard, meta.ScanRequest{Start: header, End: row.Successor(header)})
		if err != nil {
			return u, err
		}
		for _, r := range page.Rows {
			if r.Key[row.HeaderBytes] == row.CountLimit {
				continue
			}
			n, err := counterOf(&r)
			if err != nil {
				return u, err
			}
			switch r.Key[row.HeaderBytes] {
			case row.CountObjects:
				u.Objects += n
			case row.CountBytes:
				u.Bytes += n
			case row.CountUploads:
				u.Uploads += n
			case row.CountPartBytes:
				u.PartBytes += n
			case row.CountOthers:
				u.Others += n
			case row.CountOtherBytes:
				u.OtherBytes += n
			}
		}
	}
	return u, nil
}
