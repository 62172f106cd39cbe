package scrub

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"ashlar"
	"ashlar/daemon/stripe"
	"ashlar/daemon/wire"
	"ashlar/segment"
)

// disk is the scrub of one disk. Its goroutine owns everything but status.
type disk struct {
	cfg    *Config
	disk   Disk
	log    *slog.Logger
	pos    *position
	status atomic.Pointer[Status]
	buf    []byte    // what pieces are read again into
	free   time.Time // when the budget allows the next read
	saved  time.Time
	looked time.Time // at the waiting pieces
	tries  int       // of the segment that is next
}

// chunkBytes is how much of a piece is read at once to look at it again.
const chunkBytes = ashlar.MiB

func newDisk(cfg *Config, d Disk) *disk {
	s := &disk{cfg: cfg, disk: d, log: cfg.Log.With("disk", d.Name)}
	s.pos = s.load()
	s.publish()
	return s
}

// run scrubs until ctx ends.
func (d *disk) run(ctx context.Context) {
	for ctx.Err() == nil {
		d.cfg.clock.wait(ctx, d.step(ctx))
	}
	d.save()
}

// rest is the time between two looks where nothing is due.
func (d *disk) rest() time.Duration {
	return min(max(d.cfg.Period/64, restMin), restMax)
}

func (d *disk) well() bool { return d.disk.Well == nil || d.disk.Well() }

// step does what is due now and returns when to come again.
func (d *disk) step(ctx context.Context) time.Time {
	now := d.cfg.clock.now()
	if !d.well() {
		return now.Add(d.rest())
	}
	if len(d.pos.Waiting) > 0 && now.Sub(d.looked) >= d.rest() {
		d.lookAgain(ctx)
		d.looked = d.cfg.clock.now()
	}
	p := d.pos
	if p.Next >= p.Segments {
		d.endPass(now)
		return p.due(0, d.cfg.Period)
	}
	next := p.due(p.Next, d.cfg.Period)
	if now.Before(next) {
		if len(p.Waiting) > 0 {
			next = earlier(next, d.looked.Add(d.rest()))
		}
		d.saveNowAndThen()
		return next
	}
	if !d.segment(ctx, p.Next) {
		return now.Add(d.rest())
	}
	d.tries = 0
	p.passed(d.cfg.clock.now())
	d.publish()
	d.saveNowAndThen()
	if p.Next >= p.Segments {
		return d.cfg.clock.now()
	}
	return p.due(p.Next, d.cfg.Period)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// endPass ends a pass and begins the next one, at the time it is due or now if
// that is over.
func (d *disk) endPass(now time.Time) {
	found := d.pos.Now
	d.pos.endPass(now, d.cfg.Period)
	d.log.Info("scrub: a full pass ended", "repaired", found.Repaired, "deleted", found.Gone, "flips", found.Flips,
		"unread segments", found.Unread, "waiting", len(d.pos.Waiting))
	d.publish()
	d.save()
}

// segment verifies one segment and takes care of what it finds. False means
// that it must be tried again.
func (d *disk) segment(ctx context.Context, i int) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rep, err := d.disk.Log.VerifyPaced(ctx, i, func(n int) {
		if d.pace(ctx, n); !d.well() {
			cancel()
		}
	})
	if ctx.Err() != nil || !d.well() {
		return false // what was read or not read on the way says nothing
	}
	if err != nil {
		return d.gaveUp(i, err)
	}
	for _, key := range rep.Bad {
		if err := d.judge(ctx, i, key); ctx.Err() != nil || !d.well() {
			return false
		} else if err != nil {
			return d.gaveUp(i, err)
		}
	}
	d.pos.Bytes += uint64(rep.Bytes)
	if rep.Sealed && !rep.SumMatches && len(rep.Bad) == 0 {
		d.log.Info("scrub: a segment is damaged where nothing lives", "segment", i, "good records", rep.Records)
	}
	return true
}

// gaveUp counts a segment that could not be read often enough.
func (d *disk) gaveUp(i int, err error) bool {
	if d.tries++; d.tries < triesMax {
		return false
	}
	d.pos.Now.Unread++
	d.pos.Hole = true
	d.log.Warn("scrub: a segment could not be read", "segment", i, "tries", d.tries, "cause", err)
	return true
}

// pace waits until the budget allows n more bytes.
func (d *disk) pace(ctx context.Context, n int) {
	if now := d.cfg.clock.now(); d.free.After(now) {
		d.cfg.clock.wait(ctx, d.free)
	} else {
		d.free = now
	}
	d.free = d.free.Add(time.Duration(float64(n) / float64(d.cfg.BytesPerSecond) * float64(time.Second)))
}

