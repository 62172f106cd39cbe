package health

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ashlar"
	"ashlar/placement/layout"
	"ashlar/placement/topology"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// cluster makes a map of zones × hosts × disks with 64 groups and 8 shards.
func cluster(t interface{ Fatal(...any) }, zones, hosts, disks int, large ashlar.Code) *topology.Map {
	m := &topology.Map{Name: "ashlar-dev", Epoch: 14, Settings: topology.Settings{
		Large: large, Small: ashlar.Code{K: 1, M: 2}, GroupBits: 6,
	}}
	for z := range zones {
		for range hosts {
			id := ashlar.HostID(len(m.Hosts) + 1)
			name := fmt.Sprint("b", id)
			m.Hosts = append(m.Hosts, topology.Host{ID: id, Name: name, Zone: fmt.Sprint("z", z+1), Since: noon})
			for d := range disks {
				disk := topology.Disk{Host: id, Name: fmt.Sprintf("%s/d%02d", name, d+1), Bytes: 4 << 30}
				binary.BigEndian.PutUint64(disk.ID[:], uint64(len(m.Disks)+1))
				m.Disks = append(m.Disks, disk)
			}
		}
	}
	table, err := layout.Build(layout.Disks(m), 64, max(large.Pieces(), 3), 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range table {
		m.Groups = append(m.Groups, topology.Group{Disks: row})
	}
	rows, err := layout.Replicas(m.Hosts, 8, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		var s topology.Shard
		for _, h := range row {
			s.Replicas = append(s.Replicas, topology.Replica{ID: 1, Host: h})
		}
		m.Shards = append(m.Shards, s)
	}
	return m
}

func facts(leader string, away ...string) Facts {
	f := Facts{Heard: leader != "", Leader: leader, Disks: map[topology.DiskNum]DiskFacts{}}
	for i := range 5 {
		member := Member{Name: fmt.Sprint("p", i+1), Voting: leader != ""}
		for _, name := range away {
			member.Voting = member.Voting && name != member.Name
		}
		f.Members = append(f.Members, member)
	}
	for i := range 24 {
		f.Disks[topology.DiskNum(i)] = DiskFacts{UsedBytes: 768}
	}
	return f
}

// scrubbed gives every disk a scrub; it is noon.
func scrubbed(f Facts, s DiskScrub) Facts {
	f.Now, s.Period, s.Oldest, s.Bytes = noon, 14*24*time.Hour, noon.Add(-13*24*time.Hour), 4096
	for i := range f.Disks {
		edit(&f, i, func(d *DiskScrub) { *d = s })
	}
	return f
}

func edit(f *Facts, i topology.DiskNum, change func(*DiskScrub)) {
	d := f.Disks[i]
	change(&d.Scrub)
	f.Disks[i] = d
}

func down(m *topology.Map, hosts ...int) {
	for _, h := range hosts {
		m.Hosts[h].State, m.Hosts[h].Since = topology.HostDown, noon.Add(time.Duration(h)*time.Second)
	}
}

// TestRender feeds fixed states to the renderer; testdata holds what it prints.
func TestRender(t *testing.T) {
	dev := ashlar.Code{K: 4, M: 2}
	tests := map[string]func(t *testing.T) (*topology.Map, Facts){
		"healthy": func(t *testing.T) (*topology.Map, Facts) { return cluster(t, 3, 2, 4, dev), facts("p2") },
		"repairing": func(t *testing.T) (*topology.Map, Facts) {
			f := facts("p2")
			f.RepairPieces = 17
			return cluster(t, 3, 2, 4, dev), f
		},
		"scrub-never": func(t *testing.T) (*topology.Map, Facts) {
			return cluster(t, 3, 2, 4, dev), scrubbed(facts("p2"), DiskScrub{Due: noon.Add(13*24*time.Hour + 5*time.Hour)})
		},
		"scrub-done": func(t *testing.T) (*topology.Map, Facts) {
			f := scrubbed(facts("p2"), DiskScrub{Last: noon.Add(-12 * 24 * time.Hour), Due: noon.Add(2 * 24 * time.Hour)})
			edit(&f, 4, func(s *DiskScrub) { s.Repaired = 2 })
			edit(&f, 5, func(s *DiskScrub) { s.Repaired, s.Last = 1, noon.Add(-time.Hour) })
			return cluster(t, 3, 2, 4, dev), f
		},
		"scrub-found": func(t *testing.T) (*topology.Map, Facts) {
			f := scrubbed(facts("p2"), DiskScrub{Last: noon.Add(-90 * time.Minute), Due: noon})
			edit(&f, 4, func(s *DiskScrub) { s.Repaired, s.Waiting = 2, 3 })
			edit(&f, 5, func(s *DiskScrub) { s.Unread, s.Last = 1, time.Time{} })
			return cluster(t, 3, 2, 4, dev), f
		},
		"scrub-overdue": func(t *testing.T) (*topology.Map, Facts) {
			m, f := cluster(t, 3, 2, 4, dev), scrubbed(facts("p2"), DiskScrub{Last: noon.Add(-3 * 24 * time.Hour), Due: noon})
			for i := range topology.DiskNum(11) { // the first is failed: it is not scrubbed and not missed
				edit(&f, i, func(s *DiskScrub) { s.Oldest = noon.Add(-18 * 24 * time.Hour) })
			}
			edit(&f, 12, func(s *DiskScrub) { s.Oldest = noon.Add(-17 * 24 * time.Hour) }) // late, not overdue
			m.Disks[0].State = topology.DiskFailed
			return m, f
		},
		"disk-failed": func(t *testing.T) (*topology.Map, Facts) {
			m, f := cluster(t, 3, 2, 4, dev), facts("p2")
			m.Disks[1].State = topology.DiskFailed
			f.Disks[1] = DiskFacts{UsedBytes: 768, Reason: "write EIO, three times"}
			return m, f
		},
		"disk-smart": func(t *testing.T) (*topology.Map, Facts) { // fault 31
			m, f := cluster(t, 3, 2, 4, dev), facts("p2")
			f.Disks[3] = DiskFacts{Smart: DiskSmart{Known: true, Serial: "ZL2A7K10", Concern: "8 sectors cannot be read and wait to be replaced", Pending: 8}}
			f.Disks[9] = DiskFacts{Smart: DiskSmart{Known: true, Serial: "ZL2A7KQ4", Failing: true, Concern: "it expects to fail: its self-assessment fails"}}
			f.Disks[10] = DiskFacts{Smart: DiskSmart{Known: true, Serial: "ZL2A7KQ5", Reallocated: 3}}
			m.Disks[1].State = topology.DiskFailed // said what it said, and is gone
			f.Disks[1] = DiskFacts{Reason: "write EIO, three times", Smart: f.Disks[9].Smart}
			return m, f
		},
		"two-disks-failed": func(t *testing.T) (*topology.Map, Facts) {
			m := cluster(t, 3, 2, 4, dev)
			m.Disks[m.Groups[0].Disks[0]].State = topology.DiskFailed
			m.Disks[m.Groups[0].Disks[1]].State = topology.DiskFailed
			return m, facts("p2")
		},
		"host-down": func(t *testing.T) (*topology.Map, Facts) {
			m := cluster(t, 3, 2, 4, dev)
			down(m, 3)
			return m, facts("p2", "p4")
		},
		"zone-down": func(t *testing.T) (*topology.Map, Facts) {
			m, f := cluster(t, 3, 2, 4, dev), facts("p2", "p4", "p5")
			down(m, 2, 3)
			f.Suspected = []string{"b3", "b4"}
			return m, f
		},
		"three-zones-twelve": func(t *testing.T) (*topology.Map, Facts) {
			return cluster(t, 3, 4, 2, ashlar.Code{K: 8, M: 4}), facts("p1")
		},
		"unavailable": func(t *testing.T) (*topology.Map, Facts) {
			m := cluster(t, 3, 2, 4, dev)
			down(m, 0, 2, 4)
			return m, facts("p2")
		},
		"forming": func(t *testing.T) (*topology.Map, Facts) {
			m, f := cluster(t, 2, 2, 4, ashlar.Code{K: 2, M: 1}), facts("p2")
			m.Groups, m.Shards = nil, nil
			f.Forming = "4 of 6 hosts and 16 of 24 disks are here"
			return m, f
		},
		"no-leader": func(t *testing.T) (*topology.Map, Facts) {
			f := facts("")
			f.Disks = nil
			return cluster(t, 3, 2, 4, dev), f
		},
		"one-host": func(t *testing.T) (*topology.Map, Facts) { return cluster(t, 1, 1, 6, dev), facts("p1") },
		"full-unused-broken": func(t *testing.T) (*topology.Map, Facts) {
			m, f := cluster(t, 3, 2, 4, dev), facts("p2")
			f.Disks[5] = DiskFacts{UsedBytes: 4<<30 - 1}
			extra := m.Disks[0]
			extra.ID[15], extra.Name = 9, "b1/d05"
			m.Disks = append(m.Disks, extra)
			m.Groups[3].Disks[2] = m.Groups[3].Disks[0]
			return m, f
		},
		"nearfull": func(t *testing.T) (*topology.Map, Facts) {
			m, f := cluster(t, 3, 2, 4, dev), facts("p2")
			for i := range f.Disks {
				f.Disks[i] = DiskFacts{UsedBytes: 7 << 29} // of 4 GiB
			}
			roomy(m, &f, func(int) uint32 { return 1 })
			return m, f
		},
		"full": func(t *testing.T) (*topology.Map, Facts) {
			m, f := cluster(t, 3, 2, 4, dev), facts("p2")
			for i := range f.Disks {
				f.Disks[i] = DiskFacts{UsedBytes: 15 << 28}
			}
			roomy(m, &f, func(n int) uint32 { return uint32(one(n%4 == 0)) })
			return m, f
		},
		"full-degraded": func(t *testing.T) (*topology.Map, Facts) { // what was deleted is not compacted yet
			m, f := cluster(t, 3, 2, 4, dev), facts("p2")
			for i := range f.Disks {
				f.Disks[i] = DiskFacts{UsedBytes: 2 << 30}
			}
			roomy(m, &f, func(n int) uint32 { return 0 })
			m.Disks[1].State = topology.DiskFailed
			return m, f
		},
		"small-segments": func(t *testing.T) (*topology.Map, Facts) { // of which a piece takes more than half
			m, f := cluster(t, 3, 2, 4, dev), facts("p2")
			for i := range m.Disks {
				m.Disks[i].Bytes = 11 * (4<<20 - 12288)
			}
			roomy(m, &f, func(n int) uint32 { return 11 })
			for i, d := range f.Disks {
				d.Room.SegmentBytes = 4<<20 - 12288
				f.Disks[i] = d
			}
			return m, f
		},
		"many-hosts-down": func(t *testing.T) (*topology.Map, Facts) {
			m := cluster(t, 3, 6, 2, ashlar.Code{K: 8, M: 4})
			down(m, 0, 1, 2, 3, 6, 7, 8, 9, 12, 13, 14)
			m.Hosts[15].State = topology.HostOut
			return m, facts("p2")
		},
	}
	for name, build := range tests {
		t.Run(name, func(t *testing.T) {
			st := Judge(build(t))
			if name == "no-leader" {
				st.AsOf = "the last map that p3 holds, epoch 14: no leader answers it"
			}
			var got bytes.Buffer
			if err := st.Render(&got); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".txt")
			if *rewrite {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
			}
			for _, c := range st.Codes {
				if c.Next == "" {
					t.Errorf("%s has no next step", c.Code)
				}
			}
			sameJSON(t, st)
		})
	}
}

