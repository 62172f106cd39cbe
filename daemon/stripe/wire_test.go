package stripe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// networked puts loopback HTTP between the coordinator and every host but the
// local one, and in front of the coordinator.
func networked(t testing.TB, k *cluster, behind func(ashlar.HostID) wire.Pieces) wire.Stripes {
	conns := map[ashlar.HostID]wire.Pieces{}
	pool := buffer.NewPool()
	for id := range k.hosts {
		if id == k.c.cfg.Local {
			conns[id] = behind(id)
			continue
		}
		conns[id] = dialled(t, wire.BytesConfig{Pieces: behind(id), Memory: pool.Share(32 * ashlar.MiB)})
	}
	cfg := k.c.cfg
	cfg.Dial = func(id ashlar.HostID) (wire.Pieces, error) {
		if c := conns[id]; c != nil {
			return c, nil
		}
		return nil, errors.New("no such host")
	}
	k.c = New(cfg)
	return dialled(t, wire.BytesConfig{Stripes: k.c, Memory: pool.Share(ashlar.MiB)})
}

func dialled(t testing.TB, cfg wire.BytesConfig) wire.BytesConn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := wire.NewBytesServer(cfg)
	go server.Serve(l)
	conn := wire.DialBytes(l.Addr().String())
	t.Cleanup(func() { conn.Close(); server.Close() })
	return conn
}

// TestBodiesCrossTheWholeWire writes and reads through sockets at every hop,
// healthy and with four disks away.
func TestBodiesCrossTheWholeWire(t *testing.T) {
	k := newCluster(t, 12)
	s := networked(t, k, func(id ashlar.HostID) wire.Pieces { return k.hosts[id] })
	for _, n := range []int{0, 1, 100_000, 9_000_001} {
		key, data := fmt.Sprint(n), randomBytes(n, uint64(n))
		ext, err := s.WriteStripes(t.Context(), wire.WriteRequest{Key: key, Bytes: int64(n)}, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		k.settled(t, k.pieces(key, ext))
		for _, away := range []int{0, 4} {
			for _, d := range k.disks[:away] {
				d.set(fault{dead: true})
			}
			body, err := s.ReadStripes(t.Context(), wire.ReadRequest{Key: key, Extents: []ashlar.Extent{ext}, Length: ext.Bytes})
			if err == nil {
				var got []byte
				got, err = io.ReadAll(body)
				body.Close()
				if err == nil && !bytes.Equal(got, data) {
					err = errors.New("wrong bytes")
				}
			}
			if err != nil && !(away == 4 && n > 0 && n <= 128*ashlar.KiB) { // three copies do not outlive four disks
				t.Errorf("%d bytes, %d disks away: %v", n, away, err)
			}
			for _, d := range k.disks {
				d.set(fault{})
			}
		}
	}
}

// pieces counts what is stored once all of an extent's pieces have landed, with
// what was stored before.
func (k *cluster) pieces(key string, ext ashlar.Extent) int {
	for s := range ext.Stripes(ashlar.BucketID{}, key, 0, ext.Bytes) {
		k.expected += s.Code.Pieces()
	}
	return k.expected
}

// BenchmarkWriteWire is the whole of a write but the disks: two sockets for
// each byte, all sides in this process.
func BenchmarkWriteWire(b *testing.B) {
	for _, n := range []int64{4 * ashlar.KiB, 64 * ashlar.MiB} {
		b.Run(fmt.Sprint(n/ashlar.KiB, "KiB"), func(b *testing.B) {
			k := newCluster(b, 12, func(s *topology.Settings, c *Config) { s.StripeBytes = 16 * ashlar.MiB })
			s := networked(b, k, func(ashlar.HostID) wire.Pieces { return sink{} })
			b.SetBytes(n)
			for c := newCPU(b); b.Loop(); c.bytes += n {
				if _, err := s.WriteStripes(b.Context(), wire.WriteRequest{Key: "k", Bytes: n}, &hot{left: n}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// filled answers every read with what is in the buffer already.
type filled struct{ wire.Pieces }

func (filled) GetPiece(context.Context, wire.PieceRange, []byte) error { return nil }

// BenchmarkReadWire is the whole of a read but the disks.
func BenchmarkReadWire(b *testing.B) {
	k := newCluster(b, 12, func(s *topology.Settings, c *Config) { s.StripeBytes = 16 * ashlar.MiB })
	s := networked(b, k, func(ashlar.HostID) wire.Pieces { return filled{} })
	ext := k.m.Load().Settings
	e := ashlar.Extent{Write: 1, Bytes: 64 * ashlar.MiB, StripeBytes: ext.StripeBytes, SmallMax: ext.SmallMax, Large: ext.Large, Small: ext.Small}
	b.SetBytes(int64(e.Bytes))
	for c := newCPU(b); b.Loop(); c.bytes += int64(e.Bytes) {
		body, err := s.ReadStripes(b.Context(), wire.ReadRequest{Key: "k", Extents: []ashlar.Extent{e}, Length: e.Bytes})
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, body); err != nil || n != int64(e.Bytes) {
			b.Fatal(n, err)
		}
		body.Close()
	}
}
