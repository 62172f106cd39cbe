package segment

import (
	"bytes"
	"hash/crc32"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// openings counts the segments that were opened for writing, twice: in the row
// 'o' of the index, in the same batch as the segment's own row, and after that
// in a file beside Pebble's. Pebble takes the damaged or missing end of its own
// log for a short one and opens what is left; a segment that was opened later
// would then count as free, its records as never written. An index whose row
// is behind the file, or that has no such file, is not believed.
type openings struct {
	mu    sync.Mutex
	file  vfs.File
	count uint64
}

const (
	openingsName  = "openings"
	openingsBytes = 8 + 4 // count, CRC-32C of it
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func openOpenings(dir string, fs vfs.FS) (*openings, error) {
	f, err := fs.OpenReadWrite(filepath.Join(dir, openingsName), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &openings{file: f}, nil
}

func openingsImage(count uint64) []byte {
	p := le.AppendUint64(nil, count)
	return le.AppendUint32(p, crc32.Checksum(p, castagnoli))
}

// complete reports whether the index holds all that was ever said of openings.
func (x *index) complete() bool {
	v, closer, err := x.db.Get([]byte{'o'})
	if err != nil {
		return false
	}
	defer closer.Close()
	p := make([]byte, openingsBytes)
	if n, _ := x.opened.file.ReadAt(p, 0); n != len(p) || len(v) != 8 {
		return false
	}
	count := le.Uint64(v)
	x.opened.count = count
	return bytes.Equal(p, openingsImage(le.Uint64(p))) && le.Uint64(p) <= count
}

// noteOpening commits a batch that says that a segment is opened, durably.
func (x *index) noteOpening(b *pebble.Batch) error {
	o := x.opened
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := b.Set([]byte{'o'}, le.AppendUint64(nil, o.count+1), nil); err != nil {
		return err
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return err
	}
	o.count++
	return o.writeLocked()
}

// restart begins to count anew, in an index that is empty.
func (x *index) restart() error {
	o := x.opened
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count = 0
	if err := x.db.Set([]byte{'o'}, make([]byte, 8), pebble.Sync); err != nil {
		return err
	}
	return o.writeLocked()
}

func (o *openings) writeLocked() error {
	if _, err := o.file.WriteAt(openingsImage(o.count), 0); err != nil {
		return err
	}
	return o.file.Sync()
}

// removeRemains deletes what lies in a directory without a database: Pebble
// would make a new one there and take old logs that it finds for its own.
func removeRemains(dir string, fs vfs.FS) error {
	desc, err := pebble.Peek(dir, fs)
	if err != nil || desc.Exists {
		return nil // an error comes again when the database is opened
	}
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".log") || strings.HasSuffix(name, ".sst") || strings.HasPrefix(name, "MANIFEST-") {
			if err := fs.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
