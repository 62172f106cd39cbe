package segment

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"ashlar"
	"ashlar/segment/format"
	"ashlar/segment/simdev"
)

// One test for each fault of one disk, named after it.

// disk is a small log on a simulated device.
type disk struct {
	*testing.T
	dev *simdev.Device
	fs  *vfs.MemFS
	opt Options
	log *Log
}

func newDisk(t *testing.T) *disk {
	d := &disk{T: t, dev: simdev.New(crashBytes, 512, 1), fs: vfs.NewMem()}
	d.opt = crashOptions(d.fs, plant{})
	d.opt.Writers = 1
	d.reopen()
	t.Cleanup(func() { d.dev.Clear(); d.log.Close() })
	return d
}

func (d *disk) reopen() {
	d.Helper()
	if d.log != nil {
		d.log.Close()
	}
	l, err := Open(d.Context(), d.dev, d.opt)
	if err != nil {
		d.Fatal(err)
	}
	d.log = l
}

func (d *disk) loseIndex() {
	d.log.Close()
	d.fs = vfs.NewMem()
	d.opt.hooks.fs = d.fs
	d.reopen()
}

func (d *disk) put(key uint8, version uint64, bytes int) *Record {
	d.Helper()
	r := crashRecord(key, version, bytes)
	if err := d.log.Append(d.Context(), r); err != nil {
		d.Fatal(err)
	}
	return r
}

func (d *disk) want(r *Record) {
	d.Helper()
	got := make([]byte, len(r.Data))
	if err := d.log.ReadAt(d.Context(), r.Key, got, 0); err != nil || !bytes.Equal(got, r.Data) {
		d.Fatalf("%v: %v", r.Key, err)
	}
}

func (d *disk) wantKind(kind ashlar.Kind, r *Record) error {
	d.Helper()
	err := d.log.ReadAt(d.Context(), r.Key, make([]byte, len(r.Data)), 0)
	if !ashlar.Is(err, kind) {
		d.Fatalf("%v: %v, want kind %v", r.Key, err, kind)
	}
	return err
}

func TestWriteErrorOnce(t *testing.T) {
	d := newDisk(t)
	d.dev.Inject(simdev.Rule{Ops: simdev.Write, Fault: simdev.EIO, Count: 1})
	d.want(d.put(1, 1, 5000))
	if d.log.Err() != nil || d.log.Stats().WriteRetries != 1 {
		t.Errorf("err %v, %+v", d.log.Err(), d.log.Stats())
	}
}

func TestReadOnlyDevice(t *testing.T) {
	d := newDisk(t)
	r := d.put(1, 1, 5000)
	d.dev.Inject(simdev.Rule{Ops: simdev.Write, Fault: simdev.EIO})
	if err := d.log.Append(t.Context(), crashRecord(2, 2, 100)); !ashlar.Is(err, ashlar.Unavailable) || !errors.Is(err, syscall.EIO) {
		t.Errorf("append: %v", err)
	}
	if err := d.log.Delete(t.Context(), r.Key); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("delete: %v", err)
	}
	if !ashlar.Is(d.log.Err(), ashlar.Unavailable) {
		t.Errorf("not fenced: %v", d.log.Err())
	}
	d.want(r)
}

func TestFlushErrorFences(t *testing.T) {
	d := newDisk(t)
	before := d.put(1, 1, 5000)
	flushes := d.dev.Counts().Flushes
	d.dev.Inject(simdev.Rule{Ops: simdev.Flush, Fault: simdev.EIO, Count: 1})
	lost := crashRecord(2, 2, 5000)
	if err := d.log.Append(t.Context(), lost); !ashlar.Is(err, ashlar.Unavailable) {
		t.Fatalf("append over a failed flush: %v", err)
	}
	for range 3 {
		if err := d.log.Append(t.Context(), lost); !ashlar.Is(err, ashlar.Unavailable) {
			t.Fatalf("append to a fenced log: %v", err)
		}
	}
	if n := d.dev.Counts().Flushes; n != flushes {
		t.Errorf("%d flushes after one failed", n-flushes)
	}
	d.want(before)
	d.wantKind(ashlar.NotFound, lost)
	d.dev = d.dev.Reboot(50)
	d.reopen()
	d.want(before)
	d.want(d.put(2, 3, 70))
}

