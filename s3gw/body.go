package s3gw

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"hash"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"ashlar/s3gw/s3"
	"ashlar/s3gw/sigv4"
	"ashlar/s3gw/store"
)

// body is the body of a request on its way in; it is a store.Body. One pass
// decodes aws-chunked, hashes and measures; the last Read compares everything
// with what the client said and returns io.EOF only if all of it is true.
//
// Read may be called by one goroutine at a time.
type body struct {
	src    io.Reader
	chunks *sigv4.ChunkReader // nil if not aws-chunked
	length int64              // user bytes, -1 if nobody said
	seen   int64
	err    error // sticky; io.EOF is the good end

	md5     hash.Hash
	sha     hash.Hash // nil unless x-amz-content-sha256 is a digest
	wantSHA [32]byte
	wantMD5 *[16]byte
	alg     *s3.Algorithm // nil: no checksum
	sum     hash.Hash
	want    []byte // the checksum of the header; nil if it comes in a trailer or was only asked for
	trailer bool   // the checksum comes in a trailer

	gotMD5 [16]byte
	gotSum *store.Checksum
}

var (
	md5Pool  = sync.Pool{New: func() any { return md5.New() }}
	shaPool  = sync.Pool{New: func() any { return sha256.New() }}
	sumPools = func() map[string]*sync.Pool {
		m := map[string]*sync.Pool{}
		for _, a := range s3.Algorithms {
			m[a.Name] = &sync.Pool{New: func() any { return a.New() }}
		}
		return m
	}()
)

func pooledHash(p *sync.Pool) hash.Hash {
	h := p.Get().(hash.Hash)
	h.Reset()
	return h
}

// openBody builds the body that the route wants, or checks that there is none.
// Everything that can be refused without reading is refused here, before a
// client that waits for 100-continue sends a byte.
func (c *call) openBody() error {
	mode := c.route.body
	switch mode {
	case noBody:
		return c.refuseBody()
	case formFile:
		return nil
	}
	length, err := c.bodyLength()
	if err != nil {
		return err
	}
	switch {
	case mode == dataBody && length > store.PutBytesMax:
		return s3.E(s3.EntityTooLarge, "Your proposed upload exceeds the maximum allowed size").
			With("ProposedSize", strconv.FormatInt(length, 10)).With("MaxSizeAllowed", strconv.FormatInt(store.PutBytesMax, 10))
	case mode != dataBody && length > s3.XMLBytesMax:
		return s3.E(s3.MalformedXML, "")
	}
	return c.newBody(length, mode != completeBody)
}

// refuseBody accepts an empty body, or reads and verifies a small one that the
// operation ignores.
func (c *call) refuseBody() error {
	p := &c.auth.Payload
	if c.r.ContentLength == 0 && !p.Chunked() {
		if empty := sha256.Sum256(nil); p.Hashed() && p.SHA256 != empty {
			return s3.E(s3.XAmzContentSHA256Mismatch, "")
		}
		return nil
	}
	length, err := c.bodyLength()
	if err != nil {
		return err
	}
	if length > s3.XMLBytesMax {
		return s3.E(s3.EntityTooLarge, "The operation takes no body.")
	}
	if err := c.newBody(length, true); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c.body)
	return err
}

// bodyLength returns the number of user bytes that the headers announce, -1 for a
// body that ends where it ends, which only RGW's answers allow.
func (c *call) bodyLength() (int64, error) {
	silent := c.r.ContentLength == 0 && len(c.r.Header["Content-Length"]) == 0
	if silent && c.route.body == dataBody {
		return 0, s3.E(s3.MissingContentLength, "")
	}
	if !c.auth.Payload.Chunked() {
		if c.r.ContentLength < 0 && c.s.rgw && c.route.body == dataBody {
			return -1, nil
		}
		if c.r.ContentLength < 0 {
			return 0, s3.E(s3.MissingContentLength, "")
		}
		return c.r.ContentLength, nil
	}
	text := c.header("X-Amz-Decoded-Content-Length")
	if text == "" {
		return 0, s3.E(s3.MissingContentLength, "")
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, s3.E(s3.MissingContentLength, "").OnRGW(s3.InvalidArgument)
	}
	return n, nil
}

