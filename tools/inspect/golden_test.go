package inspect_test

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"ashlar"
	"ashlar/tools/inspect"
)

// golden reads either kind of image that the rooms keep of their formats.
func golden(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(path, "label") {
		return dumped(t, string(b), 4096)
	}
	return folded(t, string(b))
}

// dumped reads what hexdump -C prints, followed by zeros.
func dumped(t *testing.T, s string, size int) []byte {
	p := make([]byte, 0, size)
	for line := range strings.Lines(s) {
		if words, _, ok := strings.Cut(line, "|"); ok {
			raw, err := hex.DecodeString(strings.Join(strings.Fields(words)[1:], ""))
			if err != nil {
				t.Fatal(err)
			}
			p = append(p, raw...)
		}
	}
	return append(p, make([]byte, size-len(p))...)
}

// folded reads lines of 32 bytes in which repeated ones are left out.
func folded(t *testing.T, s string) []byte {
	var p, last []byte
	for line := range strings.Lines(s) {
		at, word, _ := strings.Cut(strings.TrimSpace(line), " ")
		offset, err := strconv.ParseInt(at, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		for int64(len(p)) < offset {
			p = append(p, last...)
		}
		if word == "end" {
			return p[:offset]
		}
		if last, err = hex.DecodeString(word); err != nil {
			t.Fatal(err)
		}
		p = append(p, last...)
	}
	t.Fatal("the image has no end")
	return nil
}

// TestGoldenLabel puts the kept image of a label where its copies lie.
func TestGoldenLabel(t *testing.T) {
	image := golden(t, "../../diskmgr/label/testdata/v1-minimal-copy0.hex")
	path := filepath.Join(t.TempDir(), "disk")
	disk := make([]byte, 34*ashlar.MiB)
	for n, at := range []int{0, ashlar.MiB / 2, 33 * ashlar.MiB, 33*ashlar.MiB + ashlar.MiB/2} {
		copy(disk[at:], image)
		disk[at+20] = byte(n)
	}
	write := func() {
		if err := os.WriteFile(path, disk, 0o400); err != nil {
			os.Chmod(path, 0o600)
			if err := os.WriteFile(path, disk, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	write()
	got, err := run(t, "label", path)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, got, "label, copy 3, at 35127296: good", "24 1 sequence", "48 02000000000000000000000000000000 disk id",
		"112 33554432 length of the data area", "136 never claimed", "copy 0 is the label")
	for _, c := range []struct {
		at   int
		want string
	}{
		{24, "checksum is"}, {20, "it says that it is copy"}, {8, "version 0 is not known here"}, {0, "no label here"}, {4000, "reserved bytes 400 to 4096 are not zero"},
	} {
		disk[c.at] ^= 1
		write()
		got, err := run(t, "label", path)
		if err == nil || !strings.Contains(got, c.want) {
			t.Errorf("byte %d changed: %v, not %q", c.at, err, c.want)
		}
		contains(t, got, "copy 1 is the label")
		disk[c.at] ^= 1
	}
}

// TestGoldenFullLabel reads the image in which every field is set.
func TestGoldenFullLabel(t *testing.T) {
	image := golden(t, "../../diskmgr/label/testdata/v1-full-copy3.hex")
	const size = 16_000_900 * ashlar.MiB
	copies, holds, err := inspect.Label(sparse{size - ashlar.MiB/2: image}, size)
	if err != nil || holds != 3 || !copies[3].Sound() {
		t.Fatalf("copy %d, %v, %+v", holds, err, copies)
	}
	values := map[int]any{}
	for _, f := range copies[3].Fields {
		values[f.Offset] = f.Value
	}
	for offset, want := range map[int]any{
		24: uint64(0x1122334455667788), 32: "101112131415161718191a1b1c1d1e1f", 64: uint64(0xa1b2c3d4), 68: uint64(1),
		96: uint64(size), 112: uint64(62503 * 256 * ashlar.MiB), 136: "2026-11-21T09:08:07.123456789Z", 152: "st-b-07/d11",
		216: "prod-eu", 280: "ZL2A9XYZ", 352: uint64(251_000_000), 376: uint64(6_100_000), 392: uint64(21_000_000),
	} {
		if values[offset] != want {
			t.Errorf("offset %d: %v, want %v", offset, values[offset], want)
		}
	}
}

// sparse is a device of zeros with some images on it.
type sparse map[int64][]byte

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	copy(p, s[off])
	return len(p), nil
}

// TestGoldenStructures reads the images of the log's structures, and refuses
// each of them when any byte of it is changed.
func TestGoldenStructures(t *testing.T) {
	disk := [16]byte{0xd1, 0x5c}
	for name, want := range map[string]map[int]any{
		"anchor": {6: uint64(128), 12: uint64(4096), 16: "d15c0000000000000000000000000000", 32: uint64(9), 40: "0000000000abcdef",
			48: uint64(256 << 20), 56: uint64(74505), 64: uint64(1000), 72: uint64(2000), 80: "2023-11-14T22:13:20Z"},
		"header-open": {32: uint64(0x0102030405060708), 40: "feedfacecafebeef", 48: uint64(12), 52: uint64(1), 56: uint64(65536), 64: "2023-11-14T22:13:20.000000001Z", 72: uint64(32768)},
		"header-free": {48: uint64(12), 52: uint64(2)},
		"batch":       {12: uint64(2), 16: uint64(0x0102030405060708), 24: "feedfacecafebeef", 32: uint64(5), 40: uint64(0x2000), 44: uint64(0x8188)},
		"record-piece": {6: uint64(136), 12: uint64(32773), 32: uint64(77), 40: uint64(0x2040), 44: uint64(1), 45: uint64(11), 46: uint64(8), 47: uint64(4),
			48: "0102030405060708090a0b0c0d0e0f10", 64: uint64(4095), 68: uint64(16 << 20), 72: uint64(3), 76: uint64(20), 80: uint64(48 << 20), 96: "b0000000000000000000000000000000"},
		"record-tombstone": {32: uint64(78), 44: uint64(2), 45: uint64(2), 48: "ee000000000000000000000000000000", 88: "2023-11-14T22:13:21Z"},
		"footer":           {12: uint64(2), 48: uint64(12), 60: uint64(0xb000), 64: uint64(77), 72: uint64(78), 80: "1122334455667788", 88: "2023-11-14T22:13:22Z"},
	} {
		t.Run(name, func(t *testing.T) {
			image := golden(t, "../../segment/format/testdata/v1-"+name+".hex")
			table := inspect.Structures(t, name, image, disk[:])
			if !table.Sound() {
				t.Fatal(table.Problems)
			}
			values := map[int]any{}
			for _, f := range table.Fields {
				values[f.Offset] = f.Value
			}
			for offset, v := range want {
				if values[offset] != v {
					t.Errorf("offset %d: %v, want %v", offset, values[offset], v)
				}
			}
			from := 0
			if name == "footer" {
				from = len(image) - 512
			}
			length := int(image[from+6]) // no structure here is longer than 255 bytes
			for i := range length {
				image[from+i] ^= 1
				if changed := inspect.Structures(t, name, image, disk[:]); changed.Sound() {
					t.Errorf("byte %d changed, and it is sound", i)
				}
				image[from+i] ^= 1
			}
		})
	}
}

// TestGoldenContents goes beyond the headers: cells, entries, and the checksum
// of a whole segment, which the image of a footer cannot have right.
func TestGoldenContents(t *testing.T) {
	record := golden(t, "../../segment/format/testdata/v1-record-piece.hex")
	d := inspect.RecordImage(t, record, [16]byte{0xd1, 0x5c})
	if len(d.Items) != 2 || len(d.Problems) != 0 {
		t.Fatalf("%+v", d)
	}
	record[136+32768+4+3] ^= 0x80 // the fourth byte of the second cell
	if d = inspect.RecordImage(t, record, [16]byte{0xd1, 0x5c}); d.Items[0].Problem != "" || d.Items[1].Problem == "" {
		t.Errorf("%+v", d.Items)
	}
	if d = inspect.RecordImage(t, record, [16]byte{0xd1, 0x5d}); len(d.Problems) == 0 {
		t.Error("another disk's record is sound")
	}
	footer := golden(t, "../../segment/format/testdata/v1-footer.hex")
	trailer := inspect.SealedImage(footer)
	if len(trailer.Problems) != 1 || !strings.Contains(trailer.Problems[0], "checksum of the segment is 1122334455667788") {
		t.Errorf("%q", trailer.Problems)
	}
	footer[len(footer)-512-20] ^= 1 // in the last entry
	if trailer = inspect.SealedImage(footer); len(trailer.Problems) != 2 || !strings.Contains(trailer.Problems[0], "checksum of the entries") {
		t.Errorf("%q", trailer.Problems)
	}
}
