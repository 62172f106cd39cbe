package segment

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"ashlar"
	"ashlar/segment/format"
)

// probeSegments is how many segments from the front are looked at for headers
// when no anchor is left. Segments are first used in ascending order.
const probeSegments = 16

// findAnchor learns the geometry: from the anchor, else from segment headers,
// else the device is new.
func (r *recovery) findAnchor() error {
	l := r.log
	bytes := l.dev.Bytes()
	if _, ok := format.Segments(bytes, format.SegmentBytesMin, l.block); !ok {
		return l.fail("open", "", ashlar.Invalid, fmt.Errorf("device of %d bytes in blocks of %d", bytes, l.block))
	}
	damaged := 0
	for slot := range 2 {
		for _, off := range format.AnchorOffsets(slot, bytes, l.block) {
			a, err := r.readAnchor(off)
			if errors.Is(err, format.ErrVersion) || errors.Is(err, format.ErrField) {
				return l.fail("open", fmt.Sprintf("anchor at %#x", off), ashlar.Invalid, err)
			}
			if err != nil {
				damaged++
				continue
			}
			if a.Disk != l.opt.Disk {
				return l.fail("open", "", ashlar.Invalid, fmt.Errorf("the device holds the log of disk %s", a.Disk))
			}
			if a.Count > r.anchor.Count {
				r.anchor = a
			}
		}
	}
	if r.anchor.Count == 0 {
		return r.withoutAnchor()
	}
	if damaged > 2 || damaged > 0 && r.anchor.Count > 1 {
		l.opt.Log.Warn("segment: copies of the anchor cannot be read", "disk", l.opt.Disk, "damaged", damaged)
	}
	return r.checkGeometry()
}

func (r *recovery) readAnchor(off int64) (format.Anchor, error) {
	l := r.log
	buf, p, err := l.fetch(r.ctx, off, int64(l.block))
	if err != nil {
		return format.Anchor{}, err
	}
	defer putBuffer(buf)
	return format.DecodeAnchor(p[:min(len(p), format.BlockBytesMin)])
}

func (r *recovery) checkGeometry() error {
	l, a := r.log, &r.anchor
	n, ok := format.Segments(l.dev.Bytes(), int64(a.SegmentBytes), l.block)
	if !ok || int(a.BlockBytes) != l.block || n < int(a.Segments) {
		return l.fail("open", "", ashlar.Invalid, fmt.Errorf(
			"the log has %d segments of %d bytes in blocks of %d, the device %d bytes in blocks of %d",
			a.Segments, a.SegmentBytes, a.BlockBytes, l.dev.Bytes(), l.block))
	}
	if int(a.Segments) < l.segmentsMin() {
		return l.fail("open", "", ashlar.Invalid, fmt.Errorf("%d segments are too few for %d writers, want %d",
			a.Segments, l.opt.Writers, l.segmentsMin()))
	}
	l.segBytes = int64(a.SegmentBytes)
	return nil
}

// segmentsMin lets every writer and the compactor have one besides the reserve.
func (l *Log) segmentsMin() int { return l.reserve() + l.opt.Writers + 1 }

// withoutAnchor decides between a new device and one whose four anchors are lost.
func (r *recovery) withoutAnchor() error {
	l := r.log
	a := &r.anchor
	a.Disk, a.BlockBytes = l.opt.Disk, uint32(l.block)
	for size := int64(format.SegmentBytesMin); size <= format.SegmentBytesMax; size *= 2 {
		n, ok := format.Segments(l.dev.Bytes(), size, l.block)
		for i := 0; ok && i < min(n, probeSegments); i++ {
			h, err := r.probeHeader(format.SegmentOffset(i, size))
			if err != nil {
				return err
			}
			if h.Disk == l.opt.Disk && h.SegmentBytes == uint64(size) && int(h.Segment) == i {
				l.opt.Log.Warn("segment: all anchors are lost, geometry taken from a segment header", "disk", l.opt.Disk)
				a.SegmentBytes, a.Segments = uint64(size), uint32(n)
				return r.checkGeometry()
			}
		}
	}
	size := l.opt.SegmentBytes
	if size == 0 {
		size = DefaultSegmentBytes(l.dev.Bytes())
	}
	n, ok := format.Segments(l.dev.Bytes(), size, l.block)
	if !ok {
		return l.fail("open", "", ashlar.Invalid, fmt.Errorf("segments of %d bytes on a device of %d", size, l.dev.Bytes()))
	}
	a.SegmentBytes, a.Segments = uint64(size), uint32(n)
	return r.checkGeometry()
}

// probeHeader reads either copy of a header; noise is an empty header.
func (r *recovery) probeHeader(off int64) (format.Header, error) {
	l := r.log
	for c := range int64(2) {
		buf, p, err := l.fetch(r.ctx, off+c*int64(l.block), int64(l.block))
		if err != nil {
			return format.Header{}, l.fail("open", fmt.Sprintf("off=%#x", off), ashlar.Unavailable, err)
		}
		h, err := format.DecodeHeader(p)
		putBuffer(buf)
		if err == nil {
			return h, nil
		}
	}
	return format.Header{}, nil
}

// writeAnchor begins the new run: the index learns of it first, so that a cut
// between the two does not make the index look stale.
func (r *recovery) writeAnchor() error {
	l := r.log
	if r.known {
		id := identity{l.opt.Disk, r.anchor.Run, r.run_}
		if err := l.index.db.Set([]byte{'m'}, id.encode(), pebble.Sync); err != nil {
			return l.wrapIndex("open", "", err)
		}
	}
	a := r.anchor
	a.Count++
	a.Run = r.run_
	a.SequenceMin, a.GenerationMin = r.top+1, l.generation.Load()+1
	a.Opened = uint64(l.opt.hooks.now().UnixNano())
	p := aligned(l.block, l.block)
	a.Encode(p)
	err := l.timed(r.ctx, func() error {
		for _, off := range format.AnchorOffsets(int(a.Count%2), l.dev.Bytes(), l.block) {
			if _, err := l.dev.WriteAt(p, off); err != nil {
				return err
			}
		}
		return l.dev.Flush()
	})
	if err != nil {
		return l.fail("open", "anchor", ashlar.Unavailable, err)
	}
	return nil
}
