package sigv4

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"strconv"
	"strings"
	"sync"

	"ashlar/s3gw/s3"
)

const (
	chunkBufferBytes = 16 << 10
	// chunkLineMax bounds a chunk's header line and a trailer line.
	chunkLineMax = 1024
	trailersMax  = 8

	chunkSigPrefix     = "chunk-signature="
	trailerSigName     = "x-amz-trailer-signature"
	chunkAlgorithm     = "AWS4-HMAC-SHA256-PAYLOAD"
	trailerAlgorithm   = "AWS4-HMAC-SHA256-TRAILER"
	emptySHA256        = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	signatureHexDigits = 64
	// chunkBytesMin is S3's bound of every chunk but the last one.
	chunkBytesMin      = 8192
	chunkSizeDigitsMax = 16
)

var chunkBuffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, chunkBufferBytes) }}

// ChunkReader takes the aws-chunked framing off a body and verifies the
// signatures in it:
//
//	size(hex) [;chunk-signature=…] CRLF  data CRLF      any number of times
//	0         [;chunk-signature=…] CRLF
//	[name:value CRLF]… [x-amz-trailer-signature:… CRLF]
//	CRLF
//
// Bytes are handed on before the signature of their chunk is known; Read
// returns an *s3.Error in place of io.EOF if anything is wrong, so the caller
// must keep nothing before io.EOF. It holds no more than one small buffer.
type ChunkReader struct {
	src      *bufio.Reader
	payload  *Payload
	declared int64 // x-amz-decoded-content-length, -1 if unknown
	seen     int64

	bytesMin  int64 // of every chunk but the last one
	number    int   // of the current chunk, from 1
	size      int64 // of the current chunk
	remaining int64 // of the current chunk
	inChunk   bool
	previous  string // signature that the next one is chained to
	expected  string // signature of the current chunk
	sum       hash.Hash
	trailers  map[string]string
	err       error
}

// NewChunkReader decodes src. Release gives its buffer back.
func NewChunkReader(src io.Reader, p *Payload, decodedBytes int64) *ChunkReader {
	b := chunkBuffers.Get().(*bufio.Reader)
	b.Reset(src)
	c := &ChunkReader{src: b, payload: p, declared: decodedBytes, previous: p.seed, bytesMin: chunkBytesMin}
	if p.Signed() {
		c.sum = sha256.New()
	}
	return c
}

// Release returns the buffer to its pool. The reader must not be used again.
func (c *ChunkReader) Release() {
	if c.src != nil {
		c.src.Reset(nil)
		chunkBuffers.Put(c.src)
		c.src = nil
	}
}

// Trailers returns the trailing headers, lower-case, once Read returned io.EOF.
func (c *ChunkReader) Trailers() map[string]string { return c.trailers }

func (c *ChunkReader) Read(p []byte) (int, error) {
	for c.err == nil && len(p) > 0 {
		if c.remaining > 0 {
			return c.readData(p)
		}
		c.err = c.nextChunk()
	}
	return 0, c.err
}

func (c *ChunkReader) readData(p []byte) (int, error) {
	if int64(len(p)) > c.remaining {
		p = p[:c.remaining]
	}
	n, err := c.src.Read(p)
	if n > 0 {
		c.remaining -= int64(n)
		c.seen += int64(n)
		if c.sum != nil {
			c.sum.Write(p[:n])
		}
		return n, nil // an error of the source comes back with the next Read
	}
	if err != nil {
		c.err = truncated(err)
	}
	return 0, c.err
}

// nextChunk ends the current chunk and reads the header of the next one. It
// returns io.EOF behind a good end.
func (c *ChunkReader) nextChunk() error {
	if c.inChunk {
		if err := c.endChunk(); err != nil {
			return err
		}
	}
	line, err := c.line(true)
	if err != nil {
		return err
	}
	size, signature, err := parseChunkHeader(line, c.payload.Signed())
	if err != nil {
		return err
	}
	c.expected = signature
	if size > 0 {
		if c.declared >= 0 && size > c.declared-c.seen {
			return s3.E(s3.IncompleteBody, "")
		}
		if c.number > 0 && c.size < c.bytesMin {
			return s3.E(s3.InvalidChunkSizeError, "").With("Chunk", strconv.Itoa(c.number)).With("BadChunkSize", strconv.FormatInt(c.size, 10))
		}
		c.number++
		c.size, c.remaining, c.inChunk = size, size, true
		return nil
	}
	return c.finish()
}

func (c *ChunkReader) endChunk() error {
	var end [2]byte
	if _, err := io.ReadFull(c.src, end[:]); err != nil {
		return truncated(err)
	}
	if end != [2]byte{'\r', '\n'} {
		return broken("a chunk does not end where its size says")
	}
	c.inChunk = false
	return c.verifyChunk()
}

func (c *ChunkReader) verifyChunk() error {
	if !c.payload.Signed() {
		return nil
	}
	var sum [32]byte
	c.sum.Sum(sum[:0])
	c.sum.Reset()
	b := make([]byte, 0, 512)
	b = append(b, chunkAlgorithm+"\n"...)
	b = c.appendChain(b)
	b = append(b, emptySHA256+"\n"...)
	return c.check(hex.AppendEncode(b, sum[:]), c.expected)
}

