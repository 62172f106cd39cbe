package segment

import (
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"ashlar"
)

// TestIndexThatLostItsEnd damages the index in the ways that Pebble does not
// notice: it opens what is left, and that is not all.
func TestIndexThatLostItsEnd(t *testing.T) {
	for name, hit := range map[string]func(name string) bool{
		"half a log": func(n string) bool { return strings.HasSuffix(n, ".log") },
		"log":        func(n string) bool { return strings.HasSuffix(n, ".log") },
		"marker":     func(n string) bool { return strings.HasPrefix(n, "marker.manifest") },
		"manifests":  func(n string) bool { return strings.HasPrefix(n, "MANIFEST") },
		"openings":   func(n string) bool { return n == openingsName },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t)
			all := []*Record{d.put(0, 1, 9000)}
			d.reopen()
			for k := range uint8(30) { // several segments
				all = append(all, d.put(k+1, uint64(k)+2, 9000))
			}
			gone := d.put(100, 100, 500)
			if err := d.log.Delete(t.Context(), gone.Key); err != nil {
				t.Fatal(err)
			}
			d.log.Close()
			names, err := d.fs.List("index")
			if err != nil {
				t.Fatal(err)
			}
			hits := 0
			for _, n := range names {
				if hit(n) {
					hits++
					if strings.HasPrefix(name, "half") {
						halve(t, d.fs, "index/"+n)
					} else if err := d.fs.Remove("index/" + n); err != nil {
						t.Fatal(err)
					}
				}
			}
			if hits == 0 {
				t.Fatalf("nothing to damage among %q", names)
			}
			for range 2 {
				d.reopen()
				for _, r := range all {
					d.want(r)
				}
				d.wantKind(ashlar.NotFound, gone)
			}
		})
	}
}

// halve changes a byte in the middle of a file.
func halve(t *testing.T, fs vfs.FS, name string) {
	t.Helper()
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{^all[len(all)/2]}, int64(len(all)/2)); err != nil {
		t.Fatal(err)
	}
}
