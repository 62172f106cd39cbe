package s3

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"sync"
	"time"

	"github.com/zeebo/xxh3"
)

const (
	ioBytes      = 256 << 10 // one write or read of a body
	headBytesMax = 64 << 10  // of an answer
	errorBodyMax = 4 << 10   // read of an error's XML
	dialTimeout  = 10 * time.Second
)

// conn is one HTTP/1.1 connection, made when it is needed and again after an
// error. One goroutine uses it; only interrupt may be called from another.
type conn struct {
	to      endpoint
	sign    *signer
	signAll bool // sign the payload's SHA-256
	timeout time.Duration
	inBytes int // of the buffer for reading; zero is ioBytes

	mu struct {
		sync.Mutex
		net         net.Conn
		interrupted bool
	}
	deadline time.Time
	out, in  []byte
	pending  []byte // read from the socket, not yet consumed; part of in
	hash     xxh3.Hasher
}

// request is one request with a body made by content, or given as raw.
type request struct {
	method, path, query string // escaped
	contentMD5          string
	raw                 []byte
	content             content
	bytes               int64 // of the body
}

// answer is the head of a response; the body is still on the connection.
type answer struct {
	status  int
	length  int64 // -1: until the end of the connection
	chunked bool
	close   bool
	server  string
}

// interrupt ends the request that is running and lets every later one fail.
func (c *conn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.interrupted = true
	if c.mu.net != nil {
		c.mu.net.Close()
	}
}

// drop closes the connection; the next request makes a new one.
func (c *conn) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.net != nil {
		c.mu.net.Close()
	}
	c.mu.net, c.pending = nil, nil
}

func (c *conn) connect() (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.interrupted {
		return nil, context.Canceled
	}
	if c.mu.net != nil {
		return c.mu.net, nil
	}
	nc, err := net.DialTimeout("tcp", c.to.address, dialTimeout)
	if err != nil {
		return nil, err
	}
	if c.to.tls != nil {
		nc = tls.Client(nc, c.to.tls)
	}
	if c.in == nil {
		c.in = make([]byte, cmp.Or(c.inBytes, ioBytes))
	}
	c.mu.net, c.pending, c.deadline = nc, nil, time.Time{}
	return nc, nil
}

// extend gives the next read or write at least one and at most two timeouts.
// Timers are dear, so the deadline moves only when half of it is used up.
func (c *conn) extend(nc net.Conn, now time.Time) {
	if c.deadline.Sub(now) < c.timeout {
		c.deadline = now.Add(2 * c.timeout)
		nc.SetDeadline(c.deadline)
	}
}

// send writes the request and reads the head of the answer. After an error the
// connection is gone.
func (c *conn) send(r *request, now time.Time) (a answer, err error) {
	nc, err := c.connect()
	if err != nil {
		return a, err
	}
	c.extend(nc, now)
	c.head(r, now)
	writeErr := c.write(nc, r)
	// A server may answer before it has read the body, and close.
	if a, err = c.readHead(nc); err != nil || writeErr != nil {
		if err == nil && a.status < 300 {
			err = writeErr
		}
		a.close = true
	}
	if r.method == "HEAD" {
		a.length, a.chunked = 0, false
	}
	if err != nil {
		c.drop()
	}
	return a, err
}

// head puts the request line and the headers into c.out.
func (c *conn) head(r *request, now time.Time) {
	payload := unsignedPayload
	switch {
	case r.bytes == 0:
		payload = emptySHA256
	case r.raw != nil:
		payload = sha256Hex(r.raw)
	case c.signAll:
		payload = contentSHA256(r.content, r.bytes, c.in[:ioBytes])
	}
	b := append(c.out[:0], r.method...)
	b = append(append(b, ' '), r.path...)
	if r.query != "" {
		b = append(append(b, '?'), r.query...)
	}
	b = append(append(b, " HTTP/1.1\r\nHost: "...), c.to.host...)
	b = append(b, "\r\nUser-Agent: ashlar-bench\r\n"...)
	if r.bytes > 0 || r.method == "PUT" || r.method == "POST" {
		b = strconv.AppendInt(append(b, "Content-Length: "...), r.bytes, 10)
		b = append(b, "\r\n"...)
	}
	if r.contentMD5 != "" {
		b = append(append(append(b, "Content-MD5: "...), r.contentMD5...), "\r\n"...)
	}
	b = c.sign.sign(b, now, r.method, r.path, r.query, c.to.host, payload, r.contentMD5)
	c.out = append(b, "\r\n"...)
}

