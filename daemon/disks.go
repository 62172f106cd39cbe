package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ashlar"
	"ashlar/daemon/piece"
	"ashlar/daemon/rollcall"
	"ashlar/daemon/scrub"
	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev"
	diskhealth "ashlar/diskmgr/health"
	"ashlar/diskmgr/smart"
	"ashlar/placement/client"
	placehealth "ashlar/placement/health"
	"ashlar/segment"
)

const (
	// watchEvery is how often a disk is looked at, probeEvery how many looks lie
	// between two readings of its label, besides one after each device that was
	// plugged or pulled: these find a second owner, and a dead disk that nobody reads.
	watchEvery = 250 * time.Millisecond
	probeEvery = 20
)

// disks is the set of this host's disks: each slot is a device of the
// configuration, opened as a disk with its log, or failed with a reason.
//
// A failed disk stays out until the next start, or until it was pulled and put
// back: after a lost flush only a fresh recovery of its log can say what it
// holds, and only an operator whether to trust it.
type disks struct {
	cfg         *Config
	cluster     ashlar.ClusterID
	clusterName string
	pieces      *piece.Store
	scrub       *scrub.Scrubber
	roll        *rollcall.Roll
	log         *slog.Logger
	engine      blockdev.Engine
	plugs       uint64 // atomic: counts devices that came or went
	slots       []*slot
	status      func(string) // tells the service manager; nil where there is none

	// For tests: nothing is looked at on a schedule, and when the kernel is listened to.
	eventsOnly bool
	listening  func()
}

// slot is one device. Its watcher goroutine alone opens and retires it while
// the host runs; no lock is held during I/O, so a hung disk hurts nobody else.
type slot struct {
	name, path string
	fault      blockdev.Fault
	// The plugs at the last search and at the last reading of the label; the watcher's.
	sought, probed uint64

	mu     sync.Mutex
	id     ashlar.DiskID // zero until first opened
	disk   *diskmgr.Disk // nil while failed
	wal    *segment.Log  // nil while failed
	reason string
	// rebuilt says how far the disk's index has been rebuilt, while it is.
	rebuilt string
	missed  bool                  // its label was seen to be away since it failed
	last    client.Disk           // the newest report of the disk while it served
	smart   placehealth.DiskSmart // what the disk said of itself at the last look
}

// openDisks opens every device of the configuration at the same time. One that
// fails is a failed disk; one that is refused (foreign data, another cluster,
// held by somebody) stops the start, because only the operator can decide, and
// so does a host without any disk.
func openDisks(ctx context.Context, d *disks) error {
	use, why, err := blockdev.Choose(blockdev.Engine(d.cfg.Engine))
	if err != nil {
		return err
	}
	if d.engine = use; why != nil {
		d.log.Warn("this kernel does not give the engine that is configured", "engine", d.cfg.Engine, "instead", use, "cause", why)
	}
	paths := d.places(ctx)
	errs := make([]error, len(paths))
	var wg sync.WaitGroup
	for i, path := range paths {
		s := &slot{name: fmt.Sprintf("%s/d%02d", d.cfg.Name, i+1), path: path}
		d.slots = append(d.slots, s)
	}
	for i, s := range d.slots {
		wg.Go(func() { errs[i] = d.open(ctx, s) })
	}
	wg.Wait()
	refused, opened := false, 0
	for i, err := range errs {
		switch {
		case err == nil:
			opened++
		case refusal(ashlar.KindOf(err)):
			refused = true
		default:
			d.log.Error("disk failed at start", "disk", d.slots[i].name, "path", d.slots[i].path, "cause", err)
		}
	}
	if refused || opened == 0 {
		d.close()
		return errors.Join(errs...)
	}
	return ctx.Err()
}

func refusal(k ashlar.Kind) bool {
	return k == ashlar.Denied || k == ashlar.Invalid || k == ashlar.Busy || k == ashlar.Exists
}

// open brings a slot up, or notes why it failed.
func (d *disks) open(ctx context.Context, s *slot) error {
	if d.switchedOff(s) {
		s.fault.Kill()
	}
	disk, err := d.openDevice(ctx, s)
	var wal *segment.Log
	if err == nil {
		wal, err = d.openLog(ctx, s, disk)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.reason = err.Error()
		return ashlar.E("daemon: open disk", s.name, ashlar.KindOf(err), err)
	}
	if label := disk.Label(); s.id == (ashlar.DiskID{}) {
		s.id = label.Disk
		s.name = cmp.Or(label.Name, s.name) // known by its label, in whatever order it is found
	}
	s.disk, s.wal, s.reason, s.missed = disk, wal, "", false
	d.pieces.Add(s.id, wal)
	d.roll.Add(s.id, wal)
	d.scrub.Add(scrub.Disk{ID: s.id, Name: s.name, Log: wal, Well: func() bool {
		state, _, _ := disk.Health()
		return state == diskhealth.Good && wal.Err() == nil
	}})
	return nil
}

