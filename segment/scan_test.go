package segment

import (
	"syscall"
	"testing"

	"ashlar/segment/format"
)

// TestScanStepsOverABadSector: a disk with one sector that cannot be read must
// not look like one that fails at place after place, for which it is failed.
func TestScanStepsOverABadSector(t *testing.T) {
	const limit, block, bad = 4 << 20, 4096, 3<<20 - 5*4096
	for name, walk := range map[string]func(w *window){
		"scan":    func(w *window) { scan(w, format.Life{Generation: 1, Salt: 2}) },
		"salvage": func(w *window) { salvage(w, crashDisk) },
	} {
		t.Run(name, func(t *testing.T) {
			var inRow, inRowMax, reads int
			last, end := int64(-1), int64(0)
			w := newWindow(func(p []byte, off int64) error {
				reads++
				end = max(end, off+int64(len(p)))
				if off+int64(len(p)) <= bad || off >= bad+block {
					inRow, last = 0, -1
					clear(p)
					return nil
				}
				if off != last {
					inRow++
				}
				last, inRowMax = off, max(inRowMax, inRow)
				return syscall.EIO
			}, block, limit)
			walk(w)
			if inRowMax != 1 {
				t.Errorf("%d reads in a row failed at different places", inRowMax)
			}
			if end != limit || reads > 2*windowBytes/block+2*limit/windowBytes {
				t.Errorf("%d reads, up to %d of %d", reads, end, limit)
			}
		})
	}
}
