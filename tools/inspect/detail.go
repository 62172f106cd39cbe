package inspect

import (
	"encoding/hex"
	"fmt"
	"hash/crc32"

	"github.com/minio/crc64nvme"
)

// Item is one thing that lies in a segment, or one cell of a record.
type Item struct {
	Kind   string `json:"kind"` // batch, piece, tombstone, cell
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	What   string `json:"what"`
	// Problem is empty if every checksum in it is right.
	Problem string `json:"problem,omitempty"`
}

// Detail is all that lies in a segment or a record, with every checksum tried.
type Detail struct {
	State    string   `json:"state,omitempty"` // of a segment
	Tables   []Table  `json:"tables"`
	Items    []Item   `json:"items"`
	Problems []string `json:"problems"`
}

func (d *Detail) problem(format string, args ...any) {
	d.Problems = append(d.Problems, fmt.Sprintf(format, args...))
}

// where is the offset of a segment in the data area.
func (l *Log) where(n int) int64 { return 65536 + int64(n)*l.SegmentBytes }

// Anchors reads the four slots, of which two are used at a time.
func (l *Log) Anchors(bytes int64) ([]Table, error) {
	end := bytes &^ (l.BlockBytes - 1)
	var all []Table
	for i, at := range []int64{0, 32768, end - 65536, end - 32768} {
		p := make([]byte, 128)
		if _, err := l.dev.ReadAt(p, at); err != nil {
			return nil, fmt.Errorf("inspect: anchor at %d: %w", at, err)
		}
		all = append(all, structure(fmt.Sprintf("anchor, %s, slot %d", []string{"front", "back"}[i/2], i%2), at, p, "ASHA", 128, 0, anchorLayout))
	}
	return all, nil
}

// Detail reads one segment whole. Offsets of items are in the segment.
func (l *Log) Detail(n int) (*Detail, error) {
	if n < 0 || n >= l.Segments {
		return nil, fmt.Errorf("inspect: segment %d of %d", n, l.Segments)
	}
	s, err := l.Segment(n)
	if err != nil {
		return nil, err
	}
	p := make([]byte, l.SegmentBytes)
	if _, err := l.dev.ReadAt(p, l.where(n)); err != nil {
		return nil, fmt.Errorf("inspect: segment %d: %w", n, err)
	}
	d := &Detail{State: s.State, Items: []Item{}, Problems: []string{}}
	for i, name := range []string{"header", "header, copy"} {
		at := int64(i) * l.BlockBytes
		d.Tables = append(d.Tables, structure(name, l.where(n)+at, p[at:at+128], "ASHS", 128, 0, headerLayout))
	}
	t := p[l.SegmentBytes-l.BlockBytes:]
	if string(t[:4]) == "ASHF" || s.State == "sealed" {
		trailer := structure("trailer", l.where(n)+l.SegmentBytes-l.BlockBytes, t[:128], "ASHF", 128, 0, trailerLayout)
		if trailer.Sound() && s.State == "sealed" {
			l.checkSealed(&trailer, p, t)
		}
		d.Tables = append(d.Tables, trailer)
	}
	if s.State == "open" || s.State == "sealed" {
		l.walk(d, &s, p)
	}
	for _, t := range d.Tables {
		// What an earlier life left is no damage.
		if !t.Sound() && !(s.State == "free" && t.Name == "trailer") && s.State != "silent" {
			d.problem("%s: %s", t.Name, t.Problems[0])
		}
	}
	return d, nil
}

func (l *Log) checkSealed(trailer *Table, p, t []byte) {
	from, end := int64(u32(t[56:])), int64(u32(t[60:]))
	if from+64*int64(u32(t[12:]))+l.BlockBytes != l.SegmentBytes || end > from {
		trailer.problem("%d entries at %d, end of the data %d", u32(t[12:]), from, end)
		return
	}
	list := p[from : l.SegmentBytes-l.BlockBytes]
	if got := crc32.Update(crc32.Checksum(t[16:52], crc), crc, list); got != u32(t[52:]) {
		trailer.problem("checksum of the entries is %08x, the bytes have %08x", u32(t[52:]), got)
	}
	if got := crc64nvme.Checksum(p[:end]); got != u64(t[80:]) {
		trailer.problem("checksum of the segment is %016x, the bytes have %016x", u64(t[80:]), got)
	}
}

