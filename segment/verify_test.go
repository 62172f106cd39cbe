package segment

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"ashlar"
	"ashlar/segment/simdev"
)

// TestVerifyNeedsNoFooterAndNoSeal spoils a record, its header, and the footer
// that lists both, in a sealed segment and in an open one.
func TestVerifyNeedsNoFooterAndNoSeal(t *testing.T) {
	dev := simdev.New(64*ashlar.MiB, 4096, 1)
	dir := t.TempDir()
	open := func() *Log {
		log, err := Open(t.Context(), dev, Options{
			Disk: ashlar.DiskID{1}, IndexDir: dir, SegmentBytes: 4 * ashlar.MiB, IOTimeout: 5 * time.Second, CompactBytesPerSecond: -1,
		})
		if err != nil {
			t.Fatal(err)
		}
		return log
	}
	log := open()
	records := map[byte][]byte{}
	put := func(n byte) {
		data := make([]byte, 300_000)
		rand.NewChaCha8([32]byte{n}).Read(data)
		records[n] = data
		if err := log.Append(t.Context(), &Record{Key: Key{Stripe: ashlar.StripeID{n}}, Code: ashlar.Code{K: 1, M: 2}, StripeBytes: 300_000, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	spoil := func(n byte, from, bytesN int64) {
		at := bytes.Index(dev.Medium(), records[n][:64])
		if at < 0 {
			t.Fatal("the record is not on the medium")
		}
		dev.Rot(int64(at)+from, bytesN, true)
	}
	// bad is what Verify finds in all segments.
	bad := func() (found []byte, sealed int) {
		t.Helper()
		for i := range log.Usage().SegmentsTotal {
			paced := 0
			rep, err := log.VerifyPaced(context.Background(), i, func(n int) { paced += n })
			if err != nil || int64(paced) < rep.Bytes {
				t.Fatalf("%+v, %d bytes announced, %v", rep, paced, err)
			}
			for _, k := range rep.Bad {
				found = append(found, k.Stripe[0])
			}
			if rep.Sealed {
				sealed++
			}
		}
		return found, sealed
	}
	for n := range byte(6) {
		put(n)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	log = open()
	defer func() { log.Close() }()
	for n := byte(6); n < 12; n++ {
		put(n)
	}
	if found, sealed := bad(); len(found) != 0 || sealed != 1 {
		t.Fatalf("%v are bad, %d segments are sealed", found, sealed)
	}
	spoil(1, 1000, 1)    // data
	spoil(3, -100, 60)   // a header
	spoil(7, 200_000, 8) // in the open segment
	spoil(9, -100, 60)
	if found, _ := bad(); !bytes.Equal(found, []byte{1, 3, 7, 9}) {
		t.Errorf("%v are bad", found)
	}
	first := log.offset(0)
	for i := range log.table {
		if log.table[i].is(segSealed) {
			first = log.offset(i)
		}
	}
	dev.Rot(first+log.segBytes-8192, 8192, true) // trailer and footer
	if found, _ := bad(); !bytes.Equal(found, []byte{1, 3, 7, 9}) {
		t.Errorf("without a footer %v are bad", found)
	}
	for _, n := range []byte{1, 3, 7, 9} {
		put(n)
	}
	if found, _ := bad(); len(found) != 0 {
		t.Errorf("%v are bad after they were written again", found)
	}
}
