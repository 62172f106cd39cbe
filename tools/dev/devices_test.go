package dev

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"ashlar"
	"ashlar/diskmgr/blockdev/looptest"
)

// TestLoopDevices runs a cluster on block devices: it takes blank ones only,
// and knows its disks by their labels when their names have changed.
func TestLoopDevices(t *testing.T) {
	cfg := testConfig(t)
	cfg.Zones, cfg.Hosts, cfg.Disks, cfg.Members, cfg.Profile = 3, 1, 2, 1, ashlar.Code{K: 4, M: 2}
	for range 6 {
		device, _ := looptest.Device(t, 512*ashlar.MiB, 4096)
		cfg.Devices = append(cfg.Devices, device)
	}
	refuseForeign(t, cfg)

	c := startOne(t, cfg)
	client := s3Client(t, c.S3(), cfg)
	makeBucket(t, client)
	objects := samples(8, "loop")
	putAll(t, client, objects)
	checkAll(t, client, objects, "on block devices")
	before := diskNames(c)
	c.Close()

	for _, order := range []string{"the same order", "another order within the hosts"} {
		if order != "the same order" {
			for i := 0; i < len(cfg.Devices); i += 2 {
				cfg.Devices[i], cfg.Devices[i+1] = cfg.Devices[i+1], cfg.Devices[i]
			}
		}
		c, err := Start(t.Context(), cfg, Options{})
		if err != nil {
			t.Fatalf("%s: %v", order, err)
		}
		client := s3Client(t, c.S3(), cfg)
		awaitHealthy(t, healBound, c.Status)
		checkAll(t, client, objects, order)
		more := samples(9, order)
		putAll(t, client, more)
		objects = append(objects, more...)
		t.Logf("%s: %v, before %v", order, diskNames(c), before)
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
// names the device and what it holds, and writes nothing to it.
func refuseForeign(t *testing.T, cfg Config) {
	cfg.Dir = t.TempDir() + "/refused"
	cfg.Devices = slices.Clone(cfg.Devices)
	device, _ := looptest.Device(t, 512*ashlar.MiB, 4096)
	// The last: nothing may be written to the other devices for it, either.
	cfg.Devices[5] = device
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-L", "thesis", device).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	before := deviceSum(t, device)
	c, err := Start(t.Context(), cfg, Options{})
	if err == nil {
		c.Close()
		t.Fatal("a device with a filesystem was taken")
	}
	if !strings.Contains(err.Error(), device) || !strings.Contains(err.Error(), "ext4") {
		t.Errorf("%v: want the device %s and ext4", err, device)
	}
	if !bytes.Equal(before, deviceSum(t, device)) {
		t.Error("the refused device was written to")
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
