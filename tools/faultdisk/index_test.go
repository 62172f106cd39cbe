package faultdisk_test

import (
	"os"
	"path/filepath"
	"testing"

	"ashlar"
	"ashlar/segment"
)

// Fault 32: every file of the index in turn is deleted, emptied, or has a byte
// changed.
func TestFault32IndexDamaged(t *testing.T) {
	s := newStack(t, newDisk(t, 32))
	var kept, gone []*segment.Record
	version := uint64(1)
	grow := func() {
		t.Helper()
		for range 60 {
			r := s.put(version, version, 2000)
			if version++; version%3 == 0 {
				if err := s.log.Delete(t.Context(), r.Key); err != nil {
					t.Fatal(err)
				}
				gone = append(gone, r)
				continue
			}
			kept = append(kept, r)
		}
	}
	damaged := map[string]int{}
	for kind, damage := range map[string]func(path string, bytes int64) error{
		"deleted": func(path string, _ int64) error { return os.Remove(path) },
		"emptied": func(path string, _ int64) error { return os.Truncate(path, 0) },
		"changed": flipMiddle,
	} {
		for i := 0; ; i++ {
			grow()
			if s.reopen(); i%2 == 0 {
				grow() // so that there is something in the log of the index too
			}
			s.close()
			files, err := os.ReadDir(s.index)
			if err != nil {
				t.Fatal(err)
			}
			if i >= len(files) || i > 12 {
				s.reopen()
				break
			}
			info, err := files[i].Info()
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(filepath.Join(s.index, info.Name()), info.Size()); err != nil {
				t.Fatal(err)
			}
			damaged[kind]++
			t.Logf("%s %s (%d bytes)", info.Name(), kind, info.Size())
			if err := s.open(); err != nil {
				t.Fatalf("%s %s: %v", info.Name(), kind, err)
			}
			s.want(kept...)
			for _, r := range gone {
				s.wantKind(ashlar.NotFound, r)
			}
		}
	}
	t.Logf("files damaged: %v; %d pieces and %d deletes each time the same", damaged, len(kept), len(gone))
}

func flipMiddle(path string, size int64) error {
	b, err := os.ReadFile(path)
	if err != nil || size == 0 {
		return err
	}
	b[size/2] ^= 0x10
	return os.WriteFile(path, b, 0o600)
}
