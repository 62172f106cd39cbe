package diskmgr

import (
	"fmt"
	"strings"

	"ashlar"
	"ashlar/diskmgr/blockdev"
	"ashlar/diskmgr/label"
)

// UdevProperties returns the KEY=value lines that the udev rule imports for the
// device at path, or nothing if it carries no label of ours. It takes no hold
// and writes nothing. An unreadable device is an error; a damaged label, or one
// of a newer version, is shown as the Ashlar disk that it is.
func UdevProperties(path string) ([]string, error) {
	const op = "diskmgr: udev"
	dev, err := blockdev.OpenReadOnly(path)
	if err != nil {
		return nil, ashlar.E(op, path, ashlar.KindOf(err), err)
	}
	defer dev.Close()
	if dev.Bytes() < DeviceBytesMin {
		return nil, nil
	}
	l, _, err := label.Read(dev)
	switch kind := ashlar.KindOf(err); {
	case err == nil:
		return []string{
			"ID_FS_TYPE=ashlar_disk",
			fmt.Sprintf("ID_FS_VERSION=%d", label.Version),
			"ID_FS_UUID=" + l.Disk.String(),
			"ID_FS_LABEL=" + plainText(l.Name),
			"ASHLAR_DISK=" + l.Disk.String(),
			"ASHLAR_CLUSTER=" + l.Cluster.String(),
		}, nil
	case kind == ashlar.Corrupt || kind == ashlar.Invalid:
		return []string{"ID_FS_TYPE=ashlar_disk"}, nil
	case kind == ashlar.NotFound:
		return nil, nil
	default:
		return nil, ashlar.E(op, path, kind, err)
	}
}

// plainText keeps what udev lets through in a value that others print.
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("#+-.:=@_/", r) || ('0' <= r && r <= '9') || ('a' <= r && r <= 'z') || ('A' <= r && r <= 'Z') {
			return r
		}
		return '_'
	}, s)
}
