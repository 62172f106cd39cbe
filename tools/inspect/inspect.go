// Package inspect reads what the rooms of Ashlar wrote, with code of its own:
// it shares no encoder, decoder or constant with them, only the documents. It
// never writes. It is there to doubt the rest of the system: when it and the
// owner of a format disagree about the same bytes, one of them is wrong, and a
// test finds out.
//
// The log of a device is read after the package comment of segment/format,
// version 1, section "If the index is lost":
//
//	anchors ─► geometry ─► each segment: headers, trailer ─► footer or scan
//	                                                            │
//	             newest sequence number of each (stripe, piece) ◄┘
package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

var (
	u16 = binary.LittleEndian.Uint16
	u32 = binary.LittleEndian.Uint32
	u64 = binary.LittleEndian.Uint64
	crc = crc32.MakeTable(crc32.Castagnoli)
)

// Record is one record as it lies on the device. Times are nanoseconds since
// 1970, offsets and lengths are in bytes.
type Record struct {
	Segment            int
	Generation         uint64
	Offset             uint32 // in the segment
	Sequence           uint64
	Stripe             [16]byte
	Piece, K, M        uint8
	Tombstone          bool
	DataBytes          uint32
	Group, StripeBytes uint32
	Written            int64
	// What only the record's own header says.
	Bucket       [16]byte
	Key          string
	Part         uint32
	ObjectOffset uint64
	// Sound reports that header and every cell match their checksums.
	Sound bool
}

// Segment is what the fixed places of a segment say.
type Segment struct {
	Number           int
	State            string // free, open, sealed, silent
	Generation, Salt uint64
	Records          []Record
}

// Log is a device's log.
type Log struct {
	Disk         [16]byte
	BlockBytes   int64
	SegmentBytes int64
	Segments     int
	Count, Run   uint64

	dev  io.ReaderAt
	seed uint32 // checksum of the disk id: the start of the checksums of batches and records
}

// valid checks magic, version, length and checksum of a structure.
func valid(p []byte, magic string, start uint32) bool {
	if len(p) < 12 || string(p[:4]) != magic || u16(p[4:]) != 1 {
		return false
	}
	n := int(u16(p[6:]))
	if n < 12 || n > len(p) {
		return false
	}
	sum := crc32.Update(start, crc, p[:8])
	return crc32.Update(sum, crc, p[12:n]) == u32(p[8:])
}

// OpenLog finds the anchor. bytes is the length behind the label.
func OpenLog(dev io.ReaderAt, bytes int64) (*Log, error) {
	var best []byte
	end := bytes &^ 511
	for _, block := range []int64{512, 1024, 2048, 4096, 8192, 16384, 32768} {
		end = bytes &^ (block - 1)
		for _, at := range []int64{0, 32768, end - 65536, end - 32768} {
			p := make([]byte, 128)
			if _, err := dev.ReadAt(p, at); err != nil {
				return nil, fmt.Errorf("inspect: anchor at %d: %w", at, err)
			}
			if valid(p, "ASHA", 0) && (best == nil || u64(p[32:]) > u64(best[32:])) {
				best = p
			}
		}
	}
	if best == nil {
		return nil, errors.New("inspect: no anchor of a log, version 1, on this device")
	}
	l := &Log{BlockBytes: int64(u32(best[12:])), Count: u64(best[32:]), Run: u64(best[40:]),
		SegmentBytes: int64(u64(best[48:])), Segments: int(u32(best[56:])), dev: dev}
	copy(l.Disk[:], best[16:32])
	l.seed = crc32.Checksum(l.Disk[:], crc)
	return l, nil
}

// Segment reads one segment and all records that it lists or, without a
// footer, that a scan finds.
func (l *Log) Segment(n int) (Segment, error) {
	s := Segment{Number: n, State: "silent"}
	p := make([]byte, l.SegmentBytes)
	if _, err := l.dev.ReadAt(p, 65536+int64(n)*l.SegmentBytes); err != nil {
		return s, fmt.Errorf("inspect: segment %d: %w", n, err)
	}
	for _, h := range [][]byte{p[:128], p[l.BlockBytes : l.BlockBytes+128]} {
		if valid(h, "ASHS", 0) && bytes.Equal(h[16:32], l.Disk[:]) && int(u32(h[48:])) == n && u64(h[32:]) >= s.Generation {
			s.Generation, s.Salt = u64(h[32:]), u64(h[40:])
			s.State = map[byte]string{1: "open", 2: "free"}[h[52]]
		}
	}
	t := p[l.SegmentBytes-l.BlockBytes:]
	if valid(t, "ASHF", 0) && bytes.Equal(t[16:32], l.Disk[:]) && int(u32(t[48:])) == n &&
		(u64(t[32:]) > s.Generation || u64(t[32:]) == s.Generation && s.State == "open") {
		s.State, s.Generation, s.Salt = "sealed", u64(t[32:]), u64(t[40:])
		if l.listed(&s, p, t) {
			return s, nil
		}
	}
	if s.State == "open" || s.State == "sealed" {
		l.scan(&s, p)
	}
	return s, nil
}

