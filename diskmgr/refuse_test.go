package diskmgr_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"ashlar"
	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/blockdev/looptest"
	"ashlar/diskmgr/label"
)

// foreign puts something on the file and says what a refusal must name.
type foreign struct {
	name, why string
	put       func(t *testing.T, file string)
}

// at writes bytes at an offset; a negative one counts from the end.
func at(off int64, p string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if off < 0 {
			off += diskBytes
		}
		if _, err := f.WriteAt([]byte(p), off); err != nil {
			t.Fatal(err)
		}
	}
}

// program runs a tool that makes something on the file.
func program(name string, args ...string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		tool, err := exec.LookPath(name)
		if err != nil {
			if tool, err = exec.LookPath("/usr/sbin/" + name); err != nil {
				t.Skipf("%s is not installed, so what it makes is not tested", name)
			}
		}
		if out, err := exec.Command(tool, append(args, path)...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
}

func otherCluster(t *testing.T, path string) {
	t.Helper()
	o := options()
	o.Cluster, o.ClusterName = ashlar.ClusterID{0x5f, 0x0c}, "lab"
	claim(t, path, o).Close()
}

func damagedLabel(t *testing.T, path string) {
	t.Helper()
	otherCluster(t, path)
	for _, off := range []int64{0, label.AreaBytes / 2, -label.AreaBytes, -label.AreaBytes / 2} {
		at(off+50, "damage")(t, path)
	}
}

func newerLabel(t *testing.T, path string) {
	t.Helper()
	otherCluster(t, path)
	b := contents(t, path)[:label.Bytes]
	b[8] = 2 // version; the checksum as the format says
	binary.LittleEndian.PutUint32(b[16:], checksum(b[:16], b[24:]))
	at(0, string(b))(t, path)
}

func mbr() string {
	b := make([]byte, 512)
	b[446+4] = 0x83
	binary.LittleEndian.PutUint32(b[446+8:], 2048)
	binary.LittleEndian.PutUint32(b[446+12:], 4096)
	return string(b[:510]) + "\x55\xaa"
}

const raidMagic = "\xfc\x4e\x2b\xa9"

var foreigners = []foreign{
	{"ext4", `ext4 "backup": wipe it yourself`, program("mkfs.ext4", "-q", "-F", "-L", "backup")},
	{"ext2", `ext2 "old": wipe it yourself`, program("mkfs.ext2", "-q", "-F", "-L", "old")},
	{"swap", `swap "pages": wipe it yourself`, program("mkswap", "-q", "-L", "pages")},
	{"xfs", "xfs", at(0, "XFSB")},
	{"btrfs", "btrfs", at(0x10040, "_BHRfS_M")},
	{"LVM2", "LVM2 physical volume", at(512, "LABELONE"+strings.Repeat("\x00", 16)+"LVM2 001")},
	{"RAID 1.0", "Linux RAID member", at(-8192, raidMagic)},
	{"RAID 1.1", "Linux RAID member", at(0, raidMagic)},
	{"RAID 1.2", "Linux RAID member", at(4096, raidMagic)},
	{"RAID 0.90", "Linux RAID member", at(-65536, raidMagic)},
	{"GPT", "GPT partition table", at(512, "EFI PART")},
	{"GPT of 4096", "GPT partition table", at(4096, "EFI PART")},
	{"GPT backup", "GPT partition table", at(-512, "EFI PART")},
	{"MBR", "MBR partition table", at(0, mbr())},
	{"ZFS head", "ZFS", at(128<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00")},
	{"ZFS tail", "ZFS", at(-128<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00")},
	{"ZFS big-endian", "ZFS", at(256<<10+128<<10+5<<10, "\x00\x00\x00\x00\x00\xba\xb1\x0c")},
	{"bcache", "bcache", at(4120, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81")},
	{"LUKS", "LUKS encryption", at(0, "LUKS\xba\xbe\x00\x02")},
	{"LUKS second header", "LUKS encryption", at(0x4000, "SKUL\xba\xbe")},
	{"NTFS", "ntfs", at(3, "NTFS    ")},
	{"FAT", "vfat", at(82, "FAT32   ")},
	{"Ceph", "Ceph OSD", at(0, "bluestore block device\n")},
	{"another cluster", `belongs to another ashlar cluster, "lab" (5f0c…): join that one, or claim with --accept-data-loss`, otherCluster},
	{"a damaged label", "a damaged ashlar label", damagedLabel},
	{"a newer label", "label version 2", newerLabel},
}

// TestForeignDevicesAreRefusedUntouched is fault 21. Each case is
// refused by name and remedy, with not one byte of the device changed; then,
// with the consent that the refusal asked for, it is claimed, and afterwards
// nothing foreign is left.
func TestForeignDevicesAreRefusedUntouched(t *testing.T) {
	for _, f := range foreigners {
		t.Run(f.name, func(t *testing.T) {
			path := blankFile(t)
			f.put(t, path)
			refuseThenConsent(t, path, path, f.why)
		})
	}
}

func TestForeignLoopDeviceIsRefusedUntouched(t *testing.T) {
	for _, f := range []foreign{foreigners[0], foreigners[10], foreigners[len(foreigners)-3]} {
		t.Run(f.name, func(t *testing.T) {
			path, file := looptest.Device(t, diskBytes, 512)
			f.put(t, path)
			refuseThenConsent(t, path, file, f.why)
		})
	}
}

// TestADeviceWithPartitions uses a real one: made by the kernel from the MBR or,
// where the kernel was built without a reader for it, by addpart.
func TestADeviceWithPartitions(t *testing.T) {
	path, file := looptest.Device(t, diskBytes, 512)
	at(0, mbr())(t, path)
	dev, err := blockdev.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(dev.RereadPartitions(), dev.Close()); err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(path)
	part := "/sys/block/" + name + "/" + name + "p1"
	if _, err := os.Stat(part); err != nil {
		if out, err := exec.Command("addpart", path, "1", "2048", "4096").CombinedOutput(); err != nil {
			t.Skipf("neither the kernel nor addpart makes partitions here: %v %s", err, out)
		}
	}
	ext4 := filepath.Join(t.TempDir(), "ext4")
	if err := blockdev.Create(ext4, 2*ashlar.MiB, true); err != nil {
		t.Fatal(err)
	}
	program("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-L", "backup")(t, ext4)
	at(2048*512, string(contents(t, ext4)))(t, path)

	if _, err := os.Stat(path + "p1"); err == nil {
		_, err := diskmgr.Claim(t.Context(), path+"p1", options())
		wantKind(t, err, ashlar.Invalid)
		if !strings.Contains(err.Error(), "is a partition; Ashlar takes whole disks") {
			t.Error(err)
		}
	}
	refuseThenConsent(t, path, file, `ext4 "backup" on `+name+`p1: wipe it yourself`)
	if _, err := os.Stat(part); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the partition of before is still there: %v", err)
	}
}

func refuseThenConsent(t *testing.T, path, file, why string) {
	t.Helper()
	before := contents(t, file)
	name := filepath.Base(path) // neither files nor loop devices have a serial
	for _, accept := range []string{"", "ZL2A7K3B"} {
		o := options()
		o.AcceptDataLoss = accept
		_, err := diskmgr.Claim(t.Context(), path, o)
		wantKind(t, err, ashlar.Denied)
		var refusal *diskmgr.Refusal
		if !errors.As(err, &refusal) {
			t.Fatalf("not a refusal: %v", err)
		}
		if accept == "" && (!strings.Contains(refusal.Why, why) || !strings.HasSuffix(refusal.Why, "--accept-data-loss "+name)) {
			t.Errorf("the refusal says %q; it should name %q and the remedy", refusal.Why, why)
		}
		if !bytes.Equal(before, contents(t, file)) {
			t.Fatal("a refused claim changed the device")
		}
	}
	o := options()
	o.AcceptDataLoss = name
	d := claim(t, path, o)
	if n := d.Label().Geometry.Segments(); n != diskSegments {
		t.Errorf("%d segments", n)
	}
	d.Close()
	found := discoverFile(t, path)
	if found.State != diskmgr.Ours || found.Why != `b1/d02 of cluster "prod" (aa01…)` {
		t.Errorf("after the claim it is %v: %s", found.State, found.Why)
	}
}

func discoverFile(t *testing.T, path string) diskmgr.Found {
	t.Helper()
	list, err := diskmgr.Discover(t.Context(), diskmgr.DiscoverOptions{
		Cluster: ours, Root: fstest.MapFS{"sys/block/.keep": {}}, Files: []string{path},
	})
	if err != nil || len(list) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	return list[0]
}

func TestTooSmallAndOddRequests(t *testing.T) {
	small := filepath.Join(t.TempDir(), "small")
	if err := blockdev.Create(small, 33*ashlar.MiB, true); err != nil {
		t.Fatal(err)
	}
	_, err := diskmgr.Claim(t.Context(), small, options())
	wantKind(t, err, ashlar.Invalid)
	if !strings.Contains(err.Error(), "too small: 34.6 MB, at least 35.7 MB are needed") {
		t.Error(err)
	}
	path := blankFile(t)
	for _, segment := range []int64{1 << 20, 5 << 20, 8 << 20, -4} {
		o := options()
		o.SegmentBytes = segment
		_, err := diskmgr.Claim(t.Context(), path, o)
		wantKind(t, err, ashlar.Invalid)
	}
	o := options()
	o.Cluster = ashlar.ClusterID{}
	_, err = diskmgr.Claim(t.Context(), path, o)
	wantKind(t, err, ashlar.Invalid)
	o = options()
	o.AcceptDataLoss = "another-disk" // consent that names another device, on a blank one
	_, err = diskmgr.Claim(t.Context(), path, o)
	wantKind(t, err, ashlar.Denied)
	_, err = diskmgr.Claim(t.Context(), path+"-absent", options())
	wantKind(t, err, ashlar.NotFound)
	if b := contents(t, path); bytes.Count(b, []byte{0}) != len(b) {
		t.Error("a refused claim changed the device")
	}
	o = options()
	o.SegmentBytes = 4 << 20
	claim(t, path, o)
}

// TestDiscoverListsAsTheStoryboardDoes is the disk list of ux.md §5.1, on files
// that stand for the devices of a fixture tree.
func TestDiscoverListsAsTheStoryboardDoes(t *testing.T) {
	dev := t.TempDir()
	root := fstest.MapFS{"proc/self/mountinfo": {Data: []byte(
		"25 1 8:1 / / rw - ext4 /dev/root rw\n26 1 8:2 / /boot rw - ext4 /dev/sda2 rw\n")}}
	file := func(name, content string) { root[name] = &fstest.MapFile{Data: []byte(content + "\n")} }
	disk := func(i int, name, serial string) {
		dir := "sys/block/" + name
		file(dir+"/size", fmt.Sprint(diskBytes/512))
		file(dir+"/dev", fmt.Sprintf("8:%d", 16*i))
		file(dir+"/serial", serial)
		file(dir+"/queue/rotational", "1")
		if err := blockdev.Create(filepath.Join(dev, name), diskBytes, true); err != nil {
			t.Fatal(err)
		}
	}
	for i, d := range [][2]string{{"sda", "S5GNNG0R"}, {"sdb", "ZL2A7K10"}, {"sdc", "ZL2A7K3B"}, {"sdd", "ZL2A7KQ4"}, {"sde", "ZL2A7KEE"}, {"sdf", "GONE"}} {
		disk(i, d[0], d[1])
	}
	for i, start := range []int{2048, 65536} {
		part := fmt.Sprintf("sys/block/sda/sda%d", i+1)
		file(part+"/partition", fmt.Sprint(i+1))
		file(part+"/dev", fmt.Sprintf("8:%d", i+1))
		file(part+"/start", fmt.Sprint(start))
		file(part+"/size", "2048")
	}
	// sdc: an MBR with one partition, and ext4 "backup" on it, which only the
	// whole device gives access to: there is no node sdc1 here.
	at(0, mbr())(t, filepath.Join(dev, "sdc"))
	ext4 := filepath.Join(t.TempDir(), "ext4")
	if err := blockdev.Create(ext4, 4*ashlar.MiB, true); err != nil {
		t.Fatal(err)
	}
	program("mkfs.ext4", "-q", "-F", "-L", "backup")(t, ext4)
	at(2048*512, string(contents(t, ext4)))(t, filepath.Join(dev, "sdc"))
	file("sys/block/sdc/sdc1/partition", "1")
	file("sys/block/sdc/sdc1/start", "2048")
	file("sys/block/sdc/sdc1/size", "8192")
	otherCluster(t, filepath.Join(dev, "sdd"))
	claim(t, filepath.Join(dev, "sde"), options()).Close()
	os.Remove(filepath.Join(dev, "sdf"))

	list, err := diskmgr.Discover(t.Context(), diskmgr.DiscoverOptions{Cluster: ours, Root: root, Dev: dev})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, f := range list {
		why := strings.ReplaceAll(f.Advice(), dev, "/dev")
		fmt.Fprintf(&got, "%s %s %s: %s\n", f.Device.Name, f.Device.Serial, f.State, why)
	}
	want := `sda S5GNNG0R not ours: mounted at /, /boot
sdb ZL2A7K10 blank: 
sdc ZL2A7K3B not ours: ext4 "backup" on sdc1: wipe it yourself, or claim with --accept-data-loss ZL2A7K3B
sdd ZL2A7KQ4 foreign: belongs to another ashlar cluster, "lab" (5f0c…): join that one, or claim with --accept-data-loss ZL2A7KQ4
sde ZL2A7KEE ours: b1/d02 of cluster "prod" (aa01…)
sdf GONE not ours: cannot be read: stat /dev/sdf: no such file or directory
`
	if got.String() != want {
		t.Errorf("got:\n%swant:\n%s", got.String(), want)
	}
}

// checksum is the format's crc32c, written here again on purpose.
func checksum(parts ...[]byte) uint32 {
	return crc32.Checksum(bytes.Join(parts, nil), crc32.MakeTable(crc32.Castagnoli))
}
