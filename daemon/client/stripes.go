package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

const (
	// attemptsMax bounds the hosts that one request tries.
	attemptsMax = 3
	// replayMax is how much of a body is read before it is sent.
	replayMax = wire.BriefBytesMax
)

// Stripes is the wire.Stripes that gateways use: it finds a coordinator for
// each call. That is a host of the home group of the object or part, in the
// order of the group, those of the caller's zone first: such a host holds a
// piece of what it is asked for. A host that is not available is passed over
// for the next, as long as nothing of the body has been taken.
type Stripes struct {
	maps func() *topology.Map
	dial func(ashlar.HostID) (wire.Stripes, error)
	zone string
}

var _ wire.Stripes = (*Stripes)(nil)

// NewStripes returns a router. Maps returns the newest map seen, nil if there
// is none. Dial returns a host as a coordinator (Hosts.Stripes) and must not
// block. Zone may be empty.
func NewStripes(maps func() *topology.Map, dial func(ashlar.HostID) (wire.Stripes, error), zone string) *Stripes {
	return &Stripes{maps: maps, dial: dial, zone: zone}
}

// homes returns the map and the hosts to try, best first.
func (s *Stripes) homes(op string, bucket ashlar.BucketID, key string, part uint32) (*topology.Map, []ashlar.HostID, error) {
	m := s.maps()
	if !m.Formed() {
		return nil, nil, ashlar.E(op, "", ashlar.Unavailable, errors.New("the cluster is not formed yet"))
	}
	_, g := m.Group(ashlar.NewStripeID(bucket, key, part, 0, 0))
	var near, far []ashlar.HostID
	for _, n := range g.Disks {
		if int(n) >= len(m.Disks) {
			continue
		}
		h := m.Host(m.Disks[n].Host)
		if h == nil || h.State != topology.HostUp || slices.Contains(near, h.ID) || slices.Contains(far, h.ID) {
			continue
		}
		if h.Zone == s.zone {
			near = append(near, h.ID)
		} else {
			far = append(far, h.ID)
		}
	}
	all := append(near, far...)
	if len(all) == 0 {
		return nil, nil, ashlar.E(op, "", ashlar.Unavailable, errors.New("no host of the home group is up"))
	}
	return m, all[:min(len(all), attemptsMax)], nil
}

// try calls f with one host after another until one is available.
func (s *Stripes) try(ctx context.Context, kind wire.StepKind, hosts []ashlar.HostID, again func() bool, f func(wire.Stripes) error) error {
	var err error
	for i, id := range hosts {
		var host wire.Stripes
		if host, err = s.dial(id); err == nil {
			tell := wire.RecorderOf(ctx).Begin(wire.Step{Kind: kind, Host: id})
			err = f(host)
			tell.End(err)
		}
		if kind := ashlar.KindOf(err); err == nil || kind != ashlar.Unavailable && kind != ashlar.Busy {
			return err
		}
		if ctx.Err() != nil || i+1 < len(hosts) && !again() {
			return err
		}
	}
	return err
}

func always() bool { return true }

// WriteStripes implements wire.Stripes.
func (s *Stripes) WriteStripes(ctx context.Context, req wire.WriteRequest, body io.Reader) (ashlar.Extent, error) {
	var ext ashlar.Extent
	m, hosts, err := s.homes("client: write", req.Bucket, req.Key, req.Part)
	if err != nil {
		return ext, err
	}
	req.Epoch = m.Epoch
	// The beginning is read before anything is asked of a host: whoever sends a body
	// a byte at a time costs the hosts nothing, and another host can be given it too.
	begin := beginnings.Get().(*[replayMax + 1]byte)
	defer beginnings.Put(begin)
	want, short := replayMax, req.Bytes >= 0 && req.Bytes <= replayMax
	if short {
		want = int(req.Bytes) + 1 // one byte more than announced, to see the body's end and its verdict
	}
	n, end := fill(begin[:want], body)
	if end != nil && end != io.EOF {
		return ext, end
	}
	from := &touched{begin: begin[:n], rest: body, whole: short || end == io.EOF}
	err = s.try(ctx, wire.StepBody, hosts, from.rewind, func(host wire.Stripes) (err error) {
		ext, err = host.WriteStripes(ctx, req, from.reader())
		return err
	})
	return ext, err
}

// beginnings recycles the memory for what is read first of a body.
var beginnings = sync.Pool{New: func() any { return new([replayMax + 1]byte) }}

// fill reads until dst is full or the body ends, and returns the body's own
// error. (io.ReadFull has one error for a body that is short and one that says
// so itself.)
func fill(dst []byte, body io.Reader) (n int, err error) {
	for empty := 0; n < len(dst) && err == nil; empty++ {
		var got int
		if got, err = body.Read(dst[n:]); got > 0 {
			empty = 0
		}
		if n += got; empty == emptyReadsMax {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

// emptyReadsMax is how often a body may return nothing without an error.
const emptyReadsMax = 100

// touched is a body whose beginning was read, and that knows whether somebody
// has gone on from there.
type touched struct {
	begin []byte
	rest  io.Reader
	whole bool // begin is all there is
	read  bool
}

func (t *touched) reader() io.Reader {
	if t.whole {
		return bytes.NewReader(t.begin)
	}
	return io.MultiReader(bytes.NewReader(t.begin), t)
}

// rewind reports whether another host can be given the body.
func (t *touched) rewind() bool { return !t.read }

// Read reads what follows the beginning.
func (t *touched) Read(p []byte) (int, error) {
	t.read = true
	return t.rest.Read(p)
}

// DeleteStripes implements wire.Stripes.
func (s *Stripes) DeleteStripes(ctx context.Context, bucket ashlar.BucketID, key string, extents []ashlar.Extent) error {
	if len(extents) == 0 {
		return nil
	}
	_, hosts, err := s.homes("client: delete", bucket, key, extents[0].Part)
	if err != nil {
		return err
	}
	return s.try(ctx, wire.StepDelete, hosts, always, func(host wire.Stripes) error {
		return host.DeleteStripes(ctx, bucket, key, extents)
	})
}
