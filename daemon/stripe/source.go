package stripe

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"ashlar"
)

// emptyReadsMax is how often a body may return nothing without an error.
const emptyReadsMax = 100

var errBodyShort = errors.New("the body is shorter than announced")

// source reads a body exactly. It keeps the error that came with the last
// bytes: a body says with it that its digest does not match.
type source struct {
	r   io.Reader
	err error
	got *atomic.Int64 // counts the bytes
}

// fill reads until dst is full. It returns what it got and the body's own
// error, io.EOF included, if dst could not be filled.
func (s *source) fill(dst []byte) (int, error) {
	got, empty := 0, 0
	for got < len(dst) && s.err == nil {
		var n int
		n, s.err = s.r.Read(dst[got:])
		got += n
		s.got.Add(int64(n))
		if empty++; n > 0 {
			empty = 0
		}
		if empty == emptyReadsMax {
			s.err = io.ErrNoProgress
		}
	}
	if got == len(dst) {
		return got, nil
	}
	return got, s.err
}

// end checks that the body ends here, after bytes. The body's verdict on its
// own digests comes with its end.
func (s *source) end(bytes uint64) error {
	var one [1]byte
	n, err := s.fill(one[:])
	switch {
	case n > 0:
		return ashlar.E("stripe: write", "", ashlar.Invalid, fmt.Errorf("the body is longer than the announced %d bytes", bytes))
	case err == io.EOF:
		return nil
	}
	return err
}

// short turns the end of the body at byte at into an error; other errors stay
// what they are.
func short(err error, at uint64) error {
	if err == io.EOF {
		return ashlar.E("stripe: write", "", ashlar.Invalid, fmt.Errorf("%w: it ends at byte %d", errBodyShort, at))
	}
	return err
}

// sliceReader reads a slice once.
type sliceReader struct{ b []byte }

func (r *sliceReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}
