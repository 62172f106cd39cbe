package smart

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ashlar"
)

const (
	// Dir is where the files lie.
	Dir = "/run/ashlar/smart"
	// Version is that of the files.
	Version = 1
	// MaxAge is when facts are no longer believed: four times what the timer waits.
	MaxAge = 2 * time.Hour

	fileBytesMax = 64 * ashlar.KiB
)

// path is the file of a disk. Serials are the vendors' own: what could mean
// something to a file system is replaced.
func path(dir, serial string) string {
	name := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, serial)
	return filepath.Join(dir, name+".json")
}

// Write puts the facts of the disk with that serial in their place: whoever reads
// sees the old ones or the new.
func Write(dir, serial string, f Facts) error {
	const op = "smart: write"
	if serial == "" {
		return ashlar.E(op, "", ashlar.Invalid, errors.New("the disk has no serial"))
	}
	b, err := json.Marshal(f)
	if err != nil {
		return ashlar.E(op, serial, ashlar.Internal, err)
	}
	tmp, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return ashlar.E(op, serial, ashlar.Unavailable, err)
	}
	_, err = tmp.Write(append(b, '\n'))
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path(dir, serial))
	}
	if err != nil {
		return ashlar.E(op, serial, ashlar.Unavailable, errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// Read returns what the disk with that serial said last, if it was asked at all,
// and not longer than MaxAge before now. Whatever else is wrong means that nothing
// is known, which is no error.
func Read(dir, serial string, now time.Time) (Facts, bool) {
	name := path(dir, serial)
	info, err := os.Stat(name)
	if serial == "" || err != nil || !info.Mode().IsRegular() || info.Size() > fileBytesMax {
		return Facts{}, false
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return Facts{}, false
	}
	f, err := decode(b)
	age := now.Sub(f.Taken)
	return f, err == nil && age <= MaxAge && age >= -MaxAge
}

func decode(b []byte) (Facts, error) {
	var f Facts
	if err := json.Unmarshal(b, &f); err != nil {
		return Facts{}, err
	}
	if f.Version != Version {
		return Facts{}, fmt.Errorf("version %d", f.Version)
	}
	for _, n := range []*int64{&f.Reallocated, &f.Pending, &f.Uncorrectable, &f.LinkCRC, &f.Wear, &f.Temperature} {
		*n = max(*n, Unknown)
	}
	return f, nil
}
