// Package devtest is what tests that run a cluster share: the ashlar binary of this
// tree, built once for a package and removed with its last test, the ends of the
// logs of a cluster whose test failed, and how a cluster is waited for.
//
// It knows no cluster: package dev's own tests use it, and those of tools that
// drive one.
package devtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"ashlar/placement/health"
)

// dir is where the binary is built; Main makes and removes it.
var dir string

// Main runs a package's tests; it is for TestMain, and returns the exit status.
func Main(m *testing.M) int {
	var err error
	if dir, err = os.MkdirTemp("", "ashlar-test"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	return m.Run()
}

var build = sync.OnceValues(func() (string, error) {
	path := filepath.Join(dir, "ashlar")
	out, err := exec.Command("go", "build", "-o", path, "ashlar/tools/ashlar").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// Program returns the path of the ashlar binary of this tree.
func Program(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

const logTailBytes = 4 << 10

// PrintLogs shows the ends of the logs of a cluster in a directory.
func PrintLogs(t testing.TB, clusterDir string) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(clusterDir, "log", "*.log"))
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Log(err)
			continue
		}
		t.Logf("end of %s:\n%s", filepath.Base(name), b[max(0, len(b)-logTailBytes):])
	}
}

// Eventually calls f until it returns nil, and fails the test if that takes longer
// than bound.
func Eventually(t testing.TB, bound time.Duration, f func() error) {
	t.Helper()
	begin := time.Now()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Since(begin) > bound {
			t.Fatalf("still not so after %v: %v", bound, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// AwaitHealthy waits until the cluster says that nothing is missing and nothing
// waits for repair. Ask is Status of a cluster.
func AwaitHealthy(t testing.TB, bound time.Duration, ask func(context.Context) (health.Status, error)) {
	t.Helper()
	Eventually(t, bound, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		s, err := ask(ctx)
		if err != nil {
			return err
		}
		if s.Verdict != health.Healthy || s.RepairPieces != 0 {
			return fmt.Errorf("%s, %d pieces to repair, %v", s.Verdict, s.RepairPieces, s.Codes)
		}
		return nil
	})
}
