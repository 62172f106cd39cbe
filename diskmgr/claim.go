package diskmgr

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
	"unicode/utf8"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/label"
	"ashlar/diskmgr/probe"
)

// ClaimOptions say for whom a device is claimed and how. Only Cluster (of
// OpenOptions) must be set.
type ClaimOptions struct {
	OpenOptions
	// ClusterName and Name (host/dNN) go into the label, for people.
	ClusterName, Name string
	// SegmentBytes is the segment size, a power of two; 0 chooses by the size of
	// the device.
	SegmentBytes int64
	// AcceptDataLoss is the consent to destroy what is on the device: the name
	// that ConsentName gives it. It must match even if the device is blank.
	AcceptDataLoss string
	// Rotating overrules what the machine says of the device.
	Rotating *bool
	// Measure is how long the disk is measured for its baseline; 0 does not.
	Measure time.Duration
	// Root is the file system of the machine; nil means "/".
	Root fs.FS
}

// Refusal is the cause of an error of Claim that protects somebody's data, or
// that says why the device is of no use. Not one byte was written.
type Refusal struct {
	Found Found
	Why   string
}

func (r *Refusal) Error() string { return fmt.Sprintf("refused, it is %v: %s", r.Found.State, r.Why) }

// Claim makes the device or file at path a disk of the cluster and holds it, as
// Open would. It takes hold of the device first, looks for foreign signatures
// then, and writes only if there is none or the operator consented. A cut in
// the middle leaves the device as it was, or blank, or ours. Kinds: Denied (a
// foreign signature or label; permissions), Exists (ours already), Busy (in
// use), Invalid (too small, bad options), NotFound, Unavailable; the first two,
// and Busy and Invalid where the device is at fault, carry a *Refusal.
func Claim(ctx context.Context, path string, o ClaimOptions) (*Disk, error) {
	const op = "diskmgr: claim"
	o.fill()
	if o.Root == nil {
		o.Root = os.DirFS("/")
	}
	if o.Cluster == (ashlar.ClusterID{}) {
		return nil, ashlar.E(op, path, ashlar.Invalid, errors.New("no cluster id"))
	}
	facts, err := factsOf(o.Root, path)
	if err != nil {
		kind := ashlar.Invalid
		if errors.Is(err, os.ErrNotExist) {
			kind = ashlar.NotFound
		}
		return nil, ashlar.E(op, path, kind, err)
	}
	device, err := blockdev.OpenWith(path, blockdev.Options{Engine: o.Engine})
	if err != nil {
		return nil, ashlar.E(op, path, ashlar.KindOf(err), err)
	}
	disk, err := claimHeld(ctx, facts, device, &o)
	if err != nil {
		device.Close()
		return nil, ashlar.E(op, path, ashlar.KindOf(err), err)
	}
	return disk, nil
}

func claimHeld(ctx context.Context, facts probe.Device, device *blockdev.Device, o *ClaimOptions) (*Disk, error) {
	under := o.Wrap(device)
	found, err := judge(ctx, facts, under, o.Cluster)
	if err != nil {
		return nil, err
	}
	if err := consent(found, o.AcceptDataLoss); err != nil {
		return nil, err
	}
	geometry, err := geometryOf(device.Bytes(), device.BlockBytes(), o.SegmentBytes)
	if err != nil {
		return nil, ashlar.E("diskmgr: geometry", "", ashlar.Invalid, err)
	}
	if found.State != Blank {
		if err := label.Wipe(under); err != nil {
			return nil, err
		}
		// Somebody may look at a partition that is no more; it goes away later.
		_ = device.RereadPartitions()
	}
	if err := clearEnds(under, geometry); err != nil {
		return nil, err
	}
	l := newLabel(found, geometry, o)
	if o.Measure > 0 {
		if l.Baseline, err = measure(ctx, under, geometry, o.Measure); err != nil {
			return nil, err
		}
	}
	disk, err := assemble(device, under, l, o.OpenOptions)
	if err != nil {
		return nil, err
	}
	disk.relabel.Lock()
	defer disk.relabel.Unlock()
	if err := disk.writeLocked(l); err != nil {
		return nil, err
	}
	return disk, nil
}

// endBytes at both ends of the data area are cleared by a claim.
const endBytes = 64 * ashlar.KiB

// clearEnds makes the data area look new: what somebody wrote there in a former
// life of the device, such as the log of a disk whose labels were wiped, must
// not be found. Offering the area for discard promises nothing about its bytes.
func clearEnds(under blockdev.IO, g label.Geometry) error {
	zeros := blockdev.Aligned(endBytes)
	for _, off := range []int64{g.DataOffset, g.DataOffset + g.Data - endBytes} {
		if _, err := under.WriteAt(zeros, off); err != nil {
			return err
		}
	}
	return under.Flush()
}

// consent returns the refusal to claim what was found, or nil.
func consent(found Found, accepted string) error {
	refuse := func(kind ashlar.Kind, why string) error {
		return ashlar.E("diskmgr: consent", "", kind, &Refusal{Found: found, Why: why})
	}
	name := ConsentName(found.Device)
	switch {
	case accepted != "" && accepted != name:
		return refuse(ashlar.Denied, fmt.Sprintf("--accept-data-loss names %q, but this device is %q", accepted, name))
	case found.State == Blank:
		return nil
	case found.final || accepted == "":
		return refuse(found.kind, found.Advice())
	default:
		return nil
	}
}

// newLabel is the label of a new disk; writing it makes its sequence one more
// than that of a label which it replaces.
func newLabel(found Found, geometry label.Geometry, o *ClaimOptions) label.Label {
	l := label.Label{
		Sequence: found.Label.Sequence,
		Cluster:  o.Cluster, Disk: ashlar.DiskID(ashlar.NewID()), Host: o.Host,
		OwnerEpoch: found.Label.OwnerEpoch + 1, Owner: ashlar.BootID(ashlar.NewID()),
		Rotating: found.Device.Rotating, Geometry: geometry, Claimed: wall(o.Now()),
		Name: clip(o.Name), ClusterName: clip(o.ClusterName), Serial: clip(found.Device.Serial),
	}
	if o.Rotating != nil {
		l.Rotating = *o.Rotating
	}
	return l
}

// clip cuts a text for people to what the label holds, between characters.
func clip(s string) string {
	if len(s) <= label.TextBytesMax {
		return s
	}
	end := label.TextBytesMax
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
