package faultdisk_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ashlar"
	"ashlar/diskmgr/blockdev/looptest"
	"ashlar/tools/faultdisk"
)

const guardEnv = "ASHLAR_FAULTDISK_HUNG_CHILD"

// TestKilledWhileHung kills a test process that waits for a hung disk. The
// process cannot die before the disk answers, and the disk is served by it:
// only the guard can end this.
func TestKilledWhileHung(t *testing.T) {
	if os.Getenv(guardEnv) != "" {
		hang(t)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("not root: the faulty block devices need mount(2) and loop devices")
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWhileHung$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), guardEnv+"=1", "TMPDIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	device := ""
	for lines.Scan() && device == "" {
		t.Log(lines.Text())
		device, _ = strings.CutPrefix(lines.Text(), "hung ")
		if device == lines.Text() {
			device = ""
		}
	}
	if device == "" {
		t.Fatal("the child did not get so far")
	}
	t.Cleanup(func() { looptest.Detach(t, device) }) // the guard leaves an empty one behind
	began := time.Now()
	cmd.Process.Kill()
	cmd.Wait()
	t.Logf("the process ended %v after it was killed", time.Since(began).Round(time.Millisecond))
	for left := func() string { return traces(t, dir) }; left() != ""; {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("left behind: %s", left())
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("all was cleaned up after %v", time.Since(began).Round(time.Millisecond))
}

// traces is what mounts and loop devices there are in dir.
func traces(t *testing.T, dir string) string {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	loops, err := exec.Command("losetup", "-n", "-O", "NAME,BACK-FILE").Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(mounts) + string(loops)) {
		if strings.Contains(line, dir) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

func hang(t *testing.T) {
	d := faultdisk.New(t, faultdisk.Options{Disks: 1, Bytes: ashlar.MiB, Seed: 3}).Disk(0)
	f := raw(t, d.Path())
	d.Inject(faultdisk.Rule{Fault: faultdisk.Hang, Ops: faultdisk.Write})
	go f.WriteAt(fill(4096, 'h'), 0) // ends when the process is killed
	for d.Counts().Faults[faultdisk.Hang] == 0 {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("hung", d.Path())
	time.Sleep(time.Minute)
}
