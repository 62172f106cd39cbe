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
// and through the log. CPU is that of this process, user and system, which
// holds nothing else: the loops of the callers are in it, the kernel's own
// threads (a loop device's) are not. The raw side is the better of one run before
// and one after the log's, so that a machine which slows down flatters nobody.
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
	"ashlar/diskmgr/label"
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
	// Duration is how long each side of each case is measured.
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
	scratch := false
	if _, statErr := os.Stat(o.Path); errors.Is(statErr, os.ErrNotExist) {
		if err := writtenFile(o.Path, o.FileBytes); err != nil {
			return nil, err
		}
		scratch = true
		defer func() { err = errors.Join(err, os.Remove(o.Path)) }()
	} else if info, err := os.Stat(o.Path); err == nil && info.Mode().IsRegular() {
		return nil, ashlar.E("bench segment", o.Path, ashlar.Exists, errors.New("name a blank device, or a file that is not there yet"))
	}
	disk, err := diskmgr.Claim(ctx, o.Path, diskmgr.ClaimOptions{
		OpenOptions: diskmgr.OpenOptions{Cluster: ashlar.ClusterID(ashlar.NewID()), Engine: o.Engine},
		ClusterName: "bench", Name: "bench",
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, disk.Close())
		if !scratch && err == nil { // a device that fails keeps its label, which says whose it was
			err = wipe(o.Path)
		}
	}()
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

// writtenFile makes a file all of which was written once: flushing into one
// that was only allocated measures the file system's journal.
func writtenFile(path string, bytes int64) error {
	if err := blockdev.Create(path, bytes, false); err != nil {
		return err
	}
	fill := func() error {
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		zeros := make([]byte, ashlar.MiB)
		for off := int64(0); off < bytes && err == nil; off += int64(len(zeros)) {
			_, err = file.WriteAt(zeros[:min(int64(len(zeros)), bytes-off)], off)
		}
		return errors.Join(err, file.Sync(), file.Close())
	}
	if err := fill(); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// wipe makes the device blank again.
func wipe(path string) error {
	d, err := blockdev.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(label.Wipe(d), d.Close())
}

type bench struct {
	Options
	disk *diskmgr.Disk
	data []byte
}

// measure does one size with one number of callers: appends, then reads.
func (b *bench) measure(ctx context.Context, size, callers int) (cases []Case, err error) {
	name := fmt.Sprintf("%d bytes, %d callers", size, callers)
	dev := b.disk.Device()
	raw := func(op string, write bool) (Side, error) {
		if b.Progress != nil {
			b.Progress(op + " " + name + ", raw")
		}
		return b.raw(ctx, dev, size, callers, write)
	}
	before, err := raw("append", true)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.IndexDir, "ashlar-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Raw writes went over the log of the case before; this one starts anew.
	if err := clearEnds(dev); err != nil {
		return nil, err
	}
	writers := b.Writers
	if writers == 0 {
		writers = runtime.GOMAXPROCS(0)
	}
	l, err := log.Open(ctx, dev, log.Options{
		Disk: ashlar.DiskID(ashlar.NewID()), IndexDir: filepath.Join(dir, "index"),
		SegmentBytes: b.disk.Label().Geometry.SegmentBytes, Writers: writers,
	})
	if err != nil {
		return nil, err
	}
	appends, reads, err := b.log(ctx, l, size, callers)
	if err := errors.Join(err, l.Close()); err != nil {
		return nil, err
	}
	after, err := raw("append", true)
	if err != nil {
		return nil, err
	}
	rawReads, err := raw("read", false)
	if err != nil {
		return nil, err
	}
	if after.Operations > before.Operations {
		before = after
	}
	return []Case{
		{Operation: "append", Bytes: size, Callers: callers, Log: appends, Raw: before},
		{Operation: "read", Bytes: size, Callers: callers, Log: reads, Raw: rawReads},
	}, nil
}

// clearEnds removes the marks by which a log is found.
func clearEnds(dev blockdev.IO) error {
	zeros := blockdev.Aligned(format.EndBytes)
	_, front := dev.WriteAt(zeros, 0)
	_, back := dev.WriteAt(zeros, dev.Bytes()-format.EndBytes)
	return errors.Join(front, back, dev.Flush())
}

// log measures appends and then reads of what they left.
func (b *bench) log(ctx context.Context, l *log.Log, size, callers int) (appends, reads Side, err error) {
	if b.Progress != nil {
		b.Progress(fmt.Sprintf("append and read %d bytes, %d callers", size, callers))
	}
	keys := max(int64(callers), l.Usage().Capacity/liveShare/int64(size))
	key := func(n int64) (k log.Key) {
		h := uint64(n) * 0x9e3779b97f4a7c15
		for j := range 8 {
			k.Stripe[j] = byte(h >> (8 * j))
		}
		return k
	}
	started := l.Stats()
	appends, err = b.spread(ctx, callers, func(_ int, n int64) error {
		r := log.Record{Key: key(n % keys), Data: b.data[:size], Owner: ashlar.Owner{Key: "some/key/of/usual/length.bin"}}
		return l.Append(ctx, &r)
	})
	if err != nil {
		return appends, reads, err
	}
	appends.Flushes = l.Stats().Flushes - started.Flushes
	there := min(keys, appends.Operations)
	bufs := make([][]byte, callers)
	for i := range bufs {
		bufs[i] = make([]byte, size)
	}
	reads, err = b.spread(ctx, callers, func(caller int, _ int64) error {
		return l.ReadAt(ctx, key(rand.Int64N(there)), bufs[caller], 0)
	})
	return appends, reads, err
}

// raw measures the device below the log, through the same accounting of health.
func (b *bench) raw(ctx context.Context, dev blockdev.IO, size, callers int, write bool) (Side, error) {
	bytes := (size + dev.BlockBytes() - 1) / dev.BlockBytes() * dev.BlockBytes()
	slots := dev.Bytes() / int64(bytes)
	bufs := make([][]byte, callers)
	for i := range bufs {
		bufs[i] = blockdev.Aligned(bytes)
		copy(bufs[i], b.data)
	}
	side, err := b.spread(ctx, callers, func(caller int, n int64) error {
		if !write {
			_, err := dev.ReadAt(bufs[caller], rand.Int64N(slots)*int64(bytes))
			return err
		}
		if _, err := dev.WriteAt(bufs[caller], n%slots*int64(bytes)); err != nil {
			return err
		}
		return dev.Flush()
	})
	if write {
		side.Flushes = uint64(side.Operations)
	}
	return side, err
}

// spread runs op from all callers, once at least, until the time is over. Number n counts from
// 0 without gaps.
func (b *bench) spread(ctx context.Context, callers int, op func(caller int, n int64) error) (Side, error) {
	var next, done atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, callers)
	start, before := time.Now(), cpu()
	for c := range callers {
		all.Go(func() {
			for first := true; first || time.Since(start) < b.Duration; first = false {
				if errs[c] = ctx.Err(); errs[c] != nil {
					return
				}
				if errs[c] = op(c, next.Add(1)-1); errs[c] != nil {
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	return Side{Operations: done.Load(), Seconds: time.Since(start).Seconds(), CPU: cpu() - before}, errors.Join(errs...)
}

// cpu is the processor time of this process so far.
func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0 // cannot fail for one's own process
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
