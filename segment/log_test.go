package segment_test

import (
	"testing"

	"ashlar/diskmgr/blockdev/looptest"
	"ashlar/segment"
	"ashlar/segment/segmenttest"
	"ashlar/segment/simdev"
)

func TestConformanceSimulated(t *testing.T) {
	segmenttest.Run(t, func(t *testing.T) segment.Device { return simdev.New(segmenttest.DeviceBytes, 512, 1) })
}

func TestConformanceFile(t *testing.T) {
	segmenttest.Run(t, func(t *testing.T) segment.Device { return segmenttest.TempFile(t, segmenttest.DeviceBytes) })
}

func TestConformanceLoopDevice(t *testing.T) {
	segmenttest.Run(t, func(t *testing.T) segment.Device {
		return segmenttest.Loop(t, segmenttest.DeviceBytes, looptest.Attach)
	})
}

func TestDefaultSegmentBytes(t *testing.T) {
	for device, want := range map[int64]int64{
		20 << 40: 256 << 20, 16 << 30: 256 << 20, 1 << 30: 32 << 20, 256 << 20: 8 << 20, 255 << 20: 8 << 20,
		128 << 20: 8 << 20, 64 << 20: 4 << 20, 16 << 20: 1 << 20, 100_000: 64 << 10,
	} {
		if got := segment.DefaultSegmentBytes(device); got != want {
			t.Errorf("device of %d: segments of %d, want %d", device, got, want)
		}
	}
}
