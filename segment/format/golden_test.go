package format

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ashlar"
)

var rewrite = flag.Bool("rewrite", false, "write testdata anew; never for a version that was released")

var (
	testLife = Life{Disk: ashlar.DiskID{0xd1, 0x5c}, Generation: 0x0102030405060708, Salt: 0xfeedfacecafebeef}
	testRec  = Record{
		Generation: testLife.Generation, Salt: testLife.Salt, Sequence: 77, Offset: 0x2040, DataBytes: CellBytes + 5,
		Type: Piece, Piece: 11, Code: ashlar.Code{K: 8, M: 4}, Stripe: ashlar.StripeID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		Group: 4095, StripeBytes: 16 << 20, Written: 1_700_000_000_123_456_789,
		Owner: ashlar.Owner{Bucket: ashlar.BucketID{0xb0}, Key: "photos/2026/wall.jpg", Part: 3, Offset: 48 << 20},
	}
	testTomb = Record{
		Generation: testLife.Generation, Salt: testLife.Salt, Sequence: 78, Offset: 0xa100,
		Type: Tombstone, Piece: 2, Stripe: ashlar.StripeID{0xee}, Written: 1_700_000_001_000_000_000,
	}
)

const testSegment = 64 * ashlar.KiB

// images builds one of everything with version-1 fields all set.
func images() map[string][]byte {
	m := map[string][]byte{}
	a := Anchor{BlockBytes: 4096, Disk: testLife.Disk, Count: 9, Run: 0xabcdef, SegmentBytes: 256 << 20, Segments: 74505,
		SequenceMin: 1000, GenerationMin: 2000, Opened: 1_700_000_000_000_000_000}
	m["anchor"] = make([]byte, AnchorBytes)
	a.Encode(m["anchor"])
	for name, state := range map[string]State{"header-open": Open, "header-free": Free} {
		h := Header{Life: testLife, BlockBytes: 4096, Segment: 12, State: state, SegmentBytes: testSegment, Created: 1_700_000_000_000_000_001}
		m[name] = make([]byte, HeaderBytes)
		h.Encode(m[name])
	}
	b := Batch{Generation: testLife.Generation, Salt: testLife.Salt, Records: 2, Number: 5, Offset: 0x2000, Bytes: 0x8188}
	m["batch"] = make([]byte, BatchBytes)
	b.Encode(m["batch"], testLife.Disk)
	m["record-piece"] = encodeRecord(&testRec)
	m["record-tombstone"] = encodeRecord(&testTomb)
	t := Trailer{Life: testLife, Segment: 12, End: 0xb000, SequenceLow: 77, SequenceTop: 78, SegmentSum: 0x1122334455667788, Sealed: 1_700_000_002_000_000_000}
	m["footer"] = make([]byte, FooterBytes(2, 512))
	EncodeFooter(m["footer"], &t, []Entry{EntryOf(&testRec), EntryOf(&testTomb)}, testSegment, 512)
	return m
}

func encodeRecord(r *Record) []byte {
	p := make([]byte, TotalBytes(r.HeadBytes(), r.DataBytes))
	r.Encode(p, testLife.Disk)
	Cells(testLife, r.Stripe, r.Piece, r.Sequence, r.Offset).EncodeData(0, p[r.HeadBytes():], testData(int(r.DataBytes)))
	return p
}

func testData(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i * 7)
	}
	return p
}

// dump is the bytes in hexadecimal, runs of equal lines folded.
func dump(p []byte) string {
	var b strings.Builder
	var last string
	for i := 0; i < len(p); i += 32 {
		line := hex.EncodeToString(p[i:min(i+32, len(p))])
		if line != last {
			fmt.Fprintf(&b, "%06x %s\n", i, line)
		}
		last = line
	}
	fmt.Fprintf(&b, "%06x end\n", len(p))
	return b.String()
}

