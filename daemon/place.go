package daemon

import (
	"context"
	"slices"
	"sync/atomic"

	"ashlar"
	"ashlar/diskmgr"
)

// seekEvery is how many looks of a watcher lie between two searches for a disk
// that is out, besides those that a plugged device causes.
const seekEvery = 40

// places returns where the host's disks are looked for at start: every path that
// the configuration names, and of what its globs match, or "auto" finds, the
// disks of this cluster.
func (d *disks) places(ctx context.Context) []string {
	paths, named := diskmgr.Places(d.cfg.Disks)
	located := diskmgr.Locate(ctx, paths, d.cluster)
	wanted := map[string]bool{}
	for _, path := range located {
		wanted[path] = true
	}
	return slices.DeleteFunc(paths, func(p string) bool { return !named[p] && !wanted[p] })
}

// watchPlugs counts the devices that come and go, until ctx ends. Without the
// kernel's messages disks are found by the searches alone.
func (d *disks) watchPlugs(ctx context.Context) {
	plugged := func(diskmgr.Plug) { atomic.AddUint64(&d.plugs, 1) }
	if err := diskmgr.WatchPlugs(ctx, d.listening, plugged); err != nil {
		d.log.Info("no messages about plugged devices; they are found later", "cause", err)
	}
}

// seek looks for a disk that is out of service and takes it in again, wherever
// it is now, once its label has been away: it was pulled and put back, which is
// what an operator does who trusts it. A disk that failed in its place stays out.
// N counts the looks of the slot's watcher, who alone calls seek.
func (d *disks) seek(ctx context.Context, s *slot, n int) {
	s.mu.Lock()
	id, path, missed := s.id, s.path, s.missed
	s.mu.Unlock()
	plugs := atomic.LoadUint64(&d.plugs)
	if id == (ashlar.DiskID{}) || (n%seekEvery != 0 || d.eventsOnly) && plugs == s.sought {
		return // never opened: it is not known which disk it is
	}
	s.sought = plugs
	paths, _ := diskmgr.Places(d.cfg.Disks)
	at, found := diskmgr.Locate(ctx, paths, d.cluster)[id]
	if !found {
		s.mu.Lock()
		s.missed = true
		s.mu.Unlock()
		return
	}
	if !missed && at == path {
		return
	}
	s.mu.Lock()
	s.path, s.missed = at, false // one try for each time that it was put back
	s.mu.Unlock()
	if err := d.open(ctx, s); err != nil {
		d.log.Error("disk not taken back", "disk", s.name, "path", at, "cause", err)
		return
	}
	d.log.Info("disk taken back", "disk", s.name, "path", at, "was", path)
}
