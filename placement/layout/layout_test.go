package layout

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"ashlar"
	"ashlar/placement/topology"
)

// shape describes a failure tree: zones[z][r][h] is the number of disks of a host.
type shape [][][]int

func uniform(zones, racks, hosts, disks int) shape {
	s := make(shape, zones)
	for z := range s {
		for range racks {
			row := make([]int, hosts)
			for h := range row {
				row[h] = disks
			}
			s[z] = append(s[z], row)
		}
	}
	return s
}

// build makes a map with the shape's tree; bytes gives each disk its capacity.
func (s shape) build(large ashlar.Code, bits uint8, bytes func(i int) uint64) *topology.Map {
	m := &topology.Map{Settings: topology.Settings{Large: large, Small: ashlar.Code{K: 1, M: 2}, GroupBits: bits}}
	for z, racks := range s {
		for r, hosts := range racks {
			for _, disks := range hosts {
				id := ashlar.HostID(len(m.Hosts) + 1)
				m.Hosts = append(m.Hosts, topology.Host{
					ID: id, Name: fmt.Sprint("h", id), Zone: fmt.Sprint("z", z), Rack: fmt.Sprint("r", r),
				})
				for range disks {
					n := len(m.Disks)
					d := topology.Disk{Host: id, Name: fmt.Sprintf("h%d/d%02d", id, n), Bytes: bytes(n)}
					binary.BigEndian.PutUint64(d.ID[8:], uint64(n)*0x9e3779b97f4a7c15+uint64(id))
					m.Disks = append(m.Disks, d)
				}
			}
		}
	}
	return m
}

func equal(int) uint64 { return 4 << 30 }

// form gives the map a group table.
func form(t interface{ Fatal(...any) }, m *topology.Map) {
	width := max(m.Settings.Large.Pieces(), m.Settings.Small.Pieces())
	table, err := Build(Disks(m), 1<<m.Settings.GroupBits, width, m.Settings.Small.Pieces())
	if err != nil {
		t.Fatal(err)
	}
	m.Groups = nil
	for _, row := range table {
		m.Groups = append(m.Groups, topology.Group{Disks: row})
	}
}

// fullness returns the greatest and the mean number of slots per unit of
// weight, relative to the mean, and the same for first and early positions.
func fullness(m *topology.Map) (slots, first, early float64) {
	n := make([][3]float64, len(m.Disks))
	var sum [3]float64
	weight := 0.0
	for _, g := range m.Groups {
		for i, d := range g.Disks {
			n[d][0]++
			if i == 0 {
				n[d][1]++
			}
			if i < m.Settings.Small.Pieces() {
				n[d][2]++
			}
		}
	}
	for i := range n {
		weight += float64(m.Disks[i].Bytes)
		for j := range sum {
			sum[j] += n[i][j]
		}
	}
	var worst [3]float64
	for i := range n {
		for j := range sum {
			worst[j] = max(worst[j], n[i][j]/float64(m.Disks[i].Bytes)/(sum[j]/weight))
		}
	}
	return worst[0], worst[1], worst[2]
}