func (d *disks) openDevice(ctx context.Context, s *slot) (*diskmgr.Disk, error) {
	name, path := s.name, s.path // this opening's: late I/O still asks for them
	opt := diskmgr.OpenOptions{Cluster: d.cluster, Engine: d.engine, Changed: func(st diskhealth.State, why string) {
		d.log.Warn("disk changed its state", "disk", name, "path", path, "state", st, "why", why)
	}}
	if d.cfg.FaultDir != "" {
		opt.Wrap = s.fault.Wrap
	}
	disk, err := diskmgr.Open(s.path, opt)
	if err == nil && s.id != (ashlar.DiskID{}) && disk.Label().Disk != s.id {
		other := ashlar.E("daemon: open disk", s.path, ashlar.Stale, fmt.Errorf("disk %v is there, not %v", disk.Label().Disk, s.id))
		return nil, errors.Join(other, disk.Close()) // Join keeps the kind
	}
	if !ashlar.Is(err, ashlar.NotFound) {
		return disk, err
	}
	if _, statErr := os.Stat(s.path); statErr != nil {
		return nil, err
	}
	if !d.cfg.ClaimBlank {
		return nil, ashlar.E("daemon: open disk", s.path, ashlar.NotFound,
			errors.New("it carries no label: claim it with `ashlar disk claim`, or restore it if it was a disk of this cluster"))
	}
	return diskmgr.Claim(ctx, s.path, diskmgr.ClaimOptions{OpenOptions: opt, ClusterName: d.clusterName, Name: s.name})
}

func (d *disks) openLog(ctx context.Context, s *slot, disk *diskmgr.Disk) (*segment.Log, error) {
	label := disk.Label()
	wal, err := segment.Open(ctx, disk.Device(), segment.Options{
		Disk: label.Disk, IndexDir: filepath.Join(d.cfg.Dir, "index", label.Disk.String()),
		SegmentBytes: label.Geometry.SegmentBytes, Writers: d.writers(label.Rotating), Log: d.log.With("name", s.name),
		Progress: func(done, total int) { d.rebuilding(s, done, total) },
	})
	d.rebuilding(s, 0, 0)
	if err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	return wal, nil
}

// rebuilding notes how far the index of a disk has been rebuilt, for the service
// manager and, where the host has joined already, for the heartbeat. Of 0 in total
// it is over.
func (d *disks) rebuilding(s *slot, done, total int) {
	s.mu.Lock()
	s.rebuilt = ""
	if total > 0 {
		s.rebuilt = fmt.Sprintf("%s %d %%", s.name, done*100/total)
		s.reason = fmt.Sprintf("its index is being rebuilt from the disk: segment %d of %d", done, total)
	}
	s.mu.Unlock()
	if d.status == nil {
		return
	}
	var all []string
	for _, s := range d.slots {
		s.mu.Lock()
		if s.rebuilt != "" {
			all = append(all, s.rebuilt)
		}
		s.mu.Unlock()
	}
	if len(all) > 0 {
		d.status("rebuilding lost indexes: " + strings.Join(all, ", "))
	}
}

// writers is the number of open segments of a disk, see Config.Writers.
func (d *disks) writers(rotating bool) int {
	switch {
	case d.cfg.Writers > 0:
		return d.cfg.Writers
	case rotating:
		return 1
	}
	return min(runtime.GOMAXPROCS(0), segment.WritersMax)
}

// watch looks after one disk until ctx ends.
func (d *disks) watch(ctx context.Context, s *slot) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		off := d.cfg.FaultDir != "" && d.switchedOff(s)
		s.mu.Lock()
		disk, wal := s.disk, s.wal
		s.mu.Unlock()
		switch {
		case disk == nil && !off && s.fault.Dead():
			s.fault.Revive()
			if err := d.open(ctx, s); err != nil {
				d.log.Error("disk not revived", "disk", s.name, "cause", err)
			}
		case disk == nil:
			d.seek(ctx, s, n)
		default:
			if off {
				s.fault.Kill()
			}
			plugs := atomic.LoadUint64(&d.plugs)
			d.judge(s, disk, wal, off || n%probeEvery == 0 && !d.eventsOnly || plugs != s.probed)
			s.probed = plugs
		}
	}
}

// switchedOff reports whether the test switch of the disk is on.
func (d *disks) switchedOff(s *slot) bool {
	if d.cfg.FaultDir == "" {
		return false
	}
	_, err := os.Stat(FaultSwitch(d.cfg.FaultDir, s.name))
	return err == nil
}

