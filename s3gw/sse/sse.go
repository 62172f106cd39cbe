// Package sse is the form in which encrypted content is stored: AES-256-GCM in
// packages, so that a range is opened without what stands before it, and keys
// that are sealed by other keys. It knows neither S3 nor where bytes lie.
//
// # Content
//
// The content of an object, or of each part of a multipart object, is one stream:
//
//	stream    package(0) package(1) … package(n-1)       nothing for no bytes
//	package   ciphertext (64 KiB, the last one 1 byte to 64 KiB) ‖ tag (16)
//
//	key       HMAC-SHA-256(data key, "ashlar sse stream 1" ‖ salt)
//	nonce     last(1) ‖ zero(3) ‖ index(8, big-endian)    last is 1 in the last package, else 0
//	AAD       what the caller binds the stream to: bucket id ‖ object key
//
// The salt is 16 random bytes, made anew for every stream, so that no key is ever
// used for two streams, also where a part is uploaded again. Packages cannot be
// exchanged, moved or left out without the reader noticing: the index is in the
// nonce, and so is which one is the last.
//
// # Keys
//
// Each object or upload has a random data key of 32 bytes. It is stored sealed:
//
//	sealed    nonce(12, random) ‖ AES-256-GCM(sealing key, nonce, data key, AAD) (48)
//
// The sealing key is one of the keyring's (SSE-S3, SSE-KMS) or the customer's own
// (SSE-C); that one is in no row, and a wrong one is known by the tag.
package sse

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
)

// Sizes of the format.
const (
	PackageBytes = 64 << 10
	SaltBytes    = 16
	tagBytes     = 16
	fullBytes    = PackageBytes + tagBytes
)

// Key is a key of AES-256.
type Key [32]byte

// ErrKey: a key does not open what it should: it is the wrong one.
var ErrKey = errors.New("the key does not open the data key")

// ErrContent: stored content is not what was sealed.
var ErrContent = errors.New("encrypted content does not verify")

// NewKey returns a random key.
func NewKey() (k Key) {
	rand.Read(k[:]) // never fails
	return k
}

// NewSalt returns a salt for one stream.
func NewSalt() []byte {
	salt := make([]byte, SaltBytes)
	rand.Read(salt)
	return salt
}

// SealedBytes returns the length of the stream of n bytes of content.
func SealedBytes(n uint64) uint64 {
	return n + (n+PackageBytes-1)/PackageBytes*tagBytes
}

// PlainBytes is the inverse of SealedBytes.
func PlainBytes(sealed uint64) uint64 {
	return sealed - (sealed+fullBytes-1)/fullBytes*tagBytes
}

func aead(k Key) cipher.AEAD {
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err) // the length is right
	}
	g, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return g
}

func streamKey(data Key, salt []byte) (k Key) {
	h := hmac.New(sha256.New, data[:])
	h.Write([]byte("ashlar sse stream 1"))
	h.Write(salt)
	h.Sum(k[:0])
	return k
}

func nonce(index uint64, last bool) (n [12]byte) {
	if last {
		n[0] = 1
	}
	binary.BigEndian.PutUint64(n[4:], index)
	return n
}

// SealKey seals a data key.
func SealKey(with, data Key, aad []byte) []byte {
	out := make([]byte, 12, 12+len(data)+tagBytes)
	rand.Read(out)
	return aead(with).Seal(out, out, data[:], aad)
}

// OpenKey opens a sealed data key, or returns ErrKey.
func OpenKey(with Key, sealed, aad []byte) (data Key, err error) {
	if len(sealed) != 12+len(data)+tagBytes {
		return data, ErrKey
	}
	plain, err := aead(with).Open(nil, sealed[:12], sealed[12:], aad)
	if err != nil {
		return data, ErrKey
	}
	return Key(plain), nil
}

// Mask turns a digest of content into one that says nothing about the content
// to those who have not the key: the entity tag of SSE-C and SSE-KMS.
func Mask(data Key, digest []byte) []byte {
	h := hmac.New(sha256.New, data[:])
	h.Write([]byte("ashlar sse etag 1"))
	h.Write(digest)
	return h.Sum(nil)[:len(digest)]
}

