package diskmgr

import (
	"errors"
	"fmt"
	"time"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/health"
	"ashlar/diskmgr/label"
)

// OpenOptions say who opens a disk. Zero values are fine but for Cluster.
type OpenOptions struct {
	// Cluster is the cluster that the disk must belong to. Zero takes any disk;
	// the caller then compares Label().Cluster itself.
	Cluster ashlar.ClusterID
	// Host is noted in the label; zero, for a host without an id yet, leaves the
	// one that is there.
	Host ashlar.HostID
	// Engine is how bytes get to the device; see blockdev.Engine.
	Engine blockdev.Engine
	// Wrap, if set, is put between the device and everything above it, the label
	// included. `ashlar dev` wraps a blockdev.Fault; a daemon wraps nothing.
	Wrap func(blockdev.IO) blockdev.IO
	// Changed, if set, is called after every change of the state of health, by
	// the goroutine whose I/O or Tick caused it. It must not block and not call
	// the disk.
	Changed func(health.State, string)
	// Limits are those of health; zero means health.DefaultLimits.
	Limits health.Limits
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (o *OpenOptions) fill() {
	if o.Limits == (health.Limits{}) {
		o.Limits = health.DefaultLimits()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wrap == nil {
		o.Wrap = func(under blockdev.IO) blockdev.IO { return under }
	}
}

// Open takes hold of the disk at path, which is a block device or a file, and
// makes this opening its owner: owner epoch + 1, written to all four copies of
// the label before Open returns. Kinds: NotFound (no device, or no label on it),
// Busy (held by another, who is named), Denied (permissions, or the disk belongs
// to another cluster), Corrupt (a label, but no sound copy), Invalid (a label of
// a newer version, or a device that is smaller than the label says), Unavailable
// (the device does not serve).
func Open(path string, o OpenOptions) (*Disk, error) {
	const op = "diskmgr: open"
	o.fill()
	device, err := blockdev.OpenWith(path, blockdev.Options{Engine: o.Engine})
	if err != nil {
		return nil, ashlar.E(op, path, ashlar.KindOf(err), err)
	}
	disk, err := adopt(device, o)
	if err != nil {
		device.Close()
		return nil, ashlar.E(op, path, ashlar.KindOf(err), err)
	}
	return disk, nil
}

// adopt reads the label of a device that is held, checks it, and takes over.
func adopt(device *blockdev.Device, o OpenOptions) (*Disk, error) {
	under := o.Wrap(device)
	l, _, err := label.Read(under)
	if err != nil {
		return nil, err
	}
	if o.Cluster != (ashlar.ClusterID{}) && l.Cluster != o.Cluster {
		return nil, ashlar.E("diskmgr: adopt", "", ashlar.Denied, errors.New(foreignText(l)))
	}
	disk, err := assemble(device, under, l, o)
	if err != nil {
		return nil, err
	}
	next := l
	next.OwnerEpoch++
	next.Owner = ashlar.BootID(ashlar.NewID())
	if o.Host != 0 {
		next.Host = o.Host
	}
	disk.relabel.Lock()
	defer disk.relabel.Unlock()
	if err := disk.writeLocked(next); err != nil {
		return nil, err
	}
	return disk, nil
}

// assemble puts the layers of a disk together.
func assemble(device *blockdev.Device, under blockdev.IO, l label.Label, o OpenOptions) (*Disk, error) {
	g := l.Geometry
	if device.Bytes() < g.Device {
		return nil, ashlar.E("diskmgr: adopt", "", ashlar.Invalid, fmt.Errorf(
			"the device has %s, the label says %s: it was cut off (a controller or a host protected area?)", sizeText(device.Bytes()), sizeText(g.Device)))
	}
	b := l.Baseline
	baseline := health.Latency{health.Read: b.ReadP99, health.Write: b.FlushP99, health.Flush: b.FlushP99}
	d := &Disk{path: device.Path(), options: o, device: device}
	d.monitor = newMonitor(under, fmt.Sprintf("disk=%v path=%s", l.Disk, device.Path()), baseline, &d.options)
	data, err := blockdev.NewRange(d.monitor, g.DataOffset, g.Data, g.BlockBytes)
	if err != nil {
		return nil, err
	}
	d.data = data
	d.label.Store(&l)
	return d, nil
}