// FaultSwitch is the file that kills a disk of a test cluster while it exists.
func FaultSwitch(dir, disk string) string {
	return filepath.Join(dir, strings.ReplaceAll(disk, "/", "-"))
}

// judge retires the disk if it may not be used any more.
func (d *disks) judge(s *slot, disk *diskmgr.Disk, wal *segment.Log, probe bool) {
	if probe {
		smart := d.smartOf(disk.Label().Serial)
		s.mu.Lock()
		s.smart = smart
		s.mu.Unlock()
		if err := disk.CheckOwner(); err != nil {
			d.log.Warn("label not readable, or not ours any more", "disk", s.name, "path", s.path, "cause", err)
		}
	}
	state, why, _ := disk.Health()
	if err := wal.Err(); err != nil && state < diskhealth.Fenced {
		state, why = diskhealth.Fenced, err.Error()
	}
	if state < diskhealth.Fenced {
		return
	}
	d.log.Error("disk failed", "disk", s.name, "path", s.path, "why", why)
	d.retire(s, why)
}

// smartOf is what the disk with that serial said of itself when the one who may
// ask it did so last.
func (d *disks) smartOf(serial string) placehealth.DiskSmart {
	f, ok := smart.Read(cmp.Or(d.cfg.SmartDir, smart.Dir), serial, time.Now())
	if !ok {
		return placehealth.DiskSmart{}
	}
	return placehealth.DiskSmart{
		Known: true, Serial: serial, Failing: f.Failing, Concern: strings.Join(f.Concerns(), ", "), Reallocated: f.Reallocated,
		Pending: f.Pending, Uncorrectable: f.Uncorrectable, LinkCRC: f.LinkCRC, Wear: f.Wear, Temperature: f.Temperature,
	}
}

// retire takes a disk out of service.
func (d *disks) retire(s *slot, why string) {
	s.mu.Lock()
	disk, wal := s.disk, s.wal
	s.disk, s.wal, s.reason = nil, nil, why
	s.mu.Unlock()
	if disk == nil {
		return
	}
	d.pieces.Remove(s.id)
	d.scrub.Remove(s.id)
	d.roll.Remove(s.id)
	if err := errors.Join(wal.Close(), disk.Close()); err != nil {
		d.log.Warn("close disk", "disk", s.name, "cause", err)
	}
}

// report says how every disk is, for the heartbeat. It waits for no I/O.
func (d *disks) report() []client.Disk {
	var all []client.Disk
	for _, s := range d.slots {
		if r, known := s.report(); known {
			r.Scrub = d.scrubbed(r.ID)
			all = append(all, r)
		}
	}
	return all
}

// scrubbed says how the scrub of a disk stands; a failed one has none.
func (d *disks) scrubbed(id ashlar.DiskID) placehealth.DiskScrub {
	st, _ := d.scrub.Status(id)
	return placehealth.DiskScrub{
		Period: st.Period, Last: st.Last, Due: st.Due, Oldest: st.Oldest, Bytes: st.Bytes,
		Waiting: st.Waiting, Repaired: st.Repaired, Unread: st.Unread,
	}
}

func (s *slot) report() (r client.Disk, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disk == nil {
		r = s.last
		r.ID, r.Name, r.Failed, r.Reason = s.id, s.name, true, s.reason
		return r, s.id != ashlar.DiskID{}
	}
	facts, usage := s.disk.Tick(diskhealth.Latency{}), s.wal.Usage()
	s.last = client.Disk{
		ID: s.id, Name: s.name, CapacityBytes: uint64(usage.Capacity), UsedBytes: uint64(usage.Used),
		FreeSegments: uint32(usage.SegmentsFree),
		Room:         placehealth.DiskRoom{Segments: uint32(usage.SegmentsWritable), SegmentBytes: uint64(usage.SegmentRoom)},
		ReadErrors:   facts.Counters.Errors[diskhealth.Read], WriteErrors: facts.Counters.Errors[diskhealth.Write],
		CorruptRecords: s.wal.Stats().CorruptReads, Smart: s.smart,
	}
	return s.last, true
}

// setHost notes in every label whose disk it is.
func (d *disks) setHost(id ashlar.HostID) {
	for _, s := range d.slots {
		s.mu.Lock()
		disk := s.disk
		s.mu.Unlock()
		if disk == nil {
			continue
		}
		if err := disk.SetHost(id); err != nil {
			d.log.Warn("label not updated", "disk", s.name, "cause", err)
		}
	}
}

// close lets all disks go. The watchers must have ended.
func (d *disks) close() {
	var wg sync.WaitGroup
	for _, s := range d.slots {
		wg.Go(func() { d.retire(s, "the host has stopped") })
	}
	wg.Wait()
}