// newBody sets c.body. Where ownSums is false, checksum headers describe
// something else than the body.
func (c *call) newBody(length int64, ownSums bool) error {
	h, p := c.r.Header, &c.auth.Payload
	b := &body{length: length}
	if sum, ok, err := s3.ParseMD5(h); err != nil {
		return err
	} else if ok {
		b.wantMD5 = &sum
	}
	if ownSums {
		if err := b.readChecksumHeaders(h, p, c.auth.Presigned); err != nil {
			return err
		}
		if b.alg == nil && c.route.op == "PutObject" { // as on S3, an object has a checksum also where the client gave none
			b.alg = s3.AlgorithmOf(store.CRC64NVME)
		}
	}
	b.md5 = pooledHash(&md5Pool)
	if b.alg != nil {
		b.sum = pooledHash(sumPools[b.alg.Name])
	}
	if p.Hashed() {
		b.sha, b.wantSHA = pooledHash(&shaPool), p.SHA256
	}
	b.src = newPacer(c.w, c.r.Body, &c.s.limits, &c.received, c.extendWrite)
	if p.Chunked() {
		b.chunks = sigv4.NewChunkReader(b.src, p, length)
		b.src = b.chunks
	}
	c.body = b
	return nil
}

// readChecksumHeaders finds the one checksum that the client sends, will send
// in a trailer, or asks for.
func (b *body) readChecksumHeaders(h http.Header, p *sigv4.Payload, presigned bool) error {
	alg, sum, err := s3.ChecksumOf(h)
	if err != nil {
		return err
	}
	trailer, err := s3.TrailerOf(h)
	if err != nil {
		return err
	}
	asked, err := s3.RequestedAlgorithm(h, "X-Amz-Sdk-Checksum-Algorithm")
	switch {
	case err != nil:
		return err
	case alg != nil && trailer != nil:
		return s3.E(s3.InvalidRequest, "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
	case trailer != nil && !p.Trailer():
		return s3.E(s3.InvalidRequest, "x-amz-trailer is given, but x-amz-content-sha256 announces no trailer.")
	case sum != nil && sum.Parts > 0:
		return s3.E(s3.InvalidRequest, "A composite checksum cannot describe a body.")
	case alg != nil:
		b.alg, b.want = alg, sum.Value
	case trailer != nil:
		b.alg, b.trailer = trailer, true
	case asked != nil && !presigned:
		return s3.E(s3.InvalidRequest, "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.")
	default:
		b.alg = asked
	}
	if asked != nil && b.alg != asked {
		return s3.E(s3.InvalidRequest, "Value for x-amz-sdk-checksum-algorithm header is invalid.")
	}
	return nil
}

// Bytes implements store.Body.
func (b *body) Bytes() int64 { return b.length }

// Algorithm implements store.Body.
func (b *body) Algorithm() string { return nameOf(b.alg) }

func nameOf(a *s3.Algorithm) string {
	if a == nil {
		return ""
	}
	return a.Name
}

// Sums implements store.Body. It panics before the good end: bytes that were
// not verified must not be stored.
func (b *body) Sums() ([16]byte, *store.Checksum) {
	if b.err != io.EOF {
		panic("s3gw: Sums of a body that has not ended well")
	}
	return b.gotMD5, b.gotSum
}

// Read implements store.Body. With the last bytes it returns io.EOF at once, or
// the reason why the body must not be kept.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 && (b.length < 0 || b.seen < b.length) {
		return 0, nil
	}
	if b.length < 0 {
		return b.readToEnd(p)
	}
	n := 0
	if left := b.length - b.seen; left > 0 {
		p = p[:min(int64(len(p)), left)]
		var err error
		n, err = b.src.Read(p)
		b.take(p[:n])
		if err != nil && (err != io.EOF || b.seen < b.length) {
			b.err = incomplete(err)
			return n, b.err
		}
	}
	if b.seen == b.length {
		b.err = b.end()
	}
	return n, b.err
}

// readToEnd reads on in a body of which nobody said how long it is.
func (b *body) readToEnd(p []byte) (int, error) {
	n, err := b.src.Read(p)
	b.take(p[:n])
	switch {
	case b.seen > store.PutBytesMax:
		b.err = s3.E(s3.EntityTooLarge, "")
	case err == io.EOF:
		b.err = b.end()
	case err != nil:
		b.err = incomplete(err)
	}
	return n, b.err
}

func (b *body) take(p []byte) {
	b.seen += int64(len(p))
	b.md5.Write(p)
	if b.sum != nil {
		b.sum.Write(p)
	}
	if b.sha != nil {
		b.sha.Write(p)
	}
}

