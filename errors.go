package ashlar

import (
	"context"
	"errors"
	"fmt"
)

// Kind is the closed list of what can go wrong, as far as a caller can act on
// it. The numbers travel between processes: never reorder, only append.
type Kind uint8

const (
	// Internal is a bug or an unexpected failure below us. It is also the kind
	// of every error that carries none.
	Internal Kind = iota
	// NotFound: the named thing does not exist.
	NotFound
	// Exists: the named thing exists already.
	Exists
	// Corrupt: bytes were read that are not the bytes that were written.
	Corrupt
	// Stale: the caller's view (map epoch, row version, leadership) is out of
	// date; refresh it and decide again.
	Stale
	// Full: no space for new data; reads and deletes go on.
	Full
	// Busy: a bound was reached; the same call may succeed later.
	Busy
	// Unavailable: too few parts of the cluster answer now; nothing is lost.
	Unavailable
	// Denied: the caller may not do this.
	Denied
	// Invalid: the request is wrong and will be wrong again.
	Invalid
)

var kindNames = [...]string{
	Internal: "internal", NotFound: "not found", Exists: "exists", Corrupt: "corrupt", Stale: "stale",
	Full: "full", Busy: "busy", Unavailable: "unavailable", Denied: "denied", Invalid: "invalid",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Error says what failed (Op, for example "segment: append"), on what
// (Subject, for example "disk=3f2a seg=91"), of which kind, and why.
type Error struct {
	Op      string
	Subject string
	Kind    Kind
	Err     error
}

// E builds an Error. A nil cause is allowed: the kind then says it all.
func E(op, subject string, kind Kind, cause error) *Error {
	return &Error{Op: op, Subject: subject, Kind: kind, Err: cause}
}

func (e *Error) Error() string {
	s := e.Op
	if e.Subject != "" {
		s += " " + e.Subject
	}
	if e.Err == nil {
		return s + ": " + e.Kind.String()
	}
	return s + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the outermost Error in the chain. An error
// without one is Internal, but for an expired deadline, which is Unavailable:
// a time-out is a partition.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Unavailable
	}
	return Internal
}

// Is reports whether err is of the given kind. It is false for nil.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }
