package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/buffer"
)

// recorder is a test double behind the server: it remembers what arrived and
// answers what the test says.
type recorder struct {
	mu      sync.Mutex
	piece   Piece
	data    []byte
	rng     PieceRange
	write   WriteRequest
	read    ReadRequest
	deleted []any
	body    []byte
	bodyErr error

	err      error // of every call
	failAt   int   // ReadStripes fails after that many bytes; 0 never
	refuse   error // of WriteStripes, before it reads
	deadline bool  // the last call had one
}

func (r *recorder) PutPiece(ctx context.Context, p *Piece) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.piece, r.data = *p, append([]byte(nil), p.Data...)
	r.piece.Data = nil
	_, r.deadline = ctx.Deadline()
	return r.err
}

func (r *recorder) GetPiece(_ context.Context, q PieceRange, dst []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rng = q
	copy(dst, r.data[q.Off:])
	return r.err
}

func (r *recorder) DescribePiece(_ context.Context, q PieceRange) (Piece, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rng = q
	return r.piece, r.err
}

func (r *recorder) DeletePiece(_ context.Context, disk ashlar.DiskID, epoch ashlar.Epoch, id PieceID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deleted = []any{disk, epoch, id}
	return r.err
}

func (r *recorder) HasPieces(_ context.Context, _ ashlar.DiskID, ids []PieceID) ([]bool, error) {
	has := make([]bool, len(ids))
	for i, id := range ids {
		has[i] = id.Index%2 == 1
	}
	return has, r.err
}

func (r *recorder) WriteStripes(_ context.Context, req WriteRequest, body io.Reader) (ashlar.Extent, error) {
	if r.refuse != nil {
		return ashlar.Extent{}, r.refuse
	}
	b, err := io.ReadAll(body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.write, r.bodyErr = req, err
	if err != nil {
		return ashlar.Extent{}, err
	}
	r.body = b
	return anExtent(uint64(len(b))), r.err
}

func anExtent(n uint64) ashlar.Extent {
	return ashlar.Extent{
		Write: 1<<63 + 5, Part: 7, Bytes: n, StripeBytes: 16 << 20, SmallMax: 128 << 10,
		Large: ashlar.Code{K: 8, M: 4}, Small: ashlar.Code{K: 1, M: 2},
	}
}

func (r *recorder) ReadStripes(_ context.Context, req ReadRequest) (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read = req
	if r.err != nil {
		return nil, r.err
	}
	body := io.Reader(bytes.NewReader(r.body[req.Off : req.Off+req.Length]))
	if r.failAt > 0 {
		body = io.MultiReader(io.LimitReader(body, int64(r.failAt)), failing{ashlar.E("test", "", ashlar.Unavailable, errors.New("too few"))})
	}
	return io.NopCloser(body), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func (r *recorder) DeleteStripes(_ context.Context, b ashlar.BucketID, key string, extents []ashlar.Extent) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deleted = []any{b, key, extents}
	return r.err
}

// serve starts a server and returns a connection to it.
func serve(t testing.TB, r *recorder) BytesConn {
	t.Helper()
	addr := listen(t, r)
	conn := DialBytes(addr)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func listen(t testing.TB, r *recorder) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mem := buffer.NewPool().Share(8 * ashlar.MiB)
	server := NewBytesServer(BytesConfig{Pieces: r, Stripes: r, Memory: mem})
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		<-done
		for end := time.Now().Add(5 * time.Second); mem.Used() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Error("the server's buffers leaked")
				return
			}
		}
	})
	return l.Addr().String()
}

func randomBytes(n int, seed uint64) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

func aPiece(data []byte) *Piece {
	return &Piece{
		PieceID: PieceID{Stripe: ashlar.StripeID{1, 2, 15: 9}, Index: 11}, Disk: ashlar.DiskID{3, 15: 4}, Epoch: 1 << 40,
		Group: 4095, Code: ashlar.Code{K: 8, M: 4}, StripeBytes: 16 << 20,
		Owner:   ashlar.Owner{Bucket: ashlar.BucketID{5}, Key: "a/\x00ü" + strings.Repeat("k", 1000), Part: 10000, Offset: 1 << 42},
		Written: time.Unix(1700000000, 123456789), Data: data, Sum: sumOf(data),
	}
}

