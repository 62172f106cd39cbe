package keys

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestKeysDifferAndFillTheTree(t *testing.T) {
	const n = 50_000
	seen := map[string]bool{}
	dirs := map[string]bool{}
	for i := range n {
		key := string(appendKey(nil, 7, i))
		seen[key] = true
		dirs[strings.Join(strings.Split(key, "/")[:2], "/")] = true
	}
	if len(seen) != n || len(dirs) != teams*projects {
		t.Fatalf("%d of %d names, %d of %d projects; the last is %s", len(seen), n, len(dirs), teams*projects, appendKey(nil, 7, n))
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	good := Options{Checkpoints: []int{1}, Listings: 1, Concurrent: 1}
	for want, change := range map[string]func(*Options){
		"ascending":      func(o *Options) { o.Checkpoints = []int{2, 1} },
		"0 keys":         func(o *Options) { o.Checkpoints = []int{0} },
		"listings":       func(o *Options) { o.Listings = 0 },
		"PUTs in flight": func(o *Options) { o.Concurrent = ConcurrentMax + 1 },
	} {
		o := good
		change(&o)
		if err := o.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %q", err, want)
		}
	}
	if err := good.check(); err != nil {
		t.Error(err)
	}
}

// program builds the binary, which the go command caches.
func program(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "ashlar")
	cmd := exec.Command("go", "build", "-o", path, "ashlar/tools/ashlar")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// A whole run at a small scale: the same code makes 10,000,000 keys.
func TestEveryKeyIsThereAfterKill(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	o := Options{
		Program: program(t), Dir: t.TempDir(), Checkpoints: []int{2_000, 10_000}, Listings: 20, Concurrent: 256,
		Progress: func(text string) { t.Log(text) },
	}
	res, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if res.Counted != 10_000 || res.Filled != 10_000 || len(res.Checkpoints) != 2 {
		t.Fatalf("%+v", res)
	}
	for _, c := range res.Checkpoints {
		if c.Puts == 0 || c.PutServerCPU == 0 || c.MetaBytes == 0 || c.Replicas != 3 || len(c.Kinds) != 3 {
			t.Errorf("%+v", c)
		}
		if root := c.Kinds[1]; root.Entries != teams || root.P50 == 0 || root.P99 < root.P50 {
			t.Errorf("%+v", root)
		}
	}
	var out bytes.Buffer
	if err := res.Print(&out); err != nil || !strings.Contains(out.String(), "10000 of 10000 keys listed") {
		t.Errorf("%v\n%s", err, &out)
	}
	t.Log("\n" + out.String())

	// The count must see what is not there.
	c, err := start(ctx, &o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.kill()
	r := &run{Options: o, cluster: c, result: &Result{Filled: 10_001}}
	if err := r.count(ctx); err == nil || !strings.Contains(err.Error(), "lists 10000 keys") {
		t.Errorf("a key that was never stored is not missed: %v", err)
	}
	c.kill()

	// A run that goes on keeps what was measured, and a cluster that does not come
	// back after the kill is an error.
	once := filepath.Join(t.TempDir(), "once")
	o.Program = script(t, "mkdir "+once+" && exec "+o.Program+` "$@"; echo broken >&2; exit 1`)
	again, err := Run(ctx, o)
	if err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("the cluster did not come back: %v", err)
	}
	if again == nil || !reflect.DeepEqual(again.Checkpoints, res.Checkpoints) {
		t.Errorf("measured again: %+v, want %+v", again, res)
	}
}

// script is a program that a run takes for ashlar.
func script(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStartThatWasCancelledLeavesNoProcess(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	o := Options{
		Program: script(t, "echo $$ > "+pidFile+"; exec sleep 20"), Dir: t.TempDir(),
		Progress: func(string) {},
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := start(ctx, &o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	// One that was left would have written its number well before the end of this.
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		raw, err := os.ReadFile(pidFile)
		if err != nil {
			continue
		}
		if pid, err := strconv.Atoi(strings.TrimSpace(string(raw))); err == nil && running(pid) {
			t.Fatalf("process %d runs", pid)
		}
	}
}
