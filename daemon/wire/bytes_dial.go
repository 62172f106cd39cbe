package wire

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"ashlar"
)

// Bounds of a connection pool to one host. Each connection keeps two buffers.
const (
	idleConnsMax  = 16
	connsMax      = 256
	streamsMax    = 1024
	connBufBytes  = 64 * ashlar.KiB
	keepAliveEach = 15 * time.Second
)

// BytesConn reaches the Pieces and Stripes of another process.
type BytesConn interface {
	Pieces
	Stripes
	io.Closer
}

// DialBytes returns a pool of connections to the bytes listener at addr
// (host:port). It does not connect: calls do, within their deadlines. A failure
// of the transport is of kind Unavailable. Close drops the idle connections.
func DialBytes(addr string) BytesConn {
	return &bytesConn{addr: addr, calls: newTransport(connsMax), streams: newTransport(streamsMax)}
}

func newTransport(connections int) *http.Transport {
	dialer := &net.Dialer{Timeout: dialMax, KeepAlive: keepAliveEach}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return bulkConn{conn}, nil
		},
		DisableCompression:    true,
		MaxIdleConnsPerHost:   idleConnsMax,
		MaxConnsPerHost:       connections,
		IdleConnTimeout:       idleMax,
		ExpectContinueTimeout: stallMax,
		WriteBufferSize:       connBufBytes,
		ReadBufferSize:        connBufBytes,
	}
}

// bulkConn sends what the transport copies to it in large writes; by itself the
// transport makes one system call for every 32 KiB.
type bulkConn struct{ net.Conn }

const bulkBytes = 256 * ashlar.KiB

var bulks = sync.Pool{New: func() any { return new([bulkBytes]byte) }}

// ReadFrom implements io.ReaderFrom.
func (c bulkConn) ReadFrom(r io.Reader) (sum int64, err error) {
	buf := bulks.Get().(*[bulkBytes]byte)
	defer bulks.Put(buf)
	for {
		n, errR := r.Read(buf[:])
		if n > 0 {
			m, errW := c.Conn.Write(buf[:n])
			if sum += int64(m); errW != nil {
				return sum, errW
			}
		}
		if errR == io.EOF {
			return sum, nil
		}
		if errR != nil {
			return sum, errR
		}
	}
}

// bytesConn keeps the connections of streams, whose pace clients set, apart from
// those of calls about pieces.
type bytesConn struct {
	addr           string
	calls, streams *http.Transport
}

// Close drops the idle connections; calls under way go on.
func (b *bytesConn) Close() error {
	b.calls.CloseIdleConnections()
	b.streams.CloseIdleConnections()
	return nil
}

// lent is a payload that the transport may read only until the call returns:
// a cancelled request can leave the transport's writer running a little longer.
type lent struct {
	mu   sync.Mutex
	head []byte
	data []byte
	err  error
}

func (l *lent) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	n := copy(p, l.head) // at the end the transport looks once more, for io.EOF
	l.head = l.head[n:]
	m := copy(p[n:], l.data)
	l.data = l.data[m:]
	if n+m == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n + m, nil
}

func (l *lent) Close() error { return nil }

// takeBack ends the loan.
func (l *lent) takeBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.head)+len(l.data) > 0 {
		l.err, l.data = errOver, nil
	}
}

// call sends a request with a payload and returns the answer, whose body the
// caller closes. The context must have a deadline.
func (b *bytesConn) call(ctx context.Context, name string, m message, payload []byte) (*http.Response, error) {
	head := encode(func(c *codec) { d := left(ctx); c.timeout(&d); m(c) }, 0)
	body := &lent{head: head, data: payload}
	defer body.takeBack()
	return b.send(ctx, name, body, int64(len(head)+len(payload)))
}

func left(ctx context.Context) time.Duration {
	end, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(time.Millisecond, time.Until(end))
}

// send does one exchange, with header fields in pairs. An answer other than 200
// is an error.
func (b *bytesConn) send(ctx context.Context, name string, body io.ReadCloser, length int64, header ...string) (*http.Response, error) {
	op := "wire: " + name
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+b.addr+bytesPath+name, body)
	if err != nil {
		return nil, ashlar.E(op, "host="+b.addr, ashlar.Invalid, err)
	}
	req.ContentLength = length
	req.Header["User-Agent"] = nil
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	transport := b.calls
	var rec *Recorder
	if name == callRead || name == callWrite {
		transport = b.streams
		if rec = RecorderOf(ctx); rec != nil {
			req.Header.Set(traceHeader, rec.id)
		}
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, ashlar.E(op, "host="+b.addr, ashlar.Unavailable, err)
	}
	rec.hear(resp.Header)
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, readError(op, b.addr, resp)
	}
	return resp, nil
}

