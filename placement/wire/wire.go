// Package wire is what a placement member answers to other processes: the gRPC
// service, its messages, and the encoding of the map.
//
// The map has one encoding. The same bytes are stored in the quorum under one
// key, sent to the hosts and gateways that watch, and kept by them; so a map
// that was read anywhere can be compared with any other. Fields are only ever
// added to the messages: a member of an older version keeps what it knows.
//
// Heartbeats are deltas. The first one of a connection lists every disk
// (full = true); later ones list the disks whose report changed. A scheduler
// that just took over has no memory of the disks and asks for a full list
// (need_full) in its answer.
//
// Errors travel as gRPC status codes; Status and Kind translate them to and
// from the kinds of package ashlar.
package wire

//go:generate sh -c "go build -o ./.bin/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc && PATH=./.bin:$PATH protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative placement.proto; rm -rf ./.bin"

import (
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"ashlar"
)

// AliveEvery is the time between the signs of life on a watch. A watcher that
// hears nothing for three of them asks another member.
const AliveEvery = time.Second

var kindCodes = map[ashlar.Kind]codes.Code{
	ashlar.NotFound: codes.NotFound, ashlar.Exists: codes.AlreadyExists, ashlar.Corrupt: codes.DataLoss,
	ashlar.Stale: codes.Aborted, ashlar.Full: codes.ResourceExhausted, ashlar.Busy: codes.ResourceExhausted,
	ashlar.Unavailable: codes.Unavailable, ashlar.Denied: codes.PermissionDenied, ashlar.Invalid: codes.InvalidArgument,
	ashlar.Internal: codes.Internal,
}

// Status turns an error into one that gRPC sends with the code of its kind.
// It is nil for nil.
func Status(err error) error {
	if err == nil {
		return nil
	}
	return status.Error(kindCodes[ashlar.KindOf(err)], err.Error())
}

// Kind is the inverse of Status on the caller's side. An expired deadline and
// a broken connection are Unavailable.
func Kind(err error) ashlar.Kind {
	var e *ashlar.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	switch status.Code(err) {
	case codes.NotFound:
		return ashlar.NotFound
	case codes.AlreadyExists:
		return ashlar.Exists
	case codes.DataLoss:
		return ashlar.Corrupt
	case codes.Aborted:
		return ashlar.Stale
	case codes.ResourceExhausted:
		return ashlar.Busy
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return ashlar.Unavailable
	case codes.PermissionDenied:
		return ashlar.Denied
	case codes.InvalidArgument:
		return ashlar.Invalid
	}
	return ashlar.Internal
}
