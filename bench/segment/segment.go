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
// by the second, and this way both get the same of it. A turn of replacements ends when
// compaction has nothing left to do, so that no work of the log's slows the raw
// side down. CPU is that of this process, user and system, which holds nothing
// else: the loops of the callers are in it, the kernel's own threads (a loop
// device's) are not.
//
// MB and GB are 10⁶ and 10⁹ bytes, KiB and MiB are 2¹⁰ and 2²⁰.
package segment

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
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
	// Sizes, in bytes, Callers and Operations are the cases.
	Sizes, Callers []int
	Operations     []string
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

// The operations.
const (
	// Append stores records with new keys. When the log has no room for more of
	// them, it is begun anew, and that is not measured.
	Append = "append"
	// Replace stores records over those of before, which are a quarter of the log:
	// looking them up and giving their space back is part of the price.
	Replace = "replace"
	// Read takes any of the records that are there, whole.
	Read = "read"
)

// Operations are all of them, in the order in which they are measured.
var Operations = []string{Append, Replace, Read}

// Case is one line of the result.
type Case struct {
	Operation      string
	Bytes, Callers int
	// Records is how many the log held at most: the index's own compaction, which is
	// in Log.CPU, grows with them.
	Records  int64
	Log, Raw Side
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

// measure does one size with one number of callers: appends, replacements, then reads.
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
	data := b.written(inBlocks(whole, size), callers)
	s := b.subject(dev, data, size, callers)
	defer func() { err = errors.Join(err, s.close()) }()
	writes, reads := rawWrites(beside, data), rawReads(beside, size, callers)
	for _, operation := range b.Operations {
		c := Case{Operation: operation, Bytes: size, Callers: callers}
		if b.Progress != nil {
			b.Progress(fmt.Sprintf("%s %d bytes, %d callers", operation, size, callers))
		}
		s.most = 0
		switch operation {
		case Append:
			err = b.inTurns(ctx, &c, s.appends, writes)
		case Replace:
			err = b.inTurns(ctx, &c, s.replacements, writes)
		case Read:
			err = b.inTurns(ctx, &c, s.reads, reads)
		}
		if ashlar.Is(err, ashlar.Full) {
			err = ashlar.E("bench segment", b.Path, ashlar.Full, fmt.Errorf(
				"%s of %d bytes by %d callers do not leave compaction enough room: name a larger device, fewer --callers, or a smaller --size", operation, size, callers))
		}
		if err != nil {
			return cases, err
		}
		c.Records = max(s.most, s.there)
		cases = append(cases, c)
	}
	return cases, nil
}

// inTurns measures both sides of a case until each has had its time. Operations of
// a side are numbered on from turn to turn.
func (b *bench) inTurns(ctx context.Context, c *Case, one func(context.Context, int64) (turn, error), raw operation) error {
	length := b.Duration / time.Duration(max(1, int(b.Duration/turnTime)))
	for c.Log.Seconds < b.Duration.Seconds() {
		t, err := one(ctx, c.Log.Operations)
		if err != nil {
			return err
		}
		if err := b.spread(ctx, &c.Raw, c.Callers, length, turn{operation: raw, most: math.MaxInt64}); err != nil {
			return err
		}
		flushes := t.flushes()
		if err := b.spread(ctx, &c.Log, c.Callers, length, t); err != nil {
			return err
		}
		if c.Operation != Read {
			c.Log.Flushes += t.flushes() - flushes
			c.Raw.Flushes = uint64(c.Raw.Operations)
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

// key is the n-th key, the same in every run.
func key(n int64) (k log.Key) {
	binary.LittleEndian.PutUint64(k.Stripe[:], uint64(n)*0x9e3779b97f4a7c15)
	return k
}

// buffersMin is the least number of buffers that are written in turns.
const buffersMin = 8

// written are the buffers from which both sides write, the n-th operation the n-th of
// them. One buffer that is written again and again is in the cache of whatever copies
// it below a virtual device: such a device is faster then than with any data to store.
func (b *bench) written(bytes, callers int) [][]byte {
	all := buffers(max(callers, buffersMin), bytes)
	for i, p := range all {
		copy(p, b.data)
		binary.LittleEndian.PutUint64(p, uint64(i))
	}
	return all
}

// rawWrites measures the device below the log, through the same accounting of health.
func rawWrites(dev blockdev.IO, data [][]byte) operation {
	bytes := int64(len(data[0]))
	slots := dev.Bytes() / bytes
	return func(_ context.Context, _ int, n int64) error {
		if _, err := dev.WriteAt(data[n%int64(len(data))], n%slots*bytes); err != nil {
			return err
		}
		return dev.Flush()
	}
}

func rawReads(dev blockdev.IO, size, callers int) operation {
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

// spread runs a turn from all callers, each once at least, until the time or the
// turn's numbers are over, and then its end; it adds all that to the side. Number n counts on
// from the side's operations without gaps. The first failure stops all callers and is
// the one that is returned.
func (b *bench) spread(ctx context.Context, s *Side, callers int, length time.Duration, t turn) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var next, done atomic.Int64
	var over atomic.Bool
	next.Store(s.Operations)
	var all sync.WaitGroup
	start, before := time.Now(), cpu()
	defer time.AfterFunc(length, func() { over.Store(true) }).Stop()
	for c := range callers {
		all.Go(func() {
			for first := true; first || !over.Load(); first = false {
				n := next.Add(1) - 1
				if n >= t.most {
					return
				}
				if err := t.operation(ctx, c, n); err != nil {
					fail(err)
					over.Store(true)
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	s.Operations += done.Load()
	err := context.Cause(ctx)
	if err == nil && t.end != nil {
		err = t.end(ctx, s.Operations)
	}
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