func TestLatentSectorError(t *testing.T) {
	d := newDisk(t)
	bad, good := d.put(1, 1, 20_000), d.put(2, 2, 20_000)
	r, err := d.log.lookup("test", bad.Key)
	if err != nil {
		t.Fatal(err)
	}
	at := d.log.offset(int(r.segment)) + int64(r.Offset) + 4096
	d.dev.Inject(simdev.Rule{Ops: simdev.Read, Fault: simdev.EIO, From: at, To: at + 1})
	if err := d.wantKind(ashlar.Unavailable, bad); !errors.Is(err, syscall.EIO) {
		t.Errorf("the cause is hidden: %v", err)
	}
	d.want(good)
	// The scan of an open segment steps over the bad sector.
	d.log.fence("test", errors.New("no clean close"))
	d.reopen()
	d.want(good)
	d.loseIndex()
	d.want(good)
}

func TestFlipOnTheWay(t *testing.T) {
	d := newDisk(t)
	r := d.put(1, 1, 30_000)
	d.dev.Inject(simdev.Rule{Ops: simdev.Read, Fault: simdev.Flip, Count: 1})
	d.want(r)
	if s := d.log.Stats(); s.CorruptReads != 0 {
		t.Errorf("%+v", s)
	}
}

func TestRotIsFoundRangeByRange(t *testing.T) {
	d := newDisk(t)
	r := d.put(1, 1, 3*format.CellBytes/2)
	x, _ := d.log.lookup("test", r.Key)
	second := d.log.offset(int(x.segment)) + int64(x.Offset) + int64(x.HeadBytes) + codedCell
	d.dev.Rot(second, 100, false)
	err := d.wantKind(ashlar.Corrupt, r)
	var where *CorruptError
	if !errors.As(err, &where) || where.Offset != second || where.Want == where.Got {
		t.Errorf("%v", err)
	}
	got := make([]byte, format.CellBytes)
	if err := d.log.ReadAt(t.Context(), r.Key, got, 0); err != nil || !bytes.Equal(got, r.Data[:len(got)]) {
		t.Errorf("the sound cell: %v", err)
	}
}

func TestLostWrite(t *testing.T) {
	d := newDisk(t)
	first := d.put(1, 1, 9000)
	d.dev.Inject(simdev.Rule{Ops: simdev.Write, Fault: simdev.Lost, Count: 1})
	lost := d.put(2, 2, 9000) // the device said that it was written and flushed
	after := d.put(3, 3, 9000)
	d.wantKind(ashlar.Corrupt, lost)
	d.log.fence("test", errors.New("no clean close"))
	d.reopen()
	d.want(first)
	d.want(after)
	d.wantKind(ashlar.Corrupt, lost)
	// The segment got its footer when the index still knew of the record.
	d.loseIndex()
	d.want(first)
	d.want(after)
	d.wantKind(ashlar.Corrupt, lost)
}

func TestMisdirectedWrite(t *testing.T) {
	d := newDisk(t)
	first := d.put(1, 1, 9000)
	x, _ := d.log.lookup("test", first.Key)
	base := d.log.offset(int(x.segment))
	// The next batch lands on the one before it.
	d.dev.Inject(simdev.Rule{Ops: simdev.Write, Fault: simdev.Misdirected, From: base, To: base + d.log.segBytes, Count: 1, Shift: -2 * 512})
	stray := d.put(2, 2, 9000)
	after := d.put(3, 3, 9000)
	d.wantKind(ashlar.Corrupt, first)
	d.wantKind(ashlar.Corrupt, stray)
	d.want(after)
	d.log.fence("test", errors.New("no clean close"))
	d.reopen()
	d.wantKind(ashlar.Corrupt, first)
	d.wantKind(ashlar.Corrupt, stray)
	d.want(after)
	d.loseIndex()
	d.want(after)
	for _, r := range []*Record{first, stray} {
		if err := d.log.ReadAt(t.Context(), r.Key, make([]byte, len(r.Data)), 0); err == nil {
			t.Errorf("%v was read where it does not belong", r.Key)
		}
	}
}

