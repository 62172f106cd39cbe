// Package ashlar is the vocabulary of the object store: identifiers, error
// kinds, sizes, codes, and the arithmetic that names stripes.
//
// Every other package imports it; it imports only the standard library. A word
// defined here has one meaning everywhere:
//
//	zone › rack › host › disk   the failure tree; a disk is a device that we
//	                            claimed, with our label on it
//	segment                     the append-only unit on a disk; it holds records
//	stripe, piece               a stripe is k data and m parity pieces; a piece
//	                            is one record on one disk
//	group                       the fixed set of disks that stripes are laid on
//	shard                       a metadata shard
//	map, epoch                  the placement quorum's view, and its version
//
// Identifiers are values: comparable, usable as map keys, printed as lower-case
// hexadecimal (random ones) or as decimal numbers (dense ones).
package ashlar

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
)

// Binary sizes, in bytes.
const (
	KiB = 1 << 10
	MiB = 1 << 20
	GiB = 1 << 30
	TiB = 1 << 40
)

// ID is 16 random bytes. It names what is made without asking anybody: a
// cluster, a disk, a boot of a host, a bucket, a request.
type ID [16]byte

// Kinds of random identifiers. They differ in type so that one cannot be
// passed for another.
type (
	// ClusterID names a cluster for its whole life; every label carries it.
	ClusterID ID
	// DiskID names a claimed disk wherever it is plugged in.
	DiskID ID
	// BootID names one run of a daemon.
	BootID ID
	// BucketID names a bucket; a bucket deleted and made again has a new one.
	BucketID ID
	// RequestID makes a mini-transaction idempotent under retry.
	RequestID ID
)

// Dense identifiers, given out by the placement quorum or by position.
type (
	// HostID is given to a host at its first heartbeat and never reused. Zero is no host.
	HostID uint32
	// GroupID is a position in the group table.
	GroupID uint32
	// ShardID is a position in the map's list of metadata shards.
	ShardID uint32
	// ReplicaID names one life of one replica of a shard. A replica that is made
	// again gets a new one: raft must never meet a voter that forgot its votes.
	// Zero is no replica.
	ReplicaID uint64
	// Epoch is the version of the map. It only grows.
	Epoch uint64
)

// NewID returns 16 bytes from the system's random source.
func NewID() ID {
	var id ID
	rand.Read(id[:]) // never fails (crypto/rand, since Go 1.24)
	return id
}

func (id ID) String() string        { return hex.EncodeToString(id[:]) }
func (id ClusterID) String() string { return ID(id).String() }
func (id DiskID) String() string    { return ID(id).String() }
func (id BootID) String() string    { return ID(id).String() }
func (id BucketID) String() string  { return ID(id).String() }
func (id RequestID) String() string { return ID(id).String() }
func (id HostID) String() string    { return strconv.FormatUint(uint64(id), 10) }

// IsZero reports whether the id was never set.
func (id ID) IsZero() bool { return id == ID{} }

// ParseID reads the 32 hexadecimal digits that String prints.
func ParseID(s string) (ID, error) {
	var id ID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("id %q: want 32 hexadecimal digits", s)
	}
	copy(id[:], b)
	return id, nil
}

// MarshalText and UnmarshalText let identifiers stand in JSON and TOML.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (id *ID) UnmarshalText(b []byte) (err error) { *id, err = ParseID(string(b)); return err }

// MarshalText prints the id as String does.
func (id ClusterID) MarshalText() ([]byte, error) { return ID(id).MarshalText() }

// UnmarshalText is the inverse of MarshalText.
func (id *ClusterID) UnmarshalText(b []byte) error { return (*ID)(id).UnmarshalText(b) }

// MarshalText prints the id as String does.
func (id DiskID) MarshalText() ([]byte, error) { return ID(id).MarshalText() }

// UnmarshalText is the inverse of MarshalText.
func (id *DiskID) UnmarshalText(b []byte) error { return (*ID)(id).UnmarshalText(b) }

// MarshalText prints the id as String does.
func (id BootID) MarshalText() ([]byte, error) { return ID(id).MarshalText() }

// UnmarshalText is the inverse of MarshalText.
func (id *BootID) UnmarshalText(b []byte) error { return (*ID)(id).UnmarshalText(b) }

// MarshalText prints the id as String does.
func (id BucketID) MarshalText() ([]byte, error) { return ID(id).MarshalText() }

// UnmarshalText is the inverse of MarshalText.
func (id *BucketID) UnmarshalText(b []byte) error { return (*ID)(id).UnmarshalText(b) }