// judge reads a piece again that Verify found bad, and reports it if it still is.
func (d *disk) judge(ctx context.Context, i int, key segment.Key) error {
	v, err := d.look(ctx, key)
	switch v {
	case right:
		d.pos.Now.Flips++
		d.log.Info("scrub: a piece was wrong on the way only", "segment", i, "piece", key)
	case damaged:
		offset := int64(-1) // the header's is not known
		var corrupt *segment.CorruptError
		if errors.As(err, &corrupt) {
			i, offset = corrupt.Segment, corrupt.Offset
		}
		d.report(ctx, i, offset, key, err)
	case absent:
	case unclear:
		return err
	}
	return nil
}

// verdict is what a look at a piece found.
type verdict uint8

const (
	right   verdict = iota
	damaged         // changed, or a place that cannot be read
	absent
	unclear // the disk did not answer
)

// look reads a piece, header and all, until it is right or was wrong each of
// several times. The error says why it is damaged or unclear.
func (d *disk) look(ctx context.Context, key segment.Key) (verdict, error) {
	var err error
	for range triesMax {
		if err = d.read(ctx, key); err == nil {
			return right, nil
		}
		if ashlar.Is(err, ashlar.NotFound) {
			return absent, nil
		}
		if ctx.Err() != nil {
			return unclear, err
		}
	}
	if ashlar.Is(err, ashlar.Corrupt) || errors.Is(err, syscall.EIO) {
		return damaged, err
	}
	return unclear, err
}

func (d *disk) read(ctx context.Context, key segment.Key) error {
	info, err := d.disk.Log.Stat(key)
	if err != nil {
		return err
	}
	if _, err := d.disk.Log.Describe(ctx, key); err != nil {
		return err
	}
	if d.buf == nil {
		d.buf = make([]byte, chunkBytes)
	}
	for off := int64(0); off < int64(info.Bytes); off += chunkBytes {
		n := min(chunkBytes, int64(info.Bytes)-off)
		d.pace(ctx, int(n))
		if err := d.disk.Log.ReadAt(ctx, key, d.buf[:n], off); err != nil {
			return err
		}
	}
	return nil
}

// report hands a damaged piece to repair and remembers it.
func (d *disk) report(ctx context.Context, i int, offset int64, key segment.Key, cause error) {
	m, owned, err := d.missed(ctx, key)
	if err != nil {
		return // deleted or replaced in between
	}
	if d.pos.wait(key) {
		d.log.Warn("scrub: a piece is not what was written", "segment", i, "offset", offset, "piece", key,
			"owner known", owned, "cause", cause)
	}
	if d.cfg.Report != nil {
		d.cfg.Report(m)
	}
}

// missed describes a piece by its header or, where that is damaged, by the
// index, which does not know the owner.
func (d *disk) missed(ctx context.Context, key segment.Key) (m stripe.Missed, owned bool, err error) {
	m.PieceID = wire.PieceID{Stripe: key.Stripe, Index: key.Piece}
	if rec, err := d.disk.Log.Describe(ctx, key); err == nil {
		m.Code, m.StripeBytes, m.Owner, m.Written = rec.Code, rec.StripeBytes, rec.Owner, rec.Written
		return m, true, nil
	}
	info, err := d.disk.Log.Stat(key)
	m.Code, m.StripeBytes, m.Written = info.Code, info.StripeBytes, info.Written
	return m, false, err
}

// lookAgain looks at some of the pieces that wait, the longest waiting first.
func (d *disk) lookAgain(ctx context.Context) {
	keys := d.pos.Waiting[:min(looksMax, len(d.pos.Waiting))]
	still := make([]waiting, 0, len(keys))
	for n, w := range keys {
		key := w.key()
		v, err := d.look(ctx, key)
		if ctx.Err() != nil || !d.well() {
			still = append(still, keys[n:]...)
			break
		}
		switch v {
		case right:
			d.pos.Now.Repaired++
			d.log.Info("scrub: a piece is right again", "piece", key)
		case absent:
			d.pos.Now.Gone++
		case damaged:
			still = append(still, w)
			d.report(ctx, 0, -1, key, err)
		case unclear:
			still = append(still, w)
		}
	}
	d.pos.Waiting = append(append([]waiting{}, d.pos.Waiting[len(keys):]...), still...)
	d.publish()
	d.save()
}

// publish shows how things stand.
func (d *disk) publish() {
	p := d.pos
	d.status.Store(&Status{
		Period: d.cfg.Period, Last: p.Last, Due: p.Pass.Add(d.cfg.Period), Oldest: p.oldest(), Bytes: p.Bytes,
		Waiting: uint64(len(p.Waiting)), Repaired: p.Now.Repaired + p.Before.Repaired, Unread: p.Now.Unread + p.Before.Unread,
	})
}
