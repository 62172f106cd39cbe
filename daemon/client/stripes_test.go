package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// coordinator is a test double: it answers err, after reading some of the body.
type coordinator struct {
	wire.Stripes
	err   error
	reads int64
	got   []byte
	calls int
}

func (c *coordinator) WriteStripes(_ context.Context, _ wire.WriteRequest, body io.Reader) (ashlar.Extent, error) {
	c.calls++
	if c.err != nil {
		io.CopyN(io.Discard, body, c.reads)
		return ashlar.Extent{}, c.err
	}
	b, err := io.ReadAll(body)
	c.got = b
	return ashlar.Extent{Bytes: uint64(len(b))}, err
}

func (c *coordinator) ReadStripes(context.Context, wire.ReadRequest) (io.ReadCloser, error) {
	c.calls++
	return io.NopCloser(strings.NewReader("body")), c.err
}

func (c *coordinator) DeleteStripes(context.Context, ashlar.BucketID, string, []ashlar.Extent) error {
	c.calls++
	return c.err
}

// sixHosts is a map of six hosts in three zones with one group over all, in order.
func sixHosts() *topology.Map {
	m := &topology.Map{Epoch: 1, Groups: []topology.Group{{}}, Shards: []topology.Shard{{}}}
	for i := range 6 {
		m.Hosts = append(m.Hosts, topology.Host{ID: ashlar.HostID(i + 1), Zone: fmt.Sprint("z", i%3), Addr: "127.0.0.1:1"})
		m.Disks = append(m.Disks, topology.Disk{Host: ashlar.HostID(i + 1)})
		m.Groups[0].Disks = append(m.Groups[0].Disks, topology.DiskNum(i))
	}
	return m
}

func router(m *topology.Map, zone string) (*Stripes, []*coordinator) {
	hosts := make([]*coordinator, len(m.Hosts)+1)
	for i := range hosts {
		hosts[i] = &coordinator{}
	}
	return NewStripes(func() *topology.Map { return m }, func(id ashlar.HostID) (wire.Stripes, error) { return hosts[id], nil }, zone), hosts
}

func called(hosts []*coordinator) (ids []int) {
	for i, h := range hosts {
		if h.calls > 0 {
			ids = append(ids, i)
		}
	}
	return ids
}

var away = ashlar.E("test", "", ashlar.Unavailable, errors.New("away"))

func TestHomeGroupInOrderNearestZoneFirst(t *testing.T) {
	m := sixHosts()
	m.Hosts[0].State = topology.HostDown
	for zone, want := range map[string]int{"": 2, "z0": 4, "z2": 3, "z9": 2} {
		s, hosts := router(m, zone)
		if _, err := s.ReadStripes(t.Context(), wire.ReadRequest{}); err != nil {
			t.Fatal(err)
		}
		if got := called(hosts); !slices.Equal(got, []int{want}) {
			t.Errorf("zone %q: asked %v, not %d", zone, got, want)
		}
	}
	for i := range m.Hosts {
		m.Hosts[i].State = topology.HostOut
	}
	s, _ := router(m, "")
	if _, err := s.ReadStripes(t.Context(), wire.ReadRequest{}); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("no host: %v", err)
	}
}

func TestReadsAndDeletesGoOnToTheNextHost(t *testing.T) {
	s, hosts := router(sixHosts(), "")
	hosts[1].err = away
	if body, err := s.ReadStripes(t.Context(), wire.ReadRequest{}); err != nil || body == nil {
		t.Error(err)
	}
	if err := s.DeleteStripes(t.Context(), ashlar.BucketID{}, "k", []ashlar.Extent{{}}); err != nil {
		t.Error(err)
	}
	if got := called(hosts); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("asked %v", got)
	}
	for _, h := range hosts {
		h.err = away
	}
	if _, err := s.ReadStripes(t.Context(), wire.ReadRequest{}); !ashlar.Is(err, ashlar.Unavailable) {
		t.Error(err)
	}
	if got := called(hosts); len(got) != attemptsMax {
		t.Errorf("asked %v", got)
	}
	hosts[1].err, hosts[2].calls = ashlar.E("test", "", ashlar.Invalid, nil), 0
	if _, err := s.ReadStripes(t.Context(), wire.ReadRequest{}); !ashlar.Is(err, ashlar.Invalid) || hosts[2].calls != 0 {
		t.Errorf("a request that is wrong everywhere was repeated: %v", err)
	}
}

