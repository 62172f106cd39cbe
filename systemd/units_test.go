package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var services = []string{"ashlar-daemon.service", "ashlar-placement.service", "ashlar-gateway.service"}

// smartUnits ask the disks; nothing else has a capability.
const (
	smartService = "ashlar-smart.service"
	smartTimer   = "ashlar-smart.timer"
)

// sandboxed are all units that run a program.
var sandboxed = append(slices.Clone(services), smartService)

// exposureMaxTenths is the ceiling of systemd-analyze security, in tenths.
const exposureMaxTenths = "20"

// stock are the units of systemd itself that ours lean on.
var stock = []string{"sysinit", "basic", "network", "network-online", "shutdown", "local-fs", "local-fs-pre", "swap",
	"sockets", "timers", "paths", "slices", "multi-user"}

func need(t *testing.T, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		t.Skipf("%s is not installed, so the files cannot be checked with systemd's own tools", tool)
	}
	return path
}

func put(t *testing.T, path string, content []byte, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, mode); err != nil {
		t.Fatal(err)
	}
}

func ours(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// image is a root directory as the packages would make it: our files at their
// places, a program at /usr/bin/ashlar, and the stock units.
func image(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range append(slices.Clone(sandboxed), "ashlar.target", smartTimer) {
		put(t, filepath.Join(root, "usr/lib/systemd/system", name), ours(t, name), 0o644)
	}
	put(t, filepath.Join(root, "usr/lib/sysusers.d/ashlar.conf"), ours(t, "ashlar.sysusers"), 0o644)
	put(t, filepath.Join(root, "usr/lib/tmpfiles.d/ashlar.conf"), ours(t, "ashlar.tmpfiles"), 0o644)
	put(t, filepath.Join(root, "usr/bin/ashlar"), []byte("#!/bin/sh\n"), 0o755)
	for _, name := range stock {
		content, err := os.ReadFile(filepath.Join("/usr/lib/systemd/system", name+".target"))
		if err != nil {
			t.Skipf("the units of systemd itself are not where they are looked for: %v", err)
		}
		put(t, filepath.Join(root, "usr/lib/systemd/system", name+".target"), content, 0o644)
	}
	return root
}

func verify(t *testing.T, root string) (string, error) {
	t.Helper()
	args := append([]string{"verify", "--man=no", "--root=" + root, "ashlar.target", smartTimer}, sandboxed...)
	out, err := exec.Command(need(t, "systemd-analyze"), args...).CombinedOutput()
	return string(out), err
}

func TestUnitsVerifyClean(t *testing.T) {
	need(t, "systemd-analyze")
	if out, err := verify(t, image(t)); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// TestVerifyCanFail: the check above sees a misspelt key and a missing program.
func TestVerifyCanFail(t *testing.T) {
	need(t, "systemd-analyze")
	root := image(t)
	put(t, filepath.Join(root, "usr/lib/systemd/system/ashlar-gateway.service"),
		[]byte(strings.Replace(string(ours(t, "ashlar-gateway.service")), "WatchdogSec=", "WatchdoggSec=", 1)), 0o644)
	if err := os.Remove(filepath.Join(root, "usr/bin/ashlar")); err != nil {
		t.Fatal(err)
	}
	out, err := verify(t, root)
	if err == nil || !strings.Contains(out, "WatchdoggSec") || !strings.Contains(out, "/usr/bin/ashlar") {
		t.Errorf("verify did not see it: %v\n%s", err, out)
	}
}

func TestSandboxScore(t *testing.T) {
	tool := need(t, "systemd-analyze")
	overall := regexp.MustCompile(`Overall exposure level.*: ([0-9.]+)`)
	for _, name := range sandboxed {
		path := filepath.Join(t.TempDir(), name)
		put(t, path, ours(t, name), 0o644)
		out, err := exec.Command(tool, "security", "--offline=true", "--no-pager", "--threshold="+exposureMaxTenths, path).CombinedOutput()
		score := overall.FindSubmatch(out)
		if err != nil || score == nil {
			t.Errorf("%s is above %s tenths: %v\n%s", name, exposureMaxTenths, err, out)
			continue
		}
		t.Logf("%s %s", name, score[1])
		open := regexp.MustCompile(`(?m)^(CapabilityBoundingSet|NoNewPrivileges|ProtectSystem|User)=.*$`).
			ReplaceAllString(string(ours(t, name)), "")
		put(t, path, []byte(open), 0o644)
		if exec.Command(tool, "security", "--offline=true", "--no-pager", "--threshold="+exposureMaxTenths, path).Run() == nil {
			t.Errorf("%s: the ceiling does not notice a sandbox with holes", name)
		}
	}
}

func TestUsersAndDirectories(t *testing.T) {
	root := image(t)
	out, err := exec.Command(need(t, "systemd-sysusers"), "--dry-run", "--root="+root).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-sysusers: %v\n%s", err, out)
	}
	for _, name := range services {
		unit := string(ours(t, name))
		for _, key := range []string{"User", "Group"} {
			m := regexp.MustCompile(`(?m)^` + key + `=(\S+)$`).FindStringSubmatch(unit)
			if m == nil || !strings.Contains(string(out), "'"+m[1]+"'") {
				t.Errorf("%s: %s= %v is not made by ashlar.sysusers:\n%s", name, key, m, out)
			}
		}
	}
	if out, err := exec.Command(need(t, "systemd-tmpfiles"), "--create", "--root="+root).CombinedOutput(); err != nil && os.Geteuid() == 0 {
		t.Fatalf("systemd-tmpfiles: %v\n%s", err, out)
	}
	if os.Geteuid() != 0 {
		t.Skip("not root: tmpfiles cannot give directories to root, so they are not looked at")
	}
	for _, dir := range []string{"etc/ashlar", "var/lib/ashlar"} {
		if info, err := os.Stat(filepath.Join(root, dir)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v %v", dir, info, err)
		}
	}
}

// TestTheServicesAreAlikeWhereTheyMust: what every unit has to have.
func TestTheServicesAreAlikeWhereTheyMust(t *testing.T) {
	for _, name := range services {
		verb := strings.TrimSuffix(strings.TrimPrefix(name, "ashlar-"), ".service")
		lines := strings.Split(string(ours(t, name)), "\n")
		has := map[string]bool{}
		for _, l := range lines {
			has[l] = true
		}
		for _, want := range []string{
			"Type=notify", "WatchdogSec=30s", "TimeoutStopSec=30s", "PartOf=ashlar.target", "WantedBy=ashlar.target",
			"CapabilityBoundingSet=", "NoNewPrivileges=yes", "ProtectSystem=strict", "DevicePolicy=closed", "UMask=0077",
			"ExecStart=/usr/bin/ashlar " + verb + " --config /etc/ashlar/" + verb + ".toml",
			"ConditionPathExists=/etc/ashlar/" + verb + ".toml",
		} {
			if !has[want] {
				t.Errorf("%s lacks %s", name, want)
			}
		}
		if devices := strings.Contains(string(ours(t, name)), "DeviceAllow="); devices != (verb == "daemon") {
			t.Errorf("%s: only the daemon may open devices", name)
		}
	}
}

// TestOnlyTheHelperMayAskDisks: one unit has capabilities, those that it needs,
// and no network; and the daemon hears the kernel say what is plugged.
func TestOnlyTheHelperMayAskDisks(t *testing.T) {
	line := func(name, key string) string {
		m := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindStringSubmatch(string(ours(t, name)))
		if m == nil {
			t.Errorf("%s says nothing of %s", name, key)
			return ""
		}
		return m[1]
	}
	for _, name := range sandboxed {
		want := ""
		if name == smartService {
			want = "CAP_SYS_RAWIO CAP_SYS_ADMIN"
		}
		if got := line(name, "CapabilityBoundingSet"); got != want {
			t.Errorf("%s: capabilities %q, want %q", name, got, want)
		}
		if netlink := strings.Contains(line(name, "RestrictAddressFamilies"), "AF_NETLINK"); netlink != (name == "ashlar-daemon.service") {
			t.Errorf("%s: netlink %v", name, netlink)
		}
	}
	for key, want := range map[string]string{"Type": "oneshot", "PrivateNetwork": "yes", "RuntimeDirectory": "ashlar/smart",
		"RuntimeDirectoryPreserve": "yes", "ExecStart": "/usr/bin/ashlar smart"} {
		if got := line(smartService, key); got != want {
			t.Errorf("%s: %s=%s, want %s", smartService, key, got, want)
		}
	}
	if line(smartTimer, "WantedBy") != "ashlar.target" || line(smartTimer, "OnUnitActiveSec") != "30min" {
		t.Error("the timer does not come again")
	}
}

// neededCalls are system calls that a service cannot do without and that a
// filter could take away by accident: those of raw I/O, of Go's runtime, of
// Pebble and etcd, and those that start blkid.
var neededCalls = []string{
	"openat", "flock", "fdatasync", "fsync", "fallocate", "ioctl", "pread64", "pwrite64", "io_uring_setup", "io_uring_enter",
	"io_uring_register", "mmap", "munmap", "madvise", "mlock", "prlimit64", "sched_getaffinity", "futex", "clone", "clone3", "execve",
	"wait4", "waitid", "pidfd_open", "pidfd_send_signal", "epoll_pwait", "eventfd2", "accept4", "sendmsg", "setsockopt", "getrandom",
	"renameat", "rename", "unlinkat", "linkat", "mkdirat", "ftruncate", "statx", "newfstatat", "getdents64", "fcntl", "sync_file_range",
	"tgkill", "rt_sigaction", "sigaltstack", "nanosleep", "timer_create", "membarrier", "rseq",
}

// forbiddenCalls must not get through.
var forbiddenCalls = []string{"mount", "umount2", "ptrace", "init_module", "reboot", "swapon", "setuid", "chown", "bpf", "iopl", "kexec_load"}

// TestTheFilterLetsThroughWhatIsCalled works out, from the sets that systemd
// prints, which system calls the units allow.
func TestTheFilterLetsThroughWhatIsCalled(t *testing.T) {
	out, err := exec.Command(need(t, "systemd-analyze"), "--no-pager", "syscall-filter").Output()
	if err != nil {
		t.Fatal(err)
	}
	sets, current := map[string][]string{}, ""
	for line := range strings.Lines(string(out)) {
		word := strings.TrimSpace(line)
		switch {
		case word == "" || strings.HasPrefix(word, "#"):
		case strings.HasPrefix(line, "@"):
			current = word
		default:
			sets[current] = append(sets[current], word)
		}
	}
	var expand func(word string, into map[string]bool)
	expand = func(word string, into map[string]bool) {
		if !strings.HasPrefix(word, "@") {
			into[word] = true
		}
		for _, member := range sets[word] {
			expand(member, into)
		}
	}
	for _, name := range sandboxed {
		allowed, denied := map[string]bool{}, map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)^SystemCallFilter=(~?)(.*)$`).FindAllStringSubmatch(string(ours(t, name)), -1) {
			for _, word := range strings.Fields(m[2]) {
				if strings.HasPrefix(word, "@") && sets[word] == nil {
					t.Fatalf("%s: this systemd knows no %s", name, word)
				}
				expand(word, map[string]map[string]bool{"": allowed, "~": denied}[m[1]])
			}
		}
		passes := func(call string) bool { return allowed[call] && !denied[call] }
		for _, call := range neededCalls {
			if !passes(call) {
				t.Errorf("%s: %s is not let through", name, call)
			}
		}
		for _, call := range forbiddenCalls {
			if passes(call) {
				t.Errorf("%s: %s is let through", name, call)
			}
		}
	}
}
