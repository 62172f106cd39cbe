package probe

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"ashlar"
	"ashlar/diskmgr/blockdev"
)

// Signature is something on a device that is not ours. Type uses blkid's words.
type Signature struct {
	// Type is what it is, for example ext4, crypto_LUKS, gpt.
	Type string
	// Name is the label that its owner gave it, or empty.
	Name string
	// On is the partition that it was found on, or empty for the device itself.
	On string
}

// titles are the words for people, where blkid's are not for people.
var titles = map[string]string{
	"linux_raid_member": "Linux RAID member", "LVM2_member": "LVM2 physical volume", "crypto_LUKS": "LUKS encryption",
	"zfs_member": "ZFS", "gpt": "GPT partition table", "dos": "MBR partition table", "ceph_bluestore": "Ceph OSD",
	"swsuspend": "hibernation image", "oracleasm": "Oracle ASM disk",
}

// String is the signature as ux.md's WHY column shows it: ext4 "backup" on sdc1.
func (s Signature) String() string {
	text := cmp.Or(titles[s.Type], s.Type)
	if s.Name != "" {
		text += fmt.Sprintf(" %q", s.Name)
	}
	if s.On != "" {
		text += " on " + s.On
	}
	return text
}

// Signatures reads the device, and the given partitions of it, and returns what
// it finds, contents of partitions first. It writes nothing. An unreadable
// device is an error of the kind that its ReadAt returns: what cannot be read
// cannot be called blank.
func Signatures(ctx context.Context, path string, dev blockdev.IO, partitions []Partition) ([]Signature, error) {
	const op = "probe: signatures"
	var found []Signature
	for _, p := range partitions {
		on, err := scan(dev, p.Start, p.Bytes)
		if err != nil {
			return nil, ashlar.E(op, path, ashlar.KindOf(err), err)
		}
		found = appendNew(found, p.Name, on)
		found = appendNew(found, p.Name, blkid(ctx, p.Path))
	}
	whole, err := scan(dev, 0, dev.Bytes())
	if err != nil {
		return nil, ashlar.E(op, path, ashlar.KindOf(err), err)
	}
	found = appendNew(found, "", whole)
	return appendNew(found, "", blkid(ctx, path)), nil
}

func appendNew(list []Signature, on string, more []Signature) []Signature {
	for _, s := range more {
		s.On = on
		// A partition table inside a partition is a boot sector's noise.
		if on != "" && (s.Type == "dos" || s.Type == "gpt") {
			continue
		}
		same := func(t Signature) bool { return t.Type == s.Type && t.On == s.On }
		if i := slices.IndexFunc(list, same); i < 0 {
			list = append(list, s)
		} else if list[i].Name == "" {
			list[i].Name = s.Name
		}
	}
	return list
}

// spanBytes is how much of each end is read: every signature lies within.
const spanBytes = ashlar.MiB

// ends are the first and the last bytes of a device or partition.
type ends struct {
	head, tail []byte
	size       int64
}

// scan looks for the signatures that we know ourselves in size bytes from start.
func scan(dev blockdev.IO, start, size int64) ([]Signature, error) {
	if start < 0 || size <= 0 || start > dev.Bytes() {
		return nil, nil
	}
	size = min(size, dev.Bytes()-start)
	n := min(size, spanBytes)
	head, err := read(dev, start, n)
	if err != nil {
		return nil, err
	}
	tail, err := read(dev, start+size-n, n)
	if err != nil {
		return nil, err
	}
	return look(&ends{head: head, tail: tail, size: size}), nil
}

// look runs every check of our own.
func look(e *ends) []Signature {
	var found []Signature
	for _, check := range []func(*ends) []Signature{plainMagics, extFamily, raid, zfs, swap, lvm, tables} {
		found = append(found, check(e)...)
	}
	return found
}

// read returns n bytes from any offset by way of an aligned read around them.
func read(dev blockdev.IO, off, n int64) ([]byte, error) {
	block := int64(dev.BlockBytes())
	from := off - off%block
	to := min((off+n+block-1)/block*block, dev.Bytes())
	buf := blockdev.Aligned(int(to - from))
	if _, err := dev.ReadAt(buf, from); err != nil {
		return nil, err
	}
	return buf[off-from : off-from+n], nil
}

// has reports whether the magic stands at the offset from the start.
func (e *ends) has(off int, magic string) bool {
	return off >= 0 && off+len(magic) <= len(e.head) && string(e.head[off:off+len(magic)]) == magic
}

// hasAt is like has for an offset from the start of the device that lies
// within the last span.
func (e *ends) hasAt(off int64, magic string) bool {
	i := off - (e.size - int64(len(e.tail)))
	return i >= 0 && i+int64(len(magic)) <= int64(len(e.tail)) && string(e.tail[i:i+int64(len(magic))]) == magic
}

// name returns the zero- or space-padded text at the offset.
func (e *ends) name(off, length int) string {
	if off < 0 || off+length > len(e.head) {
		return ""
	}
	b, _, _ := bytes.Cut(e.head[off:off+length], []byte{0})
	return strings.TrimSpace(strings.ToValidUTF8(string(b), "?"))
}

