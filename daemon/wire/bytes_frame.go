package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"ashlar"
)

// frameWriter cuts what is written into frames.
type frameWriter struct {
	w    io.Writer
	head [frameHeader]byte
}

func (f *frameWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		part := p[done:min(len(p), done+frameBytes)]
		if err := f.frame(uint32(len(part)), part); err != nil {
			return done, err
		}
		done += len(part)
	}
	return done, nil
}

func (f *frameWriter) frame(length uint32, payload []byte) error {
	binary.LittleEndian.PutUint32(f.head[:], length)
	binary.LittleEndian.PutUint32(f.head[4:], sumOf(payload))
	if _, err := f.w.Write(f.head[:]); err != nil {
		return err
	}
	_, err := f.w.Write(payload)
	return err
}

// end writes the last frame: the end, or why there is none.
func (f *frameWriter) end(err error) error {
	if err == nil {
		return f.frame(0, nil)
	}
	text := append([]byte{byte(ashlar.KindOf(err))}, err.Error()...)
	text = text[:min(len(text), textBytesMax)]
	return f.frame(failure|uint32(len(text)), text)
}

// frameReader is the inverse: a stream that ends with io.EOF only after the end
// frame, and yields no byte that was not verified.
type frameReader struct {
	r    io.Reader
	op   string
	buf  []byte // made when a frame does not fit the caller's slice
	rest []byte // verified bytes of buf that were not read yet
	err  error
	tick func() // called before each frame: the stream moves
}

func (f *frameReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(f.rest) == 0 {
		if f.err != nil {
			return 0, f.err
		}
		n, err := f.next(p)
		if err != nil {
			f.err = err
			return 0, err
		}
		if n > 0 {
			return n, nil
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// next reads one frame: into p if it fits, else into rest.
func (f *frameReader) next(p []byte) (int, error) {
	if f.tick != nil {
		f.tick()
	}
	var head [frameHeader]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, f.torn(err)
	}
	length, sum := binary.LittleEndian.Uint32(head[:]), binary.LittleEndian.Uint32(head[4:])
	if length == 0 && sum == 0 {
		return 0, io.EOF
	}
	failed := length&failure != 0
	if length &^= failure; length > frameBytesMax || length == 0 {
		return 0, ashlar.E(f.op, "", ashlar.Corrupt, fmt.Errorf("a frame of %d bytes", length))
	}
	dst, direct := f.space(p, int(length), failed)
	if _, err := io.ReadFull(f.r, dst); err != nil {
		return 0, f.torn(err)
	}
	switch {
	case sumOf(dst) != sum:
		return 0, ashlar.E(f.op, "", ashlar.Corrupt, errSum)
	case failed:
		return 0, ashlar.E(f.op, "", ashlar.Kind(dst[0]), errors.New(string(dst[1:])))
	case direct:
		return len(dst), nil
	}
	f.rest = dst
	return 0, nil
}

func (f *frameReader) space(p []byte, length int, failed bool) (dst []byte, direct bool) {
	if !failed && len(p) >= length {
		return p[:length], true
	}
	if len(f.buf) < length {
		f.buf = make([]byte, max(frameBytes, length))
	}
	return f.buf[:length], false
}

func (f *frameReader) torn(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = errTorn
	}
	return ashlar.E(f.op, "", ashlar.Unavailable, err)
}

// framedBody turns a body into the stream of its frames, pulled by the
// transport. If the body fails, the stream fails without an end.
type framedBody struct {
	body io.Reader
	buf  []byte // one frame with its header
	out  []byte // what of buf was not read yet
	end  bool
	err  error // of the body; io.EOF when it ended well
	want int64 // length that was announced, -1 if none was
	got  int64
	tick func()
}

// newFramedBody frames a body of want bytes; -1 is any number.
func newFramedBody(body io.Reader, want int64, tick func()) *framedBody {
	size := int64(frameBytes)
	if want >= 0 {
		size = min(size, want+1) // one more shows that the body is too long
	}
	return &framedBody{body: body, want: want, buf: make([]byte, frameHeader+size), tick: tick}
}

// length is the length of the framed stream, -1 if it is not known.
func (f *framedBody) length() int64 {
	if f.want < 0 {
		return -1
	}
	return f.want + frameHeader*((f.want+frameBytes-1)/frameBytes+1)
}

func (f *framedBody) Read(p []byte) (int, error) {
	for len(f.out) == 0 {
		if f.end {
			return 0, io.EOF
		}
		if f.err != nil && f.err != io.EOF {
			return 0, f.err
		}
		f.tick()
		f.fill()
	}
	n := copy(p, f.out)
	f.out = f.out[n:]
	return n, nil
}

// fill makes the next frame: what the body gives until the frame is full.
func (f *framedBody) fill() {
	got := 0
	for empty := 0; frameHeader+got < len(f.buf) && f.err == nil && empty < emptyReadsMax; empty++ {
		var n int
		if n, f.err = f.body.Read(f.buf[frameHeader+got:]); n > 0 {
			got += n
			empty = 0
		}
	}
	if got == 0 && f.err == nil {
		f.err = io.ErrNoProgress
	}
	f.got += int64(got)
	if f.want >= 0 && (f.got > f.want || f.err == io.EOF && f.got < f.want) {
		f.err = ashlar.E("wire: "+callWrite, "", ashlar.Invalid, fmt.Errorf("the body does not have the announced %d bytes", f.want))
		return
	}
	if got == 0 && f.err != io.EOF {
		return
	}
	payload := f.buf[frameHeader : frameHeader+got]
	binary.LittleEndian.PutUint32(f.buf, uint32(got))
	binary.LittleEndian.PutUint32(f.buf[4:], sumOf(payload))
	f.out = f.buf[:frameHeader+got]
	f.end = got == 0
}

// emptyReadsMax is how often a body may return nothing without an error.
const emptyReadsMax = 100
