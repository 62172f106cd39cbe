package probe

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"ashlar"
	"ashlar/diskmgr/blockdev"
)

// tree builds a fixture: path → content.
func fixture(files map[string]string) fstest.MapFS {
	root := fstest.MapFS{}
	for name, content := range files {
		root[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return root
}

func TestDevicesOfAServer(t *testing.T) {
	root := fixture(map[string]string{
		// A SATA disk that udev knows, with two partitions, mounted and stacked on.
		"sys/block/sda/size":                    "31251759104\n",
		"sys/block/sda/dev":                     "8:0\n",
		"sys/block/sda/ro":                      "0\n",
		"sys/block/sda/queue/rotational":        "1\n",
		"sys/block/sda/device/model":            "ST16000NM001G-2K\n",
		"sys/block/sda/device/vpd_pg80":         "\x00\x80\x00\x08ZL2AXXXX",
		"sys/block/sda/sda2/partition":          "2\n",
		"sys/block/sda/sda2/start":              "1050624\n",
		"sys/block/sda/sda2/size":               "2048\n",
		"sys/block/sda/sda2/dev":                "8:2\n",
		"sys/block/sda/sda2/holders/md0/marker": "",
		"sys/block/sda/sda1/partition":          "1\n",
		"sys/block/sda/sda1/start":              "2048\n",
		"sys/block/sda/sda1/size":               "1048576\n",
		"sys/block/sda/sda1/dev":                "8:1\n",
		"run/udev/data/b8:0":                    "S:disk/by-id/x\nE:ID_SERIAL_SHORT=ZL2A7K10\nE:ID_MODEL=ST16000NM001G\nE:ID_WWN=0x5000c500a1b2c3d4\n",
		// A SAS disk in an enclosure, without udev: the serial is in page 80.
		"sys/block/sdb/size":                            "1000\n",
		"sys/block/sdb/dev":                             "8:16\n",
		"sys/block/sdb/queue/rotational":                "1\n",
		"sys/block/sdb/device/model":                    "MG08SCA16TE     \n",
		"sys/block/sdb/device/wwid":                     "naa.5000039b28d3a1c5\n",
		"sys/block/sdb/device/vpd_pg80":                 "\x00\x80\x00\x0c 91S0A00LFVJG",
		"sys/block/sdb/device/enclosure_device:11/slot": "11\n",
		// NVMe, virtio, USB, swap, read-only.
		"sys/block/nvme0n1/size":             "2000\n",
		"sys/block/nvme0n1/dev":              "259:0\n",
		"sys/block/nvme0n1/wwid":             "eui.0025385b71b00123\n",
		"sys/block/nvme0n1/queue/rotational": "0\n",
		"sys/block/nvme0n1/device/serial":    "S5GNNG0R  \n",
		"sys/block/nvme0n1/device/model":     "SAMSUNG MZ7LH480\n",
		"sys/block/vdb/size":                 "4096\n",
		"sys/block/vdb/dev":                  "254:16\n",
		"sys/block/vdb/serial":               "virt-7\n",
		"sys/block/vdb/ro":                   "1\n",
		"sys/block/sdz/size":                 "4096\n",
		"sys/block/sdz/dev":                  "65:144\n",
		"sys/block/sdz/removable":            "1\n",
		// A btrfs of several devices is mounted under a number of its own.
		"sys/block/sdc/size": "4096\n",
		"sys/block/sdc/dev":  "8:32\n",
		// What is no disk.
		"sys/block/loop0/size":              "8192\n",
		"sys/block/loop0/dev":               "7:0\n",
		"sys/block/loop0/loop/backing_file": "/srv/image file\n",
		"sys/block/loop1/size":              "8192\n",
		"sys/block/sdy/size":                "0\n",
		"sys/block/md0/size":                "8192\n",
		"sys/block/dm-0/size":               "8192\n",
		"sys/block/sr0/size":                "8192\n",
		"sys/block/ram0/size":               "8192\n",
		"sys/block/zram0/size":              "8192\n",

		"proc/self/mountinfo": "25 1 8:1 / /boot rw,relatime shared:1 - ext4 /dev/sda1 rw\n" +
			"26 1 8:1 /sub /srv/with\\040space rw - ext4 /dev/sda1 rw\n" +
			"27 1 0:44 / /data rw - btrfs /dev/sdc rw\nbroken line\n",
		"proc/swaps": "Filename Type Size Used Priority\n/dev/nvme0n1 partition 1 0 -2\n",
	})
	got, err := Devices(root)
	if err != nil {
		t.Fatal(err)
	}
	want := []Device{
		{Name: "loop0", Path: "/dev/loop0", Bytes: 8192 * 512, BackingFile: "/srv/image file"},
		{Name: "nvme0n1", Path: "/dev/nvme0n1", Bytes: 2000 * 512, Serial: "S5GNNG0R", Model: "SAMSUNG MZ7LH480", WWN: "eui.0025385b71b00123", Swap: true},
		{Name: "sda", Path: "/dev/sda", Bytes: 31251759104 * 512, Serial: "ZL2A7K10", Model: "ST16000NM001G", WWN: "0x5000c500a1b2c3d4", Rotating: true,
			Partitions: []Partition{{"sda1", "/dev/sda1", 2048 * 512, 1048576 * 512}, {"sda2", "/dev/sda2", 1050624 * 512, 2048 * 512}},
			Mounts:     []string{"/boot", "/srv/with space"}, Holders: []string{"md0"}},
		{Name: "sdb", Path: "/dev/sdb", Bytes: 1000 * 512, Serial: "91S0A00LFVJ", Model: "MG08SCA16TE", WWN: "naa.5000039b28d3a1c5", Slot: "11", Rotating: true},
		{Name: "sdc", Path: "/dev/sdc", Bytes: 4096 * 512, Mounts: []string{"/data"}},
		{Name: "sdz", Path: "/dev/sdz", Bytes: 4096 * 512, Removable: true},
		{Name: "vdb", Path: "/dev/vdb", Bytes: 4096 * 512, Serial: "virt-7", ReadOnly: true},
	}
	if !reflect.DeepEqual(got, want) {
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || !reflect.DeepEqual(got[i], want[i]) {
				t.Errorf("device %d:\ngot  %+v\nwant %+v", i, got[min(i, len(got)-1)], want[min(i, len(want)-1)])
			}
		}
	}
}

func TestNoSysfsIsUnavailable(t *testing.T) {
	if _, err := Devices(fstest.MapFS{}); !ashlar.Is(err, ashlar.Unavailable) {
		t.Error(err)
	}
}

// TestThisMachine reads the real sysfs: every device listed has a name, a node
// and a size, and the kernel's own view of the root device is among its mounts.
func TestThisMachine(t *testing.T) {
	devices, err := Devices(os.DirFS("/"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no /sys/block on this machine")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		if d.Name == "" || d.Path != "/dev/"+d.Name || d.Bytes <= 0 {
			t.Errorf("%+v", d)
		}
	}
}

func TestParseBlkid(t *testing.T) {
	for in, want := range map[string][]Signature{
		"DEVNAME=/dev/x\nLABEL=my\\ disk\nUUID=1\nTYPE=ext4\nUSAGE=filesystem\n": {{Type: "ext4", Name: "my disk"}},
		"PTUUID=1\nPTTYPE=gpt\n":             {{Type: "gpt"}},
		"TYPE=vfat\nPTTYPE=dos\n":            {{Type: "vfat"}, {Type: "dos"}},
		"PTTYPE=PMBR\n":                      nil,
		"DEVNAME=/dev/x\nLOGICAL_SECTOR=1\n": nil,
		"":                                   nil,
	} {
		if got := parseBlkid([]byte(in)); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
}

// TestBlkidKnowsWhatWeDoNot makes a file system that only blkid recognises.
func TestBlkidKnowsWhatWeDoNot(t *testing.T) {
	if findBlkid() == "" {
		t.Skip("blkid is not installed")
	}
	mkfs, err := exec.LookPath("mkfs.minix")
	if err != nil {
		if mkfs, err = exec.LookPath("/usr/sbin/mkfs.minix"); err != nil {
			t.Skip("mkfs.minix is not installed")
		}
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := blockdev.Create(path, 32*ashlar.MiB, true); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, path).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	dev, err := blockdev.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	own, err := scan(dev, 0, dev.Bytes())
	if err != nil || len(own) != 0 {
		t.Fatalf("we know minix after all: %v %v", own, err)
	}
	got, err := Signatures(t.Context(), path, dev, nil)
	if err != nil || len(got) != 1 || got[0].Type != "minix" {
		t.Errorf("%v %v", got, err)
	}
}

// TestOwnCheckAgreesWithBlkid: what both know they name alike, so that a device
// is not refused for two reasons that are one.
func TestOwnCheckAgreesWithBlkid(t *testing.T) {
	if findBlkid() == "" {
		t.Skip("blkid is not installed")
	}
	for _, c := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-L", "four"}, {"mkfs.ext3", "-q", "-F"}, {"mkfs.ext2", "-q", "-F"}, {"mkswap", "-q", "-L", "pages"},
	} {
		path := filepath.Join(t.TempDir(), "disk")
		if err := blockdev.Create(path, 32*ashlar.MiB, true); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(c[0], append(c[1:], path)...)
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Logf("%s: not tested: %v %s", c[0], err, out)
			continue
		}
		dev, err := blockdev.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		own, err := scan(dev, 0, dev.Bytes())
		if theirs := blkid(t.Context(), path); err != nil || len(own) != 1 || !reflect.DeepEqual(own, theirs) {
			t.Errorf("%s: we see %v, blkid sees %v: %v", c[0], own, theirs, err)
		}
		dev.Close()
	}
}