// end reads what stands behind the user bytes and compares every digest.
func (b *body) end() error {
	var past [1]byte
	for {
		n, err := b.src.Read(past[:])
		if n > 0 {
			return s3.E(s3.IncompleteBody, "")
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return incomplete(err)
		}
	}
	if b.sha != nil {
		var got [32]byte
		if b.sha.Sum(got[:0]); subtle.ConstantTimeCompare(got[:], b.wantSHA[:]) != 1 {
			return s3.E(s3.XAmzContentSHA256Mismatch, "")
		}
	}
	b.md5.Sum(b.gotMD5[:0])
	if b.wantMD5 != nil && b.gotMD5 != *b.wantMD5 {
		return s3.E(s3.BadDigest, "The Content-MD5 you specified did not match what we received.")
	}
	if err := b.checkTrailer(); err != nil || b.alg == nil {
		return orEOF(err)
	}
	got := b.sum.Sum(nil)
	if b.want != nil && !bytes.Equal(got, b.want) {
		return s3.E(s3.BadDigest, "The "+b.alg.Name+" you specified did not match the calculated checksum.")
	}
	b.gotSum = &store.Checksum{Algorithm: b.alg.Name, Value: got}
	return io.EOF
}

func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// checkTrailer takes the announced checksum out of the trailers. What was not
// announced is refused: it was not part of what the client asked us to check.
func (b *body) checkTrailer() error {
	if b.chunks == nil {
		return nil
	}
	got := b.chunks.Trailers()
	if !b.trailer {
		if len(got) > 0 {
			return s3.E(s3.MalformedTrailerError, "")
		}
		return nil
	}
	for name, value := range got {
		if http.CanonicalHeaderKey(name) != b.alg.Header {
			return s3.E(s3.MalformedTrailerError, "")
		}
		sum, err := s3.ParseChecksum(b.alg, value)
		if err != nil {
			return err
		}
		b.want = sum.Value
	}
	if b.want == nil {
		return s3.E(s3.MalformedTrailerError, "")
	}
	return nil
}

// ended reports whether everything was read and was right.
func (b *body) ended() bool { return b.err == io.EOF }

// hasDigest reports whether the client vouched for the body.
func (b *body) hasDigest() bool { return b.wantMD5 != nil || b.want != nil || b.trailer }

// release gives hashes back, but only of a body that ended: otherwise somebody
// below may still be reading it.
func (b *body) release() {
	if !b.ended() {
		return
	}
	md5Pool.Put(b.md5)
	if b.sha != nil {
		shaPool.Put(b.sha)
	}
	if b.sum != nil {
		sumPools[b.alg.Name].Put(b.sum)
	}
	if b.chunks != nil {
		b.chunks.Release()
	}
	b.src = nil
}

// incomplete names the reason of a read error that has none yet.
func incomplete(err error) error {
	var e *s3.Error
	var ne net.Error
	switch {
	case errors.As(err, &e):
		return err
	case errors.As(err, &ne) && ne.Timeout():
		return &s3.Error{Code: s3.RequestTimeout, Err: err}
	}
	return &s3.Error{Code: s3.IncompleteBody, Err: err}
}

// pacer refuses to wait for a body that stands still or crawls. Only the time
// in which the gateway waits for the client counts: a busy store is not the
// client's fault.
type pacer struct {
	src       io.Reader
	control   *http.ResponseController
	stall     time.Duration
	rateMin   float64
	waited    time.Duration
	got       int
	armedTill time.Time
	received  *received
	begin     func(time.Time) // called before the first byte is asked for
}

func newPacer(w http.ResponseWriter, src io.Reader, l *Limits, r *received, begin func(time.Time)) *pacer {
	return &pacer{
		src: src, received: r, control: http.NewResponseController(w), stall: l.BodyStall, rateMin: float64(l.BodyBytesPerSecondMin), begin: begin,
	}
}

func (p *pacer) Read(b []byte) (int, error) {
	start := time.Now()
	if p.armedTill.IsZero() {
		p.begin(start) // 100 Continue goes out now, however long the store let us wait
	}
	if p.armedTill.Sub(start) < p.stall/2 {
		p.armedTill = start.Add(p.stall)
		p.control.SetReadDeadline(p.armedTill) // not supported by a recorder: nothing to bound there
	}
	n, err := p.src.Read(b)
	waited := time.Since(start)
	p.received.bytes.Add(int64(n))
	p.received.wait.Add(int64(waited))
	if err == io.EOF {
		p.control.SetReadDeadline(time.Time{}) // the next request has its own
		return n, err
	}
	p.got += n
	p.waited += waited
	if err == nil && p.waited >= p.stall {
		if float64(p.got) < p.rateMin*p.waited.Seconds() {
			return n, s3.E(s3.RequestTimeout, "Your socket connection to the server was not read from or written to within the timeout period.")
		}
		p.waited, p.got = 0, 0
	}
	return n, err
}
