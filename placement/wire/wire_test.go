package wire

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"ashlar"
	"ashlar/placement/health"
	"ashlar/placement/topology"
)

func sample() *topology.Map {
	since := time.Unix(1_700_000_000, 42).UTC()
	return &topology.Map{
		Cluster: ashlar.ClusterID{1, 2}, Name: "prod", Epoch: 7, NextHost: 3, NextReplica: 4,
		Settings: topology.Settings{
			Large: ashlar.Code{K: 8, M: 4}, Small: ashlar.Code{K: 1, M: 2}, SmallMax: 1 << 20, StripeBytes: 16 << 20,
			GroupBits: 1, BucketShards: 4, DownAfter: 3 * time.Second, OutAfter: 10 * time.Minute,
		},
		Hosts: []topology.Host{
			{ID: 1, Name: "b1", Zone: "a", Rack: "r", Addr: "10.0.0.1:1", RPC: "10.0.0.1:2", Boot: ashlar.BootID{9}, Since: since},
			{ID: 2, Name: "b2", Zone: "b", State: topology.HostOut},
		},
		Disks: []topology.Disk{
			{ID: ashlar.DiskID{1}, Host: 1, Name: "b1/d01", Bytes: 1 << 40, Since: since},
			{ID: ashlar.DiskID{2}, Host: 2, Name: "b2/d01", Bytes: 1 << 41, State: topology.DiskFailed},
		},
		Groups: []topology.Group{{Disks: []topology.DiskNum{0, 1}, Moved: 5}, {Disks: []topology.DiskNum{1, 0}, Moved: 7}},
		Shards: []topology.Shard{{
			Replicas: []topology.Replica{{ID: 1, Host: 1}, {ID: 3, Host: 2}},
			Leaving:  []topology.Replica{{ID: 2, Host: 2}}, Moved: 6,
		}},
		Restore: topology.Restore{Backup: ashlar.ID{3}, Run: ashlar.ID{4}, Shards: 1, Importing: true, Created: time.Unix(5, 6).UTC(), Adopted: time.Unix(7, 8).UTC()},
	}
}

// TestMapSurvives sets every field of a map and sends it over the wire.
func TestMapSurvives(t *testing.T) {
	want := sample()
	b, err := proto.Marshal(FromMap(want))
	if err != nil {
		t.Fatal(err)
	}
	w := &Map{}
	if err := proto.Unmarshal(b, w); err != nil {
		t.Fatal(err)
	}
	got, err := ToMap(w)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	// A field that is added to the map but not to the wire would be zero here.
	for v, i := reflect.ValueOf(*want), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("the sample leaves Map.%s zero: the test proves nothing for it", v.Type().Field(i).Name)
		}
	}
}

func TestBadMapIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Map){
		"short cluster":     func(w *Map) { w.Cluster = w.Cluster[:3] },
		"hosts unordered":   func(w *Map) { w.Hosts[0].Id = 5 },
		"host zero":         func(w *Map) { w.Hosts[0].Id = 0 },
		"disk of nobody":    func(w *Map) { w.Disks[0].Host = 9 },
		"group beyond":      func(w *Map) { w.Groups[0].Disks[1] = 2 },
		"half a table":      func(w *Map) { w.Groups = w.Groups[:1] },
		"replica on nobody": func(w *Map) { w.Shards[0].Replicas[0].Host = 9 },
		"no code":           func(w *Map) { w.Settings.Large = "" },
		"no settings":       func(w *Map) { w.Settings = nil },
	} {
		w := FromMap(sample())
		spoil(w)
		if _, err := ToMap(w); !ashlar.Is(err, ashlar.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzMap(f *testing.F) {
	b, err := proto.Marshal(FromMap(sample()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &Map{}
		if proto.Unmarshal(b, w) != nil {
			return
		}
		m, err := ToMap(w)
		if err != nil {
			return
		}
		again, err := ToMap(FromMap(m))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
	})
}

func TestKindsTravel(t *testing.T) {
	for k := ashlar.Internal; k <= ashlar.Invalid; k++ {
		want := k
		if k == ashlar.Full {
			want = ashlar.Busy // they share a code
		}
		if got := Kind(Status(ashlar.E("op", "", k, errors.New("x")))); got != want {
			t.Errorf("%v arrived as %v", k, got)
		}
	}
	if got := Kind(status.Error(codes.DeadlineExceeded, "")); got != ashlar.Unavailable {
		t.Errorf("an expired deadline is %v", got)
	}
	if Status(nil) != nil {
		t.Error("no error became one")
	}
}

// TestScrubSurvives sets every field of a scrub report.
func TestScrubSurvives(t *testing.T) {
	at := time.Unix(1_700_000_000, 42).UTC()
	want := health.DiskScrub{
		Period: time.Hour, Last: at, Due: at.Add(1), Oldest: at.Add(2), Bytes: 3, Waiting: 4, Repaired: 5, Unread: 6,
	}
	b, err := proto.Marshal(FromScrub(want))
	if err != nil {
		t.Fatal(err)
	}
	w := &ScrubReport{}
	if err := proto.Unmarshal(b, w); err != nil {
		t.Fatal(err)
	}
	if got := ToScrub(w); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for v, i := reflect.ValueOf(want), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("the sample leaves %s zero", v.Type().Field(i).Name)
		}
	}
	if got := ToScrub(FromScrub(health.DiskScrub{})); got != (health.DiskScrub{}) {
		t.Errorf("no scrub became %+v", got)
	}
}

// TestSmartSurvives sets every field of what a disk says of itself.
func TestSmartSurvives(t *testing.T) {
	want := health.DiskSmart{
		Known: true, Serial: "s", Failing: true, Concern: "c", Reallocated: 1, Pending: 2, Uncorrectable: 3, LinkCRC: -1, Wear: 5, Temperature: 6,
	}
	b, err := proto.Marshal(FromSmart(want))
	if err != nil {
		t.Fatal(err)
	}
	w := &SmartReport{}
	if err := proto.Unmarshal(b, w); err != nil {
		t.Fatal(err)
	}
	if got := ToSmart(w); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for v, i := reflect.ValueOf(want), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("the sample leaves %s zero", v.Type().Field(i).Name)
		}
	}
	if got := ToSmart(FromSmart(health.DiskSmart{})); got != (health.DiskSmart{}) {
		t.Errorf("nothing became %+v", got)
	}
}
