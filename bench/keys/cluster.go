package keys

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ashlar/bench/measure"
	"ashlar/bench/s3"
)

// cluster is a running `ashlar dev`, with the processes that it started.
type cluster struct {
	dir    string
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the first process is gone
	errors *bytes.Buffer // its standard error, to be read then

	S3        string `json:"s3"`
	AccessKey string `json:"access_key"`
	SecretKey string `json:"secret_key"`
}

// metadataCache is for 10,000,000 keys on a host of some 8 GiB.
const metadataCache = "512MiB"

// goneMax bounds the wait for processes that were killed.
const goneMax = 30 * time.Second

// start starts the cluster in the directory, with its data if it has some, and
// returns when it serves.
func start(ctx context.Context, o *Options) (*cluster, error) {
	o.Progress("starting the cluster")
	c := &cluster{dir: filepath.Join(o.Dir, "cluster"), ended: make(chan struct{}), errors: &bytes.Buffer{}}
	args := []string{"dev", "--json", "--dir", c.dir, "--s3", "127.0.0.1:0", "--admin", "127.0.0.1:0",
		"--metadata-cache", metadataCache}
	if _, err := os.Stat(c.dir); err != nil {
		args = append(args, "--zones", "3", "--hosts", "1", "--disks", "2", "--members", "1", "--disk-size", "1GiB")
	}
	if o.Processes {
		args = append(args, "--processes", "--gateways", "1")
	}
	if o.Profile != "" {
		args = append(args, "--cpu-profile", o.Profile)
	}
	c.cmd = exec.Command(o.Program, args...)
	c.cmd.Stderr = c.errors
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	forked, ready := make(chan error, 1), make(chan error, 1)
	go func() {
		// The signal of a parent's death goes with the thread that forked, so this
		// one stays for as long as the child lives.
		runtime.LockOSThread()
		defer close(c.ended)
		err := c.cmd.Start()
		forked <- err
		if err != nil {
			return
		}
		line, err := bufio.NewReader(out).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, c)
		}
		ready <- err
		_ = c.cmd.Wait() // how it ended is told by its standard error
	}()
	if err = <-forked; err == nil { // whoever kills it earlier has nothing to kill
		select {
		case err = <-ready:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		c.kill()
		return nil, fmt.Errorf("the cluster did not start: %w: %s", err, bytes.TrimSpace(c.errors.Bytes()))
	}
	return c, nil
}

// stop ends the cluster cleanly, so that it writes its profile.
func (c *cluster) stop() {
	if c.cmd.Process == nil {
		return
	}
	_ = c.cmd.Process.Signal(os.Interrupt) // gone already is as good
	select {
	case <-c.ended:
	case <-time.After(goneMax):
	}
	c.kill()
}

// kill sends SIGKILL to every process of the cluster and waits until they are gone.
func (c *cluster) kill() {
	if c.cmd.Process == nil {
		return
	}
	all := c.pids()
	_ = c.cmd.Process.Kill() // gone already is as good
	<-c.ended
	for end := time.Now().Add(goneMax); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		alive := false
		for _, pid := range all {
			// The others die with the first one; it is sure only once they are gone.
			alive = alive || pid != c.cmd.Process.Pid && running(pid)
		}
		if !alive {
			return
		}
	}
}

// running reports whether the process exists and is no zombie.
func running(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := bytes.Cut(raw, []byte(") "))
	return len(state) > 0 && state[0] != 'Z'
}

// pids lists the first process and its children.
func (c *cluster) pids() []int {
	pid := c.cmd.Process.Pid
	all := []int{pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is good
	for _, list := range lists {
		raw, err := os.ReadFile(list)
		if err != nil {
			continue // the thread ended
		}
		for _, text := range strings.Fields(string(raw)) {
			if child, err := strconv.Atoi(text); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// usage is what all processes have used until now.
func (c *cluster) usage() (measure.Usage, error) {
	select {
	case <-c.ended:
		return measure.Usage{}, fmt.Errorf("the cluster ended: %s", bytes.TrimSpace(c.errors.Bytes()))
	default:
		return measure.ProcessesUsage(c.pids())
	}
}

// metaBytes sums what the metadata stores of all hosts take on disk.
func (c *cluster) metaBytes() (sum int64, hosts int, err error) {
	stores, err := filepath.Glob(filepath.Join(c.dir, "hosts", "*", "state", "meta"))
	if err != nil {
		return 0, 0, err
	}
	for _, dir := range stores {
		err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return ignoreGone(err)
			}
			info, err := d.Info()
			if err != nil {
				return ignoreGone(err)
			}
			if s, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += s.Blocks * 512
			}
			return nil
		})
		if err != nil {
			return 0, 0, err
		}
	}
	return sum, len(stores), nil
}

// ignoreGone is for files that a compaction removes meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (c *cluster) client() (*s3.Client, error) {
	return s3.NewClient(c.S3, c.AccessKey, c.SecretKey, region, requestTimeout)
}
