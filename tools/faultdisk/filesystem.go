package faultdisk

import (
	"strconv"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// filesystem shows one file per disk, named by its number. Node ids are the
// number plus firstNode.
type filesystem struct {
	fuse.RawFileSystem
	disks []*Disk
}

const firstNode = fuse.FUSE_ROOT_ID + 1

func (f *filesystem) disk(node uint64) *Disk { return f.disks[node-firstNode] }

func (f *filesystem) attr(node uint64, out *fuse.Attr) fuse.Status {
	out.Ino, out.Nlink = node, 1
	if node == fuse.FUSE_ROOT_ID {
		out.Mode = syscall.S_IFDIR | 0o700
		return fuse.OK
	}
	if node-firstNode >= uint64(len(f.disks)) {
		return fuse.ENOENT
	}
	out.Mode, out.Size, out.Blksize = syscall.S_IFREG|0o600, uint64(f.disk(node).Bytes()), blockBytes
	out.Blocks = out.Size / 512
	return fuse.OK
}

func (f *filesystem) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	n, err := strconv.Atoi(name)
	if err != nil || n < 0 || n >= len(f.disks) {
		return fuse.ENOENT
	}
	out.NodeId = uint64(n) + firstNode
	return f.attr(out.NodeId, &out.Attr)
}

func (f *filesystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return f.attr(in.NodeId, &out.Attr)
}

func (f *filesystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return f.attr(in.NodeId, &out.Attr) // times, which nobody keeps
}

// StatFs gives the block size, from which the loop device knows that it may discard.
func (f *filesystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = blockBytes, blockBytes, 255
	return fuse.OK
}

func (f *filesystem) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	return fuse.OK
}

func (f *filesystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	d := f.disk(in.NodeId)
	off := int64(in.Offset)
	buf = buf[:max(0, min(int64(len(buf)), int64(in.Size), d.Bytes()-off))]
	if errno := d.read(buf, off); errno != 0 {
		return nil, fuse.Status(errno) // beside a result, go-fuse drops the status
	}
	return fuse.ReadResultData(buf), fuse.OK
}

func (f *filesystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	d := f.disk(in.NodeId)
	if int64(in.Offset)+int64(len(data)) > d.Bytes() {
		return 0, fuse.Status(syscall.EFBIG)
	}
	return uint32(len(data)), fuse.Status(d.write(data, int64(in.Offset)))
}

func (f *filesystem) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return fuse.Status(f.disk(in.NodeId).flush())
}

// Flush is what close sends: it says nothing about durability.
func (f *filesystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (f *filesystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	d := f.disk(in.NodeId)
	off, length := int64(in.Offset), int64(in.Length)
	if off < 0 || length < 0 || off+length > d.Bytes() || in.Mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) == 0 {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	return fuse.Status(d.discard(off, length, in.Mode&unix.FALLOC_FL_ZERO_RANGE != 0))
}
