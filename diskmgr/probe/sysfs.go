package probe

import (
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"ashlar"
)

// Device is what the machine says of one block device.
type Device struct {
	// Name is the kernel's name (sdb), Path the node (/dev/sdb). Both may differ
	// after the next boot.
	Name, Path string
	// Bytes is the size.
	Bytes int64
	// Serial, Model, WWN and Slot identify the device to people; each may be empty.
	Serial, Model, WWN, Slot string
	// BackingFile is the file under a loop device.
	BackingFile string
	Rotating    bool
	ReadOnly    bool
	Removable   bool
	Partitions  []Partition
	// Mounts are the mount points of the device and of its partitions, Holders
	// the devices stacked on them, sorted.
	Mounts, Holders []string
	// Swap reports that the device or a partition of it is in use as swap.
	Swap bool
}

// Partition is a part of a device that the kernel knows.
type Partition struct {
	// Name is the kernel's name (sdb1), Path the node (/dev/sdb1).
	Name, Path string
	// Start and Bytes are in bytes, from the start of the device.
	Start, Bytes int64
}

// sectorBytes is the unit of sysfs, whatever the device's own sector is.
const sectorBytes = 512

// Devices lists the whole block devices that could hold a disk: not RAM, not
// optical, not stacked ones (dm, md), no loop device without a file, nothing of
// size 0. Root is the file system of the machine; entries that vanish while they
// are read are left out. Kind Unavailable if sysfs cannot be read.
func Devices(root fs.FS) ([]Device, error) {
	entries, err := fs.ReadDir(root, "sys/block")
	if err != nil {
		return nil, ashlar.E("probe: devices", "/sys/block", ashlar.Unavailable, err)
	}
	t := tree{root: root}
	t.readMounts()
	t.readSwaps()
	var list []Device
	for _, e := range entries {
		if d, ok := t.device(e.Name()); ok {
			list = append(list, d)
		}
	}
	return list, nil
}

// Lookup returns the device with the kernel name, as Devices would list it.
func Lookup(root fs.FS, name string) (Device, bool) {
	t := tree{root: root}
	t.readMounts()
	t.readSwaps()
	return t.device(name)
}

// tree reads facts below one root.
type tree struct {
	root fs.FS
	// mounts maps major:minor, and the source as mounted (a btrfs of several
	// devices has no number of its own), to mount points; swaps holds paths.
	mounts map[string][]string
	swaps  map[string]bool
}

// stacked are the prefixes of devices that are no disk by themselves.
var stacked = []string{"ram", "zram", "sr", "fd", "dm-", "md", "nbd", "drbd", "rbd"}

func (t *tree) device(name string) (Device, bool) {
	for _, prefix := range stacked {
		if strings.HasPrefix(name, prefix) {
			return Device{}, false
		}
	}
	dir := "sys/block/" + name
	d := Device{
		Name: name, Path: "/dev/" + name,
		Bytes:       t.number(dir+"/size") * sectorBytes,
		BackingFile: t.text(dir + "/loop/backing_file"),
		Rotating:    t.text(dir+"/queue/rotational") == "1",
		ReadOnly:    t.text(dir+"/ro") == "1",
		Removable:   t.text(dir+"/removable") == "1",
	}
	if d.Bytes <= 0 || (strings.HasPrefix(name, "loop") && d.BackingFile == "") {
		return Device{}, false
	}
	t.identify(&d, dir)
	t.uses(&d, dir, name)
	t.partitions(&d, dir)
	slices.Sort(d.Mounts)
	d.Mounts = slices.Compact(d.Mounts)
	slices.Sort(d.Holders)
	return d, true
}