// plain are the formats that one magic at one place gives away.
var plain = []struct {
	kind           string
	off            int
	magic          string
	nameAt, nameOf int
}{
	{"xfs", 0, "XFSB", 108, 12},
	{"btrfs", 0x10040, "_BHRfS_M", 0x1012b, 256},
	{"crypto_LUKS", 0, "LUKS\xba\xbe", 0, 0},
	{"crypto_LUKS", 0x4000, "SKUL\xba\xbe", 0, 0},
	{"bcache", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", 4096 + 72, 32},
	{"bcachefs", 4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", 4096 + 72, 32},
	{"f2fs", 1024, "\x10\x20\xf5\xf2", 0, 0},
	{"ntfs", 3, "NTFS    ", 0, 0},
	{"exfat", 3, "EXFAT   ", 0, 0},
	{"vfat", 54, "FAT12   ", 43, 11},
	{"vfat", 54, "FAT16   ", 43, 11},
	{"vfat", 82, "FAT32   ", 71, 11},
	{"iso9660", 0x8001, "CD001", 0x8028, 32},
	{"ceph_bluestore", 0, "bluestore block device", 0, 0},
	{"oracleasm", 32, "ORCLDISK", 0, 0},
	{"squashfs", 0, "hsqs", 0, 0},
}

func plainMagics(e *ends) []Signature {
	var found []Signature
	for _, p := range plain {
		if e.has(p.off, p.magic) {
			found = append(found, Signature{Type: p.kind, Name: e.name(p.nameAt, p.nameOf)})
		}
	}
	return found
}

func extFamily(e *ends) []Signature {
	const super = 1024
	if !e.has(super+56, "\x53\xef") || len(e.head) < super+136 {
		return nil
	}
	compatible := binary.LittleEndian.Uint32(e.head[super+92:])
	incompatible := binary.LittleEndian.Uint32(e.head[super+96:])
	kind := "ext2"
	switch {
	case incompatible&0x8 != 0:
		kind = "jbd" // an external journal
	case incompatible&0x2c0 != 0: // extents, 64bit, flex_bg
		kind = "ext4"
	case compatible&0x4 != 0:
		kind = "ext3"
	}
	return []Signature{{Type: kind, Name: e.name(super+120, 16)}}
}

const raidMagic = "\xfc\x4e\x2b\xa9"

func raid(e *ends) []Signature {
	const kind = "linux_raid_member"
	for _, off := range []int{0, 4096} { // formats 1.1 and 1.2
		if e.has(off, raidMagic) {
			return []Signature{{Type: kind, Name: e.name(off+32, 32)}}
		}
	}
	sectors := e.size / 512
	old := e.size&^(64<<10-1) - 64<<10 // format 0.90
	late := (sectors - 16) &^ 7 * 512  // format 1.0
	swapped := "\xa9\x2b\x4e\xfc"      // 0.90 is in the byte order of its maker
	if e.hasAt(old, raidMagic) || e.hasAt(old, swapped) || e.hasAt(late, raidMagic) {
		return []Signature{{Type: kind}}
	}
	return nil
}

// zfs keeps four labels of 256 KiB, two at each end; the upper half of each is
// a ring of uberblocks, of which one sound magic is enough.
func zfs(e *ends) []Signature {
	const labelBytes, ring, step = 256 << 10, 128 << 10, 1 << 10
	little, big := "\x0c\xb1\xba\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\xba\xb1\x0c"
	end := e.size &^ (labelBytes - 1)
	for _, base := range []int64{0, labelBytes, end - 2*labelBytes, end - labelBytes} {
		for off := base + ring; off < base+labelBytes; off += step {
			for _, magic := range []string{little, big} {
				if e.hasAt(off, magic) || (off < int64(len(e.head)) && e.has(int(off), magic)) {
					return []Signature{{Type: "zfs_member"}}
				}
			}
		}
	}
	return nil
}

// swap ends the first page, whose size is that of the machine that made it.
func swap(e *ends) []Signature {
	for page := 4096; page <= 64<<10; page *= 2 {
		switch {
		case e.has(page-10, "SWAPSPACE2"), e.has(page-10, "SWAP-SPACE"):
			return []Signature{{Type: "swap", Name: e.name(1052, 16)}}
		case e.has(page-10, "S1SUSPEND\x00"), e.has(page-10, "S2SUSPEND\x00"):
			return []Signature{{Type: "swsuspend"}}
		}
	}
	return nil
}

func lvm(e *ends) []Signature {
	for off := 0; off < 4*512; off += 512 {
		if e.has(off, "LABELONE") && e.has(off+24, "LVM2 001") {
			return []Signature{{Type: "LVM2_member"}}
		}
	}
	return nil
}

// tables finds partition tables: GPT at either end, for both sector sizes, and
// an MBR with at least one partition.
func tables(e *ends) []Signature {
	var found []Signature
	const magic = "EFI PART"
	if e.has(512, magic) || e.has(4096, magic) || e.hasAt(e.size-512, magic) || e.hasAt(e.size-4096, magic) {
		found = append(found, Signature{Type: "gpt"})
	}
	if len(e.head) >= 512 && e.has(510, "\x55\xaa") {
		for entry := 446; entry < 510; entry += 16 {
			status, kind := e.head[entry], e.head[entry+4]
			if kind != 0 && kind != 0xee && status&0x7f == 0 && binary.LittleEndian.Uint32(e.head[entry+12:]) != 0 {
				return append(found, Signature{Type: "dos"})
			}
		}
	}
	return found
}
