package wire

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"ashlar"
	"ashlar/daemon/buffer"
)

// BytesConfig is what a host serves over HTTP/1.1.
type BytesConfig struct {
	Pieces  Pieces
	Stripes Stripes
	// Memory holds pieces between the network and the disks. Its holders wait
	// for disks and for the peer, both within deadlines.
	Memory *buffer.Share
	// Log receives what the HTTP server has to say. Nil discards it.
	Log *slog.Logger
}

// NewBytesServer returns an HTTP server for the calls of Pieces and Stripes.
// The caller gives it a listener and closes it.
func NewBytesServer(cfg BytesConfig) *http.Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler:           &bytesHandler{cfg},
		ReadHeaderTimeout: headMax,
		IdleTimeout:       idleMax + 10*time.Second, // the client gives up first
		MaxHeaderBytes:    16 * ashlar.KiB,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
	}
}

type bytesHandler struct{ cfg BytesConfig }

// ServeHTTP implements http.Handler.
func (h *bytesHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call, ok := strings.CutPrefix(r.URL.Path, bytesPath)
	if !ok || r.Method != http.MethodPost {
		call = ""
	}
	in := &incoming{w: w, r: r, op: "wire: " + call, control: http.NewResponseController(w)}
	if id := r.Header.Get(traceHeader); id != "" {
		in.rec = NewRecorder(id)
	}
	if err := h.serve(call, in); err != nil {
		if in.answered { // too late for a status: only a broken connection tells
			panic(http.ErrAbortHandler)
		}
		in.rec.tell(w.Header(), traceHeader)
		writeError(w, err)
	}
}

func (h *bytesHandler) serve(call string, in *incoming) error {
	switch call {
	case callPut:
		return h.put(in)
	case callGet:
		return h.get(in)
	case callTell:
		return h.tell(in)
	case callDelete:
		return h.delete(in)
	case callHas:
		return h.has(in)
	case callWrite:
		return h.write(in)
	case callRead:
		return h.read(in)
	case callDrop:
		return h.drop(in)
	}
	return ashlar.E("wire: serve", in.r.URL.Path, ashlar.Invalid, fmt.Errorf("no such call"))
}

// incoming is one call on its way through a handler.
type incoming struct {
	w        http.ResponseWriter
	r        *http.Request
	op       string
	control  *http.ResponseController
	rec      *Recorder // nil unless the caller asked for what this call does
	answered bool
}

