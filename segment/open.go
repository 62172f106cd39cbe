package segment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"ashlar"
	"ashlar/segment/format"
)

// Sizes that are chosen when none is given.
const (
	segmentBytesDefaultMax = 256 * ashlar.MiB
	// Below this a segment does not hold the longest pieces of usual codes.
	segmentBytesSmall = 8 * ashlar.MiB
	segmentsWanted    = 32
	segmentsFew       = 16
)

// DefaultSegmentBytes is the segment size chosen for a device of that length:
// a 32nd of it, rounded down to a power of two, at most 256 MiB; on devices
// below 256 MiB a 16th, at most 8 MiB.
func DefaultSegmentBytes(deviceBytes int64) int64 {
	floor := func(n int64) int64 { return int64(1) << max(bits.Len64(uint64(max(n, 1)))-1, 0) }
	n := floor(deviceBytes / segmentsWanted)
	if n < segmentBytesSmall {
		n = min(floor(deviceBytes/segmentsFew), segmentBytesSmall)
	}
	return max(min(n, segmentBytesDefaultMax), format.SegmentBytesMin)
}

// Open opens the log on dev, recovers what the last run left, and starts the
// writers. A device on which nothing of this disk is found becomes an empty
// log. Kinds: Invalid (geometry, another disk's log, a newer format),
// Unavailable (the device failed or hung), Internal (the index directory).
//
// The caller keeps dev open until Close returned, and is the only one to write
// to it.
func Open(ctx context.Context, dev Device, opt Options) (*Log, error) {
	opt = opt.withDefaults()
	l := &Log{
		dev: dev, opt: opt, block: dev.BlockBytes(), hash: maphash.MakeSeed(),
		reads: make(chan struct{}, opt.ReadsMax), closing: make(chan struct{}),
	}
	if opt.Writers < 1 || opt.Writers > WritersMax || opt.IndexDir == "" {
		return nil, l.fail("open", "", ashlar.Invalid, fmt.Errorf("%d writers, index in %q", opt.Writers, opt.IndexDir))
	}
	if opt.BatchBytes < 0 || opt.BatchBytes > RecordDataMax {
		return nil, l.fail("open", "", ashlar.Invalid, fmt.Errorf("batches of %d bytes: want at most %d", opt.BatchBytes, RecordDataMax))
	}
	r := recovery{log: l, ctx: ctx, began: opt.hooks.now()}
	r.sink = r.enter
	if err := r.run(); err != nil {
		if l.index != nil {
			l.index.close()
		}
		return nil, err
	}
	l.start()
	return l, nil
}

// start sets the writers and the compactor to work. The keys of the index are
// learned meanwhile.
func (l *Log) start() {
	l.seen = newSeen(l.hash, l.dev.Bytes())
	l.running.Add(1)
	go l.learn() // ends by itself, or when closing is closed
	l.partitions = make([]partition, l.opt.Writers)
	for id := range l.opt.Writers + 1 {
		l.writers = append(l.writers, newWriter(l, id))
	}
	l.compact.init(l)
	// The next Open rebuilds a damaged index; until then nothing may trust it to judge a write.
	damaged := func(err error) { l.fence("index", err) }
	l.index.damaged.Store(&damaged)
	l.pulse.start()
	go l.pulse.run(l.opt.IOTimeout, l.writers) // ends behind the writers
	l.running.Add(len(l.writers) + 1)
	for _, w := range l.writers {
		go w.run() // ends when closing is closed, the next two behind it
		go w.drive()
		go w.settle()
	}
	go l.compact.run() // likewise
}

// recovery is the work of Open, in the order of its methods.
type recovery struct {
	log    *Log
	ctx    context.Context
	began  time.Time
	anchor format.Anchor // of the run before; Count 0 if the device is new
	run_   uint64        // the run that begins
	known  bool          // the index has seen the run before
	seals  []seal
	sink   sink
	seen   *seen  // the keys that were entered, if the index began empty
	top    uint64 // greatest sequence number seen
	stats  struct{ scanned, records, bad, torn, unreadable, salvaged int }
}

// seal is a segment that was left open and gets its footer now.
type seal struct {
	segment int
	life    format.Life
	found   found
	block   int64
}

// sink takes the records of one life of a segment and, if seg is not nil, its
// new state. The index is one; the explorer of crash states has another.
type sink func(i int, life format.Life, entries []format.Entry, seg *segRow) error

var errInconsistent = errors.New("the index does not match itself")

