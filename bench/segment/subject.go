package segment

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	log "ashlar/segment"
	"ashlar/segment/format"
)

// operation is what a caller does, the n-th of its side.
type operation func(ctx context.Context, caller int, n int64) error

// turn is what all callers do for a while.
type turn struct {
	operation operation
	most      int64 // the number at which it ends early
	// end, if set, is measured, too: what the log does for the operations after it
	// has answered them. It is told the number that comes next.
	end func(ctx context.Context, next int64) error
	log *log.Log // nil on the raw side
}

func (t *turn) flushes() uint64 { return t.log.Stats().Flushes }

// The most that a log is filled with: as far as new keys go, and what is replaced.
const (
	fullShare = 0.75
	liveShare = 0.25
)

// subject is the log that is measured, with records under the keys 0 to there-1.
type subject struct {
	*bench
	dev           blockdev.IO
	data          [][]byte // what is written
	size, callers int

	log     *log.Log
	dir     string
	there   int64
	most    int64 // the greatest there of the case
	records []log.Record
	bufs    [][]byte // what is read into
}

func (b *bench) subject(dev blockdev.IO, data [][]byte, size, callers int) *subject {
	s := &subject{bench: b, dev: dev, data: data, size: size, callers: callers, records: make([]log.Record, callers), bufs: buffers(callers, size)}
	for i := range s.records {
		s.records[i] = log.Record{Owner: ashlar.Owner{Key: "some/key/of/usual/length.bin"}}
	}
	return s
}

// renew begins an empty log.
func (s *subject) renew(ctx context.Context) error {
	if err := errors.Join(s.close(), clearEnds(s.dev)); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.IndexDir, "ashlar-bench-")
	if err != nil {
		return err
	}
	s.dir = dir
	writers := s.Writers
	if writers == 0 {
		writers = runtime.GOMAXPROCS(0)
	}
	l, err := log.Open(ctx, s.dev, log.Options{
		Disk: ashlar.DiskID(ashlar.NewID()), IndexDir: filepath.Join(dir, "index"),
		SegmentBytes: s.disk.Label().Geometry.SegmentBytes, Writers: writers,
	})
	if err != nil {
		return err
	}
	s.log, s.there = l, 0
	if most := l.Usage().RecordDataMax; int64(s.size) > most {
		return ashlar.E("bench segment", s.Path, ashlar.Invalid, fmt.Errorf(
			"records of %d bytes do not fit the segments of this device, which take %d: name a larger one, or a smaller --size", s.size, most))
	}
	return nil
}

func (s *subject) close() (err error) {
	if s.log != nil {
		err = s.log.Close()
		s.log = nil
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
		s.dir = ""
	}
	return err
}

// room is the number of records that fill a share of the log's segments.
func (s *subject) room(share float64) int64 {
	u := s.log.Usage()
	each := format.TotalBytes(format.RecordHeadBytes(len(s.records[0].Owner.Key)), uint32(s.size))
	segments := u.Capacity / u.SegmentRoom
	return max(int64(s.callers), int64(share*float64(segments*(u.SegmentRoom/each))))
}

func (s *subject) append(ctx context.Context, caller int, n int64) error {
	r := &s.records[caller]
	r.Key, r.Data = key(n), s.data[n%int64(len(s.data))][:s.size]
	return s.log.Append(ctx, r)
}

// appends is a turn of new keys. Its operations are numbered from first.
func (s *subject) appends(ctx context.Context, first int64) (turn, error) {
	if first == 0 || s.there > s.room(fullShare)/4*3 {
		if err := s.renew(ctx); err != nil {
			return turn{}, err
		}
	}
	return s.newKeys(first, fullShare), nil
}

// newKeys is a turn that ends when records make up that share of the log.
func (s *subject) newKeys(first int64, share float64) turn {
	base := s.there - first // the key of number 0
	return turn{
		operation: func(ctx context.Context, caller int, n int64) error { return s.append(ctx, caller, base+n) },
		most:      s.room(share) - base,
		end: func(_ context.Context, next int64) error {
			s.there = base + next
			s.most = max(s.most, s.there)
			return nil
		},
		log: s.log,
	}
}

// replacements is a turn of keys that are there, in their order.
func (s *subject) replacements(ctx context.Context, first int64) (turn, error) {
	if first == 0 {
		if err := s.fill(ctx); err != nil {
			return turn{}, err
		}
	}
	return turn{
		operation: func(ctx context.Context, caller int, n int64) error { return s.append(ctx, caller, n%s.there) },
		most:      math.MaxInt64,
		end:       func(ctx context.Context, _ int64) error { return s.log.Compact(ctx) },
		log:       s.log,
	}, nil
}

// reads is a turn of keys that are there, at random.
func (s *subject) reads(ctx context.Context, _ int64) (turn, error) {
	if s.log == nil {
		if err := s.fill(ctx); err != nil {
			return turn{}, err
		}
	}
	return turn{
		operation: func(ctx context.Context, caller int, _ int64) error {
			return s.log.ReadAt(ctx, key(rand.Int64N(s.there)), s.bufs[caller], 0)
		},
		most: math.MaxInt64,
		log:  s.log,
	}, nil
}

// fill begins a log and appends what is replaced or read later.
func (s *subject) fill(ctx context.Context) error {
	if err := s.renew(ctx); err != nil {
		return err
	}
	return s.spread(ctx, &Side{}, s.callers, time.Hour, s.newKeys(0, liveShare))
}
