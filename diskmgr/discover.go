package diskmgr

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/label"
	"ashlar/diskmgr/probe"
)

// State is what a device is to us.
type State uint8

// The states of a device.
const (
	// Blank: nobody has anything on it; it can be claimed.
	Blank State = iota
	// Ours: it carries the label of our cluster.
	Ours
	// Foreign: it carries the label of another Ashlar cluster, or one that this
	// program cannot read.
	Foreign
	// NotOurs: it is in use, holds somebody else's data, or is of no use to us.
	NotOurs
)

func (s State) String() string {
	return [...]string{"blank", "ours", "foreign", "not ours"}[min(s, NotOurs)]
}

// Found is one device and what it is to us.
type Found struct {
	Device probe.Device
	State  State
	// Why is the reason in words, with the remedy; empty for a blank device.
	Why string
	// Consent is what else would make a claim of it succeed, in words, for those who
	// mean to lose what it carries; empty if nothing would.
	Consent string
	// Label is the label of a disk that is ours or foreign, if it is sound.
	Label label.Label
	// kind is that of the refusal to claim it, and final says that no consent
	// overrules it.
	kind  ashlar.Kind
	final bool
}

// Advice is Why and, for those who claim, Consent.
func (f *Found) Advice() string {
	if f.Consent == "" {
		return f.Why
	}
	return f.Why + ", or " + f.Consent
}

// DiscoverOptions say where to look. The zero value looks at this machine.
type DiscoverOptions struct {
	// Cluster is ours; zero takes every Ashlar label for ours.
	Cluster ashlar.ClusterID
	// Root is the file system of the machine; nil means "/".
	Root fs.FS
	// Dev is the directory of the device nodes; empty means /dev.
	Dev string
	// Files are regular files that stand for devices and are looked at too.
	Files []string
}

const (
	// lookTimeout bounds the look at one device: one that hangs must not keep
	// the others from being listed.
	lookTimeout = 15 * time.Second
	// lookersMax bounds how many devices are looked at at once.
	lookersMax = 16
)

// Discover lists the devices of the machine in the order of sysfs, then the
// files. It changes nothing and takes hold of nothing. A device that cannot be
// read is listed as not ours, with the reason; one that does not answer within
// lookTimeout likewise, and the goroutine that looks at it ends when the kernel
// lets its read return. The error is that of an unreadable sysfs or of ctx.
func Discover(ctx context.Context, o DiscoverOptions) ([]Found, error) {
	const op = "diskmgr: discover"
	if o.Root == nil {
		o.Root = os.DirFS("/")
	}
	devices, err := probe.Devices(o.Root)
	if err != nil {
		return nil, ashlar.E(op, "", ashlar.KindOf(err), err)
	}
	for i := range devices {
		relocate(&devices[i], o.Dev)
	}
	for _, path := range o.Files {
		d := probe.Device{Name: filepath.Base(path), Path: path}
		if info, err := os.Stat(path); err == nil {
			d.Bytes = info.Size()
		}
		devices = append(devices, d)
	}
	list := make([]Found, len(devices))
	var all sync.WaitGroup
	tokens := make(chan struct{}, lookersMax)
	for i, d := range devices {
		all.Go(func() {
			tokens <- struct{}{}
			defer func() { <-tokens }()
			list[i] = lookInTime(ctx, d, o.Cluster)
		})
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return nil, ashlar.E(op, "", ashlar.Unavailable, err)
	}
	return list, nil
}

// relocate moves the nodes of a device to another directory.
func relocate(d *probe.Device, dev string) {
	if dev == "" {
		return
	}
	d.Path = filepath.Join(dev, d.Name)
	for i := range d.Partitions {
		d.Partitions[i].Path = filepath.Join(dev, d.Partitions[i].Name)
	}
}

func lookInTime(ctx context.Context, d probe.Device, cluster ashlar.ClusterID) Found {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	result := make(chan Found, 1)
	go func() { result <- look(ctx, d, cluster) }()
	select {
	case f := <-result:
		return f
	case <-ctx.Done():
		return notOurs(d, ashlar.Unavailable, fmt.Sprintf("does not answer within %v", lookTimeout))
	}
}

// look opens the device without taking hold and judges it.
func look(ctx context.Context, d probe.Device, cluster ashlar.ClusterID) Found {
	if f, inUse := used(d); inUse {
		return f
	}
	dev, err := blockdev.OpenReadOnly(d.Path)
	if err != nil {
		return unreadable(d, err)
	}
	defer dev.Close()
	f, err := judge(ctx, d, dev, cluster)
	if err != nil {
		return unreadable(d, err)
	}
	return f
}

func unreadable(d probe.Device, err error) Found {
	why := "cannot be read: " + rootCause(err)
	if ashlar.Is(err, ashlar.Denied) {
		why += ": run as root, or as an owner of " + d.Path
	}
	return notOurs(d, ashlar.KindOf(err), why)
}

