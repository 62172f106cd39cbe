package store

import (
	"context"
	"encoding/binary"
	"math"
	"slices"
	"sync"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/s3gw/store/row"
)

// Quota bounds what a bucket holds; 0 is no bound.
//
// The counters of a bucket lie in its slots, on several shards, and no
// transaction spans two. So the quota is dealt out: each slot has a limit row, and
// what adds to the slot carries the condition that the slot stays within it. The sum
// of the limits is never above the quota, so neither is the sum of what is there.
// When a slot has reached its limit and the bucket has not, the room is dealt out
// anew (deal): first every limit is pinned, which lets nothing but deletes pass; then
// what the slots hold is read, then each gets its limit. A limit is set only in place
// of one's own pin, so of two who deal at the same time one begins again.
type Quota struct {
	// Bytes of all versions and of the parts of uploads.
	Bytes uint64
	// Objects counts all versions, delete markers included. A delete is never
	// refused, so markers may pass the bound.
	Objects uint64
}

// QuotaMax is the greatest bound.
const QuotaMax = math.MaxInt64

// SetQuota changes a bucket's quota, the zero Quota to none. It holds for every
// write that begins after SetQuota returned nil; what is there already stays, and
// what is above the quota lets nothing be added until enough was deleted. Errors:
// ErrNoSuchBucket; kinds besides: Invalid, Unavailable (the quota may be in force or not).
func (s *Store) SetQuota(ctx context.Context, name string, q Quota) error {
	if q.Bytes > QuotaMax || q.Objects > QuotaMax {
		return fail("set quota", name, invalid("a quota is at most %d", int64(QuotaMax)))
	}
	err := s.changeBucket(ctx, name, func(_ *bucket, rec *row.Bucket) error {
		rec.Quota = nil
		if q != (Quota{}) {
			rec.Quota = &row.Quota{Bytes: q.Bytes, Objects: q.Objects}
		}
		return nil
	})
	if err == nil {
		var b *bucket
		if b, err = s.lookupFresh(ctx, name); err == nil {
			_, err = s.deal(ctx, b, b.slot(0), growth{})
		}
	}
	return fail("set quota", name, err)
}

func quotaOf(m *row.Quota) Quota { return Quota{Bytes: m.GetBytes(), Objects: m.GetObjects()} }

// growth is what a transaction adds to a slot, or what a slot holds.
type growth struct{ bytes, objects int64 }

func (g growth) plus(o growth) growth { return growth{g.bytes + o.bytes, g.objects + o.objects} }

var (
	byteCounters   = []byte{row.CountBytes, row.CountOtherBytes, row.CountPartBytes}
	objectCounters = []byte{row.CountObjects, row.CountOthers}
)

// note adds what a counter says.
func (g *growth) note(counter byte, n int64) {
	if slices.Contains(byteCounters, counter) {
		g.bytes += n
	}
	if slices.Contains(objectCounters, counter) {
		g.objects += n
	}
}

// growthOf is what a transaction adds.
func growthOf(txn *meta.Txn) (g growth) {
	for _, a := range txn.Adds {
		if len(a.Key) == row.HeaderBytes+1 {
			g.note(a.Key[row.HeaderBytes], a.Delta)
		}
	}
	return g
}

// within is a limit row: the limits in the order of the sums of quotaCond, and who
// pinned or dealt them.
type within struct {
	growth
	by ashlar.ID
}

// pinned lets nothing be added.
var pinned = growth{math.MinInt64, math.MinInt64}

func (l *within) encode() []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(l.bytes))
	return append(binary.LittleEndian.AppendUint64(b, uint64(l.objects)), l.by[:]...)
}

func decodeWithin(r *meta.Row) (l within, err error) {
	if len(r.Value) != 16+len(l.by) {
		return l, ashlar.E("store: limit", "", ashlar.Corrupt, nil)
	}
	l.bytes, l.objects = int64(binary.LittleEndian.Uint64(r.Value)), int64(binary.LittleEndian.Uint64(r.Value[8:]))
	copy(l.by[:], r.Value[16:])
	return l, nil
}