// sealer turns content into a stream. It reads one package ahead, so that the
// last one goes out only when the content has ended well.
type sealer struct {
	src     io.Reader
	aead    cipher.AEAD
	aad     []byte
	index   uint64
	ahead   []byte // content of the next package
	out     []byte // what is left of the package under way
	buf     [2][]byte
	flip    int
	sealed  []byte
	srcDone error
}

// NewSealer returns a reader of the stream of src's content. Its errors are
// those of src.
func NewSealer(src io.Reader, data Key, salt, aad []byte) io.Reader {
	s := &sealer{src: src, aead: aead(streamKey(data, salt)), aad: aad, sealed: make([]byte, 0, fullBytes)}
	s.buf[0], s.buf[1] = make([]byte, PackageBytes), make([]byte, PackageBytes)
	return s
}

// fill reads the content of one package.
func (s *sealer) fill() ([]byte, error) {
	if s.srcDone != nil {
		return nil, s.srcDone
	}
	b := s.buf[s.flip]
	s.flip ^= 1
	n := 0
	for n < len(b) && s.srcDone == nil {
		var m int
		m, s.srcDone = s.src.Read(b[n:])
		n += m
	}
	if s.srcDone != nil && s.srcDone != io.EOF {
		return nil, s.srcDone
	}
	return b[:n], nil
}

func (s *sealer) Read(p []byte) (int, error) {
	for len(s.out) == 0 {
		if s.ahead == nil && s.srcDone == nil && s.index == 0 {
			var err error
			if s.ahead, err = s.fill(); err != nil {
				return 0, err
			}
		}
		if len(s.ahead) == 0 {
			return 0, s.srcDone
		}
		cur := s.ahead
		next, err := s.fill()
		if err != nil && err != io.EOF {
			return 0, err
		}
		n := nonce(s.index, len(next) == 0)
		s.sealed = s.aead.Seal(s.sealed[:0], n[:], cur, s.aad)
		s.out, s.ahead = s.sealed, next
		s.index++
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

// Span is the part of a stream that a range of content needs.
type Span struct {
	Off, Length uint64 // in the stream
	first       uint64 // package
	skip, want  uint64 // of the content from the first package on
	count       uint64 // packages of the whole stream
}

// SpanOf returns the span of length > 0 bytes of content from off, in a stream of
// sealed bytes.
func SpanOf(sealed, off, length uint64) Span {
	first, last := off/PackageBytes, (off+length-1)/PackageBytes
	s := Span{first: first, skip: off - first*PackageBytes, want: length, count: (sealed + fullBytes - 1) / fullBytes}
	s.Off = first * fullBytes
	s.Length = min(sealed, (last+1)*fullBytes) - s.Off
	return s
}

// opener turns a span of a stream back into content.
type opener struct {
	src   io.ReadCloser
	aead  cipher.AEAD
	aad   []byte
	span  Span
	buf   []byte
	plain []byte
	err   error
}

// NewOpener returns the content of a span that src yields. It closes src.
func NewOpener(src io.ReadCloser, span Span, data Key, salt, aad []byte) io.ReadCloser {
	return &opener{src: src, aead: aead(streamKey(data, salt)), aad: aad, span: span, buf: make([]byte, min(span.Length, fullBytes))}
}

func (o *opener) Close() error { return o.src.Close() }

func (o *opener) Read(p []byte) (int, error) {
	for len(o.plain) == 0 && o.err == nil {
		o.err = o.next()
	}
	if o.err != nil {
		return 0, o.err
	}
	n := copy(p, o.plain)
	o.plain = o.plain[n:]
	return n, nil
}

func (o *opener) next() error {
	s := &o.span
	if s.want == 0 {
		return io.EOF
	}
	b := o.buf[:min(s.Length, fullBytes)]
	if _, err := io.ReadFull(o.src, b); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	n := nonce(s.first, s.first == s.count-1)
	plain, err := o.aead.Open(b[:0], n[:], b, o.aad)
	if err != nil || uint64(len(plain)) <= s.skip {
		return ErrContent
	}
	plain = plain[s.skip:]
	plain = plain[:min(uint64(len(plain)), s.want)]
	s.Length -= uint64(len(b))
	s.want -= uint64(len(plain))
	s.first, s.skip, o.plain = s.first+1, 0, plain
	return nil
}
