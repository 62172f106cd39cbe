package diskmgr_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ashlar/diskmgr"
	"ashlar/diskmgr/blockdev/looptest"
)

// TestMain lets this test program stand where the rule expects
// `/usr/bin/ashlar disk udev DEVICE`, with the function that the command calls.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "disk" && os.Args[2] == "udev" {
		lines, err := diskmgr.UdevProperties(os.Args[3])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(strings.Join(lines, "\n"))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// udevScript runs udev's rules on one device inside a mount namespace of its
// own: its own /dev with nothing but the device, its own /run with our rule, and
// a group file that knows ashlar. Nothing of the machine changes. It prints what
// udev decided and then the owner and mode of the node.
const udevScript = `
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/udev/rules.d
cp "$RULE" /run/udev/rules.d/65-ashlar.rules
mount --bind "$GROUPS_FILE" /etc/group
mount -t tmpfs tmpfs /dev
mknod -m 600 /dev/null c 1 3
mknod -m 600 "/dev/$NAME" b "$MAJOR" "$MINOR"
udevadm test --action=add "/sys/class/block/$NAME" 2>&1
echo "node $(stat -c '%a %g' "/dev/$NAME") $(ls /dev/disk/by-ashlar 2>/dev/null)"
`

const testGroup = 4242

func udev(t *testing.T, device string) string {
	t.Helper()
	for _, tool := range []string{"unshare", "udevadm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed, so the udev rule cannot be run", tool)
		}
	}
	if _, err := os.Stat("/usr/lib/udev/rules.d/60-persistent-storage.rules"); err != nil {
		t.Skipf("udev's own rules are not installed: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rule := strings.ReplaceAll(string(contents(t, "../systemd/65-ashlar.rules")), "/usr/bin/ashlar", self)
	groups := append(contents(t, "/etc/group"), fmt.Appendf(nil, "ashlar:x:%d:\n", testGroup)...)
	for name, content := range map[string][]byte{"rule": []byte(rule), "group": groups} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Base(device)
	number := string(contents(t, "/sys/class/block/"+name+"/dev"))
	major, minor, _ := strings.Cut(strings.TrimSpace(number), ":")
	cmd := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-c", udevScript)
	cmd.Env = append(os.Environ(), "RULE="+filepath.Join(dir, "rule"), "GROUPS_FILE="+filepath.Join(dir, "group"),
		"NAME="+name, "MAJOR="+major, "MINOR="+minor)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("udevadm test: %v\n%s", err, out)
	}
	return string(out)
}

func TestUdevGivesClaimedDisksToTheGroupAndNoOthers(t *testing.T) {
	device, _ := looptest.Device(t, diskBytes, 512)
	blank := udev(t, device)
	if strings.Contains(blank, "ashlar_disk") || strings.Contains(blank, fmt.Sprint("node 660 ", testGroup)) {
		t.Errorf("a blank device is taken for ours:\n%s", blank)
	}
	o := options()
	o.Name = "b1/d 02"
	disk := claim(t, device, o)
	id := disk.Label().Disk.String()
	held := udev(t, device) // udev looks while the daemon holds the disk
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	for what, out := range map[string]string{"held": held, "closed": udev(t, device)} {
		for _, want := range []string{
			"ID_FS_TYPE=ashlar_disk", "ID_FS_UUID=" + id, "ID_FS_LABEL=b1/d_02", "UDISKS_IGNORE=1", "ASHLAR_CLUSTER=aa01",
			fmt.Sprintf("node 660 %d %s", testGroup, id),
		} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", what, want, out)
			}
		}
	}

	foreign, _ := looptest.Device(t, diskBytes, 512)
	if out, err := exec.Command("mkfs.ext4", "-q", foreign).CombinedOutput(); err != nil {
		t.Logf("a device with ext4 is not tested: %v %s", err, out)
		return
	}
	if out := udev(t, foreign); strings.Contains(out, "ashlar_disk") || !strings.Contains(out, "ID_FS_TYPE=ext4") {
		t.Errorf("a device with ext4:\n%s", out)
	}
}