func TestPiecesTravel(t *testing.T) {
	r := &recorder{}
	c := serve(t, r)
	for _, n := range []int{0, 1, 70_000, 2 * ashlar.MiB} {
		p := aPiece(randomBytes(n, 1))
		if err := c.PutPiece(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		want := *p
		want.Data = nil
		if fmt.Sprintf("%+v", r.piece) != fmt.Sprintf("%+v", want) || !bytes.Equal(r.data, p.Data) {
			t.Fatalf("%d bytes: %+v arrived", n, r.piece)
		}
		if !r.deadline {
			t.Error("the call had no deadline")
		}
		q := PieceRange{PieceID: p.PieceID, Disk: p.Disk, Epoch: 9, Off: uint32(n / 3)}
		dst := make([]byte, n-n/3)
		if err := c.GetPiece(t.Context(), q, dst); err != nil || r.rng != q || !bytes.Equal(dst, p.Data[n/3:]) {
			t.Fatalf("get: %v, %+v arrived", err, r.rng)
		}
		if told, err := c.DescribePiece(t.Context(), q); err != nil || r.rng != q || !reflect.DeepEqual(told, r.piece) {
			t.Fatalf("describe: %v, %+v asked, %+v told, not %+v", err, r.rng, told, r.piece)
		}
	}
	id := PieceID{Stripe: ashlar.StripeID{8}, Index: 3}
	if err := c.DeletePiece(t.Context(), ashlar.DiskID{7}, 6, id); err != nil || fmt.Sprint(r.deleted) != fmt.Sprint([]any{ashlar.DiskID{7}, ashlar.Epoch(6), id}) {
		t.Fatalf("delete: %v, %v", err, r.deleted)
	}
	has, err := c.HasPieces(t.Context(), ashlar.DiskID{7}, []PieceID{{Index: 1}, {Index: 2}, {Index: 3}})
	if err != nil || fmt.Sprint(has) != "[true false true]" {
		t.Fatalf("has: %v, %v", has, err)
	}
	if has, err := c.HasPieces(t.Context(), ashlar.DiskID{7}, nil); err != nil || len(has) != 0 {
		t.Fatalf("has nothing: %v, %v", has, err)
	}
}

func TestEveryKindTravels(t *testing.T) {
	r := &recorder{data: make([]byte, 10)}
	c := serve(t, r)
	for kind := ashlar.Internal; kind <= ashlar.Invalid; kind++ {
		r.err = ashlar.E("room: act", "on=this", kind, errors.New("because"))
		errs := map[string]error{
			"put":    c.PutPiece(t.Context(), aPiece([]byte("x"))),
			"get":    c.GetPiece(t.Context(), PieceRange{}, make([]byte, 1)),
			"delete": c.DeletePiece(t.Context(), ashlar.DiskID{}, 0, PieceID{}),
			"drop":   c.DeleteStripes(t.Context(), ashlar.BucketID{}, "k", nil),
		}
		_, errs["describe"] = c.DescribePiece(t.Context(), PieceRange{})
		_, errs["has"] = c.HasPieces(t.Context(), ashlar.DiskID{}, []PieceID{{}})
		_, errs["write"] = c.WriteStripes(t.Context(), WriteRequest{Bytes: 1}, strings.NewReader("x"))
		_, errs["read"] = c.ReadStripes(t.Context(), ReadRequest{})
		for call, err := range errs {
			if !ashlar.Is(err, kind) || !strings.Contains(err.Error(), "because") {
				t.Errorf("%s: sent %v, got %v (%v)", call, kind, ashlar.KindOf(err), err)
			}
		}
	}
}

func TestBodiesTravel(t *testing.T) {
	r := &recorder{}
	c := serve(t, r)
	misled := serve(t, &recorder{}) // a server may still note a call that its client has given up
	for _, n := range []int{0, 1, frameBytes, frameBytes + 1, 3_000_000} {
		data := randomBytes(n, 2)
		var ext ashlar.Extent
		for _, announced := range []int64{-1, int64(n)} {
			var err error
			req := WriteRequest{Bucket: ashlar.BucketID{1}, Key: "k\n\x00", Part: 3, Bytes: announced, Epoch: 8}
			ext, err = c.WriteStripes(t.Context(), req, dribble{bytes.NewReader(data)})
			if err != nil || ext != anExtent(uint64(n)) || r.write != req || !bytes.Equal(r.body, data) {
				t.Fatalf("write %d: %v, %+v", n, err, r.write)
			}
		}
		for _, wrong := range []int64{-1, 1} {
			if announced := int64(n) + wrong; announced >= 0 {
				if _, err := misled.WriteStripes(t.Context(), WriteRequest{Bytes: announced}, bytes.NewReader(data)); !ashlar.Is(err, ashlar.Invalid) {
					t.Errorf("%d bytes announced as %d: %v", n, announced, err)
				}
			}
		}
		r.body = data
		rr := ReadRequest{
			Bucket: ashlar.BucketID{1}, Key: "k", Extents: []ashlar.Extent{ext, anExtent(3)},
			Off: uint64(n / 5), Length: uint64(n - n/5), Epoch: 3,
		}
		body, err := c.ReadStripes(t.Context(), rr)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		body.Close()
		if err != nil || !bytes.Equal(got, data[n/5:]) || fmt.Sprint(r.read) != fmt.Sprint(rr) {
			t.Fatalf("read %d: %d bytes, %v", n, len(got), err)
		}
	}
	extents := []ashlar.Extent{anExtent(1), anExtent(2)}
	if err := c.DeleteStripes(t.Context(), ashlar.BucketID{2}, "k", extents); err != nil || fmt.Sprint(r.deleted) != fmt.Sprint([]any{ashlar.BucketID{2}, "k", extents}) {
		t.Fatalf("delete: %v, %v", err, r.deleted)
	}
}

// dribble returns odd amounts, as a socket does.
type dribble struct{ r io.Reader }

func (d dribble) Read(p []byte) (int, error) { return d.r.Read(p[:min(len(p), 12_345)]) }

func TestFailureInTheMiddleIsAnErrorOfRead(t *testing.T) {
	r := &recorder{body: randomBytes(1_000_000, 1), failAt: 500_000}
	c := serve(t, r)
	body, err := c.ReadStripes(t.Context(), ReadRequest{Length: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if !ashlar.Is(err, ashlar.Unavailable) || !strings.Contains(err.Error(), "too few") || !bytes.Equal(got, r.body[:len(got)]) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestBodyErrorComesBackAsItIs(t *testing.T) {
	r := &recorder{}
	c := serve(t, r)
	digest := errors.New("digest differs")
	for _, n := range []int{0, 100, 300_000} {
		_, err := c.WriteStripes(t.Context(), WriteRequest{Bytes: -1}, io.MultiReader(bytes.NewReader(make([]byte, n)), failing{digest}))
		if err != digest {
			t.Fatalf("got %v", err)
		}
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		err := r.bodyErr
		r.mu.Unlock()
		if ashlar.Is(err, ashlar.Unavailable) {
			break // the host saw a stream without an end
		}
		if time.Now().After(end) {
			t.Fatalf("the host saw %v", err)
		}
	}
}

func TestRefusedWriteLeavesTheBodyUntouched(t *testing.T) {
	r := &recorder{refuse: ashlar.E("test", "", ashlar.Unavailable, errors.New("no quorum"))}
	c := serve(t, r)
	var reads atomic.Int64
	body := readFunc(func(p []byte) (int, error) { reads.Add(1); return len(p), nil })
	if _, err := c.WriteStripes(t.Context(), WriteRequest{Bytes: 1 << 30}, body); !ashlar.Is(err, ashlar.Unavailable) || !strings.Contains(err.Error(), "no quorum") {
		t.Fatalf("got %v", err)
	}
	if reads.Load() != 0 {
		t.Errorf("the body was read %d times", reads.Load())
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// TestFlippedBytesAreRefused puts a proxy between that changes one byte of
// every long message, in either direction, past what TCP would notice.
func TestFlippedBytesAreRefused(t *testing.T) {
	const marker, n = 'M', 200_000 // a payload byte that no header has
	payload := bytes.Repeat([]byte{marker}, n)
	for _, c := range []struct {
		name string
		up   bool
	}{{"to the host", true}, {"from the host", false}} {
		t.Run(c.name, func(t *testing.T) {
			r := &recorder{data: payload, body: payload}
			conn := DialBytes(proxy(t, listen(t, r), func(up bool, b []byte) {
				if i := bytes.Index(b, bytes.Repeat([]byte{marker}, 1000)); up == c.up && i >= 0 {
					b[i+500] ^= 1
				}
			}))
			defer conn.Close()
			if c.up {
				if err := conn.PutPiece(t.Context(), aPiece(payload)); !ashlar.Is(err, ashlar.Corrupt) {
					t.Errorf("put: %v", err)
				}
				if _, err := conn.WriteStripes(t.Context(), WriteRequest{Bytes: n}, bytes.NewReader(payload)); !ashlar.Is(err, ashlar.Corrupt) {
					t.Errorf("write: %v", err)
				}
				return
			}
			if err := conn.GetPiece(t.Context(), PieceRange{}, make([]byte, n)); !ashlar.Is(err, ashlar.Corrupt) {
				t.Errorf("get: %v", err)
			}
			body, err := conn.ReadStripes(t.Context(), ReadRequest{Length: n})
			if err == nil {
				var got []byte
				if got, err = io.ReadAll(body); bytes.IndexFunc(got, func(r rune) bool { return r != marker }) >= 0 {
					t.Error("a wrong byte was handed on")
				}
				body.Close()
			}
			if !ashlar.Is(err, ashlar.Corrupt) {
				t.Errorf("read: %v", err)
			}
		})
	}
}

// proxy forwards connections and shows the bytes to change on their way.
func proxy(t *testing.T, to string, change func(up bool, b []byte)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	pump := func(dst, src net.Conn, up bool) {
		defer wg.Done()
		defer dst.Close()
		buf := make([]byte, 32*ashlar.KiB)
		for {
			n, err := src.Read(buf)
			change(up, buf[:n])
			if _, errW := dst.Write(buf[:n]); err != nil || errW != nil {
				return
			}
		}
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				return
			}
			t.Cleanup(func() { in.Close(); out.Close() })
			wg.Add(2)
			go pump(out, in, true)
			go pump(in, out, false)
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestCutConnectionsAreUnavailable(t *testing.T) {
	r := &recorder{data: make([]byte, 1<<20), body: make([]byte, 1<<20)}
	host := listen(t, r)
	for _, up := range []bool{true, false} {
		var seen atomic.Int64
		conn := DialBytes(cutter(t, host, up, &seen))
		defer conn.Close()
		check := func(call string, err error) {
			if !ashlar.Is(err, ashlar.Unavailable) {
				t.Errorf("%s: %v", call, err)
			}
			seen.Store(0)
		}
		if up {
			check("put", conn.PutPiece(t.Context(), aPiece(make([]byte, 1<<20))))
			_, err := conn.WriteStripes(t.Context(), WriteRequest{Bytes: 1 << 20}, bytes.NewReader(make([]byte, 1<<20)))
			check("write", err)
			continue
		}
		check("get", conn.GetPiece(t.Context(), PieceRange{}, make([]byte, 1<<20)))
		body, err := conn.ReadStripes(t.Context(), ReadRequest{Length: 1 << 20})
		if err == nil {
			_, err = io.Copy(io.Discard, body)
			body.Close()
		}
		check("read", err)
	}
	gone := DialBytes("127.0.0.1:1")
	if err := gone.PutPiece(t.Context(), aPiece(nil)); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("nobody there: %v", err)
	}
}

// cutter is a proxy that closes a connection after 200 KB in one direction.
func cutter(t *testing.T, to string, up bool, seen *atomic.Int64) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with the listener
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				return
			}
			pump := func(dst, src net.Conn, count bool) {
				defer in.Close()
				defer out.Close()
				buf := make([]byte, 32*ashlar.KiB)
				for {
					n, err := src.Read(buf)
					if count && seen.Add(int64(n)) > 200_000 {
						return
					}
					if _, errW := dst.Write(buf[:n]); err != nil || errW != nil {
						return
					}
				}
			}
			go pump(out, in, up)
			go pump(in, out, !up)
		}
	}()
	return l.Addr().String()
}

func TestCallersDeadlineHoldsOnTheHost(t *testing.T) {
	ended := make(chan struct{})
	r := &slowPieces{recorder: &recorder{}, ended: ended}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewBytesServer(BytesConfig{Pieces: r, Stripes: r, Memory: buffer.NewPool().Share(ashlar.MiB)})
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := DialBytes(l.Addr().String()).PutPiece(ctx, aPiece([]byte("x"))); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("got %v", err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the host works on")
	}
}

type slowPieces struct {
	*recorder
	ended chan struct{}
}

func (s *slowPieces) PutPiece(ctx context.Context, _ *Piece) error {
	<-ctx.Done()
	close(s.ended)
	return ctx.Err()
}

func FuzzDecodeRequests(f *testing.F) {
	f.Add(encode(func(c *codec) { c.piece(aPiece(nil)) }, 0)[4:])
	f.Add(encode(func(c *codec) {
		c.readRequest(&ReadRequest{Key: "k", Extents: []ashlar.Extent{anExtent(1), anExtent(2)}, Length: 3})
	}, 0)[4:])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Piece
		var r ReadRequest
		var ids []PieceID
		for _, m := range []message{
			func(c *codec) { c.piece(&p) },
			func(c *codec) { c.readRequest(&r) },
			func(c *codec) { list(c, &ids, pieceIDBytes, c.pieceID) },
		} {
			if decode("fuzz", b, m) != nil {
				continue
			}
			again := encode(m, 0)[4:] // what was understood is written as it was meant
			if err := decode("fuzz", again, m); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(encode(m, 0)[4:], again) {
				t.Fatal("not stable")
			}
		}
	})
}

func FuzzFrames(f *testing.F) {
	var b bytes.Buffer
	w := frameWriter{w: &b}
	w.Write([]byte("hello"))
	w.end(nil)
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &frameReader{r: bytes.NewReader(b), op: "fuzz"}
		got, err := io.ReadAll(r)
		if len(got) > len(b) {
			t.Fatal("bytes out of nothing")
		}
		if err == nil && !bytes.Contains(b, make([]byte, frameHeader)) {
			t.Fatal("an end without an end frame")
		}
	})
}
