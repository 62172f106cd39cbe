package format

import (
	"bytes"
	"testing"
)

// The fuzzers hold decoders to two rules: no input makes them panic, and what
// they accept encodes to the same bytes. fix gives every input a right
// checksum, so that the fuzzer gets past it.

func fix(p []byte, magic string, seed uint32) {
	if len(p) < prefixBytes {
		return
	}
	copy(p, magic)
	le.PutUint16(p[4:], Version)
	if n := int(le.Uint16(p[6:])); n >= prefixBytes && n <= len(p) {
		le.PutUint32(p[8:], sum(p[:n], seed))
	}
}

func same(t *testing.T, p, q []byte) {
	t.Helper()
	if !bytes.Equal(p, q) {
		t.Fatalf("decoded and encoded again:\n%x\nwas\n%x", q, p)
	}
}

func seeds(f *testing.F, names ...string) {
	for _, n := range names {
		f.Add(images()[n])
	}
}

func FuzzAnchor(f *testing.F) {
	seeds(f, "anchor")
	f.Fuzz(func(t *testing.T, p []byte) {
		fix(p, anchorMagic, 0)
		if a, err := DecodeAnchor(p); err == nil {
			q := make([]byte, AnchorBytes)
			a.Encode(q)
			same(t, p[:AnchorBytes], q)
		}
	})
}

func FuzzHeader(f *testing.F) {
	seeds(f, "header-open", "header-free")
	f.Fuzz(func(t *testing.T, p []byte) {
		fix(p, headerMagic, 0)
		if h, err := DecodeHeader(p); err == nil {
			q := make([]byte, HeaderBytes)
			h.Encode(q)
			same(t, p[:HeaderBytes], q)
		}
	})
}

func FuzzBatch(f *testing.F) {
	seeds(f, "batch")
	f.Fuzz(func(t *testing.T, p []byte) {
		fix(p, batchMagic, diskSeed(testLife.Disk))
		if b, err := DecodeBatch(p, testLife.Disk); err == nil {
			q := make([]byte, BatchBytes)
			b.Encode(q, testLife.Disk)
			same(t, p[:BatchBytes], q)
		}
	})
}

func FuzzRecord(f *testing.F) {
	seeds(f, "record-tombstone")
	f.Add(images()["record-piece"][:136])
	f.Fuzz(func(t *testing.T, p []byte) {
		fix(p, recordMagic, diskSeed(testLife.Disk))
		if r, err := DecodeRecord(p, testLife.Disk); err == nil {
			q := make([]byte, r.HeadBytes())
			r.Encode(q, testLife.Disk)
			same(t, p[:len(q)], q)
		}
	})
}

func FuzzFooter(f *testing.F) {
	p := images()["footer"]
	f.Add(p[len(p)-512:len(p)-512+TrailerBytes], p[512-2*EntryBytes:512])
	f.Fuzz(func(t *testing.T, p, list []byte) {
		fix(p, trailerMagic, 0)
		tr, err := DecodeTrailer(p)
		if err != nil {
			return
		}
		q := make([]byte, TrailerBytes)
		tr.encode(q)
		same(t, p[:TrailerBytes], q)
		tr.Entries = uint32(len(list) / EntryBytes)
		list = list[:tr.ListBytes()]
		tr.EntriesSum = tr.listSum(list)
		entries, err := tr.DecodeEntries(list)
		if err != nil {
			return
		}
		for i := range entries {
			q := make([]byte, EntryBytes)
			entries[i].encode(q)
			same(t, list[i*EntryBytes:(i+1)*EntryBytes], q)
		}
	})
}
