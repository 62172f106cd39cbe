package faultdisk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ashlar"
	"ashlar/diskmgr"
	"ashlar/segment"
	"ashlar/tools/faultdisk"
)

const (
	stackBytes        = 128 * ashlar.MiB
	stackSegmentBytes = 4 * ashlar.MiB
	stackWriters      = 2
)

var stackCluster = ashlar.ClusterID{0xfa, 1}

// stack is what a daemon has on one disk: the claimed device and its log.
type stack struct {
	*testing.T
	dev   *faultdisk.Disk
	index string
	// ioTimeout is that of the log.
	ioTimeout time.Duration
	writers   int
	disk      *diskmgr.Disk
	log       *segment.Log
}

// newStack claims the device and opens its log.
func newStack(t *testing.T, dev *faultdisk.Disk) *stack {
	t.Helper()
	s := &stack{T: t, dev: dev, index: indexDir(t), ioTimeout: 10 * time.Second, writers: stackWriters}
	var err error
	s.disk, err = diskmgr.Claim(t.Context(), dev.Path(), diskmgr.ClaimOptions{
		OpenOptions: diskmgr.OpenOptions{Cluster: stackCluster}, ClusterName: "test", Name: "h/d01", SegmentBytes: stackSegmentBytes,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Clear(); s.close() })
	if err := s.openLog(); err != nil {
		t.Fatal(err)
	}
	return s
}

// indexDir is a directory for an index, in memory where that can be had: what
// the index flushes is not what is tested here, and the machine's disk is slow.
func indexDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "faultdisk")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "index")
}

func newDisk(t *testing.T, seed uint64) *faultdisk.Disk {
	t.Helper()
	return faultdisk.New(t, faultdisk.Options{Disks: 1, Bytes: stackBytes, Seed: seed}).Disk(0)
}

// open takes hold of the disk and recovers its log.
func (s *stack) open() error {
	disk, err := diskmgr.Open(s.dev.Path(), diskmgr.OpenOptions{Cluster: stackCluster})
	if err != nil {
		return err
	}
	s.disk = disk
	if err := s.openLog(); err != nil {
		s.close()
		return err
	}
	return nil
}

func (s *stack) openLog() error {
	l := s.disk.Label()
	log, err := segment.Open(s.Context(), s.disk.Device(), segment.Options{
		Disk: l.Disk, IndexDir: s.index, SegmentBytes: l.Geometry.SegmentBytes, Writers: s.writers, IOTimeout: s.ioTimeout,
	})
	if err == nil {
		s.log = log
	}
	return err
}

// close lets go of all that is open. Errors are those of a device that failed.
func (s *stack) close() error {
	var err error
	if s.log != nil {
		err = s.log.Close()
	}
	if s.disk != nil {
		err = errors.Join(err, s.disk.Close())
	}
	s.log, s.disk = nil, nil
	return err
}

func (s *stack) reopen() {
	s.Helper()
	s.close()
	if err := s.open(); err != nil {
		s.Fatal(err)
	}
}

// loseIndex opens the disk again without what is only a cache.
func (s *stack) loseIndex() {
	s.Helper()
	s.close()
	s.dev.PowerOn()
	if err := os.RemoveAll(s.index); err != nil {
		s.Fatal(err)
	}
	s.reopen()
}

// blackout cuts the power and opens again what the cut left.
func (s *stack) blackout() {
	s.Helper()
	s.dev.PowerCut(512)
	s.close()
	s.dev.Clear()
	s.dev.PowerOn()
	if err := s.open(); err != nil {
		s.Fatal(err)
	}
}

// record is that version of the key: all of it follows from the two numbers.
func record(key, version uint64, size int) *segment.Record {
	r := &segment.Record{
		Group: ashlar.GroupID(key), Code: ashlar.Code{K: 8, M: 4}, StripeBytes: uint32(size),
		Owner: ashlar.Owner{Bucket: ashlar.BucketID{7}, Key: "a/key"}, Written: time.Unix(0, int64(version)), Data: make([]byte, size),
	}
	binary.BigEndian.PutUint64(r.Stripe[8:], key)
	r.Piece = uint8(key % 12)
	rng := rand.New(rand.NewPCG(key, version))
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(r.Data[i:], rng.Uint64())
	}
	return r
}

func (s *stack) put(key, version uint64, size int) *segment.Record {
	s.Helper()
	r := record(key, version, size)
	if err := s.log.Append(s.Context(), r); err != nil {
		s.Fatal(err)
	}
	return r
}

// read gives the bytes of the piece as the log reads them.
func (s *stack) read(r *segment.Record) ([]byte, error) {
	got := make([]byte, len(r.Data))
	return got, s.log.ReadAt(s.Context(), r.Key, got, 0)
}

// want is that the record is there with its bytes.
func (s *stack) want(records ...*segment.Record) {
	s.Helper()
	for _, r := range records {
		if got, err := s.read(r); err != nil || !bytes.Equal(got, r.Data) {
			s.Fatalf("%v: %v; bytes as written: %v", r.Key, err, bytes.Equal(got, r.Data))
		}
	}
}

// wantKind is that reading the record is an error of that kind.
func (s *stack) wantKind(kind ashlar.Kind, r *segment.Record) error {
	s.Helper()
	_, err := s.read(r)
	if !ashlar.Is(err, kind) {
		s.Fatalf("%v: %v, want kind %v", r.Key, err, kind)
	}
	return err
}

// place finds the record's data on the disk, by the first bytes of its data,
// and returns the offset on the device.
func (s *stack) place(r *segment.Record) int64 {
	s.Helper()
	medium := s.dev.Medium(0, s.dev.Bytes())
	at := bytes.Index(medium, r.Data[:32])
	if at < 0 || bytes.Contains(medium[at+1:], r.Data[:32]) {
		s.Fatalf("%v: not once on the medium", r.Key)
	}
	return int64(at)
}
