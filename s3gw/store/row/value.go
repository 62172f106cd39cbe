package row

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"ashlar"
)

// Format is the version of every message that this code writes, and the only
// one that it reads.
const Format = 1

// InlineExtentsMax is the largest number of extents that an object row holds
// itself; a longer list is put into a manifest row.
const InlineExtentsMax = 64

// Message is a row's value: any message of row.proto that has a format field.
type Message interface {
	proto.Message
	GetFormat() uint32
}

// Encode returns the bytes of a row's value, whose format must be set.
func Encode(m Message) ([]byte, error) {
	if m.GetFormat() != Format {
		return nil, ashlar.E("row: encode", string(m.ProtoReflect().Descriptor().Name()), ashlar.Internal,
			fmt.Errorf("format is %d, want %d", m.GetFormat(), Format))
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Decode fills m from the value of the row under key. A value that is not
// protobuf is Corrupt; a format that this code does not know is Invalid.
func Decode(key, value []byte, m Message) error {
	const op = "row: decode"
	if err := proto.Unmarshal(value, m); err != nil {
		return ashlar.E(op, fmt.Sprintf("key=%q", key), ashlar.Corrupt, err)
	}
	if m.GetFormat() != Format {
		return ashlar.E(op, fmt.Sprintf("key=%q", key), ashlar.Invalid,
			fmt.Errorf("format %d was written by a newer program; this one reads format %d", m.GetFormat(), Format))
	}
	return nil
}

// FromExtents puts a list of extents into columns.
func FromExtents(list []ashlar.Extent) *Extents {
	if len(list) == 0 {
		return nil
	}
	out := &Extents{}
	seen := map[layout]uint32{}
	varied := false
	for _, e := range list {
		l := layoutOf(e)
		n, ok := seen[l]
		if !ok {
			n = uint32(len(out.Layouts))
			seen[l] = n
			out.Layouts = append(out.Layouts, &Layout{
				StripeBytes: l[0], SmallMax: l[1], LargeK: l[2], LargeM: l[3], SmallK: l[4], SmallM: l[5],
			})
		}
		varied = varied || n != 0
		out.Write = append(out.Write, uint64(e.Write))
		out.Part = append(out.Part, e.Part)
		out.Bytes = append(out.Bytes, e.Bytes)
		out.Layout = append(out.Layout, n)
	}
	if !varied {
		out.Layout = nil
	}
	return out
}

// layout is what extents of one object usually share, as a map key.
type layout [6]uint32

func layoutOf(e ashlar.Extent) layout {
	return layout{e.StripeBytes, e.SmallMax,
		uint32(e.Large.K), uint32(e.Large.M), uint32(e.Small.K), uint32(e.Small.M)}
}

// List turns the columns back into extents. Columns of different lengths or an
// unknown layout are Corrupt.
func (x *Extents) List() ([]ashlar.Extent, error) {
	n := len(x.GetWrite())
	if n == 0 {
		return nil, nil
	}
	bad := func(why string) error {
		return ashlar.E("row: extents", "", ashlar.Corrupt, fmt.Errorf("%s", why))
	}
	if len(x.Part) != n || len(x.Bytes) != n || (len(x.Layout) != 0 && len(x.Layout) != n) {
		return nil, bad("columns of different lengths")
	}
	out := make([]ashlar.Extent, n)
	for i := range out {
		at := uint32(0)
		if len(x.Layout) > 0 {
			at = x.Layout[i]
		}
		if int(at) >= len(x.Layouts) {
			return nil, bad("unknown layout")
		}
		l := x.Layouts[at]
		if max(l.LargeK, l.LargeM, l.SmallK, l.SmallM) > ashlar.PiecesMax {
			return nil, bad("impossible code")
		}
		out[i] = ashlar.Extent{
			Write: ashlar.WriteID(x.Write[i]), Part: x.Part[i], Bytes: x.Bytes[i],
			StripeBytes: l.StripeBytes, SmallMax: l.SmallMax,
			Large: ashlar.Code{K: uint8(l.LargeK), M: uint8(l.LargeM)},
			Small: ashlar.Code{K: uint8(l.SmallK), M: uint8(l.SmallM)},
		}
	}
	return out, nil
}
