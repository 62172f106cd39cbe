package label

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ashlar"
)

// A golden image is written once, when a version is made, and never again.
var writeGolden = flag.Bool("write-golden", false, "write golden images that do not exist yet")

// example has every field set, so that a field at a wrong place is seen.
func example() Label {
	id := func(first byte) (id ashlar.ID) {
		for i := range id {
			id[i] = first + byte(i)
		}
		return id
	}
	return Label{
		Sequence: 0x1122334455667788,
		Cluster:  ashlar.ClusterID(id(0x10)), Disk: ashlar.DiskID(id(0x30)),
		Host: 0xa1b2c3d4, OwnerEpoch: 0x0102030405060708, Owner: ashlar.BootID(id(0x50)), Rotating: true,
		Geometry: Geometry{Device: 16_000_900 * ashlar.MiB, DataOffset: ashlar.MiB, Data: 62503 * 256 * ashlar.MiB,
			SegmentBytes: 256 * ashlar.MiB, BlockBytes: 4096},
		Claimed: time.Date(2026, 11, 21, 9, 8, 7, 123456789, time.UTC),
		Written: time.Date(2027, 1, 2, 3, 4, 5, 6, time.UTC),
		Name:    "st-b-07/d11", ClusterName: "prod-eu", Serial: "ZL2A9XYZ",
		Baseline: Baseline{Measured: time.Date(2026, 11, 21, 9, 8, 27, 0, time.UTC), WriteRate: 251_000_000, ReadRate: 258_000_000,
			ReadMedian: 4100 * time.Microsecond, ReadP99: 6100 * time.Microsecond,
			FlushMedian: 8300 * time.Microsecond, FlushP99: 21 * time.Millisecond},
	}
}

// minimal leaves empty what may be empty.
func minimal() Label {
	return Label{
		Sequence: 1, Cluster: ashlar.ClusterID{1}, Disk: ashlar.DiskID{2},
		Geometry: Geometry{Device: 34 * ashlar.MiB, DataOffset: ashlar.MiB, Data: 32 * ashlar.MiB, SegmentBytes: 4 * ashlar.MiB, BlockBytes: 4096},
	}
}

func TestGoldenImages(t *testing.T) {
	for name, g := range map[string]struct {
		label Label
		copy  int
	}{"v1-full-copy3": {example(), 3}, "v1-minimal-copy0": {minimal(), 0}} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name+".hex")
			encoded, err := g.label.Encode(g.copy)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(path); *writeGolden && os.IsNotExist(err) {
				if err := os.WriteFile(path, []byte(hex.Dump(encoded[:atEnd])), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			image := golden(t, path)
			if !bytes.Equal(encoded, image) {
				t.Errorf("the encoding of version 1 changed:\n%s", hex.Dump(encoded[:atEnd]))
			}
			got, err := Decode(image, g.copy)
			if err != nil {
				t.Fatal(err)
			}
			if got != g.label {
				t.Errorf("decoded %+v, want %+v", got, g.label)
			}
		})
	}
}

// golden reads a hex dump as `hexdump -C` prints it; what it leaves out is zero.
func golden(t *testing.T, path string) []byte {
	t.Helper()
	dump, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	image := make([]byte, 0, Bytes)
	for line := range strings.Lines(string(dump)) {
		_, rest, _ := strings.Cut(line, "  ")
		digits, _, _ := strings.Cut(rest, "|")
		b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			t.Fatal(err)
		}
		image = append(image, b...)
	}
	return append(image, make([]byte, Bytes-len(image))...)
}

