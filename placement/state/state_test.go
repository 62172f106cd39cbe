package state

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ashlar"
	"ashlar/placement/health"
	"ashlar/placement/layout"
	"ashlar/placement/topology"
)

var rewrite = flag.Bool("rewrite", false, "write the scripts' answers anew")

// TestScripts plays the stories in testdata. A script is a list of commands,
// each followed by ---- and what it must print:
//
//	new [hosts=N] [disks=N] [code=k+m]  a new cluster; OutAfter is 10 s, DownAfter 3 s
//	beat NAME [zone=Z] [id=N] [boot=N] [cluster=other] [delta] [disks=a,b!] [repair=N]
//	     a heartbeat; a disk with ! failed
//	run DURATION [NAME…]  time passes in ticks of 250 ms, the named hosts send heartbeats
//	sleep DURATION        time passes without ticks: the machine itself was stopped
//	takeover              a new machine goes on from the written map
//	facts                 what health is told
//	lead                  from now on the leaders of shards report, in run, if a
//	                      majority of the voters is among the named hosts
//	settle                the leaders make the map's lists the voters
//	lost NAME [N…]        the host says from now on that these replicas are lost
//	move SHARD FROM TO    an order to move a replica
//
// What it prints is the answer and what changed in the map.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, want)
			if *rewrite {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: got\n%s", file, firstDifference(got, want))
			}
		})
	}
}

// play runs a script and returns it with the answers that were given.
func play(t *testing.T, script []byte) []byte {
	var out bytes.Buffer
	s := &stage{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), hosts: map[string]Heartbeat{}}
	skipping := false
	lines := bufio.NewScanner(bytes.NewReader(script))
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line == "----":
		case skipping && line != "":
			continue
		case line == "" || strings.HasPrefix(line, "#"):
			skipping = false
			fmt.Fprintln(&out, line)
		default:
			fmt.Fprintf(&out, "%s\n----\n%s", line, s.command(strings.Fields(line)))
			skipping = true
		}
	}
	return out.Bytes()
}

func firstDifference(got, want []byte) string {
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			return fmt.Sprintf("line %d:\n  got  %q\n  want %q", i+1, g[i], strings.Join(w[i:min(i+1, len(w))], ""))
		}
	}
	return "fewer lines"
}

// stage is the world around a machine in a script.
type stage struct {
	t     *testing.T
	s     *Machine
	cfg   Config
	now   time.Time
	seen  *topology.Map
	hosts map[string]Heartbeat // what each host said last
	// voters of the shards, whose log grows with every report; nil until they report.
	voters map[ashlar.ShardID][]topology.Replica
	index  uint64
}

// settle is what the leaders do with the lists of the map.
func (st *stage) settle() {
	for i, sh := range st.seen.Shards {
		st.voters[ashlar.ShardID(i)] = slices.Clone(sh.Replicas)
	}
}

// reports are those of the shards whose first living voter is on the host, if a
// majority lives.
func (st *stage) reports(host ashlar.HostID, living []string) (all []ShardReport) {
	for i := range len(st.voters) {
		shard := ashlar.ShardID(i)
		r := ShardReport{Shard: shard}
		live, leader := 0, ashlar.HostID(0)
		for _, v := range st.voters[shard] {
			r.Voters = append(r.Voters, v.ID)
			if !slices.Contains(living, st.seen.Host(v.Host).Name) {
				continue
			}
			if live++; leader == 0 {
				leader, r.Leader = v.Host, v.ID
			}
		}
		if leader == host && live > len(r.Voters)/2 {
			st.index++
			r.Index = st.index
			all = append(all, r)
		}
	}
	return all
}

func (st *stage) command(words []string) string {
	args := map[string]string{}
	var names []string
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			args[k] = v
		} else {
			names = append(names, w)
		}
	}
	switch words[0] {
	case "new":
		st.create(args)
	case "beat":
		return st.beat(names, args)
	case "run":
		return st.run(names)
	case "sleep":
		st.now = st.now.Add(st.duration(names[0]))
	case "takeover":
		st.s = New(st.cfg, st.seen, st.now)
	case "facts":
		return st.facts()
	case "lead":
		st.voters = map[ashlar.ShardID][]topology.Replica{}
		st.settle()
	case "settle":
		st.settle()
	case "lost":
		hb := st.hosts[names[0]]
		hb.Lost = nil
		for _, n := range names[1:] {
			hb.Lost = append(hb.Lost, ashlar.ReplicaID(st.number(n, 0)))
		}
		st.hosts[names[0]] = hb
	case "move":
		moved, err := st.s.Move(st.now, ashlar.ShardID(st.number(names[0], 0)), names[1], names[2])
		if err != nil {
			return fmt.Sprintf("refused, %v: %v\n", ashlar.KindOf(err), err) + st.changes()
		}
		return fmt.Sprintf("replica %d, done %v\n", moved.Replica, moved.Done) + st.changes()
	default:
		st.t.Fatalf("unknown command %q", words[0])
	}
	return st.changes()
}