// TestFlushLies: outside the contract, but what is lost is named, not served.
func TestFlushLies(t *testing.T) {
	d := newDisk(t)
	d.dev.Inject(simdev.Rule{Ops: simdev.Flush, Fault: simdev.Lie})
	var all []*Record
	for k := range uint8(10) {
		all = append(all, d.put(k, uint64(k)+1, 9000))
	}
	d.log.fence("test", errors.New("no clean close"))
	d.dev = d.dev.Reboot(50)
	d.reopen()
	bad := 0
	for _, r := range all {
		got := make([]byte, len(r.Data))
		err := d.log.ReadAt(t.Context(), r.Key, got, 0)
		switch {
		case err == nil && !bytes.Equal(got, r.Data):
			t.Errorf("%v: wrong bytes", r.Key)
		case ashlar.Is(err, ashlar.Corrupt):
			bad++
		case err != nil:
			t.Errorf("%v: %v, want corrupt: it was acknowledged", r.Key, err)
		}
	}
	if bad == 0 {
		t.Error("nothing was lost by a device that lies: the test proves nothing")
	}
}

func TestHangingDevice(t *testing.T) {
	d := newDisk(t)
	d.log.Close()
	d.opt.IOTimeout = 100 * time.Millisecond
	d.reopen()
	r := d.put(1, 1, 5000)
	d.dev.Inject(simdev.Rule{Ops: simdev.Read | simdev.Write | simdev.Flush, Fault: simdev.Hang})
	borrowed := crashRecord(2, 2, 5000)
	for range 3 {
		if err := d.log.Append(t.Context(), borrowed); !ashlar.Is(err, ashlar.Unavailable) {
			t.Errorf("append: %v", err)
		}
		clear(borrowed.Data) // ours again: the log must not look at it any more
		d.wantKind(ashlar.Unavailable, r)
	}
	began := time.Now()
	if err := d.log.Close(); !ashlar.Is(err, ashlar.Unavailable) || time.Since(began) > 5*time.Second {
		t.Errorf("close of a hung device after %v: %v", time.Since(began), err)
	}
	d.dev.Clear() // the stuck goroutines end
	d.log.running.Wait()
}

func TestDeadDevice(t *testing.T) {
	d := newDisk(t)
	r := d.put(1, 1, 5000)
	d.dev.Kill()
	if err := d.log.Append(t.Context(), crashRecord(2, 2, 10)); !ashlar.Is(err, ashlar.Unavailable) {
		t.Error(err)
	}
	d.wantKind(ashlar.Unavailable, r)
	d.log.Close()
	if _, err := Open(context.Background(), d.dev, d.opt); !ashlar.Is(err, ashlar.Unavailable) {
		t.Errorf("open of a dead device: %v", err)
	}
	d.dev.Revive()
	d.reopen()
	d.want(r)
}

