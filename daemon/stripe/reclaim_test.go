package stripe

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/wire"
	"ashlar/ec"
	"ashlar/placement/topology"
)

// TestConsumersThatStayAwayLoseTheirMemory fills the read share with streams
// that nobody reads and proves that others get through all the same, that the
// left ones end with Busy and not with wrong bytes, and that nothing is lost of
// the budget.
func TestConsumersThatStayAwayLoseTheirMemory(t *testing.T) {
	k := newCluster(t, 12, func(_ *topology.Settings, c *Config) {
		pool := buffer.NewPool()
		t.Cleanup(pool.Close)
		c.Memory = NewMemory(pool, 64*ashlar.MiB)
		c.Memory.Read, c.WindowBytes = pool.Share(8*ashlar.MiB), ashlar.MiB // a stream takes two windows
	})
	data := randomBytes(20*ashlar.MiB, 1)
	ext := k.write(t, "k", data)
	open := func(ctx context.Context) (io.ReadCloser, error) {
		return k.c.ReadStripes(ctx, wire.ReadRequest{Key: "k", Extents: []ashlar.Extent{ext}, Length: ext.Bytes})
	}
	share := k.c.cfg.Memory.Read
	var left []io.ReadCloser
	var done sync.WaitGroup
	defer done.Wait()
	free := make(chan struct{})
	defer close(free)
	for { // one is stuck in its own Write, the others do nothing
		l := share.TryLease(8 * buffer.Size(ec.Cell)) // the least that a stream of these stripes needs
		if l == nil {
			break
		}
		l.Close()
		r, err := open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			stuck := make(chan struct{})
			done.Go(func() {
				r.(io.WriterTo).WriteTo(writeFunc(func([]byte) (int, error) { close(stuck); <-free; return 0, io.ErrClosedPipe }))
				r.Close()
			})
			<-stuck
		} else {
			defer r.Close()
		}
		left = append(left, r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 4 { // each of them stays away as well
		r, err := open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		left = append(left, r)
	}
	r, err := open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	r.Close()
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	busy := 0
	for _, r := range left[1:] {
		got, err := io.ReadAll(r)
		if !bytes.Equal(got, data[:len(got)]) {
			t.Error("wrong bytes")
		}
		if ashlar.Is(err, ashlar.Busy) {
			busy++
		} else if err != nil {
			t.Error(err)
		}
		r.Close()
	}
	if busy == 0 {
		t.Error("nobody lost memory; the share was not full")
	}
}

type writeFunc func([]byte) (int, error)

func (f writeFunc) Write(p []byte) (int, error) { return f(p) }

// stuckBody gives some bytes and then none, until it is interrupted.
type stuckBody struct {
	given bool
	stuck chan struct{} // closed when the reader waits
	over  chan struct{}
	once  sync.Once
}

func (b *stuckBody) Read(p []byte) (int, error) {
	if !b.given {
		b.given = true
		return min(len(p), 1000), nil
	}
	close(b.stuck)
	<-b.over
	return 0, io.ErrUnexpectedEOF
}

func (b *stuckBody) Interrupt() { b.once.Do(func() { close(b.over) }) }

// TestBodiesThatCrawlGiveWay fills the write share with uploads that stand
// still: short bodies pass at once, and a long one gets the memory of those, which
// are told to come back.
func TestBodiesThatCrawlGiveWay(t *testing.T) {
	k := newCluster(t, 12, func(_ *topology.Settings, c *Config) {
		c.Memory = NewMemory(buffer.NewPool(), 16*ashlar.MiB) // one stripe is 6 MiB
	})
	body := &stuckBody{stuck: make(chan struct{}), over: make(chan struct{})}
	t.Cleanup(body.Interrupt)
	first := make(chan error, 1)
	go func() {
		_, err := k.c.WriteStripes(t.Context(), wire.WriteRequest{Key: "stuck", Bytes: 9_000_000}, body)
		first <- err
	}()
	<-body.stuck
	k.write(t, "short", randomBytes(wire.BriefBytesMax, 1))
	select {
	case err := <-first:
		t.Fatalf("a short body took its place: %v", err)
	default:
	}
	data := randomBytes(9_000_000, 2)
	ext := k.write(t, "long", data)
	if err := <-first; !ashlar.Is(err, ashlar.Busy) {
		t.Errorf("the body that stood still: %v", err)
	}
	k.mustRead(t, "long", data, 0, len(data), ext)
}
