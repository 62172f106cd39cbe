package store

import (
	"cmp"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"
	"github.com/minio/crc64nvme"
	"github.com/zeebo/xxh3"
)

// crc describes a cyclic redundancy check whose values can be combined: all of
// those that S3 knows are bit-reflected, with all ones before and after.
type crc struct {
	poly uint64 // reflected
	bits uint
}

var crcs = map[string]crc{
	CRC32:     {crc32.IEEE, 32},
	CRC32C:    {crc32.Castagnoli, 32},
	CRC64NVME: {0x9a6c9329ac4bc9b5, 64},
}

// NewHash returns the hash of a checksum algorithm, or nil if it is unknown.
func NewHash(algorithm string) hash.Hash {
	switch algorithm {
	case CRC32:
		return crc32.NewIEEE()
	case CRC32C:
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case CRC64NVME:
		return crc64nvme.New()
	case SHA1:
		return sha1.New()
	case SHA256:
		return sha256.New()
	case SHA512:
		return sha512.New()
	case MD5:
		return md5.New()
	case XXHASH64:
		return xxhash.New()
	case XXHASH3:
		return xxh3.New()
	case XXHASH128:
		return xxh128{xxh3.New()}
	}
	return nil
}

// xxh128 is XXH3 with its digest of 128 bits.
type xxh128 struct{ *xxh3.Hasher }

func (h xxh128) Size() int { return 16 }

func (h xxh128) Sum(b []byte) []byte {
	sum := h.Sum128().Bytes()
	return append(b, sum[:]...)
}

// ChecksumTypeError is what a part gets whose checksum is not of the algorithm of its
// upload; Got is empty where a composite upload's part has none.
type ChecksumTypeError struct{ Want, Got string }

func (e *ChecksumTypeError) Error() string {
	return "a checksum of type " + cmp.Or(e.Got, "none") + " for a part of an upload with " + e.Want
}

func algorithmOf(sum *Checksum) string {
	if sum == nil {
		return ""
	}
	return sum.Algorithm
}

// checksumFits reports whether an upload may have a checksum of this algorithm
// and type: only a CRC can be combined to that of the full object, and
// CRC64NVME is never composite.
func checksumFits(algorithm string, composite bool) bool {
	if algorithm == "" {
		return !composite
	}
	if NewHash(algorithm) == nil {
		return false
	}
	_, combines := crcs[algorithm]
	if composite {
		return algorithm != CRC64NVME
	}
	return combines
}

// joinChecksums returns the checksum of an object from those of its parts, or
// nil if a part has none of this algorithm.
func joinChecksums(algorithm string, composite bool, parts []Part) *Checksum {
	h := NewHash(algorithm)
	if h == nil {
		return nil
	}
	kind := crcs[algorithm]
	var full uint64
	for _, p := range parts {
		c := p.Checksum
		if c == nil || c.Algorithm != algorithm || len(c.Value) != h.Size() {
			return nil
		}
		if composite {
			h.Write(c.Value)
		} else {
			full = kind.combine(full, fromBytes(c.Value), p.Bytes)
		}
	}
	if composite {
		return &Checksum{Algorithm: algorithm, Value: h.Sum(nil), Parts: len(parts)}
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], full)
	return &Checksum{Algorithm: algorithm, Value: b[8-kind.bits/8:]}
}

func fromBytes(b []byte) (v uint64) {
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v
}

// combine returns the check of a ‖ b from those of a and b and the length of b:
// a's is moved up by b's bits, that is multiplied by x^(8·lenB) modulo the
// polynomial. With ones before and after, the constants cancel out.
func (c crc) combine(a, b, lenB uint64) uint64 {
	return c.multiply(c.power(8*lenB), a) ^ b
}

// power returns x^n modulo the polynomial.
func (c crc) power(n uint64) uint64 {
	result := uint64(1) << (c.bits - 1) // x^0: the top bit is the lowest power
	square := uint64(1) << (c.bits - 2) // x^1
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			result = c.multiply(result, square)
		}
		square = c.multiply(square, square)
	}
	return result
}

// multiply returns a·b modulo the polynomial.
func (c crc) multiply(a, b uint64) (product uint64) {
	for bit := uint64(1) << (c.bits - 1); bit > 0 && a != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
			a &^= bit
		}
		carry := b & 1
		b >>= 1
		if carry == 1 {
			b ^= c.poly
		}
	}
	return product
}
