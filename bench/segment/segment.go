// Package segment measures the log on one device against the bare device: what
// an append and a read cost in CPU, and how much of the device's own speed is
// left, in the same run on the same device.
//
// The device is a blank one, or a path at which a scratch file is made. It is
// claimed first, as a disk of a cluster that nobody else has, and that is what
// keeps data safe: a claim refuses everything that carries anything, without
// having written a byte. Afterwards the labels are wiped, and a scratch file
// is removed, so that the next run finds it as this one did.
//
// Every case is measured twice: raw, which is aligned I/O of the same size from
// the same number of callers, each write followed by a flush as an append is;
// and through the log. The two take turns of a fraction of a second, each on its
// own part of the device: what a device gives, virtual ones most of all, changes
// by the second, and this way both get the same of it. A turn of the log ends when
// its compaction has nothing left to do, so that no work of the log's slows the raw
// side down. CPU is that of this process, user and system, which holds nothing
// else: the loops of the callers are in it, the kernel's own threads (a loop
// device's) are not.
//
// MB and GB are 10⁶ and 10⁹ bytes, KiB and MiB are 2¹⁰ and 2²⁰.
package segment

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ashlar"
	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev"
	log "ashlar/segment"
	"ashlar/segment/format"
)

// Options of a run.
type Options struct {
	// Path is a blank device, or where a scratch file is made; a file that is
	// there already is refused.
	Path string
	// FileBytes is the size of the scratch file.
	FileBytes int64
	// Engine is how bytes get to the device.
	Engine blockdev.Engine
	// IndexDir is where a directory for the index is made; empty means the
	// system's directory for temporary files.
	IndexDir string
	// Writers is the number of open segments, 0 for one per core.
	Writers int
	// Duration is how long each side of each case is measured, in turns.
	Duration time.Duration
	// Sizes, in bytes, and Callers are the cases.
	Sizes, Callers []int
	// Progress, if set, is told what is being measured.
	Progress func(string)
}

// Side is one measured stretch.
type Side struct {
	Operations int64
	Seconds    float64
	CPU        time.Duration
	// Flushes is zero on reads.
	Flushes uint64
}

// Case is one line of the result.
type Case struct {
	Operation      string // append or read
	Bytes, Callers int
	Log, Raw       Side
}

// BytesPerSecond is the throughput of one side.
func (c *Case) BytesPerSecond(s Side) float64 {
	return float64(s.Operations) * float64(c.Bytes) / max(s.Seconds, 1e-9)
}

// MicrosEach is the CPU time of one operation in µs.
func (s Side) MicrosEach() float64 {
	return float64(s.CPU.Microseconds()) / float64(max(s.Operations, 1))
}

// PerFlush is the number of operations that shared one flush.
func (s Side) PerFlush() float64 { return float64(s.Operations) / float64(max(s.Flushes, 1)) }

// liveShare of the device is filled with records at most; appends then replace
// them, and compaction is part of their price.
const liveShare = 4

// Run measures all cases. What was measured before an error, or before ctx
// ended, is returned with it.
func Run(ctx context.Context, o Options) (cases []Case, err error) {
	disk, release, err := hold(ctx, "bench segment", o.Path, o.FileBytes, o.Engine)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	b := bench{Options: o, disk: disk, data: make([]byte, RecordBytesMax)}
	for i := range b.data {
		b.data[i] = byte(rand.Uint32())
	}
	for _, size := range o.Sizes {
		for _, callers := range o.Callers {
			two, err := b.measure(ctx, size, callers)
			cases = append(cases, two...)
			if err != nil {
				return cases, err
			}
		}
	}
	return cases, nil
}

// RecordBytesMax bounds Options.Sizes.
const RecordBytesMax = 16 * ashlar.MiB

type bench struct {
	Options
	disk *diskmgr.Disk
	data []byte
}

// A side is measured in turns of about that length.
const turnTime = 250 * time.Millisecond

// rawShare of the device, its end, is where the raw side reads and writes.
const rawShare = 4