// simple does a call whose answer is short, within the context's deadline or callMax.
func (b *bytesConn) simple(ctx context.Context, name string, m message, payload []byte, answerMax int) ([]byte, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	resp, err := b.call(ctx, name, m, payload)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.ContentLength == 0 {
		return nil, nil
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, int64(answerMax)+1))
	if err != nil || len(answer) > answerMax {
		return nil, ashlar.E("wire: "+name, "host="+b.addr, ashlar.Unavailable, errors.Join(errTorn, err))
	}
	return answer, nil
}

func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, callMax)
}

// PutPiece implements Pieces.
func (b *bytesConn) PutPiece(ctx context.Context, p *Piece) error {
	n := uint32(len(p.Data))
	_, err := b.simple(ctx, callPut, func(c *codec) { c.piece(p); integer(c, &n) }, p.Data, 0)
	return err
}

// GetPiece implements Pieces.
func (b *bytesConn) GetPiece(ctx context.Context, r PieceRange, dst []byte) error {
	const op = "wire: " + callGet
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	n := uint32(len(dst))
	resp, err := b.call(ctx, callGet, func(c *codec) { c.pieceRange(&r); integer(c, &n) }, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sum, err := strconv.ParseUint(resp.Header.Get(sumHeader), 16, 32)
	if err != nil || resp.ContentLength != int64(len(dst)) {
		return ashlar.E(op, "host="+b.addr, ashlar.Internal, fmt.Errorf("an answer of %d bytes, not %d", resp.ContentLength, len(dst)))
	}
	if _, err := io.ReadFull(resp.Body, dst); err != nil {
		return ashlar.E(op, "host="+b.addr, ashlar.Unavailable, errors.Join(errTorn, err))
	}
	if sumOf(dst) != uint32(sum) {
		return ashlar.E(op, "host="+b.addr, ashlar.Corrupt, errSum)
	}
	return nil
}

// DescribePiece implements Pieces.
func (b *bytesConn) DescribePiece(ctx context.Context, r PieceRange) (Piece, error) {
	var p Piece
	answer, err := b.simple(ctx, callTell, func(c *codec) { c.pieceRange(&r) }, nil, describedBytesMax)
	if err == nil {
		err = decode("wire: "+callTell, answer, func(c *codec) { c.piece(&p) })
	}
	return p, err
}

// DeletePiece implements Pieces.
func (b *bytesConn) DeletePiece(ctx context.Context, disk ashlar.DiskID, epoch ashlar.Epoch, id PieceID) error {
	_, err := b.simple(ctx, callDelete, func(c *codec) { c.pieceID(&id); c.raw(disk[:]); integer(c, &epoch) }, nil, 0)
	return err
}

// HasPieces implements Pieces.
func (b *bytesConn) HasPieces(ctx context.Context, disk ashlar.DiskID, ids []PieceID) ([]bool, error) {
	const op = "wire: " + callHas
	if len(ids) > HasPiecesMax {
		return nil, ashlar.E(op, "", ashlar.Invalid, fmt.Errorf("%d ids, at most %d", len(ids), HasPiecesMax))
	}
	answer, err := b.simple(ctx, callHas, func(c *codec) { c.raw(disk[:]); list(c, &ids, pieceIDBytes, c.pieceID) }, nil, len(ids))
	if err != nil {
		return nil, err
	}
	if len(answer) != len(ids) {
		return nil, ashlar.E(op, "host="+b.addr, ashlar.Internal, fmt.Errorf("%d answers for %d pieces", len(answer), len(ids)))
	}
	has := make([]bool, len(ids))
	for i, v := range answer {
		has[i] = v != 0
	}
	return has, nil
}

// watch cancels the context when tick was not called for stallMax.
func watch(ctx context.Context) (_ context.Context, tick func(), stop context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(stallMax, func() {
		cancel(ashlar.E("wire: stream", "", ashlar.Unavailable, fmt.Errorf("no byte moved for %v", stallMax)))
	})
	return ctx, func() { timer.Reset(stallMax) }, func() { timer.Stop(); cancel(nil) }
}

// WriteStripes implements Stripes. A body longer than one frame is not read
// before the host asked for it, so that a host that refuses leaves it untouched.
func (b *bytesConn) WriteStripes(ctx context.Context, req WriteRequest, body io.Reader) (ashlar.Extent, error) {
	const op = "wire: " + callWrite
	ctx, tick, stop := watch(ctx)
	defer stop()
	head := encode(func(c *codec) { d := left(ctx); c.timeout(&d); c.writeRequest(&req) }, 0)
	framed := newFramedBody(body, req.Bytes, tick)
	guard := &guarded{r: framed}
	header := []string{requestHeader, base64.StdEncoding.EncodeToString(head[4:])}
	if req.Bytes < 0 || req.Bytes > frameBytes {
		header = append(header, "Expect", "100-continue") // one frame is not worth asking for
	}
	resp, err := b.send(ctx, callWrite, guard, framed.length(), header...)
	guard.takeBack() // the caller's body is its own again
	var ext ashlar.Extent
	if err != nil {
		if framed.err != nil && framed.err != io.EOF {
			return ext, framed.err // the body's own error is the cause
		}
		return ext, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, textBytesMax))
	if err != nil {
		return ext, ashlar.E(op, "host="+b.addr, ashlar.Unavailable, errors.Join(errTorn, err))
	}
	return ext, decode(op, answer, func(c *codec) { c.extent(&ext) })
}

