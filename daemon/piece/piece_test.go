package piece

import (
	"bytes"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
	"ashlar/segment"
	"ashlar/segment/simdev"
)

var disk = ashlar.DiskID{1}

// newLog opens a real log on a simulated device.
func newLog(t *testing.T, dev *simdev.Device, index string) *segment.Log {
	t.Helper()
	log, err := segment.Open(t.Context(), dev, segment.Options{Disk: disk, IndexDir: index, SegmentBytes: 8 * ashlar.MiB, IOTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

func newStore(t *testing.T) (*Store, *simdev.Device, *atomic.Pointer[topology.Map]) {
	t.Helper()
	dev := simdev.New(64*ashlar.MiB, 4096, 1)
	t.Cleanup(dev.Clear)
	var m atomic.Pointer[topology.Map]
	m.Store(&topology.Map{Epoch: 5, Groups: []topology.Group{{Moved: 3}}, Shards: []topology.Shard{{}}})
	s := NewStore(m.Load)
	s.Add(disk, newLog(t, dev, t.TempDir()))
	return s, dev, &m
}

func aPiece(index uint8, n int) *wire.Piece {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{index}).Read(data)
	return &wire.Piece{
		PieceID: wire.PieceID{Stripe: ashlar.StripeID{9}, Index: index}, Disk: disk, Epoch: 3,
		Code: ashlar.Code{K: 8, M: 4}, StripeBytes: uint32(8 * n), Owner: ashlar.Owner{Key: "k"}, Written: time.Unix(1, 2), Data: data,
	}
}

func (s *Store) get(t *testing.T, p *wire.Piece, off, n int, epoch ashlar.Epoch) ([]byte, error) {
	dst := make([]byte, n)
	err := s.GetPiece(t.Context(), wire.PieceRange{PieceID: p.PieceID, Disk: p.Disk, Epoch: epoch, Off: uint32(off)}, dst)
	return dst, err
}

func TestPieceComesBack(t *testing.T) {
	s, _, _ := newStore(t)
	for i, n := range []int{1, 64, 100_000, ashlar.MiB} {
		p := aPiece(uint8(i), n)
		for range 2 { // putting again is not an error
			if err := s.PutPiece(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		got, err := s.get(t, p, n/3, n-n/3, 3)
		if err != nil || !bytes.Equal(got, p.Data[n/3:]) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		told, err := s.DescribePiece(t.Context(), wire.PieceRange{PieceID: p.PieceID, Disk: p.Disk, Epoch: 3})
		if err != nil || told.Owner != p.Owner || told.Code != p.Code || told.StripeBytes != p.StripeBytes || !told.Written.Equal(p.Written) {
			t.Errorf("%+v, %v", told, err)
		}
		if _, err := s.get(t, p, 1, n, 3); !ashlar.Is(err, ashlar.Invalid) {
			t.Errorf("beyond the piece: %v", err)
		}
	}
	ids := []wire.PieceID{{Stripe: ashlar.StripeID{9}, Index: 2}, {Stripe: ashlar.StripeID{9}, Index: 7}}
	for range 2 {
		if err := s.DeletePiece(t.Context(), disk, 3, ids[0]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.get(t, aPiece(2, 1), 0, 1, 3); !ashlar.Is(err, ashlar.NotFound) {
		t.Errorf("a deleted piece: %v", err)
	}
	ids[1].Index = 1
	if has, err := s.HasPieces(t.Context(), disk, ids); err != nil || has[0] || !has[1] {
		t.Errorf("has: %v, %v", has, err)
	}
}

func TestOldEpochsAreStale(t *testing.T) {
	s, _, m := newStore(t)
	p := aPiece(1, 100)
	if err := s.PutPiece(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	next := m.Load().Clone()
	next.Epoch, next.Groups[0].Moved = 6, 6
	m.Store(next)
	_, errGet := s.get(t, p, 0, 10, 5)
	for what, err := range map[string]error{
		"put": s.PutPiece(t.Context(), p), "get": errGet, "delete": s.DeletePiece(t.Context(), disk, 5, p.PieceID),
	} {
		if !ashlar.Is(err, ashlar.Stale) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.get(t, p, 0, 10, 6); err != nil {
		t.Errorf("with the epoch of the move: %v", err)
	}
	m.Store(nil)
	if err := s.PutPiece(t.Context(), p); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("without a map: %v", err)
	}
}

func TestDisksComeAndGo(t *testing.T) {
	s, dev, _ := newStore(t)
	p := aPiece(1, 100_000)
	if err := s.PutPiece(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	dev.Kill()
	if err := s.PutPiece(t.Context(), aPiece(2, 100)); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("put to a dead disk: %v", err)
	}
	s.Remove(disk)
	if _, err := s.get(t, p, 0, 1, 3); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("get from a removed disk: %v", err)
	}
	dev.Revive()
	s.Add(disk, newLog(t, dev, t.TempDir())) // the index is lost, the log is the truth
	if got, err := s.get(t, p, 0, len(p.Data), 3); err != nil || !bytes.Equal(got, p.Data) {
		t.Errorf("after the revival: %v", err)
	}
	p.Disk = ashlar.DiskID{2}
	if err := s.PutPiece(t.Context(), p); !ashlar.Is(err, ashlar.NotFound) {
		t.Errorf("a disk of another host: %v", err)
	}
}

func TestRotIsCorrupt(t *testing.T) {
	s, dev, _ := newStore(t)
	p := aPiece(1, ashlar.MiB)
	if err := s.PutPiece(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	dev.Rot(0, 64*ashlar.MiB, true)
	if _, err := s.get(t, p, 500_000, 1000, 3); !ashlar.Is(err, ashlar.Corrupt) {
		t.Errorf("got %v", err)
	}
}