func (st *stage) number(s string, otherwise int) int {
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		st.t.Fatal(err)
	}
	return n
}

func (st *stage) duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		st.t.Fatal(err)
	}
	return d
}

func (st *stage) create(args map[string]string) {
	code, err := ashlar.ParseCode(args["code"])
	if err != nil {
		code = ashlar.Code{K: 2, M: 1}
	}
	st.cfg = Config{
		Cluster: ashlar.ClusterID{1}, Name: "story", Shards: 4,
		ExpectHosts: st.number(args["hosts"], 3), ExpectDisks: st.number(args["disks"], 3),
		Settings: topology.Settings{
			Large: code, Small: ashlar.Code{K: 1, M: 2}, GroupBits: 3,
			DownAfter: 3 * time.Second, OutAfter: 10 * time.Second,
		},
	}
	st.s = New(st.cfg, nil, st.now)
}

func diskID(name string) ashlar.DiskID {
	var id ashlar.DiskID
	copy(id[:], name)
	return id
}

func (st *stage) beat(names []string, args map[string]string) string {
	hb := st.hosts[names[0]]
	if hb.Name == "" {
		hb = Heartbeat{Name: names[0], Zone: "a", Boot: ashlar.BootID{1}}
	}
	hb.Full = !slices.Contains(names, "delta")
	if v, ok := args["zone"]; ok {
		hb.Zone = v
	}
	if v, ok := args["name"]; ok {
		hb.Name = v
	}
	hb.Host = ashlar.HostID(st.number(args["id"], int(hb.Host)))
	hb.Boot = ashlar.BootID{byte(st.number(args["boot"], int(hb.Boot[0])))}
	hb.RepairPieces = uint64(st.number(args["repair"], 0))
	if args["cluster"] == "other" {
		hb.Cluster = ashlar.ClusterID{2}
	}
	if v, ok := args["disks"]; ok {
		hb.Disks = nil
		for _, name := range strings.Split(v, ",") {
			if name == "" {
				continue
			}
			ok := strings.TrimSuffix(name, "!")
			d := Disk{ID: diskID(ok), Name: names[0] + "/" + ok, Bytes: 1 << 30, Used: 4096, Failed: ok != name}
			if d.Failed {
				d.Reason = "EIO"
			}
			hb.Disks = append(hb.Disks, d)
		}
	}
	answer, err := st.s.Heartbeat(st.now, hb)
	if err != nil {
		return fmt.Sprintf("refused, %v: %v\n", ashlar.KindOf(err), err) + st.changes()
	}
	if _, guest := args["guest"]; !guest {
		hb.Host = answer.Host
		st.hosts[names[0]] = hb
	}
	out := fmt.Sprintf("host %v", answer.Host)
	if answer.NeedFull {
		out += ", send a full list"
	}
	return out + "\n" + st.changes()
}

func (st *stage) run(words []string) string {
	var out strings.Builder
	for end := st.now.Add(st.duration(words[0])); st.now.Before(end); {
		st.now = st.now.Add(250 * time.Millisecond)
		for _, name := range words[1:] {
			hb := st.hosts[name]
			hb.Full, hb.Disks, hb.Shards = false, nil, st.reports(hb.Host, words[1:])
			if _, err := st.s.Heartbeat(st.now, hb); err != nil {
				st.t.Fatal(err)
			}
		}
		st.s.Tick(st.now)
		out.WriteString(st.changes())
	}
	return out.String()
}