func (r *recovery) run() error {
	l := r.log
	if err := r.findAnchor(); err != nil {
		return err
	}
	// What can be read from now on is on the medium: a run that was killed may
	// have left writes in the device's cache.
	if err := l.timed(r.ctx, l.dev.Flush); err != nil {
		return l.fail("open", "flush", ashlar.Unavailable, err)
	}
	var err error
	if l.index, err = openIndex(l.opt.IndexDir, l.opt.hooks.fs, l.opt.IndexCacheBytes, l.opt.Log); err != nil {
		return l.fail("open", "index", ashlar.Internal, err)
	}
	id, ok := l.index.identity()
	r.known = ok && l.opt.Rebuild == RebuildIfLost && r.anchor.Count > 0 && id.disk == l.opt.Disk && (id.run == r.anchor.Run || id.next == r.anchor.Run)
	if r.known && !l.index.complete() {
		l.opt.Log.Warn("segment: the index has lost its end and is rebuilt", "disk", l.opt.Disk)
		r.known = false
	}
	r.run_ = l.opt.hooks.random()
	if err = r.collect(); r.known && ashlar.Is(err, ashlar.Internal) {
		l.opt.Log.Warn("segment: the index is damaged and is rebuilt", "disk", l.opt.Disk, "error", err)
		if err = r.renewIndex(); err == nil {
			err = r.collect()
		}
	}
	if err != nil {
		return l.wrapIndex("open", "", err)
	}
	if err := r.writeAnchor(); err != nil {
		return err
	}
	return r.settle()
}

// renewIndex puts an empty index in the place of one that cannot be read.
func (r *recovery) renewIndex() error {
	l := r.log
	r.known = false
	l.index.close() // what it cannot write any more is not missed
	l.index = nil
	fs := l.opt.hooks.fs
	if err := fs.RemoveAll(l.opt.IndexDir); err != nil {
		return err
	}
	var err error
	l.index, err = openIndex(l.opt.IndexDir, fs, l.opt.IndexCacheBytes, l.opt.Log)
	return err
}

// collect reads what the index may not know, without writing to the device,
// and leaves a complete index, the segment table and the list of seals.
func (r *recovery) collect() error {
	l := r.log
	r.reset()
	var err error
	if r.known {
		err = r.collectOpen()
	} else if err = l.index.wipe(); err == nil {
		r.seen = newSeen(l.hash, l.dev.Bytes())
		r.seen.complete.Store(true) // the index is empty
		err = r.collectAll()
		r.seen = nil
	}
	if err != nil {
		return err
	}
	if err := r.sweep(); err != nil {
		return err
	}
	l.sequence.Store(r.top)
	return nil
}

// reset takes over the geometry of the anchor and what it says of earlier runs.
func (r *recovery) reset() {
	l := r.log
	l.table = make([]segment, r.anchor.Segments)
	for i := range l.table {
		l.table[i].stuck.Store(-1)
	}
	r.seals, r.top = nil, r.anchor.SequenceMin
	l.generation.Store(r.anchor.GenerationMin)
}

// settle makes the outcome durable: footers, then their rows, then the run.
func (r *recovery) settle() error {
	l := r.log
	b := l.index.db.NewBatch()
	defer b.Close()
	for _, s := range r.seals {
		if err := r.writeFooter(s); err != nil {
			return err
		}
		end := uint32(s.found.end)
		l.table[s.segment].end.Store(end)
		l.table[s.segment].state.Store(uint32(segSealed))
		err := setSeg(b, s.segment, segRow{segSealed, s.life.Generation, s.life.Salt, end, s.found.top})
		if err != nil {
			return l.wrapIndex("open", "", err)
		}
	}
	if len(r.seals) > 0 {
		if err := l.timed(r.ctx, l.dev.Flush); err != nil {
			return l.fail("open", "flush", ashlar.Unavailable, err)
		}
	}
	if err := b.Set([]byte{'m'}, identity{l.opt.Disk, r.run_, r.run_}.encode(), nil); err != nil {
		return l.wrapIndex("open", "", err)
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return l.wrapIndex("open", "", err)
	}
	for i := len(l.table) - 1; i >= 0; i-- {
		if l.table[i].is(segFree) {
			l.mu.free = append(l.mu.free, i)
		}
	}
	s := &r.stats
	l.opt.Log.Info("segment: open", "disk", l.opt.Disk, "segments", len(l.table), "free", len(l.mu.free),
		"pieces", l.pieces.Load(), "index_known", r.known, "scanned", s.scanned, "records", s.records, "torn", s.torn,
		"bad", s.bad, "unreadable", s.unreadable, "salvaged", s.salvaged, "took", l.opt.hooks.now().Sub(r.began))
	return nil
}