func TestWhatCannotBeReadIsNotBlank(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := blockdev.Create(path, 32*ashlar.MiB, true); err != nil {
		t.Fatal(err)
	}
	dev, err := blockdev.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	var fault blockdev.Fault
	fault.Kill()
	if _, err := Signatures(t.Context(), path, fault.Wrap(dev), nil); !ashlar.Is(err, ashlar.Unavailable) {
		t.Error(err)
	}
}

func TestSignatureText(t *testing.T) {
	for want, s := range map[string]Signature{
		`ext4 "backup" on sdc1`:        {"ext4", "backup", "sdc1"},
		"GPT partition table":          {"gpt", "", ""},
		`Linux RAID member "host:0"`:   {"linux_raid_member", "host:0", ""},
		"LVM2 physical volume on sdd2": {"LVM2_member", "", "sdd2"},
	} {
		if got := s.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzScan feeds any bytes at both ends of a device: the check must neither
// panic nor read outside, and must stay silent about zeros.
func FuzzScan(f *testing.F) {
	for _, p := range plain {
		f.Add(append(make([]byte, p.off), p.magic...), []byte(nil))
	}
	f.Add([]byte(strings.Repeat("\x00", 1080)+"\x53\xef"), []byte("EFI PART"))
	f.Fuzz(func(t *testing.T, head, tail []byte) {
		if len(head) > 128*ashlar.KiB || len(tail) > 128*ashlar.KiB {
			return
		}
		e := &ends{head: make([]byte, 256*ashlar.KiB), tail: make([]byte, 256*ashlar.KiB), size: 300 * ashlar.KiB}
		copy(e.head, head)
		copy(e.tail[len(e.tail)-len(tail):], tail)
		found := look(e)
		blank := strings.Trim(string(head)+string(tail), "\x00") == ""
		if blank && len(found) > 0 {
			t.Fatalf("zeros are %v", found)
		}
		for _, s := range found {
			if s.Type == "" || strings.ContainsRune(s.Name, 0) {
				t.Fatalf("%+v", s)
			}
		}
	})
}
