package stripe

import (
	"context"
	"fmt"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// cpu reports the process's CPU time for each GB (10⁹ bytes) of user data.
type cpu struct {
	bytes int64
}

func cpuSeconds() float64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func newCPU(b *testing.B) *cpu {
	c, start := &cpu{}, cpuSeconds()
	b.Cleanup(func() {
		b.ReportMetric((cpuSeconds()-start)/(float64(c.bytes)/1e9), "cpu-s/GB")
	})
	return c
}

// sink takes pieces and forgets them: what is left is the coordinator's own cost.
type sink struct{ wire.Pieces }

func (sink) PutPiece(context.Context, *wire.Piece) error { return nil }

func BenchmarkWrite(b *testing.B) {
	for _, n := range []int64{4 * ashlar.KiB, ashlar.MiB, 64 * ashlar.MiB} {
		b.Run(fmt.Sprint(n/ashlar.KiB, "KiB"), func(b *testing.B) {
			k := newCluster(b, 12, func(s *topology.Settings, c *Config) {
				s.StripeBytes = 16 * ashlar.MiB
				c.Dial = func(ashlar.HostID) (wire.Pieces, error) { return sink{}, nil }
			})
			b.SetBytes(n)
			b.ReportAllocs()
			for c := newCPU(b); b.Loop(); c.bytes += n {
				if _, err := k.c.WriteStripes(b.Context(), wire.WriteRequest{Key: "k", Bytes: n}, &hot{left: n}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// hot copies the same cached bytes again and again, as a socket's buffer does.
type hot struct{ left int64 }

var hotBytes = randomBytes(64*ashlar.KiB, 1)

func (h *hot) Read(p []byte) (int, error) {
	if h.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), h.left)], hotBytes)
	h.left -= int64(n)
	return n, nil
}

// BenchmarkReadSmall reads one copy of a small object from this host.
func BenchmarkReadSmall(b *testing.B) {
	k := newCluster(b, 12)
	data := randomBytes(4*ashlar.KiB, 1)
	ext := k.write(b, "k", data)
	b.ReportAllocs()
	for c := newCPU(b); b.Loop(); c.bytes += int64(len(data)) {
		r, err := k.c.ReadStripes(b.Context(), wire.ReadRequest{Key: "k", Extents: []ashlar.Extent{ext}, Length: ext.Bytes})
		if err != nil {
			b.Fatal(err)
		}
		r.(io.WriterTo).WriteTo(io.Discard)
		r.Close()
	}
}