func (st *stage) facts() string {
	f := st.s.Facts()
	var out strings.Builder
	fmt.Fprintf(&out, "suspected %v, %d pieces to repair\n", f.Suspected, f.RepairPieces)
	if f.Forming != "" {
		fmt.Fprintf(&out, "forming: %s\n", f.Forming)
	}
	for _, id := range slices.Sorted(maps.Keys(f.Replicas)) {
		if state := f.Replicas[id]; state != health.ReplicaLeads {
			fmt.Fprintf(&out, "replica %d %s\n", id, state)
		}
	}
	if f.NoSeat > 0 {
		fmt.Fprintf(&out, "%d shards without a seat\n", f.NoSeat)
	}
	for n := range st.s.Map().Disks {
		if d, ok := f.Disks[topology.DiskNum(n)]; ok {
			fmt.Fprintf(&out, "disk %d: %d B used %s\n", n, d.UsedBytes, d.Reason)
		}
	}
	return out.String()
}

// changes writes what is pending, as the scheduler would, and tells what is new.
func (st *stage) changes() string {
	m := st.s.Pending()
	if m == nil {
		return ""
	}
	if st.seen != nil && m.Epoch != st.seen.Epoch+1 {
		st.t.Fatalf("epoch %d after %d", m.Epoch, st.seen.Epoch)
	}
	var out strings.Builder
	say := func(format string, args ...any) {
		fmt.Fprintf(&out, "%s epoch %d: %s\n", st.now.Format("04:05.00"), m.Epoch, fmt.Sprintf(format, args...))
	}
	old := st.seen
	if old == nil {
		old = &topology.Map{}
		say("a new cluster %q", m.Name)
	}
	for _, h := range m.Hosts {
		h.Since = time.Time{}
		was := topology.Host{}
		if o := old.Host(h.ID); o != nil {
			was = *o
			was.Since = time.Time{}
		}
		if h != was {
			say("host %v %s in zone %s boot %x %v", h.ID, h.Name, h.Zone, h.Boot[:1], h.State)
		}
	}
	for i, d := range m.Disks {
		if i >= len(old.Disks) || d != old.Disks[i] {
			say("disk %d %s on host %v %v", i, d.Name, d.Host, d.State)
		}
	}
	if m.Formed() && !old.Formed() {
		say("formed: %d groups, %d shards, next replica %d", len(m.Groups), len(m.Shards), m.NextReplica)
		st.check(m)
	}
	for i, sh := range m.Shards {
		if old.Formed() && !slices.Equal(sh.All(), old.Shards[i].All()) || sh.Moved != 0 && sh.Moved != old.Shards[i].Moved {
			say("shard %d: %s", i, sayShard(m, sh))
			st.checkShard(i, sh, old.Shards[i])
		}
	}
	st.seen = m
	st.s.Written()
	return out.String()
}

func sayShard(m *topology.Map, sh topology.Shard) string {
	var words []string
	for k, r := range sh.All() {
		if k == len(sh.Replicas) {
			words = append(words, "leaving")
		}
		words = append(words, fmt.Sprintf("%d@%s", r.ID, m.Host(r.Host).Name))
	}
	return strings.Join(words, " ")
}

// checkShard demands that a list differs from the one before in one replica at
// most, that nobody is on a host twice, and that whoever goes is still named.
func (st *stage) checkShard(i int, sh, was topology.Shard) {
	fresh := 0
	hosts := map[ashlar.HostID]bool{}
	for _, r := range sh.Replicas {
		if !slices.Contains(was.Replicas, r) {
			fresh++
		}
		if hosts[r.Host] {
			st.t.Errorf("shard %d: two replicas on host %d", i, r.Host)
		}
		hosts[r.Host] = true
	}
	for _, r := range was.Replicas {
		if !slices.Contains(sh.All(), r) {
			st.t.Errorf("shard %d: replica %d went without leaving", i, r.ID)
		}
	}
	if fresh > 1 || len(sh.Replicas) != len(was.Replicas) {
		st.t.Errorf("shard %d: %d new replicas, %d instead of %d", i, fresh, len(sh.Replicas), len(was.Replicas))
	}
}

func (st *stage) check(m *topology.Map) {
	for _, v := range layout.Check(m) {
		st.t.Error(v)
	}
	for i, g := range m.Groups {
		if g.Moved != m.Epoch {
			st.t.Errorf("group %d moved at epoch %d, formed at %d", i, g.Moved, m.Epoch)
		}
	}
	seen := map[ashlar.ReplicaID]bool{}
	for i, s := range m.Shards {
		for _, r := range s.Replicas {
			if r.ID == 0 || r.ID >= m.NextReplica || seen[r.ID] {
				st.t.Errorf("shard %d: replica id %d", i, r.ID)
			}
			seen[r.ID] = true
		}
	}
}