// write sends c.out and the body; the body's first bytes ride with the head.
func (c *conn) write(nc net.Conn, r *request) error {
	if r.raw != nil {
		c.out = append(c.out, r.raw...)
		_, err := nc.Write(c.out)
		return err
	}
	headBytes := len(c.out)
	for off := int64(0); ; headBytes = 0 {
		part := int(min(ioBytes, r.bytes-off))
		if need := headBytes + part; cap(c.out) < need {
			c.out = append(make([]byte, 0, need), c.out[:headBytes]...)
		}
		c.out = c.out[:headBytes+part]
		r.content.fill(c.out[headBytes:], off)
		if off > 0 {
			c.extend(nc, time.Now())
		}
		if _, err := nc.Write(c.out); err != nil {
			return err
		}
		if off += int64(part); off >= r.bytes {
			return nil
		}
	}
}

func (c *conn) readHead(nc net.Conn) (answer, error) {
	buf := c.in[:copy(c.in, c.pending)]
	for {
		end := bytes.Index(buf, []byte("\r\n\r\n"))
		if end < 0 {
			if len(buf) >= headBytesMax {
				return answer{}, errors.New("the head of the answer is longer than 64 KiB")
			}
			n, err := nc.Read(c.in[len(buf):])
			if n == 0 && err != nil {
				return answer{}, unexpected(err)
			}
			buf = c.in[:len(buf)+n]
			continue
		}
		a, err := parseHead(buf[:end])
		c.pending = buf[end+4:]
		if err == nil && a.status/100 == 1 { // 100 Continue comes before the answer
			buf = c.in[:copy(c.in, c.pending)]
			continue
		}
		return a, err
	}
}

func parseHead(head []byte) (a answer, err error) {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return a, fmt.Errorf("not an HTTP/1 answer: %.40q", line)
	}
	if a.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return a, fmt.Errorf("not an HTTP status: %.40q", line)
	}
	a.length, a.close = -1, line[7] == '0'
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if a.length, err = strconv.ParseInt(string(value), 10, 64); err != nil || a.length < 0 {
				return a, fmt.Errorf("Content-Length %.20q is not a length", value)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			a.chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("Connection")):
			a.close = a.close || bytes.EqualFold(value, []byte("close"))
		case bytes.EqualFold(name, []byte("Server")):
			a.server = string(value)
		}
	}
	if a.status == 204 || a.status == 304 || a.status/100 == 1 {
		a.length, a.chunked = 0, false
	}
	return a, nil
}

// Read gives the bytes that follow the head, without regard to its length.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.pending) > 0 {
		n := copy(p, c.pending)
		c.pending = c.pending[n:]
		return n, nil
	}
	c.mu.Lock()
	nc := c.mu.net
	c.mu.Unlock()
	if nc == nil {
		return 0, net.ErrClosed
	}
	c.extend(nc, time.Now())
	return nc.Read(p)
}

// body reads the whole body in pieces that each is valid until it returns, and
// leaves the connection ready for the next request, or dropped.
func (c *conn) body(a answer, each func([]byte)) (total int64, err error) {
	if a.length < 0 || a.chunked {
		var from io.Reader = c
		if a.chunked {
			from = httputil.NewChunkedReader(c)
		}
		total, err = io.Copy(sink(each), from)
		c.drop() // what follows a chunked body is not worth parsing here
		return total, err
	}
	for total < a.length {
		part := c.pending[:min(int64(len(c.pending)), a.length-total)]
		if len(part) > 0 {
			c.pending = c.pending[len(part):]
		} else {
			n, err := c.Read(c.in[:min(int64(len(c.in)), a.length-total)])
			if n == 0 && err != nil {
				c.drop()
				return total, unexpected(err)
			}
			part = c.in[:n]
		}
		each(part)
		total += int64(len(part))
	}
	if a.close {
		c.drop()
	}
	return total, nil
}

type sink func([]byte)

func (s sink) Write(p []byte) (int, error) { s(p); return len(p), nil }

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
