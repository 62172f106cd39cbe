package segment

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	log "ashlar/segment"
)

// RebuildOptions of a run of Rebuild. Path, FileBytes, Engine, IndexDir, Writers
// and Progress are as of Options.
type RebuildOptions struct {
	Path      string
	FileBytes int64
	Engine    blockdev.Engine
	IndexDir  string
	Writers   int
	// Size is the length of a piece, Percent how full the log is made.
	Size, Percent int
	Progress      func(string)
}

// Rebuilt is one way to a new index, and what it cost.
type Rebuilt struct {
	From    string // index, footers or records
	Seconds float64
	CPU     time.Duration
	// BytesRead is what was read of the device.
	BytesRead int64
	Records   int64
	// Same says that the set of pieces is the one that the log had.
	Same bool
}

// RebuildResult is what Rebuild found.
type RebuildResult struct {
	// Bytes is the length of all segments that hold something.
	Bytes int64
	// Raw is the device's own sequential read: the better of before and after,
	// and of one and several reads of 1 MiB at once.
	Raw   Side
	Cases []Rebuilt
}

const (
	rawCallers   = 4
	fillCallers  = 64
	rawReadBytes = int(ashlar.MiB)
)

// Rebuild fills the log on a blank device with pieces, then opens it as after a
// clean end, from its footers alone as after the loss of its index, and record by
// record as if the footers were gone, too, and compares the pieces each time. In
// the same run it reads the device from end to end.
func Rebuild(ctx context.Context, o RebuildOptions) (res RebuildResult, err error) {
	disk, release, err := hold(ctx, "bench rebuild", o.Path, o.FileBytes, o.Engine)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, release()) }()
	dir, err := os.MkdirTemp(o.IndexDir, "ashlar-bench-")
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := rebuild{RebuildOptions: o, dev: &counted{IO: disk.Device()}, id: ashlar.DiskID(ashlar.NewID()), dir: filepath.Join(dir, "index"),
		segmentBytes: disk.Label().Geometry.SegmentBytes}
	r.tell("filling the log")
	want, err := r.fill(ctx)
	if err != nil {
		return res, err
	}
	if res.Raw, err = r.raw(ctx); err != nil {
		return res, err
	}
	for _, from := range []log.Rebuild{log.RebuildIfLost, log.RebuildFromFooters, log.RebuildFromRecords} {
		r.tell("opening: " + from.String())
		c, used, err := r.open(ctx, from, want)
		if err != nil {
			return res, err
		}
		res.Bytes = used
		res.Cases = append(res.Cases, c)
	}
	after, err := r.raw(ctx)
	if after.PerSecond(rawReadBytes) > res.Raw.PerSecond(rawReadBytes) {
		res.Raw = after
	}
	return res, err
}

// PerSecond is the throughput of operations of that many bytes.
func (s Side) PerSecond(bytes int) float64 {
	return float64(s.Operations) * float64(bytes) / max(s.Seconds, 1e-9)
}

// counted counts what is read.
type counted struct {
	blockdev.IO
	bytes atomic.Int64
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	c.bytes.Add(int64(len(p)))
	return c.IO.ReadAt(p, off)
}

type rebuild struct {
	RebuildOptions
	dev          *counted
	id           ashlar.DiskID
	dir          string
	segmentBytes int64
}

func (r *rebuild) tell(text string) {
	if r.Progress != nil {
		r.Progress(text)
	}
}

func (r *rebuild) options() log.Options {
	writers := r.Writers
	if writers == 0 {
		writers = runtime.GOMAXPROCS(0)
	}
	return log.Options{Disk: r.id, IndexDir: r.dir, SegmentBytes: r.segmentBytes, Writers: writers, CompactBytesPerSecond: -1}
}

// set is a set of pieces, as far as an index knows them: how many, and a sum that
// does not depend on their order.
type set struct {
	records int64
	sum     uint64
}

var setTable = crc64.MakeTable(crc64.ECMA)

func setOf(ctx context.Context, l *log.Log) (s set, err error) {
	err = l.Each(ctx, func(i log.Info) bool {
		p := append(i.Stripe[:], i.Piece)
		p = binary.LittleEndian.AppendUint32(p, i.Bytes)
		p = binary.LittleEndian.AppendUint64(p, uint64(i.Written.UnixNano()))
		s.records++
		s.sum += crc64.Checksum(p, setTable)
		return true
	})
	return s, err
}

