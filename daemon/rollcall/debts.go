package rollcall

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"ashlar"
	"ashlar/daemon/wire"
	"ashlar/placement/topology"
	"ashlar/segment"
)

const stateVersion = 1

// state is what DIR/state.json holds.
type state struct {
	Version int `json:"version"`
	// Quiet is when every event was still known: whatever happened later, while
	// nobody looked, makes everybody owed from then on.
	Quiet    time.Time `json:"quiet"`
	Began    time.Time `json:"began"`
	LastFull time.Time `json:"last_full"`
	// Debts are by disk: what was written after From is to be asked about; it is
	// paid when that is done for everything written before Event.
	Debts map[ashlar.DiskID]debt `json:"-"`
	List  []listed               `json:"debts"`
}

type debt struct {
	From, Event time.Time
	tried       bool // since the event: what is left has to settle
}

type listed struct {
	Disk  ashlar.DiskID `json:"disk"`
	From  time.Time     `json:"from"`
	Event time.Time     `json:"event"`
}

const stateFile = "state.json"

// load reads the debts. A file that is missing or makes no sense is the debt of
// everything: Quiet is zero.
func load(dir string, log *slog.Logger) state {
	fresh := state{Version: stateVersion, Began: time.Now(), Debts: map[ashlar.DiskID]debt{}}
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fresh
	}
	var s state
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil || s.Version != stateVersion {
		log.Warn("rollcall: the debts cannot be read; every stripe is asked about", "dir", dir, "version", s.Version, "cause", err)
		return fresh
	}
	s.Debts = make(map[ashlar.DiskID]debt, len(s.List))
	for _, l := range s.List {
		s.Debts[l.Disk] = debt{From: l.From, Event: l.Event}
	}
	s.List = nil
	return s
}

// save writes the debts. Losing the last of them costs questions, no pieces:
// Quiet is then older.
func (r *Roll) save() {
	r.mu.Lock()
	s := r.mu.state
	s.List = make([]listed, 0, len(s.Debts))
	for id, d := range s.Debts {
		s.List = append(s.List, listed{id, d.From, d.Event})
	}
	r.mu.Unlock()
	slices.SortFunc(s.List, func(a, b listed) int { return slices.Compare(a.Disk[:], b.Disk[:]) })
	err := os.MkdirAll(r.cfg.Dir, 0o755)
	var b []byte
	if err == nil {
		b, err = json.Marshal(s)
	}
	path := filepath.Join(r.cfg.Dir, stateFile)
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o644)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		r.cfg.Log.Warn("rollcall: the debts are not saved; a restart asks about more", "dir", r.cfg.Dir, "cause", err)
	}
}

// follow makes debts of what changed since the last map, and reports whether it
// made any.
func (r *Roll) follow(m *topology.Map, now time.Time) (made bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.mu.seen
	if was == nil || was.Epoch != m.Epoch {
		from := time.Time{}
		if q := r.mu.state.Quiet; !q.IsZero() { // whatever happened while this host was away or cut off
			from = q.Add(-back)
		}
		if was == nil || stirred(was, m) {
			made = true
			for _, d := range m.Disks {
				r.oweLocked(d.ID, from, now)
			}
		}
		r.mu.seen = m
	}
	if r.cfg.Heard != nil {
		now = r.cfg.Heard()
	}
	if now.After(r.mu.state.Quiet) {
		r.mu.state.Quiet = now
	}
	r.noteLocked(m)
	return made
}

func (r *Roll) oweLocked(id ashlar.DiskID, from, event time.Time) {
	d, ok := r.mu.state.Debts[id]
	if !ok || from.Before(d.From) {
		d.From = from
	}
	d.Event, d.tried = event, false
	r.mu.state.Debts[id] = d
}

// noteLocked sets Checked if nothing is owed to a disk that answers.
func (r *Roll) noteLocked(m *topology.Map) {
	if seen := r.mu.seen; seen != nil && seen.Epoch == m.Epoch && len(r.owedLocked(m)) == 0 {
		r.checked.Store(uint64(m.Epoch))
	}
}

// owedLocked returns the debts to the disks that answer.
func (r *Roll) owedLocked(m *topology.Map) map[ashlar.DiskID]debt {
	owed := map[ashlar.DiskID]debt{}
	if len(r.mu.state.Debts) == 0 {
		return owed
	}
	for n, d := range m.Disks {
		if debt, ok := r.mu.state.Debts[d.ID]; ok && m.Live(topology.DiskNum(n)) {
			owed[d.ID] = debt
		}
	}
	return owed
}

// due reports whether there is anything owed whose stripes have settled by now.
func (r *Roll) due(m *topology.Map, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	cut := now.Add(-r.cfg.Settle)
	for _, d := range r.owedLocked(m) {
		soon := !d.tried && now.Sub(d.Event) >= min(soonAfter, r.cfg.Settle)
		// Many events in a row do not put off what has settled.
		if soon || !cut.Before(d.Event) || cut.Sub(d.From) > back {
			return true
		}
	}
	return false
}

// stirred reports whether somebody came or went between two maps.
func stirred(was, is *topology.Map) bool {
	if len(was.Hosts) != len(is.Hosts) || len(was.Disks) != len(is.Disks) {
		return true
	}
	for i := range is.Hosts {
		a, b := &was.Hosts[i], &is.Hosts[i]
		if a.ID != b.ID || a.Boot != b.Boot || a.State != b.State {
			return true
		}
	}
	for i := range is.Disks {
		a, b := &was.Disks[i], &is.Disks[i]
		if a.State != b.State || a.Host != b.Host {
			return true
		}
	}
	return false
}

// Held is a piece on a local disk, as it is handed over.
type Held struct {
	wire.PieceID
	Disk    ashlar.DiskID
	Code    ashlar.Code
	Bytes   uint32 // of the stripe
	Written time.Time
}

// held is a piece on a local disk.
type held struct {
	disk    ashlar.DiskID
	key     segment.Key
	code    ashlar.Code
	bytes   uint32
	written time.Time
}

// ring holds the newest pieces in the order in which they came.
type ring struct {
	since time.Time // everything that came after it is here
	at    []time.Time
	held  []held
	next  int
}

func (g *ring) add(now time.Time, h held) {
	if len(g.held) < ringLen {
		g.at, g.held = append(g.at, now), append(g.held, h)
		return
	}
	g.since = g.at[g.next]
	g.at[g.next], g.held[g.next] = now, h
	g.next = (g.next + 1) % ringLen
}

// after returns the pieces that came after t, false if some may be gone.
func (g *ring) after(t time.Time) ([]held, bool) {
	if t.Before(g.since) {
		return nil, false
	}
	var all []held
	for i := range g.held {
		if n := (g.next + i) % len(g.held); g.at[n].After(t) {
			all = append(all, g.held[n])
		}
	}
	return all, true
}