// TestTableOfTheDocument reads the fields of the golden image at the offsets of
// the package comment, written here a second time on purpose.
func TestTableOfTheDocument(t *testing.T) {
	b := golden(t, "testdata/v1-full-copy3.hex")
	want := example()
	le := binary.LittleEndian
	for name, got := range map[string]bool{
		"magic":         string(b[:8]) == "ASHLARdk",
		"version":       le.Uint32(b[8:]) == 1,
		"length":        le.Uint32(b[12:]) == 4096 && len(b) == 4096,
		"copy":          b[20] == 3,
		"sequence":      le.Uint64(b[24:]) == want.Sequence,
		"cluster":       bytes.Equal(b[32:48], want.Cluster[:]),
		"disk":          bytes.Equal(b[48:64], want.Disk[:]),
		"host":          le.Uint32(b[64:]) == uint32(want.Host),
		"flags":         le.Uint32(b[68:]) == 1,
		"owner epoch":   le.Uint64(b[72:]) == want.OwnerEpoch,
		"owner":         bytes.Equal(b[80:96], want.Owner[:]),
		"device bytes":  le.Uint64(b[96:]) == uint64(want.Geometry.Device),
		"data offset":   le.Uint64(b[104:]) == uint64(want.Geometry.DataOffset),
		"data length":   le.Uint64(b[112:]) == uint64(want.Geometry.Data),
		"segment bytes": le.Uint64(b[120:]) == uint64(want.Geometry.SegmentBytes),
		"block bytes":   le.Uint32(b[128:]) == uint32(want.Geometry.BlockBytes),
		"claimed":       le.Uint64(b[136:]) == uint64(want.Claimed.UnixNano()),
		"written":       le.Uint64(b[144:]) == uint64(want.Written.UnixNano()),
		"name":          string(b[152:164]) == want.Name+"\x00",
		"cluster name":  string(b[216:224]) == want.ClusterName+"\x00",
		"serial":        string(b[280:289]) == want.Serial+"\x00",
		"measured":      le.Uint64(b[344:]) == uint64(want.Baseline.Measured.UnixNano()),
		"write rate":    le.Uint64(b[352:]) == uint64(want.Baseline.WriteRate),
		"read rate":     le.Uint64(b[360:]) == uint64(want.Baseline.ReadRate),
		"read median":   le.Uint64(b[368:]) == uint64(want.Baseline.ReadMedian),
		"read p99":      le.Uint64(b[376:]) == uint64(want.Baseline.ReadP99),
		"flush median":  le.Uint64(b[384:]) == uint64(want.Baseline.FlushMedian),
		"flush p99":     le.Uint64(b[392:]) == uint64(want.Baseline.FlushP99),
		"reserved":      bytes.Count(b[400:], []byte{0}) == 3696,
		"no MBR mark":   b[510] != 0x55 && b[511] != 0xaa,
	} {
		if !got {
			t.Errorf("%s is not where the document says", name)
		}
	}
}

// TestEveryBitFlipIsFound flips each bit of the part that is not plain zero and
// a few of the rest.
func TestEveryBitFlipIsFound(t *testing.T) {
	l := example()
	good, err := l.Encode(1)
	if err != nil {
		t.Fatal(err)
	}
	for bit := 0; bit < Bytes*8; bit++ {
		if bit >= 512*8 && bit%61 != 0 {
			continue
		}
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := Decode(bad, 1); err == nil {
			t.Fatalf("bit %d of byte %d flipped, and the label still counts", bit%8, bit/8)
		}
	}
}

// reseal makes the checksum right again after a change.
func reseal(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[atChecksum:], checksum(b))
	return b
}

func TestDecodeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b []byte)
		kind   ashlar.Kind
	}{
		"no magic":          {func(b []byte) { b[0] = 'X' }, ashlar.NotFound},
		"a newer version":   {func(b []byte) { b[atVersion] = 2 }, ashlar.Invalid},
		"version 0":         {func(b []byte) { b[atVersion] = 0 }, ashlar.Invalid},
		"another length":    {func(b []byte) { b[atLength+1] = 0x20 }, ashlar.Corrupt},
		"another copy":      {func(b []byte) { b[atCopy] = 2 }, ashlar.Corrupt},
		"reserved prologue": {func(b []byte) { b[atCopy+1] = 1 }, ashlar.Corrupt},
		"reserved flag":     {func(b []byte) { b[atFlags] |= 2 }, ashlar.Corrupt},
		"reserved 132":      {func(b []byte) { b[132] = 1 }, ashlar.Corrupt},
		"reserved tail":     {func(b []byte) { b[Bytes-1] = 1 }, ashlar.Corrupt},
		"reserved 400":      {func(b []byte) { b[atEnd] = 1 }, ashlar.Corrupt},
		"text after zero":   {func(b []byte) { b[atName+40] = 'x' }, ashlar.Corrupt},
		"text not UTF-8":    {func(b []byte) { b[atName] = 0xff }, ashlar.Corrupt},
		"sequence 0":        {func(b []byte) { clear(b[atSequence : atSequence+8]) }, ashlar.Corrupt},
		"no disk id":        {func(b []byte) { clear(b[atDisk : atDisk+16]) }, ashlar.Corrupt},
		"segments of 3 MiB": {func(b []byte) { binary.LittleEndian.PutUint64(b[atSegmentBytes:], 3<<20) }, ashlar.Corrupt},
		"segments of 0":     {func(b []byte) { clear(b[atSegmentBytes : atSegmentBytes+8]) }, ashlar.Corrupt},
		"blocks of 512":     {func(b []byte) { binary.LittleEndian.PutUint32(b[atBlockBytes:], 512) }, ashlar.Corrupt},
		"data beyond":       {func(b []byte) { b[atDataBytes+6] = 1 }, ashlar.Corrupt},
		"negative size":     {func(b []byte) { b[atDeviceBytes+7] = 0x80 }, ashlar.Corrupt},
		"negative time":     {func(b []byte) { b[atClaimed+7] = 0x80 }, ashlar.Corrupt},
		"half a baseline":   {func(b []byte) { clear(b[atBaseline : atBaseline+8]) }, ashlar.Corrupt},
	} {
		t.Run(name, func(t *testing.T) {
			l := example()
			b, err := l.Encode(1)
			if err != nil {
				t.Fatal(err)
			}
			c.change(b)
			if _, err := Decode(reseal(b), 1); !ashlar.Is(err, c.kind) {
				t.Errorf("got %v, want kind %v", err, c.kind)
			}
		})
	}
	if _, err := Decode(make([]byte, 100), 0); !ashlar.Is(err, ashlar.NotFound) {
		t.Error(err)
	}
}

func TestEncodeRefusesWhatDecodeWould(t *testing.T) {
	for name, change := range map[string]func(*Label){
		"long name":   func(l *Label) { l.Name = strings.Repeat("x", TextBytesMax+1) },
		"zero byte":   func(l *Label) { l.Serial = "a\x00b" },
		"no cluster":  func(l *Label) { l.Cluster = ashlar.ClusterID{} },
		"odd segment": func(l *Label) { l.Geometry.SegmentBytes++ },
		"before 1970": func(l *Label) { l.Claimed = time.Unix(-1, 0) },
	} {
		l := example()
		change(&l)
		if _, err := l.Encode(0); !ashlar.Is(err, ashlar.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDecode gives the decoder any first 512 bytes, and one byte anywhere behind
// them, which is enough to break the rule about reserved ones: an input of 4096
// bytes would keep the fuzzer busy with shrinking it. When sealed, the checksum
// is made right, to let the fuzzer past it.
func FuzzDecode(f *testing.F) {
	for i, l := range []Label{example(), minimal()} {
		b, err := l.Encode(i)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:atEnd], uint16(0), byte(0), byte(i), false)
		f.Add(b[:atEnd], uint16(4000), byte(1), byte(i), true)
		r := rand.New(rand.NewPCG(1, uint64(i)))
		for range 20 {
			c := bytes.Clone(b[:atEnd])
			c[r.IntN(atEnd)] ^= byte(1 + r.IntN(255))
			f.Add(c, uint16(0), byte(0), byte(i), true)
		}
	}
	f.Fuzz(func(t *testing.T, head []byte, at uint16, value, number byte, sealed bool) {
		b := make([]byte, Bytes)
		copy(b[:512], head)
		if at > 512 && int(at) < Bytes {
			b[at] = value
		}
		if sealed {
			reseal(b)
		}
		l, err := Decode(b, int(number))
		if err != nil {
			return
		}
		again, err := l.Encode(int(number))
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("a label that decodes does not encode to the same bytes: %v", err)
		}
	})
}