// identify reads who the device is: from udev where it keeps a database, else
// from what each driver puts into sysfs.
func (t *tree) identify(d *Device, dir string) {
	u := t.udev(t.text(dir + "/dev"))
	d.Serial = first(u["ID_SERIAL_SHORT"], u["ID_SCSI_SERIAL"], t.text(dir+"/serial"), t.text(dir+"/device/serial"), t.page80(dir+"/device/vpd_pg80"))
	d.Model = first(strings.ReplaceAll(u["ID_MODEL"], "_", " "), t.text(dir+"/device/model"))
	d.WWN = first(u["ID_WWN_WITH_EXTENSION"], u["ID_WWN"], t.text(dir+"/wwid"), t.text(dir+"/device/wwid"))
	d.Slot = t.text(dir + "/device/enclosure_device/slot")
	if d.Slot == "" {
		if links, err := fs.Glob(t.root, dir+"/device/enclosure_device*/slot"); err == nil && len(links) > 0 {
			d.Slot = t.text(links[0])
		}
	}
}

// uses adds what the device or partition called name is in use for.
func (t *tree) uses(d *Device, dir, name string) {
	d.Mounts = append(d.Mounts, t.mounts[t.text(dir+"/dev")]...)
	d.Mounts = append(d.Mounts, t.mounts["/dev/"+name]...)
	d.Swap = d.Swap || t.swaps["/dev/"+name]
	if entries, err := fs.ReadDir(t.root, dir+"/holders"); err == nil {
		for _, e := range entries {
			d.Holders = append(d.Holders, e.Name())
		}
	}
}

func (t *tree) partitions(d *Device, dir string) {
	entries, err := fs.ReadDir(t.root, dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		sub := path.Join(dir, e.Name())
		if t.text(sub+"/partition") == "" {
			continue
		}
		d.Partitions = append(d.Partitions, Partition{
			Name: e.Name(), Path: "/dev/" + e.Name(), Start: t.number(sub+"/start") * sectorBytes, Bytes: t.number(sub+"/size") * sectorBytes,
		})
		t.uses(d, sub, e.Name())
	}
	slices.SortFunc(d.Partitions, func(a, b Partition) int { return int((a.Start - b.Start) / sectorBytes) })
}

func (t *tree) readMounts() {
	t.mounts = map[string][]string{}
	for _, line := range t.lines("proc/self/mountinfo") {
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		if dash < 6 || len(f) < dash+3 {
			continue
		}
		t.mounts[f[2]] = append(t.mounts[f[2]], octal(f[4]))
		t.mounts[octal(f[dash+2])] = append(t.mounts[octal(f[dash+2])], octal(f[4]))
	}
}

func (t *tree) readSwaps() {
	t.swaps = map[string]bool{}
	for _, line := range t.lines("proc/swaps") {
		if f := strings.Fields(line); len(f) > 0 && strings.HasPrefix(f[0], "/dev/") {
			t.swaps[octal(f[0])] = true
		}
	}
}

// udev returns the properties that udev has stored for major:minor.
func (t *tree) udev(number string) map[string]string {
	properties := map[string]string{}
	for _, line := range t.lines("run/udev/data/b" + number) {
		if property, ok := strings.CutPrefix(line, "E:"); ok {
			key, value, _ := strings.Cut(property, "=")
			properties[key] = value
		}
	}
	return properties
}

// page80 reads the serial out of a SCSI unit serial number page: four bytes of
// header, the last two of them the length, then the text.
func (t *tree) page80(name string) string {
	b, err := fs.ReadFile(t.root, name)
	if err != nil || len(b) < 4 {
		return ""
	}
	n := min(len(b)-4, int(b[2])<<8|int(b[3]))
	return strings.TrimSpace(strings.Trim(string(b[4:4+n]), "\x00"))
}

func (t *tree) text(name string) string {
	b, err := fs.ReadFile(t.root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (t *tree) number(name string) int64 {
	n, err := strconv.ParseInt(t.text(name), 10, 64)
	if err != nil || n < 0 || n > (1<<63-1)/sectorBytes {
		return 0
	}
	return n
}

func (t *tree) lines(name string) []string {
	text := t.text(name)
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func first(values ...string) string {
	for _, v := range values {
		if v = strings.TrimSpace(v); v != "" {
			return v
		}
	}
	return ""
}

// octal undoes the \040 escapes of the proc files.
func octal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
