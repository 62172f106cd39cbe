package faultdisk_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"ashlar"
	"ashlar/tools/faultdisk"
)

// To run the hundred:
//
//	go test ./tools/faultdisk -run TestPowerCuts -cuts 100 -v
var (
	flagCuts = flag.Int("cuts", 25, "power cuts under load")
	flagSeed = flag.Uint64("seed", 1, "seed of the power cuts")
)

const (
	loadWorkers = 4
	loadKeys    = 160
	loadSizeMax = 100_000
	// One in longEvery is longer, up to twice longBytes: its log writes it in parts that
	// are under way at once.
	longEvery = 16
	longBytes = 600_000
)

// known is what may be on the disk of one key. Version 0 is "deleted".
type known struct {
	version, begun uint64
	open           bool // begun was not answered
}

// loadSize is the length of a version, mostly small.
func loadSize(version uint64) int {
	rng := rand.New(rand.NewPCG(version, 17))
	if version%longEvery == 0 {
		return longBytes + rng.IntN(longBytes)
	}
	return rng.IntN(loadSizeMax >> rng.IntN(8))
}

// load appends and deletes until the log refuses. Each worker has keys of its own.
func load(s *stack, keys []known, base uint64) (answered int) {
	var wg sync.WaitGroup
	var done [loadWorkers]int
	for w := range uint64(loadWorkers) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(base, w))
			for n := uint64(1); ; n++ {
				key := w + loadWorkers*rng.Uint64N(loadKeys/loadWorkers)
				k := &keys[key]
				version := base + n
				if rng.IntN(4) == 0 {
					version = 0
				}
				k.begun, k.open = version, true
				var err error
				if version == 0 {
					err = s.log.Delete(s.Context(), record(key, 0, 0).Key)
				} else {
					err = s.log.Append(s.Context(), record(key, version, loadSize(version)))
				}
				switch {
				case err == nil:
					k.version, k.open = version, false
					done[w]++
				case ashlar.Is(err, ashlar.Unavailable):
					return
				default:
					s.Errorf("key %d: %v", key, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, n := range done {
		answered += n
	}
	return answered
}

// findings of all checks.
type findings struct {
	whole, absent, openKept, openGone int
	violations                        []string
}

func (f *findings) violation(format string, args ...any) {
	f.violations = append(f.violations, fmt.Sprintf(format, args...))
}

// check reads every key. What was not answered is decided by what is found
// and may not change any more.
func check(s *stack, keys []known, sum *findings) {
	for key := range uint64(len(keys)) {
		k := &keys[key]
		found, err := readVersion(s, key)
		if err != nil {
			sum.violation("key %d: %v; acknowledged %d, begun %v %d", key, err, k.version, k.open, k.begun)
			continue
		}
		switch {
		case k.open && found == k.begun && found != k.version:
			sum.openKept++
		case found != k.version:
			sum.violation("key %d: version %d found, %d acknowledged, begun %v %d", key, found, k.version, k.open, k.begun)
		case k.open:
			sum.openGone++
		case found == 0:
			sum.absent++
		default:
			sum.whole++
		}
		k.version, k.open = found, false
	}
}

// readVersion returns the version of the key that the log serves, 0 if none.
func readVersion(s *stack, key uint64) (uint64, error) {
	info, err := s.log.Stat(record(key, 0, 0).Key)
	if ashlar.Is(err, ashlar.NotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	version := uint64(info.Written.UnixNano())
	r := record(key, version, loadSize(version))
	got, err := s.read(r)
	if err == nil && (int(info.Bytes) != len(r.Data) || !bytes.Equal(got, r.Data)) {
		err = errors.New("wrong bytes")
	}
	return version, err
}

// recovery is what one opening cost.
type recovery struct {
	took  time.Duration
	bytes int64
	known bool // the index was there
}

// TestPowerCuts, fault 3: it cuts the power of a disk under load, again and again, also in
// the middle of a recovery, with the index kept, gone, or left behind from an
// earlier run. What was answered must be there, what was deleted must stay so,
// and recovery must not read more and more.
func TestPowerCuts(t *testing.T) {
	dev := newDisk(t, *flagSeed)
	s := newStack(t, dev)
	keys := make([]known, loadKeys)
	rng := rand.New(rand.NewPCG(*flagSeed, 23))
	var sum findings
	var all []recovery
	answered, again := 0, 0
	old := s.index + ".old"
	for cut := range *flagCuts {
		answered += loadAndCut(s, keys, uint64(cut+1)<<32, time.Duration(10+rng.IntN(60))*time.Millisecond)
		switch cut % 5 {
		case 1: // the index of this run comes back later
			replaceDir(t, old, s.index)
		case 2:
			replaceDir(t, s.index, "")
		case 4:
			replaceDir(t, s.index, old)
		}
		if cut%3 == 2 { // once more, while it recovers
			timer := time.AfterFunc(time.Duration(rng.IntN(12))*time.Millisecond, func() { dev.PowerCut(512) })
			if err := s.open(); err != nil {
				again++
			}
			timer.Stop()
			dev.PowerCut(512)
			s.close()
			dev.PowerOn()
		}
		all = append(all, recoverOnce(s, cut%5 != 2 && cut%5 != 4))
		check(s, keys, &sum)
		if len(sum.violations) > 0 {
			t.Fatalf("seed %d, cut %d: %q", *flagSeed, cut, sum.violations)
		}
	}
	t.Logf("seed %d: %d cuts and %d more during recovery, %d operations acknowledged; read afterwards: %d pieces whole, %d deleted ones absent, %d violations; of those not answered %d are there, %d are not",
		*flagSeed, *flagCuts, again, answered, sum.whole, sum.absent, len(sum.violations), sum.openKept, sum.openGone)
	report(t, all)
	if answered < 10**flagCuts || sum.openKept+sum.openGone == 0 {
		t.Error("the cuts hit too little: the test proves nothing")
	}
}

// TestPowerCutsOfALyingDisk is outside the contract: it shows that the checks
// of TestPowerCuts can fail.
func TestPowerCutsOfALyingDisk(t *testing.T) {
	dev := newDisk(t, *flagSeed)
	s := newStack(t, dev)
	dev.Inject(faultdisk.Rule{Fault: faultdisk.Lie})
	keys := make([]known, loadKeys)
	var sum findings
	for cut := range 10 {
		loadAndCut(s, keys, uint64(cut+1)<<32, 50*time.Millisecond)
		if err := s.open(); err != nil {
			sum.violation("open: %v", err)
		} else {
			check(s, keys, &sum)
		}
		if n := len(sum.violations); n > 0 {
			t.Logf("found after %d cuts: %d violations, the first: %s", cut+1, n, sum.violations[0])
			return
		}
	}
	t.Error("nothing that was flushed to a disk that lies is missed")
}

// loadAndCut lets the workers run for a while, then the power fails.
func loadAndCut(s *stack, keys []known, base uint64, after time.Duration) int {
	timer := time.AfterFunc(after, func() { s.dev.PowerCut(512) })
	defer timer.Stop()
	n := load(s, keys, base)
	s.close()
	s.dev.PowerOn()
	return n
}

func recoverOnce(s *stack, known bool) recovery {
	s.Helper()
	before, began := s.dev.Counts().BytesRead, time.Now()
	if err := s.open(); err != nil {
		s.Fatal(err)
	}
	return recovery{time.Since(began), s.dev.Counts().BytesRead - before, known}
}

// report prints what recovery cost, and fails if it read more than the open
// segments although the index was there.
func report(t *testing.T, all []recovery) {
	for _, known := range []bool{true, false} {
		var took []time.Duration
		var bytes []int64
		for _, r := range all {
			if r.known == known {
				took, bytes = append(took, r.took.Round(100*time.Microsecond)), append(bytes, r.bytes)
			}
		}
		if len(took) == 0 {
			continue
		}
		n := min(10, len(took))
		t.Logf("recovery, index kept %v, %d of them: first %v, median %v, last ten %v; bytes read: median %d, most %d", known,
			len(took), took[0], slices.Sorted(slices.Values(took))[len(took)/2], took[len(took)-n:], slices.Sorted(slices.Values(bytes))[len(bytes)/2], slices.Max(bytes))
		// A writer has one segment open, and one whose footer is not flushed yet.
		// Each is scanned once and read once more for its checksum; besides
		// there are anchors, headers and trailers.
		const bound = 2*2*(stackWriters+1)*stackSegmentBytes + 2*ashlar.MiB
		if known && slices.Max(bytes) > bound {
			t.Errorf("a recovery read %d bytes, more than its open segments explain (%d)", slices.Max(bytes), bound)
		}
	}
}

// replaceDir makes dst a copy of src, or nothing if there is none.
func replaceDir(t *testing.T, dst, src string) {
	t.Helper()
	if err := os.RemoveAll(dst); err != nil {
		t.Fatal(err)
	}
	if src == "" {
		return
	}
	if err := os.CopyFS(dst, os.DirFS(src)); err != nil {
		t.Fatal(err)
	}
}
