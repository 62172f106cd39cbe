package diskmgr

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/health"
	"ashlar/diskmgr/label"
)

// Disk is a claimed device that this process holds. Its methods may be called
// at the same time.
type Disk struct {
	path    string
	options OpenOptions
	device  *blockdev.Device
	monitor *monitor
	data    *blockdev.Range

	// label is the one last written; reading it waits for no device.
	label atomic.Pointer[label.Label]
	// relabel serializes the writers of the label. It is held during I/O.
	relabel sync.Mutex
}

// Facts is what the heartbeat says of a disk. Which segments are in use the log
// adds: it alone knows.
type Facts struct {
	Disk ashlar.DiskID
	Name string
	// Path is where the disk was found this time, Serial the device's own number.
	Path, Serial string
	Rotating     bool
	// Bytes is the data area, made of Segments segments of SegmentBytes.
	Bytes, SegmentBytes, Segments int64
	State                         health.State
	Why                           string
	Since                         time.Time
	Counters                      health.Counters
}

// Label returns the label as it was last written.
func (d *Disk) Label() label.Label { return *d.label.Load() }

// Device returns the data area: offset 0 is its first byte, its size is a whole
// number of segments, its block size that of the label. It is good until Close.
func (d *Disk) Device() blockdev.IO { return d.data }

// Path is where the disk was found.
func (d *Disk) Path() string { return d.path }

// Direct reports whether I/O goes past the page cache; only a file on a file
// system without O_DIRECT does not.
func (d *Disk) Direct() bool { return d.device.Direct() }

// Health returns the state, why it was entered, and when.
func (d *Disk) Health() (health.State, string, time.Time) {
	d.monitor.mu.Lock()
	defer d.monitor.mu.Unlock()
	return d.monitor.mu.machine.State()
}

// Tick judges the disk and returns what the heartbeat reports. It is called with
// every heartbeat, about once a second. Peers are the medians, over the disks
// of the same class, of Counters.P95; zero where unknown.
func (d *Disk) Tick(peers health.Latency) Facts {
	d.monitor.apply(func(h *health.Machine) { h.Tick(d.options.Now(), peers) })
	l := d.Label()
	f := Facts{
		Disk: l.Disk, Name: l.Name, Path: d.path, Serial: l.Serial, Rotating: l.Rotating,
		Bytes: l.Geometry.Data, SegmentBytes: l.Geometry.SegmentBytes, Segments: l.Geometry.Segments(),
	}
	d.monitor.mu.Lock()
	defer d.monitor.mu.Unlock()
	f.State, f.Why, f.Since = d.monitor.mu.machine.State()
	f.Counters = d.monitor.mu.machine.Counters()
	return f
}

// Fence takes the disk out of writes, for a reason that the caller knows.
func (d *Disk) Fence(why string) {
	d.monitor.apply(func(h *health.Machine) { h.Fence(why, d.options.Now()) })
}

// SetHost notes in the label which host owns the disk. It writes only if that
// is new.
func (d *Disk) SetHost(host ashlar.HostID) error {
	d.relabel.Lock()
	defer d.relabel.Unlock()
	next := d.Label()
	if next.Host == host {
		return nil
	}
	next.Host = host
	return d.writeLocked(next)
}

// CheckOwner reads the label and fences the disk if another owner has taken it,
// which is kind Stale; the error names the host. It is also the probe that finds
// a dead disk which nobody uses: its reads count like any others. It takes as
// long as the device does; Tick notices when that is too long.
func (d *Disk) CheckOwner() error {
	const op = "diskmgr: check owner"
	now, _, err := label.Read(d.monitor)
	if err != nil {
		return ashlar.E(op, d.path, ashlar.KindOf(err), err)
	}
	mine := d.label.Load()
	if now.Disk == mine.Disk && now.OwnerEpoch == mine.OwnerEpoch && now.Owner == mine.Owner {
		return nil
	}
	why := fmt.Sprintf("another owner took the disk: host %v, owner epoch %d", now.Host, now.OwnerEpoch)
	d.Fence(why)
	return ashlar.E(op, d.path, ashlar.Stale, errors.New(why))
}

// writeLocked makes next the label. The caller holds relabel.
func (d *Disk) writeLocked(next label.Label) error {
	next.Sequence++
	next.Written = wall(d.options.Now())
	if err := label.Write(d.monitor, next); err != nil {
		return ashlar.E("diskmgr: write label", d.path, ashlar.KindOf(err), err)
	}
	d.label.Store(&next)
	return nil
}

// wall is the time as a label holds it: UTC, and without the reading of a clock
// that stops with this boot.
func wall(t time.Time) time.Time { return t.UTC().Round(0) }

// Close lets the device go. The data area must not be used any more.
func (d *Disk) Close() error {
	if err := d.device.Close(); err != nil {
		return ashlar.E("diskmgr: close", d.path, ashlar.KindOf(err), err)
	}
	return nil
}
