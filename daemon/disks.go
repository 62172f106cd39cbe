package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"ashlar"
	"ashlar/daemon/piece"
	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev"
	diskhealth "ashlar/diskmgr/health"
	"ashlar/placement/client"
	"ashlar/segment"
)

// disks is the set of this host's disks: each slot is a device of the
// configuration, opened as a disk with its log, or failed with a reason.
//
// A failed disk stays out until revive or the next start: after a lost flush
// only an operator, or a fresh recovery of its log, can say what it holds.
type disks struct {
	cluster     ashlar.ClusterID
	clusterName string
	dir         string
	pieces      *piece.Store
	log         *slog.Logger
	slots       []*slot
}

type slot struct {
	name, path string
	fault      *blockdev.Fault // nil but in a dev cluster

	mu     sync.Mutex
	id     ashlar.DiskID // zero until first opened
	disk   *diskmgr.Disk // nil while failed
	wal    *segment.Log
	reason string
	last   client.Disk // the report before the failure
}

// openDisks opens every device of the configuration, at the same time; blank
// ones are claimed. A device that fails is reported as a failed disk; one that
// is refused (foreign data, another cluster) stops the start, because only the
// operator can decide.
func openDisks(ctx context.Context, d *disks, paths []string, faults map[string]*blockdev.Fault, host string) error {
	errs := make([]error, len(paths))
	var wg sync.WaitGroup
	for i, path := range paths {
		s := &slot{name: fmt.Sprintf("%s/d%02d", host, i+1), path: path, fault: faults[path]}
		d.slots = append(d.slots, s)
		wg.Go(func() { errs[i] = d.open(ctx, s) })
	}
	wg.Wait()
	refused := false
	for i, err := range errs {
		switch ashlar.KindOf(err) {
		case ashlar.Denied, ashlar.Invalid, ashlar.Busy, ashlar.Exists:
			if err != nil {
				refused = true
				continue
			}
		}
		if err != nil {
			d.log.Error("disk failed at start", "disk", d.slots[i].name, "path", paths[i], "cause", err)
			errs[i] = nil
		}
	}
	if refused {
		d.close()
		return errors.Join(errs...)
	}
	return ctx.Err()
}

// open brings one slot up, or notes why it failed.
func (d *disks) open(ctx context.Context, s *slot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disk != nil {
		return nil
	}
	err := d.openLocked(ctx, s)
	if err != nil {
		s.reason = err.Error()
		return ashlar.E("daemon: open disk", s.name, ashlar.KindOf(err), err)
	}
	s.reason = ""
	return nil
}

func (d *disks) openLocked(ctx context.Context, s *slot) error {
	opt := diskmgr.OpenOptions{Cluster: d.cluster, Changed: func(st diskhealth.State, why string) {
		d.log.Warn("disk changed its state", "disk", s.name, "path", s.path, "state", st, "why", why)
	}}
	if s.fault != nil {
		opt.Wrap = s.fault.Wrap
	}
	disk, err := diskmgr.Open(s.path, opt)
	if ashlar.Is(err, ashlar.NotFound) {
		if _, statErr := os.Stat(s.path); statErr != nil {
			return err
		}
		disk, err = diskmgr.Claim(ctx, s.path, diskmgr.ClaimOptions{OpenOptions: opt, ClusterName: d.clusterName, Name: s.name})
	}
	if err != nil {
		return err
	}
	label := disk.Label()
	wal, err := segment.Open(ctx, disk.Device(), segment.Options{
		Disk: label.Disk, IndexDir: filepath.Join(d.dir, "index", label.Disk.String()),
		SegmentBytes: label.Geometry.SegmentBytes, Writers: writers(label.Rotating), Log: d.log.With("disk", s.name),
	})
	if err != nil {
		return errors.Join(err, disk.Close())
	}
	s.id, s.disk, s.wal = label.Disk, disk, wal
	d.pieces.Add(label.Disk, wal)
	return nil
}

// writers is the number of open segments of a disk: a rotating one would seek
// between them.
func writers(rotating bool) int {
	if rotating {
		return 1
	}
	return runtime.GOMAXPROCS(0)
}

// retire takes a disk out of service.
func (d *disks) retire(s *slot, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disk == nil {
		return
	}
	d.log.Error("disk failed", "disk", s.name, "path", s.path, "why", why)
	d.closeLocked(s)
	s.reason = why
}

func (d *disks) closeLocked(s *slot) {
	d.pieces.Remove(s.id)
	if err := errors.Join(s.wal.Close(), s.disk.Close()); err != nil {
		d.log.Warn("close disk", "disk", s.name, "cause", err)
	}
	s.disk, s.wal = nil, nil
}

// report judges every disk and says how it is, for the heartbeat.
func (d *disks) report() []client.Disk {
	var all []client.Disk
	for _, s := range d.slots {
		if r, known := d.reportOne(s); known {
			all = append(all, r)
		}
	}
	return all
}

func (d *disks) reportOne(s *slot) (r client.Disk, known bool) {
	s.mu.Lock()
	if s.disk == nil {
		defer s.mu.Unlock()
		r = s.last
		r.ID, r.Name, r.Failed, r.Reason = s.id, s.name, true, s.reason
		return r, s.id != ashlar.DiskID{}
	}
	facts, usage, fenced := s.disk.Tick(diskhealth.Latency{}), s.wal.Usage(), s.wal.Err()
	s.last = client.Disk{
		ID: s.id, Name: s.name, CapacityBytes: uint64(usage.Capacity), UsedBytes: uint64(usage.Used),
		FreeSegments: uint32(usage.SegmentsFree),
		ReadErrors:   facts.Counters.Errors[diskhealth.Read], WriteErrors: facts.Counters.Errors[diskhealth.Write],
		CorruptRecords: s.wal.Stats().CorruptReads,
	}
	r = s.last
	s.mu.Unlock()
	switch {
	case fenced != nil:
		d.retire(s, fenced.Error())
	case facts.State >= diskhealth.Fenced:
		d.retire(s, facts.Why)
	default:
		return r, true
	}
	return d.reportOne(s)
}

// setHost notes in every label whose disk it is.
func (d *disks) setHost(id ashlar.HostID) {
	for _, s := range d.slots {
		s.mu.Lock()
		if s.disk != nil {
			if err := s.disk.SetHost(id); err != nil {
				d.log.Warn("label not updated", "disk", s.name, "cause", err)
			}
		}
		s.mu.Unlock()
	}
}

// checkOwners reads every label: it finds a second owner, and a dead disk that
// nobody else reads.
func (d *disks) checkOwners() {
	for _, s := range d.slots {
		d.checkOwner(s)
	}
}

func (d *disks) checkOwner(s *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disk == nil {
		return
	}
	if err := s.disk.CheckOwner(); err != nil {
		d.log.Warn("label not readable, or not ours any more", "disk", s.name, "path", s.path, "cause", err)
	}
}

// find returns the slot with that name.
func (d *disks) find(name string) (*slot, error) {
	for _, s := range d.slots {
		if s.name == name {
			return s, nil
		}
	}
	return nil, ashlar.E("daemon: disk", name, ashlar.NotFound, fmt.Errorf("this host has no such disk"))
}

// close lets all disks go.
func (d *disks) close() {
	var wg sync.WaitGroup
	for _, s := range d.slots {
		wg.Go(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.disk != nil {
				d.closeLocked(s)
			}
		})
	}
	wg.Wait()
}
