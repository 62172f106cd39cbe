// Package wire is what one daemon answers to other processes: the requests,
// their encoding on HTTP/1.1 (bytes) and gRPC (small calls), and the handlers
// that decode them.
//
// Three interfaces name what a host does. The daemon implements them directly;
// daemon/client implements them over the network. In one process the daemon's
// own value is handed to the caller and no socket is involved.
//
//	Pieces    one host's disks: put, get, delete one piece
//	Stripes   the coordinator: a body in, an extent out, and back
//	Shards    the metadata shards whose replicas this host holds
//
// Every call carries the epoch of the caller's map and has a deadline. Every
// call is safe to repeat.
package wire

import (
	"context"
	"io"
	"time"

	"ashlar"
)

// PieceID names one piece of one stripe.
type PieceID struct {
	Stripe ashlar.StripeID
	Index  uint8
}

// Piece is a piece on its way to a disk.
type Piece struct {
	PieceID
	Disk  ashlar.DiskID
	Epoch ashlar.Epoch
	Group ashlar.GroupID
	Code  ashlar.Code
	// StripeBytes is the length of the stripe's user data.
	StripeBytes uint32
	Owner       ashlar.Owner
	Written     time.Time
	// Data is borrowed: the callee may not keep it after it returns.
	Data []byte
	// Sum is the CRC-32C of Data, computed where the piece was made. Whoever
	// takes Data off a network verifies it.
	Sum uint32
}

// PieceRange asks for bytes of one piece.
type PieceRange struct {
	PieceID
	Disk  ashlar.DiskID
	Epoch ashlar.Epoch
	// Off is the first byte of the piece that is wanted; the length is that of
	// the destination.
	Off uint32
}

// Pieces is what a host's disks do for a coordinator.
type Pieces interface {
	// PutPiece returns nil when the piece is durable. Putting the same piece
	// again is not an error. Kinds: Full, Stale (epoch), NotFound (disk),
	// Unavailable (disk failed), Corrupt (the bytes changed on the way).
	PutPiece(ctx context.Context, p *Piece) error
	// GetPiece fills dst with verified bytes. Kinds: NotFound (disk or piece),
	// Corrupt, Stale, Unavailable, Invalid (range beyond the piece).
	GetPiece(ctx context.Context, r PieceRange, dst []byte) error
	// DescribePiece returns what the disk keeps about a piece besides its bytes,
	// read from the record's header: Data is nil and Sum 0. The range's Off means
	// nothing. Kinds: NotFound, Corrupt (the header is damaged; the bytes may be
	// right), Stale, Unavailable; Invalid from a host that does not know the call.
	DescribePiece(ctx context.Context, r PieceRange) (Piece, error)
	// DeletePiece makes the piece's absence durable. Deleting an absent piece
	// is not an error.
	DeletePiece(ctx context.Context, disk ashlar.DiskID, epoch ashlar.Epoch, id PieceID) error
	// HasPieces reports for each id whether the disk holds the piece.
	HasPieces(ctx context.Context, disk ashlar.DiskID, ids []PieceID) ([]bool, error)
}

// WriteRequest describes an upload of one object or part.
type WriteRequest struct {
	Bucket ashlar.BucketID
	Key    string
	Part   uint32
	// Bytes is the length of the body, or -1 if it is not known.
	Bytes int64
	Epoch ashlar.Epoch
}

// BriefBytesMax is the length up to which a body is complete when it is sent: the
// caller of WriteStripes reads it first.
const BriefBytesMax = 64 * ashlar.KiB

// Interrupter is a body whose Read can be ended from elsewhere: a Read under way
// and every later one fails soon.
type Interrupter interface{ Interrupt() }

// ReadRequest asks for bytes of an object: the concatenation of its extents.
type ReadRequest struct {
	Bucket  ashlar.BucketID
	Key     string
	Extents []ashlar.Extent
	// Off and Length select bytes of the concatenation; they must lie within it.
	Off, Length uint64
	Epoch       ashlar.Epoch
}

// Stripes is what a host does as the coordinator of bodies.
type Stripes interface {
	// WriteStripes stores the body and returns its extent when every stripe has
	// a quorum of durable pieces. If reading the body fails, its error is
	// returned and what was stored is removed in the background. A body that is
	// shorter or longer than Bytes is Invalid. Kinds besides: Full, Unavailable, Stale.
	WriteStripes(ctx context.Context, req WriteRequest, body io.Reader) (ashlar.Extent, error)
	// ReadStripes returns a stream of exactly Length verified bytes; a failure
	// in the middle is an error of Read, never a short stream. The caller
	// closes it. The first bytes are verified before it returns, so that an
	// unreadable object can still be answered with an error.
	ReadStripes(ctx context.Context, req ReadRequest) (io.ReadCloser, error)
	// DeleteStripes deletes the pieces of the extents wherever they are. It
	// returns nil only when every disk of their groups has confirmed.
	DeleteStripes(ctx context.Context, bucket ashlar.BucketID, key string, extents []ashlar.Extent) error
}