func (r *recovery) writeFooter(s seal) error {
	l := r.log
	sum, err := segmentSum(l.window(r.ctx, s.segment), s.found.end)
	if err != nil {
		// Unreadable spots stay so for the verifier; the records are listed all the same.
		sum = 0
	}
	t := format.Trailer{
		Life: s.life, Segment: uint32(s.segment), End: uint32(s.found.end), SequenceLow: s.found.low,
		SequenceTop: s.found.top, SegmentSum: sum, Sealed: uint64(l.opt.hooks.now().UnixNano()),
	}
	footer := aligned(int(format.FooterBytes(len(s.found.entries), l.block)), l.block)
	format.EncodeFooter(footer, &t, s.found.entries, l.segBytes, l.block)
	err = l.timed(r.ctx, func() error {
		_, err := l.dev.WriteAt(footer, l.offset(s.segment)+l.segBytes-int64(len(footer)))
		return err
	})
	if err != nil {
		return l.fail("open", fmt.Sprintf("seg=%d footer", s.segment), ashlar.Unavailable, err)
	}
	return nil
}

// lost finds the pieces that the index knows in a segment and the scan of it did
// not find: the device acknowledged and lost them. The footer that the segment gets
// now lists them all the same, so that they are found bad, by a scrub or without
// an index, and do not just cease to be.
type lost map[uint32]*lostIn

type lostIn struct {
	seal  *seal
	found map[uint64]bool // by sequence number
}

func newLost(seals []seal) lost {
	all := lost{}
	for i := range seals {
		s := &seals[i]
		in := &lostIn{s, make(map[uint64]bool, len(s.found.entries))}
		for _, e := range s.found.entries {
			in.found[e.Sequence] = true
		}
		all[uint32(s.segment)] = in
	}
	return all
}

func (l lost) note(x *row) {
	in := l[x.segment]
	if in == nil || x.generation != in.seal.life.Generation || in.found[x.Sequence] {
		return
	}
	f := &in.seal.found
	at, _ := slices.BinarySearchFunc(f.entries, x.Offset, func(e format.Entry, off uint32) int { return cmp.Compare(e.Offset, off) })
	f.entries = slices.Insert(f.entries, at, x.Entry)
	f.end = max(f.end, format.AlignUp(int64(x.Offset)+x.TotalBytes(), in.seal.block))
	f.top = max(f.top, x.Sequence)
	if f.low == 0 || x.Sequence < f.low {
		f.low = x.Sequence
	}
}

// sweep walks the whole index once: it counts what is live, drops rows of
// segments that are gone, and tombstones that hide nothing any more.
func (r *recovery) sweep() error {
	l := r.log
	l.live.Store(0)
	l.gone.Store(0)
	l.pieces.Store(0)
	b := l.index.db.NewBatch()
	defer b.Close()
	lost := newLost(r.seals)
	var tomb *row // the current record of the key at hand, if it is a tombstone that hides nothing so far
	drop := func() error {
		if tomb == nil {
			return nil
		}
		var key [keyRowBytes]byte
		err := b.Delete(tomb.key().row(key[:]), nil)
		tomb = nil
		return err
	}
	err := l.index.rows(func(x *row, old bool) (bool, error) {
		r.top = max(r.top, x.Sequence)
		if int(x.segment) >= len(l.table) {
			return false, errInconsistent
		}
		s := &l.table[x.segment]
		gone := s.generation.Load() != x.generation || s.is(segFree)
		if !old {
			if err := drop(); err != nil {
				return false, err
			}
			if gone {
				return false, errInconsistent
			}
			if x.Type == format.Tombstone {
				tomb = x
			} else {
				l.account(x, 1)
				lost.note(x)
			}
			return true, r.ctx.Err()
		}
		if gone {
			var key [oldRowBytes]byte
			return true, b.Delete(x.oldRow(key[:]), nil)
		}
		if tomb != nil && tomb.key() == x.key() {
			l.account(tomb, 1)
			tomb = nil
		}
		return true, nil
	})
	if err == nil {
		err = drop()
	}
	if err == nil {
		err = b.Commit(pebble.NoSync)
	}
	switch {
	case err == nil || errors.Is(err, errInconsistent):
		return err
	case r.ctx.Err() != nil:
		return l.fail("open", "", ashlar.Unavailable, err)
	}
	return l.wrapIndex("open", "", err)
}
