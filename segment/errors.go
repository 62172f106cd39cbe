package segment

import (
	"errors"
	"fmt"

	"ashlar"
)

// CorruptError says where bytes were read that are not those that were
// written. It is the cause inside an error of kind Corrupt.
type CorruptError struct {
	Disk ashlar.DiskID
	Key  Key
	// Segment is the number of the segment, Offset the place on the device of
	// the cell that failed, in bytes.
	Segment int
	Offset  int64
	// Want is the stored checksum, Got that of the bytes read.
	Want, Got uint32
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corrupt cell: disk=%s stripe=%s piece=%d seg=%d off=%#x want=%08x got=%08x",
		e.Disk, e.Key.Stripe, e.Key.Piece, e.Segment, e.Offset, e.Want, e.Got)
}

func (k Key) String() string { return fmt.Sprintf("stripe=%s piece=%d", k.Stripe, k.Piece) }

// fail wraps a cause with the operation, this disk and a detail.
func (l *Log) fail(op string, detail any, kind ashlar.Kind, cause error) error {
	return ashlar.E("segment: "+op, fmt.Sprintf("disk=%s %v", l.opt.Disk, detail), kind, cause)
}

func (l *Log) wrapIndex(op string, detail any, err error) error {
	var known *ashlar.Error
	if err == nil || errors.As(err, &known) {
		return err // nil, or it has its place already
	}
	return l.fail(op, detail, ashlar.Internal, fmt.Errorf("index: %w", err))
}
