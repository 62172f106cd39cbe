package inspect_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"ashlar"
	"ashlar/segment"
	"ashlar/segment/segmenttest"
	"ashlar/segment/simdev"
	"ashlar/tools/inspect"
)

// The device has room for what the test writes between two compactions, whatever
// segments the writers have opened ahead.
const deviceBytes, deviceBlock = 32 * ashlar.MiB, 4096

// TestReadsWhatSegmentWrote: two readers that share no code see the same log,
// when it was closed, while it is open, and after a power cut.
func TestReadsWhatSegmentWrote(t *testing.T) {
	dev := simdev.New(deviceBytes, deviceBlock, 3)
	disk := ashlar.DiskID{7, 7}
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(8, 8))
	open := func() *segment.Log {
		l, err := segment.Open(t.Context(), dev, segment.Options{Disk: disk, IndexDir: dir, SegmentBytes: ashlar.MiB, Writers: 2, CompactBytesPerSecond: -1})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	defer func() { l.Close() }()
	for round := range 4 {
		for range 150 {
			n := uint64(rng.IntN(60) + 1)
			var err error
			if rng.IntN(3) == 0 {
				err = l.Delete(t.Context(), segmenttest.Piece(n, 0).Key)
			} else {
				err = l.Append(t.Context(), segmenttest.Piece(n, rng.IntN(120_000)))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		switch round {
		case 1:
			if err := l.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		case 2:
			l.Close()
			l = open()
		case 3:
			dev = dev.Reboot(30)
			l.Close()
			l = open()
		}
		compare(t, l, dev)
	}
}

func compare(t *testing.T, l *segment.Log, dev *simdev.Device) {
	t.Helper()
	reader, err := inspect.OpenLog(bytes.NewReader(snapshot(t, dev)), dev.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	live, err := reader.Pieces()
	if err != nil {
		t.Fatal(err)
	}
	if u := l.Usage(); u.Records != int64(len(live)) || len(live) == 0 {
		t.Fatalf("inspect finds %d pieces, the log has %d", len(live), u.Records)
	}
	for _, r := range live {
		key := segment.Key{Stripe: r.Stripe, Piece: r.Piece}
		info, err := l.Stat(key)
		if err != nil {
			t.Fatal(err)
		}
		d, err := l.Describe(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Sound || info.Bytes != r.DataBytes || info.Written.UnixNano() != r.Written || d.Owner.Key != r.Key ||
			d.Owner.Offset != r.ObjectOffset || [16]byte(d.Owner.Bucket) != r.Bucket || uint32(d.Group) != r.Group || d.Code.K != r.K {
			t.Fatalf("inspect says %+v, the log %+v %+v", r, info, d.Owner)
		}
	}
}

// snapshot is the device as a reader sees it now, cache included.
func snapshot(t *testing.T, dev io.ReaderAt) []byte {
	t.Helper()
	raw := make([]byte, deviceBytes+deviceBlock)
	p := raw[segmenttest.Misalignment(raw, deviceBlock):][:deviceBytes]
	if _, err := dev.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}
