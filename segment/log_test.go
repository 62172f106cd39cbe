package segment_test

import (
	"testing"

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
	segmenttest.Run(t, func(t *testing.T) segment.Device { return segmenttest.Loop(t, segmenttest.DeviceBytes) })
}
