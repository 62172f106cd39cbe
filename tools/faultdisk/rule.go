package faultdisk

import (
	"fmt"
	"time"
)

// Op is what a rule applies to.
type Op uint8

// The operations; a rule may name several.
const (
	Read Op = 1 << iota
	Write
	Flush
)

func (o Op) String() string {
	return [...]string{Read: "read", Write: "write", Flush: "flush"}[o]
}

// Fault is what a rule does.
type Fault uint8

// The faults; the package comment says what each does.
const (
	EIO Fault = iota + 1
	ENOSPC
	Delay
	Hang
	Lost
	Misdirected
	Short
	Torn
	Flip
	Lie
	Cut
)

var faultNames = [...]string{
	EIO: "EIO", ENOSPC: "ENOSPC", Delay: "delay", Hang: "hang", Lost: "lost", Misdirected: "misdirected",
	Short: "short", Torn: "torn", Flip: "flip", Lie: "lie", Cut: "cut",
}

func (f Fault) String() string { return faultNames[f] }

// applies tells which operations a fault can be done to.
func (f Fault) applies() Op {
	switch f {
	case EIO, Delay, Hang, Cut:
		return Read | Write | Flush
	case Flip:
		return Read
	case Lie:
		return Flush
	}
	return Write
}

// Rule injects a fault into calls.
type Rule struct {
	// Ops are the operations that it applies to; 0 is all that the fault can
	// be done to.
	Ops   Op
	Fault Fault
	// From and To bound the bytes of the disk that are hit; To 0 is no bound.
	// Flushes have no place, so bounds do not apply to them.
	From, To int64
	// Skip calls that match are let through first, then Count are hit; 0 is all.
	Skip, Count int
	// Chance from 0 to 1 that a matching call is hit; 0 is always.
	Chance float64
	// Delay is how long a call is held up by the fault of that name.
	Delay time.Duration
	// Shift is how far a misdirected write lands from where it belongs, in bytes.
	Shift int64

	seen, hit int
}

func (r *Rule) matches(op Op, off, length int64) bool {
	if r.Ops&op == 0 || r.Count > 0 && r.hit >= r.Count {
		return false
	}
	return op == Flush || off+length > r.From && (r.To == 0 || off < r.To)
}

// Event is a fault that fired, or what a test did to the disk by hand.
type Event struct {
	Time time.Time
	Disk int
	// What is the name of the fault, or of the method that was called.
	What string
	// Op, Off and Bytes are the call that was hit; zero for a method.
	Op         Op
	Off, Bytes int64
}

func (e Event) String() string {
	s := fmt.Sprintf("%s disk %d: %s", e.Time.Format("15:04:05.000000"), e.Disk, e.What)
	if e.Op != 0 {
		s += fmt.Sprintf(" on %v of %d bytes at %d", e.Op, e.Bytes, e.Off)
	}
	return s
}

// Counts tells what a disk was asked and how often each fault fired.
type Counts struct {
	Reads, Writes, Flushes, Discards int
	BytesRead, BytesWritten          int64
	Faults                           map[Fault]int
}