// sameJSON checks that a status survives the wire.
func sameJSON(t *testing.T, st Status) {
	t.Helper()
	b, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	var back Status
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	var want, got bytes.Buffer
	st.Render(&want)
	back.Render(&got)
	if want.String() != got.String() {
		t.Errorf("after JSON:\n%s\nbefore:\n%s", got.String(), want.String())
	}
}

// TestSurvivalIsExact compares the counted answer with the plain definition:
// kill every subset, look whether every group and every shard still serves.
func TestSurvivalIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		code := rapid.SampledFrom([]ashlar.Code{{K: 2, M: 1}, {K: 2, M: 2}, {K: 4, M: 2}, {K: 3, M: 3}}).Draw(t, "code")
		zones := rapid.IntRange(1, 3).Draw(t, "zones")
		hosts := rapid.IntRange(1, 2).Draw(t, "hosts")
		disks := rapid.IntRange(1, 2).Draw(t, "disks")
		if zones*hosts*disks < max(code.Pieces(), 3) {
			disks = (max(code.Pieces(), 3) + zones*hosts - 1) / (zones * hosts)
		}
		m := cluster(t, zones, hosts, disks, code)
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(m.Disks)-1), 0, 3).Draw(t, "failed") {
			m.Disks[i].State = topology.DiskFailed
		}
		if rapid.Bool().Draw(t, "host down") {
			down(m, rapid.IntRange(0, len(m.Hosts)-1).Draw(t, "which"))
		}
		c := count(m, Facts{})
		for _, tt := range []struct {
			name string
			need func(ashlar.Code) int
			got  Survival
		}{
			{"reads", func(c ashlar.Code) int { return int(c.K) }, c.reads},
			{"writes", ashlar.Code.Quorum, c.writes},
		} {
			want := Survival{
				Disks: byForce(m, tt.need, len(m.Disks), killDisk),
				Hosts: byForce(m, tt.need, len(m.Hosts), killHost),
				Zones: byForce(m, tt.need, zones, killZone),
			}
			if want != tt.got {
				t.Fatalf("%s: counted %+v, by force %+v", tt.name, tt.got, want)
			}
		}
	})
}