func rootCause(err error) string {
	for {
		e, ok := err.(*ashlar.Error)
		if !ok || e.Err == nil {
			return err.Error()
		}
		err = e.Err
	}
}

func notOurs(d probe.Device, kind ashlar.Kind, why string) Found {
	return Found{Device: d, State: NotOurs, Why: why, kind: kind, final: true}
}

// used judges by what the machine says alone.
func used(d probe.Device) (Found, bool) {
	var why string
	kind := ashlar.Busy
	switch {
	case len(d.Mounts) > 0:
		why = "mounted at " + strings.Join(d.Mounts, ", ")
	case d.Swap:
		why = "in use as swap"
	case len(d.Holders) > 0:
		why = "in use by " + strings.Join(d.Holders, ", ")
	case d.ReadOnly:
		why, kind = "read-only", ashlar.Invalid
	default:
		return Found{}, false
	}
	return notOurs(d, kind, why), true
}

// judge decides what the device is to us. It only reads. An error means that the
// device could not be read, and so that nothing is known of it.
func judge(ctx context.Context, d probe.Device, dev blockdev.IO, cluster ashlar.ClusterID) (Found, error) {
	if f, inUse := used(d); inUse {
		return f, nil
	}
	if dev.Bytes() < DeviceBytesMin {
		return notOurs(d, ashlar.Invalid, fmt.Sprintf("too small: %s, at least %s are needed", sizeText(dev.Bytes()), sizeText(DeviceBytesMin))), nil
	}
	signatures, err := probe.Signatures(ctx, d.Path, dev, d.Partitions)
	if err != nil {
		return Found{}, err
	}
	consent := "claim with --accept-data-loss " + ConsentName(d)
	l, _, err := label.Read(dev)
	switch kind := ashlar.KindOf(err); {
	case err == nil && (cluster == ashlar.ClusterID{} || l.Cluster == cluster):
		why := fmt.Sprintf("%s of cluster %s", cmp.Or(l.Name, l.Disk.String()), clusterText(l))
		if len(signatures) > 0 {
			why += fmt.Sprintf("; somebody wrote %v over its ends", signatures[0])
		}
		return Found{Device: d, State: Ours, Why: why, Label: l, kind: ashlar.Exists}, nil
	case err == nil:
		return Found{Device: d, State: Foreign, Why: foreignText(l), Consent: consent, Label: l, kind: ashlar.Denied}, nil
	case kind == ashlar.Corrupt:
		return Found{Device: d, State: Foreign, Why: "a damaged ashlar label: look at it with ashlar inspect label", Consent: consent, kind: ashlar.Denied}, nil
	case kind == ashlar.Invalid:
		return Found{Device: d, State: Foreign, Why: rootCause(err), Consent: consent, kind: ashlar.Denied}, nil
	case kind != ashlar.NotFound:
		return Found{}, err
	}
	if len(signatures) > 0 {
		return Found{Device: d, State: NotOurs, Why: fmt.Sprintf("%v: wipe it yourself", signatures[0]), Consent: consent, kind: ashlar.Denied}, nil
	}
	return Found{Device: d, State: Blank}, nil
}

func foreignText(l label.Label) string {
	return fmt.Sprintf("belongs to another ashlar cluster, %s: join that one", clusterText(l))
}

// clusterText names a cluster for people: "lab" (5f0c…).
func clusterText(l label.Label) string {
	id := l.Cluster.String()[:4] + "…"
	if l.ClusterName == "" {
		return id
	}
	return fmt.Sprintf("%q (%s)", l.ClusterName, id)
}

// ConsentName is what --accept-data-loss must name to mean this device: its
// serial number or, where it has none (loop devices, files), its name.
func ConsentName(d probe.Device) string { return cmp.Or(d.Serial, d.Name) }

// factsOf returns what the machine says of the device or file at path.
func factsOf(root fs.FS, path string) (probe.Device, error) {
	info, err := os.Stat(path)
	if err != nil {
		return probe.Device{}, err
	}
	d := probe.Device{Name: filepath.Base(path), Path: path, Bytes: info.Size()}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().IsRegular() {
		return d, nil
	}
	number := fmt.Sprintf("%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	target, err := os.Readlink("/sys/dev/block/" + number)
	if err != nil {
		return d, nil
	}
	if _, err := fs.Stat(root, "sys/dev/block/"+number+"/partition"); err == nil {
		return d, fmt.Errorf("%s is a partition; Ashlar takes whole disks", path)
	}
	d.Name = filepath.Base(target)
	if known, ok := probe.Lookup(root, d.Name); ok {
		known.Path = path
		return known, nil
	}
	return d, nil
}
