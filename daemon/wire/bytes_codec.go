package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"ashlar"
)

// codec writes values to b, or reads them back from it: one function for each
// type does both, so that the two cannot differ. Integers are varints, strings
// carry their length, identifiers are raw. After a failed read err is set and
// all values are zero.
type codec struct {
	b       []byte
	reading bool
	err     error
}

var errShortRequest = errors.New("the request is cut off or malformed")

func (c *codec) fail() { c.err, c.b = errShortRequest, nil }

func (c *codec) uint(v *uint64) {
	if !c.reading {
		c.b = binary.AppendUvarint(c.b, *v)
		return
	}
	got, n := binary.Uvarint(c.b)
	if n <= 0 {
		*v = 0
		c.fail()
		return
	}
	*v, c.b = got, c.b[n:]
}

func integer[T ~uint8 | ~uint32 | ~uint64 | ~int64](c *codec, v *T) {
	u := uint64(*v)
	c.uint(&u)
	if *v = T(u); uint64(*v) != u {
		*v = 0
		c.fail()
	}
}

func (c *codec) raw(v []byte) {
	switch {
	case !c.reading:
		c.b = append(c.b, v...)
	case len(c.b) < len(v):
		clear(v)
		c.fail()
	default:
		c.b = c.b[copy(v, c.b):]
	}
}

func (c *codec) string(v *string) {
	n := uint64(len(*v))
	c.uint(&n)
	switch {
	case !c.reading:
		c.b = append(c.b, *v...)
	case n > uint64(len(c.b)):
		*v = ""
		c.fail()
	default:
		*v, c.b = string(c.b[:n]), c.b[n:]
	}
}

// list codes a slice. An element takes at least min bytes, which bounds what a
// malformed length can make us allocate.
func list[T any](c *codec, v *[]T, min int, one func(*T)) {
	n := uint64(len(*v))
	c.uint(&n)
	if c.reading {
		if *v = nil; n > uint64(len(c.b)/min) {
			c.fail()
			return
		}
		*v = make([]T, n)
	}
	for i := range *v {
		one(&(*v)[i])
	}
}

// timeout travels as what is left of the caller's deadline; 0 is none.
func (c *codec) timeout(d *time.Duration) {
	ms := uint64(max(0, *d/time.Millisecond))
	c.uint(&ms)
	if c.reading {
		*d = time.Duration(min(ms, uint64(24*time.Hour/time.Millisecond))) * time.Millisecond
	}
}

func (c *codec) time(t *time.Time) {
	ns := uint64(0)
	if !t.IsZero() {
		ns = uint64(t.UnixNano())
	}
	c.uint(&ns)
	if c.reading {
		if *t = (time.Time{}); ns != 0 {
			*t = time.Unix(0, int64(ns))
		}
	}
}

func (c *codec) code(v *ashlar.Code) { integer(c, &v.K); integer(c, &v.M) }

func (c *codec) pieceID(v *PieceID) { c.raw(v.Stripe[:]); integer(c, &v.Index) }

// piece codes everything but Data, which is the payload.
func (c *codec) piece(p *Piece) {
	c.pieceID(&p.PieceID)
	c.raw(p.Disk[:])
	integer(c, &p.Epoch)
	integer(c, &p.Group)
	c.code(&p.Code)
	integer(c, &p.StripeBytes)
	c.raw(p.Owner.Bucket[:])
	c.string(&p.Owner.Key)
	integer(c, &p.Owner.Part)
	integer(c, &p.Owner.Offset)
	c.time(&p.Written)
	integer(c, &p.Sum)
}

func (c *codec) pieceRange(r *PieceRange) {
	c.pieceID(&r.PieceID)
	c.raw(r.Disk[:])
	integer(c, &r.Epoch)
	integer(c, &r.Off)
}

func (c *codec) writeRequest(r *WriteRequest) {
	c.raw(r.Bucket[:])
	c.string(&r.Key)
	integer(c, &r.Part)
	bytes := uint64(r.Bytes + 1) // -1 is 0
	c.uint(&bytes)
	if r.Bytes = int64(bytes) - 1; r.Bytes < -1 {
		c.fail()
	}
	integer(c, &r.Epoch)
}

func (c *codec) extent(e *ashlar.Extent) {
	integer(c, &e.Write)
	integer(c, &e.Part)
	integer(c, &e.Bytes)
	integer(c, &e.StripeBytes)
	integer(c, &e.SmallMax)
	c.code(&e.Large)
	c.code(&e.Small)
}

// extentBytesMin is the least that extent takes: one byte a number.
const extentBytesMin = 9

func (c *codec) readRequest(r *ReadRequest) {
	c.raw(r.Bucket[:])
	c.string(&r.Key)
	list(c, &r.Extents, extentBytesMin, c.extent)
	integer(c, &r.Off)
	integer(c, &r.Length)
	integer(c, &r.Epoch)
}

// message is the request of one call, as its codec function.
type message func(*codec)

// encode returns the length and the request, with room for extra bytes behind.
func encode(m message, extra int) []byte {
	c := &codec{b: make([]byte, 4, 256+extra)}
	m(c)
	binary.LittleEndian.PutUint32(c.b, uint32(len(c.b)-4))
	return c.b
}

// decode reads a request. It must use up all of b: what we do not know we do
// not serve.
func decode(op string, b []byte, m message) error {
	c := &codec{b: b, reading: true}
	m(c)
	if c.err == nil && len(c.b) != 0 {
		c.err = fmt.Errorf("%d bytes behind the request", len(c.b))
	}
	if c.err != nil {
		return ashlar.E(op, "", ashlar.Invalid, c.err)
	}
	return nil
}