func killDisk(m *topology.Map, i int) bool {
	was := m.Live(topology.DiskNum(i))
	m.Disks[i].State = topology.DiskFailed
	return was
}

func killHost(m *topology.Map, i int) bool {
	was := m.Hosts[i].State == topology.HostUp
	m.Hosts[i].State = topology.HostDown
	return was
}

func killZone(m *topology.Map, i int) bool {
	was := false
	for h := range m.Hosts {
		if m.Hosts[h].Zone == fmt.Sprint("z", i+1) {
			was = killHost(m, h) || was
		}
	}
	return was
}

// byForce returns the greatest n such that after any n living things are
// killed everything serves; -1 if it does not even now.
func byForce(m *topology.Map, need func(ashlar.Code) int, things int, kill func(*topology.Map, int) bool) int {
	fails := things + 1 // fewest kills after which something does not serve
	for set := range 1 << things {
		n := bits.OnesCount(uint(set))
		if n >= fails {
			continue
		}
		c := m.Clone()
		living := 0
		for i := range things {
			if set>>i&1 == 1 && kill(c, i) {
				living++
			}
		}
		if living == n && !serves(c, need) {
			fails = n
		}
	}
	return fails - 1
}

func serves(m *topology.Map, need func(ashlar.Code) int) bool {
	for _, g := range m.Groups {
		for _, code := range []ashlar.Code{m.Settings.Large, m.Settings.Small} {
			live := 0
			for _, n := range g.Disks[:code.Pieces()] {
				live += one(m.Live(n))
			}
			if live < need(code) {
				return false
			}
		}
	}
	for _, s := range m.Shards {
		live := 0
		for _, r := range s.Replicas {
			live += one(m.Host(r.Host).State == topology.HostUp)
		}
		if 2*live <= len(s.Replicas) {
			return false
		}
	}
	return true
}
