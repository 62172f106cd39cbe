package diskmgr

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"ashlar"
	"ashlar/diskmgr/health"
)

func TestSegmentSizeBySizeOfTheDisk(t *testing.T) {
	for _, c := range []struct{ device, segment, segments int64 }{
		{34 * ashlar.MiB, 4 * ashlar.MiB, 8},
		{34*ashlar.MiB + 4096, 4 * ashlar.MiB, 8},
		{64 * ashlar.MiB, 4 * ashlar.MiB, 15},
		{192 * ashlar.MiB, 4 * ashlar.MiB, 47},
		{258 * ashlar.MiB, 4 * ashlar.MiB, 64},
		{514 * ashlar.MiB, 8 * ashlar.MiB, 64},
		{ashlar.GiB, 8 * ashlar.MiB, 127},
		{4 * ashlar.GiB, 32 * ashlar.MiB, 127},
		{16*ashlar.GiB + 2*ashlar.MiB, 256 * ashlar.MiB, 64},
		{16_000_900_661_248, 256 * ashlar.MiB, 59607},
	} {
		g, err := geometryOf(c.device, 4096, 0)
		if err != nil {
			t.Errorf("%d: %v", c.device, err)
			continue
		}
		if g.SegmentBytes != c.segment || g.Segments() != c.segments {
			t.Errorf("%s: %d segments of %d, want %d of %d", sizeText(c.device), g.Segments(), g.SegmentBytes, c.segments, c.segment)
		}
		if end := g.DataOffset + g.Data; end > g.Device-ashlar.MiB || g.Device > c.device {
			t.Errorf("%s: the data area ends at %d of %d", sizeText(c.device), end, g.Device)
		}
	}
	if _, err := geometryOf(34*ashlar.MiB-1, 4096, 0); err == nil {
		t.Error("a device that is too small was laid out")
	}
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 35651584: "35.7 MB", 999_499_999: "999 MB", 999_500_000: "1.0 GB",
		16_000_900_661_248: "16.0 TB", 99_949_999_999: "99.9 GB", 480_103_981_056: "480 GB",
	} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestWhatAnErrorSaysOfTheDisk(t *testing.T) {
	device := func(kind ashlar.Kind, cause error) error { return ashlar.E("x", "", kind, fmt.Errorf("y: %w", cause)) }
	for name, c := range map[string]struct {
		op   health.Op
		err  error
		want health.Outcome
	}{
		"fine":            {health.Read, nil, health.OK},
		"EIO":             {health.Read, device(ashlar.Unavailable, unix.EIO), health.Error},
		"medium error":    {health.Write, device(ashlar.Unavailable, unix.ENODATA), health.Error},
		"pulled":          {health.Read, device(ashlar.Unavailable, unix.ENXIO), health.Gone},
		"gone":            {health.Flush, device(ashlar.Unavailable, unix.ENODEV), health.Gone},
		"read-only":       {health.Write, device(ashlar.Unavailable, unix.EPERM), health.ReadOnly},
		"read-only flush": {health.Flush, device(ashlar.Unavailable, unix.EROFS), health.ReadOnly},
		"read denied":     {health.Read, device(ashlar.Unavailable, unix.EPERM), health.Error},
		"full below":      {health.Write, device(ashlar.Full, unix.ENOSPC), health.Ignored},
		"flush when full": {health.Flush, device(ashlar.Unavailable, unix.ENOSPC), health.Error},
		"unaligned":       {health.Write, device(ashlar.Invalid, unix.EINVAL), health.Ignored},
	} {
		if got := outcomeOf(c.op, c.err); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}

func TestOnlyBlockDevicesArePlugged(t *testing.T) {
	for message, want := range map[string]Plug{
		"add@/devices/x/block/sdb\x00ACTION=add\x00SUBSYSTEM=block\x00SEQNUM=1\x00": {"add", "sdb"},
		"remove@/devices/x/block/sdb/sdb1\x00ACTION=remove\x00SUBSYSTEM=block\x00":  {"remove", "sdb1"},
		"change@/devices/virtual/block/loop0\x00SUBSYSTEM=block\x00":                {"change", "loop0"},
		"add@/devices/x/net/eth0\x00SUBSYSTEM=net\x00":                              {},
		"bind@/devices/x\x00SUBSYSTEM=block\x00":                                    {},
		"libudev\x00SUBSYSTEM=block\x00":                                            {},
		"":                                                                          {},
		"add@/devices/x\x00SUBSYSTEM=blocks\x00NOTE=SUBSYSTEM=block\x00":            {},
	} {
		got, ok := plugged([]byte(message))
		if ok != (want != Plug{}) || ok && got != want {
			t.Errorf("%q: %v, %v; want %v", message, got, ok, want)
		}
	}
}

// FuzzPlugged: whoever may send to the socket, nothing that he sends does harm.
func FuzzPlugged(f *testing.F) {
	f.Add([]byte("add@/devices/x/block/sdb\x00ACTION=add\x00SUBSYSTEM=block\x00SEQNUM=1\x00"))
	f.Fuzz(func(t *testing.T, message []byte) {
		if p, ok := plugged(message); ok && (p.Action == "" || p.Name == "") {
			t.Errorf("%q: %+v", message, p)
		}
	})
}
