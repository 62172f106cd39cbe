package inspect_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/build"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ashlar"
	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev"
	"ashlar/segment"
	"ashlar/segment/segmenttest"
	"ashlar/tools/inspect"
)

// TestSharesNoDecoder: the reader knows the formats from their documents only.
func TestSharesNoDecoder(t *testing.T) {
	p, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range p.Imports {
		if strings.HasPrefix(path, "ashlar") {
			t.Errorf("it imports %s", path)
		}
	}
	if len(p.Imports) == 0 {
		t.Error("no imports were seen")
	}
}

// run is the command as the shell runs it.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := inspect.Command()
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func contains(t *testing.T, got string, want ...string) {
	t.Helper()
	flat := strings.Join(strings.Fields(got), " ")
	for _, w := range want {
		if !strings.Contains(flat, w) {
			t.Errorf("%q is not in:\n%s", w, got)
		}
	}
}

// claimed is a disk that the real code claimed, wrote and closed.
func claimed(t *testing.T) (path string, records []*segment.Record) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disk")
	if err := blockdev.Create(path, 36*ashlar.MiB, true); err != nil {
		t.Fatal(err)
	}
	disk, err := diskmgr.Claim(t.Context(), path, diskmgr.ClaimOptions{
		OpenOptions: diskmgr.OpenOptions{Cluster: ashlar.ClusterID{0xc1}}, ClusterName: "prod", Name: "b1/d02",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	l, err := segment.Open(t.Context(), disk.Device(), segment.Options{Disk: disk.Label().Disk, IndexDir: t.TempDir(), SegmentBytes: disk.Label().Geometry.SegmentBytes})
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(20) {
		r := segmenttest.Piece(n+1, 50_000+int(n)*10_000)
		if err := l.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	if err := l.Delete(t.Context(), records[0].Key); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return path, records
}

// TestCommandsOnARealDisk goes from the list of segments to one of them to a
// record, and then finds a flipped bit at each of these levels.
func TestCommandsOnARealDisk(t *testing.T) {
	path, records := claimed(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	must := func(args ...string) string {
		t.Helper()
		got, err := run(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	contains(t, must("label", path), "152 b1/d02 name", "216 prod name of the cluster", "copy 0 is the label")
	contains(t, must("segment", path), "anchor, front, slot 1", "32 1 count of openings", "SEGMENT AT STATE", "0 1114112 sealed")
	contains(t, must("segment", path, "0"), "header, copy", "trailer", "segment 0 is sealed, at 1114112", "batch number 0, 1 records good")
	r := records[7]
	var found struct {
		Items []inspect.Item `json:"items"`
	}
	name := fmt.Sprintf("%s/%d", r.Stripe, r.Piece)
	if err := json.Unmarshal([]byte(must("record", path, name, "--json")), &found); err != nil || len(found.Items) != 1 {
		t.Fatalf("%v, %+v", err, found)
	}
	place, _, _ := strings.Cut(found.Items[0].What, " ")
	contains(t, must("record", path, place), fmt.Sprintf("112 %s key", r.Owner.Key), "96 "+r.Owner.Bucket.String()+" bucket", fmt.Sprintf("12 %d bytes of data", len(r.Data)), "cell 3, checksum")
	contains(t, must("record", path, records[0].Stripe.String()), "2 records", "tombstone")

	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("the device was changed: %v", err)
	}
	at := bytes.Index(before, r.Data[40_000:40_032])
	before[at] ^= 4
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}
	segmentOf, _, _ := strings.Cut(place, ":")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"segment", path}, "1 of "}, {[]string{"segment", path, segmentOf}, "checksum of the segment is"},
		{[]string{"record", path, name}, "data does not match its checksums"}, {[]string{"record", path, place}, "cell 1, checksum"},
	} {
		got, err := run(t, c.args...)
		if err == nil || !strings.Contains(got+err.Error(), c.want) {
			t.Errorf("%v with a flipped bit: %v, not %q in\n%s", c.args, err, c.want, got)
		}
	}
}

// TestLabelLost: without any label the log is found where it lies.
func TestLabelLost(t *testing.T) {
	path, records := claimed(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{0, 35 * ashlar.MiB} {
		if _, err := f.WriteAt(make([]byte, ashlar.MiB), at); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := run(t, "label", path); err == nil {
		t.Errorf("a label was found:\n%s", got)
	}
	got, err := run(t, "record", path, records[3].Stripe.String())
	if err != nil {
		t.Fatal(err)
	}
	contains(t, got, "1 records")
}

func TestArguments(t *testing.T) {
	path, _ := claimed(t)
	for _, args := range [][]string{
		{"label"}, {"label", path + "x"}, {"segment", path, "x"}, {"segment", path, "99"}, {"record", path, "1:99999999"},
		{"record", path, "zz"}, {"record", path, "0:x"}, {"record", path, "0:8192"}, {"label", "/dev/null"},
	} {
		if got, err := run(t, args...); err == nil {
			t.Errorf("%v: no error, %q", args, got)
		}
	}
}
