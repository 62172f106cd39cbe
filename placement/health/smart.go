package health

import "ashlar/placement/topology"

// DiskSmart is what a disk says of itself, by way of its host. It is zero for a
// disk that was not asked lately.
type DiskSmart struct {
	Known  bool
	Serial string
	// Failing: the disk expects to fail. Concern says in words what wants action,
	// and is empty if nothing does.
	Failing bool
	Concern string
	// Sectors that were replaced, that wait to be, and errors beyond repair; damaged
	// transfers; percent of the life for writes; degrees Celsius. -1 is unknown.
	Reallocated, Pending, Uncorrectable, LinkCRC, Wear, Temperature int64
}

// smart raises the disks that say themselves that they are not well, those that
// expect to fail first. Of a disk that failed already there is nothing to add.
func (r *raiser) smart() {
	for _, failing := range []bool{true, false} {
		lines := 0
		for i, d := range r.m.Disks {
			s := r.f.Disks[topology.DiskNum(i)].Smart
			if s.Concern == "" || s.Failing != failing || d.State != topology.DiskUp {
				continue
			}
			if lines++; lines > perCodeMax {
				continue
			}
			next := "smartctl -x on " + r.hostName(d.Host) + "; replace it if the numbers grow"
			if failing {
				next = "replace it soon, while its pieces can still be read"
			}
			r.add(DiskSmartCode, d.Name, next, "%s (serial %s, host %s): %s.", d.Name, s.Serial, r.hostName(d.Host), s.Concern)
		}
		if lines > perCodeMax {
			r.add(DiskSmartCode, "", "ashlar status --json", "… and %s more.", plural(lines-perCodeMax, "disk"))
		}
	}
}
