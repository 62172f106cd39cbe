package row

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/zeebo/xxh3"

	"ashlar"
)

// The first byte of a row's key: what the row is.
const (
	KindBucket   = 'b'
	KindOpen     = 'm'
	KindClosed   = 'n'
	KindCounter  = 'c'
	KindObject   = 'o'
	KindManifest = 'x'
	KindUpload   = 'u'
	KindPart     = 'p'
	KindDone     = 'd'
	KindMark     = 'v'
	KindAgenda   = 'a'
	KindLease    = 'e'
	// KindIdentity is the first byte of the rows of package iam/directory.
	KindIdentity = 'i'
	KindEvent    = 'q'
	KindQueued   = 'k'
)

// The counters of a slot.
const (
	CountObjects   = 'o'
	CountBytes     = 'b'
	CountUploads   = 'u'
	CountPartBytes = 'q'
	// CountOthers and CountOtherBytes count what lies under a key beside a
	// current object: older versions and delete markers.
	CountOthers     = 'v'
	CountOtherBytes = 'w'
	// CountLimit is not a counter: it bounds them. Limits of bytes and of objects,
	// 8 bytes each, little-endian, signed, and 16 bytes that say who set them.
	CountLimit = 'l'
)

// The marks of a slot.
const (
	MarkVersioned = 0 // versioning was set once
	MarkEnabled   = 1 // versioning is enabled
	MarkLocked    = 2 // and stays so: the bucket has object lock
	MarkLifecycle = 3 // a lifecycle was set once; its version is that of the rules
	MarkRules     = 4 // holds the lifecycle's rules, written together with mark 3
)

// HeaderBytes is the length of kind, bucket id and slot.
const HeaderBytes = 1 + 16 + 1

// KeyBytesMax is the length of the longest object key, in bytes.
const KeyBytesMax = 1024

// SlotsMax is the largest number of slots of a bucket.
const SlotsMax = 64

// VersionID names one version of one key, and a multipart upload: eight bytes
// of time and eight random ones.
type VersionID [16]byte

// NewVersionID returns an id that sorts at the given time.
func NewVersionID(at time.Time) VersionID {
	var v VersionID
	binary.BigEndian.PutUint64(v[:8], uint64(at.UnixNano()))
	binary.BigEndian.PutUint64(v[8:], uint64(ashlar.NewWriteID()))
	return v
}

// Above returns the id itself if it is greater than old, and else the same
// random part just above old's time: a version must sort above the one that it
// covers, also where the writer's clock lags.
func (v VersionID) Above(old []byte) VersionID {
	if bytes.Compare(v[:], old) > 0 || len(old) < 8 {
		return v
	}
	binary.BigEndian.PutUint64(v[:8], binary.BigEndian.Uint64(old)+1)
	return v
}

// Time is about when the id was made.
func (v VersionID) Time() time.Time { return time.Unix(0, int64(binary.BigEndian.Uint64(v[:8]))).UTC() }

func (v VersionID) String() string { return hex.EncodeToString(v[:]) }

// ParseVersionID reads what String prints.
func ParseVersionID(s string) (v VersionID, ok bool) {
	if len(s) != 2*len(v) {
		return v, false
	}
	_, err := hex.Decode(v[:], []byte(s))
	return v, err == nil
}

// SlotOf returns the slot of a key in a bucket of the given number of slots.
func SlotOf(id ashlar.BucketID, key string, slots int) uint8 {
	buf := make([]byte, 0, 128)
	buf = append(append(buf, id[:]...), key...)
	return uint8(xxh3.Hash(buf) % uint64(slots))
}

// SpreadSlots chooses the shards of a new bucket's slots.
func SpreadSlots(id ashlar.BucketID, slots, shards int) []uint32 {
	first := xxh3.Hash(id[:]) % uint64(shards)
	out := make([]uint32, slots)
	for i := range out {
		out[i] = uint32((first + uint64(i)) % uint64(shards))
	}
	return out
}

// BucketKey is the key of a directory row.
func BucketKey(name string) []byte { return append([]byte{KindBucket}, name...) }

// Slot builds the keys of one slot of one bucket.
type Slot struct {
	Bucket ashlar.BucketID
	Slot   uint8
}

// Header returns the prefix of all rows of a kind, with room for more.
func (s Slot) Header(kind byte) []byte {
	b := make([]byte, 0, HeaderBytes+64)
	b = append(b, kind)
	b = append(b, s.Bucket[:]...)
	return append(b, s.Slot)
}

// Counter is the key of a counter.
func (s Slot) Counter(which byte) []byte { return append(s.Header(KindCounter), which) }

// Object is the key of the current version of an object.
func (s Slot) Object(key string) []byte {
	return append(append(s.Header(KindObject), key...), 0, 0)
}

// OldObject is the key of a version that is not current.
func (s Slot) OldObject(key string, v VersionID) []byte {
	b := append(append(s.Header(KindObject), key...), 0, 1)
	for _, c := range v {
		b = append(b, ^c)
	}
	return b
}

// OldObjects is the prefix of the versions of an object that are not current.
func (s Slot) OldObjects(key string) []byte {
	return append(append(s.Header(KindObject), key...), 0, 1)
}

// Mark is the key of a versioning mark.
func (s Slot) Mark(which byte) []byte { return append(s.Header(KindMark), which) }

// Manifest is the key of a manifest row.
func (s Slot) Manifest(id []byte) []byte { return append(s.Header(KindManifest), id...) }