// request reads and decodes the request, and returns a context with the
// caller's deadline. The request's timeout comes first in every message.
func (in *incoming) request(m message) (context.Context, context.CancelFunc, error) {
	in.moving()
	var head [4]byte
	if _, err := io.ReadFull(in.r.Body, head[:]); err != nil {
		return nil, nil, ashlar.E(in.op, "", ashlar.Unavailable, errTorn)
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > requestBytesMax {
		return nil, nil, ashlar.E(in.op, "", ashlar.Invalid, fmt.Errorf("a request of %d bytes", n))
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(in.r.Body, b); err != nil {
		return nil, nil, ashlar.E(in.op, "", ashlar.Unavailable, errTorn)
	}
	return in.decode(b, m)
}

func (in *incoming) decode(b []byte, m message) (context.Context, context.CancelFunc, error) {
	var timeout time.Duration
	if err := decode(in.op, b, func(c *codec) { c.timeout(&timeout); m(c) }); err != nil {
		return nil, nil, err
	}
	ctx := in.r.Context()
	if in.rec != nil {
		ctx = WithRecorder(ctx, in.rec)
	}
	if timeout == 0 {
		ctx, cancel := context.WithCancel(ctx)
		return ctx, cancel, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	return ctx, cancel, nil
}

// moving pushes the connection's deadlines out: a peer that stalls loses it.
func (in *incoming) moving() {
	end := time.Now().Add(stallMax)
	_ = in.control.SetReadDeadline(end) // a connection that is gone says so itself
	_ = in.control.SetWriteDeadline(end)
}

// ok answers with b.
func (in *incoming) ok(b []byte) error {
	in.moving()
	in.answered = true
	in.w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, err := in.w.Write(b)
	return err
}

// space leases a buffer for a payload.
func (h *bytesHandler) space(ctx context.Context, op string, n uint32) (*buffer.Buf, error) {
	if n > PieceBytesMax {
		return nil, ashlar.E(op, "", ashlar.Invalid, fmt.Errorf("%d bytes", n))
	}
	lease, err := h.cfg.Memory.Lease(ctx, buffer.Size(int(n)))
	if err != nil {
		return nil, err
	}
	defer lease.Close() // the buffer outlives it
	return lease.Get(int(n))
}

func (h *bytesHandler) put(in *incoming) error {
	var p Piece
	var n uint32
	ctx, cancel, err := in.request(func(c *codec) { c.piece(&p); integer(c, &n) })
	if err != nil {
		return err
	}
	defer cancel()
	buf, err := h.space(ctx, in.op, n)
	if err != nil {
		return err
	}
	defer buf.Release()
	in.moving()
	if _, err := io.ReadFull(in.r.Body, buf.B); err != nil {
		return ashlar.E(in.op, "", ashlar.Unavailable, errTorn)
	}
	if sumOf(buf.B) != p.Sum {
		return ashlar.E(in.op, p.Stripe.String(), ashlar.Corrupt, errSum)
	}
	p.Data = buf.B
	if err := h.cfg.Pieces.PutPiece(ctx, &p); err != nil {
		return err
	}
	return in.ok(nil)
}

func (h *bytesHandler) get(in *incoming) error {
	var r PieceRange
	var n uint32
	ctx, cancel, err := in.request(func(c *codec) { c.pieceRange(&r); integer(c, &n) })
	if err != nil {
		return err
	}
	defer cancel()
	buf, err := h.space(ctx, in.op, n)
	if err != nil {
		return err
	}
	defer buf.Release()
	if err := h.cfg.Pieces.GetPiece(ctx, r, buf.B); err != nil {
		return err
	}
	in.w.Header().Set(sumHeader, strconv.FormatUint(uint64(sumOf(buf.B)), 16))
	return in.ok(buf.B)
}

// describedBytesMax bounds the description of a piece: its key and some numbers.
const describedBytesMax = 4 * ashlar.KiB

func (h *bytesHandler) tell(in *incoming) error {
	var r PieceRange
	ctx, cancel, err := in.request(func(c *codec) { c.pieceRange(&r) })
	if err != nil {
		return err
	}
	defer cancel()
	p, err := h.cfg.Pieces.DescribePiece(ctx, r)
	if err != nil {
		return err
	}
	return in.ok(encode(func(c *codec) { c.piece(&p) }, 0)[4:])
}

func (h *bytesHandler) delete(in *incoming) error {
	var id PieceID
	var disk ashlar.DiskID
	var epoch ashlar.Epoch
	ctx, cancel, err := in.request(func(c *codec) { c.pieceID(&id); c.raw(disk[:]); integer(c, &epoch) })
	if err != nil {
		return err
	}
	defer cancel()
	if err := h.cfg.Pieces.DeletePiece(ctx, disk, epoch, id); err != nil {
		return err
	}
	return in.ok(nil)
}

func (h *bytesHandler) has(in *incoming) error {
	var disk ashlar.DiskID
	var ids []PieceID
	ctx, cancel, err := in.request(func(c *codec) { c.raw(disk[:]); list(c, &ids, pieceIDBytes, c.pieceID) })
	if err != nil {
		return err
	}
	defer cancel()
	has, err := h.cfg.Pieces.HasPieces(ctx, disk, ids)
	if err != nil {
		return err
	}
	b := make([]byte, len(has))
	for i, yes := range has {
		if yes {
			b[i] = 1
		}
	}
	return in.ok(b)
}

// pieceIDBytes is the least that a PieceID takes.
const pieceIDBytes = 17

func (h *bytesHandler) write(in *incoming) error {
	var req WriteRequest
	in.moving()
	head, err := base64.StdEncoding.DecodeString(in.r.Header.Get(requestHeader))
	if err != nil {
		return ashlar.E(in.op, "", ashlar.Invalid, err)
	}
	ctx, cancel, err := in.decode(head, func(c *codec) { c.writeRequest(&req) })
	if err != nil {
		return err
	}
	defer cancel()
	body := &interruptible{frameReader: frameReader{r: in.r.Body, op: in.op}, in: in}
	body.tick = body.moving
	ext, err := h.cfg.Stripes.WriteStripes(ctx, req, body)
	if err != nil {
		return err
	}
	c := &codec{}
	c.extent(&ext)
	in.rec.tell(in.w.Header(), traceHeader)
	return in.ok(c.b)
}

// interruptible is a body that can be given up while it is read.
type interruptible struct {
	frameReader
	in *incoming

	mu   sync.Mutex
	over bool
}

// moving is incoming.moving until the body is given up.
func (b *interruptible) moving() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over {
		b.in.moving()
	}
}

// Interrupt implements Interrupter.
func (b *interruptible) Interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	_ = b.in.control.SetReadDeadline(time.Now()) // a connection that is gone needs none
}

func (h *bytesHandler) read(in *incoming) error {
	var req ReadRequest
	ctx, cancel, err := in.request(func(c *codec) { c.readRequest(&req) })
	if err != nil {
		return err
	}
	defer cancel()
	body, err := h.cfg.Stripes.ReadStripes(ctx, req)
	if err != nil {
		return err
	}
	defer body.Close()
	in.answered = true
	out := &frameWriter{w: movingWriter{in}}
	_, err = io.Copy(onlyWriter{out}, body)
	err = out.end(err)
	in.rec.tell(in.w.Header(), http.TrailerPrefix+traceHeader)
	return err
}

// movingWriter pushes the deadline out whenever a frame is written.
type movingWriter struct{ in *incoming }

func (m movingWriter) Write(p []byte) (int, error) {
	if len(p) == frameHeader {
		_ = m.in.control.SetWriteDeadline(time.Now().Add(takeMax)) // a connection that is gone says so itself
	}
	return m.in.w.Write(p)
}

// onlyWriter hides every other method, so that io.Copy asks the source.
type onlyWriter struct{ io.Writer }

func (h *bytesHandler) drop(in *incoming) error {
	var bucket ashlar.BucketID
	var key string
	var extents []ashlar.Extent
	ctx, cancel, err := in.request(func(c *codec) {
		c.raw(bucket[:])
		c.string(&key)
		list(c, &extents, extentBytesMin, c.extent)
	})
	if err != nil {
		return err
	}
	defer cancel()
	_ = in.control.SetReadDeadline(time.Time{}) // deleting many stripes is bounded by the caller's deadline
	_ = in.control.SetWriteDeadline(time.Time{})
	if err := h.cfg.Stripes.DeleteStripes(ctx, bucket, key, extents); err != nil {
		return err
	}
	return in.ok(nil)
}
