package s3

import (
	"encoding/base64"
	"hash"
	"net/http"
	"strconv"
	"strings"

	"ashlar/s3gw/store"
)

// Algorithm is a checksum that a client may send.
type Algorithm struct {
	// Name as in x-amz-checksum-algorithm, for example CRC64NVME.
	Name string
	// Header is the canonical HTTP header, Element the XML element.
	Header, Element string
	// Bytes is the length of the digest.
	Bytes int
	// FullObject says that parts may be combined into a full-object checksum,
	// Composite that a checksum over the parts' checksums exists.
	FullObject, Composite bool
}

// New returns a fresh hash.
func (a *Algorithm) New() hash.Hash { return store.NewHash(a.Name) }

// Algorithms are the checksums that Ashlar verifies and keeps.
var Algorithms = []*Algorithm{
	{store.CRC32, "X-Amz-Checksum-Crc32", "ChecksumCRC32", 4, true, true},
	{store.CRC32C, "X-Amz-Checksum-Crc32c", "ChecksumCRC32C", 4, true, true},
	{store.CRC64NVME, "X-Amz-Checksum-Crc64nvme", "ChecksumCRC64NVME", 8, true, false},
	{store.MD5, "X-Amz-Checksum-Md5", "ChecksumMD5", 16, false, true},
	{store.SHA1, "X-Amz-Checksum-Sha1", "ChecksumSHA1", 20, false, true},
	{store.SHA256, "X-Amz-Checksum-Sha256", "ChecksumSHA256", 32, false, true},
	{store.SHA512, "X-Amz-Checksum-Sha512", "ChecksumSHA512", 64, false, true},
	{store.XXHASH128, "X-Amz-Checksum-Xxhash128", "ChecksumXXHASH128", 16, false, true},
	{store.XXHASH3, "X-Amz-Checksum-Xxhash3", "ChecksumXXHASH3", 8, false, true},
	{store.XXHASH64, "X-Amz-Checksum-Xxhash64", "ChecksumXXHASH64", 8, false, true},
}

// AlgorithmOf finds an algorithm by its name, in any case; nil if unknown.
func AlgorithmOf(name string) *Algorithm {
	for _, a := range Algorithms {
		if strings.EqualFold(a.Name, name) {
			return a
		}
	}
	return nil
}

// algorithmOfHeader finds an algorithm by the name of its header, in any case.
func algorithmOfHeader(name string) *Algorithm {
	for _, a := range Algorithms {
		if strings.EqualFold(a.Header, name) {
			return a
		}
	}
	return nil
}

// FormatChecksum returns the base64 of a checksum, with "-N" if it is composite.
func FormatChecksum(c *store.Checksum) string {
	s := base64.StdEncoding.EncodeToString(c.Value)
	if c.Parts > 0 {
		s += "-" + strconv.Itoa(c.Parts)
	}
	return s
}

// ParseChecksum reads what FormatChecksum prints.
func ParseChecksum(a *Algorithm, s string) (*store.Checksum, error) {
	bad := E(InvalidRequest, "Value for "+strings.ToLower(a.Header)+" header is invalid.").OnRGW(BadDigest)
	text, tail, composite := strings.Cut(s, "-")
	parts := 0
	if composite {
		n, err := strconv.Atoi(tail)
		if err != nil || n < 1 || n > store.PartsMax || !a.Composite {
			return nil, bad
		}
		parts = n
	}
	v, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(v) != a.Bytes {
		return nil, bad
	}
	return &store.Checksum{Algorithm: a.Name, Value: v, Parts: parts}, nil
}

const checksumPrefix = "X-Amz-Checksum-"

// notDigests are headers that begin like a checksum and are none.
func notDigest(name string) bool {
	switch name[len(checksumPrefix):] {
	case "Algorithm", "Type", "Mode":
		return true
	}
	return false
}

// ChecksumOf reads the one checksum header of a request; nil if there is none.
// Two of them, or one of an algorithm that is not known, are InvalidRequest.
func ChecksumOf(h http.Header) (*Algorithm, *store.Checksum, error) {
	var alg *Algorithm
	text := ""
	for name, values := range h {
		if !strings.HasPrefix(name, checksumPrefix) || notDigest(name) {
			continue
		}
		a := algorithmOfHeader(name)
		if a == nil {
			return nil, nil, E(InvalidRequest, "The algorithm type you specified in x-amz-checksum- header is invalid.")
		}
		if alg != nil || len(values) != 1 {
			return nil, nil, E(InvalidRequest, "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		alg, text = a, values[0]
	}
	if alg == nil {
		return nil, nil, nil
	}
	sum, err := ParseChecksum(alg, text)
	if err != nil {
		return nil, nil, err
	}
	return alg, sum, nil
}

// TrailerOf reads x-amz-trailer: the algorithm whose digest follows the body,
// nil if none is announced.
func TrailerOf(h http.Header) (*Algorithm, error) {
	values := h["X-Amz-Trailer"]
	if len(values) == 0 {
		return nil, nil
	}
	name := strings.TrimSpace(values[0])
	a := algorithmOfHeader(name)
	if len(values) > 1 || a == nil {
		return nil, E(InvalidRequest, "The value specified in the x-amz-trailer header is not supported")
	}
	return a, nil
}

// RequestedAlgorithm reads a header such as x-amz-checksum-algorithm; nil if it
// is absent.
func RequestedAlgorithm(h http.Header, canonical string) (*Algorithm, error) {
	name := h.Get(canonical)
	if name == "" {
		return nil, nil
	}
	if a := AlgorithmOf(name); a != nil {
		return a, nil
	}
	return nil, E(InvalidRequest, "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "+
		"[CRC32, CRC32C, CRC64NVME, MD5, SHA1, SHA256, SHA512, XXHASH128, XXHASH3, XXHASH64]")
}

// ParseMD5 reads Content-MD5; ok is false if the header is absent. As on S3, bits that
// base64 has over may be anything.
func ParseMD5(h http.Header) (sum [16]byte, ok bool, err error) {
	values := h["Content-Md5"]
	if len(values) == 0 {
		return sum, false, nil
	}
	v, err := base64.StdEncoding.DecodeString(values[0])
	if err != nil || len(v) != len(sum) {
		return sum, false, E(InvalidDigest, "")
	}
	return [16]byte(v), true, nil
}