// Upload is the key of an upload row.
func (s Slot) Upload(key string, id VersionID) []byte {
	return append(append(append(s.Header(KindUpload), key...), 0), id[:]...)
}

// Parts is the prefix of the part rows of an upload.
func (s Slot) Parts(id VersionID) []byte { return append(s.Header(KindPart), id[:]...) }

// Part is the key of a part row.
func (s Slot) Part(id VersionID, number uint16) []byte {
	return binary.BigEndian.AppendUint16(s.Parts(id), number)
}

// Done is the key of the row that remembers how an upload ended.
func (s Slot) Done(id VersionID) []byte { return append(s.Header(KindDone), id[:]...) }

// What an agenda row is about.
const (
	AgendaKey    = 'k' // a key whose versions are to be looked at
	AgendaUpload = 'u' // a multipart upload
	AgendaBuild  = 'b' // a slot whose keys and uploads are to be entered
)

// AgendaBytes is the length of what stands before the subject of an agenda row.
const AgendaBytes = 1 + 8 + 1 + 16 + 1

// Agenda is the key of an agenda row. Subject is the object key, or object key,
// 0x00 and upload id, or empty.
func (s Slot) Agenda(due int64, what byte, subject string) []byte {
	b := make([]byte, 0, AgendaBytes+len(subject))
	b = binary.BigEndian.AppendUint64(append(b, KindAgenda), uint64(due))
	b = append(append(b, what), s.Bucket[:]...)
	return append(append(b, s.Slot), subject...)
}

// AgendaEnd is the least key behind all agenda rows that are due at now.
func AgendaEnd(now int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{KindAgenda}, uint64(now)+1)
}

// AgendaEntry is what the key of an agenda row says.
type AgendaEntry struct {
	Slot
	Due     int64
	What    byte
	Subject string
}

// ParseAgenda reads the key of an agenda row.
func ParseAgenda(key []byte) (e AgendaEntry, ok bool) {
	if len(key) < AgendaBytes || key[0] != KindAgenda {
		return e, false
	}
	e.Due, e.What = int64(binary.BigEndian.Uint64(key[1:])), key[9]
	copy(e.Bucket[:], key[10:])
	e.Slot.Slot, e.Subject = key[26], string(key[AgendaBytes:])
	return e, true
}

// UploadSubject is the subject of an upload's agenda row.
func UploadSubject(key string, id VersionID) string { return key + "\x00" + string(id[:]) }

// LeaseKey is the key of a shard's lease of the given name.
func LeaseKey(name string) []byte { return append([]byte{KindLease}, name...) }

// The counters of a queue.
const (
	CountEvents = 'n' // its rows
	CountLost   = 'l' // events that were not kept
)

// Queue is the prefix of the rows of a target's queue.
func Queue(target string) []byte { return append(append([]byte{KindEvent}, target...), 0) }

// Queued is the key of a counter of a queue.
func Queued(target string, which byte) []byte {
	return append(append([]byte{KindQueued}, target...), 0, which)
}

// Event is the key of a queue row. That of a test has no key of an object.
func (s Slot) Event(target, key string, id VersionID) []byte {
	b := append(append(Queue(target), s.Bucket[:]...), s.Slot)
	return append(append(append(b, key...), 0), id[:]...)
}

// QueueEntry is what the key of a queue row says.
type QueueEntry struct {
	Slot
	Target, Key string
	ID          VersionID
}

// ParseEvent reads the key of a queue row.
func ParseEvent(rowKey []byte) (e QueueEntry, ok bool) {
	if len(rowKey) == 0 || rowKey[0] != KindEvent {
		return e, false
	}
	target, rest, ok := bytes.Cut(rowKey[1:], []byte{0})
	const head, tail = len(e.Bucket) + 1, 1 + len(e.ID)
	if !ok || len(target) == 0 || len(rest) < head+tail || rest[len(rest)-tail] != 0 {
		return e, false
	}
	e.Target = string(target)
	copy(e.Bucket[:], rest)
	e.Slot.Slot = rest[head-1]
	e.Key = string(rest[head : len(rest)-tail])
	copy(e.ID[:], rest[len(rest)-len(e.ID):])
	return e, true
}

// UserKey returns the object key inside the key of an object or upload row,
// and what follows the terminator.
func UserKey(rowKey []byte) (key string, suffix []byte, ok bool) {
	if len(rowKey) < HeaderBytes {
		return "", nil, false
	}
	rest := rowKey[HeaderBytes:]
	n := bytes.IndexByte(rest, 0)
	if n < 0 {
		return "", nil, false
	}
	return string(rest[:n]), rest[n+1:], true
}

// PartNumber returns the upload and the number inside the key of a part row.
func PartNumber(rowKey []byte) (id VersionID, number int, ok bool) {
	if len(rowKey) != HeaderBytes+len(id)+2 {
		return id, 0, false
	}
	copy(id[:], rowKey[HeaderBytes:])
	return id, int(binary.BigEndian.Uint16(rowKey[HeaderBytes+len(id):])), true
}

// Successor returns the least key that is greater than every key with the
// given prefix, or nil if there is none.
func Successor(prefix []byte) []byte {
	out := bytes.Clone(prefix)
	for len(out) > 0 {
		if last := len(out) - 1; out[last] != 0xff {
			out[last]++
			return out
		}
		out = out[:len(out)-1]
	}
	return nil
}
