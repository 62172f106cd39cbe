package dev

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"ashlar"
	"ashlar/tools/dev/devtest"
)

// TestRestart closes a cluster and starts it again on its directory.
func TestRestart(t *testing.T) {
	t.Run("one process", func(t *testing.T) {
		restart(t, func(cfg Config) (running, error) { return Start(t.Context(), cfg, Options{}) })
	})
	t.Run("processes", func(t *testing.T) {
		restart(t, func(cfg Config) (running, error) {
			return StartProcesses(t.Context(), cfg, Options{Program: devtest.Program(t)})
		})
	})
}

// running is a cluster of either form.
type running interface {
	target
	S3() string
	Config() Config
	Close()
}

func restart(t *testing.T, start func(Config) (running, error)) {
	cfg := testConfig(t)
	cfg.Zones, cfg.Hosts, cfg.Disks, cfg.Profile = 3, 1, 3, ashlar.Code{K: 2, M: 1}
	if c, err := start(foreign(t, cfg)); err == nil {
		c.Close()
		t.Fatal("a directory of somebody else was taken")
	} else if !strings.Contains(err.Error(), "choose another --dir") {
		t.Fatal(err)
	}
	c, err := start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	objects := samples(3, "restart")
	client := s3Client(t, c.S3(), cfg)
	makeBucket(t, client)
	putAll(t, client, objects)
	before, err := c.Status(t.Context())
	c.Close()
	if err != nil {
		t.Fatal(err)
	}

	// Without flags and keys: everything is as it was.
	again := Defaults()
	again.Dir, again.S3, again.Admin = cfg.Dir, cfg.S3, cfg.Admin
	if c, err = start(again); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := c.Config()
	if got.Profile != cfg.Profile || got.Zones != 3 || got.Hosts != 1 || got.Disks != 3 || got.AccessKey != cfg.AccessKey || got.SecretKey != cfg.SecretKey {
		t.Errorf("started again as %+v", got)
	}
	devtest.AwaitHealthy(t, healBound, c.Status)
	after, err := c.Status(t.Context())
	if err != nil || after.Cluster != before.Cluster || after.Disks != before.Disks || after.Hosts != before.Hosts || after.Epoch < before.Epoch {
		t.Errorf("status %+v, %v; before %+v", after, err, before)
	}
	client = s3Client(t, c.S3(), got)
	checkAll(t, client, objects, "after the restart")
	out, err := client.ListBuckets(t.Context(), &s3.ListBucketsInput{})
	if err != nil || len(out.Buckets) != 1 || aws.ToString(out.Buckets[0].Name) != bucketName {
		t.Errorf("buckets %+v, %v", out, err)
	}
	putAll(t, client, samples(4, "later"))
}

// foreign makes a directory that holds something else.
func foreign(t *testing.T, cfg Config) Config {
	cfg.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cfg.Dir, "thesis.tex"), []byte("the only copy"), 0o600); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestContradiction gives flags that the directory contradicts.
func TestContradiction(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	if _, _, err := open(cfg, formOne, func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	for flag, change := range map[string]func(*Config){
		"profile":   func(c *Config) { c.Profile = ashlar.Code{K: 8, M: 4} },
		"zones":     func(c *Config) { c.Zones++ },
		"hosts":     func(c *Config) { c.Hosts++ },
		"disks":     func(c *Config) { c.Disks++ },
		"members":   func(c *Config) { c.Members = 3 },
		"gateways":  func(c *Config) { c.Gateways++ },
		"disk-size": func(c *Config) { c.DiskBytes *= 2 },
		"devices":   func(c *Config) { c.Devices = []string{"/dev/nothing"} },
	} {
		bad := cfg
		change(&bad)
		_, _, err := open(bad, formOne, func(f string) bool { return f == flag })
		if err == nil || !strings.Contains(err.Error(), "--"+flag) || !strings.Contains(err.Error(), "choose another --dir") {
			t.Errorf("--%s: %v", flag, err)
		}
		got, _, err := open(bad, formOne, func(string) bool { return false })
		if err != nil || got.Zones != cfg.Zones || got.DiskBytes != cfg.DiskBytes || got.Profile != cfg.Profile || len(got.Devices) != 0 {
			t.Errorf("--%s is a default: %+v, %v", flag, got, err)
		}
	}
	if _, _, err := open(cfg, formProcesses, func(string) bool { return false }); err == nil || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("the other form: %v", err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, stateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := open(cfg, formOne, func(string) bool { return false }); err == nil || !strings.Contains(err.Error(), stateFile) {
		t.Errorf("a damaged %s: %v", stateFile, err)
	}
}

// TestKillAll runs the command itself, kills its whole tree with SIGKILL, and
// starts it again.
func TestKillAll(t *testing.T) {
	for _, form := range []string{"one process", "processes"} {
		t.Run(form, func(t *testing.T) {
			cfg := testConfig(t)
			args := []string{"dev", "--json", "--dir", cfg.Dir, "--s3", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--disk-size", "1GiB"}
			if form == "processes" {
				args = append(args, "--processes")
			}
			first := startCommand(t, cfg, args)
			objects := samples(5, "killed")
			client := s3Client(t, first.S3, cfg)
			makeBucket(t, client)
			putAll(t, client, objects)
			first.killTree(t, form == "processes")

			second := startCommand(t, cfg, args)
			client = s3Client(t, second.S3, cfg)
			checkAll(t, client, objects, "after kill -9 of everything")
			putAll(t, client, samples(6, "later"))
			second.killTree(t, form == "processes")
		})
	}
}

// command is a running `ashlar dev`.
type command struct {
	S3    string `json:"s3"`
	Admin string `json:"admin"`
	cmd   *exec.Cmd
}

func startCommand(t *testing.T, cfg Config, args []string) *command {
	t.Helper()
	c := &command{cmd: exec.Command(devtest.Program(t), args...)}
	c.cmd.Env = append(os.Environ(), "ASHLAR_ACCESS_KEY="+cfg.AccessKey, "ASHLAR_SECRET_KEY="+cfg.SecretKey)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var errs strings.Builder
	c.cmd.Stderr = &errs
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			c.cmd.Process.Kill()
			c.cmd.Wait()
		}
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, c)
	}
	if err != nil {
		c.cmd.Process.Kill()
		c.cmd.Wait()
		t.Fatalf("%v: %v\n%s", args, err, errs.String())
	}
	return c
}

// killTree kills the command and waits until its children are gone as well:
// they must not outlive it.
func (c *command) killTree(t *testing.T, children bool) {
	t.Helper()
	pids := childrenOf(c.cmd.Process.Pid)
	if want := map[bool]int{true: 13, false: 0}[children]; len(pids) != want {
		t.Errorf("%d children, want %d", len(pids), want)
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.cmd.Wait()
	devtest.Eventually(t, 10*time.Second, func() error {
		for _, pid := range pids {
			// A dead child may wait for whoever inherited it to take note.
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(b), ") Z ") {
				return fmt.Errorf("process %d has outlived its parent", pid)
			}
		}
		return nil
	})
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) (children []int) {
	names, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		fields := strings.Fields(rest)
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			children = append(children, child)
		}
	}
	slices.Sort(children)
	return children
}
