package stripe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/buffer"
	"ashlar/daemon/piece"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
	"ashlar/segment"
	"ashlar/segment/simdev"
)

// rig is a cluster of real logs on simulated devices, one for each host.
type rig struct {
	m      *topology.Map
	devs   []*simdev.Device
	logs   []*segment.Log
	stores []*piece.Store
	dir    string
	cfg    Config
}

func newRig(t *testing.T, disks int) *rig {
	r := &rig{dir: t.TempDir()}
	r.m = &topology.Map{
		Epoch:  1,
		Groups: []topology.Group{{Moved: 1}}, Shards: []topology.Shard{{}},
		Settings: topology.Settings{
			Large: ashlar.Code{K: 4, M: 2}, Small: ashlar.Code{K: 1, M: 2},
			SmallMax: 16 * ashlar.KiB, StripeBytes: ashlar.MiB,
		},
	}
	for i := range disks {
		r.m.Hosts = append(r.m.Hosts, topology.Host{ID: ashlar.HostID(i + 1)})
		r.m.Disks = append(r.m.Disks, topology.Disk{ID: ashlar.DiskID{byte(i + 1)}, Host: ashlar.HostID(i + 1)})
		r.m.Groups[0].Disks = append(r.m.Groups[0].Disks, topology.DiskNum(i))
		dev := simdev.New(96*ashlar.MiB, 4096, uint64(i))
		t.Cleanup(dev.Clear)
		r.devs = append(r.devs, dev)
		r.logs = append(r.logs, nil)
		r.stores = append(r.stores, piece.NewStore(func() *topology.Map { return r.m }))
		r.open(t, i, 0)
	}
	pool := buffer.NewPool()
	t.Cleanup(pool.Close)
	r.cfg = Config{
		Local: 1, Maps: func() *topology.Map { return r.m }, Memory: NewMemory(pool, 64*ashlar.MiB),
		Dial:         func(h ashlar.HostID) (wire.Pieces, error) { return r.stores[h-1], nil },
		PieceTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, DeleteTimeout: 5 * time.Second,
	}
	return r
}

// open recovers disk i from its device; another life has another, empty index.
func (r *rig) open(t *testing.T, i, life int) {
	t.Helper()
	log, err := segment.Open(context.Background(), r.devs[i], segment.Options{
		Disk: ashlar.DiskID{byte(i + 1)}, IndexDir: filepath.Join(r.dir, fmt.Sprint(i, "-", life)),
		Writers: 2, IOTimeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.logs[i] = log
	r.stores[i].Add(ashlar.DiskID{byte(i + 1)}, log)
	t.Cleanup(func() { log.Close() })
}

type stored struct {
	key  string
	data []byte
	ext  ashlar.Extent
}

// TestAcknowledgedSurvivesDeathAndPowerCuts writes from several clients while
// one disk dies for good and later the power of all fails at one instant. Every
// other disk is recovered without its index, and all that was acknowledged is
// read back.
func TestAcknowledgedSurvivesDeathAndPowerCuts(t *testing.T) {
	r := newRig(t, 6)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := New(r.cfg)
	var mu sync.Mutex
	var acked []stored
	refused := 0
	var wg sync.WaitGroup
	for client := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(client)))
			for n := range 12 {
				key := fmt.Sprint("c", client, "-", n)
				data := randomBytes(1+rnd.IntN(3_000_000)>>rnd.IntN(10), rnd.Uint64())
				switch {
				case client == 0 && n == 4:
					r.devs[5].Kill() // one piece of each stripe fails from here on
				case client == 1 && n == 9:
					for _, d := range r.devs { // what was not flushed is lost or torn
						d.Kill()
					}
				}
				ext, err := c.WriteStripes(context.Background(), wire.WriteRequest{Key: key, Bytes: int64(len(data))}, bytes.NewReader(data))
				mu.Lock()
				if err == nil {
					acked = append(acked, stored{key, data, ext})
				} else if refused++; !ashlar.Is(err, ashlar.Unavailable) {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c.Close(ctx)
	for i, l := range r.logs {
		r.stores[i].Remove(ashlar.DiskID{byte(i + 1)})
		l.Close()
		r.devs[i].Revive()
		if i != 5 { // stays away
			r.open(t, i, 1)
		}
	}
	c = New(r.cfg)
	defer c.Close(ctx)
	lost := verify(t, c, acked)
	t.Logf("%d acknowledged, %d refused, %d lost or changed", len(acked), refused, lost)
	if len(acked) < 9 || lost > 0 {
		t.Fail()
	}
}

func verify(t *testing.T, c *Coordinator, acked []stored) (lost int) {
	for _, o := range acked {
		body, err := c.ReadStripes(context.Background(), wire.ReadRequest{Key: o.key, Extents: []ashlar.Extent{o.ext}, Length: o.ext.Bytes})
		if err == nil {
			var b bytes.Buffer
			if _, err = b.ReadFrom(body); err == nil && !bytes.Equal(b.Bytes(), o.data) {
				err = errors.New("wrong bytes")
			}
			body.Close()
		}
		if err != nil {
			t.Errorf("%s, %d bytes: %v", o.key, len(o.data), err)
			lost++
		}
	}
	return lost
}

// TestRotIsReadAround turns pages of two disks to zeros: every read is right.
func TestRotIsReadAround(t *testing.T) {
	r := newRig(t, 6)
	c := New(r.cfg)
	var acked []stored
	for n := range 8 {
		data := randomBytes(500_000+n*100_001, uint64(n))
		ext, err := c.WriteStripes(t.Context(), wire.WriteRequest{Key: fmt.Sprint(n), Bytes: int64(len(data))}, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		acked = append(acked, stored{fmt.Sprint(n), data, ext})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c.Close(ctx) // all pieces have landed
	for _, i := range []int{0, 4} {
		r.devs[i].Rot(0, r.devs[i].Bytes(), true)
	}
	c = New(r.cfg)
	defer c.Close(ctx)
	if lost := verify(t, c, acked); lost > 0 {
		t.Fatalf("%d of %d lost", lost, len(acked))
	}
}
