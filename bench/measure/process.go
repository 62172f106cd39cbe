package measure

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is what /proc counts in: USER_HZ is 100 on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// Usage is what a process has used since it started.
type Usage struct {
	CPU time.Duration
	// ResidentBytes is its memory now.
	ResidentBytes int64
}

// ProcessUsage reads the CPU time (user and system, all threads, ended ones
// too) and the resident memory of a process.
func ProcessUsage(pid int) (Usage, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return parseStat(raw)
}

// parseStat reads fields 14, 15 (ticks) and 24 (pages) of /proc/PID/stat. The
// second field is the command in brackets and may itself hold brackets and spaces.
func parseStat(raw []byte) (Usage, error) {
	end := bytes.LastIndexByte(raw, ')')
	fields := strings.Fields(string(raw[end+1:]))
	if end < 0 || len(fields) < 22 {
		return Usage{}, fmt.Errorf("process stat: %d fields after the command, want at least 22", len(fields))
	}
	var n [3]int64
	for i, at := range []int{11, 12, 21} {
		v, err := strconv.ParseInt(fields[at], 10, 64)
		if err != nil {
			return Usage{}, fmt.Errorf("process stat field %d: %w", at+3, err)
		}
		n[i] = v
	}
	return Usage{CPU: time.Duration(n[0]+n[1]) * clockTick, ResidentBytes: n[2] * int64(os.Getpagesize())}, nil
}

// ProcessesUsage sums ProcessUsage over several processes.
func ProcessesUsage(pids []int) (sum Usage, err error) {
	for _, pid := range pids {
		u, err := ProcessUsage(pid)
		if err != nil {
			return sum, err
		}
		sum.CPU += u.CPU
		sum.ResidentBytes += u.ResidentBytes
	}
	return sum, nil
}
