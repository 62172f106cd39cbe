package diskmgr

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/label"
)

const (
	// streamBytes is the size of one sequential I/O.
	streamBytes = ashlar.MiB
	// samplesMax bounds the latencies that are kept of one phase.
	samplesMax = 1 << 17
)

// measure finds out what the disk can do, in four phases of equal length:
// sequential write, sequential read, random 4 KiB read, 4 KiB write with flush.
// It overwrites the data area, which holds nothing yet, with random bytes: a
// device that compresses or drops zeros would flatter itself.
func measure(ctx context.Context, dev blockdev.IO, g label.Geometry, length time.Duration) (label.Baseline, error) {
	data, err := blockdev.NewRange(dev, g.DataOffset, g.Data, g.BlockBytes)
	if err != nil {
		return label.Baseline{}, err
	}
	m := meter{ctx: ctx, dev: data, phase: length / 4, buf: blockdev.Aligned(streamBytes)}
	for i := range m.buf {
		m.buf[i] = byte(rand.Uint32())
	}
	written, writeTime := m.stream(data.WriteAt, data.Bytes())
	start := time.Now()
	m.note(data.Flush())
	writeRate := rate(written, writeTime+time.Since(start))
	written = min(written, data.Bytes())
	read, readTime := m.stream(data.ReadAt, written)
	small := m.buf[:g.BlockBytes]
	blocks := max(1, written/int64(g.BlockBytes))
	reads := m.sample(func(int64) (int, error) {
		return data.ReadAt(small, rand.Int64N(blocks)*int64(g.BlockBytes))
	})
	flushes := m.sample(func(n int64) (int, error) {
		if _, err := data.WriteAt(small, n%blocks*int64(g.BlockBytes)); err != nil {
			return 0, err
		}
		return 0, data.Flush()
	})
	if m.err != nil {
		return label.Baseline{}, m.err
	}
	return label.Baseline{
		Measured:  wall(time.Now()),
		WriteRate: writeRate, ReadRate: rate(read, readTime),
		ReadMedian: percentile(reads, 50), ReadP99: percentile(reads, 99),
		FlushMedian: percentile(flushes, 50), FlushP99: percentile(flushes, 99),
	}, nil
}

// meter runs the phases; after the first error the others do nothing.
type meter struct {
	ctx   context.Context
	dev   blockdev.IO
	phase time.Duration
	buf   []byte
	err   error
}

func (m *meter) note(err error) {
	if m.err == nil {
		m.err = err
	}
}

func (m *meter) over(start time.Time) bool {
	m.note(m.ctx.Err())
	return m.err != nil || time.Since(start) >= m.phase
}

// stream moves bytes in order, starting again at the end of the range, until the
// phase is over, but once at least.
func (m *meter) stream(move func([]byte, int64) (int, error), bytes int64) (moved int64, took time.Duration) {
	start := time.Now()
	if bytes < streamBytes {
		return 0, 0
	}
	for moved == 0 || !m.over(start) {
		_, err := move(m.buf, moved%(bytes-bytes%streamBytes))
		m.note(err)
		if m.err != nil {
			return moved, time.Since(start)
		}
		moved += streamBytes
	}
	return moved, time.Since(start)
}

// sample times single I/Os until the phase is over, but one at least.
func (m *meter) sample(one func(n int64) (int, error)) []time.Duration {
	var took []time.Duration
	for start := time.Now(); len(took) == 0 || (!m.over(start) && len(took) < samplesMax); {
		before := time.Now()
		_, err := one(int64(len(took)))
		m.note(err)
		if m.err != nil {
			return nil
		}
		took = append(took, time.Since(before))
	}
	return took
}

func rate(bytes int64, took time.Duration) int64 {
	if took <= 0 {
		return 0
	}
	return int64(float64(bytes) / took.Seconds())
}

func percentile(took []time.Duration, percent int) time.Duration {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[min(len(took)-1, len(took)*percent/100)]
}