// TestDamagedMetadata zeroes what is written once: whatever one region of the
// device loses, the records elsewhere are found, with the index and without.
func TestDamagedMetadata(t *testing.T) {
	for name, c := range map[string]struct {
		from, to int64 // of the segment; or of the device
		device   bool
	}{
		"both headers":        {0, 1024, false},
		"trailer":             {format.SegmentBytesMin - 512, format.SegmentBytesMin, false},
		"trailer and entries": {format.SegmentBytesMin - 2048, format.SegmentBytesMin, false},
		"headers and trailer": {0, 1024, false},
		"front anchors":       {0, format.EndBytes, true},
		"back anchors":        {crashBytes - format.EndBytes, crashBytes, true},
		"all anchors":         {0, format.EndBytes, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t)
			var all []*Record
			for k := range uint8(30) {
				all = append(all, d.put(k, uint64(k)+1, 9000))
			}
			x, _ := d.log.lookup("test", all[0].Key)
			base := d.log.offset(int(x.segment))
			if c.device {
				base = 0
			}
			d.log.Close()
			d.dev.Rot(base+c.from, c.to-c.from, true)
			if name == "headers and trailer" {
				d.dev.Rot(base+format.SegmentBytesMin-512, 512, true)
			}
			if name == "all anchors" {
				d.dev.Rot(crashBytes-format.EndBytes, format.EndBytes, true)
			}
			check := func() {
				t.Helper()
				for _, r := range all {
					d.want(r)
				}
			}
			d.reopen()
			check()
			d.loseIndex()
			check()
		})
	}
}

// TestForeignDisk: a log never touches what another disk id wrote.
func TestForeignDisk(t *testing.T) {
	d := newDisk(t)
	d.put(1, 1, 100)
	d.log.Close()
	before := d.dev.Medium()
	opt := d.opt
	opt.Disk = ashlar.DiskID{1}
	opt.hooks.fs = vfs.NewMem()
	if _, err := Open(t.Context(), d.dev, opt); !ashlar.Is(err, ashlar.Invalid) {
		t.Errorf("opened another disk's log: %v", err)
	}
	if !bytes.Equal(before, d.dev.Medium()) {
		t.Error("it was written to")
	}
}

// TestHundredPowerCuts cuts the power under load again and again: nothing
// acknowledged is lost, and recovery has no more to do at the end than at the start.
func TestHundredPowerCuts(t *testing.T) {
	const cuts = 100
	d := newDisk(t)
	rng := rand.New(rand.NewPCG(1, 1))
	state := map[uint8]uint64{}
	var acked, unanswered int
	var reads [2]int // of the device while opening, first and last ten
	version := uint64(0)
	for cut := range cuts {
		d.dev.DieAfter(5 + rng.IntN(40))
		open := map[uint8]uint64{}
		for d.log.Err() == nil {
			key := uint8(rng.IntN(40))
			version++
			v := version
			var err error
			if rng.IntN(4) == 0 {
				v, err = 0, d.log.Delete(t.Context(), crashRecord(key, 1, 0).Key)
			} else {
				err = d.log.Append(t.Context(), crashRecord(key, v, rng.IntN(9000)))
			}
			switch {
			case err == nil:
				state[key] = v
				acked++
			case ashlar.Is(err, ashlar.Full):
				d.log.Compact(t.Context())
			default:
				open[key] = v
				unanswered++
			}
		}
		d.dev = d.dev.Reboot(rng.IntN(101))
		before := d.dev.Counts().Reads
		d.reopen()
		if n := d.dev.Counts().Reads - before; cut < 10 {
			reads[0] += n
		} else if cut >= cuts-10 {
			reads[1] += n
		}
		for key := range uint8(40) {
			found := uint64(0)
			if info, err := d.log.Stat(crashRecord(key, 1, 0).Key); err == nil {
				found = uint64(info.Written.UnixNano())
				d.want(crashRecord(key, found, int(info.Bytes)))
			}
			if v, ok := open[key]; found != state[key] && !(ok && v == found) {
				t.Fatalf("cut %d: key %d: version %d, acknowledged %d", cut, key, found, state[key])
			}
			state[key] = found
		}
		d.log.Compact(t.Context())
	}
	t.Logf("%d cuts, %d calls acknowledged and kept, %d unanswered; device reads of ten recoveries: first %d, last %d",
		cuts, acked, unanswered, reads[0], reads[1])
	if reads[1] > 3*reads[0] {
		t.Errorf("recovery reads grew from %d to %d", reads[0], reads[1])
	}
}

