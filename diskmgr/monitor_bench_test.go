package diskmgr_test

import (
	"fmt"
	"testing"

	"ashlar"
	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev"
)

// nothing is a device that takes no time, so that only what stands above it is
// measured.
type nothing struct{ blockdev.IO }

func (nothing) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nothing) Flush() error                           { return nil }

// BenchmarkAccounts measures what range checks, health accounts and fencing cost
// per I/O.
func BenchmarkAccounts(b *testing.B) {
	for _, callers := range []int{1, 2} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			path := b.TempDir() + "/disk"
			if err := blockdev.Create(path, diskBytes, true); err != nil {
				b.Fatal(err)
			}
			o := options()
			labelled := false
			o.Wrap = func(under blockdev.IO) blockdev.IO { return &switched{IO: under, fast: &labelled} }
			d, err := diskmgr.Claim(b.Context(), path, o)
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			labelled = true
			b.ReportAllocs()
			b.SetParallelism(callers)
			b.RunParallel(func(pb *testing.PB) {
				buf := blockdev.Aligned(64 * ashlar.KiB)
				for pb.Next() {
					if _, err := d.Device().WriteAt(buf, 0); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// switched writes to the real device until the disk is labelled.
type switched struct {
	blockdev.IO
	fast *bool
}

func (s *switched) WriteAt(p []byte, off int64) (int, error) {
	if *s.fast {
		return nothing{}.WriteAt(p, off)
	}
	return s.IO.WriteAt(p, off)
}