func TestWritesGoOnOnlyWithAnUntouchedBody(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 1_000_000)
	for _, c := range []struct {
		name  string
		bytes int
		reads int64
		want  []int
	}{
		{"large, refused at once", 1_000_000, 0, []int{1, 2}},
		{"large, refused in its beginning", 1_000_000, 10, []int{1, 2}},
		{"large, refused later", 1_000_000, replayMax + 10, []int{1}},
		{"small, refused later", replayMax, 10, []int{1, 2}},
		{"empty", 0, 10, []int{1, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, hosts := router(sixHosts(), "")
			hosts[1].err, hosts[1].reads = away, c.reads
			ext, err := s.WriteStripes(t.Context(), wire.WriteRequest{Bytes: int64(c.bytes)}, bytes.NewReader(data[:c.bytes]))
			if got := called(hosts); !slices.Equal(got, c.want) {
				t.Errorf("asked %v, not %v", got, c.want)
			}
			if len(c.want) == 2 && (err != nil || ext.Bytes != uint64(c.bytes) || !bytes.Equal(hosts[2].got, data[:c.bytes])) {
				t.Errorf("%d bytes, %v", ext.Bytes, err)
			}
			if len(c.want) == 1 && !ashlar.Is(err, ashlar.Unavailable) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSmallBodyThatFailsIsNotSent(t *testing.T) {
	s, hosts := router(sixHosts(), "")
	digest := errors.New("digest differs")
	for _, body := range []io.Reader{
		io.MultiReader(strings.NewReader("hello"), failing{digest}),
		io.MultiReader(strings.NewReader("he"), failing{digest}),
	} {
		if _, err := s.WriteStripes(t.Context(), wire.WriteRequest{Bytes: 5}, body); err != digest {
			t.Errorf("got %v", err)
		}
	}
	if got := called(hosts); got != nil {
		t.Errorf("asked %v", got)
	}
	// Too long is for the coordinator to judge: it must see that there is more.
	if _, err := s.WriteStripes(t.Context(), wire.WriteRequest{Bytes: 5}, strings.NewReader("hello world")); err != nil || len(hosts[1].got) != 6 {
		t.Errorf("%d bytes were shown, %v", len(hosts[1].got), err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// fake is a host of this process.
type fake struct {
	wire.Pieces
	*coordinator
	wire.Shards
}

func TestHostsAreReachedDirectlyOrByAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	there := &coordinator{}
	server := wire.NewBytesServer(wire.BytesConfig{Stripes: there, Memory: buffer.NewPool().Share(ashlar.MiB)})
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	m := sixHosts()
	h := NewHosts(func() *topology.Map { return m })
	t.Cleanup(h.Close)
	here := &coordinator{}
	h.Direct(1, fake{coordinator: here})
	m.Hosts[1].Addr = l.Addr().String()
	for id, want := range map[ashlar.HostID]*coordinator{1: here, 2: there} {
		host, err := h.Stripes(id)
		if err != nil {
			t.Fatal(err)
		}
		if err := host.DeleteStripes(t.Context(), ashlar.BucketID{}, "k", nil); err != nil || want.calls != 1 {
			t.Errorf("host %v: %v, %d calls", id, err, want.calls)
		}
	}
	one, _ := h.Pieces(2)
	if two, _ := h.Pieces(2); one != two {
		t.Error("connections are not kept")
	}
	m.Hosts[1].Addr = "127.0.0.1:1"
	if two, _ := h.Pieces(2); one == two {
		t.Error("the old address is still used")
	}
	h.Direct(1, nil)
	host, err := h.Stripes(1)
	if err == nil {
		err = host.DeleteStripes(t.Context(), ashlar.BucketID{}, "k", nil)
	}
	if !ashlar.Is(err, ashlar.Unavailable) || here.calls != 1 {
		t.Errorf("a host that was taken away: %v", err)
	}
	if _, err := h.Pieces(77); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("an unknown host: %v", err)
	}
}
