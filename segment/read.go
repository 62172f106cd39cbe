package segment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ashlar"
	"ashlar/segment/format"
)

// lookup returns the current record of the key.
func (l *Log) lookup(op string, key Key) (row, error) {
	l.use.RLock()
	defer l.use.RUnlock()
	if l.closed {
		return row{}, l.fail(op, key, ashlar.Unavailable, errClosed)
	}
	r, ok, err := get(l.index.db, key)
	if err != nil {
		return row{}, l.wrapIndex(op, key, err)
	}
	if !ok || r.Type != format.Piece {
		return row{}, l.fail(op, key, ashlar.NotFound, nil)
	}
	return r, nil
}

// pin keeps the record's segment from being freed. It fails when the segment
// has become free since the record was looked up; the record is elsewhere then.
func (l *Log) pin(r *row) bool {
	s := &l.table[r.segment]
	s.pins.Add(1)
	if s.generation.Load() == r.generation && (s.is(segSealed) || s.is(segOpen)) {
		return true
	}
	s.pins.Add(-1)
	return false
}

func (l *Log) unpin(r *row) { l.table[r.segment].pins.Add(-1) }

// located calls fn with the record pinned where it lies.
func (l *Log) located(op string, key Key, fn func(r *row) error) error {
	for range lookupTries {
		r, err := l.lookup(op, key)
		if err != nil {
			return err
		}
		if !l.pin(&r) {
			continue
		}
		defer l.unpin(&r)
		return fn(&r)
	}
	return l.fail(op, key, ashlar.Unavailable, errors.New("the record keeps moving"))
}

// ReadAt fills dst with the bytes of the piece from off on. Every byte is
// verified; on an error nothing in dst means anything. It costs one contiguous
// device read of the cells that hold the range; a failed read or checksum is
// tried once more. Kinds: NotFound, Invalid (the range is beyond the piece),
// Corrupt (a CorruptError is the cause; the rest of the piece may be sound),
// Unavailable (deadline, or an I/O error, which is then the cause).
func (l *Log) ReadAt(ctx context.Context, key Key, dst []byte, off int64) error {
	return l.located("read", key, func(r *row) error {
		if off < 0 || off+int64(len(dst)) > int64(r.DataBytes) {
			return l.fail("read", key, ashlar.Invalid,
				fmt.Errorf("bytes %d to %d of %d", off, off+int64(len(dst)), r.DataBytes))
		}
		if len(dst) == 0 {
			return nil
		}
		l.stats.reads.Add(1)
		l.stats.bytesRead.Add(uint64(len(dst)))
		return l.readRange(ctx, r, dst, off)
	})
}

const codedCell = format.CellBytes + format.SumBytes

func (l *Log) readRange(ctx context.Context, r *row, dst []byte, off int64) error {
	first, last := off/format.CellBytes, (off+int64(len(dst))-1)/format.CellBytes
	base := l.offset(int(r.segment)) + int64(r.Offset) + int64(r.HeadBytes)
	start := base + first*codedCell
	end := min(base+(last+1)*codedCell, base+format.CodedBytes(r.DataBytes))
	var err error
	for try := range readTries {
		if try > 0 {
			l.stats.readRetries.Add(1)
		}
		var buf *buffer
		var coded []byte
		if buf, coded, err = l.fetch(ctx, start, end-start); err != nil {
			if ctx.Err() != nil {
				break
			}
			continue
		}
		corrupt := l.decode(r, coded, uint32(first), start, dst, off-first*format.CellBytes)
		putBuffer(buf)
		if corrupt == nil {
			return nil
		}
		err = corrupt
	}
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		l.stats.corruptReads.Add(1)
		return l.fail("read", r.key(), ashlar.Corrupt, err)
	}
	return l.fail("read", r.key(), ashlar.Unavailable, err)
}

// decode verifies the cells in coded, the first of which has that number and
// device offset, and copies their data to dst, leaving out skip bytes in front.
func (l *Log) decode(r *row, coded []byte, number uint32, at int64, dst []byte, skip int64) error {
	life := format.Life{Disk: l.opt.Disk, Generation: r.generation, Salt: l.table[r.segment].salt.Load()}
	seed := format.Cells(life, r.Stripe, r.Piece, r.Sequence, r.Offset)
	for len(coded) > 0 {
		n := min(codedCell, len(coded))
		data, want, got := seed.CheckCell(number, coded[:n])
		if want != got {
			return &CorruptError{Disk: l.opt.Disk, Key: r.key(), Segment: int(r.segment), Offset: at, Want: want, Got: got}
		}
		dst = dst[copy(dst, data[skip:]):]
		coded, number, at, skip = coded[n:], number+1, at+int64(n), 0
	}
	return nil
}

