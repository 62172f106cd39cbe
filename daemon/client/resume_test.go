package client

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// breaking serves a text and breaks off after a number of bytes, at each opening.
type breaking struct {
	wire.Stripes
	text  string
	after int
	err   error
	opens int
	stuck bool // no byte at all from the second opening on
}

func (b *breaking) ReadStripes(_ context.Context, req wire.ReadRequest) (io.ReadCloser, error) {
	b.opens++
	rest := b.text[req.Off : req.Off+req.Length]
	n := min(b.after, len(rest))
	if b.stuck && b.opens > 1 {
		n = 0
	}
	if n == len(rest) {
		return io.NopCloser(strings.NewReader(rest)), nil
	}
	return io.NopCloser(io.MultiReader(strings.NewReader(rest[:n]), failing{b.err})), nil
}

func TestReadGoesOnWhereItBrokeOff(t *testing.T) {
	text := strings.Repeat("0123456789", 10)
	m := sixHosts()
	one := func() *topology.Map { return m }
	busy := ashlar.E("test", "", ashlar.Busy, errors.New("reclaimed"))
	for _, c := range []struct {
		name  string
		b     breaking
		want  string
		opens int
		err   error
	}{
		{"whole", breaking{after: 100}, text[3:93], 1, nil},
		{"host dies", breaking{after: 40, err: away}, text[3:93], 3, nil},
		{"memory is taken", breaking{after: 50, err: busy}, text[3:93], 2, nil},
		{"no byte ever again", breaking{after: 40, err: away, stuck: true}, text[3:43], 1 + resumesMax, away},
		{"damage is not tried again", breaking{after: 40, err: ashlar.E("test", "", ashlar.Corrupt, nil)}, text[3:43], 1, errors.New("corrupt")},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.b.text = text
			s := NewStripes(one, func(ashlar.HostID) (wire.Stripes, error) { return &c.b, nil }, "")
			r, err := s.ReadStripes(t.Context(), wire.ReadRequest{Key: "k", Off: 3, Length: 90, Extents: []ashlar.Extent{{Bytes: 100}}})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			got, err := io.ReadAll(r)
			if string(got) != c.want || c.b.opens != c.opens || (err == nil) != (c.err == nil) {
				t.Errorf("%q after %d openings: %v", got, c.b.opens, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	b := &breaking{text: text, after: 40, err: away}
	s := NewStripes(one, func(ashlar.HostID) (wire.Stripes, error) { return b, nil }, "")
	r, err := s.ReadStripes(ctx, wire.ReadRequest{Key: "k", Length: 100, Extents: []ashlar.Extent{{Bytes: 100}}})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if got, err := io.ReadAll(r); err == nil || b.opens != 1 {
		t.Errorf("a caller that left: %d bytes, %v, %d openings", len(got), err, b.opens)
	}
}

// closing counts closes.
type closing struct {
	io.Reader
	closes *atomic.Int64
}

func (c closing) Close() error { c.closes.Add(1); return nil }

// endless serves a text whole, and counts what is opened and closed.
type endless struct {
	wire.Stripes
	text          string
	opens, closes atomic.Int64
}

func (e *endless) ReadStripes(_ context.Context, req wire.ReadRequest) (io.ReadCloser, error) {
	e.opens.Add(1)
	return closing{strings.NewReader(e.text[req.Off : req.Off+req.Length]), &e.closes}, nil
}

// TestStreamThatNobodyReadsIsParked proves that a consumer that stays away holds
// no stream of a host, and gets the right bytes when it comes back.
func TestStreamThatNobodyReadsIsParked(t *testing.T) {
	m := sixHosts()
	e := &endless{text: strings.Repeat("0123456789", 10_000)}
	s := NewStripes(func() *topology.Map { return m }, func(ashlar.HostID) (wire.Stripes, error) { return e, nil }, "")
	r, err := s.ReadStripes(t.Context(), wire.ReadRequest{Key: "k", Length: 100_000, Extents: []ashlar.Extent{{Bytes: 100_000}}})
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 33)
	if _, err := io.ReadFull(r, first); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); e.closes.Load() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the stream stays open")
		}
	}
	rest, err := io.ReadAll(r)
	if err != nil || string(first)+string(rest) != e.text || e.opens.Load() != 2 {
		t.Errorf("%d bytes, %v, %d openings", len(first)+len(rest), err, e.opens.Load())
	}
	r.Close()
	if e.closes.Load() != 2 {
		t.Errorf("%d closes", e.closes.Load())
	}
}