// walk lists what is found by going through the bytes, and compares it with
// what the footer lists.
func (l *Log) walk(d *Detail, s *Segment, p []byte) {
	listed := map[uint32]bool{}
	for _, r := range s.Records {
		listed[r.Offset] = true
	}
	last := l.SegmentBytes - l.BlockBytes
	for at := 2 * l.BlockBytes; at+64 <= last; {
		b := p[at:]
		if string(b[:4]) == "ASHB" && at%l.BlockBytes == 0 && u64(b[16:]) == s.Generation && u64(b[24:]) == s.Salt {
			t := structure("batch", at, b[:64], "ASHB", 64, l.seed, batchLayout)
			item := Item{Kind: "batch", Offset: at, Bytes: int64(u32(b[44:])), What: fmt.Sprintf("number %d, %d records", u64(b[32:]), u32(b[12:]))}
			if !t.Sound() {
				item.Problem = t.Problems[0]
			}
			d.Items = append(d.Items, item)
			at += 64
			continue
		}
		r, ok := l.record(s, p, at)
		if !ok {
			at += 8
			continue
		}
		item := r.item()
		if !listed[r.Offset] {
			item.Problem = "not listed: torn by a cut, or dropped; never acknowledged"
		}
		delete(listed, r.Offset)
		d.Items = append(d.Items, item)
		at += item.Bytes
	}
	for _, r := range s.Records {
		if listed[r.Offset] {
			item := r.item()
			item.Problem = "listed by the footer, its header is damaged"
			d.Items = append(d.Items, item)
		}
	}
	for _, i := range d.Items {
		if i.Problem != "" {
			d.problem("%s at %d: %s", i.Kind, i.Offset, i.Problem)
		}
	}
}

func (r *Record) item() Item {
	i := Item{Kind: "piece", Offset: int64(r.Offset), What: fmt.Sprintf("%s/%d sequence %d, %d bytes", hex.EncodeToString(r.Stripe[:]), r.Piece, r.Sequence, r.DataBytes)}
	i.Bytes = length(int64(112+(len(r.Key)+7)/8*8), int64(r.DataBytes))
	if r.Tombstone {
		i.Kind = "tombstone"
	}
	if !r.Sound {
		i.Problem = "data does not match its checksums"
	}
	return i
}

// Record reads one record, its header field by field and its data cell by cell.
// Offsets of cells are in the segment.
func (l *Log) Record(n int, offset int64) (*Detail, error) {
	if n < 0 || n >= l.Segments || offset < 0 || offset+112 > l.SegmentBytes {
		return nil, fmt.Errorf("inspect: no offset %d in segment %d", offset, n)
	}
	head := make([]byte, min(112+1024, l.SegmentBytes-offset))
	if _, err := l.dev.ReadAt(head, l.where(n)+offset); err != nil {
		return nil, fmt.Errorf("inspect: segment %d: %w", n, err)
	}
	t := structure("record", l.where(n)+offset, head, "ASHR", 112, l.seed, recordLayout)
	d := &Detail{Items: []Item{}, Problems: []string{}}
	if keyBytes := int(u16(head[76:])); t.Sound() {
		if bytes := int(u16(head[6:])); 112+keyBytes > bytes || bytes != 112+(keyBytes+7)/8*8 {
			t.problem("a key of %d bytes in a header of %d", keyBytes, bytes)
		} else {
			t.Fields = append(t.Fields, Field{Offset: 112, Size: keyBytes, Value: string(head[112 : 112+keyBytes]), Meaning: "key"})
			if at := int64(u32(head[40:])); at != offset {
				t.problem("it belongs at offset %d", at)
			}
			data := int64(u32(head[12:]))
			coded := make([]byte, min(data+(data+32767)/32768*4, l.SegmentBytes-offset-int64(bytes)))
			if _, err := l.dev.ReadAt(coded, l.where(n)+offset+int64(bytes)); err != nil {
				return nil, fmt.Errorf("inspect: segment %d: %w", n, err)
			}
			l.listCells(d, head, coded, offset+int64(bytes))
		}
	}
	d.Tables = append(d.Tables, t)
	for _, problem := range t.Problems {
		d.problem("record: %s", problem)
	}
	for _, i := range d.Items {
		if i.Problem != "" {
			d.problem("%s: %s", i.What, i.Problem)
		}
	}
	return d, nil
}

func (l *Log) listCells(d *Detail, head, coded []byte, at int64) {
	left := int64(u32(head[12:]))
	for i := uint32(0); left > 0; i++ {
		n := min(left, 32768)
		item := Item{Kind: "cell", Offset: at, Bytes: n, What: fmt.Sprintf("cell %d", i)}
		if int64(len(coded)) < n+4 {
			item.Problem = "beyond the segment"
			d.Items = append(d.Items, item)
			return
		}
		want, got := u32(coded[n:]), crc32.Update(l.cellStart(head, i), crc, coded[:n])
		item.What += fmt.Sprintf(", checksum %08x", want)
		if want != got {
			item.Problem = fmt.Sprintf("the bytes have %08x", got)
		}
		d.Items = append(d.Items, item)
		coded, left, at = coded[n+4:], left-n, at+n+4
	}
}