func TestBalance(t *testing.T) {
	tests := []struct {
		name  string
		shape shape
		code  ashlar.Code
		bits  uint8
		bytes func(int) uint64
		slots float64 // fullest disk over the mean
		first float64 // the same for position 0
	}{
		{"dev 3×2×4, 4+2, 64 groups", uniform(3, 1, 2, 4), ashlar.Code{K: 4, M: 2}, 6, equal, 1.0, 1.13},
		{"dev 3×2×4, 4+2", uniform(3, 1, 2, 4), ashlar.Code{K: 4, M: 2}, 12, equal, 1.0, 1.02},
		{"one host, 6 disks", uniform(1, 1, 1, 6), ashlar.Code{K: 4, M: 2}, 12, equal, 1.0, 1.07},
		{"3 × 4 racks × 3 hosts × 24, 8+4, 16384", uniform(3, 4, 3, 24), ashlar.Code{K: 8, M: 4}, 14, equal, 1.02, 1.06},
		{"5 zones × 2 × 3 × 6, 8+4", uniform(5, 2, 3, 6), ashlar.Code{K: 8, M: 4}, 12, equal, 1.02, 1.07},
		{"4 zones, 9+6", uniform(4, 2, 3, 6), ashlar.Code{K: 9, M: 6}, 12, equal, 1.02, 1.05},
		{"two sizes of disk", uniform(3, 2, 3, 8), ashlar.Code{K: 4, M: 2}, 13,
			func(i int) uint64 { return uint64(1+i%2) << 40 }, 1.02, 1.05},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.shape.build(tt.code, tt.bits, tt.bytes)
			form(t, m)
			slots, first, early := fullness(m)
			t.Logf("%d disks, %.1f slots each: fullest %.4f, first %.4f, early %.4f of the mean", len(m.Disks),
				float64(len(m.Groups)*len(m.Groups[0].Disks))/float64(len(m.Disks)), slots, first, early)
			if slots > tt.slots+tiny {
				t.Errorf("fullest disk has %.4f × the mean, want ≤ %.4f", slots, tt.slots)
			}
			if first > tt.first {
				t.Errorf("busiest first disk has %.4f × the mean, want ≤ %.4f", first, tt.first)
			}
			for _, v := range Check(m) {
				t.Error(v)
			}
		})
	}
}

// TestLargeBalance is the size of design.md §11: 7,500 disks with too few slots
// each for 2 %; the whole number above the mean is the limit.
func TestLargeBalance(t *testing.T) {
	m := uniform(3, 5, 5, 100).build(ashlar.Code{K: 8, M: 4}, 13, equal)
	form(t, m)
	per := make([]int, len(m.Disks))
	for _, g := range m.Groups {
		for _, d := range g.Disks {
			per[d]++
		}
	}
	mean := float64(len(m.Groups)*12) / float64(len(m.Disks))
	t.Logf("%d disks, mean %.2f slots, least %d, most %d", len(per), mean, slices.Min(per), slices.Max(per))
	if most := slices.Max(per); float64(most) > math.Ceil(mean) {
		t.Errorf("fullest disk has %d slots, mean is %.2f", most, mean)
	}
	if v := Check(m); len(v) > 0 {
		t.Errorf("%d violations, first: %v", len(v), v[0])
	}
}

func TestSpread(t *testing.T) {
	tests := []struct {
		name                string
		shape               shape
		code                ashlar.Code
		zone, rack, host    int // most pieces of a group in one
		firstThree, inZones int // the first so many are in at least so many zones
	}{
		{"8+4 in three zones", uniform(3, 4, 2, 4), ashlar.Code{K: 8, M: 4}, 4, 1, 1, 3, 3},
		{"8+4 in three zones of two racks", uniform(3, 2, 2, 4), ashlar.Code{K: 8, M: 4}, 4, 2, 1, 3, 3},
		{"4+2 dev", uniform(3, 1, 2, 4), ashlar.Code{K: 4, M: 2}, 2, 2, 1, 3, 3},
		{"4+2 on three hosts", uniform(3, 1, 1, 4), ashlar.Code{K: 4, M: 2}, 2, 2, 2, 3, 3},
		{"two zones: racks take over", uniform(2, 3, 2, 4), ashlar.Code{K: 4, M: 2}, 3, 1, 1, 2, 2},
		{"one zone, twelve racks", uniform(1, 12, 2, 4), ashlar.Code{K: 8, M: 4}, 12, 1, 1, 3, 1},
		{"one zone, one rack, six hosts", uniform(1, 1, 6, 2), ashlar.Code{K: 4, M: 2}, 6, 6, 1, 3, 1},
		{"one host", uniform(1, 1, 1, 8), ashlar.Code{K: 4, M: 2}, 6, 6, 6, 3, 1},
		{"a small zone gives what it has", shape{{{1}}, {{4, 4}}, {{4, 4}}}, ashlar.Code{K: 4, M: 2}, 3, 3, 2, 3, 2},
		{"a lone host in a rack is not doubled", shape{{{4, 4, 4}, {4}}}, ashlar.Code{K: 2, M: 2}, 4, 3, 1, 3, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.shape.build(tt.code, 8, equal)
			form(t, m)
			for _, v := range Check(m) {
				t.Error(v)
			}
			most := map[string]int{}
			for _, g := range m.Groups {
				count := map[string]int{}
				zones := map[string]bool{}
				for i, n := range g.Disks {
					h := m.Host(m.Disks[n].Host)
					count["zone "+h.Zone]++
					count["rack "+h.Zone+h.Rack]++
					count["host "+h.Name]++
					if i < tt.firstThree {
						zones[h.Zone] = true
					}
				}
				for k, v := range count {
					most[k[:4]] = max(most[k[:4]], v)
				}
				if len(zones) < tt.inZones {
					t.Fatalf("first %d disks are in %d zones, want ≥ %d", tt.firstThree, len(zones), tt.inZones)
				}
			}
			if most["zone"] != tt.zone || most["rack"] != tt.rack || most["host"] != tt.host {
				t.Errorf("most pieces in one zone, rack, host: %d, %d, %d; want %d, %d, %d",
					most["zone"], most["rack"], most["host"], tt.zone, tt.rack, tt.host)
			}
		})
	}
}