// fetch reads the bytes [off, off+n) of the device with one aligned read. The
// caller gives buf back with putBuffer. A read that the device does not answer
// in time keeps its slot and its buffer until it does.
func (l *Log) fetch(ctx context.Context, off, n int64) (*buffer, []byte, error) {
	block := int64(l.block)
	low := off &^ (block - 1)
	length := format.AlignUp(off+n, block) - low
	timer := time.NewTimer(l.opt.IOTimeout)
	defer timer.Stop()
	select {
	case l.reads <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	case <-timer.C:
		return nil, nil, errors.New("too many reads wait for the device")
	}
	buf := getBuffer(int(length))
	got := buf.bytes[off-low : off-low+n]
	done := make(chan error, 1)
	read := func() { // ends when the device answers
		_, err := l.dev.ReadAt(buf.bytes[:length], low)
		<-l.reads
		done <- err
	}
	if l.opt.hooks.direct {
		read()
	} else {
		go read()
	}
	var err error
	select {
	case err = <-done:
		if err != nil {
			putBuffer(buf)
			return nil, nil, err
		}
		return buf, got, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-timer.C:
		err = fmt.Errorf("no answer to a read at %#x: %w", low, context.DeadlineExceeded)
	}
	go func() {
		<-done
		putBuffer(buf)
	}()
	return nil, nil, err
}

// Has reports whether the key is stored. It asks the index only.
func (l *Log) Has(key Key) bool {
	_, err := l.lookup("has", key)
	return err == nil
}

// Stat returns what the index knows of the key. Kinds: NotFound, Unavailable (closed).
func (l *Log) Stat(key Key) (Info, error) {
	r, err := l.lookup("stat", key)
	if err != nil {
		return Info{}, err
	}
	return r.info(), nil
}

func (r *row) info() Info {
	return Info{
		Key: r.key(), Group: r.Group, Code: r.Code, StripeBytes: r.StripeBytes,
		Bytes: r.DataBytes, Written: time.Unix(0, r.Written).UTC(),
	}
}

// Describe returns the record without its data, read from the device: it is
// how the owner of a piece is found. Kinds as of ReadAt.
func (l *Log) Describe(ctx context.Context, key Key) (Record, error) {
	var rec Record
	err := l.located("describe", key, func(r *row) error {
		buf, p, err := l.fetch(ctx, l.offset(int(r.segment))+int64(r.Offset), int64(r.HeadBytes))
		if err != nil {
			return l.fail("describe", key, ashlar.Unavailable, err)
		}
		defer putBuffer(buf)
		h, err := format.DecodeRecord(p, l.opt.Disk)
		if err == nil && !l.isAt(&h, r) {
			err = format.ErrAbsent
		}
		if err != nil {
			return l.fail("describe", key, ashlar.Corrupt, err)
		}
		rec = Record{Key: key, Group: h.Group, Code: h.Code, StripeBytes: h.StripeBytes, Owner: h.Owner,
			Written: time.Unix(0, h.Written).UTC()}
		return nil
	})
	return rec, err
}

// isAt reports whether the header is that of the record which the row names.
func (l *Log) isAt(h *format.Record, r *row) bool {
	return h.Generation == r.generation && h.Salt == l.table[r.segment].salt.Load() && h.Offset == r.Offset &&
		h.Sequence == r.Sequence && h.Stripe == r.Stripe && h.Piece == r.Piece && h.DataBytes == r.DataBytes
}

// Each calls fn for every stored piece in the order of stripe ids until fn
// returns false. It sees the log as of one moment, near its start.
func (l *Log) Each(ctx context.Context, fn func(Info) bool) error {
	return l.EachFrom(ctx, ashlar.StripeID{}, fn)
}

// EachFrom is Each from the pieces of a stripe on, so that a long walk can be
// made in steps that hold nothing in between.
func (l *Log) EachFrom(ctx context.Context, from ashlar.StripeID, fn func(Info) bool) error {
	l.use.RLock()
	defer l.use.RUnlock()
	if l.closed {
		return l.fail("each", "", ashlar.Unavailable, errClosed)
	}
	err := l.index.rowsFrom(from, func(r *row, old bool) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		return old || r.Type != format.Piece || fn(r.info()), nil
	})
	if err != nil && ctx.Err() != nil {
		return l.fail("each", "", ashlar.Unavailable, err)
	}
	return l.wrapIndex("each", "", err)
}
