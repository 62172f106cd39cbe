package diskmgr_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev/looptest"
)

// eventWait bounds the wait for a message of the kernel, which comes at once.
const eventWait = 30 * time.Second

// TestTheKernelSaysWhatIsPlugged attaches and detaches a loop device, and adds
// and removes a partition on it: the kernel sends a message about each, and
// WatchPlugs hears all of them. Others on the machine may plug things too, so
// what is counted is that each step is followed by a message that was not there.
func TestTheKernelSaysWhatIsPlugged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: loop devices cannot be attached")
	}
	heard := make(chan diskmgr.Plug, 1024)
	listening := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- diskmgr.WatchPlugs(ctx, func() { close(listening) }, func(p diskmgr.Plug) { heard <- p })
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-listening:
	case err := <-ended:
		t.Fatal(err)
	}
	wait := func(want diskmgr.Plug) {
		t.Helper()
		timer := time.NewTimer(eventWait)
		defer timer.Stop()
		for {
			select {
			case got := <-heard:
				if got == want {
					return
				}
			case <-timer.C:
				t.Fatalf("no message %v within %v", want, eventWait)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "backing")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, diskBytes)); err != nil {
		t.Fatal(err)
	}
	device := looptest.Attach(t, file, 512)
	name := filepath.Base(device)
	wait(diskmgr.Plug{Action: "add", Name: name})
	wait(diskmgr.Plug{Action: "change", Name: name})
	for _, step := range []struct{ command, action string }{{"addpart", "add"}, {"delpart", "remove"}} {
		args := map[string][]string{"addpart": {device, "1", "2048", "4096"}, "delpart": {device, "1"}}[step.command]
		if out, err := exec.Command(step.command, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", step.command, err, out)
		}
		wait(diskmgr.Plug{Action: step.action, Name: name + "p1"})
	}
	looptest.Detach(t, device)
	wait(diskmgr.Plug{Action: "remove", Name: name})
}
