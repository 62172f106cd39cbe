package ashlar

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// Code is an erasure code: K data pieces and M parity pieces. K = 1 is
// replication: M more copies of the one piece.
type Code struct {
	K, M uint8
}

// PiecesMax bounds K+M: beyond it the coder leaves its fast path and a group
// would span more disks than small clusters have.
const PiecesMax = 32

// Pieces returns K+M.
func (c Code) Pieces() int { return int(c.K) + int(c.M) }

// Quorum is the number of durable pieces that acknowledges a write by default:
// all of the data and half of the parity, rounded up (8+4: 10, 4+2: 5, 1+2: 2).
func (c Code) Quorum() int { return int(c.K) + (int(c.M)+1)/2 }

func (c Code) String() string { return fmt.Sprintf("%d+%d", c.K, c.M) }

// ParseCode reads "k+m", for example "8+4" or "1+2".
func ParseCode(s string) (Code, error) {
	left, right, ok := strings.Cut(s, "+")
	k, errK := strconv.Atoi(left)
	m, errM := strconv.Atoi(right)
	if !ok || errK != nil || errM != nil || k < 1 || m < 0 || k+m > PiecesMax {
		return Code{}, fmt.Errorf("code %q: want k+m with k ≥ 1, m ≥ 0 and k+m ≤ %d, for example 8+4", s, PiecesMax)
	}
	return Code{K: uint8(k), M: uint8(m)}, nil
}

// MarshalText prints the code as String does.
func (c Code) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (c *Code) UnmarshalText(b []byte) (err error) { *c, err = ParseCode(string(b)); return err }

// StripeID names a stripe. Its first eight bytes are a hash of (bucket, key,
// part, ordinal), so that the group of a stripe is the top bits of its id and
// doubling the number of groups moves nothing; its last eight are the WriteID,
// so that no two writes ever share a stripe.
type StripeID [16]byte

func (id StripeID) String() string { return hex.EncodeToString(id[:]) }

// Group returns the group of the stripe in a table of 2^bits groups.
func (id StripeID) Group(bits uint8) GroupID {
	if bits == 0 {
		return 0
	}
	return GroupID(binary.BigEndian.Uint64(id[:8]) >> (64 - bits))
}

// WriteID is random and names one upload of one object or part.
type WriteID uint64

// NewWriteID returns a WriteID from the system's random source. It is never zero.
func NewWriteID() WriteID {
	for {
		var b [8]byte
		rand.Read(b[:])
		if w := WriteID(binary.LittleEndian.Uint64(b[:])); w != 0 {
			return w
		}
	}
}

// NewStripeID derives the id of stripe number ordinal of an upload. Part is
// zero for an object written in one piece.
func NewStripeID(bucket BucketID, key string, part, ordinal uint32, write WriteID) StripeID {
	var tail [8]byte
	binary.BigEndian.PutUint32(tail[:4], part)
	binary.BigEndian.PutUint32(tail[4:], ordinal)
	buf := make([]byte, 0, 128)
	buf = append(buf, bucket[:]...)
	buf = append(buf, key...)
	buf = append(buf, tail[:]...)
	sum := sha256.Sum256(buf)
	var id StripeID
	copy(id[:8], sum[:8])
	binary.BigEndian.PutUint64(id[8:], uint64(write))
	return id
}

// Write is the write that the id was made of.
func (s StripeID) Write() WriteID { return WriteID(binary.BigEndian.Uint64(s[8:])) }

// Owner says whose bytes a piece holds, as far as the disk is concerned. With
// it the namespace can be rebuilt from the raw disks alone.
type Owner struct {
	Bucket BucketID
	Key    string
	Part   uint32
	// Offset of the stripe's first byte in the object or part, in bytes.
	Offset uint64
}

// Extent is the whole upload of one object or part: everything that is needed
// to name its stripes. It is what an object's record stores, so that a
// manifest costs some forty bytes a part whatever the part's size.
type Extent struct {
	Write WriteID
	Part  uint32
	// Bytes of user data.
	Bytes uint64
	// StripeBytes is the length of every stripe but the last.
	StripeBytes uint32
	// SmallMax is the length up to which a stripe is coded with Small.
	SmallMax uint32
	// Large codes stripes longer than SmallMax, Small the others.
	Large, Small Code
}

// Stripe is one stripe of an extent.
type Stripe struct {
	ID   StripeID
	Code Code
	// Offset in the extent and length, in bytes of user data.
	Offset uint64
	Bytes  uint32
}

// Stripes yields the stripes of the extent that hold any byte of
// [off, off+length), in order. It yields nothing for an empty range.
func (e Extent) Stripes(bucket BucketID, key string, off, length uint64) iter.Seq[Stripe] {
	return func(yield func(Stripe) bool) {
		if off >= e.Bytes || length == 0 || e.StripeBytes == 0 {
			return
		}
		end := min(e.Bytes, off+length)
		for n := off / uint64(e.StripeBytes); n*uint64(e.StripeBytes) < end; n++ {
			if !yield(e.Stripe(bucket, key, uint32(n))) {
				return
			}
		}
	}
}

// Stripe returns stripe number n, which must lie within the extent.
func (e Extent) Stripe(bucket BucketID, key string, n uint32) Stripe {
	off := uint64(n) * uint64(e.StripeBytes)
	s := Stripe{
		ID:     NewStripeID(bucket, key, e.Part, n, e.Write),
		Code:   e.Large,
		Offset: off,
		Bytes:  uint32(min(uint64(e.StripeBytes), e.Bytes-off)),
	}
	if s.Bytes <= e.SmallMax {
		s.Code = e.Small
	}
	return s
}