// measure does one size with one number of callers: appends, then reads.
func (b *bench) measure(ctx context.Context, size, callers int) (cases []Case, err error) {
	whole := b.disk.Device()
	segBytes, block := b.disk.Label().Geometry.SegmentBytes, whole.BlockBytes()
	cut := whole.Bytes() / rawShare * (rawShare - 1) / segBytes * segBytes
	dev, err := blockdev.NewRange(whole, 0, cut, block)
	if err != nil {
		return nil, err
	}
	beside, err := blockdev.NewRange(whole, cut, (whole.Bytes()-cut)/int64(block)*int64(block), block)
	if err != nil {
		return nil, err
	}
	if need := int64(inBlocks(whole, size)); beside.Bytes() < need {
		return nil, ashlar.E("bench segment", b.Path, ashlar.Invalid, fmt.Errorf(
			"records of %d bytes need a device of %d or more, it has %d: name a larger one, or a smaller --size", size, rawShare*need, whole.Bytes()))
	}
	dir, err := os.MkdirTemp(b.IndexDir, "ashlar-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := clearEnds(dev); err != nil { // the log of the case before is gone with its index
		return nil, err
	}
	writers := b.Writers
	if writers == 0 {
		writers = runtime.GOMAXPROCS(0)
	}
	l, err := log.Open(ctx, dev, log.Options{
		Disk: ashlar.DiskID(ashlar.NewID()), IndexDir: filepath.Join(dir, "index"), SegmentBytes: segBytes, Writers: writers,
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if most := l.Usage().RecordDataMax; int64(size) > most {
		return nil, ashlar.E("bench segment", b.Path, ashlar.Invalid, fmt.Errorf(
			"records of %d bytes do not fit the segments of this device, which take %d: name a larger one, or a smaller --size", size, most))
	}
	appends := Case{Operation: "append", Bytes: size, Callers: callers}
	if err := b.inTurns(ctx, l, &appends, b.appends(l, size, callers), b.rawWrites(beside, size, callers)); err != nil {
		return nil, err
	}
	there := min(keys(l, size, callers), appends.Log.Operations)
	reads := Case{Operation: "read", Bytes: size, Callers: callers}
	err = b.inTurns(ctx, l, &reads, b.reads(l, size, callers, there), b.rawReads(beside, size, callers))
	if err != nil {
		return []Case{appends}, err
	}
	return []Case{appends, reads}, nil
}

// inTurns measures both sides of a case. Operations of a side are numbered on from
// turn to turn.
func (b *bench) inTurns(ctx context.Context, l *log.Log, c *Case, one, raw operation) error {
	if b.Progress != nil {
		b.Progress(fmt.Sprintf("%s %d bytes, %d callers", c.Operation, c.Bytes, c.Callers))
	}
	turns := max(1, int(b.Duration/turnTime))
	for range turns {
		if err := b.spread(ctx, &c.Raw, c.Callers, b.Duration/time.Duration(turns), raw, func() error { return nil }); err != nil {
			return err
		}
		if c.Operation == "append" {
			c.Raw.Flushes = uint64(c.Raw.Operations)
		}
		started := l.Stats()
		if err := b.spread(ctx, &c.Log, c.Callers, b.Duration/time.Duration(turns), one, func() error { return l.Compact(ctx) }); err != nil {
			return err
		}
		if c.Operation == "append" {
			c.Log.Flushes += l.Stats().Flushes - started.Flushes
		}
	}
	return nil
}

// clearEnds removes the marks by which a log is found.
func clearEnds(dev blockdev.IO) error {
	zeros := blockdev.Aligned(format.EndBytes)
	_, front := dev.WriteAt(zeros, 0)
	_, back := dev.WriteAt(zeros, dev.Bytes()-format.EndBytes)
	return errors.Join(front, back, dev.Flush())
}

// operation is what a caller does, the n-th in all.
type operation func(ctx context.Context, caller int, n int64) error

// keys is the number of keys that are written before they are replaced.
func keys(l *log.Log, size, callers int) int64 {
	return max(int64(callers), l.Usage().Capacity/liveShare/int64(size))
}

func (b *bench) appends(l *log.Log, size, callers int) operation {
	keys := keys(l, size, callers)
	records := make([]log.Record, callers)
	for i := range records {
		records[i] = log.Record{Data: b.data[:size], Owner: ashlar.Owner{Key: "some/key/of/usual/length.bin"}}
	}
	return func(ctx context.Context, caller int, n int64) error {
		records[caller].Key = key(n % keys)
		return l.Append(ctx, &records[caller])
	}
}

// reads takes one of the first keys, of which so many are there.
func (b *bench) reads(l *log.Log, size, callers int, there int64) operation {
	bufs := buffers(callers, size)
	return func(ctx context.Context, caller int, _ int64) error {
		return l.ReadAt(ctx, key(rand.Int64N(there)), bufs[caller], 0)
	}
}

// rawWrites measures the device below the log, through the same accounting of health.
func (b *bench) rawWrites(dev blockdev.IO, size, callers int) operation {
	bytes := inBlocks(dev, size)
	slots, bufs := dev.Bytes()/int64(bytes), buffers(callers, bytes)
	for _, p := range bufs {
		copy(p, b.data)
	}
	return func(_ context.Context, caller int, n int64) error {
		if _, err := dev.WriteAt(bufs[caller], n%slots*int64(bytes)); err != nil {
			return err
		}
		return dev.Flush()
	}
}

func (b *bench) rawReads(dev blockdev.IO, size, callers int) operation {
	bytes := inBlocks(dev, size)
	slots, bufs := dev.Bytes()/int64(bytes), buffers(callers, bytes)
	return func(_ context.Context, caller int, _ int64) error {
		_, err := dev.ReadAt(bufs[caller], rand.Int64N(slots)*int64(bytes))
		return err
	}
}

func inBlocks(dev blockdev.IO, size int) int {
	return (size + dev.BlockBytes() - 1) / dev.BlockBytes() * dev.BlockBytes()
}

func buffers(n, bytes int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = blockdev.Aligned(bytes)
	}
	return all
}

// spread runs op from all callers, each once at least, until the time is over, and
// then end; it adds all that to the side. Number n counts on from the side's operations
// without gaps. The first failure stops all callers and is the one that is returned.
func (b *bench) spread(ctx context.Context, s *Side, callers int, turn time.Duration, op operation, end func() error) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var next, done atomic.Int64
	next.Store(s.Operations)
	var all sync.WaitGroup
	start, before := time.Now(), cpu()
	for c := range callers {
		all.Go(func() {
			for first := true; (first || time.Since(start) < turn) && ctx.Err() == nil; first = false {
				if err := op(ctx, c, next.Add(1)-1); err != nil {
					fail(err)
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	err := context.Cause(ctx)
	if err == nil {
		err = end()
	}
	s.Operations += done.Load()
	s.Seconds += time.Since(start).Seconds()
	s.CPU += cpu() - before
	return err
}

// cpu is the processor time of this process so far.
func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0 // cannot fail for one's own process
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
