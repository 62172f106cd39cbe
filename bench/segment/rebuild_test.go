package segment_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"ashlar"
	"ashlar/bench/segment"
	"ashlar/diskmgr/blockdev/looptest"
)

// TestALostIndexIsRebuiltWithTheSamePieces, from the footers and from the records
// alone, on a file and on a device, which is blank afterwards: otherwise the
// second run were refused.
func TestALostIndexIsRebuiltWithTheSamePieces(t *testing.T) {
	device, _ := looptest.Device(t, 128*ashlar.MiB, 4096)
	for _, path := range []string{filepath.Join(t.TempDir(), "disk"), device, device} {
		res, err := segment.Rebuild(t.Context(), segment.RebuildOptions{Path: path, FileBytes: 128 * ashlar.MiB, Size: 20_000, Percent: 60, IndexDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Cases) != 3 {
			t.Fatalf("%+v", res)
		}
		for _, c := range res.Cases {
			if !c.Same || c.Records < 2000 {
				t.Errorf("from %s: %d pieces, the same: %v", c.From, c.Records, c.Same)
			}
		}
		known, footers, records := res.Cases[0].BytesRead, res.Cases[1].BytesRead, res.Cases[2].BytesRead
		// Without an index some segments that seem to be unused are searched, too.
		if known >= footers || footers >= res.Bytes/2 || records-footers < res.Bytes*9/10 || records-footers > res.Bytes*11/10 {
			t.Errorf("of %d bytes in segments were read: with the index %d, from footers %d, from records %d", res.Bytes, known, footers, records)
		}
		var out bytes.Buffer
		if err := segment.PrintRebuild(&out, &res); err != nil || strings.Count(out.String(), "\n") != 5 {
			t.Errorf("%v\n%s", err, out.String())
		}
	}
}
