package s3

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"math/bits"

	"github.com/zeebo/xxh3"
)

// content is the bytes of one object: a function of seed and key that can be
// produced from any offset, one multiplication for every eight bytes.
type content struct {
	state uint64
}

func contentOf(seed uint64, key string) content {
	return content{state: xxh3.HashStringSeed(key, seed)}
}

// The odd step visits every 64-bit state once; the multiplication mixes it.
const (
	contentStep = 0xa0761d6478bd642f
	contentMix  = 0xe7037ed1a0b428db
)

func (c content) word(n uint64) uint64 {
	x := c.state + n*contentStep
	high, low := bits.Mul64(x, x^contentMix)
	return high ^ low
}

// fill writes the bytes of the object from offset on into buf. The offset must
// be a multiple of eight.
func (c content) fill(buf []byte, offset int64) {
	n := uint64(offset) / 8
	for len(buf) >= 32 {
		binary.LittleEndian.PutUint64(buf, c.word(n))
		binary.LittleEndian.PutUint64(buf[8:], c.word(n+1))
		binary.LittleEndian.PutUint64(buf[16:], c.word(n+2))
		binary.LittleEndian.PutUint64(buf[24:], c.word(n+3))
		buf, n = buf[32:], n+4
	}
	var last [8]byte
	for ; len(buf) > 0; n++ {
		binary.LittleEndian.PutUint64(last[:], c.word(n))
		buf = buf[copy(buf, last[:]):]
	}
}

// write sends the first size bytes to w, made in buf, whose length must be a
// multiple of eight. It is for hashes: a writer that fails is not noticed.
func (c content) write(w io.Writer, size int64, buf []byte) {
	for off := int64(0); off < size; {
		part := buf[:min(int64(len(buf)), size-off)]
		c.fill(part, off)
		w.Write(part)
		off += int64(len(part))
	}
}

// hash is what the bytes of a whole object are known by.
func (c content) hash(size int64, buf []byte) uint64 {
	h := xxh3.New()
	c.write(h, size, buf)
	return h.Sum64()
}

func contentSHA256(c content, size int64, buf []byte) string {
	h := sha256.New()
	c.write(h, size, buf)
	return hex.EncodeToString(h.Sum(nil))
}

func sha256Hex(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}