// TestAnyTree builds tables over arbitrary trees: no rule is broken, and no
// disk is more than two slots beyond the whole number above its share of the
// slots of its host.
func TestAnyTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := make(shape, rapid.IntRange(1, 5).Draw(t, "zones"))
		for z := range s {
			s[z] = make([][]int, rapid.IntRange(1, 4).Draw(t, "racks"))
			for r := range s[z] {
				s[z][r] = rapid.SliceOfN(rapid.IntRange(1, 5), 1, 4).Draw(t, "disks")
			}
		}
		code := rapid.SampledFrom([]ashlar.Code{{K: 1, M: 2}, {K: 4, M: 2}, {K: 8, M: 4}, {K: 6, M: 6}}).Draw(t, "code")
		sizes := rapid.SliceOfN(rapid.Uint64Range(1, 4), 4, 4).Draw(t, "sizes")
		m := s.build(code, 7, func(i int) uint64 { return sizes[i%4] << 40 })
		if len(m.Disks) < code.Pieces() {
			if _, err := Build(Disks(m), 128, code.Pieces(), 3); !ashlar.Is(err, ashlar.Invalid) {
				t.Fatalf("%d disks for %v: %v", len(m.Disks), code, err)
			}
			return
		}
		form(t, m)
		for _, v := range Check(m) {
			t.Error(v)
		}
		onHost, onDisk := map[ashlar.HostID]int{}, map[topology.DiskNum]int{}
		for _, g := range m.Groups {
			for _, n := range g.Disks {
				onDisk[n]++
				onHost[m.Disks[n].Host]++
			}
		}
		weight := map[ashlar.HostID]float64{}
		same := map[ashlar.HostID]bool{}
		for _, d := range m.Disks {
			same[d.Host] = weight[d.Host] == 0 || same[d.Host] && weight[d.Host] == float64(d.Bytes)
			weight[d.Host] = max(weight[d.Host], float64(d.Bytes))
		}
		disks := map[ashlar.HostID]int{}
		for _, d := range m.Disks {
			disks[d.Host]++
		}
		for i, d := range m.Disks {
			n := topology.DiskNum(i)
			if mean := float64(onHost[d.Host]) / float64(disks[d.Host]); same[d.Host] && math.Abs(float64(onDisk[n])-mean) > 1+tiny {
				t.Errorf("disk %d has %d slots, its equals on host %d %.2f", i, onDisk[n], d.Host, mean)
			}
		}
	})
}

