package health

import (
	"fmt"
	"slices"

	"ashlar"
	"ashlar/placement/topology"
)

const (
	// nearFullPercent of what fits raises NEARFULL. The rest is what a large failure needs
	// while it is repaired, and the weeks in which disks are bought; below it disks also
	// begin to compact more for each byte that is written.
	nearFullPercent = 85
	// recordHead is what a piece needs in a segment besides its bytes and their
	// checksums, with the longest key; recordSums of its bytes are one of checksums.
	recordHead, recordSums = 2048, 1024
)

// DiskRoom is what a disk can still take, as its host says. The host did not say if
// SegmentBytes is zero.
type DiskRoom struct {
	// Segments are free and may be taken by pieces; SegmentBytes of records fit each.
	Segments     uint32
	SegmentBytes uint64
}

// full reports whether the disk has no segment left that pieces may take.
func (d DiskRoom) full() bool { return d.SegmentBytes > 0 && d.Segments == 0 }

// Room is how much can still be written. Bytes are user bytes of whole stripes in the
// large code, spread over the groups as keys spread them.
type Room struct {
	// WritableBytes fit until some PUT is refused because disks are full.
	WritableBytes uint64 `json:"writable_bytes"`
	// ReclaimableBytes fit on top when compaction has given back what was deleted.
	ReclaimableBytes uint64 `json:"reclaimable_bytes"`
	// UsedPercent is the share of what fits that is taken, and will be after compaction.
	UsedPercent int `json:"used_percent"`
	// DisksFull take no more pieces; GroupsFull take no PUT because of that.
	DisksFull  int `json:"disks_full"`
	GroupsFull int `json:"groups_full"`
}

// rooms is what is needed to judge how full a cluster is.
type rooms struct {
	m     *topology.Map
	f     Facts
	slots []int // pieces that each disk gets of a large stripe in every group
	piece uint64
}

func newRooms(m *topology.Map, f Facts) *rooms {
	large := m.Settings.Large
	r := &rooms{m: m, f: f, slots: make([]int, len(m.Disks))}
	if large.K > 0 {
		r.piece = uint64(m.Settings.StripeBytes) / uint64(large.K)
	}
	for _, g := range m.Groups {
		for _, n := range g.Disks[:min(large.Pieces(), len(g.Disks))] {
			r.slots[n]++
		}
	}
	return r
}

// record is about what a piece of a whole stripe takes up in a segment.
func (r *rooms) record() uint64 { return r.piece + r.piece/recordSums + recordHead }

// known reports whether the disk's host said what it can take.
func (r *rooms) known(n int) bool {
	return r.piece > 0 && r.f.Disks[topology.DiskNum(n)].Room.SegmentBytes > 0
}

// fits is how many bytes of pieces fit the disk when it is empty. Pieces do not span
// segments: where these are small, much of them stays empty.
func (r *rooms) fits(n int) uint64 {
	d := r.m.Disks[n].Bytes
	if !r.known(n) {
		return d
	}
	room := r.f.Disks[topology.DiskNum(n)].Room
	return d / room.SegmentBytes * (room.SegmentBytes / r.record()) * r.piece
}

// writable is how many bytes of pieces the disk can take now, later how many when
// what was deleted is given back.
func (r *rooms) writable(n int) (now, later uint64) {
	d := r.f.Disks[topology.DiskNum(n)]
	now = uint64(d.Room.Segments) * (d.Room.SegmentBytes / r.record()) * r.piece
	used, fits := d.UsedBytes/r.record()*r.piece, r.fits(n)
	return now, max(now, fits-min(used, fits))
}

// usable is how many user bytes fit until the first disk is full: every group takes the
// same share of what comes.
func (r *rooms) usable() uint64 {
	perSlot := -1.0
	for i, n := range r.slots {
		if fit := float64(r.fits(i)) / float64(n); n > 0 && (perSlot < 0 || fit < perSlot) {
			perSlot = fit
		}
	}
	return r.userBytes(max(perSlot, 0))
}

// userBytes are those in the cluster when every group has taken perPiece bytes of each piece.
func (r *rooms) userBytes(perPiece float64) uint64 {
	return uint64(perPiece * float64(len(r.m.Groups)*int(r.m.Settings.Large.K)))
}

