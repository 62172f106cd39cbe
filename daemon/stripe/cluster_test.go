package stripe

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
)

// fault is what a test makes a disk do.
type fault struct {
	dead    bool          // every call fails
	hang    bool          // every call waits for its deadline
	delay   time.Duration // every read comes late
	full    bool          // puts fail
	corrupt bool          // reads say so
	stale   bool          // every call says so
	failPut func(index uint8) bool
}

// memDisk holds pieces in memory and misbehaves on request.
type memDisk struct {
	mu     sync.Mutex
	fault  fault
	pieces map[wire.PieceID][]byte
	reads  atomic.Int64
}

// memHost is a test double of a host's disks; the cluster of them keeps the
// promises of wire.Pieces as far as the faults allow.
type memHost struct {
	disks map[ashlar.DiskID]*memDisk
}

func (d *memDisk) set(f fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

func (h *memHost) enter(ctx context.Context, id ashlar.DiskID) (*memDisk, fault, error) {
	d := h.disks[id]
	if d == nil {
		return nil, fault{}, ashlar.E("mem", id.String(), ashlar.NotFound, nil)
	}
	d.mu.Lock()
	f := d.fault
	d.mu.Unlock()
	switch {
	case f.hang:
		<-ctx.Done()
		return nil, f, ashlar.E("mem", id.String(), ashlar.Unavailable, ctx.Err())
	case f.dead:
		return nil, f, ashlar.E("mem", id.String(), ashlar.Unavailable, errors.New("dead"))
	case f.stale:
		return nil, f, ashlar.E("mem", id.String(), ashlar.Stale, nil)
	}
	return d, f, nil
}

func (h *memHost) PutPiece(ctx context.Context, p *wire.Piece) error {
	d, f, err := h.enter(ctx, p.Disk)
	if err != nil {
		return err
	}
	if f.full {
		return ashlar.E("mem", p.Disk.String(), ashlar.Full, nil)
	}
	if f.failPut != nil && f.failPut(p.Index) {
		return ashlar.E("mem", p.Disk.String(), ashlar.Unavailable, errors.New("put failed"))
	}
	if crc32.Checksum(p.Data, crc32.MakeTable(crc32.Castagnoli)) != p.Sum {
		return ashlar.E("mem", p.Disk.String(), ashlar.Corrupt, errors.New("sum differs"))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pieces[p.PieceID] = append([]byte(nil), p.Data...)
	return nil
}

func (h *memHost) GetPiece(ctx context.Context, r wire.PieceRange, dst []byte) error {
	d, f, err := h.enter(ctx, r.Disk)
	if err != nil {
		return err
	}
	d.reads.Add(1)
	if f.delay > 0 {
		select {
		case <-time.After(f.delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.pieces[r.PieceID]
	switch {
	case !ok:
		return ashlar.E("mem", r.Disk.String(), ashlar.NotFound, nil)
	case f.corrupt:
		for i := range dst { // the worst a bad disk can leave behind
			dst[i] = 0xBA
		}
		return ashlar.E("mem", r.Disk.String(), ashlar.Corrupt, nil)
	case int(r.Off)+len(dst) > len(b):
		return ashlar.E("mem", r.Disk.String(), ashlar.Invalid, fmt.Errorf("%d+%d of %d", r.Off, len(dst), len(b)))
	}
	copy(dst, b[r.Off:])
	return nil
}

func (h *memHost) DescribePiece(context.Context, wire.PieceRange) (wire.Piece, error) {
	return wire.Piece{}, ashlar.E("mem", "", ashlar.Invalid, errors.New("no disk of this cluster keeps headers"))
}

func (h *memHost) DeletePiece(ctx context.Context, disk ashlar.DiskID, _ ashlar.Epoch, id wire.PieceID) error {
	d, _, err := h.enter(ctx, disk)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.pieces, id)
	return nil
}

func (h *memHost) HasPieces(ctx context.Context, disk ashlar.DiskID, ids []wire.PieceID) ([]bool, error) {
	d, _, err := h.enter(ctx, disk)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]bool, len(ids))
	for i, id := range ids {
		_, out[i] = d.pieces[id]
	}
	return out, nil
}

// cluster is hosts of one disk each, one group over all of them in order.
type cluster struct {
	m     atomic.Pointer[topology.Map]
	hosts map[ashlar.HostID]*memHost
	disks []*memDisk
	c     *Coordinator
	mem   *Memory

	mu     sync.Mutex
	missed []Missed

	expected int // pieces that have been written in all
}

type option func(*topology.Settings, *Config)

func newCluster(t testing.TB, disks int, options ...option) *cluster {
	k := &cluster{hosts: map[ashlar.HostID]*memHost{}}
	m := &topology.Map{
		Epoch: 1,
		Settings: topology.Settings{
			Large: ashlar.Code{K: 8, M: 4}, Small: ashlar.Code{K: 1, M: 2},
			SmallMax: 128 * ashlar.KiB, StripeBytes: 4 * ashlar.MiB,
		},
		Shards: []topology.Shard{{}},
		Groups: []topology.Group{{Moved: 1}},
	}
	for i := range disks {
		id := ashlar.DiskID{byte(i + 1)}
		host := ashlar.HostID(i + 1)
		d := &memDisk{pieces: map[wire.PieceID][]byte{}}
		k.disks = append(k.disks, d)
		k.hosts[host] = &memHost{disks: map[ashlar.DiskID]*memDisk{id: d}}
		m.Hosts = append(m.Hosts, topology.Host{ID: host, Zone: fmt.Sprint("z", i%3)})
		m.Disks = append(m.Disks, topology.Disk{ID: id, Host: host})
		m.Groups[0].Disks = append(m.Groups[0].Disks, topology.DiskNum(i))
	}
	pool := buffer.NewPool()
	k.mem = NewMemory(pool, 128*ashlar.MiB)
	cfg := Config{
		Local: 1, Maps: k.m.Load, Memory: k.mem,
		Dial: func(h ashlar.HostID) (wire.Pieces, error) {
			if host := k.hosts[h]; host != nil {
				return host, nil
			}
			return nil, errors.New("no such host")
		},
		Missed: func(m Missed) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.missed = append(k.missed, m)
		},
		PieceTimeout: 30 * time.Second, ReadTimeout: 30 * time.Second, DeleteTimeout: 30 * time.Second,
	}
	for _, o := range options {
		o(&m.Settings, &cfg)
	}
	k.m.Store(m)
	k.c = New(cfg)
	t.Cleanup(func() {
		k.close()
		if w, r, b := cfg.Memory.Write.Used(), cfg.Memory.Read.Used(), cfg.Memory.Rebuild.Used(); w+r+b != 0 {
			t.Errorf("buffers leaked: write %d, read %d, rebuild %d bytes", w, r, b)
		}
		pool.Close()
	})
	return k
}

// close waits for the background and for reads that were cancelled.
func (k *cluster) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	k.c.Close(ctx)
	for ctx.Err() == nil && k.c.cfg.Memory.Read.Used()+k.c.cfg.Memory.Rebuild.Used() > 0 {
		time.Sleep(time.Millisecond)
	}
}

// stored counts the pieces on all disks.
func (k *cluster) stored() (n int) {
	for _, d := range k.disks {
		d.mu.Lock()
		n += len(d.pieces)
		d.mu.Unlock()
	}
	return n
}

// settled waits until the last of n pieces is stored.
func (k *cluster) settled(t testing.TB, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); k.stored() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d pieces stored, want %d", k.stored(), n)
		}
	}
}

// edit publishes a changed map.
func (k *cluster) edit(f func(*topology.Map)) {
	m := k.m.Load().Clone()
	m.Epoch++
	f(m)
	k.m.Store(m)
}

func codes(large, small ashlar.Code) option {
	return func(s *topology.Settings, _ *Config) { s.Large, s.Small = large, small }
}