var errOver = errors.New("the call is over")

// guarded lets the transport read a body only until the call is over, and waits
// for a read that is under way.
type guarded struct {
	mu   sync.Mutex
	r    *framedBody
	over bool
}

func (g *guarded) Read(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over && !g.r.end { // what is behind the end needs no body
		return 0, errOver
	}
	return g.r.Read(p)
}

func (g *guarded) Close() error { return nil }

func (g *guarded) takeBack() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
}

// ReadStripes implements Stripes.
func (b *bytesConn) ReadStripes(ctx context.Context, req ReadRequest) (io.ReadCloser, error) {
	ctx, tick, stop := watch(ctx)
	resp, err := b.call(ctx, callRead, func(c *codec) { c.readRequest(&req) }, nil)
	if err != nil {
		stop()
		return nil, err
	}
	return &readStream{
		frames: frameReader{r: resp.Body, op: "wire: " + callRead, tick: tick},
		body:   resp.Body, stop: stop, left: req.Length, rec: RecorderOf(ctx), resp: resp,
	}, nil
}

// readStream is the caller's end of read-stripes.
type readStream struct {
	frames frameReader
	body   io.ReadCloser
	stop   context.CancelFunc
	left   uint64
	rec    *Recorder // nil once the trailer was read, or if nobody watches
	resp   *http.Response
}

// Read yields verified bytes, exactly as many as were asked for.
func (r *readStream) Read(p []byte) (int, error) {
	n, err := r.frames.Read(p)
	switch {
	case uint64(n) > r.left:
		r.frames.err = r.tooMany()
		return 0, r.frames.err
	case err == io.EOF && r.left > 0:
		r.frames.err = ashlar.E(r.frames.op, "", ashlar.Unavailable, fmt.Errorf("%w: %d bytes are missing", errTorn, r.left))
		return 0, r.frames.err
	}
	r.left -= uint64(n)
	if r.left == 0 || err != nil {
		r.hear()
	}
	return n, err
}

func (r *readStream) tooMany() error {
	return ashlar.E(r.frames.op, "", ashlar.Internal, errors.New("more bytes than were asked for"))
}

// hear reads what the host tells behind the last frame: the consumer of the bytes
// need not get there.
func (r *readStream) hear() {
	if r.rec == nil {
		return
	}
	var past [1]byte
	if n, _ := r.frames.Read(past[:]); n > 0 {
		r.frames.err = r.tooMany()
	}
	_, _ = r.body.Read(past[:]) // at the end of the answer the trailer is there
	r.rec.hear(r.resp.Trailer)
	r.rec = nil
}

// Close drops the connection unless the stream was read to its end.
func (r *readStream) Close() error {
	r.stop()
	return r.body.Close()
}

// DeleteStripes implements Stripes.
func (b *bytesConn) DeleteStripes(ctx context.Context, bucket ashlar.BucketID, key string, extents []ashlar.Extent) error {
	_, err := b.simple(ctx, callDrop, func(c *codec) {
		c.raw(bucket[:])
		c.string(&key)
		list(c, &extents, extentBytesMin, c.extent)
	}, nil, 0)
	return err
}
