// Package piece is this host's disks as coordinators see them: it finds the log
// of the disk that a request names and puts, gets and deletes one piece there.
//
// It adds two things to a log. The set of disks changes while the host runs (a
// disk fails and is fenced, is revived, is claimed), and a request about a disk
// that is not here must say so at once. And a request whose sender has not seen
// that the group was moved is refused as Stale: only so can a disk that left a
// group be sure that no newer piece of it is written there, and its reader that
// it looks where the piece is.
//
//	request {disk, epoch, stripe} ──► epoch ≥ group.Moved? ──► log of the disk
//
// Bytes come back verified: the log checks every cell that it reads. Bytes that
// came over a network were verified by the wire when they arrived.
package piece

import (
	"context"
	"fmt"
	"sync"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
	"ashlar/segment"
)

// Log is what the store needs of the log on a disk; *segment.Log has it.
type Log interface {
	// Append returns nil when the record is durable. It borrows Data.
	Append(ctx context.Context, rec *segment.Record) error
	// ReadAt fills dst with verified bytes of the piece from off on.
	ReadAt(ctx context.Context, key segment.Key, dst []byte, off int64) error
	// Delete returns nil when the absence is durable.
	Delete(ctx context.Context, key segment.Key) error
	Has(key segment.Key) bool
	// Describe returns the record without its data, read from the device.
	Describe(ctx context.Context, key segment.Key) (segment.Record, error)
}

// Store is the disks of one host. It implements wire.Pieces and is safe for
// concurrent use.
type Store struct {
	maps func() *topology.Map
	// Stored, if set before the store is used, is told of every piece that a disk
	// took. It must not block, and may not keep Data.
	Stored func(*wire.Piece)

	mu    sync.RWMutex
	disks map[ashlar.DiskID]Log // nil: known, but not serving
}

var _ wire.Pieces = (*Store)(nil)

// NewStore returns a store without disks. Maps returns the newest map seen, nil
// if there is none yet.
func NewStore(maps func() *topology.Map) *Store {
	return &Store{maps: maps, disks: map[ashlar.DiskID]Log{}}
}

// Add makes the store serve the disk from the log, in place of the one before.
func (s *Store) Add(id ashlar.DiskID, log Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disks[id] = log
}

// Remove stops serving the disk: requests that come later are Unavailable.
// Requests under way go on; closing the log ends them.
func (s *Store) Remove(id ashlar.DiskID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.disks[id]; ok {
		s.disks[id] = nil
	}
}

func (s *Store) disk(op string, id ashlar.DiskID) (Log, error) {
	s.mu.RLock()
	log, known := s.disks[id]
	s.mu.RUnlock()
	switch {
	case !known:
		return nil, ashlar.E(op, "disk="+id.String(), ashlar.NotFound, fmt.Errorf("the disk is not on this host"))
	case log == nil:
		return nil, ashlar.E(op, "disk="+id.String(), ashlar.Unavailable, fmt.Errorf("the disk is out of service"))
	}
	return log, nil
}

// enter refuses a request that was made under a map older than the one that
// moved the stripe's group, and finds the disk's log.
func (s *Store) enter(op string, disk ashlar.DiskID, epoch ashlar.Epoch, stripe ashlar.StripeID) (Log, error) {
	m := s.maps()
	if !m.Formed() {
		return nil, ashlar.E(op, "", ashlar.Unavailable, fmt.Errorf("this host has no map yet"))
	}
	if id, g := m.Group(stripe); epoch < g.Moved {
		return nil, ashlar.E(op, fmt.Sprintf("group=%d", id), ashlar.Stale,
			fmt.Errorf("the group moved at epoch %d, the request is of epoch %d", g.Moved, epoch))
	}
	return s.disk(op, disk)
}

// PutPiece implements wire.Pieces.
func (s *Store) PutPiece(ctx context.Context, p *wire.Piece) error {
	const op = "piece: put"
	log, err := s.enter(op, p.Disk, p.Epoch, p.Stripe)
	if err != nil {
		return err
	}
	err = log.Append(ctx, &segment.Record{
		Key:         key(p.PieceID),
		Group:       p.Group,
		Code:        p.Code,
		StripeBytes: p.StripeBytes,
		Owner:       p.Owner,
		Written:     p.Written,
		Data:        p.Data,
	})
	if err == nil && s.Stored != nil {
		s.Stored(p)
	}
	return wrap(op, p.PieceID, err)
}

// GetPiece implements wire.Pieces.
func (s *Store) GetPiece(ctx context.Context, r wire.PieceRange, dst []byte) error {
	const op = "piece: get"
	log, err := s.enter(op, r.Disk, r.Epoch, r.Stripe)
	if err != nil {
		return err
	}
	return wrap(op, r.PieceID, log.ReadAt(ctx, key(r.PieceID), dst, int64(r.Off)))
}

// DescribePiece implements wire.Pieces.
func (s *Store) DescribePiece(ctx context.Context, r wire.PieceRange) (wire.Piece, error) {
	const op = "piece: describe"
	log, err := s.enter(op, r.Disk, r.Epoch, r.Stripe)
	if err != nil {
		return wire.Piece{}, err
	}
	rec, err := log.Describe(ctx, key(r.PieceID))
	if err != nil {
		return wire.Piece{}, wrap(op, r.PieceID, err)
	}
	return wire.Piece{
		PieceID: r.PieceID, Disk: r.Disk, Epoch: r.Epoch, Group: rec.Group, Code: rec.Code,
		StripeBytes: rec.StripeBytes, Owner: rec.Owner, Written: rec.Written,
	}, nil
}

// DeletePiece implements wire.Pieces.
func (s *Store) DeletePiece(ctx context.Context, disk ashlar.DiskID, epoch ashlar.Epoch, id wire.PieceID) error {
	const op = "piece: delete"
	log, err := s.enter(op, disk, epoch, id.Stripe)
	if err != nil {
		return err
	}
	return wrap(op, id, log.Delete(ctx, key(id)))
}

// HasPieces implements wire.Pieces.
func (s *Store) HasPieces(ctx context.Context, disk ashlar.DiskID, ids []wire.PieceID) ([]bool, error) {
	const op = "piece: has"
	log, err := s.disk(op, disk)
	if err != nil {
		return nil, err
	}
	has := make([]bool, len(ids))
	for i, id := range ids {
		if err := ctx.Err(); err != nil {
			return nil, ashlar.E(op, "disk="+disk.String(), ashlar.Unavailable, err)
		}
		has[i] = log.Has(key(id))
	}
	return has, nil
}

func key(id wire.PieceID) segment.Key { return segment.Key{Stripe: id.Stripe, Piece: id.Index} }

func wrap(op string, id wire.PieceID, err error) error {
	if err == nil {
		return nil
	}
	return ashlar.E(op, key(id).String(), ashlar.KindOf(err), err)
}
