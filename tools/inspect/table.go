package inspect

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"
	"time"
	"unicode/utf8"
)

// Field is one field of a structure as it lies on the device.
type Field struct {
	Offset int `json:"offset"` // in the structure
	Size   int `json:"size"`
	// Value is a number, or text for ids, times and strings.
	Value   any    `json:"value"`
	Meaning string `json:"meaning"`
}

// Table is one structure: its fields, and what is wrong with it.
type Table struct {
	Name string `json:"name"`
	// At is where the structure starts on the device, in bytes.
	At       int64    `json:"at"`
	Fields   []Field  `json:"fields"`
	Problems []string `json:"problems"`
}

// Sound reports whether the structure is what its format says.
func (t *Table) Sound() bool { return len(t.Problems) == 0 }

func (t *Table) problem(format string, args ...any) {
	t.Problems = append(t.Problems, fmt.Sprintf(format, args...))
}

// kind says how the bytes of a field are read.
type kind uint8

const (
	number   kind = iota // little-endian
	sum                  // likewise, shown in hexadecimal
	id                   // bytes, shown in hexadecimal
	text                 // UTF-8, padded with zeros
	when                 // nanoseconds since 1970 UTC, 0 is never
	reserved             // must be zero
)

// column is one line of a table in a format document.
type column struct {
	offset, size int
	kind         kind
	meaning      string
}

func read(name string, at int64, p []byte, layout []column) Table {
	t := Table{Name: name, At: at, Problems: []string{}}
	for _, c := range layout {
		b := p[c.offset : c.offset+c.size]
		f := Field{Offset: c.offset, Size: c.size, Meaning: c.meaning}
		switch c.kind {
		case number:
			f.Value = little(b)
		case sum:
			f.Value = fmt.Sprintf("%0*x", 2*c.size, little(b))
		case id:
			f.Value = hex.EncodeToString(b)
		case text:
			s := strings.TrimRight(string(b), "\x00")
			if f.Value = s; !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
				t.problem("bytes %d to %d are not a padded text", c.offset, c.offset+c.size)
			}
		case when:
			f.Value = "never"
			if n := little(b); n != 0 {
				f.Value = time.Unix(0, int64(n)).UTC().Format(time.RFC3339Nano)
			}
		case reserved:
			f.Value = uint64(0)
			if len(bytes.Trim(b, "\x00")) > 0 {
				f.Value = hex.EncodeToString(b[:min(len(b), 32)])
				t.problem("reserved bytes %d to %d are not zero", c.offset, c.offset+c.size)
			}
		}
		t.Fields = append(t.Fields, f)
	}
	return t
}

func little(b []byte) (n uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	return n
}

// common is how every structure of the log starts.
func common(rest ...column) []column {
	return append([]column{
		{0, 4, text, "magic"}, {4, 2, number, "version of the format"}, {6, 2, number, "length of the structure"}, {8, 4, sum, "checksum, CRC-32C"},
	}, rest...)
}

var (
	anchorLayout = common(
		column{12, 4, number, "bytes of a device block"}, column{16, 16, id, "disk id"}, column{32, 8, number, "count of openings"},
		column{40, 8, sum, "run"}, column{48, 8, number, "bytes of a segment"}, column{56, 4, number, "number of segments"},
		column{60, 4, reserved, "reserved"}, column{64, 8, number, "sequence numbers of earlier runs are below"},
		column{72, 8, number, "generations of earlier runs are below"}, column{80, 8, when, "opened"}, column{88, 40, reserved, "reserved"})
	headerLayout = common(
		column{12, 4, number, "bytes of a device block"}, column{16, 16, id, "disk id"}, column{32, 8, number, "generation"},
		column{40, 8, sum, "salt"}, column{48, 4, number, "number of the segment"}, column{52, 1, number, "state: 1 open or sealed, 2 free"},
		column{53, 3, reserved, "reserved"}, column{56, 8, number, "bytes of a segment"}, column{64, 8, when, "written"},
		column{72, 4, number, "bytes of data in a cell"}, column{76, 52, reserved, "reserved"})
	batchLayout = common(
		column{12, 4, number, "number of records"}, column{16, 8, number, "generation"}, column{24, 8, sum, "salt"},
		column{32, 8, number, "number of the batch"}, column{40, 4, number, "offset in the segment"},
		column{44, 4, number, "bytes up to the end of the last record"}, column{48, 16, reserved, "reserved"})
	recordLayout = common(
		column{12, 4, number, "bytes of data"}, column{16, 8, number, "generation"}, column{24, 8, sum, "salt"},
		column{32, 8, number, "sequence number"}, column{40, 4, number, "offset in the segment"}, column{44, 1, number, "type: 1 piece, 2 tombstone"},
		column{45, 1, number, "piece"}, column{46, 1, number, "k"}, column{47, 1, number, "m"}, column{48, 16, id, "stripe"},
		column{64, 4, number, "group"}, column{68, 4, number, "bytes of user data in the stripe"}, column{72, 4, number, "part"},
		column{76, 2, number, "bytes of the key"}, column{78, 2, reserved, "reserved"}, column{80, 8, number, "offset of the stripe in the object or part"},
		column{88, 8, when, "written"}, column{96, 16, id, "bucket"})
	trailerLayout = common(
		column{12, 4, number, "number of entries"}, column{16, 16, id, "disk id"}, column{32, 8, number, "generation"}, column{40, 8, sum, "salt"},
		column{48, 4, number, "number of the segment"}, column{52, 4, sum, "checksum of the entries, CRC-32C"},
		column{56, 4, number, "offset of the first entry"}, column{60, 4, number, "end of the last batch"},
		column{64, 8, number, "smallest sequence number"}, column{72, 8, number, "greatest sequence number"},
		column{80, 8, sum, "checksum of the segment, CRC-64/NVME"}, column{88, 8, when, "sealed"}, column{96, 32, reserved, "reserved"})
)

// structure reads one structure of the log and checks what all of them share.
// Start is the start value of its checksum.
func structure(name string, at int64, p []byte, magic string, bytesMin int, start uint32, layout []column) Table {
	t := read(name, at, p, layout)
	version, n := u16(p[4:]), int(u16(p[6:]))
	switch {
	case string(p[:4]) != magic:
		t.Problems = []string{fmt.Sprintf("no %q here: never written, or lost", magic)}
	case version != 1:
		t.Problems = []string{fmt.Sprintf("version %d is not known here", version)}
	case n < bytesMin || n > len(p):
		t.problem("length %d, at least %d expected", n, bytesMin)
	default:
		got := crc32.Update(crc32.Update(start, crc, p[:8]), crc, p[12:n])
		if want := u32(p[8:]); got != want {
			t.problem("checksum is %08x, the bytes have %08x", want, got)
		}
	}
	return t
}