// TestGolden holds the bytes of version 1 for ever.
func TestGolden(t *testing.T) {
	for name, p := range images() {
		path := filepath.Join("testdata", "v1-"+name+".hex")
		got := dump(p)
		if *rewrite {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s changed on disk:\n%s\nwant\n%s", name, got, want)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	m := images()
	r, err := DecodeRecord(m["record-piece"], testLife.Disk)
	if err != nil || r != testRec {
		t.Errorf("record: %+v, %v", r, err)
	}
	if r, err = DecodeRecord(m["record-tombstone"], testLife.Disk); err != nil || r != testTomb {
		t.Errorf("tombstone: %+v, %v", r, err)
	}
	f := m["footer"]
	tr, err := DecodeTrailer(f[len(f)-512:])
	if err != nil {
		t.Fatal(err)
	}
	at := int64(len(f)) - (testSegment - int64(tr.EntriesOffset))
	list, err := tr.DecodeEntries(f[at : at+tr.ListBytes()])
	if err != nil || len(list) != 2 || list[0] != EntryOf(&testRec) || list[1] != EntryOf(&testTomb) {
		t.Errorf("entries: %+v, %v", list, err)
	}
	for _, name := range []string{"header-open", "header-free"} {
		if h, err := DecodeHeader(m[name]); err != nil || h.Life != testLife || h.Segment != 12 {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
	if b, err := DecodeBatch(m["batch"], testLife.Disk); err != nil || b.Number != 5 || b.Bytes != 0x8188 {
		t.Errorf("batch: %+v, %v", b, err)
	}
	if a, err := DecodeAnchor(m["anchor"]); err != nil || a.Count != 9 || a.Segments != 74505 {
		t.Errorf("anchor: %+v, %v", a, err)
	}
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want int64
	}{
		{"record head, no key", int64(RecordHeadBytes(0)), 112},
		{"record head, key of 1", int64(RecordHeadBytes(1)), 120},
		{"record head, longest key", int64(RecordHeadBytes(KeyBytesMax)), 1136},
		{"coded 0", CodedBytes(0), 0},
		{"coded 1", CodedBytes(1), 5},
		{"coded one cell", CodedBytes(CellBytes), 32772},
		{"coded one cell and 1", CodedBytes(CellBytes + 1), 32777},
		{"total of a tombstone", TotalBytes(112, 0), 112},
		{"total of 4096", TotalBytes(112, 4096), 4216},
		{"footer of none", FooterBytes(0, 4096), 4096},
		{"footer of 64", FooterBytes(64, 4096), 8192},
		{"footer of 65", FooterBytes(65, 4096), 12288},
		{"segment 3", SegmentOffset(3, 1<<20), 65536 + 3<<20},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", c.name, c.got, c.want)
		}
	}
	if n, ok := Segments(1<<30, 1<<24, 4096); n != 63 || !ok {
		t.Errorf("segments: %d, %v", n, ok)
	}
	for _, bad := range [][3]int64{{1 << 30, 1<<24 + 1, 4096}, {1 << 30, 1 << 32, 4096}, {1 << 30, 1 << 24, 4097}, {1 << 16, 1 << 16, 512}} {
		if n, ok := Segments(bad[0], bad[1], int(bad[2])); ok {
			t.Errorf("geometry %v accepted: %d", bad, n)
		}
	}
}

// decodeAny decodes p as the structure of that name.
func decodeAny(name string, p []byte) error {
	var err error
	switch {
	case name == "anchor":
		_, err = DecodeAnchor(p)
	case strings.HasPrefix(name, "header"):
		_, err = DecodeHeader(p)
	case name == "batch":
		_, err = DecodeBatch(p, testLife.Disk)
	case strings.HasPrefix(name, "record"):
		_, err = DecodeRecord(p, testLife.Disk)
	case name == "footer":
		var t Trailer
		if t, err = DecodeTrailer(p[len(p)-512:]); err == nil {
			at := int64(len(p)) - (testSegment - int64(t.EntriesOffset))
			_, err = t.DecodeEntries(p[at : at+t.ListBytes()])
		}
	}
	return err
}

// TestEveryBit flips each bit of each structure: not one flip goes unseen.
func TestEveryBit(t *testing.T) {
	for name, p := range images() {
		if err := decodeAny(name, p); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		from, end := 0, len(p)
		switch {
		case strings.HasPrefix(name, "record"):
			end = min(len(p), 136) // header; the cells have their own test
		case name == "footer":
			from, end = len(p)-512-2*EntryBytes, len(p)-512+TrailerBytes
		}
		for bit := from * 8; bit < end*8; bit++ {
			p[bit/8] ^= 1 << (bit % 8)
			if decodeAny(name, p) == nil {
				t.Errorf("%s: bit %d may flip unseen", name, bit)
			}
			p[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// TestForeignCells moves sound cells to where they do not belong.
func TestForeignCells(t *testing.T) {
	r := &testRec
	coded := make([]byte, CodedBytes(r.DataBytes))
	own := Cells(testLife, r.Stripe, r.Piece, r.Sequence, r.Offset)
	own.EncodeData(0, coded, testData(int(r.DataBytes)))
	cell := coded[:CellBytes+SumBytes]
	data, want, got := own.CheckCell(0, cell)
	if want != got || !bytes.Equal(data, testData(CellBytes)) {
		t.Fatal("a sound cell does not verify")
	}
	disk, gen, salt := testLife, testLife, testLife
	disk.Disk[3]++
	gen.Generation++
	salt.Salt++
	stripe := r.Stripe
	stripe[15]++
	for name, seed := range map[string]CellSeed{
		"disk":       Cells(disk, r.Stripe, r.Piece, r.Sequence, r.Offset),
		"generation": Cells(gen, r.Stripe, r.Piece, r.Sequence, r.Offset),
		"salt":       Cells(salt, r.Stripe, r.Piece, r.Sequence, r.Offset),
		"stripe":     Cells(testLife, stripe, r.Piece, r.Sequence, r.Offset),
		"piece":      Cells(testLife, r.Stripe, r.Piece+1, r.Sequence, r.Offset),
		"sequence":   Cells(testLife, r.Stripe, r.Piece, r.Sequence+1, r.Offset),
		"offset":     Cells(testLife, r.Stripe, r.Piece, r.Sequence, r.Offset+8),
	} {
		if _, want, got := seed.CheckCell(0, cell); want == got {
			t.Errorf("a cell of another %s verifies", name)
		}
	}
	if _, want, got := own.CheckCell(1, cell); want == got {
		t.Error("cell 0 verifies as cell 1")
	}
}

// TestVersionAndReserved: what is valid and not known is refused, not ignored.
func TestVersionAndReserved(t *testing.T) {
	for name, p := range images() {
		if name == "footer" {
			p = p[len(p)-512:]
			p = p[:TrailerBytes]
		}
		magic, seed := string(p[:4]), uint32(0)
		if magic == batchMagic || magic == recordMagic {
			seed = diskSeed(testLife.Disk)
		}
		n := int(le.Uint16(p[6:]))
		decode := func(q []byte) error {
			if magic == trailerMagic {
				_, err := DecodeTrailer(q)
				return err
			}
			return decodeAny(name, q)
		}
		newer := append([]byte(nil), p[:n]...)
		le.PutUint16(newer[4:], 2)
		le.PutUint32(newer[8:], sum(newer, seed))
		if err := decode(newer); err == nil || !strings.Contains(err.Error(), ErrVersion.Error()) {
			t.Errorf("%s of version 2: %v", name, err)
		}
		reserved := map[string]int{anchorMagic: 60, headerMagic: 100, batchMagic: 50, recordMagic: 78, trailerMagic: 127}[magic]
		odd := append([]byte(nil), p[:n]...)
		odd[reserved] = 1
		le.PutUint32(odd[8:], sum(odd, seed))
		if err := decode(odd); err == nil || !strings.Contains(err.Error(), ErrField.Error()) {
			t.Errorf("%s with a reserved byte set: %v", name, err)
		}
	}
}