// limited remembers which slots have limits. It need not be right: whoever writes
// with a wrong belief is refused, or held to limits that are not there.
type limited struct {
	mu    sync.Mutex
	slots map[row.Slot]bool // guarded by mu
}

func (c *limited) has(sl slot) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.slots[sl.Slot]
}

func (c *limited) saw(sl slot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots == nil || len(c.slots) >= cacheMax {
		c.slots = map[row.Slot]bool{}
	}
	c.slots[sl.Slot] = true
}

// hold adds to a transaction that grows a slot the condition that its limits are
// kept, as the last one. It returns the condition's position, or -1.
func (c *limited) hold(txn *meta.Txn, sl slot) int {
	g := growthOf(txn)
	if g.bytes <= 0 && g.objects <= 0 {
		return -1
	}
	cond := meta.Cond{Key: sl.Counter(row.CountLimit), Kind: meta.CondAbsent}
	if c.has(sl) {
		cond.Kind = meta.CondWithin
		for _, counters := range [][]byte{byteCounters, objectCounters} {
			var keys [][]byte
			for _, counter := range counters {
				keys = append(keys, sl.Counter(counter))
			}
			cond.Sums = append(cond.Sums, keys)
		}
	}
	txn.Conds = append(txn.Conds, cond)
	return len(txn.Conds) - 1
}

// refused makes room for a transaction that hold's condition refused. nil says that
// it is worth another try, ErrQuota that the bucket is full.
func (s *Store) refused(ctx context.Context, b *bucket, sl slot, txn *meta.Txn) error {
	if !s.limited.has(sl) {
		s.limited.saw(sl)
		return nil
	}
	need := growthOf(txn)
	b, err := s.lookupFresh(ctx, b.Name)
	if err != nil {
		return err
	}
	// A look at the counters stops nobody, and a full bucket is refused again and again.
	held, err := s.usage(ctx, b)
	if err != nil {
		return err
	}
	if q := b.Quota; q != (Quota{}) && q.room(growth{held.Bytes + held.OtherBytes + held.PartBytes, held.Objects + held.Others}).lacks(need) {
		return ErrQuota
	}
	select { // who waited finds room, mostly
	case s.dealing <- struct{}{}:
		defer func() { <-s.dealing }()
	case <-ctx.Done():
		return ashlar.E("store: quota", b.Name, ashlar.Unavailable, ctx.Err())
	}
	if h, _, ok, err := s.holding(ctx, sl); err != nil || !ok || !h.growth.lacks(h.held.plus(need)) {
		return err
	}
	enough, err := s.deal(ctx, b, sl, need)
	if err == nil && !enough {
		err = ErrQuota
	}
	return err
}

// room is what may be added to a bucket that holds that much.
func (q Quota) room(held growth) growth {
	room := growth{math.MaxInt64, math.MaxInt64}
	if q.Bytes != 0 {
		room.bytes = int64(q.Bytes) - held.bytes
	}
	if q.Objects != 0 {
		room.objects = int64(q.Objects) - held.objects
	}
	return room
}

// lacks reports whether need does not fit.
func (g growth) lacks(need growth) bool { return need.bytes > g.bytes || need.objects > g.objects }