func TestDeterministic(t *testing.T) {
	m := uniform(3, 2, 2, 4).build(ashlar.Code{K: 4, M: 2}, 8, equal)
	disks := Disks(m)
	want, err := Build(disks, 256, 6, 3)
	if err != nil {
		t.Fatal(err)
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(disks), func(i, j int) { disks[i], disks[j] = disks[j], disks[i] })
	got, err := Build(disks, 256, 6, 3)
	if err != nil {
		t.Fatal(err)
	}
	for g := range want {
		if !slices.Equal(got[g], want[g]) {
			t.Fatalf("group %d: %v, in another order of disks %v", g, want[g], got[g])
		}
	}
}

func TestTooFewDisks(t *testing.T) {
	m := uniform(2, 1, 1, 2).build(ashlar.Code{K: 4, M: 2}, 4, equal)
	_, err := Build(Disks(m), 16, 6, 3)
	const want = "placement: layout: a group has 6 pieces on as many disks, but there are 4 disks (2 in zone z0, 2 in zone z1): add 2 disks or choose a narrower code"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestReplicas(t *testing.T) {
	m := uniform(3, 1, 2, 1).build(ashlar.Code{K: 4, M: 2}, 4, equal)
	rows, err := Replicas(m.Hosts, 16, 3)
	if err != nil {
		t.Fatal(err)
	}
	per, first := map[ashlar.HostID]int{}, map[ashlar.HostID]int{}
	for _, row := range rows {
		zones := map[string]bool{}
		for _, h := range row {
			zones[m.Host(h).Zone] = true
			per[h]++
		}
		first[row[0]]++
		if len(row) != 3 || len(zones) != 3 {
			t.Fatalf("replicas %v are in %d zones", row, len(zones))
		}
	}
	for _, h := range m.Hosts {
		if per[h.ID] != 8 || first[h.ID] < 2 || first[h.ID] > 3 {
			t.Errorf("host %d has %d replicas, %d of them first; want 8 and 2 or 3", h.ID, per[h.ID], first[h.ID])
		}
	}
	if rows, err = Replicas(m.Hosts[:2], 4, 3); err != nil || len(rows[0]) != 1 {
		t.Errorf("two hosts: %v, %v; want one replica each", rows, err)
	}
}

// TestCheckFinds breaks a good map in every way that Check names.
func TestCheckFinds(t *testing.T) {
	breaks := map[string]func(g *topology.Group){
		"width": func(g *topology.Group) { g.Disks = g.Disks[:5] },
		"twice": func(g *topology.Group) { g.Disks[3] = g.Disks[0] },
		"order": func(g *topology.Group) { g.Disks[1], g.Disks[3] = g.Disks[3], g.Disks[1] },
	}
	for rule, do := range breaks {
		m := uniform(3, 1, 2, 4).build(ashlar.Code{K: 4, M: 2}, 6, equal)
		form(t, m)
		do(&m.Groups[7])
		assertFound(t, m, rule)
	}
	// The whole table on one host of each zone, or in fewer zones or racks than there are.
	m := uniform(3, 2, 2, 4).build(ashlar.Code{K: 4, M: 2}, 6, equal)
	form(t, m)
	m.Groups[7].Disks = []topology.DiskNum{0, 16, 32, 1, 17, 33} // disks 0–3 are on one host
	assertFound(t, m, "host")
	m.Groups[7].Disks = []topology.DiskNum{0, 16, 32, 4, 20, 36} // hosts 0–7 are in one rack
	assertFound(t, m, "rack")
	m.Groups[7].Disks = []topology.DiskNum{0, 16, 4, 20, 8, 24} // two zones only
	assertFound(t, m, "zone")
}

func assertFound(t *testing.T, m *topology.Map, rule string) {
	t.Helper()
	found := Check(m)
	for _, v := range found {
		if v.Group == 7 && v.Rule == rule {
			return
		}
	}
	t.Errorf("a breach of rule %q was not found: %v", rule, found)
}