// listed takes the records from the footer; it is false if the entries are damaged.
func (l *Log) listed(s *Segment, p, t []byte) bool {
	from, n := int64(u32(t[56:])), int64(u32(t[12:]))
	if from+64*n+l.BlockBytes != l.SegmentBytes {
		return false
	}
	list := p[from : from+64*n]
	if crc32.Update(crc32.Checksum(t[16:52], crc), crc, list) != u32(t[52:]) {
		return false
	}
	for ; len(list) > 0; list = list[64:] {
		r, ok := l.record(s, p, int64(u32(list[32:])))
		if !ok { // the header is damaged: the footer still tells what was there
			r = Record{Segment: s.Number, Generation: s.Generation, Offset: u32(list[32:]), Sequence: u64(list[16:]),
				Piece: list[50], K: list[52], M: list[53], Tombstone: list[51] == 2, DataBytes: u32(list[36:]),
				Group: u32(list[40:]), StripeBytes: u32(list[44:]), Written: int64(u64(list[24:]))}
			copy(r.Stripe[:], list)
		}
		s.Records = append(s.Records, r)
	}
	return true
}

// scan finds records by their headers; what is torn at the tail is dropped.
func (l *Log) scan(s *Segment, p []byte) {
	tail := int64(-1)
	var found []Record
	for at := 2 * l.BlockBytes; at+64 <= int64(len(p)); {
		b := p[at:]
		if at%l.BlockBytes == 0 && valid(b[:64], "ASHB", l.seed) && u64(b[16:]) == s.Generation && u64(b[24:]) == s.Salt && int64(u32(b[40:])) == at {
			tail = at
			at += 64
			continue
		}
		if r, ok := l.record(s, p, at); ok {
			found = append(found, r)
			at += length(int64(u16(b[6:])), int64(r.DataBytes))
			continue
		}
		at += 8
	}
	for _, r := range found {
		if r.Sound || int64(r.Offset) < tail {
			s.Records = append(s.Records, r)
		}
	}
}

// length is what a record occupies: header, data, four bytes for each cell of
// 32768, up to a multiple of 8.
func length(head, data int64) int64 { return (head + data + (data+32767)/32768*4 + 7) / 8 * 8 }

// record decodes the record at that offset of the segment and checks its cells.
func (l *Log) record(s *Segment, p []byte, at int64) (Record, bool) {
	h := p[at:min(at+112+1024, int64(len(p)))]
	if !valid(h, "ASHR", l.seed) || u64(h[16:]) != s.Generation || u64(h[24:]) != s.Salt || int64(u32(h[40:])) != at {
		return Record{}, false
	}
	if 112+int(u16(h[76:])) > int(u16(h[6:])) {
		return Record{}, false
	}
	r := Record{Segment: s.Number, Generation: s.Generation, Offset: uint32(at), Sequence: u64(h[32:]),
		Tombstone: h[44] == 2, Piece: h[45], K: h[46], M: h[47], DataBytes: u32(h[12:]), Group: u32(h[64:]),
		StripeBytes: u32(h[68:]), Part: u32(h[72:]), ObjectOffset: u64(h[80:]), Written: int64(u64(h[88:]))}
	copy(r.Stripe[:], h[48:64])
	copy(r.Bucket[:], h[96:112])
	r.Key = string(h[112 : 112+int(u16(h[76:]))])
	head := int64(u16(h[6:]))
	if at+length(head, int64(r.DataBytes)) > int64(len(p)) {
		return Record{}, false
	}
	r.Sound = l.cells(&r, h, p[at+head:])
	return r, true
}

// cells checks the sums of the data; h is the record's header.
func (l *Log) cells(r *Record, h, coded []byte) bool {
	left := int64(r.DataBytes)
	for i := uint32(0); left > 0; i++ {
		n := min(left, 32768)
		if crc32.Update(l.cellStart(h, i), crc, coded[:n]) != u32(coded[n:]) {
			return false
		}
		coded, left = coded[n+4:], left-n
	}
	return true
}

// cellStart is the start value of the checksum of cell i of the record with
// header h.
func (l *Log) cellStart(h []byte, i uint32) uint32 {
	var who bytes.Buffer
	who.Write(l.Disk[:])
	who.Write(h[16:32]) // generation, salt
	who.Write(h[48:64]) // stripe
	who.Write(h[32:44]) // sequence, offset
	who.WriteByte(h[45])
	return crc32.Checksum(binary.LittleEndian.AppendUint32(who.Bytes(), i), crc)
}

// Pieces reads the whole log and returns the newest record of every (stripe,
// piece) that is not deleted.
func (l *Log) Pieces() ([]Record, error) {
	type key struct {
		stripe [16]byte
		piece  uint8
	}
	newest := map[key]Record{}
	for n := range l.Segments {
		s, err := l.Segment(n)
		if err != nil {
			return nil, err
		}
		for _, r := range s.Records {
			k := key{r.Stripe, r.Piece}
			cur, ok := newest[k]
			if !ok || r.Sequence > cur.Sequence || r.Sequence == cur.Sequence && r.Generation > cur.Generation {
				newest[k] = r
			}
		}
	}
	var live []Record
	for _, r := range newest {
		if !r.Tombstone {
			live = append(live, r)
		}
	}
	return live, nil
}