// room adds up what the hosts say; nil if one that answers does not.
func (r *rooms) room(usable uint64) *Room {
	room := &Room{}
	now, later := make([]float64, len(r.m.Disks)), make([]float64, len(r.m.Disks))
	for i, slots := range r.slots {
		if slots == 0 || !r.m.Live(topology.DiskNum(i)) {
			continue
		}
		if !r.known(i) {
			return nil
		}
		room.DisksFull += one(r.f.Disks[topology.DiskNum(i)].Room.full())
		n, l := r.writable(i)
		now[i], later[i] = float64(n)/float64(slots), float64(l)/float64(slots)
	}
	worst, worstLater := -1.0, -1.0
	for i := range r.m.Groups {
		if r.groupFull(&r.m.Groups[i]) {
			room.GroupsFull++
		}
		if takes, ok := r.takes(&r.m.Groups[i], now); ok && (worst < 0 || takes < worst) {
			worst = takes
		}
		if takes, ok := r.takes(&r.m.Groups[i], later); ok && (worstLater < 0 || takes < worstLater) {
			worstLater = takes
		}
	}
	room.WritableBytes = r.userBytes(max(worst, 0))
	all := r.userBytes(max(worstLater, 0))
	room.ReclaimableBytes = all - room.WritableBytes
	if usable > 0 {
		room.UsedPercent = int((usable - min(all, usable)) * 100 / usable)
	}
	return room
}

// takes is how much of each piece the group can take until a PUT of a whole stripe has too
// few disks; not ok: it has too few as it is.
func (r *rooms) takes(g *topology.Group, perDisk []float64) (bytes float64, ok bool) {
	code := r.m.Settings.Large
	var left []float64
	for _, n := range g.Disks[:min(code.Pieces(), len(g.Disks))] {
		if r.m.Live(n) {
			left = append(left, perDisk[n])
		}
	}
	if len(left) < code.Quorum() || code.K == 0 {
		return 0, false
	}
	slices.Sort(left)
	return left[len(left)-code.Quorum()], true
}

// groupFull reports whether the group would take a PUT of either code if no disk were full.
func (r *rooms) groupFull(g *topology.Group) bool {
	for _, code := range []ashlar.Code{r.m.Settings.Large, r.m.Settings.Small} {
		live, free := 0, 0
		for _, n := range g.Disks[:min(code.Pieces(), len(g.Disks))] {
			up := r.m.Live(n)
			live += one(up)
			free += one(up && !r.f.Disks[n].Room.full())
		}
		if live >= code.Quorum() && free < code.Quorum() {
			return true
		}
	}
	return false
}

// near reports whether there is reason to act before PUTs are refused.
func (r *Room) near() bool { return r != nil && r.UsedPercent >= nearFullPercent }

// of says in words how much can still be written to so many groups.
func (r *Room) of(groups int) string {
	s := size(r.WritableBytes) + " more can be written"
	if r.GroupsFull > 0 {
		s = fmt.Sprintf("nothing more can be written to %d of %s", r.GroupsFull, plural(groups, "group"))
	}
	if r.ReclaimableBytes > 0 {
		s += fmt.Sprintf("; %s on top when what was deleted is compacted", size(r.ReclaimableBytes))
	}
	return s
}

// makeRoom is what helps.
const makeRoom = "delete objects, old versions or unfinished uploads: `ashlar gc status` says what waits to be freed"

// room raises that the cluster is full, or soon will be.
func (r *raiser) room() {
	room := r.st.Room
	switch {
	case room == nil:
	case room.GroupsFull > 0:
		var names []string
		for i, d := range r.m.Disks {
			if r.slots[i] > 0 && r.m.Live(topology.DiskNum(i)) && r.f.Disks[topology.DiskNum(i)].Room.full() {
				names = append(names, d.Name)
			}
		}
		r.add(Full, "", makeRoom, "PUTs to %d of %s get 503: %d of %s are full (%s). Reads and deletes go on.", room.GroupsFull,
			plural(len(r.m.Groups), "group"), room.DisksFull, plural(len(r.m.Disks), "disk"), list(names))
	case room.near():
		r.add(NearFull, "", makeRoom, "%d %% of what fits is stored: %s. Then PUTs are refused.", room.UsedPercent, room.of(len(r.m.Groups)))
	}
}