// appendChain appends what every string to sign begins with.
func (c *ChunkReader) appendChain(b []byte) []byte {
	b = append(b, c.payload.stamp...)
	b = append(b, '\n')
	b = append(b, c.payload.scope...)
	b = append(b, '\n')
	b = append(b, c.previous...)
	return append(b, '\n')
}

func (c *ChunkReader) check(toSign []byte, signature string) error {
	got := c.payload.key.mac(toSign)
	var text [signatureHexDigits]byte
	hex.Encode(text[:], got[:])
	if subtle.ConstantTimeCompare(text[:], []byte(signature)) != 1 {
		return s3.E(s3.SignatureDoesNotMatch, "")
	}
	c.previous = signature
	return nil
}

// finish reads what stands behind the last chunk's header line.
func (c *ChunkReader) finish() error {
	if err := c.verifyChunk(); err != nil {
		return err
	}
	if c.declared >= 0 && c.seen != c.declared {
		return s3.E(s3.IncompleteBody, "")
	}
	if err := c.readTrailers(); err != nil {
		return err
	}
	if _, err := c.src.ReadByte(); err == nil {
		return broken("bytes behind the end")
	} else if err != io.EOF {
		return truncated(err)
	}
	return io.EOF
}

// readTrailers reads lines up to the empty one. Trailers of some clients have an
// empty line more: signed ones before the signature, unsigned ones at the end.
func (c *ChunkReader) readTrailers() error {
	var signed []byte
	signature := ""
	blank := 0
	for {
		line, err := c.line(false)
		if err != nil {
			return err
		}
		if line == "" {
			if blank++; c.payload.kind == kindChunksSignedTrailer && signature == "" && blank == 1 && len(signed) > 0 {
				continue
			}
			break
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !ok || name == "" || signature != "" || !c.payload.Trailer():
			return s3.E(s3.MalformedTrailerError, "")
		case name == trailerSigName:
			signature = value
			continue
		case c.trailers[name] != "" || len(c.trailers) >= trailersMax:
			return s3.E(s3.MalformedTrailerError, "")
		case c.trailers == nil:
			c.trailers = make(map[string]string, 1)
		}
		c.trailers[name] = value
		signed = append(signed, name+":"+value+"\n"...)
	}
	if c.payload.kind != kindChunksSignedTrailer {
		if end, err := c.src.Peek(2); err == nil && string(end) == "\r\n" && len(signed) > 0 {
			_, err = c.src.Discard(2)
			return err
		}
		return nil
	}
	sum := sha256.Sum256(signed)
	b := append(make([]byte, 0, 512), trailerAlgorithm+"\n"...)
	return c.check(hex.AppendEncode(c.appendChain(b), sum[:]), signature)
}

// line reads one line without its end, CRLF; only some clients' trailers may end otherwise.
func (c *ChunkReader) line(strict bool) (string, error) {
	raw, err := c.src.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || len(raw) > chunkLineMax:
		return "", broken("a line is too long")
	case err != nil:
		return "", truncated(err)
	}
	if strict && !bytes.HasSuffix(raw, []byte("\r\n")) {
		return "", broken("the line of a chunk does not end in CRLF")
	}
	return strings.TrimRight(string(raw), "\r\n"), nil
}

// parseChunkHeader reads "size" or "size;chunk-signature=…".
func parseChunkHeader(line string, signed bool) (size int64, signature string, err error) {
	digits, extension, found := strings.Cut(line, ";")
	if found != signed {
		if signed {
			return 0, "", broken("a chunk carries no signature")
		}
		return 0, "", broken("a chunk header holds more than its size")
	}
	if digits == "" || len(digits) > chunkSizeDigitsMax-1 {
		return 0, "", broken("the size of a chunk is not a number")
	}
	for i := 0; i < len(digits); i++ {
		d := hexDigit(digits[i])
		if d < 0 {
			return 0, "", broken("the size of a chunk is not a number")
		}
		size = size<<4 | d
	}
	if !signed {
		return size, "", nil
	}
	signature, ok := strings.CutPrefix(extension, chunkSigPrefix)
	if !ok || len(signature) != signatureHexDigits {
		return 0, "", broken("a chunk carries no signature")
	}
	return size, signature, nil
}

func hexDigit(c byte) int64 {
	switch {
	case '0' <= c && c <= '9':
		return int64(c - '0')
	case 'a' <= c && c <= 'f':
		return int64(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int64(c-'A') + 10
	}
	return -1
}

// endedEarly is what S3 says of framing that it cannot follow to the end.
const endedEarly = "The request body terminated unexpectedly"

func broken(why string) error {
	return &s3.Error{Code: s3.IncompleteBody, Message: endedEarly, Err: errors.New(why)}
}

// truncated turns the end of the source into IncompleteBody; an error that
// already says more (a time-out) passes.
func truncated(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return s3.E(s3.IncompleteBody, endedEarly)
	}
	return err
}