// fill appends pieces, replaces some and deletes some, and returns what is there.
func (r *rebuild) fill(ctx context.Context) (s set, err error) {
	if err := clearEnds(r.dev); err != nil {
		return s, err
	}
	l, err := log.Open(ctx, r.dev, r.options())
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	data := make([]byte, r.Size)
	for i := range data {
		data[i] = byte(i*i>>8 + i)
	}
	wanted := l.Usage().Capacity / 100 * int64(r.Percent)
	var next atomic.Int64
	var callers sync.WaitGroup
	errs := make([]error, fillCallers)
	for c := range fillCallers {
		callers.Go(func() {
			for errs[c] == nil && l.Usage().Used < wanted {
				n := next.Add(1)
				rec := log.Record{Key: key(n), Data: data, Written: time.Unix(0, n), Owner: ashlar.Owner{Key: "some/key/of/usual/length.bin"}}
				if n%16 == 0 { // replaces
					rec.Key = key(n / 2)
				}
				errs[c] = l.Append(ctx, &rec)
				if n%32 == 1 && errs[c] == nil {
					errs[c] = l.Delete(ctx, key(n/3))
				}
			}
		})
	}
	callers.Wait()
	if err := errors.Join(errs...); err != nil && !ashlar.Is(err, ashlar.Full) {
		return s, err
	}
	return setOf(ctx, l)
}

// open opens the log in one of the ways and closes it again.
func (r *rebuild) open(ctx context.Context, from log.Rebuild, want set) (c Rebuilt, used int64, err error) {
	opt := r.options()
	opt.Rebuild = from
	before, began, bytes := cpu(), time.Now(), r.dev.bytes.Load()
	l, err := log.Open(ctx, r.dev, opt)
	if err != nil {
		return c, 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	c = Rebuilt{From: from.String(), Seconds: time.Since(began).Seconds(), CPU: cpu() - before, BytesRead: r.dev.bytes.Load() - bytes}
	got, err := setOf(ctx, l)
	c.Records, c.Same = got.records, got == want
	u := l.Usage()
	return c, int64(u.SegmentsTotal-u.SegmentsFree) * u.SegmentBytes, err
}

// raw reads the device from end to end, by one caller and by several.
func (r *rebuild) raw(ctx context.Context) (best Side, err error) {
	for _, callers := range []int{1, rawCallers} {
		r.tell(fmt.Sprintf("reading the device, %d at once", callers))
		s, err := r.readThrough(ctx, callers)
		if err != nil {
			return best, err
		}
		if s.PerSecond(rawReadBytes) > best.PerSecond(rawReadBytes) {
			best = s
		}
	}
	return best, nil
}

func (r *rebuild) readThrough(ctx context.Context, callers int) (Side, error) {
	total := r.dev.Bytes() / int64(rawReadBytes)
	var next atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, callers)
	began, before := time.Now(), cpu()
	for c := range callers {
		all.Go(func() {
			buf := blockdev.Aligned(rawReadBytes)
			for n := next.Add(1) - 1; n < total && errs[c] == nil; n = next.Add(1) - 1 {
				if errs[c] = ctx.Err(); errs[c] == nil {
					_, errs[c] = r.dev.ReadAt(buf, n*int64(rawReadBytes))
				}
			}
		})
	}
	all.Wait()
	return Side{Operations: total, Seconds: time.Since(began).Seconds(), CPU: cpu() - before}, errors.Join(errs...)
}

// PrintRebuild writes the result as a table for people.
func PrintRebuild(w io.Writer, res *RebuildResult) error {
	raw := res.Raw.PerSecond(rawReadBytes)
	fmt.Fprintf(w, "the device's own sequential read: %.0f MB/s, %.3f CPU s/GB; %.1f MB of segments in use\n",
		raw/1e6, res.Raw.CPU.Seconds()/(float64(res.Raw.Operations)*float64(rawReadBytes)/1e9), float64(res.Bytes)/1e6)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "opened from\tpieces\tsame\tseconds\tMB read\tMB/s\tof raw\tMB/s of segments\tpieces/s\tCPU s\tCPU µs/piece\t")
	for _, c := range res.Cases {
		seconds := max(c.Seconds, 1e-9)
		fmt.Fprintf(t, "%s\t%d\t%v\t%.3f\t%.1f\t%.0f\t%.2f\t%.0f\t%.0f\t%.3f\t%.2f\t\n",
			c.From, c.Records, c.Same, c.Seconds, float64(c.BytesRead)/1e6, float64(c.BytesRead)/1e6/seconds, float64(c.BytesRead)/seconds/max(raw, 1),
			float64(res.Bytes)/1e6/seconds, float64(c.Records)/seconds, c.CPU.Seconds(), c.CPU.Seconds()*1e6/float64(max(c.Records, 1)))
	}
	return t.Flush()
}