// TestIndexDamagedWhereNothingLooks: a table that no row is read from, since newer ones hide all of
// its own, is met by a compaction only. That may not end the writing later.
func TestIndexDamagedWhereNothingLooks(t *testing.T) {
	dev := simdev.New(crashBytes, 512, 1)
	opt := crashOptions(vfs.Default, plant{})
	opt.IndexDir = t.TempDir()
	open := func() *Log {
		l, err := Open(t.Context(), dev, opt)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	rec := crashRecord(1, 1, 3000)
	for range 2 { // twice the same rows
		if err := l.Append(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		if err := l.index.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	tables, err := filepath.Glob(filepath.Join(opt.IndexDir, "*.sst"))
	if err != nil || len(tables) < 2 {
		t.Fatalf("%d tables, %v", len(tables), err)
	}
	pristine, medium := t.TempDir(), dev.Medium()
	if err := os.CopyFS(pristine, os.DirFS(opt.IndexDir)); err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		p, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(p); at += 61 {
			dev, opt.IndexDir = simdev.FromMedium(medium, 512, 1), t.TempDir()
			if err := os.CopyFS(opt.IndexDir, os.DirFS(pristine)); err != nil {
				t.Fatal(err)
			}
			p[at] ^= 1
			if err := os.WriteFile(filepath.Join(opt.IndexDir, filepath.Base(table)), p, 0o600); err != nil {
				t.Fatal(err)
			}
			p[at] ^= 1
			l := open()
			if err := l.ReadAt(t.Context(), rec.Key, make([]byte, len(rec.Data)), 0); err != nil {
				t.Errorf("%s, byte %d: %v", filepath.Base(table), at, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // Pebble tries for ever
			if err := l.index.db.Compact(ctx, []byte{0}, []byte{0xff}, false); err != nil {
				t.Fatalf("%s, byte %d: %v", filepath.Base(table), at, err)
			}
			cancel()
			if err := l.Append(t.Context(), rec); err != nil {
				t.Errorf("%s, byte %d: %v", filepath.Base(table), at, err)
			}
			l.Close()
		}
	}
}

// TestIndexDamaged flips bits in every file of the index, or removes it: the
// log opens with the same pieces.
func TestIndexDamaged(t *testing.T) {
	dev := simdev.New(crashBytes, 512, 1)
	dir := t.TempDir()
	opt := crashOptions(vfs.Default, plant{})
	opt.IndexDir = dir
	open := func(what string) *Log {
		l, err := Open(t.Context(), dev, opt)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return l
	}
	l := open("first")
	var all []*Record
	for k := range uint8(30) {
		all = append(all, crashRecord(k, uint64(k)+1, 3000))
		if err := l.Append(t.Context(), all[k]); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.index.db.Flush(); err != nil { // an SST is there too
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dev, opt); err == nil {
		t.Fatal("two logs opened one index directory")
	}
	l.Close()
	pristine := t.TempDir()
	if err := os.CopyFS(pristine, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	medium := dev.Medium()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 4 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		for _, damage := range []string{"one bit", "removed", "emptied", "flipped"} {
			dir = t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(pristine)); err != nil {
				t.Fatal(err)
			}
			dev, opt.IndexDir = simdev.FromMedium(medium, 512, 1), dir
			path := filepath.Join(dir, f.Name())
			p, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			switch damage {
			case "one bit":
				if len(p) > 0 {
					p[len(p)/3] ^= 1
					os.WriteFile(path, p, 0o600)
				}
			case "removed":
				os.Remove(path)
			case "emptied":
				os.WriteFile(path, nil, 0o600)
			default:
				for i := range p {
					p[i] ^= 0x10
				}
				os.WriteFile(path, p, 0o600)
			}
			what := f.Name() + " " + damage
			l := open(what)
			for _, r := range all {
				got := make([]byte, len(r.Data))
				if err := l.ReadAt(t.Context(), r.Key, got, 0); err != nil || !bytes.Equal(got, r.Data) {
					t.Errorf("%s: %v", what, err)
					break
				}
			}
			l.Close()
		}
	}
}
