package backup

import (
	"bytes"
	"encoding/binary"
	"flag"
	"os"
	"reflect"
	"testing"
	"time"

	"ashlar"
	"ashlar/daemon/meta"
	"ashlar/placement/topology"
)

var rewrite = flag.Bool("rewrite", false, "write the golden image anew")

func image(t *testing.T) ([]byte, Info, map[ashlar.ShardID][]meta.Row) {
	info := Info{
		ID: ashlar.ID{7, 1}, Created: time.Unix(0, 1_764_300_000_123_456_789).UTC(), Shards: 2, Rows: 3,
		Map: &topology.Map{
			Cluster: ashlar.ClusterID{9}, Name: "golden", Epoch: 12, NextHost: 2, NextReplica: 3,
			Settings: topology.Settings{Large: ashlar.Code{K: 1, M: 0}, Small: ashlar.Code{K: 1, M: 0}},
			Hosts:    []topology.Host{{ID: 1, Name: "a1", Zone: "a"}},
			Disks:    []topology.Disk{{ID: ashlar.DiskID{5}, Host: 1, Name: "a1/d01", Bytes: 1 << 30}},
			Groups:   []topology.Group{{Disks: []topology.DiskNum{0}, Moved: 4}},
			Shards: []topology.Shard{
				{Replicas: []topology.Replica{{ID: 1, Host: 1}}}, {Replicas: []topology.Replica{{ID: 2, Host: 1}}},
			},
		},
	}
	rows := map[ashlar.ShardID][]meta.Row{0: {
		{Key: []byte("a"), Value: []byte("one"), Version: 300}, {Key: []byte("b\x00"), Value: []byte{}, Version: 2},
	}, 1: {{Key: []byte("c"), Value: bytes.Repeat([]byte{0xfe}, 200), Version: 1 << 40}}}
	var out bytes.Buffer
	w := newWriter(&out)
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	check(w.begin(info))
	for shard := range uint32(2) {
		head := binary.LittleEndian.AppendUint32(nil, shard)
		check(w.frame(frameShard, binary.LittleEndian.AppendUint64(head, 77)))
		for _, row := range rows[ashlar.ShardID(shard)] {
			check(w.rows([]meta.Row{row}))
		}
		check(w.frame(frameEnd, binary.LittleEndian.AppendUint64(head, uint64(len(rows[ashlar.ShardID(shard)])))))
	}
	check(w.end(3))
	return out.Bytes(), info, rows
}

// TestGolden compares the stream with the image of version 1, and reads it.
func TestGolden(t *testing.T) {
	got, info, rows := image(t)
	if *rewrite {
		if err := os.WriteFile("testdata/v1.backup", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/v1.backup")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the stream is written otherwise than version 1 was")
	}
	read := map[ashlar.ShardID][]meta.Row{}
	back, err := Read(bytes.NewReader(want), Visitor{Rows: func(s ashlar.ShardID, r []meta.Row) error {
		read[s] = append(read[s], r...)
		return nil
	}})
	if err != nil || back.ID != info.ID || !back.Created.Equal(info.Created) || back.Rows != 3 || back.Map.Cluster != info.Map.Cluster {
		t.Errorf("%+v, %v", back, err)
	}
	if !reflect.DeepEqual(read, rows) {
		t.Errorf("rows %v, want %v", read, rows)
	}
}

// TestEveryChangeIsSeen changes each bit of the image and cuts it everywhere.
func TestEveryChangeIsSeen(t *testing.T) {
	whole, _, _ := image(t)
	for i := range whole {
		if _, err := Read(bytes.NewReader(whole[:i]), Visitor{}); err == nil {
			t.Errorf("cut at %d of %d: nobody notices", i, len(whole))
		}
		for bit := range 8 {
			bad := bytes.Clone(whole)
			bad[i] ^= 1 << bit
			if _, err := Read(bytes.NewReader(bad), Visitor{}); !ashlar.Is(err, ashlar.Corrupt) && !ashlar.Is(err, ashlar.Invalid) {
				t.Errorf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
	if _, err := Read(bytes.NewReader(append(bytes.Clone(whole), 0)), Visitor{}); err == nil {
		t.Error("a byte behind the end: nobody notices")
	}
}
