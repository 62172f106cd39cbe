package dev

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"ashlar"
	"ashlar/diskmgr/blockdev/looptest"
	"ashlar/tools/dev/devtest"
)

// TestLoopDevices, fault 22: it runs a cluster on block devices: it takes blank ones only,
// and knows its disks by their labels when their names have changed.
func TestLoopDevices(t *testing.T) {
	cfg := testConfig(t)
	cfg.Zones, cfg.Hosts, cfg.Disks, cfg.Members, cfg.Profile = 3, 1, 2, 1, ashlar.Code{K: 4, M: 2}
	// The names are links, so that they can change what they mean, as sdb and
	// sdc do at a boot.
	names := t.TempDir()
	var devices []string
	for i := range 6 {
		device, _ := looptest.Device(t, 512*ashlar.MiB, 4096)
		devices = append(devices, device)
		cfg.Devices = append(cfg.Devices, fmt.Sprintf("%s/sd%c", names, 'b'+i))
	}
	link := func(order ...int) {
		for i, name := range cfg.Devices {
			os.Remove(name)
			if err := os.Symlink(devices[order[i]], name); err != nil {
				t.Fatal(err)
			}
		}
	}
	link(0, 1, 2, 3, 4, 5)
	refuseForeign(t, cfg)

	var objects []object
	for i, order := range [][]int{
		{0, 1, 2, 3, 4, 5}, // as they were claimed
		{0, 1, 2, 3, 4, 5},
		{1, 0, 3, 2, 4, 5}, // names changed within the hosts
		{1, 2, 3, 0, 4, 5}, // disks moved to other hosts
	} {
		link(order...)
		c, err := Start(t.Context(), cfg, Options{})
		if err != nil {
			t.Fatalf("devices %v: %v", order, err)
		}
		t.Cleanup(c.Close)
		client := s3Client(t, c.S3(), cfg)
		if i == 0 {
			makeBucket(t, client)
		}
		devtest.AwaitHealthy(t, healBound, c.Status)
		when := fmt.Sprintf("start %d with devices %v", i+1, order)
		checkAll(t, client, objects, when)
		more := samples(8, when)
		putAll(t, client, more)
		objects = append(objects, more...)
		checkAll(t, client, objects, when)
		t.Logf("%s: %v", when, diskNames(c))
		c.Close()
	}
}

// diskNames lists ids of disks with the names that the map gives them.
func diskNames(c *Cluster) (names []string) {
	for _, d := range c.place.Map().Disks {
		names = append(names, d.Name+"="+d.ID.String()[:6])
	}
	slices.Sort(names)
	return names
}

// refuseForeign puts a filesystem on one of the devices: the start is refused,
// names the device and what it holds, and writes nothing to any of them: the
// good ones serve the next cluster.
func refuseForeign(t *testing.T, cfg Config) {
	cfg.Dir = t.TempDir() + "/refused"
	cfg.Devices = slices.Clone(cfg.Devices)
	device, _ := looptest.Device(t, 512*ashlar.MiB, 4096)
	// The last: nothing may be written to the other devices for it, either.
	cfg.Devices[5] = device // what is named is a device, not a link
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-L", "thesis", device).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	before, other := deviceSum(t, device), deviceSum(t, cfg.Devices[0])
	c, err := Start(t.Context(), cfg, Options{})
	if err == nil {
		c.Close()
		t.Fatal("a device with a filesystem was taken")
	}
	if !strings.Contains(err.Error(), device) || !strings.Contains(err.Error(), "ext4") {
		t.Errorf("%v: want the device %s and ext4", err, device)
	}
	if !bytes.Equal(before, deviceSum(t, device)) || !bytes.Equal(other, deviceSum(t, cfg.Devices[0])) {
		t.Error("a device was written to although the start was refused")
	}
	twice := cfg
	twice.Devices = append(slices.Clone(cfg.Devices[:5]), cfg.Devices[0])
	if _, err := Start(t.Context(), twice, Options{}); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("one device named twice: %v", err)
	}
}

func deviceSum(t *testing.T, device string) []byte {
	t.Helper()
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return h.Sum(nil)
}
