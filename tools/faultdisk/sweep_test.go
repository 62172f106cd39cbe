package faultdisk_test

import (
	"os"
	"testing"
	"time"

	"ashlar"
	"ashlar/diskmgr"
	"ashlar/segment"
	"ashlar/tools/faultdisk"
)

// sweepDisk is small, so that the sweep can start from a blank one each time.
const (
	sweepDisk    = 40 * ashlar.MiB
	sweepRecords = 11
)

// sweepRun does what writes every kind of structure: the label, anchors,
// headers, batches, footers, an orderly end and the next beginning. It returns
// what was acknowledged before the power failed, and whether the claim was.
func sweepRun(s *stack) (acked []*segment.Record, claimed bool) {
	disk, err := diskmgr.Claim(s.Context(), s.dev.Path(), diskmgr.ClaimOptions{
		OpenOptions: diskmgr.OpenOptions{Cluster: stackCluster}, ClusterName: "test", Name: "h/d01", SegmentBytes: stackSegmentBytes,
	})
	if err != nil {
		return nil, false
	}
	s.disk = disk
	defer s.close()
	if s.openLog() != nil {
		return nil, true
	}
	for n := range uint64(sweepRecords) {
		if n == 9 {
			if s.close() != nil || s.open() != nil {
				return acked, true
			}
		}
		r := record(n, n+1, 500_000)
		if s.log.Append(s.Context(), r) != nil {
			return acked, true
		}
		acked = append(acked, r)
	}
	return acked, true
}

// Fault 5: the power fails at each write in turn, and at each flush.
func TestFault05CutAtEveryWrite(t *testing.T) {
	dev := faultdisk.New(t, faultdisk.Options{Disks: 1, Bytes: sweepDisk, Seed: 5}).Disk(0)
	index := indexDir(t)
	cuts, blank := 0, 0
	for _, op := range []faultdisk.Op{faultdisk.Write, faultdisk.Flush} {
		for n := 0; ; n++ {
			dev.Rot(0, sweepDisk, true)
			s := &stack{T: t, dev: dev, index: index, ioTimeout: 10 * time.Second, writers: 1}
			if err := os.RemoveAll(s.index); err != nil {
				t.Fatal(err)
			}
			dev.Inject(faultdisk.Rule{Ops: op, Fault: faultdisk.Cut, Skip: n, Count: 1})
			before := dev.Counts().Faults[faultdisk.Cut]
			acked, claimed := sweepRun(s)
			fired := dev.Counts().Faults[faultdisk.Cut] > before
			dev.Clear()
			dev.PowerOn()
			if !fired {
				if len(acked) != sweepRecords {
					t.Fatalf("without a cut only %d records were acknowledged", len(acked))
				}
				break
			}
			cuts++
			err := s.open()
			if ashlar.Is(err, ashlar.NotFound) && !claimed {
				blank++
				if _, claimed = sweepRun(s); !claimed {
					t.Fatalf("cut at %v %d: a blank disk cannot be claimed", op, n)
				}
				err = s.open()
			}
			if err != nil {
				t.Fatalf("cut at %v %d: %v", op, n, err)
			}
			s.want(acked...)
			s.close()
		}
	}
	t.Logf("%d cuts; after %d of them the disk was blank still", cuts, blank)
	if cuts < 40 || blank == 0 || blank > 10 {
		t.Errorf("%d cuts, %d blank: the sweep did not go over everything", cuts, blank)
	}
}