// deal deals the room of a bucket out to its slots, so that one of them, if that can
// be, can grow by need; enough says whether. Without a quota it takes the limits away.
func (s *Store) deal(ctx context.Context, b *bucket, needy slot, need growth) (enough bool, err error) {
	for n := range attemptsMax {
		me := within{growth: pinned, by: ashlar.NewID()}
		for _, sl := range b.slots() {
			err := s.commit(ctx, sl.shard, &meta.Txn{
				Conds: []meta.Cond{{Key: sl.Header(row.KindOpen), Kind: meta.CondExists}},
				Puts:  []meta.Put{{Key: sl.Counter(row.CountLimit), Value: me.encode()}},
			})
			if _, _, closed := conditionAt(err); closed {
				err = s.revive(ctx, b)
			}
			if err != nil {
				return false, err
			}
		}
		// The quota is read behind the pins: whoever changes it later deals later.
		fresh, err := s.directory(ctx, b.Name)
		if err == nil && (!fresh.exists() || fresh.ID != b.ID) {
			err = ErrNoSuchBucket
		}
		if err != nil {
			return false, err
		}
		enough, done, err := s.dealPinned(ctx, b, fresh.Quota, me.by, needy, need)
		if err != nil || done {
			return enough, err
		}
		if !pause(ctx, n) {
			break
		}
	}
	return false, ashlar.E("store: quota", b.Name, ashlar.Busy, errContended)
}

// dealPinned sets the limits of the slots in place of one's own pins; done is false
// if somebody else pins them.
func (s *Store) dealPinned(ctx context.Context, b *bucket, q Quota, by ashlar.ID, needy slot, need growth) (enough, done bool, err error) {
	slots := b.slots()
	held, versions := make([]growth, len(slots)), make([]uint64, len(slots))
	var sum growth
	for i, sl := range slots {
		l, version, ok, err := s.holding(ctx, sl)
		if err != nil || !ok || l.by != by {
			return false, false, err
		}
		held[i], versions[i] = l.held, version
		sum = sum.plus(l.held)
	}
	room := q.room(sum)
	enough = !room.lacks(need)
	for i, sl := range slots {
		txn := &meta.Txn{Conds: []meta.Cond{{Key: sl.Counter(row.CountLimit), Kind: meta.CondVersion, Version: versions[i]}}}
		switch {
		case q == (Quota{}):
			txn.Deletes = [][]byte{sl.Counter(row.CountLimit)}
		case room.lacks(growth{}):
			continue // what is pinned stays so until something was deleted
		default:
			l := within{by: by, growth: growth{
				limit(q.Bytes, held[i].bytes, room.bytes, need.bytes, i == int(needy.Slot.Slot), len(slots)),
				limit(q.Objects, held[i].objects, room.objects, need.objects, i == int(needy.Slot.Slot), len(slots)),
			}}
			txn.Puts = []meta.Put{{Key: sl.Counter(row.CountLimit), Value: l.encode()}}
		}
		err := s.commit(ctx, sl.shard, txn)
		if _, _, taken := conditionAt(err); taken {
			return false, false, nil
		}
		if err != nil {
			return false, false, err
		}
	}
	return enough, true, nil
}

// limit is what a slot may hold: what it does, its share of the room, and in front
// of that, in the needy one, what it needs.
func limit(quota uint64, held, room, need int64, needy bool, slots int) int64 {
	if quota == 0 {
		return math.MaxInt64
	}
	need = max(0, min(need, room))
	n := held + (room-need)/int64(slots)
	if needy {
		n += need + (room-need)%int64(slots)
	}
	return n
}

// holding is the limit row of a slot with what the slot holds, as of one moment.
type holding struct {
	within
	held growth
}

// holding reads it; ok is false if the slot has no limits.
func (s *Store) holding(ctx context.Context, sl slot) (h holding, version uint64, ok bool, err error) {
	header := sl.Header(row.KindCounter)
	page, err := s.scan(ctx, sl.shard, meta.ScanRequest{Start: header, End: row.Successor(header)})
	if err != nil {
		return h, 0, false, err
	}
	for i := range page.Rows {
		r := &page.Rows[i]
		if r.Key[row.HeaderBytes] == row.CountLimit {
			if h.within, err = decodeWithin(r); err != nil {
				return h, 0, false, err
			}
			version, ok = r.Version, true
			continue
		}
		n, err := counterOf(r)
		if err != nil {
			return h, 0, false, err
		}
		h.held.note(r.Key[row.HeaderBytes], n)
	}
	return h, version, ok, nil
}
