package blockdev

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Holder says in words who holds the device or file, as far as this process may
// know: a mount, swap, a RAID or device-mapper set, or a process. It is for
// messages only; the answer may be old when it arrives.
func Holder(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "an unknown holder"
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "an unknown holder"
	}
	var found string
	if info.Mode().IsRegular() {
		found = lockHolder(st)
	} else {
		found = deviceHolder(uint64(st.Rdev))
	}
	if found == "" {
		found = openHolder(info)
	}
	if found == "" {
		return "another holder, which this user cannot see"
	}
	return found
}

// lockHolder finds the owner of the file's flock in /proc/locks.
func lockHolder(st *syscall.Stat_t) string {
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for _, f := range fieldsOf("/proc/locks") {
		if len(f) >= 6 && f[1] == "FLOCK" && f[5] == want {
			if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
				return process(pid)
			}
		}
	}
	return ""
}

// deviceHolder looks for what the kernel itself has put on the device or on one
// of its partitions.
func deviceHolder(rdev uint64) string {
	sys := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(rdev), unix.Minor(rdev))
	numbers := map[string]bool{fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev)): true}
	parts, _ := filepath.Glob(sys + "/*/dev")
	for _, p := range parts {
		if b, err := os.ReadFile(p); err == nil {
			numbers[strings.TrimSpace(string(b))] = true
		}
	}
	for _, f := range fieldsOf("/proc/self/mountinfo") {
		if len(f) > 4 && numbers[f[2]] {
			return "a file system mounted at " + f[4]
		}
	}
	for _, f := range fieldsOf("/proc/swaps") {
		var st unix.Stat_t
		if len(f) > 0 && strings.HasPrefix(f[0], "/") && unix.Stat(f[0], &st) == nil &&
			numbers[fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))] {
			return "swap"
		}
	}
	for _, pattern := range []string{sys + "/holders/*", sys + "/*/holders/*"} {
		if held, _ := filepath.Glob(pattern); len(held) > 0 {
			return "the device " + filepath.Base(held[0])
		}
	}
	return ""
}

// openHolder looks for a process that has the device or file open for writing.
func openHolder(want os.FileInfo) string {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		info, err := os.Stat(fd)
		if err != nil || !os.SameFile(info, want) {
			continue
		}
		parts := strings.Split(fd, "/")
		if pid, err := strconv.Atoi(parts[2]); err == nil && mayHold(pid, parts[4]) {
			return process(pid)
		}
	}
	return ""
}

// mayHold reports whether an open file could be the one in the way: any that is
// open for writing. That it was opened with O_EXCL the kernel does not tell.
func mayHold(pid int, fd string) bool {
	for _, f := range fieldsOf(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd)) {
		if len(f) == 2 && f[0] == "flags:" {
			flags, err := strconv.ParseUint(f[1], 8, 64)
			return err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
		}
	}
	return false
}

func process(pid int) string {
	if pid == os.Getpid() {
		return fmt.Sprintf("this process (pid %d)", pid)
	}
	name := "process"
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
		name = strings.TrimSpace(string(b))
	}
	return fmt.Sprintf("%s (pid %d)", name, pid)
}

// fieldsOf returns the fields of every line of a small proc file, or nothing.
func fieldsOf(path string) [][]string {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	var lines [][]string
	for scan := bufio.NewScanner(file); scan.Scan(); {
		lines = append(lines, strings.Fields(scan.Text()))
	}
	return lines
}
