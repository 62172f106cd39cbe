package segment_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ashlar"
	"ashlar/segment"
	"ashlar/segment/segmenttest"
)

const (
	killEnv   = "ASHLAR_SEGMENT_KILL_CHILD"
	killBytes = 64 * ashlar.MiB
	killKeys  = 400
)

func killOptions(dir string) segment.Options {
	return segment.Options{
		Disk: ashlar.DiskID{9}, IndexDir: filepath.Join(dir, "index"), SegmentBytes: ashlar.MiB, Writers: 2,
	}
}

// killData follows from key and version, so that the parent can check it.
func killRecord(key, version uint64) *segment.Record {
	r := segmenttest.Piece(key, int(version*7919%40_000)+8)
	copy(r.Data, strconv.FormatUint(version, 10)+"\n")
	return r
}

// TestMain lets the test binary be the process that TestKill kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(killEnv); dir != "" {
		killChild(dir)
		return
	}
	os.Exit(m.Run())
}

// killChild appends and deletes from several goroutines, each with keys of its
// own, and prints one line before and one after every operation.
func killChild(dir string) {
	dev, err := segmenttest.NewFile(filepath.Join(dir, "device"), killBytes)
	if err != nil {
		fmt.Println("error", err)
		return
	}
	l, err := segment.Open(context.Background(), dev, killOptions(dir))
	if err != nil {
		fmt.Println("error", err)
		return
	}
	base, _ := strconv.ParseUint(os.Getenv(killEnv+"_BASE"), 10, 64)
	var mu sync.Mutex
	say := func(words ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(words...)
	}
	for c := range uint64(8) {
		go func() {
			rng := rand.New(rand.NewPCG(base, c))
			for version := base; ; version++ {
				key := c + 8*rng.Uint64N(killKeys/8)
				if rng.IntN(4) == 0 {
					say("begin", key, 0)
					err = l.Delete(context.Background(), killRecord(key, 1).Key)
				} else {
					say("begin", key, version)
					err = l.Append(context.Background(), killRecord(key, version))
				}
				if err != nil {
					say("error", err)
					return
				}
				say("done", key)
			}
		}()
	}
	time.Sleep(time.Minute) // the parent kills long before
}

// TestKill kills a process that writes, with SIGKILL at a random moment, and
// checks what it acknowledged; it goes on with the same device and index, and
// now and then without the index.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "device"), make([]byte, killBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(4, 2))
	state := map[uint64]uint64{} // key → version, 0 absent
	acked := 0
	const rounds = 5
	for round := range uint64(rounds) {
		open, n := killRound(t, dir, 1+round*1_000_000, time.Duration(50+rng.IntN(250))*time.Millisecond, state)
		acked += n
		if round%3 == 2 {
			if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
				t.Fatal(err)
			}
		}
		killCheck(t, dir, state, open)
	}
	t.Logf("%d kills, %d operations acknowledged, 0 lost", rounds, acked)
	if acked < 100 {
		t.Errorf("only %d operations were acknowledged: the test proved little", acked)
	}
}

// killRound runs the child until it is killed and follows what it says: state
// is what was acknowledged, open what was begun and not answered.
func killRound(t *testing.T, dir string, base uint64, after time.Duration, state map[uint64]uint64) (open map[uint64]uint64, acked int) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killEnv+"="+dir, fmt.Sprintf("%s_BASE=%d", killEnv, base))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	open = map[uint64]uint64{}
	var timer *time.Timer
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if timer == nil {
			timer = time.AfterFunc(after, func() { cmd.Process.Kill() })
		}
		w := strings.Fields(lines.Text())
		if len(w) < 2 || w[0] == "error" {
			t.Errorf("child: %s", lines.Text())
			break
		}
		key, _ := strconv.ParseUint(w[1], 10, 64)
		if w[0] == "begin" {
			open[key], _ = strconv.ParseUint(w[2], 10, 64)
			continue
		}
		state[key] = open[key]
		delete(open, key)
		acked++
	}
	cmd.Process.Kill()
	cmd.Wait()
	return open, acked
}

func killCheck(t *testing.T, dir string, state, open map[uint64]uint64) {
	t.Helper()
	dev := segmenttest.OpenFile(t, filepath.Join(dir, "device"), killBytes)
	l, err := segment.Open(t.Context(), dev, killOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for key := range uint64(killKeys) {
		found := uint64(0)
		info, err := l.Stat(killRecord(key, 1).Key)
		if err == nil {
			got := make([]byte, info.Bytes)
			if err := l.ReadAt(t.Context(), info.Key, got, 0); err != nil {
				t.Fatalf("key %d: %v", key, err)
			}
			head, _, _ := bytes.Cut(got, []byte("\n"))
			found, _ = strconv.ParseUint(string(head), 10, 64)
			if !bytes.Equal(got, killRecord(key, found).Data) {
				t.Fatalf("key %d version %d: wrong bytes", key, found)
			}
		} else if !ashlar.Is(err, ashlar.NotFound) {
			t.Fatal(err)
		}
		begun, wasOpen := open[key]
		if found != state[key] && !(wasOpen && found == begun) {
			t.Fatalf("key %d: version %d, acknowledged %d, begun %v %d", key, found, state[key], wasOpen, begun)
		}
		state[key] = found
	}
}
