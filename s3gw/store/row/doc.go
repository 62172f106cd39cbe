// Package row is the format of the metadata rows that hold buckets, objects
// and multipart uploads: which key a row has, on which shard it lies, and what
// its value means. Nothing else in the system knows these bytes.
//
// # Slots
//
// A bucket is cut into S slots, 1 ≤ S ≤ 64, fixed when it is made. A key of the
// bucket lies in slot xxh3(bucket id ‖ key) mod S. Slot i lies on the metadata
// shard Bucket.slots[i], which is chosen at creation as
//
//	(xxh3(bucket id) + i) mod (number of shards)
//
// and written down, so that adding shards moves no bucket. All rows about one
// key lie in one slot; a mini-transaction never leaves a slot. The two
// exceptions are named below: directory rows (shard 0) and trash rows (per
// shard, format in daemon/meta/trash).
//
// # Keys
//
// The first byte says what the row is. Numbers are big-endian, so that byte
// order is numeric order. H stands for the 18-byte header of every row but the
// directory's:
//
//	offset  size  header H
//	     0     1  kind
//	     1    16  bucket id
//	    17     1  slot
//
//	kind  key                                     value     where
//	'b'   'b' name                                Bucket    shard 0
//	'm'   H                                       Marker    open marker
//	'n'   H                                       Marker    closed marker
//	'c'   H counter(1)                            counter   8 bytes, little-endian
//	'c'   H 'l'                                   limits    of what bytes and objects may count to; see CountLimit
//	'o'   H key 0x00 0x00                         Object    current version
//	'o'   H key 0x00 0x01 ^version(16)            Object    older version
//	'x'   H manifest(16)                          Manifest
//	'u'   H key 0x00 upload(16)                   Upload
//	'p'   H upload(16) part(2)                    Part
//	'd'   H upload(16)                            Done
//	'v'   H mark(1)                               Mark      versioning, lock and lifecycle marks
//	'v'   H 4                                     LifecycleMark
//	'q'   'q' target 0x00 bucket(16) slot(1) key 0x00 id(16)  Event  the key's shard
//	'k'   'k' target 0x00 which(1)                counter   every shard
//	'a'   'a' due(8) what(1) bucket(16) slot(1) subject  Agenda  every shard
//	'e'   'e' name                                Lease     every shard
//	'i'   see s3gw/iam/directory                  its own   shard 0
//	't'   see daemon/meta/trash                   its own   every shard
//	'g'   see daemon/orphan (reports of hosts)    its own   shard 0
//
// The values are the messages of row.proto; each begins with the version of its
// meaning (format = 1), and a reader refuses one that it does not know.
//
// A key is 1 to 1,024 bytes of UTF-8 and holds no 0x00. The terminator 0x00 therefore
// keeps the byte order of keys ("a" < "a/b" < "a0"), and a scan that collapses
// at the first 0x00 after H sees each key once, at its current version.
//
// Counters: 'o' objects that are current, 'b' their bytes, 'u' uploads that
// are neither completed nor aborted, 'q' bytes of parts, 'v' older versions
// and delete markers, 'w' bytes of older versions. Each is changed in the
// transaction that changes what it counts, and is exact.
//
// # Versions
//
// The current version of a key always lies under the suffix 0x00. A point read
// finds it, and a condition on that one row decides every race for the key,
// with or without versioning. Older versions lie behind it, newest first: their
// suffix is 0x01 and the bit-inverted version id, which begins with the time of
// writing. A new version gets an id above that of the version it covers, even
// if the writer's clock lags; the covered row is moved to its own suffix in the
// same transaction. A delete marker is a version like any other.
//
// The null version is a row with null_version set. It sorts by the time of its
// writing like every version. In a bucket that never had versioning it is the
// only row of the key and always current. Once a newer version covers it, the
// current row's null_at says under which id it lies, so that it is found, and
// replaced when versioning is suspended, without a scan. Where a key has any
// row, it has a current one: deleting the current version moves the newest of
// the older ones into its place.
//
// Whether versioning is enabled is decided slot by slot, so that a writer whose
// copy of the bucket's record is out of date can do no harm. The mark 0 is there
// once versioning was enabled or suspended for the first time, the mark 1 while
// it is enabled. A transaction requires what it believes: that mark 0 is absent
// (never), that mark 1 is there without mark 2 (enabled), mark 0 without mark 1
// (suspended), or that mark 2 is there (locked: enabled, and object lock).
// If it is refused it reads the marks and decides again. Setting the state
// changes the marks of every slot first and the directory row last; a setting
// that stopped half-way was not acknowledged, and is finished by the next.
//
// # Object lock
//
// The field lock of a version says what keeps it from being deleted: a retention
// until a moment, a legal hold, or both. Whatever would delete or replace a
// version reads this field in the row on whose version its transaction depends,
// so no deletion that was decided before the lock came can be applied after it.
// The moment is judged by the wall clock of the gateway that commits. A delete
// marker on top deletes nothing and is allowed; so is a new version.
//
// Mark 2, once set, stays, and with it mark 0 and the versions: in a bucket with
// object lock every write makes a version, and suspending requires that mark 2
// is absent. The default retention lies in the directory row. A write in a
// locked slot reads it there before it commits, so that it holds for each write
// that begins after it was set.
//
// # Lifecycle
//
// Expiry is driven by an agenda, never by a scan of the bucket. A shard's agenda
// rows are in the order of the time at which they are due, over all buckets; its
// head is what there is to do. A key has at most one agenda row, and the field
// due_ns of its current version says which: it is written, moved and deleted in
// the transactions that write the current version. It says when the key must be
// looked at, not what is to be done: whoever comes looks at all versions of the
// key, judges the rules anew against the rows as they are, deletes what is due
// by transactions that depend on those rows, and enters the next time. To come
// too early or for nothing is harmless. An upload has an agenda row likewise.
//
// The rules lie in every slot: mark 4 holds them, mark 3 is written together with
// it and tells by its version which rules hold. Each write requires the rules
// that it was planned with: that mark 3 is absent (there were never any), or has
// the version that was read. So no write can miss a rule that was set before,
// whatever gateway it goes through. Setting the rules enters one agenda row a
// slot that is due at once, the build: it walks the keys and uploads that were
// there before, in steps, its value says how far it came, and enters each that a
// rule could want. Rules that are removed stay as an empty list.
//
// The agenda of a bucket that is gone is thrown away when it is due. If agenda
// rows are lost, setting the lifecycle again builds them anew. Leases only keep
// two workers from doing the same work twice; correctness needs none.
//
// # Events
//
// What happens to an object and is asked for by a notification of its bucket is a
// queue row, written in the transaction in which it happens. The queue of a target,
// which the operator named, lies on every shard; the rows of a key lie together,
// their ids are version ids (time first), and the version of a row, which is the
// index of its transaction in the shard's log, is its place among the events of the
// key. A row is deleted when the target has acknowledged it, so an event may be sent
// again, but is not lost. It says all that the target is told, and outlives its
// bucket. That a notification was set is told too, by a row without a key of an object
// on the directory's shard.
//
// Two counters go with each queue of a shard, whatever the bucket: 'n' its rows, 'l'
// the events that were not kept: because there were too many rows, or none could be
// sent for too long. Both are exact.
//
// Which notifications a bucket has is in its directory row alone: a gateway follows a
// change within the time for which it keeps that row.
//
// # Extents
//
// The stripes of an object are those of its extents, in order; a zero-byte
// object has none. For an object of etag_parts parts there is one extent a
// part, also for an empty part. More than InlineExtentsMax extents are not kept
// in the object row, which every listing reads, but in a manifest row of their
// own, written and deleted in the same transactions. A manifest is never
// changed, so a reader that finds none reads the object row again.
//
// # Buckets: creation and deletion
//
// Creation puts the open markers (generation 1) of a fresh bucket id, then the
// directory row if the name is free: that is the commit point. A crash before
// it leaves markers of an id that nobody refers to.
//
// Every transaction that adds or changes objects or uploads requires the open
// marker of its slot. Deletion walks the directory row through states, each
// step by compare-and-set, so that anybody who meets it can carry on:
//
//	ACTIVE(g) ──► DELETING(g) ──► DROPPING(g) ──► (no row)
//	    ▲              │ a slot is not empty
//	    └─ g+1 ── REOPENING(g)
//
//	DELETING   for each slot: if 'm' has generation g and the counters 'o' and
//	           'v' are zero, delete 'm' and put 'n' with g
//	REOPENING  for each slot: replace 'm' or 'n' of generation g by 'm' of g+1
//	DROPPING   for each slot: delete 'u' rows, throw the parts that are left on
//	           the trash, delete 'd', 'c', 'v' and 'n' rows; then delete the
//	           directory row
//
// A marker is only ever changed by a transaction that names the version of the
// row it read, and only if that row is of the generation of the step. So a
// process that slept through a step can neither close a bucket that lives nor
// open one that is gone. A PUT that finds its marker gone helps the step to its
// end and then fails with "no such bucket" or starts over.
//
// # Settings
//
// What is configured for a bucket as a whole lies in its directory row, in the
// field settings: one change of it is one compare-and-set, and it goes with the
// bucket. A name without an entry is not configured.
//
// # Access
//
// Who owns a bucket, a version or an upload is the canonical id of an account.
// The grants of a version lie in its field acl, those of a bucket among its
// settings; the text is the gateway's (s3gw/s3, acl.go). A copy and a new
// version take no grants along.
//
// # Uploads
//
// Parts are numbered 1 to 10,000. A part row names the upload but not the key,
// so that 10,000 of them fit one transaction whatever the length of the key.
// Complete requires the version of the upload row and of every part that it
// takes, and deletes them; Abort deletes the upload row. Both leave a Done row
// in the same transaction. Part rows that remain (not listed, or written by a
// call that raced) are unreachable from then on: they are moved to the trash at
// once, and again when the Done row is removed after DoneKeep, so that a crash
// in between costs space for a bounded time only.
//
// An object of parts has the checksum that its upload asked for, made from those of
// the parts; where it asked for none, CRC64NVME. For that a part has the field
// crc64nvme, whatever its client sent. A part from before that field has none, and then
// neither has the object.
//
// # Encryption
//
// The content of an object with encryption set is stored sealed, in the form of
// ashlar/s3gw/sse: each extent is one stream, whose salt stands in salts, and is
// longer than its content. The fields bytes, ETag and checksum are about the
// content; extents are about what is stored. The data key is in the object's and
// the upload's row, sealed, and bound to bucket id and key. The entity tags of
// SSE-C and SSE-KMS are masked with it.
//
// # If the index is lost
//
// These rows are the namespace. They live in the log of their shard's replicas
// (daemon/meta/replica). If all replicas of a shard are lost, the pieces on the
// disks still name bucket id, key, part and offset of every stripe (ashlar.Owner):
// the content and the keys can be found again; ETags of multipart objects,
// attributes and checksums cannot.
package row

//go:generate sh -c "cd ../../.. && protoc --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --go_out=. --go_opt=paths=source_relative s3gw/store/row/row.proto"
