package ashlar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// The derivation of stripe ids is a format: an extent in a row and a piece on a
// disk find one another by it for ever.
func TestStripeIDIsFrozen(t *testing.T) {
	bucket := BucketID{0: 0xb0, 15: 0x0b}
	for _, c := range []struct {
		key           string
		part, ordinal uint32
		write         WriteID
		want          string
	}{
		{"", 0, 0, 1, "465d3d0ed63ba8380000000000000001"},
		{"photos/2006/February/sample2.jpg", 0, 0, 0x0123456789abcdef, "d308f962704f21940123456789abcdef"},
		{"photos/2006/February/sample2.jpg", 7, 300, 0x0123456789abcdef, "d71a2fee63e07bee0123456789abcdef"},
	} {
		if got := NewStripeID(bucket, c.key, c.part, c.ordinal, c.write).String(); got != c.want {
			t.Errorf("%q part %d ordinal %d: %s, want %s", c.key, c.part, c.ordinal, got, c.want)
		}
	}
}

func TestGroupIsTheTopBits(t *testing.T) {
	id := StripeID{0b1011_0000, 0xff}
	for bits, want := range map[uint8]GroupID{0: 0, 1: 1, 2: 0b10, 4: 0b1011, 12: 0b1011_0000_1111} {
		if got := id.Group(bits); got != want {
			t.Errorf("%d bits: group %d, want %d", bits, got, want)
		}
	}
	// Doubling the groups splits each in two and moves nothing elsewhere.
	for range 1000 {
		id := NewStripeID(BucketID(NewID()), "k", 0, 0, NewWriteID())
		if id.Group(13)>>1 != id.Group(12) {
			t.Fatalf("%v: group %d of 2^13 does not come from group %d of 2^12", id, id.Group(13), id.Group(12))
		}
	}
}

func TestCode(t *testing.T) {
	for text, quorum := range map[string]int{"8+4": 10, "4+2": 5, "1+2": 2, "9+6": 12, "6+6": 9, "1+0": 1, "4+1": 5} {
		c, err := ParseCode(text)
		if err != nil || c.String() != text || c.Quorum() != quorum {
			t.Errorf("%s: %v, quorum %d, %v; want quorum %d", text, c, c.Quorum(), err, quorum)
		}
	}
	for _, text := range []string{"", "8", "8+", "+4", "0+3", "-1+2", "8+-4", "30+3", "8+4+1", "8 + 4"} {
		if c, err := ParseCode(text); err == nil {
			t.Errorf("%q is taken for %v", text, c)
		}
	}
}

func TestExtentStripes(t *testing.T) {
	e := Extent{Write: 9, Bytes: 25, StripeBytes: 10, SmallMax: 5, Large: Code{4, 2}, Small: Code{1, 2}}
	type stripe struct {
		off  uint64
		len  uint32
		code Code
	}
	all := []stripe{{0, 10, e.Large}, {10, 10, e.Large}, {20, 5, e.Small}}
	for _, c := range []struct {
		off, length uint64
		want        []stripe
	}{
		{0, 25, all}, {0, 1000, all}, {0, 0, nil}, {25, 1, nil}, {26, 1, nil},
		{9, 1, all[:1]}, {9, 2, all[:2]}, {10, 10, all[1:2]}, {24, 1, all[2:]}, {19, 2, all[1:]},
	} {
		var got []stripe
		for s := range e.Stripes(BucketID{}, "k", c.off, c.length) {
			if want := NewStripeID(BucketID{}, "k", 0, uint32(s.Offset/10), 9); s.ID != want {
				t.Errorf("stripe at %d has id %v, want %v", s.Offset, s.ID, want)
			}
			got = append(got, stripe{s.Offset, s.Bytes, s.Code})
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%d bytes from %d: %v, want %v", c.length, c.off, got, c.want)
		}
	}
	for range (Extent{StripeBytes: 10}).Stripes(BucketID{}, "k", 0, 1) {
		t.Error("an empty extent has a stripe")
	}
}

func TestKindOf(t *testing.T) {
	cause := errors.New("cause")
	for _, c := range []struct {
		err  error
		want Kind
	}{
		{cause, Internal},
		{E("op", "", Full, cause), Full},
		{fmt.Errorf("wrapped: %w", E("op", "", Full, cause)), Full},
		{E("outer", "", Unavailable, E("inner", "", Corrupt, nil)), Unavailable},
		{fmt.Errorf("wrapped: %w", context.DeadlineExceeded), Unavailable},
	} {
		if got := KindOf(c.err); got != c.want || !Is(c.err, c.want) {
			t.Errorf("%v: kind %v, want %v", c.err, got, c.want)
		}
	}
	if Is(nil, Internal) {
		t.Error("no error has a kind")
	}
	if got := E("segment: append", "disk=3f", Full, nil).Error(); got != "segment: append disk=3f: full" {
		t.Error(got)
	}
}

func TestIDsAreText(t *testing.T) {
	in := map[string]DiskID{"d": DiskID(NewID())}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]DiskID
	if err := json.Unmarshal(b, &out); err != nil || out["d"] != in["d"] {
		t.Errorf("%s: %v, %v", b, out, err)
	}
	for _, bad := range []string{"", "00", "zz000000000000000000000000000000", "000000000000000000000000000000000"} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q is taken for an id", bad)
		}
	}
}
