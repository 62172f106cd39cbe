package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	restartPause = time.Second      // as RestartSec= of our units
	stopTimeout  = 30 * time.Second // as TimeoutStopSec= of our units
)

// supervisor keeps child processes running, as systemd would: one that dies
// unasked is started again after a pause.
type supervisor struct {
	log     *slog.Logger
	program string      // empty: the one that is running
	spawn   chan func() // run by the one thread that forks; closed by close
	// enter calls a function where the named child shall live
	enter func(name string, f func()) error

	mu struct {
		sync.Mutex
		children map[string]*child
		closed   bool
	}
	wg sync.WaitGroup // one for each running child, one for the forking thread
}

type child struct {
	name    string
	args    []string
	logPath string

	wanted bool // under supervisor.mu
	cmd    *exec.Cmd
	done   chan struct{} // closed when cmd ended
}

func newSupervisor(log *slog.Logger, program string) *supervisor {
	s := &supervisor{log: log, program: program, spawn: make(chan func())}
	s.enter = func(_ string, f func()) error { f(); return nil }
	s.mu.children = map[string]*child{}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		// A parent-death signal is sent when the forking thread ends, so one
		// thread that lives as long as we do forks all children.
		runtime.LockOSThread()
		for f := range s.spawn {
			f()
		}
	}()
	return s
}

// add makes a child known and starts it. Its output is appended to logPath.
func (s *supervisor) add(name, logPath string, args ...string) error {
	s.mu.Lock()
	c := &child{name: name, args: args, logPath: logPath}
	s.mu.children[name] = c
	s.mu.Unlock()
	return s.start(name)
}

// start starts a child that is not running; a running one is left alone.
func (s *supervisor) start(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.mu.children[name]
	if c == nil || s.mu.closed {
		return fmt.Errorf("no process %q", name)
	}
	c.wanted = true
	if c.cmd != nil {
		return nil
	}
	return s.forkLocked(c)
}

func (s *supervisor) forkLocked(c *child) error {
	out, err := os.OpenFile(c.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	program := s.program
	if program == "" {
		if program, err = os.Executable(); err != nil {
			return err
		}
	}
	cmd := exec.Command(program, c.args...)
	cmd.Stdout, cmd.Stderr = io.Writer(out), out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	s.spawn <- func() {
		var err error
		left := s.enter(c.name, func() { err = cmd.Start() })
		started <- errors.Join(left, err)
	}
	if err := <-started; err != nil {
		return err
	}
	c.cmd, c.done = cmd, make(chan struct{})
	s.wg.Add(1)
	go s.watch(c, cmd, c.done)
	return nil
}

// watch waits for a child and starts it again if it is still wanted.
func (s *supervisor) watch(c *child, cmd *exec.Cmd, done chan struct{}) {
	defer s.wg.Done()
	err := cmd.Wait()
	close(done)
	s.mu.Lock()
	c.cmd = nil
	again := c.wanted && !s.mu.closed
	s.mu.Unlock()
	if !again {
		return
	}
	s.log.Warn("process ended; starting it again", "name", c.name, "pid", cmd.Process.Pid, "cause", err)
	time.Sleep(restartPause)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.wanted || s.mu.closed || c.cmd != nil {
		return
	}
	if err := s.forkLocked(c); err != nil {
		s.log.Error("process did not start", "name", c.name, "cause", err)
	}
}

// kill ends a child with SIGKILL and keeps it down until start.
func (s *supervisor) kill(name string) error {
	s.mu.Lock()
	c := s.mu.children[name]
	if c == nil {
		s.mu.Unlock()
		return fmt.Errorf("no process %q", name)
	}
	c.wanted = false
	cmd, done := c.cmd, c.done
	s.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	<-done
	return nil
}

// pids returns the process ids of the running children by name.
func (s *supervisor) pids() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := map[string]int{}
	for name, c := range s.mu.children {
		if c.cmd != nil {
			m[name] = c.cmd.Process.Pid
		}
	}
	return m
}

// close asks the named children to end, in order, each group together, and
// kills what has not ended within stopTimeout.
func (s *supervisor) close(groups ...[]string) {
	s.mu.Lock()
	s.mu.closed = true
	s.mu.Unlock()
	for _, names := range groups {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		for _, name := range names {
			s.signal(name, syscall.SIGTERM)
		}
		for _, name := range names {
			s.waitOrKill(ctx, name)
		}
		cancel()
	}
	close(s.spawn)
	s.wg.Wait()
}

// signal sends a signal to a child and reports whether it ran.
func (s *supervisor) signal(name string, sig os.Signal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.mu.children[name]
	if c == nil || c.cmd == nil {
		return false
	}
	if err := c.cmd.Process.Signal(sig); err != nil {
		s.log.Debug("signal", "name", name, "cause", err)
		return false
	}
	return true
}

func (s *supervisor) waitOrKill(ctx context.Context, name string) {
	s.mu.Lock()
	c := s.mu.children[name]
	var done chan struct{}
	if c != nil && c.cmd != nil {
		done = c.done
	}
	s.mu.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
		s.log.Warn("process did not end in time; killed", "name", name)
		s.signal(name, os.Kill)
		<-done
	}
}
