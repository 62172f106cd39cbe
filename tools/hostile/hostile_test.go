package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ashlar"
	"ashlar/tools/dev"
)

// TestHealthyClientIsUnharmed runs a small siege against a real cluster.
func TestHealthyClientIsUnharmed(t *testing.T) {
	cfg := dev.Defaults()
	cfg.Dir, cfg.S3, cfg.Admin, cfg.DiskBytes = filepath.Join(t.TempDir(), "cluster"), "127.0.0.1:0", "127.0.0.1:0", 256*ashlar.MiB
	cfg.AccessKey, cfg.SecretKey = "tester", "a secret of the tests"
	cluster, err := dev.Start(t.Context(), cfg, dev.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	o := options{endpoint: cluster.S3(), accessKey: cfg.AccessKey, secretKey: cfg.SecretKey, idle: 200, slow: 60, rude: 6, duration: 2 * time.Second,
		serverPID: os.Getpid(), memoryBytes: 512 * ashlar.MiB} // the clients are in it too
	r, err := run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	r.print(&table)
	t.Log("\n" + table.String())
	for _, wrong := range r.verdict(o) {
		t.Error(wrong)
	}
	for _, k := range r.kinds {
		if k.name == "header without end" && !strings.Contains(k.answers.String(), "431") {
			t.Errorf("%s: %s", k.name, k.answers.String())
		}
	}
}

// TestVerdict proves that harm is seen.
func TestVerdict(t *testing.T) {
	fine := func() *result {
		r := &result{before: 1, peak: 2, kinds: []*kind{{name: "idle", count: 1}}}
		r.kinds[0].opened.Store(1)
		r.quiet.latency.Add(time.Millisecond)
		r.siege.latency.Add(time.Millisecond)
		return r
	}
	o := options{memoryBytes: 10}
	if got := fine().verdict(o); len(got) != 0 {
		t.Error(got)
	}
	for want, harm := range map[string]func(*result){
		"healthy requests failed": func(r *result) { r.siege.failed, r.siege.last = 1, errors.New("refused") },
		"no healthy request":      func(r *result) { r.siege = healthy{} },
		"memory grew":             func(r *result) { r.peak = 100 },
		"connections were made":   func(r *result) { r.kinds[0].opened.Store(0) },
	} {
		r := fine()
		harm(r)
		if got := r.verdict(o); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%q: %q", want, got)
		}
	}
}
