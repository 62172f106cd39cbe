package health

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"ashlar"
	"ashlar/placement/topology"
)

const (
	testStripe  = 8 << 20
	testSegment = 256 << 20
)

// roomy gives every disk of a cluster free segments, as a host tells it.
func roomy(m *topology.Map, f *Facts, free func(n int) uint32) {
	m.Settings.StripeBytes = testStripe
	for i := range m.Disks {
		d := f.Disks[topology.DiskNum(i)]
		d.Room = DiskRoom{Segments: free(i), SegmentBytes: testSegment}
		f.Disks[topology.DiskNum(i)] = d
	}
}

// TestRoomIsWhatAModelWrites writes stripes to the groups in turn until one is refused,
// piece by piece, and compares how many they were.
func TestRoomIsWhatAModelWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		code := rapid.SampledFrom([]ashlar.Code{{K: 2, M: 1}, {K: 4, M: 2}, {K: 3, M: 3}}).Draw(t, "code")
		m := cluster(t, 3, 2, rapid.IntRange(1, 3).Draw(t, "disks"), code)
		f := Facts{Disks: map[topology.DiskNum]DiskFacts{}}
		even := rapid.Bool().Draw(t, "even")
		roomy(m, &f, func(int) uint32 {
			if even {
				return 3
			}
			return uint32(rapid.IntRange(0, 4).Draw(t, "free"))
		})
		if rapid.Bool().Draw(t, "a disk is dead") {
			m.Disks[rapid.IntRange(0, len(m.Disks)-1).Draw(t, "which")].State = topology.DiskFailed
		}
		st := Judge(m, f)

		r := newRooms(m, f)
		left := make([]int, len(m.Disks))
		for i := range left {
			left[i] = int(f.Disks[topology.DiskNum(i)].Room.Segments) * int(testSegment/r.record())
		}
		full := func(g topology.Group, code ashlar.Code) bool { // it would take a PUT if no disk were full
			live, free := 0, 0
			for _, d := range g.Disks[:code.Pieces()] {
				live += one(m.Live(d))
				free += one(m.Live(d) && left[d] > 0)
			}
			return live >= code.Quorum() && free < code.Quorum()
		}
		groups, rounds := 0, 0
		for _, g := range m.Groups {
			groups += one(full(g, code) || full(g, m.Settings.Small))
		}
		if st.Worst.Unwritable == len(m.Groups) {
			return // there is nothing to compare: no PUT is taken
		}
		for ; !slices.ContainsFunc(m.Groups, func(g topology.Group) bool { return full(g, code) }); rounds++ {
			for _, g := range m.Groups {
				for _, d := range g.Disks[:code.Pieces()] {
					left[d] = max(0, left[d]-one(m.Live(d)))
				}
			}
		}
		writable := int(st.Room.WritableBytes)
		perRound := len(m.Groups) * int(code.K) * int(r.piece)
		if least := (rounds - 1) * perRound; writable < least || writable > (rounds+1)*perRound {
			t.Fatalf("%d bytes writable, the model wrote %d rounds of %d", writable, rounds, perRound)
		}
		if st.Room.GroupsFull != groups {
			t.Fatalf("%d groups full, the model says %d", st.Room.GroupsFull, groups)
		}
		if (st.Room.GroupsFull > 0) != slices.ContainsFunc(st.Codes, func(c Code) bool { return c.Code == Full }) {
			t.Fatalf("%d groups full: %v", st.Room.GroupsFull, st.Codes)
		}
	})
}

// TestRoomIsUnknown: a host of before says nothing of it.
func TestRoomIsUnknown(t *testing.T) {
	m, f := cluster(t, 3, 2, 4, ashlar.Code{K: 4, M: 2}), facts("p2")
	roomy(m, &f, func(int) uint32 { return 0 })
	if st := Judge(m, f); st.Verdict != IsFull || st.Room == nil || st.Room.GroupsFull != len(m.Groups) {
		t.Errorf("%s, %+v", st.Verdict, st.Room)
	}
	f.Disks[3] = DiskFacts{UsedBytes: 768}
	if st := Judge(m, f); st.Verdict != Healthy || st.Room != nil {
		t.Errorf("%s, %+v", st.Verdict, st.Room)
	}
}
